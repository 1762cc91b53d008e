"""What `xnatfs cache` does: telling what is in the caches below a directory, reading all of it again,
clearing it.

Used by `cli.cache`. Works beside running mounts: nothing that somebody writes is touched, and what is removed
is removed as an eviction would; who has such a file open reads on.
Threading: one thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from xnatfs.cache.contents import ContentCache
from xnatfs.cache.index import file_system, network_file_system
from xnatfs.cache.recovery import in_use, sweep_all
from xnatfs.disk import disk_failure, md5_of
from xnatfs.errors import Cause, Failure

_UNLIMITED = 1 << 62
_WITH_DIGEST = re.compile(
    r"([0-9a-f]{32})-\d+"
)  # `DigestPolicy.key`; the number is the catalog's size, which may be wrong
_PIECE = 1 << 20


@dataclass(frozen=True)
class CacheScope:
    """The cache of one server and user."""

    directory: Path

    @property
    def name(self) -> str:
        """As `Settings.scope` made it."""
        return self.directory.name

    @property
    def server(self) -> str:
        """The server's host, with its port."""
        return re.sub(r"_(\d+)$", r":\1", self.name.rpartition("-")[0])

    def of(self, url: str) -> bool:
        """Whether this is a cache of the server at `url`."""
        return re.sub(r"[^A-Za-z0-9.-]+", "_", urlsplit(url).netloc) == self.name.rpartition("-")[0]

    @property
    def in_use(self) -> bool:
        """Whether a process has it open."""
        return in_use(self.directory)


@dataclass
class Info:
    """What is in a cache. Sizes in bytes, times in seconds since the epoch (None: nothing was used yet)."""

    scope: str
    server: str
    directory: str
    files: int
    bytes: int
    partial_files: int
    partial_bytes: int
    reserved: int  # for what is on its way
    oldest_use: float | None
    newest_use: float | None
    in_use: bool
    file_system: str
    network: bool
    disk_free: int
    problem: str = ""


@dataclass
class Verified:
    """What reading a cache again brought to light."""

    files: int = 0
    bytes: int = 0
    by_size_only: int = 0  # files the server has no digest of: their size was looked at
    partials: int = 0
    in_use: int = 0  # being written by a mount, left alone
    wrong: list[str] = field(default_factory=list)
    freed: int = 0


def scopes(cache_dir: Path) -> list[CacheScope]:
    """The caches below a cache directory.

    Raises:
        Failure: CACHE_BROKEN if it cannot be read.
    """
    try:
        found = [
            path
            for path in sorted(cache_dir.iterdir())
            if (path / "objects").is_dir() and not path.is_symlink()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Failure(Cause.CACHE_BROKEN, str(cache_dir), error.strerror or str(error)) from error
    return [CacheScope(path) for path in found]


def info(scope: CacheScope) -> Info:
    """What is in a cache, from its index. Changes nothing."""
    directory = scope.directory
    made = Info(
        scope=scope.name,
        server=scope.server,
        directory=str(directory),
        files=0,
        bytes=0,
        partial_files=0,
        partial_bytes=0,
        reserved=0,
        oldest_use=None,
        newest_use=None,
        in_use=scope.in_use,
        file_system=file_system(directory),
        network=bool(network_file_system(directory)),
        disk_free=shutil.disk_usage(directory).free,
    )
    try:
        # rw, not ro: reading a write-ahead log needs its shared memory file, which may have to be made. `rw`
        # makes no index.
        uri = f"file:{quote(str(directory / 'index.sqlite'))}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)) as index:
            row = index.execute(
                "SELECT COUNT(*), COALESCE(SUM(size), 0), MIN(used), MAX(used) FROM objects"
            ).fetchone()
            made.files, made.bytes, made.oldest_use, made.newest_use = row
            pages = [(row[0], row[1]) for row in index.execute("SELECT size, pages FROM partials")]
            made.partial_files = len(pages)
            made.partial_bytes = sum(min(size, present.count(1) * 131072) for size, present in pages)
            ((made.reserved,),) = index.execute("SELECT bytes FROM total").fetchall()
            made.reserved = max(0, made.reserved - made.bytes - made.partial_bytes)
    except sqlite3.Error as error:
        made.problem = (
            f"its index cannot be read ({error}); the next mount rebuilds it, and so does "
            f"`xnatfs cache verify`"
        )
    return made


def verify(scope: CacheScope, progress: Callable[[int, int], None] = lambda done, total: None) -> Verified:
    """Read everything again; what is damaged is removed.

    Args:
        progress: called with (bytes read, bytes in all) now and then.

    Raises:
        Failure: CACHE_BROKEN if the cache cannot be used.
    """
    found = Verified()
    # Where zeros are kept as holes, a hole says nothing.
    holes = not network_file_system(scope.directory) and file_system(scope.directory) != "zfs"
    cache = ContentCache(scope.directory, _UNLIMITED)
    try:
        found.wrong += cache.left_behind
        swept = sweep_all(scope.directory, cache.index, holes=holes)
        found.wrong += swept.wrong
        found.freed += swept.freed
        found.partials, found.in_use = swept.partials + swept.in_use, swept.in_use
        objects = cache.keys()
        total = sum(size for _, size, _ in objects)
        for key, size, verified in objects:
            _verify_object(cache, key, size, verified, found)
            found.bytes += size
            progress(found.bytes, total)
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, Failure):
            raise
        raise disk_failure(error, str(scope.directory)) from error
    finally:
        cache.close()
    return found


