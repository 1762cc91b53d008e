"""The streams that fetch a large file for its readers: which are started, and how each is received.

Used by `content.ranged`. `content.stream_plan` says how much is fetched at once; what comes goes into the
`PartialContent`.

- Without Range (probed by the first part) one stream from the start serves all.
- A broken stream goes on where it broke, asking with `If-Unmodified-Since`: a file that has changed gives
  ESTALE, never mixed bytes.

Threading: streams are started by readers, with the condition of the `PartialContent` held, and each is
received by a worker, which holds it for moments only.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from xnatfs import retry
from xnatfs.cache.partial import PAGE, Partial
from xnatfs.content.context import TransferContext
from xnatfs.content.digest_check import DigestCheck
from xnatfs.content.partial_content import PartialContent
from xnatfs.content.stream_plan import (
    FIRST,
    IDLE_S,
    NEAR,
    SECOND,
    Fetch,
    Place,
    end_ahead,
    end_for,
    is_coming,
    is_far_ahead,
)
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import RangePart

log = logging.getLogger(__name__)


class StreamScheduler:
    """The streams of one file.

    Args:
        readers: where its readers are, as it is at any time; guarded by the condition.
        entries: in the catalogue of its resource.
        first: bytes of the first part.
        ended: called with the condition held when a stream has ended.
    """

    def __init__(
        self,
        context: TransferContext,
        content: PartialContent,
        check: DigestCheck,
        readers: Sequence[Place],
        entries: int,
        first: int,
        ended: Callable[[], None],
    ) -> None:
        self._context = context
        self._content = content
        self._check = check
        self._readers = readers
        self._entries = entries
        self._first = min(first, max(PAGE, content.size))
        self._ended = ended
        self._fetches: list[Fetch] = []

    # --- for readers: all of it is called with the condition held -------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything is being fetched, or about to be."""
        return bool(self._fetches)

    @property
    def progress(self) -> tuple[int, int]:
        """Rises as long as it is worth waiting: while a stream is in the queue with anything that moves, else
        only with what comes of this file.
        """
        queued = not all(fetch.scope.sent for fetch in self._fetches)
        return (self._context.progress if queued else 0), sum(fetch.pieces for fetch in self._fetches)

    def not_coming(self, offset: int, end: int) -> tuple[int, int] | None:
        """The first bytes that are neither here nor on their way, from and to; None if there are none (all
        may be here, and held back until the digest agrees).
        """
        missing = self._content.missing(offset, end)
        return None if missing is None or self._coming(missing[0]) else missing

    def ask_first(self) -> None:
        """Have the first part fetched."""
        self._start(0, self._first)

    def ask(self, reader: Place, start: int, stop: int, *, in_order: bool) -> None:
        """Have what a reader misses fetched, and what one that reads in order will want next."""
        if in_order or self._context.range_refused:
            stop = end_for(reader, start, self._content.size, self._first)
        self._start(start, min(self._content.size, stop))

    def look_ahead(self, end: int) -> None:
        """A reader in order comes near the end of what is here: go on before it has to wait."""
        content = self._content
        missing = (
            content.partial.missing(end, min(content.size, end + FIRST))
            if content.partial is not None and end < content.size
            else None
        )
        if missing is not None and content.failure is None and not self._coming(missing[0]):
            self._start(missing[0], end_ahead(end, missing[0], content.size))

    def end_silent(self) -> None:
        """Nobody waits any more: end what sends nothing, since others may wait for its worker."""
        for fetch in self._fetches:
            if fetch.silent:
                fetch.scope.end()

    def _coming(self, start: int) -> bool:
        # without Range there is nothing to jump to
        near = self._content.size if self._context.range_refused else NEAR
        return is_coming(self._fetches, start, near)

    def _start(self, start: int, end: int) -> None:
        """Fetch from `start` to `end` in a worker."""
        size = self._content.size
        begin, stop = start // PAGE * PAGE, min(size, -(-end // PAGE) * PAGE)
        if self._context.range_refused:
            begin, stop = 0, size
        elif self._context.workers.spare <= 1:
            # It takes the last worker, so it may have to give way after that much (see `_write`). Asked for
            # more, the server has by then sent a megabyte or two that nobody takes: 42 % of all bytes with 16
            # readers of 64 MiB.
            stop = min(stop, begin + SECOND)
        fetch = Fetch(begin, max(stop, begin + 1))
        self._fetches.append(fetch)
        self._context.workers.submit(lambda: self._run(fetch))

    # --- the workers ----------------------------------------------------------------------------------------

    def _run(self, fetch: Fetch) -> None:
        content = self._content
        problem: Failure | None = None
        try:
            if self._readers:  # else all who wanted it have gone meanwhile
                self._fetch(fetch)
        except Failure as failure:
            problem = failure
        except BaseException as error:
            log.exception("fetching %s broke", content.record.path)
            problem = Failure(Cause.SERVER_ERROR, content.record.uri, repr(error))
        with content.condition:
            self._fetches.remove(fetch)
            if problem is not None:
                content.fail(problem)
            content.condition.notify_all()
            self._ended()

    def _fetch(self, fetch: Fetch) -> None:
        with retry.Attempts(retry.CONTENTS) as attempts:
            while fetch.position < fetch.end:
                before = fetch.position
                try:
                    if not self._receive(fetch):
                        return
                except Failure as failure:
                    if fetch.scope.ended:
                        # given up on purpose, which says nothing of the server: whoever came since has
                        # another one sent
                        return
                    if fetch.position > before:
                        attempts.progressed()
                    if self._context.length_refused or not attempts.may_cure(failure):
                        raise
                    if not self._readers:
                        return  # and no failure: whoever comes just now saw nothing fail, and asks again
                    log.info("%s: %s; resuming at byte %d", self._content.record.uri, failure, fetch.position)
                    attempts.pause()
        self._check.run()

    def _receive(self, fetch: Fetch) -> bool:
        """One answer; False if it was let go because nobody reads."""
        context, content = self._context, self._content
        asked = fetch.asked()
        end = fetch.end if not content.known else min(fetch.end, content.size)
        with context.contents.part(
            content.record, fetch.position, end, content.last_modified, fetch.scope
        ) as part:
            context.link.answered(time.monotonic() - asked, self._entries)
            content.note(part)
            if part.end is None:
                # An empty file is answered with 200 whatever Range is asked for (xnat-rest.md 3): that says
                # nothing of the server.
                context.range_refused = context.range_refused or part.size != 0
                with content.condition:
                    fetch.position, fetch.end = 0, content.size
            else:
                fetch.end = min(fetch.end, content.size)
            with context.link.stream():
                return self._write(fetch, part)

    def _write(self, fetch: Fetch, part: RangePart) -> bool:
        context, content, partial = self._context, self._content, self._content.partial
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
                self._check.pass_by(position, piece)
                position += len(piece)
                fetch.received()
                context.received(len(piece))
                # A page is present only when all of it is.
                whole = position if position >= content.size else position // PAGE * PAGE
                if whole > fetch.position:
                    partial.mark(fetch.position, whole)
                    with content.condition:
                        fetch.position = whole
                        content.condition.notify_all()
                if position >= fetch.end:
                    break
                if context.workers.closed or (context.workers.waiting and position - begun >= SECOND):
                    return False  # others wait for a worker: the reader asks for the rest again, behind them
                if not self._wanted(fetch):
                    return False
            if position < fetch.end:
                raise Failure(Cause.CUT_SHORT, content.record.uri, f"{position} of {fetch.end} bytes")
            return True
        finally:
            if reserved > 0:
                with contextlib.suppress(Failure):
                    context.cache.reserve_pages(partial.key, -reserved)

    def _reserve(self, partial: Partial, size: int) -> None:
        """Reserve bytes; if the cap is reached, pages behind all readers go."""
        cache = self._context.cache
        try:
            cache.reserve_pages(partial.key, size)
        except Failure as failure:
            if failure.cause is not Cause.NO_SPACE:
                raise
            with self._content.condition:
                behind = min((one.position for one in self._readers), default=0) - NEAR
                # Not under a stream: bytes written and not yet marked would be marked as holes.
                behind = min([behind, *(one.position for one in self._fetches)])
                freed = partial.drop(0, max(0, behind))
            if freed:
                cache.reserve_pages(partial.key, -freed)
            cache.reserve_pages(partial.key, size)

    def _wanted(self, fetch: Fetch) -> bool:
        """Wait while the stream is far ahead of its readers; False once nobody has read for some time or
        others need the connection.
        """
        condition, workers = self._content.condition, self._context.workers
        with condition:
            if not is_far_ahead(fetch, self._readers):
                return bool(self._readers)
            self._context.link.waited()
            deadline = time.monotonic() + IDLE_S
            while self._readers and is_far_ahead(fetch, self._readers):
                if workers.closed or time.monotonic() > deadline or workers.waiting:
                    return False
                condition.wait(0.5)
            self._context.link.waited()
            return bool(self._readers)
