"""Bulk listings that keep something back are found out, and what they hide is shown all the same."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.demo.replies import HERE, MISSING, recorded
from tests.demo.replies.dataset import load
from tests.support import walk
from tests.vfs.conftest import Compose, Shelf
from xnatfs.core import Core
from xnatfs.demo.data.truth import files
from xnatfs.demo.faults import PROFILES, Switches
from xnatfs.demo.server import DemoServer
from xnatfs.server import form_requests, resultset
from xnatfs.server.resultset import Row

Change = Callable[[list[Row]], list[Row]]


def blanked(*words: str) -> Change:
    """Columns with one of these words in their names come back, but blank."""

    def change(rows: list[Row]) -> list[Row]:
        return [
            {key: "" if any(word in key for word in words) else value for key, value in row.items()}
            for row in rows
        ]

    return change


def dropped(*words: str) -> Change:
    """Columns with one of these words in their names do not come back at all."""

    def change(rows: list[Row]) -> list[Row]:
        return [
            {key: value for key, value in row.items() if not any(word in key for word in words)}
            for row in rows
        ]

    return change


def same_files(mounted: Core, lab: DemoServer, project: str) -> None:
    """Every file once. (Where ids are not told, of two resources with one label the second has another
    spelling.)
    """
    expected = Counter(
        (one.resource_id, one.path) for one in files(lab.archive, project, "demo") if not one.hostile
    )
    found: Counter[tuple[int, str]] = Counter()
    for path, _ in walk(mounted.vfs, f"/projects/{project}"):
        number, uri = (
            mounted.vfs.xattr(path, f"user.xnat.{name}").decode() for name in ("resource_id", "uri")
        )
        found[int(number), uri.split(f"/resources/{number}/files/", 1)[1]] += 1
    assert found == expected


@pytest.mark.parametrize(
    "change",
    [
        blanked("experimentdata/resources/resource"),
        blanked("xnat_abstractresource_id"),
        blanked("/in/file"),
        blanked("/out/file"),
        dropped("xnat_abstractresource_id"),
        dropped("reconstructedimagedata/id"),
        dropped("/in/file"),
        dropped("imagescandata/file"),
        dropped("file_count", "file_size"),
    ],
    ids=[
        "session resource labels blank",
        "ids blank",
        "inputs blank",
        "outputs blank",
        "ids dropped",
        "reconstruction ids dropped",
        "inputs dropped",
        "scan files dropped",
        "counts dropped",
    ],
)
@pytest.mark.parametrize("project", ["ALFA", "MESSY"])
def test_nothing_is_missing_where_columns_are(
    lab: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch, change: Change, project: str
) -> None:
    def rows_of(response: Any) -> list[Row]:
        rows = resultset.rows_of(response)
        return change(rows) if "columns=" in response.url else rows

    monkeypatch.setattr(form_requests, "rows_of", rows_of)
    same_files(compose(lab), lab, project)


@pytest.mark.parametrize("form", ["imageAssessorData", "reconstructedImageData", "imageScanData"])
@pytest.mark.parametrize("status", [404, 500, 400])
def test_nothing_is_missing_where_a_form_is_refused(
    lab: DemoServer, compose: Compose, form: str, status: int
) -> None:
    lab.switches.match = f"projects/ALFA/experiments.*{form}"
    lab.switches.fail_status, lab.switches.fail_next = status, -1
    same_files(compose(lab), lab, "ALFA")


def test_an_assessors_own_files_do_not_refuse_the_form_for_several_sessions(
    shelf: Shelf, compose: Compose
) -> None:
    """Their URIs name the assessor as an experiment, without its session (xnat-rest.md 2.4)."""

    def prepare() -> None:
        for number in range(12):
            session = shelf.make.experiment(shelf.subject, f"e{number:02}", date="2024-01-08")
            shelf.make.resource(shelf.make.scan(session, "1", "T1"), "NIFTI", {"t1.nii": b"image"})
            shelf.make.resource(shelf.make.assessor(session, f"a{number}"), "OWN", {"own.txt": b"own"})

    shelf.server.call(prepare)
    core = compose(shelf.server)
    assert sum(path.endswith("own.txt") for path, _ in walk(core.vfs, "/projects/P")) == 12
    assert core.listing_service.refused_forms == []
    assert shelf.server.requests(r"^GET /data/experiments/[^/]*,[^/]*/files")


@pytest.mark.skipif(not HERE.is_dir(), reason=MISSING)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_xnat_itself_answers_raises_no_doubt(compose: Compose, profile: str) -> None:
    """The data set that XNAT's own code was recorded on: odd as it is, its listings agree with each other."""
    with DemoServer(load(recorded("dataset")), Switches(profile=profile, hang_seconds=0.3)) as server:
        core = compose(server, user="admin")
        found = list(walk_on(core, "/projects"))
        assert len(found) > 80
        assert core.diagnostics.oddities() == []
        if profile != "proven":
            assert core.listing_service.refused_forms == []


def walk_on(core: Core, top: str) -> Iterator[str]:
    """Every file below a folder; what cannot be listed is left out."""
    todo = [top]
    while todo:
        folder = todo.pop()
        with contextlib.suppress(OSError):
            for name, attributes in core.vfs.entries(folder):
                if attributes.mode & 0o040000:
                    todo.append(f"{folder}/{name}")
                else:
                    yield f"{folder}/{name}"
