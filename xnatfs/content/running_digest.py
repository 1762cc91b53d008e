"""The MD5 of a large file, counted along while its bytes pass in order, and completed from the disk.

Used by `content.digest_check`.
Threading: any thread; a lock, held while bytes are summed.
"""

from __future__ import annotations

import hashlib
import os
import threading


class RunningDigest:
    """The MD5 of one file so far."""

    def __init__(self) -> None:
        self._digest = hashlib.md5(usedforsecurity=False)
        self._lock = threading.Lock()
        self.length = 0  # bytes from the start that are in it

    def pass_by(self, position: int, piece: bytes) -> None:
        """These bytes were received; two streams may pass the same place."""
        with self._lock:
            if position <= self.length < position + len(piece):
                self._digest.update(memoryview(piece)[self.length - position :])
                self.length = position + len(piece)

    def complete(self, fd: int, size: int) -> str:
        """The MD5 of all `size` bytes, as hex; what did not pass in order is read from `fd`.

        Raises:
            EOFError: the file has fewer bytes.
        """
        with self._lock:
            while self.length < size:
                piece = os.pread(fd, 2**20, self.length)
                if not piece:
                    raise EOFError
                self._digest.update(piece)
                self.length += len(piece)
            return self._digest.hexdigest()
