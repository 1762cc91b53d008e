"""Elements of a DICOM file that pydicom has read, as the file has them.

Used by `headers`. pydicom makes an object of each element when it is asked for by name, which takes ten times
as long as its text: of thousands of slices, seconds. Plain functions, any thread.
"""

from __future__ import annotations

import struct
from typing import Any

TAGS = {
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyDate": 0x00080020,
    "AcquisitionDate": 0x00080022,
    "StudyTime": 0x00080030,
    "AcquisitionTime": 0x00080032,
    "Manufacturer": 0x00080070,
    "ComplexImageComponent": 0x00089208,
    "SliceThickness": 0x00180050,
    "EchoTime": 0x00180081,
    "EchoNumbers": 0x00180086,
    "SpacingBetweenSlices": 0x00180088,
    "TriggerTime": 0x00181060,
    "DiffusionGradientOrientation": 0x00189089,
    "SeriesInstanceUID": 0x0020000E,
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "TemporalPositionIdentifier": 0x00200100,
    "SamplesPerPixel": 0x00280002,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "PixelRepresentation": 0x00280103,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "FrameReferenceTime": 0x00541300,
}
B_VALUE = 0x00189087
_PRIVATE = (
    *(0x0019100A, 0x0019100C, 0x0019100E, 0x00290010, 0x00291010, 0x00431039, 0x0043102F),
    *(0x20011003, 0x2005100E, 0x00190010, 0x00430010, 0x20010010, 0x20050010),
)
# Read of a file with one picture; a header of private tags can have thousands of others.
READ: list[Any] = [*TAGS.values(), B_VALUE, *_PRIVATE]


def texts(dataset: Any, keyword: str) -> list[str]:
    """The values of an element of text."""
    element = dataset.get_item(TAGS[keyword])
    value = None if element is None else element.value
    if isinstance(value, bytes):
        whole = value.decode("latin-1").strip("\0 ")
        return [part.strip("\0 ") for part in whole.split("\\")] if whole else []
    return [str(part) for part in values(value)]


def text(dataset: Any, keyword: str) -> str:
    """The same in one; "" if there is none."""
    return "\\".join(texts(dataset, keyword))


def first(dataset: Any, keyword: str) -> float | None:
    """The first number of an element of text; None if there is none."""
    return number(next(iter(texts(dataset, keyword)), None))


def short(dataset: Any, keyword: str, default: int | None = None) -> int:
    """The number in an element of 16 bits.

    Raises:
        KeyError: it is not there.
    """
    element = dataset.get_item(TAGS[keyword])
    value = None if element is None else element.value
    if isinstance(value, bytes) and len(value) == 2:
        return int(struct.unpack("<H" if element.is_little_endian else ">H", value)[0])
    found = next(iter(values(value if not isinstance(value, bytes) else None)), default)
    if found is None:
        raise KeyError(keyword)
    return int(found)


def values(value: Any) -> list[Any]:
    """What an element has, as a list."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, bytes, int, float)) else list(value)


def number(value: Any) -> float | None:
    """The first number of a value; private ones may come as bytes or text."""
    if isinstance(value, bytes):
        if len(value) in (4, 8) and not value.strip().replace(b".", b"").isdigit():
            return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])
        value = value.decode("latin-1").strip("\0 ").partition("\\")[0]
    found = values(value)
    try:
        return float(found[0]) if found else None
    except ValueError:
        return None


def rounded(value: Any, digits: int) -> float | None:
    """The first number of a value, without what is beyond some digits."""
    found = number(value)
    return None if found is None else round(found, digits)
