"""The streams that fetch a large file for its readers: which are started, and when.

Used by `content.ranged`. `content.stream_plan` says how much is fetched at once, `content.stream_tuner` by
how many streams, `content.stream_receiver` receives each.

- Without Range (probed by the first part) one stream from the start serves all.
- As many streams as the line rewards run ahead of a reader in order, but only on workers that nobody waits
  for, and no more than this file's share of them.

Threading: streams are started by readers, with the condition of the `PartialContent` held, and each is
received by a worker, which holds it for moments only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

from xnatfs.cache.partial import PAGE
from xnatfs.content.context import TransferContext
from xnatfs.content.digest_check import DigestCheck
from xnatfs.content.partial_content import NO_CACHE, PartialContent, is_lasting
from xnatfs.content.stream_plan import (
    FIRST,
    NEAR,
    PROBE,
    SECOND,
    STRETCH,
    Fetch,
    Place,
    end_ahead,
    end_for,
    first_unclaimed,
    is_coming,
    lead,
    reads_on,
    segment_length,
    window_of,
)
from xnatfs.content.stream_receiver import StreamReceiver, StreamsOfFile
from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)


class StreamScheduler:
    """The streams of one file.

    Args:
        readers: where its readers are, as it is at any time; guarded by the condition.
        entries: in the catalogue of its resource.
        first: bytes of the first part.
        ended: called with the condition held when a stream has ended.
        moved: called when something came for a reader in order.
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
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._content = content
        self._readers = readers
        self._first = min(first, max(PAGE, content.size))
        self._ended = ended
        self._fetches: list[Fetch] = []
        self._receiver = StreamReceiver(
            context, content, check, StreamsOfFile(readers, self._fetches, self._extend, moved), entries
        )
        self._probe = PROBE  # bytes of the next one while the line is not known
        self._joined = False  # this file is counted among those that could use more streams

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
            stop = end_for(reader, start, self._content.size, self._first, self._length(start))
        self._start(start, min(self._content.size, stop), in_order=in_order)

    def look_ahead(self, end: int) -> None:
        """A reader in order comes near the end of what is here: go on before it has to wait."""
        content = self._content
        self._extend()
        missing = (
            content.partial.missing(end, min(content.size, end + FIRST))
            if content.partial is not None and end < content.size
            else None
        )
        if missing is not None and content.failure is None and not self._coming(missing[0]):
            stop = end_ahead(end, missing[0], content.size, self._length(missing[0]))
            self._start(missing[0], stop, in_order=True)

    def end_silent(self) -> None:
        """Nobody waits any more: end what sends nothing, since others may wait for its worker."""
        for fetch in self._fetches:
            if fetch.silent:
                fetch.scope.end()

    def _coming(self, start: int) -> bool:
        # without Range there is nothing to jump to
        near = self._content.size if self._context.range_refused else NEAR
        return is_coming(self._fetches, start, near)

    def _length(self, start: int) -> int:
        """How much is fetched at once from `start` on for a reader in order."""
        tuner, link, left = self._context.tuner, self._context.link, self._content.size - start
        if (streams := tuner.share) > 1:
            return segment_length(left, streams, link.rate, link.latency)
        return STRETCH if tuner.settled else self._probe

    def _extend(self) -> None:
        """Begin what comes next or beside the streams under way, if the line rewards it and nobody else needs
        the connections.
        """
        workers = self._context.workers
        while workers.spare > 0 and not workers.closed and (fetch := self._next()) is not None:
            with contextlib.suppress(Failure):  # the mount is ending
                self._submit(fetch)

    def _next(self) -> Fetch | None:
        """What is fetched next for a reader in order, if the line rewards one stream more; for a worker that
        is free.
        """
        context, content = self._context, self._content
        if content.partial is None or content.failure is not None or content.uncached:
            return None
        if context.range_refused or context.workers.waiting:
            return None
        share = context.tuner.share
        over = lead(context.tuner.flowing, context.link.rate, context.link.latency)
        busy = sum(one.end - one.position > over for one in self._fetches)
        if busy >= share or len(self._fetches) > share:
            return None
        for reader in self._readers:
            if not reads_on(reader):
                continue
            start, free = first_unclaimed(self._fetches, reader.position, self._first_missing)
            if start < free and start - reader.position <= self._window(share):
                stop = min(free, start + self._length(start))
                return self._claim(start, stop, in_order=True, extra=bool(self._fetches))
        return None

    def _first_missing(self, start: int) -> tuple[int, int]:
        size = self._content.size
        found = self._content.missing(start, size) if start < size else None
        return (size, size) if found is None else found

    def _window(self, streams: int) -> int:
        """How far ahead of its reader a fetch may begin: not so far that pages are pushed out before they are
        read.
        """
        link = self._context.link
        length = segment_length(self._content.size, streams, link.rate, link.latency)
        return min(window_of(streams, length), self._context.cache.cap // 4)

    def _start(self, start: int, end: int, *, in_order: bool = False) -> None:
        """Fetch from `start` to `end` in a worker."""
        self._submit(self._claim(start, end, in_order=in_order))

    def _claim(self, start: int, end: int, *, in_order: bool = False, extra: bool = False) -> Fetch:
        """From here on this is on its way."""
        size = self._content.size
        begin, stop = start // PAGE * PAGE, min(size, -(-end // PAGE) * PAGE)
        if self._context.range_refused:
            begin, stop = 0, size
        elif self._context.workers.spare <= 1 and not extra:
            # It takes the last worker, so it may have to give way after that much (see `_write`). Asked for
            # more, the server has by then sent a megabyte or two that nobody takes: 42 % of all bytes with 16
            # readers of 64 MiB.
            stop = min(stop, begin + SECOND)
        elif in_order:  # what others bring already is not asked for again
            stop = min([stop, *(one.position for one in self._fetches if one.position > begin)])
        if stop - begin >= self._probe:
            self._probe = min(STRETCH, 2 * self._probe)
        fetch = Fetch(begin, max(stop, begin + 1), in_order=in_order, extra=extra)
        self._fetches.append(fetch)
        if in_order and not self._joined:
            self._joined = True
            self._context.tuner.join()
        return fetch

    def _submit(self, fetch: Fetch) -> None:
        try:
            self._context.workers.submit(lambda: self._run(fetch))
        except Failure:
            self._fetches.remove(fetch)
            raise

    # --- the workers ----------------------------------------------------------------------------------------

    def _run(self, fetch: Fetch) -> None:
        following: Fetch | None = fetch
        while following is not None:
            following = self._run_one(following)

    def _run_one(self, fetch: Fetch) -> Fetch | None:
        """Receive it; returns what this worker goes on with."""
        content = self._content
        problem: Failure | None = None
        following: Fetch | None = None
        try:
            if self._readers:  # else all who wanted it have gone meanwhile
                self._receiver.receive(fetch)
        except Failure as failure:
            problem = failure
        except BaseException as error:
            log.exception("fetching %s broke", content.record.path)
            problem = Failure(Cause.SERVER_ERROR, content.record.uri, repr(error))
        with content.condition:
            self._fetches.remove(fetch)
            if problem is not None and fetch.extra and _passing(problem) and fetch.position < fetch.end:
                # Nobody waits for it yet, and it may be that the server wants no more connections. Who comes
                # there asks for it again, and has that one's failure.
                log.info("a further stream of %s failed: %s", content.record.uri, problem)
                self._context.tuner.refused()
            elif problem is not None:
                content.fail(problem)
            else:
                following = self._next()
                self._extend()
            if self._joined and not self._fetches:
                self._joined = False
                self._context.tuner.leave()
            content.condition.notify_all()
            self._ended()
        return following


def _passing(failure: Failure) -> bool:
    """Whether another request may succeed."""
    return not is_lasting(failure) and failure.cause not in NO_CACHE
