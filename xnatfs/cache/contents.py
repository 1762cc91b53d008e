"""File contents on disk: capped in bytes, least recently used goes first.

Used by `content`. Layout below the directory (mode 0700: this is patient data):

    objects/ab/<key>    whole files; the name is the sha256 of what identifies one version of one file
    partials/<key>      large files of which only parts are here (`partial.py`); flock'ed by who has it open
    drafts/<name>       small files being written, each flock'ed by its writer: one nobody holds is left from
                        a crash and removed
    index.sqlite        sizes, last use, how each was checked (`index.py`)
    lock                flock'ed, shared, by every process that has the cache open (`recovery.py`: what a
                        crash left is cleared away)

Bytes are reserved before they are fetched (`space.py`), so the cap holds with everything in flight; the disk
keeps a minimum of free space. What is open in this process is not evicted. Several processes may share a
directory.
Threading: any thread; the lock is `space`'s, and is never held while bytes move.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache.index import Index, ObjectRow, PartialRow
from xnatfs.cache.partial import Partial
from xnatfs.cache.recovery import Guard, sweep_all, sweep_drafts
from xnatfs.cache.space import CacheSpace, checked_key
from xnatfs.cache.writers import RESERVE_STEP_BYTES, BatchWriter, CacheWriter, locked
from xnatfs.config import private_folder
from xnatfs.disk import disk_failure

log = logging.getLogger(__name__)

_READ_AHEAD_BYTES = 2**20


@dataclass
class Entry:
    """An open object: `fd` may be read with `os.pread` from any thread until `close()`."""

    key: str
    size: int
    last_modified: str
    verified: str
    checked: float
    fd: int
    _space: CacheSpace

    def close(self) -> None:
        """Close the descriptor; the object may be evicted from here on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._space.unpin(self.key)


