"""The tree as the lower layer of an overlay: the same files, presented so that overlay file systems handle
them correctly. Raises `OSError`.

Used by `core` for `mount --overlay`; everything else is `vfs`.
Threading: any thread, as `vfs`; the remembered names have a lock, held only briefly.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Mapping
from typing import Any

from cachetools import LRUCache

from xnatfs.errors import Cause, Failure
from xnatfs.tree.node import Branch, File, Node, OpenContent, UnknownSize
from xnatfs.tree.people_xattrs import PersonFolder
from xnatfs.vfs import OF_THIS_CACHE, XATTR_PREFIX, Attributes, Opened, Vfs, attributes_of

_FOLDERS = 50_000  # folders whose names are remembered
# bytes; ext4 has one block of 4096 for all attributes of a file, and a copy-up that meets ENOSPC there fails
_XATTR_BYTES = 2048


class Lower(Vfs):
    """A file system that an overlay lies upon.

    - Inode numbers belong to paths, not to files: fuse-overlayfs takes two names with one number for hard
      links of one file, and serves one for the other (measured: a new file on the server that had got the
      number of a removed one). Their order within a folder stays.
    - Which program opens a folder is not seen: whatever the overlay asks for is listed.
    - Few extended attributes are listed, since an overlay copies all listed ones.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.for_program = False  # for fuse-overlayfs, not for the kernel's overlay
        self._listed: LRUCache[str, dict[str, Attributes]] = LRUCache(_FOLDERS)
        self._listed_lock = threading.Lock()

    def attributes(self, path: str) -> Attributes:
        """`stat`. With `for_program`, a name that was listed before and is gone from the server keeps its
        attributes.

        fuse-overlayfs caches the names of a folder. If `stat` of one fails with ENOENT, its listing stops
        there, which the C library takes for the end of the folder: all later names would vanish without an
        error (measured). Opening the file reports that it is gone.
        """
        try:
            return _as_lower(super().attributes(path), path)
        except Failure as failure:
            known = self._known(path) if self.for_program and failure.cause is Cause.NO_ENTRY else None
            if known is None:
                raise
            return known

    def folder(
        self, path: str, *, reading: bool = True, walking: bool = False
    ) -> tuple[Attributes, Mapping[str, Node]]:
        """`stat` of a folder, and its listing."""
        attributes, listing = super().folder(path, reading=reading)
        return _as_lower(attributes, path), listing

    def described(self, path: str, listing: Mapping[str, Node]) -> list[tuple[str, Attributes]]:
        """The entries of a listing."""
        above = path.rstrip("/")
        listed = [
            (name, _as_lower(attributes, f"{above}/{name}"))
            for name, attributes in super().described(path, listing)
        ]
        if self.for_program:
            with self._listed_lock:
                self._listed[above] = {**self._listed.get(above, {}), **dict(listed)}
        return listed

    def xattrs(self, path: str) -> list[str]:
        """The names of the extended attributes that fit where the overlay will copy them; the others can
        still be read by name.
        """
        left = _XATTR_BYTES
        names = []
        with self._reported(path):
            node = self._walk(path)
            # What becomes known later is not listed: the overlay asks for the length of the list and then for
            # the list, and a longer one fails with ERANGE (seen).
            listed = Branch.xattrs(node) if isinstance(node, PersonFolder) else node.xattrs()
            for name, value in listed.items():
                left -= len(XATTR_PREFIX) + len(name) + len(value.encode("utf-8", "backslashreplace")) + 16
                if name not in OF_THIS_CACHE and left >= 0:
                    names.append(XATTR_PREFIX + name)
        return names

    def open(self, path: str, flags: int = os.O_RDONLY) -> Opened:
        """Open a file for reading. fuse-overlayfs opens every file of a folder it lists, with O_NONBLOCK and
        without reading (it looks for an attribute of its own): that must not fetch them all.
        """
        if self.for_program and flags & os.O_NONBLOCK and not flags & os.O_ACCMODE:
            with self._reported(path):
                node = self._walk(path)
                if isinstance(node, File):
                    later = _Later(node)
                    return Opened(self._hold(later, node), False, "", later.size, attributes_of(node))
        unknown = isinstance(super().attributes(path).size, UnknownSize)
        opened = super().open(path, flags)
        if unknown and not self.for_program and not isinstance(super().attributes(path).size, UnknownSize):
            # The kernel's overlay copies as many bytes as it was told before it opened, and fills up with
            # zeros: upon this it looks again, and opens the file that is made by now.
            self.release(opened.handle)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened

    def _known(self, path: str) -> Attributes | None:
        above, _, name = path.rpartition("/")
        with self._listed_lock:
            return self._listed.get(above, {}).get(name)


class _Later:
    """The content of a file that is fetched when its first byte is read."""

    def __init__(self, node: File) -> None:
        self.size = node.size
        self.stamp = ""
        self._node = node
        self._content: OpenContent | None = None
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`; ESTALE if the size given at `open` was wrong; the next `open` gives the true
        one.
        """
        content = self._content
        if content is None:
            opened = self._node.open()  # no lock is held meanwhile: another reader may do the same
            with self._lock:
                self._content, spare = (
                    (self._content, opened) if self._content is not None else (opened, None)
                )
                content = self._content
            if spare is not None:
                spare.close()
        if content.size != self.size:
            raise Failure(Cause.CHANGED)
        return content.read(offset, length)

    def close(self) -> None:
        """No more reads."""
        if self._content is not None:
            self._content.close()


def _as_lower(attributes: Attributes, path: str) -> Attributes:
    """43 bits of a hash of the path, below the 20 bits that order the entries of a folder
    (`tree.node.inode_of`).
    """
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    inode = (attributes.inode & 0xFFFFF) << 43 | int.from_bytes(digest, "big") & ((1 << 43) - 1) | 1
    return attributes._replace(inode=inode)
