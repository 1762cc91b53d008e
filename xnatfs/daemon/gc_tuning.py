"""Python's garbage collector in a process that holds many small objects, and runs for weeks.

Used by `run`. Listings are small objects that live long: with Python's own thresholds half of a `find` over
160,000 files was garbage collection, so it is left to run rarely by itself. But every request that fails
leaves a cycle (an exception, its traceback, the frame that raised it), and with it the bytes that frame had:
with 5 % of the requests failing the process grew by 200 MB in five minutes. So a thread collects what is
young, often, and all of it now and then. Then it has the C library give back what nothing uses: a hundred
threads that each take and free pieces of 256 KiB leave its arenas full of holes (420 MB resident where Python
had 46 MB, measured). Threading: `Collecting` belongs to the thread that serves the mount; the collector stops
all threads while it looks."""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_YOUNG = 20.0  # seconds between two looks at what was made since the last: 30 ms at most, for 200,000 objects
_ALL = 30  # of these looks take in everything, once in ten minutes
_SLOW = 1.0  # seconds


def _find_trim() -> Callable[[], object]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda: None  # another C library than GNU's
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: trim(0)


_trim = _find_trim()


def settle() -> None:
    """Leave what was loaded so far alone for good, and look at the rest rarely. Before anything is listed."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


class Collecting:
    """Collects until it is closed."""

    def __init__(self, every: float = _YOUNG) -> None:
        self._every = every
        self._over = threading.Event()
        threading.Thread(target=self._run, name="garbage", daemon=True).start()

    def close(self) -> None:
        """Collect no more."""
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
