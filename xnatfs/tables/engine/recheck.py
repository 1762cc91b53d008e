"""Which tables have asked for all their files since the last `xnatfs refresh`.

Used by `build`, which ignores the sessions' stamps while a table is due, and by `materialize`, which compares
again what was compared before the refresh.
Threading: any thread; one lock around the marks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence


class Rechecks:
    """Which tables are due to ask for all their files.

    Attributes:
        requested: epoch seconds of the last refresh; 0 if there was none.
    """

    def __init__(self) -> None:
        self.requested = 0.0
        self._lock = threading.Lock()
        self._done: set[tuple[str, str, tuple[str, ...]]] = set()

    def request(self) -> None:
        """Let every table ask for all its files at its next build."""
        with self._lock:
            self._done.clear()
            self.requested = time.time()

    def due(self, project: str, key: str, sessions: Sequence[str]) -> bool:
        """Whether a table has not asked since."""
        with self._lock:
            return self.requested > 0 and _mark(project, key, sessions) not in self._done

    def note(self, project: str, key: str, sessions: Sequence[str], begun: float) -> None:
        """A build that began at `begun` (epoch seconds) has asked for all files of a table."""
        with self._lock:
            if self.requested <= begun:
                self._done.add(_mark(project, key, sessions))


def _mark(project: str, key: str, sessions: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    return project, key, tuple(sorted(sessions))
