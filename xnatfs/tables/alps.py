"""ALPS: diffusivity along the perivascular space.

Used by `catalog`. Plain functions and values, any thread. The pipeline's CSV files are passed through without their columns `id` and
`scanner`, which the pipeline leaves empty.
"""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.tables.fields import checked_csv, number, without
from xnatfs.tables.table import Column, Input, Parsed, Table


def alps_csv(stream: BinaryIO, _: str) -> Parsed:
    """One of the CSV files: numbers only."""
    found = without(checked_csv(stream), ("id", "scanner"))
    for count, row in enumerate(found.rows, 2):
        for name, cell in zip(found.columns, row, strict=True):
            number(cell, f"row {count}: {name}")
    return found


_ALPS = tuple(Column(name, source="the column of the CSV file") for name in ("alps_L", "alps_R", "alps"))

TABLES: tuple[Table, ...] = (
    Table(
        "alps",
        "stats",
        ("ALPS",),
        (Input("stats", ("alps.stat/alps.csv", "*/alps.stat/alps.csv"), alps_csv),),
        _ALPS,
        doc="The ALPS index of both sides and their mean, with the diffusivities it is computed from.",
    ),
    Table(
        "alps",
        "diffusion",
        ("ALPS",),
        (Input("stats", ("alps.stat/fa+md_alps.csv", "*/alps.stat/fa+md_alps.csv"), alps_csv),),
        doc="Fractional anisotropy and mean diffusivity in the regions of the ALPS index.",
    ),
)
