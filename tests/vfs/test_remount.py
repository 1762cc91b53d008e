"""A remount starts warm, an offline mount serves what is kept, and what changed in between shows: listings
outlive the mount.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.support import md5, read, until, walk
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.listing import service

NOW = Limits(cache_size=10**9, ttl=0.0, progress_deadline=20.0)
SCAN = "/projects/SCALE/subjects/sub00003/sub00003_MR1/SCANS/1-TYPE1/DICOM"


@pytest.fixture
def scale() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=12, scans=2, files=3, file_size=1000)) as server:
        yield server


def content(mounted: Core, path: str) -> str:
    """The MD5 of a file, or why it cannot be read (the lab has such files)."""
    try:
        return md5(read(mounted.vfs, path))
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def everything(mounted: Core, top: str = "/projects") -> dict[str, tuple[float, str]]:
    return {path: (found.mtime, content(mounted, path)) for path, found in walk(mounted.vfs, top)}


def test_databases_of_another_version_are_started_anew_and_it_is_said(
    scale: DemoServer, compose: Compose
) -> None:
    """What was downloaded stays; listings and rows are asked for again."""
    first = compose(scale)
    path = f"{SCAN}/0001.dcm"
    data = read(first.vfs, path)
    read(first.vfs, "/tables/SCALE/sessions.csv")
    folder, state = first.cache.directory, first.settings.state_dir
    first.close()
    databases = [*folder.rglob("*.sqlite"), *state.rglob("*.sqlite")]
    assert {one.name for one in databases} == {
        "index.sqlite",
        "learnt.sqlite",
        "listings.sqlite",
        "measurements.sqlite",
    }
    for database in databases:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA user_version = 99")
    scale.clear_log()
    second = compose(scale)
    told = " ".join(second.diagnostics.oddities())
    assert all(f"{database} w" in told for database in databases), told
    assert read(second.vfs, path) == data
    assert not scale.requests(r"^GET .*/files/.*dcm"), "what was downloaded was lost"
    second.close()
    assert not compose(scale).diagnostics.oddities()


# --- warm ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize(
    "path", [f"{SCAN}/0001.dcm", "/archive/projects/SCALE/experiments/sub00003_MR1/SCANS/1/DICOM/0001.dcm"]
)
def test_a_remount_costs_two_requests_before_the_first_cached_byte(
    scale: DemoServer, compose: Compose, profile: str, path: str
) -> None:
    scale.switches.profile = profile
    first = compose(scale)
    data = read(first.vfs, path)
    first.close()
    scale.clear_log()
    second = compose(scale)
    assert read(second.vfs, path) == data
    # A server that does not tell the stamps beside the experiments is asked for those of the subjects.
    stamps = [] if profile == "full" else ["/data/projects/SCALE/subjects"]
    assert [one.path for one in scale.requests()] == [
        "/data/auth",
        "/data/projects/SCALE/experiments",
        *stamps,
    ]


def test_after_a_remount_the_rest_is_asked_for_in_a_moment(
    scale: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SOON", 0.2)
    first = compose(scale)
    read(first.vfs, f"{SCAN}/0001.dcm")
    first.close()
    second = compose(scale)
    scale.clear_log()
    read(second.vfs, f"{SCAN}/0001.dcm")
    until(lambda: scale.requests(r"/data/projects/SCALE/subjects") and scale.requests(r"/data/projects\?"))


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("project", ["ALFA", "MESSY"])
def test_a_walk_after_a_remount_lists_no_files_again_and_is_the_same(
    lab: DemoServer, compose: Compose, profile: str, project: str
) -> None:
    lab.switches.profile = profile
    first = compose(lab)
    tops = f"/projects/{project}", f"/archive/projects/{project}"
    before = [list(walk(first.vfs, top)) for top in tops]
    first.close()
    lab.clear_log()
    second = compose(lab)
    assert [list(walk(second.vfs, top)) for top in tops] == before
    # Of subjects and projects, and of sessions whose subject is not shared along, where the server may tell
    # no time of change.
    without = {
        one.id for one in second.listing_service.projects.get(project).experiments.values() if not one.changed
    }
    assert not without or profile == "proven"
    stampless = [
        one
        for one in lab.requests(r"/files\?")
        if "/experiments/" not in one.path or one.path.split("/")[3] in without
    ]
    assert len(lab.requests(r"/files\?")) == len(stampless)


def test_what_changed_between_two_mounts_shows_at_once(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("kept", b"kept"))
    shelf.put(shelf.make.entry("changed", b"old"))
    shelf.put(shelf.make.entry("gone", b"gone"))
    first = compose(shelf.server)
    assert {path.rsplit("/", 1)[1] for path in everything(first)} == {"kept", "changed", "gone"}
    first.close()

    def change() -> None:
        entries = shelf.resource.entries
        entries[1] = shelf.make.entry("changed", b"new")
        del entries[2]
        entries.append(shelf.make.entry("added", b"added"))
        shelf.make.experiment(shelf.subject, "NEW")
        shelf.archive.touch(shelf.session)

    shelf.server.call(change)
    second = compose(shelf.server)
    assert {path.rsplit("/", 1)[1]: found[1] for path, found in everything(second).items()} == {
        "kept": md5(b"kept"),
        "changed": md5(b"new"),
        "added": md5(b"added"),
    }
    assert [name for name, _ in second.vfs.entries("/projects/P/subjects/s")] == ["NEW", "S"]


def test_what_the_user_may_not_see_any_more_is_not_served_from_the_cache(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    first = compose(shelf.server)
    read(first.vfs, f"{FOLDER}/f")
    first.close()
    shelf.server.call(lambda: shelf.project.members.clear())
    second = compose(shelf.server)
    with pytest.raises(OSError) as caught:
        read(second.vfs, f"{FOLDER}/f")
    assert caught.value.errno in (errno.ENOENT, errno.EACCES)
    third = compose(shelf.server)  # nor is it remembered
    with pytest.raises(OSError):
        third.vfs.entries(FOLDER)


def test_a_session_that_is_gone_is_gone_after_a_remount_although_its_files_are_cached(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    first = compose(shelf.server)
    read(first.vfs, f"{FOLDER}/f")
    first.close()

    def remove() -> None:
        del shelf.archive.experiments[shelf.session.id]

    shelf.server.call(remove)
    with pytest.raises(OSError) as caught:
        read(compose(shelf.server).vfs, f"{FOLDER}/f")
    assert caught.value.errno == errno.ENOENT


def test_damaged_stored_listings_are_started_anew(scale: DemoServer, compose: Compose) -> None:
    first = compose(scale)
    data = read(first.vfs, f"{SCAN}/0001.dcm")
    store = next(first.settings.cache_dir.glob("*/listings.sqlite"))
    first.close()
    store.write_bytes(b"no database" * 1000)
    assert read(compose(scale).vfs, f"{SCAN}/0001.dcm") == data


# --- offline ------------------------------------------------------------------------------------------------


def test_offline_everything_cached_is_served_with_the_server_gone(
    scale: DemoServer, compose: Compose
) -> None:
    first = compose(scale)
    walked = [path for path, _ in walk(first.vfs, "/projects")]
    data = read(first.vfs, f"{SCAN}/0001.dcm")
    stamps = dict(walk(first.vfs, "/projects"))
    first.close()
    scale.stop()
    mounted = compose(scale, offline=True)
    assert mounted.connection.user == "demo"
    assert [path for path, _ in walk(mounted.vfs, "/projects")] == walked
    assert dict(walk(mounted.vfs, "/projects")) == stamps
    assert read(mounted.vfs, f"{SCAN}/0001.dcm") == data
    assert mounted.connection.requests == 0
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        read(mounted.vfs, SCAN.replace("1-TYPE1", "2-TYPE2") + "/0001.dcm")
    assert caught.value.errno == errno.EHOSTDOWN
    assert time.monotonic() - began < 5
    assert mounted.report()["offline"] is True


def test_offline_works_where_listings_have_aged(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    first = compose(shelf.server)
    read(first.vfs, f"{FOLDER}/f")
    first.close()
    shelf.server.stop()
    mounted = compose(shelf.server, limits=NOW, offline=True)
    for _ in range(2):
        assert read(mounted.vfs, f"{FOLDER}/f") == b"data"


def test_offline_without_anything_kept_is_refused_with_a_sentence(shelf: Shelf, compose: Compose) -> None:
    with pytest.raises(Failure, match="mount it once while it is reachable") as caught:
        compose(shelf.server, offline=True)
    assert caught.value.cause is Cause.OFFLINE


def test_a_mount_that_loses_its_server_shows_what_an_earlier_mount_listed(
    scale: DemoServer, compose: Compose
) -> None:
    first = compose(scale)
    data = read(first.vfs, f"{SCAN}/0001.dcm")
    first.close()
    second = compose(scale)
    scale.stop()
    assert read(second.vfs, f"{SCAN}/0001.dcm") == data


# --- what changed, and only that ----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_one_changed_session_costs_a_handful_of_requests(
    scale: DemoServer, compose: Compose, profile: str
) -> None:
    scale.switches.profile = profile
    mounted = compose(scale, limits=Limits(cache_size=10**9, ttl=1.0, progress_deadline=20.0))
    before = everything(mounted)
    session = next(one for one in scale.archive.experiments.values() if one.label == "sub00005_MR1")
    scale.call(lambda: scale.archive.touch(session))
    time.sleep(1.1)
    scale.clear_log()
    mounted.listing_service.sessions.get("SCALE", session.id)
    asked = [one for one in scale.requests() if one.path != "/data/projects"]
    assert len(asked) <= 6, [one.path for one in asked]
    assert everything(mounted) == before
    assert everything(compose(scale, "fresh")) == before


def test_after_a_change_assessors_scans_and_resources_of_all_sessions_are_as_in_a_fresh_mount(
    lab: DemoServer, compose: Compose
) -> None:
    mounted = compose(lab, limits=Limits(cache_size=10**9, ttl=0.5, progress_deadline=20.0))
    before = sorted(path for path, _ in walk(mounted.vfs, "/projects/ALFA"))
    sessions = [one for one in lab.archive.experiments.values() if one.label in ("sub001_MR1", "007_MR2")]
    for session in sessions:
        lab.call(lambda session=session: lab.archive.touch(session))
    time.sleep(0.6)
    assert sorted(path for path, _ in walk(mounted.vfs, "/projects/ALFA")) == before


def test_a_file_listing_is_asked_for_again_after_some_hours_although_no_stamp_moved(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("f", b"old"))
    vfs = compose(shelf.server, limits=dataclasses.replace(NOW, relist_after=1.0)).vfs
    assert read(vfs, f"{FOLDER}/f") == b"old"
    shelf.server.call(lambda: shelf.resource.entries.__setitem__(0, shelf.make.entry("f", b"new")))
    assert read(vfs, f"{FOLDER}/f") == b"old"  # nothing told that it changed: the documented limit
    time.sleep(1.1)
    assert read(vfs, f"{FOLDER}/f") == b"new"


# --- times of change ----------------------------------------------------------------------------------------


def test_the_mtime_of_a_file_is_its_sessions_date_until_it_changes_and_then_the_date_of_the_change(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("f", b"old"))
    shelf.put(shelf.make.entry("same", b"same"))
    mounted = compose(shelf.server, limits=NOW)
    inserted = mounted.vfs.attributes(f"{FOLDER}/f").mtime
    assert inserted == mounted.vfs.attributes("/projects/P/subjects/s/S").mtime

    def overwrite() -> None:
        shelf.resource.entries[0] = shelf.make.entry("f", b"new")
        shelf.archive.clock += timedelta(days=3)
        shelf.archive.touch(shelf.session)

    shelf.server.call(overwrite)
    changed = mounted.vfs.attributes(f"{FOLDER}/f").mtime
    assert changed > inserted
    assert mounted.vfs.attributes(f"{FOLDER}/same").mtime == inserted
    mounted.close()
    shutil.rmtree(mounted.settings.cache_dir)  # the history lies in the state directory
    again = compose(shelf.server)
    assert again.vfs.attributes(f"{FOLDER}/f").mtime == changed
    assert again.vfs.attributes(f"{FOLDER}/same").mtime == inserted
