"""Jack's cortical signature of Alzheimer's disease, from FreeSurfer's aparc.

Used by `tables.registry`, under the two names it has in bx. Plain functions and values, any thread. Jack et
al., Alzheimers Dement. 2017.
"""

from __future__ import annotations

import math

from xnatfs.tables.pipelines.braak import SIDES, cortex_of, weighted
from xnatfs.tables.pipelines.freesurfer import aparc_inputs
from xnatfs.tables.spec import Column, Inputs, Parsed, Row, SessionInfo, Table, Wide

_REGIONS = ("entorhinal", "inferiortemporal", "middletemporal", "fusiform")


def jack(_: SessionInfo, inputs: Inputs) -> Parsed:
    """Thickness and volume over four regions of both sides: their mean, and their mean weighted by surface
    area.
    """
    cortex = cortex_of(inputs)
    places = [(side, region) for region in _REGIONS for side in SIDES]
    rows: list[Row] = []
    missing: dict[str, None] = {}
    for by_area in (False, True):
        for measurement in ("ThickAvg", "GrayVol"):
            pairs: list[tuple[float, float]] = []
            for side, region in places:
                number, area = cortex(side, region, measurement), cortex(side, region, "SurfArea")
                if number is None or area is None:
                    missing[f"{side} {region}"] = None
                else:
                    pairs.append((number, area))
            value: float | None = None
            if len(pairs) == len(places):
                value = weighted(pairs) if by_area else math.fsum(number for number, _ in pairs) / len(pairs)
            rows.append(("jack", str(by_area).lower(), measurement, "" if value is None else repr(value)))
    notes = (f"the signature cannot be computed without {', '.join(missing)}",) if missing else ()
    return Parsed(("signature", "weighted", "measurement", "value"), rows, notes)


def _table(pipeline: str) -> Table:
    return Table(
        pipeline,
        "jack",
        ("FREESURFER7",),
        aparc_inputs(required=True),
        (
            Column("signature", source="jack", text=True),
            Column("weighted", source="true: weighted by SurfArea; false: plain mean", text=True),
            Column("measurement", source="ThickAvg or GrayVol (aparc)", text=True),
            Column(
                "value",
                "ThickAvg: mm; GrayVol: mm3",
                "mean over entorhinal, inferiortemporal, middletemporal, fusiform, both sides",
            ),
        ),
        jack,
        wide=Wide(("signature", "measurement", "weighted"), ("value",)),
        doc="Jack's signature of Alzheimer's disease.",
    )


TABLES: tuple[Table, ...] = (_table("freesurfer7"), _table("signature"))
