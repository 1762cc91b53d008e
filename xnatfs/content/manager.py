"""How a file's bytes are had: from the cache, from a zip on its way, whole, or in parts; decided when it is
opened.

Used by the tree's files through `ContentManager.open`, which gives a `ContentReader`. In this order:

1. whole in the cache: no request (contents without a digest are asked for again after some hours);
2. its resource is on its way as a zip, or is worth one (`ResourceAccess.worth_a_zip`): wait for just this
file
  (`zip_batch`);
3. large, or of a resource of which only headers are read: in parts (`ranged`);
4. else whole (`whole_file`).

The catalog's size and digest can be wrong: the first answer corrects the size (kept in `Corrections`), and a
digest that is wrong twice over the same bytes is the catalog's error.
Threading: any thread. One lock guards the maps of what is on its way, never held over I/O.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from functools import partial
from typing import Protocol

from xnatfs.cache.contents import ContentCache, Entry
from xnatfs.cache.corrections import Corrections
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.config import Limits
from xnatfs.content.access_pattern import HEAD_BYTES, ResourceAccess
from xnatfs.content.cost_model import LinkModel
from xnatfs.content.ranged import RangedFile
from xnatfs.content.stream_plan import FIRST
from xnatfs.content.whole_file import Transfer
from xnatfs.content.zip_batch import ZipBatch
from xnatfs.diagnostics import Diagnostics
from xnatfs.disk import md5_of
from xnatfs.errors import Cause, Failure
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.stale_policy import StalePolicy
from xnatfs.server.downloads import NO_WAY, Downloads, only_in_zip, out_of_reach
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_ZIP_RETRY_S = 60.0  # after the cache had no space for one
_CHECK_TIMEOUT_S = 5.0  # for the server to confirm that a cached file is still its file
_REMEMBER_BAD_DIGEST = (
    600.0  # seconds for which a file with a wrong catalog digest is refused without fetching it again
)


class ContentReader(Protocol):
    """An open content."""

    size: int
    stamp: str  # tells two versions of a file without a digest apart; "" for one with a digest

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, shorter only at the end of the file.

        Raises:
            Failure: the bytes cannot be had, or are not the file's.
        """
        ...

    def close(self) -> None:
        """No more reads."""
        ...


