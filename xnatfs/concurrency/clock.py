"""The time values age by, which tests let pass.

Used by `refreshable`, `recent_failures` and what holds listings.
Threading: any thread.
"""

from __future__ import annotations

import time


class Clock:
    """The time values age by, in seconds: monotonic, and in tests whatever `advance` adds."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds from a start that means nothing."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass (for tests)."""
        self._ahead += seconds
