"""The sample project that has nothing but DICOM, through a real mount: as bids-validator, pybids, nibabel and
MRtrix see it, and what a walk costs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.mount.test_bids_tools import ok, python, validate
from tests.support import Mount, mount, xnatfs
from xnatfs.demo.data import raw
from xnatfs.demo.data.dicom_cases import volume
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer

SESSION = "sub-R01/ses-MR1"
# What R01 is found to be: the images, without sub-R01_ses-MR1_.
IMAGES = {
    *("anat/run-01_T1w", "anat/rec-nd_run-02_T1w", "anat/rec-norm_run-02_T1w"),
    *("anat/echo-1_MEGRE", "anat/echo-2_MEGRE", "anat/echo-3_MEGRE"),
    *("anat/part-mag_PDw", "anat/part-phase_PDw"),
    *("func/task-rest_sbref", "func/task-rest_run-01_bold", "func/task-rest_run-03_bold"),
    *("fmap/magnitude1", "fmap/magnitude2", "fmap/phasediff", "dwi/dwi"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    raw.add(make)
    with DemoServer(archive) as started:
        yield started


@pytest.fixture(scope="module")
def mounted(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mount(server.url, tmp_path_factory.mktemp("raw")) as made:
        yield made


@pytest.fixture(scope="module")
def bids(mounted: Mount, server: DemoServer) -> Path:
    """The dataset, converted as the documentation says, after a walk that converted nothing."""
    views = mounted.point / "views/RAW"
    for command in (("find", views / "bids", "-ls"), ("du", "-s", views / "bids"), ("tree", views / "bids")):
        ok(*command)
    assert len(ok("find", views / "nifti", "-maxdepth", "3").splitlines()) > len(raw.SIZES)
    assert not server.requests(r"format=zip") and not server.requests(r"/files/"), "a walk converts nothing"
    done = xnatfs("convert", str(views / "bids"), env=mounted.env, check=False)
    assert done.returncode == 1
    problems = sorted(line for line in done.stderr.splitlines() if ": all: " in line)
    assert len(problems) == 2 and "Secondary Capture" in problems[0] and "is incomplete" in problems[1]
    return views / "bids"


def test_the_validator_finds_no_error(bids: Path) -> None:
    assert not validate(bids)


def test_pybids_finds_every_image_and_field(bids: Path) -> None:
    code = """
        import json, sys
        from bids import BIDSLayout
        layout = BIDSLayout(sys.argv[1])
        images = layout.get(extension=".nii.gz")
        print(json.dumps({one.relpath: one.get_metadata() for one in images}, default=str))
    """
    found = json.loads(python(code, bids))
    names = {name.replace("sub-R01_ses-MR1_", "").removeprefix(f"{SESSION}/") for name in found}
    names = {name.replace("_run-01_sbref", "_sbref") for name in names}  # that of its series, or none
    assert names == {f"{name}.nii.gz" for name in IMAGES}
    bold = found[f"{SESSION}/func/sub-R01_ses-MR1_task-rest_run-03_bold.nii.gz"]
    assert bold["TaskName"] == "rest" and bold["RepetitionTime"] == 2.3
    phase = found[f"{SESSION}/fmap/sub-R01_ses-MR1_phasediff.nii.gz"]
    assert phase["EchoTime1"] == 0.0035 and phase["EchoTime2"] == 0.007
    assert all(one["ConversionSoftware"] == "dcm2niix" for one in found.values())


def test_nibabel_and_mrtrix_read_every_image(bids: Path) -> None:
    images = sorted(bids.rglob("*.nii.gz"))
    sizes = ok("mrinfo", "-size", *images).splitlines()
    for path, size in zip(images, sizes, strict=True):
        image = nib.load(path)
        assert list(image.shape) == [int(one) for one in size.split()]
        assert np.isfinite(np.asanyarray(image.dataobj)).all()
        assert os.getxattr(path, "user.xnat.made-by") == b"xnatfs, dcm2niix"
    t1 = nib.as_closest_canonical(nib.load(next(bids.rglob("*_run-01_T1w.nii.gz"))))
    np.testing.assert_array_equal(np.asanyarray(t1.dataobj), volume("t1"))


def test_what_is_not_in_the_dataset_is_said(bids: Path) -> None:
    lines = (bids / "unmapped.tsv").read_text().splitlines()
    head = lines[0].split("\t")
    rows = [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]
    said = {row["series_description"]: row["reason"] for row in rows}
    assert said.keys() == {
        *("localizer", "ep2d_bold_rest stopped", "t2_tse report", "se_epi_topup_AP"),
        *(name for name in raw.SIZES if not name.startswith("study ")),
    }
    assert said["ep2d_bold_rest stopped"].startswith("not converted: a volume is incomplete")
    assert said["se_epi_topup_AP"].endswith("and the DICOM files do not say it")