class CachedReader:
    """A content that is whole in the cache."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.size = entry.size
        self.stamp = "" if entry.verified == "md5" else entry.last_modified or str(entry.checked)

    def read(self, offset: int, length: int) -> bytes:
        """See `ContentReader`."""
        return os.pread(self._entry.fd, length, offset)

    def close(self) -> None:
        """See `ContentReader`."""
        self._entry.close()


class _Counted:
    """A reader that tells its series how much of the file was read."""

    def __init__(self, reader: ContentReader, series: ResourceAccess) -> None:
        self._reader = reader
        self._series = series
        self._furthest = 0
        self.size = reader.size
        self.stamp = reader.stamp

    def read(self, offset: int, length: int) -> bytes:
        """See `ContentReader`."""
        data = self._reader.read(offset, length)
        self._furthest = max(self._furthest, offset + len(data))
        return data

    def close(self) -> None:
        """See `ContentReader`."""
        self._reader.close()
        if self._furthest:
            self._series.closed(self.size, self._furthest)


class ContentManager:
    """Everything on its way from one server into one cache."""

    def __init__(
        self,
        contents: Downloads,
        cache: ContentCache,
        learnt: Corrections,
        limits: Limits,
        diagnostics: Diagnostics,
        history: MtimeHistory,
        *,
        serve_bad_digests: bool = False,
    ) -> None:
        self.contents = contents
        self.cache = cache
        self.limits = limits
        self.line = LinkModel()
        self.progress = (
            0  # pieces that arrived, of anything: while it rises, waiting in the queue is no time-out
        )
        self.range_refused = False  # this server (or its proxy) sends whole files only
        self.length_refused = False  # ... without saying how long they are
        self.refuses_names = False  # this server refuses files by themselves that its zips have
        self.workers = WorkerPool("transfer", max(1, limits.connections - 1))
        self.ahead_workers = WorkerPool(
            "ahead", max(1, limits.connections - 1)
        )  # who reads through what is wanted soon
        self._learnt = learnt
        self._diagnostics = diagnostics
        self._history = history
        self._serve_bad_digests = serve_bad_digests
        self._lock = threading.Lock()
        self._transfers: dict[str, Transfer] = {}
        self._blobs: dict[str, RangedFile] = {}
        self._batches: dict[int, ZipBatch] = {}  # by resource: never two zips of one
        self._coming: dict[str, int] = {}
        self._corrected = bool(learnt.of("size"))  # whether any size differs from the catalog's
        self._suspects: dict[str, str] = {}  # MD5s of large files that differed from the catalog's once
        # Apart from the streams, all of which may be stuck: what is here is not to wait for them.
        self._checkers = WorkerPool("check", 2)
        self._checks = SingleFlight(self._checkers)
        self._patience = StalePolicy(contents.breaker)

    # --- for the tree ---------------------------------------------------------------------------------------

    def size(self, record: FileRecord) -> int:
        """The size in bytes, as true as is known now: the catalog's, or the one learnt from the file
        itself.
        """
        if not self._corrected:  # nearly always; asked for every entry of every folder
            return record.size
        name = identity(record)
        coming = self._coming.get(name)
        if coming is not None:
            return coming
        learnt = self._learnt.get("size", name)
        return record.size if learnt is None else int(learnt)

    def cached(self, record: FileRecord) -> str | None:
        """How the cached content was checked; None if it is not in the cache."""
        return self.cache.has(self.key(record))

    def open(self, record: FileRecord, series: ResourceAccess) -> ContentReader:
        """Open a content; its `size` is true from here on.

        Raises:
            Failure: GONE, BAD_DIGEST, or what keeps the server from answering.
        """
        if series.ahead:  # the walk has come here
            series.ahead = False
            series.batched = time.monotonic()
            self._go_ahead(series)
        reader = self._from_cache(record)
        if reader is None:
            self._refuse_known_bad(record)
            series.opened(record.path)
            if self._from_batch(record, series):
                reader = self._from_cache(record)
            if reader is None:
                reader = self._fetched(record, series)
        return _Counted(reader, series)

    def key(self, record: FileRecord) -> str:
        """What names this version of this file in the cache: its digest where the catalog has one, else what
        the catalog says of it.
        """
        if record.digest and not self._learnt.get("bad digest", identity(record)):
            return f"{record.digest}-{record.size}"
        return hashlib.sha256(
            f"{record.resource_id}\0{record.size}\0{record.digest}\0{record.path}".encode(
                "utf-8", "surrogatepass"
            )
        ).hexdigest()

    def counts(self) -> dict[str, int]:
        """For `status`."""
        objects, size, reserved = self.cache.usage()
        under_way = len(self._transfers) + len(self._blobs) + len(self._batches)
        return {
            "cached files": objects,
            "cached bytes": size,
            "bytes in progress": reserved,
            "transfers": under_way,
        }

    def close(self) -> None:
        """Start nothing more."""
        self.ahead_workers.close()
        self._checkers.close()
        self.workers.close()

    # --- the ways -------------------------------------------------------------------------------------------

    def _from_cache(self, record: FileRecord) -> ContentReader | None:
        entry = self.cache.open(self.key(record))
        if entry is None or not self._still_good(record, entry):
            return None
        self.learn_size(record, entry.size)
        return CachedReader(entry)

    def _from_batch(self, record: FileRecord, series: ResourceAccess) -> bool:
        """Wait for the file if it comes in a zip; starts the zip if that is worth it. False if it does not
        come that way.
        """
        batch = self._batch(record, series)
        if batch is None or not batch.expects(record.path):
            return False
        series.batched = time.monotonic()
        batch.wait_for(record.path)
        return True

    def _batch(self, record: FileRecord, series: ResourceAccess) -> ZipBatch | None:
        number = record.resource_id
        with self._lock:
            running = self._batches.get(number)
        if running is not None:
            return running
        # A resource larger than the cache would push its own files out before they are read.
        if series.total > self.cache.cap or time.monotonic() - series.no_room < _ZIP_RETRY_S:
            return None
        if not series.may_be_in_zip(record.path):
            return None
        needed = self.refuses_names and only_in_zip(record.path)
        # First as if nothing were here: looking for 20,000 files in the cache takes half a second.
        if not needed and not series.worth_a_zip(self.line, len(series.records), series.total):
            return None
        missing = [
            record
            for record in series.records
            if self.cache.has(self.key(record)) is None and series.may_be_in_zip(record.path)
        ]
        if not needed and not series.worth_a_zip(
            self.line, len(missing), sum(record.size for record in missing)
        ):
            return None
        return self._start_batch(series) if len(missing) > 1 else None

    def _start_batch(self, series: ResourceAccess) -> ZipBatch:
        number = series.records[0].resource_id
        with self._lock:
            running = self._batches.get(number)
            if running is None:
                running = self._batches[number] = ZipBatch(self, series, self._batch_over)
                self.workers.submit(running.run)
        return running

    def _batch_over(self, batch: ZipBatch) -> None:
        with self._lock:
            self._batches.pop(batch.series.records[0].resource_id, None)
        if time.monotonic() - batch.series.batched < self.limits.progress_deadline:
            self._go_ahead(batch.series)

    def _go_ahead(self, series: ResourceAccess) -> None:
        """In a walk through a session the next resource is fetched while this one is read: one ahead, when
        this one has come.
        """
        following = series.following
        if (
            following is None
            or following.ahead
            or not series.in_a_walk
            or following.total > min(self.limits.ahead, self.cache.cap // 2)
        ):
            return
        with self._lock:
            if self._batches:
                return
            following.ahead = True
        if sum(1 for record in following.records if self.cache.has(self.key(record)) is None) > 1:
            self._start_batch(following)

    def _fetched(self, record: FileRecord, series: ResourceAccess) -> ContentReader:
        try:
            return self._fetch(record, series)
        except Failure as failure:
            if failure.cause is Cause.GONE and out_of_reach(record.path):
                self._diagnostics.odd(f"{record.uri!r}: {NO_WAY}")
            raise

    def _fetch(self, record: FileRecord, series: ResourceAccess) -> ContentReader:
        size = self.size(record)
        heads = series.heads_only and size > 2 * HEAD_BYTES and not self.range_refused
        if (size > self.limits.whole_file_check or heads) and not self.length_refused:
            try:
                return self._open_blob(record, size, series.entries, HEAD_BYTES if heads else FIRST)
            except Failure:
                if not self.length_refused:
                    raise
        key = self.key(record)
        with self._lock:
            transfer = self._transfers.get(key)
            new = transfer is None or not transfer.join()
            if transfer is None or new:
                transfer = self._transfers[key] = Transfer(self, record, size, series.entries)
                transfer.join()
        if new:
            self.workers.submit(lambda: self._run(key, transfer))
        try:
            return transfer.open()
        except Failure as failure:
            if failure.cause is not Cause.NO_SPACE or size <= self.limits.whole_file_check:
                raise
            # Without the cache only a server that says how long a file is can serve parts of it. Perhaps it
            # does by now.
            self.length_refused = False
            try:
                return self._open_blob(record, size, series.entries, FIRST)
            except Failure:
                if self.length_refused:
                    raise failure from None
                raise

    def _run(self, key: str, transfer: Transfer) -> None:
        try:
            transfer.run()
            if transfer.failure is not None and transfer.readers:  # else nobody got it
                self._diagnostics.failed(transfer.failure)
        finally:
            with self._lock:
                if self._transfers.get(key) is transfer:  # else its successor knows the size
                    del self._transfers[key]
                    self._coming.pop(identity(transfer.record), None)

    def _open_blob(self, record: FileRecord, size: int, entries: int, first: int) -> ContentReader:
        """A reader of a large file; anew where the last reader of the old blob closed it just now, or the
        file changed just now.
        """
        for _ in range(2):
            try:
                return self._blob(record, size, entries, first).open()
            except Failure as failure:
                if failure.cause is not Cause.CHANGED:
                    raise
        return self._blob(record, size, entries, first).open()

    def _blob(self, record: FileRecord, size: int, entries: int, first: int) -> RangedFile:
        key = self.key(record)
        with self._lock:
            blob = self._blobs.get(key)
            if blob is None or blob.closed:
                blob = self._blobs[key] = RangedFile(self, record, key, size, self._blob_gone, entries, first)
            return blob

    def _blob_gone(self, blob: RangedFile) -> None:
        with self._lock:
            if self._blobs.get(blob.key) is blob:
                del self._blobs[blob.key]
                self._coming.pop(identity(blob.record), None)

    # --- what is learnt -------------------------------------------------------------------------------------

    def coming(self, record: FileRecord, size: int) -> None:
        """An answer told this size; a whole, checked file has yet to prove it."""
        if size != record.size:
            self._corrected = True
        self._coming[identity(record)] = size

    def learn_size(self, record: FileRecord, size: int) -> None:
        """A whole file has this size."""
        name = identity(record)
        if size != record.size and self._learnt.get("size", name) != str(size):
            log.info("%s has %d bytes, the catalog says %d", record.uri, size, record.size)
            self._corrected = True
            self._learnt.put("size", name, str(size))

    def bad_digest(self, record: FileRecord, md5: str) -> str:
        """The same wrong MD5 twice: the catalog's error."""
        self._learnt.put("bad digest", identity(record), f"{md5} {time.time():.0f}")
        if not self._serve_bad_digests:
            raise Failure(Cause.BAD_DIGEST, record.uri, f"it is {md5}, the catalog says {record.digest}")
        return "bad digest"

    def checked(self, record: FileRecord, size: int, md5: str) -> str:
        """How a large file with this size and MD5 is to be kept."""
        if not record.digest or md5 == record.digest:
            self.learn_size(record, size)
            self._suspects.pop(identity(record), None)
            return "md5" if record.digest else "size"
        if self._suspects.get(identity(record)) == md5:
            self.learn_size(record, size)
            return self.bad_digest(record, md5)
        # Part of it has been served: its readers must learn of it. The next one gets it fetched anew.
        self._suspects[identity(record)] = md5
        failure = Failure(Cause.BAD_DIGEST, record.uri, f"it came as {md5}, the catalog says {record.digest}")
        self._diagnostics.failed(failure)
        raise failure

    def unchanged(self, record: FileRecord, last_modified: str) -> bool:
        """Whether the server still has the file with this Last-Modified; waits a few seconds for the answer.

        Raises:
            Failure: see `Downloads.unchanged`; TIMED_OUT.
        """
        patience = min(_CHECK_TIMEOUT_S, self.limits.progress_deadline)
        work = partial(self.contents.unchanged, record, last_modified)
        return self._checks.get((identity(record), last_modified), work, patience, self._patience(held=True))

    def _refuse_known_bad(self, record: FileRecord) -> None:
        bad = self._learnt.get("bad digest", identity(record))
        if bad and not self._serve_bad_digests and time.time() - float(bad.split()[1]) < _REMEMBER_BAD_DIGEST:
            raise Failure(
                Cause.BAD_DIGEST, record.uri, f"it is {bad.split()[0]}, the catalog says {record.digest}"
            )

    def _still_good(self, record: FileRecord, entry: Entry) -> bool:
        """Contents without a digest are asked for again after some hours: `If-Modified-Since`, a 304 costs no
        body.

        After an unclean boot nothing is believed that was not read again (`verified` is "" then).
        """
        if record.digest and entry.verified == "":
            if md5_of(entry.fd) != record.digest:
                entry.close()
                self.cache.forget(entry.key)
                return False
            self.cache.confirm(entry.key, "md5")
            return True
        if (
            record.digest and entry.verified == "md5"
        ) or time.time() - entry.checked < self.limits.revalidate_after:
            return True
        try:
            unchanged = bool(entry.last_modified) and self.unchanged(record, entry.last_modified)
        except Failure as failure:
            if failure.cause in (
                Cause.GONE,
                Cause.NO_ENTRY,
                Cause.NOT_ALLOWED,
                Cause.LOGIN_REFUSED,
                Cause.INTERRUPTED,
            ):
                entry.close()
                raise
            log.info("%s is served from the cache without revalidation: %s", record.path, failure)
            return True
        if unchanged:
            self.cache.confirm(entry.key)
            return True
        if entry.last_modified:
            self._history.overwritten(record)
        entry.close()
        self.cache.forget(entry.key)
        return False


def identity(record: FileRecord) -> str:
    """One file as one version of the catalog describes it: what is learnt holds until the catalog says
    something else.
    """
    return f"{record.resource_id}:{record.size}:{record.digest}:{record.path}"
