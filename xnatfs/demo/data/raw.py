"""Project RAW: scans of which the server has nothing but DICOM files, as of most projects.

Used by `build("tour")` and tests. `R01` is a study as a scanner sends it, with what goes wrong in one: a run
that was stopped, one that is sent with and without normalisation, echoes, magnitude and phase. `R02` has a
scan for every series of `dicom_cases`, each named by what is the matter with it. Files are made when they are
first listed.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, partial

from xnatfs.demo.data.dicom_cases import (
    Dataset,
    Files,
    another,
    cases,
    datasets,
    in_time,
    numbered,
    of_class,
    of_type,
    set_all,
    stored,
    three_echoes,
    three_planes,
    volume,
)
from xnatfs.demo.data.images import nibabel_file
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import BytesContent, CatalogEntry, Experiment, LazyEntries, Project, Resource

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def _described(many: list[Dataset], number: int, description: str) -> Files:
    """Files of a series of its own."""
    series = {"SeriesNumber": number, "SeriesDescription": description, "ProtocolName": description}
    return stored(
        another(set_all(many, **series), f"study {number}", SeriesInstanceUID=f"2.25.{4000 + number}")
    )


def _one(key: str) -> list[Dataset]:
    return datasets(volume(key))


def _both(key: str, *image_type: str) -> list[Dataset]:
    """A volume, and another of the same place and another kind."""
    first, second = another(_one(key), key), another(_one(f"{key} too"), f"{key} too")
    return numbered([*first, *of_type(second, *image_type)])


def _magnitudes() -> list[Dataset]:
    return three_echoes()[:16]


def _phase() -> list[Dataset]:
    return set_all(of_type(_one("phase"), "ORIGINAL", "PRIMARY", "P", "ND"), EchoTime=7.0, EchoNumbers=2)


def _mosaics() -> Files:
    """b=0 and b=1000, from nibabel's own test data."""
    return {
        f"{number}.dcm": gzip.decompress(nibabel_file(f"nicom/tests/data/siemens_dwi_{b}.dcm.gz"))
        for number, b in enumerate((0, 1000), 1)
    }


# Of R01: type, description, how it is made.
_STUDY: tuple[tuple[str, str, Callable[[], list[Dataset]]], ...] = (
    ("localizer", "localizer", partial(three_planes, 4.0)),
    ("T1w", "t1_mprage_sag", partial(_one, "t1")),
    ("T1w", "t1_mprage_sag NORM", partial(_both, "norm", "ORIGINAL", "PRIMARY", "M", "NORM")),
    ("T2star", "t2star_megre", three_echoes),
    ("rest_SBRef", "ep2d_bold_rest_SBRef", partial(_one, "sbref")),
    ("rest", "ep2d_bold_rest", partial(in_time, 5)),
    ("rest", "ep2d_bold_rest stopped", lambda: in_time(5)[:35]),
    ("rest", "ep2d_bold_rest again", partial(in_time, 4)),
    ("field map", "gre_field_mapping", _magnitudes),
    ("field map phase", "gre_field_mapping", _phase),
    ("PD", "pd_tse", partial(_both, "pd", "ORIGINAL", "PRIMARY", "P", "ND")),
    ("T2w", "t2_tse report", lambda: of_class(_one("capture"), _CAPTURE)),
    ("topup", "se_epi_topup_AP", partial(_one, "topup")),
)


def add(make: Maker) -> Project:
    """Add the project."""
    project = make.project(
        "RAW",
        "DICOM alone (sample data)",
        members=["demo"],
        description="A study as a scanner sends it, and every series that is hard to convert.",
    )
    study = make.experiment(make.subject(project, "R01"), "R01_MR1", date="2025-01-02", time="10:11:12")
    for number, (kind, description, _) in enumerate(_STUDY, 1):
        _scan(make, study, str(number), kind, description, f"study {number}", partial(_study_files, number))
    number = len(_STUDY) + 1
    _scan(make, study, str(number), "dwi", "ep2d_diff_mddw", "study dwi", _mosaics)
    hard = make.experiment(make.subject(project, "R02"), "R02_MR1", date="2025-01-02", time="12:00:00")
    for number, name in enumerate((name for name in SIZES if not name.startswith("study ")), 1):
        resource = _scan(make, hard, str(number), "series", name, name, partial(_case_files, name))
        if name in _COUNTED:
            resource.counted = (_COUNTED[name], SIZES[name][1])
    return project


def _scan(
    make: Maker,
    session: Experiment,
    id: str,
    kind: str,
    description: str,
    key: str,
    files: Callable[[], Files],
) -> Resource:
    scan = make.scan(session, id, kind, description)
    count, size = SIZES[key]
    entries = LazyEntries(partial(_entries, make.archive.clock.replace(microsecond=0), files), count, size)
    return make.resource(scan, "DICOM", entries, format="DICOM", content="RAW")


