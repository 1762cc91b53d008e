"""Contents kept on this machine: found again, asked about again after a while, and pushed out when there are
too many.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.mount.spelling import Spelling
from tests.support import composed, disk_usage, read, until
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.cache import index, maintenance
from xnatfs.config import Limits
from xnatfs.demo.data import build
from xnatfs.demo.data.truth import files
from xnatfs.demo.model import BytesContent, CatalogEntry, ComputedContent
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure
from xnatfs.vfs import Vfs

MIB = 1 << 20
ASKS_AGAIN = Limits(cache_size=10**9, ttl=3600.0, revalidate_after=0.0, progress_deadline=5.0)


def refused(vfs: Vfs, path: str) -> int:
    with pytest.raises(OSError) as caught:
        read(vfs, path)
    assert caught.value.errno is not None
    return caught.value.errno


def file(shelf: Shelf, data: bytes = b"content", name: str = "f", digest: str | None = None) -> CatalogEntry:
    return shelf.put(shelf.make.entry(name, data, digest=digest))


def test_the_second_reading_costs_no_request(shelf: Shelf, compose: Compose) -> None:
    file(shelf)
    vfs = compose(shelf.server).vfs
    assert vfs.xattr(f"{FOLDER}/f", "user.xnat.cached") == b"no"
    assert read(vfs, f"{FOLDER}/f") == b"content"
    shelf.server.clear_log()
    assert read(vfs, f"{FOLDER}/f") == b"content"
    assert vfs.xattr(f"{FOLDER}/f", "user.xnat.cached") == b"yes"
    assert shelf.server.requests() == []


@pytest.mark.parametrize("digest", [None, ""])
def test_the_next_mount_finds_the_contents_again(shelf: Shelf, compose: Compose, digest: str | None) -> None:
    file(shelf, digest=digest)
    assert read(compose(shelf.server).vfs, f"{FOLDER}/f") == b"content"
    assert read(compose(shelf.server).vfs, f"{FOLDER}/f") == b"content"
    assert shelf.downloads() == 1


def test_another_user_does_not_share_the_cache(shelf: Shelf, compose: Compose) -> None:
    file(shelf)
    shelf.make.user("other")
    shelf.project.members.add("other")
    assert read(compose(shelf.server).vfs, f"{FOLDER}/f") == b"content"
    assert read(compose(shelf.server, user="other").vfs, f"{FOLDER}/f") == b"content"
    assert shelf.downloads() == 2


# --- asking again -------------------------------------------------------------------------------------------


def test_an_unchanged_file_without_digest_is_asked_about_without_a_body(
    shelf: Shelf, compose: Compose
) -> None:
    file(shelf, digest="")
    vfs = compose(shelf.server, limits=ASKS_AGAIN).vfs
    read(vfs, f"{FOLDER}/f")
    shelf.server.clear_log()
    assert read(vfs, f"{FOLDER}/f") == b"content"
    assert [(one.status, one.sent) for one in shelf.server.requests()] == [(304, 0)]


def test_a_file_is_not_asked_about_before_its_time(shelf: Shelf, compose: Compose) -> None:
    file(shelf, digest="")
    vfs = compose(shelf.server).vfs
    read(vfs, f"{FOLDER}/f")
    read(vfs, f"{FOLDER}/f")
    assert shelf.downloads() == 1


def test_a_file_with_a_digest_needs_no_asking(shelf: Shelf, compose: Compose) -> None:
    file(shelf)
    vfs = compose(shelf.server, limits=ASKS_AGAIN).vfs
    read(vfs, f"{FOLDER}/f")
    read(vfs, f"{FOLDER}/f")
    assert shelf.downloads() == 1


@pytest.mark.parametrize("new", [b"CONTENT", b"longer content"])
def test_changed_content_is_noticed_when_it_is_asked_about(
    shelf: Shelf, compose: Compose, new: bytes
) -> None:
    entry = file(shelf, digest="")
    vfs = compose(shelf.server, limits=ASKS_AGAIN).vfs
    assert read(vfs, f"{FOLDER}/f") == b"content"

    def overwrite() -> None:  # in place, so that no listing tells
        entry.content, entry.modified = BytesContent(new), shelf.archive.tick()

    shelf.server.call(overwrite)
    assert read(vfs, f"{FOLDER}/f") == new
    assert vfs.attributes(f"{FOLDER}/f").size == len(new)


def test_while_the_server_is_away_the_cache_is_served(shelf: Shelf, compose: Compose) -> None:
    file(shelf, digest="")
    file(shelf, b"other", "g")
    vfs = compose(shelf.server, limits=ASKS_AGAIN).vfs
    read(vfs, f"{FOLDER}/f")
    shelf.server.stop()
    assert read(vfs, f"{FOLDER}/f") == b"content"
    assert refused(vfs, f"{FOLDER}/g") == errno.EHOSTDOWN
    shelf.server.start()
    assert read(vfs, f"{FOLDER}/g") == b"other"


def test_a_server_in_trouble_is_not_believed_to_have_lost_a_file(shelf: Shelf, compose: Compose) -> None:
    file(shelf, digest="")
    vfs = compose(shelf.server, limits=ASKS_AGAIN).vfs
    read(vfs, f"{FOLDER}/f")
    shelf.switches.fail_next = -1
    assert read(vfs, f"{FOLDER}/f") == b"content"


def test_what_the_server_no_longer_shows_is_no_longer_served(shelf: Shelf, compose: Compose) -> None:
    entry = file(shelf, digest="")
    vfs = compose(shelf.server, limits=ASKS_AGAIN).vfs
    read(vfs, f"{FOLDER}/f")
    shelf.server.call(lambda: setattr(entry, "content", None))
    assert refused(vfs, f"{FOLDER}/f") == errno.EIO


# --- the cap ------------------------------------------------------------------------------------------------


def test_what_was_pushed_out_is_fetched_again(shelf: Shelf, compose: Compose) -> None:
    contents = {f"f{number}": ComputedContent(f"f{number}", MIB) for number in range(4)}
    for (
        name,
        content,
    ) in contents.items():  # each in a resource of its own, so that none comes with another in a zip
        shelf.make.resource(shelf.session, name).entries.append(shelf.make.entry(name, content))
    mounted = compose(shelf.server, limits=Limits(cache_size=2 * MIB, ttl=3600.0))
    for _ in range(2):
        for name, content in contents.items():
            assert read(mounted.vfs, f"{FOLDER.rpartition('/')[0]}/{name}/{name}", MIB) == content.read(
                0, MIB
            )
            assert sum(mounted.cache.usage()[1:]) <= 2 * MIB
    assert shelf.downloads() == 8


@pytest.mark.parametrize("size", [3 * MIB, 24 * MIB])
def test_a_file_larger_than_the_cap_is_read_without_the_cache(
    shelf: Shelf, compose: Compose, size: int
) -> None:
    large = ComputedContent("large", size)
    shelf.put(shelf.make.entry("large", large))
    file(shelf)
    mounted = compose(shelf.server, limits=Limits(cache_size=2 * MIB, ttl=3600.0))
    assert read(mounted.vfs, f"{FOLDER}/large") == large.read(0, size)
    assert sum(mounted.cache.usage()[1:]) <= 2 * MIB
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    assert mounted.vfs.open_files == 0


def test_the_cap_holds_on_disk_with_fifty_readers_of_ten_times_as_much(tmp_path: Path) -> None:
    """Small files that come as zips, large ones from the start and from the middle, one larger than the cap;
    all at once.
    """
    cap = 32 * MIB
    large = {"a.nii": 24 * MIB, "b.bin": 24 * MIB, "c.nii": 24 * MIB, "over.bin": 48 * MIB}
    archive = build(
        "scale",
        sessions=5,
        scans=2,
        files=40,
        file_size=MIB // 2,
        digests=True,
        big_files=large,
        big_digests=True,
    )
    spelling = [Spelling(archive, files(archive, project, "demo")) for project in ("SCALE", "BIG")]
    truth = {
        f"/projects/{one.files[0].project}/{path}": true
        for one in spelling
        for path, true in one.people().items()
    }
    assert sum(true.size for true in truth.values()) == 10 * cap
    by_folder = [
        sorted(group) for _, group in itertools.groupby(sorted(truth), lambda path: path.rsplit("/", 1)[0])
    ]
    wrong: list[str] = []
    peaks = [0]
    done = threading.Event()

    with (
        DemoServer(archive) as server,
        composed(server.url, tmp_path, limits=Limits(cache_size=cap, min_free=0, ttl=3600.0)) as mounted,
    ):
        vfs = mounted.vfs

        def watch() -> None:
            while not done.is_set():
                with (
                    mounted.cache.index.lock
                ):  # nothing is evicted after being counted, for something that is counted later
                    peaks.append(disk_usage(mounted.cache.directory))
                done.wait(0.02)

        def work(number: int) -> None:
            paths = by_folder[number % len(by_folder)]
            first = (number // len(by_folder)) * len(paths) // 5
            for path in (
                paths[first:] + paths[:first] if number < 20 else paths[first : first + len(paths) // 3 + 1]
            ):
                try:
                    opened = vfs.open(path)
                    offset = start = truth[path].size // 3 // MIB * MIB if number % 3 == 0 else 0
                    content = truth[path].entry.content
                    assert content is not None
                    while piece := vfs.read(opened.handle, offset, MIB):
                        if piece != content.read(offset, MIB):
                            wrong.append(f"{path} at {offset}")
                        offset += len(piece)
                    if offset != content.size:
                        wrong.append(f"{path} ends at {offset}, read from {start}")
                    vfs.release(opened.handle)
                except BaseException as error:
                    wrong.append(f"{path}: {error!r} {error}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        watcher = threading.Thread(target=watch)
        for thread in (watcher, *threads):
            thread.start()
        for thread in threads:
            thread.join(100)
        done.set()
        watcher.join()
        assert wrong == []
        assert len(peaks) > 20 and 0.8 * cap < max(peaks) <= 1.05 * cap
        assert vfs.open_files == 0


def test_open_files_are_not_pushed_out_under_their_readers(shelf: Shelf, compose: Compose) -> None:
    contents = {f"f{number}": ComputedContent(f"f{number}", MIB) for number in range(3)}
    for name, content in contents.items():
        shelf.put(shelf.make.entry(name, content))
    vfs = compose(shelf.server, limits=Limits(cache_size=2 * MIB, ttl=3600.0)).vfs
    handles = {}
    for name in ("f0", "f1"):
        handles[name] = vfs.open(f"{FOLDER}/{name}").handle
    assert read(vfs, f"{FOLDER}/f2", MIB) == contents["f2"].read(0, MIB)  # from memory
    for name, handle in handles.items():
        assert vfs.read(handle, 0, MIB) == contents[name].read(0, MIB)
        vfs.release(handle)
    assert read(vfs, f"{FOLDER}/f2", MIB) == contents["f2"].read(0, MIB)


def test_a_cached_file_that_was_cut_on_disk_is_fetched_again(shelf: Shelf, compose: Compose) -> None:
    file(shelf)
    mounted = compose(shelf.server)
    read(mounted.vfs, f"{FOLDER}/f")
    (kept,) = [path for path in (mounted.cache.directory / "objects").glob("*/*") if path.is_file()]
    kept.write_bytes(b"cont")
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    assert shelf.downloads() == 2


def test_nothing_is_left_in_the_cache_of_a_failed_download(shelf: Shelf, compose: Compose) -> None:
    file(shelf)
    mounted = compose(shelf.server)
    shelf.switches.match = "/files/f"
    shelf.switches.fail_status, shelf.switches.fail_next = 403, -1
    assert refused(mounted.vfs, f"{FOLDER}/f") == errno.EACCES
    until(lambda: mounted.cache.usage() == (0, 0, 0))
    assert list((mounted.cache.directory / "drafts").iterdir()) == []


def test_a_large_file_with_a_wrong_digest_is_not_kept_as_the_file_that_has_it(
    shelf: Shelf, compose: Compose
) -> None:
    """Overwritten in place: the catalog still has the digest of the old bytes, which another file truly
    has.
    """
    old, new = ComputedContent("old", 9 * MIB), ComputedContent("new", 9 * MIB)
    shelf.make.resource(shelf.session, "copy").entries.append(shelf.make.entry("copy", old))
    digest = shelf.make.entry("x", old).true_digest
    shelf.put(shelf.make.entry("f", new, digest=digest))
    mounted = compose(shelf.server, serve_bad_digests=True)
    # Else it may have come before it is read, and is known for what it is.
    shelf.switches.bandwidth = 30.0 * MIB
    assert refused(mounted.vfs, f"{FOLDER}/f") == errno.EIO  # the first reader learns of it at the end
    shelf.switches.bandwidth = 0.0
    assert read(mounted.vfs, f"{FOLDER}/f", MIB) == new.read(0, 9 * MIB)
    assert read(mounted.vfs, f"{FOLDER.rpartition('/')[0]}/copy/copy", MIB) == old.read(0, 9 * MIB)
    assert maintenance.verify(maintenance.CacheScope(mounted.cache.directory)).wrong == []


@pytest.mark.parametrize("digest", [None, ""])
def test_after_the_machine_went_down_nothing_is_believed(
    shelf: Shelf, compose: Compose, digest: str | None
) -> None:
    """A file that was not yet on the disk can have its size and no bytes. What has no digest is fetched
    again.
    """
    file(shelf, digest=digest)
    mounted = compose(shelf.server)
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    mounted.cache.index.execute("UPDATE boot SET id = 'another boot'")
    for path in (mounted.cache.directory / "objects").glob("*/*"):
        path.write_bytes(bytes(7))
    assert read(compose(shelf.server).vfs, f"{FOLDER}/f") == b"content"


def test_an_index_that_a_stopped_mount_holds_is_done_without_until_it_is_free(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "patience", lambda _: 0.3)
    for name in "abc":
        shelf.put(shelf.make.entry(name, name.encode() * 1000))
    mounted = compose(shelf.server)
    vfs = mounted.vfs
    assert read(vfs, f"{FOLDER}/a") == b"a" * 1000
    draft = mounted.cache.draft(5000)
    (path,) = mounted.cache.directory.glob("index.sqlite")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert read(vfs, f"{FOLDER}/b") == b"b" * 1000
        assert read(vfs, f"{FOLDER}/a") == b"a" * 1000
        assert read(vfs, f"{FOLDER}/c") == b"c" * 1000
        assert mounted.cache.index.execute("PRAGMA busy_timeout") == [(0,)], "one waits for it once"
        draft.close()
        assert mounted.cache.usage() == (1, 1000, 5000)
        other.execute("ROLLBACK")

    def broken(size: int) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch, pytest.raises(Failure):
        patch.setattr(mounted.cache.space, "_make_room", broken)
        mounted.cache.draft(1)  # rolled back, and with it what was given back
    for name in "bc":
        assert read(vfs, f"{FOLDER}/{name}") == name.encode() * 1000
    until(lambda: mounted.cache.usage() == (3, 3000, 0))
    assert mounted.cache.index.execute("PRAGMA busy_timeout") == [(300,)]
