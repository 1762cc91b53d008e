"""xnatpy 0.8, unmodified, on the stand-in: objects built from the server's schema, lists, downloads, files
opened in place.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Lab
from xnatfs.demo.data.lab import READABLE

xnat = pytest.importorskip("xnat")


@pytest.fixture
def connection(lab: Lab) -> Iterator[Any]:
    with xnat.connect(lab.url, user="demo", password="demo") as session:
        yield session


def test_lists(connection: Any, lab: Lab) -> None:
    assert sorted(p.id for p in connection.projects.values()) == list(READABLE)
    project = connection.projects["ALFA"]
    assert [s.label for s in project.subjects.values()] == [
        "sub001",
        "sub002",
        "sub003",
        "sub004",
        "sub005",
        "007",
    ]
    session = project.subjects["sub003"].experiments["sub003_MR2"]
    assert session.id == "DEMO_E00005" and [s.id for s in session.scans.values()] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
    ]
    assert session.scans["6"].quality == "unusable" and session.scans["6"].type == "T1_ALFA1"
    assert session.scans["DWI"].id == "4"
    assert {r.label for r in session.resources.values()} == {
        f.resource for f in lab.files(session="sub003_MR2", kind="session")
    }
    assert {r.label for r in project.resources.values()} == {"protocol", "spreadsheets"}


def test_files(connection: Any, lab: Lab) -> None:
    resource = connection.projects["ALFA"].experiments["sub001_MR1"].resources["ASHS"]
    expected = {f.path: f for f in lab.files(session="sub001_MR1", resource="ASHS")}
    digests = lab.profile == "full"  # older servers list none
    found = {f.path: (int(f.file_size), f.digest) for f in resource.files.values()}
    assert found == {
        path: (truth.size, truth.digest if digests else None) for path, truth in expected.items()
    }


def test_download_a_file(connection: Any, lab: Lab, tmp_path: Path) -> None:
    scan = connection.projects["ALFA"].experiments["sub001_MR1"].scans["2"]
    (file,) = scan.resources["NIFTI_PLAIN"].files.values()
    file.download(str(tmp_path / "t1.nii"), verbose=False)
    (truth,) = lab.files(session="sub001_MR1", scan="2", resource="NIFTI_PLAIN")
    assert (tmp_path / "t1.nii").read_bytes() == truth.read()


def test_open_a_file_in_place(connection: Any, lab: Lab) -> None:
    (truth,) = (f for f in lab.files(session="sub001_MR1", resource="ASHS") if f.path.endswith("icv.txt"))
    file = connection.projects["ALFA"].experiments["sub001_MR1"].resources["ASHS"].files[truth.path]
    with file.open() as stream:
        assert stream.read() == truth.read()


def test_download_a_resource(connection: Any, lab: Lab, tmp_path: Path) -> None:
    resource = connection.projects["ALFA"].experiments["sub002_MR1"].scans["2"].resources["DICOM"]
    resource.download(str(tmp_path / "dicom.zip"), verbose=False)
    with zipfile.ZipFile(tmp_path / "dicom.zip") as packed:
        found = {
            name.rpartition("/files/")[2]: hashlib.md5(packed.read(name)).hexdigest()
            for name in packed.namelist()
        }
    assert found == {f.path: f.digest for f in lab.files(session="sub002_MR1", scan="2", resource="DICOM")}


def test_download_a_resource_into_a_folder(connection: Any, lab: Lab, tmp_path: Path) -> None:
    connection.projects["ALFA"].experiments["sub002_MR1"].resources["FREESURFER7"].download_dir(
        str(tmp_path), verbose=False
    )
    found = {
        p.as_posix().rpartition("/files/")[2]: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()
    }
    assert found == {f.path: f.read() for f in lab.files(session="sub002_MR1", resource="FREESURFER7")}


def test_download_a_scan(connection: Any, lab: Lab, tmp_path: Path) -> None:
    connection.projects["ALFA"].experiments["sub002_MR1"].scans["4"].download(
        str(tmp_path / "scan.zip"), verbose=False
    )
    with zipfile.ZipFile(tmp_path / "scan.zip") as packed:
        found = {name.rpartition("/files/")[2]: packed.read(name) for name in packed.namelist()}
    assert found == {f.path: f.read() for f in lab.files(session="sub002_MR1", scan="4")}


def test_download_a_session_into_a_folder(connection: Any, lab: Lab, tmp_path: Path) -> None:
    connection.projects["ALFA"].experiments["sub002_MR1"].download_dir(str(tmp_path), verbose=False)
    found = {p.as_posix().partition("/scans/")[2]: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    expected = lab.files(session="sub002_MR1", kind="scan")
    assert found == {
        f"{f.scan}-{f.scan_type}/resources/{f.resource}/files/{f.path}": f.read() for f in expected
    }


def test_tabulate(connection: Any, lab: Lab) -> None:
    rows = connection.projects["ALFA"].experiments.tabulate(columns=("ID", "label", "date"))
    found = {row.label: (row.ID, row.date) for row in rows}
    assert (
        len(found) == 11 and found["sub001_MR1"][0] == "DEMO_E00001" and "2021" in str(found["sub001_MR1"][1])
    )


def test_a_stranger_sees_nothing_private(lab: Lab) -> None:
    """MESSY is protected: whoever is not a member sees that it exists, and none of its data."""
    with xnat.connect(lab.url, user="outsider", password="outsider") as session:
        assert {p.id for p in session.projects.values()} == {"DWI", "MESSY"}
        assert len(session.projects["DWI"].subjects) == 4
        with pytest.raises(xnat.exceptions.XNATResponseError, match="403"):
            len(session.projects["MESSY"].subjects)


def test_wrong_password(lab: Lab) -> None:
    with pytest.raises(xnat.exceptions.XNATLoginFailedError):
        xnat.connect(lab.url, user="demo", password="wrong")
