"""A whole resource at once, as XNAT's zip, unpacked into the cache while readers wait for just their own file
(design.md 4.3).

Used by `content.zip_scheduler`, which decides when. Streamed: no member larger than
a piece is ever in memory. A member is kept if its path is in the listing, its size and (where there is one)
its MD5 are right; the zip's own CRC is checked on the way. Whatever is not in the archive is fetched singly:
XNAT skips files it cannot find and ends the archive validly (xnat-rest.md 3). What a shared tier has of it is
taken first (`content.shared_members`).
Threading: any thread; one worker a batch. One condition a batch; no lock is held while bytes move.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from xnatfs import retry
from xnatfs.cache.writers import BatchWriter
from xnatfs.concurrency.waiting import wait_until
from xnatfs.content.access_pattern import ResourceAccess
from xnatfs.content.context import TransferContext
from xnatfs.content.shared_members import SharedMembers
from xnatfs.content.stream_activity import StreamActivity
from xnatfs.content.stream_tuner import StreamMeter
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_TOO_FAR = 3.0  # seconds a reader waits for a member that is far down the stream, before it is fetched alone
_SLACK = 64 * 2**20  # bytes that may come besides twice what is listed: sizes in catalogs can be wrong ...
_OTHERS = 1000  # ... and files, besides twice as many as are listed
_TURN_S = 10.0  # a zip waits for its turn: half of what a Tomcat waits for its client
_TURN_CHECK_S = 0.05
_AT_ONCE = 16  # members entered into the cache's index together ...
_AT_LATEST = 0.03  # ... and after so many seconds, for the sake of who waits


class Order(Protocol):
    """Who decides which zips are on their way; asked by their workers."""

    def advanced(self, batch: ZipBatch) -> None:
        """Something of it came."""
        ...

    def has_turn(self, batch: ZipBatch) -> bool:
        """Whether it is to go on now."""
        ...

    def gives_way(self, batch: ZipBatch) -> bool:
        """Whether it had better end."""
        ...

    def over(self, batch: ZipBatch) -> None:
        """Nothing more comes of it."""
        ...


class ZipBatch:
    """One zip of one resource on its way."""

    def __init__(self, context: TransferContext, series: ResourceAccess, order: Order) -> None:
        self._context = context
        self._order = order
        self.series = series
        self.condition = threading.Condition()
        self.ended = False
        self.received = 0  # bytes of members so far
        self._expected = series.total
        self._last = 0  # of them, after which something is wrong
        self._waiting = 0  # readers
        self._activity = StreamActivity()
        self._shared = SharedMembers(context, series)
        self._coming = {record.path: record for record in series.records if series.zips.may_have(record.path)}

    def expects(self, path: str) -> bool:
        """Whether this file may still come."""
        return not self.ended and path in self._coming

    def wait_for(self, path: str) -> None:
        """Wait until the file has come or will not come, or it is quicker to fetch it alone.

        Raises:
            Failure: TIMED_OUT without any progress; INTERRUPTED.
        """
        start = self.series.start_of(path)
        line = self._context.link

        def too_far() -> bool:
            rate = line.rate / max(1, self._context.tuner.flowing)
            return (start - self.received) / rate > _TOO_FAR

        with self.condition:
            self._waiting += 1
            try:
                wait_until(
                    self.condition,
                    lambda: not self.expects(path) or too_far(),
                    self._context.limits.progress_deadline,
                    lambda: self._context.progress,
                )
            except Failure:
                if self._waiting == 1 and self._activity.silent:
                    self._activity.scope.end()  # the last one gives up, and others may wait for its worker
                raise
            finally:
                self._waiting -= 1

    def run(self) -> None:
        """Receive it (in a worker)."""
        try:
            if self._taken():
                return
            with retry.Attempts(retry.ZIP) as attempts:
                while True:
                    try:
                        self._receive()
                        break
                    except Failure as failure:
                        if self._activity.scope.ended or not attempts.again(failure):
                            raise
            # XNAT leaves out what it cannot find, and what differs from its listing is not kept: each is
            # fetched singly, without another zip for every two of them.
            self.series.zips.was_without(one.path for one in self._context.missing(self.series.records))
        except Failure as failure:
            # Nobody loses a file by this: what has not come is fetched singly.
            log.info("the zip of %s ended: %s", self.series.records[0].base, failure)
            if failure.cause in (Cause.NO_SPACE, Cause.TOO_LARGE):
                self.series.zips.lacks_room()
        except BaseException:
            log.exception("unpacking %s broke", self.series.records[0].base)
        finally:
            self._shared.close()
            with self.condition:
                self.ended = True
                self.condition.notify_all()
            self._order.over(self)

    def _taken(self) -> bool:
        """Take what a shared tier has of it; whether no zip is needed after that."""
        if self._context.shared is None:
            return False
        missing = [one for one in self._context.missing(self.series.records) if self.expects(one.path)]
        pile = self._context.cache.pile(sum(one.size for one in missing))
        come: list[str] = []

        def came(path: str) -> None:
            come.append(path)
            if pile.waiting >= _AT_ONCE:
                pile.flush()
                self._come(come)
                self._order.advanced(self)

        try:
            return self._shared.take(pile, missing, self._is_cached, came)
        finally:
            pile.close()
            self._come(come)

    def _receive(self) -> None:
        missing = sum(one.size for one in self._context.missing(list(self._coming.values())))
        pile = self._context.cache.pile(missing)
        begun, most = self.received, 2 * sum(one.size for one in self.series.records) + _SLACK
        others = 2 * len(self.series.records) + _OTHERS
        self._last = begun + most
        self._expected = begun + sum(record.size for record in self.series.records)
        come: list[str] = []
        flushed = time.monotonic()
        try:
            asked = self._activity.asked()
            with self._context.contents.zip(self.series.records[0], self._activity.scope) as members:
                self._context.link.answered(time.monotonic() - asked, self.series.entries)
                with self._context.stream() as meter:
                    for path, size, pieces in members:
                        record = self._coming.get(path)
                        others -= 1
                        if others < 0:
                            raise Failure(
                                Cause.TOO_LARGE, detail="the zip has far more files than are listed"
                            )
                        if record is None or size not in (None, record.size) or self._is_cached(record):
                            for piece in pieces:  # the stream has to be read past it
                                self._count(piece, meter)
                        else:
                            self._keep(pile, record, pieces, meter)
                        come.append(path)
                        now = time.monotonic()
                        if pile.waiting >= _AT_ONCE or now - flushed > _AT_LATEST:
                            pile.flush()
                            self._come(come)
                            flushed = now
        finally:
            pile.close()
            self._come(come)

    def _is_cached(self, record: FileRecord) -> bool:
        return self._context.cache.has(self._context.digests.key(record)) is not None

    def _come(self, paths: list[str]) -> None:
        """These have come, or will not come any more."""
        self._shared.give()
        with self.condition:
            for path in paths:
                self._coming.pop(path, None)
            self.condition.notify_all()
        paths.clear()

    def _keep(
        self, pile: BatchWriter, record: FileRecord, pieces: Iterator[bytes], meter: StreamMeter
    ) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            pile.begin(record.size)
            room = True
        except Failure as failure:
            log.info("%s from the zip is not cached: %s", record.path, failure)
            room = False
        came = 0
        for piece in pieces:
            self._count(piece, meter)
            came += len(piece)
            if room and came <= record.size:
                pile.write(piece)
                digest.update(piece)
        if not room:
            return
        if came == record.size and record.digest in ("", digest.hexdigest()):
            pile.keep(self._context.digests.key(record), "md5" if record.digest else "crc")
            self._shared.kept(record)
        else:
            pile.drop()  # fetched singly it gets the benefit of a second look

    def _count(self, piece: bytes, meter: StreamMeter) -> None:
        self.received += len(piece)
        self._activity.received()
        self._shared.moved()
        self._context.received(len(piece), meter)
        if self.received > self._last:  # a bomb is not read to its end
            raise Failure(Cause.TOO_LARGE, detail="the zip has far more bytes than are listed")
        if self._context.workers.closed:
            raise Failure(Cause.INTERRUPTED, detail="the mount is ending")
        self._order.advanced(self)
        if self.series.zips.prefetched:
            self._await_turn(meter)

    def _await_turn(self, meter: StreamMeter) -> None:
        """While the line is better used for those before it, and nobody waits for it, leave what comes with
        the server; not so long that the server gives up.
        """
        if self._order.gives_way(self):
            raise Failure(Cause.INTERRUPTED, detail="others wait for its connection")
        if self._waiting or self._order.has_turn(self):
            return
        meter.wait()
        self._context.link.waited()
        deadline = time.monotonic() + _TURN_S
        with self.condition:
            while time.monotonic() < deadline and not (
                self._waiting or self._context.workers.closed or self._order.has_turn(self)
            ):
                self.condition.wait(_TURN_CHECK_S)
        self._activity.asked()  # from here on it is the server that is waited for

    @property
    def left(self) -> int:
        """Bytes that are still to come, about."""
        return self._expected - self.received
