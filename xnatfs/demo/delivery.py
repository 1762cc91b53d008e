"""Sending one reply: common headers, pacing, and the faults of the wire (cut, truncated, stalled, owed
bytes).

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
from .faults import Line, Switches, pass_lines
from .reply import Reply
from .requestlog import Record

_VARY = ("Vary", "Accept-Charset, Accept-Encoding, Accept-Language, Accept")
_STALL_S = 3600.0
_POLL_S = 0.02
_PIECE_BYTES = 1 << 16
_BREAK_WITHIN_BYTES = 1 << 22  # where a download of unknown length breaks at the latest
_DAMAGED_ZIP_BYTE = (
    5000  # the byte that is damaged where no length is known: in the contents of the first members
)


class Delivery:
    """The way of one reply to its client. `faulty`: the failure switches apply to this request."""

    def __init__(
        self, scope: Scope, send: Send, switches: Switches, line: Line, record: Record, faulty: bool
    ) -> None:
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
        length = self._announced(reply, head_only)
        await self._send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": self._headers(reply, length, head_only),
            }
        )
        if head_only or reply.status in (204, 304):
            expect_bytes(self._scope, 0)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        limit, fault = self._limit(reply, length)
        extra = self._strikes(reply, "surplus", self._switches.surplus_bytes)
        damaged = reply.kind != "listing" and self._strikes(reply, "damage", 1)
        if length is not None:
            expect_bytes(self._scope, 1 << 62)  # counted here, not by uvicorn
        paced = self._switches.bandwidth or self._switches.connection_bandwidth
        if limit < 0 and not extra and not damaged and not paced and reply.stream is None:
            self._record.sent = len(reply.body)
            if length is not None:
                expect_bytes(self._scope, len(reply.body))
            self._keep_open(reply.hang or (length is not None and length != len(reply.body)))
            await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})
            return
        at = (length // 2 if length is not None else _DAMAGED_ZIP_BYTE) if damaged else -1
        if await self._pieces(reply, limit, at):
            self._record.fault = fault
            self._switches.fired[fault] += 1
            await self._break(fault, length is not None)
            return
        if extra:
            await self._send({"type": "http.response.body", "body": b"!" * extra, "more_body": True})
        self._keep_open(length is not None and length != self._record.sent)
        expect_bytes(self._scope, 0)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _keep_open(self, owing: bool) -> None:
        """Tomcat thinks the reply is complete and waits for the next request: the client hangs until the idle
        close (xnat-rest.md 3 [X]).
        """
        if owing:
            self._connection.close_when_idle(self._switches.hang_seconds)

    def _announced(self, reply: Reply, head_only: bool) -> int | None:
        """The Content-Length, wrong where that is asked for."""
        error = (
            0
            if head_only or (reply.stream is not None and reply.length is None)
            else self._switches.length_error
        )
        if not self._strikes(reply, "length_error", error):
            return reply.length
        return max(0, (len(reply.body) if reply.length is None else reply.length) + error)

    def _strikes(self, reply: Reply, name: str, wanted: int) -> bool | int:
        """`wanted` if this failure is asked for, hits this kind of reply and strikes now, else false."""
        hit = (
            self._faulty
            and wanted
            and reply.status in (200, 206)
            and reply.kind in ("file", "bulk", "listing")
        )
        return wanted if hit and self._switches.strikes(name) else False

    async def _pieces(self, reply: Reply, limit: int, damage_at: int) -> bool:
        """Send the body, with the byte at `damage_at` changed (-1: none); True if the limit ended it
        early.
        """
        rate_now = self._switches
        passed = 0
        async for piece in _body(reply):
            if passed <= damage_at < passed + len(piece):
                at = damage_at - passed
                piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
            passed += len(piece)
            rest = memoryview(piece)
            while rest:
                if self._connection.transport.is_closing():
                    return False
                if self._connection.lost:
                    await self.silence()
                    return False
                shared, single = rate_now.bandwidth, rate_now.connection_bandwidth
                step = rest[: Line.PIECE] if shared or single else rest
                if limit >= 0:
                    step = step[: limit - self._record.sent]
                    if not step:
                        return True
                if shared or single:
                    await pass_lines(len(step), (self._line, shared), (self._connection.line, single))
                # Counted first: a client that has the last byte may look at the log at once.
                self._record.sent += len(step)
                await self._send({"type": "http.response.body", "body": step, "more_body": True})
                rest = rest[len(step) :]
        return False

    def _limit(self, reply: Reply, length: int | None) -> tuple[int, str]:
        """After how many body bytes which fault strikes; -1 for none. Without `match`, only files and bulk
        are cut or stalled.
        """
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
        return (
            switches.breaks_at(_BREAK_WITHIN_BYTES if length is None else length)
            if reply.kind != "listing"
            else (-1, "")
        )

    async def _break(self, fault: str, announced: bool) -> None:
        transport = self._connection.transport
        if fault == "cut":
            while transport.get_write_buffer_size() and not transport.is_closing():
                await asyncio.sleep(_POLL_S)
            self.reset()
        elif fault == "stall":
            await self.silence()
        elif announced:
            transport.close()
        else:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def silence(self) -> None:
        """Say nothing more; the connection stays open as long as the client wants."""
        transport = self._connection.transport
        waited = 0.0
        while waited < _STALL_S and not transport.is_closing():
            await asyncio.sleep(_POLL_S)
            waited += _POLL_S
        transport.abort()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        transport = self._connection.transport
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:
            # On a duplicate: uvloop's socket objects cannot set options, and the option belongs to the
            # connection anyway.
            with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def _headers(self, reply: Reply, length: int | None, head_only: bool) -> list[tuple[bytes, bytes]]:
        headers = list(reply.headers)
        if reply.from_restlet:
            headers.append(_VARY)
            headers.append(("Accept-Ranges", "bytes"))  # no proof of anything (xnat-rest.md 0)
            headers.append(("Server", "Noelios-Restlet-Engine/1.1.10"))
        if length is not None:
            headers.append(("Content-Length", str(length)))
        elif head_only and reply.status not in (204, 304):
            headers.append(("Transfer-Encoding", "chunked"))
        last = self._connection.requests >= self._switches.requests_per_connection
        if reply.close or last:
            headers.append(("Connection", "close"))
        elif any(
            name == b"connection" and value.lower() == b"keep-alive" for name, value in self._scope["headers"]
        ):
            headers.append(("Keep-Alive", f"timeout={int(self._switches.idle_seconds)}"))
            headers.append(("Connection", "keep-alive"))
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]


async def _body(reply: Reply) -> AsyncIterator[bytes]:
    if reply.stream is None:
        yield reply.body
        return
    async for piece in reply.stream():
        yield piece
