"""Small things the pipeline modules share: numbers and missing values as texts, versions in file names, ways
to put files together.

Used by the pipeline modules beside it. Plain functions, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import BinaryIO

from xnatfs.tables.spec import (
    Inputs,
    Parsed,
    ParseError,
    Parser,
    Row,
    SessionInfo,
    csv_table,
    is_number,
    text_lines,
)

# What pandas.read_csv takes for a missing value (its documented `na_values`): bx reads the CSV files of the
# pipelines with it.
MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
_INFINITE = frozenset(("inf", "-inf", "+inf", "Inf", "-Inf", "infinity", "-infinity"))
UNFINISHED = "its last line has no line end: the file may be cut short there"
_VERSION = re.compile(r"\.v(\d+)(?=\.)")


def blank(cell: str) -> str:
    """The cell, empty if it stands for a missing value."""
    return "" if cell in MISSING else cell


def number(cell: str, what: str) -> str:
    """A number in its own decimal text; "" for a missing (or infinite) one.

    Raises:
        ParseError: it is something else. `what` begins the sentence: "line 3: the volume".
    """
    if is_number(cell):
        return cell.strip()
    if cell.strip() in MISSING or cell.strip() in _INFINITE:
        return ""
    raise ParseError(f"{what} is {cell[:40]!r}, not a number")


def value_of(cell: str) -> float | None:
    """A cell as a number to compute with; None for an empty one."""
    return float(cell) if cell else None


def version_in(path: str) -> int:
    """The 21 of `lh.hippoSfVolumes-T1.v21.txt`; -1 without a version. For `Input.prefer`: the newest is
    read.
    """
    versions = _VERSION.findall(path.rpartition("/")[2])
    return int(versions[-1][:18]) if versions else -1


def anywhere(name: str) -> tuple[str, ...]:
    """Patterns for a file of this name: in any folder, at the top, and last as bx searches (anything before
    the name).
    """
    return (f"*/{name}", name, f"*{name}")


def unfinished(stream: BinaryIO) -> tuple[str, ...]:
    """A note on a text file whose last line does not end: all tools end it, so the last number may be cut.
    For after reading.
    """
    stream.seek(-1, 2)
    return () if stream.read(1).isspace() else (UNFINISHED,)


def named_values(stream: BinaryIO, ends: Collection[str], what: str) -> list[tuple[str, str]]:
    """A file of lines `name value`, as FreeSurfer's subregion tools write.

    Args:
        ends: names that a whole file has: FreeSurfer writes the total of the structure last, so without it
            the file is cut short.
        what: what the values are, for the error's sentence.

    Raises:
        ParseError: a line is no name with a number, a name stands twice, or an end is missing.
    """
    values: dict[str, str] = {}
    for count, line in enumerate(text_lines(stream), 1):
        fields = line.split()
        if not fields or fields[0] == "#":
            continue
        if len(fields) != 2:
            raise ParseError(f"line {count} has {len(fields)} fields, not a name and a {what}")
        name, cell = fields
        if name in values:
            raise ParseError(f"it has {name[:60]} twice")
        values[name] = number(cell, f"line {count}: the {what} of {name[:60]}")
    for name in ends:
        if name not in values:
            raise ParseError(f"it has no {name}, which ends such a file: it is cut short")
    return list(values.items())


def emptied(cells: Iterable[str]) -> tuple[str, ...]:
    """A note on numbers that were nan or inf: their cells are empty."""
    count = sum(1 for cell in cells if not cell)
    if not count:
        return ()
    return (
        f"{count} of its values {'is not a number' if count == 1 else 'are not numbers'} (nan or inf) and "
        f"left empty",
    )


def passed_csv(numbers: Collection[str] = (), needed: Collection[str] = (), delimiter: str = ",") -> Parser:
    """A parser for a CSV file that is passed through: cells verbatim, missing values empty.

    Args:
        numbers: columns (of those there are) that hold numbers or nothing.
        needed: columns without which it is another file.
    """

    def parse(stream: BinaryIO, _: str) -> Parsed:
        return checked_csv(stream, numbers, needed, delimiter)

    return parse


def checked_csv(
    stream: BinaryIO, numbers: Collection[str] = (), needed: Collection[str] = (), delimiter: str = ","
) -> Parsed:
    """See `passed_csv`. A column without a name is called `Unnamed: <number>`, as pandas (and so bx) calls
    it.
    """
    parsed = csv_table(stream, delimiter)
    columns = tuple(name or f"Unnamed: {at}" for at, name in enumerate(parsed.columns))
    for name in needed:
        if name not in columns:
            raise ParseError(f"it has no column {name}")
    tested = {at: name for at, name in enumerate(columns) if name in numbers}
    rows: list[Row] = []
    for count, row in enumerate(parsed.rows, 2):
        cells = [blank(cell) for cell in row]
        for at, name in tested.items():
            cells[at] = number(cells[at], f"row {count}: {name}")
        rows.append(tuple(cells))
    if not rows:
        raise ParseError("it has a header and no rows")
    return Parsed(columns, rows, (*parsed.notes, *unfinished(stream)))


def without(parsed: Parsed, names: Collection[str]) -> Parsed:
    """The rows without these columns."""
    positions = [at for at, name in enumerate(parsed.columns) if name not in names]
    return Parsed(
        tuple(parsed.columns[at] for at in positions),
        [tuple(row[at] for at in positions) for row in parsed.rows],
        parsed.notes,
    )


def where(parsed: Parsed, matches: Callable[[dict[str, str]], bool]) -> Parsed:
    """The rows that match."""
    return parsed._replace(
        rows=[row for row in parsed.rows if matches(dict(zip(parsed.columns, row, strict=True)))]
    )


def only(inputs: Inputs, role: str) -> Parsed | None:
    """The rows of the one file of a role."""
    files = inputs.get(role, ())
    return files[0][1] if files else None


def one_row(_: SessionInfo, inputs: Inputs) -> Parsed:
    """Files of one row each, side by side in one row."""
    parts = [parsed for files in inputs.values() for _, parsed in files]
    columns = tuple(name for part in parts for name in part.columns)
    return Parsed(columns, [tuple(cell for part in parts for cell in part.rows[0])], all_notes(parts))


def all_notes(parts: Iterable[Parsed]) -> tuple[str, ...]:
    """The notes of several parts, each once."""
    return tuple(dict.fromkeys(note for part in parts for note in part.notes))


def both_sides(visit: SessionInfo, inputs: Inputs) -> Parsed:
    """The left file's rows, then the right one's; with one of them missing the other's and a note. Roles
    `left` and `right`.
    """
    files = {side: inputs[side][0] for side in ("left", "right") if inputs.get(side)}
    if not files:
        return Parsed((), [], ("neither the left nor the right file is there",))
    parts = [parsed for _, parsed in files.values()]
    notes = list(all_notes(parts))
    if len(files) == 1:
        (side,) = files
        other = "right" if side == "left" else "left"
        notes.append(f"the {other} file is missing or cannot be read: only the {side} side is given")
    versions = {side: version_in(path) for side, (path, _) in files.items()}
    if len(set(versions.values())) > 1:
        notes.append(
            f"the sides are of different versions: "
            f"{' and '.join(f'v{n} {side}' for side, n in versions.items())}"
        )
    return Parsed(parts[0].columns, [row for part in parts for row in part.rows], tuple(notes))
