"""Files of this machine: written whole or not at all, summed, and what a failure of the disk means.

Used wherever something is kept.
Threading: any thread; no state.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from xnatfs.errors import Cause, Failure

_PIECE_BYTES = 2**20


def disk_failure(error: OSError, subject: str) -> Failure:
    """What a disk's error means: NO_SPACE if the disk is full or the user's quota used up, else
    CACHE_BROKEN.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Failure(Cause.NO_SPACE if full else Cause.CACHE_BROKEN, subject, str(error))


def write_all(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of it at `offset`; returns where it ends. A disk that is nearly full takes a part, and says
    so only the next time.

    Raises:
        OSError: the rest cannot be written.
    """
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        offset += count
        view = view[count:]
    return offset


def md5_of(fd: int) -> str:
    """The MD5 of an open file's whole content, as hex.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    position = 0
    while piece := os.pread(fd, _PIECE_BYTES, position):
        digest.update(piece)
        position += len(piece)
    return digest.hexdigest()


def write_private_json(path: Path, value: Any) -> None:
    """Put a file in place that only this user can read: whole, or as it was, also after a power cut.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    draft.unlink(missing_ok=True)  # of a process of the same number that was killed
    try:
        # O_EXCL: a name that somebody put there is not written through.
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
