"""Which resources are fetched as one zip, and when: those where it is worth it, and in a walk through a
session the next one ahead of its readers.

Used by `content.manager`, which asks first whether a file comes this way. One zip of a resource at a time.
Threading: any thread. One lock guards the map of what is on its way, never held over I/O.
"""

from __future__ import annotations

import threading

from xnatfs.content.access_pattern import ResourceAccess
from xnatfs.content.context import TransferContext
from xnatfs.content.zip_batch import ZipBatch
from xnatfs.server.downloads import only_in_zip
from xnatfs.server.records import FileRecord

_RETRY_S = 60.0  # after the cache had no space for one


class ZipScheduler:
    """The zips that are on their way."""

    def __init__(self, context: TransferContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._batches: dict[int, ZipBatch] = {}  # by resource: never two zips of one

    @property
    def under_way(self) -> int:
        """How many zips are on their way."""
        return len(self._batches)

    def progress(self) -> list[tuple[str, int, int]]:
        """Of each zip: the address of its resource, bytes of members that have come, bytes of all of them."""
        with self._lock:
            running = list(self._batches.values())
        return [(one.series.records[0].base, one.received, one.series.total) for one in running]

    def reached(self, access: ResourceAccess) -> None:
        """A file of this resource is opened: if its zip was started ahead, the walk has come here."""
        if access.zips.prefetched:
            access.zips.prefetched = False
            access.zips.use()
            self._go_ahead(access)

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
        if not access.zips.may_have(record.path):
            return None
        needed = context.refuses_names and only_in_zip(record.path)
        # First as if nothing were here: looking for 20,000 files in the cache takes half a second.
        if not needed and not access.worth_a_zip(context.link, len(access.records), access.total):
            return None
        missing = [
            record
            for record in access.records
            if context.cache.has(context.digests.key(record)) is None and access.zips.may_have(record.path)
        ]
        if not needed and not access.worth_a_zip(
            context.link, len(missing), sum(record.size for record in missing)
        ):
            return None
        return self._start(access) if len(missing) > 1 else None

    def _start(self, access: ResourceAccess) -> ZipBatch:
        number = access.records[0].resource_id
        with self._lock:
            running = self._batches.get(number)
            if running is None:
                running = self._batches[number] = ZipBatch(self._context, access, self._over)
                self._context.workers.submit(running.run)
        return running

    def _over(self, batch: ZipBatch) -> None:
        with self._lock:
            self._batches.pop(batch.series.records[0].resource_id, None)
        if batch.series.zips.used_within(self._context.limits.progress_deadline):
            self._go_ahead(batch.series)

    def _go_ahead(self, access: ResourceAccess) -> None:
        """In a walk through a session the next resource is fetched while this one is read: one ahead, when
        this one has come.
        """
        context, following = self._context, access.following
        if (
            following is None
            or following.zips.prefetched
            or not access.in_a_walk
            or following.total > min(context.limits.ahead, context.cache.cap // 2)
        ):
            return
        with self._lock:
            if self._batches:
                return
            following.zips.prefetched = True
        missing = sum(
            1 for record in following.records if context.cache.has(context.digests.key(record)) is None
        )
        if missing > 1:
            self._start(following)
