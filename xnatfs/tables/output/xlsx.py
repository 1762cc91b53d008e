"""A finished table as an `.xlsx`, for people: typed cells, a header that stays in sight, a filter, and never
a formula.

Used by `tables.output.write`. Any thread; one writer a path. XlsxWriter keeps one row at a time ("constant
memory"); the rows wait, uncompressed and twice for a moment, in a folder beside the file until it is closed:
some 60 bytes a cell each.

A sheet is named for its table, further ones `aseg 2`, `aseg 3`; the last, `about`, lists the columns with
their units. Numbers are the double nearest to the source's text, dates real dates. Identifiers are texts, see
`types.Facts.sheet_kind`.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException
from xlsxwriter.utility import xl_col_to_name

from xnatfs.tables.output.types import CellKind, ColumnScan, Facts, fitting, header, pieces, visible
from xnatfs.tables.spec import Frame, Row

MAX_SHEET_ROWS = 1_048_576  # of a sheet, with the header; XlsxWriter drops what is beyond without a word
MAX_SHEET_COLUMNS = 16_384

_EPOCH = datetime.date(1899, 12, 30).toordinal()  # Excel's day 0, for dates since March 1900
_GREATEST, _SMALLEST = 9.99e307, 2.23e-308  # what Excel's numbers end at
_MAX_WIDTH_CHARS = 50  # shown of a column
_NO_NAME = re.compile(r"[\[\]:*?/\\\x00-\x1f]")
_RESERVED = ("about", "history")  # the second is Excel's own

_Put = Callable[[int, int, str], object]


class _Digits(float):
    """A number that XlsxWriter writes with all the digits a double needs: 17, where its own format has 16."""

    def __format__(self, _: str) -> str:
        return float.__repr__(self).removesuffix(".0")


def write(frame: Frame, scanned: ColumnScan, path: Path, title: str) -> None:
    """Write the table; see `formats.write`.

    Raises:
        ValueError: it has more columns than a sheet.
    """
    names = tuple(fitting(_clean(name)) for name in header(frame))
    if len(names) > MAX_SHEET_COLUMNS:
        raise ValueError(
            f"the table has {len(names):,} columns, and a sheet in an .xlsx at most {MAX_SHEET_COLUMNS:,}; "
            f"take the .csv or .parquet"
        )
    with tempfile.TemporaryDirectory(prefix=".xlsx-", dir=path.parent) as folder:
        options = {
            "constant_memory": True,
            "tmpdir": folder,
            "use_zip64": True,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        }
        book = xlsxwriter.Workbook(str(path), options)
        try:
            # Without a date of its own the file would have the clock's.
            book.set_properties({"title": _clean(title)[:255], "created": datetime.datetime(2000, 1, 1)})
            _fill(book, frame, names, scanned, title)
            book.close()
        except XlsxWriterException as error:
            cause = next((arg for arg in error.args if isinstance(arg, OSError)), None)
            raise cause or ValueError(f"the .xlsx cannot be written: {error}") from error
        finally:
            for sheet in book.worksheets():
                with contextlib.suppress(OSError):
                    sheet._opt_close()  # its row file, which nothing else closes after an error


def _fill(book: Any, frame: Frame, names: tuple[str, ...], scanned: ColumnScan, title: str) -> None:
    bold = book.add_format({"bold": True})
    iso = book.add_format({"num_format": "yyyy-mm-dd"})
    kinds = [facts.sheet_kind for facts in scanned.facts]
    widths = [
        _width(name, facts, kind) for name, facts, kind in zip(names, scanned.facts, kinds, strict=True)
    ]
    label = sheet_name(title)
    rows = chain.from_iterable(pieces(frame))
    left, number = scanned.rows, 1
    while left or number == 1:
        suffix = "" if number == 1 else f" {number}"
        sheet = book.add_worksheet(label[: 31 - len(suffix)] + suffix)
        here = min(left, MAX_SHEET_ROWS - 1)
        for at, width in enumerate(widths):
            sheet.set_column(at, at, width)
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, here, len(names) - 1)
        text = _texts(sheet)
        for at, name in enumerate(names):
            text(0, at, name, bold)
        write_row = _writer(sheet, kinds, [_put(sheet, kind, iso, text) for kind in kinds])
        for at in range(1, here + 1):
            row = next(rows, None)
            if row is None:
                raise ValueError("the table has fewer rows than at its first reading")
            write_row(at, row)
        left -= here
        number += 1
    if next(rows, None) is not None:
        raise ValueError("the table has more rows than at its first reading")
    _about(book, frame, names, title, scanned.rows, bold)


def _writer(sheet: Any, kinds: Sequence[CellKind], puts: Sequence[_Put]) -> Callable[[int, Row], None]:
    """What writes a row, after which no other is written before it."""
    if all(hasattr(sheet, name) for name in _Fast.USED):
        return _Fast(sheet, kinds, puts).write

    def write(at: int, row: Row) -> None:
        for column, cell in enumerate(row):
            if cell:
                puts[column](at, column, cell)

    return write


class _Fast:
    """Writes rows as XlsxWriter does, byte for byte, in a fifth of the time: a cell's XML is asked of it once
    a text and column.

    A table of 1.25 million rows takes it a minute. Cells of a long table are mostly the same few texts, and
    numbers, which are simple.
    """

    # of XlsxWriter's own, besides what is documented
    USED = ("fh", "table", "_write_cell", "_write_single_row", "_check_dimensions")
    _MAX_TEXTS = 20_000  # texts a column

    def __init__(self, sheet: Any, kinds: Sequence[CellKind], puts: Sequence[_Put]) -> None:
        sheet._write_single_row(1)  # the header, which still waits
        self._sheet = sheet
        self._puts = puts
        self._file = sheet.fh
        self._columns = [
            (f'<c r="{xl_col_to_name(at)}', kind is CellKind.NUMBER, at, dict[str, str]())
            for at, kind in enumerate(kinds)
        ]

    def write(self, at: int, row: Row) -> None:
        """Write the row of this number."""
        number = at + 1
        parts = [f'<row r="{number}">']
        for cell, (head, numeric, column, known) in zip(row, self._columns, strict=True):
            if not cell:
                continue
            rest = _number(cell) if numeric else known.get(cell)
            if rest is None:
                rest = self._asked(column, cell)
                if len(known) >= self._MAX_TEXTS:
                    known.clear()
                known[cell] = rest
            parts.append(f'{head}{number}"{rest}')
        if len(parts) > 1:
            parts.append("</row>")
            self._file.write("".join(parts))
            self._sheet._check_dimensions(at, 0)

    def _asked(self, column: int, cell: str) -> str:
        """What XlsxWriter writes of a cell behind its place."""
        sheet = self._sheet
        place = sheet.previous_row
        self._puts[column](place, column, cell)
        entry = sheet.table[place].pop(column)
        sheet.table.clear()
        sheet.fh = io.StringIO()
        try:
            sheet._write_cell(0, column, entry)
            xml: str = sheet.fh.getvalue()
        finally:
            sheet.fh = self._file
        return xml.removeprefix(f'<c r="{xl_col_to_name(column)}1"')


def _number(cell: str) -> str | None:
    """A number's XML behind its place; None if it is none that a sheet has."""
    try:
        value = float(cell)
    except ValueError:
        return None
    if _SMALLEST < abs(value) < _GREATEST or not value:
        return f"><v>{repr(value).removesuffix('.0')}</v></c>"
    return None


