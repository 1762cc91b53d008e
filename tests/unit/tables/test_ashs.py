"""ASHS's volumes: known values in, the same out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tables.support import UNFINISHED, decimals, line_ends, names, session, text
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import ParseError, is_number

regions = st.one_of(names, st.sampled_from(["CA2+3", "Left Br35", "BA35"])).filter(
    lambda name: not is_number(name)
)
rows_of_a_side = st.lists(
    st.tuples(regions, st.integers(0, 99).map(str), decimals),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[0],
)


def side_file(side: str, rows: Any, ends: Any = ("\n", "", True), blank: str = " ") -> str:
    return text([blank.join(("S01", side, *row)) for row in rows], ends)


@settings(max_examples=60)
@given(
    rows_of_a_side,
    rows_of_a_side,
    decimals,
    line_ends(),
    st.sampled_from([" ", "  "]),
    st.sampled_from(["", "final/"]),
    st.sampled_from(
        [("volumes", "corr_nogray"), ("volumes_heur", "heur"), ("volumes_corr_usegray", "corr_usegray")]
    ),
)
def test_the_volumes_are_those_written(
    left: Any, right: Any, icv: str, ends: Any, blank: str, folder: str, which: Any
) -> None:
    table, kind = which
    files = {
        f"{folder}S01_icv.txt": text([f"S01{blank}{icv}"], ends),
        f"{folder}S01_right_{kind}_volumes.txt": side_file("right", right, ends, blank),
        f"{folder}S01_left_{kind}_volumes.txt": side_file("left", left, ends, blank),
        f"{folder}S01_left_raw_volumes.txt": "nothing for us",
    }
    found = session(f"ashs/{table}", files)
    if not ends[2] and {row[0] for row in left} != {row[0] for row in right}:
        assert not found.rows and "cut short" in found.notes[0]
        return
    assert found.columns == ("side", "region", "n_slices", "volume")
    assert found.rows == [
        *(("left", *row) for row in left),
        *(("right", *row) for row in right),
        ("", "tiv", "", icv),
    ]


def test_the_subject_comes_first_and_once() -> None:
    table = all_tables()["ashs/volumes"]
    assert table.lead == ("ID", "subject") and table.trail == ()


GOOD = {
    "S01_icv.txt": "S01 1.4567e+06\n",
    "S01_left_corr_nogray_volumes.txt": "S01 left CA1 26 1234.567\n",
    "S01_right_corr_nogray_volumes.txt": "S01 right CA1 26 1234.567\n",
}


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        ("S01_icv.txt", "S01\n", "not one line with a subject and a volume"),
        ("S01_icv.txt", "S01 1 2\n", "not one line"),
        ("S01_icv.txt", "S01 1\nS01 2\n", "not one line"),
        ("S01_icv.txt", "S01 large\n", "'large', not a number"),
        ("S01_icv.txt", "", "empty"),
        ("S01_left_corr_nogray_volumes.txt", "<html>", "web page"),
        ("S01_left_corr_nogray_volumes.txt", "S01 left CA1 26\n", "4 fields"),
        ("S01_left_corr_nogray_volumes.txt", "S01 left CA1 26 1.5 S01 left CA2 3 4.5\n", "10 fields"),
        (
            "S01_left_corr_nogray_volumes.txt",
            "S01 right CA1 26 1.5\n",
            "side 'right' in the file of the left one",
        ),
        ("S01_left_corr_nogray_volumes.txt", "S01 left CA1 some 1.5\n", "slices of CA1 is 'some'"),
        ("S01_left_corr_nogray_volumes.txt", "S01 left CA1 26 1.5.2\n", "not a number"),
        ("S01_left_corr_nogray_volumes.txt", "S01 left CA1 26 1.5\nS01 left CA1 26 1.5\n", "CA1 twice"),
    ],
)
def test_what_is_no_such_file_is_refused(path: str, content: str, sentence: str) -> None:
    with pytest.raises(ParseError, match=sentence):
        session("ashs/volumes", {**GOOD, path: content})


def test_a_side_that_lacks_a_region_is_noted() -> None:
    files = {**GOOD, "S01_left_corr_nogray_volumes.txt": "S01 left CA1 26 1234.567\nS01 left CA2 4 5.5\n"}
    assert session("ashs/volumes", GOOD).notes == ()
    assert session("ashs/volumes", files).notes == ("only one side has CA2",)


def test_a_file_that_may_be_cut_in_its_last_number_is_noted() -> None:
    files = {**GOOD, "S01_left_corr_nogray_volumes.txt": "S01 left CA1 26 1234.5"}
    assert session("ashs/volumes", files).notes == (UNFINISHED,)
    assert (
        session(
            "ashs/volumes", {**files, "S01_left_corr_nogray_volumes.txt": "S01 left CA1 26 1234.5 "}
        ).notes
        == ()
    )


def test_a_side_that_is_cut_short_gives_no_wrong_number() -> None:
    more = "S01 right CA1 26 1234.567\nS01 right CA2 4 5.5\n"
    files = {
        **GOOD,
        "S01_right_corr_nogray_volumes.txt": more,
        "S01_left_corr_nogray_volumes.txt": "S01 left CA1 26 12",
    }
    found = session("ashs/volumes", files)
    assert found.rows == [] and found.notes == (
        "the left file is cut short: it lacks CA2 and the end of its last line",
    )
