"""How a file's bytes are had: from the cache, from a zip on its way, whole, or in parts; decided when it is
opened.

Used by the tree's files through `ContentManager.open`, which gives a `ContentReader`. In this order:

1. whole in the cache: no request (contents without a digest are asked for again after some hours);
2. its resource is on its way as a zip, or is worth one (`zip_scheduler`): wait for just this file;
   where there is a shared tier, the zip, the file or what is read in parts is looked for there first, and
   files up to 64 MiB are fetched whole;
3. large, or of a resource of which only headers are read: in parts (`ranged`);
4. else whole (`transfer`).

What is cached is revalidated by `revalidation`; what the catalog says of a file is doubted by `verification`.
Threading: any thread. One lock guards the maps of what is on its way, never held over I/O.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple, Protocol

from xnatfs.cache.contents import ContentCache, Entry
from xnatfs.cache.corrections import Corrections
from xnatfs.cache.shared_tier import SharedTier
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.config import Limits
from xnatfs.content.access_pattern import HEAD_BYTES, ResourceAccess
from xnatfs.content.context import TransferContext
from xnatfs.content.cost_model import LinkModel
from xnatfs.content.ranged import RangedFile
from xnatfs.content.revalidation import Revalidation
from xnatfs.content.shared_content import WHOLE_BYTES, SharedClaim, SharedContent
from xnatfs.content.stream_plan import FIRST
from xnatfs.content.stream_tuner import StreamTuner
from xnatfs.content.transfer import Transfer
from xnatfs.content.verification import DigestPolicy, SizeCorrections
from xnatfs.content.zip_scheduler import ZipScheduler
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.server.downloads import NO_WAY, Downloads, out_of_reach
from xnatfs.server.records import FileRecord


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


class Download(NamedTuple):
    """What is on its way: its address on the server, bytes that have come, bytes in all (of a zip, those of
    its members).
    """

    file: str
    received: int
    size: int


class CachedReader:
    """A content that is whole in the cache."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.size = entry.size
        self.stamp = "" if entry.verified == "md5" else entry.last_modified or str(entry.checked)

    def read(self, offset: int, length: int) -> bytes:
        """See `ContentReader`."""
        return os.pread(self._entry.fd, length, offset)

    def descriptor(self, offset: int, length: int) -> tuple[int, int]:
        """The file in the cache, and how many bytes it has of this part."""
        return self._entry.fd, max(0, min(length, self.size - offset))

    def close(self) -> None:
        """See `ContentReader`."""
        self._entry.close()


