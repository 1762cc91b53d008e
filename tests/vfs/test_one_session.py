"""One session that the server will not give harms itself only: in projects, views, lists and tables alike."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
from pathlib import Path

import pytest

from tests.support import read
from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.core import Core
from xnatfs.demo.data import freesurfer
from xnatfs.vfs import Vfs

NOW = dataclasses.replace(LIMITS, ttl=0.0)
LABELS = ("one", "bad", "two")


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def tree(core: Core, top: str) -> tuple[set[str], dict[str, int]]:
    """The files below a folder, and the errors by path."""
    files: set[str] = set()
    errors: dict[str, int] = {}
    todo = [top]
    while todo:
        folder = todo.pop()
        try:
            entries = core.vfs.entries(folder)
        except OSError as error:
            errors[folder] = error.errno or 0
            continue
        for name, attributes in entries:
            (todo.append if attributes.mode & 0o040000 else files.add)(f"{folder}/{name}")
    return files, errors


@pytest.fixture(params=["full", "proven"])
def core(shelf: Shelf, compose: Compose, request: pytest.FixtureRequest, tmp_path: Path) -> Core:
    shelf.switches.profile = request.param

    def prepare() -> None:
        for label in LABELS:
            session = shelf.make.experiment(shelf.subject, label, date="2024-01-08")
            scan = shelf.make.scan(session, "1", "T1")
            shelf.make.resource(scan, "NIFTI", {"t1.nii": b"image"})
            stats = {"stats/aseg.stats": freesurfer.aseg_stats(session.id, "7", label)}
            shelf.make.resource(session, "FREESURFER7", stats)

    shelf.server.call(prepare)
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("\n".join(LABELS))
    return compose(shelf.server, lists=(chosen,))


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize("place", ["projects", "views", "archive", "lists"])
def test_a_session_that_is_refused_harms_nothing_else(
    shelf: Shelf, core: Core, status: int, place: str
) -> None:
    bad = next(one for one in shelf.archive.experiments.values() if one.label == "bad")
    shelf.switches.match, shelf.switches.fail_status = f"/experiments/{bad.id}(/|\\?)", status
    shelf.switches.fail_next = -1
    top = {"projects": "/projects/P", "views": "/views/P", "archive": "/archive/projects/P"}.get(
        place, "/lists/chosen"
    )
    for _ in range(2):  # and when all of it is asked for again
        files, errors = tree(core, top)
        for label in ("one", "two"):
            there = {path for path in files if f"/{label}/" in path or f"{label}" in path.rsplit("/", 1)[-1]}
            assert any(path.endswith(".nii") for path in there), (label, sorted(files), errors)
            assert any(path.endswith("aseg.stats") for path in there) or place in ("views", "lists")
        assert {path for path in errors if "/one" in path or "/two" in path} == set()
        assert set(errors.values()) <= {errno.EIO, errno.EACCES}
        core.listing_service.clock.advance(LIMITS.ttl + 100.0)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_its_table_has_the_others_and_a_problem(shelf: Shelf, core: Core, status: int) -> None:
    bad = next(one for one in shelf.archive.experiments.values() if one.label == "bad")
    shelf.switches.match, shelf.switches.fail_status = f"/experiments/{bad.id}(/|\\?)", status
    shelf.switches.fail_next = -1
    rows = list(csv.DictReader(io.StringIO(read(core.vfs, "/tables/P/freesurfer7/aseg.csv").decode())))
    assert {row["label"] for row in rows} == {"one", "two"}
    problems = read(core.vfs, "/tables/P/freesurfer7/aseg.problems.csv").decode()
    assert "bad" in problems


def test_a_quarantined_session_is_shown_as_far_as_the_server_lets_it(shelf: Shelf, compose: Compose) -> None:
    """Item and lists are refused; resources by their number are not (xnat-rest.md 12)."""

    def prepare() -> None:
        shelf.make.user("kim")
        shelf.project.collaborators.add("kim")
        for label in LABELS:
            session = shelf.make.experiment(shelf.subject, label, date="2024-01-08")
            scan = shelf.make.scan(session, "1", "T1")
            shelf.make.resource(scan, "NIFTI", {"t1.nii": b"image"})
            session.status = "quarantine" if label == "bad" else "active"

    shelf.server.call(prepare)
    core = compose(shelf.server, user="kim", limits=NOW)
    files, errors = tree(core, "/projects/P")
    for label in LABELS:
        path = f"/projects/P/subjects/s/{label}/SCANS/1-T1/NIFTI/t1.nii"
        assert path in files or any(path.startswith(f"{one}/") for one in errors), (label, errors)
        if label != "bad":
            assert read(core.vfs, path) == b"image"
    assert not {path for path in errors if "/bad" not in path}
