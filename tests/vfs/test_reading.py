"""Reading files: their size is true, their bytes are checked, and nobody ever gets a part of one file and a
part of another.
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import composed, md5, read, until
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from xnatfs.cache.partial import PAGE as HELD_BACK
from xnatfs.config import Limits
from xnatfs.content.stream_tuner import StreamTuner
from xnatfs.demo.model import BytesContent, CatalogEntry, ComputedContent
from xnatfs.demo.server import DemoServer
from xnatfs.vfs import Vfs

MIB = 1 << 20
CATALOGS = "/projects/MESSY/subjects/m03/m03_catalogs/RESOURCES"


@dataclass
class Flaky:
    """A content whose first passes are damaged on their way."""

    data: bytes
    bad_passes: int

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        if offset == 0 and length:
            self.bad_passes -= 1
        piece = self.data[offset : offset + length]
        return piece if self.bad_passes < 0 else bytes(byte ^ 0xFF for byte in piece[:64]) + piece[64:]


def refused(vfs: Vfs, path: str) -> int:
    with pytest.raises(OSError) as caught:
        read(vfs, path)
    assert caught.value.errno is not None
    return caught.value.errno


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"), [("listed_too_big.bin", 150_000), ("listed_too_small.bin", 60_000)]
)
def test_a_wrong_size_is_corrected_on_opening(
    lab: DemoServer, compose: Compose, name: str, told: int
) -> None:
    vfs = compose(lab).vfs
    path = f"{CATALOGS}/SIZES/{name}"
    assert vfs.attributes(path).size == told
    opened = vfs.open(path)
    assert opened.size_changed
    assert vfs.size_of(opened.handle) == vfs.attributes(path).size == 100_000
    assert len(vfs.read(opened.handle, 0, 200_000)) == 100_000
    assert vfs.read(opened.handle, 100_000, 10) == b""
    vfs.release(opened.handle)
    again = vfs.open(path)
    assert again.size_changed  # the kernel may know the catalog's size under another path of the same file
    vfs.release(again.handle)


def test_a_corrected_size_is_known_after_a_remount_even_without_the_cache(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.put(shelf.make.entry("f", b"true", catalog_size=99))
    with composed(shelf.server.url, tmp_path / "m", limits=LIMITS) as mounted:
        assert mounted.vfs.attributes(f"{FOLDER}/f").size == 99
        assert read(mounted.vfs, f"{FOLDER}/f") == b"true"
    shutil.rmtree(tmp_path / "m" / "cache")
    with composed(shelf.server.url, tmp_path / "m", limits=LIMITS) as mounted:
        assert mounted.vfs.attributes(f"{FOLDER}/f").size == 4
    assert shelf.downloads() == 1


def test_files_without_a_length_are_whole_and_get_their_size(lab: DemoServer, compose: Compose) -> None:
    lab.switches.chunked_files = True
    vfs = compose(lab).vfs
    for name in ("listed_too_big.bin", "listed_too_small.bin", "right.bin"):
        opened = vfs.open(f"{CATALOGS}/SIZES/{name}")
        assert vfs.size_of(opened.handle) == 100_000
        vfs.release(opened.handle)
        assert len(read(vfs, f"{CATALOGS}/SIZES/{name}")) == 100_000


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_of_no_bytes(lab: DemoServer, compose: Compose, chunked: bool) -> None:
    lab.switches.chunked_files = chunked
    assert read(compose(lab).vfs, f"{CATALOGS}/TREE/empty.txt") == b""


def test_reads_at_any_place_give_these_bytes(shelf: Shelf, compose: Compose) -> None:
    content = ComputedContent("any", 300_001)
    shelf.put(shelf.make.entry("f", content))
    vfs = compose(shelf.server).vfs
    opened = vfs.open(f"{FOLDER}/f")
    for offset, length in ((0, 1), (299_999, 10), (300_001, 1), (1_000_000, 5), (65_530, 131_072), (7, 0)):
        assert vfs.read(opened.handle, offset, length) == content.read(offset, length)
    vfs.release(opened.handle)


# --- digests ------------------------------------------------------------------------------------------------


def test_a_file_that_was_damaged_once_is_fetched_again_and_right(shelf: Shelf, compose: Compose) -> None:
    data = b"x" * 5000
    shelf.put(CatalogEntry("f", Flaky(data, 1), shelf.archive.clock, digest=md5(data)))
    mounted = compose(shelf.server)
    assert read(mounted.vfs, f"{FOLDER}/f") == data
    assert shelf.downloads() == 2
    assert mounted.vfs.xattr(f"{FOLDER}/f", "user.xnat.verified") == b"md5"


def test_a_digest_that_is_wrong_twice_over_the_same_bytes_is_an_error(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"content", digest="0" * 32))
    mounted = compose(shelf.server)
    assert refused(mounted.vfs, f"{FOLDER}/f") == errno.EIO
    assert shelf.downloads() == 2
    assert refused(mounted.vfs, f"{FOLDER}/f") == errno.EIO
    assert shelf.downloads() == 2  # remembered for a while
    assert "digest" in read(mounted.vfs, "/.xnatfs/errors.txt").decode()
    assert mounted.cache.usage() == (0, 0, 0)


def test_a_wrong_digest_can_be_served_all_the_same(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"content", digest="0" * 32))
    mounted = compose(shelf.server, serve_bad_digests=True)
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    assert shelf.downloads() == 2
    assert mounted.vfs.xattr(f"{FOLDER}/f", "user.xnat.verified") == b"bad digest"


def test_two_files_with_one_content_are_fetched_once(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("a", b"content"))
    shelf.put(shelf.make.entry("b", b"content"))
    vfs = compose(shelf.server).vfs
    assert read(vfs, f"{FOLDER}/a") == read(vfs, f"{FOLDER}/b")
    assert shelf.downloads() == 1


# --- large files --------------------------------------------------------------------------------------------


def test_a_large_file_is_read_while_it_arrives(shelf: Shelf, compose: Compose) -> None:
    content = ComputedContent("large", 12 * MIB)
    shelf.put(shelf.make.entry("f", content))
    mounted = compose(shelf.server)
    shelf.switches.stall_after_bytes, shelf.switches.stall_next = 9 * MIB, 1
    opened = mounted.vfs.open(f"{FOLDER}/f")
    assert mounted.vfs.read(opened.handle, 0, MIB) == content.read(0, MIB)
    assert mounted.vfs.read(opened.handle, 7 * MIB, MIB) == content.read(7 * MIB, MIB)
    assert mounted.content_manager.counts()["transfers"] == 1  # the rest is still on its way
    mounted.vfs.release(opened.handle)


@pytest.mark.parametrize("digest", [True, False])
def test_a_large_file_is_right_to_its_last_byte(shelf: Shelf, compose: Compose, digest: bool) -> None:
    content = ComputedContent("large", 9 * MIB + 17)
    shelf.put(shelf.make.entry("f", content, digest=None if digest else ""))
    mounted = compose(shelf.server)
    assert read(mounted.vfs, f"{FOLDER}/f", MIB) == content.read(0, content.size)
    assert shelf.downloads() <= 5  # a first part, a second, and the rest; or more, to try further streams
    until(lambda: mounted.content_manager.counts()["transfers"] == 0)


def test_the_last_block_of_a_large_file_is_held_back_until_its_digest_agrees(
    shelf: Shelf, compose: Compose
) -> None:
    content = ComputedContent("large", 9 * MIB)
    shelf.put(shelf.make.entry("f", content, digest="0" * 32))
    vfs = compose(shelf.server).vfs
    opened = vfs.open(f"{FOLDER}/f")
    assert vfs.read(opened.handle, 0, HELD_BACK) == content.read(0, HELD_BACK)
    with pytest.raises(OSError) as caught:
        # Where the stream is quicker than this reader, the digest is known to be wrong before the last block
        # is asked for.
        for offset in range(HELD_BACK, content.size, HELD_BACK):
            assert vfs.read(opened.handle, offset, HELD_BACK) == content.read(offset, HELD_BACK)
            assert offset < content.size - HELD_BACK, "the last block was served"
    assert caught.value.errno == errno.EIO
    vfs.release(opened.handle)


def test_a_large_file_that_was_replaced_is_changed_and_no_wrong_digest(
    shelf: Shelf, compose: Compose
) -> None:
    """Between its listing and its first byte: it is another file, whose digest the catalog has by now."""
    content, other = ComputedContent("large", 9 * MIB), ComputedContent("other", 9 * MIB)
    entry = shelf.put(shelf.make.entry("f", content))
    mounted = compose(shelf.server)
    vfs = mounted.vfs
    vfs.entries(FOLDER)

    def replace() -> None:
        entry.content = other

    shelf.server.call(replace)
    mounted.listing_service.clock.advance(60.0)
    opened = vfs.open(f"{FOLDER}/f")
    with pytest.raises(OSError) as caught:
        for offset in range(0, content.size, MIB):
            vfs.read(opened.handle, offset, MIB)
    assert caught.value.errno == errno.ESTALE
    vfs.release(opened.handle)
    assert read(vfs, f"{FOLDER}/f", MIB) == other.read(0, other.size)


def test_a_large_file_that_was_damaged_once_is_never_served_in_two_halves(
    shelf: Shelf, compose: Compose
) -> None:
    good = ComputedContent("large", 9 * MIB)
    data = good.read(0, good.size)
    shelf.put(CatalogEntry("f", Flaky(data, 1), shelf.archive.clock, digest=md5(data)))
    vfs = compose(shelf.server).vfs
    opened = vfs.open(f"{FOLDER}/f")
    came = b""
    try:
        while len(came) < good.size:
            came += vfs.read(opened.handle, len(came), MIB)
    except OSError as error:
        assert error.errno in (errno.ESTALE, errno.EIO)
    else:
        assert came == data
    vfs.release(opened.handle)
    assert read(vfs, f"{FOLDER}/f", MIB) == data


@pytest.mark.parametrize("size", [100_000, 9 * MIB])
@pytest.mark.parametrize("digest", [True, False])
def test_a_cut_connection_does_not_show(shelf: Shelf, compose: Compose, size: int, digest: bool) -> None:
    content = ComputedContent("cut", size)
    shelf.put(shelf.make.entry("f", content, digest=None if digest else ""))
    shelf.switches.cut_after_bytes, shelf.switches.cut_next = size // 2, 2
    assert read(compose(shelf.server).vfs, f"{FOLDER}/f", MIB) == content.read(0, size)
    assert shelf.downloads() == 3 if size < 8 * MIB else 3 <= shelf.downloads() <= 6


def test_a_file_that_is_always_cut_is_an_error_and_nothing_is_kept(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", ComputedContent("cut", 100_000)))
    shelf.switches.cut_after_bytes = 50_000
    mounted = compose(shelf.server)
    assert refused(mounted.vfs, f"{FOLDER}/f") == errno.EIO
    assert shelf.downloads() <= 6
    until(lambda: mounted.cache.usage() == (0, 0, 0))


def test_a_file_that_changes_while_it_is_read_is_stale_and_never_mixed(
    shelf: Shelf, compose: Compose
) -> None:
    old, new = ComputedContent("old", 12 * MIB), ComputedContent("new", 12 * MIB)
    entry = shelf.put(shelf.make.entry("f", old, digest=""))
    vfs = compose(shelf.server).vfs
    shelf.switches.stall_after_bytes, shelf.switches.stall_next = 9 * MIB, 1
    opened = vfs.open(f"{FOLDER}/f")
    assert vfs.read(opened.handle, 0, MIB) == old.read(0, MIB)

    def change() -> None:
        entry.content, entry.modified = new, shelf.archive.tick()

    shelf.server.call(change)
    shelf.server.stop()  # which ends the stalled reply
    shelf.server.start()
    with pytest.raises(OSError) as caught:
        vfs.read(opened.handle, 11 * MIB, MIB)
    assert caught.value.errno == errno.ESTALE
    vfs.release(opened.handle)
    assert read(vfs, f"{FOLDER}/f", MIB) == new.read(0, new.size)


def test_a_server_that_stalls_is_given_up(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"x" * 1000))
    shelf.switches.stall_after_bytes = 10
    vfs = compose(shelf.server, limits=Limits(cache_size=10**9, ttl=3600, progress_deadline=0.3)).vfs
    began = time.monotonic()
    assert refused(vfs, f"{FOLDER}/f") == errno.ETIMEDOUT
    assert time.monotonic() - began < 20


# --- many readers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100_000, 9 * MIB])
def test_many_readers_of_one_file_share_one_download(shelf: Shelf, compose: Compose, size: int) -> None:
    content = ComputedContent("shared", size)
    shelf.put(shelf.make.entry("f", content))
    vfs = compose(shelf.server).vfs
    vfs.attributes(f"{FOLDER}/f")
    shelf.switches.latency_ms = 200
    barrier, digests = threading.Barrier(8), []

    def work() -> None:
        barrier.wait(20)
        digests.append(md5(read(vfs, f"{FOLDER}/f", MIB)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert digests == [md5(content.read(0, size))] * 8
    assert shelf.downloads() == 1 if size < 8 * MIB else shelf.downloads() <= 5
    assert vfs.open_files == 0


def test_who_takes_the_last_connection_asks_for_turns(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that gives way in the middle of an answer throws away what is on its way."""
    monkeypatch.setattr(StreamTuner, "_allowed", lambda self: 1)
    content = ComputedContent("f", 20 * MIB)
    for name in "fg":
        shelf.put(shelf.make.entry(name, content, digest=""))
    limits = Limits(cache_size=10**9, ttl=3600.0, ahead=0)
    mounted = compose(shelf.server, limits=limits)
    workers = mounted.content_manager.context.workers
    assert read(mounted.vfs, f"{FOLDER}/f") == content.read(0, content.size)
    assert longest(shelf, "f") >= 8 * MIB
    done = threading.Event()
    for _ in range(limits.connections - 2):  # one of them is for listings
        workers.submit(done.wait)
    try:
        until(lambda: workers.spare == 1 and not workers.waiting)
        assert read(mounted.vfs, f"{FOLDER}/g") == content.read(0, content.size)
    finally:
        done.set()
    assert longest(shelf, "g") == 4 * MIB and shelf.downloads() <= 5 + 7


