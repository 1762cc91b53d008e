"""The data types: which ones the server's schemas have, and which is derived from which.

Types beyond the standard ones (FreeSurfer's, say) are known as soon as the data has one. Names are compared
in lower case. Used by `roots`, `listings`, `addresses`, `search`. Pure, reads the archive on the event loop.
"""

from __future__ import annotations

from .model import Archive, Experiment

_EXPERIMENT, _SUBJECT_ASSESSOR, _DERIVED = (
    "xnat:experimentdata",
    "xnat:subjectassessordata",
    "xnat:deriveddata",
)
_IMAGE_SESSION, _IMAGE_ASSESSOR, _IMAGE_SCAN = (
    "xnat:imagesessiondata",
    "xnat:imageassessordata",
    "xnat:imagescandata",
)
_BASES = {_EXPERIMENT: 0, _SUBJECT_ASSESSOR: 1, _DERIVED: 1, _IMAGE_SESSION: 2, _IMAGE_ASSESSOR: 2}
_CONCRETE = 3
_MODALITIES = (
    "mr",
    "pet",
    "ct",
    "us",
    "cr",
    "dx",
    "mg",
    "nm",
    "xa",
    "eeg",
    "meg",
    "ecg",
    "opt",
    "hd",
    "rt",
    "sm",
    "gm",
    "esv",
    "ebl",
    "epi",
)
_SESSIONS = frozenset(f"xnat:{name}sessiondata" for name in (*_MODALITIES, "otherdicom"))
_SCANS = frozenset(
    f"xnat:{name}scandata" for name in (*_MODALITIES, "otherdicom", "sc", "segt", "voiceaudio")
)
_ASSESSORS = frozenset(
    {"xnat:qcmanualassessordata", "xnat:qcassessmentdata", "xnat:mrassessordata", "xnat:petassessordata"}
)
_SUBJECT_ASSESSORS = frozenset({"xnat:subjectvariablesdata"})
_RESOURCES = frozenset({"xnat:abstractresource", "xnat:resource", "xnat:resourcecatalog"})
_OTHERS = frozenset(
    {
        "xnat:subjectdata",
        "xnat:projectdata",
        "xnat:reconstructedimagedata",
        "xnat:demographicdata",
        "xnat:investigatordata",
        _IMAGE_SCAN,
    }
)
_NO_EXPERIMENT = _OTHERS | _RESOURCES | _SCANS
_SCHEMA = _NO_EXPERIMENT | _BASES.keys() | _SESSIONS | _ASSESSORS | _SUBJECT_ASSESSORS


def standard(element: str) -> bool:
    """Whether a type is one of XNAT's own: its fields are known."""
    return element.lower() in _SCHEMA


def ancestors(element: str) -> tuple[str, ...]:
    """An experiment type (in lower case) and those it is derived from, the most special first."""
    if element == _EXPERIMENT:
        return (element,)
    if element in (_SUBJECT_ASSESSOR, _DERIVED):
        return (element, _EXPERIMENT)
    if element == _IMAGE_ASSESSOR:
        return (element, _DERIVED, _EXPERIMENT)
    if element == _IMAGE_SESSION:
        return (element, _SUBJECT_ASSESSOR, _EXPERIMENT)
    if element in _SESSIONS:
        return (element, _IMAGE_SESSION, _SUBJECT_ASSESSOR, _EXPERIMENT)
    if element in _ASSESSORS:
        return (element, _IMAGE_ASSESSOR, _DERIVED, _EXPERIMENT)
    if element in _SUBJECT_ASSESSORS:
        return (element, _SUBJECT_ASSESSOR, _EXPERIMENT)
    return (element, _EXPERIMENT)


def family(archive: Archive, element: str) -> tuple[str, ...]:
    """`ancestors`, for types beyond the standard ones by what the data says of them."""
    element = element.lower()
    if element in _SCHEMA:
        return ancestors(element)
    example = next((item for item in archive.experiments.values() if item.xsi_type.lower() == element), None)
    if example is None:
        return (element, _EXPERIMENT)
    base = _IMAGE_ASSESSOR if example.is_assessor else _IMAGE_SESSION if example.scans else _SUBJECT_ASSESSOR
    return (element, *ancestors(base))


def is_scan(element: str) -> bool:
    """Whether a type is one of scans."""
    return element.lower().endswith("scandata")


def is_base(element: str) -> bool:
    """Whether an experiment type is one that others are derived from: it has no data of its own."""
    return element.lower() in _BASES


def known(archive: Archive, element: str) -> bool:
    """Whether the server's schemas have a type; a column of one they lack is dropped (xnat-rest.md 14
    [X]).
    """
    element = element.lower()
    if element in _SCHEMA:
        return True
    return any(
        item.xsi_type.lower() == element or any(scan.xsi_type.lower() == element for scan in item.scans)
        for item in archive.experiments.values()
    )


def depth(element: str) -> int:
    """How special an experiment type is: a column of a deeper one narrows the root (xnat-rest.md 2.2). -1 for
    what is none.
    """
    element = element.lower()
    if not element or element in _NO_EXPERIMENT or is_scan(element):
        return -1
    return _BASES.get(element, _CONCRETE)


def is_a(experiment: Experiment, element: str) -> bool:
    """Whether an experiment is of a type or of one derived from it."""
    element = element.lower()
    if element == _EXPERIMENT:
        return True
    if element == _SUBJECT_ASSESSOR:
        return not experiment.is_assessor
    if element in (_IMAGE_ASSESSOR, _DERIVED):
        return experiment.is_assessor
    xsi_type = experiment.xsi_type.lower()
    if element == _IMAGE_SESSION:
        return xsi_type in _SESSIONS or (not experiment.is_assessor and bool(experiment.scans))
    return xsi_type == element
