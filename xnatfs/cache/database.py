"""Opening the small SQLite files beside the cache: one that is damaged, or of another version of xnatfs, is
started anew, since all of them can be had again.

Used by `listing_store`, `measurement_store` and `cache.corrections`. The index of the contents opens its own:
it is made anew from the files.
Threading: the connection may be used by any thread; whoever opens it has the lock.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from xnatfs.cache.index import OPENING, identity, is_damage, network_file_system, patience, wait_at_most
from xnatfs.cache.schema_version import OtherVersion, make_tables
from xnatfs.config import private_folder

log = logging.getLogger(__name__)


def storable(text: str) -> str:
    """The text as SQLite takes it, which refuses lone surrogates: they are spelled out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Database:
    """The database at `path`, made if it is missing, 0600. Started anew when it is found damaged or gone, now
    or later: a failing disk, somebody who cleared the cache directory by hand.

    Args:
        schema: statements that may be run again.
        version: their number, which rises with every change to them.
        what: names it in the log.
        read_whole: look at every page now: for a small one that is read whole anyhow.
        durable: False where a commit need not be waited for.
        aged: (table, column of epoch seconds, seconds): older rows are removed now.

    Attributes:
        renewed: why it was started anew when it was opened, as a sentence; "" if it was not.

    Raises:
        sqlite3.Error, OSError: it cannot be used at all.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        version: int,
        what: str,
        *,
        durable: bool = True,
        read_whole: bool = False,
        aged: Iterable[tuple[str, str, float]] = (),
    ) -> None:
        self._path = path
        self._what = what
        self.renewed = ""
        self._open = partial(_opened, path, schema, version, durable, read_whole, tuple(aged))
        private_folder(path.parent)
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error) and not isinstance(error, OtherVersion):
                raise
            self._start_anew(error)
            self.renewed = f"{what} {path} were started anew: {error}"
        self._identity = identity(path)

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """One statement.

        Raises:
            sqlite3.Error: it cannot be carried out, also not by a database started anew.
        """
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            mine = self._identity == identity(self._path)
            if self._database.in_transaction or (mine and not is_damage(error)):
                raise
            try:
                self._start_anew(error, remove=mine)
            except (OSError, sqlite3.Error) as problem:
                raise error from problem
            return self._database.execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for each row; in a transaction, so that `execute` has looked after the database."""
        self._database.executemany(statement, rows)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def _start_anew(self, error: sqlite3.Error, *, remove: bool = True) -> None:
        log.warning(
            "%s %s are damaged, missing or of another version (%s); starting with empty ones",
            self._what,
            self._path,
            error,
        )
        if remove:  # else somebody else has done so already
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        private_folder(self._path.parent)
        fresh = self._open()
        if hasattr(self, "_database"):
            self._database.close()
        self._database = fresh
        self._identity = identity(self._path)


def _opened(
    path: Path,
    schema: str,
    version: int,
    durable: bool,
    read_whole: bool,
    aged: Iterable[tuple[str, str, float]],
) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=OPENING)
    try:
        path.chmod(0o600)
        # A write-ahead log needs shared memory, which network file systems do not give (sqlite.org/wal.html).
        network = network_file_system(path.parent)
        database.execute(f"PRAGMA journal_mode = {'DELETE' if network else 'WAL'}")
        database.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
        make_tables(database, schema, version)
        if read_whole and database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("a page is damaged")
        for table, column, seconds in aged:
            with contextlib.suppress(sqlite3.OperationalError):  # another mount holds it
                database.execute(f"DELETE FROM {table} WHERE {column} < ?", (time.time() - seconds,))
        wait_at_most(database, patience(network))
    except BaseException:
        database.close()
        raise
    return database
