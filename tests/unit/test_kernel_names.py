"""What the kernel knows of names: their numbers, its copies of listings, how long it keeps both."""

from __future__ import annotations

import stat
import struct
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from xnatfs.errors import Cause, Failure
from xnatfs.fuse import wire
from xnatfs.fuse.kept_folders import KeptFolders, Watched
from xnatfs.fuse.kernel_names import KernelNames
from xnatfs.fuse.name_watch import NameWatch
from xnatfs.fuse.node_table import ROOT, NodeTable
from xnatfs.fuse.open_nodes import OpenNodes
from xnatfs.fuse.wire import KEEP_CACHE, PASSTHROUGH
from xnatfs.tree.node import UnknownSize
from xnatfs.tree.project_folders import session_part
from xnatfs.vfs import Attributes, Opened

FILE = Attributes(stat.S_IFREG | 0o444, 77, 1025, 1709618828.62, 1)
SHORT = wire.Validity.of(7)
COPY, KEEP = wire.CACHE_DIR, wire.KEEP_CACHE

# --- numbers ------------------------------------------------------------------------------------------------


def test_a_path_has_one_number_as_long_as_the_kernel_knows_it() -> None:
    nodes = NodeTable()
    folder = nodes.count(ROOT, "projects")
    listed = nodes.count_all(folder, ["a", "b", "c"])
    assert len({ROOT, folder, *listed}) == 5
    assert nodes.count_all(folder, ["a", "b", "c"]) == listed
    assert nodes.count_all(folder, ["c"], start=2) == listed[2:]
    assert [nodes.count(folder, name) for name in ("c", "a")] == [listed[2], listed[0]]
    assert nodes.path(listed[1]) == "/projects/b" and nodes.path(ROOT) == "/"
    assert len(nodes) == 4


@pytest.mark.parametrize(
    "later", [["b", "c", "new"], ["new", "a", "b", "c"], ["c", "b", "a"], ["a", "c"], ["a", "b", "c", "d"]]
)
def test_a_changed_listing_gives_every_name_its_old_number(later: list[str]) -> None:
    nodes = NodeTable()
    before = dict(zip("abc", nodes.count_all(ROOT, ["a", "b", "c"]), strict=True))
    after = dict(zip(later, nodes.count_all(ROOT, later), strict=True))
    assert len(set(after.values())) == len(later)
    assert {name: after[name] for name in before.keys() & after.keys()} == {
        name: before[name] for name in before.keys() & after.keys()
    }
    assert [nodes.path(number) for number in after.values()] == [f"/{name}" for name in later]


def test_a_long_listing_read_in_parts_has_one_number_a_name() -> None:
    nodes = NodeTable()
    names = [f"{number:05d}" for number in range(5000)]
    looked_up = nodes.count(ROOT, names[4321])
    numbers = [
        one
        for start in range(0, 5000, 160)
        for one in nodes.count_all(ROOT, names[start : start + 160], start)
    ]
    assert len(set(numbers)) == 5000 == len(nodes) and numbers[4321] == looked_up
    assert [nodes.path(one)[1:] for one in numbers] == names


def test_what_the_kernel_forgets_takes_no_memory_and_its_number_is_not_used_again() -> None:
    nodes = NodeTable()
    folder = nodes.count(ROOT, "folder")
    first, second = nodes.count_all(folder, ["a", "b"])
    nodes.count(folder, "a")
    assert nodes.forget(first, 1) == set() and nodes.path(first) == "/folder/a"
    assert nodes.forget_all([(first, 1)]) == {folder}
    assert nodes.forget(second, 1) == {folder}
    with pytest.raises(KeyError):
        nodes.path(first)
    assert len(nodes) == 1
    assert not {first, second} & set(nodes.count_all(folder, ["b", "a"]))
    assert nodes.forget(999 << 24, 5) == set()


def test_a_million_names_take_little_memory() -> None:
    """Beside the names, which are the listings' own."""
    nodes = NodeTable()
    names = [f"{number:04d}.dcm" for number in range(1000)]
    for folder in range(100):
        nodes.count_all(nodes.count(ROOT, f"scan {folder}"), names)
    held = sum(
        sys.getsizeof(one.names) + sys.getsizeof(one.counts) + sys.getsizeof(one.path)
        for one in nodes._by_number.values()
    )
    assert held < 20 * len(nodes)


