"""Listings that are too long, too deep, or not what they should be: a failure or an oddity, never a crash and
never a file elsewhere.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.hostile.conftest import Evil
from xnatfs.errors import Cause, Failure
from xnatfs.server import json_stream
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import Owner, natural
from xnatfs.server.resources import Resources, _files, hostile
from xnatfs.server.resultset import each_row, number, rows_of
from xnatfs.server.urls import addressable, files_path, segment

SESSION = "T_E00001"
BASE = f"/data/experiments/{SESSION}/scans/1/resources/12/files/"


class _Raw:
    """A body that comes in pieces of its maker's choice."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.read_bytes = 0

    def read1(self, amount: int, decode_content: bool = True) -> bytes:
        piece = next(self._pieces, b"")
        assert len(piece) <= amount
        self.read_bytes += len(piece)
        return piece


def coming(pieces: Iterator[bytes]) -> requests.Response:
    made = requests.Response()
    made.raw = _Raw(pieces)
    made.url = "http://127.0.0.1/x"
    return made


def listing(rows: Any, **more: Any) -> bytes:
    return json.dumps({"ResultSet": {"Result": rows, **more}}).encode()


def row(path: str = "a.dcm", base: str = BASE, **more: Any) -> dict[str, Any]:
    return {
        "Name": "x",
        "Size": "5",
        "URI": base + path,
        "collection": "DICOM",
        "cat_ID": "12",
        "digest": "",
        **more,
    }


# --- the reader itself --------------------------------------------------------------------------------------

CELL = st.one_of(
    st.text(),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=3), max_size=3),
)
ROWS = st.lists(st.dictionaries(st.text(max_size=8), CELL, max_size=6), max_size=8)


@settings(max_examples=40, deadline=None)
@given(ROWS, CELL, st.booleans(), st.lists(st.integers(1, 40), min_size=1, max_size=6))
@example([], 0.0, False, [2])
@example([], -1.5e300, False, [1])
def test_rows_are_those_of_the_whole_text_however_it_comes(
    rows: list[dict[str, Any]], more: Any, ascii_only: bool, cuts: list[int]
) -> None:
    body = {
        "a": more,
        "ResultSet": {"Columns": more, "Result": rows, "title": "Files", "totalRecords": len(rows)},
        "b": more,
    }
    text = json.dumps(body, ensure_ascii=ascii_only, indent=len(rows) % 2 or None).encode(
        "utf-8", "surrogatepass"
    )
    source = io.BytesIO(text)
    pieces = iter(lambda: source.read(next(sizes)), b"")
    sizes = itertools.cycle(cuts)
    try:
        wanted = json.loads(text)["ResultSet"]["Result"]
    except UnicodeDecodeError:
        with pytest.raises(ValueError):
            list(json_stream.rows(coming(pieces)))
        return
    assert list(json_stream.rows(coming(pieces))) == wanted


def test_a_listing_that_is_cut_anywhere_is_no_listing() -> None:
    text = listing([row(), row("b,]}")], title="Files", totalRecords=2)
    assert len(rows_of(coming(iter([text])))) == 2
    for end in range(len(text)):
        with pytest.raises(ValueError):
            rows_of(coming(iter([text[:end]])))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "null",
            "[]",
            "7",
            "{}",
            '{"ResultSet":null}',
            '{"ResultSet":[]}',
            '{"ResultSet":{}}',
            '{"ResultSet":{"Result":null}}',
        ),
        *(
            '{"ResultSet":{"Result":{}}}',
            '{"ResultSet":{"Result":[1]}}',
            '{"ResultSet":{"Result":[[]]}}',
            '{"ResultSet":{"Result":[null]}}',
        ),
        *(
            '{"ResultSet":{"Result":[{}]}} x',
            '{"ResultSet":{"Result":[{}}}',
            '{"ResultSet":{"Result":[{},]}}',
            '{"ResultSet":{"Result":[{}]]}',
        ),
        *(
            "[" * 100_000,
            '{"ResultSet":{"Result":[{"a":' + "[" * 100_000,
            '{"ResultSet":{"Result":[{"a":' + "9" * 5000 + "}]}}",
        ),
        *(
            '{"ResultSet":{"Columns":' + '{"a":' * 100_000,
            "<html></html>",
            '{"ResultSet":{"Result":[{"a":"\ufffe',
            '{"ResultSet" {"Result":[]}}',
        ),
    ],
    ids=range(24),
)
def test_what_is_no_listing_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        rows_of(coming(iter([text.encode()[at : at + 1000] for at in range(0, max(1, len(text)), 1000)])))