class _Counted:
    """A reader that tells the access pattern of its resource how much of the file was read."""

    def __init__(self, reader: ContentReader, access: ResourceAccess) -> None:
        self._reader = reader
        self._access = access
        self._furthest = 0
        self.size = reader.size
        self.stamp = reader.stamp
        if isinstance(reader, CachedReader):
            self._cached = reader
            self.descriptor = self._descriptor

    def read(self, offset: int, length: int) -> bytes:
        """See `ContentReader`."""
        data = self._reader.read(offset, length)
        self._furthest = max(self._furthest, offset + len(data))
        return data

    def _descriptor(self, offset: int, length: int) -> tuple[int, int]:
        descriptor, length = self._cached.descriptor(offset, length)
        self._furthest = max(self._furthest, offset + length)
        return descriptor, length

    def close(self) -> None:
        """See `ContentReader`."""
        self._reader.close()
        if self._furthest:
            self._access.reads.closed(self.size, self._furthest)


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
        tier: SharedTier | None = None,
    ) -> None:
        sizes = SizeCorrections(learnt)
        streams = max(1, limits.connections - 1)  # one is always free for listings
        digests = DigestPolicy(learnt, sizes, diagnostics, serve_bad=serve_bad_digests)
        shared = None if tier is None else SharedContent(tier, cache, digests, diagnostics, contents.server)
        self.context = TransferContext(
            contents,
            cache,
            limits,
            WorkerPool("transfer", streams),
            sizes,
            digests,
            Revalidation(contents, cache, history, limits),
            LinkModel(
                streams=StreamTuner(streams, _remembered(learnt), lambda found: _remember(learnt, found))
            ),
            shared,
        )
        # Read through what is wanted soon.
        self.ahead_workers = WorkerPool("ahead", streams)
        self._diagnostics = diagnostics
        self._zips = ZipScheduler(self.context)
        self._lock = threading.Lock()
        self._transfers: dict[str, Transfer] = {}  # by key in the cache
        self._ranged: dict[str, RangedFile] = {}  # the same

    # --- for the tree ---------------------------------------------------------------------------------------

    def size(self, record: FileRecord) -> int:
        """The size in bytes, as true as is known now; see `SizeCorrections.of`."""
        return self.context.sizes.of(record)

    def cached(self, record: FileRecord) -> str | None:
        """How the cached content was checked; None if it is not in the cache."""
        return self.context.cache.has(self.key(record))

    def open(self, record: FileRecord, access: ResourceAccess) -> ContentReader:
        """Open a content; its `size` is true from here on.

        Raises:
            Failure: GONE, BAD_DIGEST, or what keeps the server from answering.
        """
        self._zips.reached(access)
        reader = self._from_cache(record)
        if reader is None:
            self.context.digests.refuse_known_bad(record)
            access.opened(record.path)
            if self._zips.wait_for(record, access):
                reader = self._from_cache(record)
            if reader is None:
                reader = self._fetched(record, access)
        return _Counted(reader, access)

    def scans_listed(self, session: str) -> None:
        """A reader listed the scans of a session, by its accession id: it may walk through them."""
        self._zips.scans_listed(session)

    def key(self, record: FileRecord) -> str:
        """What names this version of this file in the cache; see `DigestPolicy.key`."""
        return self.context.digests.key(record)

    def counts(self) -> dict[str, int]:
        """For `status`."""
        objects, size, reserved = self.context.cache.usage()
        under_way = len(self._transfers) + len(self._ranged) + self._zips.under_way
        return {
            "cached files": objects,
            "cached bytes": size,
            "bytes in progress": reserved,
            "bytes received": self.context.link.received_bytes,
            "transfers": under_way,
        }

    def downloads(self) -> list[Download]:
        """What is on its way, each with what has come of it. Of a file that is read in parts, only while
        somebody has it open.
        """
        with self._lock:
            whole = [transfer.file for transfer in self._transfers.values()]
            parts = [file.content for file in self._ranged.values()]
        found = [Download(file.record.uri, file.buffer.written, file.size) for file in whole]
        found += [
            Download(content.record.uri, content.received, content.size)
            for content in parts
            if content.received < content.size
        ]
        return found + [Download(*one) for one in self._zips.progress()]

    def limit(self, streams: int) -> None:
        """Fetch so many contents at once, from now on."""
        self.context.workers.resize(streams)
        self.ahead_workers.resize(streams)

    def close(self) -> None:
        """Start nothing more."""
        self.ahead_workers.close()
        if self.context.shared is not None:
            self.context.shared.close()
        self.context.revalidation.close()
        self.context.workers.close()

    # --- the ways -------------------------------------------------------------------------------------------

    def _from_cache(self, record: FileRecord) -> ContentReader | None:
        entry = self.context.cache.open(self.key(record))
        if entry is None or not self.context.revalidation.still_good(record, entry):
            return None
        self.context.sizes.learn(record, entry.size)
        return CachedReader(entry)

    def _fetched(self, record: FileRecord, access: ResourceAccess) -> ContentReader:
        try:
            return self._fetch(record, access)
        except Failure as failure:
            if failure.cause is Cause.GONE and out_of_reach(record.path):
                self._diagnostics.odd(f"{record.uri!r}: {NO_WAY}")
            raise

    def _fetch(self, record: FileRecord, access: ResourceAccess) -> ContentReader:
        context = self.context
        size = self.size(record)
        heads = access.reads.heads_only and size > 2 * HEAD_BYTES and not context.range_refused
        claim = SharedClaim()
        if context.length_refused:
            whole = True
        elif context.shared is not None and context.shared.takes(record):
            whole, claim = self._shared_whole(context.shared, record, size, heads=heads)
        else:
            whole = size <= context.limits.whole_file_check and not heads
        if not whole:
            try:
                return self._open_ranged(record, size, access.entries, HEAD_BYTES if heads else FIRST, claim)
            except Failure:
                if not context.length_refused:
                    raise
        key = self.key(record)
        with self._lock:
            transfer = self._transfers.get(key)
            new = transfer is None or not transfer.file.join()
            if transfer is None or new:
                transfer = self._transfers[key] = Transfer(context, record, size, access.entries)
                transfer.file.join()
        if new:
            context.workers.submit(lambda: self._run(key, transfer))
        try:
            return transfer.file.open()
        except Failure as failure:
            if failure.cause is not Cause.NO_SPACE or size <= context.limits.whole_file_check:
                raise
            # Without the cache only a server that says how long a file is can serve parts of it. Perhaps it
            # does by now.
            context.length_refused = False
            try:
                return self._open_ranged(record, size, access.entries, FIRST, SharedClaim())
            except Failure:
                if context.length_refused:
                    raise failure from None
                raise

    def _shared_whole(
        self, shared: SharedContent, record: FileRecord, size: int, *, heads: bool
    ) -> tuple[bool, SharedClaim]:
        """Whether a file is to be had whole, where there is a shared tier: if it is there, or others are
        fetching it, or it is soon here. Else what others see of its being fetched in parts.
        """
        if heads:
            return shared.soon(lambda: shared.has(record), False), SharedClaim()
        if size <= WHOLE_BYTES or self._is_ranged(record):
            return size <= WHOLE_BYTES, SharedClaim()
        nothing: SharedClaim | None = SharedClaim()
        claim = shared.soon(lambda: shared.claim_at_once(record), nothing)
        return claim is None, claim or SharedClaim()

    def _is_ranged(self, record: FileRecord) -> bool:
        with self._lock:
            file = self._ranged.get(self.key(record))
            return file is not None and not file.closed

    def _run(self, key: str, transfer: Transfer) -> None:
        try:
            transfer.run()
            if transfer.file.failure is not None and transfer.file.readers:  # else nobody got it
                self._diagnostics.failed(transfer.file.failure)
        finally:
            with self._lock:
                if self._transfers.get(key) is transfer:  # else its successor knows the size
                    del self._transfers[key]
                    self.context.sizes.forget_announced(transfer.file.record)

    def _open_ranged(
        self, record: FileRecord, size: int, entries: int, first: int, claim: SharedClaim
    ) -> ContentReader:
        """A reader of a file that is read by ranges; tried again where the last reader of the shared one
        closed it just now, or the file changed just now.
        """
        for _ in range(2):
            try:
                return self._ranged_file(record, size, entries, first, claim).open()
            except Failure as failure:
                if failure.cause is not Cause.CHANGED:
                    raise
        return self._ranged_file(record, size, entries, first, claim).open()

    def _ranged_file(
        self, record: FileRecord, size: int, entries: int, first: int, claim: SharedClaim
    ) -> RangedFile:
        key = self.key(record)
        with self._lock:
            file = self._ranged.get(key)
            if file is None or file.closed:
                file = self._ranged[key] = RangedFile(
                    self.context, record, key, size, self._ranged_gone, entries, first, claim
                )
            elif file.claim is not claim:
                claim.close()  # two opened it at once
            return file

    def _ranged_gone(self, file: RangedFile) -> None:
        with self._lock:
            if self._ranged.get(file.content.key) is file:
                del self._ranged[file.content.key]
                self.context.sizes.forget_announced(file.content.record)


def _remembered(learnt: Corrections) -> int:
    """How many streams the line rewarded in an earlier mount: what is tried first."""
    return int(number) if (number := learnt.get("line", "streams") or "").isdecimal() else 0


def _remember(learnt: Corrections, streams: int) -> None:
    learnt.put("line", "streams", str(streams))
