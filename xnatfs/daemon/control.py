"""Talking to a running mount: one JSON line as request, one as reply, over a Unix socket that only its owner
may use.

Used by `run` (server) and by the commands (client). A read-only mount cannot be written to, so commands reach
it this way.
Threading: the server has a thread of its own, and one for each caller.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xnatfs.errors import UsageError

log = logging.getLogger(__name__)

Command = Callable[[dict[str, Any]], Any]
_LONGEST = 1 << 20


class _Handler(socketserver.StreamRequestHandler):
    timeout = 30

    def handle(self) -> None:
        # socketserver offers no typed way
        commands: Mapping[str, Command] = self.server.commands  # type: ignore[attr-defined]
        try:
            asked = json.loads(self.rfile.readline(_LONGEST))
            answer = {"ok": commands[asked["command"]](asked)}
        except KeyError as error:
            answer = {"error": f"unknown command {error}"}
        except (OSError, ValueError, TypeError) as error:
            answer = {"error": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    commands: Mapping[str, Command] = {}

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the caller is this user (or root), regardless of the socket's mode."""
        _, user, _ = struct.unpack(
            "3i", request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        return user in (0, os.geteuid())


class ControlServer:
    """Answers commands at `path` until closed."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._server = _Server(str(path), _Handler)
        path.chmod(0o600)  # until now the folder keeps others out
        self._server.commands = commands
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def ask(path: str, command: str, timeout: float = 10.0, **arguments: Any) -> Any:
    """Send a command to a mount and return its answer.

    Raises:
        UsageError: the mount does not answer, or refuses the command.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline())
    except (OSError, ValueError) as error:
        raise UsageError(f"the mount does not answer ({error})") from None
    if "error" in answer:
        raise UsageError(str(answer["error"]))
    return answer["ok"]
