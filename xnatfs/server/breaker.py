"""Whether the server is there: while it is known to be away, requests fail at once in place of waiting for
time-outs.

Used by `http_transport`, and by whoever shows or waits for listings. The rule:

- It is *suspected* once nothing was answered for `SPREAD` seconds though a request failed on its way
  (refused, no such host, reset, silence), or for `SILENCE` seconds though a request waits. Any HTTP answer, a
  503 too, ends the suspicion: then the server is there. So what lasts a second or two (a restart, a refused
  connection, a reset) is left to retries, and one slow request among answered ones counts nothing.
- A suspicion is put to the test by a probe, one small question without credentials (it cannot lock anybody
  out). Only if that has no answer either, it is *open*: known to be away. A certificate that is not trusted
  is a lasting cause and put to the test at once.
- While it is open, probes go on behind everybody's back (`probe_schedule`). Who is kept waiting for one waits
  at most half a second.
- A laptop that was suspended, and `xnatfs refresh`, have it probed at once.

Threading: any thread; one lock, held for moments, which guards the monitor and the schedule too. No thread
of its own (that is `prober`), and no clock but the given one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from xnatfs.errors import Cause, Failure
from xnatfs.server.answer_monitor import AnswerMonitor
from xnatfs.server.probe_schedule import ProbeSchedule
from xnatfs.server.system_clock import SystemClock

log = logging.getLogger(__name__)

SPREAD = 4.0  # seconds without any answer, with failures: above what the tries of one request take (3.75 s)
SILENCE = 5.0  # seconds that a request waits without any answer to anybody
_PATIENCE = 0.5  # seconds that who asks waits for a probe, at most


class Away(NamedTuple):
    """The server is away: since when (epoch seconds), why (`words`: in a few), and in how many seconds it is
    asked again (None: on demand).
    """

    since: float
    cause: Cause
    words: str
    next_try: float | None


class BreakerState(Enum):
    """What is known of the server."""

    CLOSED = auto()  # it is there: requests are sent
    SUSPECTED = auto()  # requests are still sent; a probe decides
    OPEN = auto()  # it is away: requests fail at once


class Breaker:
    """What is known of one server being there.

    Args:
        server: for messages.
    """

    def __init__(self, server: str, clock: SystemClock | None = None) -> None:
        self._server = server
        self.clock = clock or SystemClock()
        # Notified when a probe may be due earlier than it was, and when one has ended.
        self.condition = threading.Condition()
        self._state = BreakerState.CLOSED
        self._answers = AnswerMonitor(self.clock.monotonic())
        self._probes = ProbeSchedule(self.clock.monotonic())
        self._cause, self._words = Cause.UNREACHABLE, ""

    # --- for whoever asks the server ------------------------------------------------------------------------

    def check(self) -> None:
        """Before a request.

        Raises:
            Failure: the server is known to be away; `away` is set on it.
        """
        if self._state is not BreakerState.OPEN:
            return
        with self.condition:
            now, probes = self.clock.monotonic(), self._probes
            wait = probes.tired(now) or probes.quick
            probes.asked(now)
            if wait or probes.is_overdue(now):
                self._want()
            if wait:
                wanted = probes.wanted
                self.condition.wait_for(
                    lambda: self._state is not BreakerState.OPEN or probes.ended >= wanted, _PATIENCE
                )
        if (failure := self.failure()) is not None:
            raise failure

    @contextlib.contextmanager
    def asking(self) -> Iterator[float]:
        """Around a request, up to the answer's head; gives when it began."""
        with self.condition:
            began = self.clock.monotonic()
            number = self._answers.begin(began)
        try:
            yield began
        finally:
            with self.condition:
                self._answers.end(number)

    def answered(self) -> None:
        """The server answered something."""
        with self.condition:
            changes = self._state is not BreakerState.CLOSED or self._answers.failing_since is not None
            self._answers.answered(self.clock.monotonic())
            if changes:
                if self._state is BreakerState.OPEN:
                    log.warning("%s answers again", self._server)
                self._state = BreakerState.CLOSED
                self.condition.notify_all()

    def failed(self, cause: Cause, words: str, began: float) -> None:
        """A request that was sent at `began` has no answer and will have none; `words` say why."""
        with self.condition:
            self._note(cause, words, began)
            if self._state is BreakerState.CLOSED and (
                cause is Cause.BAD_CERTIFICATE or self._failing_for() >= SPREAD
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

    # --- for callers that show older data -------------------------------------------------------------------

    def away(self) -> Away | None:
        """Whether the server is known to be away."""
        with self.condition:
            if self._state is not BreakerState.OPEN:
                return None
            next_try = self._probes.next_in(self.clock.monotonic())
            return Away(self.clock.wall() - self._failing_for(), self._cause, self._words, next_try)

    def silence(self) -> float:
        """For how many seconds somebody has been waiting in which the server answered nothing at all."""
        with self.condition:
            since = self._answers.silent_since
            return 0.0 if since is None else self.clock.monotonic() - since

    def quiet(self, seconds: float) -> bool:
        """Whether it is away, or was silent for so long."""
        return self._state is BreakerState.OPEN or self.silence() >= seconds

    def wake(self) -> None:
        """Have a look at once if it is away: somebody thinks that it is there again."""
        with self.condition:
            self._probes.asked(self.clock.monotonic())
            if self._state is BreakerState.OPEN:
                self._want()

    def leapt(self) -> bool:
        """Whether the machine was suspended since the last call; then what is away is probed at once."""
        if not self.clock.leapt():
            return False
        with self.condition:
            if self._state is BreakerState.OPEN:
                self._probes.asked(self.clock.monotonic())
                self._want()
        return True

    # --- for the prober -------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """In how many seconds to look whether a probe is due (0: it is); None if nothing waits and nothing is
        suspected.
        """
        with self.condition:
            if self._state is BreakerState.SUSPECTED:
                return 0.0
            now = self.clock.monotonic()
            if self._state is BreakerState.OPEN:
                return self._probes.due(now)
            since = self._answers.silent_since
            if since is None:
                return None
            left = since + SILENCE - now
            if left > 0:
                return left
            self._note(Cause.TIMED_OUT, "silence", since)
            self._suspect()
            return 0.0

    def probe_begins(self) -> None:
        """A probe is sent now; never two at a time."""
        with self.condition:
            self._probes.begin(self.clock.monotonic())

    def probe_failed(self, cause: Cause, words: str) -> None:
        """It had no answer (one that had: `answered`)."""
        with self.condition:
            now = self.clock.monotonic()
            self._probes.end(now)
            if self._state is BreakerState.CLOSED:  # somebody else was answered meanwhile
                return
            self._cause, self._words = cause, words
            if self._state is BreakerState.OPEN:
                self._probes.back_off(now)
            else:
                self._state = BreakerState.OPEN
                self._probes.restart(now)
                log.warning("%s does not answer (%s)", self._server, words)
            self.condition.notify_all()

    # --- with the lock held ---------------------------------------------------------------------------------

    def _failing_for(self) -> float:
        since = self._answers.failing_since
        return 0.0 if since is None else self.clock.monotonic() - since

    def _note(self, cause: Cause, words: str, began: float) -> None:
        self._cause, self._words = cause, words
        self._answers.failed(began)

    def _suspect(self) -> None:
        self._state = BreakerState.SUSPECTED
        self.condition.notify_all()

    def _want(self) -> None:
        self._probes.want()
        self.condition.notify_all()
