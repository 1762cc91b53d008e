"""Small files, fetched whole: checked before their first byte is served, or streamed to readers where they
turn out to be large.

Used by `content.manager`. What is checked, and when (design.md 4.4): files up to 8 MiB by their MD5 before
the first byte is served; of larger ones (the catalog's size was wrong, else they are blobs) the last block is
held back until the MD5 agrees; files without a digest by their size. A digest that is wrong twice over the
same bytes is the catalog's error, and so is a size where the server tells no length.
Threading: any thread. One worker writes a transfer; readers wait on its condition. No lock is held over I/O.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time

from xnatfs import retry
from xnatfs.cache.contents import Entry
from xnatfs.cache.writers import CacheWriter
from xnatfs.concurrency.waiting import wait_until
from xnatfs.content.context import TransferContext
from xnatfs.disk import write_all
from xnatfs.errors import Cause, Failure
from xnatfs.server.cancel import CancelScope
from xnatfs.server.downloads import NOT_IN_ZIP, Stream, only_in_zip
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

# seconds: a stream that said nothing for so long, or never anything, is ended when its last reader goes
SILENT = 0.5
HELD_BACK = 128 * 1024  # one read of the kernel
_MEMORY = 4  # times the size of a small file: what is held at most of one that turns out to be larger
_NO_CACHE = (Cause.NO_SPACE, Cause.CACHE_BROKEN)


class Memory:
    """A draft in memory: for what the cache has no room for. Ends with its transfer; never more than the
    files open at the time.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("xnatfs")
        self.written = 0

    def write(self, piece: bytes | memoryview) -> None:
        """Append."""
        self.written = write_all(self.fd, piece, self.written)

    def rewind(self) -> None:
        """Write from the start again."""
        self.written = 0

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Transfer:
    """One content being fetched, shared by all who read it meanwhile; `entries` are in the catalogue of its
    resource.
    """

    def __init__(self, context: TransferContext, record: FileRecord, size: int, entries: int) -> None:
        self._context = context
        self._entries = entries
        self.record = record
        self.size = self._expected = size
        self._doubtful = False
        self.condition = threading.Condition()
        self.readers = 0
        self.closed = False  # nobody can join it any more
        self.failure: Failure | None = None
        self._opened = False  # the size is known and reading may begin
        self._available = 0  # bytes that may be served
        self._done = False
        self._last_modified = ""
        self._draft: CacheWriter | Memory | None = None
        self._entry: Entry | None = None
        self._hold = CancelScope()
        self._came = 0  # pieces
        self._heard: float | None = (
            None  # when the server was asked, or last sent anything; None in the queue
        )

    @property
    def stamp(self) -> str:
        """Tells two versions of a file without a digest apart."""
        return "" if self.record.digest else self._last_modified

    # --- readers --------------------------------------------------------------------------------------------

    def join(self) -> bool:
        """Count one reader more; False if the transfer is over and closed."""
        with self.condition:
            if not self.closed:
                self.readers += 1
            return not self.closed

    def open(self) -> TransferReader:
        """A reader, once reading may begin; the caller has joined."""
        try:
            with self.condition:
                wait_until(
                    self.condition,
                    lambda: self._opened or self._done or self.failure is not None,
                    self._context.limits.progress_deadline,
                    self._progress,
                )
                if self.failure is not None and not self._available:
                    raise self.failure
        except BaseException:
            self.leave()
            raise
        return TransferReader(self)

    def read(self, size: int, offset: int, length: int) -> bytes:
        """Bytes for a reader that opened the file when it had `size` bytes."""
        end = min(offset + length, size)
        if offset >= end:
            return b""
        with self.condition:
            wait_until(
                self.condition,
                lambda: self._available >= end or self._done or self.failure is not None,
                self._context.limits.progress_deadline,
                self._progress,
            )
            if self._available < end and self.failure is not None:
                raise self.failure
            if self.size != size:
                raise Failure(Cause.CHANGED, self.record.uri)
            source = self._entry or self._draft
            assert source is not None
        return os.pread(source.fd, end - offset, offset)

    def _progress(self) -> int:
        """In the queue, anything that moves; once it is asked for, only its own pieces."""
        return self._came if self._hold.sent else self._context.progress

    def leave(self) -> None:
        """One reader less. The last one closes what it read from, or lets the worker do it."""
        with self.condition:
            self.readers -= 1
            if self.readers == 0 and (self._done or self.failure is not None):
                self._close()
            elif (
                self.readers == 0
                and self._heard is not None
                and (not self._came or time.monotonic() - self._heard > SILENT)
            ):
                self.closed = True  # who comes now would get the end of this one
                self._hold.end()  # nobody waits any more, and others may wait for its worker

    # --- the worker -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Fetch, check, keep; whatever fails is left in `failure`. Nothing if all who wanted it have gone
        meanwhile.
        """
        with self.condition:
            if self.readers == 0:
                self._close()
                return
        try:
            self._fetch()
        except Failure as failure:
            self._fail(failure)
        except BaseException as error:
            log.exception("the transfer of %s failed unexpectedly", self.record.path)
            self._fail(Failure(Cause.SERVER_ERROR, self.record.uri, repr(error)))
        finally:
            with self.condition:
                if self.readers == 0:
                    self._close()

    def _still_wanted(self) -> bool:
        """Whether anybody waits for it. If not, nobody can join it any more: who came just now would get a
        failure that a try cures.
        """
        with self.condition:
            self.closed = self.closed or self.readers == 0
            return not self.closed

    def _fail(self, failure: Failure) -> None:
        with self.condition:
            self.failure = failure
            self.condition.notify_all()

    def _fetch(self) -> None:
        """Again where that can cure what went wrong."""
        with retry.Attempts(retry.CONTENTS) as attempts:
            wrong_md5 = served_md5 = ""
            while True:
                try:
                    md5 = self._receive()
                except Failure as failure:
                    if not attempts.may_cure(failure) or not self._still_wanted():
                        raise
                    log.info("%s: %s; fetching it again", self.record.uri, failure)
                    attempts.pause()
                    continue
                if self._available:
                    served_md5 = served_md5 or md5
                mixed = served_md5 not in ("", md5)
                if self.record.digest:
                    if md5 == self.record.digest:
                        self._keep("md5", mixed=mixed)
                        return
                    if md5 == wrong_md5:
                        self._keep(self._context.digests.wrong_twice(self.record, md5), mixed=mixed)
                        return
                    detail = f"it came as {md5}, the catalog says {self.record.digest}"
                    problem = Failure(Cause.BAD_DIGEST, self.record.uri, detail)
                elif not self._doubtful or md5 == wrong_md5:
                    self._keep("size", mixed=mixed)
                    return
                else:
                    detail = f"it came with {self.size} bytes, {self._expected} were expected"
                    problem = Failure(Cause.CUT_SHORT, self.record.uri, detail)
                log.log(
                    logging.WARNING if self.record.digest else logging.INFO, "%s; fetching it again", problem
                )
                if not attempts.again(problem):
                    raise problem
                wrong_md5 = md5

    def _receive(self) -> str:
        """One download of the whole file into the draft, by itself or from the resource's zip; returns its
        MD5.
        """
        if not only_in_zip(self.record.path):
            return self._receive_alone()
        try:
            with retry.Attempts(retry.REFUSABLE):
                return self._receive_alone()
        except Failure as failure:
            if failure.status in (400, 403, 404, 500):
                return self._receive_from_zip()
            raise

    def _receive_alone(self) -> str:
        asked = self._heard = time.monotonic()
        with self._context.contents.file(self.record, self._hold) as stream:
            self._context.link.answered(time.monotonic() - asked, self._entries)
            with self._context.link.stream():
                return self._fill(stream)

    def _receive_from_zip(self) -> str:
        found: str | None = None
        with self._context.contents.zip(self.record, self._hold) as members, self._context.link.stream():
            for path, size, pieces in members:
                if path == self.record.path and found is None:
                    found = self._fill(Stream(size, "", pieces))
                else:
                    for _ in pieces:  # the stream has to be read past it
                        self._came += 1
                        self._context.progress += 1
        if found is None:
            raise Failure(Cause.GONE, self.record.uri, NOT_IN_ZIP, 404)
        self._context.refuses_names = True  # the next one of such a name comes with all its neighbours
        return found

    def _fill(self, stream: Stream) -> str:
        draft = self._draft if self._draft is not None else self._new_draft(stream.size)
        draft.rewind()
        if self._available and (stream.last_modified != self._last_modified or stream.size != self.size):
            raise Failure(Cause.CHANGED, self.record.uri)
        large = stream.size is not None and stream.size > self._context.limits.whole_file_check
        with self.condition:
            self._last_modified = stream.last_modified
            if stream.size is not None:
                self.size = stream.size
                self._context.sizes.announce(self.record, stream.size)
            if large:
                self._opened = True
                self.condition.notify_all()
        digest = hashlib.md5(usedforsecurity=False)
        servable = self.size - HELD_BACK if self.record.digest else self.size
        for piece in stream.pieces:
            draft = self._write(draft, piece)
            digest.update(piece)
            self._heard = time.monotonic()
            self._came += 1
            self._context.received(len(piece))
            if self._context.workers.closed:
                raise Failure(Cause.INTERRUPTED, self.record.uri, "the mount is ending")
            if large:
                if not self._still_wanted():
                    raise Failure(Cause.INTERRUPTED, self.record.uri, "no reader is left")
                with self.condition:
                    self._available = max(self._available, min(draft.written, servable))
                    self.condition.notify_all()
        if stream.size is not None and draft.written != stream.size:
            raise Failure(Cause.CUT_SHORT, self.record.uri, f"{draft.written} of {stream.size} bytes")
        self.size = draft.written
        # A chunked answer that a proxy ends early looks whole, and so does one with a wrong Content-Length;
        # only what was expected tells. Twice alike it is the catalog's error.
        self._doubtful = draft.written != self._expected
        return digest.hexdigest()

    def _new_draft(self, size: int | None) -> CacheWriter | Memory:
        try:
            self._draft = self._context.cache.draft(size)
        except Failure as failure:
            self._draft = self._without_cache(failure, self.size if size is None else size)
        return self._draft

    def _write(self, draft: CacheWriter | Memory, piece: bytes) -> CacheWriter | Memory:
        if isinstance(draft, Memory) and draft.written > _MEMORY * self._context.limits.whole_file_check:
            raise Failure(
                Cause.NO_SPACE,
                self.record.uri,
                "it is larger than the catalog says, and the server does not say how large",
            )
        try:
            draft.write(piece)
            return draft
        except Failure as failure:
            memory = self._without_cache(failure, self.size)
        memory.write(os.pread(draft.fd, draft.written, 0))
        memory.write(piece)
        with self.condition:
            self._draft = memory
        draft.close()
        return memory

    def _without_cache(self, failure: Failure, size: int) -> Memory:
        if failure.cause not in _NO_CACHE or size > self._context.limits.whole_file_check:
            raise failure
        log.info("%s is served without the cache: %s", self.record.uri, failure)
        return Memory()

    def _keep(self, verified: str, *, mixed: bool) -> None:
        """Keep the content and let its readers have it; `mixed` if they already read a part of other bytes
        than these.
        """
        assert self._draft is not None
        self._context.sizes.learn(self.record, self.size)
        if isinstance(self._draft, CacheWriter):
            key = self._context.digests.key(self.record)
            try:
                self._draft.commit(key, last_modified=self._last_modified, verified=verified)
                if not mixed:
                    self._entry = self._context.cache.open(key)
            except Failure as failure:
                if failure.cause not in _NO_CACHE:
                    raise
                log.info("%s is not cached: %s", self.record.uri, failure)  # who reads it has it all the same
        if mixed:
            raise Failure(Cause.CHANGED, self.record.uri, "the bytes read first had been damaged in transit")
        with self.condition:
            self._available = self.size
            self._done = self._opened = True
            self.condition.notify_all()

    def _close(self) -> None:
        """Close what readers read from. Called with the condition held, when nobody reads and nobody
        writes.
        """
        self.closed = True
        if self._entry is not None:
            self._entry.close()
            self._entry = None
        if self._draft is not None:
            self._draft.close()
            self._draft = None


class TransferReader:
    """A content that is being fetched."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.size = transfer.size
        self.stamp = transfer.stamp

    def read(self, offset: int, length: int) -> bytes:
        """See `manager.ContentReader`."""
        return self._transfer.read(self.size, offset, length)

    def close(self) -> None:
        """No more reads."""
        self._transfer.leave()
