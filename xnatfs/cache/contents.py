"""File contents on disk: capped in bytes, least recently used goes first.

Used by `listing` and `content`. Layout below the directory (mode 0700: this is patient data):

    objects/ab/<key>    whole files; the name is the sha256 of what identifies one version of one file
    partials/<key>      large files of which only parts are here (`partial.py`); flock'ed by who has it open
    drafts/<name>       small files being written, each flock'ed by its writer: one nobody holds is left from
    a crash and removed index.sqlite        sizes, last use, how each was checked (`index.py`) lock
    flock'ed, shared, by every process that has the cache open (`sweep.py`: what a crash left is cleared away)

Bytes are reserved before they are fetched, so the cap holds with everything in flight; the disk keeps a
minimum of free space. What is open in this process is not evicted. Several processes may share a directory.
Threading: any thread. One lock, the index's, guards the pins too; it is never held while bytes move.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache.index import Index, ObjectRow, PartialRow
from xnatfs.cache.partial import PAGE, Partial
from xnatfs.cache.recovery import Guard, sweep_all, sweep_drafts
from xnatfs.cache.writers import BatchWriter, CacheWriter, locked
from xnatfs.config import private_folder
from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_READ_AHEAD = 2**20
_RESERVE_STEP = 4 * 2**20  # a draft whose size is not known reserves ahead in such steps


@dataclass
class Entry:
    """An open object: `fd` may be read with `os.pread` from any thread until `close()`."""

    key: str
    size: int
    last_modified: str
    verified: str
    checked: float
    fd: int
    _cache: ContentCache

    def close(self) -> None:
        """Close the descriptor; the object may be evicted from here on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._cache.unpin(self.key)


def _named(key: str) -> str:
    """The key, which is a file's name. It is made from what the server says, so once more: no path, nothing
    hidden.
    """
    if not _KEY.fullmatch(key):
        raise Failure(Cause.CACHE_BROKEN, detail=f"{key[:100]!r} is not the key of a cached file")
    return key


