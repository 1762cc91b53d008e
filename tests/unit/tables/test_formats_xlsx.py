"""A table as an .xlsx: the types of its cells, its sheets, and that no cell is a formula."""

from __future__ import annotations

import contextlib
import datetime
import errno
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings

from tests.unit.tables.frames import Made, column, frame, frames
from xnatfs.tables.output import xlsx
from xnatfs.tables.output.types import scan, visible
from xnatfs.tables.output.write import write
from xnatfs.tables.spec import Column, Rows, is_number


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xlsx") / "table.xlsx"


def sheets(path: Path) -> dict[str, list[list[Any]]]:
    """Every sheet's cells; empty ones are None."""
    with contextlib.closing(openpyxl.load_workbook(path)) as book:
        return {
            sheet.title: [[cell.value for cell in row] for row in sheet.iter_rows()]
            for sheet in book.worksheets
        }


def cells(path: Path, table: Rows, title: str = "") -> list[Any]:
    """The cells of the column `x` that openpyxl finds."""
    write(table, "xlsx", path, title=title)
    return [row[1] for row in next(iter(sheets(path).values()))[1:]]


def parts(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return "".join(
            archive.read(name).decode() for name in archive.namelist() if name.startswith("xl/worksheets/")
        )


@settings(max_examples=80)
@given(frames())
def test_every_cell_is_found_with_its_value(path: Path, table: Rows) -> None:
    write(table, "xlsx", path)
    found = sheets(path)["data"]
    assert found[0] == [column.name for column in table.columns]
    filled = [number for number, row in enumerate(table.held, 1) if any(row)]
    assert len(found) == max(filled, default=0) + 1  # openpyxl ends with the last cell
    for row, read in zip(table.held, found[1:], strict=False):
        for cell, value, kind in zip(row, read, table.columns, strict=True):
            if cell == "":
                assert value is None
            elif isinstance(value, bool):
                assert cell.lower() == str(value).lower()
            elif isinstance(value, datetime.datetime):
                assert value.date().isoformat() == cell
            elif isinstance(value, (int, float)):
                assert not kind.text
                assert is_number(cell)
                assert float(cell) == value
            else:
                text = visible(cell.replace("\r\n", "\n").replace("\r", "\n"))
                # openpyxl leaves Excel's own escape of an escape as it is.
                assert value.replace("_x005F_", "_") == text


@settings(max_examples=80)
@given(frames())
def test_no_sheet_has_a_formula_or_a_link(path: Path, table: Rows) -> None:
    write(table, "xlsx", path)
    assert not re.search("<f[ >]|<hyperlink", parts(path))


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "{=1}",
        "http://x.org",
        "mailto:a@b",
        "<r></r>",
        "<r>a</r>",
        "<r><t>x</t></r></is></c><c><f>1+1</f></c><c><is><r></r>",
        "<r>",
    ],
)
@pytest.mark.parametrize("text", [True, False])
def test_markup_and_formulas_are_text(path: Path, cell: str, text: bool) -> None:
    assert cells(path, column(cell, "other", text=text)) == [cell, "other"]
    assert not re.search("<f[ >]|<hyperlink", parts(path))


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        (["1", "2.50", "", "-0.5"], [1, 2.5, None, -0.5]),
        (["0.30000000000000004", "5e-324"], [0.30000000000000004, "5e-324"]),
        (["1e5", "+5", "-0", ".5"], [100000, 5, 0, 0.5]),
        (["1.5", "NaN", "inf", "NA"], [1.5, "NaN", "inf", "NA"]),
        (["NaN", "NaN"], ["NaN", "NaN"]),
        (["1", "1_000"], ["1", "1_000"]),
        (["007", "12"], ["007", "12"]),
        (["-007", "12"], ["-007", "12"]),
        (["9007199254740992"], [9007199254740992]),
        (["9007199254740993", "1"], ["9007199254740993", "1"]),
        (["1e-400", "1"], ["1e-400", "1"]),
        (["\u0663", "1"], ["\u0663", "1"]),
        (["1", "2a"], ["1", "2a"]),
        (["true", "False", ""], [True, False, None]),
        (["true", "maybe"], ["true", "maybe"]),
        (["2020-01-31", ""], [datetime.datetime(2020, 1, 31), None]),
        (["2020-01-31", "2020-02-30"], ["2020-01-31", "2020-02-30"]),
        (["2020-01-31", "1899-12-31"], ["2020-01-31", "1899-12-31"]),
        (["1900-03-01", "9999-12-31"], [datetime.datetime(1900, 3, 1), datetime.datetime(9999, 12, 31)]),
        (["a\x07b", "a\r\nb", "\ud800", "\ufffe"], ["a\\x07b", "a\nb", "\\ud800", "\\ufffe"]),
        (["  x ", "h\xe4\U0001f9e0", "a\"<&>'b"], ["  x ", "h\xe4\U0001f9e0", "a\"<&>'b"]),
    ],
)
def test_types(path: Path, given_: list[str], found: list[Any]) -> None:
    assert cells(path, column(*given_)) == found
    assert [type(value) for value in cells(path, column(*given_))] == [type(value) for value in found]


