"""What the cells of a finished table are: numbers, dates or text by column, and which of them a format cannot
hold as they are.

Used by `tables.output.write` and the writers beside it, which need to know a column before its first cell is
written; by `build` for the problems list. `scan` reads a table once, in pieces, and keeps a few words a
column. No other I/O, any thread.

A column is decided as a whole: one `007` among its cells makes all of them text, since whoever wrote it meant
a name and not seven.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice

from xnatfs.tables.spec import Column, Frame, Row, is_number

XLSX_CELL_UNITS16 = 32_767  # UTF-16 units in a cell, says Excel's specification
MAX_LISTED_CHANGES = 200  # sentences about changed cells that a problems list gets at most

_PIECE_CELLS = 20_000  # read at once

_FORMULA = re.compile(
    "[\\s\\0\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20]"
)  # with the full-width forms, which Japanese Excel takes as well
_ILLEGAL = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\ufffe\uffff\ud800-\udfff]")  # in XML 1.0
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_ZERO_FIRST = re.compile(r"[+-]?0[0-9]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_MISSING = frozenset({"na", "n/a", "null", "none", ".", "-"})
_FIRST_DATE = datetime.date(1900, 3, 1)  # before it Excel's calendar is a day off: its 1900 is a leap year
_EXACT = 2**53  # up to here a double holds every integer
_INT64 = 2**63


class CellKind(Enum):
    """What a column's cells are."""

    TEXT = "text"
    INTEGER = "integer"  # all of them, and all fit 64 bits
    NUMBER = "number"  # with nan and inf
    DATE = "date"  # ISO
    BOOLEAN = "boolean"  # true or false, in any case


@dataclass
class Facts:
    """What the cells of one column have in common; starts true of no cells at all."""

    column: Column
    longest: int = 0  # characters
    numbers: bool = False  # there are any
    missing: bool = False  # `NA`, `.` and the like
    words: bool = False  # there are cells that are none of these
    whole: bool = True  # every number is an integer in its plain spelling
    huge: bool = False  # an integer that a double does not hold
    beyond: bool = False  # an integer beyond 64 bits
    named: bool = False  # a number whose text says more than its value: 007
    dates: bool = True
    booleans: bool = True
    filled: bool = False  # there is a cell that is not empty

    def add(self, cell: str) -> bool:
        """Take a cell, which is not empty, into account. True if it is a number, which every format holds as
        it is.
        """
        self.filled = True
        self.longest = max(self.longest, len(cell))
        if plain_number(cell):
            self.numbers = True
            self.dates = self.booleans = False
            if _INTEGER.fullmatch(cell):
                if len(cell) > 15:
                    value = int(cell) if len(cell) < 100 else _INT64
                    self.huge = self.huge or abs(value) > _EXACT
                    self.beyond = self.beyond or not -_INT64 <= value < _INT64
            else:
                self.whole = False
                digits = cell.strip("+-")
                if _ZERO_FIRST.match(cell) or (
                    float(cell) == 0 and re.search("[1-9]", re.split("[eE]", cell)[0])
                ):
                    self.named = True
                elif digits.isdigit() and (len(digits) >= 100 or int(digits) > _EXACT):
                    self.huge = self.beyond = True
            return True
        lower = cell.lower()
        if _NOT_FINITE.fullmatch(cell):
            self.whole = False
        elif lower in _MISSING:
            self.missing = True
        else:
            self.words = True
        self.dates = self.dates and is_date(cell)
        self.booleans = self.booleans and lower in ("true", "false")
        return False

    @property
    def sheet_kind(self) -> CellKind:
        """What the column is in a spreadsheet: people's own marks for a missing value do not stop it from
        being numbers.
        """
        name = self.column.name.lower()
        if self.filled and self.dates and (not self.column.text or name.endswith("date")):
            return CellKind.DATE
        if self.column.text or not self.filled:
            return CellKind.TEXT
        if self.booleans:
            return CellKind.BOOLEAN
        return (
            CellKind.NUMBER if self.numbers and not (self.words or self.named or self.huge) else CellKind.TEXT
        )

    @property
    def stored_kind(self) -> CellKind:
        """What the column is in a verbatim format: TEXT, NUMBER or INTEGER, and what is not a double's value
        stays text.
        """
        if self.column.text or not self.numbers or self.words or self.missing or self.named or self.beyond:
            return CellKind.TEXT
        if self.whole:
            return CellKind.INTEGER
        return CellKind.TEXT if self.huge else CellKind.NUMBER


@dataclass
class ColumnScan:
    """A table read once: its number of rows, the facts of every column, and sentences about cells a format
    has to change.
    """

    rows: int
    facts: tuple[Facts, ...]
    notes: tuple[str, ...]


@dataclass
class _Notes:
    """Sentences, each once, at most `MAX_LISTED_CHANGES`."""

    said: dict[str, None] = field(default_factory=dict)
    left: bool = False

    def add(self, sentence: str) -> None:
        """Add it, unless the list is full."""
        if len(self.said) < MAX_LISTED_CHANGES:
            self.said[sentence] = None
        elif sentence not in self.said:
            self.left = True

    def all(self) -> tuple[str, ...]:
        """What was said; the last sentence says so if there is more."""
        return (
            (*self.said, f"more cells were changed than the {MAX_LISTED_CHANGES} listed")
            if self.left
            else tuple(self.said)
        )


