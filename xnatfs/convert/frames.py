"""The pictures of a DICOM file: where each lies in space, and what tells it from others at the same place.

Used by `headers`. Plain functions, any thread.

A file holds one picture, or many: an enhanced file its frames, a Siemens mosaic the slices of a volume, as
tiles of one large picture.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xnatfs.convert import elements
from xnatfs.convert.refusal import Refusal

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class ImageFrame:
    """A picture: where it is, and what tells it from the others at the same place.

    Attributes:
        number: which frame, or tile, of its file.
        position: of the centre of its first pixel, in mm, in DICOM's directions (left, back, up).
        image: which image of its file it is of: echo, component and the like.
        moment: the volume it is of, in the order they were taken.
        b_value: in s/mm2; None if the header has none.
        directed: whether a diffusion direction is given.
        slope, intercept: from stored numbers to values; `also` another pair a converter may use.
    """

    number: int
    position: Vector
    orientation: tuple[float, ...]
    image: tuple[Any, ...]
    moment: tuple[Any, ...]
    b_value: float | None
    directed: bool
    slope: float
    intercept: float
    also: tuple[float, float] | None = None


def classic_frames(dataset: Any) -> tuple[tuple[ImageFrame, ...], int]:
    """The picture of a file, or the tiles of a mosaic; and how many of them are in a row."""
    if int(elements.text(dataset, "NumberOfFrames") or 1) != 1:
        raise Refusal("it has several pictures a file in a way that is not converted")
    position = _vector(elements.texts(dataset, "ImagePositionPatient"))
    orientation = tuple(float(value) for value in elements.texts(dataset, "ImageOrientationPatient"))
    if len(orientation) != 6:
        raise ValueError("not an orientation")
    b_value = _b_value(dataset)
    slope, intercept = (
        float(elements.text(dataset, "RescaleSlope") or 1),
        float(elements.text(dataset, "RescaleIntercept") or 0),
    )
    directed = elements.TAGS["DiffusionGradientOrientation"] in dataset or 0x0019100E in dataset
    moment = (
        elements.first(dataset, "TemporalPositionIdentifier"),
        elements.first(dataset, "AcquisitionNumber"),
        elements.first(dataset, "TriggerTime"),
        elements.first(dataset, "FrameReferenceTime"),
        elements.text(dataset, "AcquisitionDate") + elements.text(dataset, "AcquisitionTime"),
    )
    also = _philips_scale(dataset.get(0x2005100E), slope, intercept)

    def frame(number: int, at: Vector) -> ImageFrame:
        return ImageFrame(number, at, orientation, (), moment, b_value, directed, slope, intercept, also)

    if "MOSAIC" not in {value.upper() for value in elements.texts(dataset, "ImageType")}:
        return (frame(0, position),), 0
    positions, tiles = _mosaic(dataset, position, orientation)
    return tuple(frame(number, at) for number, at in enumerate(positions)), tiles


def _mosaic(dataset: Any, corner: Vector, orientation: Sequence[float]) -> tuple[list[Vector], int]:
    """Where the tiles of a Siemens mosaic lie: the position in its header is that of a picture as large as
    the mosaic about the same centre; the direction of the slices is in the private header ("CSA") alone.
    """
    normal = (
        _csa_numbers(bytes(dataset[0x00291010].value), b"SliceNormalVector") if 0x00291010 in dataset else []
    )
    if 0x0019100A not in dataset or len(normal) != 3:
        raise Refusal("it is a mosaic without the private header that says where its slices are")
    count = int(dataset[0x0019100A].value)
    tiles = math.ceil(math.sqrt(count))
    rows, columns = elements.short(dataset, "Rows"), elements.short(dataset, "Columns")
    if rows % tiles or columns % tiles:
        raise Refusal("it is a mosaic whose slices do not fill it")
    between = float(
        elements.text(dataset, "SpacingBetweenSlices") or elements.text(dataset, "SliceThickness")
    )
    down, right = (float(value) for value in elements.texts(dataset, "PixelSpacing"))
    first = [
        corner[axis]
        + orientation[axis] * right * (columns - columns // tiles) / 2
        + orientation[3 + axis] * down * (rows - rows // tiles) / 2
        for axis in range(3)
    ]
    return [
        _vector(first[axis] + number * between * normal[axis] for axis in range(3)) for number in range(count)
    ], tiles


def _csa_numbers(data: bytes, wanted: bytes) -> list[float]:
    """The numbers of an entry of a Siemens CSA header in its second form ("SV10"): entries of a name of 64
    bytes, five numbers of which the last but one counts the items, and items of four numbers (the second is
    the length) and a text filled up to four bytes.
    """
    if data[:4] != b"SV10":
        return []
    place = 16
    for _ in range(struct.unpack_from("<I", data, 8)[0]):
        name = data[place : place + 64].partition(b"\0")[0]
        items = struct.unpack_from("<I", data, place + 76)[0]
        place += 84
        found = []
        for _ in range(items):
            length = struct.unpack_from("<I", data, place + 4)[0]
            text = data[place + 16 : place + 16 + length].partition(b"\0")[0].strip()
            found += [float(text)] if name == wanted and text else []
            place += 16 + (length + 3) // 4 * 4
        if name == wanted:
            return found
    return []


def enhanced_frames(dataset: Any) -> Iterable[ImageFrame]:
    """The pictures of an enhanced file.

    Raises:
        Refusal: it describes others than it has.
    """
    shared = (elements.values(dataset.get("SharedFunctionalGroupsSequence")) or [None])[0]
    groups = elements.values(dataset.get("PerFrameFunctionalGroupsSequence"))
    if len(groups) != int(dataset.NumberOfFrames):
        raise Refusal("it describes more or fewer pictures than it has")
    spatial = _spatial_indices(dataset)
    for number, group in enumerate(groups):

        def item(sequence: str, here: Any = group) -> Any:
            for place in (here, shared):
                if place is not None and (values := elements.values(place.get(sequence))):
                    return values[0]
            return {}

        content, values = item("FrameContentSequence"), item("PixelValueTransformationSequence")
        kind = item("MRImageFrameTypeSequence") or item("CTImageFrameTypeSequence")
        diffusion = item("MRDiffusionSequence")
        b_value = diffusion.get("DiffusionBValue")
        indices = tuple(
            int(value)
            for place, value in enumerate(elements.values(content.get("DimensionIndexValues")))
            if place not in spatial
        )
        slope, intercept = float(values.get("RescaleSlope", 1)), float(values.get("RescaleIntercept", 0))
        # Philips keeps its own slope with each picture too.
        private = elements.values(group.get(0x2005140F).value)[0] if 0x2005140F in group else {}
        yield ImageFrame(
            number,
            _vector(item("PlanePositionSequence").ImagePositionPatient),
            tuple(float(value) for value in item("PlaneOrientationSequence").ImageOrientationPatient),
            (
                elements.rounded(item("MREchoSequence").get("EffectiveEchoTime"), 2),
                tuple(str(value).upper() for value in elements.values(kind.get("FrameType"))),
                str(kind.get("ComplexImageComponent", "")),
            ),
            (elements.number(content.get("TemporalPositionIndex")), *indices),
            None if b_value is None else float(b_value),
            bool(elements.values(diffusion.get("DiffusionGradientDirectionSequence"))),
            slope,
            intercept,
            _philips_scale(private.get(0x2005100E), slope, intercept),
        )


def _spatial_indices(dataset: Any) -> set[int]:
    """Which of the dimension indices say where a picture lies, not when it was taken."""
    tags = {0x00200032, 0x00209057, 0x00209056, 0x00200037}  # position, in-stack position, stack, orientation
    dimensions = elements.values(dataset.get("DimensionIndexSequence"))
    return {place for place, one in enumerate(dimensions) if int(one.get("DimensionIndexPointer", 0)) in tags}


def _b_value(dataset: Any) -> float | None:
    if elements.B_VALUE in dataset:
        return elements.number(dataset[elements.B_VALUE].value)
    maker = elements.text(dataset, "Manufacturer").upper()
    for tag, name in ((0x0019100C, "SIEMENS"), (0x00431039, "GE"), (0x20011003, "PHILIPS")):
        if name in maker and tag in dataset:
            number = elements.number(dataset[tag].value)
            # GE adds 1,000,000,000 where the direction is in the file too.
            return None if number is None else number % 1_000_000_000 if name == "GE" else number
    return None


def _philips_scale(element: Any, slope: float, intercept: float) -> tuple[float, float] | None:
    """Slope and intercept to Philips' exact values, in place of those for display."""
    scale = elements.number(getattr(element, "value", None))
    if not scale or not slope:
        return None
    return 1 / scale, intercept / (slope * scale)


def _vector(values: Iterable[Any]) -> Vector:
    x, y, z = (float(value) for value in values)
    if not all(math.isfinite(value) for value in (x, y, z)):
        raise ValueError("not a position")
    return x, y, z
