"""XNAT's configuration service, for reading: texts by tool and path, of the site or of a project.

As its source has it (`ConfigResource`), which one recorded reply agrees with.

Used by `routes`. Reads the archive on the event loop.
"""

from __future__ import annotations

from .addresses import plain
from .call import Call
from .model import Configuration
from .reply import HttpError, Reply, text
from .tables import Table, render, stamp, wanted_format

_COLUMNS = ["tool", "path", "project", "user", "create_date", "reason"]
_COLUMNS += ["contents", "unversioned", "version", "status"]


def handle(call: Call, parts: list[str], project_id: str | None = None) -> Reply:
    """`[/projects/ID]/config[/TOOL[/PATH]]`; `parts` is what follows `config`."""
    if project_id is None:
        held = call.archive.configurations
    else:
        project = call.view.project(project_id)
        if project is None:
            raise HttpError(404, f"The requested project {project_id} does not exist.")
        if not call.view.readable(project):
            raise HttpError(403, f"User {call.user.login} can not access project {project_id}")
        held = project.configurations
    tool, path = (plain(parts[0]) if parts else ""), "/".join(map(plain, parts[1:]))
    if not tool:
        tools = [{"tool": name} for name in dict.fromkeys(one.tool for one in held)]
        return _table(call, ["tool"], tools, _missing(call, project_id, "null", "null"))
    found = [one for one in held if one.tool == tool and path in ("", one.path)]
    missing = _missing(call, project_id, tool, path or "null")
    if path and call.flag("contents") and not call.flag("meta"):
        if not found or found[0].status == "disabled":
            raise HttpError(404, missing.replace("Couldn't find config", "Config not found"))
        return text(found[0].contents)
    return _table(call, _COLUMNS, [_row(one, project_id or "") for one in found], missing)


def _row(one: Configuration, project_id: str) -> dict[str, str]:
    return {
        "tool": one.tool,
        "path": one.path,
        "project": project_id,
        "user": "admin",
        "create_date": stamp(one.created),
        "reason": "",
        "contents": one.contents,
        "unversioned": "true",
        "version": "1",
        "status": one.status,
    }


def _table(call: Call, columns: list[str], rows: list[dict[str, str]], missing: str) -> Reply:
    if not rows:
        raise HttpError(404, missing)
    return render(Table(columns, rows), wanted_format(call.query, call.accept))


def _missing(call: Call, project_id: str | None, tool: str, path: str) -> str:
    whose = "null" if project_id is None else project_id
    return (
        f"Couldn't find config for user {call.user.login} and project {whose} on tool [{tool}] path [{path}]"
    )
