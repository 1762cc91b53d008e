"""A shared tier: each byte leaves the server once for all nodes, and nothing comes from the tier that the
server does not show, or that is not what it lists."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import read, until, walk
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from xnatfs.cache.shared_directory import SharedDirectory
from xnatfs.cache.shared_listings import SharedListings
from xnatfs.cache.shared_place import checked_place, open_tier
from xnatfs.cache.shared_tier import object_path
from xnatfs.config import Privacy
from xnatfs.content import manager, shared_content, shared_leases, user_share
from xnatfs.content.user_share import UserShare
from xnatfs.core import Core
from xnatfs.demo.access import View
from xnatfs.demo.data import build
from xnatfs.demo.model import Experiment
from xnatfs.demo.server import DemoServer
from xnatfs.errors import UsageError

FILE = f"{FOLDER}/f"
SIZE = 100_000


@pytest.fixture
def tier(tmp_path: Path) -> Path:
    return tmp_path / "tier"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is who waits for whom, not how long."""
    monkeypatch.setattr(shared_leases, "_RENEW_S", 0.1)
    monkeypatch.setattr(shared_content, "_LONGEST_LOOK_S", 0.1)


@pytest.fixture(scope="module")
def study() -> Iterator[DemoServer]:
    """A session of 1 MB: eight scans of five files."""
    with DemoServer(build("scale", sessions=1, scans=8, files=5, file_size=25_000)) as made:
        yield made


def contents(server: DemoServer) -> int:
    """Bytes of contents that the server has sent."""
    return sum(one.sent for one in server.requests(r"^GET .*/resources/\d+/files(/|\?format=zip)"))


def everything(core: Core) -> dict[str, str]:
    """The digests of all that a node reads, in the order of the tree."""
    return {
        path: hashlib.md5(read(core.vfs, path)).hexdigest()
        for path, _ in walk(core.vfs, "/projects")
        if not path.endswith(".txt")
    }


def together(nodes: list[Core], work: Callable[[Core], Any]) -> list[Any]:
    """What each node comes to, all at once."""
    done: list[Any] = [None] * len(nodes)

    def one(number: int) -> None:
        done[number] = work(nodes[number])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def given(core: Core) -> dict[str, Any]:
    """What `status` says of the tier, once nothing is on its way there."""
    shared = core.content_manager.context.shared
    assert shared is not None
    with shared._lock:
        assert shared._lock.wait_for(lambda: not shared._puts, 20)
    return shared.report()


@pytest.mark.parametrize("place", ["{tier}", "memory://{tier}", ""])
def test_each_byte_leaves_the_server_once(
    study: DemoServer, compose: Compose, tier: Path, place: str
) -> None:
    """Four nodes read the same session at once. Would fail if they did not wait for each other, or if what
    one had fetched were not given to the others. Without a tier it is four times."""
    study.clear_log()
    nodes = [compose(study, f"n{number}", shared_cache=place.format(tier=tier)) for number in range(4)]
    read_by_each = together(nodes, everything)
    assert len(read_by_each[0]) == 40 and all(one == read_by_each[0] for one in read_by_each)
    total = 40 * 25_000
    assert contents(study) <= (1.05 if place else 4.2) * total
    assert contents(study) >= (1 if place else 4) * total
    if not place:
        return
    assert sum(given(one)["files given"] for one in nodes) == 40
    # What is there is enough for one who comes later.
    study.clear_log()
    later = compose(study, "later", shared_cache=place.format(tier=tier))
    assert everything(later) == read_by_each[0]
    assert contents(study) == 0 and given(later)["files taken"] == 40


@pytest.mark.parametrize("header_first", [False, True])
def test_a_file_that_is_read_in_parts(
    shelf: Shelf, compose: Compose, tier: Path, monkeypatch: pytest.MonkeyPatch, header_first: bool
) -> None:
    """A large file is streamed by one node, the others take it whole when it is there; who wants the header
    only waits for nobody long, and keeps nobody waiting."""
    monkeypatch.setattr(manager, "WHOLE_BYTES", 2**20)
    monkeypatch.setattr(shared_content, "WHOLE_BYTES", 2**20)
    if header_first:
        monkeypatch.setattr(shared_content, "_FIRST_SIGN_S", 0.3)
    size = 12 * 2**20
    data = os.urandom(2**20) * 12
    shelf.put(shelf.make.entry("f", data))
    nodes = [compose(shelf.server, f"n{number}", shared_cache=str(tier)) for number in range(3)]
    if header_first:
        shelf.switches.bandwidth = 20e6
        opened = nodes[0].vfs.open(FILE)
        assert nodes[0].vfs.read(opened.handle, 0, 4096) == data[:4096]
        assert together(nodes[1:], lambda core: read(core.vfs, FILE, 2**20) == data) == [True, True]
        nodes[0].vfs.release(opened.handle)
        assert contents(shelf.server) <= 2.2 * size  # it did not stream it, nobody knew
    else:
        assert together(nodes, lambda core: read(core.vfs, FILE, 2**20) == data) == [True] * 3
        assert contents(shelf.server) <= 1.05 * size
    assert sum(given(one)["files given"] for one in nodes) >= 1


