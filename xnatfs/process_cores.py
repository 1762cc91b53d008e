"""One connection a process for each thing it connects to: the first who needs it logs in, the others wait.

Used by `shared_cores` (for `xnat://` URLs) and `distributed` (in a Dask worker).
Threading: any thread; one lock, never held over I/O. A forked process begins without any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from xnatfs.core import Core
from xnatfs.errors import Cause, Failure

K = TypeVar("K", bound=Hashable)


class ProcessCores(Generic[K]):
    """The connections of this process.

    Args:
        refusals: failures of a login that are not tried again with the same credentials: a server locks an
            account after a few wrong passwords, and there are threads and pieces of work by the thousand.
    """

    def __init__(self, *refusals: Cause) -> None:
        self._refusals = refusals
        self._lock = threading.Lock()
        self._cores: dict[K, Future[Core]] = {}
        self._refused: dict[K, tuple[object, Failure]] = {}
        self._ended: set[K] = set()
        self._not_ours: list[Future[Core]] = []  # a parent's: neither used nor, by losing them, ended

    def get(
        self, key: K, connect: Callable[[], Core], credentials: Callable[[], object] = lambda: ""
    ) -> Core:
        """The connection of this key.

        Args:
            connect: logs in; called by one thread at a time.
            credentials: those that `connect` will find.

        Raises:
            Failure: a refusal of before; INTERRUPTED after `end`.
            Exception: whatever `connect` raises.
        """
        with self._lock:
            if key in self._ended:
                raise _over()
            future = self._cores.get(key)
            mine = future is None
            if future is None:
                future = self._cores[key] = Future()
        if mine:
            try:
                self._take(key, future, self._connect(key, connect, credentials))
            except BaseException as error:
                with self._lock:
                    if self._cores.get(key) is future:
                        del self._cores[key]
                future.set_exception(error)
        return future.result()

    def end(self, key: K) -> None:
        """Log out, also where a login is under way; nobody connects with this key any more."""
        with self._lock:
            self._ended.add(key)
            self._refused.pop(key, None)
            future = self._cores.pop(key, None)
        _log_out(future)

    def close(self) -> None:
        """Log out everywhere."""
        with self._lock:
            ending, self._cores = self._cores, {}
        for future in ending.values():
            _log_out(future)

    def begin_again(self) -> None:
        """In a forked process: its connections are to be its own."""
        self._lock = threading.Lock()
        self._not_ours += self._cores.values()
        self._cores, self._refused = {}, {}

    def _connect(self, key: K, connect: Callable[[], Core], credentials: Callable[[], object]) -> Core:
        before = self._refused.get(key)
        if before is not None and credentials() == before[0]:
            raise before[1]
        try:
            return connect()
        except Failure as failure:
            if failure.cause in self._refusals:
                self._refused[key] = credentials(), failure
            raise

    def _take(self, key: K, future: Future[Core], core: Core) -> None:
        with self._lock:
            wanted = self._cores.get(key) is future
            if wanted:
                future.set_result(core)
        if not wanted:  # it was ended meanwhile
            core.close()
            raise _over()


def _log_out(future: Future[Core] | None) -> None:
    if future is not None and future.done() and future.exception() is None:
        future.result().close()


def _over() -> Failure:
    return Failure(Cause.INTERRUPTED, detail="the work that this connection was for has ended")
