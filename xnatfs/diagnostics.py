"""What went wrong lately, and what is odd on the server: for `xnatfs status` and `.xnatfs/`.

Used by `listing` and `content` and `vfs` (which report) and by `tree.status_files` (which shows). Bounded.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import NamedTuple

from xnatfs.errors import Cause, Failure


class DiagnosticRecord(NamedTuple):
    """One failed operation: when (epoch seconds), and the sentence."""

    when: float
    text: str


class Diagnostics:
    """The last failures, their counts by cause, and the oddities found on the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[DiagnosticRecord] = deque(maxlen=200)
        self._counts: Counter[Cause] = Counter()
        self._odd: dict[str, None] = {}

    def failed(self, failure: Failure) -> None:
        """An operation failed (or was answered from old listings because of this)."""
        with self._lock:
            self._counts[failure.cause] += 1
            self._recent.append(DiagnosticRecord(time.time(), str(failure)))

    def odd(self, text: str) -> None:
        """The server holds something that cannot be shown as it is."""
        with self._lock:
            if len(self._odd) < 10_000:
                self._odd[text] = None

    def recent(self) -> list[DiagnosticRecord]:
        """Newest last."""
        with self._lock:
            return list(self._recent)

    def counts(self) -> dict[str, int]:
        """Failures by the name of their cause."""
        with self._lock:
            return {
                cause.name: count
                for cause, count in sorted(self._counts.items(), key=lambda item: item[0].name)
            }

    def oddities(self) -> list[str]:
        """What the server holds and the tree leaves out or changes, each once."""
        with self._lock:
            return list(self._odd)
