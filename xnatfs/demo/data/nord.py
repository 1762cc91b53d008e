"""Project NORD of the `lab` data: another laboratory, with other names for the same things.

Used by `lab.py`. Three subjects, four MR sessions. FreeSurfer lies in image assessors (resource `DATA`) or in
a resource `recon-all`, ASHS in a resource `ashs_out` of a scan, SPM's maps in the folder `spm_seg/` of a
resource `SEG`; scans have other types and ids, their images lie in `nii`. The numbers are those of
`measurements.py`, by the session's accession id; `QUIRKS` says which files are written in an unusual way.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from xnatfs.demo.data import freesurfer, images, pipelines
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.draw import draw
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.data.mr_outputs import picture, spm12
from xnatfs.demo.model import Experiment, Project, Scan

Files = dict[str, bytes]

FIRST, SECOND, THIRD, FOURTH = (
    "NORD_0001_20190314",
    "NORD_0001_20200402",
    "NORD_0002_20190509",
    "NORD_0003_20190620",
)
SESSIONS = {FIRST: "2019-03-14", SECOND: "2020-04-02", THIRD: "2019-05-09", FOURTH: "2019-06-20"}
SCANS = {
    "00301": "MPRAGE",
    "00401": "t2 flair 3d",
    "00501": "DTI_64",
    "00601": "rest bold",
}  # scan id -> type, in the first two sessions
OTHER_SCANS = {
    "se3": "MPRAGE",
    "se4": "t2 flair 3d",
    "se5": "DTI_64",
    "se6-repeat": "rest bold",
}  # in the others


@dataclass(frozen=True)
class Quirk:
    """A file that is written in an unusual way: the end of its path, in a resource of a session (or of the
    session's assessor or scan).
    """

    session: str
    resource: str
    path: str


QUIRKS = {
    "aseg.stats of FreeSurfer 5: ICV instead of eTIV": Quirk(SECOND, "DATA", "stats/aseg.stats"),
    "hippocampus v10 beside v21": Quirk(FIRST, "recon-all", "mri/lh.hippoSfVolumes-T1.v10.txt"),
    "lines end with CR and LF": Quirk(THIRD, "recon-all", "stats/aseg.stats"),
    "no newline at the end": Quirk(THIRD, "recon-all", "mri/lh.hippoSfVolumes-T1.v21.txt"),
    "blanks at the ends of the lines": Quirk(THIRD, "recon-all", "mri/rh.hippoSfVolumes-T1.v21.txt"),
}


def aseg5_header(session: str) -> dict[str, tuple[Decimal, str]]:
    """The ten header measures of an aseg.stats of FreeSurfer 5: name -> (value, unit)."""

    def volume(name: str, low: int, high: int) -> Decimal:
        return draw(f"{session}/5/aseg/{name}", low, high, 6)

    cortex = [volume(f"{side}Cortex", 210_000, 270_000) for side in ("lh", "rh")]
    white = [volume(f"{side}White", 220_000, 260_000) for side in ("lh", "rh")]
    subcortical = volume("SubCortGrayVol", 170_000, 190_000)
    values = {
        "lhCortexVol": cortex[0],
        "rhCortexVol": cortex[1],
        "CortexVol": sum(cortex),
        "lhCorticalWhiteMatterVol": white[0],
        "rhCorticalWhiteMatterVol": white[1],
        "CorticalWhiteMatterVol": sum(white),
        "SubCortGrayVol": subcortical,
        "TotalGrayVol": sum(cortex) + subcortical,
        "SupraTentorialVol": sum(cortex) + sum(white) + subcortical,
        "ICV": m.etiv(session),
    }
    return {name: (Decimal(value), "mm^3") for name, value in values.items()}


def aseg5(session: str) -> dict[str, m.Rows]:
    """The table of an aseg.stats of FreeSurfer 5: the structures are called as in version 6."""
    return m.aseg(f"{session}/5", "6")


def add(make: Maker) -> Project:
    """Add the project to the archive."""
    project = make.project(
        "NORD",
        "Another laboratory (sample data)",
        members=["demo"],
        description="The same things under other names.",
    )
    subjects = {
        f"NORD_{n:04d}": make.subject(project, f"NORD_{n:04d}", gender="MFF"[n - 1]) for n in (1, 2, 3)
    }
    sessions: dict[str, Experiment] = {}
    scans: dict[str, Scan] = {}
    for label, date in SESSIONS.items():
        make.wait(hours=20)
        session = sessions[label] = make.experiment(subjects[label[:9]], label, date=date, time="14:05:00")
        for id, type in (SCANS if label in (FIRST, SECOND) else OTHER_SCANS).items():
            scan = make.scan(session, id, type, quality="questionable" if id == "se6-repeat" else "usable")
            files = {f"{id}.nii.gz": _image(f"{session.id}/{id}", type)}
            if type == "DTI_64":
                files |= {f"{id}.bval": images.bval(), f"{id}.bvec": images.bvec()}
            make.resource(scan, "nii", files, format="NIFTI")
        scans[label] = session.scans[0]
    for label in (FIRST, SECOND, FOURTH):
        _assessor(make, sessions[label])
    for label in (FIRST, THIRD):
        make.resource(sessions[label], "recon-all", _recon_all(sessions[label]))
    for label in (FIRST, THIRD, FOURTH):
        id = sessions[label].id
        files = {f"ashs_t1/{path}": data for path, data in pipelines.ashs_files(id, label).items()}
        make.resource(scans[label], "ashs_out", files)
    for label in (FIRST, SECOND):
        id = sessions[label].id
        maps = {f"spm_seg/{path}": data for path, data in spm12(id, "MPRAGE").items()}
        make.resource(
            sessions[label],
            "SEG",
            {**maps, "spm_seg/MPRAGE_seg8.mat": b"MATLAB 5.0 MAT-file\n", "README": b"see spm_seg\n"},
        )
    return project


def _image(key: str, type: str) -> bytes:
    volumes = {"DTI_64": len(images.BVALS), "rest bold": 6}.get(type)
    if volumes is None:
        return picture(key)
    shape = (16, 16, 8)
    return images.nifti(
        images.series(key, shape, volumes), images.affine_of(shape, (14.0, 14.0, 28.0)), key[:79], tr=2.5
    )


def _assessor(make: Maker, session: Experiment) -> None:
    label = f"{session.label}_fs"
    assessor = make.assessor(session, label, "fs:fsData")
    if session.label == SECOND:
        aseg = freesurfer.aseg_text(aseg5_header(session.id), aseg5(session.id), "5", label)
        files = {f"{label}/stats/aseg.stats": aseg, f"{label}/scripts/recon-all.done": b""}
    else:
        files = freesurfer.subject_directory(session.id, "6", label)
    make.resource(assessor.out_resources, "DATA", files)


def _recon_all(session: Experiment) -> Files:
    name = f"sub-{session.label[5:9]}"
    files = freesurfer.subject_directory(session.id, "7", name)
    if session.label == FIRST:
        for side in ("lh", "rh"):
            old = freesurfer.volumes_text(m.hippocampus(session.id, "v10", side))
            files[f"{name}/mri/{side}.hippoSfVolumes-T1.v10.txt"] = old
    else:
        files[f"{name}/stats/aseg.stats"] = files[f"{name}/stats/aseg.stats"].replace(b"\n", b"\r\n")
        path = f"{name}/mri/lh.hippoSfVolumes-T1.v21.txt"
        files[path] = files[path].rstrip(b"\n")
        path = f"{name}/mri/rh.hippoSfVolumes-T1.v21.txt"
        files[path] = files[path].replace(b"\n", b" \n")
    return dict(sorted(files.items()))
