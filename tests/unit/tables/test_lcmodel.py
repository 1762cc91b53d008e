"""LCModel's workbooks, and the reader of workbooks."""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import escape

import pytest

from tests.unit.tables.support import session
from xnatfs.tables.parse.workbook import first_sheet
from xnatfs.tables.spec import ParseError

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def workbook(rows: list[list[str | float | None]], shared: bool = True, places: bool = True) -> bytes:
    """A workbook with texts shared or in place, and cells that say where they are or do not."""
    texts: list[str] = []
    lines = []
    for count, row in enumerate(rows, 1):
        cells = []
        for at, cell in enumerate(row):
            place = f' r="{chr(65 + at)}{count}"' if places else ""
            if cell is None:
                cells.append("" if places else "<c/>")
            elif isinstance(cell, str):
                texts.append(cell)
                if shared:
                    cells.append(f'<c{place} t="s"><v>{len(texts) - 1}</v></c>')
                else:
                    cells.append(f'<c{place} t="inlineStr"><is><t>{escape(cell)}</t></is></c>')
            else:
                cells.append(f"<c{place}><v>{cell!r}</v></c>")
        lines.append(f"<row>{''.join(cells)}</row>")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f"<worksheet {MAIN}><sheetData>{''.join(lines)}</sheetData></worksheet>",
        )
        archive.writestr("xl/worksheets/sheet10.xml", f"<worksheet {MAIN}><sheetData/></worksheet>")
        if shared:
            items = "".join(
                f"<si><r><t>{escape(text[:1])}</t></r><r><t>{escape(text[1:])}</t></r></si>" for text in texts
            )
            archive.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{items}</sst>")
    return out.getvalue()


HEADER: list[str | float | None] = ["id", "subject", "region", "table", "measurement", "value", "units"]
ROWS: list[list[str | float | None]] = [
    ["XNAT_E00001", "S01", "precuneus", "concentration", "NAA", 7.125, "mmol"],
    ["XNAT_E00001", "S01", "precuneus", "concentration_SD", "NAA", 3, "%"],
    ["XNAT_E00001", "S01", "precuneus", "miscellaneous", "FWHM", 0.049, "ppm"],
    ["XNAT_E00001", "S01", "precuneus", "other", "ignored", 1.0, ""],
    ["XNAT_E00001", "S01", "hippocampus & co", "concentration", "NAA", 6.5, "mmol"],
    ["XNAT_E00001", "S01", "hippocampus & co", "concentration", "Cr", None, "mmol"],
]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("places", [True, False])
def test_a_region_is_a_row_and_a_measurement_a_column(shared: bool, places: bool) -> None:
    found = session("lcmodel/stats", {"lcmodel/S01_lcmodel.xlsx": workbook([HEADER, *ROWS], shared, places)})
    assert found.columns == ("subject", "region", "NAA", "NAA_SD", "FWHM", "Cr")
    assert found.rows == [
        ("S01", "precuneus", "7.125", "3", "0.049", ""),
        ("S01", "hippocampus & co", "6.5", "", "", ""),
    ]
    assert not found.notes


def test_tissue_correction_is_passed_through_without_its_id() -> None:
    content = workbook(
        [[None, "id", "subject", "region", "GM"], [0, "XNAT_E00009", "S01", "precuneus", 0.625]]
    )
    found = session("lcmodel/correction", {"tissue_correction/mrs_tissue_corr.xlsx": content})
    assert found.columns == ("subject", "region", "GM") and found.rows == [("S01", "precuneus", "0.625")]
    assert found.notes == ("the file says that it is of XNAT_E00009",)


def test_workbooks_of_other_writers_are_read(tmp_path: object) -> None:
    rows = [["a", "b", "c"], ["x", 1.5, True], [None, 3, "<&>"]]
    expected = [["a", "b", "c"], ["x", "1.5", "true"], ["", "3", "<&>"]]
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    assert first_sheet(out) == expected
    xlsxwriter = pytest.importorskip("xlsxwriter")
    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate(rows):
            sheet.write_row(at, 0, row)
    assert first_sheet(out) == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a workbook"),
        (b"<html></html>", "not a workbook"),
        (workbook([HEADER, *ROWS])[:-100], "not a workbook, or damaged"),
        (workbook([HEADER]), "no rows"),
        (workbook([HEADER[1:], *(row[1:] for row in ROWS)]), "no column id"),
        (workbook([["id", "id"], ["a", "b"]]), "one name"),
        (workbook([HEADER, [*ROWS[0][:5], "much", ""]]), "NAA is 'much', not a number"),
        (workbook([HEADER, ROWS[0], ROWS[0]]), "NAA twice"),
    ],
)
def test_what_is_no_workbook_of_lcmodel_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(ParseError, match=sentence):
        session("lcmodel/stats", {"S01_lcmodel.xlsx": content})


def test_a_workbook_with_entities_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", '<!DOCTYPE a [<!ENTITY b "c">]><worksheet>&b;</worksheet>'
        )
    with pytest.raises(ParseError, match="not a workbook of the kind a pipeline writes"):
        first_sheet(out)
