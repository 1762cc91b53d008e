"""pyxnat 1.6, unmodified, on the stand-in: lists, files, zips, the array and search interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pyxnat

from tests.clients.conftest import Lab
from xnatfs.demo.data.truth import TrueFile


@pytest.fixture
def x(lab: Lab) -> Iterator[pyxnat.Interface]:
    interface = pyxnat.Interface(server=lab.url, user="demo", password="demo")
    yield interface
    interface.disconnect()
    interface._exec_lock = None


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents(files: list[TrueFile]) -> dict[str, bytes]:
    return {file.path: file.read() for file in files}


def test_lists(x: pyxnat.Interface, lab: Lab) -> None:
    assert sorted(x.select.projects().get()) == ["ALFA", "DWI", "MESSY"]
    project = x.select.project("ALFA")
    assert project.exists()
    assert project.subjects().get("label") == ["sub001", "sub002", "sub003", "sub004", "sub005", "007"]
    subject = project.subject("sub001")
    assert subject.id() == "DEMO_S00001"
    assert sorted(subject.experiments().get("label")) == ["sub001_MR1", "sub001_MR2"]
    session = subject.experiment("sub001_MR1")
    assert session.id() == "DEMO_E00001" and session.datatype() == "xnat:mrSessionData"
    assert session.scans().get() == ["1", "2", "3", "4", "5"]
    assert sorted(r.label() for r in session.scan("2").resources()) == ["DICOM", "NIFTI", "NIFTI_PLAIN"]
    labels = {r.label() for r in session.resources()}
    assert labels == {f.resource for f in lab.files(session="sub001_MR1", kind="session")}
    assert not project.subject("nobody").exists() and not x.select.project("SECRET").exists()


def test_shared_session_stands_under_its_other_label(x: pyxnat.Interface) -> None:
    project = x.select.project("DWI")
    assert "dwi02" in project.subjects().get("label") and "bond" in project.subjects().get("label")
    assert "dwi02_scan" in project.experiments().get("label")


def test_attributes(x: pyxnat.Interface) -> None:
    session = x.select.experiment("DEMO_E00005")
    assert session.label() == "sub003_MR2"
    scan = session.scan("6")
    assert scan.attrs.get("type") == "T1_ALFA1" and scan.attrs.get("quality") == "unusable"
    assert scan.attrs.mget(["type", "quality", "series_description"]) == ["T1_ALFA1", "unusable", "T1_ALFA1 repeat"]
    assert session.attrs.get("date") == "2023-04-18"


def test_files(x: pyxnat.Interface, lab: Lab, tmp_path: Path) -> None:
    resource = x.select.experiment("DEMO_E00001").resource("FREESURFER6")
    expected = lab.files(session="sub001_MR1", resource="FREESURFER6")
    assert sorted(resource.files().get()) == sorted(f.path for f in expected)
    (aseg,) = resource.files("*aseg.stats")
    stats = next(f for f in expected if f.path.endswith("aseg.stats"))
    assert Path(aseg.get(str(tmp_path / "aseg.stats"))).read_bytes() == stats.read()
    assert int(aseg.size()) == stats.size and aseg.attributes()["digest"] == stats.digest
    assert aseg.last_modified()


def test_resource_zip(x: pyxnat.Interface, lab: Lab, tmp_path: Path) -> None:
    resource = x.select.experiment("DEMO_E00001").resource("FREESURFER7")
    resource.get(str(tmp_path), extract=True)
    assert below(tmp_path / "FREESURFER7") == contents(lab.files(session="sub001_MR1", resource="FREESURFER7"))


def test_scan_resource_zip(x: pyxnat.Interface, lab: Lab, tmp_path: Path) -> None:
    resource = x.select.project("ALFA").subject("sub001").experiment("sub001_MR1").scan("2").resource("DICOM")
    resource.get(str(tmp_path), extract=True)
    assert below(tmp_path / "DICOM") == contents(lab.files(session="sub001_MR1", scan="2", resource="DICOM"))


@pytest.mark.parametrize("types", ["ALL", "T1_ALFA1,DWI"])
def test_scans_download(x: pyxnat.Interface, lab: Lab, tmp_path: Path, types: str) -> None:
    session = x.select.project("ALFA").subject("007").experiment("007_MR1")
    session.scans().download(str(tmp_path), type=types, extract=True)
    expected = [f for f in lab.files(session="007_MR1", kind="scan") if types == "ALL" or f.scan_type in types.split(",")]
    found = {path.partition("/scans/")[2]: data for path, data in below(tmp_path).items()}
    assert found == {f"{f.scan}-{f.scan_type}/resources/{f.resource}/files/{f.path}": f.read() for f in expected}


def test_measurements_by_pyxnat_itself(x: pyxnat.Interface, lab: Lab) -> None:
    """pyxnat attaches parsers to resources by their labels."""
    pytest.importorskip("pandas")
    table = x.select.experiment("DEMO_E00001").resource("ASHS").volumes()
    truth = lab.measurements.ashs("DEMO_E00001", "left")
    left = table[table["side"] == "left"]
    assert dict(zip(left["region"], left["volume"].astype(float), strict=True)) == {r: float(v) for r, (_, v) in truth.items()}


def test_array_of_experiments(x: pyxnat.Interface, lab: Lab) -> None:
    rows = x.array.experiments(project_id="ALFA", columns=["label", "subject_label", "date"]).data
    sessions = {row["ID"]: row for row in rows}
    assert sessions["DEMO_E00001"]["label"] == "sub001_MR1" and sessions["DEMO_E00001"]["subject_label"] == "sub001"
    assert len(sessions) == 11
    assert sessions["DEMO_E00006"]["date"] == ""


def test_array_of_scans(x: pyxnat.Interface) -> None:
    rows = x.array.scans(experiment_id="DEMO_E00005", columns=["xnat:imagescandata/id", "xnat:imagescandata/type"]).data
    assert sorted(row["xnat:imagescandata/id"] for row in rows) == ["1", "2", "3", "4", "5", "6"]


def test_wrong_password(lab: Lab) -> None:
    interface = pyxnat.Interface(server=lab.url, user="demo", password="wrong")
    with pytest.raises(Exception, match=r"401|[Cc]redentials|[Uu]nauthori[sz]ed"):
        interface.select.projects().get()
