"""Whether what the converter wrote is what the files say: every picture at its own place.

Used by `conversion`. dcm2niix ends without an error where it has moved slices or lost a b-value, so its word
is not taken for it. Plain functions, any thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from xnatfs.convert.frames import ImageFrame
from xnatfs.convert.headers import ImageFile
from xnatfs.convert.refusal import Refusal
from xnatfs.convert.split import Part, Shot
from xnatfs.extras import Lazy
from xnatfs.nifti_header import NEEDED_BYTES, StoredHeader, stored_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[Any]
else:
    np = Lazy("numpy", "convert")

VERSION = 1  # of these rules and of those in `split`: another one gives other results
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 512: "u2", 768: "u4"}
_OFF_GRID = 0.02  # voxels by which a picture may lie beside the grid: numbers of few digits
_SCALE = 1e-4  # relative: the header has 32-bit numbers
_NO_B = 50  # s/mm2: up to here it is a b=0 image
_B_TOLERANCE = 0.05  # dcm2niix may know b from a matrix


@dataclass
class _Image:
    """An image as it is stored, and where its voxels are."""

    header: StoredHeader
    shape: tuple[int, int, int, int]
    voxels: Numbers
    to_voxel: Numbers  # 4x4, from mm in NIfTI's directions


def check(part: Part, image: Path, sidecar: dict[str, Any]) -> dict[str, Any]:
    """See that an image (`.nii`, its `.bval` and `.bvec` beside it) is right; returns the sidecar without
    what cannot be true in it.

    Raises:
        Refusal: it is not.
        OSError: a file cannot be read.
    """
    stored = _read(image)
    rows, columns = part.files[0].shape
    expected = sorted((rows, columns, len(part.volumes[0])))
    if sorted(stored.shape[:3]) != expected or stored.shape[3] != len(part.volumes):
        _wrong(
            f"has {stored.shape} voxels, and the files {(columns, rows, len(part.volumes[0]))}"
            f" in {len(part.volumes)} volumes"
        )
    order = _check_pictures(part, stored)
    _check_diffusion(part, order, image)
    return _check_times(stored, sidecar)


def _wrong(what: str) -> NoReturn:
    raise Refusal(f"the converted image {what}")


def _read(path: Path) -> _Image:
    with path.open("rb") as stream:
        header = stored_header(stream.read(NEEDED_BYTES + 200))
    if header is None or header.datatype not in _TYPES:
        _wrong("has no header, or one of an unknown type")
    dimensions = header.dimensions
    if not 2 <= dimensions[0] <= 4:
        _wrong(f"has {dimensions[0]} dimensions")
    shape = [dimensions[axis] if axis <= dimensions[0] else 1 for axis in range(1, 5)]
    dtype = np.dtype(header.order + _TYPES[header.datatype])
    if path.stat().st_size != header.offset + math.prod(shape) * dtype.itemsize:
        _wrong("is not as long as its header says")
    voxels = np.memmap(path, dtype, "r", int(header.offset), tuple(shape), order="F")
    affine = np.vstack([_affine(path), [0, 0, 0, 1]])
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-6:
        _wrong("has no place in space")
    x, y, z, t = shape
    return _Image(header, (x, y, z, t), voxels, np.linalg.inv(affine))


def _affine(path: Path) -> Numbers:
    """The affine of the form dcm2niix always writes ("sform") in NIfTI-1."""
    with path.open("rb") as stream:
        start = stream.read(NEEDED_BYTES)
    code = np.frombuffer(start, "<i2", 1, 254)[0]
    if not code:
        _wrong("has no place in space")
    affine: Numbers = np.frombuffer(start, "<f4", 12, 280).reshape(3, 4).astype(float)
    return affine


def _check_pictures(part: Part, image: _Image) -> list[int]:
    """See that each picture is where its header says; returns the image's volume of each of the part."""
    free = list(range(image.shape[3]))
    order: list[int] = []
    pictures = _Pictures()
    for volume in part.volumes:

        def is_there(shot: Shot, place: int) -> bool:
            return _is_there(shot, image, place, pictures)

        here = [free[0]] if part.in_time else [one for one in free if is_there(volume[0], one)]
        found = next((one for one in here if all(is_there(shot, one) for shot in volume)), None)
        if found is None:
            _wrong("does not have each picture at the place its header names")
        free.remove(found)
        order.append(found)
    return order


class _Pictures:
    """The pictures of the file read last: an enhanced file is read once, not for each of its frames."""

    def __init__(self) -> None:
        self._file: ImageFile | None = None
        self._all: Any = None

    def of(self, shot: Shot) -> Numbers:
        if shot.file is not self._file:
            self._file, self._all = shot.file, shot.file.pictures()
        picture: Numbers = self._all[shot.frame.number].astype(np.int64)
        return picture


