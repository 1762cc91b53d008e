"""The tools people use, on the views and lists of a real mount."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from tests.mount.conftest import Lab
from tests.mount.test_tools import ok, python
from tests.support import mount, run, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.data.truth import TrueFile
from xnatfs.demo.server import DemoServer

FLAT = "views/ALFA/by-scan-type/T1_ALFA1/usable/NIFTI"


def images(lab: Lab) -> dict[str, TrueFile]:
    """The true files of the usable T1 images by the names that bx gives them."""
    found = {}
    for file in lab.files("ALFA", resource="NIFTI", scan_type="T1_ALFA1"):
        session = lab.archive.experiments[file.session_id]
        quality = next(one.quality for one in session.scans if one.id == file.scan)
        extension = ".nii.gz" if file.path.endswith(".nii.gz") else Path(file.path).suffix
        if quality == "usable":
            found[f"{file.subject}_{file.session}_{file.scan}_{file.session_id}{extension}"] = file
    return found


def md5s(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.iterdir()
    }


def test_cp_copies_a_flat_folder(lab: Lab, tmp_path: Path) -> None:
    ok("cp", "-r", lab.demo.point / FLAT, tmp_path)
    assert md5s(tmp_path / "NIFTI") == {name: file.digest for name, file in images(lab).items()}


def test_rsync_twice_transfers_nothing_the_second_time(full: Lab, tmp_path: Path) -> None:
    source = f"{full.demo.point / FLAT}/"
    first = ok("rsync", "-a", "--stats", source, tmp_path / "copy")
    assert f"Number of regular files transferred: {len(images(full))}\n" in first
    second = ok("rsync", "-a", "--stats", source, tmp_path / "copy")
    assert "Number of regular files transferred: 0\n" in second
    third = ok("rsync", "-a", "--stats", f"{full.demo.point}/views/ALFA/by-scan-type/", tmp_path / "all")
    assert "Number of regular files transferred: 0\n" not in third
    assert "Number of regular files transferred: 0\n" in ok(
        "rsync", "-a", "--stats", f"{full.demo.point}/views/ALFA/by-scan-type/", tmp_path / "all"
    )


def test_tar_of_a_view_by_resource(full: Lab, tmp_path: Path) -> None:
    ok("tar", "-cf", tmp_path / "x.tar", "-C", full.demo.point / "views/ALFA/by-resource", "FREESURFER6")
    truth = {
        f"FREESURFER6/{one.session}/{one.path}": one.digest
        for one in full.files("ALFA", resource="FREESURFER6", kind="session")
    }
    with tarfile.open(tmp_path / "x.tar") as archive:
        found = {}
        for member in archive.getmembers():
            stream = archive.extractfile(member)
            if stream is not None:
                found[member.name] = hashlib.md5(stream.read(), usedforsecurity=False).hexdigest()
    assert found == truth


def test_dcm2niix_of_a_scan_folder(full: Lab, tmp_path: Path) -> None:
    folder = full.demo.point / "views/ALFA/by-scan-type/T1_ALFA1/usable/DICOM"
    (scan,) = (name for name in os.listdir(folder) if name.startswith("sub001_sub001_MR1_"))
    ok("dcm2niix", "-o", tmp_path, "-f", "image", "-z", "n", folder / scan)
    shape = python("import nibabel, sys; print(nibabel.load(sys.argv[1]).shape)", tmp_path / "image.nii")
    assert shape.strip() == "(112, 112, 40)"


def test_image_tools_read_the_paths(full: Lab, tmp_path: Path) -> None:
    names = sorted(name for name in images(full) if name.endswith(".nii.gz"))
    paths = [full.demo.point / FLAT / name for name in names]
    code = "import nibabel, sys; print([float(nibabel.load(p).get_fdata().sum()) > 0 for p in sys.argv[1:]])"
    assert python(code, *paths).strip() == str([True] * len(paths)) and len(paths) == 9
    ok("mrconvert", "-quiet", paths[0], tmp_path / "x.mif")
    assert (tmp_path / "x.mif").stat().st_size > 10_000
    dwi = full.demo.point / "views/ALFA/by-scan-type/DWI/usable/NIFTI"
    stem = dwi / "007_007_MR1_4_DEMO_E00008"
    ok(
        "mrconvert",
        "-quiet",
        f"{stem}.nii.gz",
        "-fslgrad",
        f"{stem}.bvec",
        f"{stem}.bval",
        tmp_path / "dwi.mif",
    )
    assert len(ok("mrinfo", tmp_path / "dwi.mif", "-dwgrad").splitlines()) >= 7


def test_the_projects_have_each_file_once_all_the_same(lab: Lab) -> None:
    """After the views were walked: `find projects/P -type f` is the server's file set."""
    views = lab.demo.point / "views/ALFA"
    ok("find", views, "-path", views / "nifti", "-prune", "-o", "-type", "f", "-size", "+0")
    found = ok("find", lab.demo.point / "projects/ALFA", "-type", "f", "-print").splitlines()
    assert sorted(found) == sorted(str(path) for path in lab.people("ALFA"))