def endless(head: bytes, again: bytes) -> Iterator[bytes]:
    yield head
    block = again * (100_000 // len(again))
    while True:
        yield block


@pytest.mark.parametrize(
    ("again", "cause"),
    [
        (b'{"a":"' + b"x" * 300 + b'"},', Cause.TOO_LARGE),
        (b"{},", Cause.TOO_LARGE),
        (b" ", Cause.TOO_LARGE),
        (b"x", Cause.BAD_LISTING),
    ],
)
def test_a_listing_without_an_end_ends_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, again: bytes, cause: Cause
) -> None:
    monkeypatch.setattr(json_stream, "LARGEST", 20 * 2**20)
    monkeypatch.setattr(json_stream, "CELLS", 100_000)
    head = b'{"ResultSet":{"Result":[' + (b'{"a":"' if again == b"x" else b"")
    response = coming(endless(head, again))
    tracemalloc.start()
    try:
        with pytest.raises((Failure, ValueError)) as caught:
            for _ in each_row(response):
                pass
        assert (
            tracemalloc.get_traced_memory()[1] < 40 * 2**20
        )  # one row of 4 MiB may be held, doubled while it grows
    finally:
        tracemalloc.stop()
    assert getattr(caught.value, "cause", Cause.BAD_LISTING) is cause
    assert cast(_Raw, response.raw).read_bytes < 22 * 2**20


def test_a_long_listing_costs_what_its_records_cost() -> None:
    count = 20_000
    text = (
        b'%s{"Name":"%d","Size":"524288","URI":"%s%06d.dcm","collection":"DICOM","cat_ID":"12","digest":"%032x"}'
        % (b"," if number else b'{"ResultSet":{"Result":[', number, BASE.encode(), number, number)
        for number in range(count)
    )
    response = coming(itertools.chain(text, [b'], "title": "Files"}}']))
    tracemalloc.start()
    try:
        found = _files(each_row(response), lambda _: Owner("scan", SESSION, "1"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.files) == count
    assert peak < count * 500, f"{peak / count:.0f} bytes a file"


def test_a_compressed_body_is_bounded_by_what_it_inflates_to(
    evil: Evil, logged_in: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "LARGEST", 2**20)
    evil.sends(gzip.compress(listing([]) + b" " * 50 * 2**20), **{"Content-Encoding": "gzip"})
    with pytest.raises(Failure) as caught:
        logged_in.listing("/data/projects", {}, rows_of)
    assert caught.value.cause is Cause.TOO_LARGE
    assert len(evil.asked) == 1, "it is not asked for again"


# --- rows that are none -------------------------------------------------------------------------------------

ODD = [
    None,
    7,
    -1,
    2**63,
    1e400,
    True,
    [],
    ["a"],
    {},
    {"a": {"b": []}},
    "",
    "..",
    "../../x",
    "/",
    "\0",
    "\ud800",
    "\x1b]0;x\x07",
    "9" * 5000,
]
ASK: dict[str, Callable[[ListingRequests, Resources], object]] = {
    "projects": lambda listings, _: listings.projects(),
    "subjects": lambda listings, _: listings.subjects("P"),
    "experiments": lambda listings, _: listings.experiments("P"),
    "experiment resources": lambda listings, _: listings.experiment_resources("P"),
    "scans": lambda listings, _: listings.scans("P"),
    "scans of a session": lambda listings, _: listings.scans_of_session("E"),
    "assessors": lambda listings, _: listings.assessors("P"),
    "reconstructions": lambda listings, _: listings.reconstructions("P"),
    "resources": lambda _, resources: resources.of(Owner("experiment", "E")),
    "resources of a session": lambda _, resources: resources.of_session("E"),
    "inputs": lambda _, resources: resources.inputs_of_session("E", "assessor"),
    "files": lambda _, resources: resources.files_of_session("E"),
    "files of sessions": lambda _, resources: resources.files_of_sessions(["E", "F"]),
}
COLUMNS = (
    *(
        "ID",
        "label",
        "project",
        "subject_ID",
        "xsiType",
        "insert_date",
        "last_modified",
        "session_ID",
        "type",
        "quality",
        "frames",
    ),
    *(
        "category",
        "cat_id",
        "cat_ID",
        "xnat_abstractresource_id",
        "file_count",
        "file_size",
        "URI",
        "Size",
        "digest",
        "collection",
        "format",
    ),
    *(
        "xnat:imagescandata/id",
        "xnat:imagescandata/file/label",
        "xnat:imagescandata/file/xnat_abstractresource_id",
    ),
    *("xnat:subjectdata/resources/resource/label", "xnat:experimentdata/resources/resource/label"),
)


@pytest.mark.parametrize("what", ASK)
def test_rows_of_the_wrong_type_are_read_or_refused(evil: Evil, logged_in: Connection, what: str) -> None:
    for odd in ODD:
        evil.sends(listing([dict.fromkeys(COLUMNS, odd), {}, dict.fromkeys(COLUMNS, odd)]))
        listings = ListingRequests(logged_in)
        with contextlib.suppress(Failure):
            ASK[what](listings, Resources(listings))


@pytest.mark.parametrize(
    "body",
    [
        *(
            None,
            1,
            [],
            {},
            {"items": None},
            {"items": []},
            {"items": [1]},
            {"items": [{}]},
            {"items": [{"children": 1}]},
        ),
        *(
            {"items": [{"children": "x"}]},
            {"items": [{"children": [{"field": 1}]}]},
            {"items": [{"children": {"field": "x"}}]},
        ),
        {
            "items": [
                {
                    "children": [
                        {"field": "experiments/experiment", "items": [{"data_fields": [], "children": []}]}
                    ]
                }
            ]
        },
        {
            "items": [
                {
                    "children": [
                        {
                            "field": "resources/resource",
                            "items": [{"data_fields": {"label": [], "file_size": -5}}],
                        }
                    ]
                }
            ]
        },
    ],
)
def test_an_item_that_is_none_is_a_bad_listing(evil: Evil, logged_in: Connection, body: object) -> None:
    evil.sends(json.dumps(body).encode())
    try:
        found = ListingRequests(logged_in).subject_item("S")
    except Failure as failure:
        assert failure.cause is Cause.BAD_LISTING
    else:
        assert found.resources[0].file_size is None


@pytest.mark.parametrize("text", ['{"items":' + "[" * 100_000, '{"items":[{"children":' + '{"a":' * 100_000])
def test_a_deep_item_is_a_bad_listing(evil: Evil, logged_in: Connection, text: str) -> None:
    evil.sends(text.encode())
    with pytest.raises(Failure) as caught:
        ListingRequests(logged_in).subject_item("S")
    assert caught.value.cause is Cause.BAD_LISTING


# --- files that are none ------------------------------------------------------------------------------------

files = partial(_files, owner_for=lambda _: Owner("scan", SESSION, "1"))


@pytest.mark.parametrize(
    ("path", "base"),
    [
        *(
            ("../../../etc/passwd", BASE),
            ("/etc/passwd", BASE),
            ("a//b", BASE),
            ("a/./b", BASE),
            ("a\0b", BASE),
            ("..", BASE),
            ("", BASE),
        ),
        *(
            ("/".join("a" * 10_000), BASE),
            ("a", BASE.replace("scans/1", "scans/..")),
            ("a", BASE.replace("scans/1", "../../x")),
        ),
    ],
)
def test_a_hostile_path_is_reported_and_left_out(path: str, base: str) -> None:
    found = files([{key.lower(): value for key, value in row(path, base).items()}])
    assert not found.files and len(found.odd) == 1


def test_a_path_as_deep_as_programs_can_follow_is_taken() -> None:
    assert hostile("/".join(["folder"] * 200)) == ""


@pytest.mark.parametrize(
    "digest",
    ["../../../../../../../tmp/evil/xx", "..", "/etc/passwd", "g" * 32, "A" * 31, "\0" * 32, "é" * 32],
)
def test_only_a_digest_becomes_a_name_in_the_cache(digest: str) -> None:
    (found,) = files([{"uri": BASE + "a", "cat_id": "12", "size": "5", "digest": digest}]).files
    assert found.digest == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1", None),
        ("9223372036854775808", None),
        ("1e3", None),
        ("٣", None),
        (" 5 ", 5),  # as a driver or a proxy may write it
        ("5.0", 5),
        ("5.5", None),
        ("5 6", None),
        ("1_0", None),
        ("9" * 9999, None),
    ],
)
def test_a_size_is_a_plain_number(text: str, value: int | None) -> None:
    assert number(text) == value


