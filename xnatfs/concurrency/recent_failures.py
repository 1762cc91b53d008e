"""What failed a moment ago fails at once for everybody else, without a request: a form that keeps failing
would else be asked for by each entry of a walk.

Used by `refreshable`. The pause grows with each failure in a row, with jitter, and stays well below the time
after which a listing is asked for again anyway, so that a server that is well is seen to be so in time.
Threading: any thread; one lock, never held over I/O.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

from xnatfs.concurrency.clock import Clock
from xnatfs.errors import Cause, Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 30.0
JITTER = 0.25  # of a pause, more or less
_REMEMBERED = 4096
_PASSING = frozenset({Cause.INTERRUPTED, Cause.OFFLINE})


class RecentFailures(Generic[K]):
    """The failures of one kind of value, by key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # failure, when to ask again, the pause until then in seconds
        self._failed: LRUCache[K, tuple[Failure, float, float]] = LRUCache(_REMEMBERED)

    def check(self, key: K) -> None:
        """Return if it may be asked for.

        Raises:
            Failure: the one of a moment ago.
        """
        with self._lock:
            failed = self._failed.get(key)
        if failed is not None and self._clock.now() < failed[1]:
            failure = failed[0]
            raise Failure(failure.cause, failure.subject, failure.detail, failure.status) from failure

    def noting(self, key: K, work: Callable[[], V]) -> V:
        """What `work` gives; its failure is remembered.

        Raises:
            Failure: as `work`.
        """
        try:
            value = work()
        except Failure as failure:
            # While the server is known to be away nothing is asked anyway, and it is back in a moment.
            if not failure.away and failure.cause not in _PASSING:
                self._note(key, failure)
            raise
        with self._lock:
            self._failed.pop(key, None)
        return value

    def current(self) -> list[Failure]:
        """What failed when it was last asked for."""
        with self._lock:
            return [failed[0] for failed in self._failed.values()]

    def clear(self) -> None:
        """Everything may be asked for."""
        with self._lock:
            self._failed.clear()

    def _note(self, key: K, failure: Failure) -> None:
        with self._lock:
            before = self._failed.get(key)
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S if before is None else 2 * before[2])
            until = self._clock.now() + pause * random.uniform(1 - JITTER, 1 + JITTER)
            self._failed[key] = failure, until, pause
