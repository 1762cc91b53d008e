"""The image files of a scan, and what the end of a name written by dcm2niix says of them: echo, phase, or
made from another image.

dcm2niix appends `_e2` to echoes, `_ph`, `_real`, `_imaginary` to parts, `_Eq_1`, `_Crop_1`, `_Tilt_1`,
`_ROI1`, `_ADC` to what it (or the scanner) computed (its FILENAMING.md). Images that are made of DICOM files
here (`xnatfs.convert.split`) have entities instead: `_echo-2_part-phase`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from xnatfs.server.records import FileRecord

_IMAGE = re.compile(r"\.nii(\.gz)?\Z", re.IGNORECASE)
_PART = {"ph": "phase", "real": "real", "imaginary": "imag"}
_END = re.compile(
    r"_(?:e(?P<echo>[0-9]{1,9})|(?P<part>ph|real|imaginary)"
    r"|(?P<derivation>Eq(?:_\d+)?|Crop_\d+|Tilt(?:_\d+)?|ROI\d+|ADC|MIP|mask))a?\Z"
)
_ENTITY = re.compile(r"_([a-z]+)-([A-Za-z0-9]+)")


@dataclass(frozen=True)
class Picture:
    """An image file: its path without extension, the extension, and what its name says."""

    record: FileRecord
    stem: str
    extension: str
    base: str  # the stem without what dcm2niix appended
    echo: int = 0
    part: str = ""
    derivation: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)  # that BIDS has a name for
    unclear: bool = False  # nothing says which image of its scan this is

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.record.path.rsplit("/", 1)[-1]


def picture(record: FileRecord) -> Picture | None:
    """What a file's name says; None if it is no image."""
    match = _IMAGE.search(record.path)
    if match is None:
        return None
    stem = record.path[: match.start()]
    echo, part, derivation = 0, "", ""
    rest = stem
    while end := _END.search(rest):
        echo = int(end["echo"] or echo)
        part = _PART.get(end["part"] or "", part)
        derivation = end["derivation"] or derivation
        rest = rest[: end.start()]
    return Picture(record, stem, match[0].lower(), rest, echo, part, derivation)


def converted_picture(record: FileRecord) -> Picture | None:
    """The same of a file that was made of DICOM files; None if it is no image."""
    match = _IMAGE.search(record.path)
    if match is None:
        return None
    stem = record.path[: match.start()]
    said = dict(_ENTITY.findall(stem))
    kind = said.get("rec", "")
    entities = {"rec": kind, "acq": said.get("plane", "")}
    return Picture(
        record,
        stem,
        match[0].lower(),
        stem,
        int(said.get("echo", 0)),
        "" if (part := said.get("part", "none")) == "none" else part,
        kind if "derived" in kind else "",
        {name: value for name, value in entities.items() if value},
        unclear=bool({"series", "image"} & said.keys()),
    )