@pytest.mark.parametrize("asked", ["listed", "looked up"])
def test_a_retired_number_keeps_its_path_which_has_another_one(asked: str) -> None:
    nodes = NodeTable()
    folder = nodes.count(ROOT, "folder")
    names = ["a", "b", "c", "d"]
    before = nodes.count_all(folder, names)
    if asked == "looked up":
        nodes.count(folder, "d")  # by an index of names
    nodes.retire(before[1])
    nodes.retire(before[1])
    after = nodes.count_all(folder, names)
    assert [*after[:1], *after[2:]] == [*before[:1], *before[2:]] and after[1] not in before
    assert nodes.count(folder, "b") == after[1] and nodes.count_all(folder, names) == after
    assert nodes.path(before[1]) == nodes.path(after[1]) == "/folder/b"
    assert nodes.forget(before[1], 1) == set()  # the kernel knows the name still
    with pytest.raises(KeyError):
        nodes.path(before[1])
    assert nodes.forget(after[1], 3) == {folder}


# --- versions of open files ---------------------------------------------------------------------------------


ANEW, KEPT = (0, 0), (KEEP_CACHE, 0)


def opened(handle: int, version: str, size: int = 10) -> Opened:
    return Opened(handle, False, version, size, FILE._replace(size=size))


def test_an_open_node_has_one_version_and_shows_it_until_it_is_closed() -> None:
    files = OpenNodes()
    assert [files.opened(7, opened(1, "v1")), files.opened(7, opened(2, "v1"))] == [ANEW, KEPT]
    assert files.opened(7, opened(3, "v2", 20)) is None  # another node, please
    assert files.opened(8, opened(3, "v2", 20)) == ANEW
    files.closed(7, 1)
    assert (files.shown(7), files.shown(8)) == (FILE._replace(size=10), FILE._replace(size=20))
    assert not files.outdated(7, FILE._replace(size=10)) and not files.outdated(9, FILE)
    assert files.outdated(7, FILE._replace(size=11))
    assert files.outdated(7, FILE._replace(size=10, mtime=FILE.mtime + 1))
    assert not files.outdated(7, FILE._replace(size=UnknownSize(1 << 40)))
    files.closed(7, 2)
    files.closed(7, 2)
    assert files.shown(7) is None and len(files) == 1
    assert [files.opened(7, opened(4, "v1")), files.opened(9, opened(5, ""))] == [KEPT, ANEW]
    files.closed(7, 4)
    assert files.opened(7, opened(6, "v2")) == ANEW  # its pages are those of v1


def test_a_node_is_open_in_one_way_only() -> None:
    """With the kernel's own pages, or by one cached file; anything else is EIO for who opens it."""
    files, numbers = OpenNodes(), iter((4, 5, 0))

    def register() -> int:
        return next(numbers)

    assert files.opened(7, opened(1, "v1"), register) == (PASSTHROUGH, 4)
    assert files.opened(7, opened(2, "v1"), register) == (PASSTHROUGH, 4)
    assert files.opened(7, opened(3, "v2"), register) is None
    assert (files.closed(7, 1), files.closed(7, 2), files.closed(7, 2)) == (0, 4, 0)
    assert files.opened(7, opened(4, "v1"), register) == (PASSTHROUGH, 5)
    assert files.opened(8, opened(5, "v1"), register) == ANEW  # refused
    assert files.opened(8, opened(6, "v1"), register) == KEPT
    assert files.closed(7, 4) == 5
    assert files.opened(7, opened(7, "v1")) == ANEW  # no pages are left of it


def test_a_version_whose_stamp_is_not_known_is_no_other_one() -> None:
    files = OpenNodes()
    files.opened(7, opened(1, "key 0 "))
    assert files.opened(7, opened(2, "key 0 2024-03-01")) is not None
    assert files.opened(7, opened(3, "key 1 2024-03-01")) is None
    files.opened(8, opened(4, ""))
    assert files.opened(8, opened(5, "")) is None


