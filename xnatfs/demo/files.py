"""Single files: how a raw path is looked up, and everything about the reply (xnat-rest.md 3).

Used by `routes`. Runs on the event loop; big reads come in pieces.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import unquote_plus

from .addresses import Address, Target
from .call import Call
from .model import CatalogEntry, Content
from .pages import tomcat_error
from .placed_resources import PlacedResource, chosen
from .ranges import select
from .reply import HttpError, Reply
from .resources import contents_list, selected

_TYPES = {
    "bmp": "image/bmp",
    "gif": "image/gif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "xml": "text/xml",
}
_ZIPS = ("zip", "jar", "rar", "ear", "gar", "mrb")
_PIECE_BYTES = 1 << 19


def content_type(name: str) -> str:
    """By extension only, and only for a handful of them."""
    return _TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


async def download(call: Call, address: Address, target: Target) -> Reply:
    """`.../files/PATH`: one file, or one member of a zip."""
    raw = address.file_path or ""
    outer, inner = split_zip(raw)
    items = chosen(address, target, call.view, call.flag("all"))
    several = len(target.scans or []) > 1 and not all(
        name.isdigit() for name in address.names.get("resources", "x").split(",")
    )
    if call.method == "HEAD" and several:
        raise HttpError(404)  # only GET takes an address that names several scans (xnat-rest.md 13 [X])
    if any(item.resource.broken for item in items):
        return tomcat_error(404, "Unable to find file.", restlet=True)
    # Of several resources only the first is looked in, be it two of one label or all of a session
    # (xnat-rest.md 13 [X]).
    match = find(items[:1], outer)
    if match is None or match[1].content is None:
        if call.flag("accept-not-found"):
            return Reply(204)
        return tomcat_error(404, "Unable to find file.", restlet=True)
    placed, entry = match
    content = match[1].content
    if call.switches.catalog_entry_cost_us:
        # Every GET of one file parses the whole catalog (xnat-rest.md 9).
        await asyncio.sleep(call.switches.catalog_entry_cost_us * len(placed.resource.entries) / 1e6)
    if call.flag("listContents"):
        return contents_list(call, _members(content))
    if inner is not None:
        return _member(content, unquote_plus(inner))
    return file_reply(call, entry, content)


def indexed(call: Call, address: Address, items: list[PlacedResource]) -> Reply:
    """`index=N` with a filter gives the N-th file itself (xnat-rest.md 2.4)."""
    entries = selected(call, address, items)
    try:
        entry = entries[int(call.query["index"])][1]
    except (ValueError, IndexError):
        return tomcat_error(404, "Unable to find file.", restlet=True)
    if entry.content is None:
        return tomcat_error(404, "Unable to find file.", restlet=True)
    return file_reply(call, entry, entry.content)


def split_zip(raw: str) -> tuple[str, str | None]:
    """A path at the first zip-like extension followed by `!` or `/`; so a directory called x.zip is taken for
    a zip (xnat-rest.md 3).
    """
    lower = raw.lower()
    for extension in _ZIPS:
        for mark in (f".{extension}!", f".{extension}/"):
            at = lower.find(mark)
            if at >= 0:
                end = at + len(mark) - 1
                return raw[:end], raw[end:].removeprefix("!").removeprefix("/")
    return raw, None


def find(items: list[PlacedResource], raw: str) -> tuple[PlacedResource, CatalogEntry] | None:
    """The entry of a raw path: decoded once only for %2B or %20, then looked up as it stands, then decoded
    (xnat-rest.md 3).
    """
    path = unquote_plus(raw) if "%2B" in raw or "%20" in raw else raw
    for wanted in dict.fromkeys((path, unquote_plus(path))):
        for item in items:
            for entry in item.resource.entries:
                if entry.path == wanted:
                    return item, entry
    return None


def _whole_second(moment: datetime) -> datetime:
    # The fraction is cut, not rounded (xnat-rest.md 3 [X]); the stand-in's clock is UTC.
    return moment.replace(microsecond=0, tzinfo=timezone.utc)


def _date(value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=timezone.utc)


def _condition(call: Call, modified: datetime) -> int:
    """304, 412 or 200 for the conditional headers (xnat-rest.md 3 [X])."""
    if_match = call.headers.get("if-match")
    if if_match is not None and if_match.strip() != "*":
        return 412
    since = _date(call.headers.get("if-unmodified-since"))
    if since is not None and since < modified:
        return 412
    since = _date(call.headers.get("if-modified-since"))
    # A date in the future is as good as none.
    if since is not None and modified <= since <= datetime.now(timezone.utc):
        return 304
    return 200


def file_reply(call: Call, entry: CatalogEntry, content: Content) -> Reply:
    """The stored file, with conditions and ranges."""
    modified = _whole_second(entry.modified)
    common = [
        ("Cache-Control", "must-revalidate"),
        ("Content-Disposition", f'attachment; filename="{_latin(entry.name)}";'),
    ]
    condition = _condition(call, modified)
    if condition == 304:
        return Reply(304, b"", common, "file")
    if condition == 412:
        raise HttpError(412)
    size = content.size
    choice = select(None if call.switches.no_range else call.headers.get("range"), size)
    if choice.status == 501:
        raise HttpError(501)
    headers = [
        ("Last-Modified", format_datetime(modified, usegmt=True)),
        *common,
        ("Content-Type", content_type(entry.name)),
    ]
    if choice.content_range:
        headers.append(("Content-Range", choice.content_range))
    reply = Reply(choice.status, b"", headers, "file", choice.length)
    reply.hang = choice.short
    reply.close = choice.status == 500
    if call.switches.chunked_files and not choice.short:
        reply.length = None
    if choice.stop - choice.start <= _PIECE_BYTES:
        reply.body = content.read(choice.start, choice.stop - choice.start) if call.method != "HEAD" else b""
    else:
        reply.stream = lambda: _pieces(content, choice.start, choice.stop)
    return reply


def _latin(name: str) -> str:
    # Tomcat writes control characters in a header value as blanks.
    return "".join(
        " " if (c < " " and c != "\t") or c == "\x7f" else c
        for c in name.encode("latin-1", "replace").decode("latin-1")
    )


async def _pieces(content: Content, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        piece = content.read(start, min(_PIECE_BYTES, stop - start))
        if not piece:
            return  # the file is shorter than it said
        yield piece
        start += len(piece)


class _Reader(io.RawIOBase):
    """A content as a file, for zipfile."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._content.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    # narrower than a Buffer, which 3.10 cannot name
    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        piece = self._content.read(self._at, len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _open_zip(content: Content) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BufferedReader(_Reader(content)))
    except zipfile.BadZipFile:
        raise HttpError(404, "Unable to find file.", "tomcat") from None


def _members(content: Content) -> list[tuple[str, int]]:
    with _open_zip(content) as archive:
        return [(info.filename, info.file_size) for info in archive.infolist() if not info.is_dir()]


def _member(content: Content, inner: str) -> Reply:
    """A file in a zip: streamed, no length, no Range (xnat-rest.md 3 [X])."""
    with _open_zip(content) as archive:
        try:
            info = archive.getinfo(inner)
        except KeyError:
            return tomcat_error(404, "Unable to find file.", restlet=True)
        name = inner.rpartition("/")[2]

    async def stream() -> AsyncIterator[bytes]:
        with _open_zip(content) as archive, archive.open(info) as member:
            while piece := member.read(_PIECE_BYTES):
                yield piece

    headers = [
        ("Cache-Control", "must-revalidate"),
        ("Content-Disposition", f'attachment; filename="{_latin(name)}";'),
        ("Content-Type", content_type(name)),
    ]
    return Reply(200, b"", headers, "file", None, stream)
