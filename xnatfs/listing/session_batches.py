"""The files of several sessions in one request, where the server takes that.

Used by `listing.files`, for sessions that will be asked for soon. The form is tried once with a session whose
listing is held, and believed if it gives the same.
Threading: any thread; one lock guards the map, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from xnatfs.concurrency.single_flight import SharedCall
from xnatfs.errors import Cause, Failure
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.file_indexes import FileIndexes, FileRequest, Load
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.resources import FileListing

log = logging.getLogger(__name__)

_FORM = "files of several sessions"
_SESSIONS = 8  # of one request ...
# ... and the files it may list: a longer answer comes later than several short ones side by side
_FILES = 4000


class SessionBatches:
    """Lists the files of sessions ahead, as few requests as the server allows.

    Args:
        request: how the files of one session (accession id, stamp) are asked for.
        session_of: the session of an assessor, by their accession ids; "" if it is not known.
    """

    def __init__(
        self,
        environment: ListingEnvironment,
        indexes: FileIndexes,
        request: Callable[[str, str], FileRequest],
        session_of: Callable[[str], str],
    ) -> None:
        self._environment = environment
        self._indexes = indexes
        self._request = request
        self._session_of = session_of
        self._lock = threading.Lock()
        self._coming: dict[str, SharedCall[None]] = {}  # sessions that are on their way with others
        self._proven = False  # that the answer for several sessions is the same as for each

    def prefetch(self, sessions: Iterable[tuple[str, str]]) -> None:
        """Begin to list sessions (accession id, stamp) that will be asked for soon."""
        wanted = []
        for session, stamp in sessions:
            with self._lock:
                coming = session in self._coming
            if not coming and self._indexes.ready(self._request(session, stamp)) is None:
                wanted.append((session, stamp))
        size = self._group()
        if size == 1:
            for session, stamp in wanted:
                self._begin(session, stamp)
            return
        # Only full groups, unless nothing is on its way: a walk takes up one session after the other, and
        # each moves the window by one.
        with self._lock:
            idle = not self._coming
        for start in range(0, len(wanted) if idle else len(wanted) - len(wanted) % size, size):
            self._begin_together(wanted[start : start + size])

    def wait_for(self, session: str, stamp: str) -> None:
        """Wait for a session that is on its way with others; whether it came, whoever asks for it sees.

        Raises:
            Failure: INTERRUPTED.
        """
        with self._lock:
            coming = self._coming.get(session)
        if coming is None or self._indexes.ready(self._request(session, stamp)) is not None:
            return
        try:
            environment = self._environment
            coming.wait(environment.limits.listing_deadline, environment.policy(held=False))
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED:
                raise

    def _group(self) -> int:
        """How many sessions to ask for at once."""
        rows = self._indexes.rows
        if not self._environment.resources.capabilities.may(_FORM) or not rows:
            return 1
        return max(1, min(_SESSIONS, int(_FILES / max(1.0, rows))))

    def _begin(self, session: str, stamp: str) -> None:
        self._indexes.begin(self._request(session, stamp))

    def _begin_together(self, wanted: Sequence[tuple[str, str]]) -> None:
        witness = None if self._proven else self._witness()
        if len(wanted) == 1 or (not self._proven and witness is None):
            for session, stamp in wanted:
                self._begin(session, stamp)
            return
        epoch = self._indexes.values.epoch
        call = self._environment.calls.start(
            (epoch, "files together", tuple(wanted)),
            lambda: self._load_together(wanted, witness),
            urgent=False,
        )
        with self._lock:
            for session, _ in wanted:
                self._coming[session] = call

    def _witness(self) -> str | None:
        """A session whose listing is held and not empty: with it the form for several is tried once."""
        found = self._indexes.values.first(
            lambda key, index: isinstance(key, tuple) and key[0] == "session" and bool(index.by_resource)
        )
        return str(found[0][1]) if found is not None and isinstance(found[0], tuple) else None

    def _load_together(self, wanted: Sequence[tuple[str, str]], witness: str | None) -> None:
        epoch = self._indexes.values.epoch
        resources = self._environment.resources
        names = [session for session, _ in wanted]
        try:
            asked = names if witness is None else [witness, *names]
            told = resources.files_of_sessions(asked, self._session_of)
            if witness is not None and told is not None:
                proof = self._indexes.held(("session", witness))
                if proof is not None and FileIndex.of(told[witness].files).by_resource != proof.by_resource:
                    told = None
            if told is None:
                resources.capabilities.refuse(_FORM)
                return
            for session, stamp in wanted:
                # A session without rows is asked for by itself: a server might only look at the first one
                # named.
                if told[session].files:
                    self._proven = True
                    request = self._request(session, stamp)
                    load = _first(told[session], request.load)
                    self._indexes.hold(FileRequest(request.key, stamp, load, request.counts), epoch)
        except Failure as failure:
            # One of them may be what breaks the whole (a catalog that cannot be read: xnat-rest.md 12): each
            # is asked for by itself when it is looked at. Where the form has never worked, one that is
            # answered singly tells that it is the form.
            log.info("the files of several sessions could not be listed in one request: %s", failure)
            if not self._proven and failure.status and self._answered(*wanted[0]):
                resources.capabilities.refuse(_FORM)
        finally:
            with self._lock:
                for session in names:
                    self._coming.pop(session, None)

    def _answered(self, session: str, stamp: str) -> bool:
        try:
            self._indexes.load(self._request(session, stamp))
        except Failure:
            return False
        return True


def _first(listing: FileListing, load: Load) -> Load:
    """Gives this listing, and asks when it is asked again."""
    ready = [listing]
    return lambda: ready.pop() if ready else load()
