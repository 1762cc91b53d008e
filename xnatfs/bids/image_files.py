"""The image files of a scan, and what the end of a name written by dcm2niix says of them: echo, phase, or
made from another image.

dcm2niix appends `_e2` to echoes, `_ph`, `_real`, `_imaginary` to parts, `_Eq_1`, `_Crop_1`, `_Tilt_1`,
`_ROI1`, `_ADC` to what it (or the scanner) computed (its FILENAMING.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xnatfs.server.records import FileRecord

_IMAGE = re.compile(r"\.nii(\.gz)?\Z", re.IGNORECASE)
_PART = {"ph": "phase", "real": "real", "imaginary": "imag"}
_END = re.compile(
    r"_(?:e(?P<echo>[0-9]{1,9})|(?P<part>ph|real|imaginary)"
    r"|(?P<derivation>Eq(?:_\d+)?|Crop_\d+|Tilt(?:_\d+)?|ROI\d+|ADC|MIP|mask))a?\Z"
)


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
