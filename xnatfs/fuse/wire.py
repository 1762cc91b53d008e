"""Answers as the kernel reads them (`linux/fuse.h`): names, attributes, listings, open files.

Used by `lowlevel`. The layout is the kernel's ABI, the same on every machine and with every libfuse, which
`struct stat`, `fuse_entry_param` and `fuse_file_info` are not; and packing a whole listing costs a third of
asking libfuse to add entry by entry (measured).
Threading: any thread; no state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from xnatfs.fuse.operations import BLOCK_SIZE, MAX_NAME, READ_SIZE, nanoseconds
from xnatfs.vfs import Attributes

# Of an open file or folder (FOPEN_...).
DIRECT_IO, KEEP_CACHE, CACHE_DIR, PASSTHROUGH = 1, 2, 8, 128

_ATTR = "QQQqqqIIIIIIIIII"  # ino size blocks atime mtime ctime, their nanoseconds, mode ... flags
_ENTRY = struct.Struct("=QQQQII" + _ATTR)  # node generation, how long name and attributes hold
_ATTR_OUT = struct.Struct("=QII" + _ATTR)
_DIRENT = struct.Struct("=QQII")  # ino offset length type
_DIRENT_PLUS = struct.Struct("=QQQQII" + _ATTR + "QQII")
_OPEN = struct.Struct("=QIi")
_STATFS = struct.Struct("=QQQQQIIII24x")
_XATTR_SIZE = struct.Struct("=II")
SMALLEST_PLUS = _DIRENT_PLUS.size + 8  # bytes of an entry
_UNKNOWN_INODE = 0xFFFFFFFF
_PADDING = tuple(b"\0" * (-length % 8) for length in range(8))


class Validity(NamedTuple):
    """For how long the kernel keeps a name or attributes."""

    seconds: int
    nanoseconds: int

    @classmethod
    def of(cls, seconds: float) -> Validity:
        """From seconds with a fraction."""
        return cls(*divmod(round(seconds * 10**9), 10**9))


NOT_AT_ALL = Validity(0, 0)


class Packer:
    """Packs answers of one mount.

    Args:
        uid, gid: the owner shown.
        number: the inode number shown of a node's own.
    """

    def __init__(self, uid: int, gid: int, number: Callable[[int], int]) -> None:
        self._owner = uid, gid
        self.number = number

    def entry(self, node: int, attributes: Attributes, valid: Validity) -> bytes:
        """The answer to LOOKUP."""
        seconds, rest = valid
        return _ENTRY.pack(node, 0, seconds, seconds, rest, rest, *self._attributes(attributes))

    def attributes(self, attributes: Attributes, valid: Validity) -> bytes:
        """The answer to GETATTR."""
        return _ATTR_OUT.pack(valid.seconds, valid.nanoseconds, 0, *self._attributes(attributes))

    def _attributes(self, one: Attributes) -> tuple[int, ...]:
        seconds, rest = divmod(nanoseconds(one.mtime), 10**9)
        return (
            self.number(one.inode),
            one.size,
            one.blocks,
            seconds,
            seconds,
            seconds,
            rest,
            rest,
            rest,
            one.mode,
            one.links,
            *self._owner,
            0,
            READ_SIZE,
            0,
        )

    def listing_plus(
        self,
        entries: Iterable[tuple[bytes, Attributes, int]],
        offset: int,
        room: int,
        valid: Validity,
        unsettled: Validity,
    ) -> tuple[bytes, int]:
        """The answer to READDIRPLUS, and how many entries are in it.

        Args:
            entries: names, attributes and nodes.
            offset: of the first entry.
            room: the largest answer in bytes.
            unsettled: for how long the kernel keeps what may change by itself.
        """
        number, (uid, gid), pack = self.number, self._owner, _DIRENT_PLUS.pack
        parts: list[bytes] = []
        used = count = 0
        date: float | None = None
        stamp = stamp_rest = 0
        for name, one, node in entries:
            length = len(name)
            used += (_DIRENT_PLUS.size + length + 7) & ~7
            if used > room:
                break
            mode, inode, size, mtime, links, settled = one
            seconds, rest = valid if settled else unsettled
            if mtime != date:
                date = mtime
                stamp, stamp_rest = divmod(nanoseconds(mtime), 10**9)
            shown = number(inode)
            count += 1
            parts += (
                pack(
                    *(node, 0, seconds, seconds, rest, rest),
                    *(shown, size, one.blocks, stamp, stamp, stamp, stamp_rest, stamp_rest, stamp_rest),
                    *(mode, links, uid, gid, 0, READ_SIZE, 0),
                    *(shown, offset + count, length, mode >> 12),
                ),
                name,
                _PADDING[length & 7],
            )
        return b"".join(parts), count


def bare_plus(name: bytes, offset: int) -> bytes:
    """An entry of READDIRPLUS without attributes: `.` and `..`."""
    dirent = _DIRENT.pack(_UNKNOWN_INODE, offset, len(name), 4)
    return b"\0" * _ENTRY.size + dirent + name + _PADDING[len(name) & 7]


def bare(name: bytes, inode: int, kind: int, offset: int) -> bytes:
    """An entry of READDIR."""
    return _DIRENT.pack(inode or _UNKNOWN_INODE, offset, len(name), kind) + name + _PADDING[len(name) & 7]


def opened(handle: int, flags: int, backing: int = 0) -> bytes:
    """The answer to OPEN and OPENDIR; `backing` is the file that the kernel reads by itself (PASSTHROUGH)."""
    return _OPEN.pack(handle, flags, backing)


def statfs(blocks: int, free: int) -> bytes:
    """The answer to STATFS."""
    return _STATFS.pack(blocks, free, free, 0, 0, BLOCK_SIZE, MAX_NAME, BLOCK_SIZE, 0)


def xattr_size(size: int) -> bytes:
    """The answer to GETXATTR and LISTXATTR that ask only for the size."""
    return _XATTR_SIZE.pack(size, 0)
