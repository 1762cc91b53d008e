"""The tree as a POSIX file system: paths, attributes, handles. Raises `OSError`; imports no FUSE.

Used by `fuse`, by `vfs_io` (the Python library's file objects) and by tests without a mount.
Threading: any thread. The table of handles has a lock, held only briefly. Waits for the server happen in
`concurrency.waiting`, so each operation has a deadline and can be interrupted (see `interruptible` there).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.tree.names import MAX_NAME_BYTES, PROBED
from xnatfs.tree.node import File, Folder, Node, OpenContent, UnknownSize

log = logging.getLogger(__name__)

_RECENT = 0.5  # seconds
_NO_FOLDER: tuple[Mapping[str, Node], float] = ({}, 0.0)
_RECENT_FOLDERS = 16  # so many readers side by side, each in a folder of its own, find its files at once
XATTR_PREFIX = "user.xnat."
# These describe this machine's cache, not the file. Listed, they would be copied by `cp -a` and `rsync -X`,
# say something false about the copy, and make a second `rsync -aX` see changes.
OF_THIS_CACHE = frozenset({"cached", "verified"})

_NO_TROUBLE = frozenset(
    {
        Cause.NO_ENTRY,
        Cause.NOT_A_DIRECTORY,
        Cause.IS_A_DIRECTORY,
        Cause.READ_ONLY,
        Cause.NO_ATTRIBUTE,
        Cause.NOT_CONVERTED,
        Cause.INTERRUPTED,
    }
)


class Attributes(NamedTuple):
    """The result of `stat`. `mtime` in seconds since the epoch, `size` in bytes; `settled`: see `Node`."""

    mode: int
    inode: int
    size: int
    mtime: float
    links: int
    settled: bool = False

    @property
    def blocks(self) -> int:
        """512-byte blocks. For an open file 0 would make `tar -S` store zeros (measured); only where the size
        is not known it is 0, so that `du` counts nothing.
        """
        return 0 if isinstance(self.size, UnknownSize) else -(-self.size // 512)


class Opened(NamedTuple):
    """An open file: its handle, whether an earlier `stat` may have given another size, an identifier of its
    version ("" if there is none), its size in bytes, the attributes of this version, its digest in the
    listing.
    """

    handle: int
    size_changed: bool
    version: str
    size: int = 0
    shown: Attributes = Attributes(0, 0, 0, 0.0, 0)
    digest: str = ""


@dataclass
class _Handle:
    content: OpenContent
    node: File
    descriptor: Callable[[int, int], tuple[int, int] | None] | None


class Vfs:
    """A file system over a root folder.

    Args:
        root: the tree.
        diagnostics: failures are reported there.
        recent: seconds for which the last folders of files are not looked up again.
        sizes_doubtful: whether listings changed so recently that the kernel may still have an old size.
        room: bytes that the cache may take, and how many of these are free, for `statfs`.
        now: the time in seconds that listings age by.
    """

    def __init__(
        self,
        root: Folder,
        diagnostics: Diagnostics,
        recent: float = _RECENT,
        sizes_doubtful: Callable[[], bool] = lambda: False,
        room: Callable[[], tuple[int, int]] = lambda: (0, 0),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._diagnostics = diagnostics
        self._lock = threading.Lock()
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(1)
        self._spoilt: Counter[str] = (
            Counter()
        )  # reads that failed half-way, by version: the kernel must not keep their first half
        self._recently = recent
        self._sizes_doubtful = sizes_doubtful
        self.room = room
        self._now = now
        # Folders of files by path, each with the time until which it may be used.
        self._recent: dict[str, tuple[Mapping[str, Node], float]] = {}
        self._walked: tuple[dict[str, Folder], float] = (
            {},
            0.0,
        )  # folders by path, and until when they may be used

    # --- names ----------------------------------------------------------------------------------------------

    def attributes(self, path: str) -> Attributes:
        """`stat`.

        Raises:
            OSError: ENOENT, ENOTDIR, ENAMETOOLONG, or the reason why the server does not answer.
        """
        with self._reported(path):
            return attributes_of(self._walk(path))

    def entries(self, path: str, *, walking: bool = False) -> list[tuple[str, Attributes]]:
        """`readdir` with the attributes of every entry: no look-up per entry. `walking`: see `folder`."""
        return self.described(path, self.folder(path, walking=walking)[1])

    def folder(
        self, path: str, *, reading: bool = True, walking: bool = False
    ) -> tuple[Attributes, Mapping[str, Node]]:
        """`stat` of a folder, and its listing: a snapshot, the same one as long as nothing in it changes.

        Args:
            reading: a program reads it, and may go on to what is below.
            walking: it goes through whatever there is, see `Folder.walked`.
        """
        with self._reported(path):
            node = self._walk(path)
            if not isinstance(node, Folder):
                raise Failure(Cause.NOT_A_DIRECTORY, path)
            if walking:
                node.walked()
            listing = node.entries()
            if reading:
                node.listed()
            return attributes_of(node), listing

    def described(self, path: str, listing: Mapping[str, Node]) -> list[tuple[str, Attributes]]:
        """The entries of a listing of a folder with their attributes."""
        with self._reported(path):
            return [(name, attributes_of(entry)) for name, entry in listing.items()]

    def xattr(self, path: str, name: str) -> bytes:
        """The value of an extended attribute."""
        with self._reported(path):
            value = (
                self._walk(path).xattrs().get(name.removeprefix(XATTR_PREFIX))
                if name.startswith(XATTR_PREFIX)
                else None
            )
            if value is None:
                raise Failure(Cause.NO_ATTRIBUTE, path)
            return value.encode("utf-8", "backslashreplace")

    def xattrs(self, path: str) -> list[str]:
        """The names of the extended attributes that may travel with a copy; `xattr` knows the others too."""
        with self._reported(path):
            return [XATTR_PREFIX + name for name in self._walk(path).xattrs() if name not in OF_THIS_CACHE]

    # --- contents -------------------------------------------------------------------------------------------

    def announce(self, paths: Iterable[str]) -> None:
        """These files are going to be opened soon, and read whole: what is fetched for the first of them may
        bring the others. One that is not there is passed over: `open` says so.
        """
        for path in paths:
            with contextlib.suppress(Failure):
                node = self._walk(path)
                if isinstance(node, File):
                    node.announced()

    def open(self, path: str, flags: int = os.O_RDONLY) -> Opened:
        """Open a file for reading. Its size is true from here on.

        Raises:
            OSError: EROFS for any kind of writing; EISDIR; the reason why the content is unavailable.
        """
        with self._reported(path):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_CREAT | os.O_APPEND):
                raise Failure(Cause.READ_ONLY, path)
            node = _file(self._walk(path), path)
            stat_size = node.size
            try:
                content = node.open()
            except Failure as failure:
                if not node.outdated(failure):
                    raise
                self.forget()
                node = _file(self._walk(path), path)
                content = node.open()
            changed = (
                not (node.version and content.size == stat_size == node.listed_size) or self._sizes_doubtful()
            )
            handle = self._hold(content, node)
            version = (
                f"{node.version} {self._spoilt[node.version]} {content.stamp}"
                if node.version or content.stamp
                else ""
            )
            shown = _attributes(node, content.size)
            return Opened(handle, changed, version, content.size, shown, node.digest)

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """Bytes from an open file; shorter only at its end."""
        with self._reported(f"handle {handle}"):
            held = self._handle(handle)
            try:
                return held.content.read(offset, length)
            except Failure as failure:
                if failure.cause in (Cause.CHANGED, Cause.BAD_DIGEST, Cause.GONE):
                    with self._lock:
                        self._spoilt[held.node.version] += 1
                if failure.cause is Cause.BAD_DIGEST and held.node.outdated(failure):
                    # The catalog is not to blame: it has another file by now.
                    self.forget()
                    raise Failure(Cause.CHANGED, failure.subject, failure.detail) from failure
                raise

    def descriptor(self, handle: int, offset: int, length: int) -> tuple[int, int] | None:
        """A descriptor from which a reader may have this part of an open file, whole and checked, and how
        many bytes that is; None where it has to be read by `read`.
        """
        descriptor = self._handle(handle).descriptor
        return None if descriptor is None else descriptor(offset, length)

    def size_of(self, handle: int) -> int:
        """The size of an open file in bytes."""
        return self._handle(handle).content.size

    def release(self, handle: int) -> None:
        """Close an open file."""
        with self._lock:
            held = self._handles.pop(handle, None)
        if held is not None:
            held.content.close()

    @property
    def open_files(self) -> int:
        """How many files are open."""
        return len(self._handles)

    # --- helpers --------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Drop the cached look-ups."""
        self._recent = {}
        self._walked = ({}, 0.0)

    def _hold(self, content: OpenContent, node: File) -> int:
        with self._lock:
            handle = next(self._numbers)
            self._handles[handle] = _Handle(content, node, getattr(content, "descriptor", None))
            return handle

    def _handle(self, handle: int) -> _Handle:
        try:
            return self._handles[handle]
        except KeyError:
            raise Failure(Cause.BAD_HANDLE) from None

    def _walk(self, path: str) -> Node:
        parent, _, name = path.rpartition("/")
        entries, until = self._recent.get(parent, _NO_FOLDER)
        if name in entries and self._now() < until:
            return entries[name]
        return self._walk_from_root(path)

    def _walk_from_root(self, path: str) -> Node:
        node: Node = self._root
        parent: Folder | None = None
        names = path
        recent = self._recent  # as of before: what is looked up while `forget` is called is not kept
        walked, until = self._walked
        now = self._now()
        if now >= until:  # a walk looks each folder up from its parent, which was looked up just now
            walked, until = self._walked = {}, now + self._recently
        else:
            above, _, last = path.rpartition("/")
            if above in walked and last not in ("", ".", ".."):
                node, names = walked[above], last
        for name in names.split("/"):
            if not name:
                continue
            if not isinstance(node, Folder):
                raise Failure(Cause.NOT_A_DIRECTORY, path)
            if (
                len(name) > MAX_NAME_BYTES // 4
                and len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES
            ):
                raise Failure(Cause.NAME_TOO_LONG, path)
            if not node.of_files and PROBED.fullmatch(name):
                raise Failure(Cause.NO_ENTRY, path)
            found = node.lookup(name)
            if found is None:
                raise Failure(Cause.NO_ENTRY, path)
            parent, node = node, found
        if isinstance(node, Folder):
            walked[path] = node
        if parent is not None and parent.of_files:
            # After one file come its neighbours; eight look-ups for each cost more than everything else.
            if len(recent) >= _RECENT_FOLDERS:
                recent = self._recent = {}
            recent[path.rpartition("/")[0]] = (parent.entries(), self._now() + self._recently)
        return node

    def _reported(self, path: str) -> _Reported:
        return _Reported(self._diagnostics, path)