def longest(shelf: Shelf, name: str) -> int:
    """The most bytes asked for at once of a file."""
    ranges = [one.range.removeprefix("bytes=").split("-") for one in shelf.server.requests(f"/files/{name}")]
    return max(int(last) + 1 - int(first) for first, last in ranges)


def test_a_download_nobody_waits_for_any_more_is_dropped(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", ComputedContent("dropped", 64 * MIB), digest=""))
    mounted = compose(shelf.server)
    shelf.switches.bandwidth = 10 * MIB
    opened = mounted.vfs.open(f"{FOLDER}/f")
    mounted.vfs.release(opened.handle)
    until(lambda: mounted.content_manager.counts()["transfers"] == 0)
    assert mounted.cache.usage()[2] <= 1 * MIB  # the first part is kept for the next time
    assert mounted.diagnostics.recent() == []


# --- what the server refuses singly -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["50% off.txt", "a;b.txt"])
def test_names_that_only_the_zip_has_can_be_read(shelf: Shelf, compose: Compose, name: str) -> None:
    for path in ("before.txt", name, "after.txt"):
        shelf.put(shelf.make.entry(path, f"this is {path}".encode()))
    assert read(compose(shelf.server).vfs, f"{FOLDER}/{name}") == f"this is {name}".encode()


def test_a_file_below_a_folder_called_zip_can_be_read(lab: DemoServer, compose: Compose) -> None:
    assert read(compose(lab).vfs, f"{CATALOGS}/TREE/x.zip/inside.txt") == b"in a folder called x.zip\n"


def test_a_zip_that_is_cut_is_fetched_again(shelf: Shelf, compose: Compose) -> None:
    content = ComputedContent("zipped", MIB)
    shelf.put(shelf.make.entry("a;b", content))
    shelf.switches.match = "format=zip"
    shelf.switches.cut_after_bytes, shelf.switches.cut_next = MIB // 2, 2
    assert read(compose(shelf.server).vfs, f"{FOLDER}/a;b") == content.read(0, MIB)


def test_a_file_that_the_zip_lacks_too_is_gone(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("a;b", b"data"))
    shelf.put(shelf.make.entry("other", b"data"))
    shelf.switches.zip_omit = ["a;b"]
    assert refused(compose(shelf.server).vfs, f"{FOLDER}/a;b") == errno.EIO


def test_a_listed_file_that_is_not_there_is_an_io_error_and_its_neighbours_are_not(
    lab: DemoServer, compose: Compose
) -> None:
    vfs = compose(lab).vfs
    assert refused(vfs, f"{CATALOGS}/GONE/gone.bin") == errno.EIO
    assert len(read(vfs, f"{CATALOGS}/GONE/there.bin")) == 20


def test_a_login_that_expires_between_reads_does_not_show(shelf: Shelf, compose: Compose) -> None:
    for number in range(5):
        shelf.put(shelf.make.entry(f"f{number}", f"content {number}".encode()))
    vfs = compose(shelf.server).vfs
    for number in range(5):
        shelf.server.expire_sessions()
        assert read(vfs, f"{FOLDER}/f{number}") == f"content {number}".encode()


def test_an_html_page_in_place_of_content_is_never_served(shelf: Shelf, compose: Compose) -> None:
    shelf.put(CatalogEntry("f", BytesContent(b"content"), shelf.archive.clock))
    vfs = compose(shelf.server).vfs
    vfs.attributes(f"{FOLDER}/f")
    shelf.switches.html_instead = 1
    assert read(vfs, f"{FOLDER}/f") == b"content"


@pytest.mark.parametrize("after", [0, 10_000])
@pytest.mark.parametrize("size", [30_000, 9 * MIB])
def test_a_chunked_answer_that_ends_early_is_not_taken_for_the_whole(
    shelf: Shelf, compose: Compose, size: int, after: int
) -> None:
    """No length, no digest, a valid end: only the size in the catalog tells that something is missing."""
    content = ComputedContent("f", size)
    shelf.put(shelf.make.entry("f", content, digest=""))
    shelf.switches.chunked_files = shelf.switches.no_range = True
    vfs = compose(shelf.server).vfs
    shelf.switches.match, shelf.switches.truncate_after_bytes, shelf.switches.truncate_next = (
        "/files/f",
        after,
        2 if size > 8 * MIB else 1,
    )
    assert read(vfs, f"{FOLDER}/f", MIB) == content.read(0, size)
    assert shelf.switches.truncate_next == 0, "nothing was shown"


def test_a_wrong_size_in_the_catalog_is_corrected_without_a_length_too(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("f", b"content", digest="", catalog_size=99))
    shelf.switches.chunked_files = True
    vfs = compose(shelf.server).vfs
    assert read(vfs, f"{FOLDER}/f") == b"content"
    assert vfs.attributes(f"{FOLDER}/f").size == 7
    assert shelf.downloads() == 2
