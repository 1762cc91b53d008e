"""Asking the stand-in what the recording asked: the target as it stands, the same login, the same headers."""

from __future__ import annotations

import base64
import http.client
import re
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from xnatfs.demo.server import DemoServer

from . import Entry

_STAMP = re.compile(r"<Last-Modified(?: ([+-]\d+) s)?>")


@dataclass
class Answer:
    """What came back; `got` is how many bytes, where fewer came than were announced."""

    status: int
    headers: dict[str, str]
    body: bytes
    got: int = -1


@dataclass
class Asker:
    """Sends entries to one server; a session a user, as in the recording."""

    server: DemoServer
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, entry: Entry, body: bytes | None = None, chunked: bool = False) -> Answer:
        headers = {"User-Agent": "compare"} | self._login(entry) | self._special(entry)
        self.server.switches.require_login = entry["user"] != "guest" and "open site" not in (
            entry.get("note") or ""
        )
        return self.send(entry["method"], entry["target"], headers, body, chunked)

    def send(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None = None,
        chunked: bool = False,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if chunked and body is not None:
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
                connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            elif body is not None:
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
            else:
                connection.endheaders()
            return self._read(connection, method)
        finally:
            connection.close()

    @staticmethod
    def _read(connection: http.client.HTTPConnection, method: str) -> Answer:
        reply = connection.getresponse()
        announced = {name.title(): value for name, value in reply.getheaders()}
        got = -1
        try:
            data = b"" if method == "HEAD" else reply.read()
        except http.client.IncompleteRead as short:
            data, got = short.partial, len(short.partial)
        except (TimeoutError, ConnectionError):
            data, got = b"", 0
        if announced.get("Content-Length", "").startswith("-"):
            got = len(data)
        return Answer(reply.status, announced, data, got)

    def _login(self, entry: Entry) -> dict[str, str]:
        user, how = entry["user"], entry["auth"]
        if how == "cookie":
            if user not in self.cookies:
                reply = self.send("GET", "/data/JSESSION", _basic(user, user))
                self.cookies[user] = reply.body.decode()
            return {"Cookie": f"JSESSIONID={self.cookies[user]}"}
        return _basic(user, user) if how == "basic" else {}

    def _special(self, entry: Entry) -> dict[str, str]:
        given: dict[str, Any] = entry.get("request_headers") or {}
        return {name: self._filled(entry, str(value)) for name, value in given.items()}

    def _filled(self, entry: Entry, value: str) -> str:
        if value == "<credentials>":
            return (
                "Bearer x"
                if entry["note"] == "Bearer"
                else _basic(entry["user"] or "", "wrong")["Authorization"]
            )
        found = _STAMP.fullmatch(value)
        if found is None:
            return value
        head = self.send("HEAD", entry["target"], self._login(entry))
        moment = parsedate_to_datetime(head.headers["Last-Modified"]) + timedelta(seconds=int(found[1] or 0))
        return format_datetime(moment, usegmt=True)


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
