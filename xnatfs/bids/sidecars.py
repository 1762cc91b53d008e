"""The bytes of a sidecar: the original's, with the fields added that BIDS demands and it lacks. And the
repetition time of an image.

An original that lacks nothing stays as it is, byte for byte; fields are added at its end, so that its own
numbers keep their digits.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from xnatfs.nifti_header import StoredHeader, stored_header

HEADER_BYTES = 16384  # of a file, to be read for its header: enough for its 540 bytes behind any gzip header
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}


def repetition_time(start: bytes) -> float | None:
    """The repetition time in seconds from the first bytes of a `.nii` or `.nii.gz`; None if it says none."""
    stored = _header(start)
    if stored is None or not 4 <= stored.dimensions[0] <= 7:
        return None
    seconds = stored.steps[4] * _SECONDS.get(stored.units & 0x38, 1.0)
    return float(f"{seconds:.7g}") if 0 < seconds < 1000 else None  # 32 bits have seven digits


def volumes(start: bytes) -> int | None:
    """The number of volumes, from the same; None if there is no header."""
    stored = _header(start)
    if stored is None:
        return None
    return stored.dimensions[4] if 4 <= stored.dimensions[0] <= 7 else 1


def _header(start: bytes) -> StoredHeader | None:
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(31).decompress(start, 1024)
        except zlib.error:
            return None
    return stored_header(start)


def read(data: bytes) -> dict[str, Any] | None:
    """The fields of a sidecar; None if it is no JSON object."""
    try:
        fields = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def with_fields(original: bytes, wanted: Mapping[str, Any]) -> bytes:
    """A sidecar with these fields where it lacks them; `original` may be empty or no JSON at all, and is left
    out then.
    """
    fields = read(original) if original else {}
    if fields is None:
        original, fields = b"", {}
    missing = {name: value for name, value in wanted.items() if name not in fields}
    if original and not missing:
        return original
    lines = ",\n".join(
        f"\t{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in missing.items()
    )
    if not fields:
        return f"{{\n{lines}\n}}\n".encode() if lines else b"{}\n"
    # Without a regular expression: `\\s*}` starts again at each of a million blanks.
    body = original.decode("utf-8-sig").rstrip().removesuffix("}").rstrip()
    return f"{body},\n{lines}\n}}\n".encode()
