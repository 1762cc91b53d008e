"""`views/PROJECT/nifti/` on a real mount, and `xnatfs convert`."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import Mount, kill, mount, run, until, xnatfs
from xnatfs.demo.data.dicom_cases import datasets, in_time, stored, volume
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer

SCANS = 14  # more than a walk may convert


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    project = make.project("P", "P", members=["demo"])
    for name in ("s1", "s2"):
        session = make.experiment(make.subject(project, name), f"{name}_MR", date="2024-01-08")
        for number in range(SCANS if name == "s1" else 1):
            files = stored(datasets(volume(f"{name} {number}")))
            make.resource(make.scan(session, str(number + 1), "T1w"), "DICOM", files, format="DICOM")
    aborted = make.scan(session, "99", "bold")
    make.resource(aborted, "DICOM", stored(in_time(3)[:-2]), format="DICOM")
    with DemoServer(archive) as started:
        yield started


@pytest.fixture(scope="module")
def mounted(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mount(server.url, tmp_path_factory.mktemp("mount")) as made:
        yield made


def convert(mounted: Mount, *paths: str) -> subprocess.CompletedProcess[str]:
    return xnatfs("convert", *(str(mounted.point / path) for path in paths), env=mounted.env, check=False)


def zips(server: DemoServer) -> int:
    return len(server.requests(r"format=zip"))


def test_from_a_walk_to_a_converted_project(mounted: Mount, server: DemoServer, tmp_path: Path) -> None:
    nifti, bids = mounted.point / "views/P/nifti", mounted.point / "views/P/bids"
    names = run("find", nifti, "-maxdepth", "3").stdout.splitlines()
    assert len([name for name in names if name.endswith("-T1w")]) == SCANS + 1
    run("ls", "-l", nifti / "s1/s1_MR")
    assert zips(server) == 0, "names and attributes of the scans convert nothing"
    for command in (("find", nifti), ("du", "-s", nifti), ("grep", "-r", "x", nifti), ("find", bids)):
        walked = run(*command)
        assert walked.stderr.count("No data available") == (0 if bids in command else SCANS + 2), command
        assert zips(server) == 0, f"{command[0]} converts nothing"
    assert run("tar", "cf", tmp_path / "t1.tar", nifti / "s1/s1_MR/1-T1w").returncode == 0
    assert zips(server) == 1, "what takes the files converts them"
    walked = run("ls", "-R", nifti / "s1")
    assert walked.returncode == 1 and "busy" in walked.stderr
    assert zips(server) == 10 + 1, "the scan that was read does not count"
    assert "was not converted" in (mounted.point / ".xnatfs/oddities.txt").read_text()
    done = convert(mounted, "views/P/nifti/s1")
    assert done.returncode == 0, done.stderr
    assert f"{SCANS} of {SCANS} scans are converted ({SCANS} images)" in done.stdout
    assert zips(server) == SCANS, "what a walk converted is not fetched again"
    everything = convert(mounted, "views/P")
    assert everything.returncode == 1
    assert f"{SCANS + 1} of {SCANS + 2} scans are converted ({SCANS + 1} images)" in everything.stdout
    assert "views/P/nifti/s2/s2_MR/99-bold: all: a volume is incomplete" in everything.stderr
    before = len(server.requests())
    assert convert(mounted, "views/P/nifti/s2/s2_MR/1-T1w").returncode == 0
    files = run("find", nifti, "-type", "f", "-name", "*.nii.gz").stdout.splitlines()
    assert len(files) == SCANS + 1
    for number in (0, SCANS - 1):
        (path,) = (name for name in files if f"/s1_MR/{number + 1}-T1w/" in name)
        image = nib.as_closest_canonical(nib.load(path))
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume(f"s1 {number}"))
        assert os.getxattr(path, "user.xnat.made-by") == b"xnatfs, dcm2niix"
    assert len(server.requests()) == before, "what is kept costs no request"


def test_a_bids_folder_is_named_without_and_read_after_conversion(server: DemoServer, tmp_path: Path) -> None:
    """Catches: a kernel that cuts an image at a size it was given before anybody knew the true one."""
    with mount(server.url, tmp_path) as mounted:
        bids = mounted.point / "views/P/bids"
        before = zips(server)
        images = sorted(Path(name) for name in run("find", bids, "-name", "*_T1w.nii.gz").stdout.split())
        assert len(images) == SCANS + 1
        assert run("du", "-s", bids).returncode == 0 and images[0].stat().st_blocks == 0
        assert zips(server) == before, "names and attributes convert nothing"
        first = run("cp", images[0], tmp_path / "copy.nii.gz")
        assert first.returncode == 0, first.stderr
        copy = nib.as_closest_canonical(nib.load(tmp_path / "copy.nii.gz"))
        np.testing.assert_array_equal(np.asanyarray(copy.dataobj), volume("s1 0"))
        assert images[0].stat().st_size == (tmp_path / "copy.nii.gz").stat().st_size
        assert zips(server) == before + 1
        done = convert(mounted, "views/P/bids")
        assert done.returncode == 1 and "99-bold" not in done.stdout
        assert f"{SCANS + 1} of {SCANS + 2} scans are converted ({SCANS + 1} images)" in done.stdout
        assert "_bold.nii.gz: all: a volume is incomplete" in done.stderr
        assert zips(server) == before + SCANS + 2
        for image in images:  # looked at a moment ago, when their sizes were unknown
            assert gzip.decompress(image.read_bytes())[344:347] == b"n+1"
        assert not list(bids.rglob("*_bold.*"))
        assert "a volume is incomplete" in (bids / "unmapped.tsv").read_text()
        assert convert(mounted, "views/P/bids/sub-s1/ses-MR").returncode == 0
        assert zips(server) == before + SCANS + 2


def test_a_mount_that_is_killed_while_it_converts_leaves_nothing(server: DemoServer, tmp_path: Path) -> None:
    """Catches: half an image that the next mount shows, and a folder that stays."""
    image = "views/P/bids/sub-s2/ses-MR/anat/sub-s2_ses-MR_T1w.nii.gz"
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        assert (mounted.point / image).stat().st_blocks == 0
        server.switches.bandwidth = 2000.0
        reader = subprocess.Popen(
            ["cat", mounted.point / image], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: list(tmp_path.glob("cache/*/converted/.work-*/source/*")), 60)  # listings first
            kill(pid)
            assert reader.wait(60) != 0
        finally:
            server.switches.bandwidth = 0.0
            reader.kill()
            reader.wait()
    (left,) = tmp_path.glob("cache/*/converted/.work-*")
    os.utime(left, (0, 0))  # as if it were a while ago
    with mount(server.url, tmp_path) as again:
        assert not left.exists() and not list(tmp_path.glob("cache/*/converted/*"))
        found = nib.as_closest_canonical(nib.load(again.point / image))
        np.testing.assert_array_equal(np.asanyarray(found.dataobj), volume("s2 0"))
        # What is warmed is converted first: the scan that is refused is no file that cannot be read.
        done = xnatfs("warm", str(again.point / "views/P/bids/sub-s2"), env=again.env, check=False)
        assert done.returncode == 0, done.stderr
        assert not list(again.point.glob("views/P/bids/sub-s2/**/*_bold.*"))


@pytest.mark.parametrize("path", ["projects/P", "views", "tables/P"])
def test_where_there_is_nothing_to_convert_it_says_what_to_name(mounted: Mount, path: str) -> None:
    said = convert(mounted, path)
    assert said.returncode == 1
    assert "has no scans to convert; name views/PROJECT/nifti" in said.stderr


def test_what_is_not_there_is_named(mounted: Mount) -> None:
    said = convert(
        mounted, "views/P/nifti/nobody", "views/P/nifti/s2/s2_MR/100-T1w", "views/P/bids/sub-nobody"
    )
    assert said.returncode == 1
    assert "views/P/nifti/nobody: No such file or directory" in said.stderr
    assert "views/P/bids/sub-nobody: No such file or directory" in said.stderr
    assert "views/P/nifti/s2/s2_MR/100-T1w: " in said.stderr
    assert "not in an xnatfs mount" in xnatfs("convert", "/tmp", env=mounted.env, check=False).stderr
