"""A large file of which only parts are here: a sparse file and the pages present.

Used by `content.ranged`; opened through `ContentCache.partial`. Pages are 128 KiB, one read of the kernel.
What is present survives in the cache's index: pages are recorded only after their bytes were written, so kill
-9 loses at most what was not yet recorded.
Threading: any thread; the lock guards the bitmap and is held for moments, never while bytes move.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path

from xnatfs.cache.space import CacheSpace
from xnatfs.disk import disk_failure, write_all
from xnatfs.errors import Failure

PAGE = 128 * 1024
_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE (linux/falloc.h)
_RECORD_EVERY = 256  # pages: 32 MiB


class Partial:
    """A sparse file of `size` bytes.

    Args:
        pages: the bitmap found in the index, one byte a page; None for a new file.
    """

    def __init__(
        self,
        space: CacheSpace,
        key: str,
        path: Path,
        size: int,
        last_modified: str,
        pages: bytes | None,
        fd: int,
    ) -> None:
        self._space = space
        self._lock = threading.Lock()
        self._recording = threading.Lock()  # an older bitmap must not be written after a newer one
        self._path = path
        self.key = key
        self.size = size
        self.last_modified = last_modified
        self.fd = fd
        count = -(-size // PAGE)
        self._pages = bytearray(pages) if pages is not None and len(pages) == count else bytearray(count)
        self._left = self._pages.count(0)
        self._unrecorded = 0
        self._gone = False  # forgotten or made an object: the name may belong to another file by now

    @property
    def complete(self) -> bool:
        """Whether every page is here."""
        return self._left == 0

    @property
    def present(self) -> int:
        """Bytes here, in whole pages."""
        return (len(self._pages) - self._left) * PAGE

    def has(self, offset: int, end: int) -> bool:
        """Whether all bytes from `offset` to `end` are here."""
        return 0 not in self._pages[offset // PAGE : -(-end // PAGE)]

    def present_from(self, offset: int) -> int:
        """Up to where all bytes from `offset` on are here; `offset` itself if its page is not."""
        first = offset // PAGE
        if first >= len(self._pages) or not self._pages[first]:
            return offset
        stop = self._pages.find(0, first)
        return self.size if stop < 0 else stop * PAGE

    def missing(self, offset: int, end: int) -> tuple[int, int] | None:
        """The first run of absent bytes between `offset` and `end`, in whole pages (the last one may be cut
        by the end of the file).
        """
        first, last = offset // PAGE, -(-end // PAGE)
        start = self._pages.find(0, first, last)
        if start < 0:
            return None
        stop = self._pages.find(1, start, last)
        return start * PAGE, min(self.size, (last if stop < 0 else stop) * PAGE)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes; they are not present until `mark`.

        Raises:
            Failure: NO_SPACE or CACHE_BROKEN.
        """
        try:
            write_all(self.fd, data, offset)
        except OSError as error:
            raise disk_failure(error, str(self._path.parent)) from error

    @property
    def gone(self) -> bool:
        """Whether it is an object by now, or forgotten: nothing is dropped from it any more."""
        return self._gone

    def mark(self, offset: int, end: int) -> None:
        """The bytes from `offset` (start of a page) to `end` (end of a page, or of the file) are here."""
        first, last = offset // PAGE, -(-end // PAGE)
        with self._lock:
            fresh = self._pages.count(0, first, last)
            self._pages[first:last] = b"\x01" * (last - first)
            self._left -= fresh
            self._unrecorded += fresh
            due = self._unrecorded >= _RECORD_EVERY
        if due:
            self.record()

    def drop(self, offset: int, end: int) -> int:
        """Give the disk space of whole pages back; returns the bytes freed. Where holes cannot be punched
        nothing is freed.
        """
        first, last = -(-offset // PAGE), end // PAGE
        with self._lock:
            if last <= first or self._gone:  # once it is an object, a hole would be in the object
                return 0
            before = self._pages[first:last]
            gone = before.count(1)
            self._pages[first:last] = bytes(
                last - first
            )  # first: whoever looks after its read sees that it may have read a hole
            self._left += gone
        recorded = (
            self.record()
        )  # before the hole is made: after a crash between the two it would be read as zeros
        with self._lock:
            if recorded and not self._gone and punch(self.fd, first * PAGE, (last - first) * PAGE):
                return gone * PAGE
            absent = self._pages.count(0, first, last)
            self._pages[first:last] = bytes(
                old | new for old, new in zip(before, self._pages[first:last], strict=True)
            )
            self._left -= absent - self._pages.count(0, first, last)
            self._unrecorded += gone
        return 0

    def record(self) -> bool:
        """Write the bitmap to the index; whether that could be done."""
        with self._recording:
            with self._lock:
                if self._gone:
                    return False
                unrecorded, self._unrecorded = self._unrecorded, 0
                pages = bytes(self._pages)
            if self._space.record_partial(self.key, pages):
                return True
            with self._lock:
                self._unrecorded += unrecorded
            return False

    def forget(self) -> None:
        """The content is no longer the server's: remove it."""
        with self._lock:
            self._pages[:] = bytes(len(self._pages))
            self._left = len(self._pages)
            if self._gone:
                return
            self._gone = True
        self._space.drop_partial(self.key, self._path)

    def commit(self, key: str, verified: str) -> None:
        """All is here and checked: make it an object. Nothing is done if some of it was dropped just now."""
        with self._lock:
            if self._left:
                return
            self._gone = True
        self._space.store_partial(self.key, self._path, key, self.size, self.last_modified, verified, self.fd)

    def close(self) -> None:
        """Close; what is here stays for the next time."""
        if self.fd >= 0:
            with contextlib.suppress(Failure):
                if self._unrecorded:
                    self.record()
            self._space.release_partial(self.key, kept=not self._gone, page=PAGE)
            os.close(self.fd)
            self.fd = -1


def punch(fd: int, offset: int, length: int) -> bool:
    """Make a hole of these bytes: fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Python has no name for. False
    if that cannot be done.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(libc.fallocate(fd, _PUNCH_HOLE, offset, length) == 0)
