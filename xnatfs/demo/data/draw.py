"""Numbers drawn from a key: the same on every machine, and no two keys alike.

Used by the sample data. A hash and integer arithmetic only: a random generator's or a compressor's output may differ
from one library version to the next, and the sample data must not.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from decimal import Decimal


def draw(key: str, low: float, high: float, decimals: int) -> Decimal:
    """A number from `low` to `high` with exactly so many decimals; `str()` of it is the text that is written to files."""
    unit = Decimal(1).scaleb(-decimals)
    first, last = int(Decimal(str(low)) / unit), int(Decimal(str(high)) / unit)
    value = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return (first + value % (last - first + 1)) * unit


def noise(key: str, length: int) -> bytes:
    """So many bytes of noise."""
    return hashlib.shake_128(key.encode()).digest(length)


def gzip_stored(data: bytes) -> bytes:
    """`data` as a gzip file of stored (uncompressed) blocks, without name or date.

    Compressors differ in their output (zlib, zlib-ng, ISA-L); stored blocks leave no choice.
    """
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    step = 65535
    for start in range(0, max(len(data), 1), step):
        piece = data[start : start + step]
        last = start + step >= len(data)
        parts += [struct.pack("<BHH", last, len(piece), 0xFFFF ^ len(piece)), piece]
    parts.append(struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF))
    return b"".join(parts)
