"""LCModel: metabolite concentrations from MR spectroscopy.

Used by `tables.registry`. Plain functions and values, any thread. The pipeline leaves workbooks:
`*lcmodel.xlsx`, a row for each region, table and measurement, and `*mrs_tissue_corr.xlsx`, a row for each
region. Their column `id` is the session's ID.
"""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.tables.parse.helpers import blank, number, without
from xnatfs.tables.parse.workbook import first_sheet
from xnatfs.tables.spec import Column, Input, Inputs, Parsed, ParseError, Row, SessionInfo, Table

_LONG = ("id", "subject", "region", "table", "measurement", "value")
_ENDINGS = {
    "concentration": "",
    "miscellaneous": "",
    "concentration_SD": "_SD",
}  # what a table adds to a measurement's name


def _sheet(stream: BinaryIO) -> Parsed:
    """A workbook's first sheet as a table. An index column that pandas wrote has no name, and is left out."""
    rows = first_sheet(stream)
    if len(rows) < 2:
        raise ParseError("it has no rows")
    columns = tuple(name.strip() for name in rows[0])
    named = [name for name in columns if name]
    if len(set(named)) != len(named):
        raise ParseError("two of its columns have one name")
    return without(Parsed(columns, [tuple(blank(cell) for cell in row) for row in rows[1:]]), ("",))


def stats(stream: BinaryIO, _: str) -> Parsed:
    """One row a region, one column a measurement; those of the table concentration_SD end in `_SD`."""
    parsed = _sheet(stream)
    for name in _LONG:
        if name not in parsed.columns:
            raise ParseError(f"it has no column {name}")
    at = [parsed.columns.index(name) for name in _LONG]
    regions: dict[str, dict[str, str]] = {}
    for count, row in enumerate(parsed.rows, 2):
        identity, subject, region, table, measurement, value = (row[where] for where in at)
        cells = regions.setdefault(region, {"id": identity, "subject": subject, "region": region})
        if table not in _ENDINGS:
            continue
        name = measurement + _ENDINGS[table]
        if name in cells:
            raise ParseError(f"it has {name[:60]} twice for the region {region[:60]}")
        cells[name] = number(value, f"row {count}: {name[:60]}")
    columns = tuple(dict.fromkeys(name for cells in regions.values() for name in cells))
    return Parsed(columns, [tuple(cells.get(name, "") for name in columns) for cells in regions.values()])


def correction(stream: BinaryIO, _: str) -> Parsed:
    """The rows as they are."""
    return _sheet(stream)


def of_session(visit: SessionInfo, inputs: Inputs) -> Parsed:
    """The rows without their `id`, which is the session's own; a note if it is another's."""
    ((_path, parsed),) = inputs["workbook"]
    if "id" not in parsed.columns:
        return parsed
    at = parsed.columns.index("id")
    others = sorted({row[at] for row in parsed.rows} - {visit.id, visit.label, ""})
    notes: Row = (f"the file says that it is of {', '.join(others)}",) if others else ()
    return without(parsed, ("id",))._replace(notes=(*parsed.notes, *notes))


_KEYS = (
    Column("subject", source="the column of the workbook", text=True),
    Column("region", source="the column of the workbook", text=True),
)

TABLES: tuple[Table, ...] = (
    Table(
        "lcmodel",
        "stats",
        ("LCMODEL",),
        (Input("workbook", "*lcmodel.xlsx", stats),),
        _KEYS,
        of_session,
        trail=(),
        doc="Metabolite concentrations with their standard deviations (%), and measures of the spectrum's "
        "quality, by region.",
    ),
    Table(
        "lcmodel",
        "correction",
        ("LCMODEL",),
        (Input("workbook", "*mrs_tissue_corr.xlsx", correction),),
        _KEYS,
        of_session,
        trail=(),
        doc="What the concentrations are corrected with for the tissues in the voxel, by region.",
    ),
)
