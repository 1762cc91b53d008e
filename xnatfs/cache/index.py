"""The index of a content cache: what is there, how large, how checked, when last used. SQLite, one file a
cache directory.

Used by `contents` only. The files are the truth: an index that is lost or damaged is made anew from them, at
the start and in the middle of a mount (a failing disk, somebody who cleared the cache directory by hand).
Several processes may share it; what decides about bytes (making room and reserving) is one transaction.
Threading: any thread, one lock around each statement or transaction. Network file systems get no write-ahead
log: SQLite's needs shared memory, which they do not give (sqlite.org/wal.html, "all processes must be on the
same host").
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from xnatfs.cache.schema_version import OtherVersion, make_tables
from xnatfs.disk import disk_failure
from xnatfs.errors import Failure

log = logging.getLogger(__name__)

_KEYS_AT_ONCE = 500  # SQLite allows 999 values in a statement, or more
_SCHEMA_VERSION = 1  # rises with every change to:
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,          -- bytes
    last_modified TEXT NOT NULL,    -- the server's header, "" if it sent none
    verified TEXT NOT NULL,         -- md5, crc, size: how the content was checked, "" if it has to be again
    checked REAL NOT NULL,          -- when it was last known to be the server's, epoch seconds
    used REAL NOT NULL              -- last opened, epoch seconds
);
CREATE INDEX IF NOT EXISTS objects_used ON objects (used);
CREATE TABLE IF NOT EXISTS drafts (name TEXT PRIMARY KEY, reserved INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS partials (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,          -- of the whole file
    last_modified TEXT NOT NULL,
    pages BLOB NOT NULL,            -- one byte a page of 128 KiB, 1 for present
    reserved INTEGER NOT NULL,      -- bytes on disk and on their way
    used REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS boot (id TEXT NOT NULL, users INTEGER NOT NULL);
-- Kept by triggers: a SUM over 100,000 objects for each file fetched would cost 10 ms each.
CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS object_in AFTER INSERT ON objects
    BEGIN UPDATE total SET bytes = bytes + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS object_out AFTER DELETE ON objects
    BEGIN UPDATE total SET bytes = bytes - OLD.size; END;
CREATE TRIGGER IF NOT EXISTS draft_in AFTER INSERT ON drafts
    BEGIN UPDATE total SET bytes = bytes + NEW.reserved; END;
CREATE TRIGGER IF NOT EXISTS draft_out AFTER DELETE ON drafts
    BEGIN UPDATE total SET bytes = bytes - OLD.reserved; END;
CREATE TRIGGER IF NOT EXISTS draft_more AFTER UPDATE ON drafts
    BEGIN UPDATE total SET bytes = bytes + NEW.reserved - OLD.reserved; END;
CREATE TRIGGER IF NOT EXISTS partial_in AFTER INSERT ON partials
    BEGIN UPDATE total SET bytes = bytes + NEW.reserved; END;
CREATE TRIGGER IF NOT EXISTS partial_out AFTER DELETE ON partials
    BEGIN UPDATE total SET bytes = bytes - OLD.reserved; END;
CREATE TRIGGER IF NOT EXISTS partial_more AFTER UPDATE OF reserved ON partials
    BEGIN UPDATE total SET bytes = bytes + NEW.reserved - OLD.reserved; END;
"""
OPENING = 10.0  # seconds that who opens a database waits for other processes
_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "lustre",
    "beegfs",
    "gpfs",
    "afs",
    "ceph",
    "fuse.",
    "glusterfs",
    "pvfs2",
    "ncpfs",
)


class ObjectRow(NamedTuple):
    """A whole file."""

    size: int
    last_modified: str
    verified: str
    checked: float


class PartialRow(NamedTuple):
    """A file of which parts are here."""

    size: int
    last_modified: str
    pages: bytes


class Victim(NamedTuple):
    """Something that could be evicted: an object or (`partial`) a partial file, and the bytes that would
    free.
    """

    key: str
    bytes: int
    partial: bool