def plain_number(cell: str) -> bool:
    """Whether a cell is a number and nothing else: ASCII digits, no space around it."""
    return is_number(cell) and cell.isascii() and cell == cell.strip()


def is_date(cell: str) -> bool:
    """Whether a cell is an ISO date that a spreadsheet can hold as one."""
    if not _DATE.fullmatch(cell):
        return False
    try:
        return datetime.date.fromisoformat(cell) >= _FIRST_DATE
    except ValueError:
        return False


def risky(cell: str) -> bool:
    """Whether a spreadsheet that opens a .csv may take the cell for a formula.

    That is free text that starts with `=`, `+`, `-` or `@`, also behind blanks and control characters.
    Numbers are none, nor are `-inf` and `-nan`: no formula can be made of them, and an apostrophe would keep
    programs from reading the column.
    """
    return bool(_FORMULA.match(cell)) and not is_number(cell) and not _NOT_FINITE.fullmatch(cell)


def visible(text: str) -> str:
    r"""The text with each character that XML cannot hold spelled out: `\x07`."""
    return _ILLEGAL.sub(_spelled, text)


def encodable(text: str) -> str:
    r"""The text with each lone surrogate, which UTF-8 cannot hold, spelled out: `\ud800`."""
    return text if text.isascii() else _SURROGATE.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def units16(text: str) -> int:
    """Length in UTF-16 units, which is how Excel counts."""
    return len(text) + sum(character > "\uffff" for character in text)


def fitting(text: str) -> str:
    """The text, or as much of it as a spreadsheet's cell holds and a mark that says so."""
    if len(text) <= XLSX_CELL_UNITS16 // 2 or units16(text) <= XLSX_CELL_UNITS16:
        return text
    mark = f" ... [cut: {len(text)} characters in all]"
    cut = text.encode("utf-16-le")[: 2 * (XLSX_CELL_UNITS16 - len(mark))]
    return cut.decode("utf-16-le", "ignore") + mark


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, with `_2`, `_3` at each that was there before: readers take a column by its name."""
    taken = set(names)
    if len(taken) == len(names):
        return names
    unique: list[str] = []
    seen: set[str] = set()
    for name in names:
        free, number = name, 2
        while free in seen or (free != name and free in taken):
            free, number = f"{name}_{number}", number + 1
        seen.add(free)
        unique.append(free)
    return tuple(unique)


def header(frame: Frame) -> tuple[str, ...]:
    """The column names as every format writes them.

    Raises:
        ValueError: there are none.
    """
    if not frame.columns:
        raise ValueError("the table has no columns")
    return distinct(tuple(column.name for column in frame.columns))


def pieces(frame: Frame, cells: int = _PIECE_CELLS) -> Iterator[list[Row]]:
    """The rows, as many at once as have about this many cells.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    width = len(frame.columns)
    rows = frame.rows()
    while piece := list(islice(rows, max(1, cells // max(1, width)))):
        for row in piece:
            if len(row) != width:
                raise ValueError(f"a row has {len(row)} cells, the table {width} columns")
        yield piece


def scan(frame: Frame) -> ColumnScan:
    """Read the table once, and say what its columns are and what a format changes in them.

    Raises:
        ValueError: it has no columns, or a row has more or fewer cells than there are columns.
    """
    names = header(frame)
    facts = tuple(Facts(column) for column in frame.columns)
    notes = _Notes()
    for name in names:
        _note(notes, "the column name", name)
    abouts = [f"column {_shown(name)}:" for name in names]
    count = 0
    for piece in pieces(frame):
        count += len(piece)
        for about, fact, cells in zip(abouts, facts, zip(*piece, strict=True), strict=True):
            # Each distinct cell once, since most columns repeat themselves; in the order of the rows, so
            # that the sentences are.
            for cell in dict.fromkeys(cells):
                if cell and not fact.add(cell) and not (len(cell) < 80 and cell.isalnum()):
                    _note(notes, about, cell)
    return ColumnScan(count, facts, notes.all())


def problems(frame: Frame) -> tuple[str, ...]:
    """Sentences for the problems list: each distinct cell that a format cannot hold as it is, at most
    `MAX_LISTED_CHANGES`. Reads the table once.
    """
    return scan(frame).notes


def _note(notes: _Notes, about: str, cell: str) -> None:
    """Say what becomes of a cell (or a name) that a format cannot hold as it is."""
    if risky(cell):
        notes.add(
            f"{about} {_shown(cell)} could be taken for a formula; in the .csv an apostrophe precedes it"
        )
    if _ILLEGAL.search(cell):
        notes.add(
            f"{about} {_shown(cell)} has characters that not every format can store; there they are "
            f"spelled out, as \\x07"
        )
    if len(cell) > XLSX_CELL_UNITS16 // 2 and units16(cell) > XLSX_CELL_UNITS16:
        notes.add(
            f"{about} {_shown(cell)} is {len(cell)} characters long; the .xlsx has the first "
            f"{XLSX_CELL_UNITS16:,} at most"
        )


def _shown(cell: str, longest: int = 80) -> str:
    """The cell between quotes, escaped, and no longer than a line."""
    return repr(cell if len(cell) <= longest else cell[:longest] + "...")
