"""What was learnt about a server's files and must outlive the cache: true sizes where the catalog is wrong,
wrong digests, first dates.

Used by `listing` and `content`. Kept in the state directory: `rsync` of a file whose catalog size is wrong
must find the same true size after a remount and after the cache was cleared, else it copies the file again.
Threading: any thread; one lock around short SQLite statements, reads come from memory.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

from xnatfs.cache.database import Database, storable

log = logging.getLogger(__name__)


_SCHEMA_VERSION = 1  # rises with every change to:
_SCHEMA = "CREATE TABLE IF NOT EXISTS learnt (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key));"


class Corrections:
    """A small persistent map (kind, key) -> text, read whole at the start: it only ever holds the server's
    errors.

    Attributes:
        renewed: see `Database`.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, str]] = {}  # by kind
        self._database = Database(path, _SCHEMA, _SCHEMA_VERSION, "the corrections in", read_whole=True)
        self.renewed = self._database.renewed
        for kind, key, value in self._database.execute("SELECT kind, key, value FROM learnt"):
            self._values.setdefault(kind, {})[key] = value

    def get(self, kind: str, key: str) -> str | None:
        """The value, from memory."""
        values = self._values.get(kind)  # none of most kinds, and each file of a listing is looked for
        return values.get(storable(key)) if values else None

    def put(self, kind: str, key: str, value: str) -> None:
        """Set and persist. A state directory that cannot be written costs the memory of it, not the
        operation.
        """
        key, value = storable(key), storable(value)
        with self._lock:
            values = self._values.setdefault(kind, {})
            if values.get(key) == value:
                return
            values[key] = value
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("INSERT OR REPLACE INTO learnt VALUES (?, ?, ?)", (kind, key, value))

    def of(self, kind: str) -> dict[str, str]:
        """All values of a kind."""
        return dict(self._values.get(kind, {}))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()
