"""Python's own ways into the file system: file objects, `os.stat_result`, `glob`.

Used by `api`, `filesystem` and the copies of `copying`.
Threading: any thread; one file object by one at a time.
"""

from __future__ import annotations

import fnmatch
import io
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xnatfs.errors import Cause, Failure
from xnatfs.vfs import Attributes, Vfs

if TYPE_CHECKING:
    StrPath = str | os.PathLike[str]

BUFFER = 128 * 2**10  # bytes read at once where little is asked for: what the kernel asks a mount for
_PIECE = 2**20  # bytes read at once at most
_MAGIC = re.compile(r"[*?[]")


class RawFile(io.RawIOBase):
    """An open file, without a buffer. One thread at a time.

    Args:
        vfs: the file system.
        path: absolute.

    Raises:
        Failure: see `Vfs.open`.
    """

    mode = "rb"

    def __init__(self, vfs: Vfs, path: str) -> None:
        super().__init__()
        self.name = path
        self._vfs = vfs
        self._pid = os.getpid()
        self._handle: int | None = None
        opened = vfs.open(path)
        self._handle, self.size, self._position = opened.handle, opened.size, 0  # size: in bytes, true

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        if base + offset < 0:
            raise ValueError("the position is before the beginning of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        handle = self._check()
        with memoryview(buffer).cast("B") as view:
            data = self._vfs.read(handle, self._position, min(len(view), _PIECE))
            view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        handle, pieces = self._check(), []
        while piece := self._vfs.read(handle, self._position, _PIECE):
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        # A forked process has the locks of this one as they were, and nobody who would open them.
        if self._handle is not None and self._pid == os.getpid():
            self._vfs.release(self._handle)
        self._handle = None
        super().close()

    def _check(self) -> int:
        if self._handle is None:
            raise ValueError("I/O operation on closed file")
        if self._pid != os.getpid():
            raise ValueError("the file was opened in another process; open it in this one")
        return self._handle


def absolute(path: StrPath) -> str:
    """A path as the file system takes it, from its top."""
    return posixpath.normpath("/" + os.fspath(path).lstrip("/"))


def stat_result(attributes: Attributes) -> os.stat_result:
    """Attributes as `os.stat` would give them in a mount of this user's."""
    second = int(attributes.mtime)
    fields = (
        *(attributes.mode, attributes.inode, 0, attributes.links, os.getuid(), os.getgid(), attributes.size),
        *(second, second, second),
    )
    named: dict[str, Any] = {"st_blksize": BUFFER, "st_blocks": attributes.blocks}
    for name in ("st_atime", "st_mtime", "st_ctime"):
        named |= {name: attributes.mtime, f"{name}_ns": int(attributes.mtime * 10**9)}
    return os.stat_result(fields, named)


def glob(vfs: Vfs, pattern: str, *, hidden: bool = False) -> Iterator[str]:
    """Paths that match a shell pattern; see `api.Client.glob`.

    Args:
        hidden: `*`, `?` and `[...]` match a leading dot, too.
    """
    parts: list[str] = []
    for part in pattern.split("/"):
        if part not in ("", ".") and not (part == "**" and parts[-1:] == ["**"]):
            parts.append(part)
    lead = "/" if pattern.startswith("/") else ""
    seen: set[str] | None = set() if parts.count("**") > 1 else None
    for path in _matches(vfs, "", parts, hidden) if parts else ():
        if seen is None or path not in seen:
            yield lead + path.removeprefix("/")
        if seen is not None:
            seen.add(path)


def _matches(vfs: Vfs, folder: str, parts: Sequence[str], hidden: bool) -> Iterator[str]:
    """What matches below a folder; `parts` is what is left of the pattern."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            yield from _matches(vfs, folder, rest, hidden)
        for path, is_folder in _shown(vfs, folder, hidden=hidden):
            if not rest:
                yield path
            if is_folder:
                yield from _matches(vfs, path, parts, hidden)
    elif not _MAGIC.search(part):
        path = f"{folder}/{part}"
        try:
            vfs.attributes(path)
        except Failure as failure:
            if failure.cause in (Cause.NO_ENTRY, Cause.NOT_A_DIRECTORY, Cause.NAME_TOO_LONG):
                return
            raise
        yield from _matches(vfs, path, rest, hidden)
    else:
        fits = re.compile(fnmatch.translate(part)).match
        for path, is_folder in _shown(vfs, folder, hidden=hidden or part.startswith(".")):
            if (is_folder or not rest) and fits(path.rpartition("/")[2]):
                yield from _matches(vfs, path, rest, hidden)


def _shown(vfs: Vfs, folder: str, *, hidden: bool = False) -> Iterator[tuple[str, bool]]:
    """What a folder lists, and whether each is a folder; nothing if this is none."""
    try:
        entries = vfs.entries(folder)
    except Failure as failure:
        if failure.cause in (Cause.NO_ENTRY, Cause.NOT_A_DIRECTORY):
            return
        raise
    for name, attributes in entries:
        if hidden or not name.startswith("."):
            yield f"{folder}/{name}", stat.S_ISDIR(attributes.mode)
