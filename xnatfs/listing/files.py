"""File listings: one request a session (several sessions a request, where the server takes that), held, kept
on disk, compared.

Used by `listing.service`. A listing holds while the stamp it came with stays (`stamps`); one from an earlier
mount is shown at once and asked for again a moment later if it is old. What it lacks of the one before has to
be proven gone (`proof`). Threading: any thread; one lock guards the maps, never held over I/O."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from cachetools import LRUCache, TTLCache

from xnatfs.concurrency.debounce import Debouncer
from xnatfs.concurrency.single_flight import SharedCall, SingleFlight
from xnatfs.config import Limits
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.listing.codec import StoredListings
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.proof import Absences, Counts
from xnatfs.listing.snapshot import FileIndex
from xnatfs.listing.stale_policy import StalePolicy
from xnatfs.server.records import FileRecord
from xnatfs.server.resources import FileListing, Resources

log = logging.getLogger(__name__)

_TOGETHER = "files of several sessions"
_AT_ONCE = 8  # sessions of one request ...
_JUST_NOW = 10.0  # seconds for which a listing is not doubted because a file is not what it says
_ROWS = (
    4000  # ... and the files it may list: a longer answer comes later than several short ones side by side
)
_AGAIN_S = 5.0  # what could not be listed again, and is shown as it was, is not asked for again before

Load = Callable[[], FileListing]


class FileListings:
    """The file listings of one server, for one user.

    Args:
        resources: where they come from.
        flights: fetches them.
        limits: how many records are held in memory, and for how long a listing holds.
        troubles: what is odd is reported there.
        stored: what earlier mounts listed.
        history: what changed since is noted there.
        later: renews what was shown from the store.
        patience: when not to wait on.
    """

    def __init__(
        self,
        resources: Resources,
        calls: SingleFlight,
        limits: Limits,
        diagnostics: Diagnostics,
        stored: StoredListings,
        history: MtimeHistory,
        later: Debouncer,
        patience: StalePolicy,
    ) -> None:
        self._resources = resources
        self._single_flight = calls
        self._limits = limits
        self._diagnostics = diagnostics
        self._stored = stored
        self._history = history
        self._later = later
        self._patience = patience
        self._lock = threading.Lock()
        self._held: LRUCache[Hashable, tuple[str, float, FileIndex]] = LRUCache(
            limits.file_records, getsizeof=lambda held: held[2].count
        )
        self._absences = Absences(diagnostics)
        self._stale: TTLCache[Hashable, FileIndex] = TTLCache(1024, ttl=_AGAIN_S)  # shown as they were
        self._distrusted: TTLCache[Hashable, bool] = TTLCache(4096, ttl=600.0)
        self._together: dict[str, SharedCall[None]] = {}  # sessions that are on their way with others
        self._proven = False  # that the answer for several sessions is the same as for each
        self._rows = 0.0  # of a session, on average
        self._epoch = 0  # rises with every refresh: what was asked for before it is not held after it
        self._refreshed = 0.0  # epoch seconds; what was stored before is not shown unasked
        self.changed = -1e9  # time.monotonic() of the last listing that may differ from what was shown before

    # --- reading --------------------------------------------------------------------------------------------

    def of_session(self, session: str, stamp: str) -> FileIndex:
        """The files of a session and all below it."""
        with self._lock:
            coming = self._together.get(session)
        if coming is not None and not self._ready(("session", session), stamp):
            try:
                coming.wait(self._limits.listing_deadline, self._patience(held=False))
            except Failure as failure:
                if failure.cause is Cause.INTERRUPTED:
                    raise
        return self.of(("session", session), stamp, *self._of_session(session))

    def of(
        self, key: Hashable, stamp: str, load: Load, counts: Counts, oldest: float | None = None
    ) -> FileIndex:
        """The files under `key`, asked for with `load` unless they are held.

        Args: counts: asks for the files each of the resources counts. oldest: the age in seconds from which a
            listing is asked for again, in place of `Limits.relist_after`.

        Raises:
            Failure: what keeps the server from answering, if nothing was ever listed.
        """
        held = self._ready(key, stamp, oldest)
        if held is not None:
            return held
        with self._lock:
            stale = self._stale.get(key)
        if stale is not None:
            return stale
        try:
            work = partial(self._load, key, stamp, load, counts, oldest)
            give_up = self._patience(held=self._any(key) is not None)
            return self._single_flight.get(
                (self._epoch, "files", key, stamp), work, self._limits.listing_deadline, give_up
            )
        except Failure as failure:
            stale = self._any(key) if failure.cause in UNANSWERED else None
            if stale is None:
                raise
            log.warning(
                "the files of %s could not be listed again; showing the previous listing: %s", key, failure
            )
            self._diagnostics.failed(failure)
            stale = replace(stale, stale=True)
            with self._lock:
                self._stale[key] = stale
            return stale

    def distrust(self, key: Hashable) -> None:
        """The listing under `key` was found to lack what it should have: it is asked for again at the next
        look, but not at every one.
        """
        with self._lock:
            if key in self._distrusted:
                return
            self._distrusted[key] = True
            self._held.pop(key, None)
        self._stored.drop_files(key)

    def held(self, session: str, stamp: str | None = None) -> FileIndex | None:
        """What is in memory of a session's files, however old; with a stamp, only what came with that."""
        with self._lock:
            found = self._held.get(("session", session))
        return found[2] if found is not None and (stamp is None or stamp == found[0] != "") else None

    def outdated(self, key: Hashable, load: Load, counts: Counts, record: FileRecord) -> bool:
        """Whether the server lists a file otherwise by now than in `record`, or no more. Asked at once,
        whatever the listing's stamp says:
        a file may be overwritten without one (xnat-rest.md 13); but not of a listing that was made just now.
        False where the server does not say."""
        with self._lock:
            held = self._held.get(key)
        if held is None:
            return False
        stamp, made, snapshot = held
        if time.monotonic() - made > _JUST_NOW:
            epoch = self._epoch
            work = partial(self._again, key, stamp, load, counts, epoch)
            try:
                snapshot = self._single_flight.get(
                    (epoch, "files again", key), work, self._limits.listing_deadline
                )
            except Failure as failure:
                if failure.cause not in UNANSWERED:
                    raise
                return False
        return all((one.size, one.digest) != (record.size, record.digest) for one in snapshot.named(record))

    def session_outdated(self, session: str, record: FileRecord) -> bool:
        """The same for a file of a session."""
        return self.outdated(("session", session), *self._of_session(session), record)

    def _again(self, key: Hashable, stamp: str, load: Load, counts: Counts, epoch: int) -> FileIndex:
        return self._hold(key, stamp, load, counts, epoch)

    def ahead(self, sessions: Iterable[tuple[str, str]]) -> None:
        """Begin to list sessions (accession id, stamp) that will be asked for soon, as few requests as the
        server allows.
        """
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
        # Only full groups, unless nothing is on its way: a walk takes up one session after the other, and
        # each moves the window by one.
        with self._lock:
            idle = not self._together
        for start in range(0, len(wanted) if idle else len(wanted) - len(wanted) % size, size):
            self._begin_together(wanted[start : start + size])

    def begin(
        self, key: Hashable, stamp: str, load: Load, counts: Counts, oldest: float | None = None
    ) -> None:
        """Begin to list what will be asked for with `of` soon."""
        if not self._ready(key, stamp, oldest):
            self._single_flight.start(
                (self._epoch, "files", key, stamp),
                partial(self._load, key, stamp, load, counts, oldest),
                urgent=False,
            )

    def refresh(self) -> None:
        """Forget what is held: the next look asks the server."""
        with self._lock:
            self._epoch += 1
            self._refreshed = time.time()
            self.changed = time.monotonic()
            self._held.clear()
            self._stale.clear()

    def counts(self) -> tuple[int, int]:
        """(listings, records) held."""
        with self._lock:
            return len(self._held), int(self._held.currsize)

    # --- several sessions -----------------------------------------------------------------------------------

    def _group(self) -> int:
        if not self._resources.capabilities.may(_TOGETHER) or not self._rows:
            return 1
        return max(1, min(_AT_ONCE, int(_ROWS / max(1.0, self._rows))))

    def _begin(self, session: str, stamp: str) -> None:
        work = partial(self._load, ("session", session), stamp, *self._of_session(session))
        self._single_flight.start((self._epoch, "files", ("session", session), stamp), work, urgent=False)

    def _begin_together(self, wanted: Sequence[tuple[str, str]]) -> None:
        if len(wanted) == 1:
            self._begin(*wanted[0])
            return
        witness = None if self._proven else self._witness()
        if not self._proven and witness is None:
            for session, stamp in wanted:
                self._begin(session, stamp)
            return
        call = self._single_flight.start(
            (self._epoch, "files together", tuple(wanted)),
            lambda: self._load_together(wanted, witness),
            urgent=False,
        )
        with self._lock:
            for session, _ in wanted:
                self._together[session] = call

    def _witness(self) -> str | None:
        """A session whose listing is held and not empty: with it the form for several is tried once."""
        with self._lock:
            for key, (_, _, snapshot) in self._held.items():
                if isinstance(key, tuple) and key[0] == "session" and snapshot.by_resource:
                    return str(key[1])
        return None

    def _load_together(self, wanted: Sequence[tuple[str, str]], witness: str | None) -> None:
        epoch = self._epoch
        names = [session for session, _ in wanted]
        try:
            told = self._resources.files_of_sessions(names if witness is None else [witness, *names])
            if witness is not None and told is not None:
                proof = self.held(witness)
                if proof is not None and FileIndex.of(told[witness].files).by_resource != proof.by_resource:
                    told = None
            if told is None:
                self._resources.capabilities.refuse(_TOGETHER)
                return
            for session, stamp in wanted:
                # A session without rows is asked for by itself: a server might only look at the first one
                # named.
                if told[session].files:
                    self._proven = True
                    load, counts = self._of_session(session)
                    self._hold(("session", session), stamp, _first(told[session], load), counts, epoch)
        except Failure as failure:
            # One of them may be what breaks the whole (a catalog that cannot be read: xnat-rest.md 12): each
            # is asked for by itself when it is looked at. Where the form has never worked, one that is
            # answered singly tells that it is the form.
            log.info("the files of several sessions could not be listed in one request: %s", failure)
            if not self._proven and failure.status and self._answered(*wanted[0]):
                self._resources.capabilities.refuse(_TOGETHER)
        finally:
            with self._lock:
                for session in names:
                    self._together.pop(session, None)

    def _answered(self, session: str, stamp: str) -> bool:
        try:
            self._load(("session", session), stamp, *self._of_session(session))
        except Failure:
            return False
        return True

    def _of_session(self, session: str) -> tuple[Load, Counts]:
        """How the files of a session are asked for, and how many its resources count."""

        def counts() -> dict[int, int | None]:
            return {
                one.id: one.file_count for one in self._resources.of_session(session) if one.id is not None
            }

        return partial(self._resources.files_of_session, session), counts

    # --- holding --------------------------------------------------------------------------------------------

    def _ready(self, key: Hashable, stamp: str, oldest: float | None = None) -> FileIndex | None:
        with self._lock:
            held = self._held.get(key)
        longest = max(self._limits.relist_after, self._limits.ttl) if oldest is None else oldest
        if held is not None:
            age = time.monotonic() - held[1]
            # Without a stamp age is all there is.
            return held[2] if held[0] == stamp and age < (longest if stamp else self._limits.ttl) else None
        kept = self._stored.files(key) if stamp else None
        if kept is None or kept.stamp != stamp or time.time() - kept.age < self._refreshed:
            return None
        old = kept.age >= longest
        if old and (oldest is not None or not (isinstance(key, tuple) and key[0] == "session")):
            return None
        with self._lock:
            if kept.value.count <= self._held.maxsize:
                self._held[key] = (stamp, time.monotonic() - (0.0 if old else kept.age), kept.value)
        self._note_rows(kept.value.count)
        if old:
            # of a session, see above
            self._later.add(key, partial(self._renew, str(key[1]), stamp))  # type: ignore[index]
        return kept.value

    def _renew(self, session: str, stamp: str) -> None:
        key = ("session", session)
        work = partial(self._hold, key, stamp, *self._of_session(session), self._epoch)
        self._single_flight.start((self._epoch, "files", key, stamp), work, urgent=False)

    def _any(self, key: Hashable) -> FileIndex | None:
        with self._lock:
            held = self._held.get(key)
        if held is not None:
            return held[2]
        kept = self._stored.files(key)
        return kept.value if kept is not None else None

    def _load(
        self, key: Hashable, stamp: str, load: Load, counts: Counts, oldest: float | None = None
    ) -> FileIndex:
        held = self._ready(key, stamp, oldest)
        if held is not None:
            return held  # came between the look for it and this
        return self._hold(key, stamp, load, counts, self._epoch)

    def _hold(self, key: Hashable, stamp: str, load: Load, counts: Counts, epoch: int) -> FileIndex:
        def listed() -> FileIndex:
            listing = load()
            return FileIndex.of(listing.files, listing.odd)

        snapshot = listed()
        for odd in snapshot.odd:
            self._diagnostics.odd(odd)
        with self._lock:
            held = self._held.get(key)
        before: FileIndex | None = None
        old_stamp = ""
        if held is not None:
            before, old_stamp = held[2], held[0]
        elif (kept := self._stored.files(key)) is not None:
            before, old_stamp = kept.value, kept.stamp
        if before is not None:
            self._absences.prove(key, before, snapshot, moved=old_stamp != stamp, counts=counts, again=listed)
        self._note_rows(snapshot.count)
        with self._lock:
            if before is not None and before.by_resource != snapshot.by_resource:
                self.changed = time.monotonic()
            if epoch == self._epoch and snapshot.count <= self._held.maxsize:
                if before is not None and before.by_resource == snapshot.by_resource:
                    snapshot = before  # with what the tree derived from it
                self._held[key] = (stamp, time.monotonic(), snapshot)
        if before is not None and before is not snapshot:
            count = self._history.compare(before, snapshot, old_stamp, stamp)
            if count:
                log.info("%d files of %s changed on the server", count, key)
        self._stored.put_files(key, stamp, snapshot)
        return snapshot

    def _note_rows(self, count: int) -> None:
        self._rows = count if not self._rows else 0.8 * self._rows + 0.2 * count


def _first(listing: FileListing, load: Load) -> Load:
    """Gives this listing, and asks when it is asked again."""
    ready = [listing]
    return lambda: ready.pop() if ready else load()
