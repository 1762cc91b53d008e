"""The tree as the lower layer of an overlay: the same files, told so that overlay file systems get them right. Raises `OSError`.

Used by `daemon.compose` for `mount --overlay`; everything else is `vfs`.
Threading: any thread, as `vfs`; the names remembered have a lock, held for moments.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from cachetools import LRUCache

from xnatfs.errors import Cause, Failure
from xnatfs.vfs import XATTR_PREFIX, Attributes, Vfs

_FOLDERS = 50_000  # whose names are remembered
_ROOM_FOR_XATTRS = 2048  # bytes; ext4 has one block of 4096 for all attributes of a file, and a copy-up that meets ENOSPC there fails
_OF_THE_MOMENT = ("cached", "verified")  # would be copied with the file and then be said of what the user wrote


class Lower(Vfs):
    """A file system that an overlay lies upon.

    - Modes are 0644 and 0755: they are those of the copy the overlay makes of a file that is written to, and who is not root may write
      to a copy of mode 0444 as little as to the original.
    - Inode numbers are of paths, not of files: fuse-overlayfs takes two names of one number for hard links of one file, and serves one
      for the other (measured: a file new on the server that had got the number of a removed one). Their order within a folder stays.
    - Few extended attributes are listed, since an overlay copies all that are.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.keeps_gone = False  # fuse-overlayfs cannot do without; the kernel's overlay asks anew
        self._told: LRUCache[str, dict[str, Attributes]] = LRUCache(_FOLDERS)
        self._told_lock = threading.Lock()

    def attributes(self, path: str) -> Attributes:
        """`stat`. With `keeps_gone`, a name that was listed before and is gone from the server keeps its attributes.

        fuse-overlayfs holds on to the names of a folder. One whose `stat` fails with ENOENT ends its listing there, which the C library
        takes for the end of the folder: everything behind it would vanish without an error (measured). Opening it says that it is gone.
        """
        try:
            return _as_lower(super().attributes(path), path)
        except Failure as failure:
            known = self._known(path) if self.keeps_gone and failure.cause is Cause.NO_ENTRY else None
            if known is None:
                raise
            return known

    def entries(self, path: str) -> list[tuple[str, Attributes]]:
        """`readdir`."""
        above = path.rstrip("/")
        listed = [(name, _as_lower(attributes, f"{above}/{name}")) for name, attributes in super().entries(path)]
        if self.keeps_gone:
            with self._told_lock:
                self._told[above] = {**self._told.get(above, {}), **dict(listed)}
        return listed

    def xattrs(self, path: str) -> list[str]:
        """The names of the extended attributes that fit where the overlay will copy them; the others can be asked for by name."""
        left = _ROOM_FOR_XATTRS
        names = []
        with self._reported(path):
            for name, value in self._walk(path).xattrs().items():
                left -= len(XATTR_PREFIX) + len(name) + len(value.encode("utf-8", "backslashreplace")) + 16
                if name not in _OF_THE_MOMENT and left >= 0:
                    names.append(XATTR_PREFIX + name)
        return names

    def _known(self, path: str) -> Attributes | None:
        above, _, name = path.rpartition("/")
        with self._told_lock:
            return self._told.get(above, {}).get(name)


def _as_lower(attributes: Attributes, path: str) -> Attributes:
    """43 bits of a hash of the path, below the 20 bits that order the entries of a folder (`tree.node.inode_of`)."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    inode = (attributes.inode & 0xFFFFF) << 43 | int.from_bytes(digest, "big") & ((1 << 43) - 1) | 1
    return attributes._replace(mode=attributes.mode | 0o200, inode=inode)
