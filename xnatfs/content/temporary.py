"""Files for the tables' parsers: fetched whole into an anonymous temporary file, checked, parsed, forgotten.

Used by `tables.engine.collect`. What a table reads of a file are some numbers, which are kept; so the file
itself does not go into the content cache, where it would push out what somebody wants to read again. What is
there already is read from there.
Threading: any thread; called in workers.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from xnatfs import retry
from xnatfs.content.context import TransferContext
from xnatfs.disk import disk_failure
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import NOT_IN_ZIP, Stream, only_in_zip
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_MOST = (
    512 * 2**20
)  # bytes: nothing that a table reads is larger, and the disk is not for whatever else a server sends
_IN_MEMORY = 2**20  # larger ones go to the disk


class Fetched(NamedTuple):
    """A file: its content from the start, its MD5 as hex, and the server's Last-Modified. `sure` if something
    says that it is whole: a Content-Length, the catalog's digest or size; a chunked reply that ends says
    nothing.
    """

    stream: BinaryIO
    md5: str
    last_modified: str
    sure: bool


class TemporaryDownloads:
    """Fetches files one by one.

    Args:
        context: where they come from, and what is in the content cache.
        folder: where temporary files may grow.
    """

    def __init__(self, context: TransferContext, folder: Path) -> None:
        self._context = context
        self._contents = context.contents
        self._folder = folder

    def fetch(self, record: FileRecord, *, listed: bool) -> Fetched:
        """A file. Never `If-Modified-Since`: a file that was replaced by one of an older or equal date would
        be taken for the old one.

        Args:
            record: which file.
            listed: whether the record is the server's own (with size and digest), or only a guess at a path.

        Raises:
            Failure: GONE if there is no such file; BAD_DIGEST; what keeps the server from answering.
        """
        if listed and (cached := self._cached(record)) is not None:
            return cached
        wrong = ""
        with retry.Attempts(retry.CONTENTS) as attempts:
            while True:
                try:
                    found = self._receive(record, listed)
                except Failure as failure:
                    if not attempts.may_cure(failure):
                        raise
                    log.info("%s: %s; fetching it again", record.uri, failure)
                    attempts.pause()
                    continue
                if found.md5 == record.digest or (
                    not record.digest and (found.sure or not listed or found.md5 == wrong)
                ):
                    return found
                found.stream.close()
                detail = f"it is {found.md5}, the catalog says {record.digest}"
                problem = Failure(Cause.BAD_DIGEST, record.uri, detail)
                if found.md5 == wrong or not attempts.again(problem):
                    raise problem
                wrong = found.md5

    def _cached(self, record: FileRecord) -> Fetched | None:
        cache = self._context.cache
        entry = cache.open(self._context.digests.key(record))
        if entry is None:
            return None
        try:
            if not record.digest or entry.verified != "md5":
                return None
            stream = open(entry.fd, "rb", closefd=True)  # noqa: SIM115  (the caller closes it)
            entry.fd = -1
            cache.space.unpin(entry.key)  # the open file stays whole even if it is evicted
            return Fetched(stream, record.digest, entry.last_modified, True)
        finally:
            entry.close()

    def _receive(self, record: FileRecord, listed: bool) -> Fetched:
        if not listed or not only_in_zip(record.path):
            return self._receive_alone(record, listed)
        try:
            with retry.Attempts(retry.REFUSABLE):
                return self._receive_alone(record, listed)
        except Failure as failure:
            if failure.status in (400, 403, 404, 500):
                return self._receive_from_zip(record)
            raise

    def _receive_alone(self, record: FileRecord, listed: bool) -> Fetched:
        with self._contents.file(record) as stream:
            return self._spooled(record, stream, listed)

    def _receive_from_zip(self, record: FileRecord) -> Fetched:
        """A file whose name a real server refuses in a URL (xnat-rest.md 3): from its resource's zip."""
        found: Fetched | None = None
        with self._contents.zip(record) as members:
            for path, size, pieces in members:
                if path == record.path and found is None:
                    found = self._spooled(record, Stream(size, "", pieces), True)
                else:
                    for _ in pieces:
                        pass  # the stream has to be read past it
        if found is None:  # not the refusal, which a retry could seem to cure: that would be a zip each time
            raise Failure(Cause.GONE, record.uri, NOT_IN_ZIP, 404)
        return found

    def _spooled(self, record: FileRecord, stream: Stream, listed: bool) -> Fetched:
        small = stream.size is not None and stream.size <= _IN_MEMORY
        spool: BinaryIO = io.BytesIO() if small else tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        try:
            digest = hashlib.md5(usedforsecurity=False)
            size = 0
            for piece in stream.pieces:
                spool.write(piece)
                digest.update(piece)
                size += len(piece)
                if size > _MOST:
                    raise Failure(Cause.TOO_LARGE, record.uri, f"more than {_MOST >> 20} MiB")
            if stream.size is not None and size != stream.size:
                raise Failure(Cause.CUT_SHORT, record.uri, f"{size} of {stream.size} bytes")
            spool.seek(0, io.SEEK_SET)
            sure = stream.size is not None or (listed and size == record.size)
            return Fetched(spool, digest.hexdigest(), stream.last_modified, sure)
        except BaseException as error:
            spool.close()
            if isinstance(error, OSError) and not isinstance(error, Failure):
                raise disk_failure(error, str(self._folder)) from error
            raise
