"""Changes, removals, lost rights and a server that is away, without a mount."""

from __future__ import annotations

import dataclasses
import errno
import threading

import pytest

from tests.semantics.conftest import MIB, refused
from tests.semantics.quoting import rule
from tests.support import read, until, walk
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from tests.vfs.test_stamps import STATES, Study, seen, volumes
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.model import BytesContent, ComputedContent
from xnatfs.tables.engine import materialize

FILE = f"{FOLDER}/file"
NOW = dataclasses.replace(LIMITS, ttl=0.0)


# --- changes ------------------------------------------------------------------------------------------------


@rule(
    "4.1",
    "Data that is new, changed or removed on the server shows by itself within 60 s: the mount checks the "
    "server at most every 20 s, and the kernel keeps names and attributes for 40 s, or longer while the "
    "mount checks in its place.",
)
def test_the_daemon_s_seconds_and_the_kernel_s(shelf: Shelf, compose: Compose) -> None:
    limits = Limits()
    assert (limits.ttl, limits.kernel_ttl) == (20.0, 40.0)
    shelf.put(shelf.make.entry("file", b"content"))
    vfs = compose(shelf.server, limits=NOW).vfs
    assert [name for name, _ in vfs.entries(FOLDER)] == ["file"]

    def change() -> None:
        shelf.resource.entries[0] = shelf.make.entry("new", b"new")
        shelf.archive.touch(shelf.session)

    shelf.server.call(change)
    assert [name for name, _ in vfs.entries(FOLDER)] == ["new"]
    assert refused(lambda: vfs.attributes(FILE)) == errno.ENOENT


@rule(
    "4.6",
    "A file that was overwritten by one of equal size moves no date on the server. It shows within four "
    "hours, also in a table. After `xnatfs refresh` it shows at once if it has an MD5.",
)
@pytest.mark.parametrize("digest", [True, False])
def test_an_overwrite_that_nothing_dates(shelf: Shelf, compose: Compose, digest: bool) -> None:
    assert (Limits().relist_after, Limits().revalidate_after) == (4 * 3600.0, 4 * 3600.0)
    entry = shelf.put(shelf.make.entry("file", b"content", digest=None if digest else ""))
    mounted = compose(shelf.server, limits=NOW if digest else dataclasses.replace(NOW, revalidate_after=0.0))
    assert read(mounted.vfs, FILE) == b"content"

    def overwrite() -> None:
        if digest:
            shelf.resource.entries[0] = shelf.make.entry("file", b"CONTENT")
        else:
            entry.content, entry.modified = BytesContent(b"CONTENT"), shelf.archive.tick()

    shelf.server.call(overwrite)
    if digest:
        mounted.refresh()
    assert read(mounted.vfs, FILE) == b"CONTENT"


