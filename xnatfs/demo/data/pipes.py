"""Project PIPES of the `lab` data: the results of every further pipeline that bx knows, in small.

Used by `lab.py`. Four subjects; four MR sessions, each with three quarters of `MR` (nearly every pipeline is
missing in just one), and six PET sessions. Their numbers are those of `measurements.py` (FreeSurfer, SPM12,
validators), `derived.py` and `tracers.py`. `PET_TRUTH` says what the tests `HasUsableT1` of the PET sessions
have found.
"""

from __future__ import annotations

from collections.abc import Callable

from xnatfs.demo.data import freesurfer, pipelines
from xnatfs.demo.data import mr_outputs as mr
from xnatfs.demo.data import pet_outputs as pet
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Experiment, Project, Subject

Files = dict[str, bytes]
_Make = Callable[[str, str, str], Files]  # of accession id, subject's label, session's label

# Resource -> (its validator, what makes its files); the order decides which session lacks which.
MR: dict[str, tuple[str, _Make]] = {
    "FREESURFER6_HIRES": (
        "FreeSurferHiresValidator",
        lambda id, subject, label: mr.freesurfer6_hires(id, label),
    ),
    "FREESURFER7": ("FreeSurfer7Validator", lambda id, subject, label: mr.freesurfer7(id, label)),
    "FREESURFER7_EXTRAS": (
        "FreeSurfer7ExtrasValidator",
        lambda id, subject, label: freesurfer.extras(id, label),
    ),
    "CAT12_SEGMENT": ("CAT12SegmentValidator", lambda id, subject, label: mr.cat12(id, f"{label}_T1")),
    "SPM12_SEGMENT": ("SPM12SegmentValidator", lambda id, subject, label: mr.spm12(id, f"{label}_T1")),
    "SPM12_SEGMENT_T1T2": (
        "SPM12SegmentT1T2Validator",
        lambda id, subject, label: mr.spm12(f"{id}/T1T2", f"{label}_T1"),
    ),
    "FSL_ANAT": ("FSLANATValidator", lambda id, subject, label: mr.fsl_anat(id)),
    "BAMOS": ("BAMOSValidator", lambda id, subject, label: mr.bamos(id)),
    "BAMOS_ARTERIAL": ("BAMOSArterialValidator", lambda id, subject, label: mr.bamos_arterial(id)),
    "ALPS": ("ALPSValidator", lambda id, subject, label: mr.alps(id)),
    "DONSURF": ("DONSURFValidator", lambda id, subject, label: mr.donsurf(id, label)),
    "QSMXT": ("QSMxTValidator", lambda id, subject, label: mr.qsmxt(id, subject, label.rpartition("_")[2])),
    "PYMENT": ("PYMENTValidator", lambda id, subject, label: mr.pyment(id)),
    "LCMODEL": ("LCModelValidator", lambda id, subject, label: mr.lcmodel(id, subject)),
    "MRTRIX3": ("MRtrix3Validator", lambda id, subject, label: mr.mrtrix3(id)),
    "XCP_D": ("XCPDValidator", lambda id, subject, label: mr.xcp_d(id, subject, label.rpartition("_")[2])),
    "BASIL": ("BASILValidator", lambda id, subject, label: pet.basil(id)),
    "TE_ASL": ("TEASLValidator", lambda id, subject, label: pet.te_asl(id)),
    "3DASL_QUANTIFICATION": ("ASL3DQuantificationValidator", lambda id, subject, label: pet.asl3d(id)),
    "TOPUP_DTIFIT": ("DTIFITValidator", lambda id, subject, label: mr.dtifit(id, "dti")),
    "DWIFSLPREPROC_DTIFIT": ("DWIFSLPreprocDTIFITValidator", lambda id, subject, label: mr.dtifit(id, "dwi")),
    "DARTEL_NORM2MNI": ("DartelNorm2MNIValidator", lambda id, subject, label: mr.dartel(id, f"{label}_T1")),
    "MRI_REFACE": ("MRIRefaceValidator", lambda id, subject, label: mr.mri_reface(id)),
    "FMRIPREP": (
        "FMRIPrepValidator",
        lambda id, subject, label: mr.fmriprep(id, subject, label.rpartition("_")[2]),
    ),
    "ANTS": ("ANTSValidator", lambda id, subject, label: mr.ants(id)),
}
PET: dict[str, tuple[str, _Make]] = {
    "PET_PREPROCESSING": ("PETPreprocessingValidator", lambda id, subject, label: pet.preprocessing(id)),
    "FDG_QUANTIFICATION2": ("FDGQuantificationValidator", lambda id, subject, label: pet.fdg(id)),
    "FTM_QUANTIFICATION2": ("FTMQuantificationValidator", lambda id, subject, label: pet.ftm(id)),
    "TAU_QUANTIFICATION": ("TauQuantificationValidator", lambda id, subject, label: pet.tau(id)),
    "CENTAURZ": ("CenTaurZValidator", lambda id, subject, label: pet.centaurz(id)),
}
SUBJECTS = (
    ("P01", "female", "1951"),
    ("P02", "male", "1957"),
    ("P03", "female", "1963"),
    ("P04", "male", "1948"),
)
MR_DATES = {"P01": "2022-09-05", "P02": "2022-09-12", "P03": "2022-10-03", "P04": "2022-11-21"}
PET_SESSIONS: dict[str, tuple[str, tuple[str, ...]]] = {  # label -> date, resources
    "P01_FDG1": ("2022-10-06", ("PET_PREPROCESSING", "FDG_QUANTIFICATION2")),
    "P02_FTM1": ("2022-10-20", ("PET_PREPROCESSING", "FTM_QUANTIFICATION2")),
    "P03_FTM1": ("2022-10-27", ("FTM_QUANTIFICATION2",)),
    "P04_FDG1": ("2022-12-01", ("FDG_QUANTIFICATION2",)),
    "P01_TAU1": ("2023-01-12", ("PET_PREPROCESSING", "TAU_QUANTIFICATION", "CENTAURZ")),
    "P03_TAU1": ("2023-01-19", ("TAU_QUANTIFICATION",)),
}
# What the session validators of the PET sessions say: the notes on the T1 that was found; None: no usable T1;
# left out: no report.
PET_TRUTH: dict[str, str | None] = {
    "P01_FDG1": "",
    "P02_FTM1": "T1 of the first visit",
    "P04_FDG1": None,
    "P01_TAU1": "",
    "P03_TAU1": "",
}


