"""What proves no absence takes nothing away, and what is derived from two listings is of one moment."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from tests.support import read, until
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from xnatfs.demo.data import freesurfer
from xnatfs.demo.model import Experiment
from xnatfs.errors import Failure
from xnatfs.vfs import Vfs

NOW = dataclasses.replace(LIMITS, ttl=0.0)


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def test_a_removed_resource_is_gone_though_its_files_are_still_held(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    shelf.server.call(lambda: shelf.make.resource(shelf.session, "KEPT", [shelf.make.entry("g", b"more")]))
    vfs = compose(shelf.server, limits=NOW).vfs
    above = FOLDER.rpartition("/")[0]
    assert names(vfs, FOLDER) == ["f"]
    assert names(vfs, above) == ["KEPT", "R"]

    def remove() -> None:
        shelf.session.resources.remove(shelf.resource)
        shelf.archive.touch(shelf.session)

    shelf.server.call(remove)
    assert names(vfs, above) == ["KEPT"]


def test_a_view_has_what_is_new_though_an_older_outline_is_held(shelf: Shelf, compose: Compose) -> None:
    """The view is kept with the project: what it lacked when it was made it would lack until the project
    changes again.
    """
    mounted = compose(shelf.server)
    shelf.put(shelf.make.entry("f", b"data"))
    mounted.builder.summaries.get("P")  # as a table had it made
    mounted.listing_service.projects.snapshots.expire("P")

    def change() -> None:
        shelf.make.resource(shelf.session, "NEW", [shelf.make.entry("g", b"more")])
        shelf.archive.touch(shelf.session)

    shelf.server.call(change)
    assert sorted(names(mounted.vfs, "/views/P/by-resource")) == ["NEW", "R"]


def test_a_session_that_was_removed_costs_its_rows_and_not_the_table(shelf: Shelf, compose: Compose) -> None:
    mounted = compose(shelf.server)
    other = shelf.server.call(lambda: shelf.make.experiment(shelf.subject, "OTHER"))
    mounted.listing_service.projects.get("P")
    mounted.builder.summaries.get("P")

    def remove() -> None:
        del shelf.archive.experiments[other.id]

    shelf.server.call(remove)
    mounted.listing_service.projects.snapshots.expire("P")
    mounted.listing_service.projects.get("P")
    assert read(mounted.vfs, "/tables/P/scans.csv").startswith(b"ID,")


def test_a_zip_that_is_not_found_is_no_missing_file(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("50%", b"data"))
    vfs = compose(shelf.server).vfs
    assert names(vfs, FOLDER) == ["50%"]
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = (
        "/files(/|.*format=zip)",
        404,
        -1,
    )
    with pytest.raises(OSError) as caught:
        read(vfs, f"{FOLDER}/50%")
    assert caught.value.errno == errno.EIO


def test_what_is_here_of_a_large_file_stays_when_the_server_says_404(shelf: Shelf, compose: Compose) -> None:
    data = bytes(range(256)) * (64 * 2**10)
    shelf.put(shelf.make.entry("large", data))
    mounted = compose(shelf.server)
    opened = mounted.vfs.open(f"{FOLDER}/large")
    assert mounted.vfs.read(opened.handle, 0, 4096) == data[:4096]
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "/files/large", 404, -1
    with pytest.raises(Failure):
        mounted.vfs.read(opened.handle, 12 * 2**20, 4096)
    mounted.vfs.release(opened.handle)
    until(lambda: not mounted.content_manager._ranged)  # what was under way has ended
    again = mounted.vfs.open(f"{FOLDER}/large")
    assert mounted.vfs.read(again.handle, 0, 4096) == data[:4096]
    mounted.vfs.release(again.handle)


@pytest.mark.parametrize("told", [True, False])
def test_resources_of_a_project_stay_while_their_query_fails(
    shelf: Shelf, compose: Compose, told: bool
) -> None:
    """Their listing is 200 with nothing, and the list of projects may not tell them just now: by number they
    are 500.
    """
    shelf.server.call(lambda: shelf.make.resource(shelf.project, "DOCS", [shelf.make.entry("d", b"doc")]))
    mounted = compose(shelf.server, limits=NOW)
    assert "resources" in names(mounted.vfs, "/projects/P")
    if not told:
        mounted.listing_service.environment.listings.capabilities.refuse("columns of projects")
    shelf.switches.failing_query = "/projects/P/resources"
    assert "resources" in names(mounted.vfs, "/projects/P")
    shelf.switches.failing_query = ""
    assert names(mounted.vfs, "/projects/P/resources") == ["DOCS"]
    shelf.server.call(shelf.project.resources.clear)
    assert "resources" not in names(mounted.vfs, "/projects/P")


def test_an_assessor_of_another_project_makes_no_form_refused(shelf: Shelf, compose: Compose) -> None:
    """A session shared into OTHER, its assessor not; who reads both projects sees the assessor's resource
    below the session.
    """

    def share() -> None:
        shelf.make.project("OTHER", "OTHER", members=["demo"])
        assessor = shelf.make.assessor(shelf.session, "A")
        shelf.make.resource(assessor.out_resources, "OUT", [shelf.make.entry("a", b"a")])
        shelf.subject.shares["OTHER"] = shelf.session.shares["OTHER"] = None

    shelf.server.call(share)
    mounted = compose(shelf.server)
    assert names(mounted.vfs, "/projects/OTHER/subjects/s/S") == ["RESOURCES"]
    assert mounted.listing_service.refused_forms == []


def test_an_item_that_lacks_what_was_known_is_not_believed(shelf: Shelf, compose: Compose) -> None:
    """While a query fails, a subject's item comes with assessors but without their resources (xnat-rest.md
    13).
    """

    def prepare() -> None:
        shelf.make.resource(
            shelf.make.scan(shelf.session, "1", "T1"), "DICOM", [shelf.make.entry("1.dcm", b"one")]
        )
        shelf.make.resource(
            shelf.make.assessor(shelf.session, "A").out_resources, "OUT", [shelf.make.entry("a", b"a")]
        )

    shelf.server.call(prepare)
    shelf.switches.profile = "proven"
    mounted = compose(shelf.server)
    place = "/projects/P/subjects/s/S/ASSESSORS/A"
    assert names(mounted.vfs, place) == ["OUT"]
    assert mounted.listing_service.sessions.loader.items_proven
    mounted.refresh()
    shelf.switches.failing_table = "img_assessor_out_resource"
    try:
        during = names(mounted.vfs, place)
    except OSError:
        during = ["OUT"]
    assert during == ["OUT"]
    shelf.switches.failing_table = ""
    mounted.vfs.forget()
    assert names(mounted.vfs, place) == ["OUT"]


def test_a_session_removed_while_a_table_is_made_costs_its_rows(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build takes minutes; the project is listed anew meanwhile, and has a session less than the build goes
    through.
    """

    def prepare() -> Experiment:
        shelf.make.resource(
            shelf.session, "FREESURFER6", {"stats/aseg.stats": freesurfer.aseg_stats("x", "6", "x")}
        )
        return shelf.make.experiment(shelf.subject, "OTHER")

    other = shelf.server.call(prepare)
    mounted = compose(shelf.server)
    summary = mounted.builder.summaries.get("P")
    shelf.server.call(lambda: shelf.archive.experiments.pop(other.id))
    mounted.listing_service.projects.get("P")
    monkeypatch.setattr(mounted.builder.summaries, "get", lambda _: summary)
    for table in ("freesurfer6/aseg", "scans", "scandates"):
        assert read(mounted.vfs, f"/tables/P/{table}.csv").startswith(b"ID,")


