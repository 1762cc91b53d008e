"""What the kernel holds of open files: its pages and its one size are a path's, not an open file's.

Used by `fuse`. Two programs may have two versions of one path open: the file was overwritten on the server
while the first one reads it. Both would read, and fill, the same pages: measured, the first got the second
one's bytes in the middle of its own, and was cut at the second one's size without an error. So

- when a version is opened while another one is open, the kernel is made to give up what it has of the path
  (`fuse.Adapter._revoked`); where it does not, or below an overlay, the second goes past the pages
  (`direct_io`), which stay those of the first;
- before that, a smaller size is not told as long as the first is open: the kernel would cut its reads there;
- where a larger size is told, the first gets ESTALE: the kernel would fill what it reads up with zeros.

Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import threading

from cachetools import LRUCache

from xnatfs.vfs import Attributes, Opened

_REMEMBERED = 200_000  # paths whose pages the kernel may still have


class Pages:
    """Which version of each path the kernel's pages are of, and who has which open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: LRUCache[str, str] = LRUCache(_REMEMBERED)
        self._open: dict[str, dict[int, Opened]] = {}  # by path and handle: those that use the pages
        self._overtaken: set[int] = set()  # handles whose path has become larger since
        self._doubtful: set[str] = set()  # paths of which the kernel may know the size of another version

    def opened(self, path: str, opened: Opened) -> tuple[bool, bool]:
        """A file was opened: whether the kernel may keep the pages it has of this path, and whether this one
        has to go past them.
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
        """Whether another version than this is open."""
        with self._lock:
            return _others(self._open.get(path, {}), opened)

    def revoked(self, path: str) -> None:
        """The kernel gave up what it had of a path: whoever has it open gets nothing from it any more."""
        with self._lock:
            self._open.pop(path, None)
            self._versions.pop(path, None)
            self._doubtful.discard(path)

    def closed(self, path: str, handle: int) -> bool:
        """A file was closed: whether the kernel has to ask for the size of the path again."""
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

    def told(self, path: str, attributes: Attributes) -> Attributes:
        """The attributes to tell the kernel."""
        if path not in self._open:  # nearly always
            return attributes
        with self._lock:
            held = self._open.get(path, {}).values()
            smaller = [one.handle for one in held if one.size < attributes.size]
            size = max([attributes.size, *(one.size for one in held)])
            if smaller or size > attributes.size:
                self._overtaken.update(smaller)
                self._doubtful.add(path)
        return attributes._replace(size=size)

    def overtaken(self, handle: int) -> bool:
        """Whether what this open file reads may no longer be given to the kernel."""
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
    """Whether two handles are of one version. A stamp that is not known (the server told no date) is no other
    one.
    """
    if one == other:
        return bool(one)
    shorter, longer = sorted((one, other), key=len)
    return shorter.endswith(" ") and longer.startswith(shorter)
