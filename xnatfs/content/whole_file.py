"""A file that is fetched whole, as its readers see it: they wait until it has been checked, or read what has
come where it turns out to be large.

Used by `content.manager`, one for all who have the file open; `content.transfer` fetches it. Of a large file
(the catalog's size was wrong, else it is read by ranges) the last block is held back until the MD5 agrees.
Threading: any thread; readers wait on the condition, which one worker notifies. No lock is held over I/O.
"""

from __future__ import annotations

import os
import threading
from enum import Enum, auto

from xnatfs.concurrency.waiting import wait_until
from xnatfs.content.context import TransferContext
from xnatfs.content.download_buffer import DownloadBuffer
from xnatfs.content.stream_activity import StreamActivity
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

_HELD_BACK = 128 * 1024  # one read of the kernel


class _State(Enum):
    WAITING = auto()  # nothing may be read, and the size may be wrong
    STREAMING = auto()  # it is large: what has come may be read, and the size is true
    COMPLETE = auto()  # whole and checked
    FAILED = auto()


class WholeFile:
    """One file being fetched whole, shared by all who read it meanwhile.

    Args:
        size: as the catalog (or what was learnt) says; the first answer corrects it.
    """

    def __init__(self, context: TransferContext, record: FileRecord, size: int) -> None:
        self._context = context
        self.record = record
        self.size = size
        self.last_modified = ""
        self.failure: Failure | None = None
        self.readers = 0
        self.closed = False  # nobody can join it any more
        self.available = 0  # bytes that may be read
        self.buffer = DownloadBuffer(context, record)
        self.activity = StreamActivity()
        self._state = _State.WAITING
        self._condition = threading.Condition()

    @property
    def stamp(self) -> str:
        """Tells two versions of a file without a digest apart."""
        return "" if self.record.digest else self.last_modified

    # --- readers --------------------------------------------------------------------------------------------

    def join(self) -> bool:
        """Count one reader more; False if the file is closed."""
        with self._condition:
            if not self.closed:
                self.readers += 1
            return not self.closed

    def open(self) -> WholeFileReader:
        """A reader, once reading may begin; the caller has joined.

        Raises:
            Failure: what keeps the file from being had; TIMED_OUT; INTERRUPTED.
        """
        try:
            with self._condition:
                wait_until(
                    self._condition,
                    lambda: self._state is not _State.WAITING,
                    self._context.limits.progress_deadline,
                    self._progress,
                )
                if self.failure is not None and not self.available:
                    raise self.failure
        except BaseException:
            self.leave()
            raise
        return WholeFileReader(self)

    def read(self, size: int, offset: int, length: int) -> bytes:
        """Bytes for a reader that opened the file when it had `size` bytes."""
        end = min(offset + length, size)
        if offset >= end:
            return b""
        with self._condition:
            wait_until(
                self._condition,
                lambda: self.available >= end or self._ended,
                self._context.limits.progress_deadline,
                self._progress,
            )
            if self.available < end and self.failure is not None:
                raise self.failure
            if self.size != size:
                raise Failure(Cause.CHANGED, self.record.uri)
            fd = self.buffer.fd
        return os.pread(fd, end - offset, offset)

    def leave(self) -> None:
        """One reader less. The last one closes what it read from, or lets the worker do it."""
        with self._condition:
            self.readers -= 1
            if self.readers == 0 and self._ended:
                self._close()
            elif self.readers == 0 and self.activity.silent:
                self.closed = True  # a later reader would share the end of this one
                self.activity.scope.end()  # nobody waits any more, and others may wait for its worker

    @property
    def _ended(self) -> bool:
        return self._state in (_State.COMPLETE, _State.FAILED)

    def _progress(self) -> int:
        """In the queue, anything that moves; once it is asked for, only its own pieces."""
        return self.activity.pieces if self.activity.scope.sent else self._context.progress

    # --- the worker -----------------------------------------------------------------------------------------

    def begin(self, size: int | None, last_modified: str) -> bool:
        """An answer says what the file is; whether it is so large that it is read while it comes.

        Raises:
            Failure: CHANGED if readers already have a part of another version.
        """
        if self.available and (last_modified != self.last_modified or size != self.size):
            raise Failure(Cause.CHANGED, self.record.uri)
        large = size is not None and size > self._context.limits.whole_file_check
        with self._condition:
            self.last_modified = last_modified
            if size is not None:
                self.size = size
                self._context.sizes.announce(self.record, size)
            if large:
                self._state = _State.STREAMING
                self._condition.notify_all()
        return large

    def advance(self) -> None:
        """More of a large file has been written."""
        servable = self.size - _HELD_BACK if self.record.digest else self.size
        with self._condition:
            self.available = max(self.available, min(self.buffer.written, servable))
            self._condition.notify_all()

    def complete(self) -> None:
        """All of it is here and checked."""
        with self._condition:
            self.available = self.size
            self._state = _State.COMPLETE
            self._condition.notify_all()

    def fail(self, failure: Failure) -> None:
        """It cannot be had; who reads what is not here gets this."""
        with self._condition:
            self.failure = failure
            self._state = _State.FAILED
            self._condition.notify_all()

    def still_wanted(self) -> bool:
        """Whether anybody waits for it. If not, close it to new readers: a late one would see a failure that
        a retry would cure.
        """
        with self._condition:
            self.closed = self.closed or self.readers == 0
            return not self.closed

    def close_if_unused(self) -> bool:
        """Close it if nobody reads; whether that is so. For when nobody writes."""
        with self._condition:
            if self.readers == 0:
                self._close()
            return self.readers == 0

    def _close(self) -> None:
        """Close what readers read from. Called with the condition held, when nobody reads and nobody
        writes.
        """
        self.closed = True
        self.buffer.close()


class WholeFileReader:
    """A file that is being fetched."""

    def __init__(self, file: WholeFile) -> None:
        self._file = file
        self.size = file.size
        self.stamp = file.stamp

    def read(self, offset: int, length: int) -> bytes:
        """See `manager.ContentReader`."""
        return self._file.read(self.size, offset, length)

    def close(self) -> None:
        """No more reads."""
        self._file.leave()
