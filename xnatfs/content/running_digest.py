"""The MD5 of a large file, counted along while its bytes pass, and caught up from the disk where they came
out of order.

Used by `content.digest_check`.
Threading: any thread; a lock, held while bytes are summed. Whoever finds it taken goes on: what it brought is
summed by the one who has it, or by the next.
"""

from __future__ import annotations

import hashlib
import os
import threading

from xnatfs.cache.partial import Partial

_PIECE_BYTES = 2**20
_AT_ONCE_BYTES = 16 * 2**20  # 25 ms


class RunningDigest:
    """The MD5 of one file so far."""

    def __init__(self) -> None:
        self._digest = hashlib.md5(usedforsecurity=False)
        self._lock = threading.Lock()
        self.length = 0  # bytes from the start that are in it

    def pass_by(self, position: int, piece: bytes) -> None:
        """These bytes were received; two streams may pass the same place."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if position <= self.length < position + len(piece):
                self._digest.update(memoryview(piece)[self.length - position :])
                self.length = position + len(piece)
        finally:
            self._lock.release()

    def catch_up(self, partial: Partial) -> None:
        """Sum what is here and did not pass in order, some of it: who calls this has bytes to receive."""
        if partial.present_from(self.length) <= self.length or not self._lock.acquire(blocking=False):
            return
        try:
            most = self.length + _AT_ONCE_BYTES
            while (end := min(most, partial.present_from(self.length))) > self.length:
                piece = os.pread(partial.fd, min(_PIECE_BYTES, end - self.length), self.length)
                if not piece or not partial.has(self.length, self.length + len(piece)):
                    return  # dropped while it was read
                self._digest.update(piece)
                self.length += len(piece)
        finally:
            self._lock.release()

    def complete(self, fd: int, size: int) -> str:
        """The MD5 of all `size` bytes, as hex; what did not pass in order is read from `fd`.

        Raises:
            EOFError: the file has fewer bytes.
        """
        with self._lock:
            while self.length < size:
                piece = os.pread(fd, _PIECE_BYTES, self.length)
                if not piece:
                    raise EOFError
                self._digest.update(piece)
                self.length += len(piece)
            return self._digest.hexdigest()