def test_a_size_beyond_any_disk_is_odd() -> None:
    found = files([{"uri": BASE + "a", "cat_id": "12", "size": str(2**50)}])
    assert not found.files and "more than any file system" in found.odd[0]


def test_numbers_of_thousands_of_digits_are_sorted_all_the_same() -> None:
    assert sorted(["9" * 5000, "10", "2"], key=natural)[:2] == ["2", "10"]


# --- names in URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".", "..", "../../x", "a/../b", "?x=1", "#", "%2e%2e", "a;b", "\\..\\"])
def test_no_name_leads_a_url_elsewhere(name: str) -> None:
    url = requests.Request("GET", f"http://127.0.0.1/data/experiments/{segment(name)}/files").prepare().url
    assert url is not None
    assert (
        url.startswith("http://127.0.0.1/data/experiments/")
        and url.endswith("/files")
        and url.count("/") == 6
    )
    assert "?" not in url and "#" not in url


def test_a_scan_called_dot_dot_is_asked_for_by_the_number_of_its_resource() -> None:
    from xnatfs.server.records import FileRecord, ResourceRecord

    owner = Owner("scan", SESSION, "..")
    assert not addressable(ResourceRecord(owner, "DICOM", 12))
    record = FileRecord(owner, 12, "DICOM", "a.dcm", 1, "")
    assert files_path(record) == f"/data/experiments/{SESSION}/scans/ALL/resources/12/files"
