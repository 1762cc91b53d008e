"""uvicorn's httptools protocol with the habits of a stock Tomcat connection, and a handle for the application
to misbehave with.

Used by `server` (as uvicorn's `http=` class) and `app` (through the scope). Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .faults import Line
from .pages import tomcat_page

_SCOPE_KEY = "xnatfs.connection"
_CYCLE_KEY = "xnatfs.cycle"
_WRITE_BUFFER_BYTES = 1 << 20


class Connection(HttpToolsProtocol):
    """One client connection. Counts its requests (Tomcat closes at the 100th) and lets a reply lie about its
    length.
    """

    requests = 0
    line: Line  # its own limit, beside the one that all connections share
    ended = 0.0  # when the client was gone, time.perf_counter(); 0 while it is there
    lost = False  # whatever lies between has forgotten it: nothing that is sent arrives any more

    # uvicorn narrows it, too
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.line = Line()
        # The default of 64 KiB costs a round through the event loop per 64 KiB: too slow for benchmarks.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = time.perf_counter()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self.requests += 1
        # Before super(): it starts the task that reads the scope.
        cast("dict[str, Any]", self.scope)[_SCOPE_KEY] = self
        super().on_headers_complete()
        cast("dict[str, Any]", self.cycle.scope)[_CYCLE_KEY] = self.cycle

    def close_when_idle(self, seconds: float) -> None:
        """How long the connection may wait for its next request, from the end of this one."""
        # uvicorn says int; the event loop takes any number
        self.timeout_keep_alive = seconds  # type: ignore[assignment]

    def send_400_response(self, msg: str) -> None:
        """A request that is no HTTP, raw non-ASCII in the target included: Tomcat's page (xnat-rest.md 3)."""
        body = tomcat_page(400, "Invalid character found in the request target.").encode()
        head = (
            f"HTTP/1.1 400 \r\nContent-Type: text/html;charset=utf-8\r\nContent-Length: "
            f"{len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """The connection a request came in on."""
    connection = scope[_SCOPE_KEY]
    assert isinstance(connection, Connection)
    return connection


def expect_bytes(scope: MutableMapping[str, Any], remaining: int) -> None:
    """Tell uvicorn how many bytes will really follow the head, whatever Content-Length announced."""
    cycle = scope[_CYCLE_KEY]
    assert isinstance(cycle, RequestResponseCycle)
    cycle.expected_content_length = remaining
