"""One download for many machines: contents are looked for in the shared tier before the server is asked, and
put there once they are checked.

Used by `content.manager`, `content.transfer`, `content.ranged` and `content.shared_members`. What is asked
for is the digest in this user's own fresh listing, so that nobody has from the tier what the server does not
show them; what comes is believed only if it has that digest. Files without a digest stay out of it.

While another machine fetches something (`content.shared_leases`), it is waited for, as long as that gets on,
and for a bounded time in all; then it is fetched here. So whatever dies or hangs costs time or a second
download, never a read.

Threading: any thread. Most methods block on the tier's store: they are called in workers. `takes`, `publish`
and closing a claim do not. One lock guards the counts, never held over I/O.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from xnatfs.cache.contents import ContentCache
from xnatfs.cache.shared_tier import SharedTier, StoredObject, is_key
from xnatfs.cache.tier_health import TierHealth
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.content.shared_leases import Lease, Leases
from xnatfs.content.verification import DigestPolicy
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)
T = TypeVar("T")

WHOLE_BYTES = 64 * 2**20  # files up to this size are fetched whole, so that others have them soon
_TINY_BYTES = 16 * 1024  # not worth a lease: asking for one takes as long as the file
_DEAD_S = 10.0  # a lease that did not change for so long is nobody's any more
_FIRST_SIGN_S = 5.0  # ... of a large file, of which its holder may want the header only
_WAIT_S, _WAIT_BYTES_S = 60.0, 1e6  # in all: so long, and a second more for so many bytes
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 0.5  # between two looks while waiting
_LAST_PUTS_S = 10.0  # when the mount ends, for what is still to be put there
_PROBED = 3  # of many objects, before all are asked for
_PATIENCE_S = 5.0  # of who serves an operation
_COUNTED = (
    "files taken",
    "bytes taken",
    "files given",
    "bytes given",
    "waited for",
    "without digest",
    "damaged",
)


class SharedClaim:
    """What came of looking for a content in the tier.

    Attributes:
        found: the object, if it is there.
    """

    def __init__(
        self,
        shared: SharedContent | None = None,
        record: FileRecord | None = None,
        found: StoredObject | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._shared = shared
        self._record = record
        self.found = found
        self._lease = lease

    @property
    def held(self) -> bool:
        """Whether others wait for this process to fetch it."""
        return self._lease is not None

    def moved(self) -> None:
        """Bytes came from the server."""
        if self._lease is not None:
            self._lease.moved()

    def publish(self) -> None:
        """It is whole, checked, and in the cache."""
        if self._shared is not None and self._record is not None:
            self._shared.publish(self._record, self._lease)

    def close(self) -> None:
        """Nothing more comes."""
        if self._lease is not None:
            self._lease.close()


class SharedContent:
    """What one mount has from a shared tier, and gives to it.

    Args:
        server: its URL: leases of whole resources have names made of it.
    """

    def __init__(
        self,
        tier: SharedTier,
        cache: ContentCache,
        digests: DigestPolicy,
        diagnostics: Diagnostics,
        server: str,
    ) -> None:
        self._tier = tier
        self._cache = cache
        self._digests = digests
        self._diagnostics = diagnostics
        self._server = server
        self._askers = WorkerPool("shared", 4)
        self._putters = WorkerPool("sharing", 4)  # apart: nobody is to wait for what is put
        self._health = TierHealth(tier.name)
        self._leases = Leases(tier, self._health, self._soon)
        self._lock = threading.Condition()
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._puts = 0  # under way

    def takes(self, record: FileRecord) -> bool:
        """Whether the tier may have this file."""
        return is_key(self._digests.key(record)) and record.size <= self._cache.cap // 2

    @property
    def is_warm(self) -> bool:
        """Whether resources are found there."""
        return self._health.is_warm

    def has(self, record: FileRecord) -> bool:
        """Whether the tier has this file."""
        return self._health.ask(lambda: self._tier.has(self._digests.key(record)), False)

    def claim(
        self, record: FileRecord, wanted: Callable[[], bool], progress: Callable[[], None]
    ) -> SharedClaim:
        """The object; or, once nobody else is fetching it, the lease to fetch it.

        Args:
            wanted: looked at while it waits for others.
            progress: called when these got further.

        Raises:
            Failure: INTERRUPTED if it is not wanted any more.
        """
        if not record.digest:
            self._count("without digest")
        if not self.takes(record):
            return SharedClaim()
        return self._health.ask(lambda: self._claim(record, wanted, progress), SharedClaim(self, record))

    def claim_at_once(self, record: FileRecord) -> SharedClaim | None:
        """The lease to fetch a file; None if it is there, or others are fetching it."""
        nothing: SharedClaim | None = SharedClaim(self, record)

        def ask() -> SharedClaim | None:
            key = self._digests.key(record)
            if self._tier.has(key) or self._leases.others(self._zip_name(record)):
                return None
            lease = self._leases.take(_file_name(key))
            return None if lease is None else SharedClaim(self, record, lease=lease)

        return self._health.ask(ask, nothing)

    def claim_zip(self, record: FileRecord) -> Lease | None:
        """The lease to fetch the whole resource of a file; None if another has it."""
        name = self._zip_name(record)
        nothing: Lease | None = Lease(name)
        return self._health.ask(lambda: self._leases.take(name), nothing)

    def many(self, records: Iterable[FileRecord]) -> Iterator[tuple[FileRecord, StoredObject]]:
        """Those of these small files that the tier has; nothing if the first ones are not there."""
        wanted = {self._digests.key(record): record for record in records if self.takes(record)}
        if not self._health.usable:
            return
        try:
            if any(self._tier.has(key) for key in list(wanted)[:_PROBED]):
                self._health.had_much()
                for key, found in self._tier.many(wanted):
                    yield wanted[key], found
        except Failure:
            raise
        except Exception as error:  # each store has its own
            self._health.failed(error)

    def soon(self, ask: Callable[[], T], otherwise: T) -> T:
        """What comes of asking the tier, for a thread that serves an operation; something else if it does not
        answer soon.

        Raises:
            Failure: INTERRUPTED.
        """
        try:
            return self._askers.do(ask, _PATIENCE_S) if self._health.usable else otherwise
        except Failure as failure:
            if failure.cause is not Cause.TIMED_OUT:
                raise
            self._health.failed(failure)
            return otherwise

    def came(self, size: int) -> None:
        """A file came from the tier, and was what it should be."""
        self._count("files taken", "bytes taken", size)

    def tampered(self, record: FileRecord) -> None:
        """An object was not what its name says: it is reported, and removed."""
        self._count("damaged")
        self._diagnostics.odd(
            f"{record.uri!r}: the shared cache {self._tier.name} had other bytes than the server lists under "
            f"its digest; they were not served"
        )
        key = self._digests.key(record)
        log.warning("%s in the shared cache %s is damaged", key, self._tier.name)
        self._health.ask(lambda: self._tier.remove(key), None)

    def publish(self, record: FileRecord, lease: Lease | None = None) -> None:
        """Put a file there that is whole, checked, and in the cache; soon, in a worker."""
        if not self.takes(record):
            return
        with self._lock:
            self._puts += 1
        if lease is not None:
            lease.puts(1)
        self._soon(lambda: self._put(self._digests.key(record), lease))

    def report(self) -> dict[str, int | str]:
        """For `status`."""
        with self._lock:
            return {"place": self._tier.name, "problem": self._health.problem, **self._counts}

    def close(self) -> None:
        """Put what is still to be put, take back all leases."""
        with self._lock:
            self._lock.wait_for(lambda: not self._puts, _LAST_PUTS_S)
        self._askers.close()
        self._putters.close()
        self._leases.close()

    def _claim(
        self, record: FileRecord, wanted: Callable[[], bool], progress: Callable[[], None]
    ) -> SharedClaim:
        key, zip_name = self._digests.key(record), self._zip_name(record)
        begun = since = time.monotonic()
        seen, changes, dead, pause = "", 0, False, _FIRST_LOOK_S
        while True:
            if (found := self._tier.open(key, fresh=changes > 0)) is not None:
                return SharedClaim(self, record, found)
            name, state = zip_name, self._leases.others(zip_name)
            if not state:
                if record.size <= _TINY_BYTES:
                    return SharedClaim(self, record)
                name = _file_name(key)
                if (lease := self._leases.take(name)) is not None:
                    # Whoever had it before may have put the object there since it was looked for.
                    if (found := self._tier.open(key, fresh=True)) is None:
                        return SharedClaim(self, record, lease=lease)
                    lease.close()
                    return SharedClaim(self, record, found)
                state = self._tier.lease(name)
            now = time.monotonic()
            if not changes:
                self._count("waited for")
            if state != seen:
                seen, since, changes = state, now, changes + 1
                progress()
                dead = self._leases.is_dead(name)
            if dead or now - since > _DEAD_S:
                self._leases.bury(name, state)
                continue
            unsure = record.size > WHOLE_BYTES and changes < 2 and now - begun > _FIRST_SIGN_S
            if unsure or now - begun > _WAIT_S + record.size / _WAIT_BYTES_S:
                return SharedClaim(self, record)
            if not wanted():
                raise Failure(Cause.INTERRUPTED, record.uri, "nobody waits for it any more")
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(_LONGEST_LOOK_S, 1.5 * pause)

    def _put(self, key: str, lease: Lease | None) -> None:
        try:
            entry = self._cache.open(key)
            if entry is None or entry.verified != "md5":
                return
            try:
                self._health.ask(lambda: self._put_new(key, entry.fd, entry.size), None)
            finally:
                entry.close()
        finally:
            with self._lock:
                self._puts -= 1
                self._lock.notify_all()
            if lease is not None:
                lease.puts(-1)

    def _put_new(self, key: str, fd: int, size: int) -> None:
        if not self._tier.has(key):
            self._tier.put(key, fd, size)
            self._count("files given", "bytes given", size)

    def _soon(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(Failure):  # the mount is ending: `close` looks after what is left
            self._putters.submit(work)

    def _count(self, name: str, of: str = "", size: int = 0) -> None:
        with self._lock:
            self._counts[name] += 1
            if of:
                self._counts[of] += size

    def _zip_name(self, record: FileRecord) -> str:
        text = f"{self._server}\0{record.resource_id}".encode("utf-8", "surrogatepass")
        return f"zip-{hashlib.sha256(text).hexdigest()[:32]}"


def _file_name(key: str) -> str:
    return f"file-{key}"
