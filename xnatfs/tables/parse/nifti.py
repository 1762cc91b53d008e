"""Sums over NIfTI images, read as a stream: gzip or plain, a few megabytes at a time.

Used by the pipelines whose numbers are in the voxels (`spm`, `fsl`, `bamos`). Plain functions, any thread.

Integer images are summed as integers and scaled once, so their sums are exact; floating point ones in
float64, pairwise within a block and exactly across blocks. The header is that of NIfTI-1 and -2
(https://nifti.nimh.nih.gov/nifti-1, nifti-2).
"""

from __future__ import annotations

import importlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from xnatfs.extras import Lazy
from xnatfs.nifti_header import NEEDED_BYTES, stored_header
from xnatfs.tables.spec import ParseError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Block = NDArray[Any]
else:
    np = Lazy("numpy", "tables")

_BLOCK_VOXELS = 2**18  # 2 MiB as float64
_PACKED_BYTES = 2**18  # of a gzip file at once
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_MAX_LABELS = 100_000
_TOO_LARGE = "its sum is larger than any number"


def _inflating() -> Any:
    """zlib-ng where there is a wheel of it: a tissue map's 10.8 MB, most of them zeros, are unpacked and
    checked in 1.6 ms of one processor instead of 7.5, noise among them in 10 instead of 16. Else zlib, which
    gives the same.
    """
    try:
        return importlib.import_module("zlib_ng.zlib_ng")
    except ImportError:
        return zlib


_zlib = _inflating()


