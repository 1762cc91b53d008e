"""Files that are texts of our own: known at once, or made when they are opened and kept in memory.

Used by `bids`. Threading: any thread; `Made` has a lock, never held over I/O.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from cachetools import LRUCache

from xnatfs.tree.node import BytesContent, File, OpenContent, inode_of

PLACEHOLDER_BYTES = 4096  # 0 would make tools take it for empty without opening it
_MAX_TEXTS_BYTES = 32 * 2**20  # bytes of made texts


class GeneratedFolderState:
    """Texts that were made when they were opened, by what they were made from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: LRUCache[str, bytes] = LRUCache(_MAX_TEXTS_BYTES, getsizeof=len)

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._texts.get(key)

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            if len(data) < _MAX_TEXTS_BYTES:
                self._texts[key] = data


class TextFile(File):
    """A text that is known without asking anybody."""

    __slots__ = ("_data", "_inode", "_mtime")

    def __init__(self, data: bytes, mtime: float, *identity: str) -> None:
        self._data = data
        self._mtime = mtime
        self._inode = inode_of("bids", *identity)

    @property
    def inode(self) -> int:
        return self._inode

    @property
    def mtime(self) -> float:
        return self._mtime

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def version(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def open(self) -> OpenContent:
        return BytesContent(self._data)


class MadeFile(File):
    """A text that is made when it is opened; until then its size is a placeholder.

    Args:
        state: where the text is kept.
        key: names what it is made from.
        make: makes it.
        mtime: its date.
        identity: names it for its inode number.
        every_time: make it at each open (its inputs are in memory where nothing changed).
    """

    __slots__ = ("_every_time", "_inode", "_key", "_make", "_mtime", "_state")

    def __init__(
        self,
        state: GeneratedFolderState,
        key: Callable[[], str],
        make: Callable[[], bytes],
        mtime: Callable[[], float],
        *identity: str,
        every_time: bool = False,
    ) -> None:
        self._every_time = every_time
        self._state = state
        self._key = key
        self._make = make
        self._mtime = mtime
        self._inode = inode_of("bids", *identity)

    @property
    def inode(self) -> int:
        return self._inode

    @property
    def mtime(self) -> float:
        return self._mtime()

    @property
    def size(self) -> int:
        data = self._state.get(self._key())
        return PLACEHOLDER_BYTES if data is None else len(data)

    def open(self) -> OpenContent:
        key = self._key()
        data = None if self._every_time else self._state.get(key)
        if data is None:
            data = self._make()
            self._state.put(key, data)
        return BytesContent(data)
