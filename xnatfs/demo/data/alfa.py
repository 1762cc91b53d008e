"""Project ALFA of the `lab` data: a small clean study, the one everybody tries first.

Used by `lab.py`. Six subjects, nine MR sessions, one PET session, one neuropsychological visit; scans with
DICOM and NIfTI, the results of FreeSurfer 6 and 7, ASHS, SPM12 and the BBRC validators, assessors, a
reconstruction, and resources at every level.

The name a pipeline ran under differs as it does in real labs: FREESURFER6 and ASHS took the subject's label,
FREESURFER7 the session's label, FREESURFER7_EXTRAS the accession id.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnatfs.demo.data import freesurfer, images, pipelines
from xnatfs.demo.data.dicom import Series, slices, uid
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Experiment, Project, Scan, Subject

T1_SHAPE, T1_SPACING = (112, 112, 40), (2.0, 2.0, 4.0)
PIPELINES = frozenset(
    {"FREESURFER6", "FREESURFER7", "FREESURFER7_EXTRAS", "ASHS", "SPM12_SEGMENT", "BBRC_VALIDATOR"}
)


@dataclass(frozen=True)
class Visit:
    """One MR session of the study."""

    label: str
    date: str
    time: str
    without: frozenset[str] = frozenset()
    bad_scan: bool = False
    dicom_date: str = ""  # where the session has no date of its own: what its DICOM files say


SUBJECTS: tuple[
    tuple[str, str, str, str, tuple[Visit, ...]], ...
] = (  # label, gender, year of birth, group, visits
    (
        "sub001",
        "female",
        "1956",
        "control",
        (Visit("sub001_MR1", "2021-02-15", "09:12:30"), Visit("sub001_MR2", "2023-03-01", "10:02:11")),
    ),
    ("sub002", "male", "1961", "control", (Visit("sub002_MR1", "2021-02-17", "11:45:00"),)),
    (
        "sub003",
        "female",
        "1949",
        "patient",
        (
            Visit("sub003_MR1", "2021-03-02", "08:30:05", without=frozenset({"FREESURFER6"})),
            Visit("sub003_MR2", "2023-04-18", "09:05:59", bad_scan=True),
        ),
    ),
    (
        "sub004",
        "male",
        "1970",
        "patient",
        (Visit("sub004_MR1", "", "", without=frozenset({"SPM12_SEGMENT"}), dicom_date="2021-05-12"),),
    ),
    (
        "sub005",
        "female",
        "1958",
        "control",
        (Visit("sub005_MR1", "2021-05-20", "12:00:00", without=frozenset({"ASHS", "FREESURFER7_EXTRAS"})),),
    ),
    (
        "007",
        "male",
        "1953",
        "patient",
        (
            Visit("007_MR1", "2021-06-01", "07:07:07"),
            Visit("007_MR2", "2023-06-07", "07:17:27", without=PIPELINES),
        ),
    ),
)


def add(make: Maker) -> Project:
    """Add the project to the archive."""
    project = make.project(
        "ALFA",
        "ALFA: healthy ageing (sample data)",
        members=["demo"],
        description="A made-up study. Two visits of T1, T2, diffusion and resting-state imaging with "
        "derived measurements.",
        pi=("Ada", "Sample"),
        secondary_id="ALFA study",
    )
    sessions: dict[str, Experiment] = {}
    subjects: dict[str, Subject] = {}
    for label, gender, yob, group, visits in SUBJECTS:
        make.wait(hours=17)
        subject = subjects[label] = make.subject(project, label, gender=gender, yob=yob, group=group)
        subject.fields |= {"handedness": "left" if label == "sub003" else "right", "education": "12"}
        subject.custom |= {"apoe": "e3/e4" if label == "007" else "e3/e3", "screening id": f"00{yob}"}
        for visit in visits:
            make.wait(minutes=40)
            sessions[visit.label] = mr_session(make, project, subject, visit)
    make.wait(days=1)
    _pet(make, subjects["sub002"])
    _visit(make, subjects["sub005"])
    _assessors(make, sessions)
    consent = make.resource(subjects["sub001"], "consent", format="PDF")
    make.add(consent, {"consent_sub001.pdf": pipelines.pdf("Consent of sub001", "consent")})
    make.resource(
        subjects["sub001"],
        "notes",
        {"2021/visit1.txt": b"Arrived on time.\n", "2023/visit2.txt": b"Tired.\n"},
    )
    protocol = make.resource(project, "protocol")
    make.add(
        protocol,
        {
            "README.txt": b"The imaging protocol of the study.\n",
            "scanner/3T/T1_ALFA1.txt": b"TR 2300 ms, TE 3 ms, 2 x 2 x 4 mm\n",
            "scanner/3T/DWI.txt": b"b=1000, 6 directions\n",
            "protocol.pdf": pipelines.pdf("ALFA imaging protocol", "protocol"),
        },
    )
    make.resource(project, "spreadsheets", {"participants.csv": _participants()}, format="CSV")
    return project


def _participants() -> bytes:
    rows = [f"{label},{gender},{yob},{group}" for label, gender, yob, group, _ in SUBJECTS]
    return ("\n".join(["subject,gender,yob,group", *rows]) + "\n").encode()


def mr_session(make: Maker, project: Project, subject: Subject, visit: Visit) -> Experiment:
    """A whole MR session: scans, their files, and the results of the pipelines but those in
    `visit.without`.
    """
    scanner = {
        "scanner/manufacturer": "TOSHIBA_MEC",
        "scanner/model": "MRT50H1",
        "fieldStrength": "3.0",
        "modality": "MR",
        "scanner": "SIM3T",
        "operator": "Ada",
    }
    session = make.experiment(subject, visit.label, date=visit.date, time=visit.time, fields=scanner)
    session.fields["UID"] = uid(f"{project.id}/{session.label}")
    _scans(make, project, subject, session, visit)
    make.wait(minutes=3)
    _pipelines(make, subject, session, visit.without)
    return session


def _scans(make: Maker, project: Project, subject: Subject, session: Experiment, visit: Visit) -> None:
    date, time = (visit.date or visit.dicom_date).replace("-", ""), visit.time.replace(":", "")

    def series(number: int, description: str) -> Series:
        return Series(
            project.id,
            subject.label,
            session.label,
            number,
            description,
            date,
            time,
            subject.gender[:1].upper(),
        )

    def scan(
        number: int, type: str, description: str, frames: int, quality: str = "usable", note: str = ""
    ) -> Scan:
        return make.scan(
            session,
            str(number),
            type,
            description,
            frames=str(frames),
            quality=quality,
            note=note,
            start_time=visit.time,
            uid=uid(f"{project.id}/{session.label}/{number}"),
        )

    def nifti(of: Scan, files: dict[str, bytes]) -> None:
        make.resource(of, "NIFTI", files, format="NIFTI", content="NIFTI_RAW")

    key = session.id
    localizer = scan(1, "localizer", "3-plane localizer", 3)
    make.resource(
        localizer,
        "DICOM",
        slices(
            series(1, "localizer"), images.head(key + "/localizer", (64, 64, 3)), (4.0, 4.0, 8.0), tilted=True
        ),
        format="DICOM",
        content="RAW",
    )
    t1 = scan(2, "T1_ALFA1", "T1_ALFA1", T1_SHAPE[2])
    volume = images.head(key + "/T1", T1_SHAPE)
    make.resource(
        t1, "DICOM", slices(series(2, "T1_ALFA1"), volume, T1_SPACING), format="DICOM", content="RAW"
    )
    affine = images.affine_of(T1_SHAPE, T1_SPACING)
    stem = f"{session.label}_T1_ALFA1"
    nifti(
        t1,
        {
            f"{stem}.json": images.sidecar(
                SeriesDescription="T1_ALFA1", EchoTime=0.003, RepetitionTime=2.3, SeriesNumber=2
            ),
            f"{stem}.nii.gz": images.nifti(volume, affine, session.id),
        },
    )
    if session.label == "sub001_MR1":  # once uncompressed, for programs that map files into memory
        make.resource(
            t1,
            "NIFTI_PLAIN",
            {f"{stem}.nii": images.nifti(volume, affine, session.id, gz=False)},
            format="NIFTI",
        )
    t2_shape = (64, 64, 24)
    t2 = images.head(key + "/T2", t2_shape, 60)
    nifti(
        scan(3, "T2_ALFA1", "T2_ALFA1", t2_shape[2]),
        {
            f"{session.label}_T2_ALFA1.nii.gz": images.nifti(
                t2, images.affine_of(t2_shape, (3.5, 3.5, 6.0)), session.id
            )
        },
    )
    dwi_shape = (32, 32, 12)
    dwi = images.series(key + "/DWI", dwi_shape, len(images.BVALS), -6)
    nifti(
        scan(4, "DWI", "DTI 6 directions b1000", len(images.BVALS)),
        {
            f"{session.label}_DWI.bval": images.bval(),
            f"{session.label}_DWI.bvec": images.bvec(),
            f"{session.label}_DWI.json": images.sidecar(
                SeriesDescription="DTI 6 directions b1000", PhaseEncodingDirection="j-"
            ),
            f"{session.label}_DWI.nii.gz": images.nifti(
                dwi, images.affine_of(dwi_shape, (7.0, 7.0, 12.0)), session.id, tr=8.0
            ),
        },
    )
    rest_shape = (32, 32, 12)
    rest = images.series(key + "/REST", rest_shape, 10, 1)
    nifti(
        scan(5, "REST", "rest fMRI", 10),
        {
            f"{session.label}_REST.json": images.sidecar(
                SeriesDescription="rest fMRI", TaskName="rest", RepetitionTime=2.0
            ),
            f"{session.label}_REST.nii.gz": images.nifti(
                rest, images.affine_of(rest_shape, (7.0, 7.0, 12.0)), session.id, tr=2.0
            ),
        },
    )
    if visit.bad_scan:
        moved = scan(6, "T1_ALFA1", "T1_ALFA1 repeat", 24, quality="unusable", note="subject moved")
        shape = (64, 64, 24)
        picture = images.nifti(
            images.head(key + "/moved", shape, 40), images.affine_of(shape, (3.5, 3.5, 6.0)), session.id
        )
        nifti(moved, {f"{session.label}_T1_ALFA1_repeat.nii.gz": picture})


def _pipelines(make: Maker, subject: Subject, session: Experiment, without: frozenset[str]) -> None:
    validators = []
    if "FREESURFER6" not in without:
        make.resource(session, "FREESURFER6", freesurfer.subject_directory(session.id, "6", subject.label))
        validators.append("FreeSurferValidator")
    if "FREESURFER7" not in without:
        make.resource(session, "FREESURFER7", freesurfer.subject_directory(session.id, "7", session.label))
        validators.append("FreeSurfer7Validator")
    if "FREESURFER7_EXTRAS" not in without:
        make.resource(session, "FREESURFER7_EXTRAS", freesurfer.extras(session.id, session.id))
    if "ASHS" not in without:
        make.resource(session, "ASHS", pipelines.ashs_files(session.id, subject.label))
        validators.append("ASHSValidator")
    if "SPM12_SEGMENT" not in without:
        make.resource(session, "SPM12_SEGMENT", pipelines.spm_files(session.id, f"{session.label}_T1_ALFA1"))
        validators.append("SPM12SegmentValidator")
    if "BBRC_VALIDATOR" not in without:
        make.resource(session, "BBRC_VALIDATOR", pipelines.validator_files(session.id, validators))


def _pet(make: Maker, subject: Subject) -> None:
    fields = {"tracer/name": "FDG", "modality": "PT", "age": "49.5", "visit_id": "v1"}
    session = make.experiment(
        subject, "sub002_PET1", "xnat:petSessionData", date="2021-03-10", time="14:00:00", fields=fields
    )
    scan = make.scan(
        session, "1", "PET_FDG", "FDG static", frames="1", xsi_type="xnat:petScanData", start_time="14:00:00"
    )
    shape = (40, 40, 24)
    picture = images.nifti(
        images.head(session.id + "/PET", shape, 140), images.affine_of(shape, (5.0, 5.0, 7.0)), session.id
    )
    make.resource(scan, "NIFTI", {"sub002_PET1_static.nii.gz": picture}, format="NIFTI", content="NIFTI_RAW")


def _visit(make: Maker, subject: Subject) -> None:
    visit = make.experiment(
        subject, "sub005_NP1", "cnda:neuropsychData", date="2021-05-21", fields={"mmse": "29"}
    )
    make.resource(
        visit,
        "FORMS",
        {"mmse.csv": b"item,score\norientation,10\nrecall,3\n", "scan/form1.txt": b"signed\n"},
        format="CSV",
    )


def _assessors(make: Maker, sessions: dict[str, Experiment]) -> None:
    for label in ("sub001_MR1", "sub003_MR1"):
        session = sessions[label]
        assessor = make.assessor(session, f"{label}_freesurfer", "fs:fsData")
        files = {
            f"{label}/stats/aseg.stats": freesurfer.aseg_stats(session.id, "6", label),
            f"{label}/scripts/recon-all.done": b"",
        }
        make.resource(assessor.out_resources, "DATA", files)
    session = sessions["sub001_MR1"]
    assessor = make.assessor(session, "sub001_MR1_qc", "xnat:qcManualAssessorData")
    make.resource(assessor.in_resources, "SOURCE", {"used_scans.txt": b"2\n3\n"})
    report = {"qc.pdf": pipelines.pdf("QC of sub001_MR1", "qc"), "qc.csv": b"scan,rating\n2,1\n3,2\n"}
    make.resource(assessor.out_resources, "REPORT", report)
    make.resource(assessor, "NOTES", {"rater.txt": b"Rated twice.\n"})
    session = sessions["007_MR1"]
    average = make.reconstruction(session, "T1_mean", "average", "T1_ALFA1")
    make.resource(average.in_resources, "SOURCE", {"inputs.txt": b"scan 2\n"})
    shape = (32, 32, 24)
    picture = images.nifti(
        images.head(session.id + "/mean", shape), images.affine_of(shape, (7.0, 7.0, 6.0)), session.id
    )
    make.resource(average.out_resources, "NIFTI", {"T1_mean.nii.gz": picture}, format="NIFTI")
