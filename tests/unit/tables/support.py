"""What the tests of the tables share: a session's files into rows the way the builder does, and writers of
the text formats.
"""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from xnatfs.tables.parse.helpers import UNFINISHED as UNFINISHED
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import Input, Parsed, SessionInfo, Table

VISIT = SessionInfo("XNAT_E00001", "S01_MR1", "S01", "2024-03-05", "P1")

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_+()-]{0,14}", fullmatch=True)
decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?(e[+-]0[0-9])?", fullmatch=True)
wholes = st.integers(0, 10**6).map(str)


def matches(wanted: Input, paths: Sequence[str], visit: SessionInfo = VISIT) -> list[str]:
    """The paths an input takes: those of its first pattern that matches any."""
    for pattern in wanted.patterns:
        pattern = pattern.format(id=visit.id, label=visit.label, subject=visit.subject)
        if found := [path for path in paths if fnmatch.fnmatchcase(path, pattern)]:
            if wanted.several:
                return found
            return [max(found, key=wanted.prefer)] if wanted.prefer else found[:1]  # type: ignore[arg-type, type-var]
    return []


def session(table: Table | str, files: Mapping[str, str | bytes], visit: SessionInfo = VISIT) -> Parsed:
    """A session's files (path -> content) through a table."""
    table = all_tables()[table] if isinstance(table, str) else table
    read: dict[str, list[tuple[str, Parsed]]] = {}
    for wanted in table.inputs:
        paths = matches(wanted, list(files), visit)
        assert paths or not wanted.required, f"no file for {wanted.role}"
        for path in paths:
            content = files[path]
            stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
            read.setdefault(wanted.role, []).append((path, wanted.parse(stream, path)))
    found = table.combine(visit, read)
    assert all(len(row) == len(found.columns) for row in found.rows)
    assert all(isinstance(cell, str) for row in found.rows for cell in row)
    return found


def dicts(parsed: Parsed) -> Iterator[dict[str, str]]:
    """The rows by column."""
    for row in parsed.rows:
        yield dict(zip(parsed.columns, row, strict=True))


def value(parsed: Parsed, want: str = "value", **cells: str) -> str:
    """The one cell of the row with these cells."""
    (found,) = [row[want] for row in dicts(parsed) if all(row[name] == cell for name, cell in cells.items())]
    return found


@st.composite
def line_ends(draw: Any) -> tuple[str, str, bool]:
    """A line end, blanks before it, and whether the last line has one."""
    return (
        draw(st.sampled_from(["\n", "\r\n"])),
        draw(st.sampled_from(["", " ", "  ", "\t"])),
        draw(st.booleans()),
    )


def text(lines: Sequence[str], ends: tuple[str, str, bool] = ("\n", "", True)) -> str:
    """Lines as a file."""
    end, blanks, final = ends
    return (blanks + end).join(lines) + (blanks + end if final else "")


def aseg_file(
    measures: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    ends: tuple[str, str, bool] = ("\n", "", True),
    counted: bool = True,
) -> str:
    """aseg.stats: measures (name, value, unit), rows of ten cells."""
    lines = ["# Title Segmentation Statistics", "#", "# cvs_version 7.1.1"]
    lines += [
        f"# Measure {name.removesuffix('Vol')}, {name}, A description, of it, {cell}, {unit}"
        for name, cell, unit in measures
    ]
    lines += [f"# NRows {len(rows)}", "# NTableCols 10"] if counted else []
    lines += [
        "# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax "
        "normRange"
    ]
    return text(lines + ["  " + "   ".join(row) for row in rows], ends)


def aparc_file(
    measures: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    ends: tuple[str, str, bool] = ("\n", "", True),
    comma: bool = True,
) -> str:
    """?h.aparc.stats: measures (name, value, unit), rows of ten cells. FreeSurfer 6 forgets the comma behind
    CortexVol.
    """
    lines = ["# Table of FreeSurfer cortical parcellation anatomical statistics", "#", "# hemi lh"]
    for name, cell, unit in measures:
        lines.append(
            f"# Measure Cortex, {name}{'' if name == 'CortexVol' and not comma else ','} Some "
            f"description, {cell}, {unit}"
        )
    lines += [
        "# NTableCols 10",
        "# TableCol  1 ColHeader StructName",
        "# TableCol  1 Units     NA",
        "# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv GausCurv FoldInd "
        "CurvInd",
    ]
    return text(lines + [row[0].ljust(40) + "  ".join(row[1:]) for row in rows], ends)