def test_a_name_whose_older_version_is_open_is_told_by_another_number() -> None:
    knowledge: Any = SimpleNamespace(version=lambda: 0, learnt_count=lambda: 0, watchable=lambda folder: "")
    nothing: Any = None
    names = KernelNames(nothing, nothing, 20.0, 40.0, knowledge)
    listed = [(name, FILE) for name in "abc"]
    before = names.told(ROOT, listed)
    assert [attributes for _, attributes in before] == [FILE] * 3
    node = before[1][0]
    names.open.opened(node, Opened(1, False, "v1", FILE.size, FILE))
    assert names.told(ROOT, [("b", FILE._replace(inode=78))]) == [(node, FILE)]  # as it was opened
    larger = FILE._replace(size=2000)
    after = names.told(ROOT, [listed[0], ("b", larger), listed[2]])
    assert (after[0], after[2]) == (before[0], before[2]) and after[1][0] != node and after[1][1] == larger
    assert names.nodes.path(node) == "/b"
    assert names.told(ROOT, [("b", larger)], 1) == [after[1]]
    names.forgotten([(node, 2)])  # what was counted for the answer that gave another number is not owed
    with pytest.raises(KeyError):
        names.nodes.path(node)


# --- copies of listings -------------------------------------------------------------------------------------


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Folders(KeptFolders):
    """Copies by hand-set time; a folder is read as it is listed."""

    def __init__(self) -> None:
        self.time, self.number = Clock(), 0
        super().__init__(lambda: self.number, self.time)

    def walk(self, listing: dict[str, Any], handle: int = 1) -> int:
        """Open, read and close a folder; the flags of `open`."""
        flags = self.opened(5, handle, listing)
        if not flags & KEEP:
            self.read(5, handle, listing, 40.0, settled=True)
        self.closed(5, handle)
        return flags


LISTED: dict[str, Any] = {"a": object()}
CHANGED: dict[str, Any] = {"a": object()}


def test_the_same_listing_is_shown_by_the_kernel_while_its_names_hold() -> None:
    folders = Folders()
    assert [folders.walk(LISTED), folders.walk(LISTED), folders.walk(dict(LISTED))] == [
        COPY,
        COPY | KEEP,
        COPY | KEEP,
    ]
    folders.time.now += 30.0  # or the kernel would look up name by name, most of the way
    assert [folders.walk(LISTED), folders.walk(LISTED)] == [COPY, COPY | KEEP]
    assert [folders.walk(CHANGED), folders.walk(CHANGED), folders.walk(LISTED)] == [COPY, COPY | KEEP, COPY]


def test_a_size_that_was_learnt_and_a_forgotten_name_end_a_copy() -> None:
    folders = Folders()
    folders.walk(LISTED)
    folders.number += 1
    assert [folders.walk(LISTED), folders.walk(LISTED)] == [COPY, COPY | KEEP]
    folders.forget([5])
    assert folders.walk(LISTED) == COPY


def test_a_watched_folder_is_not_looked_at_again_until_something_changed() -> None:
    """Looking at 20,000 folders was two thirds of the daemon's time in a second `find`."""
    folders = Folders()
    folders.walk(LISTED)
    assert folders.reopened(5, 2, bool) is None  # not watched: looked at whenever it is opened
    folders.opened(5, 2, LISTED)
    watched = Watched("/projects/P", FILE)
    for learnt, passed in ((0, 0.0), (1, 0.0), (0, 3000.0)):
        folders.number += learnt
        folders.time.now += passed
        assert (
            folders.reopened(5, 3, bool) is None
        )  # too little is known, something was learnt, it is too old
        folders.read(5, 2, LISTED, 3600.0, settled=True, watched=watched)
        assert folders.reopened(5, 4, "/projects/P".__eq__) == (FILE, LISTED)
        assert folders.reopened(5, 5, "/projects/Q".__eq__) is folders.reopened(6, 5, bool) is None
    folders.opened(5, 6, CHANGED)
    assert folders.reopened(5, 7, bool) is None


def test_what_changes_by_itself_is_not_kept() -> None:
    folders = Folders()
    folders.opened(5, 1, LISTED)
    folders.read(5, 1, LISTED, 40.0, settled=False)
    folders.closed(5, 1)
    assert folders.walk(LISTED) == COPY


def test_who_opens_a_changed_folder_goes_past_the_copy_of_those_who_read_it() -> None:
    folders = Folders()
    assert folders.opened(5, 1, LISTED) == COPY
    assert folders.opened(5, 2, CHANGED) == 0
    folders.read(5, 1, LISTED, 40.0, settled=True)
    assert not folders.in_conflict(5, 1)  # the other does not fill the copy
    folders.closed(5, 1)
    folders.closed(5, 2)
    assert folders.walk(CHANGED) == COPY


