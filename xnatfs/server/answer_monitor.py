"""When the server last answered anything, and for how long it has not.

Used by `breaker`, which draws the conclusions.
Threading: one thread at a time; the breaker's lock is held. Reads no clock: the times are given.
"""

from __future__ import annotations


class AnswerMonitor:
    """The requests to one server that have no answer yet, and the time of its last answer.

    Attributes:
        failing_since: since when nothing was answered, if a request failed since; else None.
    """

    def __init__(self, now: float) -> None:
        self.failing_since: float | None = None
        self._answered_at = now
        self._waiting: dict[int, float] = {}  # requests without an answer yet: since when
        self._number = 0

    def begin(self, now: float) -> int:
        """A request is sent; its number, for `end`."""
        self._number += 1
        self._waiting[self._number] = now
        return self._number

    def end(self, number: int) -> None:
        """This request does not wait any more."""
        del self._waiting[number]

    def answered(self, now: float) -> None:
        """The server answered something: what failed before counts no more."""
        self._answered_at = now
        self.failing_since = None

    def failed(self, began: float) -> None:
        """A request that was sent at `began` has no answer and will have none."""
        since = max(began, self._answered_at)
        self.failing_since = since if self.failing_since is None else min(self.failing_since, since)

    @property
    def silent_since(self) -> float | None:
        """Since when somebody has been waiting in which the server answered nothing at all; None if nobody
        waits.
        """
        return max(self._answered_at, min(self._waiting.values())) if self._waiting else None