def test_a_revoked_user_gets_nothing(shelf: Shelf, compose: Compose, tier: Path) -> None:
    """The key is the digest in the user's own listing: who is shown none has none, whatever the tier has."""
    shelf.make.user("other")
    shelf.put(shelf.make.entry("f", bytes(SIZE)))
    first = compose(shelf.server, "first", shared_cache=str(tier))
    assert read(first.vfs, FILE) == bytes(SIZE) and given(first)["files given"] == 1
    stranger = compose(shelf.server, "stranger", user="other", shared_cache=str(tier))
    shelf.server.call(shelf.project.members.clear)
    first.refresh()
    for core in (first, stranger, compose(shelf.server, "new", shared_cache=str(tier))):
        with pytest.raises(OSError) as refused:
            core.vfs.open(FILE)
        assert refused.value.errno == errno.ENOENT
        assert given(core)["files taken"] == 0


# --- listings -----------------------------------------------------------------------------------------------


def listed(server: DemoServer) -> list[str]:
    """What was asked for but the login and contents."""
    asked = [one.path for one in server.requests(r"^GET /data/(projects|experiments|subjects)")]
    return [path for path in asked if "/resources/" not in path]


def named(core: Core) -> list[str]:
    """All that a node shows."""
    names = sorted(path for path, _ in walk(core.vfs, "/projects"))
    core.listing_service.environment.stored.flush()
    return names


def test_another_node_of_the_user_lists_nothing_again(
    study: DemoServer, compose: Compose, tier: Path
) -> None:
    """It asks for the projects and for the experiments with their stamps, as a remount does. Would fail if it
    asked for scans or files, or believed the tier without asking."""
    first = compose(study, "first", shared_cache=str(tier))
    names = named(first)
    first.close()
    study.clear_log()
    assert named(compose(study, "second", shared_cache=str(tier))) == names
    assert listed(study) == ["/data/projects", "/data/projects/SCALE/experiments"]


def test_what_changed_since_is_listed_again(shelf: Shelf, compose: Compose, tier: Path) -> None:
    """Would fail if a listing were believed whatever stamps the server gives."""
    shelf.put(shelf.make.entry("f", b"old"))
    first = compose(shelf.server, "first", shared_cache=str(tier))
    assert read(first.vfs, FILE) == b"old"
    first.close()

    def change() -> None:
        shelf.resource.entries[0] = shelf.make.entry("f", b"new")
        shelf.make.experiment(shelf.subject, "NEW")
        shelf.archive.touch(shelf.session)

    shelf.server.call(change)
    second = compose(shelf.server, "second", shared_cache=str(tier))
    assert read(second.vfs, FILE) == b"new"
    assert [name for name, _ in second.vfs.entries("/projects/P/subjects/s")] == ["NEW", "S"]


def test_a_listing_is_for_the_user_who_made_it(
    shelf: Shelf, compose: Compose, tier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment behind it: whoever sees the same experiments with the same stamps may still see other
    assessors, so that agreeing stamps prove a listing to its own user alone."""
    shelf.make.user("more")
    shelf.project.members.add("more")
    assessor = shelf.make.assessor(shelf.session, "HIDDEN")
    shelf.make.resource(assessor, "DATA").entries.append(shelf.make.entry("f", b"x"))

    # As for a group without rights to this type (docs/internals/xnat-rest.md 12).
    def without(every: Callable[..., list[Experiment]]) -> Callable[..., list[Experiment]]:
        def by_user(self: View, of: object) -> list[Experiment]:
            return [one for one in every(self, of) if one is not assessor or self.user.login == "more"]

        return by_user

    for name in ("experiments", "assessors"):
        monkeypatch.setattr(View, name, without(getattr(View, name)))
    rich = compose(shelf.server, "rich", user="more", shared_cache=str(tier))
    poor = compose(shelf.server, "poor", shared_cache=str(tier))
    stamps = [core.listing_service.projects.get("P").experiments for core in (rich, poor)]
    assert stamps[0] == stamps[1]
    assert any("HIDDEN" in name for name in everything(rich))
    rich.close()
    assert not any("HIDDEN" in name for name in everything(poor))
    assert not any(
        "HIDDEN" in name for name in everything(compose(shelf.server, "p", shared_cache=str(tier)))
    )


def test_what_a_mount_does_not_show_it_does_not_take_from_another(
    shelf: Shelf, compose: Compose, tier: Path
) -> None:
    """The ages that one mount of a user has listed, on the disk of one without demographics."""
    shelf.session.fields["age"] = "63.25"
    full = compose(shelf.server, "full", shared_cache=str(tier))
    everything(full)
    full.close()
    bare = compose(shelf.server, "bare", shared_cache=str(tier), privacy=Privacy(demographics=False))
    stored = bare.listing_service.environment.stored
    assert stored.project("P") is None  # and what it then lists by itself would hide what it took
    stored.flush()
    for core, known in ((full, True), (bare, False)):
        (path,) = core.settings.cache_dir.rglob("listings.sqlite")
        with contextlib.closing(sqlite3.connect(path)) as database:
            bodies = [zlib.decompress(body) for (body,) in database.execute("SELECT body FROM listings")]
        assert any(b"63.25" in body for body in bodies) == known


def test_a_listings_age_is_the_disks(tier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is off would make a listing of a moment ago look old, or one of last week new."""
    (tier / "listings").mkdir(parents=True)
    first = SharedListings(tier / "listings", "server and user")
    first.put("files", "key", "stamp", "body")
    first.close()
    real = time.time
    for off in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda off=off: real() + off)
        found = SharedListings(tier / "listings", "server and user").get("files", "key")
        assert found is not None and found.body == "body"
        assert abs(time.time() - found.made) < 60