def test_who_rewinds_a_changed_folder_makes_no_copy_of_it_for_those_who_read_it() -> None:
    folders = Folders()
    folders.opened(5, 1, LISTED)
    folders.opened(5, 2, LISTED)
    folders.read(5, 1, LISTED, 40.0, settled=True)
    folders.read(5, 1, CHANGED, 40.0, settled=True)
    assert folders.in_conflict(5, 1) and folders.in_conflict(5, 2)
    folders.closed(5, 2)
    assert not folders.in_conflict(5, 1)
    folders.closed(5, 1)
    assert folders.walk(CHANGED) == COPY


def test_the_copy_of_a_folder_that_stays_open_ends() -> None:
    folders = Folders()
    folders.opened(5, 1, LISTED)
    folders.read(5, 1, LISTED, 40.0, settled=True)
    assert folders.outdated() == []
    folders.time.now += 30.0
    assert folders.outdated() == [5]
    assert folders.outdated() == []
    folders.read(5, 1, LISTED, 40.0, settled=True)
    folders.number += 1
    assert folders.outdated() == [5]
    folders.read(5, 1, LISTED, 40.0, settled=True)
    assert folders.drop_all() == [5]
    assert folders.opened(5, 2, LISTED) == COPY


# --- names for an hour --------------------------------------------------------------------------------------


class OfServer:
    """A watch over a server that is changed by hand."""

    def __init__(self, *, able: bool = True) -> None:
        self.time, self.version, self.looks, self.raised = Clock(), 0, 0, 0
        self.change_at_look, self.steady, self.failure = 0, True, None
        self.able = able
        self.watch = NameWatch(
            lambda folder: "/projects/P" if self.steady else "",
            lambda: self.version,
            self.look,
            self.raise_epoch,
            20.0,
            300.0,
            self.time,
        )
        self.watch.begin()
        self.raised = 0

    failure: Failure | None

    def raise_epoch(self) -> bool:
        self.raised += 1
        return self.able

    def look(self, top: str) -> None:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        self.version += self.change_at_look

    def passes(self, seconds: int) -> None:
        """Time, with what is done in it."""
        for _ in range(seconds):
            self.time.now += 1.0
            self.watch.look()
            self.watch.tick()

    def is_steady(self) -> bool:
        self.watch.looked("/projects/P/subjects")
        return self.watch.steady("/projects/P")

    def holds(self) -> bool:
        return self.watch.holds("/projects/P/subjects", self.watch.version())


def test_a_change_on_the_server_is_looked_for_while_names_are_kept_long() -> None:
    one = OfServer()
    assert one.holds()
    one.passes(60)
    assert one.looks == 6 and one.raised == 0 and one.holds()
    one.change_at_look = 1
    one.passes(13)
    assert one.raised >= 1
    one.change_at_look = 0
    one.passes(40)
    raised = one.raised
    one.passes(60)
    assert one.raised == raised and one.holds()


def test_a_change_that_anybody_finds_reaches_the_kernel() -> None:
    one = OfServer()
    assert one.holds()
    before = one.watch.epoch
    one.version += 1
    assert not one.holds() and not one.is_steady()  # not before the kernel was told
    one.passes(2)
    assert one.raised == 0  # what the kernel was given before has to be entered first
    assert not one.is_steady()
    one.passes(1)
    assert one.raised == 1 and one.watch.epoch == before + 1 and one.holds() and one.is_steady()
    one.passes(60)
    assert one.raised == 2  # for what was on its way even so


def test_what_is_watched_is_still_looked_at_every_half_second() -> None:
    """Who opens a file looks, too: it must not find before `ls` that the file is gone."""
    one = OfServer()
    assert not one.is_steady()  # not watched
    assert one.holds() and one.is_steady()
    one.time.now += 0.4
    assert one.watch.steady("/projects/P") and not one.watch.steady("/projects/Q")
    one.time.now += 0.2
    assert not one.watch.steady("/projects/P") and one.is_steady()


def test_what_was_looked_up_before_a_change_is_not_kept_long() -> None:
    one = OfServer()
    since = one.watch.version()
    one.version += 1
    one.passes(3)
    assert not one.watch.holds("/projects/P/subjects", since)