def _is_there(shot: Shot, image: _Image, volume: int, pictures: _Pictures) -> bool:
    """Whether a picture is in a volume, at its place and with its numbers."""
    origin, right, down = _placed(shot, image)
    rows, columns = shot.file.shape
    index: list[Any] = [slice(None), slice(None), slice(None), volume]
    for step, count in ((right, columns), (down, rows)):
        axis = int(np.argmax(np.abs(step)))
        end = origin[axis] + (count - 1) * step[axis]
        if image.shape[axis] != count or min(origin[axis], end) != 0:
            return False
    across = ({0, 1, 2} - {int(np.argmax(np.abs(right))), int(np.argmax(np.abs(down)))}).pop()
    if not 0 <= origin[across] < image.shape[across]:
        return False
    if not shot.file.comparable:
        return True
    index[across] = int(origin[across])
    stored = image.voxels[tuple(index)]
    if np.argmax(np.abs(right)) < np.argmax(np.abs(down)):
        stored = stored.T
    stored = stored[:: int(down.sum()), :: int(right.sum())]
    return _same_numbers(shot.frame, pictures.of(shot), stored, image.header)


def _placed(shot: Shot, image: _Image) -> tuple[Numbers, Numbers, Numbers]:
    """The voxel of a picture's first pixel, and the steps to the next one in its row and in its column."""
    frame, (between_rows, between_columns) = shot.frame, shot.file.spacing
    to_nifti = np.array([-1, -1, 1])
    right = np.array(frame.orientation[:3]) * between_columns
    down = np.array(frame.orientation[3:]) * between_rows
    rotate = image.to_voxel[:3, :3]
    origin = rotate @ (np.array(frame.position) * to_nifti) + image.to_voxel[:3, 3]
    steps = [rotate @ (right * to_nifti), rotate @ (down * to_nifti)]
    rows, columns = shot.file.shape
    for step, count in zip(steps, (columns, rows), strict=True):
        whole = np.rint(step)
        if np.abs(step - whole).max() * count > _OFF_GRID or np.abs(whole).sum() != 1:
            _wrong("has other directions or sizes of voxels than the files")
    if np.abs(origin - np.rint(origin)).max() > _OFF_GRID:
        _wrong("has its voxels beside those of the files")
    return np.rint(origin), np.rint(steps[0]), np.rint(steps[1])


def _same_numbers(frame: ImageFrame, picture: Numbers, stored: Numbers, header: StoredHeader) -> bool:
    slope, intercept = (header.slope, header.intercept) if header.slope else (1.0, 0.0)
    pairs = [(frame.slope, frame.intercept), *([frame.also] if frame.also else [])]
    if stored.dtype.kind != "f":
        scaled = any(_close(slope, one) and _close(intercept, two, slope) for one, two in pairs)
        return scaled and bool((stored.astype(np.int64) == picture).all())
    values = stored.astype(float) * slope + intercept
    for one, two in pairs:
        wanted = picture * one + two
        if np.abs(values - wanted).max() <= _SCALE * max(1.0, np.abs(wanted).max()):
            return True
    return False


def _close(one: float, other: float, unit: float = 0.0) -> bool:
    return abs(one - other) <= _SCALE * max(abs(one), abs(other), abs(unit))


def _check_diffusion(part: Part, order: Sequence[int], image: Path) -> None:
    values, vectors = image.with_suffix(".bval"), image.with_suffix(".bvec")
    known = [volume[0].frame.b_value for volume in part.volumes]
    weighted = any(value is not None and value > _NO_B for value in known)
    if not values.exists():
        if weighted:
            _wrong("has lost its b-values")
        return
    found = [float(text) for text in values.read_text().split()]
    directions = [[float(text) for text in line.split()] for line in vectors.read_text().splitlines()]
    if len(found) != len(part.volumes) or [len(row) for row in directions] != 3 * [len(found)]:
        _wrong("has more or fewer b-values or directions than volumes")
    for volume, place, value in zip(part.volumes, order, known, strict=True):
        written = found[place]
        if value is None:
            continue
        if (value > _NO_B) != (written > _NO_B) or abs(value - written) > max(_NO_B, _B_TOLERANCE * value):
            _wrong(f"has b={written:g} where the files have b={value:g}")
        length = math.sqrt(sum(row[place] ** 2 for row in directions))
        if value > _NO_B and volume[0].frame.directed and not 0.9 < length < 1.1:
            _wrong("has lost a diffusion direction")


def _check_times(image: _Image, sidecar: dict[str, Any]) -> dict[str, Any]:
    repetition = sidecar.get("RepetitionTime")
    step = image.header.steps[4]
    if image.shape[3] > 1 and repetition and step and abs(repetition - step) > 1e-3 * max(repetition, step):
        _wrong(f"has a repetition time of {step:g} s, its sidecar one of {repetition:g} s")
    timing = sidecar.get("SliceTiming")
    if timing is not None:
        slices = image.shape[2]
        possible = len(timing) == slices and all(0 <= one <= (repetition or math.inf) for one in timing)
        if not possible:  # served without rather than wrong
            return {key: value for key, value in sidecar.items() if key != "SliceTiming"}
    return sidecar


def read_sidecar(path: Path) -> dict[str, Any]:
    """A sidecar as dcm2niix wrote it.

    Raises:
        Refusal: it is none.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="strict"))
    except ValueError as error:
        raise Refusal("the sidecar that dcm2niix wrote cannot be read") from error
    if not isinstance(found, dict):
        raise Refusal("the sidecar that dcm2niix wrote cannot be read")
    return found
