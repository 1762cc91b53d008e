"""The space below the cap: bytes are reserved before they are fetched; what was used longest ago is evicted.

Used by `contents`, and by what writes (`writers`, `partial`). What is open in this process is pinned, and is
not evicted.
Threading: any thread. One lock, the index's, guards the pins too: they decide about evictions inside the
index's transactions. It is never held while bytes move.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
from collections import Counter
from pathlib import Path

from xnatfs.cache.index import Index, PartialRow
from xnatfs.config import private_folder
from xnatfs.disk import disk_failure
from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def checked_key(key: str) -> str:
    """The key, which is a file's name. It is made from what the server says, so once more: no path, nothing
    hidden.

    Raises:
        Failure: CACHE_BROKEN if it is no name.
    """
    if not _KEY.fullmatch(key):
        raise Failure(Cause.CACHE_BROKEN, detail=f"{key[:100]!r} is not the key of a cached file")
    return key


class CacheSpace:
    """The files and reservations of one cache directory.

    Args:
        directory: of the cache.
        index: of the same directory.
        cap: bytes that everything in it may take together.
        min_free: bytes of the disk that are left free.
    """

    def __init__(self, directory: Path, index: Index, cap: int, min_free: int) -> None:
        self.directory = directory
        self.index = index
        self.cap = cap
        self.min_free = min_free
        self.lock = index.lock
        self._objects = str(directory / "objects")
        self.used: dict[str, float] = {}  # when each object's use was last noted, epoch seconds
        self._pins: Counter[str] = Counter()
        self._dropped: list[str] = []  # drafts whose reservation could not be given back yet

    # --- objects --------------------------------------------------------------------------------------------

    def path(self, key: str) -> str:
        """Where the object of this key lies."""
        return f"{self._objects}/{key[:2]}/{checked_key(key)}"

    def pin(self, key: str) -> None:
        """Keep a file from being evicted until `unpin`. Called with the lock held."""
        self._pins[key] += 1

    def unpin(self, key: str) -> None:
        """One reader less."""
        with self.lock:
            self._pins[key] -= 1
            if self._pins[key] <= 0:
                del self._pins[key]

    def forget(self, key: str) -> None:
        """Remove an object. Who has it open may read on. Called with the lock held."""
        self.used.pop(key, None)
        with contextlib.suppress(sqlite3.Error):
            self.index.execute("DELETE FROM objects WHERE key = ?", key)
        with contextlib.suppress(
            OSError
        ):  # in a directory that is read-only by now it stays, and so does its place in the index
            os.unlink(self.path(key))

    def into_place(self, path: Path | str, key: str) -> None:
        """Rename a whole, checked file to where the object of `key` belongs.

        Raises:
            Failure: CACHE_BROKEN.
        """
        try:
            _rename(path, self.path(key))
        except OSError as error:
            raise disk_failure(error, str(self.directory)) from error

    def clear(self) -> int:
        """Remove everything that is not open in this process; returns the bytes freed."""
        freed = 0
        for victim in self.index.victims():
            freed += self._evict(victim.key, victim.bytes, partial=victim.partial)
        return freed

    # --- drafts ---------------------------------------------------------------------------------------------

    def reserve_draft(self, name: str, size: int) -> None:
        """Reserve bytes for a draft.

        Raises:
            Failure: NO_SPACE if that many bytes cannot be made free below the cap.
        """
        with self.lock:
            dropped = len(self._dropped)
            with self.index.transaction():
                for one in self._dropped[:dropped]:
                    self.index.execute("DELETE FROM drafts WHERE name = ?", one)
                self._make_room(size)
                self.index.execute("INSERT INTO drafts VALUES (?, ?)", name, size)
            del self._dropped[:dropped]  # only now: what was rolled back is still to be given back

    def reserve_more(self, name: str, more: int) -> None:
        """Add to a draft's reservation."""
        with self.index.transaction():
            self._make_room(more)
            self.index.execute("UPDATE drafts SET reserved = reserved + ? WHERE name = ?", more, name)

    def store(
        self, name: str, fd: int, size: int, path: Path, key: str, last_modified: str, verified: str
    ) -> None:
        """Make a draft of `size` bytes an object (called by `CacheWriter.commit`)."""
        try:
            os.ftruncate(fd, size)
            _rename(path, self.path(key))
            with self.index.transaction():
                self.index.put_object(key, size, last_modified, verified)
                self.index.execute("DELETE FROM drafts WHERE name = ?", name)
        except (OSError, sqlite3.Error) as error:
            raise disk_failure(error, str(self.directory)) from error

    def store_many(self, name: str, stored: list[tuple[str, int, str]]) -> None:
        """Enter (key, size, how it was checked) of files of a batch that are in place (called by
        `BatchWriter`).
        """
        try:
            with self.index.transaction():
                for key, size, verified in stored:
                    self.index.put_object(key, size, "", verified)
                self.index.execute(
                    "UPDATE drafts SET reserved = MAX(0, reserved - ?) WHERE name = ?",
                    sum(one[1] for one in stored),
                    name,
                )
        except sqlite3.Error as error:
            raise disk_failure(error, str(self.directory)) from error

    def drop_draft(self, name: str, path: Path | None) -> None:
        """Give a draft's reservation back and remove its file if it is still there."""
        if path is not None:
            with contextlib.suppress(OSError):  # what cannot be removed now is swept away by the next mount
                path.unlink(missing_ok=True)
        try:
            self.index.execute("DELETE FROM drafts WHERE name = ?", name)
        except sqlite3.Error:
            self._dropped.append(name)

    # --- partial files --------------------------------------------------------------------------------------

    def reserve_pages(self, key: str, more: int) -> None:
        """Add to a partial file's reservation (negative: give back).

        Raises:
            Failure: NO_SPACE.
        """
        with self.index.transaction():
            if more > 0:
                self._make_room(more)
            self.index.execute("UPDATE partials SET reserved = MAX(0, reserved + ?) WHERE key = ?", more, key)

    def partial_row(self, key: str) -> PartialRow | None:
        """What the index knows of a partial file; what cannot be looked up is not here."""
        try:
            return self.index.partial(key)
        except sqlite3.Error as error:
            log.warning("the cache's index cannot be read: %s", error)
            return None

    def record_partial(self, key: str, pages: bytes) -> bool:
        """Remember which pages are here; whether that could be done."""
        try:
            self.index.execute("UPDATE partials SET pages = ? WHERE key = ?", pages, key)
        except sqlite3.Error:
            return False
        return True

    def store_partial(
        self, name: str, path: Path, key: str, size: int, last_modified: str, verified: str, fd: int
    ) -> None:
        """Make a partial file that is whole an object (called by `Partial.commit`)."""
        try:
            os.ftruncate(fd, size)
            _rename(path, self.path(key))
            with self.index.transaction():
                self.index.execute("DELETE FROM partials WHERE key = ?", name)
                self.index.put_object(key, size, last_modified, verified)
        except (OSError, sqlite3.Error) as error:
            raise disk_failure(error, str(self.directory)) from error

    def drop_partial(self, key: str, path: Path) -> None:
        """Remove a partial file."""
        with contextlib.suppress(OSError):  # as for a draft
            path.unlink(missing_ok=True)
        with contextlib.suppress(sqlite3.Error):
            self.index.execute("DELETE FROM partials WHERE key = ?", key)

    def release_partial(self, key: str, *, kept: bool, page: int) -> None:
        """A partial file was closed: only what is present stays reserved; a private one goes. `kept` if it
        still has its name; `page`: bytes of one.
        """
        self.unpin(key)
        if not kept:
            return
        if "." in key:
            self.drop_partial(key, self.directory / "partials" / key)
            return
        with contextlib.suppress(sqlite3.Error):
            row = self.index.partial(key)
            if row is not None and not row.pages.count(1):
                self.drop_partial(key, self.directory / "partials" / key)
            elif row is not None:
                self.index.execute(
                    "UPDATE partials SET reserved = ? WHERE key = ?",
                    min(row.size, row.pages.count(1) * page),
                    key,
                )

    # --- making room ----------------------------------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        """Evict until `size` more bytes fit below the cap and leave the disk its free space. Called in a
        transaction.
        """
        if size > self.cap:  # before anything is evicted for it in vain
            raise Failure(
                Cause.NO_SPACE, str(self.directory), f"{size} bytes are needed, the cap is {self.cap}"
            )
        needed = self.index.total() + size - self.cap
        if self.min_free:
            disk = os.statvfs(self.directory)
            needed = max(needed, size + self.min_free - disk.f_bavail * disk.f_frsize)
        if needed <= 0:
            return
        for victim in self.index.victims():
            needed -= self._evict(victim.key, victim.bytes, partial=victim.partial)
            if needed <= 0:
                return
        raise Failure(Cause.NO_SPACE, str(self.directory), f"{size} bytes are needed, the cap is {self.cap}")

    def _evict(self, key: str, size: int, *, partial: bool) -> int:
        with self.lock:
            if key in self._pins:
                return 0
            if not partial:
                self.forget(key)
                return size
        path = self.directory / "partials" / key
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)  # under the lock: nobody may take it up between
            except BlockingIOError:  # another process reads it
                return 0
            finally:
                os.close(fd)
        self.drop_partial(key, path)
        return size


def _rename(path: Path | str, target: str) -> None:
    try:
        os.rename(path, target)
    except FileNotFoundError:
        private_folder(Path(target).parent)
        os.rename(path, target)