def _verify_object(cache: ContentCache, key: str, size: int, verified: str, found: Verified) -> None:
    path = cache.path(key)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # evicted since
    try:
        match = _WITH_DIGEST.fullmatch(key)
        problem = ""
        found.files += 1
        if os.fstat(fd).st_size != size:
            problem = f"it has {os.fstat(fd).st_size} bytes instead of {size}"
        elif match is None:
            found.by_size_only += 1
        else:
            md5 = _md5(fd)
            if md5 != match[1]:
                problem = f"its MD5 is {md5}"
        if problem and cache.remove_damaged(key, fd):
            found.wrong.append(f"objects/{key[:2]}/{key}: {problem}")
            found.freed += os.fstat(fd).st_size
        elif (
            not problem and match is not None and verified == ""
        ):  # after an unclean boot: now it has been read again
            cache.confirm(key, "md5")
    finally:
        os.close(fd)


def _md5(fd: int) -> str:
    try:
        return md5_of(fd)
    except OSError as error:  # the disk cannot read it
        return f"unknown, {error.strerror}"


def clear(scope: CacheScope) -> tuple[int, int]:
    """Remove everything that nobody writes; returns (bytes freed, bytes left because a mount uses them).

    Raises:
        Failure: CACHE_BROKEN if the cache cannot be used.
    """
    try:
        cache = ContentCache(scope.directory, _UNLIMITED)
        try:
            freed = cache.clear() + sweep_all(scope.directory, cache.index).freed
            left = cache.index.total()
            cache.index.shrink()
        finally:
            cache.close()
        _empty(scope.directory / "listings.sqlite")
        _empty(scope.directory / "measurements.sqlite")
        tables = scope.directory / "tables"
        freed += sum(file.stat().st_size for file in tables.glob("*/*"))
        shutil.rmtree(
            tables, ignore_errors=True
        )  # a running mount rebuilds it; an open table can still be read
        for scan in (scope.directory / "converted").glob("*"):
            if not scan.name.startswith(".") or not scope.in_use:  # else a mount is converting there
                freed += sum(file.stat().st_size for file in scan.rglob("*") if file.is_file())
                shutil.rmtree(scan, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, Failure):
            raise
        raise disk_failure(error, str(scope.directory)) from error
    return freed, left


def _empty(database: Path) -> None:
    """Delete all rows of all tables; the file stays, for a running mount may have it open."""
    if not database.exists():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as open_database:
        tables = [
            row[0]
            for row in open_database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        open_database.execute("BEGIN IMMEDIATE")
        for table in tables:
            quoted = table.replace('"', '""')
            open_database.execute(f'DELETE FROM "{quoted}"')
        open_database.execute("COMMIT")
        with contextlib.suppress(sqlite3.Error):  # somebody reads it: its pages are used again later
            open_database.execute("VACUUM")
