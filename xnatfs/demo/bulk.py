"""Bulk downloads: zips as Java's ZipOutputStream streams them, tars, and the paths inside (xnat-rest.md 3).

Used by `routes`. Streams on the event loop, entry by entry; checksums of big contents are computed in the
pool.
"""

from __future__ import annotations

import fnmatch
import re
import struct
import tarfile
import zlib
from collections.abc import AsyncIterator
from datetime import timezone
from urllib.parse import unquote_plus

from .addresses import Address, Target
from .call import Call
from .model import CatalogEntry, pieces
from .pages import tomcat_error
from .placed_resources import PlacedResource
from .reply import HttpError, Reply
from .resources import selected

_STORED, _DEFLATED = 0, 8
_LIMIT32 = 0xFFFFFFFF
_SMALL_BYTES = 1 << 20
_BUFFER_BYTES = 8192  # of the container
_CONTENT_TYPES = {"zip": "application/zip", "tar": "application/x-tar", "tar.gz": "application/x-gtar"}


async def download(
    call: Call, address: Address, target: Target, items: list[PlacedResource], kind: str
) -> Reply:
    """The files of these resources as one archive. Missing files are left out; with nothing to send it is a
    404.

    A zip that fits into the container's response buffer gets a Content-Length, as executed; a longer one and
    a tar are chunked.
    """
    with_type = "scans" in address.names or "reconstructions" in address.names
    path = address.file_path or ""
    single = bool(path) and not path.endswith("/")
    chosen_files: dict[str, CatalogEntry] = {}
    for item, entry in selected(call, address, items):
        if entry.content is None or (single and entry.path != unquote_plus(path)):
            continue
        if any(fnmatch.fnmatchcase(entry.path, pattern) for pattern in call.switches.zip_omit):
            call.switches.fired["zip_omit"] += 1
            continue
        name = (
            entry.name
            if single
            else inner_path(item, entry, call.query.get("structure", ""), with_type, kind)
        )
        chosen_files.setdefault(name, entry)
    if not chosen_files:
        return tomcat_error(404, "Unable to find file.", restlet=True)
    members = list(chosen_files.items())
    if call.switches.zip_stop_after >= 0:
        members = members[: call.switches.zip_stop_after]
        call.switches.fired["zip_stop"] += 1
    headers = [
        ("Content-Type", _CONTENT_TYPES[kind]),
        ("Content-Disposition", f'attachment; filename="{_archive_name(call, target)}.{kind}";'),
    ]
    if kind != "zip":
        packed = _tar(call, members, kind == "tar.gz")
        return Reply(200, b"", headers, "bulk", None, lambda: packed)
    source = _zip(call, members, _method(call.query.get("compression", "0")))
    if call.method == "HEAD":
        return Reply(200, b"", headers, "bulk", None, lambda: source)
    begun: list[bytes] = []
    size = 0
    async for piece in source:
        begun.append(piece)
        size += len(piece)
        if size > _BUFFER_BYTES:
            return Reply(200, b"", headers, "bulk", None, lambda: _resumed(begun, source))
    return Reply(200, b"".join(begun), headers, "bulk", size)


