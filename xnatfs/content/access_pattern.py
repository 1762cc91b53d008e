"""How the files of one resource are accessed: how many were opened, how much of each was read, and which
resource comes after it.

Made from a file listing by `access_of`, kept with it; used by `content.manager` and `content.zip_scheduler`
to decide between single files, parts of files and the whole resource as one zip.
Threading: any thread; one lock a resource, held for moments.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from xnatfs.content.cost_model import LinkModel
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.downloads import out_of_reach
from xnatfs.server.records import FileRecord, natural

HEAD_BYTES = 64 * 1024  # a header reader gets this much of a file: DICOM headers take 2 to 20 kB
_WALK_GAP_S = 60.0  # two opens at most this far apart belong together
_EXPECTED_MORE = 8  # after opening m files of a resource, a reader is expected to open 8 m more
_LACKING_S = 60.0  # for this long, files a zip did not bring are not expected in another
_LEVELS = ("scan", "assessor", "reconstruction", "experiment")


class ResourceAccess:
    """A resource's files in catalog order.

    Args:
        records: the files.
        entries: how many its catalogue has, where that is more than these.
    """

    def __init__(self, records: list[FileRecord], entries: int = 0) -> None:
        self.records = records
        self.entries = max(entries, len(records))
        self.total = sum(record.size for record in records)
        self.previous: ResourceAccess | None = None
        self.following: ResourceAccess | None = None
        self.batched = 0.0  # time.monotonic() of the last look into it while it came, or had come, as a zip
        self.no_room = -3600.0  # time.monotonic() of the last try for which the cache had no room
        # Since when, what a whole zip did not bring.
        self._lacking: tuple[float, frozenset[str]] = (0.0, frozenset())
        self.ahead = False  # its zip was started before anybody looked into it, and nobody has looked yet
        self._lock = threading.Lock()
        self._opened: set[str] = set()
        self._last = 0.0
        self._closed = 0
        self._closed_bytes = 0
        self._read_bytes = 0
        self._starts: dict[str, int] | None = None

    def opened(self, path: str) -> None:
        """A file that is not in the cache was opened."""
        now = time.monotonic()
        with self._lock:
            if now - self._last > _WALK_GAP_S:
                self._opened.clear()
            self._last = now
            self._opened.add(path)

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

    def not_in_zip(self, paths: Iterable[str]) -> None:
        """A zip came whole, and this is what it did not have, or not as it is listed: the next one will not
        either.
        """
        with self._lock:
            self._lacking = time.monotonic(), frozenset(paths)

    def may_be_in_zip(self, path: str) -> bool:
        """Whether a zip may bring this file."""
        since, lacking = self._lacking
        return not out_of_reach(path) and (path not in lacking or time.monotonic() - since > _LACKING_S)

    def worth_a_zip(self, line: LinkModel, left: int, left_bytes: int) -> bool:
        """Whether the whole resource at once is expected to be cheaper than the files still to be opened, one
        by one.

        Args:
            left: files that are not in the cache.
            left_bytes: their bytes.
        """
        with self._lock:
            opened = len(self._opened)
        if left < 2:
            return False
        if self._is_next():
            expected = float(left)
        elif opened < 2:
            return False
        else:
            expected = float(min(left, opened * _EXPECTED_MORE))
        wanted = expected / left * left_bytes * self.share
        return line.at_once(self.total, self.entries) < line.singly(expected, wanted, self.entries)

    def _is_next(self) -> bool:
        """Whether the resource before this one was just taken whole: a walk through the session."""
        return self.previous is not None and time.monotonic() - self.previous.batched < _WALK_GAP_S

    @property
    def in_a_walk(self) -> bool:
        """Whether this is at least the second resource in a row that was taken whole."""
        return self._is_next() and self.previous is not None and self.previous.batched > 0

    def start_of(self, path: str) -> int:
        """Bytes of the files before this one in catalog order: about where it comes in the zip."""
        if self._starts is None:
            starts: dict[str, int] = {}
            position = 0
            for record in self.records:
                starts[record.path] = position
                position += record.size
            self._starts = starts
        return self._starts.get(path, self.total)


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
