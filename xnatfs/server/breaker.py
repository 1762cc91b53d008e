"""Whether the server is there: while it is known to be away, requests fail at once in place of waiting for
time-outs.

Used by `connection.Connection`. The rule:

- It is *suspected* once nothing was answered for `SPREAD` seconds though a request failed on its way
  (refused, no such host, reset, silence), or for `SILENCE` seconds though a request waits. Any HTTP answer, a
  503 too, ends the suspicion: then the server is there. So what lasts a second or two (a restart, a refused
  connection, a reset) is left to retries, and one slow request among answered ones counts nothing.
- A suspicion is put to the test by a probe, one small question without credentials (it cannot lock anybody
  out). Only if that has no answer either, it is *open*: known to be away. A certificate that is not trusted
  is a lasting cause and put to the test at once.
- While it is open, probes go on behind everybody's back after 1, 1.5, 2.2 ... 15 s, so that the server is
  found again by itself; after 3 s where somebody asks. Where a probe fails within a moment (refused: 1 ms),
  whoever asks is kept waiting for one, so the first to ask after a restart gets through. If nobody asked for
  anything for `TIRED` seconds they end, and the next to ask waits for one, at most half a second.
- A laptop that was suspended, and `xnatfs refresh`, have it probed at once.

Threading: any thread; one lock, held for moments. `Breaker` has no thread and reads no clock but the given
ones; `Prober` is the thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)

SPREAD = 4.0  # seconds without any answer, with failures: above what the tries of one request take (3.75 s)
SILENCE = 5.0  # seconds that a request waits without any answer to anybody
FIRST, GROWTH, LONGEST = 1.0, 1.5, 15.0  # seconds between probes
_ASKED = 3.0  # ... and at least this where somebody asks
TIRED = 300.0
_PATIENCE = 0.5  # who asks waits for a probe: the first after that time, or one that is ...
_QUICK = 0.1  # ... as quick as this
_LEAP = (
    5.0  # seconds the wall clock goes ahead of the monotonic one, which stands still in a suspended machine
)


class Away(NamedTuple):
    """The server is away: since when (epoch seconds), why (`words`: in a few), and in how many seconds it is
    asked again (None: on demand).
    """

    since: float
    cause: Cause
    words: str
    next_try: float | None


class Breaker:
    """What is known of one server being there.

    Args:
        server: for messages.
        clock, wall: monotonic seconds, and seconds since the epoch.
    """

    def __init__(
        self, server: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._server = server
        self._clock = clock
        self._wall = wall
        self.condition = (
            threading.Condition()
        )  # notified when a probe may be due earlier than it was, and when one has ended
        self._waiting: dict[int, float] = {}  # requests without an answer yet: since when
        self._number = 0
        self._answered = clock()  # when anything was last answered
        self._silent: float | None = None  # since when nothing was, if something failed since
        self._cause, self._words = Cause.UNREACHABLE, ""
        self._open = False
        self._suspected = False
        self._next = 0.0  # the next probe while it is suspected or open
        self._begun = self._ended = self._wanted = (
            0  # probes; `_wanted`: have begun so many as soon as possible
        )
        self._began = self._probed = clock()  # when the last one began, and ended
        self._took = _QUICK
        self._scheduled = False
        self._delay = FIRST
        self._asked = clock()
        self._offset = wall() - clock()

    # --- for whoever asks the server ------------------------------------------------------------------------

    def check(self) -> None:
        """Before a request.

        Raises:
            Failure: the server is known to be away; `away` is set on it.
        """
        if not self._open:
            return
        with self.condition:
            wait = self._tired() or self._took < _QUICK
            self._asked = self._clock()
            if wait or self._asked - self._probed >= _ASKED:
                self._want()
            if wait:
                wanted = self._wanted  # not one that began before: the server may be there since
                self.condition.wait_for(lambda: not self._open or self._ended >= wanted, _PATIENCE)
        if (failure := self.failure()) is not None:
            raise failure

    @contextlib.contextmanager
    def asking(self) -> Iterator[float]:
        """Around a request, up to the answer's head; gives when it began."""
        with self.condition:
            self._number += 1
            number, began = self._number, self._clock()
            self._waiting[number] = began
        try:
            yield began
        finally:
            with self.condition:
                del self._waiting[number]

    def answered(self) -> None:
        """The server answered something."""
        with self.condition:
            self._answered = self._clock()
            if self._open or self._suspected or self._silent is not None:
                if self._open:
                    log.warning("%s answers again", self._server)
                self._open = self._suspected = False
                self._silent = None
                self._delay = FIRST
                self.condition.notify_all()

    def failed(self, cause: Cause, words: str, began: float) -> None:
        """A request that was sent at `began` has no answer and will have none; `words` say why."""
        with self.condition:
            self._note(cause, words, began)
            if (
                not self._open
                and not self._suspected
                and (cause is Cause.BAD_CERTIFICATE or self._clock() - self._since() >= SPREAD)
            ):
                self._suspect()

    def failure(self) -> Failure | None:
        """Why a request would fail at once; None if it would not."""
        away = self.away()
        if away is None:
            return None
        since = time.strftime("%H:%M:%S", time.localtime(away.since))
        again = "" if away.next_try is None else f"; next try in {away.next_try:.0f} s"
        failure = Failure(away.cause, self._server, f"{away.words} since {since}{again}")
        failure.away = True
        return failure

    # --- for who shows what is known of old -----------------------------------------------------------------

    def away(self) -> Away | None:
        """Whether the server is known to be away."""
        with self.condition:
            if not self._open:
                return None
            now = self._clock()
            next_try = None if self._tired() else max(0.0, self._next - now)
            return Away(self._wall() - (now - self._since()), self._cause, self._words, next_try)

    def silence(self) -> float:
        """For how many seconds somebody has been waiting in which the server answered nothing at all."""
        with self.condition:
            return self._clock() - self._unanswered() if self._waiting else 0.0

    def quiet(self, seconds: float) -> bool:
        """Whether it is away, or was silent for so long."""
        return self._open or self.silence() >= seconds

    def wake(self) -> None:
        """Have a look at once if it is away: somebody thinks that it is there again."""
        with self.condition:
            self._asked = self._clock()
            if self._open:
                self._want()

    def leapt(self) -> bool:
        """Whether the machine was suspended since the last call; then what is away is probed at once."""
        offset = self._wall() - self._clock()
        if abs(offset - self._offset) < _LEAP:
            return False
        with self.condition:
            self._offset = offset
            if self._open:
                self._asked = self._clock()
                self._want()
        return True

    # --- for the prober -------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """In how many seconds to look whether a probe is due (0: it is); None if nothing waits and nothing is
        suspected.
        """
        with self.condition:
            now = self._clock()
            if self._suspected or (self._open and self._wanted > self._begun):
                return 0.0
            if self._open:
                return None if self._tired() else max(0.0, self._next - now)
            if not self._waiting:
                return None
            left = self._unanswered() + SILENCE - now
            if left > 0:
                return left
            self._note(Cause.TIMED_OUT, "silence", self._unanswered())
            self._suspect()
            return 0.0

    def probe_begins(self) -> None:
        """A probe is sent now; never two at a time."""
        with self.condition:
            self._begun += 1
            self._began = self._clock()
            self._scheduled = self._began >= self._next

    def probe_failed(self, cause: Cause, words: str) -> None:
        """It had no answer (one that had: `answered`)."""
        with self.condition:
            now = self._probed = self._clock()
            self._ended, self._took = self._begun, now - self._began
            if not self._open and not self._suspected:  # somebody else was answered meanwhile
                return
            self._cause, self._words = cause, words
            if self._open:
                self._delay = min(LONGEST, self._delay * (GROWTH if self._scheduled else 1))
            else:
                self._open, self._suspected, self._delay, self._asked = True, False, FIRST, now
                log.warning("%s does not answer (%s)", self._server, words)
            self._next = now + self._delay
            self.condition.notify_all()

    # --- with the lock held ---------------------------------------------------------------------------------

    def _unanswered(self) -> float:
        return max(self._answered, min(self._waiting.values(), default=self._clock()))

    def _since(self) -> float:
        return self._clock() if self._silent is None else self._silent

    def _note(self, cause: Cause, words: str, began: float) -> None:
        self._cause, self._words = cause, words
        since = max(began, self._answered)
        self._silent = since if self._silent is None else min(self._silent, since)

    def _suspect(self) -> None:
        self._suspected = True
        self.condition.notify_all()

    def _want(self) -> None:
        self._wanted = self._begun + 1
        self.condition.notify_all()

    def _tired(self) -> bool:
        return self._clock() - self._asked > TIRED


class Prober:
    """The thread that looks after a breaker: it runs while something waits or is suspected, and ends after a
    while without work.

    Args:
        probe: asks the server something small; returns if it answered, raises `Failure` if it did not, with a
            few words on why as its detail.
        back: called when a probe was the first to have an answer again.
        look: called each second while it runs: for a suspended machine.
    """

    _LINGERS = 20.0  # seconds
    _SLICE = 1.0  # between looks for a suspended machine

    def __init__(
        self,
        breaker: Breaker,
        probe: Callable[[], object],
        back: Callable[[], object] = lambda: None,
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self._breaker = breaker
        self._probe = probe
        self._back = back
        self._look = look
        self._running = False
        self._closed = False

    def start(self) -> None:
        """See to it that it runs; called before each request."""
        if self._running or self._closed:
            return
        with self._breaker.condition:
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="prober", daemon=True).start()

    def close(self) -> None:
        """No more probes."""
        with self._breaker.condition:
            self._closed = True
            self._breaker.condition.notify_all()

    def _run(self) -> None:
        breaker = self._breaker
        idle = 0.0
        while True:
            due = breaker.due()
            if due == 0.0 and not self._closed:
                self._ask()
                idle = 0.0
                continue
            with breaker.condition:
                # Looked at again with the lock: what became due in between has notified nobody.
                if self._closed or (due is None and idle >= self._LINGERS and breaker.due() is None):
                    self._running = False
                    return
                breaker.condition.wait(self._SLICE if due is None else min(due, self._SLICE))
            idle = idle + self._SLICE if due is None else 0.0
            self._look()

    def _ask(self) -> None:
        self._breaker.probe_begins()
        try:
            self._probe()
        except Failure as failure:
            self._breaker.probe_failed(failure.cause, failure.detail)
        except Exception as error:  # a probe that cannot even be sent tells as much as one without an answer
            log.exception("the probe broke")
            self._breaker.probe_failed(Cause.UNREACHABLE, type(error).__name__)
        else:
            away = self._breaker.away() is not None
            self._breaker.answered()
            if away:
                self._back()
