"""Files that are texts of our own: known at once, made when they are opened, or computed when looked at.

Used by the sections of the tree.
Threading: any thread; `GeneratedFolderState` has a lock, never held over I/O.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping

from cachetools import LRUCache

from xnatfs.tree.node import (
    EPOCH,
    LARGER_THAN_ANY_TABLE,
    BytesContent,
    File,
    OpenContent,
    UnknownSize,
    inode_of,
)

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


class GeneratedFile(File):
    """A small file whose text is our own, not the server's. Made by the functions below, one for each way a
    text comes about.

    Args:
        text: its content.
        peek: the same, or None where it would have to be made first: its size is not known then.
        mtime: its date.
        inode: its inode number.
        version: see `File.version`.
        unknown: the size shown while it is not known.
        xattrs: without the prefix.
    """

    __slots__ = ("_inode", "_mtime", "_peek", "_text", "_unknown", "_version", "_xattrs")

    def __init__(
        self,
        text: Callable[[], bytes],
        peek: Callable[[], bytes | None],
        mtime: Callable[[], float],
        inode: int,
        version: Callable[[], str] = lambda: "",
        unknown: UnknownSize = LARGER_THAN_ANY_TABLE,
        xattrs: Mapping[str, str] | None = None,
    ) -> None:
        self._xattrs = xattrs
        self._unknown = unknown
        self._text = text
        self._peek = peek
        self._mtime = mtime
        self._inode = inode
        self._version = version

    @property
    def inode(self) -> int:
        return self._inode

    @property
    def mtime(self) -> float:
        return self._mtime()

    @property
    def size(self) -> int:
        data = self._peek()
        return self._unknown if data is None else len(data)

    @property
    def version(self) -> str:
        return self._version()

    def xattrs(self) -> dict[str, str]:
        return dict(self._xattrs or {})

    def open(self) -> OpenContent:
        return BytesContent(self._text())


def known_text(data: bytes, mtime: float, *identity: str) -> GeneratedFile:
    """A text of a BIDS folder that is known without asking anybody; `identity` names it for its inode."""

    def text() -> bytes:
        return data

    return GeneratedFile(
        text, text, lambda: mtime, inode_of("bids", *identity), lambda: hashlib.sha256(data).hexdigest()
    )


def made_when_opened(
    state: GeneratedFolderState,
    key: Callable[[], str],
    make: Callable[[], bytes],
    mtime: Callable[[], float],
    *identity: str,
    every_time: bool = False,
    unknown: UnknownSize = LARGER_THAN_ANY_TABLE,
    xattrs: Mapping[str, str] | None = None,
) -> GeneratedFile:
    """A text of a BIDS folder that is made when it is opened.

    Args:
        state: where it is kept.
        key: names what it is made from.
        make: makes it.
        mtime: its date.
        identity: names it for its inode.
        every_time: make it at each opening (its inputs are held where nothing changed).
        unknown: the size shown before.
        xattrs: see `GeneratedFile`.
    """

    def text() -> bytes:
        name = key()
        data = None if every_time else state.get(name)
        if data is None:
            data = make()
            state.put(name, data)
        return data

    inode = inode_of("bids", *identity)
    return GeneratedFile(text, lambda: state.get(key()), mtime, inode, unknown=unknown, xattrs=xattrs)


def rendered(identity: str, render: Callable[[], bytes], lasts_s: float | None = None) -> GeneratedFile:
    """A text that is computed when somebody looks at it: the README, the control files. What `stat` told is
    what an `open` soon after reads.

    Args:
        identity: names the file for its inode.
        render: the content.
        lasts_s: seconds for which a text is kept; None for ever.
    """
    data = b""
    made: float | None = None

    def text() -> bytes:
        nonlocal data, made
        now = time.time()
        if made is None or (lasts_s is not None and not 0 <= now - made < lasts_s):
            data, made = render(), now
        return data

    def mtime() -> float:
        return EPOCH if lasts_s is None or made is None else made

    return GeneratedFile(text, text, mtime, inode_of("rendered", identity))