class Index:
    """The index at `path`; `objects` is the folder to make it anew from; `alone`: no other process has it
    open.

    Attributes:
        renewed: why it was made anew when it was opened, as a sentence; "" if it was not.
        crashed: whether the last one who had it open did not close it (known only to one who is alone).

    Raises:
        sqlite3.Error, OSError: it cannot be used at all.
    """

    def __init__(self, path: Path, objects: Path, *, alone: bool = False) -> None:
        self._path = path
        self._alone = alone
        self.renewed = ""
        self.crashed = False
        self._objects = objects
        self.lock = threading.RLock()
        self._closed = False  # could not be opened anew
        self._in_vain = False  # another process holds it for longer than one waits
        self.network = network_file_system(path.parent)
        if self.network:
            log.warning(
                "the cache directory is on a network file system (%s); a local one is faster and safer",
                self.network,
            )
        try:
            self._database = self._connect(rebuild=not path.exists())
        except sqlite3.DatabaseError as error:
            if not is_damage(error) and not isinstance(error, OtherVersion):
                raise
            log.warning("the cache's index %s cannot be used; making it from the files (%s)", path, error)
            self.renewed = f"the cache's index {path} was made anew from the cached files: {error}"
            self._remove()
            self._database = self._connect(rebuild=True)

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """One statement; all its rows.

        Raises:
            sqlite3.Error: it cannot be carried out, also not by an index made anew.
        """
        with self.lock:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                self._waited_in_vain(error)
                self._repair(error)
                return self._database.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything within, at once, also for other processes.

        Raises:
            Failure: NO_SPACE or CACHE_BROKEN where SQLite cannot write.
        """
        with self.lock:
            try:
                self.execute("BEGIN IMMEDIATE")
                self._free_again()
                try:
                    yield
                except Failure:  # no room: what was evicted is gone from the disk all the same
                    self._database.execute("COMMIT")
                    raise
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                self._abandon()
                raise disk_failure(error, str(self._path)) from error

    # --- rows -----------------------------------------------------------------------------------------------

    def object(self, key: str) -> ObjectRow | None:
        """The row of an object."""
        rows = self.execute("SELECT size, last_modified, verified, checked FROM objects WHERE key = ?", key)
        # the schema says what they are
        return ObjectRow(*rows[0]) if rows else None  # type: ignore[arg-type]

    def present(self, keys: Sequence[str]) -> set[str]:
        """Which of these objects there are: a hundredth of the time that asking for each takes."""
        found: set[str] = set()
        for at in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[at : at + _KEYS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self.execute(f"SELECT key FROM objects WHERE key IN ({marks})", *some)
            found.update(str(key) for (key,) in rows)
        return found

    def put_object(self, key: str, size: int, last_modified: str, verified: str) -> None:
        """Enter an object, in place of an older one."""
        now = time.time()
        with self.lock:
            self._database.execute(
                "DELETE FROM objects WHERE key = ?", (key,)
            )  # REPLACE would not fire the trigger
            self._database.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?)",
                (key, size, last_modified, verified, now, now),
            )

    def partial(self, key: str) -> PartialRow | None:
        """The row of a partial file."""
        rows = self.execute("SELECT size, last_modified, pages FROM partials WHERE key = ?", key)
        return PartialRow(*rows[0]) if rows else None  # type: ignore[arg-type]  # see `object`

    def total(self) -> int:
        """Bytes of everything, with what is reserved."""
        return int(str(self.execute("SELECT bytes FROM total")[0][0]))

    def victims(self) -> list[Victim]:
        """What could be evicted, least recently used first."""
        with self.lock:
            rows = self._database.execute(
                "SELECT key, size, 0, used FROM objects UNION ALL SELECT key, reserved, 1, used FROM "
                "partials ORDER BY used"
            ).fetchall()
        return [Victim(key, size, bool(partial)) for key, size, partial, _ in rows]

    def shrink(self) -> None:
        """Give the space of deleted rows back to the disk, if nobody else is at it."""
        with self.lock, contextlib.suppress(sqlite3.Error):
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """One user less; the last one to close leaves the index marked as clean."""
        with self.lock:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("UPDATE boot SET users = MAX(0, users - 1)")
            self._database.close()

    # --- waiting for other processes ------------------------------------------------------------------------

    def _waited_in_vain(self, error: sqlite3.Error) -> None:
        """If another process holds it, wait no more until it is free: a mount that was stopped in the middle
        of a transaction would hold up this one, whose threads come one after the other. Called with the lock
        held.
        """
        if is_busy(error) and not self._in_vain:
            self._in_vain = True
            log.warning(
                "the cache's index %s is locked by another process; working without it until it is free",
                self._path,
            )
            wait_at_most(self._database, 0)

    def _free_again(self) -> None:
        if self._in_vain:
            self._in_vain = False
            log.warning("the cache's index %s is free again", self._path)
            wait_at_most(self._database, patience(self.network))

    # --- repairing ------------------------------------------------------------------------------------------

    def _repair(self, error: sqlite3.Error) -> None:
        """Open it anew if it is damaged or gone; raises the error if it is neither, or if that is of no use.
        Called with the lock held.
        """
        if not self._closed and self._database.in_transaction:
            raise error  # a part of it is lost: who began it has to begin again
        mine = self._file == identity(self._path)
        if mine and not is_damage(error) and not self._closed:
            raise error
        log.warning(
            "the cache's index %s is damaged or missing (%s); rebuilding it from the cached files",
            self._path,
            error,
        )
        self._closed = True
        self._database.close()
        try:
            if mine:  # else another mount has made it anew already
                self._remove()
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = self._connect(rebuild=not self._path.exists())
        except (OSError, sqlite3.Error) as problem:
            raise error from problem
        self._closed = False

    def _abandon(self) -> None:
        """After a transaction that could be neither committed nor rolled back: the next statement opens it
        anew.
        """
        if not self._closed and self._database.in_transaction:
            self._closed = True
            self._database.close()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    # --- opening --------------------------------------------------------------------------------------------

    def _connect(self, *, rebuild: bool) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=OPENING)
        try:
            self._path.chmod(0o600)
            database.execute(f"PRAGMA journal_mode = {'DELETE' if self.network else 'WAL'}")
            database.execute("PRAGMA synchronous = NORMAL")
            make_tables(database, _SCHEMA, _SCHEMA_VERSION)
            database.execute("SELECT COUNT(*) FROM objects, partials, drafts").fetchone()
            if rebuild:
                for file in sorted(self._objects.glob("??/*")):
                    stat = file.stat()
                    database.execute(
                        "INSERT OR IGNORE INTO objects VALUES (?, ?, '', '', 0, ?)",
                        (file.name, stat.st_size, stat.st_atime),
                    )
            self._note_boot(database)
            self._file = identity(self._path)
            wait_at_most(database, patience(self.network))
            self._in_vain = False
        except BaseException:
            database.close()
            raise
        return database

    def _note_boot(self, database: sqlite3.Connection) -> None:
        """After a boot that did not find the cache closed, what was written last may not have reached the
        disk: check all again.
        """
        current = _boot_id()
        row = database.execute("SELECT id, users FROM boot").fetchone()
        if row is None:
            database.execute("INSERT INTO boot VALUES (?, 1)", (current,))
        elif row[0] == current and self._alone:
            self.crashed = bool(row[1])
            database.execute("UPDATE boot SET users = 1")
        elif row[0] == current:
            database.execute("UPDATE boot SET users = users + 1")
        else:
            if row[1]:
                log.warning("the machine crashed while the cache was in use; its contents are verified again")
                # Without a digest nothing tells whether the bytes are right: without its date such a file is
                # fetched again.
                database.execute("UPDATE objects SET verified = '', checked = 0, last_modified = ''")
                database.execute("DELETE FROM partials")
                self.crashed = True
            database.execute("UPDATE boot SET id = ?, users = 1", (current,))


def patience(network: str) -> float:
    """Seconds that a statement waits for another process. Their transactions take milliseconds; over a
    network, with its locks, more.
    """
    return 10.0 if network else 2.0


def wait_at_most(database: sqlite3.Connection, seconds: float) -> None:
    """How long its statements wait for other processes from here on."""
    database.execute(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds the database."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(
        error
    )  # 3.10 has no sqlite_errorcode


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no sound database, so that it is best made anew; not that it is locked, or the disk
    full.
    """
    return (
        type(error) is sqlite3.DatabaseError
    )  # SQLITE_CORRUPT and SQLITE_NOTADB; the rest have classes of their own


def identity(path: Path) -> tuple[int, int]:
    """Tells one file from another that took its place."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def network_file_system(folder: Path) -> str:
    """The type of the file system of a folder if it is a network one, else ""."""
    kind = file_system(folder)
    return kind if kind.startswith(_NETWORK) else ""


def file_system(folder: Path) -> str:
    """The type of the file system of a folder, "" if it cannot be told."""
    best, kind = "", ""
    place = str(folder.resolve())
    try:
        lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        point = fields[1].replace("\\040", " ")
        if len(point) >= len(best) and (place == point or place.startswith(point.rstrip("/") + "/")):
            best, kind = point, fields[2]
    return kind
