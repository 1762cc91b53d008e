"""HTTP by hand, for what no client library would send or believe."""

from __future__ import annotations

import base64
import socket
import time
from dataclasses import dataclass

from xnatfs.demo.server import DemoServer

_BASIC = base64.b64encode(b"alice:alice").decode()


@dataclass
class Seen:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float  # until the server closed


def exchange(server: DemoServer, target: bytes | str, *headers: str, method: str = "GET") -> Seen:
    """One request; everything until the server closes the connection."""
    path = target if isinstance(target, bytes) else target.encode()
    lines = ["Host: x", f"Authorization: Basic {_BASIC}", *headers]
    request = method.encode() + b" " + path + b" HTTP/1.1\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n"
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Seen(int(status.split()[1]), named, body, time.monotonic() - begin)
