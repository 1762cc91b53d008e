"""The parsers of measurement files: rows of texts, or `ParseError`; also of images and workbooks that lie
about their sizes.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import gzip
import io
import json
import math
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.fuzz.support import FUZZ, MIB, ODD_TEXTS, as_json, bounded, changed, damaged
from tests.support import lab_archive
from xnatfs.bids import sidecars
from xnatfs.demo.data import build
from xnatfs.demo.data.truth import files
from xnatfs.server.records import FileRecord, Owner
from xnatfs.tables.engine import from_listings
from xnatfs.tables.output.types import Facts
from xnatfs.tables.parse import freesurfer_stats, helpers, workbook
from xnatfs.tables.parse import nifti as images
from xnatfs.tables.pipelines import ashs, bamos, validators
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import Column, Parsed, ParseError, SessionInfo, Table, csv_table

_LARGEST = 300_000  # bytes of a sample


@lru_cache(maxsize=1)
def samples() -> dict[str, list[tuple[str, bytes]]]:
    """A file or two of the sample data for each input of each table, by `table role`."""
    archive = lab_archive()
    every = [
        file for project in archive.projects for file in files(archive, project, "admin") if not file.gone
    ]
    found: dict[str, list[tuple[str, bytes]]] = {}
    for key, table in all_tables().items():
        mine = [file for file in every if file.resource in table.resources and file.size < _LARGEST]
        for one in table.inputs:
            names = {"label": "S", "id": "E", "subject": "S"}
            fits = [
                file
                for file in mine
                if any(
                    fnmatch.fnmatchcase(
                        file.path,
                        pattern.format(id=file.session_id, label=file.session, subject=file.subject),
                    )
                    for pattern in one.patterns
                )
            ]
            found[f"{key} {one.role}"] = [
                (file.path.format(**names) if "{" in file.path else file.path, file.read())
                for file in fits[:2]
            ]
    return {name: some for name, some in found.items() if some}


@lru_cache(maxsize=1)
def parsers() -> dict[str, list[tuple[str, str]]]:
    """Inputs with different parsers: (table, role) by what the parser is, with one sample at least."""
    found: dict[str, list[tuple[str, str]]] = {}
    for key, table in all_tables().items():
        for one in table.inputs:
            if f"{key} {one.role}" in samples():
                made = one.parse
                inner = made.func if isinstance(made, functools.partial) else made
                found.setdefault(f"{inner.__module__}.{inner.__qualname__}", []).append((key, one.role))
    return found


def sound(parsed: Parsed) -> None:
    """What the builder can keep and the writers can write."""
    assert all(isinstance(name, str) for name in parsed.columns) and len(set(parsed.columns)) == len(
        parsed.columns
    )
    assert all(len(row) == len(parsed.columns) for row in parsed.rows)
    assert all(isinstance(cell, str) for row in parsed.rows for cell in row)
    assert all(isinstance(note, str) for note in parsed.notes)
    json.dumps([parsed.columns, parsed.rows, parsed.notes])


def parse_input(table: Table, role: str, path: str, data: bytes) -> Parsed:
    (one,) = (one for one in table.inputs if one.role == role)
    return one.parse(io.BytesIO(data), path)


@FUZZ
@given(st.data())
def test_a_damaged_measurement_file_is_refused_or_gives_rows(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(parsers())))
    key, role = data.draw(st.sampled_from(parsers()[kind]))
    documents = st.sampled_from([content for _, content in samples()[f"{key} {role}"]])
    path = samples()[f"{key} {role}"][0][0]
    body = data.draw(damaged(documents))
    with contextlib.suppress(ParseError):
        sound(bounded(len(body), lambda: parse_input(all_tables()[key], role, path, body)))


@FUZZ
@given(st.data())
def test_a_session_with_damaged_files_is_put_together(data: st.DataObject) -> None:
    keys = [
        key
        for key, table in all_tables().items()
        if all(f"{key} {one.role}" in samples() for one in table.inputs)
    ]
    table = all_tables()[data.draw(st.sampled_from(sorted(keys)))]
    inputs: dict[str, list[tuple[str, Parsed]]] = {}
    for one in table.inputs:
        some = samples()[f"{table.key} {one.role}"]
        path, content = data.draw(st.sampled_from(some))
        try:
            inputs[one.role] = [
                (path, one.parse(io.BytesIO(data.draw(damaged(st.just(content), most=1))), path))
            ]
        except ParseError:
            assume(not one.required)
    parsed = table.combine(SessionInfo("E", "S_MR1", "S", "2024-01-01", "P"), inputs)
    assert all(isinstance(cell, str) for row in parsed.rows for cell in row)
    assert all(len(row) == len(parsed.columns) for row in parsed.rows)


@FUZZ
@given(st.data())
def test_right_files_give_the_same_rows_as_ever(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(parsers())))
    key, role = data.draw(st.sampled_from(parsers()[kind]))
    for path, content in samples()[f"{key} {role}"]:
        found = parse_input(all_tables()[key], role, path, content)
        sound(found)
        assert found.rows and found == parse_input(all_tables()[key], role, path, content)


# --- text files ---------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[io.BytesIO], Any]] = {
    "stats": lambda stream: freesurfer_stats.read_stats(stream, freesurfer_stats.ASEG_COLUMNS),
    "csv": csv_table,
    "checked csv": helpers.checked_csv,
    "names and values": lambda stream: helpers.named_values(stream, (), "volume"),
    "ashs": lambda stream: ashs.side_volumes(stream, "", "left"),
    "icv": lambda stream: ashs.icv(stream, ""),
    "report": validators.read_report,
    "outcomes": lambda stream: validators.outcomes(stream, ""),
}


@FUZZ
@given(
    st.sampled_from(sorted(READERS)),
    st.binary(max_size=200) | st.lists(ODD_TEXTS, max_size=20).map(lambda some: as_text(some)),
)
@example("csv", b"\xef\xbb\xbf")
@example("csv", b"\x1c\x1c")
@example("checked csv", b"\xef\xbb\xbf\n\n")
@example("ashs", b"s left CA1 \xc2\xb2 3.0\n")
@example("report", b'{"a":' * 100_000)
@example("report", b'{"a":' + b"9" * 5000 + b"}")
@example("outcomes", b'{"T":{"has_passed":true},"version":' + b"[" * 950 + b"]" * 950 + b"}")
@example("stats", b"# NRows " + b"9" * 5000 + b"\n1 2 3\n")
def test_any_text_is_refused_or_read(reader: str, body: bytes) -> None:
    with contextlib.suppress(ParseError):
        bounded(len(body), lambda: READERS[reader](io.BytesIO(body)))


def as_text(parts: list[str]) -> bytes:
    """Words in lines."""
    return " ".join(parts).encode("utf-8", "surrogatepass")


def test_a_long_file_takes_no_longer_than_it_is() -> None:
    """Rows are compared with those before them; a million of them would take hours if one by one."""
    lines = b"".join(b"s left r%d 1 2.0\n" % number for number in range(60_000))
    assert len(ashs.side_volumes(io.BytesIO(lines), "", "left").rows) == 60_000


REPORTS = st.dictionaries(
    st.from_regex(r"Has[A-Z][a-z]{1,8}", fullmatch=True),
    st.fixed_dictionaries({"has_passed": st.sampled_from((True, False, None))}),
    min_size=1,
)


@FUZZ
@given(damaged(changed(REPORTS).map(as_json), most=1))
def test_a_report_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ParseError):
        sound(bounded(len(body), lambda: validators.outcomes(io.BytesIO(body), "")))


@FUZZ
@given(REPORTS)
def test_a_right_report_comes_back(report: dict[str, dict[str, bool | None]]) -> None:
    found = validators.outcomes(io.BytesIO(json.dumps(report).encode()), "")
    cells = dict(zip(found.columns, found.rows[0], strict=True))
    assert {name: cells[name] for name in report} == {
        name: {True: "true", False: "false", None: ""}[test["has_passed"]] for name, test in report.items()
    }


@FUZZ
@given(st.lists(ODD_TEXTS, max_size=8))
def test_cells_of_any_text_are_weighed(cells: list[str]) -> None:
    facts = Facts(Column("x"))
    for cell in filter(None, cells):
        facts.add(cell)
    assert facts.sheet_kind and facts.stored_kind
    for cell in cells:
        with contextlib.suppress(ParseError):
            helpers.number(cell, "it")


# --- images -------------------------------------------------------------------------------------------------


def nifti(
    shape: tuple[int, ...] = (3, 4, 2),
    kind: int = 4,
    *,
    voxels: bytes | None = None,
    slope: float = 1.0,
    inter: float = 0.0,
    pixdim: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    offset: float = 352,
    order: str = "<",
    dims: int | None = None,
) -> bytes:
    """A NIfTI-1 file of any header."""
    head = bytearray(352)
    struct.pack_into(order + "i", head, 0, 348)
    edges = [len(shape) if dims is None else dims, *shape]
    struct.pack_into(order + "8h", head, 40, *(edges + [1] * 8)[:8])
    struct.pack_into(order + "h", head, 70, kind)
    struct.pack_into(order + "8f", head, 76, *([*pixdim, *([1.0] * 8)])[:8])
    struct.pack_into(order + "3f", head, 108, offset, slope, inter)
    head[344:348] = b"n+1\0"
    if voxels is None:
        voxels = np.arange(math.prod(shape)).astype(np.dtype(order + images._TYPES.get(kind, "i2"))).tobytes()
    return bytes(head) + voxels


SHORT = st.integers(-3, 5) | st.sampled_from((32767, -32768, 1000))
FLOATS = st.floats(width=32)
HEADERS = st.builds(
    nifti,
    st.lists(SHORT, min_size=1, max_size=7).map(tuple),
    st.sampled_from((*images._TYPES, 0, 1, 128, 32, -1)),
    voxels=st.binary(max_size=200),
    slope=FLOATS | st.sampled_from((0.0, 1.0)),
    inter=FLOATS,
    pixdim=st.tuples(FLOATS, FLOATS, FLOATS, FLOATS),
    offset=FLOATS | st.sampled_from((352.0, 0.0, -1.0, 3e38)),
    order=st.sampled_from("<>"),
    dims=st.none() | SHORT,
)
WHOLE = st.builds(
    lambda shape, kind, order: nifti(tuple(shape), kind, order=order),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(sorted(images._TYPES)),
    st.sampled_from("<>"),
)


def nifti2(
    edges: list[int], pixdim: list[float], offset: int, slope: float, inter: float, kind: int, voxels: bytes
) -> bytes:
    """A NIfTI-2 file of any header."""
    head = bytearray(544)
    struct.pack_into("<i", head, 0, 540)
    head[4:8] = b"n+2\0"
    struct.pack_into("<h", head, 12, kind)
    struct.pack_into("<8q", head, 16, *edges)
    struct.pack_into("<8d", head, 104, *pixdim)
    struct.pack_into("<q2d", head, 168, offset, slope, inter)
    return bytes(head) + voxels


LONG = st.integers(-1, 4) | st.sampled_from((2**62, -(2**63), 2**40))
HEADERS2 = st.builds(
    nifti2,
    st.tuples(st.integers(0, 8), *[LONG] * 7).map(list),
    st.lists(st.floats() | st.sampled_from((1.0, 1e308)), min_size=8, max_size=8),
    LONG,
    st.floats() | st.just(1.0),
    st.floats() | st.just(0.0),
    st.sampled_from(sorted(images._TYPES)),
    st.binary(max_size=200),
)
IMAGES = HEADERS | HEADERS2 | WHOLE
USES: dict[str, Callable[[io.BytesIO], Any]] = {
    "volume": images.volume,
    "above a half": lambda stream: images.volume(stream, 0.5),
    "total": images.total,
    "labels": images.label_counts,
    "packed labels": lambda stream: sound(bamos.packed_labels(stream, "")),
    "packed inside": lambda stream: sound(bamos.packed_inside(stream, "", 0.5)),
}


@FUZZ
@given(st.sampled_from(sorted(USES)), damaged(IMAGES | IMAGES.map(gzip.compress), most=2))
@example("volume", nifti2([3, 1, 1, 1, 1, 1, 1, 1], [1e308] * 8, 544, 1.0, 0.0, 2, b"\x01"))
@example(
    "volume",
    nifti2([3, 2, 1, 1, 1, 1, 1, 1], [1.0] * 8, 544, 1e308, 1e308, 64, struct.pack("<2d", 1e308, 1e308)),
)
@example(
    "volume",
    nifti2([3, 2**20, 1, 1, 1, 1, 1, 1], [1.0] * 8, 544, 1.0, 0.0, 64, struct.pack("<d", 1e308) * 2**20),
)
@example("volume", nifti((32767, 32767, 32767), voxels=b""))
@example("volume", nifti(offset=3e38))
def test_an_image_of_any_header_is_summed_or_refused(use: str, body: bytes) -> None:
    with contextlib.suppress(ParseError):
        bounded(len(body), lambda: USES[use](io.BytesIO(body)))
    sidecars.repetition_time(body)


@FUZZ
@given(st.lists(st.integers(-100, 100), min_size=1, max_size=30), st.sampled_from("<>"), st.booleans())
def test_the_sum_of_a_right_image(values: list[int], order: str, packed: bool) -> None:
    voxels = np.array(values, dtype=f"{order}i2").tobytes()
    body = nifti(
        (len(values), 1, 1), voxels=voxels, slope=0.5, inter=1.0, pixdim=(1.0, 2.0, 3.0, 4.0), order=order
    )
    body = gzip.compress(body) if packed else body
    assert images.volume(io.BytesIO(body)) == (sum(values) * 0.5 + len(values)) * 24
    header, counts = images.label_counts(io.BytesIO(body))
    assert sum(counts.values()) == header.count == len(values)


@pytest.mark.parametrize("use", sorted(USES))
def test_a_small_file_that_inflates_to_a_huge_image_takes_little_memory(use: str) -> None:
    body = gzip.compress(
        nifti((1024, 1024, 24), 2, voxels=bytes(24 * MIB), inter=1.0)
    )  # all of it inside, at 16 bytes a voxel
    with contextlib.suppress(ParseError):
        bounded(MIB, lambda: USES[use](io.BytesIO(body)))


SIDECARS = st.dictionaries(ODD_TEXTS, st.none() | st.floats() | ODD_TEXTS, max_size=4)


@FUZZ
@given(damaged(changed(SIDECARS).map(as_json), most=1), SIDECARS)
@example(b'{"a": ' * 100_000, {"b": 1})
def test_a_sidecar_keeps_what_it_has_and_gets_what_it_lacks(original: bytes, wanted: dict[str, Any]) -> None:
    made = sidecars.with_fields(original, {"RepetitionTime": 2.0})
    found = sidecars.read(made)
    assert found is not None and "RepetitionTime" in found
    before = sidecars.read(original)
    assert before is None or set(before) <= set(found)


@FUZZ
@given(st.integers(0, 300_000))
@example(300_000)
def test_a_sidecar_of_blanks_takes_no_longer_than_it_is(blanks: int) -> None:
    made = sidecars.with_fields(b'{"a":' + b" " * blanks + b"1}  ", {"b": 2})
    assert json.loads(made) == {"a": 1, "b": 2}


# --- DICOM --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def slices() -> list[bytes]:
    """Two DICOM files of the sample data, the beginning of them: dates stand there."""
    archive = build("scale", sessions=0, dicom=2, dicom_pixels=8)
    return [file.read() for file in files(archive, "DCM", "demo")]


class _Builder:
    """Gives one file, whatever is asked for."""

    def __init__(self, body: bytes) -> None:
        self.files = self
        self._body = body

    def open(self, _: object) -> io.BytesIO:
        return io.BytesIO(self._body)


RECORD = FileRecord(Owner("scan", "E1", "1"), 7, "DICOM", "1.dcm", 5, "")


@FUZZ
@given(damaged(st.sampled_from((0, 1)).map(lambda number: slices()[number])))
def test_the_date_of_a_damaged_dicom_file_is_told_or_not(body: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a user has them
        date = bounded(len(body), lambda: from_listings._date_of_file(_Builder(body), "P", RECORD))  # type: ignore[arg-type]
    assert date == "" or len(date) == 10


def test_the_date_of_a_right_dicom_file() -> None:
    assert from_listings._date_of_file(_Builder(slices()[0]), "P", RECORD) == "2024-01-08"  # type: ignore[arg-type]


# --- workbooks ----------------------------------------------------------------------------------------------

NS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
CELL = st.builds(
    lambda at, kind, value: f'<c r="{at}" t="{kind}"><v>{value}</v></c>',
    st.sampled_from(("A1", "B1", "C2", "ZZZ1", "A0", "a1", "", "XFD1048576", "AAAA1")),
    st.sampled_from(("n", "s", "str", "b", "e", "inlineStr", "x")),
    st.sampled_from(("0", "1", "7", "-1", "²", "1.5", "", "9" * 5000, "&amp;", "\u0663", "1e999")),
)
SHEET = st.lists(
    st.lists(CELL, max_size=4).map(lambda cells: f"<row>{''.join(cells)}</row>"), max_size=4
).map(lambda rows: f'<worksheet xmlns="{NS}"><sheetData>{"".join(rows)}</sheetData></worksheet>'.encode())
SHARED = st.lists(st.sampled_from(("<t>a</t>", "<r><t>b</t></r>", "<t/>", "")), max_size=3).map(
    lambda some: f'<sst xmlns="{NS}">{"".join(f"<si>{one}</si>" for one in some)}</sst>'.encode()
)


def book(
    sheet: bytes, shared: bytes, name: str = "xl/worksheets/sheet1.xml", method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A workbook of these parts."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr(name, sheet)
        archive.writestr("xl/sharedStrings.xml", shared)
    return target.getvalue()


BOOKS = st.builds(
    book,
    damaged(SHEET, most=1),
    damaged(SHARED, most=1),
    st.sampled_from(
        (
            "xl/worksheets/sheet1.xml",
            "xl/worksheets/sheet" + "9" * 5000 + ".xml",
            "xl/worksheets/sheet\u0663.xml",
            "x",
        )
    ),
    st.sampled_from((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
)
EMPTY = f'<sst xmlns="{NS}"/>'.encode()


def _sheet(cells: str) -> bytes:
    return f'<worksheet xmlns="{NS}"><sheetData>{cells}</sheetData></worksheet>'.encode()


@FUZZ
@given(damaged(BOOKS, most=2))
@example(book(_sheet('<row><c t="s"><v>²</v></c></row>'), EMPTY))
@example(book(_sheet(f'<row><c t="s"><v>{"9" * 5000}</v></c></row>'), EMPTY))
@example(book(b'<?xml version="1.0" encoding="nothing"?><a/>', EMPTY))
@example(book(b'<?xml version="1.0" encoding="utf-7"?><a/>', EMPTY))
@example(book(_sheet(""), EMPTY, "xl/worksheets/sheet" + "9" * 5000 + ".xml"))
@example(book(_sheet('<row><c r="ZZZ1"><v>1</v></c></row>' * 20_000), EMPTY))
def test_a_workbook_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ParseError):
        rows = bounded(max(len(body), MIB), lambda: workbook.first_sheet(io.BytesIO(body)))
        assert len({len(row) for row in rows}) <= 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("before", ["", f"<!--{'x' * 5000}-->"])
def test_a_workbook_with_entities_of_its_own_is_refused(encoding: str, before: str) -> None:
    entities = "".join(
        f'<!ENTITY e{number} "{f"&e{number - 1};" * 20 if number else "x" * 50}">' for number in range(6)
    )
    sheet = f"{before}<!DOCTYPE worksheet [{entities}]>{_sheet('<row><c><v>&e5;</v></c></row>').decode()}"
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{sheet}'
    with pytest.raises(ParseError):
        bounded(MIB, lambda: workbook.first_sheet(io.BytesIO(book(declared.encode(encoding), EMPTY))))


def test_a_right_workbook_comes_back() -> None:
    shared = f'<sst xmlns="{NS}"><si><t>name</t></si><si><r><t>a</t></r><r><t>b</t></r></si></sst>'.encode()
    cells = (
        '<row><c r="A1" t="s"><v>0</v></c><c r="C1"><v>1.50</v></c></row><row><c r="A2" '
        't="s"><v>1</v></c></row>'
    )
    assert workbook.first_sheet(io.BytesIO(book(_sheet(cells), shared))) == [
        ["name", "", "1.50"],
        ["ab", "", ""],
    ]


def stats_target(body: bytes) -> None:
    """For a fuzzer that makes its own bytes."""
    with contextlib.suppress(ParseError):
        READERS["stats"](io.BytesIO(body))


def image_target(body: bytes) -> None:
    """The same for images."""
    with contextlib.suppress(ParseError):
        images.volume(io.BytesIO(body))
    sidecars.repetition_time(body)


def book_target(body: bytes) -> None:
    with contextlib.suppress(ParseError):
        workbook.first_sheet(io.BytesIO(body))


TARGETS = {"stats": stats_target, "image": image_target, "workbook": book_target}
