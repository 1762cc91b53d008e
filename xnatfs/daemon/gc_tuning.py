"""Tunes Python's garbage collector for a process that keeps many small objects and runs for weeks.

Used by `run`. Listings are many small, long-lived objects: with Python's default thresholds, half of a `find`
over 160,000 files was garbage collection, so automatic collection is made rare. But every failed request
leaves a cycle (an exception, its traceback, the frame that raised it), and with it that frame's bytes: with 5
% of the requests failing, the process grew by 200 MB in five minutes. So a thread collects the young
generations often, and everything now and then. It then makes the C library return unused memory: a hundred
threads that each allocate and free 256 KiB leave its arenas full of holes (420 MB resident where Python had
46 MB, measured).
Threading: `Collecting` belongs to the thread that serves the mount; the collector stops all threads while it
runs.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_YOUNG = 20.0  # seconds between collections of young objects: 30 ms at most, for 200,000 objects
_ALL = 30  # every 30th collection is a full one: once in ten minutes
_SLOW = 1.0  # seconds


def _find_trim() -> Callable[[], object]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None  # a C library other than GNU's
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: trim(0)


_trim = _find_trim()


def settle() -> None:
    """Exclude everything loaded so far from collection, and make automatic collection rare. To be called
    before anything is listed.
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


class Collecting:
    """Collects periodically until it is closed."""

    def __init__(self, every: float = _YOUNG) -> None:
        self._every = every
        self._over = threading.Event()
        threading.Thread(target=self._run, name="garbage", daemon=True).start()

    def close(self) -> None:
        """Stop collecting."""
        self._over.set()

    def _run(self) -> None:
        looks = 0
        while not self._over.wait(self._every):
            looks += 1
            began = time.monotonic()
            found = gc.collect(2 if looks % _ALL == 0 else 1)
            _trim()
            if (seconds := time.monotonic() - began) > _SLOW:
                log.info("garbage collection took %.1f s for %d objects", seconds, found)
