"""Making the kernel drop its pages of a path, so that another version of the file can be read.

Used by `adapter`. There is no call for it. But if a file changes its type, the kernel treats it as another
file: on the first `stat` it marks its inode as bad, on the second it replaces it, with all its pages
(`fuse_make_bad` in its fs/fuse). So for a moment the path is reported as a socket, and the daemon itself asks
for its attributes through the mount.
Threading: any thread; one condition, not held while the kernel is asked.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import threading

from cachetools import LRUCache

from xnatfs.concurrency.waiting import wait_until
from xnatfs.fuse.page_cache import Pages
from xnatfs.vfs import Opened

_REMEMBERED = 4096  # paths
_AT_FDCWD, _AT_STATX_FORCE_SYNC, _STATX_TYPE = -100, 0x2000, 1

_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", lambda *_: -1)  # absent before glibc 2.28


class PageRevocation:
    """The paths whose pages the kernel is being made to drop.

    Args:
        pages: which versions are open.
        mountpoint: where the kernel is asked; "" if it is not to be, and nothing is ever revoked.
        timeout: seconds to wait for the revocation of the same path by another thread.
    """

    def __init__(self, pages: Pages, mountpoint: str, timeout: float) -> None:
        self._pages = pages
        self._mountpoint = mountpoint
        self._timeout = timeout
        self._condition = threading.Condition()
        self._paths: set[str] = set()
        self._counts: LRUCache[str, int] = LRUCache(_REMEMBERED)

    def reported_as_socket(self, path: str) -> bool:
        """Whether `stat` has to report this path as a socket just now."""
        return path in self._paths

    def count(self, path: str) -> int:
        """How often the pages of a path were revoked; -1 if they were just being, which this waits for. An
        open that sees another number at its end than at its beginning is one of an inode that the kernel
        marked as bad meanwhile: its reads would be EIO.

        Raises:
            Failure: INTERRUPTED, or TIMED_OUT.
        """
        with self._condition:
            if path not in self._paths:
                return self._counts.get(path, 0)
            wait_until(self._condition, lambda: path not in self._paths, self._timeout)
            return -1

    def revoke(self, path: str, opened: Opened) -> bool:
        """Make the kernel drop the pages of a path whose older version is still open; programs that have the
        older version open get EIO from here on. False: the kernel did not.

        Raises:
            Failure: INTERRUPTED, or TIMED_OUT.
        """
        if not self._mountpoint:
            return False
        with self._condition:
            if path in self._paths:
                wait_until(self._condition, lambda: path not in self._paths, self._timeout)
            if not self._pages.in_the_way(path, opened):
                return True
            self._paths.add(path)
        done = False
        try:
            done = [_is_a_socket(self._mountpoint + path) for _ in range(2)][-1]
        finally:
            with self._condition:
                if done:
                    self._pages.revoked(path)
                    self._counts[path] = self._counts.get(path, 0) + 1
                self._paths.discard(path)
                self._condition.notify_all()
        return done


def _is_a_socket(path: str) -> bool:
    """Make the kernel ask for the attributes of a path; whether they are those of a socket."""
    result = ctypes.create_string_buffer(256)
    refused = _statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_FORCE_SYNC, _STATX_TYPE, result)
    return not refused and stat.S_ISSOCK(int.from_bytes(result.raw[28:30], sys.byteorder))
