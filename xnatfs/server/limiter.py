"""A cap on the requests under way at one server, with room kept for listings.

Used by `connection.Connection`. An `ls` must not wait for sixteen big downloads (fuse-type file systems are
hated for that), so contents may use all slots but one.
Threading: any thread; the condition is held for moments only, never over I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from xnatfs.errors import Cause, Failure


class RequestLimiter:
    """At most `total` requests at once (two at least), at most `total - kept` of them for contents.

    Attributes:
        total: as it is now.
    """

    def __init__(self, total: int, kept: int = 1) -> None:
        self._condition = threading.Condition()
        self.total = max(2, total)
        self._kept = kept
        self._listings = 0
        self._contents = 0

    def limit(self, total: int) -> None:
        """Allow more or fewer from now on; what is under way goes on."""
        with self._condition:
            self.total = max(2, total)
            self._condition.notify_all()

    @property
    def in_use(self) -> int:
        """Requests under way."""
        return self._listings + self._contents

    @contextmanager
    def listing(self, timeout: float) -> Iterator[None]:
        """Hold a slot for a listing."""
        with self._hold(contents=False, timeout=timeout):
            yield

    @contextmanager
    def contents(self, timeout: float) -> Iterator[None]:
        """Hold a slot for a content stream."""
        with self._hold(contents=True, timeout=timeout):
            yield

    @contextmanager
    def _hold(self, *, contents: bool, timeout: float) -> Iterator[None]:
        self._acquire(contents=contents, timeout=timeout)
        try:
            yield
        finally:
            with self._condition:
                if contents:
                    self._contents -= 1
                else:
                    self._listings -= 1
                self._condition.notify_all()

    def _may(self, *, contents: bool) -> bool:
        if contents:
            return self.in_use < self.total and self._contents < self.total - self._kept
        # Where fewer are allowed than are under way, the one kept for listings is free all the same.
        return self.in_use < self.total or self._listings < self._kept

    def _acquire(self, *, contents: bool, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._condition:
            while not self._may(contents=contents):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(Cause.TIMED_OUT, detail="all connections to the server are busy")
                self._condition.wait(left)
            if contents:
                self._contents += 1
            else:
                self._listings += 1
