"""What the state machine of `test_machine` knows: the true bytes of every version of every file, and what a
handle may show.
"""

from __future__ import annotations

import errno
import faulthandler
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from xnatfs.demo.model import CatalogEntry, ComputedContent

T = TypeVar("T")
KIB = 1024
PATIENCE = 60.0  # seconds an operation may take
EXCUSED = (errno.EIO, errno.ESTALE)  # of a file that changed on the server


@dataclass
class Truth:
    """One file on the server: all its versions so far, the last one is there now."""

    path: str  # below the mountpoint
    entry: CatalogEntry
    digest: bool  # whether the catalog has one
    versions: list[ComputedContent]
    listed: int = 0  # the version the mount has been told of at least

    @property
    def current(self) -> int:
        return len(self.versions) - 1

    @property
    def size_told(self) -> bool:
        """Whether the catalog's size is the true one."""
        return self.entry.catalog_size is None


@dataclass
class Opened:
    """An open handle and the versions it may still be of."""

    truth: Truth
    handle: int
    size: int
    low: int  # nothing older than this may be shown
    position: int = 0
    may_be: set[int] = field(default_factory=set)

    def check(self, offset: int, length: int, data: bytes) -> None:
        """What was read has to be of one version, the same one every time."""
        assert len(data) == max(0, min(length, self.size - offset)), (
            f"{self.truth.path}: short or long at {offset}"
        )
        candidates = self.may_be or {
            number for number in range(self.low, self.truth.current + 1) if self._fits(number)
        }
        self.may_be = {
            number for number in candidates if self.truth.versions[number].read(offset, len(data)) == data
        }
        assert self.may_be, f"{self.truth.path}: wrong bytes at {offset}, not of version {sorted(candidates)}"

    def _fits(self, number: int) -> bool:
        return self.truth.versions[number].size == self.size

    @property
    def changed(self) -> bool:
        """Whether the server has another version than the oldest this may be."""
        return self.truth.current > self.low


def watched(what: str, action: Callable[[], T]) -> T:
    """Do something that must not hang: all threads are shown if it does."""
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(action())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name=f"watched {what}", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        raise AssertionError(f"{what} hangs")
    if failed:
        raise failed[0]
    return done[0]
