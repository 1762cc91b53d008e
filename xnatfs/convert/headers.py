"""What a conversion has to know of a DICOM file: how it is to be sorted, where each of its pictures lies in
space, and its pixels.

Used by `split` (which image a file belongs to) and `check` (whether its pictures are at their place). It
reads with pydicom and knows nothing of dcm2niix, so that the two can be compared.
Plain functions, any thread.

A file holds one picture, or many: an enhanced file its frames, a Siemens mosaic the slices of a volume, as
tiles of one large picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xnatfs.convert import elements
from xnatfs.convert.refusal import Refusal
from xnatfs.extras import Lazy, load

if TYPE_CHECKING:
    import numpy as np
    import pydicom
    from numpy.typing import NDArray

    Picture = NDArray[Any]
else:
    np = Lazy("numpy", "convert")
    pydicom = Lazy("pydicom", "convert")

Vector = tuple[float, float, float]

_PIECE_BYTES = 2**20
_START_BYTES = 2**16  # of a file: most headers are shorter
_TAG_BYTES = 12
_DAMAGED = (
    *(AttributeError, KeyError, ValueError, TypeError, IndexError, struct.error, EOFError),
    *(OverflowError, NotImplementedError),
)
_UNDEFINED = 0xFFFFFFFF  # the length of compressed pixels
_SEQUENCE_END = 0xFFFEE0DD
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
# dcm2niix reads these; of JPEG, JPEG-LS and JPEG 2000 just the positions can be compared.
_SYNTAXES = {
    *(_IMPLICIT, _BIG_ENDIAN, _RLE, "1.2.840.10008.1.2.1"),
    *("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),  # JPEG, lossless
    *("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),  # JPEG-LS
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),  # JPEG 2000
}
_IMAGE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.128",
}
_ENHANCED_CLASSES = {
    *("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"),
    *("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"),
    *("1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.130"),
}
_COMPONENTS = {
    **{"M": "mag", "MAGNITUDE": "mag", "P": "phase", "PHASE": "phase", "PHASE MAP": "phase"},
    **{"R": "real", "REAL": "real", "I": "imag", "IMAGINARY": "imag"},
}
_GE_COMPONENTS = {0: "mag", 1: "phase", 2: "real", 3: "imag"}


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


@dataclass(frozen=True)
class ImageFile:
    """A DICOM file with pictures of one size.

    Attributes:
        spacing: between rows, and between columns, in mm.
        tiles: in a row of a mosaic; 0 if it is none.
        offset: of the pixels in the file; 0 if they are compressed and cannot be compared.
    """

    path: Path
    uid: str
    series: str
    series_number: str
    study_time: str
    instance: int | None
    image_type: tuple[str, ...]
    echo: tuple[Any, ...]
    component: str
    rows: int
    columns: int
    spacing: tuple[float, float]
    dtype: str
    syntax: str
    tiles: int
    offset: int
    frames: tuple[ImageFrame, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, as hex."""
        return digest_of(self.path)

    @property
    def comparable(self) -> bool:
        """Whether `pictures` can be read without a decoder of JPEG."""
        return self.offset > 0 or self.syntax == _RLE

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a picture."""
        return (
            (self.rows // self.tiles, self.columns // self.tiles) if self.tiles else (self.rows, self.columns)
        )

    def pictures(self) -> Picture:
        """The stored numbers of all its frames: frames x rows x columns.

        Raises:
            Refusal: they are packed, and damaged.
        """
        rows, columns = self.shape
        whole: Picture
        if not self.offset:
            try:
                whole = pydicom.dcmread(self.path).pixel_array
            except (*_DAMAGED, RuntimeError) as error:  # pydicom's for whatever a decoder says
                raise Refusal("the pixels of a DICOM file cannot be unpacked") from error
        else:
            count = len(self.frames) if not self.tiles else 1
            whole = np.fromfile(self.path, self.dtype, count * self.rows * self.columns, offset=self.offset)
        if not self.tiles:
            return whole.reshape(-1, rows, columns)
        tiled: Picture = whole.reshape(self.tiles, rows, self.tiles, columns).swapaxes(1, 2)
        return tiled.reshape(-1, rows, columns)[: len(self.frames)]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def prepare() -> None:
    """Load what reads headers, which takes longer than a request."""
    load("pydicom", "convert")


def scanned(path: Path) -> ImageFile | Refusal | None:
    """What is needed of a file, or why it is not converted; None if it is no DICOM file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(_START_BYTES)
        if start[128:132] != b"DICM":
            return None
        try:
            return _read_header(path, stream, start)
        except Refusal as refusal:
            return refusal


def _read_header(path: Path, stream: Any, start: bytes) -> ImageFile:
    """What is needed of a file that begins with `start`.

    Raises:
        Refusal: it is damaged, or of a kind that is not converted.
    """
    errors = load("pydicom.errors", "convert")
    try:
        dataset, pixels = _dataset(stream, start)
        kind = elements.text(dataset, "SOPClassUID") or str(
            dataset.file_meta.get("MediaStorageSOPClassUID", "")
        )
        if kind in _ENHANCED_CLASSES:
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            pixels = stream.tell()
        _refuse_kind(kind, dataset)
        stream.seek(pixels)
        offset = _pixels(stream, dataset)
        if kind in _ENHANCED_CLASSES:
            frames, tiles = tuple(_enhanced_frames(dataset)), 0
        else:
            frames, tiles = _classic_frames(dataset)
        return _image_file(path, dataset, frames, tiles, offset)
    except Refusal:
        raise
    except (*_DAMAGED, errors.InvalidDicomError, errors.BytesLengthException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk's; pydicom's have no number
        raise Refusal("a DICOM file is damaged, or has no position, orientation or pixel spacing") from error


def _dataset(stream: Any, start: bytes) -> tuple[Any, int]:
    """The elements of `elements.READ`, and where the pixels' begins: from the start of the file where that is
    enough, since a file on the disk is asked for its position at each element.
    """
    if len(start) == _START_BYTES:
        with contextlib.suppress(*_DAMAGED, OSError):  # pydicom's own for a sequence that is cut off
            buffer = io.BytesIO(start)
            dataset = pydicom.dcmread(buffer, stop_before_pixels=True, specific_tags=elements.READ)
            if buffer.tell() + _TAG_BYTES <= len(start):
                return dataset, buffer.tell()
    stream.seek(0)
    return pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=elements.READ), stream.tell()