def _entries(modified: datetime, files: Callable[[], Files]) -> list[CatalogEntry]:
    return [
        CatalogEntry(path, BytesContent(data), modified, format="DICOM", content_code="RAW")
        for path, data in files().items()
    ]


def _study_files(number: int) -> Files:
    _, description, made = _STUDY[number - 1]
    return _described(made(), number, description)


def _case_files(name: str) -> Files:
    return _cases()[name]


@cache
def _cases() -> Mapping[str, Files]:
    return {case.name: case.files for case in cases()}


# What the server counts, where that is not what it has.
_COUNTED = {"the end missing, and the server counts": 8}
# Number and bytes of the files of each scan, by what it is made of.
SIZES: Mapping[str, tuple[int, int]] = {
    "study 1": (6, 10566),
    "study 2": (8, 13856),
    "study 3": (16, 27864),
    "study 4": (24, 41480),
    "study 5": (8, 13956),
    "study 6": (40, 69296),
    "study 7": (35, 61194),
    "study 8": (32, 55816),
    "study 9": (16, 27848),
    "study 10": (8, 13920),
    "study 11": (16, 27460),
    "study 12": (8, 13860),
    "study 13": (8, 13888),
    "study dwi": (2, 3402188),
    "good": (8, 13940),
    "the same file twice": (9, 15680),
    "the same picture twice, exported at another time": (9, 15694),
    "an empty file beside": (9, 13940),
    "a text beside": (9, 13952),
    "a middle slice missing": (7, 12200),
    "a middle slice missing, renumbered": (7, 12200),
    "one file cut off in its header": (8, 12900),
    "one file cut off in its pixels": (8, 13890),
    "the end missing, and the server counts": (7, 12196),
    "five volumes": (40, 69688),
    "five volumes, the last of them 3 slices": (35, 60980),
    "five volumes, one file missing": (39, 67948),
    "five volumes, numbered at random": (40, 69688),
    "NORM and plain ones, with the same instance numbers": (16, 27896),
    "two sets that nothing tells apart": (16, 27880),
    "three echoes": (24, 41820),
    "three echoes, one of them incomplete": (23, 40076),
    "magnitude and phase": (16, 27880),
    "a localizer of three planes": (6, 10674),
    "a localizer, all at one place": (6, 10674),
    "CT, unevenly spaced": (8, 13940),
    "CT, tilted gantry": (8, 13934),
    "an overlay": (8, 14660),
    "a slope of its own for each slice": (8, 14132),
    "a secondary capture": (8, 13940),
    "of SR": (8, 14004),
    "of RT structures": (8, 14004),
    "of RT plan": (8, 14004),
    "of RT dose": (8, 14004),
    "of ECG": (8, 14004),
    "of nuclear medicine": (8, 13940),
    "a text alone": (1, 5),
    "nothing": (0, 0),
    "colour": (8, 13940),
    "32 bit": (8, 13940),
    "two series in one folder": (16, 27880),
    "a series UID for every file": (8, 13940),
    "a time of the study for every file": (8, 13940),
    "two pictures of one UID": (9, 15694),
    "a picture without a position": (8, 13674),
    "RLE": (8, 14344),
    "big endian": (8, 13940),
    "pydicom's image_dfl": (1, 4637),
    "pydicom's JPGExtended": (1, 9844),
    "pydicom's rtdose": (1, 7568),
    "pydicom's rtplan": (1, 2672),
    "pydicom's rtstruct": (1, 2534),
    "pydicom's waveform_ecg": (1, 291088),
    "pydicom's reportsi": (1, 2968),
    "pydicom's MR_truncated": (1, 9630),
    "pydicom's SC_rgb_rle_32bit": (1, 3760),
    "pydicom's examples_overlay": (1, 321700),
    "pydicom's CT_small": (1, 39206),
    "pydicom's MR_small": (1, 9830),
    "pydicom's MR_small_RLE": (1, 7790),
    "pydicom's MR_small_bigendian": (1, 9708),
    "pydicom's MR_small_implicit": (1, 9702),
    "pydicom's MR_small_jp2klossless": (1, 6008),
    "pydicom's MR_small_jpeg_ls_lossless": (1, 6124),
    "a Siemens mosaic, b=0": (1, 1700896),
    "a Siemens mosaic, b=1000 alone": (1, 1701292),
    "Siemens mosaics, b=0 and b=1000": (2, 3402188),
    "an enhanced file of Philips": (1, 23418378),
}
