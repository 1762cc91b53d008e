"""Real files, where they are: XNATFS_SAMPLES, or `shared/samples` beside the checkout. They are no part of
the project.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.tables.support import session, value

SAMPLES = Path(os.environ.get("XNATFS_SAMPLES") or Path(__file__).parents[4] / "shared" / "samples")
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real sample files are not here")


def folder(name: str) -> dict[str, bytes]:
    return {f"S/{path.name}": path.read_bytes() for path in sorted((SAMPLES / name).iterdir())}


@pytest.mark.parametrize(
    ("key", "name", "rows", "notes"),
    [
        ("freesurfer6/aseg", "freesurfer/fs6.0.0", 426, 0),
        ("freesurfer6/aparc", "freesurfer/fs6.0.0", 625, 0),
        ("freesurfer7/aseg", "freesurfer/fs7.0.0", 424, 0),
        ("freesurfer7/aparc", "freesurfer/fs7.0.0", 625, 0),
        ("freesurfer6/aseg", "freesurfer/fs7.0.0", 424, 1),
        ("freesurfer7/hippoSfVolumes", "freesurfer/subfields", 44, 0),
        ("freesurfer7/amygNucVolumes", "freesurfer/subfields", 20, 0),
        ("freesurfer7/thalamus", "freesurfer/subfields", 52, 0),
    ],
)
def test_real_files_give_as_many_rows_as_bx_counts(key: str, name: str, rows: int, notes: int) -> None:
    found = session(key, folder(name))
    assert len(found.rows) == rows
    assert len(found.notes) == notes


def test_the_cortex_of_freesurfer_6_is_found_without_its_comma() -> None:
    assert (
        value(session("freesurfer6/aparc", folder("freesurfer/fs6.0.0")), region="CortexVol")
        == "536883.609483"
    )


def test_composites_can_be_computed_from_real_files() -> None:
    for name in ("freesurfer/fs6.0.0", "freesurfer/fs7.0.0"):
        for key in ("braak/volumes", "braak/thickness", "signature/jack"):
            found = session(key, folder(name))
            assert all(row[-1] for row in found.rows) and not found.notes


def test_real_ashs_files() -> None:
    found = session("ashs/volumes", folder("ashs"))
    assert found.rows[0] == ("left", "CA1", "26", "678.901")
    assert found.rows[-1] == ("", "tiv", "", "1.23456e+06")