def test_inode_numbers_sizes_and_dates_agree_on_every_path(full: Lab) -> None:
    def stats(folder: str) -> dict[str, str]:
        lines = ok("find", full.demo.point / folder, "-type", "f", "-printf", "%i %s %T@\\n").splitlines()
        return {line.split()[0]: line for line in lines}

    at_home = stats("projects/ALFA")
    for folder in (
        FLAT,
        "views/ALFA/by-resource",
        "views/ALFA/by-scan-resource",
        "views/ALFA/by-assessor-resource",
    ):
        found = stats(folder)
        assert found and found.items() <= at_home.items()


def test_reading_again_under_another_path_costs_no_request(full: Lab) -> None:
    ok("md5sum", *sorted((full.demo.point / FLAT).iterdir()))
    ok("find", full.demo.point / "projects/ALFA", "-name", "*_T1_ALFA1.nii.gz")
    full.server.clear_log()
    at_home = [path for path, file in full.people("ALFA").items() if file in images(full).values()]
    ok("md5sum", *at_home)
    assert full.server.requests(r"/files/") == [] == full.server.requests("format=zip")


def test_lists_named_at_the_mount_and_in_the_configuration(full: Lab, tmp_path: Path) -> None:
    named = tmp_path / "hippocampus.txt"
    named.write_bytes(b"\xef\xbb\xbf# two\r\nsub001_MR1\r\nDEMO_E00008\r\n")
    lists = tmp_path / "config/xnatfs/lists"
    lists.mkdir(parents=True)
    (lists / "pilot.txt").write_text("NORD_0002_20190509\nnobody\n")
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    with mount(full.server.url, tmp_path / "m", "--list", str(named), env=environment) as mounted:
        assert ok("ls", mounted.point).split() == [
            "README.txt",
            "archive",
            "lists",
            "projects",
            "tables",
            "views",
        ]
        assert ok("ls", mounted.point / "lists").split() == ["hippocampus", "pilot"]
        flat = mounted.point / "lists/hippocampus/by-scan-type/T1_ALFA1/usable/NIFTI"
        ok("cp", "-r", flat, tmp_path / "copy")
        wanted = {
            name: file.digest
            for name, file in images(full).items()
            if file.session_id in ("DEMO_E00001", "DEMO_E00008")
        }
        assert md5s(tmp_path / "copy") == wanted and len(wanted) >= 2
        assert "1 names match no session you can read:\nnobody\n" in ok(
            "cat", mounted.point / "lists/pilot/README.txt"
        )
        assert ok("ls", mounted.point / "lists/pilot/by-scan-resource/nii").split() == ["NORD_0002_20190509"]
    refused = xnatfs(
        "mount",
        str(tmp_path / "m/mnt"),
        "--list",
        str(tmp_path / "no such list"),
        env={**mounted.env, **environment},
    )
    assert refused.returncode != 0 and "no such list" in refused.stderr and "Traceback" not in refused.stderr


def test_ctrl_c_ends_a_cold_listing_at_once(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, nifti=400, nifti_size=100, digests=False)
    with DemoServer(archive) as server, mount(server.url, tmp_path, env={"HOME": str(tmp_path)}) as mounted:
        ok("ls", mounted.point / "views/NIFTI/by-scan-type/T1/usable")
        server.switches.latency_ms = 200
        code = """
            import os, signal, subprocess, sys, time
            process = subprocess.Popen(["ls", sys.argv[1]], stdout=subprocess.DEVNULL)
            time.sleep(1.5)
            process.send_signal(signal.SIGINT)
            begin = time.monotonic()
            process.wait(20)
            print(time.monotonic() - begin)
        """
        assert float(python(code, mounted.point / "views/NIFTI/by-scan-type/T1/usable/NIFTI")) < 3
        server.switches.latency_ms = 0
        assert len(os.listdir(mounted.point / "views/NIFTI/by-scan-type/T1/usable/NIFTI")) == 400


@pytest.mark.parametrize("tool", ["cp", "rsync"])
def test_copying_a_flat_folder_costs_the_listings_and_one_request_a_file(tmp_path: Path, tool: str) -> None:
    archive = build("scale", sessions=0, nifti=60, nifti_size=100_000)
    with DemoServer(archive) as server, mount(server.url, tmp_path, env={"HOME": str(tmp_path)}) as mounted:
        source = mounted.point / "views/NIFTI/by-scan-type/T1/usable/NIFTI"
        server.clear_log()  # the login
        done = run(
            *(("cp", "-r", source) if tool == "cp" else ("rsync", "-a", f"{source}/")), tmp_path / "copy"
        )
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "copy").iterdir())) == 60
        asked = server.requests(r"^GET")
        files = [one for one in asked if "/files/" in one.path]
        listings = [one for one in asked if one.path.endswith("/files")]
        assert len(files) == 60 == len({one.path for one in files})
        assert len(listings) == 60 == len({one.path for one in listings})
        others = [one.target[:170] for one in asked if one not in files and one not in listings]
        assert len(others) <= 16, "\n".join(others)
