"""Which version of a file each open node stands for: a node has one for as long as it is open.

Used by `kernel_names`. The kernel's pages and its single size belong to a node. Two programs may have two
versions of one path open: the file was overwritten on the server while the first program reads it. With one
node for both they would read, and fill, the same pages; and new attributes alone take the pages away from the
first, which then fail to come back in a mapping (SIGBUS). So while a node is open its attributes stay those
it was opened with, and a path that has others by now, or another content, gets a new node (`node_table`):
as on a disk, where a file that was replaced lives on for who has it open.

Threading: any thread; one lock, held only briefly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import LRUCache

from xnatfs.fuse.wire import KEEP_CACHE, PASSTHROUGH
from xnatfs.tree.node import UnknownSize
from xnatfs.vfs import Attributes, Opened

_REMEMBERED = 200_000  # nodes whose pages the kernel may still have


@dataclass
class _Open:
    """An open node: what it shows, the kernel's number for the file that it reads by itself (0: it has pages
    of its own), and its handles.
    """

    version: str
    shown: Attributes
    backing: int
    handles: set[int] = field(default_factory=set)


class OpenNodes:
    """The files that are open in one mount, by node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._pages: LRUCache[int, str] = LRUCache(_REMEMBERED)  # the version whose pages the kernel has

    def __len__(self) -> int:
        """How many nodes are open."""
        return len(self._open)

    def opened(
        self, node: int, opened: Opened, register: Callable[[], int] = lambda: 0
    ) -> tuple[int, int] | None:
        """A file was opened: the flags of the answer (FOPEN_...), and the file that the kernel reads by
        itself; None, and nothing is noted, if another version is open there.

        Args:
            register: the kernel's number for the cached file, 0 for none. Not called for a node that is open
                already: the kernel refuses to have one open in both ways, or with two files.
        """
        with self._lock:
            one = self._open.get(node)
            if one is None:
                one = self._open[node] = _Open(opened.version, opened.shown, register())
            elif not _same(one.version, opened.version):
                return None
            one.handles.add(opened.handle)
            if one.backing:
                self._pages.pop(node, None)  # the kernel drops them
                return PASSTHROUGH, one.backing
            keep = bool(opened.version) and self._pages.get(node) == opened.version
            self._pages[node] = opened.version
            return KEEP_CACHE * keep, 0

    def closed(self, node: int, handle: int) -> int:
        """A file was closed; the file that nobody has the kernel read by itself any more, or 0."""
        with self._lock:
            one = self._open.get(node)
            if one is None:
                return 0
            one.handles.discard(handle)
            if one.handles:
                return 0
            del self._open[node]
            return one.backing

    def shown(self, node: int) -> Attributes | None:
        """What an open node shows; None if it is not open."""
        if node not in self._open:  # nearly always
            return None
        with self._lock:
            one = self._open.get(node)
            return None if one is None else one.shown

    def outdated(self, node: int, attributes: Attributes) -> bool:
        """Whether a node is open and shows another size or date than its path has."""
        shown = self.shown(node)
        if shown is None or isinstance(attributes.size, UnknownSize):
            return False  # no version of another size: nobody has made the newest one yet
        return (shown.size, shown.mtime) != (attributes.size, attributes.mtime)


def _same(one: str, other: str) -> bool:
    """Whether two handles have the same version. An unknown stamp (the server gave no date) does not make a
    difference.
    """
    if one == other:
        return bool(one)
    shorter, longer = sorted((one, other), key=len)
    return shorter.endswith(" ") and longer.startswith(shorter)
