"""When a server that is away is probed next.

Used by `breaker`. The rule:

- Probes come after 1, 1.5, 2.2 ... 15 s, so that the server is found again by itself; after 3 s where
  somebody asks.
- Where a probe fails within a moment (refused: 1 ms), whoever asks is kept waiting for one, so the first to
  ask after a restart gets through.
- If nobody asked for anything for `TIRED` seconds they end, and the next to ask waits for one.

Threading: one thread at a time; the breaker's lock is held. Reads no clock: the times are given.
"""

from __future__ import annotations

FIRST, GROWTH, LONGEST = 1.0, 1.5, 15.0  # seconds between probes
_ASKED = 3.0  # ... and at least this where somebody asks
TIRED = 300.0
_QUICK = 0.1  # seconds: who asks waits for a probe that is as quick as this


class ProbeSchedule:
    """The probes of one server, by number: so many have begun, so many have ended, so many are wanted.

    Attributes:
        ended: the number of the last probe without an answer.
        wanted: the number of the last one that is to begin as soon as possible.
    """

    def __init__(self, now: float) -> None:
        self.ended = 0
        self.wanted = 0
        self._begun = 0
        self._began_at = self._ended_at = now  # the last one
        self._next_at = now
        self._in_time = False  # the last one began when its time had come, not sooner because somebody asked
        self._took = _QUICK
        self._delay = FIRST
        self._asked_at = now

    def asked(self, now: float) -> None:
        """Somebody wants something of the server."""
        self._asked_at = now

    def tired(self, now: float) -> bool:
        """Whether nobody has wanted anything for so long that the probes end."""
        return now - self._asked_at > TIRED

    def want(self) -> None:
        """Have one begin as soon as possible; not one that began before: the server may be there since."""
        self.wanted = self._begun + 1

    @property
    def quick(self) -> bool:
        """Whether a probe takes but a moment."""
        return self._took < _QUICK

    def is_overdue(self, now: float) -> bool:
        """Whether the last one is too long ago for somebody who asks."""
        return now - self._ended_at >= _ASKED

    def due(self, now: float) -> float | None:
        """In how many seconds the next one begins; 0: now; None: on demand."""
        return 0.0 if self.wanted > self._begun else self.next_in(now)

    def next_in(self, now: float) -> float | None:
        """The same if none is wanted sooner."""
        return None if self.tired(now) else max(0.0, self._next_at - now)

    def begin(self, now: float) -> None:
        """One is sent now; never two at a time."""
        self._begun += 1
        self._began_at = now
        self._in_time = now >= self._next_at

    def end(self, now: float) -> None:
        """It had no answer."""
        self.ended = self._begun
        self._ended_at = now
        self._took = now - self._began_at

    def restart(self, now: float) -> None:
        """The server has just been found to be away: begin with the shortest pause."""
        self._delay = FIRST
        self._asked_at = now
        self._next_at = now + self._delay

    def back_off(self, now: float) -> None:
        """It is still away: a longer pause, unless the last probe came sooner than its time."""
        self._delay = min(LONGEST, self._delay * (GROWTH if self._in_time else 1))
        self._next_at = now + self._delay
