"""A large file that is read while it comes: streams ahead of sequential readers, single pages for random
ones.

Used by `content.manager`, one blob a file, shared by all who have it open. The kernel asks for 128 KiB at a
time; nobody's read is ever one HTTP request of that size, unless it is a random one: `content.stream_plan`
says what is fetched.

- Without Range (probed by the first part) one stream from the start serves all.
- A broken stream goes on where it broke, asking with `If-Unmodified-Since`: a file that has changed gives
  ESTALE, never mixed bytes.

Threading: any thread reads; each part is fetched by a worker. One condition a blob; no lock is held while
bytes move.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from xnatfs import retry
from xnatfs.cache.partial import PAGE, Partial
from xnatfs.concurrency.waiting import wait_until
from xnatfs.content.context import TransferContext
from xnatfs.content.running_digest import RunningDigest
from xnatfs.content.stream_activity import SILENT_S
from xnatfs.content.stream_plan import (
    FIRST,
    IDLE_S,
    IN_ORDER,
    NEAR,
    SECOND,
    Fetch,
    end_ahead,
    end_for,
    is_coming,
    is_far_ahead,
)
from xnatfs.content.uncached import Uncached
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import RangePart
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_NO_CACHE = (Cause.NO_SPACE, Cause.CACHE_BROKEN)
_LASTING = (Cause.CHANGED, Cause.BAD_DIGEST, Cause.GONE)


class RangedReader:
    """One open handle on a blob."""

    def __init__(self, blob: RangedFile) -> None:
        self._blob = blob
        self.size = blob.size
        self.stamp = "" if blob.record.digest else blob.last_modified
        self.position = 0  # where the last read ended
        self.run = 0  # bytes read in order

    def read(self, offset: int, length: int) -> bytes:
        """See `manager.ContentReader`."""
        return self._blob.read(self, offset, length)

    def close(self) -> None:
        """No more reads."""
        self._blob.leave(self)


class RangedFile:
    """A file being read in parts.

    Args:
        key: its key in the cache.
        size: as the catalog (or what was learnt) says; the first answer corrects it.
        gone: called when the last reader has closed it.
        entries: in the catalogue of its resource.
        first: bytes of the first part.
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
    ) -> None:
        self._context = context
        self._gone, self._entries = gone, entries
        self._first = min(first, max(PAGE, size))
        self.record = record
        self.key = key
        self.size = size
        self.last_modified = ""
        self.condition = threading.Condition()
        self._partial: Partial | None = None
        self._fetches: list[Fetch] = []
        self._readers: list[RangedReader] = []
        self._failure: Failure | None = None
        self._opened = False
        self._checking = self._checked = False
        self._uncached = False
        self._blocks = Uncached(context, record)
        self._digest = RunningDigest()
        self._closed = False
        self._fresh = False  # the server has said in this blob's life which file it has

    @property
    def closed(self) -> bool:
        """Whether nobody can open it any more: nobody has it open, or it is not the server's file any
        more.
        """
        return self._closed or (self._failure is not None and self._failure.cause in _LASTING)

    # --- readers --------------------------------------------------------------------------------------------

    def open(self) -> RangedReader:
        """A new reader; the size is true once this returns.

        Raises:
            Failure: what keeps the file from being had.
        """
        with self.condition:
            if self._closed:
                raise Failure(Cause.CHANGED, self.record.uri)
            reader = RangedReader(self)
            self._readers.append(reader)
        try:
            self._resume()
            self._check_again()
            with self.condition:
                if self._failure is not None and not self._fetches and self._failure.cause not in _LASTING:
                    self._failure = None
                while not self._told:
                    # None is asked yet; or the one that was had been given up just before this reader came.
                    if not self._fetches:
                        self._start(0, self._first)
                    self._wait(lambda: self._told or not self._fetches)
                if self._failure is not None:
                    raise self._failure
                reader.size = self.size
                reader.stamp = "" if self.record.digest else self.last_modified
        except BaseException:
            self.leave(reader)
            raise
        return reader

    @property
    def _told(self) -> bool:
        """Whether the server has told of the file, or failed to."""
        return self._opened or self._failure is not None

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait for what only has to be looked at. Called with the condition held."""
        wait_until(self.condition, ready, self._context.limits.progress_deadline, self._progress)

    def leave(self, reader: RangedReader) -> None:
        """A reader closes; after the last one what is here stays in the cache for the next time."""
        with self.condition:
            if reader in self._readers:
                self._readers.remove(reader)
            self.condition.notify_all()
            if self._readers or self._closed:
                return
            for fetch in self._fetches:
                if fetch.heard is not None and (not fetch.came or time.monotonic() - fetch.heard > SILENT_S):
                    fetch.hold.end()  # nobody waits any more, and others may wait for its worker
            if not self._fetches:
                self._close()

    def read(self, reader: RangedReader, offset: int, length: int) -> bytes:
        """Bytes for a reader; waits until they are here."""
        end = min(offset + length, reader.size)
        if offset >= end:
            return b""
        in_order = abs(offset - reader.position) <= IN_ORDER
        with self.condition:
            reader.run = reader.run + length if in_order else 0
            reader.position = end
            self.condition.notify_all()  # a stream may be waiting for its reader
            if self._failure is not None and not self._fetches and self._failure.cause not in _LASTING:
                self._failure = None  # the server may be there again
            while not self._served(reader, offset, end) and self.size == reader.size:
                if self._failure is not None:
                    raise self._failure
                if (absent := self._not_coming(offset, end)) is not None:
                    self._ask(reader, *absent, in_order)
                self._wait(lambda: self._settled(reader, offset, end))
            if self.size != reader.size:
                raise Failure(Cause.CHANGED, self.record.uri)
            partial = self._partial
            if in_order and reader.run > FIRST // 2 and not self._uncached:
                self._look_ahead(end)
        if self._uncached or partial is None:
            return self._blocks.read(offset, end, self.size, self.last_modified)
        data = os.pread(partial.fd, end - offset, offset)
        if partial.gone or partial.has(offset, end):
            return data
        return self.read(reader, offset, length)  # dropped while it was read

    def _progress(self) -> tuple[int, int, int]:
        """While a fetch is in the queue, anything that moves; else only what comes of this file. Called with
        the condition held.
        """
        queued = not all(fetch.hold.sent for fetch in self._fetches)
        came = sum(fetch.came for fetch in self._fetches)
        return (
            (self._context.progress if queued else 0),
            came,
            self._partial.present if self._partial is not None else 0,
        )

    def _served(self, reader: RangedReader, offset: int, end: int) -> bool:
        """Whether a read can be answered. Called with the condition held."""
        partial = self._partial
        return self._uncached or (
            partial is not None and partial.has(offset, end) and not self._held_back(reader, end)
        )

    def _settled(self, reader: RangedReader, offset: int, end: int) -> bool:
        """Whether a reader has nothing to wait for: it is served, cannot be, or has to ask. Called with the
        condition held.
        """
        return (
            self._served(reader, offset, end)
            or self._failure is not None
            or self.size != reader.size
            or self._not_coming(offset, end) is not None
        )

    def _not_coming(self, offset: int, end: int) -> tuple[int, int] | None:
        """The first bytes that are neither here nor on their way, from and to; None if there are none (all
        may be here, and held back until the digest agrees). Called with the condition held.
        """
        missing = self._partial.missing(offset, end) if self._partial is not None else (offset, end)
        return None if missing is None or self._coming(missing[0]) else missing

    def _ask(self, reader: RangedReader, start: int, stop: int, in_order: bool) -> None:
        """Have what a reader misses fetched, and what one that reads in order will want next. Called with the
        condition held.
        """
        if in_order or self._context.range_refused:
            stop = end_for(reader, start, self.size, self._first)
        self._start(start, min(self.size, stop))

    def _look_ahead(self, end: int) -> None:
        """A reader in order comes near the end of what is here: go on before it has to wait. Called with the
        condition held.
        """
        missing = (
            self._partial.missing(end, min(self.size, end + FIRST))
            if self._partial is not None and end < self.size
            else None
        )
        if missing is not None and self._failure is None and not self._coming(missing[0]):
            self._start(missing[0], end_ahead(end, missing[0], self.size))

    def _coming(self, start: int) -> bool:
        near = self.size if self._context.range_refused else NEAR  # without Range there is nothing to jump to
        return is_coming(self._fetches, start, near)

    def _held_back(self, reader: RangedReader, end: int) -> bool:
        """The last page of a file with a digest, for who reads it in order, until the whole is checked."""
        if self._checked or not self.record.digest or end <= self.size - PAGE:
            return False
        return reader.run >= self.size // 2 and (self._checking or bool(self._fetches))

    # --- fetching -------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Use what is in the cache from an earlier time."""
        with self.condition:
            if self._opened or self._partial is not None:
                return
            row = self._context.cache.partial_row(self.key)
            if row is None or not row.pages.count(1):
                return
            try:
                self._partial = self._context.cache.partial(self.key, row.size, row.last_modified)
            except Failure as failure:
                log.info("the cached part of %s cannot be used: %s", self.record.uri, failure)
                return
            self.size, self.last_modified = row.size, row.last_modified
            self._opened = True

    def _check_again(self) -> None:
        """Parts from an earlier time, of a file without a digest, are used only if the server still has that
        file.
        """
        if self.record.digest or self._fresh or self._partial is None:
            return
        try:
            unchanged = self._context.revalidation.unchanged(self.record, self.last_modified)
        except Failure as failure:
            if failure.cause in (Cause.GONE, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED, Cause.INTERRUPTED):
                raise
            unchanged = True  # the server is away: what is here is better than nothing
        with self.condition:
            if not unchanged and not self._fresh:
                self._partial.forget()
                self._partial.close()
                self._partial, self._opened, self.last_modified = None, False, ""
            self._fresh = True

    def _start(self, start: int, end: int) -> None:
        """Fetch from `start` to `end` in a worker. Called with the condition held."""
        begin, stop = start // PAGE * PAGE, min(self.size, -(-end // PAGE) * PAGE)
        if self._context.range_refused:
            begin, stop = 0, self.size
        elif self._context.workers.spare <= 1:
            # It takes the last worker, so it may have to give way after that much (see `_write`). Asked for
            # more, the server has by then sent a megabyte or two that nobody takes: 42 % of all bytes with 16
            # readers of 64 MiB.
            stop = min(stop, begin + SECOND)
        fetch = Fetch(begin, max(stop, begin + 1))
        self._fetches.append(fetch)
        self._context.workers.submit(lambda: self._run(fetch))

    def _run(self, fetch: Fetch) -> None:
        problem: Failure | None = None
        try:
            if self._readers:  # else all who wanted it have gone meanwhile
                self._fetch(fetch)
        except Failure as failure:
            problem = failure
        except BaseException as error:
            log.exception("fetching %s broke", self.record.path)
            problem = Failure(Cause.SERVER_ERROR, self.record.uri, repr(error))
        with self.condition:
            self._fetches.remove(fetch)
            if problem is not None and problem.cause in _NO_CACHE and self._opened:
                log.info("%s is served without the cache: %s", self.record.uri, problem)
                self._uncached = True
            elif problem is not None:
                self._failure = problem
                # A 404 proves nothing (xnat-rest.md 13): what is here of the file stays.
                if (
                    problem.cause in _LASTING
                    and problem.cause is not Cause.GONE
                    and self._partial is not None
                ):
                    # who has it open gets the failure; who opens it next gets the new file
                    self._partial.forget()
            self.condition.notify_all()
            if not self._readers and not self._fetches and not self._closed:
                self._close()

    def _fetch(self, fetch: Fetch) -> None:
        with retry.Attempts(retry.CONTENTS) as attempts:
            while fetch.position < fetch.end:
                before = fetch.position
                try:
                    if not self._receive(fetch):
                        return
                except Failure as failure:
                    if fetch.hold.ended:
                        # given up on purpose, which says nothing of the server: whoever came since has
                        # another one sent
                        return
                    if fetch.position > before:
                        attempts.progressed()
                    if self._context.length_refused or not attempts.may_cure(failure):
                        raise
                    if not self._readers:
                        return  # and no failure: whoever comes just now saw nothing fail, and asks again
                    log.info("%s: %s; resuming at byte %d", self.record.uri, failure, fetch.position)
                    attempts.pause()
        self._finish()

    def _receive(self, fetch: Fetch) -> bool:
        """One answer; False if it was let go because nobody reads."""
        context = self._context
        asked = fetch.heard = time.monotonic()
        end = fetch.end if not self._opened else min(fetch.end, self.size)
        with context.contents.part(self.record, fetch.position, end, self.last_modified, fetch.hold) as part:
            context.link.answered(time.monotonic() - asked, self._entries)
            self._note(part)
            if part.end is None:
                # An empty file is answered with 200 whatever Range is asked for (xnat-rest.md 3): that says
                # nothing of the server.
                context.range_refused = context.range_refused or part.size != 0
                with self.condition:
                    fetch.position, fetch.end = 0, self.size
            else:
                fetch.end = min(fetch.end, self.size)
            with context.link.stream():
                return self._write(fetch, part)

    def _note(self, part: RangePart) -> None:
        """What the answer says of the file: its true size, and whether it is still the same file."""
        with self.condition:
            # A proxy that stops telling lengths half-way: the date says whether it still is the same file.
            if self._opened and (
                part.size not in (None, self.size) or part.last_modified != self.last_modified
            ):
                raise Failure(Cause.CHANGED, self.record.uri)
            if not self._opened:
                if part.size is None:
                    self._context.length_refused = True  # `whole_file` fetches it
                    raise Failure(Cause.NOT_DATA, self.record.uri, "an answer without a length")
                self.size, self.last_modified = part.size, part.last_modified
                self._fresh = True
                self._context.sizes.announce(self.record, part.size)
            if self._partial is None and not self._uncached:
                try:
                    self._partial = self._context.cache.partial(self.key, self.size, self.last_modified)
                except Failure:
                    self._opened = True
                    raise
            if not self._opened:
                self._opened = True
                self.condition.notify_all()

    def _write(self, fetch: Fetch, part: RangePart) -> bool:
        context, partial = self._context, self._partial
        assert partial is not None
        position = begun = fetch.position
        reserved = 0
        try:
            for piece in part.pieces:
                if reserved < len(piece):
                    step = max(len(piece), min(FIRST * 4, fetch.end - position) + PAGE)
                    self._reserve(partial, step)
                    reserved += step
                reserved -= len(piece)
                partial.write(position, piece)
                self._digest.pass_by(position, piece)
                position += len(piece)
                fetch.heard = time.monotonic()
                fetch.came += 1
                context.received(len(piece))
                # A page is present only when all of it is.
                whole = position if position >= self.size else position // PAGE * PAGE
                if whole > fetch.position:
                    partial.mark(fetch.position, whole)
                    with self.condition:
                        fetch.position = whole
                        self.condition.notify_all()
                if position >= fetch.end:
                    break
                if context.workers.closed or (context.workers.waiting and position - begun >= SECOND):
                    return False  # others wait for a worker: the reader asks for the rest again, behind them
                if not self._wanted(fetch):
                    return False
            if position < fetch.end:
                raise Failure(Cause.CUT_SHORT, self.record.uri, f"{position} of {fetch.end} bytes")
            return True
        finally:
            if reserved > 0:
                with contextlib.suppress(Failure):
                    context.cache.reserve_pages(partial.key, -reserved)

    def _reserve(self, partial: Partial, size: int) -> None:
        """Reserve bytes; if the cap is reached, pages behind all readers go."""
        try:
            self._context.cache.reserve_pages(partial.key, size)
        except Failure as failure:
            if failure.cause is not Cause.NO_SPACE:
                raise
            with self.condition:
                behind = min((one.position for one in self._readers), default=0) - NEAR
                # Not under a stream: bytes written and not yet marked would be marked as holes.
                behind = min([behind, *(one.position for one in self._fetches)])
                freed = partial.drop(0, max(0, behind))
            if freed:
                self._context.cache.reserve_pages(partial.key, -freed)
            self._context.cache.reserve_pages(partial.key, size)

    def _wanted(self, fetch: Fetch) -> bool:
        """Wait while the stream is far ahead of its readers; False once nobody has read for some time or
        others need the connection.
        """
        with self.condition:
            if not is_far_ahead(fetch, self._readers):
                return bool(self._readers)
            self._context.link.waited()
            deadline = time.monotonic() + IDLE_S
            while self._readers and is_far_ahead(fetch, self._readers):
                if (
                    self._context.workers.closed
                    or time.monotonic() > deadline
                    or self._context.workers.waiting
                ):
                    return False
                self.condition.wait(0.5)
            self._context.link.waited()
            return bool(self._readers)

    # --- the end --------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """If all of it is here: check it and make it an object of the cache."""
        partial = self._partial
        with self.condition:
            # A file larger than the cache is never whole here, but may have been hashed as it went by.
            whole = partial is not None and (partial.complete or self._digest.length == self.size)
            if partial is None or not whole or self._checking or self._checked or self._uncached:
                return
            self._checking = True
        try:
            verified = self._context.digests.check_served(self.record, self.size, self._whole_md5(partial))
            if partial.complete:  # if it is not dropped meanwhile: `commit` looks again
                try:
                    # Of a wrong digest: under the key without it.
                    partial.commit(self._context.digests.key(self.record), verified)
                except Failure as failure:
                    if failure.cause not in _NO_CACHE:
                        raise
                    log.info(
                        "%s is not cached: %s", self.record.uri, failure
                    )  # its readers have it all the same
        except Failure:
            partial.forget()
            raise
        finally:
            with self.condition:
                self._checking = False
        with self.condition:
            self._checked = True
            self.condition.notify_all()

    def _whole_md5(self, partial: Partial) -> str:
        if not self.record.digest:
            return ""
        try:
            return self._digest.complete(partial.fd, self.size)
        except EOFError:
            short = "the cache file is shorter than what was written to it"
            raise Failure(Cause.CACHE_BROKEN, self.record.uri, short) from None

    def _close(self) -> None:
        """Called with the condition held, when nobody reads and nothing is fetched."""
        self._closed = True
        if self._partial is not None:
            self._partial.close()
            self._partial = None
        self._gone(self)
