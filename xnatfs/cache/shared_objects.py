"""The shared tier in an object store: S3, or whatever else fsspec has a file system for.

Made by `shared_place.open_tier`. The store puts an object as a whole, and refuses to create what exists,
which is all that is needed of it. Its login is where its library looks for it.
Threading: any thread, as fsspec's file systems; made in the process that uses it, since they do not survive
a fork.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from xnatfs.cache.shared_tier import StoredObject, object_path, relative
from xnatfs.errors import MissingExtra, UsageError
from xnatfs.extras import EXTRAS, load

_AT_ONCE_BYTES = 8 * 2**20  # objects up to this size are had, and put, by one request
_PIECE_BYTES = 8 * 2**20
_DATES = ("LastModified", "last_modified", "updated", "mtime", "created")  # by store
_TOGETHER = 32  # small objects are asked for side by side


class SharedObjects:
    """A folder of an object store as a shared tier.

    Raises:
        UsageError: it cannot be used. MissingExtra without fsspec.
    """

    def __init__(self, where: str) -> None:
        fsspec = load("fsspec", "s3")
        self.name = where.rstrip("/")
        self._renewals = 0
        try:
            self._store, self._root = fsspec.core.url_to_fs(self.name, use_listings_cache=False)
            self._store.exists(f"{self._root}/objects")
        except ImportError as error:
            if where.startswith(("s3:", "s3a:")):
                raise MissingExtra("s3", EXTRAS["s3"][0]) from None
            raise UsageError(f"{self.name} cannot be the shared cache: {error}") from None
        except Exception as error:  # each store has its own
            raise UsageError(
                f"{self.name} cannot be the shared cache: {type(error).__name__}: {error}"
            ) from None

    def has(self, key: str) -> bool:
        """See `SharedTier`."""
        return bool(self._store.exists(self._object(key)))

    def open(self, key: str, *, fresh: bool = False) -> StoredObject | None:
        """See `SharedTier`."""
        path = self._object(key)
        try:
            if int(key.rpartition("-")[2]) <= _AT_ONCE_BYTES:
                return StoredObject(iter((self._store.cat_file(path),)))
            stream = self._store.open(path, "rb", block_size=_PIECE_BYTES, cache_type="readahead")
        except FileNotFoundError:
            return None
        return StoredObject(_pieces(stream))

    def many(self, keys: Iterable[str]) -> Iterator[tuple[str, StoredObject]]:
        """See `SharedTier`."""
        left = iter(keys)
        while some := {self._object(key): key for key in islice(left, _TOGETHER)}:
            found = self._store.cat(list(some), on_error="return")
            for path, content in found.items():
                if isinstance(content, bytes):
                    yield some[path], StoredObject(iter((content,)))
                elif not isinstance(content, FileNotFoundError):
                    raise content

    def put(self, key: str, fd: int, size: int) -> None:
        """See `SharedTier`."""
        if size <= _AT_ONCE_BYTES:
            self._store.pipe_file(self._object(key), os.pread(fd, size, 0))
        else:
            self._store.put_file(f"/proc/self/fd/{fd}", self._object(key))

    def remove(self, key: str) -> None:
        """See `SharedTier`."""
        with contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._object(key))

    def claim(self, name: str, holder: str) -> bool:
        """See `SharedTier`."""
        try:
            self._store.pipe_file(self._lease(name), holder.encode(), mode="create")
        except FileExistsError:
            return False
        return True

    def lease(self, name: str) -> str:
        """See `SharedTier`."""
        try:
            return str(self._store.cat_file(self._lease(name)).decode("ascii", "replace"))
        except FileNotFoundError:
            return ""

    def holder(self, name: str) -> str:
        """See `SharedTier`."""
        return self.lease(name).partition(" ")[0]

    def renew(self, name: str, holder: str) -> None:
        """See `SharedTier`."""
        self._renewals += 1
        self._store.pipe_file(self._lease(name), f"{holder} {self._renewals}".encode())

    def ages(self, begin: str) -> dict[str, float]:
        """See `SharedTier`. Of a store that gives no dates, all are new."""
        with contextlib.suppress(FileNotFoundError):
            found = self._store.ls(f"{self._root}/leases", detail=True)
            dated = {one["name"].rpartition("/")[2]: _renewed(one) for one in found}
            return relative({name: at for name, at in dated.items() if name.startswith(begin)})
        return {}

    def release(self, name: str, holder: str) -> None:
        """See `SharedTier`."""
        if self.holder(name) == holder:
            self._remove(name)

    def bury(self, name: str, state: str) -> None:
        """See `SharedTier`."""
        if self.lease(name) == state:
            self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._lease(name))

    def _object(self, key: str) -> str:
        return f"{self._root}/{object_path(key)}"

    def _lease(self, name: str) -> str:
        return f"{self._root}/leases/{name}"


def _renewed(found: Mapping[str, Any]) -> float:
    dates = (found.get(name) for name in _DATES)
    return next((date.timestamp() for date in dates if isinstance(date, datetime)), 0.0)


def _pieces(stream: Any) -> Iterator[bytes]:
    with stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece
