"""What bx 0.9.2, unmodified, downloads, beside what the views show: the same names and the same bytes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.bx import configure
from tests.clients.conftest import Lab
from tests.support import composed, md5, read, walk
from xnatfs.config import Limits
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import files
from xnatfs.vfs import Vfs

pytestmark = pytest.mark.timeout(900)  # the first run ever installs bx

PROJECTS = [project for project in READABLE if project != "MESSY"]  # pyxnat cannot address what is in there
BX_TAKES = (".nii.gz", ".bval", ".bvec")


@pytest.fixture
def vfs(lab: Lab, tmp_path: Path) -> Iterator[Vfs]:
    with composed(lab.url, tmp_path / "mount", limits=Limits(cache_size=10**9, ttl=3600.0)) as mounted:
        yield mounted.vfs


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def flat(vfs: Vfs, project: str, type: str, quality: str) -> dict[str, str]:
    """The names in a flat folder with the MD5 of their bytes; nothing where there is no such folder."""
    folder = f"/views/{project}/by-scan-type/{type}/{quality}"
    if "NIFTI" not in names(vfs, folder):
        return {}
    return {name: md5(read(vfs, f"{folder}/NIFTI/{name}")) for name in names(vfs, f"{folder}/NIFTI")}


def test_bx_nifti_and_the_flat_folders_of_every_type(lab: Lab, vfs: Vfs, tmp_path: Path) -> None:
    """The same files under the same names. Ours has besides: what is not `.nii.gz`, `.bval` or `.bvec`
    (sidecars, `.nii`); where a scan has several of one kind or has them in folders, those that bx skips, with
    their own name before the extension; and the scans of sessions that are shared into the project, of which
    bx finds no resource."""
    projects = (
        PROJECTS if lab.profile == "full" else ["ALFA"]
    )  # what differs between the profiles is how sessions are listed, not which
    types = [(project, name) for project in projects for name in names(vfs, f"/views/{project}/by-scan-type")]
    # A command of bx takes more than a second. Where our two folders have the same files, what holds of "all"
    # holds of "usable", of which bx downloads no more.
    same = {one for one in types if flat(vfs, *one, "usable") == flat(vfs, *one, "all")}
    commands = {
        f"nifti {quality} {project} <{re.sub(r'[^A-Za-z0-9_]', '?', name)}": (project, name, quality)
        for project, name in types
        for quality in ("usable", "all")
        if quality == "all" or (project, name) not in same
    }
    assert len(commands) > len(types), "where they differ, both are compared"
    out = tmp_path / "bx"
    out.mkdir()
    told = configure(lab.url, "demo", tmp_path).several(list(commands), out)
    compared, extras = 0, set()
    for number, (command, (project, type, quality)) in enumerate(commands.items()):
        assert isinstance(told[command], list), (command, told[command])
        theirs = {path.name: md5(path.read_bytes()) for path in (out / str(number)).iterdir()}
        ours = flat(vfs, project, type, quality)
        assert theirs.items() <= ours.items(), command
        compared += len(theirs) * (2 if (project, type) in same else 1)
        for name in ours.keys() - theirs.keys():
            own_name = re.search(r"_[A-Z]+_E\d{5}_", name) is not None
            session = lab.archive.experiments[re.findall(r"[A-Z]+_E\d{5}", name)[-1]]
            if not own_name and name.endswith(BX_TAKES):
                assert session.project != project, (command, name)
                extras.add("of a shared session")
            else:
                extras.add("one of several" if own_name else name.partition(".")[2])
    truth = [
        one
        for project in projects
        for one in files(lab.archive, project, "demo")
        if one.resource == "NIFTI" and one.kind == "scan"
    ]
    plain = [one for one in truth if one.path.endswith(BX_TAKES) and "/" not in one.path]
    assert compared > len(plain)  # nearly all of them twice: in usable and in all
    assert ({"json", "of a shared session"} if lab.profile == "full" else {"json"}) <= extras
    assert extras <= {"json", "nii", "one of several", "of a shared session"}


def test_bx_freesurfer6_files_and_by_resource(lab: Lab, vfs: Vfs, tmp_path: Path) -> None:
    out = tmp_path / "bx"
    out.mkdir()
    configure(lab.url, "demo", tmp_path).run("freesurfer6", "files", "ALFA", dest=out, defaults=True)
    folder = "/views/ALFA/by-resource/FREESURFER6"
    ours = {vfs.xattr(f"{folder}/{name}", "user.xnat.id").decode(): name for name in names(vfs, folder)}
    assert {path.name for path in out.iterdir()} == set(ours) and len(ours) > 5
    for identity, name in ours.items():
        shown = {
            path[len(f"{folder}/{name}/") :]: md5(read(vfs, path))
            for path, _ in walk(vfs, f"{folder}/{name}")
        }
        assert len({path.partition("/")[0] for path in shown}) == 1
        below = {
            path.partition("/")[2]: digest for path, digest in shown.items()
        }  # pyxnat leaves out the one folder at the top
        with zipfile.ZipFile(out / identity / "FREESURFER6.zip") as archive:
            theirs = {one.filename: md5(archive.read(one)) for one in archive.infolist()}
        assert below == theirs
