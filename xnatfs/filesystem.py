"""`xnat://` URLs for whatever reads through fsspec: pandas, Dask, DuckDB, Zarr, `UPath`.

Public, by way of fsspec's entry point: see docs/fsspec.md. It translates, and decides nothing: listings,
contents, freshness and errors are those of `vfs`. What fsspec would keep of them itself is not used.
Threading: any thread; one file object by one at a time. Pickled, it is its options and a file its address;
a process logs in when it first opens something.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from xnatfs.core import Core
from xnatfs.errors import Failure
from xnatfs.shared_cores import CORES, ConnectOptions
from xnatfs.tree.node import UnknownSize
from xnatfs.vfs import XATTR_PREFIX, Attributes
from xnatfs.vfs_io import BUFFER, RawFile, absolute, glob

_MISSING = (FileNotFoundError, NotADirectoryError)
_MAGIC = re.compile(r"[*?[]")


class XnatFile(io.BufferedReader):
    """A file that is open for reading; `size` in bytes."""

    def __init__(self, raw: RawFile, fs: XnatFileSystem, path: str) -> None:
        super().__init__(raw, BUFFER)
        self.fs, self.path, self.size = fs, path, raw.size

    def info(self) -> dict[str, Any]:
        """What the file system says of it."""
        return self.fs.info(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _at, (self.fs, self.path, self.tell())

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return self.__reduce__()


def _at(fs: XnatFileSystem, path: str, position: int) -> XnatFile:
    file: XnatFile = fs.open(path)
    file.seek(position)
    return file


class XnatFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """XNAT servers as a read-only file system of fsspec.

    Paths begin with the server: `HOST/projects/...` is `xnat://HOST/projects/...`; without one it is the
    server that commands take. See `xnatfs.connect` for how a login is found.

    Parameters
    ----------
    user : str, optional
        User name; needed only where several are known.
    projects : sequence of str, optional
        Ids of the only projects to show.
    cache_dir : str, optional
        Where contents and listings are kept.
    offline : bool, optional
        Ask the server nothing.
    allow_http : bool, optional
        Send the password over plain http:// to another machine.

    Raises
    ------
    OSError
        By any method: `FileNotFoundError` and its like, or what keeps the server from answering. EROFS where
        something is to be written.
    xnatfs.errors.UsageError
        No login fits, or the URL has a password in it.
    """

    protocol = "xnat"

    def __init__(
        self,
        user: str | None = None,
        projects: tuple[str, ...] | list[str] | str = (),
        cache_dir: str | os.PathLike[str] | None = None,
        offline: bool = False,
        allow_http: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        only = (projects,) if isinstance(projects, str) else tuple(projects)
        folder = None if cache_dir is None else os.fspath(cache_dir)
        self._login = ConnectOptions(user, only, folder, offline, allow_http)

    # --- addresses ----------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(stringify_path(path))
        bare = text[len("xnat:") :].removeprefix("//") if re.match("xnat:/", text) else text
        return bare.rstrip("/")

    @property
    def fsid(self) -> str:
        """The same for all: a path begins with its server."""
        return "xnat"

    # --- names --------------------------------------------------------------------------------------------

    def ls(self, path: Any, detail: bool = True, **_: Any) -> list[Any]:
        """What a directory lists; of a file, itself. Sizes of tables that are not built yet are None."""
        path = self._strip_protocol(path)
        with self._at(path) as (core, inside):
            attributes = core.vfs.attributes(inside)
            if not stat.S_ISDIR(attributes.mode):
                found = [self._entry(path, attributes)]
            else:
                entries = core.vfs.entries(inside)
                found = [self._entry(f"{path}/{name}", one) for name, one in entries]
        return found if detail else [one["name"] for one in found]

    def info(self, path: Any, **_: Any) -> dict[str, Any]:
        """Name, type, size in bytes, `mtime` in seconds since 1970; for a file its digest, if the server has
        one. A table is built for its size.
        """
        path = self._strip_protocol(path)
        with self._at(path) as (core, inside):
            attributes = core.vfs.attributes(inside)
            found = self._entry(path, attributes)
            if found["type"] == "file":
                if found["size"] is None:
                    with RawFile(core.vfs, inside) as file:
                        found["size"] = file.size
                with suppress(Failure):
                    found["digest"] = core.vfs.xattr(inside, f"{XATTR_PREFIX}digest").decode()
        return found

    def exists(self, path: Any, **_: Any) -> bool:
        """Whether it is there. A server that does not answer is an error, not a no."""
        return self._type(path) is not None

    def isdir(self, path: Any) -> bool:
        """Whether it is a directory."""
        return self._type(path) == "directory"

    def isfile(self, path: Any) -> bool:
        """Whether it is a file."""
        return self._type(path) == "file"

    def walk(
        self,
        path: Any,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], Any] = "omit",
        **options: Any,
    ) -> Iterator[tuple[str, Any, Any]]:
        """Every directory below one. What is not there is left out; that the server does not answer is an
        error, unless `on_error` takes it: without one, half a study would pass for a whole.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        try:
            listing = self.ls(path)
        except OSError as error:
            if callable(on_error):
                on_error(error)
            elif on_error == "raise" or not isinstance(error, _MISSING):
                raise
            return
        if [one["name"] for one in listing] == [path]:  # a file
            return
        names = {one["name"].rpartition("/")[2]: one for one in listing}
        below: Any = {name: one for name, one in names.items() if one["type"] == "directory"}
        files: Any = {name: one for name, one in names.items() if one["type"] != "directory"}
        if not options.get("detail"):
            below, files = list(below), list(files)
        if topdown:
            yield path, below, files
        if maxdepth is None or maxdepth > 1:
            deeper = None if maxdepth is None else maxdepth - 1
            for name in below:  # which the caller may have shortened
                yield from self.walk(f"{path}/{name}", deeper, topdown, on_error, **options)
        if not topdown:
            yield path, below, files

    def glob(self, path: Any, maxdepth: int | None = None, **options: Any) -> Any:
        """Paths that match. Only directories that do are listed, which in fsspec's own all are that are as
        deep: every session of every project.
        """
        text = str(stringify_path(path))
        pattern = self._strip_protocol(text)
        magic = _MAGIC.search(pattern)
        if magic is None or "**" in pattern or text.endswith("/") or "/" not in pattern[: magic.start()]:
            return super().glob(path, maxdepth=maxdepth, **options)
        root = pattern[: magic.start()].rpartition("/")[0]
        below = pattern[len(root) :]
        with self._at(root) as (core, inside):
            inside = inside.rstrip("/")
            paths = sorted(root + one[len(inside) :] for one in glob(core.vfs, inside + below, hidden=True))
            found = {one: self._entry(one, core.vfs.attributes(inside + one[len(root) :])) for one in paths}
        if not options.get("withdirs", True):
            found = {one: entry for one, entry in found.items() if entry["type"] == "file"}
        return found if options.get("detail") else list(found)

    # --- contents -----------------------------------------------------------------------------------------

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> XnatFile:
        path = self._strip_protocol(path)
        if mode != "rb":
            self._read_only(path)
        with self._at(path) as (core, inside):
            return XnatFile(RawFile(core.vfs, inside), self, path)

    def modified(self, path: Any) -> datetime:
        """When it last changed, as far as the server says."""
        return datetime.fromtimestamp(self.info(path)["mtime"], timezone.utc)

    def invalidate_cache(self, path: Any = None) -> None:
        """Ask the server again at the next look."""
        with self._at(self._strip_protocol(path or "")) as (core, inside):
            core.refresh(inside)

    def _read_only(self, path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "xnat:// is read-only", str(path))

    mkdir = makedirs = rmdir = rm = rm_file = _rm = cp_file = mv = touch = pipe_file = put_file = _read_only
    put = pipe = copy = _read_only

    # --- helpers ------------------------------------------------------------------------------------------

    @contextmanager
    def _at(self, path: str) -> Iterator[tuple[Core, str]]:
        """The connection and the path in its tree; failures as Python's own errors, which fsspec expects."""
        try:
            core, inside = CORES.at(path, self._login)
            yield core, absolute(inside)
        except Failure as failure:
            text = str(failure)
            if path.endswith(failure.subject):
                text = text.removeprefix(f"{failure.subject}: ")
            raise OSError(failure.errno, text, f"xnat://{path}") from failure

    def _entry(self, path: str, attributes: Attributes) -> dict[str, Any]:
        size: int | None = None if isinstance(attributes.size, UnknownSize) else int(attributes.size)
        folder = stat.S_ISDIR(attributes.mode)
        return {
            "name": path,
            "type": "directory" if folder else "file",
            "size": 0 if folder else size,
            "mtime": attributes.mtime,
            "mode": attributes.mode,
            "ino": attributes.inode,
        }

    def _type(self, path: Any) -> str | None:
        path = self._strip_protocol(path)
        try:
            with self._at(path) as (core, inside):
                return str(self._entry(path, core.vfs.attributes(inside))["type"])
        except _MISSING:
            return None
