"""`mount --overlay`: a place to write beside the input. The kernel's overlay and fuse-overlayfs, and the
server is never changed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from tests.mount.overlay.conftest import BVAL, BVEC, DICOM, NIFTI, SESSION, changed, overlaid
from tests.support import mount, run, xnatfs
from xnatfs.demo.server import DemoServer


def test_dcm2niix_writes_beside_the_images(server: DemoServer, tmp_path: Path, way: str) -> None:
    import nibabel

    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / DICOM
        before = set(os.listdir(folder))
        assert folder.is_dir() and len(before) > 5
        done = run("dcm2niix", folder)
        assert done.returncode == 0, done.stdout + done.stderr
        made = set(os.listdir(folder)) - before
        (image,) = (name for name in made if ".nii" in name)
        assert nibabel.load(folder / image).get_fdata().size > 1000
        assert before < set(os.listdir(folder))
        assert {path.name for path in (tmp_path / "changes/upper" / DICOM).iterdir()} == made
        assert changed(mounted)[0] == len(made)
        disk = os.statvfs(tmp_path / "changes")  # where a program that asks for free space will write
        assert os.statvfs(mounted.point).f_blocks == disk.f_blocks


def test_what_tools_do_beside_their_input(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / NIFTI
        image = next(name for name in os.listdir(folder) if name.endswith(".nii.gz"))
        data = (folder / image).read_bytes()
        text = (folder / BVEC).read_text()
        for command in (
            ("cp", image, "reoriented.nii.gz"),
            ("mkdir", "image.feat"),
            ("touch", "IsRunning"),
            ("mv", "reoriented.nii.gz", "image.feat/"),
            ("mv", BVAL, "renamed.bval"),
            ("touch", BVEC),
            ("sh", "-c", f"echo more >> {BVEC}"),
        ):
            done = run(*command, cwd=folder)
            assert (done.returncode, done.stderr) == (0, ""), command
        assert (folder / "image.feat/reoriented.nii.gz").read_bytes() == data
        assert (folder / BVEC).read_text() == text + "more\n"
        assert (folder / "renamed.bval").stat().st_size > 0 and not (folder / BVAL).exists()
        assert {"image.feat", "IsRunning", "renamed.bval", BVEC, image} <= set(os.listdir(folder))
        (folder / "IsRunning").unlink()
        files, size, deleted = changed(mounted)
        assert (files, deleted) == (3, 1) and size >= len(data) + len(text) + 5


@pytest.mark.usefixtures("way")
def test_a_table_that_nobody_opened_before_is_written_to(server: DemoServer, tmp_path: Path) -> None:
    """The overlay copies it first, as many bytes as it was told."""
    with mount(server.url, tmp_path / "plain") as plain:
        truth = (plain.point / "tables/ALFA/sessions.csv").read_bytes()
    with overlaid(server.url, tmp_path) as mounted:
        path = mounted.point / "tables/ALFA/sessions.csv"
        assert path.stat().st_size > len(truth)
        with path.open("ab") as table:
            table.write(b"more")
        assert path.stat().st_size == len(truth) + 4
        assert path.read_bytes() == truth + b"more"


def test_a_folder_is_renamed(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        scans = mounted.point / SESSION / "SCANS"
        names = set(os.listdir(scans / "4-DWI/NIFTI"))
        done = run("mv", "4-DWI", "DWI", cwd=scans)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(os.listdir(scans / "DWI/NIFTI")) == names and not (scans / "4-DWI").exists()
        assert all((scans / "DWI/NIFTI" / name).read_bytes() for name in names)


def test_a_deletion_hides_and_is_not_sent(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / NIFTI
        text = (folder / BVEC).read_text()
        (folder / BVEC).unlink()
        shutil.rmtree(mounted.point / DICOM)
        assert BVEC not in os.listdir(folder) and not (folder / BVEC).exists()
        assert BVEC not in run("ls", folder).stdout and not (mounted.point / DICOM).exists()
        assert changed(mounted) == (0, 0, 2)
        said = xnatfs("status", str(mounted.point), env=mounted.env, check=True).stdout
        assert f"  overlay: {tmp_path}/changes holds 0 files (0 B) and 2 deletions; by " in said
        (folder / BVEC).write_text("my own")
        assert (folder / BVEC).read_text() == "my own" and changed(mounted) == (1, 6, 1)
        with mount(server.url, tmp_path / "plain") as plain:
            assert (plain.point / NIFTI / BVEC).read_text() == text
            assert len(os.listdir(plain.point / DICOM)) > 5
            assert plain.status()["overlay"] is None
            with pytest.raises(OSError):
                (plain.point / NIFTI / "x").write_text("")


def test_the_changes_are_there_again_after_a_remount(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / NIFTI
        (folder / "new.txt").write_text("new")
        (folder / BVAL).unlink()
        before = changed(mounted)
    with overlaid(server.url, tmp_path) as mounted:
        assert (
            (folder / "new.txt").read_text() == "new"
            and not (folder / BVAL).exists()
            and (folder / BVEC).exists()
        )
        assert changed(mounted) == before == (1, 3, 1)


def test_the_other_commands_know_the_overlay(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        file = mounted.point / NIFTI / BVEC
        assert os.getxattr(file, "user.xnat.cached") == b"no"
        done = xnatfs("warm", str(mounted.point / NIFTI), env=mounted.env)
        assert done.returncode == 0, done.stderr
        assert os.getxattr(file, "user.xnat.cached") == b"yes" and os.getxattr(file, "user.xnat.scan") == b"4"
        assert "user.xnat.cached" not in os.listxattr(file) and "user.xnat.uri" in os.listxattr(file)
        for arguments in ((str(file),), ()):
            assert (
                xnatfs("refresh", *arguments, env=mounted.env).stdout
                == f"{mounted.point} will check {server.url} again\n"
            )
        assert xnatfs("status", str(file), env=mounted.env).returncode == 0
        again = xnatfs("mount", str(mounted.point), env=mounted.env)
        assert again.returncode == 1 and f"is already mounted at {mounted.point}" in again.stderr
        assert "a layer that stores changes on this machine" in (mounted.point / "README.txt").read_text()
        report = mounted.status()["overlay"]
        assert (report["directory"], report["kind"]) == (str(tmp_path / "changes"), way)
        said = xnatfs("doctor", env=mounted.env).stdout
        assert re.search(r"^ok    overlay: `mount --overlay` uses ", said, re.MULTILINE)


def test_others_of_this_machine_may_not_enter(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        assert stat.S_IMODE(mounted.point.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "changes").stat().st_mode) == 0o700
        assert stat.S_IMODE((mounted.point / NIFTI / BVEC).stat().st_mode) == 0o644


def test_looking_around_fetches_no_files(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        assert run("ls", "-lR", mounted.point / SESSION).stdout.count(".dcm") > 20
        assert mounted.status()["contents"]["cached files"] == 0
        assert run("file", mounted.point / NIFTI / BVEC).stdout.rstrip().endswith("ASCII text"), (
            "opens as fuse-overlayfs does, and reads"
        )
