"""A session in quarantine is in every listing, and closed by itself to who may not activate it: it holds
nothing else up.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.support import read
from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.core import Core
from xnatfs.demo.data import freesurfer
from xnatfs.vfs import Vfs

NOW = dataclasses.replace(LIMITS, ttl=0.0)


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


@pytest.fixture(params=["blank", "told"])
def mounted(shelf: Shelf, compose: Compose, request: pytest.FixtureRequest) -> Core:
    """As a collaborator sees a project with results at a scan of each of three sessions; `blank`: none has
    resources itself.
    """

    def prepare() -> None:
        shelf.make.user("kim")
        shelf.project.collaborators.add("kim")
        if request.param == "blank":
            shelf.session.resources.clear()
        for label in ("one", "away", "two"):
            session = shelf.make.experiment(shelf.subject, label, date="2024-01-08")
            scan = shelf.make.scan(session, "1", "T1")
            shelf.make.resource(
                scan, "FREESURFER6", {"stats/aseg.stats": freesurfer.aseg_stats(session.id, "6", "x")}
            )
            session.status = "quarantine" if label == "away" else "active"

    shelf.server.call(prepare)
    return compose(shelf.server, user="kim", limits=NOW)


def test_the_others_have_their_table(mounted: Core) -> None:
    text = read(mounted.vfs, "/tables/P/freesurfer6/aseg.csv").decode()
    assert "one" in text and "two" in text


def test_tables_are_listed(mounted: Core) -> None:
    assert "freesurfer6" in names(mounted.vfs, "/tables/P")


def test_the_scans_are_listed(mounted: Core) -> None:
    text = read(mounted.vfs, "/tables/P/scans.csv").decode()
    assert "one" in text and "two" in text


def test_views_are_there(mounted: Core) -> None:
    assert names(mounted.vfs, "/views/P/by-scan-type") == ["T1"]
    assert names(mounted.vfs, "/views/P/by-scan-resource") == ["FREESURFER6"]
    names(mounted.vfs, "/views/P/by-resource")
    names(mounted.vfs, "/views/P/by-assessor-resource")
