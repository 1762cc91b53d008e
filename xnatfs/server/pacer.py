"""How many requests a second a mount sends, and when it sends none: after a server has asked to be left
alone, no thread sends it anything.

Used by `transport`, before each request, those sent again included. How many are under way at once is
`limiter`'s.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from xnatfs import retry

_BURST_S = 2.0  # so many seconds' requests may be sent at once after a time of silence
_SLICE_S = 0.1  # between two looks whether the request is still wanted


class Pacer:
    """The requests of one mount to one server.

    Args:
        rate: requests a second, over a few seconds.

    Attributes:
        rate: may be set at any time.
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = 0.0  # when the next request may be sent, if none had been saved up
        self._held_until = 0.0

    def hold(self, seconds: float) -> None:
        """The server asks to be left alone for so long; a proxy may say an hour, for which nobody waits."""
        with self._lock:
            until = self._clock() + min(seconds, retry.LONGEST_PAUSE_S)
            self._held_until = max(self._held_until, until)

    def wait(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Return when a request may be sent, or at once if it has `ended`. Those who waited together do not
        go on together.
        """
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at + 1 / self.rate, now - _BURST_S)
            due = self._free_at
            held = self._held_until - now
            if held > 0:
                due = max(due, self._held_until + held * random.uniform(0, retry.JITTER))
        while (left := due - self._clock()) > 0 and not ended():
            self._sleep(min(left, _SLICE_S))
