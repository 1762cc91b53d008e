"""The bytes of a sidecar: the original's, with the fields added that BIDS demands and it lacks. And the
numbers of a NIfTI header.

An original that lacks nothing stays as it is, byte for byte; fields are added at its end, so that its own
numbers keep their digits."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

HEADER_BYTES = 16384  # of a file, to be read for its header: enough for its 540 bytes behind any gzip header
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}


class NiftiHeader(NamedTuple):
    """What a NIfTI header says of time: dimensions, and the repetition time in seconds (0: it says none)."""

    dimensions: tuple[int, ...]
    repetition: float


def header(start: bytes) -> NiftiHeader | None:
    """The header from the first bytes of a `.nii` or `.nii.gz`; None if there is none."""
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(31).decompress(start, 1024)
        except zlib.error:
            return None
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(order + "i", start)[0] == 348:
            dims = struct.unpack_from(order + "8h", start, 40)
            step = float(struct.unpack_from(order + "8f", start, 76)[4])
            units = start[123]
        elif len(start) >= 540 and struct.unpack_from(order + "i", start)[0] == 540:
            dims = struct.unpack_from(order + "8q", start, 16)
            step = float(struct.unpack_from(order + "8d", start, 104)[4])
            units = struct.unpack_from(order + "i", start, 500)[0]
        else:
            continue
        count = dims[0] if 0 <= dims[0] <= 7 else 0
        seconds = step * _SECONDS.get(units & 0x38, 1.0)
        repetition = seconds if count >= 4 and 0 < seconds < 1000 else 0.0
        return NiftiHeader(
            tuple(dims[1 : 1 + count]), float(f"{repetition:.7g}")
        )  # a float of 32 bits has seven digits
    return None


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
