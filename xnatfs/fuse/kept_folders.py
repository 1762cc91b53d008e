"""Which folders' listings the kernel has a copy of, and whether it may go on showing it.

Used by `lowlevel`. The kernel keeps a listing as it was read (FOPEN_CACHE_DIR) and shows it to who opens the
folder next, if the answer to `opendir` says so (FOPEN_KEEP_CACHE); else it drops it. It asks `opendir` each
time, and there is where freshness is looked at. Its copy may stay

- as long as the folder lists the same nodes, and nothing was learnt of any file meanwhile (a true size);
- as long as the names in it hold: once they are too old, the kernel would ask for each of them singly, which
  takes longer than listing anew (measured: 44,647 look-ups after one `find`);
- if nothing in the folder changes by itself, as a table does that is being built.

Where the server is watched (`name_watch`), and a program looked but a moment ago at any folder of the same
project, a folder is not even looked at (`reopened`).

The copy is one for all who have the folder open, while each of them is to see the listing of his `opendir`
(docs/semantics.md 1.7). So who opens a folder that has changed, while others still read the older listing,
goes past the copy. After `rewinddir` the kernel cannot be told so any more: then the copy is dropped while it
is being made, before each further answer (`in_conflict`), and is never complete.

A folder that stays open is not asked about again, whatever happens: so its copy is dropped when it is old
(`outdated`), and who rewinds it asks.
Threading: any thread; one lock, held only briefly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from xnatfs.fuse.wire import CACHE_DIR, KEEP_CACHE
from xnatfs.vfs import Attributes

Listing = Mapping[str, Any]
_PART = 0.75  # of the time that names hold: so long after a listing the kernel may show its copy
_SMALL = 10_000  # entries that are compared one by one


class Watched(NamedTuple):
    """The folder that is watched for a folder below it, and the attributes of that one."""

    top: str
    attributes: Attributes


class _Copy:
    """What the kernel has of one folder."""

    __slots__ = ("learnt", "listing", "until", "watched")

    def __init__(self, listing: Listing, until: float, learnt: object, watched: Watched | None) -> None:
        self.listing = listing
        self.until = until
        self.watched = watched
        self.learnt = learnt


class KeptFolders:
    """The kernel's copies of listings.

    Args:
        learnt: changes whenever the kernel's names are not good any more, or attributes change of files whose
            listing does not.
        clock: seconds.
    """

    def __init__(self, learnt: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._learnt = learnt
        self._clock = clock
        self._lock = threading.Lock()
        self._copies: dict[int, _Copy] = {}  # by node
        self._open: dict[int, dict[int, Listing]] = {}  # by node and handle: those that use the copy

    def opened(self, node: int, handle: int, listing: Listing) -> int:
        """A folder was opened and has this listing: the flags of the answer (FOPEN_...)."""
        with self._lock:
            handles = self._open.setdefault(node, {})
            if any(not _same(one, listing) for one in handles.values()):
                self._copies.pop(node, None)
                return 0
            handles[handle] = listing
            copy = self._copies.get(node)
            if copy is not None and self._good(copy) and _same(copy.listing, listing):
                return CACHE_DIR | KEEP_CACHE
            self._copies.pop(node, None)
            return CACHE_DIR

    def reopened(
        self, node: int, handle: int, steady: Callable[[str], bool]
    ) -> tuple[Attributes, Listing] | None:
        """A folder was opened: what the kernel has of it and may go on showing without anybody's looking at
        it. None, and nothing is noted, where it has to be looked at.

        Args:
            steady: whether all is as it was below a folder that is watched.
        """
        with self._lock:
            copy = self._copies.get(node)
            if copy is None or copy.watched is None or not (steady(copy.watched.top) and self._good(copy)):
                return None
            handles = self._open.setdefault(node, {})
            if any(one is not copy.listing for one in handles.values()):
                return None
            handles[handle] = copy.listing
            return copy.watched.attributes, copy.listing

    def _good(self, copy: _Copy) -> bool:
        return self._clock() < copy.until and bool(copy.learnt == self._learnt())

    def read(
        self,
        node: int,
        handle: int,
        listing: Listing,
        holds: float,
        *,
        settled: bool,
        watched: Watched | None = None,
    ) -> None:
        """The kernel reads a folder from its beginning, which makes its copy if this handle makes one.

        Args:
            holds: seconds for which its names hold.
            settled: nothing in the listing changes by itself.
            watched: if the server is watched in the kernel's place.
        """
        until = self._clock() + _PART * holds
        with self._lock:
            handles = self._open.get(node, {})
            if handle not in handles:
                return
            handles[handle] = listing
            if settled and all(_same(one, listing) for one in handles.values()):
                self._copies[node] = _Copy(listing, until, self._learnt(), watched)
            else:
                self._copies.pop(node, None)

    def in_conflict(self, node: int, handle: int) -> bool:
        """Whether what this handle reads must not become the kernel's copy."""
        with self._lock:
            handles = self._open.get(node, {})
            listing = handles.get(handle)
            if listing is None or len(handles) == 1:
                return False
            if all(_same(one, listing) for one in handles.values()):
                return False
            self._copies.pop(node, None)
            return True

    def closed(self, node: int, handle: int) -> None:
        """A folder was closed."""
        with self._lock:
            handles = self._open.get(node)
            if handles is not None:
                handles.pop(handle, None)
                if not handles:
                    del self._open[node]

    def forget(self, nodes: Iterable[int]) -> None:
        """The kernel does not know (for long) every name in these folders."""
        with self._lock:
            for node in nodes:
                self._copies.pop(node, None)

    def outdated(self) -> list[int]:
        """The folders that are open and whose copy the kernel has to drop; they are taken as dropped."""
        now, learnt = self._clock(), self._learnt()
        with self._lock:
            nodes = [
                node
                for node in self._open
                if (copy := self._copies.get(node)) is not None
                and (now >= copy.until or copy.learnt != learnt)
            ]
            for node in nodes:
                del self._copies[node]
        return nodes

    def drop_all(self) -> list[int]:
        """Take all copies as dropped; the folders that are open, whose copies the kernel has to drop."""
        with self._lock:
            self._copies.clear()
            return list(self._open)


def _same(one: Listing, other: Listing) -> bool:
    """Whether two listings show the same nodes. Nodes are compared by identity: sections keep theirs as long
    as nothing changes.
    """
    return one is other or (len(one) == len(other) < _SMALL and list(one.items()) == list(other.items()))