def test_text_columns_are_never_numbers(path: Path) -> None:
    given_ = ["7", "1e5", "true", "2020-01-31"]
    for cell in given_:
        assert cells(path, column(cell, text=True)) == [cell]


def test_a_text_column_called_date_still_has_dates(path: Path) -> None:
    write(frame("ID session_date", ("E1", "2020-01-31"), text="ID session_date"), "xlsx", path)
    with contextlib.closing(openpyxl.load_workbook(path)) as book:
        cell = book["data"]["B2"]
        assert (cell.value, cell.number_format) == (datetime.datetime(2020, 1, 31), "yyyy-mm-dd")


def test_the_sheet_has_a_frozen_header_and_a_filter_over_all(path: Path) -> None:
    write(
        frame("ID a b", *[(f"E{number}", "1", "2") for number in range(20)]),
        "xlsx",
        path,
        title="freesurfer7/aseg",
    )
    with contextlib.closing(openpyxl.load_workbook(path)) as book:
        assert book.sheetnames == ["aseg", "about"]
        sheet = book["aseg"]
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref == "A1:C21"
        assert sheet["A1"].font.bold
        assert book.properties.title == "freesurfer7/aseg"


def test_the_last_sheet_is_about_the_columns(path: Path) -> None:
    table = Rows(
        (Column("ID", text=True), Column("volume", "mm3", "aseg.stats, column Volume_mm3")), [("E1", "1.5")]
    )
    write(table, "xlsx", path, title="freesurfer7/aseg")
    assert sheets(path)["about"] == [
        ["freesurfer7/aseg", None, None],
        ["1 rows, 2 columns", None, None],
        [None, None, None],
        ["column", "unit", "source"],
        ["ID", None, None],
        ["volume", "mm3", "aseg.stats, column Volume_mm3"],
    ]


def test_a_table_without_rows_has_its_header(path: Path) -> None:
    write(frame("ID x"), "xlsx", path)
    assert sheets(path)["data"] == [["ID", "x"]]


