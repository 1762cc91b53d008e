"""Which resources are fetched as one zip, and when: those where it is worth it, and in a walk through a
session the next ones ahead of its readers.

Used by `content.manager`, which asks first whether a file comes this way. One zip of a resource at a time.
Ahead of a walk, in the order in which the tree lists the resources, as many zips as the line rewards
(`content.stream_tuner`); where one stream fills it, the next one is asked for when the last one is about to
end. What was begun for a trial that failed waits for its turn: nothing of it is lost.

It is a walk after a resource that was just taken whole; or, where more streams are worth it, if the folder of
the scans was listed a moment before the first file below it was opened, as `cp -r` and `rsync` do.
Threading: any thread. One lock guards what is on its way, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time

from xnatfs.content.access_pattern import ResourceAccess
from xnatfs.content.context import TransferContext
from xnatfs.content.stream_plan import lead
from xnatfs.content.zip_batch import ZipBatch
from xnatfs.errors import Failure
from xnatfs.server.downloads import only_in_zip
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_RETRY_S = 60.0  # after the cache had no space for one
_ELSEWHERE_S = 2.0  # after another machine was found fetching it
_LISTED_S = 5.0  # the scans were listed at most this long before the first file of one was opened
_GIVE_WAY_S = 0.5  # between two zips that give way to other readers


class ZipScheduler:
    """The zips that are on their way."""

    def __init__(self, context: TransferContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._batches: dict[int, ZipBatch] = {}  # by resource: never two zips of one; in the walk's order
        self._head: ResourceAccess | None = None  # where the walk is
        self._listed: dict[str, float] = {}  # when the scans of a session were listed last
        self._gave_way = 0.0

    @property
    def under_way(self) -> int:
        """How many zips are on their way."""
        return len(self._batches)

    def progress(self) -> list[tuple[str, int, int]]:
        """Of each zip: the address of its resource, bytes of members that have come, bytes of all of them."""
        with self._lock:
            running = list(self._batches.values())
        return [(one.series.records[0].base, one.received, one.series.total) for one in running]

    def scans_listed(self, session: str) -> None:
        """A reader listed the scans of a session, by its accession id."""
        now = time.monotonic()
        with self._lock:
            recent = {one: at for one, at in self._listed.items() if now - at < _LISTED_S}
            self._listed = {**recent, session: now}

    def reached(self, access: ResourceAccess) -> None:
        """A file of this resource is opened: if its zip was started ahead, the walk has come here."""
        if access.zips.prefetched:
            access.zips.prefetched = False
            access.zips.use()
            self._head = access
            self._extend()

    def wait_for(self, record: FileRecord, access: ResourceAccess) -> bool:
        """Wait for the file if it comes in a zip; starts the zip if that is worth it. False if it does not
        come that way.

        Raises:
            Failure: TIMED_OUT without any progress; INTERRUPTED.
        """
        batch = self._batch(record, access)
        if batch is None or not batch.expects(record.path):
            return False
        access.zips.use()
        self._head = access
        batch.wait_for(record.path)
        return True

    def _batch(self, record: FileRecord, access: ResourceAccess) -> ZipBatch | None:
        context = self._context
        with self._lock:
            running = self._batches.get(record.resource_id)
        if running is not None:
            return running
        # A resource larger than the cache would push its own files out before they are read.
        if access.total > context.cache.cap or access.zips.lacked_room_within(_RETRY_S):
            return None
        if not access.zips.may_have(record.path) or access.zips.was_elsewhere_within(_ELSEWHERE_S):
            return None
        needed = context.refuses_names and only_in_zip(record.path)
        # First as if nothing were here: looking for 20,000 files in the cache takes a while.
        if not needed and not access.worth_a_zip(context.link, len(access.records), access.total):
            return None
        missing = [one for one in context.missing(access.records) if access.zips.may_have(one.path)]
        if not needed and not access.worth_a_zip(
            context.link, len(missing), sum(record.size for record in missing)
        ):
            return None
        if len(missing) < 2:
            return None
        with self._lock:
            listed = self._listed.get(access.records[0].owner.id)
            access.zips.in_listed_scans = (
                access.records[0].owner.level == "scan"
                and listed is not None
                and time.monotonic() - listed < _LISTED_S
            )
        return self._start(access)

    def _start(self, access: ResourceAccess, *, ahead: bool = False) -> ZipBatch:
        number = access.records[0].resource_id
        with self._lock:
            running = self._batches.get(number)
            if running is None:
                if not self._batches:
                    self._context.tuner.join()
                running = self._batches[number] = ZipBatch(self._context, access, self)
                try:
                    self._context.workers.submit(running.run, urgent=not ahead)
                except Failure:
                    self._forget(number)
                    raise
        return running

    def _forget(self, number: int) -> None:
        """Called with the lock held."""
        if self._batches.pop(number, None) is not None and not self._batches:
            self._context.tuner.leave()

    # --- for the zips, in their workers ---------------------------------------------------------------------

    def advanced(self, batch: ZipBatch) -> None:
        """Something of it came: perhaps it is time for the next one."""
        share = self._context.resources_at_once
        running = len(self._batches)
        if running < share or (running == 1 and batch.left <= self._lead()):
            self._extend()

    def over(self, batch: ZipBatch) -> None:
        """Nothing more comes of it."""
        with self._lock:
            self._forget(batch.series.records[0].resource_id)
            others = list(self._batches.values())
        for other in others:  # one may have waited for its turn
            with other.condition:
                other.condition.notify_all()
        if batch.series.zips.used_within(self._context.limits.progress_deadline) or others:
            self._extend(ending=1)

    def has_turn(self, batch: ZipBatch) -> bool:
        """Whether the line has room for it beside those that are read before it."""
        with self._lock:
            rank = list(self._batches).index(batch.series.records[0].resource_id)
        return rank < self._context.resources_at_once

    def gives_way(self, batch: ZipBatch) -> bool:
        """Whether it had better end, because nobody wants it yet and others wait for its connection, one at a
        time; or because nobody has come for long. Whoever comes there later has it fetched again.
        """
        head, now = self._head, time.monotonic()
        ends = head is not None and not head.zips.used_within(self._context.limits.progress_deadline)
        if self._context.workers.waiting:
            with self._lock:
                if list(self._batches.values())[-1] is batch and now - self._gave_way > _GIVE_WAY_S:
                    self._gave_way = now
                    ends = True
        if ends:
            batch.series.zips.prefetched = False
        return ends

    def _lead(self) -> int:
        link = self._context.link
        return lead(self._context.tuner.flowing, link.rate, link.latency)

    def _extend(self, ending: int = 0) -> None:
        """In a walk through a session the next resources are fetched while this one is read.

        Args:
            ending: 1 if the caller's own worker is about to be free.
        """
        while self._context.workers.spare + ending > 0 and (following := self._next_ahead()) is not None:
            if len(self._context.missing(following.records)) < 2:
                continue  # nothing to fetch, and the walk goes on behind it
            try:
                self._start(following, ahead=True)
            except Failure:  # the mount is ending
                return

    def _next_ahead(self) -> ResourceAccess | None:
        """The next resource to be fetched ahead, marked as such; None if there is none, or not now."""
        context, head = self._context, self._head
        if head is None:
            return None
        share = context.resources_at_once
        proven = head.in_a_walk
        if not (proven or (share > 1 and head.zips.in_listed_scans)):
            return None
        with self._lock:
            running = list(self._batches.values())
            alone = len(running) == 1 and running[0].left <= self._lead()
            if len(running) >= share and not alone:
                return None
            ahead, begun, one = 0, 0, head.following
            while one is not None and one.zips.prefetched:
                ahead, begun, one = ahead + one.total, begun + 1, one.following
            if one is None or begun >= max(1, share) or one.records[0].resource_id in self._batches:
                return None
            if not proven and one.records[0].owner[:2] != head.records[0].owner[:2]:
                return None  # not of the scans that were listed
            if ahead + one.total > min(context.limits.ahead, context.cache.cap // 2):
                return None
            one.zips.prefetched = True
            return one
