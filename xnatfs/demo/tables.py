"""Tables of strings and how XNAT writes them: JSON, CSV, XML, HTML (xnat-rest.md 2.1).

Used by everything that lists. Pure, any thread.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape

from .reply import HttpError, Reply

Row = dict[str, str]

_MEDIA = {
    "json": "json",
    "application/json": "json",
    "csv": "csv",
    "text/csv": "csv",
    "xml": "xml",
    "text/xml": "xml",
    "application/xml": "xml",
    "html": "html",
    "text/html": "html",
    "txt": "txt",
    "text/plain": "txt",
    "zip": "zip",
    "application/zip": "zip",
    "tar": "tar",
    "application/x-tar": "tar",
    "tar.gz": "tar.gz",
    "application/x-gtar": "tar.gz",
    "application/x-gzip": "tar.gz",
    "xcat": "xcat",
}
_CONTENT_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "xml": "text/xml",
    "html": "text/html",
}


@dataclass
class Table:
    """Rows of strings with their columns in order, and the figures beside them."""

    columns: list[str]
    rows: list[Row]
    title: str = ""
    with_total: bool = True
    meta: dict[str, str] = field(default_factory=dict)
    column_notes: list[dict[str, str]] = field(default_factory=list)
    raw_names: bool = False  # the header is raw SQL names when there is no row (xnat-rest.md 2.1)


def wanted_format(
    query: Mapping[str, str], accept: str, variants: tuple[str, ...] = ("json", "html", "xml")
) -> str:
    """The format of a reply: `format=`, else negotiated among the variants; nothing acceptable is a 406."""
    named = query.get("format", "")
    if named:
        return _MEDIA.get(named.lower(), "html")  # an unknown one: a page
    ranges = [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    if not ranges or "*/*" in ranges:
        return variants[0]
    for wanted in ranges:
        if wanted.endswith("/*"):
            for variant in variants:
                if _CONTENT_TYPES[variant].startswith(wanted[:-1]):
                    return variant
        elif _MEDIA.get(wanted) in variants:
            return _MEDIA[wanted]
    raise HttpError(406)


def stamp(moment: datetime | None) -> str:
    """A java.sql.Timestamp: trailing zeros of the fraction trimmed, one digit at least (xnat-rest.md 2.1
    [R]).
    """
    if moment is None:
        return ""
    fraction = f"{moment.microsecond:06d}".rstrip("0") or "0"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{fraction}"


def sort(table: Table, query: Mapping[str, str]) -> None:
    """`sortBy=a,b&sortOrder=DESC`, in memory, after paging (xnat-rest.md 2.1)."""
    keys = [key for key in query.get("sortBy", "").split(",") if key]
    if not keys:
        return
    names = {column.lower(): column for column in table.columns}
    sorted_by = [names[key.lower()] for key in keys if key.lower() in names]
    table.rows.sort(
        key=lambda row: [row.get(key, "") for key in sorted_by],
        reverse=query.get("sortOrder", "").upper() == "DESC",
    )


def page_of(table: Table, query: Mapping[str, str]) -> None:
    """`limit` and `offset`: with either, the total is not told; 0 is no limit, what is no number a ValueError
    (xnat-rest.md 2.1, 12).
    """
    if "limit" not in query and "offset" not in query:
        return
    limit, offset = query.get("limit", "100"), query.get("offset", "0")
    if limit in ("*", "0"):
        return
    first, count = int(offset), int(limit)
    table.rows = table.rows[first : first + count]
    table.with_total = False


def render(table: Table, kind: str) -> Reply:
    """The reply: no Content-Length, for Restlet streams its tables (xnat-rest.md 2.1 [X])."""
    writers = {"json": _json, "csv": _csv, "xml": _xml, "html": _html}
    kind = kind if kind in writers else "json"
    return Reply(200, writers[kind](table).encode(), [("Content-Type", _CONTENT_TYPES[kind])], "listing")


def _meta(table: Table) -> dict[str, str]:
    meta = dict(table.meta)
    if table.title:
        meta["title"] = table.title
    if table.with_total:
        meta["totalRecords"] = str(len(table.rows))
    return meta


def _json(table: Table) -> str:
    compact = (",", ":")
    notes = f'"Columns":{json.dumps(table.column_notes, separators=compact)},' if table.column_notes else ""
    rows = json.dumps(table.rows, separators=compact, ensure_ascii=False)
    meta = ",".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in _meta(table).items())
    return f'{{"ResultSet":{{{notes}"Result":{rows}{", " + meta if meta else ""}}}}}'


def _header(table: Table) -> list[str]:
    if table.rows or not table.raw_names:
        return table.columns
    return [re.sub(r"\W", "_", column).lower() for column in table.columns]


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_header(table))
    writer.writerows([row.get(column, "") for column in table.columns] for row in table.rows)
    return out.getvalue()


def _xml(table: Table) -> str:
    meta = "".join(f' {name}="{escape(value)}"' for name, value in _meta(table).items())
    columns = "".join(f"<column>{escape(column)}</column>" for column in _header(table))
    rows = "".join(
        "<row>"
        + "".join(f"<cell>{escape(row.get(column, ''))}</cell>" for column in table.columns)
        + "</row>"
        for row in table.rows
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ResultSet{meta}><results><columns>{columns}</columns>'
        f"<rows>{rows}</rows></results></ResultSet>"
    )


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in _header(table))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(row.get(column, ''))}</td>" for column in table.columns) + "</tr>\n"
        for row in table.rows
    )
    return f"<html><body><table><tr>{head}</tr>\n{rows}</table></body></html>"