@pytest.mark.parametrize("damage", ["folder for a group", "file for a group", "link", "cut", "another's key"])
def test_a_listing_that_others_may_have_written_is_not_read(
    study: DemoServer, compose: Compose, tier: Path, damage: str
) -> None:
    first = compose(study, "first", shared_cache=str(tier))
    names = named(first)
    first.close()
    (folder,) = (tier / "listings").iterdir()
    files = list(folder.iterdir())
    assert len(files) == 2 and {one.stat().st_mode & 0o777 for one in files} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    if damage == "folder for a group":
        folder.chmod(0o770)
    for path in files:
        if damage == "file for a group":
            path.chmod(0o660)
        elif damage == "link":
            path.symlink_to(path.rename(tier / path.name))
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-5])
        elif damage == "another's key":
            path.write_bytes(path.read_bytes().replace(b"SCALE", b"OTHER").replace(b"DEMO", b"OMED"))
    study.clear_log()
    assert named(compose(study, "second", shared_cache=str(tier))) == names
    assert len(listed(study)) > 5


# --- who shares the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["{tier}", "memory://share{tier}"])
def test_the_mounts_of_a_user_count_each_other(
    tier: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Those of other users do not count, nor does one that has ended. Would fail if a machine that died were
    counted for ever."""
    monkeypatch.setattr(user_share, "_RENEW_S", 0.05)
    store = open_tier(place.format(tier=tier))
    told: list[int] = []
    first = UserShare(store, "a", told.append)
    others = [UserShare(store, user, lambda _: None) for user in ("a", "a", "b")]
    until(lambda: [one.mounts for one in (first, *others)] == [3, 3, 3, 1])
    others[0].close()
    until(lambda: first.mounts == 2)
    assert store.claim(f"{first._begin}dead", "dead")
    if isinstance(store, SharedDirectory):
        os.utime(tier / "leases" / f"{first._begin}dead", (1e9, 1e9))
        assert first.look() == 2 and not store.lease(f"{first._begin}dead")
    for one in (first, *others[1:]):
        one.close()
    assert told[-1] in (2, 3) and store.ages(first._begin).keys() <= {f"{first._begin}dead"}


def test_a_mount_takes_its_share(
    study: DemoServer, compose: Compose, tier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And reads all there is with it. Would fail if more workers than connections waited for each other."""
    monkeypatch.setattr(user_share, "_RENEW_S", 0.05)
    limits = replace(LIMITS, user_connections=5, requests_per_second=300)
    cores = [compose(study, f"{number}", limits=limits, shared_cache=str(tier)) for number in range(2)]

    def has(core: Core, rate: float, mounts: int, connections: int) -> bool:
        told = core.report()["shared_cache"]["mounts"], core.connection.transport.pacer.rate
        return told == (mounts, rate) and core.connection.slots.total == connections

    until(lambda: all(has(core, 150, 2, 2) for core in cores))
    assert len(everything(cores[0])) == 40
    cores[0].close()
    until(lambda: has(cores[1], 300, 1, 5))


# --- what is not what it should be --------------------------------------------------------------------------


@pytest.mark.parametrize("files", [1, 10])
def test_a_tampered_object_is_not_served(shelf: Shelf, compose: Compose, tier: Path, files: int) -> None:
    """Alone, and among the members of a resource: it is fetched from the server, reported, and replaced."""
    names = [f"f{number}" for number in range(files)]
    for name in names:
        shelf.put(shelf.make.entry(name, name.encode() * SIZE))
    first = compose(shelf.server, "first", shared_cache=str(tier))
    for name in names:
        read(first.vfs, f"{FOLDER}/{name}")
    assert given(first)["files given"] == files
    objects = sorted(path for path in (tier / "objects").rglob("*") if path.is_file())
    for path in objects[: 1 + files // 2]:
        path.chmod(0o600)
        path.write_bytes(b"x" * path.stat().st_size)
    second = compose(shelf.server, "second", shared_cache=str(tier))
    for name in names:
        assert read(second.vfs, f"{FOLDER}/{name}") == name.encode() * SIZE
    damaged = 1 + files // 2
    assert given(second)["damaged"] == damaged
    said = second.diagnostics.oddities()
    assert len(said) == damaged and "had other bytes than the server lists under its digest" in said[0]
    for path in objects:
        assert path.name.startswith(hashlib.md5(path.read_bytes()).hexdigest())


def test_files_without_a_digest_stay_out(shelf: Shelf, compose: Compose, tier: Path) -> None:
    shelf.put(shelf.make.entry("f", bytes(SIZE), digest=""))
    for name in ("one", "two"):
        core = compose(shelf.server, name, shared_cache=str(tier))
        assert read(core.vfs, FILE) == bytes(SIZE)
        report = given(core)
        assert (report["without digest"], report["files given"], report["files taken"]) == (1, 0, 0)
    assert not list((tier / "objects").rglob("*"))


def test_a_node_that_died_keeps_nobody_for_long(
    shelf: Shelf, compose: Compose, tier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease does not change: whoever waits takes it. Would fail if they waited for ever, or did not wait
    while it did change."""
    monkeypatch.setattr(shared_content, "_DEAD_S", 1.5)
    shelf.put(shelf.make.entry("f", bytes(SIZE)))
    key = f"{hashlib.md5(bytes(SIZE)).hexdigest()}-{SIZE}"
    alive = SharedDirectory(str(tier))
    assert alive.claim(f"file-{key}", "another node")
    core = compose(shelf.server, "one", shared_cache=str(tier))
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.2):
            alive.renew(f"file-{key}", "another node")

    renewing = threading.Thread(target=renew)
    renewing.start()
    reading = threading.Thread(target=lambda: read(core.vfs, FILE))
    reading.start()
    reading.join(2.0)
    assert reading.is_alive() and shelf.downloads() == 0
    over.set()
    renewing.join()
    reading.join(20)
    assert not reading.is_alive() and shelf.downloads() == 1
    assert given(core)["files given"] == 1
    until(lambda: alive.lease(f"file-{key}") == "")


def test_a_tier_that_fails_takes_no_read_with_it(shelf: Shelf, compose: Compose, tier: Path) -> None:
    shelf.put(shelf.make.entry("f", bytes(SIZE)))
    core = compose(shelf.server, "one", shared_cache=str(tier))
    os.rename(tier, tier.with_name("gone"))
    tier.write_text("no folder")
    assert read(core.vfs, FILE) == bytes(SIZE)
    assert "NotADirectoryError" in str(given(core)["problem"])


def test_which_places_can_be_one(tmp_path: Path) -> None:
    assert checked_place("") == "" and checked_place("s3://bucket/x") == "s3://bucket/x"
    assert checked_place("x") == f"{os.getcwd()}/x"
    with pytest.raises(UsageError, match="no password or key belongs in the URL"):
        checked_place("s3://key:secret@bucket/x")
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(UsageError, match="open to every user"):
        open_tier(str(tmp_path / "open"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be the shared cache"):
        open_tier(str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be the shared cache"):
        open_tier("nosuch://x/y")
    for hostile in ("../../etc/passwd", "a" * 32, "A" * 32 + "-1", "0" * 32 + "-1/.."):
        with pytest.raises(ValueError):
            object_path(hostile)


def test_a_groups_folder_stays_the_groups(tmp_path: Path) -> None:
    """A folder that an administrator made for a group: others of it can read, add, and clean up."""
    folder = tmp_path / "group"
    folder.mkdir()
    folder.chmod(0o2770)
    tier = SharedDirectory(str(folder))
    key = f"{hashlib.md5(b'x').hexdigest()}-1"
    with (tmp_path / "x").open("w+b", 0) as source:
        source.write(b"x")
        tier.put(key, source.fileno(), 1)
    made = folder / object_path(key)
    assert made.stat().st_mode & 0o7777 == 0o440
    assert {path.stat().st_mode & 0o7777 for path in (made.parent, folder / "leases")} == {0o2770}
    assert list((folder / "drafts").iterdir()) == []
