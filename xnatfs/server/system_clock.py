"""The two clocks of a machine, and whether it was suspended.

Used by `breaker`.
Threading: any thread; no lock. Two threads that ask at the same time may both be told of one suspension.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LEAP_S = 5.0  # the wall clock went ahead of the monotonic one, which stands still in a suspended machine


class SystemClock:
    """Monotonic seconds, and seconds since the epoch.

    Args:
        monotonic, wall: the clocks to read.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.monotonic = monotonic
        self.wall = wall
        self._offset = wall() - monotonic()

    def leapt(self) -> bool:
        """Whether the machine was suspended, or its clock set, since the last call."""
        offset = self.wall() - self.monotonic()
        if abs(offset - self._offset) < _LEAP_S:
            return False
        self._offset = offset
        return True
