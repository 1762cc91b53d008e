"""A web server that answers what a test tells it to, for what the stand-in never does."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Answer:
    """One reply. `length` lies about the body's length where it is given."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]


Script = Callable[[Asked], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    script: Script
    asked: list[Asked]
    scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def answer(self) -> None:
        assert isinstance(self.server, _Server)
        one = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.server.asked.append(one)
        reply = self.server.script(one)
        self.send_response(reply.status)
        for name, value in {"Content-Type": "text/plain", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        self.end_headers()
        self.wfile.write(reply.body)
        if reply.length is not None:
            self.close_connection = True

    do_GET = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def scripted(script: Script, tls: tuple[Path, Path] | None = None) -> Iterator[_Server]:
    """Serve `script` on a free port, with this certificate and key if they are given."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        server.script, server.asked = script, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def xnat(one: Asked) -> Answer:
    """What any XNAT answers to the requests of a login."""
    if one.target.endswith("/buildInfo"):
        return Answer(body=b'{"version": "1.8.10"}', headers={"Content-Type": "application/json"})
    if one.target.endswith("/data/JSESSION"):
        return Answer(body=b"0123456789ABCDEF")
    if one.target.endswith("/data/auth"):
        return Answer(body=b"User 'demo' is logged in")
    return Answer(404)
