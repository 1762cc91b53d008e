"""Volumes, thickness and FDG uptake of the regions of each pair of Braak stages.

Used by `tables.registry`. Plain functions and values, any thread.

Which of FreeSurfer's regions belong to which stages is bx's choice (after Braak et al. 2006, Schoell et al.
2016); its stages V and VI leave out the pars opercularis, orbitalis and triangularis and the supramarginal
gyrus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from xnatfs.tables.parse.helpers import only, value_of
from xnatfs.tables.pipelines.freesurfer import aparc_inputs, aseg_input
from xnatfs.tables.pipelines.pet import regional, suvr
from xnatfs.tables.spec import Column, Input, Inputs, Parsed, Row, SessionInfo, Table, Wide


class Stage(NamedTuple):
    """Two stages: cortical regions of either side, and subcortical structures of either side (as in aseg,
    without `Left-`).
    """

    name: str
    cortex: tuple[str, ...]
    below: tuple[str, ...]


STAGES = (
    Stage("Braak_I_II", ("entorhinal",), ("Hippocampus",)),
    Stage(
        "Braak_III_IV",
        (
            *(
                "caudalanteriorcingulate",
                "fusiform",
                "inferiortemporal",
                "insula",
                "isthmuscingulate",
                "lingual",
                "middletemporal",
            ),
            *("parahippocampal", "posteriorcingulate", "rostralanteriorcingulate", "temporalpole"),
        ),
        ("Amygdala", "Thalamus"),
    ),
    Stage(
        "Braak_V_VI",
        (
            *(
                "bankssts",
                "caudalmiddlefrontal",
                "cuneus",
                "frontalpole",
                "inferiorparietal",
                "lateraloccipital",
                "lateralorbitofrontal",
            ),
            *(
                "medialorbitofrontal",
                "paracentral",
                "pericalcarine",
                "postcentral",
                "precentral",
                "precuneus",
                "rostralmiddlefrontal",
            ),
            *("superiorfrontal", "superiorparietal", "superiortemporal", "transversetemporal"),
        ),
        ("Accumbens-area", "Caudate", "Putamen"),
    ),
)
SIDES = ("left", "right")

Lookup = Callable[..., "float | None"]


def cortex_of(inputs: Inputs) -> Lookup:
    """(side, region, measurement) -> the number in aparc."""
    cells = {row[:3]: row[3] for side in SIDES if (parsed := only(inputs, side)) for row in parsed.rows}
    return lambda side, region, measurement: value_of(cells.get((side, measurement, region), ""))


def with_former_name(values: dict[str, str], structure: str) -> str:
    """The cell of `Left-Thalamus`, which was called `Left-Thalamus-Proper` before FreeSurfer 7."""
    return values.get(structure, "") or values.get(f"{structure}-Proper", "")


def weighted(pairs: Iterable[tuple[float, float]]) -> float | None:
    """The mean of (number, weight) pairs."""
    pairs = list(pairs)
    weight = math.fsum(weight for _, weight in pairs)
    return math.fsum(number * weight for number, weight in pairs) / weight if weight else None


class _Gaps(list[str]):
    """What a value could not be computed for want of."""

    def known(self, value: float | None, name: str) -> float:
        """The value, or 0 with the name kept."""
        if value is None:
            self.append(name)
        return value or 0.0


def _stages(
    measurement: str, compute: Callable[[Stage, _Gaps], float | None], first: str = "region"
) -> Parsed:
    """A row for each stage; with an empty value and a note where a region is missing."""
    rows: list[Row] = []
    notes: list[str] = []
    for stage in STAGES:
        gaps = _Gaps()
        value = compute(stage, gaps)
        if gaps:
            notes.append(f"{stage.name} cannot be computed without {', '.join(dict.fromkeys(gaps))}")
        rows.append((stage.name, measurement, "" if gaps or value is None else repr(value)))
    return Parsed((first, "measurement", "value"), rows, tuple(notes))


def volumes(_: SessionInfo, inputs: Inputs) -> Parsed:
    """The sum of the regions' volumes."""
    cortex = cortex_of(inputs)
    aseg = only(inputs, "aseg")
    below = {row[1]: row[2] for row in (aseg.rows if aseg else ()) if row[0] == "Volume_mm3"}

    def compute(stage: Stage, gaps: _Gaps) -> float:
        parts = [
            gaps.known(cortex(side, name, "GrayVol"), f"{side} {name}")
            for name in stage.cortex
            for side in SIDES
        ]
        names = [f"{side.capitalize()}-{name}" for name in stage.below for side in SIDES]
        return math.fsum(
            (*parts, *(gaps.known(value_of(with_former_name(below, name)), name) for name in names))
        )

    return _stages("Volume_mm3", compute)


