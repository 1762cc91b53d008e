"""What a measurement table is: the files it reads, how one file parses into rows, its columns, and how a
session's rows come together.

Used by the modules of `tables.pipelines` (and by plug-ins), which declare `Table`s; by `tables.engine`, which
collects and parses; by `tables.output.write`, which writes. Everything here is a plain value: no I/O, any
thread.

Cells are texts. A number keeps the source's own decimal text ("12.3400" stays "12.3400"), an empty text is an
empty cell. A number that was computed is written with `repr`, the shortest text that gives it back.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Protocol

Row = tuple[str, ...]
_LINE_END = re.compile("\r\n|\n|\r")


class ParseError(ValueError):
    """A file is not what the table reads. The text is one sentence for the user, without the path."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name : str
        As in the header.
    unit : str
        As in `mm3`; "" for none.
    source : str
        Where the value stands in the input, for the documentation.
    text : bool
        It is never one of numbers, whatever its cells look like.
    """

    name: str
    unit: str = ""
    source: str = ""
    text: bool = False


class Parsed(NamedTuple):
    """The rows of one file, or of one session.

    Parameters
    ----------
    columns : tuple of str
        Names of the columns.
    rows : list of tuple of str
        Shape (rows, columns): each row has a cell for every column.
    notes : tuple of str
        Sentences for the problems list.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    notes: tuple[str, ...] = ()


Parser = Callable[[BinaryIO, str], Parsed]  # (content, path inside the resource) -> rows; raises ParseError


@dataclass(frozen=True)
class SessionInfo:
    """The experiment the rows are about, as the table shows it.

    Attributes
    ----------
    id : str
        Its accession id.
    label : str
        Its label in the project.
    subject : str
        The subject's label.
    date : str
        As ISO has it, "" if there is none.
    project : str
        The project's id.
    """

    id: str
    label: str
    subject: str
    date: str = ""
    project: str = ""


@dataclass(frozen=True)
class Input:
    """A file a table needs from a session.

    Parameters
    ----------
    role : str
        Its name in `Table.combine` and in `tables.toml`.
    pattern : str or tuple of str
        Shell patterns over the path inside the resource, matched as bx does: case-sensitive, `*` also crosses
        `/`. The first pattern that matches anything counts. `{id}`, `{label}` and `{subject}` stand for the
        session's.
    parse : callable
        One file into rows: takes a readable, seekable binary stream and the file's path inside the resource,
        gives `Parsed`, raises `ParseError`. May be called in any thread.
    version : int
        Rises when `parse` changes its answer for the same bytes: parsed rows are kept.
    required : bool
        Without it the session is a row in the problems list instead of in the table.
    several : bool
        All matches are read, in catalog order; else one.
    prefer : callable, optional
        Among several matches, the one whose path has the greatest key is read; by default the first in
        catalog order.
    """

    role: str
    pattern: str | tuple[str, ...]
    parse: Parser
    version: int = 1
    required: bool = True
    several: bool = False
    prefer: Callable[[str], object] | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns in their order."""
        return (self.pattern,) if isinstance(self.pattern, str) else self.pattern


Inputs = Mapping[str, Sequence[tuple[str, Parsed]]]  # role -> (path, rows) of each file that was read
Combine = Callable[[SessionInfo, Inputs], Parsed]


def stacked(_: SessionInfo, inputs: Inputs) -> Parsed:
    """All files' rows, one after the other, under the union of their columns in order of first appearance."""
    return stack(parsed for files in inputs.values() for _, parsed in files)


def stack(parts: Iterable[Parsed]) -> Parsed:
    """Rows under the union of the parts' columns."""
    every = list(parts)
    columns = tuple(dict.fromkeys(name for part in every for name in part.columns))
    rows: list[Row] = []
    for part in every:
        if part.columns == columns:
            rows += part.rows
        else:
            at = {name: number for number, name in enumerate(part.columns)}
            rows += [tuple(row[at[name]] if name in at else "" for name in columns) for row in part.rows]
    return Parsed(columns, rows, tuple(note for part in every for note in part.notes))


