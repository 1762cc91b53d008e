"""One connection a process to each server, shared by everything that opens `xnat://` URLs in it.

Used by `filesystem`, whose objects are many (one a thread) and hold no connection of their own.
Threading: any thread; one connects, the others wait for it. A forked process begins without any.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass

from xnatfs.api import composed
from xnatfs.auth.addresses import Address, KnownServers, address, known_servers
from xnatfs.auth.credentials import Credentials, choose, find
from xnatfs.core import Core
from xnatfs.errors import Cause, Failure, UsageError


@dataclass(frozen=True)
class ConnectOptions:
    """What a connection is made with: see `api.connect`."""

    user: str | None = None
    projects: tuple[str, ...] = ()
    cache_dir: str | None = None
    offline: bool = False
    allow_http: bool = False


class SharedCores:
    """The connections of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cores: dict[tuple[str | None, ConnectOptions], Future[Core]] = {}
        self._refused: dict[tuple[str | None, ConnectOptions], tuple[Credentials, Failure]] = {}
        self._known: KnownServers | None = None
        self._not_ours: list[Future[Core]] = []  # a parent's: neither used nor, by losing them, ended

    def at(self, text: str, login: ConnectOptions) -> tuple[Core, str]:
        """The connection that an address needs, and the path in its tree.

        Raises:
            UsageError: the address cannot be understood, or no login fits.
            Failure: the server cannot be used, or refuses the login.
        """
        found = self._address(text)
        if found.user is not None:
            login = ConnectOptions(
                found.user, login.projects, login.cache_dir, login.offline, login.allow_http
            )
        return self._core(found.server, login), found.path

    def close(self) -> None:
        """Log out everywhere."""
        with self._lock:
            ending, self._cores = self._cores, {}
            self._known = None
        for future in ending.values():
            if future.done() and future.exception() is None:
                future.result().close()

    def begin_again(self) -> None:
        """In a forked process: its connections are to be its own."""
        self._lock = threading.Lock()
        self._not_ours += self._cores.values()
        self._cores, self._refused, self._known = {}, {}, None

    def _address(self, text: str) -> Address:
        known = self._known
        if known is None:
            known = self._known = known_servers()
        return address(text, known)

    def _core(self, server: str | None, login: ConnectOptions) -> Core:
        key = (server, login)
        with self._lock:
            future = self._cores.get(key)
            mine = future is None
            if future is None:
                future = self._cores[key] = Future()
        if mine:
            try:
                future.set_result(self._connect(server, login))
            except BaseException as error:
                with self._lock:
                    self._cores.pop(key, None)
                    self._known = None  # what was not known may be, the next time
                future.set_exception(error)
        return future.result()

    def _connect(self, server: str | None, login: ConnectOptions) -> Core:
        key = (server, login)
        before = self._refused.get(key)
        if before is not None and _credentials(server, login) == before[0]:
            raise before[1]  # a program that opens a thousand files must not lock the account
        try:
            return composed(
                server,
                user=login.user,
                projects=login.projects,
                cache_dir=login.cache_dir,
                offline=login.offline,
                allow_http=login.allow_http,
            )
        except Failure as failure:
            if failure.cause is Cause.LOGIN_REFUSED and (used := _credentials(server, login)) is not None:
                self._refused[key] = used, failure
            raise


def _credentials(server: str | None, login: ConnectOptions) -> Credentials | None:
    with contextlib.suppress(UsageError):
        return find(choose(server, login.user), login.user, prompt=False, expired=login.offline)
    return None


CORES = SharedCores()
atexit.register(CORES.close)
os.register_at_fork(after_in_child=CORES.begin_again)