def test_a_resource_of_two_assessors_is_below_both_after_a_change_too(shelf: Shelf, compose: Compose) -> None:
    """One number mapped to two owners (xnat-rest.md 12): a session that is asked for by itself has it where
    the bulk listing had.
    """

    def prepare() -> None:
        one, two = shelf.make.assessor(shelf.session, "A"), shelf.make.assessor(shelf.session, "B")
        two.out_resources.append(shelf.make.resource(one.out_resources, "OUT", [shelf.make.entry("a", b"a")]))

    shelf.server.call(prepare)
    vfs = compose(shelf.server, limits=NOW).vfs
    above = "/projects/P/subjects/s/S/ASSESSORS"
    assert [names(vfs, f"{above}/{one}") for one in "AB"] == [["OUT"], ["OUT"]]
    shelf.server.call(lambda: shelf.archive.touch(shelf.session))
    assert [names(vfs, f"{above}/{one}") for one in "AB"] == [["OUT"], ["OUT"]]
    assert [read(vfs, f"{above}/{one}/OUT/a") for one in "AB"] == [b"a", b"a"]


def test_a_view_made_of_what_was_shown_as_it_was_is_made_again(shelf: Shelf, compose: Compose) -> None:
    """Its session changed, and could not be asked for at that moment: the view must not stay so until
    something else changes.
    """
    shelf.server.call(
        lambda: shelf.make.resource(
            shelf.make.scan(shelf.session, "1", "T1"), "R", [shelf.make.entry("a", b"a")]
        )
    )
    mounted = compose(shelf.server, limits=dataclasses.replace(LIMITS, ttl=0.0))
    types = "/views/P/by-scan-type"
    assert "T2" not in [name for name, _ in mounted.vfs.entries(types)]

    def scan() -> None:
        shelf.make.resource(shelf.make.scan(shelf.session, "2", "T2"), "R", [shelf.make.entry("b", b"b")])
        shelf.archive.touch(shelf.session)

    shelf.server.call(scan)
    shelf.switches.update(
        {"match": "/experiments/[^/]+/(resources|scans)", "fail_status": 500, "fail_next": -1}
    )
    assert "T1" in [name for name, _ in mounted.vfs.entries(types)]
    shelf.switches.fail_next = 0
    assert "T2" in [name for name, _ in mounted.vfs.entries(types)]


def test_own_resources_that_cannot_be_proven_hold_nothing_else_up(shelf: Shelf, compose: Compose) -> None:
    shelf.server.call(lambda: shelf.make.resource(shelf.project, "PROTOCOL", [shelf.make.entry("p", b"p")]))
    mounted = compose(shelf.server, limits=dataclasses.replace(LIMITS, ttl=0.0))
    assert [name for name, _ in mounted.vfs.entries("/projects/P/resources")] == ["PROTOCOL"]
    shelf.switches.failing_query = "/projects/P/resources"
    shelf.server.call(lambda: shelf.make.experiment(shelf.subject, "NEW"))
    assert [name for name, _ in mounted.vfs.entries("/projects/P/subjects/s")] == ["NEW", "S"]
    assert [name for name, _ in mounted.vfs.entries("/projects/P/resources")] == ["PROTOCOL"]
