"""File contents on disk: capped in bytes, least recently used goes first.

Used by `fetch.transfers`. Layout below the directory (mode 0700: this is patient data):

    objects/ab/<key>    whole files; the name is the sha256 of what identifies one version of one file
    drafts/<name>       files being written, each flock'ed by its writer: a draft nobody holds is left from a crash and removed
    index.sqlite        sizes, last use, how each object was checked; rebuilt from the objects if it is lost

A draft reserves its bytes before it is written, so the cap holds with everything in flight. An object that is open is not evicted.
Threading: any thread. One lock guards the index and the pins; it is held for an SQLite statement or an unlink, never while bytes move.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,          -- bytes
    last_modified TEXT NOT NULL,    -- the server's header, "" if it sent none
    verified TEXT NOT NULL,         -- md5, size: how the content was checked; "" after a rebuild of this index
    checked REAL NOT NULL,          -- when it was last known to be the server's, epoch seconds
    used REAL NOT NULL              -- last opened, epoch seconds
);
CREATE INDEX IF NOT EXISTS objects_used ON objects (used);
CREATE TABLE IF NOT EXISTS drafts (name TEXT PRIMARY KEY, reserved INTEGER NOT NULL);
-- Kept by triggers: a SUM over 100,000 objects for each file fetched would cost 10 ms each.
CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS object_in AFTER INSERT ON objects BEGIN UPDATE total SET bytes = bytes + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS object_out AFTER DELETE ON objects BEGIN UPDATE total SET bytes = bytes - OLD.size; END;
CREATE TRIGGER IF NOT EXISTS draft_in AFTER INSERT ON drafts BEGIN UPDATE total SET bytes = bytes + NEW.reserved; END;
CREATE TRIGGER IF NOT EXISTS draft_out AFTER DELETE ON drafts BEGIN UPDATE total SET bytes = bytes - OLD.reserved; END;
CREATE TRIGGER IF NOT EXISTS draft_more AFTER UPDATE ON drafts BEGIN UPDATE total SET bytes = bytes + NEW.reserved - OLD.reserved; END;
"""
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


class Draft:
    """A file being written. One writer; readers may `os.pread` what is already there from `fd`."""

    def __init__(self, cache: ContentCache, name: str, path: Path, reserved: int) -> None:
        self._cache = cache
        self.name = name
        self._path = path
        self._reserved = reserved
        self.written = 0
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def write(self, piece: bytes) -> None:
        """Append.

        Raises:
            Failure: NO_SPACE if the cap or the disk is full.
        """
        if self.written + len(piece) > self._reserved:
            more = max(_RESERVE_STEP, self.written + len(piece) - self._reserved)
            self._cache.reserve_more(self.name, more)
            self._reserved += more
        view = memoryview(piece)
        try:
            while view:
                count = os.pwrite(self.fd, view, self.written)
                self.written += count
                view = view[count:]
        except OSError as error:
            raise Failure(Cause.NO_SPACE if error.errno in (28, 122) else Cause.CACHE_BROKEN, str(self._path.parent), str(error)) from error

    def rewind(self) -> None:
        """Write from the start again, over what is there: readers of the part already served go on meanwhile."""
        self.written = 0

    def commit(self, key: str, *, last_modified: str, verified: str) -> None:
        """Rename into place under `key`, as a whole and checked content."""
        self._cache.store(self, self._path, key, last_modified, verified)

    def close(self) -> None:
        """Close the descriptor; without a commit the bytes are gone."""
        if self.fd >= 0:
            self._cache.drop_draft(self.name, self._path)
            os.close(self.fd)
            self.fd = -1


