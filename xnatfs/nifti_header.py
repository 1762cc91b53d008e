"""The header of a NIfTI-1 or -2 image (https://nifti.nimh.nih.gov/nifti-1, nifti-2), as it is stored.

Used by the BIDS views for the repetition time, and by the tables that sum over images. A plain function, any
thread; no numpy and no nibabel, which a mount without tables need not load.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

NEEDED_BYTES = 348  # a NIfTI-1 header; of a NIfTI-2 header all but the units


class StoredHeader(NamedTuple):
    """The fields of a header that are used here, unchecked."""

    order: str  # "<" or ">"
    magic: bytes
    dimensions: tuple[int, ...]  # of which the first says how many of the other seven count
    datatype: int
    steps: tuple[float, ...]  # pixdim: the first is the handedness, then mm, and the unit of time
    offset: float  # of the voxels, in bytes
    least_offset: int  # the header and what has to follow it, in bytes
    slope: float
    intercept: float
    units: int  # 0 where they are not in what was read


def stored_header(start: bytes) -> StoredHeader | None:
    """The header in the first (unpacked) bytes of an image; None if there is none, or not all of it."""
    for order in "<>":
        size = struct.unpack_from(order + "i", start)[0] if len(start) >= NEEDED_BYTES else 0
        if size == 348:
            offset, slope, intercept = struct.unpack_from(order + "3f", start, 108)
            return StoredHeader(
                order,
                start[344:348],
                struct.unpack_from(order + "8h", start, 40),
                struct.unpack_from(order + "h", start, 70)[0],
                struct.unpack_from(order + "8f", start, 76),
                offset,
                352,
                slope,
                intercept,
                start[123],
            )
        if size == 540:
            offset, slope, intercept = struct.unpack_from(order + "q2d", start, 168)
            return StoredHeader(
                order,
                start[4:8],
                struct.unpack_from(order + "8q", start, 16),
                struct.unpack_from(order + "h", start, 12)[0],
                struct.unpack_from(order + "8d", start, 104),
                offset,
                544,
                slope,
                intercept,
                struct.unpack_from(order + "i", start, 500)[0] if len(start) >= 504 else 0,
            )
    return None
