"""A plain view of the files, as any web server gives it:
/demo/plain/<project>/<session>/<scan>/<resource>/<path>.

No XNAT has it. It is there so that programs which mount a web server (rclone) can be measured beside xnatfs
on the same files: pages of links and HEAD for sizes (HTTP), or PROPFIND with all of it in one answer
(WebDAV). Ranges are RFC 9110's, single ones. Latency and bandwidth apply as everywhere; nothing else slows
it. A session's own resources are in a folder RESOURCES beside the scans. Used by `app`. Lives on the event
loop.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from email.utils import format_datetime
from html import escape
from urllib.parse import quote, unquote

from starlette.datastructures import Headers

from .access import View, label_in
from .model import Archive, CatalogEntry, Content, Experiment, Resource, User
from .reply import Reply, reason

ROOT = "/demo/plain/"
_PIECE_BYTES = 1 << 19
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

# The names in a folder: a file's entry, or None for a folder.
Folder = dict[str, CatalogEntry | None]


class PlainView:
    """The view of one archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._sessions: dict[str, dict[str, Experiment]] = {}
        self._sessions_of: tuple[datetime, int] | None = None

    def answer(self, method: str, raw: str, headers: Headers, user: User) -> Reply:
        """Answer GET, HEAD, PROPFIND and OPTIONS of `raw`, a path below `ROOT`."""
        if method == "OPTIONS":
            return Reply(
                200,
                b"",
                [("DAV", "1"), ("Allow", "OPTIONS, GET, HEAD, PROPFIND")],
                length=0,
                from_restlet=False,
            )
        if method not in ("GET", "HEAD", "PROPFIND"):
            return _error(405)
        parts = [unquote(part) for part in raw[len(ROOT) :].split("/") if part]
        node = self._look(View(self._archive, user), parts)
        if node is None:
            return _error(404)
        if method == "PROPFIND":
            return _properties(raw, node, headers.get("depth", "1"))
        if isinstance(node, CatalogEntry):
            return _file(node, headers.get("range"))
        if not raw.endswith("/"):
            return Reply(301, b"", [("Location", raw + "/")], length=0, from_restlet=False)
        links = "".join(
            f'<a href="{_href(name, entry)}">{escape(name)}</a>\n' for name, entry in node.items()
        )
        return _page(
            200, f"<!DOCTYPE html>\n<html><head><title>Index</title></head><body>\n{links}</body></html>\n"
        )

    def _look(self, view: View, parts: list[str]) -> Folder | CatalogEntry | None:
        if not parts:
            return {name: None for name, project in self._archive.projects.items() if view.readable(project)}
        project = view.project(parts[0])
        if project is None or not view.readable(project):
            return None
        sessions = self._by_label(view, project.id)
        if len(parts) == 1:
            return dict.fromkeys(sessions)
        session = sessions.get(parts[1])
        if session is None:
            return None
        owners = {scan.id: scan.resources for scan in session.scans if "/" not in scan.id}
        if session.resources:
            owners.setdefault("RESOURCES", session.resources)
        if len(parts) == 2:
            return dict.fromkeys(owners)
        resources = {resource.label or str(resource.id): resource for resource in owners.get(parts[2], ())}
        if len(parts) == 3:
            return dict.fromkeys(resources) if parts[2] in owners else None
        return _inside(resources[parts[3]], "/".join(parts[4:])) if parts[3] in resources else None

    def _by_label(self, view: View, project: str) -> dict[str, Experiment]:
        """The sessions of a project; kept until the archive changes, since a project may have thousands."""
        state = (self._archive.clock, len(self._archive.experiments))
        if self._sessions_of != state:
            self._sessions, self._sessions_of = {}, state
        if project not in self._sessions:
            sessions = (item for item in view.experiments(project) if not item.is_assessor)
            self._sessions[project] = {label_in(item, project): item for item in sessions}
        return self._sessions[project]


def _inside(resource: Resource, path: str) -> Folder | CatalogEntry | None:
    prefix = f"{path}/" if path else ""
    folder: Folder = {}
    for entry in resource.entries:
        if entry.content is None:
            continue
        if entry.path == path:
            return entry
        if entry.path.startswith(prefix):
            name, slash, _ = entry.path[len(prefix) :].partition("/")
            if name not in ("", ".", ".."):
                folder.setdefault(name, None if slash else entry)
    return folder if folder or not path else None


def _href(name: str, entry: CatalogEntry | None) -> str:
    return quote(name, safe="") + ("/" if entry is None else "")


def _page(status: int, text: str, content_type: str = "text/html; charset=utf-8") -> Reply:
    data = text.encode()
    return Reply(status, data, [("Content-Type", content_type)], "listing", len(data), from_restlet=False)


def _error(status: int) -> Reply:
    return _page(status, f"<html><body><h1>{status} {reason(status)}</h1></body></html>\n")


def _modified(entry: CatalogEntry) -> str:
    return format_datetime(entry.modified.replace(microsecond=0, tzinfo=timezone.utc), usegmt=True)


def _file(entry: CatalogEntry, wanted: str | None) -> Reply:
    content = entry.content
    assert content is not None
    size = content.size
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Last-Modified", _modified(entry)),
        ("Accept-Ranges", "bytes"),
    ]
    start, stop, status = 0, size, 200
    match = _RANGE.fullmatch(wanted or "")
    if match is not None and (match[1] or match[2]):
        start = int(match[1]) if match[1] else max(0, size - int(match[2]))
        stop = min(size, int(match[2]) + 1) if match[1] and match[2] else size
        if start >= stop:
            return Reply(416, b"", [("Content-Range", f"bytes */{size}")], length=0, from_restlet=False)
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
        status = 206
    reply = Reply(status, b"", headers, "file", stop - start, from_restlet=False)
    if stop - start <= _PIECE_BYTES:
        reply.body = content.read(start, stop - start)
    else:
        reply.stream = lambda: _pieces(content, start, stop)
    return reply


async def _pieces(content: Content, start: int, stop: int) -> AsyncIterator[bytes]:
    for at in range(start, stop, _PIECE_BYTES):
        yield content.read(at, min(_PIECE_BYTES, stop - at))


def _properties(raw: str, node: Folder | CatalogEntry, depth: str) -> Reply:
    """WebDAV's answer: the thing itself, and with depth 1 what is in it."""
    if isinstance(node, CatalogEntry):
        rows = [_response(raw, node)]
    else:
        base = raw if raw.endswith("/") else raw + "/"
        rows = [_response(base, None)]
        if depth != "0":
            rows += [_response(base + _href(name, entry), entry) for name, entry in node.items()]
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'
        + "".join(rows)
        + "</D:multistatus>\n"
    )
    reply = _page(207, text, "application/xml; charset=utf-8")
    return reply


def _response(href: str, entry: CatalogEntry | None) -> str:
    if entry is None or entry.content is None:
        values = "<D:resourcetype><D:collection/></D:resourcetype>"
    else:
        values = (
            f"<D:resourcetype/><D:getcontentlength>{entry.content.size}</D:getcontentlength>"
            f"<D:getlastmodified>{_modified(entry)}</D:getlastmodified>"
        )
    status = "<D:status>HTTP/1.1 200 OK</D:status>"
    properties = f"<D:propstat><D:prop>{values}</D:prop>{status}</D:propstat>"
    return f"<D:response><D:href>{escape(href)}</D:href>{properties}</D:response>\n"
