"""What a download costs here and now, and which way is the cheapest. The numbers are measured as the mount works.

Used by `transfers` and `batches`. The model, in seconds:

    a request       latency (from asking to the first byte of the answer)
    its body        bytes / rate
    n single files  n x latency + bytes / rate      (a reader opens one after the other)
    a resource      latency + all its bytes / rate  (one zip, whatever is already here)

The rate is that of the line, over all streams together: a second stream on a full line does not make it faster.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 0.3  # of a new measurement in the running mean
_LEAST_BYTES = 64 * 1024  # smaller bodies say nothing about the rate


class Line:
    """The line to one server.

    Args:
        latency: first guess, seconds.
        rate: first guess, bytes a second. Both are replaced by what is measured.
    """

    def __init__(self, latency: float = 0.05, rate: float = 50e6) -> None:
        self._lock = threading.Lock()
        self._latency = latency
        self._rate = rate
        self._measured_latency = self._measured_rate = False
        self._streams = 0
        self._busy_since = 0.0
        self._bytes = 0

    @property
    def latency(self) -> float:
        """Seconds from a request to its answer."""
        return self._latency

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._rate

    def answered(self, seconds: float) -> None:
        """A request for a file was answered."""
        with self._lock:
            self._latency = seconds if not self._measured_latency else self._latency + _SHARE * (seconds - self._latency)
            self._measured_latency = True

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A body is being received; `received` counts its bytes."""
        with self._lock:
            if self._streams == 0:
                self._busy_since, self._bytes = time.monotonic(), 0
            self._streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1
                self._measure(idle=self._streams == 0)

    def received(self, count: int) -> None:
        """Bytes of a body arrived."""
        with self._lock:
            self._bytes += count
            if time.monotonic() - self._busy_since > 1.0:
                self._measure(idle=False)

    def waited(self) -> None:
        """A stream is held up by its reader, not by the line: what was measured so far is no rate."""
        with self._lock:
            self._busy_since, self._bytes = time.monotonic(), 0

    def singly(self, files: float, size: float) -> float:
        """Seconds for `files` files of `size` bytes together, opened one after the other."""
        return files * self._latency + size / self._rate

    def at_once(self, size: float) -> float:
        """Seconds for `size` bytes in one answer."""
        return self._latency + size / self._rate

    def _measure(self, *, idle: bool) -> None:
        seconds = time.monotonic() - self._busy_since
        if self._bytes >= _LEAST_BYTES and seconds > 0:
            rate = self._bytes / max(seconds, 1e-4)
            self._rate = rate if not self._measured_rate else self._rate + _SHARE * (rate - self._rate)
            self._measured_rate = True
        if not idle or self._bytes >= _LEAST_BYTES:
            self._busy_since, self._bytes = time.monotonic(), 0
