"""Files being written: one at a time (`CacheWriter`), or many in a row for a zip's members (`BatchWriter`).

Used by `content`; made by `ContentCache`. Bytes are reserved before they are written; each file
is flock'ed while it is written, so that one nobody holds is known to be left from a crash.
Threading: one writer each; readers may `os.pread` from a draft's descriptor meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from xnatfs.cache.space import CacheSpace
from xnatfs.config import private_folder
from xnatfs.disk import disk_failure, write_all
from xnatfs.errors import Cause, Failure

RESERVE_STEP_BYTES = 4 * 2**20  # a draft whose size is not known reserves ahead in such steps


def locked(path: Path) -> int | None:
    """A descriptor of the file at `path`, made if it is missing, with its flock; None if another process has
    that.

    Whoever removes or renames such a file does it under its lock, so after the lock is had the name is looked
    at again. A folder that somebody removed by hand is made again.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            private_folder(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        os.close(fd)


def _new(path: Path) -> int:
    """A descriptor of a new, locked file under a name nobody else knows."""
    try:
        fd = locked(path)
    except OSError as error:
        raise disk_failure(error, str(path.parent)) from error
    if fd is None:
        raise Failure(Cause.CACHE_BROKEN, str(path), "another process locked it")
    return fd


class CacheWriter:
    """A file being written. One writer; readers may `os.pread` what is already there from `fd`."""

    def __init__(self, space: CacheSpace, name: str, path: Path, reserved: int) -> None:
        self._space = space
        self.name = name
        self._path = path
        self._reserved = reserved
        self.written = 0
        self.fd = _new(path)

    def write(self, piece: bytes | memoryview) -> None:
        """Append.

        Raises:
            Failure: NO_SPACE if the cap or the disk is full.
        """
        if self.written + len(piece) > self._reserved:
            more = max(RESERVE_STEP_BYTES, self.written + len(piece) - self._reserved)
            self._space.reserve_more(self.name, more)
            self._reserved += more
        try:
            self.written = write_all(self.fd, piece, self.written)
        except OSError as error:
            raise disk_failure(error, str(self._path.parent)) from error

    def rewind(self) -> None:
        """Write from the start again, over what is there: readers of the part already served go on
        meanwhile.
        """
        self.written = 0

    def commit(self, key: str, *, last_modified: str, verified: str) -> None:
        """Rename into place under `key`, as a whole and checked content."""
        self._space.store(self.name, self.fd, self.written, self._path, key, last_modified, verified)

    def close(self) -> None:
        """Close the descriptor; without a commit the bytes are gone."""
        if self.fd >= 0:
            self._space.drop_draft(self.name, self._path)
            os.close(self.fd)
            self.fd = -1


class BatchWriter:
    """Many small files written one after the other, for a zip's members: one reservation, one transaction for
    a dozen files.

    One writer. A file is an object as soon as `flush` has entered it.
    """

    def __init__(self, space: CacheSpace, name: str, size: int) -> None:
        self._space = space
        self.name = name
        self._left = size  # of the reservation
        self._begun = 0
        self._stored: list[tuple[str, int, str]] = []
        self._stored_fds: list[
            int
        ] = []  # in place, not in the index yet: their locks tell a sweep that somebody looks after them
        self._lock_path = space.directory / "drafts" / name
        self._lock = _new(self._lock_path)  # held as long as the reservation lives
        self._path = f"{self._lock_path}.m"
        self._fd = -1
        self._written = 0

    def begin(self, size: int) -> None:
        """Start the next file, of `size` bytes.

        Raises:
            Failure: NO_SPACE if the reservation is used up and no more can be had: a file that was here when
                the pile was made may have been evicted for it since.
        """
        self.drop()
        if size > self._left:
            self._space.reserve_more(self.name, size - self._left)
            self._left = size
        self._left -= size
        self._begun = size
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise disk_failure(error, self._path) from error

    def write(self, piece: bytes) -> None:
        """Append to it."""
        try:
            self._written = write_all(self._fd, piece, self._written)
        except OSError as error:
            raise disk_failure(error, self._path) from error

    @property
    def written(self) -> int:
        """Bytes of the file begun."""
        return self._written

    def keep(self, key: str, verified: str) -> None:
        """The file is whole and checked."""
        self._space.into_place(self._path, key)
        self._stored.append((key, self._written, verified))
        self._stored_fds.append(self._fd)
        self._fd, self._written, self._begun = -1, 0, 0

    def drop(self) -> None:
        """Throw the file begun away."""
        if self._fd >= 0:
            os.close(self._fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        self._left += self._begun
        self._fd, self._written, self._begun = -1, 0, 0

    @property
    def waiting(self) -> int:
        """Files kept that are not entered yet."""
        return len(self._stored)

    def flush(self) -> None:
        """Enter what was kept."""
        if self._stored:
            stored, self._stored = self._stored, []
            fds, self._stored_fds = self._stored_fds, []
            try:
                self._space.store_many(self.name, stored)
            finally:
                for fd in fds:
                    os.close(fd)

    def close(self) -> None:
        """Enter what was kept, give the rest of the reservation back."""
        try:
            self.flush()
        finally:
            self.drop()
            if self._lock >= 0:
                self._space.drop_draft(self.name, self._lock_path)
                os.close(self._lock)
                self._lock = -1
