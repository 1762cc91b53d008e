"""A finished table as a file: `.csv` here, `.xlsx` and `.parquet` by the modules beside it.

Used by `tables.engine.finished_table` and the command `table`. A table is read in pieces, twice where a
format has to know a column before its first cell; a few thousand rows at most are in memory, whatever the
size of the table. The same table gives the same bytes. Any thread; one writer a path.

`.csv` is for programs: UTF-8 without a byte order mark, lines end in `\\n` (what `wc -l` and `diff` expect,
and every reader of RFC 4180's `\\r\\n` takes), numbers in the source's own decimal text. Only what a
spreadsheet might run is changed, see `types.risky`.
"""

from __future__ import annotations

import re
from pathlib import Path

from xnatfs.extras import load
from xnatfs.tables.output.types import ColumnScan, header, pieces, problems, risky, scan
from xnatfs.tables.spec import Frame

__all__ = ["FORMATS", "ColumnScan", "check_format", "problems", "risky", "scan", "write"]

FORMATS = ("csv", "xlsx", "parquet")
_WRITERS = {"xlsx": "xlsxwriter", "parquet": "pyarrow"}  # packages of the extra `tables`

# A row of cells between NULs that needs a closer look: a formula, or something to quote. A minus is let
# through before what is all a number: those are many.
_SEPARATOR = "\0"
_CLOSER = re.compile(
    '[,"\r\n]|(?:^|\0)[\\s\ufeff]*(?:[=+@\uff1d\uff0b\uff0d\uff20]|-(?![0-9]+(?:\\.[0-9]*)?(?:\0|\\Z)))'
)
_QUOTING = ',"\r'
# of a cell that may be a formula: its signs, and blanks, which may stand before one
_BEGINNINGS = "=+-@ \t\v\f\x1c\x1d\x1e\x1f"
_QUOTED = re.compile('[,"\r\n]')


def check_format(kind: str) -> None:
    """See that tables can be written in this format, before one is built for it.

    Raises:
        MissingExtra: what writes it is not installed.
    """
    if kind in _WRITERS:
        load(_WRITERS[kind], "tables")


def write(frame: Frame, kind: str, path: Path, *, title: str = "", scanned: ColumnScan | None = None) -> None:
    """Write the table to `path`, over what is there.

    Args:
        frame: read once for a .csv, twice for the others.
        kind: one of `FORMATS`.
        path: a file the caller renames into place; removed if writing fails.
        title: the table's name, as in `freesurfer7/aseg`: names the sheets, and is part of what the file says
            about itself.
        scanned: what `scan` said of this table, if the caller knows: saves the first reading.

    Raises:
        ValueError: the table cannot be written in this format; the text is a sentence for the user.
        OSError: the file cannot be written.
        MissingExtra: what writes this format is not installed.
    """
    if kind not in FORMATS:
        raise ValueError(f"a table is written as {', '.join(FORMATS)}, not as {kind!r}")
    check_format(kind)
    header(frame)
    try:
        if kind == "csv":
            _write_csv(frame, path)
        elif kind == "xlsx":
            from xnatfs.tables.output import xlsx

            xlsx.write(frame, scanned or scan(frame), path, title)
        else:
            from xnatfs.tables.output import parquet

            parquet.write(frame, scanned or scan(frame), path, title)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write_csv(frame: Frame, path: Path) -> None:
    separators = len(frame.columns) - 1
    with open(path, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        file.write(",".join(map(csv_cell, header(frame))) + "\n")
        for piece in pieces(frame):
            text = "\n".join(map(_SEPARATOR.join, piece))
            if _simple(text, len(piece), separators):
                file.write(text.replace(_SEPARATOR, ",") + "\n")
                continue
            lines: list[str] = []
            for row in piece:
                line = _SEPARATOR.join(row)
                if _CLOSER.search(line) or line.count(_SEPARATOR) != separators:
                    lines.append(",".join(map(csv_cell, row)))
                else:
                    # A line of nothing or blanks alone would be no row to most readers.
                    lines.append(line.replace(_SEPARATOR, ",") if line.strip() else f'"{line}"')
            lines.append("")
            file.write("\n".join(lines))


def _simple(text: str, rows: int, separators: int) -> bool:
    """Whether none of these rows needs a closer look. A few searches in a piece take a tenth of the time of
    one expression a row.
    """
    return (
        separators > 0
        and text.isascii()
        and text.count("\n") == rows - 1
        and text.count(_SEPARATOR) == rows * separators
        and not any(mark in text for mark in _QUOTING)
        and text[0] not in _BEGINNINGS
        and not any(
            first in text and (f"{_SEPARATOR}{first}" in text or f"\n{first}" in text)
            for first in _BEGINNINGS
        )
    )


def csv_cell(cell: str) -> str:
    r"""The cell as a .csv has it: with `'` before what could be taken for a formula, between quotes if need
    be, a NUL spelled out.
    """
    if risky(cell):
        cell = f"'{cell}"
    if "\0" in cell:  # Python's own reader refuses it before 3.11
        cell = cell.replace("\0", "\\x00")
    if _QUOTED.search(cell):
        return '"' + cell.replace('"', '""') + '"'
    return cell
