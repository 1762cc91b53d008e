"""What BIDS 1.10 demands of the raw MR files this package can name: datatypes, suffixes, entities, sidecar
fields.

From the BIDS schema (`rules/files/raw`, `rules/sidecars`); `tests/unit/bids` compares it with the schema as
published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VERSION = "1.10.0"
ENTITIES = (
    "task",
    "acq",
    "ce",
    "rec",
    "dir",
    "run",
    "echo",
    "flip",
    "inv",
    "mt",
    "part",
    "chunk",
)  # in the order names have them
INDICES = frozenset({"run", "echo", "flip", "inv", "chunk"})
VALUES = {"part": ("mag", "phase", "real", "imag"), "mt": ("on", "off")}


@dataclass(frozen=True)
class SuffixKind:
    """A kind of image: the entities its name may have and must have, the sidecar fields it must have."""

    may: frozenset[str]
    must: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()


def _kind(may: str, must: str = "", fields: str = "") -> SuffixKind:
    return SuffixKind(
        frozenset(f"{may} {must} acq run".split()), frozenset(must.split()), tuple(fields.split())
    )


_ANAT = _kind("task ce rec echo part chunk")
_MAP = _kind("task ce rec chunk")
_FUNC = _kind("ce rec dir echo part chunk", "task", "TaskName RepetitionTime")
_DWI = _kind("dir rec part chunk")
_FMAP = _kind("chunk")
_LABELING = (
    "ArterialSpinLabelingType PostLabelingDelay BackgroundSuppression M0Type TotalAcquiredPairs "
    "RepetitionTimePreparation "
    "MagneticFieldStrength MRAcquisitionType EchoTime"
)

KINDS: Mapping[str, Mapping[str, SuffixKind]] = {
    "anat": {
        **dict.fromkeys(
            ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio"), _ANAT
        ),
        **dict.fromkeys(
            (
                "T1map",
                "T2map",
                "T2starmap",
                "R1map",
                "R2map",
                "R2starmap",
                "PDmap",
                "MTRmap",
                "UNIT1",
                "Chimap",
            ),
            _MAP,
        ),
        "MEGRE": _kind("task ce rec part chunk", "echo"),
        "MESE": _kind("task ce rec part chunk dir", "echo"),
        "VFA": _kind("task ce rec echo part chunk", "flip"),
        "MP2RAGE": _kind("task ce rec echo flip part chunk", "inv"),
        "MTR": _kind("task ce rec part chunk", "mt"),
    },
    "func": {"bold": _FUNC, "cbv": _FUNC, "sbref": _kind("ce rec dir echo part chunk", "task", "TaskName")},
    "dwi": {"dwi": _DWI, "sbref": _DWI},
    "fmap": {
        "phasediff": _kind("chunk", fields="EchoTime1 EchoTime2"),
        "phase1": _kind("chunk", fields="EchoTime"),
        "phase2": _kind("chunk", fields="EchoTime"),
        "fieldmap": _kind("chunk", fields="Units"),
        **dict.fromkeys(("magnitude1", "magnitude2", "magnitude"), _FMAP),
        "epi": _kind("dir ce rec part chunk", fields="PhaseEncodingDirection TotalReadoutTime"),
    },
    "perf": {
        "asl": _kind("dir rec echo part", fields=_LABELING),
        "m0scan": _kind("dir rec echo part", fields="IntendedFor RepetitionTimePreparation EchoTime"),
    },
}
# What stands beside an image under its name. An image without these is no legal one.
COMPANIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("dwi", "dwi"): (".bval", ".bvec"),
    ("perf", "asl"): ("_aslcontext.tsv",),
}
TIMED = frozenset({("func", "bold"), ("func", "cbv")})  # a time axis is what makes them
CONTEXTS = ("control", "label", "m0scan", "deltam", "cbf", "noRF", "n/a")
