"""Resource lists, file lists and catalogs (xnat-rest.md 2.3, 2.4, 2.6, 6).

Used by `routes`. Reads the archive on the event loop; missing digests are computed in the pool.
"""

from __future__ import annotations

import re
from html import escape
from urllib.parse import unquote_plus

from .addresses import Address, Target
from .call import Call
from .listings import finish
from .model import CatalogEntry
from .placed_resources import PlacedResource, addressed_base, addressed_through, chosen, placed
from .reply import HttpError, Reply
from .tables import Row, Table

_RESOURCE_KEYS = (
    "xnat_abstractresource_id",
    "label",
    "element_name",
    "category",
    "cat_id",
    "cat_desc",
    "file_count",
    "file_size",
    "tags",
    "content",
    "format",
)
_FILE_KEYS = (
    "Name",
    "Size",
    "URI",
    "collection",
    "file_tags",
    "file_format",
    "file_content",
    "cat_ID",
    "digest",
)


def resource_list(call: Call, target: Target) -> Reply:
    """`.../resources`: no URI column, counts as strings, `all=true` for everything in a session."""
    rows = []
    for item in placed(target, call.view, call.flag("all")):
        resource = item.resource
        unknown = call.switches.proven_only
        values = (
            str(resource.id),
            resource.label,
            "xnat:resourceCatalog",
            item.category,
            item.category_id,
            item.description,
            "" if unknown else resource.file_count,
            "" if unknown else resource.file_size,
            resource.tags,
            resource.content,
            resource.format,
        )
        rows.append(dict(zip(_RESOURCE_KEYS, values, strict=True)))
    return finish(call, Table(list(_RESOURCE_KEYS), rows, title="Resources"))


async def digests_known(call: Call, items: list[PlacedResource]) -> None:
    """Compute the digests the catalogs promise, away from the event loop: the first listing of a big file
    takes seconds.
    """
    missing = [
        entry
        for item in items
        for entry in item.resource.entries
        if entry.digest is None and not entry.digest_ready
    ]
    if missing:
        await call.run(lambda: [entry.true_digest for entry in missing])


def selected(
    call: Call, address: Address, items: list[PlacedResource]
) -> list[tuple[PlacedResource, CatalogEntry]]:
    """The entries below the addressed folder that `file_format=` and `file_content=` leave (repeatable; NULL
    for none; xnat-rest.md 2.4).

    What the *entry* says counts, not its resource. One catalog that cannot be read makes all of it a 404
    (xnat-rest.md 13 [X]).
    """
    if any(item.resource.broken for item in items):
        raise HttpError(404, "Unable to find catalog.", "tomcat")
    folder = unquote_plus(address.file_path or "")
    formats = {value for given in call.query.getlist("file_format") for value in given.split(",")}
    contents = {value for given in call.query.getlist("file_content") for value in given.split(",")}
    return [
        (item, entry)
        for item in items
        for entry in item.resource.entries
        if entry.path.startswith(folder)
        and (not formats or (entry.format or "NULL") in formats)
        and (not contents or (entry.content_code or "NULL") in contents)
    ]


