"""Cached files that the kernel reads by itself (FUSE passthrough): no request, no second copy of their pages.

Used by `lowlevel`. A file that is whole and checked in the cache is given to the kernel, which answers `read`
and `mmap` from it for as long as it is open there. This needs libfuse 3.17 (which asks for it when the mount
begins), Linux 6.9 and CAP_SYS_ADMIN. Where the kernel refuses, as it does a file on another stacked file
system, the file is opened in the usual way; nobody is told.

The kernel holds on to the file itself: it may be evicted, or its descriptor closed, while it is open there.
Nothing in the cache is ever cut or overwritten once it is whole.
Threading: any thread; no lock.
"""

from __future__ import annotations

import errno
import logging
import struct
from typing import Any

from xnatfs.fuse.library import CAP_PASSTHROUGH
from xnatfs.fuse.session import Session

log = logging.getLogger(__name__)

# _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t). Where the bits of these numbers mean
# something else (PowerPC, MIPS) the kernel knows none of them, which is a refusal.
_OPEN, _CLOSE = 0x4010E501, 0x4004E502
_MAP = struct.Struct("=iIQ")  # descriptor, no flags, padding
_NUMBER = struct.Struct("=I")


class BackingFiles:
    """The files of one mount that the kernel reads by itself.

    Args:
        session: the mount's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._able = False

    def begin(self, connection: Any) -> None:
        """Ask for it, in the `fuse_conn_info` of a mount that begins."""
        asked = connection.capable & CAP_PASSTHROUGH
        connection.want |= asked
        self._able = bool(asked)

    def register(self, descriptor: int) -> int:
        """The kernel's number for an open file; 0 if it will not read it."""
        if not self._able:
            return 0
        try:
            return self._session.control(_OPEN, _MAP.pack(descriptor, 0, 0))
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTTY):  # whatever the file
                self._able = False
            log.info("the kernel does not read cached files by itself: %s", error)
            return 0

    def forget(self, number: int) -> None:
        """Nothing more is opened by this number."""
        if not number:
            return
        try:
            self._session.control(_CLOSE, _NUMBER.pack(number))
        except OSError as error:
            log.info("the kernel keeps file %d: %s", number, error)
