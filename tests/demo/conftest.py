"""A tiny archive with one of everything, served; used by the tests of the stand-in's HTTP server."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime

import pytest
import requests

from tests.support import as_new
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import (
    Archive,
    BytesContent,
    CatalogEntry,
    ComputedContent,
    Experiment,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Subject,
    User,
)
from xnatfs.demo.server import DemoServer

WHEN = datetime(2024, 3, 5, 6, 7, 8, 700000)


def entry(path: str, data: bytes = b"data", **more: object) -> CatalogEntry:
    return CatalogEntry(path, BytesContent(data), WHEN, **more)  # type: ignore[arg-type]


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def tiny() -> Archive:
    """P1 (alice) with subject S1, session E1 with all kinds of things; PUB public; PROT protected; HID hidden
    from alice.
    """
    archive = Archive(site="T", _next_number=500)
    for user in (User("admin", "admin", True), User("alice", "alice"), User("bob", "bob")):
        archive.users[user.login] = user
    for name, access, members in (
        ("P1", "private", {"alice"}),
        ("PUB", "public", set()),
        ("PROT", "protected", set()),
        ("HID", "private", set()),
    ):
        archive.projects[name] = Project(
            name, f"The {name}", WHEN, WHEN, access=access, members=set(members), pi_lastname="Doe"
        )
    for number, project in ((1, "P1"), (2, "PUB"), (3, "HID")):
        subject = Subject(f"T_S{number}", f"sub{number}", project, WHEN, WHEN, gender="F", yob="1950")
        archive.subjects[subject.id] = subject
        session = Experiment(
            f"T_E{number}",
            f"mr{number}",
            project,
            subject.id,
            "xnat:mrSessionData",
            WHEN,
            WHEN,
            date="2024-01-02",
        )
        archive.experiments[session.id] = session
    _fill(archive, archive.experiments["T_E1"])
    archive.experiments["T_E2"].shares["P1"] = "shared_mr"
    archive.subjects["T_S2"].shares["P1"] = "shared_sub"
    archive.subjects["T_S1"].resources.append(Resource(11, "NOTES", [entry("n.txt")]))
    archive.projects["P1"].resources.append(Resource(12, "DOCS", [entry("d.pdf")]))
    clinical = Experiment(
        "T_E9",
        "visit",
        "P1",
        "T_S1",
        "xnat:qcData",
        WHEN,
        WHEN,
        resources=[Resource(13, "FORM", [entry("f.json")])],
    )
    archive.experiments["T_E9"] = clinical
    return archive


def _fill(archive: Archive, session: Experiment) -> None:
    session.fields = {"scanner/model": "Skyra", "fieldStrength": "3.0", "modality": "MR"}
    dicom = Resource(
        101, "DICOM", [entry(f"{n}.dcm", bytes([n]) * 10) for n in range(3)], format="DICOM", content="RAW"
    )
    nifti = Resource(
        102,
        "NIFTI",
        [entry("t1.nii.gz", b"n" * 20, digest="", format="NII"), entry("t1.json", b"{}", tags="a=b")],
        format="NIFTI",
    )
    session.scans = [
        Scan("1", "T1 w/GRE", 201, series_description="T1, sagittal", resources=[dicom, nifti]),
        Scan("2", "1", 202, quality="questionable"),
        Scan(
            "3-MR1",
            "",
            203,
            xsi_type="xnat:petScanData",
            resources=[Resource(103, "DICOM", [entry("x.dcm")], stats_known=False)],
        ),
        Scan("a b/c,d", "odd", 204),
    ]
    names = [
        "a+b.txt",
        "a b.txt",
        "dir/c#d.txt",
        "dir/é.txt",
        "100%.txt",
        "x.zip/in.txt",
        "gone.bin",
        "plain.txt",
        "p.PDF",
        "data",
    ]
    files = [entry(name, name.encode()) for name in names]
    files[6].content, files[6].catalog_size = None, 7
    files.append(entry("pack.zip", zipped(top=b"one", dir__in=b"two")))
    files.append(CatalogEntry("f100k.bin", ComputedContent("f100k", 100_000), WHEN))
    files.append(entry("empty", b""))
    session.resources = [
        Resource(110, "FILES", files),
        Resource(111, "", [entry("nolabel.txt")]),
        Resource(112, "777", [entry("digits.txt")]),
        Resource(113, "MY RES", [entry("space.txt")]),
    ]
    session.reconstructions = [
        Reconstruction(
            "R1",
            "avg",
            301,
            "T1",
            [Resource(120, "RAWIN", [entry("i")])],
            [Resource(121, "MEAN", [entry("m.nii")])],
        )
    ]
    assessor = Experiment(
        "T_A1",
        "fs1",
        "P1",
        "T_S1",
        "fs:fsData",
        WHEN,
        WHEN,
        session_id="T_E1",
        fields={"procstatus": "COMPLETE"},
        in_resources=[Resource(130, "INPUT", [entry("in.txt")])],
        out_resources=[
            Resource(131, "DATA", [entry("stats/aseg.stats")]),
            Resource(132, "SNAP", [entry("s.png")]),
        ],
        resources=[Resource(133, "PLAIN", [entry("plain.txt")])],
    )
    archive.experiments[assessor.id] = assessor


class Client(requests.Session):
    """A session that knows its server: paths instead of URLs, and tables as lists of rows."""

    def __init__(self, server: DemoServer, user: str = "alice") -> None:
        super().__init__()
        self.server = server
        if user:
            self.auth = (user, user)

    def request(self, method: str, url: str, *args: object, **more: object) -> requests.Response:  # type: ignore[override]
        return super().request(method, self.server.url + url, *args, **more)  # type: ignore[arg-type]

    def rows(self, path: str) -> list[dict[str, str]]:
        reply = self.get(path)
        assert reply.status_code == 200, reply.text
        rows: list[dict[str, str]] = reply.json()["ResultSet"]["Result"]
        return rows


@pytest.fixture(scope="package")
def _served() -> Iterator[DemoServer]:
    with DemoServer(tiny(), Switches(hang_seconds=0.4)) as server:
        yield server


@pytest.fixture
def server(_served: DemoServer) -> Iterator[DemoServer]:
    """The shared server, its switches and log as new. Do not change its data: see `own`."""
    as_new(_served, hang_seconds=0.4)
    yield _served


@pytest.fixture
def own() -> Iterator[DemoServer]:
    """A server of one's own, for tests that change data."""
    with DemoServer(tiny(), Switches(hang_seconds=0.4)) as server:
        yield server


@pytest.fixture
def alice(server: DemoServer) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def admin(server: DemoServer) -> Iterator[Client]:
    with Client(server, "admin") as client:
        yield client


@pytest.fixture
def nobody(server: DemoServer) -> Iterator[Client]:
    with Client(server, "") as client:
        yield client
