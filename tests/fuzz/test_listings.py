"""Listings and items: the records of the right ones, `Failure` for the others, and names that can be shown for all."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.support import FUZZ, ODD_TEXTS, as_json, bounded, changed, damaged
from xnatfs.config import Settings
from xnatfs.credentials import Credentials
from xnatfs.errors import Cause, Failure
from xnatfs.fetch.holdings import FileHoldings
from xnatfs.server import bodies
from xnatfs.server.listings import Listings
from xnatfs.server.records import FileRecord, Owner, ResourceRecord, ScanRecord, natural, parse_stamp
from xnatfs.server.resources import Resources, hostile
from xnatfs.server.session import Connection
from xnatfs.server.tables import number
from xnatfs.server.urls import encode, files_path, owner_of, path_of, segment, split_file_uri, with_data
from xnatfs.tree.names import MAX_BYTES, distinct, scan_folder, spell, spell_label, unspell

_URL = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    made = Connection(Settings(_URL), Credentials(_URL, "who", "secret", "the test"))
    yield made
    made.close()


def answering(connection: Connection, body: bytes) -> Connection:
    """The real connection with one answer to everything; what a `Failure` is, it decides itself."""

    def get(*_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), status=200, preload_content=False)
        return response

    connection.get = get  # type: ignore[method-assign]
    return connection


# --- what a server sends ---------------------------------------------------------------------------------------------------

PLAIN = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)
STAMPS = st.from_regex(r"20[0-9]{2}-0[1-9]-(1[0-9]|2[0-8]) 1[0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{1,6}", fullmatch=True)
WHOLE = st.integers(0, 10**9).map(str)
CELLS = PLAIN | STAMPS | WHOLE | ODD_TEXTS | st.just("")
COLUMNS = (
    *("ID", "label", "project", "insert_date", "last_modified", "xsiType", "subject_ID", "subject_label", "date", "time", "type"),
    *("session_ID", "xnat:imagesession/ID", "xnat:imagescandata/id", "xnat:imagescandata/type", "xnat:imagescandata/quality", "frames"),
    *("xnat:imagescandata/file/label", "xnat:imagescandata/file/xnat_abstractresource_id", "xnat:subjectdata/resources/resource/label"),
    *("xnat:imagescandata/file/file_count", "xnat:imagescandata/file/file_size", "xnat:experimentdata/resources/resource/label"),
    *("xnat:imageassessordata/out/file/label", "xnat:imageassessordata/in/file/label", "xnat:imageassessordata/resources/resource/label"),
    *("xnat:reconstructedimagedata/id", "xnat:reconstructedimagedata/type", "xnat:reconstructedimagedata/out/file/label"),
    *("xnat:reconstructedimagedata/in/file/label", "series_description", "quality", "name", "description", "ID_", "URI"),
    *("xnat_abstractresource_id", "category", "cat_id", "file_count", "file_size", "format", "Name", "Size", "digest", "collection"),
)
URIS = st.builds(
    lambda head, number, path: f"{head}/resources/{number}/files/{path}",
    st.sampled_from(
        (
            *("/data/experiments/E1", "/data/experiments/E1/scans/1", "/data/experiments/E1/assessors/A1/out", "/data/projects/P"),
            *("/data/archive/projects/P/subjects/S/experiments/E1/scans/a/b", "/experiments/E2/reconstructions/r/in", "/REST/subjects/S"),
            *("", "/data", "/data/experiments", "/data/experiments/E1/scans", "/data/x/y"),
        )
    ),
    st.integers(1, 30) | ODD_TEXTS,
    st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6}){0,2}\.dcm", fullmatch=True) | ODD_TEXTS,
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=12) | st.fixed_dictionaries({"URI": URIS | CELLS, "cat_ID": WHOLE | CELLS}),
    max_size=6,
)
ENVELOPES = ROWS.map(lambda rows: {"ResultSet": {"Result": rows, "totalRecords": str(len(rows)), "title": "x"}})
LISTINGS = damaged(changed(ENVELOPES).map(as_json), most=1)

FIELDS = st.dictionaries(
    st.sampled_from(("ID", "label", "type", "insert_date", "xnat_abstractresource_id", "format", "file_count", "file_size")),
    CELLS | st.integers(-5, 10**7),
    max_size=6,
)
FILES = st.lists(st.fixed_dictionaries({"data_fields": FIELDS, "children": st.just([]), "meta": st.just({})}), max_size=2)


def _with(*branches: str) -> st.SearchStrategy[Any]:
    group = st.fixed_dictionaries({"field": st.sampled_from(branches), "items": FILES})
    return st.fixed_dictionaries(
        {"data_fields": FIELDS, "children": st.lists(group, max_size=2), "meta": st.fixed_dictionaries({"xsi:type": PLAIN})}
    )


INSIDE = st.fixed_dictionaries(
    {
        "field": st.sampled_from(("scans/scan", "assessors/assessor", "reconstructions/reconstructedImage", "resources/resource", "x")),
        "items": st.lists(_with("file", "out/file", "in/file", "resources/resource"), max_size=2),
    }
)
EXPERIMENT = st.fixed_dictionaries({"data_fields": FIELDS, "children": st.lists(INSIDE, max_size=3), "meta": st.just({})})
SUBJECT = st.fixed_dictionaries(
    {
        "data_fields": FIELDS,
        "children": st.lists(
            st.fixed_dictionaries({"field": st.just("experiments/experiment"), "items": st.lists(EXPERIMENT, max_size=2)}), max_size=2
        ),
        "meta": st.just({}),
    }
)
ITEMS = damaged(changed(SUBJECT.map(lambda one: {"items": [one]})).map(as_json), most=1)

OWNER = Owner("scan", "E1", "1")
_RESOURCE = ResourceRecord(OWNER, "DICOM", 7)
METHODS: dict[str, Callable[[Listings, Resources], Any]] = {
    "projects": lambda listings, _: listings.projects(),
    "subjects": lambda listings, _: listings.subjects("P"),
    "experiments": lambda listings, _: listings.experiments("P"),
    "find_experiments": lambda listings, _: listings.find_experiments(["a", "b"]),
    "experiment_resources": lambda listings, _: listings.experiment_resources("P"),
    "scans": lambda listings, _: listings.scans("P"),
    "scans_of_session": lambda listings, _: listings.scans_of_session("E1"),
    "assessors": lambda listings, _: listings.assessors("P"),
    "assessors_of_session": lambda listings, _: listings.assessors_of_session("E1", "P"),
    "reconstructions": lambda listings, _: listings.reconstructions("P"),
    "of": lambda _, resources: resources.of(OWNER),
    "file_count": lambda _, resources: resources.file_count(_RESOURCE),
    "of_session": lambda _, resources: resources.of_session("E1"),
    "inputs_of_session": lambda _, resources: resources.inputs_of_session("E1", "assessor"),
    "files_of_session": lambda _, resources: resources.files_of_session("E1"),
    "files_of_sessions": lambda _, resources: resources.files_of_sessions(["E1", "E2"]),
    "files_of": lambda _, resources: resources.files_of(OWNER),
    "files_of_resource": lambda _, resources: resources.files_of_resource(_RESOURCE),
}


def records(found: Any) -> Iterator[Any]:
    """All records in whatever a listing gave."""
    if hasattr(found, "__dataclass_fields__") or isinstance(found, FileRecord):
        yield found
    parts = (
        found.values()
        if isinstance(found, dict)
        else found
        if isinstance(found, (list, set, tuple))
        else vars(found).values()
        if hasattr(found, "__dict__")
        else ()
    )
    for part in parts:
        if not isinstance(part, (str, int)):
            yield from records(part)


def usable(found: Any) -> None:
    """Everything above the listings can work with it: texts are texts, numbers fit, paths are harmless, names can be shown."""
    for record in records(found):
        if isinstance(record, FileRecord):
            assert 0 <= record.size < 2**63 and 0 <= record.resource_id < 2**63
            assert not hostile(record.path) and record.path
            assert all(isinstance(one, str) for one in (record.resource_label, record.path, record.digest, record.base))
            assert files_path(record).isascii() and encode(record.path).isascii()
            for part in record.path.split("/"):
                shown(spell(part))
        elif isinstance(record, ResourceRecord):
            for count in (record.id, record.file_count, record.file_size):
                assert count is None or 0 <= count < 2**63
            assert path_of(record.owner).isascii()
        elif isinstance(record, ScanRecord):
            shown(spell(scan_folder(record)) if scan_folder(record) else "x")
            natural(record.id)
    files = [record for record in records(found) if isinstance(record, FileRecord)]
    holdings = FileHoldings.of(files, [])
    assert sum(len(group) for group in holdings.by_resource.values()) <= len(files)


def shown(name: str) -> None:
    """It can be a file name."""
    raw = name.encode()
    assert 0 < len(raw) <= MAX_BYTES and b"/" not in raw and b"\0" not in raw and name not in (".", "..")
    assert name.isprintable() or not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in name)


# Found here.
DEEP = b'{"ResultSet":{"Result":[{"ID":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}}"


@FUZZ
@given(method=st.sampled_from(sorted(METHODS)), body=LISTINGS)
@example("projects", DEEP)
@example("scans_of_session", b'{"ResultSet":{"Result":[{"ID":"' + b"9" * 5000 + b'"}]}}')
@example("files_of", b'{"ResultSet":{"Result":[{"URI":"/data/x/resources/7/files/a","cat_ID":"7","Size":"-1"}]}}')
@example("files_of", b'{"ResultSet":{"Result":[{"URI":"/data/x/resources/7/files/a","cat_ID":"7","Size":"99999999999999999999"}]}}')
def test_a_listing_is_understood_or_refused(connection: Connection, method: str, body: bytes) -> None:
    listings = Listings(answering(connection, body))
    try:
        found = bounded(len(body), lambda: METHODS[method](listings, Resources(listings)))
    except Failure as failure:
        assert failure.cause is Cause.BAD_LISTING
        return
    usable(found)


@FUZZ
@given(body=ITEMS)
@example(b'{"items":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}")
def test_an_item_is_understood_or_refused(connection: Connection, body: bytes) -> None:
    listings = Listings(answering(connection, body))
    try:
        found = bounded(len(body), lambda: listings.subject_item("S"))
    except Failure as failure:
        assert failure.cause is Cause.BAD_LISTING
        return
    usable(found)


@FUZZ
@given(st.lists(st.tuples(PLAIN, PLAIN, st.integers(0, 2**43), st.text("0123456789abcdef", min_size=32, max_size=32)), max_size=5))
def test_the_files_of_a_right_listing_come_back(connection: Connection, files: list[tuple[str, str, int, str]]) -> None:
    rows = [
        {"URI": f"/data/experiments/E1/scans/1/resources/7/files/{one}/{two}", "cat_ID": "7", "Size": str(size), "digest": digest}
        for one, two, size, digest in files
    ]
    listings = Listings(answering(connection, json.dumps({"ResultSet": {"Result": rows}}).encode()))
    found = Resources(listings).files_of_session("E1")
    assert not found.odd
    assert [(one.path, one.size, one.digest, one.owner, one.resource_id) for one in found.files] == [
        (f"{one}/{two}", size, digest, OWNER, 7) for one, two, size, digest in files
    ]


@FUZZ
@given(st.lists(st.tuples(PLAIN, PLAIN, STAMPS), max_size=5, unique_by=lambda one: one[0]))
def test_the_subjects_of_a_right_listing_come_back(connection: Connection, subjects: list[tuple[str, str, str]]) -> None:
    rows = [
        {"ID": one, "label": label, "project": "P", "insert_date": stamp, "last_modified": stamp, "xnat:subjectdata/x": None}
        for one, label, stamp in subjects
    ]
    found, _ = Listings(answering(connection, json.dumps({"ResultSet": {"Result": rows}}).encode())).subjects("P")
    assert [(one.id, one.label, one.changed) for one in found] == subjects
    assert all(one.inserted == parse_stamp(one.changed) is not None for one in found)


# --- what is made of texts -------------------------------------------------------------------------------------------------


@FUZZ
@given(ODD_TEXTS)
@example("1" * 5000)
@example("-5")
@example("²")
def test_numbers(text: str) -> None:
    found = number(text)
    assert found is None or (0 <= found < 2**63 and str(found) == (text.strip().lstrip("0") or "0"))


@FUZZ
@given(ODD_TEXTS | STAMPS)
@example("9999-99-99 99:99:99")
@example("0000-00-00 00:00:00.1")
@example("٢٠٢٤-01-01 00:00:00")
def test_stamps(text: str) -> None:
    found = parse_stamp(text)
    assert found is None or abs(found) < 1e12


@FUZZ
@given(st.lists(ODD_TEXTS | PLAIN, max_size=6))
@example(["9" * 5000, "10", "2", "2-MR1"])
def test_ids_have_an_order(names: list[str]) -> None:
    ordered = sorted(names, key=natural)
    assert sorted(ordered, key=natural) == ordered


def test_ids_are_ordered_as_people_count() -> None:
    wanted = ["1", "2", "2-MR1", "02-MR2", "10", "10" * 3000, "11" * 3000, "a2", "a10"]
    shuffled = wanted[3:] + wanted[:3]
    assert sorted(shuffled, key=natural) == wanted


@FUZZ
@given(URIS | ODD_TEXTS, ODD_TEXTS)
def test_uris(uri: str, resource: str) -> None:
    split = split_file_uri(uri, resource)
    if split is not None:
        base, path = split
        assert base.startswith("/data") and uri.endswith(path)
        owner = owner_of(base)
        assert owner is None or path_of(owner).isascii()
    assert with_data(uri).startswith("/data") and segment(uri).isascii() and "/" not in segment(uri)


@FUZZ
@given(st.lists(st.tuples(ODD_TEXTS, st.integers(0, 9)), max_size=6, unique_by=lambda one: one[1]))
@example([("a", 1), ("a", 2), ("a%~2", 3)])
def test_names_can_be_shown_and_are_told_apart(things: list[tuple[str, int]]) -> None:
    named = distinct(things, lambda one: one[0], lambda one: one[1])
    assert sorted(one[1] for one in named.values()) == sorted(one[1] for one in things)
    for name in named:
        shown(name)


@FUZZ
@given(ODD_TEXTS)
@example("%FF")
@example("%ED%A0")
def test_a_name_comes_back_from_its_spelling(name: str) -> None:
    unspell(name)
    if name:
        shown(spell(name))
        shown(spell_label(name))
        if "%~" not in spell(name):  # else it is cut
            assert unspell(spell(name)) == name


# --- the rows as they come ---------------------------------------------------------------------------------------------------


class _Raw:
    """A body that comes in pieces of its own."""

    def __init__(self, body: bytes, sizes: list[int]) -> None:
        self._body = io.BytesIO(body)
        self._sizes = sizes

    def read1(self, amount: int, decode_content: bool) -> bytes:
        size = self._sizes.pop() if self._sizes else amount
        return self._body.read(min(size, amount))


def coming(body: bytes, sizes: list[int]) -> requests.Response:
    """An answer whose body is still coming."""
    response = requests.Response()
    response.status_code, response.url, response.raw = 200, _URL, _Raw(body, sizes)
    return response


SPACED = st.builds(
    lambda document, indent, ascii: json.dumps(document, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass"),
    changed(ENVELOPES),
    st.sampled_from((None, 0, 2, "\t")),
    st.booleans(),
)
PIECES = st.lists(st.integers(1, 40), max_size=30)


@FUZZ
@given(LISTINGS | damaged(SPACED), PIECES)
@example(b'{"ResultSet":{"Result":[{"a":1}]}}x', [])
@example(b'{"ResultSet":{"Result":[{"a":1}]}', [3, 3])
@example(b'{"a":12, "ResultSet":{"totalRecords":12, "Result":[{"a":12}]}, "b":3}', [1] * 30)
@example(b"\xef\xbb\xbf" + b'{"ResultSet":{"Result":[]}}', [])
def test_rows_that_come_in_pieces_are_those_of_the_whole(body: bytes, sizes: list[int]) -> None:
    try:
        found = list(bodies.rows(coming(body, sizes)))
    except ValueError:
        return  # as the next test has it, never of a right one
    whole = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_first_of_each)["ResultSet"]["Result"]
    assert json.dumps(found) == json.dumps(whole)


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A document that has one key twice says two things; of the rows the first are taken."""
    made = dict(pairs)
    return made | {key: value for key, value in reversed(pairs) if key in ("ResultSet", "Result")}


@FUZZ
@given(ROWS, PIECES, st.sampled_from((None, 0, 2)), st.booleans())
def test_the_rows_of_a_right_listing_come_back(rows: list[dict[str, str]], sizes: list[int], indent: int | None, ascii: bool) -> None:
    right = [row for row in rows if _encodes(row)]
    envelope = {"title": "x", "ResultSet": {"Result": right, "totalRecords": str(len(right))}, "n": 12}
    body = json.dumps(envelope, indent=indent, ensure_ascii=ascii)
    assert list(bodies.rows(coming(body.encode(), sizes))) == right


def _encodes(row: dict[str, str]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
