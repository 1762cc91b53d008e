"""File listings: one request a session (several sessions a request, where the server takes that), held, kept on disk, compared.

Used by `catalogs`. A listing holds while the `last_modified` it came with stays; one from an earlier mount is shown at once and asked
for again a moment later if it is old.
Threading: any thread; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

from cachetools import LRUCache

from xnatfs.config import Limits
from xnatfs.errors import Cause, Failure
from xnatfs.fetch.flights import Flight, Flights
from xnatfs.fetch.history import History
from xnatfs.fetch.holdings import FileHoldings
from xnatfs.fetch.later import Later
from xnatfs.fetch.patience import Patience
from xnatfs.fetch.stored import StoredListings
from xnatfs.fetch.troubles import Troubles
from xnatfs.server.records import FileRecord
from xnatfs.server.resources import FileListing, Resources

log = logging.getLogger(__name__)

# Uploads that change no count may not move last_modified (fact sheet 5): a listing is asked for again after this all the same.
LONGEST = 600.0
_TOGETHER = "files of several sessions"
_AT_ONCE = 8  # sessions of one request ...
_JUST_NOW = 10.0  # seconds for which a listing is not doubted because a file is not what it says
_ROWS = 4000  # ... and the files it may list: a longer answer comes later than several short ones side by side
AWAY = frozenset(
    {
        *(Cause.OFFLINE, Cause.UNREACHABLE, Cause.UNKNOWN_HOST, Cause.BAD_CERTIFICATE, Cause.TIMED_OUT),
        *(Cause.CUT_SHORT, Cause.SERVER_ERROR),
    }
)

Load = Callable[[], FileListing]


class FileLists:
    """The file listings of one server, for one user.

    Args:
        resources: where they come from.
        flights: fetches them.
        limits: how many records are held in memory, and for how long a listing without a stamp holds.
        troubles: what is odd is reported there.
        stored: what earlier mounts listed.
        history: what changed since is noted there.
        later: renews what was shown from the store.
        patience: when not to wait on.
    """

    def __init__(
        self,
        resources: Resources,
        flights: Flights,
        limits: Limits,
        troubles: Troubles,
        stored: StoredListings,
        history: History,
        later: Later,
        patience: Patience,
    ) -> None:
        self._resources = resources
        self._flights = flights
        self._limits = limits
        self._troubles = troubles
        self._stored = stored
        self._history = history
        self._later = later
        self._patience = patience
        self._lock = threading.Lock()
        self._held: LRUCache[Hashable, tuple[str, float, FileHoldings]] = LRUCache(
            limits.file_records, getsizeof=lambda held: held[2].count
        )
        self._together: dict[str, Flight[None]] = {}  # sessions that are on their way with others
        self._proven = False  # that the answer for several sessions is the same as for each
        self._rows = 0.0  # of a session, on average
        self._epoch = 0  # rises with every refresh: what was asked for before it is not held after it
        self._refreshed = 0.0  # epoch seconds; what was stored before is not shown unasked
        self.changed = -1e9  # time.monotonic() of the last listing that may differ from what was shown before

    # --- reading -------------------------------------------------------------------------------------------------

    def of_session(self, session: str, stamp: str) -> FileHoldings:
        """The files of a session and all below it."""
        with self._lock:
            coming = self._together.get(session)
        if coming is not None and not self._ready(("session", session), stamp):
            try:
                coming.wait(self._limits.listing_deadline, self._patience(held=False))
            except Failure as failure:
                if failure.cause is Cause.INTERRUPTED:
                    raise
        return self.of(("session", session), stamp, partial(self._resources.files_of_session, session))

    def of(self, key: Hashable, stamp: str, load: Load) -> FileHoldings:
        """The files under `key`, asked for with `load` unless they are held.

        Raises:
            Failure: what keeps the server from answering, if nothing was ever listed.
        """
        held = self._ready(key, stamp)
        if held is not None:
            return held
        try:
            work = partial(self._load, key, stamp, load)
            give_up = self._patience(held=self._any(key) is not None)
            return self._flights.get((self._epoch, "files", key), work, self._limits.listing_deadline, give_up)
        except Failure as failure:
            stale = self._any(key) if failure.cause in AWAY else None
            if stale is None:
                raise
            log.warning("the files of %s could not be listed again and are shown as they were: %s", key, failure)
            self._troubles.failed(failure)
            return stale

    def held(self, session: str, stamp: str | None = None) -> FileHoldings | None:
        """What is in memory of a session's files, however old; with a stamp, only what came with that."""
        with self._lock:
            found = self._held.get(("session", session))
        return found[2] if found is not None and (stamp is None or stamp == found[0] != "") else None

    def outdated(self, key: Hashable, load: Load, record: FileRecord) -> bool:
        """Whether the server lists a file otherwise by now than in `record`, or no more. Asked at once, whatever the listing's stamp says:
        a file may be overwritten without one (fact sheet 5); but not of a listing that was made just now."""
        with self._lock:
            held = self._held.get(key)
        if held is None:
            return False
        stamp, made, holdings = held
        if time.monotonic() - made > _JUST_NOW:
            epoch = self._epoch
            work = partial(self._again, key, stamp, load, epoch)
            holdings = self._flights.get((epoch, "files again", key), work, self._limits.listing_deadline)
        return all((one.size, one.digest) != (record.size, record.digest) for one in holdings.named(record))

    def _again(self, key: Hashable, stamp: str, load: Load, epoch: int) -> FileHoldings:
        return self._hold(key, stamp, load(), epoch)

    def ahead(self, sessions: Iterable[tuple[str, str]]) -> None:
        """Begin to list sessions (accession id, stamp) that will be asked for soon, as few requests as the server allows."""
        wanted = []
        for session, stamp in sessions:
            with self._lock:
                coming = session in self._together
            if not coming and not self._ready(("session", session), stamp):
                wanted.append((session, stamp))
        size = self._group()
        if size == 1:
            for session, stamp in wanted:
                self._begin(session, stamp)
            return
        # Only full groups, unless nothing is on its way: a walk takes up one session after the other, and each moves the window by one.
        with self._lock:
            idle = not self._together
        for start in range(0, len(wanted) if idle else len(wanted) - len(wanted) % size, size):
            self._begin_together(wanted[start : start + size])

    def begin(self, key: Hashable, stamp: str, load: Load) -> None:
        """Begin to list what will be asked for with `of` soon."""
        if not self._ready(key, stamp):
            self._flights.start((self._epoch, "files", key), partial(self._load, key, stamp, load), urgent=False)

    def refresh(self) -> None:
        """Forget what is held: the next look asks the server."""
        with self._lock:
            self._epoch += 1
            self._refreshed = time.time()
            self.changed = time.monotonic()
            self._held.clear()

    def counts(self) -> tuple[int, int]:
        """(listings, records) held."""
        with self._lock:
            return len(self._held), int(self._held.currsize)

    # --- several sessions ----------------------------------------------------------------------------------------

    def _group(self) -> int:
        if not self._resources.capabilities.may(_TOGETHER) or not self._rows:
            return 1
        return max(1, min(_AT_ONCE, int(_ROWS / max(1.0, self._rows))))

    def _begin(self, session: str, stamp: str) -> None:
        work = partial(self._load, ("session", session), stamp, partial(self._resources.files_of_session, session))
        self._flights.start((self._epoch, "files", ("session", session)), work, urgent=False)

    def _begin_together(self, wanted: Sequence[tuple[str, str]]) -> None:
        if len(wanted) == 1:
            self._begin(*wanted[0])
            return
        witness = None if self._proven else self._witness()
        if not self._proven and witness is None:
            for session, stamp in wanted:
                self._begin(session, stamp)
            return
        flight = self._flights.start(
            (self._epoch, "files together", tuple(wanted)), lambda: self._load_together(wanted, witness), urgent=False
        )
        with self._lock:
            for session, _ in wanted:
                self._together[session] = flight

    def _witness(self) -> str | None:
        """A session whose listing is held and not empty: with it the form for several is tried once."""
        with self._lock:
            for key, (_, _, holdings) in self._held.items():
                if isinstance(key, tuple) and key[0] == "session" and holdings.by_resource:
                    return str(key[1])
        return None

    def _load_together(self, wanted: Sequence[tuple[str, str]], witness: str | None) -> None:
        epoch = self._epoch
        names = [session for session, _ in wanted]
        try:
            told = self._resources.files_of_sessions(names if witness is None else [witness, *names])
            if witness is not None and told is not None:
                proof = self.held(witness)
                if proof is not None and FileHoldings.of(told[witness].files).by_resource != proof.by_resource:
                    told = None
            if told is None:
                self._resources.capabilities.refuse(_TOGETHER)
                return
            for session, stamp in wanted:
                # A session without rows is asked for by itself: a server might only look at the first one named.
                if told[session].files:
                    self._proven = True
                    self._hold(("session", session), stamp, told[session], epoch)
        except Failure as failure:
            # One of them may be what breaks the whole: each is asked for by itself when it is looked at.
            log.info("the files of several sessions could not be listed at once: %s", failure)
            if failure.cause not in AWAY and not (self._proven and failure.cause is Cause.NO_ENTRY):
                self._resources.capabilities.refuse(_TOGETHER)
        finally:
            with self._lock:
                for session in names:
                    self._together.pop(session, None)

    # --- holding -------------------------------------------------------------------------------------------------

    def _ready(self, key: Hashable, stamp: str) -> FileHoldings | None:
        with self._lock:
            held = self._held.get(key)
        if held is not None:
            age = time.monotonic() - held[1]
            # Without a stamp age is all there is.
            return held[2] if held[0] == stamp and age < (max(LONGEST, self._limits.ttl) if stamp else self._limits.ttl) else None
        kept = self._stored.files(key) if stamp else None
        if kept is None or kept.stamp != stamp or time.time() - kept.age < self._refreshed:
            return None
        with self._lock:
            if kept.value.count <= self._held.maxsize:
                self._held[key] = (stamp, time.monotonic(), kept.value)
        self._note_rows(kept.value.count)
        if kept.age > LONGEST and isinstance(key, tuple) and key[0] == "session":
            session = str(key[1])
            self._later.add(key, partial(self._renew, session, stamp))
        return kept.value

    def _renew(self, session: str, stamp: str) -> None:
        load = partial(self._resources.files_of_session, session)
        self._flights.start(
            (self._epoch, "files", ("session", session)),
            lambda: self._hold(("session", session), stamp, load(), self._epoch),
            urgent=False,
        )

    def _any(self, key: Hashable) -> FileHoldings | None:
        with self._lock:
            held = self._held.get(key)
        if held is not None:
            return held[2]
        kept = self._stored.files(key)
        return kept.value if kept is not None else None

    def _load(self, key: Hashable, stamp: str, load: Load) -> FileHoldings:
        held = self._ready(key, stamp)
        if held is not None:
            return held  # came between the look for it and this
        epoch = self._epoch
        return self._hold(key, stamp, load(), epoch)

    def _hold(self, key: Hashable, stamp: str, listing: FileListing, epoch: int) -> FileHoldings:
        holdings = FileHoldings.of(listing.files, listing.odd)
        for odd in listing.odd:
            self._troubles.odd(odd)
        with self._lock:
            held = self._held.get(key)
        before: FileHoldings | None = None
        old_stamp = ""
        if held is not None:
            before, old_stamp = held[2], held[0]
        elif (kept := self._stored.files(key)) is not None:
            before, old_stamp = kept.value, kept.stamp
        self._note_rows(holdings.count)
        with self._lock:
            if before is not None and before.by_resource != holdings.by_resource:
                self.changed = time.monotonic()
            if epoch == self._epoch and holdings.count <= self._held.maxsize:
                if before is not None and before.by_resource == holdings.by_resource:
                    holdings = before  # with what the tree derived from it
                self._held[key] = (stamp, time.monotonic(), holdings)
        if before is not None and before is not holdings:
            count = self._history.compare(before, holdings, old_stamp, stamp)
            if count:
                log.info("%d files of %s changed on the server", count, key)
        self._stored.put_files(key, stamp, holdings)
        return holdings

    def _note_rows(self, count: int) -> None:
        self._rows = count if not self._rows else 0.8 * self._rows + 0.2 * count