async def file_list(call: Call, address: Address, target: Target) -> Reply:
    """`.../files`: one row per catalog entry; un-encoded URIs with the numeric resource id; no totalRecords
    (xnat-rest.md 2.4).
    """
    items = chosen(address, target, call.view, call.flag("all"))
    if call.switches.empty_file_lists:
        items = []
        call.switches.fired["empty_file_lists"] += 1
    entries = selected(call, address, items)
    if not call.switches.proven_only:
        await digests_known(call, items)
    # A resource asked for by its number is named as it was asked for, others where they hang.
    numbers = all(name.isdigit() for name in address.names.get("resources", "x").split(","))
    base = addressed_base(target) if numbers else ""
    through = addressed_through(target) if len(items) == 1 and "resources" in address.names else "/data"
    locator = {"absolutepath": "absolutePath", "projectpath": "projectPath"}.get(
        call.query.get("locator", "").lower(), "URI"
    )
    keys = [
        locator if key == "URI" else key
        for key in _FILE_KEYS
        if key != "digest" or not call.switches.proven_only
    ]
    wrong = re.compile(call.switches.wrong_digest) if call.switches.wrong_digest else None
    stale = re.compile(call.switches.stale_size) if call.switches.stale_size else None
    rows: list[Row] = []
    for item, entry in entries:
        size = entry.listed_size
        if stale is not None and stale.search(entry.path):
            call.switches.fired["stale_size"] += 1
            size = max(size // 2, size - 1000)
        row = {
            "Name": entry.name,
            "Size": str(size),
            locator: _locate(item, entry, base or through + item.path, locator),
            "collection": item.resource.label,
            "file_tags": entry.tags,
            "file_format": entry.format,
            "file_content": entry.content_code,
            "cat_ID": str(item.resource.id),
        }
        if not call.switches.proven_only:
            digest = entry.listed_digest
            if wrong is not None and wrong.search(entry.path):
                call.switches.fired["wrong_digest"] += 1
                digest = "0" * 31 + "1"
            row["digest"] = digest
        rows.append(row)
    table = Table(
        keys, rows, title="Files", with_total=False, column_notes=[{"key": "URI", "serverRoot": ""}]
    )
    return finish(call, table)


def nothing_listed(call: Call) -> Reply:
    """A `/files` or `/resources` table in which nothing is, because a query inside failed."""
    if call.path.rstrip("/").endswith("resources"):
        return finish(call, Table(list(_RESOURCE_KEYS), [], title="Resources"))
    return finish(
        call,
        Table(
            list(_FILE_KEYS),
            [],
            title="Files",
            with_total=False,
            column_notes=[{"key": "URI", "serverRoot": ""}],
        ),
    )


def _locate(item: PlacedResource, entry: CatalogEntry, base: str, locator: str) -> str:
    if locator == "URI":
        # Several catalogs: the base is the row's resource_path, without the project (xnat-rest.md 2.4).
        return f"{base}/resources/{item.resource.id}/files/{entry.path}"
    path = f"{item.archive_dir}/{entry.path}"
    return f"/data/xnat/archive/{path}" if locator == "absolutePath" else path.partition("/")[2]


async def catalog(call: Call, address: Address, target: Target) -> Reply:
    """`.../resources/R`: the catalog, as XML only; the one listing with a time per file (xnat-rest.md
    2.6).
    """
    items = chosen(address, target, call.view, False)
    if not items:
        raise HttpError(404, "Unable to find catalog.")
    resource = items[0].resource
    if resource.broken:
        raise HttpError(404, "Unable to find catalog.", "tomcat")
    await digests_known(call, items[:1])
    lines = []
    for entry in resource.entries:
        values = {
            "ID": entry.path,
            "URI": entry.path,
            "name": entry.name,
            "createdBy": "admin",
            "createdTime": entry.modified.strftime("%a %b %d %H:%M:%S UTC %Y"),
            "digest": entry.listed_digest,
            "format": entry.format,
        }
        attributes = "".join(f' {name}="{escape(value)}"' for name, value in values.items() if value)
        size = (
            f'<cat:metaFields><cat:metaField name="SIZE">{entry.listed_size}</cat:metaField></cat:metaFields>'
        )
        lines.append(f"<cat:entry{attributes}>{size}</cat:entry>\n")
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<cat:Catalog ID="{escape(resource.label)}" '
        'xmlns:cat="http://nrg.wustl.edu/catalog" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n<cat:metaFields>'
        f'<cat:metaField name="__ENTRY_COUNT">{len(resource.entries)}</cat:metaField><cat:metaField '
        f'name="CHECKSUMS">true</cat:metaField>'
        "</cat:metaFields>\n<cat:entries>\n" + "".join(lines) + "</cat:entries>\n</cat:Catalog>\n"
    )
    return Reply(200, body.encode(), [("Content-Type", "text/xml")], "listing")


def contents_list(call: Call, members: list[tuple[str, int]]) -> Reply:
    """`listContents=true` on a zip (xnat-rest.md 3)."""
    rows = [{"File Name": name, "Size": str(size)} for name, size in members]
    return finish(call, Table(["File Name", "Size"], rows, with_total=False))