def thickness(_: SessionInfo, inputs: Inputs) -> Parsed:
    """The mean thickness of the cortical regions, weighted by their surface area."""
    cortex = cortex_of(inputs)

    def compute(stage: Stage, gaps: _Gaps) -> float | None:
        return weighted(
            (
                gaps.known(cortex(side, name, "ThickAvg"), f"{side} {name}"),
                gaps.known(cortex(side, name, "SurfArea"), f"{side} {name}"),
            )
            for name in stage.cortex
            for side in SIDES
        )

    return _stages("ThickAvg", compute, "Braak region")


def fdg(_: SessionInfo, inputs: Inputs) -> Parsed:
    """The mean uptake, weighted by the regions' number of voxels."""
    ((_path, parsed),) = inputs["results"]
    region, value, voxels = (parsed.columns.index(name) for name in ("region", "value", "nvoxels"))
    uptake: dict[str, str] = {}
    size: dict[str, str] = {}
    for row in parsed.rows:
        uptake.setdefault(row[region], row[value])
        size.setdefault(row[region], row[voxels])

    def compute(stage: Stage, gaps: _Gaps) -> float | None:
        names = [f"ctx-{side}-{name}" for name in stage.cortex for side in ("lh", "rh")]
        names += [f"{side}-{name}" for name in stage.below for side in ("Left", "Right")]
        return weighted(
            (
                gaps.known(value_of(with_former_name(uptake, name)), name),
                gaps.known(value_of(with_former_name(size, name)), name),
            )
            for name in names
        )

    return _stages("suvr", compute)


def _columns(unit: str, source: str, first: str = "region") -> tuple[Column, ...]:
    return (
        Column(first, source="the stages", text=True),
        Column("measurement", source="what the value is", text=True),
        Column("value", unit, source),
    )


_NEEDED = ("region", "atlas", "reference_region", "measurement", "optimized_pet", "value", "nvoxels")
_DK = partial(suvr, reference="vermis", atlases=("dk",))

TABLES: tuple[Table, ...] = (
    Table(
        "braak",
        "volumes",
        ("FREESURFER7",),
        (*aparc_inputs(required=True), aseg_input()),
        _columns("mm3", "sum of the volumes of the regions (aparc GrayVol, aseg Volume_mm3)"),
        volumes,
        wide=Wide(("region", "measurement"), ("value",)),
        doc="Volume of the regions of Braak stages I-II, III-IV and V-VI.",
    ),
    Table(
        "braak",
        "thickness",
        ("FREESURFER7",),
        aparc_inputs(required=True),
        _columns("mm", "mean of ThickAvg weighted by SurfArea (aparc)", "Braak region"),
        thickness,
        wide=Wide(("Braak region", "measurement"), ("value",)),
        doc="Cortical thickness of the regions of Braak stages I-II, III-IV and V-VI.",
    ),
    Table(
        "braak",
        "fdg",
        ("FDG_QUANTIFICATION2",),
        (
            Input(
                "results",
                ("quantification_results.csv", "*/quantification_results.csv"),
                partial(
                    regional,
                    needed=_NEEDED,
                    chosen=_DK,
                    what="uptake relative to the vermis (optimised) in the atlas dk",
                ),
            ),
        ),
        _columns("ratio to the vermis", "mean of value weighted by nvoxels (quantification_results.csv)"),
        fdg,
        wide=Wide(("region", "measurement"), ("value",)),
        doc="FDG uptake of the regions of Braak stages I-II, III-IV and V-VI.",
    ),
)
