"""FreeSurfer's `.stats` files: measures in the header, then a table. What `mri_segstats` and
`mris_anatomical_stats` write.

Used by `freesurfer` and `donsurf`. Plain functions, any thread.

    # Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, 1100000.000000, mm^3
    # NRows 45
    # ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
      1   4      9000     9100.5  Left-Lateral-Ventricle   25.1000   10.2000   4.0000   80.0000   76.0000

The format, as seen in files of FreeSurfer 5.1 to 8: https://surfer.nmr.mgh.harvard.edu/fswiki (aseg.stats,
mris_anatomical_stats).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from xnatfs.tables.parse.helpers import emptied, number, unfinished
from xnatfs.tables.spec import ParseError, Row, is_number, text_lines

ASEG_COLUMNS = (
    "Index",
    "SegId",
    "NVoxels",
    "Volume_mm3",
    "StructName",
    "normMean",
    "normStdDev",
    "normMin",
    "normMax",
    "normRange",
)
APARC_COLUMNS = (
    "StructName",
    "NumVert",
    "SurfArea",
    "GrayVol",
    "ThickAvg",
    "ThickStd",
    "MeanCurv",
    "GausCurv",
    "FoldInd",
    "CurvInd",
)
NAME = "StructName"

# A measure's names before FreeSurfer 6, which calls the same numbers otherwise: what `mri_segstats --etiv`
# and `--surf-wm-vol` print.
FORMER = {
    "eTIV": "ICV",
    "lhCerebralWhiteMatterVol": "lhCorticalWhiteMatterVol",
    "rhCerebralWhiteMatterVol": "rhCorticalWhiteMatterVol",
    "CerebralWhiteMatterVol": "CorticalWhiteMatterVol",
}


class Stats(NamedTuple):
    """A stats file: header measures by name, the table, and what is odd about it."""

    measures: dict[str, str]
    columns: tuple[str, ...]
    rows: list[Row]
    notes: tuple[str, ...]


def read_stats(stream: BinaryIO, usual: tuple[str, ...]) -> Stats:
    """A stats file, checked against what its own header says of it.

    Args:
        usual: the table's columns where the file does not name them.

    Raises:
        ParseError: a line is not what the format says, or the table is not as long or wide as the header
            says.
    """
    measures: dict[str, str] = {}
    said: dict[str, int] = {}
    columns = usual
    lines: list[tuple[int, list[str]]] = []
    for count, line in enumerate(text_lines(stream), 1):
        fields = line.split()
        if not line.lstrip().startswith("#"):
            if fields:
                lines.append((count, fields))
            continue
        key, rest = (*line.lstrip()[1:].split(None, 1), "", "")[:2]
        if key == "Measure":
            name, cell = _measure(rest, count)
            measures.setdefault(name, cell)
        elif key == "ColHeaders":
            columns = tuple(rest.split())
        elif key in ("NRows", "NTableCols"):
            said[key] = _whole(rest, key)
    if NAME not in columns or len(set(columns)) != len(columns):
        raise ParseError(f"its ColHeaders line has no {NAME} or a name twice")
    if not lines:
        raise ParseError("it has no table")
    rows = _rows(lines, columns)
    if said.get("NRows", len(rows)) != len(rows):
        raise ParseError(f"its header says {said['NRows']} rows and it has {len(rows)}")
    if said.get("NTableCols", len(columns)) != len(columns):
        raise ParseError(f"its header says {said['NTableCols']} columns and it has {len(columns)}")
    notes = emptied([*(cell for row in rows for cell in row), *measures.values()])
    return Stats(measures, columns, rows, (*notes, *unfinished(stream)))


def _measure(text: str, count: int) -> tuple[str, str]:
    """Name and value of `Cortex, CortexVol, Total cortical gray matter volume, 536883.6, mm^3`.

    FreeSurfer 6 leaves out the comma after `CortexVol` in aparc.stats, so the name is the second field's
    first word: no name has a blank.
    """
    fields = [field.strip() for field in text.split(",")]
    if len(fields) < 4 or not fields[1]:
        raise ParseError(
            f"line {count}: a measure has {len(fields)} fields, not structure, name, description, value "
            f"and unit"
        )
    name = fields[1].split()[0]
    if len(fields) > 5 and is_number(fields[-3]):
        raise ParseError(
            f"line {count}: {name} is {','.join(fields[-3:-1])[:40]!r}: a decimal comma, or two values"
        )
    return name, number(fields[-2], f"line {count}: {name}")


def _whole(text: str, key: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ParseError(f"its {key} is {text.strip()[:40]!r}, not a number") from None


def _rows(lines: Sequence[tuple[int, list[str]]], columns: tuple[str, ...]) -> list[Row]:
    """The table's rows, each with a name of its own and numbers."""
    at = columns.index(NAME)
    rows: list[Row] = []
    seen: set[str] = set()
    for count, fields in lines:
        if len(fields) != len(columns):
            raise ParseError(
                f"line {count} has {len(fields)} fields where the table has {len(columns)} columns"
            )
        if fields[at] in seen:
            raise ParseError(f"it has {fields[at][:60]} twice")
        seen.add(fields[at])
        rows.append(
            tuple(
                cell if where == at else number(cell, f"line {count}: the {name} of {fields[at][:60]}")
                for where, (name, cell) in enumerate(zip(columns, fields, strict=True))
            )
        )
    return rows


def melted(stats: Stats) -> list[tuple[str, str, str]]:
    """The table as (column, structure, value), column by column: the order in which bx writes it."""
    at = stats.columns.index(NAME)
    return [
        (name, row[at], row[where])
        for where, name in enumerate(stats.columns)
        if where != at
        for row in stats.rows
    ]


def chosen(stats: Stats, wanted: Sequence[str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Header measures in the wanted order.

    Returns:
        (name, value) of those there are; names that are missing; names that stand there under their former
        name.
    """
    values, missing, former = [], [], []
    for name in wanted:
        if name in stats.measures:
            values.append((name, stats.measures[name]))
        elif (old := FORMER.get(name, "")) in stats.measures:
            values.append((name, stats.measures[old]))
            former.append(name)
        else:
            missing.append(name)
    return values, missing, former
