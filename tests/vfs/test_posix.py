"""The tree as a POSIX file system: errors, handles, attributes, deadlines."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

import pytest

from tests.support import read, until
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.concurrency.waiting import interruptible
from xnatfs.config import Limits
from xnatfs.demo.server import DemoServer
from xnatfs.vfs import Attributes, Vfs


@pytest.fixture
def vfs(shelf: Shelf, compose: Compose) -> Vfs:
    shelf.put(shelf.make.entry("f", b"content"))
    shelf.put(shelf.make.entry("folder/g", b"deep"))
    return compose(shelf.server).vfs


def error(work: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        work()
    return caught.value.errno


def test_what_is_not_there_is_enoent(vfs: Vfs) -> None:
    for path in (
        "/no",
        "/projects/NO",
        "/projects/P/no",
        "/projects/P/subjects/no",
        f"{FOLDER}/no",
        f"{FOLDER}/folder/no",
    ):
        assert error(lambda path=path: vfs.attributes(path)) == errno.ENOENT
        assert error(lambda path=path: vfs.open(path)) == errno.ENOENT
        assert error(lambda path=path: vfs.entries(path)) == errno.ENOENT


def test_a_file_is_no_folder_and_a_folder_no_file(vfs: Vfs) -> None:
    assert error(lambda: vfs.entries(f"{FOLDER}/f")) == errno.ENOTDIR
    assert error(lambda: vfs.attributes(f"{FOLDER}/f/x")) == errno.ENOTDIR
    assert error(lambda: vfs.open(FOLDER)) == errno.EISDIR
    assert error(lambda: vfs.open("/")) == errno.EISDIR


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_APPEND, os.O_CREAT])
def test_any_way_of_writing_is_refused(vfs: Vfs, flags: int) -> None:
    assert error(lambda: vfs.open(f"{FOLDER}/f", flags)) == errno.EROFS
    assert vfs.open_files == 0


@pytest.mark.parametrize(
    ("name", "code"),
    [("n" * 255, errno.ENOENT), ("n" * 256, errno.ENAMETOOLONG), ("é" * 128, errno.ENAMETOOLONG)],
)
def test_names_over_255_bytes_are_too_long(vfs: Vfs, name: str, code: int) -> None:
    assert error(lambda: vfs.attributes(f"/{name}")) == code
    assert error(lambda: vfs.attributes(f"{FOLDER}/{name}")) == code


def test_slashes_too_many_do_no_harm(vfs: Vfs) -> None:
    assert vfs.attributes(f"//{FOLDER}//folder/").inode == vfs.attributes(f"{FOLDER}/folder").inode


@pytest.mark.parametrize(
    "name", [".Trash", ".Trash-1000", ".hidden", "._x", ".DS_Store", ".git", "desktop.ini", ".~lock.x.csv#"]
)
def test_what_desktops_probe_for_costs_no_request(vfs: Vfs, shelf: Shelf, name: str) -> None:
    vfs.attributes("/")
    shelf.server.clear_log()
    for folder in ("", "/projects", "/projects/P", "/projects/P/subjects/s/S"):
        assert error(lambda folder=folder: vfs.attributes(f"{folder}/{name}")) == errno.ENOENT
    assert [one for one in shelf.server.requests() if name in one.target] == []


def test_indexers_are_kept_out_by_files_nobody_sees(vfs: Vfs) -> None:
    for name in (".metadata_never_index", ".trackerignore", ".nomedia"):
        assert vfs.attributes(f"/{name}").size == 0
        assert read(vfs, f"/{name}") == b""
        assert name not in dict(vfs.entries("/"))


def test_nothing_hides_files_from_a_search_that_somebody_asks_for(vfs: Vfs) -> None:
    """`rg` and `fd` obey these from a folder above and for a folder that is named alike; `tar` and `borg`
    leave out what the last one marks.
    """
    for name in (".ignore", ".rgignore", ".fdignore", ".gitignore", "CACHEDIR.TAG"):
        assert error(lambda name=name: vfs.attributes(f"/{name}")) == errno.ENOENT


# --- handles ------------------------------------------------------------------------------------------------


def test_handles_are_independent_of_each_other(vfs: Vfs) -> None:
    one, other = vfs.open(f"{FOLDER}/f"), vfs.open(f"{FOLDER}/f")
    assert one.handle != other.handle
    assert vfs.open_files == 2
    vfs.release(one.handle)
    assert vfs.read(other.handle, 3, 100) == b"tent"
    vfs.release(other.handle)
    assert vfs.open_files == 0


def test_a_closed_handle_is_bad(vfs: Vfs) -> None:
    opened = vfs.open(f"{FOLDER}/f")
    vfs.release(opened.handle)
    vfs.release(opened.handle)
    assert error(lambda: vfs.read(opened.handle, 0, 1)) == errno.EBADF
    assert error(lambda: vfs.size_of(opened.handle)) == errno.EBADF
    assert error(lambda: vfs.read(4711, 0, 1)) == errno.EBADF


def test_a_failed_opening_leaves_no_handle(vfs: Vfs, shelf: Shelf) -> None:
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "/files/", 403, -1
    vfs.attributes(f"{FOLDER}/f")
    assert error(lambda: vfs.open(f"{FOLDER}/f")) == errno.EACCES
    assert vfs.open_files == 0


# --- attributes ---------------------------------------------------------------------------------------------


def test_listings_carry_the_attributes_of_every_entry(vfs: Vfs) -> None:
    for folder in ("/", "/projects/P/subjects/s/S", FOLDER):
        for name, attributes in vfs.entries(folder):
            assert attributes == vfs.attributes(f"{folder.rstrip('/')}/{name}")


def test_blocks_cover_the_size() -> None:
    assert [Attributes(0, 1, size, 0, 1).blocks for size in (0, 1, 512, 513)] == [0, 1, 1, 2]


def test_inode_numbers_rise_in_catalog_order(shelf: Shelf, compose: Compose) -> None:
    order = ["z", "a", "m/2", "m/1", "b"]
    for name in order:
        shelf.put(shelf.make.entry(name, name.encode()))
    vfs = compose(shelf.server).vfs
    inodes = [vfs.attributes(f"{FOLDER}/{name}").inode for name in order]
    assert inodes == sorted(set(inodes))
    assert all(inode < 1 << 63 for inode in inodes)


def test_files_are_dated_as_their_session_was_archived(vfs: Vfs, shelf: Shelf) -> None:
    told = vfs.attributes(f"{FOLDER}/f").mtime
    assert told == vfs.attributes("/projects/P/subjects/s/S").mtime == vfs.attributes(FOLDER).mtime
    assert abs(told - shelf.session.insert_date.timestamp()) <= 86400


def test_xattrs_say_what_the_server_says_without_asking_it(vfs: Vfs, shelf: Shelf) -> None:
    vfs.attributes(f"{FOLDER}/f")
    shelf.server.clear_log()
    values = {name: vfs.xattr(f"{FOLDER}/f", name).decode() for name in vfs.xattrs(f"{FOLDER}/f")}
    assert shelf.server.requests() == []
    assert values["user.xnat.project"] == "P"
    assert values["user.xnat.subject"] == "s"
    assert values["user.xnat.id"] == shelf.session.id
    assert values["user.xnat.resource_id"] == str(shelf.resource.id)
    assert values["user.xnat.uri"].endswith(f"/resources/{shelf.resource.id}/files/f")
    assert len(values["user.xnat.digest"]) == 32
    assert values["user.xnat.name"] == "f"


def test_xattrs_of_this_machines_cache_are_not_listed_so_that_no_copy_takes_them(vfs: Vfs) -> None:
    path = f"{FOLDER}/f"
    for expected in ((b"no", b"no"), (b"yes", b"md5")):
        assert (vfs.xattr(path, "user.xnat.cached"), vfs.xattr(path, "user.xnat.verified")) == expected
        assert not {"user.xnat.cached", "user.xnat.verified"} & set(vfs.xattrs(path))
        vfs.release(vfs.open(path).handle)


def test_xattrs_of_scans_and_folders(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    path = "/archive/projects/MESSY/experiments/m01_scans/SCANS/2-MR1"
    assert vfs.xattr(path, "user.xnat.scan") == b"2-MR1"
    assert vfs.xattr(path, "user.xnat.scan_type") == b"T1"
    assert vfs.xattr("/projects/MESSY", "user.xnat.uri") == b"/data/projects/MESSY"
    assert vfs.xattrs("/") == []
    assert error(lambda: vfs.xattr(path, "user.xnat.nothing")) == errno.ENODATA
    assert error(lambda: vfs.xattr(path, "security.capability")) == errno.ENODATA
    assert error(lambda: vfs.xattr("/no", "user.xnat.id")) == errno.ENOENT


# --- deadlines and interrupts -------------------------------------------------------------------------------


def test_an_interrupted_listing_ends_at_once_and_can_be_asked_again(shelf: Shelf, compose: Compose) -> None:
    mounted = compose(shelf.server)
    shelf.switches.listing_delay_ms = 1500
    interrupted = threading.Event()
    codes: list[int | None] = []

    def work() -> None:
        with interruptible(interrupted.is_set):
            codes.append(error(lambda: mounted.vfs.entries("/projects/P/subjects")))

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: mounted.connection.slots.in_use)
    interrupted.set()
    thread.join(10)
    assert codes == [errno.EINTR]
    assert mounted.diagnostics.recent() == []
    shelf.switches.listing_delay_ms = 0
    assert [name for name, _ in mounted.vfs.entries("/projects/P/subjects")] == ["s"]


def test_an_interrupted_reading_ends_at_once_and_leaves_nothing_open(vfs: Vfs, shelf: Shelf) -> None:
    vfs.attributes(f"{FOLDER}/f")
    shelf.switches.stall_after_bytes = 0
    with interruptible(lambda: bool(shelf.server.requests("/files/f"))):
        assert error(lambda: vfs.open(f"{FOLDER}/f")) == errno.EINTR
    assert vfs.open_files == 0


def test_a_listing_that_never_comes_times_out(shelf: Shelf, compose: Compose) -> None:
    vfs = compose(shelf.server, limits=Limits(listing_deadline=0.3, progress_deadline=5)).vfs
    shelf.switches.listing_delay_ms = 20_000
    assert error(lambda: vfs.entries("/projects")) == errno.ETIMEDOUT


def test_a_listing_does_not_wait_behind_downloads_that_stall(shelf: Shelf, compose: Compose) -> None:
    for number in range(6):
        shelf.put(shelf.make.entry(f"f{number}", bytes([number]) * 1000))
    vfs = compose(shelf.server, limits=Limits(connections=3, ttl=0.0, progress_deadline=20)).vfs
    vfs.attributes(f"{FOLDER}/f0")
    shelf.switches.stall_after_bytes = 10
    ended = threading.Event()

    def work(number: int) -> None:
        with interruptible(ended.is_set):
            error(lambda: vfs.open(f"{FOLDER}/f{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(shelf.server.requests("/files/f")) >= 2)
    assert [name for name, _ in vfs.entries("/projects/P/subjects")] == ["s"]
    ended.set()
    for thread in threads:
        thread.join(20)
    assert vfs.open_files == 0
