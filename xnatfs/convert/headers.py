"""What a conversion has to know of a DICOM file: how it is to be sorted, where each of its pictures lies in
space, and its pixels.

Used by `split` (which image a file belongs to) and `check` (whether its pictures are at their place). It
reads with pydicom and knows nothing of dcm2niix, so that the two can be compared.
Plain functions, any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xnatfs.convert import elements
from xnatfs.convert.frames import ImageFrame, classic_frames, enhanced_frames
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
            frames, tiles = tuple(enhanced_frames(dataset)), 0
        else:
            frames, tiles = classic_frames(dataset)
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
