"""DONSURF: cortical mean diffusivity, in FreeSurfer's aparc format.

Used by `tables.registry`. Plain functions and values, any thread. The pipeline puts diffusivity where
FreeSurfer has thickness, so `ThickAvg` and `ThickStd` become `DiffuAvg` and `DiffuStd`; what makes no sense
for diffusivity is left out, as in bx.
"""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.freesurfer_stats import APARC_COLUMNS, melted, read_stats
from xnatfs.tables.parse.helpers import both_sides
from xnatfs.tables.spec import Column, Input, Parsed, Row, Table, Wide

_COLUMNS = {"NumVert": "NumVert", "SurfArea": "SurfArea", "ThickAvg": "DiffuAvg", "ThickStd": "DiffuStd"}


def diffusivity(stream: BinaryIO, _: str, side: str) -> Parsed:
    """GM-MD/stats/?h.aparc.stats."""
    stats = read_stats(stream, APARC_COLUMNS)
    rows: list[Row] = [
        (side, _COLUMNS[name], region, cell) for name, region, cell in melted(stats) if name in _COLUMNS
    ]
    return Parsed(("side", "measurement", "region", "value"), rows, stats.notes)


TABLES: tuple[Table, ...] = (
    Table(
        "donsurf",
        "aparc",
        ("DONSURF",),
        tuple(
            Input(
                side,
                (f"GM-MD/stats/*{side[0]}h.aparc.stats", f"*/GM-MD/stats/*{side[0]}h.aparc.stats"),
                partial(diffusivity, side=side),
                required=False,
            )
            for side in ("left", "right")
        ),
        (
            Column("side", source="left or right, from the file's name", text=True),
            Column(
                "measurement",
                source="NumVert; SurfArea; DiffuAvg and DiffuStd, which stand in ThickAvg and ThickStd",
                text=True,
            ),
            Column("region", source="StructName (Desikan-Killiany atlas)", text=True),
            Column(
                "value", "SurfArea: mm2; DiffuAvg, DiffuStd: as the pipeline has it", "the number as written"
            ),
        ),
        both_sides,
        wide=Wide(("side", "region", "measurement"), ("value",)),
        doc="Mean diffusivity of the cortex by region.",
    ),
)
