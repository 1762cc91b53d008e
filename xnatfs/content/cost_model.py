"""What a download costs here and now, and which way is the cheapest. The numbers are measured as the mount
works.

Used by `content.zip_scheduler` and `content.zip_batch`. The model, in seconds:

    a request       latency + entries x parsing (from asking to the first byte of the answer)
    its body        bytes / rate
    n single files  n requests + bytes / rate      (a reader opens one after the other)
    a resource      a request + all its bytes / rate  (one zip, whatever is already here)

XNAT parses the catalogue of a file's resource at each request for it, about 65 us an entry: a file out of
5,000 takes 0.3 s on the fastest line, one out of three nothing (xnat-rest.md 13). So the two are kept apart:
a large resource says nothing of the way to a small one. The rate is that of the line, over all streams
together; how many it takes to fill it is found out by `content.stream_tuner`.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from xnatfs.content.stream_tuner import StreamTuner

_RATE_WEIGHT = 0.3  # of a new measurement in the running mean
_ANSWER_DECAY = 0.8  # of the weight of an answer, at each new one
_PARSING_S_PER_ENTRY = 65e-6  # until it is measured ...
_PARSING_WEIGHT = 1e4  # ... and the weight of that guess: as two answers that differ by some 100 entries
_MIN_RATE_BYTES = 64 * 1024  # smaller bodies say nothing about the rate


class LinkModel:
    """The line to one server.

    Args:
        latency: first guess, seconds.
        rate: first guess, bytes a second. Both are replaced by what is measured.
        streams: how many fill it.

    Attributes:
        received_bytes: of all bodies so far.
    """

    def __init__(self, latency: float = 0.05, rate: float = 50e6, streams: StreamTuner | None = None) -> None:
        self.streams = StreamTuner(1) if streams is None else streams
        self._lock = threading.Lock()
        self._latency = latency
        self._rate = rate
        self._parsing = _PARSING_S_PER_ENTRY
        # Weighted sums: of 1, entries, their squares, seconds, entries x seconds.
        self._answers: tuple[float, ...] = (0.0,) * 5
        self._measured_rate = False
        self._open = 0  # streams
        self._busy_since = 0.0
        self._bytes = 0  # of the streams that are open now
        self.received_bytes = 0

    @property
    def latency(self) -> float:
        """Seconds from a request to its answer, without what the server does meanwhile for a long
        catalogue.
        """
        return self._latency

    @property
    def parsing(self) -> float:
        """Seconds that each entry of a resource's catalogue adds to that."""
        return self._parsing

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._rate

    def answered(self, seconds: float, entries: int) -> None:
        """A request for a file, or a zip, of a resource with so many entries was answered.

        The straight line through the last answers, time over entries, is what the two cost. As long as these
        do not differ in entries, an entry costs what is usual, but never more than all there was.
        """
        with self._lock:
            answer = (1.0, entries, entries * entries, seconds, entries * seconds)
            self._answers = tuple(
                _ANSWER_DECAY * old + new for old, new in zip(self._answers, answer, strict=True)
            )
            count, x, xx, y, xy = self._answers
            slope = (xy - x * y / count + _PARSING_WEIGHT * _PARSING_S_PER_ENTRY) / (
                xx - x * x / count + _PARSING_WEIGHT
            )
            self._parsing = min(max(0.0, slope), y / x)
            self._latency = max(0.0, (y - self._parsing * x) / count)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A body is being received; `received` counts its bytes."""
        with self._lock:
            if self._open == 0:
                self._busy_since, self._bytes = time.monotonic(), 0
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                self._measure(idle=self._open == 0)

    def received(self, count: int) -> None:
        """Bytes of a body arrived."""
        with self._lock:
            self._bytes += count
            self.received_bytes += count
            if time.monotonic() - self._busy_since > 1.0:
                self._measure(idle=False)

    def waited(self) -> None:
        """A stream is held up by its reader, not by the line: what was measured so far is no rate."""
        with self._lock:
            self._busy_since, self._bytes = time.monotonic(), 0

    def singly(self, files: float, size: float, entries: int) -> float:
        """Seconds for `files` files of `size` bytes together, opened one after the other, of a resource with
        so many entries.
        """
        return files * self._request(entries) + size / self._rate

    def at_once(self, size: float, entries: int) -> float:
        """Seconds for `size` bytes in one answer about a resource with so many entries."""
        return self._request(entries) + size / self._rate

    def _request(self, entries: int) -> float:
        return self._latency + entries * self._parsing

    def _measure(self, *, idle: bool) -> None:
        seconds = time.monotonic() - self._busy_since
        if self._bytes >= _MIN_RATE_BYTES and seconds > 0:
            rate = self._bytes / max(seconds, 1e-4)
            self._rate = rate if not self._measured_rate else self._rate + _RATE_WEIGHT * (rate - self._rate)
            self._measured_rate = True
        if not idle or self._bytes >= _MIN_RATE_BYTES:
            self._busy_since, self._bytes = time.monotonic(), 0
