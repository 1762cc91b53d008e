"""ALPS: diffusivity along the perivascular space.

Used by `tables.registry`. Plain functions and values, any thread. The CSV files of https://github.com/gbarisano/alps
are passed through without their columns `id` and `scanner`, as bx does.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.helpers import checked_csv, number, without
from xnatfs.tables.spec import Column, Input, Parsed, Table, Wide

_METRIC = "diffusion_metric"


def alps_csv(stream: BinaryIO, _: str, needed: Collection[str]) -> Parsed:
    """One of the CSV files: numbers only, but for the name of the metric."""
    parsed = without(checked_csv(stream, (), needed), ("id", "scanner"))
    for count, row in enumerate(parsed.rows, 2):
        for name, cell in zip(parsed.columns, row, strict=True):
            if name != _METRIC:
                number(cell, f"row {count}: {name}")
    return parsed


_DIFFUSIVITIES = (
    "x_proj_L",
    "x_assoc_L",
    "y_proj_L",
    "z_assoc_L",
    "x_proj_R",
    "x_assoc_R",
    "y_proj_R",
    "z_assoc_R",
)
_MEANS = ("proj_L", "assoc_L", "proj_R", "assoc_R", "mean_proj", "mean_assoc")
_SOURCE = "the column of the CSV file"

TABLES: tuple[Table, ...] = (
    Table(
        "alps",
        "stats",
        ("ALPS",),
        (
            Input(
                "stats", ("alps.stat/alps.csv", "*/alps.stat/alps.csv"), partial(alps_csv, needed=("alps",))
            ),
        ),
        (
            *(Column(name, "mm2/s", _SOURCE) for name in _DIFFUSIVITIES),
            *(Column(name, "", _SOURCE) for name in ("alps_L", "alps_R", "alps")),
        ),
        doc="The ALPS index of both sides and their mean, with the diffusivities it is computed from.",
    ),
    Table(
        "alps",
        "diffusion",
        ("ALPS",),
        (
            Input(
                "stats",
                ("alps.stat/fa+md_alps.csv", "*/alps.stat/fa+md_alps.csv"),
                partial(alps_csv, needed=(_METRIC, *_MEANS)),
            ),
        ),
        (
            Column(_METRIC, source=_SOURCE, text=True),
            *(Column(name, "FA: none; MD: mm2/s", _SOURCE) for name in _MEANS),
        ),
        wide=Wide((_METRIC,), _MEANS),
        doc="Fractional anisotropy and mean diffusivity in the regions of the ALPS index.",
    ),
)
