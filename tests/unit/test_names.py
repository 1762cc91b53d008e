"""How labels become file names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.server.records import ScanRecord
from xnatfs.tree.names import (
    MAX_NAME_BYTES,
    PROBED,
    distinct,
    natural,
    scan_folder,
    spell,
    spell_label,
    unspell,
)

# What breaks spellings: the marks of the spelling itself, what cannot be in a name, and any other character
# (lone surrogates too).
AWKWARD = st.text(
    st.one_of(st.sampled_from("%%%~/.0123456789abcdefABCDEF\0\n\x7f\x85é\ud800\udcff"), st.characters()),
    min_size=1,
    max_size=40,
)
LONG = st.integers(1, 400).flatmap(
    lambda length: st.text(st.sampled_from("aé%/.~2F漢"), min_size=length, max_size=length)
)


@given(AWKWARD)
def test_a_spelling_leads_back_to_its_name(name: str) -> None:
    if len(spell(name).encode()) < MAX_NAME_BYTES - 14:  # a cut name cannot be restored
        assert unspell(spell(name)) == name


@given(AWKWARD, AWKWARD)
def test_two_names_never_share_a_spelling(left: str, right: str) -> None:
    assert (spell(left) == spell(right)) == (left == right)


@given(st.one_of(AWKWARD, LONG))
def test_every_spelling_can_be_a_file_name(name: str) -> None:
    for spelt in (spell(name), spell_label(name), spell_label(name, frozenset({name}))):
        assert spelt not in ("", ".", "..")
        assert not re.search(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]", spelt)
        assert len(spelt.encode("utf-8")) <= MAX_NAME_BYTES


@given(LONG, LONG)
def test_long_names_that_differ_stay_different_when_cut(left: str, right: str) -> None:
    assert (spell(left) == spell(right)) == (left == right)


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("plain.nii.gz", "plain.nii.gz"),
        ("Ana María", "Ana María"),
        ("a/b", "a%2Fb"),
        ("a\0b", "a%00b"),
        ("two\nlines", "two%0Alines"),
        ("\x1b[31m", "%1B[31m"),
        ("\x85", "%C2%85"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("100%", "100%"),
        ("50% of", "50% of"),
        ("%41.txt", "%2541.txt"),
        ("%~x", "%25~x"),
    ],
)
def test_documented_spellings(name: str, spelt: str) -> None:
    assert spell(name) == spelt
    assert unspell(spelt) == name


def test_a_name_over_255_bytes_is_cut_and_marked() -> None:
    spelt = spell("é" * 200)
    assert len(spelt.encode()) <= MAX_NAME_BYTES
    assert re.fullmatch(r"é+%~[0-9a-f]{12}", spelt)
    assert spell("n" * 255) == "n" * 255


def test_a_cut_never_falls_into_a_spelt_character() -> None:
    for length in range(230, 250):
        spelt = spell("n" * length + "/" * 20)
        head = spelt.rpartition("%~")[0]
        assert re.fullmatch(r"n+(%2F)*", head), spelt


@pytest.mark.parametrize(
    "name", [".git", ".hidden", ".Trash-1000", ".DS_Store", "desktop.ini", "._a", ".~lock.x#", "Thumbs.db"]
)
def test_a_label_that_desktops_probe_for_is_spelt_away(name: str) -> None:
    assert PROBED.fullmatch(name)
    spelt = spell_label(name)
    assert not PROBED.fullmatch(spelt)
    assert unspell(spelt) == name


def test_a_long_label_that_is_spelt_away_still_fits() -> None:
    assert len(spell_label(".Trash" + "x" * 249).encode()) <= MAX_NAME_BYTES


def test_a_label_the_tree_has_for_itself_is_spelt_away() -> None:
    reserved = frozenset({"RESOURCES"})
    assert spell_label("RESOURCES", reserved) == "%52ESOURCES"
    assert unspell("%52ESOURCES") == "RESOURCES"
    assert spell_label("resources", reserved) == "resources"


@given(
    st.lists(st.one_of(st.sampled_from(["", "a", "a%~2", "A", ".", "a/b", "é" * 200]), AWKWARD), max_size=12)
)
def test_distinct_names_each_thing_exactly_once(labels: list[str]) -> None:
    things = [(number, label) for number, label in enumerate(labels, 1)]
    named = distinct(things, lambda thing: thing[1], lambda thing: thing[0])
    assert sorted(named.values()) == things
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in named)


def test_of_equal_names_the_lowest_id_keeps_the_plain_one() -> None:
    named = distinct([(10, "X"), (9, "X"), (3, "Y")], lambda thing: thing[1], lambda thing: thing[0])
    assert named == {"X": (9, "X"), "X%~10": (10, "X"), "Y": (3, "Y")}


def test_a_thing_without_label_goes_by_its_id() -> None:
    assert list(distinct([(7, "")], lambda thing: thing[1], lambda thing: thing[0])) == ["7"]


@pytest.mark.parametrize(
    ("identity", "kind", "folder"),
    [
        ("1", "T1w", "1-T1w"),
        ("2-MR1", "T1 w/GRE", "2-MR1-T1_w_GRE"),
        ("6", "", "6"),
        ("7", "T1 (100%)/#2+ é;x", "7-T1__100____2____x"),
    ],
)
def test_scan_folders_are_called_as_in_the_zips_of_xnat(identity: str, kind: str, folder: str) -> None:
    assert scan_folder(ScanRecord("E", identity, kind)) == folder


def test_ids_sort_by_their_numbers() -> None:
    assert sorted(["10", "2-MR1", "2", "a", "1"], key=natural) == ["1", "2", "2-MR1", "10", "a"]
