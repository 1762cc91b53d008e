"""What is new, gone or renamed on the server shows: after its time by itself, at once after a refresh.
Trouble hides nothing.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Iterator

import pytest

from tests.support import read, until, walk
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from xnatfs.config import Limits
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.vfs import Vfs

NOW = Limits(cache_size=10**9, ttl=0.0, progress_deadline=20.0)
SUBJECTS = "/projects/SCALE/subjects"


@pytest.fixture
def scale() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=20, scans=2, files=2, file_size=100)) as server:
        yield server


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def refused(vfs: Vfs, path: str) -> int:
    with pytest.raises(OSError) as caught:
        vfs.entries(path)
    assert caught.value.errno is not None
    return caught.value.errno


# --- new, gone, renamed -------------------------------------------------------------------------------------


def test_new_gone_and_renamed_sessions_show_when_the_listing_has_aged(shelf: Shelf, compose: Compose) -> None:
    vfs = compose(shelf.server, limits=NOW).vfs
    assert names(vfs, "/projects/P/subjects/s") == ["S"]
    new = shelf.server.call(lambda: shelf.make.experiment(shelf.subject, "NEW"))
    assert names(vfs, "/projects/P/subjects/s") == ["NEW", "S"]

    def rename() -> None:
        new.label = "RENAMED"
        shelf.archive.touch(new)

    shelf.server.call(rename)
    assert names(vfs, "/projects/P/subjects/s") == ["RENAMED", "S"]
    assert (
        vfs.attributes(f"/projects/P/subjects/s/{new.id}").inode
        == vfs.attributes("/projects/P/subjects/s/RENAMED").inode
    )

    def remove() -> None:
        del shelf.archive.experiments[new.id]

    shelf.server.call(remove)
    assert names(vfs, "/projects/P/subjects/s") == ["S"]
    with pytest.raises(OSError) as caught:
        vfs.attributes("/projects/P/subjects/s/RENAMED")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("path", ["", "/projects/P", "/projects/P/subjects/s", "/archive/projects/P"])
def test_a_refresh_shows_new_things_at_once(shelf: Shelf, compose: Compose, path: str) -> None:
    mounted = compose(shelf.server)
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["S"]
    shelf.server.call(lambda: shelf.make.experiment(shelf.subject, "NEW"))
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["S"]
    mounted.refresh(path)
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["NEW", "S"]


def test_a_refresh_of_another_project_leaves_this_one(shelf: Shelf, compose: Compose) -> None:
    mounted = compose(shelf.server)
    names(mounted.vfs, "/projects/P/subjects/s")
    shelf.server.call(lambda: shelf.make.experiment(shelf.subject, "NEW"))
    mounted.refresh("/projects/OTHER")
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["S"]


def test_a_new_file_shows_with_the_stamp_it_moves(shelf: Shelf, compose: Compose) -> None:
    vfs = compose(shelf.server, limits=NOW).vfs
    shelf.put(shelf.make.entry("one", b"1"))
    assert names(vfs, FOLDER) == ["one"]

    def upload() -> None:
        shelf.resource.entries.append(shelf.make.entry("two", b"22"))
        shelf.archive.touch(shelf.session)

    shelf.server.call(upload)
    assert names(vfs, FOLDER) == ["one", "two"]
    assert read(vfs, f"{FOLDER}/two") == b"22"


def test_a_new_version_of_a_file_is_read_after_a_refresh(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"old"))
    mounted = compose(shelf.server)
    assert read(mounted.vfs, f"{FOLDER}/f") == b"old"
    version = mounted.vfs.open(f"{FOLDER}/f")
    shelf.server.call(lambda: shelf.resource.entries.__setitem__(0, shelf.make.entry("f", b"newer")))
    mounted.refresh()
    assert read(mounted.vfs, f"{FOLDER}/f") == b"newer"
    again = mounted.vfs.open(f"{FOLDER}/f")
    assert again.version != version.version  # the kernel drops its pages
    assert mounted.vfs.read(version.handle, 0, 10) == b"old"
    mounted.vfs.release(version.handle)
    mounted.vfs.release(again.handle)


def test_a_project_that_is_closed_to_the_user_disappears(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    vfs = compose(shelf.server, limits=NOW).vfs
    assert read(vfs, f"{FOLDER}/f") == b"data"
    shelf.server.call(lambda: shelf.project.members.clear())
    assert names(vfs, "/projects") == []
    with pytest.raises(OSError) as caught:
        read(vfs, f"{FOLDER}/f")
    assert caught.value.errno in (errno.ENOENT, errno.EACCES)


def test_nothing_new_costs_three_requests_a_project_when_it_has_aged(shelf: Shelf, compose: Compose) -> None:
    vfs = compose(shelf.server, limits=NOW).vfs
    names(vfs, "/projects/P/subjects")
    shelf.server.clear_log()
    vfs._root.lookup("projects").lookup("P").lookup("subjects").entries()  # type: ignore[union-attr]
    asked = [one.path for one in shelf.server.requests() if "/projects/P/" in one.path]
    assert sorted(set(asked)) == [
        f"/data/projects/P/{what}" for what in ("experiments", "resources", "subjects")
    ]


# --- trouble ------------------------------------------------------------------------------------------------


def test_a_project_that_cannot_be_listed_again_stays_as_it_was(shelf: Shelf, compose: Compose) -> None:
    mounted = compose(shelf.server, limits=NOW)
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["S"]
    shelf.switches.match, shelf.switches.fail_next = "/projects/P/", -1
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["S"]
    assert "503" in read(mounted.vfs, "/.xnatfs/errors.txt").decode()
    shelf.switches.fail_next = 0
    assert names(mounted.vfs, "/projects/P/subjects/s") == ["S"]


def test_while_the_server_is_away_what_is_known_is_shown(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    vfs = compose(shelf.server, limits=NOW).vfs
    before = [name for name, _ in walk(vfs, "/projects")]
    read(vfs, f"{FOLDER}/f")
    shelf.server.stop()
    assert [name for name, _ in walk(vfs, "/projects")] == before == [f"{FOLDER}/f"]
    assert read(vfs, f"{FOLDER}/f") == b"data"


@pytest.mark.parametrize("status", [500, 503])
def test_trouble_at_the_first_look_is_an_error_and_never_an_empty_folder(
    shelf: Shelf, compose: Compose, status: int
) -> None:
    vfs = compose(shelf.server).vfs
    names(vfs, "/projects")
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "/projects/P/", status, -1
    assert refused(vfs, "/projects/P/subjects") == errno.EIO
    shelf.switches.fail_next = 0
    assert names(vfs, "/projects/P/subjects") == ["s"]


def test_a_file_listing_in_trouble_is_an_error_and_never_an_empty_folder(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    vfs = compose(shelf.server).vfs
    names(vfs, f"{FOLDER}/..".removesuffix("/R/.."))
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "/files", 500, -1
    assert refused(vfs, FOLDER) == errno.EIO
    shelf.switches.fail_next = 0
    assert names(vfs, FOLDER) == ["f"]


def test_an_empty_file_listing_although_files_are_counted_is_an_error(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    vfs = compose(shelf.server).vfs
    shelf.switches.empty_file_lists = True
    assert refused(vfs, FOLDER) == errno.EIO
    shelf.switches.empty_file_lists = False
    vfs2 = compose(shelf.server, "other").vfs
    assert names(vfs2, FOLDER) == ["f"]


@pytest.mark.parametrize("counted", [True, False])
def test_an_empty_resource_is_an_empty_folder(shelf: Shelf, compose: Compose, counted: bool) -> None:
    shelf.resource.stats_known = counted
    vfs = compose(shelf.server).vfs
    assert names(vfs, FOLDER) == []
    shelf.server.clear_log()
    assert names(vfs, FOLDER) == []
    assert shelf.server.requests() == []


def test_a_resource_with_nothing_but_hostile_paths_is_an_empty_folder(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("../../etc/passwd", b"hostile"))
    mounted = compose(shelf.server)
    assert names(mounted.vfs, FOLDER) == []
    assert mounted.report()["oddities"] == 1


def test_a_server_without_projects_shows_none(compose: Compose) -> None:
    with DemoServer(build("empty")) as server:
        mounted = compose(server)
        assert names(mounted.vfs, "/projects") == []
        mounted.close()


# --- ahead --------------------------------------------------------------------------------------------------


def file_listings(server: DemoServer) -> int:
    """How often the files of a session were asked for, of several at once or not."""
    asked = [one.path.split("/")[3].split(",") for one in server.requests(r"/experiments/[^/]+/files\?")]
    return sum(len(sessions) for sessions in asked)


def look(vfs: Vfs, subject: str) -> None:
    vfs.entries(f"{SUBJECTS}/{subject}/{subject}_MR1/SCANS/1-TYPE1/DICOM")


def test_walking_over_sessions_fetches_the_next_listings_ahead(scale: DemoServer, compose: Compose) -> None:
    vfs = compose(scale).vfs
    subjects = names(vfs, SUBJECTS)
    for subject in subjects[:3]:
        look(vfs, subject)
    until(lambda: file_listings(scale) >= 7)
    asked = file_listings(scale)
    look(vfs, subjects[3])
    assert file_listings(scale) >= asked
    for subject in subjects[3:]:
        look(vfs, subject)
    assert (
        file_listings(scale) == len(subjects) + 1
    )  # and each only once, but for the one the form for several was tried with


def test_one_look_fetches_nothing_ahead(scale: DemoServer, compose: Compose) -> None:
    mounted = compose(scale, limits=LIMITS)
    names(mounted.vfs, SUBJECTS)
    for subject in ("sub00010", "sub00003", "sub00015"):
        look(mounted.vfs, subject)
    until(lambda: not mounted.listing_service.environment.calls._under_way)
    assert file_listings(scale) == 3


def test_a_whole_walk_costs_one_file_listing_a_session(scale: DemoServer, compose: Compose) -> None:
    vfs = compose(scale).vfs
    scale.clear_log()
    assert len(list(walk(vfs, "/projects/SCALE"))) == 20 * 2 * 2
    assert file_listings(scale) == 20 + 1  # one session twice: with it the form for several at once was tried
    assert len(scale.requests()) <= 7 + 16


def test_a_walk_where_nothing_is_granted_costs_one_more_a_session(
    scale: DemoServer, compose: Compose
) -> None:
    scale.switches.profile = "proven"
    vfs = compose(scale).vfs
    scale.clear_log()
    assert len(list(walk(vfs, "/projects/SCALE"))) == 20 * 2 * 2
    assert len(scale.requests()) <= 2 * 20 + 30


@pytest.mark.parametrize("change", ["overwritten", "larger", "removed"])
@pytest.mark.parametrize("path", [FOLDER, "/views/P/by-resource/R/S"])
def test_a_file_that_is_not_what_its_listing_says_is_listed_anew(
    shelf: Shelf, compose: Compose, path: str, change: str
) -> None:
    """Nothing else tells of it: the stamp of its session did not move (xnat-rest.md 5). It is asked for once,
    and others are left alone.
    """
    shelf.put(shelf.make.entry("f", b"the old bytes"))
    shelf.put(shelf.make.entry("g", b"other bytes"))
    mounted = compose(shelf.server, limits=Limits(cache_size=10**9, ttl=3600.0))
    vfs = mounted.vfs
    assert {name for name, _ in vfs.entries(path)} == {"f", "g"}
    new = {"overwritten": b"the new bytes", "larger": b"the new and larger bytes", "removed": b""}[change]

    def overwrite() -> None:
        entries = shelf.resource.entries
        (at,) = (number for number, entry in enumerate(entries) if entry.path == "f")
        if change == "removed":
            del entries[at]
        else:
            entries[at] = shelf.make.entry("f", new)

    shelf.server.call(overwrite)
    # A listing that was made just now is believed: a digest that is wrong on the server must not cost a
    # listing each time.
    with pytest.raises(OSError) as caught:
        vfs.open(f"{path}/f")
    assert caught.value.errno == errno.EIO
    mounted.listing_service.clock.advance(60.0)
    if change == "removed":
        with pytest.raises(OSError) as caught:
            vfs.open(f"{path}/f")
        assert caught.value.errno == errno.ENOENT
    else:
        assert read(vfs, f"{path}/f") == new
        assert vfs.attributes(f"{path}/f").size == len(new)
    assert read(vfs, f"{path}/g") == b"other bytes"
    assert len(shelf.server.requests(r"/files\?")) <= 4


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_a_published_snapshot_does_not_change(scale: DemoServer, compose: Compose, profile: str) -> None:
    """What is learnt of single sessions and subjects is kept beside it."""
    scale.switches.profile = profile
    mounted = compose(scale)
    listings = mounted.listing_service
    snapshot = listings.projects.get("SCALE")
    before = {key: copy.deepcopy(value) for key, value in vars(snapshot).items() if key != "memo"}
    for subject in snapshot.subjects:
        listings.sessions.of_subject("SCALE", subject)
    for identity in snapshot.experiments:
        listings.sessions.get("SCALE", identity)
    look(mounted.vfs, names(mounted.vfs, SUBJECTS)[0])
    assert listings.projects.get("SCALE") is snapshot
    after = {key: value for key, value in vars(snapshot).items() if key != "memo"}
    for order in ("order", "subject_order"):
        before[order], after[order] = before[order].ids, after[order].ids
    assert after == before
    # And nothing of it is asked for twice.
    asked = len(scale.requests("/subjects/"))
    for subject in snapshot.subjects:
        listings.sessions.of_subject("SCALE", subject)
    assert len(scale.requests("/subjects/")) == asked
