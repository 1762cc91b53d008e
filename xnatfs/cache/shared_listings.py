"""Listings that other machines of the same user have made, in the folder of a shared tier.

Used by `listing_store`, which looks here for what this machine has not stored. What is found is as good as
what an earlier mount stored: it is shown once this user's own requests, on their own login, agree with its
stamps (docs/internals/listing.md 4). That proves what the listing says to its user, not to another one: two
users who see the same sessions with the same stamps may see different assessors below them. So a listing is
read only by the user it was made for: the same name on the server, and the same one on the machines, who owns
the folder and the file; nobody else may read or write them. An object store cannot tell who wrote something,
and has no listings.

    listings/<uid>-<server and user>/<kind and key>   a line of JSON (kind, key, stamp), then the body, zlib

Threading: any thread. Reading blocks on the disk; what is put is written by one worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from xnatfs.cache.tier_health import TierHealth
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.disk import write_all
from xnatfs.errors import Failure

log = logging.getLogger(__name__)

KINDS = frozenset({"project", "session", "subject", "outline", "files"})
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_WAITING = 200  # to be written; what is put besides is listed once more by another machine
_LAST_WRITES_S = 10.0  # when the mount ends
_CLOSE_LOOK_S = 0.05


class Stored(NamedTuple):
    """A listing as it was written: `made` in seconds since the epoch."""

    stamp: str
    made: float
    body: str


class SharedListings:
    """The listings of one user of one server.

    Args:
        folder: of all users' listings in a tier.
        scope: names the server and the user on it.
    """

    def __init__(self, folder: Path, scope: str) -> None:
        self._uid = os.geteuid()
        self._folder = folder / f"{self._uid}-{_digest(scope)}"
        self._health = TierHealth(str(folder))
        self._writer = WorkerPool("listings shared", 1)
        self._lock = threading.Lock()  # held for moments
        self._waiting = 0
        self._dropped: set[str] = set()  # here they are not believed again
        self._ahead: float | None = None  # by how much the disk's clock is ahead of this machine's

    def get(self, kind: str, key: str) -> Stored | None:
        """The listing of this kind and key; None if there is none."""
        name = _digest(f"{kind}\0{key}")
        if kind not in KINDS or name in self._dropped:
            return None
        nothing: Stored | None = None
        return self._health.ask(lambda: self._read(name, kind, key), nothing)

    def put(self, kind: str, key: str, stamp: str, body: str) -> None:
        """Put a listing there, soon, in place of an older one."""
        if kind not in KINDS or self._waiting >= _MOST_WAITING or not self._health.usable:
            return
        self._submit(lambda: self._write(_digest(f"{kind}\0{key}"), json.dumps([kind, key, stamp]), body))

    def drop(self, kind: str, key: str) -> None:
        """A listing was wrong, or is not this user's any more."""
        name = _digest(f"{kind}\0{key}")
        if kind in KINDS:
            self._dropped.add(name)
            self._submit(lambda: self._remove(name))

    def close(self) -> None:
        """Write what waits."""
        deadline = time.monotonic() + _LAST_WRITES_S
        while self._waiting and time.monotonic() < deadline:
            time.sleep(_CLOSE_LOOK_S)
        self._writer.close()

    # --- on the disk ----------------------------------------------------------------------------------------

    def _read(self, name: str, kind: str, key: str) -> Stored | None:
        with self._opened() as folder:
            if folder < 0:
                return None
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                return None
            with os.fdopen(fd, "rb") as file:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or not self._is_ours(found):
                    return None
                head, _, body = file.read().partition(b"\n")
            if self._ahead is None:
                self._ahead = self._clock_ahead(folder)
        try:
            of_kind, of_key, stamp = json.loads(head)
            if (of_kind, of_key) != (kind, key):
                return None
            made = found.st_mtime - self._ahead
            return Stored(str(stamp), made, zlib.decompress(body).decode("utf-8", "surrogatepass"))
        except (ValueError, TypeError, zlib.error) as error:
            log.warning("a listing in %s cannot be read: %s", self._folder, error)
            return None

    def _write(self, name: str, head: str, body: str) -> None:
        with self._opened(make=True) as folder:
            if folder < 0:
                return
            draft = f".{uuid.uuid4().hex}"
            try:
                packed = zlib.compress(body.encode("utf-8", "surrogatepass"), 1)
                _make(draft, head.encode() + b"\n" + packed, folder)
                os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft, dir_fd=folder)
                raise

    def _remove(self, name: str) -> None:
        with self._opened() as folder, contextlib.suppress(FileNotFoundError):
            if folder >= 0:
                os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder; -1 if there is none that is this user's alone."""
        fd = -1
        try:
            if make and not self._folder.exists():
                with contextlib.suppress(FileExistsError):
                    self._folder.mkdir(mode=0o700)
                    self._folder.chmod(0o700)
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self._folder, _FOLDER_FLAGS)
            if fd >= 0 and not self._is_ours(os.fstat(fd)):
                log.warning("%s is not this user's alone; what it lists is not used", self._folder)
                os.close(fd)
                fd = -1
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)

    def _is_ours(self, found: os.stat_result) -> bool:
        return found.st_uid == self._uid and not found.st_mode & 0o077

    def _clock_ahead(self, folder: int) -> float:
        """What the disk's clock says more than this machine's: dates of files are the disk's."""
        probe = f".{uuid.uuid4().hex}"
        try:
            _make(probe, b"", folder)
            now = os.stat(probe, dir_fd=folder).st_mtime
            os.unlink(probe, dir_fd=folder)
        except OSError:  # it may be full, and what is there is good all the same
            return 0.0
        return now - time.time()

    def _submit(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                self._health.ask(work, None)
            finally:
                self._count(-1)

        self._count(1)
        try:
            self._writer.submit(run)
        except Failure:  # the mount is ending
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._waiting += more


def _make(name: str, data: bytes, folder: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        write_all(fd, data, 0)
    finally:
        os.close(fd)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
