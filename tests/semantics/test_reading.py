"""Reading: the true bytes or an error, without a mount."""

from __future__ import annotations

import errno
import threading

import pytest

from tests.semantics.conftest import MIB, refused
from tests.semantics.quoting import rule
from tests.support import md5, read, until
from tests.vfs.conftest import FOLDER, Compose, Shelf
from tests.vfs.test_reading import Flaky
from xnatfs.demo.model import CatalogEntry, ComputedContent

FILE = f"{FOLDER}/file"
HELD_BACK = 128 * 1024
SIZES = [100_000, 9 * MIB]


@rule(
    "3.1",
    "A read returns the true bytes of the file or an error. It is short only at the end of the file, and "
    "never padded with zeros.",
)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("told", [-5000, 0, 5000])
def test_a_read_is_short_at_the_end_only(shelf: Shelf, compose: Compose, size: int, told: int) -> None:
    content = ComputedContent("file", size)
    shelf.put(shelf.make.entry("file", content, catalog_size=size + told))
    vfs = compose(shelf.server).vfs
    opened = vfs.open(FILE)
    for offset, length in (
        (0, 1),
        (size // 2, 70_000),
        (size - 10, 10),
        (size - 10, 5000),
        (size, 10),
        (size + 4000, 10),
    ):
        assert vfs.read(opened.handle, offset, length) == content.read(offset, length)
    vfs.release(opened.handle)
    assert read(vfs, FILE) == content.read(0, size)


@rule(
    "3.1",
    "A read returns the true bytes of the file or an error. It is short only at the end of the file, and "
    "never padded with zeros.",
)
def test_a_body_that_always_ends_early_is_an_error(shelf: Shelf, compose: Compose) -> None:
    size = 9 * MIB
    content = ComputedContent("file", size)
    shelf.put(shelf.make.entry("file", content))
    vfs = compose(shelf.server).vfs
    shelf.switches.truncate_after_bytes = 50_000
    came = b""

    def look() -> None:
        nonlocal came
        opened = vfs.open(FILE)
        try:
            while piece := vfs.read(opened.handle, len(came), 131_072):
                came += piece
        finally:
            vfs.release(opened.handle)

    assert refused(look) == errno.EIO
    assert came == content.read(0, len(came)) and len(came) < size


@rule(
    "3.2",
    "A file of up to 8 MiB is compared with the server's MD5 before its first byte is served. A larger one "
    "that is read from start to end is compared as it arrives, and its last 128 KiB are served once the "
    "MD5 agrees.",
)
def test_a_small_file_is_checked_before_its_first_byte_and_the_end_of_a_large_one(
    shelf: Shelf, compose: Compose
) -> None:
    content = ComputedContent("large", 9 * MIB)
    shelf.put(shelf.make.entry("small", ComputedContent("small", 8 * MIB), digest="0" * 32))
    shelf.put(shelf.make.entry("large", content, digest="0" * 32))
    vfs = compose(shelf.server).vfs
    assert refused(lambda: vfs.open(f"{FOLDER}/small")) == errno.EIO
    opened = vfs.open(f"{FOLDER}/large")
    came = b""

    def to_the_end() -> None:
        nonlocal came
        while piece := vfs.read(opened.handle, len(came), HELD_BACK):
            came += piece

    assert refused(to_the_end) == errno.EIO
    assert content.read(0, len(came)) == came and 0 < len(came) <= content.size - HELD_BACK
    vfs.release(opened.handle)


@rule(
    "3.3",
    "Where the server has no MD5, the size is compared. Where only parts of a file are read, size and date "
    "are. `getfattr -n user.xnat.verified FILE` shows which check was made.",
)
def test_how_a_file_was_checked_is_said(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("with", b"with"))
    shelf.put(shelf.make.entry("without", b"without", digest=""))
    shelf.put(shelf.make.entry("large", ComputedContent("large", 20 * MIB)))

    def verified(name: str, offset: int) -> bytes:
        vfs = compose(
            shelf.server, name
        ).vfs  # each in a mount of its own: files that are opened in a row come as a zip
        opened = vfs.open(f"{FOLDER}/{name}")
        vfs.read(opened.handle, offset, 100)
        vfs.release(opened.handle)
        return vfs.xattr(f"{FOLDER}/{name}", "user.xnat.verified")

    assert [verified("with", 0), verified("without", 0), verified("large", 10 * MIB)] == [
        b"md5",
        b"size",
        b"no",
    ]


@rule(
    "3.3",
    "Where the server has no MD5, the size is compared. Where only parts of a file are read, size and date "
    "are. `getfattr -n user.xnat.verified FILE` shows which check was made.",
)
def test_a_part_of_another_file_is_not_taken_for_a_part_of_this_one(shelf: Shelf, compose: Compose) -> None:
    content = ComputedContent("before", 20 * MIB)
    entry = shelf.put(shelf.make.entry("file", content, digest=""))
    vfs = compose(shelf.server).vfs
    opened = vfs.open(FILE)
    assert vfs.read(opened.handle, 0, 100) == content.read(0, 100)

    def overwrite() -> None:  # equal in size; only the date tells
        entry.content, entry.modified = ComputedContent("after", 20 * MIB), shelf.archive.tick()

    shelf.server.call(overwrite)
    assert refused(lambda: vfs.read(opened.handle, 15 * MIB, 100)) == errno.ESTALE
    vfs.release(opened.handle)


CURED = {
    "cut": {"cut_after_bytes": 30_000, "cut_next": 2},
    "429": {"fail_next": 2, "fail_status": 429, "retry_after": "0"},
    "500": {"fail_next": 1, "fail_status": 500},
    "503": {"fail_next": 2},
    "a web page": {"html_instead": 1},
    "short": {"truncate_after_bytes": 30_000, "truncate_next": 2},
}


@rule(
    "3.4",
    "Failures that a retry fixes are not visible: a damaged or cut answer, an expired login, a temporary "
    "429, 500 or 503.",
)
@pytest.mark.parametrize("trouble", CURED)
@pytest.mark.parametrize("size", SIZES)
def test_what_a_second_try_cures_is_not_seen(shelf: Shelf, compose: Compose, trouble: str, size: int) -> None:
    content = ComputedContent("file", size)
    shelf.put(shelf.make.entry("file", content))
    vfs = compose(shelf.server).vfs
    vfs.attributes(FILE)
    shelf.switches.update({"match": "/files/file", **CURED[trouble]})
    assert read(vfs, FILE, MIB) == content.read(0, size)


@rule(
    "3.4",
    "Failures that a retry fixes are not visible: a damaged or cut answer, an expired login, a temporary "
    "429, 500 or 503.",
)
def test_an_expired_login_and_a_damaged_answer_are_not_seen(shelf: Shelf, compose: Compose) -> None:
    data = b"x" * 5000
    shelf.put(CatalogEntry("file", Flaky(data, 1), shelf.archive.clock, digest=md5(data)))
    vfs = compose(shelf.server).vfs
    vfs.attributes(FILE)
    shelf.server.expire_sessions()
    assert read(vfs, FILE) == data
    assert shelf.downloads() >= 2


@rule(
    "3.5",
    "A file that differs from the server's MD5 twice in the same way returns EIO, and none of it is served "
    "(of a larger file, not its end). With `--bad-digest=serve` it can be read.",
)
def test_a_wrong_digest_is_refused_or_served_if_asked_for(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content", digest="0" * 32))
    assert refused(lambda: read(compose(shelf.server).vfs, FILE)) == errno.EIO
    assert read(compose(shelf.server, "serve", serve_bad_digests=True).vfs, FILE) == b"content"


@rule("3.6", "A file that the server lists but does not have returns EIO; its neighbours can be read.")
def test_a_lost_file_is_an_error_and_its_neighbours_are_not(shelf: Shelf, compose: Compose) -> None:
    shelf.put(CatalogEntry("lost", None, shelf.archive.clock, catalog_size=4))
    shelf.put(shelf.make.entry("there", b"there"))
    vfs = compose(shelf.server).vfs
    assert [name for name, _ in vfs.entries(FOLDER)] == ["lost", "there"]
    assert refused(lambda: vfs.open(f"{FOLDER}/lost")) == errno.EIO
    assert read(vfs, f"{FOLDER}/there") == b"there"


@rule("3.7", "A login page, or any web page sent instead of a file, is never served as the file.")
def test_a_web_page_is_never_a_file(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content", digest=""))
    vfs = compose(shelf.server).vfs
    vfs.attributes(FILE)
    shelf.switches.update({"match": "/files/file", "html_instead": -1})
    assert refused(lambda: read(vfs, FILE)) == errno.EIO
    shelf.switches.html_instead = 0
    assert read(vfs, FILE) == b"content"


@rule("3.8", "Programs that read the same file at the same time share one download.")
def test_readers_share_a_download(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", ComputedContent("file", 100_000)))
    vfs = compose(shelf.server).vfs
    vfs.attributes(FILE)
    shelf.switches.latency_ms = 300
    readers = [threading.Thread(target=read, args=(vfs, FILE)) for _ in range(6)]
    for one in readers:
        one.start()
    for one in readers:
        one.join(60)
    assert shelf.downloads() == 1


@rule(
    "3.9",
    "Reading the first 256 KiB of a large file, which is more than any header, fetches at most 512 KiB of "
    "it.",
)
def test_the_head_of_a_large_file_costs_no_more(shelf: Shelf, compose: Compose) -> None:
    content = ComputedContent("file", 40 * MIB)
    shelf.put(shelf.make.entry("file", content))
    mounted = compose(shelf.server)
    opened = mounted.vfs.open(FILE)
    for offset in range(0, 256 * 1024, HELD_BACK):
        assert mounted.vfs.read(opened.handle, offset, HELD_BACK) == content.read(offset, HELD_BACK)
    mounted.vfs.release(opened.handle)
    until(lambda: mounted.content_manager.counts()["transfers"] == 0)
    assert sum(record.sent for record in shelf.server.requests("/files/file")) <= 512 * 1024