class _Reported:
    """Context manager that reports a failure passing through it. A class, not a generator: it is entered for
    every request of the kernel.
    """

    __slots__ = ("_diagnostics", "_path")

    def __init__(self, diagnostics: Diagnostics, path: str) -> None:
        self._diagnostics = diagnostics
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Failure) and error.cause not in _NO_TROUBLE:
            log.warning("%s: %s", self._path, error)
            self._diagnostics.failed(error)


def _file(node: Node, path: str) -> File:
    if not isinstance(node, File):
        raise Failure(Cause.IS_A_DIRECTORY, path)
    return node


def attributes_of(node: Node) -> Attributes:
    """The attributes of a node: 0755 and 0644, and the mount's owner is the user. The mount is read-only all
    the same, as a disk that is mounted so. `cp` gives a copy the mode of the original: with 0444 the user
    could not change, overwrite or remove the copy of a folder.

    A folder has one link, as on btrfs: its subfolders are not counted. A count of two would mean that it has
    none, and tools that rely on the count would skip them.
    """
    if isinstance(node, File):
        return _attributes(node, node.size)
    return Attributes(stat.S_IFDIR | 0o755, node.inode, 4096, node.mtime, 1, node.settled)


def _attributes(node: File, size: int) -> Attributes:
    return Attributes(stat.S_IFREG | 0o644, node.inode, size, node.mtime, 1, node.settled)