class ContentCache:
    """The content cache of one server and user.

    Args:
        directory: made if missing. What a process that died left in it is cleared away, and listed in
            `left_behind`.
        cap: bytes that everything in it may take together.
        min_free: bytes of the disk that are left free.

    Raises:
        Failure: CACHE_BROKEN if the directory cannot be used.
        UsageError: it is somebody else's.
    """

    def __init__(self, directory: Path, cap: int, min_free: int = 0) -> None:
        self.directory = directory
        guard: Guard | None = None
        try:
            for part in (directory, directory / "objects", directory / "partials", directory / "drafts"):
                private_folder(part)  # with those above it: their names tell servers and users
            self._guard = guard = Guard(directory)
            self.index = Index(directory / "index.sqlite", directory / "objects", alone=self._guard.alone)
            self.space = CacheSpace(directory, self.index, cap, min_free)
            swept = (
                sweep_all(directory, self.index)
                if self.index.crashed
                else sweep_drafts(directory, self.index)
            )
            self.left_behind = swept.wrong
            if swept.wrong:
                log.info(
                    "%d items were left in %s by a process that died: %s",
                    len(swept.wrong),
                    directory,
                    "; ".join(swept.wrong[:10]),
                )
        except (OSError, sqlite3.Error) as error:
            if guard is not None:
                guard.close()
            raise disk_failure(error, str(directory)) from error

    # --- reading --------------------------------------------------------------------------------------------

    def open(self, key: str) -> Entry | None:
        """The object of this key, opened and pinned; None if it is not here."""
        row = self._row(key)
        if row is None:
            return None
        with self.space.lock:
            try:
                fd = os.open(self.space.path(key), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self.space.forget(key)
                return None
            if (
                os.fstat(fd).st_size != row.size
            ):  # cut by an unclean boot: it was renamed before its bytes were on the disk
                os.close(fd)
                self.space.forget(key)
                return None
            if (
                row.size > _READ_AHEAD_BYTES
            ):  # the disk reads while the kernel and Python pass on what came before
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            self.space.pin(key)
            now = time.time()
            touch = now - self.space.used.get(key, 0) > 60  # once a minute is enough to order evictions
            if touch:
                self.space.used[key] = now
        if touch:
            with contextlib.suppress(sqlite3.Error):
                self.index.execute("UPDATE objects SET used = ? WHERE key = ?", now, key)
        return Entry(key, row.size, row.last_modified, row.verified, row.checked, fd, self.space)

    def has(self, key: str) -> str | None:
        """How the object of this key was checked, None if it is not here. Reads only the index."""
        row = self._row(key)
        return row.verified if row else None

    def present(self, keys: Sequence[str]) -> set[str]:
        """Which of these objects are here. Reads only the index."""
        try:
            return self.index.present(keys)
        except sqlite3.Error as error:
            log.warning("the cache's index cannot be read: %s", error)
            return set()

    def _row(self, key: str) -> ObjectRow | None:
        """What the index knows of an object; what cannot be looked up is not here."""
        try:
            return self.index.object(key)
        except sqlite3.Error as error:
            log.warning("the cache's index cannot be read: %s", error)
            return None

    def confirm(self, key: str, verified: str | None = None) -> None:
        """The object is still the server's content (and was checked again as `verified` says)."""
        with contextlib.suppress(sqlite3.Error):  # it is checked again next time
            if verified is None:
                self.index.execute("UPDATE objects SET checked = ? WHERE key = ?", time.time(), key)
            else:
                self.index.execute(
                    "UPDATE objects SET checked = ?, verified = ? WHERE key = ?", time.time(), verified, key
                )

    def forget(self, key: str) -> None:
        """Remove an object that is no longer the server's content. Who has it open may read on."""
        with self.space.lock:
            self.space.forget(key)

    def path(self, key: str) -> str:
        """Where the object of this key lies."""
        return self.space.path(key)

    # --- small files ----------------------------------------------------------------------------------------

    def draft(self, size: int | None) -> CacheWriter:
        """A new draft with `size` bytes reserved (None: not known yet).

        Raises:
            Failure: NO_SPACE if that many bytes cannot be made free below the cap.
        """
        reserved = RESERVE_STEP_BYTES if size is None else size
        name = uuid.uuid4().hex
        # The locked file first: a reservation whose draft nobody has locked counts as left from a crash when
        # another mount starts.
        draft = CacheWriter(self.space, name, self.directory / "drafts" / name, reserved)
        try:
            self.space.reserve_draft(name, reserved)
        except BaseException:
            draft.close()
            raise
        return draft

    def pile(self, size: int) -> BatchWriter:
        """Room for many small files of `size` bytes together, entered into the index some at a time.

        Raises:
            Failure: NO_SPACE if that many bytes cannot be made free below the cap.
        """
        pile = BatchWriter(self.space, uuid.uuid4().hex, size)
        try:
            self.space.reserve_draft(pile.name, size)
        except BaseException:
            pile.close()
            raise
        return pile

    # --- large files ----------------------------------------------------------------------------------------

    def partial(self, key: str, size: int, last_modified: str) -> Partial:
        """The partial file of this key, opened and locked, with what is already here of this version.

        If another process has it open, a private one under another name, which is gone when it is closed.
        """
        name = key
        path = self.directory / "partials" / checked_key(key)
        try:
            fd = locked(path)
            if fd is None:
                name = f"{key}.{uuid.uuid4().hex}"
                path = self.directory / "partials" / name
                fd = locked(path)
                assert fd is not None  # nobody else knows this name
            row = self.index.partial(name)
            fits = (
                row is not None
                and row.size == size
                and row.last_modified == last_modified
                and os.fstat(fd).st_size == size
            )
            if not fits:
                os.ftruncate(fd, 0)
                with self.index.transaction():
                    self.index.execute("DELETE FROM partials WHERE key = ?", name)
                    self.index.execute(
                        "INSERT INTO partials VALUES (?, ?, ?, x'', 0, ?)",
                        name,
                        size,
                        last_modified,
                        time.time(),
                    )
            else:
                self.index.execute("UPDATE partials SET used = ? WHERE key = ?", time.time(), name)
            os.ftruncate(fd, size)
        except (OSError, sqlite3.Error) as error:
            raise disk_failure(error, str(self.directory)) from error
        with self.space.lock:
            self.space.pin(name)
        return Partial(
            self.space, name, path, size, last_modified, row.pages if fits and row is not None else None, fd
        )

    def partial_row(self, key: str) -> PartialRow | None:
        """What the index knows of a partial file; see `CacheSpace.partial_row`."""
        return self.space.partial_row(key)

    def reserve_pages(self, key: str, more: int) -> None:
        """Add to a partial file's reservation; see `CacheSpace.reserve_pages`."""
        self.space.reserve_pages(key, more)

    # --- the whole ------------------------------------------------------------------------------------------

    def usage(self) -> tuple[int, int, int]:
        """(objects, their bytes, bytes reserved by what is on its way or partly here)."""
        try:
            ((count, size),) = self.index.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM objects")
            return int(str(count)), int(str(size)), self.index.total() - int(str(size))
        except sqlite3.Error:
            return 0, 0, 0

    def room(self) -> tuple[int, int]:
        """Bytes that the cache may take with what is in it, never more than its disk has, and how many of
        them are free now, without an eviction. (0, 0) while it cannot be said.
        """
        try:
            used = self.index.total()
            disk = os.statvfs(self.directory)
        except (OSError, sqlite3.Error) as error:
            log.warning("the cache's free space cannot be read: %s", error)
            return 0, 0
        free = max(0, min(self.cap - used, disk.f_bavail * disk.f_frsize - self.space.min_free))
        return used + free, free

    def keys(self) -> list[tuple[str, int, str]]:
        """(key, size, how it was checked) of every object."""
        return [
            (str(key), int(str(size)), str(how))
            for key, size, how in self.index.execute("SELECT key, size, verified FROM objects")
        ]

    def remove_damaged(self, key: str, fd: int) -> bool:
        """Remove an object that was found damaged, if the file at `fd` still is that object."""
        with self.index.transaction(), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(self.space.path(key))):
                self.space.forget(key)
                return True
        return False

    @property
    def cap(self) -> int:
        """Bytes that everything in the cache may take together."""
        return self.space.cap

    def clear(self) -> int:
        """Remove everything that is not open in this process; returns the bytes freed."""
        return self.space.clear()

    def close(self) -> None:
        """Close the index."""
        self.index.close()
        self._guard.close()