class ContentCache:
    """The content cache of one server and user.

    Args: directory: made if missing. What a process that died left in it is cleared away, and listed in
        `left_behind`. cap: bytes that everything in it may take together. min_free: bytes of the disk that
        are left free.

    Raises:
        Failure: CACHE_BROKEN if the directory cannot be used.
        UsageError: it is somebody else's.
    """

    def __init__(self, directory: Path, cap: int, min_free: int = 0) -> None:
        self.directory = directory
        self.cap = cap
        self.min_free = min_free
        self._objects = str(directory / "objects")
        self._pins: Counter[str] = Counter()
        self._used: dict[str, float] = {}
        self._dropped: list[str] = []  # drafts whose reservation could not be given back yet
        guard: Guard | None = None
        try:
            for part in (directory, directory / "objects", directory / "partials", directory / "drafts"):
                private_folder(part)  # with those above it: their names tell servers and users
            self._guard = guard = Guard(directory)
            self.index = Index(directory / "index.sqlite", directory / "objects", alone=self._guard.alone)
            self._lock = (
                self.index.lock
            )  # one lock for both: pins decide about evictions inside the index's transactions
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
            raise Failure(Cause.CACHE_BROKEN, str(directory), str(error)) from error

    # --- reading --------------------------------------------------------------------------------------------

    def open(self, key: str) -> Entry | None:
        """The object of this key, opened and pinned; None if it is not here."""
        row = self._row(key)
        if row is None:
            return None
        with self._lock:
            try:
                fd = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._forget(key)
                return None
            if (
                os.fstat(fd).st_size != row.size
            ):  # cut by an unclean boot: it was renamed before its bytes were on the disk
                os.close(fd)
                self._forget(key)
                return None
            if row.size > _READ_AHEAD:  # the disk reads while the kernel and Python pass on what came before
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            self._pins[key] += 1
            now = time.time()
            touch = now - self._used.get(key, 0) > 60  # once a minute is enough to order evictions
            if touch:
                self._used[key] = now
        if touch:
            with contextlib.suppress(sqlite3.Error):
                self.index.execute("UPDATE objects SET used = ? WHERE key = ?", now, key)
        return Entry(key, row.size, row.last_modified, row.verified, row.checked, fd, self)

    def has(self, key: str) -> str | None:
        """How the object of this key was checked, None if it is not here. Reads only the index."""
        row = self._row(key)
        return row.verified if row else None

    def _row(self, key: str) -> ObjectRow | None:
        """What the index knows of an object; what cannot be looked up is not here."""
        try:
            return self.index.object(key)
        except sqlite3.Error as error:
            log.warning("the cache's index cannot be read: %s", error)
            return None

    def unpin(self, key: str) -> None:
        """One reader less (called by `Entry.close`)."""
        with self._lock:
            self._pins[key] -= 1
            if self._pins[key] <= 0:
                del self._pins[key]

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
        with self._lock:
            self._forget(key)

    # --- small files ----------------------------------------------------------------------------------------

    def draft(self, size: int | None) -> CacheWriter:
        """A new draft with `size` bytes reserved (None: not known yet).

        Raises:
            Failure: NO_SPACE if that many bytes cannot be made free below the cap.
        """
        reserved = _RESERVE_STEP if size is None else size
        name = uuid.uuid4().hex
        # The locked file first: a reservation without an owner a lock for counts as left from a crash when
        # another mount starts.
        draft = CacheWriter(self, name, self.directory / "drafts" / name, reserved)
        try:
            self._reserve_draft(name, reserved)
        except BaseException:
            draft.close()
            raise
        return draft

    def _reserve_draft(self, name: str, size: int) -> None:
        with self._lock:
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

    def store(self, draft: CacheWriter, path: Path, key: str, last_modified: str, verified: str) -> None:
        """Make a draft an object (called by `CacheWriter.commit`)."""
        try:
            os.ftruncate(draft.fd, draft.written)
            self._into_place(path, key)
            with self.index.transaction():
                self.index.put_object(key, draft.written, last_modified, verified)
                self.index.execute("DELETE FROM drafts WHERE name = ?", draft.name)
        except (OSError, sqlite3.Error) as error:
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error

    def drop_draft(self, name: str, path: Path | None) -> None:
        """Give a draft's reservation back and remove its file if it is still there."""
        if path is not None:
            with contextlib.suppress(OSError):  # what cannot be removed now is swept away by the next mount
                path.unlink(missing_ok=True)
        try:
            self.index.execute("DELETE FROM drafts WHERE name = ?", name)
        except sqlite3.Error:
            self._dropped.append(name)

    def pile(self, size: int) -> BatchWriter:
        """Room for many small files of `size` bytes together, entered into the index some at a time.

        Raises:
            Failure: NO_SPACE if that many bytes cannot be made free below the cap.
        """
        pile = BatchWriter(self, uuid.uuid4().hex, size)
        try:
            self._reserve_draft(pile.name, size)
        except BaseException:
            pile.close()
            raise
        return pile

    def store_many(self, name: str, stored: list[tuple[str, int, str]]) -> None:
        """Enter (key, size, how it was checked) of files of a pile that are in place (called by `Pile`)."""
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
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error

    def into_place(self, path: str, key: str) -> None:
        """Rename a whole, checked file to where the object of `key` belongs."""
        try:
            self._into_place(path, key)
        except OSError as error:
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error

    # --- large files ----------------------------------------------------------------------------------------

    def partial(self, key: str, size: int, last_modified: str) -> Partial:
        """The partial file of this key, opened and locked, with what is already here of this version.

        If another process has it open, a private one under another name, which is gone when it is closed.
        """
        name = key
        path = self.directory / "partials" / _named(key)
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
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error
        with self._lock:
            self._pins[name] += 1
        return Partial(
            self, name, path, size, last_modified, row.pages if fits and row is not None else None, fd
        )

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
            self._into_place(path, key)
            with self.index.transaction():
                self.index.execute("DELETE FROM partials WHERE key = ?", name)
                self.index.put_object(key, size, last_modified, verified)
        except (OSError, sqlite3.Error) as error:
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error

    def drop_partial(self, key: str, path: Path) -> None:
        """Remove a partial file."""
        with contextlib.suppress(OSError):  # as for a draft
            path.unlink(missing_ok=True)
        with contextlib.suppress(sqlite3.Error):
            self.index.execute("DELETE FROM partials WHERE key = ?", key)

    def release_partial(self, key: str, *, kept: bool) -> None:
        """A partial file was closed: only what is present stays reserved; a private one goes. `kept` if it
        still has its name.
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
                    min(row.size, row.pages.count(1) * PAGE),
                    key,
                )

    # --- the whole ------------------------------------------------------------------------------------------

    def usage(self) -> tuple[int, int, int]:
        """(objects, their bytes, bytes reserved by what is on its way or partly here)."""
        try:
            ((count, size),) = self.index.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM objects")
            return int(str(count)), int(str(size)), self.index.total() - int(str(size))
        except sqlite3.Error:
            return 0, 0, 0

    def keys(self) -> list[tuple[str, int, str]]:
        """(key, size, how it was checked) of every object."""
        return [
            (str(key), int(str(size)), str(how))
            for key, size, how in self.index.execute("SELECT key, size, verified FROM objects")
        ]

    def remove_damaged(self, key: str, fd: int) -> bool:
        """Remove an object that was found damaged, if the file at `fd` still is that object."""
        with self.index.transaction(), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(self.path(key))):
                self._forget(key)
                return True
        return False

    def clear(self) -> int:
        """Remove everything that is not open in this process; returns the bytes freed."""
        freed = 0
        for victim in self.index.victims():
            freed += self._evict(victim.key, victim.bytes, partial=victim.partial)
        return freed

    def close(self) -> None:
        """Close the index."""
        self.index.close()
        self._guard.close()

    def path(self, key: str) -> str:
        """Where the object of this key lies."""
        return f"{self._objects}/{key[:2]}/{_named(key)}"

    def _into_place(self, path: Path | str, key: str) -> None:
        target = self.path(key)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            private_folder(Path(target).parent)
            os.rename(path, target)

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
        with self._lock:
            if key in self._pins:
                return 0
            if not partial:
                self._forget(key)
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

    def _forget(self, key: str) -> None:
        self._used.pop(key, None)
        with contextlib.suppress(sqlite3.Error):
            self.index.execute("DELETE FROM objects WHERE key = ?", key)
        with contextlib.suppress(
            OSError
        ):  # in a directory that is read-only by now it stays, and so does its place in the index
            os.unlink(self.path(key))
