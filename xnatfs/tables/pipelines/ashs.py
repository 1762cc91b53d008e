"""ASHS: volumes of the medial temporal subfields.

Used by `tables.registry`. Plain functions and values, any thread.

The text files ASHS writes into `final/` (https://sites.google.com/view/ashs-dox):
`S01_left_corr_nogray_volumes.txt` with lines `subject side region slices volume`, and `S01_icv.txt` with
`subject volume`. `heur`, `corr_usegray` and `corr_nogray` are three variants of the segmentation; bx gives
the last one.
"""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.helpers import UNFINISHED, emptied, number, only, unfinished
from xnatfs.tables.spec import (
    Column,
    Input,
    Inputs,
    Parsed,
    ParseError,
    Row,
    SessionInfo,
    Table,
    Wide,
    is_number,
    stacked,
    text_lines,
)

_COLUMNS = ("side", "region", "n_slices", "volume")


def side_volumes(stream: BinaryIO, _: str, side: str) -> Parsed:
    """The volumes of one hemisphere. The file's own subject is not used: the table shows the session's."""
    rows: list[Row] = []
    seen: set[str] = set()
    for count, line in enumerate(text_lines(stream), 1):
        fields = line.split()
        if not fields or fields[0] == "#":
            continue
        # An atlas may call a region by two words; a number among them means that something else is wrong.
        region = fields[2:-2]
        if not region or any(is_number(word) for word in region):
            raise ParseError(
                f"line {count} has {len(fields)} fields, not subject, side, region, slices and volume"
            )
        if fields[1] != side:
            raise ParseError(f"line {count} is of the side {fields[1][:40]!r} in the file of the {side} one")
        name = " ".join(region)
        if name in seen:
            raise ParseError(f"it has {name[:60]} twice")
        seen.add(name)
        if not (fields[-2].isascii() and fields[-2].isdecimal()):
            raise ParseError(
                f"line {count}: the number of slices of {name[:60]} is {fields[-2][:40]!r}, not a "
                f"whole number"
            )
        rows.append((side, name, fields[-2], number(fields[-1], f"line {count}: the volume of {name[:60]}")))
    return Parsed(_COLUMNS, rows, (*unfinished(stream), *emptied(row[-1] for row in rows)))


def icv(stream: BinaryIO, _: str) -> Parsed:
    """The intracranial volume, as the row `tiv`."""
    fields = [words for line in text_lines(stream) if (words := line.split()) and words[0] != "#"]
    if len(fields) != 1 or len(fields[0]) != 2:
        raise ParseError("it is not one line with a subject and a volume")
    cell = number(fields[0][1], "the volume")
    return Parsed(_COLUMNS, [("", "tiv", "", cell)], (*unfinished(stream), *emptied([cell])))


def both_and_icv(visit: SessionInfo, inputs: Inputs) -> Parsed:
    """Left, right, `tiv`; a note if the sides have not the same regions, as when one file is cut short at a
    line's end.

    Nothing but a note if the file that lacks some has no end of its last line: it is cut short, and its last
    number may be wrong.
    """
    both = stacked(visit, inputs)
    sides = {side: parsed for side in ("left", "right") if (parsed := only(inputs, side))}
    left, right = ({row[1] for row in parsed.rows} for parsed in sides.values())
    for side, lacking in (("left", right - left), ("right", left - right)):
        if lacking and UNFINISHED in sides[side].notes:
            return Parsed(
                _COLUMNS,
                [],
                (
                    f"the {side} file is cut short: it lacks {', '.join(sorted(lacking))} and the end of "
                    f"its last line",
                ),
            )
    if left == right:
        return both
    return both._replace(notes=(*both.notes, f"only one side has {', '.join(sorted(left ^ right))}"))


def _table(name: str, kind: str, doc: str) -> Table:
    return Table(
        "ashs",
        name,
        ("ASHS",),
        (
            Input("left", f"*_left_{kind}_volumes.txt", partial(side_volumes, side="left")),
            Input("right", f"*_right_{kind}_volumes.txt", partial(side_volumes, side="right")),
            Input("icv", "*icv.txt", icv),
        ),
        (
            Column("side", source="left or right; empty for the intracranial volume", text=True),
            Column(
                "region", source="the region's name in the atlas; tiv for the intracranial volume", text=True
            ),
            Column("n_slices", source="slices the region was found in; empty for tiv"),
            Column("volume", "mm3", "the number as written"),
        ),
        both_and_icv,
        lead=("ID", "subject"),
        trail=(),
        wide=Wide(("side", "region"), ("volume", "n_slices")),
        doc=doc,
    )


TABLES: tuple[Table, ...] = (
    _table(
        "volumes",
        "corr_nogray",
        "Subfield volumes after bias correction without gray levels, and the intracranial volume.",
    ),
    _table("volumes_heur", "heur", "The same before bias correction."),
    _table("volumes_corr_usegray", "corr_usegray", "The same after bias correction with gray levels."),
)