def add(make: Maker) -> Project:
    """Add the project to the archive."""
    project = make.project(
        "PIPES",
        "Pipelines (sample data)",
        members=["demo"],
        description="The results of many pipelines, in small.",
    )
    subjects: dict[str, Subject] = {}
    sessions: dict[str, Experiment] = {}
    for number, (label, gender, yob) in enumerate(SUBJECTS):
        make.wait(hours=5)
        subjects[label] = make.subject(project, label, gender=gender, yob=yob)
        session = make.experiment(
            subjects[label], f"{label}_MR1", date=MR_DATES[label], time=f"09:{10 + number}:00"
        )
        sessions[session.label] = session
        nifti = {f"{session.label}_T1.nii.gz": mr.picture(session.id)}
        make.resource(
            make.scan(session, "1001", "T1_ALFA1"), "NIFTI", nifti, format="NIFTI", content="NIFTI_RAW"
        )
        reports = pipelines.validator_files(session.id, ["ArchivingValidator"])
        for index, (resource, (validator, files)) in enumerate(MR.items()):
            if _has(resource, index, number):
                make.resource(session, resource, files(session.id, label, session.label))
                reports |= pipelines.validator_files(session.id, [validator])
        if label == "P01":  # beside the thickness that these labels are for
            make.resource(session, "DICKERSON", mr.dickerson(session.id))
        make.resource(session, "BBRC_VALIDATOR", reports)
    for label, (date, resources) in PET_SESSIONS.items():
        make.wait(hours=3)
        subject = subjects[label.partition("_")[0]]
        session = make.experiment(
            subject, label, "xnat:petSessionData", date=date, time="11:30:00", fields={"modality": "PT"}
        )
        static = {f"{label}_static.nii.gz": mr.picture(session.id)}
        scan = make.scan(session, "1", "PET static", xsi_type="xnat:petScanData")
        make.resource(scan, "NIFTI", static, format="NIFTI", content="NIFTI_RAW")
        reports = {}
        for resource in resources:
            validator, files = PET[resource]
            make.resource(session, resource, files(session.id, subject.label, label))
            reports |= pipelines.validator_files(session.id, [validator])
        if label in PET_TRUTH:
            name = "TauPetSessionValidator" if "TAU" in label else "PetSessionValidator"
            reports |= pet.session_validator(
                session.id, name, mri_of(sessions[f"{subject.label}_MR1"], PET_TRUTH[label])
            )
        make.resource(session, "BBRC_VALIDATOR", reports)
    return project


def _has(resource: str, index: int, number: int) -> bool:
    """Whether the MR session of this number has the resource. Of the two diffusion pipelines a session has
    one, as the protocol was.
    """
    lacking = index % len(SUBJECTS) == number
    return number == 3 if resource == "DWIFSLPREPROC_DTIFIT" else not lacking


def mri_of(session: Experiment, notes: str | None) -> dict[str, str] | None:
    """What a PET session's validator says about the MR session it found."""
    if notes is None:
        return None
    files = {
        "experiment_id": session.id,
        "date": session.date,
        "project": session.project,
        "scan_id": session.scans[0].id,
    }
    return {**files, "notes": notes} if notes else files
