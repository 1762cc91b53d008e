"""Renewals that are due but must not keep anybody waiting: what an earlier mount stored is shown at once and
asked for again from here.

Used by everything in `listing` that shows what was stored, through its environment.
Threading: any thread may add; the work runs in one timer thread, which only starts flights.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)


class Debouncer:
    """Runs each piece of work once, `delay` seconds after the first of them was added."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._lock = threading.Lock()
        self._due: dict[Hashable, Callable[[], object]] = {}
        self._timer: threading.Timer | None = None
        self._closed = False

    def add(self, key: Hashable, work: Callable[[], object]) -> None:
        """Run `work` in a moment; one piece a key."""
        with self._lock:
            self._due.setdefault(key, work)
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(self._delay, self._run)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Run nothing more."""
        with self._lock:
            self._closed = True
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _run(self) -> None:
        with self._lock:
            due, self._due, self._timer = self._due, {}, None
        for key, work in due.items():
            try:
                work()
            except Exception as error:
                log.info("%s could not be renewed: %s", key, error)
