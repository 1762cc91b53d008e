"""Sending one reply: common headers, pacing, and the faults of the wire (cut, truncated, stalled, owed bytes).

Used by `app`. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator

from starlette.types import Scope, Send

from .connection import Connection, connection_of, expect_bytes
from .faults import Line, Switches
from .reply import Reply
from .requestlog import Record

_VARY = ("Vary", "Accept-Charset, Accept-Encoding, Accept-Language, Accept")
_STALL_SECONDS = 3600.0
_POLL = 0.02
_PIECE = 1 << 16
_SOMEWHERE = 1 << 22  # a download of unknown length breaks within so many bytes


class Delivery:
    """The way of one reply to its client. `faulty`: the failure switches apply to this request."""

    def __init__(self, scope: Scope, send: Send, switches: Switches, line: Line, record: Record, faulty: bool) -> None:
        self._scope = scope
        self._send = send
        self._switches = switches
        self._line = line
        self._record = record
        self._faulty = faulty
        self._connection: Connection = connection_of(scope)
        self._connection.close_when_idle(switches.idle_seconds)

    async def send(self, reply: Reply) -> None:
        """Send it all, or as much as the switches allow."""
        self._record.status = reply.status
        head_only = self._scope["method"] == "HEAD"
        length = reply.length
        await self._send({"type": "http.response.start", "status": reply.status, "headers": self._headers(reply, head_only)})
        if head_only or reply.status in (204, 304):
            expect_bytes(self._scope, 0)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        limit, fault = self._limit(reply, length)
        if length is not None:
            expect_bytes(self._scope, 1 << 62)  # counted here, not by uvicorn
        if limit < 0 and not self._switches.bandwidth and reply.stream is None:
            self._record.sent = len(reply.body)
            if length is not None:
                expect_bytes(self._scope, len(reply.body))
            self._keep_open(reply.hang or (length is not None and length != len(reply.body)))
            await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})
            return
        if await self._pieces(reply, limit):
            self._record.fault = fault
            await self._break(fault, length is not None)
            return
        self._keep_open(length is not None and length != self._record.sent)
        expect_bytes(self._scope, 0)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _keep_open(self, owing: bool) -> None:
        """Tomcat thinks the reply is complete and waits for the next request: the client hangs until the idle close (fact sheet 3 [X])."""
        if owing:
            self._connection.close_when_idle(self._switches.hang_seconds)

    async def _pieces(self, reply: Reply, limit: int) -> bool:
        """Send the body; True if the limit ended it early."""
        rate_now = self._switches
        async for piece in _body(reply):
            rest = memoryview(piece)
            while rest:
                if self._connection.transport.is_closing():
                    return False
                step = rest[: Line.PIECE] if rate_now.bandwidth else rest
                if limit >= 0:
                    step = step[: limit - self._record.sent]
                    if not step:
                        return True
                if rate_now.bandwidth:
                    await self._line.send(len(step), rate_now.bandwidth)
                # Counted first: a client that has the last byte may look at the log at once.
                self._record.sent += len(step)
                await self._send({"type": "http.response.body", "body": step, "more_body": True})
                rest = rest[len(step) :]
        return False

    def _limit(self, reply: Reply, length: int | None) -> tuple[int, str]:
        """After how many body bytes which fault strikes; -1 for none. Without `match`, only files and bulk are cut or stalled."""
        switches = self._switches
        if not self._faulty or reply.kind not in ("file", "bulk", "listing"):
            return -1, ""
        if switches.truncate_after_bytes >= 0 and switches.take("truncate_next"):
            return switches.truncate_after_bytes, "truncate"
        if reply.kind == "listing" and not switches.match:
            return -1, ""
        if switches.cut_after_bytes >= 0 and switches.take("cut_next"):
            return switches.cut_after_bytes, "cut"
        if switches.stall_after_bytes >= 0 and switches.take("stall_next"):
            return switches.stall_after_bytes, "stall"
        return switches.breaks_at(_SOMEWHERE if length is None else length) if reply.kind != "listing" else (-1, "")

    async def _break(self, fault: str, announced: bool) -> None:
        transport = self._connection.transport
        if fault == "cut":
            while transport.get_write_buffer_size() and not transport.is_closing():
                await asyncio.sleep(_POLL)
            self.reset()
        elif fault == "stall":
            waited = 0.0
            while waited < _STALL_SECONDS and not transport.is_closing():
                await asyncio.sleep(_POLL)
                waited += _POLL
            transport.abort()
        elif announced:
            transport.close()
        else:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        transport = self._connection.transport
        found = transport.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            # On a duplicate: uvloop's socket objects cannot set options, and the option belongs to the connection anyway.
            with socket.socket(fileno=os.dup(found.fileno())) as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def _headers(self, reply: Reply, head_only: bool) -> list[tuple[bytes, bytes]]:
        headers = list(reply.headers)
        if reply.from_restlet:
            headers.append(_VARY)
            headers.append(("Accept-Ranges", "bytes"))  # no proof of anything (fact sheet 0)
            headers.append(("Server", "Noelios-Restlet-Engine/1.1.10"))
        if reply.length is not None:
            headers.append(("Content-Length", str(reply.length)))
        elif head_only and reply.status not in (204, 304):
            headers.append(("Transfer-Encoding", "chunked"))
        last = self._connection.requests >= self._switches.requests_per_connection
        if reply.close or last:
            headers.append(("Connection", "close"))
        elif any(name == b"connection" and value.lower() == b"keep-alive" for name, value in self._scope["headers"]):
            headers.append(("Keep-Alive", f"timeout={int(self._switches.idle_seconds)}"))
            headers.append(("Connection", "keep-alive"))
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]


async def _body(reply: Reply) -> AsyncIterator[bytes]:
    if reply.stream is None:
        yield reply.body
        return
    async for piece in reply.stream():
        yield piece
