"""One cell's surroundings: a mount without FUSE on the shared stand-in, what it is allowed, and what it may
not leave behind.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
import re
import socket
import stat
import threading
import time
from pathlib import Path

from tests.faults.truth import MIB, folders, true_files
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Limits, Settings
from xnatfs.core import Core, compose
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.vfs import Attributes

# A fifteenth of the deadlines of design.md 4.6.
LIMITS = Limits(
    cache_size=10**9,
    progress_deadline=2.0,
    listing_deadline=4.0,
    table_deadline=8.0,
    connect_timeout=0.6,
    whole_file_check=MIB,
    min_free=0,
)
_STAND_IN = ("xnatfs-demo", "demo-digest", "asyncio")  # its threads, which a restart replaces
SLACK = 8.0  # seconds a loaded machine may add to a deadline
AGAIN = 15.0  # seconds after a fault within which all has to work again
_WITH_DIGEST = re.compile(r"([0-9a-f]{32})-\d+")


class World:
    """The mount, the server and the clock of one cell.

    Args:
        server: the stand-in.
        folder: for cache and state.
        url: how the mount reaches the server.
        verify: whose certificates are trusted.
        ttl: seconds for which listings hold.
    """

    def __init__(
        self,
        server: DemoServer | None,
        folder: Path,
        url: str = "",
        verify: str | None = None,
        ttl: float = 3600.0,
    ) -> None:
        self._server = server
        self.folder = folder
        self.limits = dataclasses.replace(LIMITS, ttl=ttl)
        self.url = url or self.server.url
        self.verify = verify
        self.slowest = 0.0  # seconds of the slowest call
        self.tried = 0  # mounts composed
        self.password = "demo"
        self.refreshing = False  # each mount is told to look at the server again
        self._mounted: Core | None = None
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()

    @property
    def server(self) -> DemoServer:
        """The stand-in, where it is served by this process."""
        assert self._server is not None
        return self._server

    @property
    def switches(self) -> Switches:
        return self.server.switches

    @property
    def cache(self) -> Path:
        """The folder of what is cached of this server."""
        (found,) = (self.folder / "cache").iterdir()
        return found

    # --- the mount ------------------------------------------------------------------------------------------

    def settings(self, *, offline: bool = False) -> Settings:
        """The mount's."""
        return Settings(
            server=self.url,
            cache_dir=self.folder / "cache",
            state_dir=self.folder / "state",
            limits=self.limits,
            offline=offline,
            verify=self.verify,
        )

    def mount(self) -> Core:
        """The mount, composed if there is none."""
        if self._mounted is None:
            self.tried += 1
            self._mounted = self._timed(lambda: compose(self.settings(), self._login(), "/mnt/xnat"))
            if self.refreshing:
                self._mounted.refresh()
        return self._mounted

    def new_password(self, password: str) -> None:
        """What the user tells the mount, by `xnatfs login` or SIGHUP."""
        self.password = password
        if self._mounted is not None:
            self._mounted.connection.logins.take(self._login())

    def _login(self) -> Credentials:
        return Credentials(self.url, "demo", self.password, "the test")

    def unmount(self) -> None:
        """Close it."""
        mounted, self._mounted = self._mounted, None
        if mounted is not None:
            mounted.close()

    @property
    def mounted(self) -> bool:
        return self._mounted is not None

    def _timed(self, call):  # type: ignore[no-untyped-def]
        begun = time.monotonic()
        try:
            return call()
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begun)

    # --- operations, each with its time taken ---------------------------------------------------------------

    def entries(self, path: str) -> dict[str, Attributes]:
        """A folder."""
        mounted = self.mount()
        return dict(self._timed(lambda: mounted.vfs.entries(path)))

    def attributes(self, path: str) -> Attributes:
        """`stat`."""
        mounted = self.mount()
        found: Attributes = self._timed(lambda: mounted.vfs.attributes(path))
        return found

    def open(self, path: str) -> int:
        """A handle."""
        mounted = self.mount()
        return int(self._timed(lambda: mounted.vfs.open(path)).handle)

    def read(self, handle: int, offset: int, length: int = 131072) -> bytes:
        """Bytes of an open file."""
        mounted = self.mount()
        return bytes(self._timed(lambda: mounted.vfs.read(handle, offset, length)))

    def release(self, handle: int) -> None:
        """Close a file."""
        self.mount().vfs.release(handle)

    def whole(self, path: str) -> bytes:
        """A file from its first to its last byte."""
        handle = self.open(path)
        try:
            data = bytearray()
            while piece := self.read(handle, len(data)):
                data += piece
            return bytes(data)
        finally:
            self.release(handle)

    # --- what may not be left -------------------------------------------------------------------------------

    def check_cache(self) -> None:
        """Every object is the content of a file that is, or was, on the server, and under its own key; every
        stored listing is true.
        """
        true = {
            hashlib.md5(one.read(), usedforsecurity=False).hexdigest()
            for one in true_files(self.server.archive).values()
        }
        true |= self.former
        for path in (self.folder / "cache").glob("*/objects/*/*"):
            md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            match = _WITH_DIGEST.fullmatch(path.name)
            assert match is None or match[1] == md5, f"the cached {path.name} has the MD5 {md5}"
            assert md5 in true, f"the cached {path.name} is no file of the server's"
        self._check_listings()

    former: frozenset[str] = frozenset()  # MD5s of contents the server had before

    def _check_listings(self) -> None:
        """What an offline mount shows of the stored listings is what the server has."""
        settings = dataclasses.replace(self.settings(offline=True), server=self.url)
        mounted = compose(settings, Credentials(self.url, "demo", "demo", "the test"), "/mnt/xnat")
        try:
            true = folders(self.server.archive)
            todo = ["/projects/P/subjects"]
            while todo:
                folder = todo.pop()
                try:
                    found = dict(mounted.vfs.entries(folder))
                except Failure as failure:
                    assert failure.cause in (Cause.OFFLINE, Cause.NO_ENTRY), f"{folder}: {failure}"
                    continue
                shown = {name: None if stat.S_ISDIR(one.mode) else one.size for name, one in found.items()}
                assert shown == true[folder], f"stored of {folder}: {shown}, the server has {true[folder]}"
                todo += [f"{folder}/{name}" for name, size in shown.items() if size is None]
        finally:
            mounted.close()

    def check_leaks(self) -> None:
        """No thread and no descriptor more than before."""

        def left() -> list[str]:
            threads = [
                one.name
                for one in threading.enumerate()
                if one not in self._threads and not one.name.startswith(_STAND_IN)
            ]
            return threads + [name for name in _descriptors() if name not in self._descriptors]

        deadline = time.monotonic() + 30.0  # a busy machine closes late
        pause = 0.02
        while (found := left()) and time.monotonic() < deadline:
            gc.collect()  # only now: some hundredths of a second each time
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        assert not found, f"left open: {found}"


def _descriptors() -> list[str]:
    """What is open in this process: files by name, and of sockets only those that are connected from here to
    somewhere.
    """
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if name.startswith("/") and not name.startswith(("/dev/", "/proc/", "/sys/")):
            found.append(name)
        elif name.startswith("socket:"):
            try:
                with socket.socket(fileno=os.dup(int(number))) as one:
                    if one.family == socket.AF_INET:
                        found.append(f"socket from {one.getsockname()} to {one.getpeername()}")
            except OSError:  # it listens, or is closed by now
                continue
    return found