@pytest.mark.parametrize("count", [8, 9, 10, 18, 19])
def test_further_sheets_take_the_rows_that_do_not_fit(
    path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(xlsx, "MAX_SHEET_ROWS", 10)
    rows = [(f"E{number}", str(number)) for number in range(count)]
    write(frame("ID x", *rows), "xlsx", path, title="aseg")
    found = sheets(path)
    assert list(found) == [*["aseg", "aseg 2", "aseg 3"][: -(-count // 9)], "about"]
    assert [
        (row[0], str(row[1])) for name, sheet in found.items() if name != "about" for row in sheet[1:]
    ] == rows
    assert all(
        sheet[0] == ["ID", "x"] and len(sheet) <= 10 for name, sheet in found.items() if name != "about"
    )


def test_too_many_columns_are_refused_with_a_sentence(tmp_path: Path) -> None:
    table = Rows(tuple(Column(f"c{number}") for number in range(16_385)))
    with pytest.raises(ValueError, match=r"16,385 columns, and a sheet in an \.xlsx at most 16,384"):
        write(table, "xlsx", tmp_path / "t.xlsx")
    assert not (tmp_path / "t.xlsx").exists()


def test_three_thousand_columns(path: Path) -> None:
    write(Made(tuple(Column(f"c{number}") for number in range(3000)), 5), "xlsx", path)
    found = sheets(path)
    assert [len(row) for row in found["data"]] == [3000] * 6
    assert found["data"][5][2999] == 4.2999
    assert len(found["about"]) == 3004


def test_a_text_that_is_too_long_is_cut_with_a_mark(path: Path) -> None:
    exact, long, astral = "a" * 32_767, "b" * 32_768, "\U0001f9e0" * 20_000
    found = cells(path, column(exact, long, astral))
    assert found[0] == exact
    assert found[1].startswith("bbb")
    assert found[1].endswith(" ... [cut: 32768 characters in all]")
    assert found[2].endswith(" ... [cut: 20000 characters in all]")
    assert all(len(cell.encode("utf-16-le")) <= 2 * 32_767 for cell in found)
    assert len(scan(column(exact, long, astral)).notes) == 2


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("freesurfer7/aseg", "aseg"),
        ("", "data"),
        ("About", "About_"),
        ("History", "History_"),
        ("a[b]:c*d?e\\f", "a_b__c_d_e_f"),
        ("'quoted'", "quoted"),
        ("x" * 40, "x" * 31),
        ("x/", "data"),
        ("'" * 40, "data"),
    ],
)
def test_sheet_names_are_legal(path: Path, title: str, name: str) -> None:
    assert xlsx.sheet_name(title) == name
    write(frame("a"), "xlsx", path, title=title)
    assert list(sheets(path)) == [name, "about"]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    table = frame("ID x d", ("E1", "1.5", "2020-01-31"), ("E2", "=1", ""))
    first, second = tmp_path / "one.xlsx", tmp_path / "other-name.tmp"
    write(table, "xlsx", first, title="aseg")
    time.sleep(2.1)  # the clock of a zip has steps of two seconds
    write(table, "xlsx", second, title="aseg")
    assert first.read_bytes() == second.read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} - {"home"} == {first.name, second.name}


def test_a_table_that_changes_between_its_readings_is_refused(tmp_path: Path) -> None:
    known = scan(frame("a", ("1",), ("2",)))
    for rows in ([("1",)], [("1",), ("2",), ("3",)]):
        with pytest.raises(ValueError, match="rows than at its first reading"):
            write(frame("a", *rows), "xlsx", tmp_path / "t.xlsx", scanned=known)
    assert not [entry for entry in tmp_path.iterdir() if entry.name != "home"]


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xlsxwriter.workbook.ZipFile", full)
    with pytest.raises(OSError) as caught:
        write(frame("a", ("1",)), "xlsx", tmp_path / "t.xlsx")
    assert caught.value.errno == errno.ENOSPC
    assert not [entry for entry in tmp_path.iterdir() if entry.name != "home"]


@settings(max_examples=80)
@given(frames())
def test_rows_are_written_as_xlsxwriter_writes_them(path: Path, table: Rows) -> None:
    write(table, "xlsx", path)
    quick = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xlsx._Fast, "USED", ("an attribute nobody has",))
        write(table, "xlsx", path)
    assert path.read_bytes() == quick


def test_more_texts_than_are_kept_are_written_as_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx._Fast, "_MAX_TEXTS", 3)
    texts = [f"a<{number % 7}>" for number in range(50)]
    assert cells(path, Rows((Column("ID"), Column("x")), [("1", text) for text in texts])) == texts
