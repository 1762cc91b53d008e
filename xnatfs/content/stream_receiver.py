"""How one stream of a large file is received: into the `PartialContent`, along the check, for its readers.

Used by `content.stream_scheduler`.

- A broken stream goes on where it broke, asking with `If-Unmodified-Since`: a file that has changed gives
  ESTALE, never mixed bytes.
- One that is far ahead of its readers waits for them, and ends after some time or when others wait for a
  worker.

Threading: any worker, one a stream; the condition of the `PartialContent` is held for moments only.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xnatfs import retry
from xnatfs.cache.partial import PAGE, Partial
from xnatfs.content.context import TransferContext
from xnatfs.content.digest_check import DigestCheck
from xnatfs.content.partial_content import PartialContent
from xnatfs.content.stream_plan import FIRST, IDLE_S, NEAR, SECOND, STRETCH, Fetch, Place, is_far_ahead
from xnatfs.content.stream_tuner import StreamMeter
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import RangePart

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamsOfFile:
    """What a stream sees of the others, and of the readers; guarded by the condition of the content.

    Attributes:
        extend: begins further streams, if it is time; called with the condition held.
        moved: called when something came for a reader in order.
    """

    readers: Sequence[Place]
    fetches: Sequence[Fetch]
    extend: Callable[[], None]
    moved: Callable[[], None] = lambda: None


class StreamReceiver:
    """Receives the streams of one file.

    Args:
        entries: in the catalogue of its resource.
    """

    def __init__(
        self,
        context: TransferContext,
        content: PartialContent,
        check: DigestCheck,
        streams: StreamsOfFile,
        entries: int,
    ) -> None:
        self._context = context
        self._content = content
        self._check = check
        self._streams = streams
        self._entries = entries

    def receive(self, fetch: Fetch) -> None:
        """Receive all of it, and check the file if that was the last of it.

        Raises:
            Failure: what no retry cured; BAD_DIGEST; NO_SPACE, CACHE_BROKEN.
        """
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
                    if not self._streams.readers:
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
            with context.stream() as meter:
                return self._write(fetch, part, meter)

    def _write(self, fetch: Fetch, part: RangePart, meter: StreamMeter) -> bool:
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
                context.received(len(piece), meter)
                # A page is present only when all of it is.
                whole = position if position >= content.size else position // PAGE * PAGE
                if whole > fetch.position:
                    partial.mark(fetch.position, whole)
                    with content.condition:
                        fetch.position = whole
                        if fetch.in_order:
                            self._streams.extend()
                        content.condition.notify_all()
                    if fetch.in_order:
                        self._streams.moved()
                        self._check.catch_up()
                if position >= fetch.end:
                    break
                if context.workers.closed:
                    return False
                if context.workers.waiting and position - begun >= SECOND and self._furthest(fetch):
                    return False  # others wait for a worker: the reader asks for the rest again, behind them
                if not self._wanted(fetch, meter):
                    return False
            if position < fetch.end:
                raise Failure(Cause.CUT_SHORT, content.record.uri, f"{position} of {fetch.end} bytes")
            return True
        finally:
            if reserved > 0:
                with contextlib.suppress(Failure):
                    context.cache.reserve_pages(partial.key, -reserved)

    def _furthest(self, fetch: Fetch) -> bool:
        """Whether none of this file's streams is further on: one gives way at a time."""
        with self._content.condition:
            return all(one.position <= fetch.position for one in self._streams.fetches if one.pieces)

    def _reserve(self, partial: Partial, size: int) -> None:
        """Reserve bytes; if the cap is reached, pages behind all readers go."""
        cache = self._context.cache
        try:
            cache.reserve_pages(partial.key, size)
        except Failure as failure:
            if failure.cause is not Cause.NO_SPACE:
                raise
            with self._content.condition:
                behind = min((one.position for one in self._streams.readers), default=0) - NEAR
                # Not under a stream: bytes written and not yet marked would be marked as holes.
                behind = min([behind, *(one.position for one in self._streams.fetches)])
                if 0 <= behind - self._check.summed <= STRETCH:
                    behind = self._check.summed  # it follows the reader, and needs what it has not summed
                freed = partial.drop(0, max(0, behind))
            if freed:
                cache.reserve_pages(partial.key, -freed)
            cache.reserve_pages(partial.key, size)

    def _wanted(self, fetch: Fetch, meter: StreamMeter) -> bool:
        """Wait while the stream is far ahead of its readers; False once nobody has read for some time or
        others need the connection.
        """
        condition, workers = self._content.condition, self._context.workers
        with condition:
            if not is_far_ahead(fetch, self._streams.readers):
                return bool(self._streams.readers)
            self._context.link.waited()
            meter.wait()
            deadline = time.monotonic() + IDLE_S
            while self._streams.readers and is_far_ahead(fetch, self._streams.readers):
                if workers.closed or time.monotonic() > deadline or workers.waiting:
                    return False
                condition.wait(0.5)
            self._context.link.waited()
            return bool(self._streams.readers)
