"""xnatpy, unmodified, with `XNAT_DATA` at the mount: it reads files from there and downloads none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xnat

from tests.mount.conftest import Lab
from tests.support import lab_archive, mount
from xnatfs.demo.control import Changes
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.server import DemoServer


@pytest.fixture
def session(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Logged in; the test fails if xnatpy asked the server for the content of any file."""
    monkeypatch.setenv("XNAT_DATA", str(lab.demo.point / "archive"))
    before = len(lab.server.requests())
    with xnat.connect(lab.server.url, user="demo", password="demo") as connection:
        yield connection
    theirs = [record for record in lab.server.requests()[before:] if record.user_agent.startswith("xnatpy")]
    assert theirs, "the log has no request of xnatpy: nothing was shown"
    assert [record.target for record in theirs if downloads(record.path, record.query)] == []


def downloads(path: str, query: str) -> bool:
    """Whether a request is for contents: below `/files/`, or a zip of them."""
    return "/files/" in path or "format=zip" in query


def opened(lab: Lab, resource: Any, expected: list[TrueFile]) -> None:
    """Every file of a resource through `open()`, `data_path` and `data_dir`: from the mount, with its true
    bytes.
    """
    assert expected
    folder = resource.data_dir
    assert folder is not None and Path(folder).is_relative_to(lab.demo.point / "archive/projects")
    for truth in expected:
        file = resource.files[truth.path]
        assert file.data_path == folder / truth.path
        with file.open() as stream:
            assert stream.name == str(file.data_path)
            assert stream.read() == truth.read()
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        file.path for file in expected
    }


def test_a_scans_resource(lab: Lab, session: Any) -> None:
    scan = session.projects["ALFA"].experiments["sub001_MR1"].scans["2"]
    assert scan.data_dir == lab.demo.point / "archive/projects/ALFA/experiments/sub001_MR1/SCANS/2"
    for label in ("DICOM", "NIFTI", "NIFTI_PLAIN"):
        opened(lab, scan.resources[label], lab.files("ALFA", session="sub001_MR1", scan="2", resource=label))


def test_a_sessions_resource(lab: Lab, session: Any) -> None:
    experiment = session.projects["ALFA"].experiments["sub001_MR1"]
    assert experiment.data_dir == lab.demo.point / "archive/projects/ALFA/experiments/sub001_MR1"
    opened(
        lab,
        experiment.resources["ASHS"],
        lab.files("ALFA", session="sub001_MR1", kind="session", resource="ASHS"),
    )
    opened(
        lab,
        experiment.resources["FREESURFER7"],
        lab.files("ALFA", session="sub001_MR1", kind="session", resource="FREESURFER7"),
    )


def test_a_subjects_resource(lab: Lab, session: Any) -> None:
    subject = session.projects["ALFA"].subjects["sub001"]
    opened(lab, subject.resources["notes"], lab.files("ALFA", kind="subject", resource="notes"))


def test_a_projects_resource(lab: Lab, session: Any) -> None:
    project = session.projects["ALFA"]
    assert project.data_dir == lab.demo.point / "archive/projects/ALFA"
    opened(lab, project.resources["protocol"], lab.files("ALFA", kind="project", resource="protocol"))


def test_an_assessors_resource(lab: Lab, session: Any) -> None:
    assessor = session.projects["ALFA"].experiments["sub001_MR1"].assessors["sub001_MR1_freesurfer"]
    assert (
        assessor.data_dir
        == lab.demo.point / "archive/projects/ALFA/experiments/sub001_MR1/ASSESSORS/sub001_MR1_freesurfer"
    )
    opened(lab, assessor.resources["DATA"], lab.files("ALFA", assessor="sub001_MR1_freesurfer"))


def test_an_experiment_that_is_no_imaging_session(lab: Lab, session: Any) -> None:
    """Its resources lie where xnatpy's rule puts them (`experiments/E/<label>`).

    xnatpy 0.8.1 cannot get there itself: wherever `XNAT_DATA` is set, `data_dir` and `open()` of such a
    resource fail inside it."""
    project = session.projects["ALFA"]
    experiment = project.experiments["sub005_NP1"]
    resource = experiment.resources["FORMS"]
    with pytest.raises(AttributeError, match="expected_data_dir"):
        _ = resource.data_dir
    expected = lab.files("ALFA", session="sub005_NP1")
    assert (
        sorted(file.path for file in resource.files.values()) == sorted(file.path for file in expected) != []
    )
    for file in expected:
        assert (
            project.data_dir / "experiments" / experiment.label / resource.label / file.path
        ).read_bytes() == file.read()


