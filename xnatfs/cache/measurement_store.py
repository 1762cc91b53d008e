"""Parsed measurement rows kept on this machine, by file and its version, so that a table asks only for what
changed. SQLite.

Used by `tables.engine.collect`. Two things are kept: the rows of a file (with the stamps that tell whether it
is still that file), and which files of a session a table took. Bodies are texts this module does not look
into.
Threading: any thread; one lock around each statement. Several mounts may share the file.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from xnatfs.cache.database import Database, storable
from xnatfs.disk import disk_failure

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1  # rises with every change to:
_SCHEMA = """
CREATE TABLE IF NOT EXISTS parsed (
    key TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,            -- the stamp of the session when the file was last known to be this one
    last_modified TEXT NOT NULL,    -- the file's own header
    digest TEXT NOT NULL,           -- MD5 of what was parsed
    body BLOB NOT NULL,
    used REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS choices (
    key TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,
    spec TEXT NOT NULL,             -- the table's definition when the choice was made
    body TEXT NOT NULL,
    used REAL NOT NULL              -- when it was made
);
CREATE INDEX IF NOT EXISTS parsed_used ON parsed (used);
CREATE INDEX IF NOT EXISTS choices_used ON choices (used);
"""
_KEPT = 180 * 86400.0  # seconds


class ParsedFile(NamedTuple):
    """The rows of a file as they were kept."""

    stamp: str
    last_modified: str
    digest: str
    body: str


class Choice(NamedTuple):
    """Which files of a session a table took, or why none."""

    stamp: str
    spec: str
    body: str
    made: float  # epoch seconds


class MeasurementStore:
    """The measurements at `path`.

    Attributes:
        renewed: see `Database`.

    Raises:
        Failure: CACHE_BROKEN or NO_SPACE where they cannot be written: a table is built from what was
            written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # A table that was lost is parsed again: 5,000 commits a build are not waited for.
        aged = [("parsed", "used", _KEPT), ("choices", "used", _KEPT)]
        self._database = Database(
            path, _SCHEMA, _SCHEMA_VERSION, "the kept measurements", durable=False, aged=aged
        )
        self.renewed = self._database.renewed

    def stamp(self, key: str) -> str | None:
        """The stamp of a file's rows; None if they are not here. Cheaper than the rows."""
        row = self._one("SELECT stamp FROM parsed WHERE key = ?", key)
        return None if row is None else str(row[0])

    def parsed(self, key: str) -> ParsedFile | None:
        """The rows of a file."""
        row = self._one("SELECT stamp, last_modified, digest, body FROM parsed WHERE key = ?", key)
        if row is None:
            return None
        try:
            return ParsedFile(row[0], row[1], row[2], zlib.decompress(row[3]).decode())
        except (zlib.error, UnicodeDecodeError):
            return None

    def put_parsed(self, key: str, stamp: str, last_modified: str, digest: str, body: str) -> None:
        """Keep the rows of a file."""
        packed = zlib.compress(body.encode("utf-8", "backslashreplace"), 1)
        self._run(
            "INSERT OR REPLACE INTO parsed VALUES (?, ?, ?, ?, ?, ?)",
            key,
            stamp,
            last_modified,
            digest,
            packed,
            time.time(),
        )

    def confirm(self, key: str, stamp: str) -> None:
        """The file is still the one that was parsed."""
        self._run("UPDATE parsed SET stamp = ?, used = ? WHERE key = ?", stamp, time.time(), key)

    def choice(self, key: str) -> Choice | None:
        """Which files a table took of a session."""
        row = self._one("SELECT stamp, spec, body, used FROM choices WHERE key = ?", key)
        return None if row is None else Choice(*row)

    def put_choice(self, key: str, stamp: str, spec: str, body: str) -> None:
        """Keep which files a table took of a session."""
        self._run(
            "INSERT OR REPLACE INTO choices VALUES (?, ?, ?, ?, ?)", key, stamp, spec, body, time.time()
        )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        try:
            with self._lock:
                # a row or None
                return self._database.execute(statement, _storable(values)).fetchone()  # type: ignore[no-any-return]
        except sqlite3.Error as error:
            log.warning("stored measurements could not be read: %s", error)
            return None

    def _run(self, statement: str, *values: object) -> None:
        try:
            with self._lock:
                self._database.execute(statement, _storable(values))
        except sqlite3.Error as error:
            raise disk_failure(error, str(self._path)) from error


def _storable(values: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(storable(value) if isinstance(value, str) else value for value in values)
