"""Contents on their way: a file is fetched once, into the cache, while whoever opened it reads what has arrived.

Used by the tree's files through `Transfers.open`, which gives a `Reader`. What is checked, and when (DESIGN 4.4): files up to 8 MiB by
their MD5 before the first byte is served; of larger ones the last block is held back until the MD5 agrees; files without a digest by
their size. The catalog's size and digest can be wrong: the first answer corrects the size (remembered in `Learnt`), and a digest that is
wrong twice over the same bytes is the catalog's error.
Threading: any thread. One worker writes a transfer; readers wait on its condition. No lock is held over I/O.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from typing import Protocol

from xnatfs.cache.contents import ContentCache, Draft, Entry
from xnatfs.cache.learnt import Learnt
from xnatfs.config import Limits
from xnatfs.errors import Cause, Failure
from xnatfs.fetch.flights import Flights, Workers
from xnatfs.fetch.troubles import Troubles
from xnatfs.fetch.waiting import wait_until
from xnatfs.server.contents import Contents, Stream, only_in_zip
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

HELD_BACK = 128 * 1024  # one read of the kernel
_ATTEMPTS = 5
_CURED_BY_RETRY = (Cause.CUT_SHORT, Cause.TIMED_OUT, Cause.UNREACHABLE, Cause.SERVER_ERROR, Cause.NOT_DATA)
_REMEMBER_BAD_DIGEST = 600.0  # seconds for which a file with a wrong catalog digest is refused without fetching it again


class Reader(Protocol):
    """An open content."""

    size: int

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

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._entry.fd, length, offset)

    def close(self) -> None:
        self._entry.close()


class Transfer:
    """One content being fetched, shared by all who read it meanwhile."""

    def __init__(self, record: FileRecord, size: int) -> None:
        self.record = record
        self.size = size
        self.condition = threading.Condition()
        self.opened = False  # the size is known and reading may begin
        self.available = 0  # bytes that may be served
        self.done = False
        self.failure: Failure | None = None
        self.readers = 0
        self.last_modified = ""
        self.draft: Draft | None = None
        self.entry: Entry | None = None

    @property
    def abandoned(self) -> bool:
        """Nobody reads it any more."""
        return self.readers == 0


class TransferReader:
    """A content that is being fetched."""

    def __init__(self, owner: Transfers, transfer: Transfer) -> None:
        self._owner = owner
        self._transfer = transfer
        self.size = transfer.size

    def read(self, offset: int, length: int) -> bytes:
        transfer = self._transfer
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        with transfer.condition:
            wait_until(
                transfer.condition,
                lambda: transfer.available >= end or transfer.done or transfer.failure is not None,
                self._owner.limits.progress_deadline,
                lambda: self._owner.progress,
            )
            if transfer.available < end and transfer.failure is not None:
                raise transfer.failure
            if transfer.size != self.size:
                raise Failure(Cause.CHANGED, transfer.record.uri)
            source = transfer.entry or transfer.draft
            assert source is not None
        return os.pread(source.fd, end - offset, offset)

    def close(self) -> None:
        self._owner.leave(self._transfer)


class Transfers:
    """Everything on its way from one server into one cache."""

    def __init__(
        self,
        contents: Contents,
        cache: ContentCache,
        learnt: Learnt,
        limits: Limits,
        troubles: Troubles,
        *,
        serve_bad_digests: bool = False,
    ) -> None:
        self.limits = limits
        self.progress = 0  # pieces that arrived, of any transfer: while it rises, waiting in the queue is no time-out
        self._contents = contents
        self._cache = cache
        self._learnt = learnt
        self._troubles = troubles
        self._serve_bad_digests = serve_bad_digests
        self._lock = threading.Lock()
        self._running: dict[str, Transfer] = {}
        self._coming: dict[str, int] = {}  # sizes that answers have told and that a whole, checked file has yet to prove
        self._workers = Workers("transfer", max(1, limits.connections - 1))
        self._checks = Flights(self._workers)

    # --- for the tree --------------------------------------------------------------------------------------------

    def size(self, record: FileRecord) -> int:
        """The size in bytes, as true as is known now: the catalog's, or the one learnt from the file itself."""
        name = identity(record)
        coming = self._coming.get(name)
        if coming is not None:
            return coming
        learnt = self._learnt.get("size", name)
        return record.size if learnt is None else int(learnt)

    def cached(self, record: FileRecord) -> str | None:
        """How the cached content was checked; None if it is not in the cache."""
        return self._cache.has(self.key(record))

    def open(self, record: FileRecord) -> Reader:
        """Open a content; its `size` is true from here on.

        Raises:
            Failure: GONE, BAD_DIGEST, NO_SPACE, or what keeps the server from answering.
        """
        key = self.key(record)
        entry = self._cache.open(key)
        if entry is not None and self._still_good(record, entry):
            self._learn_size(record, entry.size)
            return CachedReader(entry)
        self._refuse_known_bad(record)
        transfer = self._join(key, record)
        try:
            self._await_opening(transfer)
            if transfer.failure is not None and not transfer.available:
                raise transfer.failure
        except BaseException:
            self.leave(transfer)
            raise
        return TransferReader(self, transfer)

    def key(self, record: FileRecord) -> str:
        """What names this version of this file in the cache: its digest where the catalog has one, else what the catalog says of it."""
        bad = self._learnt.get("bad digest", identity(record))
        if record.digest and not bad:
            return _hash("md5", record.digest, record.size)
        return _hash("entry", record.resource_id, record.path, record.size, record.digest)

    def counts(self) -> dict[str, int]:
        """For `status`."""
        objects, size, reserved = self._cache.usage()
        return {"cached files": objects, "cached bytes": size, "bytes on their way": reserved, "transfers": len(self._running)}

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()

    # --- joining and leaving -------------------------------------------------------------------------------------

    def _join(self, key: str, record: FileRecord) -> Transfer:
        with self._lock:
            transfer = self._running.get(key)
            if transfer is None:
                transfer = Transfer(record, self.size(record))
                self._running[key] = transfer
                transfer.readers += 1
                self._workers.submit(lambda: self._run(key, transfer))
            else:
                transfer.readers += 1
            return transfer

    def leave(self, transfer: Transfer) -> None:
        """One reader less. The last one closes what it read from, or lets the worker do it."""
        with transfer.condition:
            transfer.readers -= 1
            if transfer.readers == 0 and (transfer.done or transfer.failure is not None):
                _close(transfer)

    def _await_opening(self, transfer: Transfer) -> None:
        with transfer.condition:
            wait_until(
                transfer.condition,
                lambda: transfer.opened or transfer.done or transfer.failure is not None,
                self.limits.progress_deadline,
                lambda: self.progress,
            )

    def _still_good(self, record: FileRecord, entry: Entry) -> bool:
        """Contents without a digest are asked for again after some hours: `If-Modified-Since`, a 304 costs no body."""
        by_digest = bool(record.digest) and entry.verified == "md5"
        if by_digest or not entry.last_modified or time.time() - entry.checked < self.limits.revalidate_after:
            return True
        try:
            unchanged = self._checks.get(
                entry.key, lambda: self._contents.unchanged(record, entry.last_modified), self.limits.progress_deadline
            )
        except Failure as failure:
            if failure.cause in (Cause.GONE, Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED, Cause.INTERRUPTED):
                entry.close()
                raise
            log.info("%s is served from the cache without asking again: %s", record.path, failure)
            return True
        if unchanged:
            self._cache.confirm(entry.key)
            return True
        entry.close()
        self._cache.forget(entry.key)
        return False

    def _refuse_known_bad(self, record: FileRecord) -> None:
        bad = self._learnt.get("bad digest", identity(record))
        if bad and not self._serve_bad_digests and time.time() - float(bad.split()[1]) < _REMEMBER_BAD_DIGEST:
            raise Failure(Cause.BAD_DIGEST, record.uri, f"it is {bad.split()[0]}, the catalog says {record.digest}")

    # --- the worker ----------------------------------------------------------------------------------------------

    def _run(self, key: str, transfer: Transfer) -> None:
        try:
            self._fetch(transfer)
        except Failure as failure:
            self._fail(transfer, failure)
        except BaseException as error:
            log.exception("the transfer of %s broke", transfer.record.path)
            self._fail(transfer, Failure(Cause.SERVER_ERROR, transfer.record.uri, repr(error)))
        finally:
            with self._lock:
                self._running.pop(key, None)
                self._coming.pop(identity(transfer.record), None)
            with transfer.condition:
                if transfer.readers == 0:
                    _close(transfer)

    def _fail(self, transfer: Transfer, failure: Failure) -> None:
        if not (failure.cause is Cause.INTERRUPTED and transfer.abandoned):
            self._troubles.failed(failure)
        with transfer.condition:
            transfer.failure = failure
            transfer.condition.notify_all()

    def _fetch(self, transfer: Transfer) -> None:
        """Fetch, check, commit; again where that can cure what went wrong."""
        wrong_md5 = served_md5 = ""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                md5 = self._receive(transfer)
            except Failure as failure:
                if failure.cause in _CURED_BY_RETRY and attempt < _ATTEMPTS and not transfer.abandoned:
                    log.info("%s: %s; fetching it again", transfer.record.uri, failure)
                    time.sleep(min(2.0, 0.1 * 2**attempt))
                    continue
                raise
            if transfer.available:
                served_md5 = served_md5 or md5
            mixed = served_md5 not in ("", md5)
            if not transfer.record.digest or md5 == transfer.record.digest:
                self._commit(transfer, "md5" if transfer.record.digest else "size", mixed=mixed)
                return
            if md5 == wrong_md5:
                self._bad_digest(transfer, md5, mixed=mixed)
                return
            log.warning("%s has the MD5 %s, the catalog says %s; fetching it again", transfer.record.uri, md5, transfer.record.digest)
            wrong_md5 = md5
        raise Failure(Cause.BAD_DIGEST, transfer.record.uri)

    def _bad_digest(self, transfer: Transfer, md5: str, *, mixed: bool) -> None:
        self._learnt.put("bad digest", identity(transfer.record), f"{md5} {time.time():.0f}")
        if not self._serve_bad_digests:
            raise Failure(Cause.BAD_DIGEST, transfer.record.uri, f"it is {md5}, the catalog says {transfer.record.digest}")
        self._commit(transfer, "bad digest", mixed=mixed)

    def _receive(self, transfer: Transfer) -> str:
        """One download of the whole file into the draft, by itself or from the resource's zip; returns its MD5."""
        try:
            with self._contents.file(transfer.record) as stream:
                return self._fill(transfer, stream)
        except Failure as failure:
            if only_in_zip(transfer.record.path) and failure.status in (400, 403, 404, 500):
                return self._receive_from_zip(transfer)
            raise

    def _receive_from_zip(self, transfer: Transfer) -> str:
        record = transfer.record
        found: str | None = None
        with self._contents.zip(record) as members:
            for path, size, pieces in members:
                if path == record.path and found is None:
                    found = self._fill(transfer, Stream(size, "", pieces))
                else:
                    for _ in pieces:  # the stream has to be read past it
                        self.progress += 1
        if found is None:
            raise Failure(Cause.GONE, record.uri, "neither by itself nor in the resource's zip", 404)
        return found

    def _fill(self, transfer: Transfer, stream: Stream) -> str:
        if transfer.draft is None:
            transfer.draft = self._cache.draft(stream.size)
        draft = transfer.draft
        draft.rewind()
        served = transfer.available
        if served and (stream.last_modified != transfer.last_modified or stream.size != transfer.size):
            raise Failure(Cause.CHANGED, transfer.record.uri)
        large = stream.size is not None and stream.size > self.limits.whole_file_check
        with transfer.condition:
            transfer.last_modified = stream.last_modified
            if stream.size is not None:
                transfer.size = stream.size
                self._coming[identity(transfer.record)] = stream.size
            if large:
                transfer.opened = True
                transfer.condition.notify_all()
        digest = hashlib.md5(usedforsecurity=False)
        servable = transfer.size - HELD_BACK if transfer.record.digest else transfer.size
        for piece in stream.pieces:
            draft.write(piece)
            digest.update(piece)
            self.progress += 1
            if large:
                if transfer.abandoned:
                    raise Failure(Cause.INTERRUPTED, transfer.record.uri, "nobody reads it any more")
                with transfer.condition:
                    transfer.available = max(transfer.available, min(draft.written, servable))
                    transfer.condition.notify_all()
        if stream.size is not None and draft.written != stream.size:
            raise Failure(Cause.CUT_SHORT, transfer.record.uri, f"{draft.written} of {stream.size} bytes")
        transfer.size = draft.written
        return digest.hexdigest()

    def _learn_size(self, record: FileRecord, size: int) -> None:
        name = identity(record)
        if size != record.size and self._learnt.get("size", name) != str(size):
            log.info("%s has %d bytes, the catalog says %d", record.uri, size, record.size)
            self._learnt.put("size", name, str(size))

    def _commit(self, transfer: Transfer, verified: str, *, mixed: bool = False) -> None:
        """Keep the content and let its readers have it; `mixed` if they already read a part of other bytes than these."""
        assert transfer.draft is not None
        key = self.key(transfer.record)
        transfer.draft.commit(key, last_modified=transfer.last_modified, verified=verified)
        self._learn_size(transfer.record, transfer.size)
        if mixed:
            raise Failure(Cause.CHANGED, transfer.record.uri, "what was read first had been damaged on its way")
        entry = self._cache.open(key)
        with transfer.condition:
            transfer.entry = entry
            transfer.available = transfer.size
            transfer.done = transfer.opened = True
            transfer.condition.notify_all()


def identity(record: FileRecord) -> str:
    """One file as one version of the catalog describes it: what is learnt holds until the catalog says something else."""
    return f"{record.resource_id}:{record.size}:{record.digest}:{record.path}"


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _close(transfer: Transfer) -> None:
    """Close what readers read from. Called with the condition held, when nobody reads and nobody writes."""
    if transfer.entry is not None:
        transfer.entry.close()
        transfer.entry = None
    if transfer.draft is not None:
        transfer.draft.close()
        transfer.draft = None
