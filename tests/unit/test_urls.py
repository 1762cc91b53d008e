"""Percent-encoding, and what the URI of a file row says."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.server.records import FileRecord, Owner, ResourceRecord
from xnatfs.server.urls import (
    addressable,
    awkward,
    encode,
    files_path,
    owner_of,
    part,
    path_of,
    segment,
    split_file_uri,
    with_data,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@given(TEXT)
def test_an_encoded_path_holds_only_safe_characters_and_decodes_to_itself(path: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9\-._~/%]*", encode(path))
    assert unquote(encode(path)) == path


@given(TEXT)
def test_an_encoded_segment_has_no_slash(text: str) -> None:
    assert "/" not in segment(text)
    assert unquote(segment(text)) == text


@pytest.mark.parametrize(
    ("raw", "encoded"), [("a+b", "a%2Bb"), ("a b", "a%20b"), ("#", "%23"), ("50%", "50%25"), ("é", "%C3%A9")]
)
def test_what_xnat_mistakes_is_encoded(raw: str, encoded: str) -> None:
    assert encode(raw) == encoded


def test_scan_ids_use_the_escapes_of_xnat_for_slash_and_comma() -> None:
    assert part("8/9,x") == "8%5BSLASH%5D9%5BCOMMA%5Dx"


@pytest.mark.parametrize(
    ("uri", "base", "path"),
    [
        (
            "/data/experiments/E1/scans/1/resources/12/files/a/b.txt",
            "/data/experiments/E1/scans/1/resources/12/files",
            "a/b.txt",
        ),
        (
            "/experiments/E1/scans/1/resources/12/files/b.txt",
            "/data/experiments/E1/scans/1/resources/12/files",
            "b.txt",
        ),
        ("/REST/projects/P/resources/12/files/b", "/data/projects/P/resources/12/files", "b"),
        ("/data/archive/subjects/S/resources/12/files/b", "/data/subjects/S/resources/12/files", "b"),
        # The path inside may look like another resource's: the first marker counts.
        (
            "/data/experiments/E1/resources/12/files/S/resources/12/files/z",
            "/data/experiments/E1/resources/12/files",
            "S/resources/12/files/z",
        ),
        (
            "/data/experiments/E1/resources/12/files/x/files/y",
            "/data/experiments/E1/resources/12/files",
            "x/files/y",
        ),
        # Another number than the row says: any resource will do, then the bare word.
        ("/data/experiments/E1/resources/77/files/y", "/data/experiments/E1/resources/77/files", "y"),
        ("/data/experiments/E1/files/y", "/data/experiments/E1/files", "y"),
    ],
)
def test_a_file_uri_falls_into_base_and_path(uri: str, base: str, path: str) -> None:
    assert split_file_uri(uri, "12") == (base, path)


def test_what_is_no_file_uri_is_told_so() -> None:
    assert split_file_uri("/data/experiments/E1", "12") is None


@pytest.mark.parametrize("prefix", ["", "/data", "/REST", "/data/archive"])
@pytest.mark.parametrize(
    ("where", "owner"),
    [
        ("/projects/P", Owner("project", "P")),
        ("/subjects/S", Owner("subject", "S")),
        ("/projects/P/subjects/S", Owner("subject", "S")),
        ("/experiments/E", Owner("experiment", "E")),
        ("/projects/P/subjects/S/experiments/E", Owner("experiment", "E")),
        ("/experiments/E/scans/1", Owner("scan", "E", "1")),
        ("/projects/P/subjects/S/experiments/E/scans/1", Owner("scan", "E", "1")),
        ("/experiments/E/scans/8/9", Owner("scan", "E", "8/9")),
        ("/experiments/E/scans/in", Owner("scan", "E", "in")),
        ("/experiments/E/scans/a, b", Owner("scan", "E", "a, b")),
        ("/experiments/E/assessors/A", Owner("assessor", "A", "E")),
        ("/experiments/E/assessors/A/out", Owner("assessor", "A", "E", "out")),
        ("/experiments/E/assessors/A/in", Owner("assessor", "A", "E", "in")),
        ("/experiments/E/reconstructions/R 1/out", Owner("reconstruction", "E", "R 1", "out")),
        ("/experiments/E/reconstructions/in", Owner("reconstruction", "E", "in")),
    ],
)
def test_the_owner_is_read_from_every_form_of_uri(prefix: str, where: str, owner: Owner) -> None:
    assert owner_of(f"{prefix}{where}/resources/12/files") == owner
    assert owner_of(f"{prefix}{where}/files") == owner


def test_an_unknown_form_has_no_owner() -> None:
    assert owner_of("/data/workflows/3/files") is None
    assert owner_of("/data/files") is None


def test_the_prefix_is_always_data() -> None:
    assert (
        with_data("/experiments/E")
        == with_data("/REST/experiments/E")
        == with_data("/data/archive/experiments/E")
        == "/data/experiments/E"
    )
    assert with_data("/datasets/E") == "/data/datasets/E"


@pytest.mark.parametrize(
    ("owner", "path"),
    [
        (Owner("project", "P"), "/data/projects/P"),
        (Owner("subject", "S"), "/data/subjects/S"),
        (Owner("experiment", "E"), "/data/experiments/E"),
        (Owner("scan", "E", "a b"), "/data/experiments/E/scans/a%20b"),
        (Owner("reconstruction", "E", "R", "in"), "/data/experiments/E/reconstructions/R/in"),
        (Owner("assessor", "A", "E", "out"), "/data/experiments/E/assessors/A/out"),
        (Owner("assessor", "A"), "/data/experiments/A"),
    ],
)
def test_objects_are_addressed_by_id(owner: Owner, path: str) -> None:
    assert path_of(owner) == path


@pytest.mark.parametrize("scan", ["8/9", "1,2", "10%#", "a;b", "a\\b"])
def test_a_scan_id_that_cannot_stand_in_a_url_is_left_out_of_it(scan: str) -> None:
    record = FileRecord(Owner("scan", "E", scan), 12, "R", "f", 1, "")
    assert files_path(record) == "/data/experiments/E/scans/ALL/resources/12/files"


@pytest.mark.parametrize(
    "owner",
    [
        *(
            Owner("project", "P"),
            Owner("subject", "S"),
            Owner("experiment", "E"),
            Owner("scan", "E", "a b"),
            Owner("scan", "E", "50%"),
        ),
        *(Owner("reconstruction", "E", "R 1", "in"), Owner("assessor", "A", "E", "out")),
        *(Owner("assessor", "A", "E"), Owner("assessor", "A")),
    ],
)
def test_files_are_addressed_by_the_owner_and_the_number_of_the_resource(owner: Owner) -> None:
    record = FileRecord(owner, 12, "R", "a b/f", 1, "")
    assert record.uri == f"{owner.uri}/resources/12/files/a b/f"
    if not awkward(owner):
        assert (
            files_path(record)
            == encode(f"{owner.uri}/resources/12/files")
            == f"{path_of(owner)}/resources/12/files"
        )
    told = owner_of(record.base)
    assert told == owner or (told == Owner("experiment", "A") and owner == Owner("assessor", "A"))


@pytest.mark.parametrize("label", ["12", "NULL", "", ".", "..", "a b", "a/b", "ü", "my%20res", "a,b"])
def test_a_label_that_is_taken_for_something_else_is_not_asked_for(label: str) -> None:
    owner = Owner("experiment", "E")
    assert not addressable(ResourceRecord(owner, label)) and addressable(ResourceRecord(owner, label, 7))
    assert addressable(ResourceRecord(owner, "T1-w_0.9")) and addressable(ResourceRecord(owner, "12a"))
