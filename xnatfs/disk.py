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
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xnatfs.errors import Cause, Failure

_PIECE_BYTES = 2**20
_PROBE_BYTES = 2**16
# Between two disks, or where the kernel or the disk cannot do it.
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class OpenedFile:
    """An open file of something that is kept; a `tree.node.OpenContent`.

    Args:
        fd: it is closed with this.
        stamp: names its content.
        closed: called once it is.
    """

    def __init__(self, fd: int, stamp: str, closed: Callable[[], None] = lambda: None) -> None:
        self._fd = fd
        self._closed = closed
        self.size = os.fstat(fd).st_size
        self.stamp = stamp

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, shorter only at the end."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """No more reads."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._closed()


def disk_failure(error: OSError | sqlite3.Error, subject: str) -> Failure:
    """What an error of the disk, or of a database on it, means: NO_SPACE if the disk is full or the user's
    quota used up, else CACHE_BROKEN.

    Args:
        subject: the folder or file.
    """
    if isinstance(error, OSError):
        full = _is_full(error)
    else:
        # SQLite says "disk I/O error" where the quota is used up.
        full = "full" in str(error) or ("disk I/O" in str(error) and _takes_nothing(Path(subject)))
    detail = str(error)
    if isinstance(error, OSError) and error.strerror:
        elsewhere = error.filename if error.filename not in (None, subject) else ""
        detail = f"{elsewhere}: {error.strerror}" if elsewhere else error.strerror
    return Failure(Cause.NO_SPACE if full else Cause.CACHE_BROKEN, subject, detail)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _takes_nothing(place: Path) -> bool:
    """Whether the disk of a folder or file takes no more bytes of this user."""
    folder = place if place.is_dir() else place.parent
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            write_all(probe.fileno(), bytes(_PROBE_BYTES), 0)
            os.fsync(probe.fileno())
    except OSError as error:
        return _is_full(error)
    return False


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


def copy_part(source: int, target: int, offset: int, count: int) -> int:
    """Copy `count` bytes at `offset` of an open file to the same place of another; returns how many came,
    fewer only at the end of the file. Within a disk the kernel copies them, or lets both files share them.

    Raises:
        OSError: they cannot be read or written.
    """
    done = 0
    while done < count:
        try:
            copied = os.copy_file_range(source, target, count - done, offset + done, offset + done)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            break
        if not copied:
            break
        done += copied
    while done < count and (piece := os.pread(source, min(_PIECE_BYTES, count - done), offset + done)):
        done = write_all(target, piece, offset + done) - offset
    return done


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