def _refuse_kind(kind: str, dataset: Any) -> None:
    if kind not in _IMAGE_CLASSES | _ENHANCED_CLASSES:
        uid = load("pydicom.uid", "convert")
        raise Refusal(f"{uid.UID(kind).name or 'a file of no known kind'} is not an MR, CT or PET image")
    syntax = dataset.file_meta.TransferSyntaxUID
    if str(syntax) not in _SYNTAXES:
        raise Refusal(f"its pixels are stored in a way that is not converted ({syntax.name})")
    if elements.short(dataset, "SamplesPerPixel", 1) != 1:
        raise Refusal("its pictures are in colour")
    bits = elements.short(dataset, "BitsAllocated")
    if bits not in (8, 16):
        raise Refusal(f"its pixels have {bits} bits, of which only 8 and 16 are converted")


def _image_file(
    path: Path, dataset: Any, frames: tuple[ImageFrame, ...], tiles: int, offset: int
) -> ImageFile:
    spacing = elements.texts(dataset, "PixelSpacing") or _of_groups(
        dataset, "PixelMeasuresSequence", "PixelSpacing"
    )
    signed = "i" if elements.short(dataset, "PixelRepresentation", 0) else "u"
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    order = ">" if syntax == _BIG_ENDIAN else "<"
    image_type = tuple(value.upper() for value in elements.texts(dataset, "ImageType"))
    instance = elements.text(dataset, "InstanceNumber")
    return ImageFile(
        path=path,
        uid=elements.texts(dataset, "SOPInstanceUID")[0],
        series=elements.texts(dataset, "SeriesInstanceUID")[0],
        series_number=elements.text(dataset, "SeriesNumber"),
        study_time=f"{elements.text(dataset, 'StudyDate')} {elements.text(dataset, 'StudyTime')}",
        instance=int(instance) if instance else None,
        image_type=image_type,
        echo=(
            elements.first(dataset, "EchoNumbers"),
            elements.rounded(elements.first(dataset, "EchoTime"), 2),
        ),
        component=_component(dataset, image_type),
        rows=elements.short(dataset, "Rows"),
        columns=elements.short(dataset, "Columns"),
        spacing=(float(spacing[0]), float(spacing[1])),
        dtype=f"{order}{signed}{elements.short(dataset, 'BitsAllocated') // 8}",
        syntax=syntax,
        tiles=tiles,
        offset=offset,
        frames=frames,
    )


def _pixels(stream: Any, dataset: Any) -> int:
    """Where the pixels begin, 0 if they are compressed; the stream stands before their tag.

    Raises:
        Refusal: the file ends before they do.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    order = ">" if syntax == _BIG_ENDIAN else "<"
    start = stream.read(12)
    if len(start) < 12 or struct.unpack_from(order + "HH", start) != (0x7FE0, 0x0010):
        raise Refusal("a DICOM file is cut off before its pixels")
    if syntax == _IMPLICIT:
        stream.seek(-4, 1)
        length = struct.unpack_from("<I", start, 4)[0]
    else:
        length = struct.unpack_from(order + "I", start, 8)[0]
    offset = int(stream.tell())
    end = stream.seek(0, 2)
    if length != _UNDEFINED:
        frames = int(elements.text(dataset, "NumberOfFrames") or 1)
        pixels = elements.short(dataset, "Rows") * elements.short(dataset, "Columns") * frames
        needed = pixels * elements.short(dataset, "BitsAllocated") // 8
        if length < needed or end - offset < needed:
            raise Refusal("a DICOM file is cut off within its pixels")
        return offset
    stream.seek(offset)
    while len(item := stream.read(8)) == 8:
        group, element, size = struct.unpack("<HHI", item)
        if group << 16 | element == _SEQUENCE_END:
            return 0
        if stream.tell() + size > end:
            break
        stream.seek(size, 1)
    raise Refusal("a DICOM file is cut off within its pixels")


def _classic_frames(dataset: Any) -> tuple[tuple[ImageFrame, ...], int]:
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


def _enhanced_frames(dataset: Any) -> Iterable[ImageFrame]:
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


def _of_groups(dataset: Any, sequence: str, keyword: str) -> Any:
    found = set()
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in elements.values(dataset.get(name)):
            found |= {
                tuple(one[keyword].value) for one in elements.values(group.get(sequence)) if keyword in one
            }
    if len(found) != 1:
        raise Refusal("its pictures have several sizes of pixels, or none")
    return found.pop()


def _component(dataset: Any, image_type: Sequence[str]) -> str:
    """Magnitude, phase, real or imaginary part; "" where the header says nothing."""
    if 0x0043102F in dataset and "GE" in elements.text(dataset, "Manufacturer").upper():
        return _GE_COMPONENTS.get(int(elements.number(dataset[0x0043102F].value) or 0), "")
    named = elements.text(dataset, "ComplexImageComponent").upper()
    return next((_COMPONENTS[value] for value in (named, *image_type[2:]) if value in _COMPONENTS), "")


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
