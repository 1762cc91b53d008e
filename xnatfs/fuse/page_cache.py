"""The kernel's page cache of open files: its pages and its single size belong to a path, not to an open file.

Used by `fuse`. Two programs may have two versions of one path open: the file was overwritten on the server
while the first program reads it. Both would read, and fill, the same pages: measured, the first program got
the second version's bytes in the middle of its own, and was cut at the second version's size without an
error. So

- when a version is opened while another one is open, the kernel is made to drop its pages of the path
  (`page_revocation`); where it does not, or below an overlay, the second program bypasses the pages
  (`direct_io`), which stay those of the first version;
- before that, a smaller size is not reported as long as the first version is open: the kernel would cut reads
  at that size;
- where a larger size is reported, the first program gets ESTALE: the kernel would pad its reads with zeros.

Threading: any thread; one lock, held only briefly.
"""

from __future__ import annotations

import threading

from cachetools import LRUCache

from xnatfs.tree.node import UnknownSize
from xnatfs.vfs import Attributes, Opened

_REMEMBERED = 200_000  # paths whose pages the kernel may still have


class Pages:
    """Which version of each path the kernel's pages belong to, and which versions are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: LRUCache[str, str] = LRUCache(_REMEMBERED)
        self._open: dict[str, dict[int, Opened]] = {}  # by path and handle: those that use the pages
        self._overtaken: set[int] = set()  # handles whose path has become larger since
        self._doubtful: set[str] = set()  # paths for which the kernel may have another version's size

    def opened(self, path: str, opened: Opened) -> tuple[bool, bool]:
        """A file was opened: whether the kernel may keep its pages of this path, and whether this handle must
        bypass them.
        """
        with self._lock:
            held = self._open.setdefault(path, {})
            if _others(held, opened):
                self._doubtful.add(path)
                return True, True
            keep = bool(opened.version) and self._versions.get(path) == opened.version
            self._versions[path] = opened.version
            held[opened.handle] = opened
            return keep, False

    def in_the_way(self, path: str, opened: Opened) -> bool:
        """Whether another version is open."""
        with self._lock:
            return _others(self._open.get(path, {}), opened)

    def revoked(self, path: str) -> None:
        """The kernel dropped its pages of a path: handles that were open can read nothing any more."""
        with self._lock:
            self._open.pop(path, None)
            self._versions.pop(path, None)
            self._doubtful.discard(path)

    def closed(self, path: str, handle: int) -> bool:
        """A file was closed: whether the kernel must ask for the size of the path again."""
        with self._lock:
            self._overtaken.discard(handle)
            held = self._open.get(path)
            if held is None:
                return False
            held.pop(handle, None)
            if held:
                return False
            del self._open[path]
            doubtful = path in self._doubtful
            self._doubtful.discard(path)
            return doubtful

    def to_report(self, path: str, attributes: Attributes) -> Attributes:
        """The attributes to report to the kernel."""
        if path not in self._open:  # nearly always
            return attributes
        with self._lock:
            held = self._open.get(path, {}).values()
            if isinstance(attributes.size, UnknownSize) and held:
                # No version of another size: nobody has made the newest one yet.
                return attributes._replace(size=max(one.size for one in held))
            smaller = [one.handle for one in held if one.size < attributes.size]
            size = max([attributes.size, *(one.size for one in held)])
            if smaller or size > attributes.size:
                self._overtaken.update(smaller)
                self._doubtful.add(path)
        return attributes._replace(size=size)

    def overtaken(self, handle: int) -> bool:
        """Whether this handle's bytes may no longer be passed to the kernel."""
        return handle in self._overtaken

    def open_below(self, folder: str) -> set[str]:
        """The names in a folder that are open."""
        above = folder.rstrip("/")
        with self._lock:
            return {
                name for parent, _, name in (path.rpartition("/") for path in self._open) if parent == above
            }


def _others(held: dict[int, Opened], opened: Opened) -> bool:
    return any(not _same(one.version, opened.version) for one in held.values())


def _same(one: str, other: str) -> bool:
    """Whether two handles have the same version. An unknown stamp (the server gave no date) does not make a
    difference.
    """
    if one == other:
        return bool(one)
    shorter, longer = sorted((one, other), key=len)
    return shorter.endswith(" ") and longer.startswith(shorter)
