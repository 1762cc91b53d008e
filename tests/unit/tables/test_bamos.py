"""Lesions by lobe and depth, against a plain computation with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.tables.support import session
from tests.unit.tables.test_images import image
from xnatfs.tables.pipelines.bamos import LOBES
from xnatfs.tables.spec import ParseError

VOXEL = (1.0, 1.0, 1.2)


def files(components: Any, lesions: Any, layers: Any, lobes: Any) -> dict[str, bytes]:
    return {
        "Connect_WS3WT3WC1Lesion_S01_corr.nii.gz": image(components, VOXEL, packed=True),
        "CorrectLesion_S01.nii.gz": image(lesions, VOXEL, packed=True),
        "Layers_S01.nii.gz": image(layers, VOXEL, packed=True),
        "Lobes_S01.nii.gz": image(lobes, VOXEL, packed=True),
    }


@pytest.mark.parametrize("seed", range(6))
def test_stats_are_those_of_numpy(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (60, 70, 90) if seed == 0 else (9, 8, 7)  # the first is more than a block
    layers = random.integers(0, 6, shape).astype(np.float32)
    lobes = random.integers(0, 11, shape).astype(np.uint8)
    lobes[lobes == 3] = 0
    lesions = np.where(random.random(shape) < 0.2, random.random(shape), 0).astype(np.float32)
    components = np.where(lesions >= 0.5, random.integers(1, 40, shape), 0).astype(np.float32)
    if seed == 1:
        components[...] = 1  # nothing outside
    if seed == 2:
        lesions[...] = components[...] = 0
    found = session("bamos/stats", files(components, lesions, layers, lobes))
    assert found.columns == ("depth", "region", "n", "volume")
    depth = np.where(layers == 5, 4, layers)
    expected = []
    for level in np.unique(depth):
        for lobe in np.unique(lobes):
            inside = (depth == level) & (lobes == lobe)
            held = lesions[inside].astype(np.float64)
            number = len(np.unique(components[inside]))
            expected.append(
                (
                    str(int(level)),
                    LOBES[lobe],
                    str(number),
                    held[held >= 0.5].sum() * np.float64(np.float32(1.2)),
                )
            )
    assert [row[:3] for row in found.rows] == [row[:3] for row in expected]
    assert [float(row[3]) for row in found.rows] == pytest.approx([row[3] for row in expected], rel=1e-12)


def test_the_volume_counts_from_one_half() -> None:
    lesions = np.array([[[0.0, 0.25, 0.5, 0.75]]], np.float32)
    found = session("bamos/volumes", {"CorrectLesion_S01.nii.gz": image(lesions, VOXEL, packed=True)})
    assert found.columns == ("volume",)
    assert float(found.rows[0][0]) == pytest.approx(1.25 * 1.2, rel=1e-6)


def test_images_that_do_not_fit_together_give_a_note_and_no_rows() -> None:
    ones = np.ones((3, 3, 3), np.float32)
    found = session("bamos/stats", files(ones, ones, ones, np.ones((3, 3, 4), np.uint8)))
    assert found.rows == [] and "differ in shape" in found.notes[0]
    found = session("bamos/stats", files(ones, ones, ones, np.full((3, 3, 3), 11, np.uint8)))
    assert found.rows == [] and "unknown label 11" in found.notes[0]


def test_an_atlas_with_fractions_is_refused() -> None:
    ones = np.ones((3, 3, 3), np.float32)
    with pytest.raises(ParseError, match="not whole numbers"):
        session("bamos/stats", files(ones, ones, ones / 2, ones))


def test_the_arterial_table_is_the_pipelines_own() -> None:
    found = session(
        "bamosarterial/stats", {"bamos_arterial_stats.csv": "territory,n,volume\nACA_L,3,12.50\nMCA_L,,0\n"}
    )
    assert found.columns == ("territory", "n", "volume")
    assert found.rows == [("ACA_L", "3", "12.50"), ("MCA_L", "", "0")]
