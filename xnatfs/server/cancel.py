"""Ending a request from another thread: its socket is shut down under it.

Used by `http_transport` (what waits since before the server went away, when it is there again) and by
`content` (what nobody waits for any more). A thread that waits in a socket cannot be told
anything otherwise, and would keep a worker and a connection until the time-out.
Threading: `held` is for the thread that makes the request, `CancelScope.end` for any other.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

_local = threading.local()
_RESET = struct.pack("ii", 1, 0)  # linger for no time: socket(7)


class CancelScope:
    """A grip on a request, for who may want to end it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.ended = False
        self.sent = False  # a request is, or was, on its way: not only waiting for a connection

    def end(self) -> None:
        """End the request, and any that begins under this hold: it fails as if the other side had closed the
        connection.
        """
        with self._lock:
            self.ended = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Who closes it resets it. Else a server that has filled the window is never told, since a
                    # socket that is shut down announces no room: it kept its thread and the connection for a
                    # minute (FIN-WAIT-2, measured).
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    # Not the method of a TLS socket, which would take the cipher away from under the thread
                    # that reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _take(self, connection: socket.socket | None) -> None:
        with self._lock:
            self._socket = connection
        if connection is not None:
            self.sent = True
            if self.ended:
                self.end()


@contextlib.contextmanager
def held(hold: CancelScope) -> Iterator[None]:
    """What this thread asks within can be ended; its answers have to be closed within, too."""
    before: tuple[CancelScope, ...] = getattr(_local, "holds", ())
    _local.holds = (*before, hold)
    try:
        yield
    finally:
        _local.holds = before
        hold._take(None)  # the connection may be somebody else's next


def ended() -> bool:
    """Whether what this thread is asking was ended: then it is not to be asked again."""
    return any(one.ended for one in getattr(_local, "holds", ()))


def _waits_for(connection: Any) -> None:
    for one in getattr(_local, "holds", ()):
        one._take(connection.sock)


class _Plain(HTTPConnection):
    def getresponse(self) -> Any:
        _waits_for(self)
        return super().getresponse()


class _Secure(HTTPSConnection):
    def getresponse(self) -> Any:
        _waits_for(self)
        return super().getresponse()


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class CancellableAdapter(HTTPAdapter):
    """`requests`' adapter with connections that can be held."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """See requests."""
        super().init_poolmanager(*arguments, **options)
        self._use_ours(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        """See requests."""
        manager = super().proxy_manager_for(*arguments, **options)
        self._use_ours(manager)
        return manager

    @staticmethod
    def _use_ours(manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