def _texts(sheet: Any) -> Callable[..., object]:
    """What writes a text into a cell of the sheet."""
    plain = sheet.write_string

    def text(row: int, column: int, cell: str, *form: Any) -> object:
        cell = fitting(_clean(cell))
        if cell.startswith("<r>") and cell.endswith("</r>"):
            # XlsxWriter takes such a text for markup it made itself and writes it as it is: a cell could
            # write its own formula. In pieces it is escaped.
            return sheet.write_rich_string(row, column, "<", "r>", cell[3:], *form)
        return plain(row, column, cell, *form)

    return text


def _put(sheet: Any, kind: CellKind, iso: Any, text: _Put) -> _Put:
    """What writes a cell, which is not empty, of a column of this kind."""
    plain = sheet.write_number

    def number(row: int, column: int, cell: str) -> object:
        try:
            value = _Digits(cell)
        except ValueError:
            return text(row, column, cell)  # a mark for a missing value
        if _SMALLEST < abs(value) < _GREATEST or not value:
            return plain(row, column, value)
        return text(row, column, cell)  # nan and inf too

    def date(row: int, column: int, cell: str) -> object:
        return plain(row, column, datetime.date.fromisoformat(cell).toordinal() - _EPOCH, iso)

    def boolean(row: int, column: int, cell: str) -> object:
        return sheet.write_boolean(row, column, cell.lower() == "true")

    return {CellKind.NUMBER: number, CellKind.DATE: date, CellKind.BOOLEAN: boolean}.get(kind, text)


def _about(book: Any, frame: Frame, names: tuple[str, ...], title: str, rows: int, bold: Any) -> None:
    sheet = book.add_worksheet("about")
    text = _texts(sheet)
    sheet.set_column(0, 0, _MAX_WIDTH_CHARS)
    sheet.set_column(1, 1, 12)
    sheet.set_column(2, 2, _MAX_WIDTH_CHARS)
    if title:
        text(0, 0, title, bold)
    text(1, 0, f"{rows:,} rows, {len(names):,} columns")
    for at, head in enumerate(("column", "unit", "source")):
        text(3, at, head, bold)
    for at, (name, column) in enumerate(zip(names, frame.columns, strict=True), 4):
        for place, cell in enumerate((name, column.unit, column.source)):
            if cell:
                text(at, place, cell)


def _width(name: str, facts: Facts, kind: CellKind) -> int:
    """Characters to show: the header with its filter button, and the cells."""
    return max(
        8, min(_MAX_WIDTH_CHARS, max(len(name) + 3, 11 if kind is CellKind.DATE else facts.longest + 1))
    )


def _clean(text: str) -> str:
    """Legal in XML, with a spreadsheet's line ends."""
    if text.isprintable():
        return text
    return visible(text.replace("\r\n", "\n").replace("\r", "\n"))


def sheet_name(title: str) -> str:
    """A legal name for the sheet of a table: `aseg` for `freesurfer7/aseg`."""
    name = _NO_NAME.sub("_", _clean(title.rpartition("/")[2]))
    name = name.encode("utf-16-le")[: 2 * 31].decode("utf-16-le", "ignore").strip("' ")
    if name.lower() in _RESERVED:
        return f"{name}_"
    return name or "data"