@dataclass(frozen=True)
class Wide:
    """How a long table gets one row per session.

    With one value column a column's name is the keys' alone, with several it ends in `_<value column>`.
    Without keys a session's one row stays as it is.

    Parameters
    ----------
    keys : tuple of str
        The columns whose cells name the column, joined by `_`.
    values : tuple of str
        The columns that fill it.
    """

    keys: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A measurement table, under bx's command and subcommand name.

    Parameters
    ----------
    pipeline, name : str
        `freesurfer7`, `aseg`: letters, digits, `-`, `_`, `.` and `+`.
    resources : tuple of str
        Labels of the resource that feeds it; the first a session has is taken.
    inputs : tuple of Input
        The files.
    columns : tuple of Column
        What it gives, in order, between `lead` and `trail`. Tables that pass a CSV through find their columns
        in it and name here what is documented of them (empty if nothing is).
    combine : callable
        A session's files into its rows; by default they follow one another (`stacked`).
    lead, trail : tuple of str
        Columns about the session before and after: among `ID`, `subject`, `subject_label`, `project`,
        `label`, `date`. The builder adds `label` and `date` at the end where they are not yet.
    wide : Wide, optional
        How it widens; None: not at all.
    finish : callable, optional
        What can only be computed over all sessions (a regression): takes all columns and rows, gives all.
    doc : str
        One or two sentences for the user.
    """

    pipeline: str
    name: str
    resources: tuple[str, ...]
    inputs: tuple[Input, ...]
    columns: tuple[Column, ...] = ()
    combine: Combine = stacked
    lead: tuple[str, ...] = ("ID",)
    trail: tuple[str, ...] = ("subject",)
    wide: Wide | None = None
    finish: Callable[[Sequence[str], list[Row]], tuple[tuple[str, ...], list[Row]]] | None = None
    doc: str = ""

    @property
    def key(self) -> str:
        """`freesurfer7/aseg`."""
        return f"{self.pipeline}/{self.name}"


class Frame(Protocol):
    """A finished table, read as often as wanted: `tables.output.write` writes it."""

    columns: tuple[Column, ...]

    def rows(self) -> Iterator[Row]:
        """The rows, sorted, each with a cell for every column."""
        ...


@dataclass
class Rows:
    """A small finished table in memory."""

    columns: tuple[Column, ...]
    held: list[Row] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """See `Frame`."""
        return iter(self.held)


# --- reading text files -------------------------------------------------------------------------------------


def text_lines(stream: BinaryIO, longest: int = 16 * 2**20) -> list[str]:
    """The lines of a text file without their ends; CRLF, a missing final newline and a byte order mark make
    no difference.

    Raises:
        ParseError: it is empty, a web page (a login page or an error instead of the file), or no text.
    """
    data = stream.read(longest + 1)
    if len(data) > longest:
        raise ParseError(f"it is larger than {longest >> 20} MiB, which no such file is")
    if not data.strip():
        raise ParseError("it is empty")
    if data.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise ParseError("it is a web page, not a measurement file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise ParseError("it is not a text file")
    # Not str.splitlines: that also ends lines at characters that are part of a name (U+0085 is the second
    # byte of an Å read as latin-1).
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def csv_table(stream: BinaryIO, delimiter: str = ",") -> Parsed:
    """A delimited file with a header line, verbatim.

    Raises:
        ParseError: there is no header, or a row has more or fewer cells than it (a truncated file).
    """
    reader = csv.reader(io.StringIO("\n".join(text_lines(stream))), delimiter=delimiter)
    try:
        lines = [row for row in reader if len(row) > 1 or (row and row[0].strip())]
    except csv.Error as error:
        raise ParseError(f"it is not a table of comma-separated values ({error})") from None
    if not lines:
        raise ParseError("it is empty")
    header = tuple(name.strip() for name in lines[0])
    if len(set(header)) != len(header):
        raise ParseError("two of its columns have one name")
    rows: list[Row] = []
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(header):
            raise ParseError(f"row {number} has {len(row)} cells where the header has {len(header)}")
        rows.append(tuple(cell.strip() for cell in row))
    return Parsed(header, rows)


def is_number(text: str) -> bool:
    """Whether a cell is a number as spreadsheets and pandas read one (`nan` and `inf` are not)."""
    try:
        value = float(text)
    except ValueError:
        return False
    return value - value == 0 and "_" not in text
