"""What is computed from other tables: Braak stages, Jack's signature; and DONSURF, which is aparc in other
words.
"""

from __future__ import annotations

import math

import pytest

from tests.unit.tables.support import aparc_file, aseg_file, session, value
from xnatfs.tables.pipelines.braak import STAGES

CORTEX = [name for stage in STAGES for name in stage.cortex] + [
    "supramarginal",
    "parsorbitalis",
    "parsopercularis",
    "parstriangularis",
]
BELOW = [f"{side}-{name}" for stage in STAGES for name in stage.below for side in ("Left", "Right")]


def cell(*key: object) -> int:
    """A number of its own for each cell."""
    return 100 + sum(ord(letter) * at for at, letter in enumerate(repr(key), 1)) % 900


def aparc(side: str, without: str = "") -> str:
    rows = [
        (
            name,
            "10",
            f"{cell(side, name, 'area')}",
            f"{cell(side, name, 'volume')}",
            f"{cell(side, name, 'thick') / 300:.3f}",
            *["1"] * 5,
        )
        for name in CORTEX
        if name != without
    ]
    return aparc_file([], rows)


def aseg(rename: bool = False) -> str:
    rows = [
        (
            "1",
            "4",
            "9",
            f"{cell(name)}.5",
            f"{name}-Proper" if rename and "Thalamus" in name else name,
            *["1"] * 5,
        )
        for name in BELOW
    ]
    return aseg_file([], rows)


FILES = {
    "stats/lh.aparc.stats": aparc("left"),
    "stats/rh.aparc.stats": aparc("right"),
    "stats/aseg.stats": aseg(),
}
SIDES = ("left", "right")


def test_there_are_as_many_regions_in_each_stage_as_in_bx() -> None:
    assert [(len(stage.cortex), 2 * len(stage.below)) for stage in STAGES] == [(1, 2), (11, 4), (18, 6)]
    assert len(set(CORTEX)) == 34


@pytest.mark.parametrize("rename", [False, True])
def test_braak_volumes(rename: bool) -> None:
    found = session("braak/volumes", {**FILES, "stats/aseg.stats": aseg(rename)})
    assert found.columns == ("region", "measurement", "value")
    assert [row[0] for row in found.rows] == ["Braak_I_II", "Braak_III_IV", "Braak_V_VI"]
    for stage in STAGES:
        expected = sum(cell(side, name, "volume") for name in stage.cortex for side in SIDES)
        expected += sum(cell(f"{side}-{name}") + 0.5 for name in stage.below for side in ("Left", "Right"))
        assert float(value(found, region=stage.name, measurement="Volume_mm3")) == expected


def test_braak_thickness_is_weighted_by_area() -> None:
    found = session("braak/thickness", FILES)
    assert found.columns == ("Braak region", "measurement", "value")
    for stage in STAGES:
        pairs = [
            (round(cell(s, n, "thick") / 300, 3), cell(s, n, "area")) for n in stage.cortex for s in SIDES
        ]
        expected = sum(a * b for a, b in pairs) / sum(b for _, b in pairs)
        assert float(value(found, **{"Braak region": stage.name})) == pytest.approx(expected, rel=1e-12)


def test_braak_fdg_is_weighted_by_voxels() -> None:
    names = [f"ctx-{side}-{name}" for name in CORTEX for side in ("lh", "rh")] + BELOW
    lines = ["region,atlas,reference_region,measurement,optimized_pet,value,nvoxels"]
    lines += [f"{name},aparc+aseg,vermis,suvr,True,{cell(name) / 100},{cell(name, 'n')}" for name in names]
    lines += [f"{name},aparc+aseg,pons,suvr,True,9,9" for name in names]
    found = session("braak/fdg", {"quantification_results.csv": "\n".join(lines)})
    for stage in STAGES:
        held = [f"ctx-{side}-{name}" for name in stage.cortex for side in ("lh", "rh")]
        held += [f"{side}-{name}" for name in stage.below for side in ("Left", "Right")]
        expected = sum(cell(name) / 100 * cell(name, "n") for name in held) / sum(
            cell(name, "n") for name in held
        )
        assert float(value(found, region=stage.name, measurement="suvr")) == pytest.approx(
            expected, rel=1e-12
        )


def test_a_missing_region_leaves_its_stage_empty_and_is_named() -> None:
    files = {**FILES, "stats/rh.aparc.stats": aparc("right", "insula")}
    for key in ("braak/volumes", "braak/thickness"):
        found = session(key, files)
        assert [bool(row[2]) for row in found.rows] == [True, False, True]
        assert found.notes == ("Braak_III_IV cannot be computed without right insula",)


@pytest.mark.parametrize("key", ["freesurfer7/jack", "signature/jack"])
def test_jacks_signature(key: str) -> None:
    found = session(key, FILES)
    assert found.columns == ("signature", "weighted", "measurement", "value")
    order = [("false", "ThickAvg"), ("false", "GrayVol"), ("true", "ThickAvg"), ("true", "GrayVol")]
    assert [row[:3] for row in found.rows] == [("jack", *pair) for pair in order]
    places = [
        (side, name)
        for name in ("entorhinal", "inferiortemporal", "middletemporal", "fusiform")
        for side in SIDES
    ]
    area = [cell(*place, "area") for place in places]
    for measurement, numbers in (
        ("ThickAvg", [round(cell(*place, "thick") / 300, 3) for place in places]),
        ("GrayVol", [float(cell(*place, "volume")) for place in places]),
    ):
        plain = float(value(found, weighted="false", measurement=measurement))
        by_area = float(value(found, weighted="true", measurement=measurement))
        assert plain == pytest.approx(math.fsum(numbers) / 8, rel=1e-12)
        assert by_area == pytest.approx(
            sum(a * b for a, b in zip(numbers, area, strict=True)) / sum(area), rel=1e-12
        )


def test_jack_without_a_region_is_empty_and_says_why() -> None:
    found = session("signature/jack", {**FILES, "stats/lh.aparc.stats": aparc("left", "fusiform")})
    assert [row[3] for row in found.rows] == [""] * 4
    assert found.notes == ("the signature cannot be computed without left fusiform",)


def test_donsurf_renames_thickness() -> None:
    own = [("NumVert", "3", "unitless"), ("MeanThickness", "2.4", "mm"), ("BrainSegVol", "1.5", "mm^3")]
    files = {
        f"{metric}/stats/{side}h.aparc.stats": aparc_file(
            own, [("insula", f"{at}", "20", "30", "0.8", "0.1", "5", "6", "7", "8")]
        )
        for at, metric in enumerate(("GM-MD", "GM-MD-koo", "SWM-MD"))
        for side in "lr"
    }
    found = session("donsurf/aparc", files)
    cells = (("NumVert", "0"), ("SurfArea", "20"), ("DiffuAvg", "0.8"), ("DiffuStd", "0.1"))
    assert found.rows == [(side, name, "insula", text) for side in SIDES for name, text in cells]
