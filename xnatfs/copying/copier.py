"""Copies files and folders of the tree into a folder of this machine, several at once.

Used by the command `get`.
One thread lists and others copy, from the first folder on: they take a folder each, whose small files come in
one zip if one reader opens them in a row, and large files singly. What is listed waits in a queue of fixed
length, so that the memory does not grow with what is copied.
Threading: `Copier` is started and asked by one thread.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from xnatfs.copying.lister import Lister, Root
from xnatfs.copying.local_file import Copying, LocalProblem, Source, State, discard
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.vfs import Vfs

_WAITING = 64  # folders
_LOOK_S = 0.1  # whether it is stopped


@dataclass(frozen=True)
class Result:
    """What became of one file, or of a folder that cannot be listed (which has no `source`)."""

    source: Source | None
    path: str
    state: State
    reason: str = ""


@dataclass
class Tally:
    """How much is done, and how much is to be done as far as it is listed."""

    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0
    states: Counter[State] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listed(self, unit: list[Source]) -> None:
        """There is more to do."""
        with self.lock:
            self.total_files += len(unit)
            self.total_bytes += sum(source.size for source in unit)

    def more(self, count: int) -> None:
        """Bytes were copied, or need not be."""
        with self.lock:
            self.bytes += count


class Copier:
    """A copy under way.

    Args:
        done: called for every file, by one thread at a time.
        jobs: how many copy.
        dry: fetch nothing, and only say what would be.
        overwrite, by_digest: see `Copying`.
    """

    def __init__(
        self,
        vfs: Vfs,
        wanted: list[Root],
        done: Callable[[Result], None],
        *,
        jobs: int,
        overwrite: bool = False,
        by_digest: bool = False,
        dry: bool = False,
    ) -> None:
        self.tally = Tally()
        self._copying = Copying(vfs, overwrite, by_digest, self.tally.more, lambda: self._stopped)
        self._lister = Lister(vfs, wanted, self._unlisted, dry=dry)
        self._done = done
        self._dry = dry
        self._jobs = jobs
        self._units: queue.Queue[list[Source] | None] = queue.Queue(_WAITING)
        self._running = 0
        self._stopped = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._running = 1 + self._jobs
        for work in (self._list, *([self._copy] * self._jobs)):
            threading.Thread(target=self._run, args=(work,), name="get", daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether anything is still to be done."""
        return self._running > 0

    def stop(self) -> None:
        """Leave the rest; what waits for the server ends within a moment."""
        self._stopped = True

    def join(self, seconds: float) -> None:
        """Wait until nothing is under way any more, or for so many seconds."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(_LOOK_S / 5)

    def close(self) -> None:
        """After the end: remove what earlier copies left that this one had no use for.

        Raises:
            UsageError: this machine could take no more.
            Failure: the login is refused.
            BrokenPipeError: nobody reads what `done` prints.
        """
        if self._error is not None:
            raise self._error
        if not self._stopped:
            for place in self._lister.left:
                discard(place)

    # --- threads ------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # handed to the thread that started this
            self._end(error)
        finally:
            with self.tally.lock:
                self._running -= 1

    def _end(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stopped = True

    def _list(self) -> None:
        for unit in self._lister.sources():
            if not self._put(unit):
                return
            self.tally.listed(unit)
        for _ in range(self._jobs):
            self._put(None)

    def _put(self, unit: list[Source] | None) -> bool:
        while not self._stopped:
            with contextlib.suppress(queue.Full):
                self._units.put(unit, timeout=_LOOK_S)
                return True
        return False

    def _copy(self) -> None:
        while not self._stopped:
            try:
                unit = self._units.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if unit is None:
                return
            if not self._dry:
                self._copying.announce(unit)
            for source in unit:
                if self._stopped:
                    return
                self._one(source)

    def _one(self, source: Source) -> None:
        try:
            state = self._copying.look(source) if self._dry else self._copying.copy(source)
            result = Result(source, source.path, state)
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED and self._stopped:
                return
            if failure.cause is Cause.LOGIN_REFUSED:
                self._end(failure)
                return
            detail = f" ({failure.detail})" if failure.detail else ""
            result = Result(source, source.path, State.FAILED, f"{failure.cause.sentence}{detail}")
        except LocalProblem as problem:
            if problem.fatal:
                self._end(UsageError(str(problem)))
                return
            result = Result(source, source.path, State.FAILED, str(problem))
        if result.state is not State.FETCHED:
            self.tally.more(source.size)
        self._tell(result)

    def _unlisted(self, path: str, reason: str) -> None:
        self._tell(Result(None, path, State.FAILED, reason))

    def _tell(self, result: Result) -> None:
        with self.tally.lock:
            self.tally.files += 1
            self.tally.states[result.state] += 1
            self._done(result)
