"""A large file that is read while it comes: streams ahead of sequential readers, single pages for random
ones.

Used by `content.manager`, one for all who have the file open. The kernel asks for 128 KiB at a time; nobody's
read is ever one HTTP request of that size, unless it is a random one. Readers are here; what is here of the
file is `content.partial_content`'s, what is fetched `content.stream_scheduler`'s, the check at its end
`content.digest_check`'s.

Threading: any thread reads. One condition a file, that of its `PartialContent`; it is not held while bytes
move.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from xnatfs.cache.partial import PAGE
from xnatfs.concurrency.waiting import wait_until
from xnatfs.content.context import TransferContext
from xnatfs.content.digest_check import DigestCheck
from xnatfs.content.partial_content import PartialContent
from xnatfs.content.shared_content import SharedClaim
from xnatfs.content.stream_plan import FIRST, IN_ORDER
from xnatfs.content.stream_scheduler import StreamScheduler
from xnatfs.content.uncached import Uncached
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord


class RangedReader:
    """One open handle on a file that is read by ranges."""

    def __init__(self, file: RangedFile) -> None:
        self._file = file
        self.size = file.content.size
        self.stamp = file.stamp
        self.position = 0  # where the last read ended
        self.run = 0  # bytes read in order

    def read(self, offset: int, length: int) -> bytes:
        """See `manager.ContentReader`."""
        return self._file.read(self, offset, length)

    def close(self) -> None:
        """No more reads."""
        self._file.leave(self)


class RangedFile:
    """A file being read in parts, and its readers.

    Args:
        key: its key in the cache.
        size: as the catalog (or what was learnt) says; the first answer corrects it.
        gone: called when the last reader has closed it.
        entries: in the catalogue of its resource.
        first: bytes of the first part.
        claim: what other machines see of it.
    """

    def __init__(
        self,
        context: TransferContext,
        record: FileRecord,
        key: str,
        size: int,
        gone: Callable[[RangedFile], None],
        entries: int,
        first: int,
        claim: SharedClaim,
    ) -> None:
        self.claim = claim
        self._progress_deadline = context.limits.progress_deadline
        self._gone = gone
        self._readers: list[RangedReader] = []
        self._closed = False
        self.content = PartialContent(context, record, key, size)
        self._check = DigestCheck(context, self.content, claim.publish)
        self._streams = StreamScheduler(
            context,
            self.content,
            self._check,
            self._readers,
            entries,
            first,
            self._close_if_unused,
            claim.moved,
        )
        self._blocks = Uncached(context, record)

    @property
    def closed(self) -> bool:
        """Whether nobody can open it any more: nobody has it open, or it is not the server's file any
        more.
        """
        return self._closed or self.content.failed_for_good

    @property
    def stamp(self) -> str:
        """Tells two versions of a file without a digest apart."""
        return "" if self.content.record.digest else self.content.last_modified

    def open(self) -> RangedReader:
        """A new reader; the size is true once this returns.

        Raises:
            Failure: what keeps the file from being had.
        """
        content = self.content
        with content.condition:
            if self._closed:
                raise Failure(Cause.CHANGED, content.record.uri)
            reader = RangedReader(self)
            self._readers.append(reader)
        try:
            content.resume()
            content.revalidate()
            with content.condition:
                self._forget_failure()
                while not content.told:
                    # None is asked yet; or the one that was had been given up just before this reader came.
                    if not self._streams.active:
                        self._streams.ask_first()
                    self._wait(lambda: content.told or not self._streams.active)
                if content.failure is not None:
                    raise content.failure
                reader.size = content.size
                reader.stamp = self.stamp
        except BaseException:
            self.leave(reader)
            raise
        return reader

    def read(self, reader: RangedReader, offset: int, length: int) -> bytes:
        """Bytes for a reader; waits until they are here."""
        content, streams = self.content, self._streams
        end = min(offset + length, reader.size)
        if offset >= end:
            return b""
        in_order = abs(offset - reader.position) <= IN_ORDER
        with content.condition:
            reader.run = reader.run + length if in_order else 0
            reader.position = end
            content.condition.notify_all()  # a stream may be waiting for its reader
            self._forget_failure()
            while not self._served(reader, offset, end) and content.size == reader.size:
                if content.failure is not None:
                    raise content.failure
                if (absent := streams.not_coming(offset, end)) is not None:
                    streams.ask(reader, *absent, in_order=in_order)
                self._wait(lambda: self._settled(reader, offset, end))
            if content.size != reader.size:
                raise Failure(Cause.CHANGED, content.record.uri)
            partial = content.partial
            if in_order and reader.run > FIRST // 2 and not content.uncached:
                streams.look_ahead(end)
        if content.uncached or partial is None:
            return self._blocks.read(offset, end, content.size, content.last_modified)
        data = os.pread(partial.fd, end - offset, offset)
        if partial.gone or partial.has(offset, end):
            return data
        return self.read(reader, offset, length)  # dropped while it was read

    def leave(self, reader: RangedReader) -> None:
        """A reader closes; after the last one what is here stays in the cache for the next time."""
        with self.content.condition:
            if reader in self._readers:
                self._readers.remove(reader)
            self.content.condition.notify_all()
            if not self._readers and not self._closed:
                self._streams.end_silent()
            self._close_if_unused()

    # --- all of it is called with the condition held --------------------------------------------------------

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait for what only has to be looked at."""
        wait_until(self.content.condition, ready, self._progress_deadline, self._progress)

    def _progress(self) -> tuple[int, int, int]:
        partial = self.content.partial
        return (*self._streams.progress, partial.present if partial is not None else 0)

    def _forget_failure(self) -> None:
        """A passing failure is not reported to later readers: the server may be back."""
        if not self._streams.active and not self.content.failed_for_good:
            self.content.failure = None

    def _served(self, reader: RangedReader, offset: int, end: int) -> bool:
        """Whether a read can be answered."""
        partial = self.content.partial
        return self.content.uncached or (
            partial is not None and partial.has(offset, end) and not self._held_back(reader, end)
        )

    def _settled(self, reader: RangedReader, offset: int, end: int) -> bool:
        """Whether a reader has nothing to wait for: it is served, cannot be, or has to ask."""
        return (
            self._served(reader, offset, end)
            or self.content.failure is not None
            or self.content.size != reader.size
            or self._streams.not_coming(offset, end) is not None
        )

    def _held_back(self, reader: RangedReader, end: int) -> bool:
        """The last page of a file with a digest, for who reads it in order, until the whole is checked."""
        size = self.content.size
        if self._check.passed or not self.content.record.digest or end <= size - PAGE:
            return False
        return reader.run >= size // 2 and (self._check.running or self._streams.active)

    def _close_if_unused(self) -> None:
        """Close it when nobody reads and nothing is fetched."""
        if self._closed or self._readers or self._streams.active:
            return
        self._closed = True
        self.content.close()
        self.claim.close()
        self._gone(self)