async def _resumed(begun: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in begun:
        yield piece
    async for piece in rest:
        yield piece


def _method(value: str) -> int:
    if value not in ("0", "8"):
        raise HttpError(500, "Unsupported compression method.")
    return int(value)


def _archive_name(call: Call, target: Target) -> str:
    """An archive is called after the session it is from, also where an assessor's files were asked for."""
    if target.experiments:
        experiment = target.experiment
        label = call.archive.experiments.get(experiment.session_id, experiment).label
    else:
        label = target.subject.label if target.subject is not None else target.project_id
    return re.sub(r'[^ -~]|"', "_", label)


def inner_path(
    item: PlacedResource, entry: CatalogEntry, structure: str, with_type: bool, kind: str = "zip"
) -> str:
    """Where a file lies in an archive: `LABEL/scans/ID-TYPE/resources/R/files/PATH` and its variants
    (xnat-rest.md 3).
    """
    label = item.resource.label or str(item.resource.id)
    scan_type = re.sub(r"\W", "_", item.suffix, flags=re.ASCII)  # Java's, which knows no letters but ASCII's
    if structure == "improved":
        # No session root; `_TYPE` not in tars.
        folder = item.folder.partition("/")[2]
        if with_type and scan_type and kind == "zip":
            folder += f"_{scan_type}"
        return "/".join(filter(None, (folder or "resources", label, entry.path)))
    if structure == "legacy":
        return f"{item.archive_dir.partition('/')[2].removeprefix('arc001/')}/{entry.path}"
    folder, way = item.folder, ""
    if with_type and scan_type and structure != "simplified":
        if item.category == "reconstructions":
            folder, _, way = item.folder.rpartition("/")
        folder += f"-{scan_type}" + (f"/{way}" if way else "")
    path = f"{folder}/resources/{label}/files/{entry.path}"
    return path.replace("/resources", "").replace("/files", "") if structure == "simplified" else path


def _dos_time(entry: CatalogEntry) -> int:
    moment = entry.modified
    date = (max(moment.year, 1980) - 1980) << 9 | moment.month << 5 | moment.day
    return date << 16 | moment.hour << 11 | moment.minute << 5 | moment.second // 2


async def _zip(call: Call, members: list[tuple[str, CatalogEntry]], method: int) -> AsyncIterator[bytes]:
    """STORED: sizes and CRC in the local header, flags 0x800; DEFLATED: flags 0x808 and a data descriptor
    (xnat-rest.md 3 [X]).
    """
    directory: list[bytes] = []
    offset = 0
    flags = 0x808 if method == _DEFLATED else 0x800
    for name, entry in members:
        content = entry.content
        if content is None:
            continue
        encoded = name.encode()
        stamp, size = _dos_time(entry), content.size
        crc = packed = 0
        if method == _STORED:
            crc = (
                entry.true_crc if size <= _SMALL_BYTES else await call.run(lambda entry=entry: entry.true_crc)
            )
            packed = size
        extra = struct.pack("<HHQQ", 1, 16, size, packed) if size >= _LIMIT32 and method == _STORED else b""
        version = 45 if extra else 20 if method == _DEFLATED else 10
        known = (crc, min(packed, _LIMIT32), min(size, _LIMIT32)) if method == _STORED else (0, 0, 0)
        head = struct.pack(
            "<IHHHIIIIHH", 0x04034B50, version, flags, method, stamp, *known, len(encoded), len(extra)
        )
        head += encoded + extra
        start = offset
        offset += len(head)
        if method == _STORED and size <= _SMALL_BYTES:
            yield head + content.read(0, size)
            offset += size
        elif method == _STORED:
            yield head
            for piece in pieces(content):
                yield piece
            offset += size
        else:
            yield head
            squeeze = zlib.compressobj(-1, zlib.DEFLATED, -15)
            for piece in pieces(content):
                crc = zlib.crc32(piece, crc)
                small = await call.run(squeeze.compress, piece)
                packed += len(small)
                if small:
                    yield small
            tail = squeeze.flush()
            packed += len(tail)
            sizes = "<IIQQ" if size >= _LIMIT32 else "<IIII"
            descriptor = struct.pack(sizes, 0x08074B50, crc, packed, size)
            yield tail + descriptor
            offset += packed + len(descriptor)
        directory.append(_central(encoded, flags, method, stamp, crc, packed, size, start))
    yield b"".join(directory) + _end(len(directory), sum(map(len, directory)), offset)


def _central(
    name: bytes, flags: int, method: int, stamp: int, crc: int, packed: int, size: int, start: int
) -> bytes:
    big = [value for value in (size, packed, start) if value >= _LIMIT32]
    extra = struct.pack(f"<HH{len(big)}Q", 1, 8 * len(big), *big) if big else b""
    version = 45 if big else 20 if method == _DEFLATED else 10
    return (
        struct.pack(
            "<IHHHHIIII",
            0x02014B50,
            version,
            version,
            flags,
            method,
            stamp,
            crc,
            min(packed, _LIMIT32),
            min(size, _LIMIT32),
        )
        + struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, min(start, _LIMIT32))
        + name
        + extra
    )


def _end(count: int, length: int, offset: int) -> bytes:
    record = struct.pack(
        "<IHHHHIIH",
        0x06054B50,
        0,
        0,
        min(count, 0xFFFF),
        min(count, 0xFFFF),
        min(length, _LIMIT32),
        min(offset, _LIMIT32),
        0,
    )
    if count < 0xFFFF and offset < _LIMIT32:
        return record
    end64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, length, offset)
    return end64 + struct.pack("<IIQI", 0x07064B50, 0, offset + length, 1) + record


async def _tar(call: Call, members: list[tuple[str, CatalogEntry]], compress: bool) -> AsyncIterator[bytes]:
    squeeze = zlib.compressobj(-1, zlib.DEFLATED, 31) if compress else None
    async for piece in _tar_plain(members):
        if squeeze is None:
            yield piece
        elif small := await call.run(squeeze.compress, piece):
            yield small
    if squeeze is not None:
        yield squeeze.flush()


async def _tar_plain(members: list[tuple[str, CatalogEntry]]) -> AsyncIterator[bytes]:
    for name, entry in members:
        content = entry.content
        if content is None:
            continue
        info = tarfile.TarInfo(name)
        info.size = content.size
        info.mtime = int(entry.modified.replace(tzinfo=timezone.utc).timestamp())
        yield info.tobuf(tarfile.GNU_FORMAT)
        for piece in pieces(content):
            yield piece
        yield bytes(-content.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
