"""Listings kept on this machine, so that a remount starts warm and `--offline` has names to show. SQLite, one
file a server and user.

Used by `listing.codec`, which knows what is in them; here they are texts under (kind, key), with the stamp
they came with and their age. What is written is queued and written by one thread of its own: nobody who lists
waits for a disk.
Threading: any thread; one lock around each statement. Several mounts may share the file.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
import zlib
from pathlib import Path

from xnatfs.cache.database import Database, storable
from xnatfs.cache.shared_listings import SharedListings, Stored

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1  # rises with every change to:
_SCHEMA = """
CREATE TABLE IF NOT EXISTS listings (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    stamp TEXT NOT NULL,    -- the server's last_modified it came with, "" if there is none
    made REAL NOT NULL,     -- epoch seconds
    body BLOB NOT NULL,     -- zlib
    PRIMARY KEY (kind, key)
);
CREATE INDEX IF NOT EXISTS listings_made ON listings (made);
"""
_KEPT = 90 * 86400.0  # seconds; a listing nobody renewed for so long is dropped
_AT_ONCE = 200  # listings written in one transaction


class ListingStore:
    """The listings at `path`. A store that cannot be written costs the memory of it, not the operation.

    Args:
        shared: what other machines of this user listed.

    Attributes:
        renewed: see `Database`.
    """

    def __init__(self, path: Path, shared: SharedListings | None = None) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._queue: queue.Queue[tuple[str, str, str, float, str] | None] = queue.Queue()
        aged = [("listings", "made", _KEPT)]
        self._database = Database(path, _SCHEMA, _SCHEMA_VERSION, "the stored listings", aged=aged)
        self.renewed = self._database.renewed
        self._writer = threading.Thread(target=self._write, name="listings", daemon=True)
        self._writer.start()

    def get(self, kind: str, key: str) -> Stored | None:
        """The listing of this kind and key; None if there is none."""
        kept = self._kept(kind, key)
        if kept is not None or self._shared is None:
            return kept
        found = self._shared.get(kind, storable(key))
        if found is not None:
            self._queue.put((kind, storable(key), found.stamp, found.made, found.body))
        return found

    def _kept(self, kind: str, key: str) -> Stored | None:
        try:
            with self._lock:
                asked = "SELECT stamp, made, body FROM listings WHERE kind = ? AND key = ?"
                row = self._database.execute(asked, (kind, storable(key))).fetchone()
            return (
                Stored(row[0], row[1], zlib.decompress(row[2]).decode("utf-8", "surrogatepass"))
                if row
                else None
            )
        except (sqlite3.Error, zlib.error, UnicodeDecodeError) as error:
            log.warning("a stored listing could not be read: %s", error)
            return None

    def put(self, kind: str, key: str, stamp: str, body: str) -> None:
        """Keep a listing in place of an older one. Returns at once."""
        self._queue.put((kind, storable(key), storable(stamp), time.time(), body))
        if self._shared is not None:
            self._shared.put(kind, storable(key), storable(stamp), body)

    def drop(self, kind: str, key: str) -> None:
        """Forget a listing: it is no longer this user's, or was wrong. What waits to be written is written
        first, or it would come after this.
        """
        self.flush()
        if self._shared is not None:
            self._shared.drop(kind, storable(key))
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._database.execute("DELETE FROM listings WHERE kind = ? AND key = ?", (kind, storable(key)))

    def flush(self) -> None:
        """Wait until all that was put is written."""
        self._queue.join()

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._writer.join(timeout=30)
        with self._lock:
            self._database.close()
        if self._shared is not None:
            self._shared.close()

    def _write(self) -> None:
        ending = False
        while not ending:
            batch = [self._queue.get()]
            while len(batch) < _AT_ONCE and not self._queue.empty():
                batch.append(self._queue.get())
            ending = None in batch
            rows = [
                (kind, key, stamp, made, zlib.compress(body.encode("utf-8", "surrogatepass"), 1))
                for kind, key, stamp, made, body in filter(None, batch)
            ]
            try:
                with self._lock:
                    self._database.execute("BEGIN IMMEDIATE")
                    self._database.executemany("INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?, ?)", rows)
                    self._database.execute("COMMIT")
            except sqlite3.Error as error:
                log.warning("listings could not be stored: %s", error)
                with self._lock, contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            for _ in batch:
                self._queue.task_done()