@rule("4.8", "While the server is away, everything that was listed is shown as it was.")
@rule(
    "10.3",
    "Listed data is shown, and cached data is read, without waiting for the server, no matter what else is "
    "waiting.",
)
def test_while_the_server_is_away_all_is_as_it_was(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    vfs = compose(shelf.server, limits=NOW).vfs
    before = list(walk(vfs, "/projects"))
    read(vfs, FILE)
    shelf.server.stop()
    assert list(walk(vfs, "/projects")) == before
    assert read(vfs, FILE) == b"content"


@rule(
    "13.9",
    "Two paths of one file, under two top-level folders, may differ for 40 s in what `stat` returns after "
    "a change. Opening either opens the same version.",
)
def test_what_is_opened_does_not_differ_by_its_path(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    mounted = compose(shelf.server)
    other = "/archive/projects/P/experiments/S/RESOURCES/R/file"
    assert read(mounted.vfs, FILE) == read(mounted.vfs, other)
    shelf.server.call(lambda: shelf.resource.entries.__setitem__(0, shelf.make.entry("file", b"another")))
    mounted.refresh()
    assert read(mounted.vfs, FILE) == read(mounted.vfs, other) == b"another"


# --- errors -------------------------------------------------------------------------------------------------


@rule(
    "5.2",
    "Names and attributes that merely do not exist (ENOENT, ENODATA), and writes to a read-only mount, are "
    "not recorded as errors.",
)
def test_what_is_only_missing_is_not_recorded(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    mounted = compose(shelf.server)
    vfs = mounted.vfs
    assert refused(lambda: vfs.attributes("/projects/NONE")) == errno.ENOENT
    assert refused(lambda: vfs.xattr(FILE, "user.none")) == errno.ENODATA
    assert refused(lambda: vfs.open(FILE, 1)) == errno.EROFS
    assert mounted.diagnostics.recent() == []


@rule(
    "5.3",
    "A failure affects only the operation it happened to. Everything else keeps working, and the operation "
    "works again once the cause is gone, without a remount.",
)
@pytest.mark.parametrize(
    ("trouble", "number"),
    [
        ({"fail_next": -1, "fail_status": 403}, errno.EACCES),
        ({"cut_after_bytes": 3}, errno.EIO),
    ],
    ids=["403", "cut"],
)
def test_a_failure_holds_for_one_thing_and_for_its_time(
    shelf: Shelf, compose: Compose, trouble: dict[str, object], number: int
) -> None:
    for name in ("file", "other"):
        shelf.put(shelf.make.entry(name, name.encode()))
    vfs = compose(shelf.server).vfs
    vfs.attributes(FILE)
    shelf.switches.update({"match": "/files/file", **trouble})
    assert refused(lambda: read(vfs, FILE)) == number
    assert read(vfs, f"{FOLDER}/other") == b"other"
    shelf.switches.update({"fail_next": 0, "cut_after_bytes": -1})
    assert read(vfs, FILE) == b"file"


# --- removal and lost rights --------------------------------------------------------------------------------


@rule(
    "6.1",
    "Data that the server no longer shows this user is no longer served, not even from the cache: its "
    "folders and files disappear from the mount within a minute, and cannot be opened after 20 s, or after "
    "`xnatfs refresh`.",
)
@pytest.mark.parametrize("refreshed", [True, False])
@pytest.mark.parametrize("what", ["file", "session", "project"])
def test_what_is_no_longer_shown_is_no_longer_served(
    shelf: Shelf, compose: Compose, what: str, refreshed: bool
) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    mounted = compose(shelf.server, limits=LIMITS if refreshed else NOW)
    assert read(mounted.vfs, FILE) == b"content"

    def remove() -> None:
        if what == "file":
            shelf.resource.entries.clear()
            shelf.archive.touch(shelf.session)
        elif what == "session":
            del shelf.archive.experiments[shelf.session.id]
        else:
            shelf.project.members.clear()

    shelf.server.call(remove)
    if refreshed:
        mounted.refresh()
    assert refused(lambda: mounted.vfs.open(FILE)) == errno.ENOENT
    assert refused(lambda: mounted.vfs.attributes(FILE)) == errno.ENOENT
    left = ["/projects/P/README.txt"] if what == "session" else []  # which says that nothing is there (1.11)
    assert [path for path, _ in walk(mounted.vfs, "/projects")] == left


@rule("6.2", "A file that the server forbids (403) returns EACCES.")
def test_a_forbidden_file(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    vfs = compose(shelf.server).vfs
    vfs.attributes(FILE)
    shelf.switches.update({"match": "/files/file", "fail_next": -1, "fail_status": 403})
    assert refused(lambda: vfs.open(FILE)) == errno.EACCES


@rule(
    "6.7",
    "A mount that sends no requests (`--offline`) cannot learn of a removal: it shows the last listing.",
)
def test_offline_shows_what_was_listed_last(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    shelf.put(shelf.make.entry("not kept", b"not kept"))
    first = compose(shelf.server)
    assert read(first.vfs, FILE) == b"content"
    first.close()
    shelf.server.call(shelf.resource.entries.clear)
    shelf.server.clear_log()
    offline = compose(shelf.server, offline=True).vfs
    assert read(offline, FILE) == b"content"
    assert refused(lambda: offline.open(f"{FOLDER}/not kept")) == errno.EHOSTDOWN
    assert shelf.server.requests() == []


@rule(
    "4.9",
    "Any change below a session shows by itself: a file added, removed or replaced by one of another size, "
    "a scan, a resource or an assessor created or deleted, a type edited. It shows within 60 s in the "
    "tree, within 120 s in a table, and in later mounts.",
)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("later", [False, True])
def test_whatever_changes_below_a_session_shows(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, state: str, later: bool
) -> None:
    # A table is waited for from this age on; what it is made from may be as old as two listings.
    assert materialize._OVERDUE_AFTER_S + 2 * Limits().ttl <= 120.0
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)
    study = Study(state)
    with study.server:
        mounted = compose(study.server, user=study.user, limits=NOW)
        tree, table = seen(mounted, study.project), volumes(mounted, study.project)
        if later:
            mounted.close()
        study.server.call(
            lambda: [study.change(one) for one in ("result replaced", "scan", "file", "assessor")]
        )
        if later:
            mounted = compose(study.server, user=study.user, limits=NOW)
        fresh = compose(study.server, "fresh", user=study.user)
        assert tree != seen(mounted, study.project) == seen(fresh, study.project)
        assert table != volumes(mounted, study.project) == volumes(fresh, study.project)
        mounted.close()
        fresh.close()


@rule(
    "6.5",
    "Nothing is considered removed because the server answers 404 for it, or lists nothing: XNAT without "
    "its database does both. It is removed once the listing above it arrives complete without it; until "
    "then it is shown as it was, or returns an error.",
)
@pytest.mark.parametrize("switches", [{"database_down": True}, {"failing_query": "."}])
def test_what_a_dead_database_denies_is_not_gone(
    shelf: Shelf, compose: Compose, switches: dict[str, object]
) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    mounted = compose(shelf.server)
    before = list(walk(mounted.vfs, "/projects"))
    assert read(mounted.vfs, FILE) == b"content"
    shelf.switches.update(switches)
    mounted.refresh()
    assert list(walk(mounted.vfs, "/projects")) == before
    assert read(mounted.vfs, FILE) == b"content"
    shelf.switches.update({"database_down": False, "failing_query": ""})
    shelf.server.call(lambda: shelf.archive.experiments.pop(shelf.session.id))
    mounted.refresh()
    assert refused(lambda: mounted.vfs.entries(FOLDER)) == errno.ENOENT


# --- time ---------------------------------------------------------------------------------------------------


def stuck(mounted: Core, path: str) -> tuple[threading.Thread, list[BaseException]]:
    """Somebody who waits for a file."""
    caught: list[BaseException] = []

    def work() -> None:
        try:
            read(mounted.vfs, path)
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, caught


@rule(
    "10.1",
    "A read that makes no progress for 30 s ends with ETIMEDOUT, a listing after 120 s, building a table "
    "after 15 minutes.",
)
def test_the_limits_of_waiting(shelf: Shelf, compose: Compose) -> None:
    limits = Limits()
    assert (limits.progress_deadline, limits.listing_deadline, limits.table_deadline) == (30.0, 120.0, 900.0)
    shelf.put(shelf.make.entry("file", b"x" * 1000))
    short = dataclasses.replace(LIMITS, progress_deadline=0.3, listing_deadline=0.5, table_deadline=0.3)
    vfs = compose(shelf.server, limits=short).vfs
    vfs.attributes(FILE)
    shelf.switches.stall_after_bytes = 10
    assert refused(lambda: vfs.open(FILE)) == errno.ETIMEDOUT
    shelf.switches.stall_after_bytes = -1
    shelf.switches.listing_delay_ms = 3000
    for look in (
        lambda: compose(shelf.server, "listing", limits=short).vfs.entries(FOLDER),
        lambda: vfs.open("/tables/P/sessions.csv"),
    ):
        assert refused(look) == errno.ETIMEDOUT


@rule(
    "10.3",
    "Listed data is shown, and cached data is read, without waiting for the server, no matter what else is "
    "waiting.",
)
def test_nobody_waits_behind_a_stuck_reader(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    shelf.put(shelf.make.entry("stuck", ComputedContent("stuck", MIB)))
    mounted = compose(shelf.server)
    read(mounted.vfs, FILE)
    shelf.switches.update({"match": "/files/stuck", "stall_after_bytes": 10})
    thread, caught = stuck(mounted, f"{FOLDER}/stuck")
    until(lambda: shelf.server.requests("/files/stuck"))
    assert read(mounted.vfs, FILE) == b"content"
    assert [name for name, _ in mounted.vfs.entries(FOLDER)] == ["file", "stuck"]
    assert thread.is_alive() and not caught
    shelf.switches.stall_after_bytes = -1
    shelf.server.stop()  # ends the silent answer
    shelf.server.start()
    thread.join(60)
    assert not thread.is_alive()


@rule(
    "10.4",
    "A server that is away is noticed within a few seconds. From then on anything that is not local "
    "returns EHOSTDOWN at once, and works again by itself when the server is back.",
)
def test_a_server_that_is_away_and_back(shelf: Shelf, compose: Compose) -> None:
    for name in ("file", "other"):
        shelf.put(shelf.make.entry(name, name.encode()))
    mounted = compose(shelf.server)
    assert read(mounted.vfs, FILE) == b"file"
    shelf.server.stop()

    def noticed() -> bool:
        assert refused(lambda: mounted.vfs.open(f"{FOLDER}/other")) == errno.EHOSTDOWN
        return mounted.listing_service.environment.listings._connection.breaker.away() is not None

    until(noticed, 30)
    asked = mounted.report()["requests"]
    assert refused(lambda: mounted.vfs.open(f"{FOLDER}/other")) == errno.EHOSTDOWN
    assert mounted.report()["requests"] - asked <= 1  # a probe at most
    assert read(mounted.vfs, FILE) == b"file"
    shelf.server.start()

    def back() -> bool:
        try:
            return read(mounted.vfs, f"{FOLDER}/other") == b"other"
        except OSError as error:
            assert error.errno == errno.EHOSTDOWN
            return False

    until(back, 30)
