"""Where the bytes of files come from: memory, this disk, or a computation; and their checksums.

Used by `model` (which hands these names on), the data sets and the downloads. Plain values, any thread.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Content(Protocol):
    """Where the bytes of a file come from."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Bytes `offset` to `offset+length`; shorter only at the end of the content."""
        ...


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Bytes held in memory: small files."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class PathContent:
    """Bytes of a file on this disk."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)


_BLOCK_BYTES = 65536
_NOISE = b"".join(
    hashlib.blake2b(str(index).encode(), digest_size=64).digest() for index in range((1 << 20) // 64)
)


@dataclass(frozen=True, slots=True)
class ComputedContent:
    """Bytes computed from a key: nothing on disk, nothing in memory.

    Block `i` (64 KiB) is a 32-byte hash of (key, i) and then a stretch of fixed noise from a place the hash
    chooses, so that a block read at a wrong offset or from another file is noticed. About 5 GB/s here: the
    stand-in must be no bottleneck in benchmarks.
    """

    key: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        end = min(self.size, offset + length)
        if offset >= end:
            return b""
        first, last = offset // _BLOCK_BYTES, (end - 1) // _BLOCK_BYTES
        data = b"".join(self._block(index) for index in range(first, last + 1))
        start = offset - first * _BLOCK_BYTES
        return data[start : start + end - offset]

    def _block(self, index: int) -> bytes:
        head = hashlib.blake2b(f"{self.key}:{index}".encode(), digest_size=32).digest()
        start = int.from_bytes(head[:4], "big") % (len(_NOISE) - _BLOCK_BYTES)
        return head + _NOISE[start : start + _BLOCK_BYTES - 32]


def md5_of(content: Content) -> str:
    """MD5 of a content, lower-case hex, read in pieces of 1 MiB."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def crc_of(content: Content) -> int:
    """CRC-32 of a content, read in pieces of 1 MiB."""
    crc = 0
    for piece in pieces(content):
        crc = zlib.crc32(piece, crc)
    return crc


def pieces(content: Content, start: int = 0, stop: int | None = None, step: int = 1 << 20) -> Iterator[bytes]:
    """The content from `start` to `stop` in pieces of at most `step` bytes."""
    stop = content.size if stop is None else min(stop, content.size)
    while start < stop:
        piece = content.read(start, min(step, stop - start))
        if not piece:
            return
        yield piece
        start += len(piece)
