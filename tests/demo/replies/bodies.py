"""What the recorded writes sent: bodies of the recorded lengths and kinds, with other bytes; and what was
done on the disk between them.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from datetime import datetime

from xnatfs.demo import changes
from xnatfs.demo.model import Archive, BytesContent

from . import Entry

_BOUNDARY = re.compile(r"boundary=(\w+)")
_FORMS = {
    "put-008": ("empty2.txt", b""),
    "put-010": ("multi.txt", b"multi"),
    "put-011": ("named by form.txt", b"form"),
}
_NEW, _ASEG, _RESOURCE = "stats/new.stats", "stats/aseg.stats", 17


def _zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def _form(entry: Entry, name: str, data: bytes) -> bytes:
    found = _BOUNDARY.search(entry["request_headers"]["Content-Type"])
    assert found is not None
    mark = found[1].encode()
    head = (
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: '
        f"application/octet-stream\r\n\r\n"
    )
    return b"--" + mark + b"\r\n" + head.encode() + data + b"\r\n--" + mark + b"--\r\n"


def body_of(entry: Entry) -> bytes | None:
    """The body of a recorded write; None where there was none."""
    name: str = entry["id"]
    if name in _FORMS:
        return _form(entry, *_FORMS[name])
    if name == "zip-001":
        return _form(entry, "z1.zip", _zipped(a__b=b"abc", c=b"abcdef"))
    if name in ("zip-002", "zip-003"):
        return _zipped(d=b"ddd1", a__e=b"eee1")
    if name == "zip-004":
        return _zipped(d=b"ddd2", a__e=b"eee22")
    if entry["method"] == "PUT" and "inbody=true" in entry["target"]:
        seed = "put-005" if name == "put-006" else name  # the same bytes again
        return (hashlib.md5(seed.encode(), usedforsecurity=False).digest() * 20)[
            : entry.get("request_body_length", 0)
        ]
    return b"" if entry["method"] in ("PUT", "POST") else None


def _lay(archive: Archive, path: str, data: bytes) -> None:
    resource, _ = changes.find(archive, _RESOURCE)
    changes.put_on_disk(resource, path, BytesContent(data), datetime(2026, 11, 30, 10, 0, 0))


def _remove(archive: Archive) -> None:
    resource, _ = changes.find(archive, _RESOURCE)
    entry = next(item for item in resource.entries if item.path == _NEW)
    entry.catalog_size, entry.digest, entry.content = entry.listed_size, entry.listed_digest, None


# What was done on the server's disk before a step.
ON_DISK: dict[str, Callable[[Archive], None]] = {
    "disk-001": lambda archive: _lay(archive, _NEW, b"twelve bytes"),
    "disk-002": lambda archive: _lay(archive, _ASEG, b"forty bytes are in this file, just forty"),
    "refresh-007": _remove,
}
