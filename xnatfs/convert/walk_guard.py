"""Keeping programs that read everything (`find`, `grep -r`, an indexer) from converting a whole study.

Used by `converted_scans`. Somebody who wants images reads them; so just a few scans are converted that nobody
reads, and no more in a minute than a person or a script that computes with them asks for.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure

_WINDOW_S = 60.0
_MOST_UNREAD = 10  # scans converted within the window of which no file was opened
_MOST = 60  # scans converted within the window


class WalkGuard:
    """Counts the conversions of the last minute.

    Args:
        clock: seconds, ever rising.
    """

    def __init__(self, diagnostics: Diagnostics, clock: Callable[[], float]) -> None:
        self._diagnostics = diagnostics
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: deque[tuple[float, str]] = deque()
        self._read: set[str] = set()

    def begin(self, key: str, subject: str) -> None:
        """A scan is to be converted.

        Args:
            key: of what is made.
            subject: the scan's address.

        Raises:
            Failure: TOO_MANY_CONVERSIONS.
        """
        now = self._clock()
        with self._lock:
            while self._begun and now - self._begun[0][0] >= _WINDOW_S:
                self._read.discard(self._begun.popleft()[1])
            if any(key == one for _, one in self._begun):
                return  # it was allowed: others who look into the same scan, or once more after a failure
            unread = sum(1 for _, one in self._begun if one not in self._read)
            allowed = len(self._begun) < _MOST and unread < _MOST_UNREAD
            if allowed:
                self._begun.append((now, key))
        if not allowed:
            self._diagnostics.odd(
                f"{subject} was not converted to NIfTI: a program looked into more than {_MOST_UNREAD} such"
                f" folders within a minute without reading an image, or into more than {_MOST}"
            )
            raise Failure(Cause.TOO_MANY_CONVERSIONS, subject)

    def read(self, key: str) -> None:
        """A file of a converted scan was opened."""
        with self._lock:
            if any(key == one for _, one in self._begun):
                self._read.add(key)
