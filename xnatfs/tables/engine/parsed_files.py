"""The parsed rows of single files: from the store where the server's stamps agree, else fetched and parsed.

Used by `resource_reader` (which reads), and by `built_table` (which gets the rows back). Cost: one request a
file. Rows are stored with the stamp of their session (`listing.stamps`): while that stays nothing is
requested; when it has moved, the file is fetched again and compared by its digest.
Threading: any thread.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import NamedTuple

from xnatfs.errors import Cause, Failure, MissingExtra
from xnatfs.server.records import FileRecord
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.spec import Input, Parsed, ParseError

log = logging.getLogger(__name__)

_FORMAT_VERSION = 1  # of stored rows


class ParsedInput(NamedTuple):
    """A file that was read: its role, its path inside the resource, and the key its rows are stored under."""

    role: str
    path: str
    key: str


class ParsedFiles:
    """The files of one table.

    Args:
        services: fetch files and keep rows.
        table: the table's key.
        check: fetch every file again, whatever the stamps say.
    """

    def __init__(self, services: TableServices, table: str, *, check: bool) -> None:
        self._downloads = services.downloads
        self._store = services.store
        self._table = table
        self._check = check
        self._digests: dict[str, str] = {}  # by key of a read

    def read(
        self,
        input: Input,
        record: FileRecord,
        problems: list[str],
        *,
        listed: bool,
        stamp: str,
        aged: bool = False,
    ) -> list[ParsedInput] | None:
        """The file, read; empty if it is not what it should be, which `problems` then says; None if it is a
        guess and may have been cut short.

        Args:
            listed: whether the record is the server's own, or only a guess at a path.
            stamp: of the session, as far as it holds for this file.
            aged: that the stamp is the same proves nothing.

        Raises:
            Failure: the file is not available.
        """
        key = self._key(input, record)
        read = ParsedInput(input.role, record.path, key)
        stored = self._store.parsed(key)
        if stored is not None and not self._check:
            same_stamp = stored.stamp == stamp != "" and not aged
            if same_stamp or (listed and record.digest and stored.digest == record.digest):
                if stored.stamp != stamp:
                    self._store.confirm(key, stamp)
                return [read]
        fetched = self._downloads.fetch(record, listed=listed)
        if not listed and not fetched.sure:
            fetched.stream.close()
            return None
        if stored is not None and stored.digest == fetched.md5:
            fetched.stream.close()
            self._store.confirm(key, stamp)
            return [read]
        with fetched.stream as stream:
            try:
                parsed = input.parse(stream, record.path)
            except ParseError as error:
                problems.append(f"{record.path}: {error}")
                return []
            except MissingExtra:
                raise  # it says nothing of the file, so nothing may be stored
            except Exception as error:
                # A mistake in a parser, which may be a plug-in's, costs the session and not the table.
                log.exception("%s: %s/%s cannot parse it", record.uri, self._table, input.role)
                problems.append(f"{record.path}: it cannot be parsed ({type(error).__name__}: {error})")
                return []
        body = json.dumps([_FORMAT_VERSION, parsed.columns, parsed.rows, parsed.notes])
        self._store.put_parsed(key, stamp, fetched.last_modified, fetched.md5, body)
        return [read]

    def rows(self, read: ParsedInput) -> Parsed:
        """The rows of a file that was read.

        Raises:
            Failure: they are not in the store any more (another process cleared the cache).
        """
        stored = self._store.parsed(read.key)
        if stored is None:
            raise Failure(
                Cause.CACHE_BROKEN,
                read.path,
                "the rows parsed from it have been evicted; open the table again",
            )
        self._digests[read.key] = stored.digest
        _, columns, rows, notes = json.loads(stored.body)
        return Parsed(tuple(columns), [tuple(row) for row in rows], tuple(notes))

    def digest(self, read: ParsedInput) -> str:
        """The MD5 of a file whose `rows` were asked for."""
        return self._digests.get(read.key, "")

    def _key(self, input: Input, record: FileRecord) -> str:
        place = f"{record.base}\0{record.path}\0{self._table}/{input.role}/{input.version}"
        return hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
