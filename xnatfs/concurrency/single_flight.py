"""Single flight: of several callers who want the same thing, one fetches it and all get it.

Used by `listing.service` (listings) and `content.revalidation`.
Threading: any thread. The work runs in a pool of daemon threads; callers wait in `waiting`, so each can be
interrupted or give up by itself while the work goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast

from xnatfs.concurrency.waiting import wait_until
from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)
T = TypeVar("T")


class SharedCall(Generic[T]):
    """One piece of work, to be waited for."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._condition = threading.Condition()
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work (in a worker)."""
        try:
            self._result = self._work()
        except BaseException as error:  # handed to whoever waits
            self._error = error
        with self._condition:
            self._done = True
            self._condition.notify_all()

    def wait(self, patience: float, give_up: Callable[[], Failure | None] = lambda: None) -> T:
        """The result.

        Args:
            give_up: looked at while it is not there; what it gives is raised.

        Raises:
            Failure: TIMED_OUT or INTERRUPTED for this caller alone, or `give_up`'s.
            Exception: whatever the work raised.
        """
        given_up: Failure | None = None

        def ready() -> bool:
            nonlocal given_up
            if not self._done:
                given_up = give_up()
            return self._done or given_up is not None

        with self._condition:
            wait_until(self._condition, ready, patience)
        if not self._done and given_up is not None:
            raise given_up
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


class WorkerPool:
    """A pool of daemon threads, started as they are needed; an idle one ends after a while."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._queue: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        # not yet begun; counted with `_idle`, since a thread that has its work counts as idle until it has
        # the lock
        self._queued = 0
        self._urgent = 0  # of them
        self._order = 0
        self._closed = False

    def submit(self, work: Callable[[], None], *, urgent: bool = True) -> None:
        """Run `work` soon; what is not urgent waits until nothing urgent does."""
        with self._lock:
            if self._closed:
                raise Failure(Cause.UNREACHABLE, detail="the mount is ending")
            self._order += 1
            self._queue.put((0 if urgent else 1, self._order, work))
            self._queued += 1
            self._urgent += urgent
            if self._idle < self._queued and self._threads < self._count:
                self._start_one()

    def resize(self, count: int) -> None:
        """Use more or fewer threads from now on; what is under way is finished."""
        with self._lock:
            self._count = count
            for _ in range(min(count - self._threads, self._queued - self._idle)):
                self._start_one()

    def do(self, work: Callable[[], T], patience: float) -> T:
        """Run `work` in the pool and wait for its result."""
        call = SharedCall(work)
        self.submit(call.run)
        return call.wait(patience)

    @property
    def waiting(self) -> bool:
        """Whether urgent work waits for a thread, and none is free that has only not taken it yet."""
        with self._lock:
            return self._urgent > self._count - self._threads + self._idle

    @property
    def spare(self) -> int:
        """How many more pieces of work could be begun at once; below zero: so many wait."""
        with self._lock:
            return self._count - self._threads + self._idle - self._queued

    @property
    def closed(self) -> bool:
        """Whether the mount is ending: long work looks at this and stops."""
        return self._closed

    def close(self, patience: float = 2.0) -> None:
        """Start nothing more, and give what is under way a moment to stop."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._order += 1
                self._queued += 1
                self._queue.put((-1, self._order, _stop))
        deadline = time.monotonic() + patience
        while self._threads and time.monotonic() < deadline:
            time.sleep(0.01)

    def _start_one(self) -> None:
        """Called with the lock held."""
        self._threads += 1
        threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                rank, order, work = self._queue.get(timeout=30)
                came = 1
            except queue.Empty:
                rank, order, work, came = 1, 0, _stop, 0
            with self._lock:
                self._idle -= 1
                if work is not _stop and self._threads > self._count:
                    self._queue.put((rank, order, work))  # for one of those that stay
                    self._threads -= 1
                    return
                self._queued -= came
                self._urgent -= rank == 0
                if work is _stop and (self._closed or self._queue.empty()):
                    self._threads -= 1
                    return
            if work is not _stop:
                try:
                    work()
                except Exception:
                    log.exception("a piece of work broke")


def _stop() -> None:
    """Ends a worker."""


class SingleFlight:
    """Work by key: at most one flight of a key at a time."""

    def __init__(self, workers: WorkerPool) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, SharedCall[Any]] = {}

    def get(
        self,
        key: Hashable,
        work: Callable[[], T],
        patience: float,
        give_up: Callable[[], Failure | None] = lambda: None,
    ) -> T:
        """The result of the flight of `key`, started now if there is none; see `SharedCall.wait`."""
        return self.start(key, work).wait(patience, give_up)

    def start(self, key: Hashable, work: Callable[[], T], *, urgent: bool = True) -> SharedCall[T]:
        """Start the flight of `key`, or join it."""
        with self._lock:
            call = self._under_way.get(key)
            if call is not None:
                return call
            call = SharedCall(work)
            self._under_way[key] = call

        def run() -> None:
            call.run()
            with self._lock:
                self._under_way.pop(key, None)

        try:
            self._workers.submit(run, urgent=urgent)
        except BaseException:
            with self._lock:
                self._under_way.pop(key, None)
            raise
        return call
