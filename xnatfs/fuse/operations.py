"""What both FUSE adapters share: extended attributes, `df`, interrupts, the end of the mount.

Used by `adapter` (libfuse's high-level interface: paths) and by `lowlevel` (nodes), which translate, and know
how the kernel is asked and what of an open file it keeps.
Threading: any thread; libfuse calls from up to 256 threads of its own.
"""

from __future__ import annotations

import errno
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xnatfs.concurrency.waiting import interruptible, wait_until
from xnatfs.config import Limits
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.vfs import XATTR_PREFIX, Vfs

NO_ATTRIBUTE = errno.ENODATA
_SPREAD = 0x9E3779B1  # odd, and about 2**32 divided by the golden ratio

BLOCK_SIZE = 4096  # bytes, of `df`
MAX_NAME = 255
READ_SIZE = 131072  # bytes of one read of the kernel
# How the programs open a folder that walk through everything and take names from it: `find`, `du`, `grep -r`,
# `chmod -R`, `rm -r` (fts(3) of gnulib and the C library). `ls`, `cp -r`, the shells' `*` and Python open it
# without O_NOFOLLOW, as opendir(3) does; `tar` and `rsync`, which read the files, without O_DIRECTORY.
_WALKING = os.O_NOFOLLOW | os.O_DIRECTORY


class Operations:
    """FUSE operations on a `Vfs`.

    Args:
        vfs: the file system.
        limits: how long the kernel may keep names and attributes.
        started: called once, when the kernel has begun to send requests.
        watch: is notified of who opens folders and files.
    """

    def __init__(self, vfs: Vfs, limits: Limits, started: Callable[[], None], watch: IndexerWatch) -> None:
        self._vfs = vfs
        self._limits = limits
        self._started = started
        self.opened_by = watch.opened
        self.ending = threading.Event()
        # For `status` and for tests; races may lose a few counts.
        self.counts = {"getattr": 0, "readdirplus": 0, "open": 0, "read": 0}

    def opened_by_walk(self, task: int, flags: int) -> bool:
        """A task (the kernel's word for a thread) opens a folder with these flags; whether it goes through
        everything, and nobody asked for this folder.
        """
        return self.opened_by(task, folder=True) or flags & _WALKING == _WALKING

    @abstractmethod
    def caller_interrupted(self) -> bool:
        """Whether the program whose request this thread serves is to end."""

    # --- the mount ------------------------------------------------------------------------------------------

    def space(self) -> tuple[int, int]:
        """`df`, in blocks, and how many are free: the space of the cache, which is where what is read goes;
        never asks the server, which has no such figures. No number of inodes, as on btrfs: nobody has counted
        the server's files.
        """
        size, free = self._vfs.room()
        return size // BLOCK_SIZE, free // BLOCK_SIZE

    # --- extended attributes --------------------------------------------------------------------------------

    def xattr(self, path: str, name: str) -> bytes:
        """One attribute. `ls -l` asks for three of its own per file: those are refused without looking up the
        path.
        """
        if not name.startswith(XATTR_PREFIX):
            raise OSError(NO_ATTRIBUTE, os.strerror(NO_ATTRIBUTE))
        with self.operation():
            return self._vfs.xattr(path, name)

    def xattrs(self, path: str) -> list[str]:
        """The names of the attributes."""
        with self.operation():
            return self._vfs.xattrs(path)

    # --- waiting --------------------------------------------------------------------------------------------

    def elsewhere(self, work: Callable[[], object]) -> None:
        """Make the kernel drop something, in a thread of its own, and wait for it, interruptibly: the kernel
        waits until pages of the file that another program is reading have arrived, which takes until that
        program's deadline if the server has fallen silent.

        Raises:
            Failure: INTERRUPTED, or TIMED_OUT.
        """
        condition = threading.Condition()
        done: list[bool] = []

        def run() -> None:
            work()
            with condition:
                done.append(True)
                condition.notify_all()

        threading.Thread(target=run, name="invalidate", daemon=True).start()
        with self.operation(), condition:
            wait_until(condition, lambda: bool(done), 2 * self._limits.progress_deadline)

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Within this block waits of this thread end when its caller is to end, or the mount."""
        with interruptible(self._interrupted):
            try:
                yield
            except OSError as error:
                # `cat` and others retry after EINTR, and would keep the mount from ending.
                if error.errno == errno.EINTR and self.ending.is_set():
                    raise OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED)) from None
                raise

    def _interrupted(self) -> bool:
        return self.ending.is_set() or self.caller_interrupted()


def shown_inode(*, inode32: bool) -> Callable[[int], int]:
    """What makes the inode number shown of a node's own."""
    return folded if inode32 else _as_it_is


def _as_it_is(inode: int) -> int:
    return inode


def folded(inode: int) -> int:
    """An inode number in 32 bits, the same in every mount. The low 20 bits count the files of a resource
    (`tree.node.inode_of`), which stay all different and, but for one wrap, in order; the rest is spread.
    """
    return ((inode >> 20) * _SPREAD + (inode & 0xFFFFF)) & 0xFFFFFFFF or 1


def nanoseconds(mtime: float) -> int:
    """A time for the kernel, to the microsecond. In one place, because a nanosecond's difference between a
    listing and a `stat` invalidates the page cache.
    """
    return round(mtime * 1e6) * 1000
