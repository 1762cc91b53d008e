"""The few routes below /xapi that clients need.

Used by `app`. Lives on the event loop.
"""

from __future__ import annotations

import json

from . import accounts, schemas
from .addresses import plain
from .call import Call
from .model import Experiment, Subject
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
    if parts[:1] == ["custom-fields"] and parts[-1] == "fields" and call.method == "GET":
        return _custom_fields(call, [plain(part) for part in parts[1:-1]])
    return tomcat_error(404, "Not Found")


def _custom_fields(call: Call, way: list[str]) -> Reply:
    """The custom fields of a subject or experiment as a JSON object, by its id or label in the project. They
    came with 1.8.6: servers before it have no such route, and no server is known to have answered it [I].
    """
    if call.switches.proven_only or len(way) not in (2, 4):
        return tomcat_error(404, "Not Found")
    project = call.view.project(way[1]) if way[0] == "projects" else None
    if way[0] == "projects" and project is None:
        return tomcat_error(404, "Not Found")
    if project is not None and not call.view.readable(project):
        return tomcat_error(403, "Forbidden")
    kind, name, where = way[-2], way[-1], project.id if project is not None else ""
    item: Subject | Experiment | None = None
    if kind == "subjects":
        item = call.view.find_subject(name, where)
    elif kind == "experiments":
        item = call.view.find_experiment(name, where)
    if item is None:
        return tomcat_error(404, "Not Found")
    body = json.dumps(item.custom_fields, ensure_ascii=False).encode()
    return Reply(200, body, [("Content-Type", "application/json")], "listing")