def test_an_idle_mount_looks_no_more_and_its_names_are_dropped() -> None:
    one = OfServer()
    assert one.holds()
    one.passes(301)
    looks, raised = one.looks, one.raised
    assert raised >= 1
    one.passes(600)
    assert one.looks == looks
    one.watch.asked()
    assert one.holds()
    one.passes(20)
    assert one.looks > looks


def test_a_project_that_cannot_be_read_any_more_is_dropped() -> None:
    one = OfServer()
    assert one.holds()
    one.failure = Failure(Cause.NOT_ALLOWED)
    one.passes(11)
    assert one.raised == 1 and one.looks == 1
    one.passes(9)
    assert one.looks == 1


def test_without_epochs_or_where_something_is_in_doubt_nothing_is_kept_long() -> None:
    assert not OfServer(able=False).holds() and not OfServer(able=False).is_steady()
    one = OfServer()
    one.steady = False
    assert not one.holds()
    one.passes(100)
    assert one.looks == 0


def test_only_so_many_projects_are_watched() -> None:
    one = OfServer()
    watch = NameWatch(lambda folder: folder, lambda: 0, one.look, one.raise_epoch, 20.0)
    watch.begin()
    assert [watch.holds(f"/projects/{number}", 0) for number in range(10)] == [True] * 8 + [False] * 2


@pytest.mark.parametrize(
    ("folder", "top"),
    [
        ("", ""),
        ("/", ""),
        ("/projects", ""),
        ("/projects/P", "/projects/P"),
        ("/projects/P/subjects/S/E/SCANS", "/projects/P"),
        ("/projects/P/subjects/S/RESOURCES/R", ""),
        ("/projects/P/resources/R", ""),
        ("/archive", ""),
        ("/archive/projects", ""),
        ("/archive/projects/P", "/archive/projects/P"),
        ("/archive/projects/P/experiments/E", "/archive/projects/P"),
        ("/archive/projects/P/subjects/S", ""),
        ("/archive/projects/P/resources", ""),
        ("/tables/P", ""),
        ("/views/P/by-scan-type", ""),
    ],
)
def test_only_below_sessions_every_change_moves_a_stamp(folder: str, top: str) -> None:
    assert session_part(folder)[0] == top


# --- the kernel's own layout --------------------------------------------------------------------------------


def test_answers_have_the_sizes_of_the_kernels_structures() -> None:
    """As in linux/fuse.h, 7.23 and later."""
    packer = wire.Packer(1001, 1002, lambda inode: inode)
    valid = wire.Validity.of(1.5)
    assert (valid.seconds, valid.nanoseconds) == (1, 500_000_000)
    assert len(packer.entry(7, FILE, valid)) == 128 and len(packer.attributes(FILE, valid)) == 104
    assert len(wire.opened(1, 0)) == 16 and len(wire.statfs(10, 5)) == 80 and len(wire.xattr_size(3)) == 8


def test_a_listing_is_packed_as_far_as_it_fits() -> None:
    packer = wire.Packer(1001, 1002, lambda inode: inode)
    settled = FILE._replace(mtime=-1.5, settled=True)
    entries = [(b"a", settled._replace(settled=False), 40), (b"12345678", settled, 41)]
    whole, count = packer.listing_plus(entries, 2, 4096, wire.Validity.of(40), SHORT)
    assert count == 2 and len(whole) == 160 + 160
    assert packer.listing_plus(entries, 2, len(whole) - 1, wire.Validity.of(40), SHORT) == (whole[:160], 1)
    assert packer.listing_plus(entries, 2, 100, wire.Validity.of(40), SHORT) == (b"", 0)
    node, _, seconds, attr_seconds = struct.unpack_from("=QQQQ", whole, 160)
    assert (node, seconds, attr_seconds) == (41, 40, 40)
    assert struct.unpack_from("=QQ", whole, 16) == (7, 7)  # this one may change by itself
    inode, size, blocks, mtime = struct.unpack_from("=QQQ8xq", whole, 160 + 40)
    assert (inode, size, blocks, mtime) == (77, 1025, 3, -2)
    shown, offset, length, kind = struct.unpack_from("=QQII", whole, 160 + 128)
    assert (shown, offset, length, kind) == (77, 4, 8, stat.S_IFREG >> 12)
    assert whole[160 + 152 :] == b"12345678"
