"""Running the stand-in: in a background thread for tests, in the foreground for `xnatfs serve-demo`.

    with DemoServer(archive, Switches(latency_ms=20)) as server:
        requests.get(server.url + "/data/projects", auth=("admin", "admin"))
        server.switches.fail_next = 2
        server.call(lambda: server.archive.touch(experiment))
        assert len(server.requests(r"^GET /data/projects")) == 1

Threading: everything of the application lives on one event loop; `call` runs a function there. `switches` may
be set and `log` read from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

import uvicorn

from .app import Application
from .connection import Connection
from .faults import Switches
from .model import Archive
from .requestlog import Record, RequestLog

T = TypeVar("T")
_START_TIMEOUT_S = 20.0


class _Uvicorn(uvicorn.Server):
    """A server that says when it serves, and drops clients that still hang when it is to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        # Sets the Date header, which otherwise appears with the first tick.
        await self.on_tick(0)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            cast(Connection, connection).transport.abort()
        await super().shutdown(sockets)


def _said_by_design(record: logging.LogRecord) -> bool:
    """Not uvicorn's complaint about a connection that was to be reset or go silent."""
    return not record.getMessage().startswith("ASGI callable returned without")


def _config(application: Application, tls: tuple[Path | str, Path | str] | None) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").addFilter(_said_by_design)
    return uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        loop="auto",  # uvloop where it is installed
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=None if tls is None else str(tls[0]),
        ssl_keyfile=None if tls is None else str(tls[1]),
    )


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=1024)
    # Inherited by the connections. asyncio sets it itself only where the socket says its protocol, and this
    # one does not: without it a body that follows its head waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class DemoServer:
    """A stand-in on the loopback interface, in a thread of its own. `tls` is (certificate file, key file)."""

    def __init__(
        self,
        archive: Archive,
        switches: Switches | None = None,
        port: int = 0,
        tls: tuple[Path | str, Path | str] | None = None,
    ) -> None:
        self.archive = archive
        self.switches = switches if switches is not None else Switches()
        self.port = port
        self._tls = tls
        self._application = Application(archive, self.switches)
        self._server: _Uvicorn | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def log(self) -> RequestLog:
        return self._application.log

    def start(self) -> DemoServer:
        """Serve; a server that was stopped may be started again and keeps its port, sessions and log."""
        listener = _listen("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        server = _Uvicorn(_config(self._application, self._tls))
        thread = threading.Thread(target=server.run, args=([listener],), name="xnatfs-demo", daemon=True)
        self._server, self._thread = server, thread
        thread.start()
        if not server.ready.wait(_START_TIMEOUT_S):
            raise RuntimeError("the stand-in did not start")
        return self

    def stop(self) -> None:
        """Stop at once: open connections are dropped, hanging ones too."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._application.close()

    def __enter__(self) -> DemoServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def clear_log(self) -> None:
        self.log.clear()

    def requests(self, pattern: str | None = None) -> list[Record]:
        """The recorded requests whose "METHOD target" the pattern is found in."""
        return self.log.matching(pattern)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the event loop and give its result: the way to change the archive under a running
        server.
        """
        if self._server is None or self._server.loop is None:
            return function()

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._server.loop).result()

    def lose_connections(self) -> int:
        """All connections there are go silent: nothing sent on them arrives any more."""
        return self.call(self._application.lose_connections)

    def expire_sessions(self) -> int:
        """End every session, as after the idle timeout."""
        return self.call(self._application.sessions.end_all)


def serve(
    archive: Archive,
    switches: Switches | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], object] | None = None,
) -> None:
    """Serve in the foreground until interrupted; `started` is called with the URL (useful with port 0)."""
    application = Application(archive, switches if switches is not None else Switches())
    with _listen(host, port) as listener:
        server = _Uvicorn(_config(application, None))
        if started is not None:
            started(f"http://{host}:{listener.getsockname()[1]}")
        # uvicorn re-raises the signal it stopped for.
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])
    application.close()


__all__ = ["DemoServer", "serve"]
