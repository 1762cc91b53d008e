"""What was learnt about a server's files and must outlive the cache: true sizes where the catalog is wrong, wrong digests, first dates.

Used by `fetch`. Kept in the state directory: `rsync` of a file whose catalog size is wrong must find the same true size after a remount
and after the cache was cleared, else it copies the file again.
Threading: any thread; one lock around short SQLite statements, reads come from memory.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

from xnatfs.config import private_folder

log = logging.getLogger(__name__)


class Learnt:
    """A small persistent map (kind, key) -> text, read whole at the start: it only ever holds the server's errors."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], str] = {}
        private_folder(path.parent)
        try:
            self._database = self._open(path)
        except sqlite3.DatabaseError as error:
            log.warning("%s is damaged (%s) and is started anew", path, error)
            path.unlink(missing_ok=True)
            self._database = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            path.chmod(0o600)
            database.execute("CREATE TABLE IF NOT EXISTS learnt (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key))")
            for kind, key, value in database.execute("SELECT kind, key, value FROM learnt"):
                self._values[kind, key] = value
        except BaseException:
            database.close()
            raise
        return database

    def get(self, kind: str, key: str) -> str | None:
        """The value, from memory."""
        return self._values.get((kind, key))

    def put(self, kind: str, key: str, value: str) -> None:
        """Set and persist. A state directory that cannot be written costs the memory of it, not the operation."""
        with self._lock:
            if self._values.get((kind, key)) == value:
                return
            self._values[kind, key] = value
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("INSERT OR REPLACE INTO learnt VALUES (?, ?, ?)", (kind, key, value))

    def of(self, kind: str) -> dict[str, str]:
        """All values of a kind."""
        return {key: value for (one, key), value in list(self._values.items()) if one == kind}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()