@dataclass(frozen=True)
class ImageHeader:
    """What the sums need to know of an image: its shape, how voxels are stored and scaled, and a voxel's
    volume in mm3.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slope: float
    inter: float
    edges: tuple[float, float, float]
    offset: int

    @property
    def count(self) -> int:
        """The number of voxels."""
        return math.prod(self.shape)

    @property
    def voxel(self) -> float:
        """The volume of a voxel, mm3. pixdim[0] is the handedness and never a factor."""
        return float(self.exact_voxel)

    @property
    def exact_voxel(self) -> Fraction:
        """The same, unrounded."""
        a, b, c = (Fraction(edge) for edge in self.edges)
        return abs(a * b * c)

    def scaled(self, block: Block) -> Block:
        """The values of stored numbers, float64."""
        return block.astype(np.float64) * self.slope + self.inter


def _opened(stream: BinaryIO) -> _Source:
    stream.seek(0)
    magic = stream.read(2)
    stream.seek(0)
    return _Inflated(stream) if magic == b"\x1f\x8b" else stream


class _Inflated:
    """The content of a gzip file, of one or several members, each checked at its end.

    As `gzip.GzipFile`, but in large pieces: that one inflates 8 KiB at a time, and with sixteen images at
    once its threads spend more time waiting for the interpreter after each than they work.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data = b""  # packed, not yet used
        self._member: Any = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            EOFError, zlib.error (or zlib-ng's): it is cut short or damaged.
        """
        while True:
            self._data = self._data or self._stream.read(_PACKED_BYTES)
            ended = not self._data
            if self._member is None:
                self._data = self._data.lstrip(b"\0")  # padding
                if ended:
                    return b""
                if not self._data:
                    continue
                self._member = _zlib.decompressobj(31)
            # also with no data: it may have kept some back
            data: bytes = self._member.decompress(self._data, size)
            self._data = self._member.unconsumed_tail
            if self._member.eof:
                self._data = self._member.unused_data
                self._member = None
            if data:
                return data
            if ended:
                raise EOFError("it ends in the middle")


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _exactly(stream: _Source, size: int) -> bytes:
    """`size` bytes, fewer at the end of the file."""
    parts: list[bytes] = []
    try:
        while size and (part := stream.read(size)):
            parts.append(part)
            size -= len(part)
    except (EOFError, _zlib.error) as error:
        raise ParseError(f"its compressed data is damaged or cut short ({error})") from None
    return b"".join(parts)


def _header(stream: _Source) -> ImageHeader:
    start = _exactly(stream, NEEDED_BYTES)
    if len(start) < NEEDED_BYTES:
        raise ParseError("it is not a NIfTI image: it is shorter than the header of one")
    stored = stored_header(start)
    if stored is None:
        raise ParseError("it is not a NIfTI image")
    magic, dim, kind, pixdim = stored.magic, stored.dimensions, stored.datatype, stored.steps
    slope, inter = stored.slope, stored.intercept
    if magic[:2] != b"n+":
        raise ParseError(
            "it is an image header whose voxels are in another file"
            if magic[:2] == b"ni"
            else "it is not a NIfTI image"
        )
    if not 1 <= dim[0] <= 7 or any(edge < 1 for edge in dim[1 : dim[0] + 1]):
        raise ParseError("its header gives no shape")
    if kind not in _TYPES:
        raise ParseError(f"its voxels are of the NIfTI type {kind}, which is not a single number")
    if not math.isfinite(pixdim[1] * pixdim[2] * pixdim[3]):  # nor is it where one of them is not
        raise ParseError("its header gives no voxel size")
    if not math.isfinite(slope) or slope == 0:  # the standard: a slope of 0 means unscaled
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise ParseError("its header gives no valid scaling")
    shape = tuple(int(edge) for edge in dim[1 : dim[0] + 1])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    at = stored.least_offset
    if math.isfinite(stored.offset) and stored.offset > at:
        at = int(stored.offset)
    return ImageHeader(
        shape, np.dtype(stored.order + _TYPES[kind]), slope, inter, (pixdim[1], pixdim[2], pixdim[3]), at
    )


def read(stream: BinaryIO) -> tuple[ImageHeader, Iterator[Block]]:
    """The header and then the stored voxels, unscaled, block by block in the file's order.

    Raises:
        ParseError: it is no image, or cut short (also while the blocks are read).
    """
    opened = _opened(stream)
    header = _header(opened)
    ahead = header.offset - NEEDED_BYTES
    while ahead:
        skipped = len(_exactly(opened, min(ahead, 2**16)))
        if not skipped:
            raise ParseError("it is cut short: it has no voxels")
        ahead -= skipped
    return header, _blocks(opened, header)


def _blocks(opened: _Source, header: ImageHeader) -> Iterator[Block]:
    width = header.dtype.itemsize
    left = header.count
    while left:
        wanted = min(left, _BLOCK_VOXELS)
        data = _exactly(opened, wanted * width)
        if len(data) < wanted * width:
            raise ParseError(
                f"it is cut short: {left - len(data) // width} of its {header.count} voxels are missing"
            )
        left -= wanted
        yield np.frombuffer(data, header.dtype)
    while _exactly(opened, 2**16):  # to the end: only there gzip shows whether all of it was right
        pass


def total(stream: BinaryIO, least: float | None = None) -> tuple[ImageHeader, Fraction]:
    """The sum of all voxel values, or of those that are at least `least`.

    Raises:
        ParseError: see `read`; or a voxel is not a number.
    """
    header, blocks = read(stream)
    whole, count = 0, 0
    parts: list[float] = []
    for block in blocks:
        selected = block if least is None else block[header.scaled(block) >= least]
        count += selected.size
        if header.dtype.kind == "f":
            with np.errstate(all="ignore"):
                part = float(np.sum(selected, dtype=np.float64))
            if not math.isfinite(part) or (least is not None and not np.isfinite(block).all()):
                raise ParseError("some of its voxels are not numbers (nan or infinite)")
            parts.append(part)
        else:
            whole += _whole_sum(selected)
    try:
        stored = Fraction(math.fsum(parts)) if header.dtype.kind == "f" else Fraction(whole)
    except OverflowError:
        raise ParseError(_TOO_LARGE) from None
    return header, stored * Fraction(header.slope) + Fraction(header.inter) * count


def _whole_sum(block: Block) -> int:
    """The exact sum of integers."""
    if block.dtype.itemsize == 1:
        return int(
            block.sum(dtype=np.int32)
        )  # a block of bytes cannot overflow 32 bits, in which numpy is twice as fast
    if block.dtype.itemsize < 8:
        return int(block.sum(dtype=np.int64))  # nor one of 32-bit numbers 64 bits
    return (int((block >> 32).sum(dtype=np.int64)) << 32) + int((block & 0xFFFFFFFF).sum(dtype=np.int64))


def volume(stream: BinaryIO, least: float | None = None) -> float:
    """Sum of voxel values x voxel volume, mm3. A probability map's is the volume of its tissue.

    Raises:
        ParseError: see `total`.
    """
    header, volume_sum = total(stream, least)
    try:
        return float(volume_sum * header.exact_voxel)
    except OverflowError:
        raise ParseError(_TOO_LARGE) from None


def label_counts(stream: BinaryIO) -> tuple[ImageHeader, dict[float, int]]:
    """How many voxels have each value.

    Raises:
        ParseError: see `read`; or it has too many values to be an image of labels.
    """
    header, blocks = read(stream)
    totals: dict[float, int] = {}
    for block in blocks:
        values, counts = np.unique(block, return_counts=True)
        for value, count in zip(header.scaled(values).tolist(), counts.tolist(), strict=True):
            totals[value] = totals.get(value, 0) + count
        if len(totals) > _MAX_LABELS:
            raise ParseError("it has too many different values for an image of labels")
    return header, totals
