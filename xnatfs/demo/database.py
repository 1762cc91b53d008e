"""What XNAT answers while its database fails: stopped, its connection pool exhausted, one table broken, one
query failing.

As recorded on XNAT's own code (xnat-rest.md 13 [X]): a 404 for what exists, a well-formed 200 with nothing in
it, a 200 with no body. Used by `routes` (before and around a handler) and `app` (logins). Pure: looks at the
request only.
"""

from __future__ import annotations

import re
from typing import Literal

from .call import Call

# How a request ends: "" as ever, a status, a 200 with an empty body, a 200 with an empty table, an item that
# lacks what was not read.
Outcome = Literal["", "400", "404", "500", "nothing", "no rows", "partial"]

_OUT = re.compile(r"/out/file/", re.IGNORECASE)
_SCANS = re.compile(r"scandata/|/scans/scan/", re.IGNORECASE)
_SUBJECT_RESOURCES = re.compile(r"subjectdata/resources/", re.IGNORECASE)
_BY_NUMBER = re.compile(r"/resources/[0-9]+/files")


def outcome(call: Call) -> Outcome:
    """What the switches make of a request, all of them considered."""
    switches = call.switches
    if switches.database_down or switches.pool_exhausted:
        return _dead(call)
    result: Outcome = ""
    if switches.failing_table:
        result = _BROKEN_TABLES[switches.failing_table](call)
    if not result and switches.failing_query and re.search(switches.failing_query, _target(call)):
        result = _failing(call)
    if result:
        switches.fired["database"] += 1
    return result


def lacking(call: Call) -> str:
    """Which children an item comes without when its outcome is "partial": the name of the table they are read
    from, "*" for all.

    Of a subject whose experiments' queries failed only the assessors were missing, as recorded.
    """
    return call.switches.failing_table or ("assessors" if call.path.startswith("subjects/") else "*")


def _target(call: Call) -> str:
    return f"{call.method} /data/{call.path}?{call.query}"


def _parts(call: Call) -> list[str]:
    """The path in its parts."""
    return [part for part in call.path.split("/") if part]


def _is_files(call: Call) -> bool:
    return "files" in _parts(call)


def _dead(call: Call) -> Outcome:
    """The database does not answer at all: what must be looked up first is "not found", what fails later is
    an error.
    """
    parts = _parts(call)
    if parts[:1] in (["JSESSION"], ["auth"]) or not parts:
        return ""
    call.switches.fired["database"] += 1
    if parts[0] in ("projects", "subjects"):
        return "404" if len(parts) > 1 else "500"
    if parts[0] != "experiments" or len(parts) == 1:
        return "500"
    if _is_files(call):
        return "500" if call.method == "GET" else "404"
    return "500" if parts[-1] in ("scans", "reconstructions") else "404"


def _failing(call: Call) -> Outcome:
    """One query fails (a statement that took too long, say), by the form that needed it."""
    parts = _parts(call)
    columns = "columns" in call.query
    last = parts[-1] if parts else ""
    if parts[:1] == ["projects"] and len(parts) == 2:
        return "partial"
    if parts[:1] == ["projects"] and len(parts) > 2:
        if last == "experiments":
            return "nothing"
        if last == "resources":
            return "no rows"
        return "500" if last in ("subjects", "files") or _is_files(call) else "404"
    if parts[:1] == ["experiments"] and len(parts) > 1:
        if _is_files(call):
            several = last == "files" and (call.flag("all") or "," in parts[1])
            return (
                "no rows" if several and "format" in call.query and call.query["format"] == "json" else "500"
            )
        if last == "resources" and call.flag("all"):
            return "nothing"
        return "500" if last in ("scans", "reconstructions") else "404"
    if parts[:1] == ["subjects"] and len(parts) > 1:
        return "no rows" if last == "files" else "partial" if len(parts) == 2 else "404"
    return "500" if columns or len(parts) == 1 else "404"


def _assessor_resources(call: Call) -> Outcome:
    parts = _parts(call)
    last = parts[-1] if parts else ""
    if (
        last == "experiments"
        and _OUT.search(call.query.get("columns", ""))
        and "assessor" in call.query.get("columns", "").lower()
    ):
        return "nothing"
    if _BY_NUMBER.search(f"/{call.path}"):
        return "500"
    if "assessors" in parts[2:] and _is_files(call):
        return "404"
    return _whole_session(call, parts, last)


def _whole_session(call: Call, parts: list[str], last: str) -> Outcome:
    if len(parts) >= 2 and parts[-2] == "subjects":
        return "partial"
    if parts[:1] != ["experiments"] and "experiments" not in parts[1:]:
        return ""
    if last == "resources" and call.flag("all"):
        return "nothing"
    if last == "files" and len(parts) == 3 and (call.flag("all") or "," in parts[1]):
        return "no rows"
    return "partial" if len(parts) >= 2 and parts[-2] == "experiments" else ""


def _scans(call: Call) -> Outcome:
    parts = _parts(call)
    last = parts[-1] if parts else ""
    if last == "experiments" and _SCANS.search(call.query.get("columns", "")):
        return "nothing"
    if _BY_NUMBER.search(f"/{call.path}") or "scans" in parts[2:]:
        return "500"
    return _whole_session(call, parts, last)


def _subject_resources(call: Call) -> Outcome:
    parts = _parts(call)
    last = parts[-1] if parts else ""
    if last == "subjects" and _SUBJECT_RESOURCES.search(call.query.get("columns", "")):
        return "500"
    if _BY_NUMBER.search(f"/{call.path}"):
        return "500"
    if "subjects" in parts and "experiments" not in parts:
        below = parts[parts.index("subjects") + 2 :]
        if below == ["resources"]:
            return "nothing"
        if below == ["files"]:
            return "no rows"
        if "files" in below:
            return "404"
        return "partial" if len(parts) > parts.index("subjects") + 1 else ""
    return ""


def _projects(call: Call) -> Outcome:
    parts = _parts(call)
    if parts[:1] == ["projects"]:
        return "404" if len(parts) > 1 else "500"
    return "500" if _is_files(call) else ""


_BROKEN_TABLES = {
    "img_assessor_out_resource": _assessor_resources,
    "xnat_imagescandata": _scans,
    "xnat_subjectdata_resource": _subject_resources,
    "xnat_projectdata_meta_data": _projects,
}
