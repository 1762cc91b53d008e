"""What a crash leaves in a cache directory, and clearing it away: index and files brought into agreement.

Used by `contents` (when a cache is opened) and `cache.maintenance` (`xnatfs cache verify`). Safe beside
running mounts: whoever writes a file holds its flock until the index has its row, and a row is removed only
in a transaction that has looked again.
Threading: any thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xnatfs.cache.index import Index
from xnatfs.cache.partial import PAGE, punch


@dataclass
class RecoveryResult:
    """What was found wrong and put right: one line each, relative to the cache's directory."""

    wrong: list[str] = field(default_factory=list)
    freed: int = 0  # bytes on disk
    in_use: int = 0  # drafts and partial files somebody has open, which are left alone
    partials: int = 0  # partial files looked at


class Guard:
    """Who has a cache directory open: a shared lock on its file `lock`, so that the last one can be told from
    a crashed one.

    Attributes:
        alone: whether nobody else had it open when this was made.
    """

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except BlockingIOError:
            self.alone = False
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def close(self) -> None:
        """Not open any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def in_use(directory: Path) -> bool:
    """Whether a process has this cache open."""
    with contextlib.suppress(OSError):
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


@contextlib.contextmanager
def taken(path: Path) -> Iterator[int | None]:
    """A descriptor of the file with its flock; None if somebody else has that, or the file is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd if os.path.samestat(os.fstat(fd), path.stat()) else None
    except (BlockingIOError, FileNotFoundError):
        yield None
    finally:
        os.close(fd)


def on_disk(fd: int) -> int:
    """Bytes a file takes on the disk."""
    return os.fstat(fd).st_blocks * 512


def sweep_drafts(directory: Path, index: Index) -> RecoveryResult:
    """Remove what nobody writes any more: drafts with their reservations, partial files the index does not
    know.
    """
    swept = RecoveryResult()
    alive: set[str] = set()
    for path in (directory / "drafts").iterdir():
        with taken(path) as fd:
            if fd is not None:
                swept.freed += on_disk(fd)
                path.unlink()
                swept.wrong.append(f"drafts/{path.name}: left by a process that died")
            elif path.exists():
                alive.add(path.name)
    swept.in_use = len(alive)
    for (name,) in index.execute("SELECT name FROM drafts"):
        if (
            name not in alive and not (directory / "drafts" / str(name)).exists()
        ):  # one made since holds its file first
            index.execute("DELETE FROM drafts WHERE name = ?", name)
            swept.wrong.append(f"drafts/{name}: a reservation without an owner")
    known = {str(key) for (key,) in index.execute("SELECT key FROM partials")}
    for path in (directory / "partials").iterdir():
        if path.name not in known or "." in path.name:
            with taken(path) as fd:
                if fd is not None and (index.partial(path.name) is None or "." in path.name):
                    swept.freed += on_disk(fd)
                    path.unlink()
                    index.execute("DELETE FROM partials WHERE key = ?", path.name)
                    swept.wrong.append(f"partials/{path.name}: left by a process that died")
    return swept


def sweep_all(directory: Path, index: Index, *, holes: bool = False) -> RecoveryResult:
    """Besides the drafts: objects without a row and rows without an object, partial files and their pages,
    the sum of all bytes.

    Args:
        holes: also look whether pages said to be present have bytes at all. Not where zeros are kept as
            holes.
    """
    swept = sweep_drafts(directory, index)
    _sweep_objects(directory, index, swept)
    for (key,) in index.execute("SELECT key FROM partials"):
        _sweep_partial(directory / "partials" / str(key), index, swept, holes=holes)
    with index.transaction():
        ((parts, total),) = index.execute(
            "SELECT (SELECT COALESCE(SUM(size), 0) FROM objects) + (SELECT COALESCE(SUM(reserved), 0) "
            "FROM drafts)"
            " + (SELECT COALESCE(SUM(reserved), 0) FROM partials), (SELECT bytes FROM total)"
        )
        if parts != total:
            index.execute("UPDATE total SET bytes = ?", parts)
            swept.wrong.append(f"index.sqlite: the sum of all bytes was {total}, it is {parts}")
    return swept


