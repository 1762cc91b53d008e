"""Everything below /data (and /data/archive, /REST, /REST/archive): from a path to its handler.

Used by `app`. Lives on the event loop.
"""

from __future__ import annotations

import asyncio

from . import accounts, bulk, configuration, edits, files, items, listings, resources, search, uploads
from .addresses import NotIdentified, parse, plain, resolve
from .call import Call
from .database import lacking, outcome
from .placed_resources import chosen
from .reply import HttpError, Reply, nothing, text
from .tables import Table, wanted_format

_BULK = ("zip", "tar", "tar.gz")


async def handle(call: Call) -> Reply:
    """Answer one authenticated request, as far as the database lets it; HttpError for the error pages."""
    if call.switches.pool_exhausted and call.path.partition("/")[0] not in ("JSESSION", "auth"):
        await asyncio.sleep(call.switches.pool_wait_s)
    ending = outcome(call)
    if ending == "partial":
        call.lacks = lacking(call)
    if ending in ("", "partial"):
        return await _answer(call)
    if ending == "nothing":
        return Reply(200, b"", [("Content-Type", "application/json;charset=ISO-8859-1")], "listing", 0)
    if ending == "no rows":
        await _answer(call)  # what cannot be read at all is a 404 still
        return resources.nothing_listed(call)
    raise HttpError(int(ending))


async def _answer(call: Call) -> Reply:
    parts = call.path.split("/")
    if parts[0] == "JSESSION":
        return accounts.jsession(call)
    if parts[0] == "services":
        return _service(call, parts[1:])
    if parts[0] == "search":
        return search.handle(call, [part for part in parts[1:] if part])
    if call.method == "OPTIONS":
        return nothing()
    if call.method not in ("GET", "HEAD"):
        return _write(call)
    if parts[0] == "auth":
        return accounts.who(call)
    if parts[0] == "config":
        return configuration.handle(call, [part for part in parts[1:] if part])
    if parts[0] == "projects" and len(parts) >= 3 and parts[2] == "config":
        return configuration.handle(call, [part for part in parts[3:] if part], plain(parts[1]))
    if parts[0] == "projects" and len(parts) == 3 and parts[2] in ("accessibility", "scan_types", "users"):
        return _about_project(call, parts[1], parts[2])
    return await _read(call)


def _write(call: Call) -> Reply:
    if call.method not in ("PUT", "POST", "DELETE"):
        raise HttpError(405)
    parts = call.path.rstrip("/").split("/")
    if "files" in parts or "resources" in parts:
        return uploads.handle(call, parse(call.path))
    return edits.handle(call)


def _about_project(call: Call, name: str, what: str) -> Reply:
    project = call.view.project(plain(name))
    if project is None:
        raise HttpError(404)
    if what == "accessibility":
        return text(project.access)
    if what == "scan_types":
        return listings.scan_types(call, project)
    if not call.view.may_delete(project):
        raise HttpError(403)  # only a project's owners may see its members
    logins = [*project.owners, *project.members, *project.collaborators]
    return listings.finish(
        call,
        Table(
            ["login", "GROUP_ID"], [{"login": login, "GROUP_ID": f"{project.id}_member"} for login in logins]
        ),
    )


def _service(call: Call, parts: list[str]) -> Reply:
    if parts == ["auth"] and call.method in ("PUT", "POST"):
        return accounts.login(call)
    if parts[:1] == ["tokens"] and len(parts) > 1:
        return accounts.tokens(call, parts[1:])
    if parts == ["refresh", "catalog"] and call.method == "POST":
        return uploads.refresh(call)
    raise HttpError(404)


async def _read(call: Call) -> Reply:
    address = parse(call.path)
    if address.tail == "files" or "resources" in address.names:
        return await _resource(call)
    if call.switches.listing_delay_ms:
        await asyncio.sleep(call.switches.listing_delay_ms / 1000)
    try:
        target = resolve(address, call.view, call.switches.proven_only, item=not address.tail)
    except NotIdentified as error:
        # As executed: the lists of scans and reconstructions of a session that is not there fail otherwise
        # than the rest.
        if address.tail in ("scans", "reconstructions") and error.kind == "experiment":
            raise HttpError(500) from None
        raise
    if address.tail == "resources":
        return resources.resource_list(call, target)
    if address.tail:
        return listings.listing(call, address, target)
    return items.item(call, address, target)


async def _resource(call: Call) -> Reply:
    """Files: listed, singly, or in bulk; or a catalog."""
    address = parse(call.path)
    try:
        target = resolve(address, call.view, call.switches.proven_only)
    except NotIdentified as error:
        if address.tail == "files" and error.kind not in ("project", "subject") and call.method == "GET":
            raise HttpError(500) from None  # as executed, though the same address without /files is a 404
        raise
    if address.tail != "files":
        return await resources.catalog(call, address, target)
    path = address.file_path or ""
    kind = wanted_format(call.query, call.accept) if "format" in call.query else ""
    if path and not path.endswith("/") and kind not in _BULK:
        return await files.download(call, address, target)
    if kind in _BULK:
        return await bulk.download(
            call, address, target, chosen(address, target, call.view, call.flag("all")), kind
        )
    if "index" in call.query:
        return files.indexed(call, address, chosen(address, target, call.view, call.flag("all")))
    if call.switches.listing_delay_ms:
        await asyncio.sleep(call.switches.listing_delay_ms / 1000)
    return await resources.file_list(call, address, target)
