"""How many streams at once the line to one server rewards, found out by trying.

Used by `content.stream_scheduler` and `content.zip_scheduler`, which begin and end the streams; each counts
its bytes through `content.context`. Many lines limit each connection (window over round trip, TLS on one core
of the server, a proxy), others only all of them together, and nothing tells but a measurement:

- While so many streams flow, their sum is measured in short windows. Then more are allowed for a trial, twice
  as many, or four times as many after a rise by nearly all that was possible. Where the sum rose by a fifth
  in two windows they are kept (in one, if it rose by nearly all that was possible), else given up, and the
  next trial comes later and later.
- A stream flows from its first piece on: what came before is the server's answer and TCP's slow start. One
  that waits for its reader does not flow. A window ends, unjudged, whenever the number of flowing streams
  changes; but where one ended and the next begins at once, it is the same one.
- No trial while this process is what limits the rate.
- What was found is forgotten after ten minutes, and the next trial goes straight to it; so does the first one
  of the next mount.

Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

RISE = 1.2  # of the sum, by which a trial succeeds
_NEAR_ALL = 0.8  # of the rise that was possible, after which the next trial takes four times as many
_WINDOW_S = 0.1  # a rate is measured over at least this long ...
_WINDOW_PIECES = 6  # ... and so many pieces a stream: fewer, and where a window begins and ends counts
_LONG_PIECES = 4  # a stream of fewer is none that a rate can be measured of
_FOLLOWS_S = 0.25  # within which the next one takes its place
_UNUSED_S = 3.0  # a trial that nobody made use of ends
_AGREEING = 2  # windows that decide a trial: what else the machine does shows in single ones
_FIRST_RETRY_S = 0.5  # until the next trial after one that failed; four times as long after each ...
_LAST_RETRY_S = 120.0  # ... up to this
FORGET_S = 600.0
_BUSY = 0.8  # of one core used by this process: it would not take more streams faster


class StreamMeter:
    """One body that is being received."""

    __slots__ = ("_tuner", "flowing", "pieces")

    def __init__(self, tuner: StreamTuner) -> None:
        self._tuner = tuner
        self.flowing = False
        self.pieces = 0

    def received(self, count: int) -> None:
        """A piece of so many bytes arrived."""
        self._tuner._received(self, count)

    def wait(self) -> None:
        """It is held up from here on, not by the line."""
        self.pieces = 0
        self._tuner._stop(self)


@dataclass(frozen=True)
class _Trial:
    base: int  # streams, and ...
    rate: float  # ... their sum in bytes a second, before it
    target: int  # streams
    begun: float
    rose: int = 0  # windows so far in which the sum had risen ...
    fell: int = 0  # ... and had not


class _Window:
    """The rate of the streams that flow, since their number changed last. Guarded by the tuner's lock.

    Args:
        clock: seconds.
        processor: seconds of processor time that this process used.

    Attributes:
        flowing: streams, with those that ended just now and whose places are kept.
    """

    def __init__(self, clock: Callable[[], float], processor: Callable[[], float]) -> None:
        self.clock = clock
        self._processor = processor
        self.flowing = 0
        self._ended: deque[float] = deque()  # when those ended whose places are kept
        self._bytes = 0
        self._pieces = 0
        self._since = 0.0
        self._used = 0.0

    @property
    def moving(self) -> int:
        """Streams that bytes come from."""
        return self.flowing - len(self._ended)

    def _restart(self) -> None:
        self._since, self._used = self.clock(), self._processor()
        self._bytes = self._pieces = 0

    def _forget_ended(self) -> None:
        """No other stream took the place of one that ended."""
        while self._ended and self.clock() - self._ended[0] > _FOLLOWS_S:
            self._ended.popleft()
            self.flowing -= 1
            self._restart()

    def add(self, meter: StreamMeter, count: int) -> tuple[float, float] | None:
        """A piece arrived; if the window is long enough, bytes a second and the share of a core used."""
        self._forget_ended()
        meter.pieces += 1
        if not meter.flowing:
            meter.flowing = True
            if not self._ended:
                self.flowing += 1
                self._restart()
                return None
            self._ended.popleft()
        self._bytes += count
        self._pieces += 1
        seconds = self.clock() - self._since
        if seconds < _WINDOW_S or self._pieces < _WINDOW_PIECES * self.flowing:
            return None
        found = self._bytes / seconds, (self._processor() - self._used) / seconds
        self._restart()
        return found

    def stop(self, meter: StreamMeter) -> None:
        """It ended, or waits."""
        self._forget_ended()
        if not meter.flowing:
            return
        meter.flowing = False
        if meter.pieces >= _LONG_PIECES:
            self._ended.append(self.clock())
            return
        self.flowing -= 1
        self._restart()


class StreamTuner:
    """The streams of one server.

    Args:
        most: streams at once, at most.
        hint: as many were worth it the last time; 0: not known.
        learnt: called with what was found worth it, with no lock held.
        clock: seconds.
        processor: seconds of processor time that this process used.
    """

    def __init__(
        self,
        most: int,
        hint: int = 0,
        learnt: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self._most = max(1, most)
        self._hint = min(hint, self._most)
        self._learnt = learnt
        self._lock = threading.Lock()
        self._kept = 1
        self._kept_at: float | None = None
        self._trial: _Trial | None = None
        self._retry_at = 0.0
        self._retry_s = _FIRST_RETRY_S
        self._users = 0
        self._window = _Window(clock, processor)
        self._rates: deque[tuple[int, float]] = deque(maxlen=3)  # of the last windows, with their streams

    # --- for who begins streams -----------------------------------------------------------------------------

    @property
    def allowed(self) -> int:
        """Streams that are worth having at once now, over all transfers: those kept, or those of a trial."""
        with self._lock:
            return self._allowed()

    @property
    def flowing(self) -> int:
        """Streams that bytes come from."""
        with self._lock:
            return self._window.moving

    @property
    def settled(self) -> bool:
        """Whether one stream is known to be enough, for the moment."""
        with self._lock:
            return self._allowed() == 1 and self._window.clock() < self._retry_at

    @property
    def share(self) -> int:
        """Of `allowed`, those for one of the transfers that could use more."""
        with self._lock:
            return max(1, self._allowed() // max(1, self._users))

    @contextmanager
    def user(self) -> Iterator[None]:
        """A transfer that could use more than one stream is under way."""
        self.join()
        try:
            yield
        finally:
            self.leave()

    def join(self) -> None:
        """See `user`."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """See `user`."""
        with self._lock:
            self._users -= 1

    @contextmanager
    def stream(self) -> Iterator[StreamMeter]:
        """A body is being received."""
        meter = StreamMeter(self)
        try:
            yield meter
        finally:
            self._stop(meter)

    def refused(self) -> None:
        """A stream that was begun beside others failed: perhaps the server wants no more."""
        with self._lock:
            now = self._window.clock()
            self._trial = None
            self._kept, self._hint = max(1, self._kept // 2), 0
            self._retry_at, self._retry_s = now + self._retry_s, min(4 * self._retry_s, _LAST_RETRY_S)

    # --- the measurement ------------------------------------------------------------------------------------

    def _received(self, meter: StreamMeter, count: int) -> None:
        found = 0
        with self._lock:
            window = self._window.add(meter, count)
            if window is not None:
                rate, used = window
                found = self._judge(rate, busy=used > _BUSY)
        if found:
            self._learnt(found)

    def _stop(self, meter: StreamMeter) -> None:
        with self._lock:
            self._window.stop(meter)

    # --- all of it is called with the lock held -------------------------------------------------------------

    def _allowed(self) -> int:
        now = self._window.clock()
        if self._kept_at is not None and now - self._kept_at > FORGET_S:
            self._hint, self._kept, self._kept_at = self._kept, 1, None
            self._retry_at, self._retry_s = 0.0, _FIRST_RETRY_S
        if self._trial is not None and now - self._trial.begun > _UNUSED_S:
            self._trial = None
        return self._kept if self._trial is None else max(self._kept, self._trial.target)

    def _judge(self, rate: float, *, busy: bool) -> int:
        """A window ended; returns the streams that were found worth it, 0 if nothing new was found."""
        streams, now = self._window.flowing, self._window.clock()
        self._allowed()  # forgets what is too old
        trial = self._trial
        if trial is not None:
            return self._judge_trial(trial, streams, rate, now, busy=busy) if streams > trial.base else 0
        self._rates.append((streams, rate))
        if streams >= self._kept and streams < self._most and now >= self._retry_at and not busy:
            base = max(one for number, one in self._rates if number == streams)
            self._try(streams, base, max(2 * streams, self._hint), now)
        return 0

    def _judge_trial(self, trial: _Trial, streams: int, rate: float, now: float, *, busy: bool) -> int:
        possible = streams / trial.base
        rise = rate / trial.rate
        near_all = rise - 1 >= _NEAR_ALL * (possible - 1)
        trial = replace(trial, rose=trial.rose + (rise >= RISE), fell=trial.fell + (rise < RISE))
        if not near_all and max(trial.rose, trial.fell) < _AGREEING:
            self._trial = trial
            return 0
        self._trial = None
        self._rates.clear()
        if rise < RISE:
            self._retry_at = now + self._retry_s
            self._retry_s = min(4 * self._retry_s, _LAST_RETRY_S)
            self._hint = 0
            return 0
        # Those that filled the line, and one more, since they were not all alike.
        self._kept = streams if near_all else min(streams, math.ceil(trial.base * rise) + 1)
        self._kept_at, self._retry_s, self._retry_at = now, _FIRST_RETRY_S, now
        if streams < self._most and not busy:
            self._try(streams, rate, (4 if near_all else 2) * streams, now)
        return self._kept

    def _try(self, streams: int, rate: float, target: int, now: float) -> None:
        self._trial = _Trial(streams, rate, min(self._most, target), now)
