"""Numbers drawn from a key: the same on every machine, and no two keys alike.

Used by the sample data. A hash and integer arithmetic only: a random generator's or a compressor's output may
differ from one library version to the next, and the sample data must not.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from decimal import Decimal

import numpy as np


def draw(key: str, low: float, high: float, decimals: int) -> Decimal:
    """A number from `low` to `high` with exactly so many decimals; `str()` of it is the text that is written
    to files.
    """
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


# Deflate's fixed codes, as strings of bits.
_LITERAL = [format(0x30 + n, "08b") if n < 144 else format(0x190 + n - 144, "09b") for n in range(256)]
_REPEAT_258, _REPEAT_10, _END = format(0xC5, "08b") + "00000", format(8, "07b") + "00000", "0000000"


def gzip_runs(data: bytes) -> bytes:
    """`data` as a gzip file in which only runs of one byte are compressed: as good as a compressor for masks
    and label images.

    One block of fixed codes and a rule that leaves no choice, for the same reason as `gzip_stored`.
    """
    values = np.frombuffer(data, dtype=np.uint8)
    starts = (
        np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(values)]])
        if len(values)
        else np.zeros(1, dtype=int)
    )
    bits = ["110"]  # the last block, of fixed codes
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        literal, rest = _LITERAL[values[start]], stop - start - 1
        bits += [
            literal,
            _REPEAT_258 * (rest // 258),
            _REPEAT_10 * (rest % 258 // 10),
            literal * (rest % 258 % 10),
        ]
    bits.append(_END)
    packed = np.packbits(
        np.frombuffer("".join(bits).encode(), dtype=np.uint8) - ord("0"), bitorder="little"
    ).tobytes()
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + packed + tail
