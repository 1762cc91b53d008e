"""The `lab` data: the projects of a small imaging lab on the site DEMO.

Used by `build("lab")`. ALFA is clean, DWI is a methods project that shares from it, MESSY has every nasty
case, SECRET is what ordinary members must never see. PIPES has the results of many pipelines, NORD is another
laboratory's way to name things, BROKEN has damaged results. Logins: admin/admin, demo/demo (member of all but
SECRET), outsider/outsider (of nothing).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from xnatfs.demo.data import alfa, broken, images, messy, nord, pipes
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, Experiment, Project, Subject

READABLE = ("ALFA", "BROKEN", "DWI", "MESSY", "NORD", "PIPES")  # the projects of `demo`, by name


def build(*more: Callable[[Maker], object]) -> Archive:
    """The archive, the same at every call; `more` adds other projects to it."""
    archive = Archive(site="DEMO")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15, 0, 123000))
    make.user("admin", admin=True)
    make.user("demo")
    make.user("outsider")
    project = alfa.add(make)
    make.wait(days=3)
    _dwi(make, project)
    make.wait(days=3)
    messy.add(make, project)
    make.wait(days=3)
    _secret(make)
    make.wait(days=1)
    for add in (pipes.add, nord.add, broken.add, *more):
        add(make)
        make.wait(days=1)
    return archive


def by_label(archive: Archive, project: str, label: str) -> Experiment:
    """The experiment that `project` owns under `label`."""
    return next(e for e in archive.experiments.values() if e.project == project and e.label == label)


def subject_by_label(archive: Archive, project: str, label: str) -> Subject:
    """The subject that `project` owns under `label`."""
    return next(s for s in archive.subjects.values() if s.project == project and s.label == label)


def _dwi(make: Maker, alfa_project: Project) -> None:
    project = make.project(
        "DWI",
        "Diffusion methods (sample data)",
        members=["demo"],
        access="public",
        description="Real acquisitions from the test data of nibabel, and a session and two subjects "
        "shared from ALFA.",
        pi=("Grace", "Example"),
    )
    phantom = make.subject(project, "phantom")
    for number in (1, 2):
        session = make.experiment(phantom, f"phantom_DTI{number}", date="2010-01-14", time="12:00:00")
        if number == 1:
            scan = make.scan(session, "12", "CBU_DTI_64D_1A", frames="2")
            mosaics = {name: images.nibabel_file(f"nicom/tests/data/{name}") for name in ("0.dcm", "1.dcm")}
            make.resource(scan, "DICOM", mosaics, format="DICOM", content="RAW")
        shape = (32, 32, 12)
        dwi = images.series(session.id, shape, len(images.BVALS), -6)
        files = {
            f"{session.label}.bval": images.bval(),
            f"{session.label}.bvec": images.bvec(),
            f"{session.label}.nii.gz": images.nifti(
                dwi, images.affine_of(shape, (7.0, 7.0, 12.0)), session.id, tr=8.0
            ),
        }
        make.resource(
            make.scan(session, "13", "DWI", frames="7"), "NIFTI", files, format="NIFTI", content="NIFTI_RAW"
        )
    volunteer = make.subject(project, "volunteer", gender="female", yob="1990")
    session = make.experiment(volunteer, "volunteer_EPI", date="2010-02-01")
    epi = {"example4d.nii.gz": images.nibabel_file("tests/data/example4d.nii.gz")}
    make.resource(make.scan(session, "3", "EPI", "ep2d 2 volumes", frames="2"), "NIFTI", epi, format="NIFTI")
    anatomy = {"anatomical.nii": images.nibabel_file("tests/data/anatomical.nii")}
    make.resource(make.scan(session, "4", "T1w", "low resolution anatomy"), "NIFTI", anatomy, format="NIFTI")
    session = make.experiment(volunteer, "volunteer_CT", "xnat:ctSessionData", date="2004-01-19")
    ct = {"CT_small.dcm": images.pydicom_file("CT_small.dcm")}
    scan = make.scan(session, "2", "CT", "e+1", frames="1", xsi_type="xnat:ctScanData")
    make.resource(scan, "DICOM", ct, format="DICOM", content="RAW")
    # A session under another label together with its subject under another label; and a subject without any
    # session.
    subject_by_label(make.archive, alfa_project.id, "sub002").shares[project.id] = "dwi02"
    by_label(make.archive, alfa_project.id, "sub002_MR1").shares[project.id] = "dwi02_scan"
    subject_by_label(make.archive, alfa_project.id, "007").shares[project.id] = "bond"
    make.resource(project, "gradients", {"bvals": images.bval(), "bvecs": images.bvec()})


def _secret(make: Maker) -> None:
    project = make.project(
        "SECRET", "Not for you", description="Only the administrator may see this project."
    )
    subject = make.subject(project, "nobody")
    session = make.experiment(subject, "nobody_MR1", date="2020-01-01")
    make.resource(make.scan(session, "1", "T1w"), "NIFTI", {"secret.txt": b"the secret\n"})
    make.resource(session, "NOTES", {"secret.txt": b"another secret\n"})
    make.resource(project, "NOTES", {"secret.txt": b"a third secret\n"})