def test_a_scan_id_with_a_modality_suffix(lab: Lab, session: Any) -> None:
    """xnatpy looks for `SCANS/2-MR1` before it looks for `SCANS/2`: it must not get the other scan."""
    experiments = session.projects["MESSY"].experiments
    for label, scan in (("m01_scans", "2-MR1"), ("m01_scans", "2"), ("m01_suffix", "2-MR1")):
        found = experiments[label].scans[scan]
        assert (
            found.data_dir == lab.demo.point / "archive/projects/MESSY/experiments" / label / "SCANS" / scan
        )
        opened(lab, found.resources["NIFTI"], lab.files("MESSY", session=label, scan=scan))


def test_a_shared_session_is_read_under_its_first_project(lab: Lab, session: Any) -> None:
    """xnatpy asks for it there, whatever project it was reached through."""
    (number,) = {file.session_id for file in lab.files("DWI", session="dwi02_scan")}
    experiment = session.experiments[number]
    assert experiment.data_dir == lab.demo.point / "archive/projects/ALFA/experiments/sub002_MR1"
    opened(lab, experiment.scans["4"].resources["NIFTI"], lab.files("ALFA", session="sub002_MR1", scan="4"))


@pytest.mark.parametrize("label", ["Ana María 1ª", "my_files_MR1"])
def test_awkward_labels(lab: Lab, session: Any, label: str) -> None:
    experiment = session.projects["MESSY"].experiments[label]
    opened(lab, experiment.resources["NOTES"], lab.files("MESSY", session=label, kind="session"))


def test_without_the_mount_it_would_download(lab: Lab) -> None:
    """The counter-proof: what the fixture looks for in the log is there when `XNAT_DATA` is not set."""
    before = len(lab.server.requests())
    with xnat.connect(lab.server.url, user="demo", password="demo") as connection:
        (truth,) = (
            file for file in lab.files("ALFA", session="sub001_MR1", scan="4") if file.path.endswith(".bvec")
        )
        file = (
            connection.projects["ALFA"]
            .experiments["sub001_MR1"]
            .scans["4"]
            .resources["NIFTI"]
            .files[truth.path]
        )
        assert file.data_path is None
        with file.open() as stream:
            assert stream.read() == truth.read()
    theirs = [record for record in lab.server.requests()[before:] if record.user_agent.startswith("xnatpy")]
    assert any(downloads(record.path, record.query) for record in theirs)


def test_a_mount_that_has_read_nothing_serves_them_too(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes come through the mount's own requests, which the log shows beside xnatpy's."""
    with mount(lab.server.url, tmp_path) as fresh:
        monkeypatch.setenv("XNAT_DATA", str(fresh.point / "archive"))
        before = len(lab.server.requests())
        (truth,) = (
            file for file in lab.files("ALFA", session="sub004_MR1", scan="4") if file.path.endswith(".bvec")
        )
        with xnat.connect(lab.server.url, user="demo", password="demo") as connection:
            file = (
                connection.projects["ALFA"]
                .experiments["sub004_MR1"]
                .scans["4"]
                .resources["NIFTI"]
                .files[truth.path]
            )
            with file.open() as stream:
                assert stream.read() == truth.read()
        log = [record for record in lab.server.requests()[before:] if downloads(record.path, record.query)]
        assert [record.user_agent.partition("/")[0] for record in log] == ["xnatfs"]


def test_a_folder_called_dicom_wherever_that_is_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a session's own resource xnatpy asks for `DICOM` if the format says so, whatever the label."""
    archive = lab_archive()
    (session,) = {file.session_id for file in files(archive, "ALFA", "demo") if file.session == "sub004_MR1"}
    changes = Changes(archive)
    number = changes.apply({"op": "add_resource", "session": session, "label": "raw data", "format": "DICOM"})
    changes.apply({"op": "put_file", "resource": number, "path": "a.dcm", "text": "not really"})
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        monkeypatch.setenv("XNAT_DATA", str(mounted.point / "archive"))
        with xnat.connect(server.url, user="demo", password="demo") as connection:
            resource = connection.projects["ALFA"].experiments["sub004_MR1"].resources["raw data"]
            assert (
                resource.data_dir
                == mounted.point / "archive/projects/ALFA/experiments/sub004_MR1/RESOURCES/DICOM"
            )
            with resource.files["a.dcm"].open() as stream:
                assert stream.name.startswith(str(mounted.point)) and stream.read() == b"not really"
            folder = resource.data_dir.parent
        assert "DICOM" not in os.listdir(folder) and "raw data" in os.listdir(folder)
