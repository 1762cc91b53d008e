"""Values that age: held, asked for again once they are old, and shown as they were while that cannot be done.

Used by everything in `listing` that keeps what a server said. A `Refreshable` says when a value is due, lets
one request serve all who wait for it, forgets what was asked for before a refresh, and falls back on the copy
an earlier mount stored. What a value is, how it is asked for, and what its stamp means, its owner knows.
Threading: any thread; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache, TTLCache

from xnatfs.concurrency.clock import Clock
from xnatfs.concurrency.recent_failures import RecentFailures
from xnatfs.concurrency.single_flight import SharedCall, SingleFlight
from xnatfs.errors import UNANSWERED, Cause, Failure

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Patience(Protocol):
    """How long to wait for a value: what `SharedCall.wait` takes as `give_up`."""

    def __call__(self, *, held: bool) -> Callable[[], Failure | None]:
        """`held`: whether there is something older to show."""
        ...


@dataclass(frozen=True)
class Kept(Generic[V]):
    """Something an earlier mount stored: the stamp it came with and its age in seconds."""

    value: V
    stamp: str
    age: float


@dataclass(frozen=True)
class Held(Generic[V]):
    """A value in memory. `at`: when it last agreed with the server, as the `Clock` says; None: it is due."""

    value: V
    at: float | None
    stamp: str = ""


class _Trouble(Generic[K, V]):
    """What could not be asked for again lately: the failures, and what is shown in place of an answer."""

    def __init__(self, on_stale: Callable[[V, Failure], V], clock: Clock, again_after: float) -> None:
        self.on_stale = on_stale
        self.failures: RecentFailures[tuple[K, str]] = RecentFailures(clock)
        self.stale: TTLCache[K, Held[V]] = TTLCache(4096, ttl=again_after, timer=clock.now)


class Refreshable(Generic[K, V]):
    """Values of one kind by key.

    Args:
        kind: what they are, for messages: "{kind} {key} could not be listed again".
        calls: fetches them, one flight a key.
        clock: they age by.
        deadline: seconds to wait for one.
        patience: when not to wait on.
        on_stale: told why one is shown as it was; gives what to show.
        stored: the copy of an earlier mount, whatever its stamp.
        again_after: seconds in which one that is shown as it was is not asked for again.
        capacity, sizeof: how much is held in memory, the least recently used goes first; None: all.

    Attributes:
        epoch: rises with every refresh: what was asked for before it is not held after it.
        refreshed: epoch seconds of the last refresh; what was stored before is not shown unasked.
        changed: when a value was last replaced by another one, as the clock says.
        version: rises whenever a value that was held is replaced by another one, or is not held any more
            because it is not good.
    """

    def __init__(
        self,
        kind: str,
        calls: SingleFlight,
        clock: Clock,
        *,
        deadline: float,
        patience: Patience,
        on_stale: Callable[[V, Failure], V],
        stored: Callable[[K], Kept[V] | None],
        again_after: float = 0.0,
        capacity: int | None = None,
        sizeof: Callable[[V], int] = lambda value: 1,
    ) -> None:
        self.epoch = 0
        self.version = 0
        self.refreshed: float | None = None
        self.changed: float | None = None
        self._kind = kind
        self._calls = calls
        self._clock = clock
        self._waits = deadline, patience
        self._stored = stored
        self._lock = threading.Lock()
        self._held: MutableMapping[K, Held[V]] = (
            {} if capacity is None else LRUCache(capacity, getsizeof=lambda held: sizeof(held.value))
        )
        self._trouble: _Trouble[K, V] = _Trouble(on_stale, clock, again_after)

    # --- looking, without a request -------------------------------------------------------------------------

    def held(self, key: K) -> Held[V] | None:
        """What is in memory, however old."""
        with self._lock:
            return self._held.get(key)

    def fresh(self, key: K, max_age: float, stamp: str = "") -> V | None:
        """What is in memory, came with this stamp, and is younger than `max_age` seconds."""
        held = self.held(key)
        if held is None or held.at is None or held.stamp != stamp:
            return None
        return held.value if self._clock.now() - held.at < max_age else None

    def shown(self, key: K) -> Held[V] | None:
        """What is shown as it was, since it could not be asked for again a moment ago."""
        with self._lock:
            return self._trouble.stale.get(key)

    def latest(self, key: K) -> Kept[V] | None:
        """The newest value anybody knows, from memory or stored, whatever its age and stamp."""
        held = self.held(key)
        return self._stored(key) if held is None else Kept(held.value, held.stamp, 0.0)

    def recall(self, key: K, stamp: str) -> Kept[V] | None:
        """The stored copy, if it came with this stamp (which says something) and was not stored before the
        last refresh.
        """
        kept = self._stored(key) if stamp else None
        if kept is None or kept.stamp != stamp:
            return None
        return None if self.refreshed is not None and time.time() - kept.age < self.refreshed else kept

    def first(self, wanted: Callable[[K, V], bool]) -> tuple[K, V] | None:
        """Any key and value that are `wanted`."""
        with self._lock:
            return next(
                ((key, held.value) for key, held in self._held.items() if wanted(key, held.value)), None
            )

    def counts(self) -> tuple[int, int]:
        """How many values are held, and their sizes together."""
        with self._lock:
            size = self._held.currsize if isinstance(self._held, LRUCache) else len(self._held)
            return len(self._held), int(size)

    def failing(self) -> list[Failure]:
        """Why values could not be had when they were last asked for; each until it is had again."""
        return self._trouble.failures.current()

    # --- asking ---------------------------------------------------------------------------------------------

    def get(
        self,
        key: K,
        work: Callable[[], V],
        *,
        stamp: str = "",
        older: bool | None = None,
        tolerated: Callable[[Failure], bool] = lambda failure: failure.cause in UNANSWERED,
    ) -> V:
        """What `work` gives, run by one thread for all who ask; it holds its result by `put`.

        If it fails the value is shown as it was: the one in memory if the failure is `tolerated`, the stored
        one if the server did not answer.

        Args:
            older: whether there is something older to show; None: if it is in memory.

        Raises:
            Failure: what keeps the server from answering, if nothing is known.
        """
        deadline, patience = self._waits
        give_up = patience(held=self.held(key) is not None if older is None else older)
        try:
            self._trouble.failures.check((key, stamp))
            noting = partial(self._trouble.failures.noting, (key, stamp), work)
            return self._calls.get((self.epoch, self._kind, key, stamp), noting, deadline, give_up)
        except Failure as failure:
            held = self.held(key)
            if failure.cause is Cause.INTERRUPTED or not (held is None or tolerated(failure)):
                raise
            if held is None:
                kept = self._stored(key) if failure.cause in UNANSWERED else None
                if kept is None:
                    raise
                held = Held(kept.value, None, kept.stamp)
                self._hold(key, held)
            log.warning(
                "%s %s could not be listed again and is shown as it was: %s", self._kind, key, failure
            )
            value = self._trouble.on_stale(held.value, failure)
            with self._lock:
                self.version += value is not held.value
                self._trouble.stale[key] = Held(value, self._clock.now(), held.stamp)
            return value

    def begin(self, key: K, work: Callable[[], V], *, stamp: str = "", urgent: bool = False) -> SharedCall[V]:
        """Begin what `get` will ask for."""
        noting = partial(self._trouble.failures.noting, (key, stamp), work)
        return self._calls.start((self.epoch, self._kind, key, stamp), noting, urgent=urgent)

    # --- holding --------------------------------------------------------------------------------------------

    def put(self, key: K, value: V, *, epoch: int | None = None, stamp: str = "", age: float = 0.0) -> bool:
        """Hold a value that agreed with the server `age` seconds ago; not if there was a refresh since
        `epoch`. Whether it is held.
        """
        return self._hold(key, Held(value, self._clock.now() - age, stamp), epoch)

    def note_change(self) -> None:
        """A value was replaced by another one."""
        self.changed = self._clock.now()
        self.version += 1

    def expire(self, key: K) -> None:
        """Ask again at the next look."""
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held[key] = Held(held.value, None, held.stamp)
            self._trouble.stale.pop(key, None)

    def drop(self, key: K) -> None:
        """Know nothing of a key any more."""
        with self._lock:
            self.version += self._held.pop(key, None) is not None
            self._trouble.stale.pop(key, None)

    def refresh(self, key: K | None = None) -> None:
        """Forget what is held, of one key or of all: the next look asks the server."""
        with self._lock:
            self.epoch += 1
            self.version += 1
            self.refreshed = time.time()
            self.changed = self._clock.now()
            self._trouble.stale.clear()
            self._trouble.failures.clear()
            if key is None:
                self._held.clear()
            else:
                self._held.pop(key, None)

    def _hold(self, key: K, held: Held[V], epoch: int | None = None) -> bool:
        with self._lock:
            if epoch is not None and epoch != self.epoch:
                return False
            before = self._held.get(key)
            self.version += before is not None and _differ(before.value, held.value)
            self._trouble.stale.pop(key, None)
            try:
                self._held[key] = held
            except ValueError:  # larger than all that may be held
                self._held.pop(key, None)
                return False
        return True


def _differ(before: object, after: object) -> bool:
    """Whether a value is another one; of plain collections, whether they hold others."""
    return before is not after and not (isinstance(after, (dict, list)) and before == after)