class ContentCache:
    """The content cache of one server and user.

    Args:
        directory: made if missing.
        cap: bytes that objects and drafts may take together.

    Raises:
        Failure: CACHE_BROKEN if the directory cannot be used.
    """

    def __init__(self, directory: Path, cap: int) -> None:
        self.directory = directory
        self.cap = cap
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._used: dict[str, float] = {}
        try:
            for part in (directory, directory / "objects", directory / "drafts"):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            self._index = self._open_index()
            self._remove_dead_drafts()
        except (OSError, sqlite3.Error) as error:
            raise Failure(Cause.CACHE_BROKEN, str(directory), str(error)) from error

    # --- reading -------------------------------------------------------------------------------------------------

    def open(self, key: str) -> Entry | None:
        """The object of this key, opened and pinned; None if it is not here."""
        with self._lock:
            row = self._index.execute("SELECT size, last_modified, verified, checked FROM objects WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            try:
                fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._index.execute("DELETE FROM objects WHERE key = ?", (key,))
                return None
            if os.fstat(fd).st_size != row[0]:  # cut by an unclean boot: it was renamed before its bytes were on the disk
                os.close(fd)
                self._forget(key)
                return None
            self._pins[key] += 1
            now = time.time()
            if now - self._used.get(key, 0) > 60:  # once a minute is enough to order evictions
                self._used[key] = now
                self._index.execute("UPDATE objects SET used = ? WHERE key = ?", (now, key))
        return Entry(key, row[0], row[1], row[2], row[3], fd, self)

    def has(self, key: str) -> str | None:
        """How the object of this key was checked, None if it is not here. Reads only the index."""
        with self._lock:
            row = self._index.execute("SELECT verified FROM objects WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def unpin(self, key: str) -> None:
        """One reader less (called by `Entry.close`)."""
        with self._lock:
            self._pins[key] -= 1
            if self._pins[key] <= 0:
                del self._pins[key]

    def confirm(self, key: str) -> None:
        """The server said that this object is still its content."""
        with self._lock:
            self._index.execute("UPDATE objects SET checked = ? WHERE key = ?", (time.time(), key))

    def forget(self, key: str) -> None:
        """Remove an object that is no longer the server's content. Who has it open may read on."""
        with self._lock:
            self._forget(key)

    # --- writing -------------------------------------------------------------------------------------------------

    def draft(self, size: int | None) -> Draft:
        """A new draft with `size` bytes reserved (None: not known yet).

        Raises:
            Failure: NO_SPACE if that many bytes cannot be made free below the cap.
        """
        reserved = _RESERVE_STEP if size is None else size
        name = uuid.uuid4().hex
        with self._lock:
            self._make_room(reserved)
            self._index.execute("INSERT INTO drafts VALUES (?, ?)", (name, reserved))
        try:
            return Draft(self, name, self.directory / "drafts" / name, reserved)
        except OSError as error:
            self.drop_draft(name, None)
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error

    def reserve_more(self, name: str, more: int) -> None:
        """Add to a draft's reservation."""
        with self._lock:
            self._make_room(more)
            self._index.execute("UPDATE drafts SET reserved = reserved + ? WHERE name = ?", (more, name))

    def store(self, draft: Draft, path: Path, key: str, last_modified: str, verified: str) -> None:
        """Make a draft an object (called by `Draft.commit`)."""
        target = self._path(key)
        now = time.time()
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            with self._lock:
                os.ftruncate(draft.fd, draft.written)
                path.rename(target)
                self._index.execute("DELETE FROM objects WHERE key = ?", (key,))  # REPLACE would not fire the trigger
                self._index.execute(
                    "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?)", (key, draft.written, last_modified, verified, now, now)
                )
                self._index.execute("DELETE FROM drafts WHERE name = ?", (draft.name,))
        except (OSError, sqlite3.Error) as error:
            raise Failure(Cause.CACHE_BROKEN, str(self.directory), str(error)) from error

    def drop_draft(self, name: str, path: Path | None) -> None:
        """Give a draft's reservation back and remove its file if it is still there."""
        if path is not None:
            path.unlink(missing_ok=True)
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._index.execute("DELETE FROM drafts WHERE name = ?", (name,))

    # --- the whole -----------------------------------------------------------------------------------------------

    def usage(self) -> tuple[int, int, int]:
        """(objects, their bytes, bytes reserved by drafts)."""
        with self._lock:
            count, size = self._index.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM objects").fetchone()
            reserved = self._index.execute("SELECT COALESCE(SUM(reserved), 0) FROM drafts").fetchone()[0]
            return count, size, reserved

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            self._index.close()

    def _path(self, key: str) -> Path:
        return self.directory / "objects" / key[:2] / key

    def _make_room(self, size: int) -> None:
        """Evict until `size` more bytes fit below the cap. Called with the lock held."""
        total = int(self._index.execute("SELECT bytes FROM total").fetchone()[0])
        if total + size <= self.cap:
            return
        for key, freed in self._index.execute("SELECT key, size FROM objects ORDER BY used").fetchall():
            if key in self._pins:
                continue
            self._forget(key)
            total -= freed
            if total + size <= self.cap:
                return
        raise Failure(Cause.NO_SPACE, str(self.directory), f"{size} bytes are needed, the cap is {self.cap}")

    def _forget(self, key: str) -> None:
        self._index.execute("DELETE FROM objects WHERE key = ?", (key,))
        self._used.pop(key, None)
        self._path(key).unlink(missing_ok=True)

    def _open_index(self) -> sqlite3.Connection:
        path = self.directory / "index.sqlite"
        try:
            return self._connect(path, rebuild=not path.exists())
        except sqlite3.DatabaseError as error:
            log.warning("the cache's index %s is damaged (%s); it is made anew from the cached files", path, error)
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            return self._connect(path, rebuild=True)

    def _connect(self, path: Path, *, rebuild: bool) -> sqlite3.Connection:
        index = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            path.chmod(0o600)
            index.execute("PRAGMA journal_mode = WAL")
            index.execute("PRAGMA synchronous = NORMAL")
            index.executescript(_SCHEMA)
            index.execute("SELECT COUNT(*) FROM objects").fetchone()
            if rebuild:
                for file in sorted((self.directory / "objects").glob("??/*")):
                    stat = file.stat()
                    index.execute("INSERT OR IGNORE INTO objects VALUES (?, ?, '', '', 0, ?)", (file.name, stat.st_size, stat.st_atime))
        except BaseException:
            index.close()
            raise
        return index

    def _remove_dead_drafts(self) -> None:
        alive: set[str] = set()
        for path in (self.directory / "drafts").iterdir():
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                alive.add(path.name)
            finally:
                os.close(fd)
        for (name,) in self._index.execute("SELECT name FROM drafts").fetchall():
            if name not in alive:
                self._index.execute("DELETE FROM drafts WHERE name = ?", (name,))
