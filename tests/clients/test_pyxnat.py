"""pyxnat 1.6, unmodified, on the stand-in: lists, files, zips, the array and search interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pyxnat

from tests.clients.conftest import Lab
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import TrueFile


@pytest.fixture
def x(lab: Lab) -> Iterator[pyxnat.Interface]:
    interface = pyxnat.Interface(server=lab.url, user="demo", password="demo")
    yield interface
    interface.disconnect()


def labels(collection: Iterable[Any]) -> list[str]:
    """pyxnat's own `get("label")` gives ids the first time it is called."""
    return [thing.label() for thing in collection]


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def contents(files: list[TrueFile]) -> dict[str, bytes]:
    return {file.path: file.read() for file in files}


def test_lists(x: pyxnat.Interface, lab: Lab) -> None:
    assert sorted(x.select.projects().get()) == list(READABLE)
    project = x.select.project("ALFA")
    assert project.exists()
    assert labels(project.subjects()) == ["sub001", "sub002", "sub003", "sub004", "sub005", "007"]
    subject = project.subject("sub001")
    assert subject.id() == "DEMO_S00001"
    assert sorted(labels(subject.experiments())) == ["sub001_MR1", "sub001_MR2"]
    session = subject.experiment("sub001_MR1")
    assert session.id() == "DEMO_E00001" and session.datatype() == "xnat:mrSessionData"
    assert session.scans().get() == ["1", "2", "3", "4", "5"]
    assert sorted(labels(session.scan("2").resources())) == ["DICOM", "NIFTI", "NIFTI_PLAIN"]
    assert set(labels(session.resources())) == {
        f.resource for f in lab.files(session="sub001_MR1", kind="session")
    }
    assert not project.subject("nobody").exists() and not x.select.project("SECRET").exists()


def test_shared_session_stands_under_its_other_label(x: pyxnat.Interface) -> None:
    project = x.select.project("DWI")
    assert {"dwi02", "bond"} < set(labels(project.subjects()))
    session = project.subject("dwi02").experiment("dwi02_scan")
    assert session.id() == "DEMO_E00003" and session.label() == "dwi02_scan"


def test_attributes(x: pyxnat.Interface) -> None:
    session = x.select.experiment("DEMO_E00005")
    assert session.label() == "sub003_MR2"
    scan = session.scan("6")
    assert scan.attrs.get("type") == "T1_ALFA1" and scan.attrs.get("quality") == "unusable"
    assert scan.attrs.mget(["type", "quality", "series_description"]) == [
        "T1_ALFA1",
        "unusable",
        "T1_ALFA1 repeat",
    ]
    assert session.attrs.get("date") == "2023-04-18"


def test_descriptions(x: pyxnat.Interface) -> None:
    """What an interactive session shows; pyxnat asks the search engine for it."""
    assert "`ALFA: healthy ageing (sample data)` (private) 6 subjects 9 MR experiments" in repr(
        x.select.project("ALFA")
    )
    assert "`sub001_MR1` (subject: DEMO_S00001 `sub001`) (project: ALFA) 5 scans 6 resources" in repr(
        x.select.experiment("DEMO_E00001")
    )
    assert "sub001" in repr(x.select.project("ALFA").subject("sub001"))
    assert "T1_ALFA1" in repr(x.select.experiment("DEMO_E00001").scan("2"))


def test_search(x: pyxnat.Interface) -> None:
    found = x.select(
        "xnat:mrSessionData", ["xnat:mrSessionData/SESSION_ID", "xnat:mrSessionData/PROJECT"]
    ).where([("xnat:mrSessionData/PROJECT", "=", "ALFA"), "AND"])
    assert sorted(found.get("session_id")) == [f"DEMO_E0000{n}" for n in range(1, 10)]


def test_files(x: pyxnat.Interface, lab: Lab, tmp_path: Path) -> None:
    resource = x.select.experiment("DEMO_E00001").resource("FREESURFER6")
    expected = lab.files(session="sub001_MR1", resource="FREESURFER6")
    assert sorted(file.id() for file in resource.files()) == sorted(f.path for f in expected)
    (aseg,) = resource.files("*aseg.stats")
    stats = next(f for f in expected if f.path.endswith("aseg.stats"))
    assert Path(aseg.get(str(tmp_path / "aseg.stats"))).read_bytes() == stats.read()
    assert int(aseg.size()) == stats.size
    if lab.profile == "full":  # older servers list no digests
        assert aseg.attributes()["digest"] == stats.digest
    assert aseg.last_modified()


def test_resource_zip(x: pyxnat.Interface, lab: Lab, tmp_path: Path) -> None:
    resource = x.select.experiment("DEMO_E00001").resource("FREESURFER7")
    resource.get(str(tmp_path), extract=True)
    assert below(tmp_path / "FREESURFER7") == contents(
        lab.files(session="sub001_MR1", resource="FREESURFER7")
    )


def test_scan_resource_zip(x: pyxnat.Interface, lab: Lab, tmp_path: Path) -> None:
    resource = x.select.project("ALFA").subject("sub001").experiment("sub001_MR1").scan("2").resource("DICOM")
    resource.get(str(tmp_path), extract=True)
    assert below(tmp_path / "DICOM") == contents(lab.files(session="sub001_MR1", scan="2", resource="DICOM"))


@pytest.mark.parametrize("types", ["ALL", "T1_ALFA1,DWI"])
def test_scans_download(x: pyxnat.Interface, lab: Lab, tmp_path: Path, types: str) -> None:
    session = x.select.project("ALFA").subject("007").experiment("007_MR1")
    session.scans().download(str(tmp_path), type=types, extract=True)
    expected = [
        f
        for f in lab.files(session="007_MR1", kind="scan")
        if types == "ALL" or f.scan_type in types.split(",")
    ]
    found = {
        path.partition("/scans/")[2]: data
        for path, data in below(tmp_path).items()
        if not path.endswith(".zip")
    }
    assert found == {
        f"{f.scan}-{f.scan_type}/resources/{f.resource}/files/{f.path}": f.read() for f in expected
    }


def test_measurements_by_pyxnat_itself(x: pyxnat.Interface, lab: Lab) -> None:
    """pyxnat attaches parsers to resources by their labels."""
    pytest.importorskip("pandas")
    table = x.select.experiment("DEMO_E00001").resource("ASHS").volumes()
    truth = lab.measurements.ashs("DEMO_E00001", "left")
    left = table[table["side"] == "left"]
    assert dict(zip(left["region"], left["volume"].astype(float), strict=True)) == {
        r: float(v) for r, (_, v) in truth.items()
    }


def test_array_of_experiments(x: pyxnat.Interface, lab: Lab) -> None:
    rows = x.array.experiments(project_id="ALFA", columns=["label", "subject_label", "date"]).data
    sessions = {row["ID"]: row for row in rows}
    assert (
        sessions["DEMO_E00001"]["label"] == "sub001_MR1"
        and sessions["DEMO_E00001"]["subject_label"] == "sub001"
    )
    assert len(sessions) == 11
    assert sessions["DEMO_E00006"]["date"] == ""


def test_array_of_scans(x: pyxnat.Interface) -> None:
    rows = x.array.scans(
        experiment_id="DEMO_E00005", columns=["xnat:imagescandata/id", "xnat:imagescandata/type"]
    ).data
    assert sorted(row["xnat:imagescandata/id"] for row in rows) == ["1", "2", "3", "4", "5", "6"]


def test_wrong_password(lab: Lab) -> None:
    """pyxnat takes a refusal for an empty list."""
    interface = pyxnat.Interface(server=lab.url, user="demo", password="wrong")
    assert interface.select.projects().get() == []
