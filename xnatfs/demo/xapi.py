"""The few routes below /xapi that clients need.

Used by `app`. Lives on the event loop.
"""

from __future__ import annotations

from . import accounts, schemas
from .call import Call
from .pages import tomcat_error
from .reply import Reply


async def handle(call: Call, started: float) -> Reply:
    """Answer one request; Spring writes these replies, not Restlet."""
    reply = _answer(call, started)
    reply.from_restlet = False
    reply.headers = [
        (name, value.replace("json;charset=ISO-8859-1", "json;charset=UTF-8"))
        for name, value in reply.headers
    ]
    return reply


def _answer(call: Call, started: float) -> Reply:
    parts = [part for part in call.path.split("/") if part]
    if parts == ["siteConfig", "buildInfo"]:
        return accounts.build_info()
    if parts == ["siteConfig", "uptime"]:
        return accounts.uptime(started)
    if parts[:1] == ["schemas"] and len(parts) <= 3:
        return schemas.answer(parts[1:], call.archive)
    if parts[:2] == ["users", "active"] and len(parts) == 3 and call.method == "DELETE":
        return accounts.kill_sessions(call, parts[2])
    if parts[:3] == ["archive", "catalogs", "refresh"] and call.method in ("POST", "PUT"):
        return Reply(200, b"", [], "text", 0)
    return tomcat_error(404, "Not Found")
