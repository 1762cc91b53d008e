"""One connection a process to each server, shared by everything that opens `xnat://` URLs in it.

Used by `filesystem`, whose objects are many (one a thread) and hold no connection of their own.
Threading: any thread. A forked process begins without any connection.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from dataclasses import dataclass

from xnatfs.api import composed
from xnatfs.auth.addresses import Address, KnownServers, address, known_servers
from xnatfs.auth.credentials import Credentials, choose, find
from xnatfs.core import Core
from xnatfs.errors import Cause, UsageError
from xnatfs.process_cores import ProcessCores


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
        self._cores: ProcessCores[tuple[str | None, ConnectOptions]] = ProcessCores(Cause.LOGIN_REFUSED)
        self._known: KnownServers | None = None

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
        server = found.server
        try:
            core = self._cores.get(
                (server, login), lambda: _connected(server, login), lambda: _credentials(server, login)
            )
        except BaseException:
            self._known = None  # what was not known may be, the next time
            raise
        return core, found.path

    def close(self) -> None:
        """Log out everywhere."""
        self._known = None
        self._cores.close()

    def begin_again(self) -> None:
        """In a forked process: its connections are to be its own."""
        self._known = None
        self._cores.begin_again()

    def _address(self, text: str) -> Address:
        known = self._known
        if known is None:
            known = self._known = known_servers()
        return address(text, known)


def _connected(server: str | None, login: ConnectOptions) -> Core:
    return composed(
        server,
        user=login.user,
        projects=login.projects,
        cache_dir=login.cache_dir,
        offline=login.offline,
        allow_http=login.allow_http,
    )


def _credentials(server: str | None, login: ConnectOptions) -> Credentials | None:
    with contextlib.suppress(UsageError):
        return find(choose(server, login.user), login.user, prompt=False, expired=login.offline)
    return None


CORES = SharedCores()
atexit.register(CORES.close)
os.register_at_fork(after_in_child=CORES.begin_again)
