"""Where the server is: what the user named may have moved, or be something else than an XNAT.

Used by `connection` before a login.
Threading: one thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re

import requests

from xnatfs.config import Settings, is_loopback, origin
from xnatfs.errors import Cause, Failure
from xnatfs.server.http_transport import BUILD_INFO, HttpTransport
from xnatfs.server.request_auth import as_stranger
from xnatfs.server.transport import redirect_target

log = logging.getLogger(__name__)

# Tomcat, nginx and Apache say so to plain http on a port for https.
_WANTS_TLS = re.compile(r"requires TLS|sent to HTTPS port|speaking plain HTTP to an SSL")


def find_server(transport: HttpTransport) -> str:
    """Ask for the build information, without credentials: is there an XNAT, and is it still at this address?
    Where it moved, the transport sends from now on.

    Returns:
        its version; "" if it does not say.

    Raises:
        Failure: MOVED, or what keeps the server from answering.
    """
    for _ in range(5):
        response = transport.send(
            "GET", transport.server + BUILD_INFO, auth=as_stranger, timeout=transport.timeout()
        )
        if not response.is_redirect:
            break
        target = redirect_target(transport.server + BUILD_INFO, response)
        if "Login.vm" in target:
            return ""
        moved = target.removesuffix(BUILD_INFO)
        if moved in (target, transport.server) or not may_move(transport.settings, moved):
            raise Failure(Cause.MOVED, transport.server, f"it redirects to {target}")
        log.warning("%s redirects to %s, which is used from now on", transport.server, moved)
        transport.server = moved
    if response.status_code == 400 and _WANTS_TLS.search(response.text[:4096]):
        secure = transport.server.replace("http://", "https://", 1)
        raise Failure(Cause.MOVED, transport.server, f"it speaks TLS there: write {secure}")
    if response.ok:
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            return str(json.loads(response.content).get("version", ""))[:100]
    # An XNAT before 1.7 has no /xapi; whether this is one shows in the login.
    return ""


def may_move(settings: Settings, target: str) -> bool:
    """Whether the server named by the user may be found at this address: at another path, or in place of
    http:// at https://, whose certificate says that it is the same host. Credentials never go to another
    host, nor unasked to another port or in the clear.
    """
    asked, there = origin(settings.server), origin(target)
    if asked is None or there is None or asked.host != there.host:
        return False
    return asked == there or (asked.scheme, there.scheme) == ("http", "https")


def is_readable_by_all(transport: HttpTransport, server: str) -> bool:
    """Whether what is sent there crosses a network in the clear, and nobody said that it may."""
    there = origin(server)
    if there is None or there.scheme != "http" or transport.settings.allow_http:
        return False
    return not is_loopback(there.host) or bool(requests.utils.select_proxy(server, transport.session.proxies))