def _sweep_objects(directory: Path, index: Index, swept: RecoveryResult) -> None:
    rows = {str(key) for (key,) in index.execute("SELECT key FROM objects")}
    found: set[str] = set()
    for folder in list(os.scandir(directory / "objects")):
        if not folder.is_dir():
            continue
        for entry in list(os.scandir(folder.path)):
            found.add(entry.name)
            if entry.name in rows:
                continue
            path = Path(entry.path)
            with taken(path) as fd:  # whoever is about to enter it holds the lock
                if fd is None:
                    continue
                with index.transaction():
                    if (
                        index.object(entry.name) is None
                        and path.exists()
                        and os.path.samestat(os.fstat(fd), path.stat())
                    ):
                        swept.freed += on_disk(fd)
                        path.unlink()
                        swept.wrong.append(f"objects/{folder.name}/{entry.name}: not in the index")
    for key in rows - found:
        with index.transaction():
            if index.object(key) is not None and not (directory / "objects" / key[:2] / key).exists():
                index.execute("DELETE FROM objects WHERE key = ?", key)
                swept.wrong.append(f"objects/{key[:2]}/{key}: in the index, but missing")


def _sweep_partial(path: Path, index: Index, swept: RecoveryResult, *, holes: bool) -> None:
    name = f"partials/{path.name}"
    with taken(path) as fd:
        if fd is None:
            if path.exists():
                swept.in_use += 1
                return
            with index.transaction():
                if not path.exists() and index.partial(path.name) is not None:
                    index.execute("DELETE FROM partials WHERE key = ?", path.name)
                    swept.wrong.append(f"{name}: in the index, but missing")
            return
        row = index.partial(path.name)
        if row is None:
            return
        swept.partials += 1
        count = -(-row.size // PAGE)
        if os.fstat(fd).st_size != row.size or len(row.pages) != count or row.pages.strip(b"\0\1"):
            swept.freed += on_disk(fd)
            path.unlink()
            index.execute("DELETE FROM partials WHERE key = ?", path.name)
            swept.wrong.append(f"{name}: its size or its list of pages is impossible")
            return
        pages = bytearray(row.pages)
        lost = _empty_pages(fd, pages) if holes else 0
        if lost:
            swept.wrong.append(f"{name}: {lost} pages marked as present are missing")
        swept.freed += _trim(fd, pages)
        reserved = min(row.size, pages.count(1) * PAGE)
        index.execute(
            "UPDATE partials SET pages = ?, reserved = ? WHERE key = ?", bytes(pages), reserved, path.name
        )


def _runs(pages: bytearray, value: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of every run of pages with this value."""
    start = pages.find(value)
    while start >= 0:
        stop = pages.find(1 - value, start)
        stop = len(pages) if stop < 0 else stop
        yield start, stop
        start = pages.find(value, stop)


def _trim(fd: int, pages: bytearray) -> int:
    """Give back the disk space of pages that were written but never recorded; returns the bytes freed."""
    before = on_disk(fd)
    if before > pages.count(1) * PAGE:
        for first, stop in _runs(pages, 0):
            punch(fd, first * PAGE, (stop - first) * PAGE)
    return max(0, before - on_disk(fd))


def _empty_pages(fd: int, pages: bytearray) -> int:
    """Unmark pages that are holes; returns how many."""
    lost = 0
    size = os.fstat(fd).st_size
    for first, stop in list(_runs(pages, 1)):
        page = first
        while page < stop:
            try:
                data = os.lseek(fd, page * PAGE, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    return lost  # this file system cannot tell
                data = size + PAGE
            upto = min(stop, data // PAGE)
            if upto > page:
                pages[page:upto] = bytes(upto - page)
                lost += upto - page
            page = max(upto, page) + 1
    return lost
