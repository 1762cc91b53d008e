"""What BBRC's validator says of each pipeline: which of its automatic tests a session passed.

Used by `tables.registry`; reading a report also by `pet`. Plain functions and values, any thread.

A report is a JSON file in the resource BBRC_VALIDATOR, named after the validator:
`{"version": "a1b2c3d4", "generated": "2021-03-04, 10:20", "experiment_id": "X_E1", "HasCorrectItems":
{"has_passed": true, "data": []}}`, where `has_passed` may also be false or null (skipped).
https://gitlab.com/bbrc/xnat/bbrc-validator
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from xnatfs.tables.spec import Column, Input, Parsed, ParseError, Row, Table, text_lines

RESOURCE = "BBRC_VALIDATOR"
Report = dict[str, Any]

# pipeline -> (labels of its own resource, its validators). `tests` is worth showing where the pipeline's
# resource is.
VALIDATED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "freesurfer6": (("FREESURFER6",), ("FreeSurferValidator",)),
    "freesurfer6hires": (("FREESURFER6_HIRES",), ("FreeSurferHiresValidator",)),
    "freesurfer7": (("FREESURFER7",), ("FreeSurfer7Validator",)),
    "freesurfer7extras": (("FREESURFER7_EXTRAS",), ("FreeSurfer7ExtrasValidator",)),
    "ashs": (("ASHS",), ("ASHSValidator",)),
    "spm12": (
        ("SPM12_SEGMENT", "SPM12_SEGMENT_T1T2"),
        ("SPM12SegmentValidator", "SPM12SegmentT1T2Validator"),
    ),
    "cat12": (("CAT12_SEGMENT",), ("CAT12SegmentValidator",)),
    "dartel": (
        ("DARTEL_NORM2MNI", "DARTEL_NORM2MNI_T1T2"),
        ("DartelNorm2MNIValidator", "DartelNorm2MNIT1T2Validator"),
    ),
    "dtifit": (("TOPUP_DTIFIT", "DWIFSLPREPROC_DTIFIT"), ("DTIFITValidator", "DWIFSLPreprocDTIFITValidator")),
    "alps": (("ALPS",), ("ALPSValidator",)),
    "bamos": (("BAMOS",), ("BAMOSValidator",)),
    "bamosarterial": (("BAMOS_ARTERIAL",), ("BAMOSArterialValidator",)),
    "basil": (("BASIL",), ("BASILValidator",)),
    "teasl": (("TE_ASL",), ("TEASLValidator",)),
    "asl3d": (("3DASL_QUANTIFICATION",), ("ASL3DQuantificationValidator",)),
    "fdg": (("FDG_QUANTIFICATION2",), ("FDGQuantificationValidator",)),
    "ftm": (("FTM_QUANTIFICATION2",), ("FTMQuantificationValidator",)),
    "tau": (("TAU_QUANTIFICATION",), ("TauQuantificationValidator",)),
    "centaur": (("CENTAURZ",), ("CenTaurZValidator",)),  # so spelt
    "petpreprocessing": (("PET_PREPROCESSING",), ("PETPreprocessingValidator",)),
    "qsmxt": (("QSMXT",), ("QSMxTValidator",)),
    "fslanat": (("FSL_ANAT",), ("FSLANATValidator",)),
    "donsurf": (("DONSURF",), ("DONSURFValidator",)),
    "lcmodel": (("LCMODEL",), ("LCModelValidator",)),
    "pyment": (("PYMENT",), ("PYMENTValidator",)),
    "mrtrix3": (("MRTRIX3",), ("MRtrix3Validator",)),
    "xcpd": (("XCP_D",), ("XCPDValidator",)),
    "fmriprep": (("FMRIPREP",), ("FMRIPrepValidator",)),
    "ants": (("ANTS",), ("ANTSValidator",)),
    "reface": (("MRI_REFACE",), ("MRIRefaceValidator",)),
}
ARCHIVING = {"mri": "ArchivingValidator", "pet": "PetSessionValidator", "tau": "TauPetSessionValidator"}

_END = ("version", "generated")
_PASSED = {True: "true", False: "false", None: ""}


def report_patterns(*validators: str) -> tuple[str, ...]:
    """Where the reports of these validators are."""
    return tuple(pattern for name in validators for pattern in (f"{name}*.json", f"*/{name}*.json"))


def read_report(stream: BinaryIO) -> Report:
    """A report.

    Raises:
        ParseError: it is no JSON object.
    """
    try:
        report = json.loads("\n".join(text_lines(stream)), strict=False)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ParseError):
            raise
        raise ParseError("it is not JSON, or is cut short") from None
    if not isinstance(report, dict):
        raise ParseError("it is not a validation report")
    return report


def outcomes(stream: BinaryIO, _: str) -> Parsed:
    """A report as one row: true, false or empty (skipped) for each test, then its version and when it was
    made.
    """
    report = read_report(stream)
    cells: dict[str, str] = {}
    for name, test in report.items():
        if name in _END or not isinstance(test, dict) or "has_passed" not in test:
            continue
        passed = test["has_passed"]
        if passed is not None and not isinstance(passed, bool):
            raise ParseError(f"the outcome of {name[:60]} is {str(passed)[:40]!r}, not true, false or null")
        cells[name] = _PASSED[passed]
    if not cells:
        raise ParseError("it is not a validation report: it has no tests")
    for name in _END:
        cells[name] = "" if report.get(name) is None else str(report[name])
    return Parsed(tuple(cells), [tuple(cells.values())])


def ends_last(columns: Sequence[str], rows: list[Row]) -> tuple[tuple[str, ...], list[Row]]:
    """Version and date behind all tests, also those first seen in later sessions; only the builder's own
    columns come after them.
    """
    ours = len(columns)
    while ours and columns[ours - 1] in ("label", "date"):
        ours -= 1
    tests = [at for at in range(ours) if columns[at] not in _END]
    order = [
        *tests,
        *(list(columns).index(name) for name in _END if name in columns[:ours]),
        *range(ours, len(columns)),
    ]
    return tuple(columns[at] for at in order), [tuple(row[at] for at in order) for row in rows]


def _table(pipeline: str, name: str, validators: Sequence[str], doc: str) -> Table:
    return Table(
        pipeline,
        name,
        (RESOURCE,),
        (Input("report", report_patterns(*validators), outcomes),),
        (
            Column("version", source="the validator's version", text=True),
            Column("generated", source="when the report was made", text=True),
        ),
        trail=(),
        finish=ends_last,
        doc=doc,
    )


TABLES: tuple[Table, ...] = (
    *(
        _table(
            pipeline,
            "tests",
            validators,
            f"Outcome of each automatic test of {' or '.join(validators)}: true, false or empty (skipped).",
        )
        for pipeline, (_, validators) in VALIDATED.items()
    ),
    *(
        _table(
            "archiving",
            name,
            (validator,),
            f"Outcome of each automatic test of {validator} on the session as it was archived.",
        )
        for name, validator in ARCHIVING.items()
    ),
)
