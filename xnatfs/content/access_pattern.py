"""How the files of one resource are accessed: how many were opened, how much of each was read, and which
resource comes after it.

Made from a file listing by `access_of`, kept with it; used by `content.manager` and `content.zip_scheduler`
to decide between single files, parts of files and the whole resource as one zip.
Threading: any thread. Locks are held for moments, and none while another is taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from functools import cached_property

from xnatfs.content.cost_model import LinkModel
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.downloads import out_of_reach
from xnatfs.server.records import FileRecord, natural

HEAD_BYTES = 64 * 1024  # a header reader gets this much of a file: DICOM headers take 2 to 20 kB
_WALK_GAP_S = 60.0  # two opens at most this far apart belong together
_EXPECTED_MORE = 8  # after opening m files of a resource, a reader is expected to open 8 m more
_LACKING_S = 60.0  # for this long, files a zip did not bring are not expected in another
_LEVELS = ("scan", "assessor", "reconstruction", "experiment")


class ReadStatistics:
    """How much of the files that were opened was read before they were closed."""

    __slots__ = ("_closed", "_closed_bytes", "_lock", "_read_bytes")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = 0
        self._closed_bytes = 0
        self._read_bytes = 0

    def closed(self, size: int, read: int) -> None:
        """A file was closed after `read` bytes of it."""
        with self._lock:
            self._closed += 1
            self._closed_bytes += size
            self._read_bytes += min(size, max(read, HEAD_BYTES))

    @property
    def share(self) -> float:
        """The share of a file's bytes that readers want, from those already closed; 1 while nothing is
        known.
        """
        with self._lock:
            return self._read_bytes / self._closed_bytes if self._closed_bytes else 1.0

    @property
    def heads_only(self) -> bool:
        """Whether two readers or more closed their files after the first part, and none read on."""
        with self._lock:
            return (
                self._closed >= 2
                and self._read_bytes < self._closed_bytes
                and self._read_bytes <= self._closed * HEAD_BYTES
            )


class ZipHistory:
    """What came of fetching a resource as one zip. Each attribute is replaced as a whole: no lock.

    Attributes:
        prefetched: the zip was started before anybody looked into the resource, and nobody has looked yet.
        in_listed_scans: the scans of the session were listed just before this one's first file was opened.
    """

    __slots__ = ("_elsewhere_at", "_incomplete", "_no_room_at", "_used_at", "in_listed_scans", "prefetched")

    def __init__(self) -> None:
        self.prefetched = False
        self.in_listed_scans = False
        self._used_at: float | None = None
        self._no_room_at: float | None = None
        self._elsewhere_at: float | None = None
        # Since when, and what a whole zip did not bring.
        self._incomplete: tuple[float, frozenset[str]] | None = None

    def use(self) -> None:
        """A reader looks into the resource while it comes, or after it has come, as a zip."""
        self._used_at = time.monotonic()

    def used_within(self, seconds: float) -> bool:
        """Whether `use` was called in the last seconds."""
        return _is_within(self._used_at, seconds)

    def lacks_room(self) -> None:
        """The cache has no room for the zip."""
        self._no_room_at = time.monotonic()

    def lacked_room_within(self, seconds: float) -> bool:
        """Whether the zip was tried in the last seconds and found no room."""
        return _is_within(self._no_room_at, seconds)

    def is_elsewhere(self) -> None:
        """Another machine is fetching it, which gives the files to the shared tier one by one."""
        self._elsewhere_at = time.monotonic()

    def was_elsewhere_within(self, seconds: float) -> bool:
        """Whether another machine was fetching it in the last seconds."""
        return _is_within(self._elsewhere_at, seconds)

    def was_without(self, paths: Iterable[str]) -> None:
        """A zip came whole, and this is what it did not have, or not as it is listed: the next one will not
        either.
        """
        self._incomplete = time.monotonic(), frozenset(paths)

    def may_have(self, path: str) -> bool:
        """Whether a zip may bring this file."""
        if out_of_reach(path):
            return False
        if self._incomplete is None:
            return True
        since, lacking = self._incomplete
        return path not in lacking or time.monotonic() - since > _LACKING_S


def _is_within(moment: float | None, seconds: float) -> bool:
    return moment is not None and time.monotonic() - moment < seconds


class ResourceAccess:
    """A resource's files in catalog order, and how they are accessed.

    Args:
        records: the files.
        entries: how many its catalogue has, where that is more than these.

    Attributes:
        previous, following: the neighbours in the order in which the tree lists them.
    """

    def __init__(self, records: list[FileRecord], entries: int = 0) -> None:
        self.records = records
        self.entries = max(entries, len(records))
        self.total = sum(record.size for record in records)
        self.previous: ResourceAccess | None = None
        self.following: ResourceAccess | None = None
        self.reads = ReadStatistics()
        self.zips = ZipHistory()
        self._lock = threading.Lock()
        self._opened: set[str] = set()
        self._opened_at: float | None = None
        self._announced: set[str] = set()  # and not opened yet

    def opened(self, path: str) -> None:
        """A file that is not in the cache was opened."""
        with self._lock:
            if not _is_within(self._opened_at, _WALK_GAP_S):
                self._opened.clear()
            self._opened_at = time.monotonic()
            self._opened.add(path)
            self._announced.discard(path)

    def announced(self, path: str) -> None:
        """A reader is going to read this file, and all of it."""
        with self._lock:
            self._announced.add(path)

    def worth_a_zip(self, line: LinkModel, left: int, left_bytes: int) -> bool:
        """Whether the whole resource at once is expected to be cheaper than the files still to be opened, one
        by one.

        Args:
            left: files that are not in the cache.
            left_bytes: their bytes.
        """
        with self._lock:
            opened, announced = len(self._opened), len(self._announced)
        if left < 2:
            return False
        share = self.reads.share
        if self.in_a_walk:
            expected = float(left)
        elif announced:
            expected, share = float(min(left, announced + 1)), 1.0  # with the one that is being opened
        elif opened < 2:
            return False
        else:
            expected = float(min(left, opened * _EXPECTED_MORE))
        wanted = expected / left * left_bytes * share
        return line.at_once(self.total, self.entries) < line.singly(expected, wanted, self.entries)

    @property
    def in_a_walk(self) -> bool:
        """Whether the resource before this one was just taken whole: a walk through the session."""
        return self.previous is not None and self.previous.zips.used_within(_WALK_GAP_S)

    def start_of(self, path: str) -> int:
        """Bytes of the files before this one in catalog order: about where it comes in the zip."""
        return self._starts.get(path, self.total)

    @cached_property
    def _starts(self) -> dict[str, int]:
        starts: dict[str, int] = {}
        position = 0
        for record in self.records:
            starts[record.path] = position
            position += record.size
        return starts


def access_of(snapshot: FileIndex, files: list[FileRecord]) -> ResourceAccess:
    """The access pattern of a resource with these files, linked with its neighbours in the order in which the
    tree lists them.
    """
    every: dict[int, ResourceAccess] = snapshot.memo.get(
        "series", lambda: _linked(snapshot.by_resource.values())
    )
    first = files[0]
    if every[first.resource_id].records[0].owner == first.owner:
        return every[first.resource_id]
    return snapshot.memo.get(
        ("series", first.resource_id, first.owner), lambda: ResourceAccess(files)
    )  # listed under another than its owner


def _linked(groups: Iterable[list[FileRecord]]) -> dict[int, ResourceAccess]:
    def place(files: list[FileRecord]) -> tuple[object, ...]:
        owner = files[0].owner
        level = _LEVELS.index(owner.level) if owner.level in _LEVELS else len(_LEVELS)
        return (
            level,
            natural(owner.part if owner.level != "assessor" else owner.id),
            files[0].resource_label,
            files[0].resource_id,
        )

    accesses: dict[int, ResourceAccess] = {}
    last: ResourceAccess | None = None
    for files in sorted(groups, key=place):
        access = ResourceAccess(files)
        access.previous = last
        if last is not None:
            last.following = access
        accesses[files[0].resource_id] = last = access
    return accesses
