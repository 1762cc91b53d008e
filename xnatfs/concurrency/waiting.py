"""Waiting for something another thread does, without ever waiting for ever and without being deaf to Ctrl-C.

Used by everything that waits; `fuse` and `copying` declare who is waiting with `interruptible`. All HTTP runs
in worker threads; the thread that serves an operation only ever waits *here*. FUSE has no other way to stop:
a handler that sleeps in a socket leaves its client unkillable (kernel.md 4).
Threading: any thread; the interrupt check is a thread-local, because `fuse_interrupted()` speaks of the
request of its own thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from xnatfs.errors import Cause, Failure

_SLICE = 0.1  # seconds between two looks at the interrupt flag
_STOPPED = 1.0  # seconds that a slice takes longer than it should: nothing of this process ran
_local = threading.local()


class interruptible:
    """Within this block, waits of this thread end with INTERRUPTED once `interrupted()` is true."""

    __slots__ = (
        "_before",
        "_interrupted",
    )  # a class, not a generator: it is entered for every request of the kernel

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted

    def __enter__(self) -> None:
        self._before = getattr(_local, "interrupted", None)
        _local.interrupted = self._interrupted

    def __exit__(self, *_: object) -> None:
        _local.interrupted = self._before


def wait_until(
    condition: threading.Condition,
    ready: Callable[[], bool],
    patience: float,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Wait until `ready()`; `condition` is held when this is called and when it returns.

    Raises:
        Failure: TIMED_OUT after `patience` seconds, in which this process ran and `progress()` did not
            change; INTERRUPTED.
    """
    interrupted: Callable[[], bool] | None = getattr(_local, "interrupted", None)
    deadline, last = time.monotonic() + patience, progress()
    while not ready():
        begun = time.monotonic()
        condition.wait(_SLICE)
        lost = time.monotonic() - begun - _SLICE
        if lost > _STOPPED:  # SIGSTOP, a debugger: what others did meanwhile is not known yet
            deadline += lost
        if interrupted is not None and interrupted():
            raise Failure(Cause.INTERRUPTED)
        now = progress()
        if now != last:
            last, deadline = now, time.monotonic() + patience
        elif time.monotonic() > deadline and not ready():
            raise Failure(Cause.TIMED_OUT)
