"""The translation for FUSE, with a file system that only remembers what it was asked, and without a mount."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from xnatfs.concurrency import waiting
from xnatfs.config import Limits
from xnatfs.errors import Cause, Failure
from xnatfs.fuse import adapter as fuse
from xnatfs.tree.node import LARGER_THAN_ANY_TABLE, inode_of
from xnatfs.vfs import Attributes, Opened

FILE = Attributes(stat.S_IFREG | 0o444, 77, 1025, 1709618828.62, 1)
FOLDER = Attributes(stat.S_IFDIR | 0o555, 78, 4096, 0.0, 2)


class FakeVfs:
    """Answers like a `Vfs`."""

    def __init__(self) -> None:
        self.opened = Opened(5, False, "v1")
        self.released: list[int] = []
        self.walked: list[bool] = []
        self.listed = [("a", FILE), ("b\udcff", FOLDER)]
        self.interrupted: Callable[[], bool] | None = None

    def attributes(self, path: str) -> Attributes:
        self.interrupted = getattr(waiting._local, "interrupted", None)
        if path == "/gone":
            raise Failure(Cause.NO_ENTRY, path)
        return FILE

    def entries(self, path: str, *, walking: bool = False) -> list[tuple[str, Attributes]]:
        self.walked.append(walking)
        return list(self.listed)

    def open(self, path: str, flags: int) -> Opened:
        if flags & os.O_WRONLY:
            raise Failure(Cause.READ_ONLY, path)
        return self.opened

    def read(self, handle: int, offset: int, length: int) -> bytes:
        return f"{handle} {offset} {length}".encode()

    def release(self, handle: int) -> None:
        self.released.append(handle)

    def room(self) -> tuple[int, int]:
        return 10 * 4096 + 5, 4095

    def xattr(self, path: str, name: str) -> bytes:
        return name.encode()

    def xattrs(self, path: str) -> list[str]:
        return ["user.xnat.id"]


@pytest.fixture
def vfs() -> FakeVfs:
    return FakeVfs()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """libfuse may only be asked from one of its own threads: here it is replaced."""
    context = SimpleNamespace(contents=SimpleNamespace(fuse=4711))
    fake = SimpleNamespace(interrupts=0, invalidated=[])
    fake.fuse_interrupted = lambda: fake.interrupts
    fake.fuse_get_context = lambda: context
    fake.fuse_invalidate_path = lambda handle, path: fake.invalidated.append((handle, path))
    monkeypatch.setattr(fuse, "_library", fake)
    return fake


@pytest.fixture
def adapter(vfs: FakeVfs, library: SimpleNamespace) -> fuse.Adapter:
    return fuse.Adapter(vfs, Limits(kernel_ttl=12.0), 1001, 1002, lambda: None)  # type: ignore[arg-type]


def info(flags: int = os.O_RDONLY) -> Any:
    return SimpleNamespace(flags=flags, fh=0, keep_cache=-1)


def test_attributes_belong_to_the_mounting_user_and_count_blocks(adapter: fuse.Adapter) -> None:
    told = adapter.getattr("/a")
    assert (told["st_uid"], told["st_gid"], told["st_mode"], told["st_ino"], told["st_nlink"]) == (
        1001,
        1002,
        FILE.mode,
        77,
        1,
    )
    assert (told["st_size"], told["st_blocks"]) == (1025, 3)
    assert told["st_mtime"] // 10**9 == 1709618828
    assert told["st_mtime"] == told["st_ctime"] == told["st_atime"]


def test_a_failure_keeps_its_errno(adapter: fuse.Adapter) -> None:
    with pytest.raises(OSError) as caught:
        adapter.getattr("/gone")
    assert caught.value.errno == errno.ENOENT


def test_a_struct_stat_is_filled_for_readdirplus(adapter: fuse.Adapter) -> None:
    filled = adapter.stat_format.new()
    adapter.stat_format.fill(filled, FILE, None)
    assert (filled.st_size, filled.st_blocks, filled.st_ino, filled.st_mode, filled.st_nlink) == (
        1025,
        3,
        77,
        FILE.mode,
        1,
    )
    assert (filled.st_uid, filled.st_gid) == (1001, 1002)
    assert filled.st_mtimespec.tv_sec == 1709618828
    assert filled.st_mtimespec.tv_nsec == pytest.approx(620_000_000, abs=1000)


def test_who_walks_opens_folders_as_fts_does(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    adapter.opendir("/", os.O_NOFOLLOW | os.O_DIRECTORY | os.O_NONBLOCK)  # find, du, grep -r
    adapter.opendir("/", os.O_NOFOLLOW | os.O_NONBLOCK)  # tar, rsync
    adapter.opendir("/", os.O_DIRECTORY | os.O_NONBLOCK)  # ls, cp, Python
    assert vfs.walked == [True, False, False]


def listing(adapter: fuse.Adapter, handle: int, room: int, flags: int = 1) -> list[tuple[bytes, bool, int]]:
    """All entries, asked for in buffers of `room` entries as the kernel does."""
    got: list[tuple[bytes, bool, int]] = []
    offset = 0
    while True:
        before = len(got)

        def add(name: bytes, attributes: Attributes | None, next_offset: int, before: int = before) -> bool:
            if len(got) - before >= room:
                return False
            got.append((name, attributes is not None, next_offset))
            return True

        adapter.fill(handle, offset, flags, add)
        if len(got) == before:
            return got
        offset = got[-1][2]


@pytest.mark.parametrize("room", [1, 2, 3, 100])
def test_a_folder_is_told_whole_in_buffers_of_any_size(adapter: fuse.Adapter, room: int) -> None:
    handle = adapter.opendir("/")
    assert listing(adapter, handle, room) == [
        (b".", False, 1),
        (b"..", False, 2),
        (b"a", True, 3),
        (b"b\xff", True, 4),
    ]
    adapter.releasedir("/", handle)
    adapter.releasedir("/", handle)


def test_a_listing_under_way_does_not_change_with_the_folder(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    first = adapter.opendir("/")
    vfs.listed.append(("new", FILE))
    second = adapter.opendir("/")
    assert len(listing(adapter, first, 100)) == 4
    assert len(listing(adapter, second, 100)) == 5
    assert adapter.readdir("/", first) == ["a", "b\udcff"]


def test_a_rewound_folder_is_told_as_it_is_now(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    handle = adapter.opendir("/")
    assert len(listing(adapter, handle, 100)) == 4
    vfs.listed.append(("new", FILE))
    assert len(listing(adapter, handle, 2)) == 5


def test_two_versions_of_one_path_do_not_share_pages(
    adapter: fuse.Adapter, vfs: FakeVfs, library: SimpleNamespace
) -> None:
    def opened(number: int, version: str, size: int) -> Any:
        vfs.opened = Opened(number, False, version, size)
        asked = info()
        adapter.open("/a", asked)
        return asked

    old = opened(5, "v1", 2000)
    assert (opened(6, "v1", 2000).direct_io, old.direct_io) == (0, 0)
    new = opened(7, "v2", 1025)
    assert (new.direct_io, new.keep_cache) == (1, 1)
    assert adapter.getattr("/a")["st_size"] == 2000
    told: list[int] = []
    adapter.fill(
        adapter.opendir("/"),
        2,
        1,
        lambda name, attributes, offset: told.append(attributes.size if attributes else -1) or True,
    )
    assert told == [2000, 4096]
    library.invalidated.clear()
    adapter.release("/a", new)
    adapter.release("/a", SimpleNamespace(fh=6))
    assert library.invalidated == []
    adapter.release("/a", old)
    assert [path for _, path in library.invalidated] == [b"/a"] * (fuse.LIBFUSE >= (3, 2))
    assert adapter.getattr("/a")["st_size"] == 1025
    again = opened(8, "v2", 1025)
    assert (again.direct_io, again.keep_cache) == (0, 0)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [("k 0 ", "k 0 5", 0), ("k 0 5", "k 0 ", 0), ("k 0 ", "k 1 ", 1), ("k 5", "k 6", 1)],
)
def test_a_stamp_that_is_not_known_is_no_other_version(
    adapter: fuse.Adapter, vfs: FakeVfs, one: str, other: str, apart: int
) -> None:
    vfs.opened = Opened(5, False, one, 10)
    adapter.open("/a", info())
    vfs.opened = Opened(6, False, other, 10)
    second = info()
    adapter.open("/a", second)
    assert second.direct_io == apart


def test_contents_that_nothing_names_never_share_pages(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    vfs.opened = Opened(5, False, "", 10)
    first, second = info(), info()
    adapter.open("/a", first)
    vfs.opened = Opened(6, False, "", 10)
    adapter.open("/a", second)
    assert (first.direct_io, second.direct_io) == (0, 1)


def test_a_reader_is_not_given_zeros_behind_the_end_of_its_version(
    adapter: fuse.Adapter, vfs: FakeVfs
) -> None:
    vfs.opened = Opened(5, False, "v1", 1000)
    adapter.open("/a", info())
    asked = SimpleNamespace(fh=5)
    assert adapter.read("/a", 4096, 0, asked) == b"5 0 4096"
    assert adapter.getattr("/a")["st_size"] == 1025  # another version, and a larger one
    with pytest.raises(OSError) as caught:
        adapter.read("/a", 4096, 0, asked)
    assert caught.value.errno == errno.ESTALE
    adapter.release("/a", asked)
    adapter.open("/a", info())
    assert adapter.read("/a", 4096, 0, asked) == b"5 0 4096"


def test_numbers_are_folded_into_32_bits() -> None:
    """Those of a resource stay different and in order; the folders around it get others."""
    shown = fuse.StatFormat(1, 2, inode32=True)
    base = inode_of("resource", "17")
    files = [shown.as_dict(FILE._replace(inode=base + 1 + n))["st_ino"] for n in range(1000)]
    assert all(0 < number < 1 << 32 for number in files)
    assert [(number - files[0]) % (1 << 32) for number in files] == list(range(1000))
    filled = shown.new()
    shown.fill(filled, FILE._replace(inode=base + 1), None)
    assert filled.st_ino == files[0]
    many = {
        shown.as_dict(FILE._replace(inode=number))["st_ino"]
        for number in [*(inode_of("r", str(n)) for n in range(1000)), *range(1 << 32, (1 << 32) + 1000)]
    }
    assert len(many) > 1990
    assert fuse.StatFormat(1, 2).as_dict(FILE._replace(inode=base))["st_ino"] == base > 1 << 32


def test_the_size_of_what_nobody_made_yet_breaks_no_reader(
    adapter: fuse.Adapter, vfs: FakeVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs.opened = Opened(5, False, "v1", 1000)
    adapter.open("/a", info())
    monkeypatch.setattr(vfs, "attributes", lambda path: FILE._replace(size=LARGER_THAN_ANY_TABLE))
    assert adapter.getattr("/a")["st_size"] == 1000
    asked = SimpleNamespace(fh=5)
    assert adapter.read("/a", 4096, 0, asked) == b"5 0 4096"
    adapter.release("/a", asked)
    told = adapter.getattr("/a")
    assert (told["st_size"], told["st_blocks"]) == (LARGER_THAN_ANY_TABLE, 0)


def test_listings_with_attributes_are_counted(adapter: fuse.Adapter) -> None:
    handle = adapter.opendir("/")
    listing(adapter, handle, 100, flags=0)
    assert adapter.counts["readdirplus"] == 0
    listing(adapter, handle, 100, flags=1)
    assert adapter.counts["readdirplus"] > 0


def test_pages_are_kept_only_while_the_version_stays(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    def kept() -> int:
        asked = info()
        assert adapter.open("/a", asked) == 0
        assert asked.fh == vfs.opened.handle
        adapter.release("/a", asked)
        return int(asked.keep_cache)

    assert [kept(), kept()] == [0, 1]
    vfs.opened = Opened(6, False, "v2")
    assert [kept(), kept()] == [0, 1]
    vfs.opened = Opened(7, False, "")
    assert [kept(), kept()] == [0, 0]


@pytest.mark.skipif(fuse.LIBFUSE < (3, 2), reason="libfuse 2 cannot correct sizes")
def test_a_size_that_changed_is_corrected_in_the_kernel(
    adapter: fuse.Adapter, vfs: FakeVfs, library: SimpleNamespace
) -> None:
    adapter.open("/é", info())
    library.invalidated.clear()
    adapter.open("/é", info())
    assert library.invalidated == []  # the same version again: the kernel knows it
    vfs.opened = Opened(6, True, "v1")
    adapter.open("/é", info())
    assert library.invalidated == [(4711, "/é".encode())]


@pytest.mark.skipif(fuse.LIBFUSE < (3, 2), reason="libfuse 2 cannot correct sizes")
def test_the_other_path_of_a_file_is_corrected_too(
    adapter: fuse.Adapter, vfs: FakeVfs, library: SimpleNamespace
) -> None:
    vfs.opened = Opened(6, True, "v1")
    adapter.open("/projects/a", info())
    library.invalidated.clear()
    adapter.open("/archive/a", info())
    assert library.invalidated == [(4711, b"/archive/a")]


def test_writing_is_refused(adapter: fuse.Adapter) -> None:
    with pytest.raises(OSError) as caught:
        adapter.open("/a", info(os.O_WRONLY))
    assert caught.value.errno == errno.EROFS


def test_reading_and_closing_go_by_the_handle(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    asked = SimpleNamespace(fh=9)
    assert adapter.read("/a", 100, 7, asked) == b"9 7 100"
    assert adapter.release("/a", asked) == 0
    assert vfs.released == [9]


def test_foreign_attributes_are_refused_without_a_look(adapter: fuse.Adapter) -> None:
    for name in ("security.capability", "system.posix_acl_access", "user.other"):
        with pytest.raises(OSError) as caught:
            adapter.getxattr("/gone", name)
        assert caught.value.errno == errno.ENODATA
    assert adapter.getxattr("/a", "user.xnat.id") == b"user.xnat.id"
    assert adapter.listxattr("/a") == ["user.xnat.id"]


def test_df_counts_blocks_of_the_cache(adapter: fuse.Adapter) -> None:
    told = adapter.statfs("/")
    assert told["f_blocks"] * told["f_frsize"] == 10 * 4096
    assert (told["f_bfree"], told["f_bavail"], told["f_namemax"]) == (0, 0, 255)


def test_an_interrupt_of_the_kernel_reaches_who_waits(
    adapter: fuse.Adapter, vfs: FakeVfs, library: SimpleNamespace
) -> None:
    adapter.getattr("/a")
    assert vfs.interrupted is not None
    assert not vfs.interrupted()
    library.interrupts = 1
    assert vfs.interrupted()


def test_the_end_of_the_mount_interrupts_everybody(adapter: fuse.Adapter, vfs: FakeVfs) -> None:
    adapter.getattr("/a")
    adapter.destroy("/")
    assert vfs.interrupted is not None
    assert vfs.interrupted()


def test_the_kernel_is_told_what_was_measured_to_matter(vfs: FakeVfs, library: SimpleNamespace) -> None:
    started: list[bool] = []
    adapter = fuse.Adapter(vfs, Limits(kernel_ttl=12.0), 1, 1, lambda: started.append(True))  # type: ignore[arg-type]
    connection = SimpleNamespace(
        max_background=12, congestion_threshold=9, want=1 << 14, capable=(1 << 13) | (1 << 14)
    )
    config = SimpleNamespace()
    adapter.init_with_config(connection, config)
    assert started == [True]
    assert (config.attr_timeout, config.entry_timeout, config.negative_timeout) == (12.0, 12.0, 0.0)
    assert (config.use_ino, config.intr) == (1, 1)
    if fuse.LIBFUSE[0] == 3:
        assert (connection.max_background, connection.congestion_threshold) == (512, 512)
        assert connection.want == 1 << 13


@pytest.mark.parametrize("version", [2, 3])
def test_the_callbacks_of_libfuse_fill_its_buffer(adapter: fuse.Adapter, version: int) -> None:
    loop = fuse._Fuse.__new__(fuse._Fuse)
    loop.operations = adapter
    handle = adapter.opendir("/")
    pointer = SimpleNamespace(contents=SimpleNamespace(fh=handle))
    seen: list[tuple[bytes, int, int]] = []

    def filler(buffer: Any, name: bytes, st: Any, offset: int, *flags: int) -> int:
        seen.append((name, 0 if st is None else st.st_size, offset))
        return 0

    if version == 3:
        assert loop.readdir_fuse_3(b"/", None, filler, 0, pointer, 1) == 0
    else:
        assert loop.readdir_fuse_2(b"/", None, filler, 0, pointer) == 0
    assert seen == [(b".", 0, 1), (b"..", 0, 2), (b"a", 1025, 3), (b"b\xff", 4096, 4)]


def test_mounting_passes_the_options_that_were_measured(
    adapter: fuse.Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: dict[str, Any] = {}
    monkeypatch.setattr(
        fuse, "_Fuse", lambda operations, place, **options: passed.update(options, place=place)
    )
    signals: list[int] = []
    monkeypatch.setattr(fuse.signal, "signal", lambda number, handler: signals.append(number))
    fuse.run(adapter, "/mnt", "xnat:x,org", Limits(), allow_other=True)
    assert (passed["place"], passed["fsname"], passed["subtype"]) == ("/mnt", "xnat:x\\,org", "xnatfs")
    assert passed["ro"] and passed["default_permissions"] and passed["allow_other"] and passed["raw_fi"]
    assert "direct_io" not in passed
    if fuse.LIBFUSE >= (3, 12):
        assert (passed["max_threads"], passed["max_idle_threads"]) == (256, 256)
    assert signals == [fuse.signal.SIGUSR1]
    passed.clear()
    monkeypatch.setattr(fuse, "LIBFUSE", (2, 9))
    fuse.run(adapter, "/mnt", "x.org", Limits())
    assert passed["attr_timeout"] == 0
    assert "allow_other" not in passed and "max_threads" not in passed


def test_the_library_in_use_is_a_libfuse() -> None:
    assert fuse.LIBFUSE[0] in (2, 3)
    assert isinstance(fuse.mfusepy._libfuse, ctypes.CDLL)


def test_in_a_listing_only_what_differs_is_written_and_every_entry_is_right(adapter: fuse.Adapter) -> None:
    filled = adapter.stat_format.new()
    later = FILE._replace(inode=78, size=5, mtime=FILE.mtime + 1.5)
    folder = FILE._replace(inode=79, mode=0o40555, links=2, size=4096)
    before = None
    for one in (FILE, later, later._replace(inode=80), folder, FILE):
        adapter.stat_format.fill(filled, one, before)
        before = one
        assert (filled.st_size, filled.st_blocks, filled.st_ino, filled.st_mode, filled.st_nlink) == (
            one.size,
            one.blocks,
            one.inode,
            one.mode,
            one.links,
        )
        assert filled.st_mtimespec.tv_sec == filled.st_ctimespec.tv_sec == int(one.mtime)
