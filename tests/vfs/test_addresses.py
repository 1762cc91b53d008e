"""Files are asked for where we know them to be, not where a listing says: shared subjects, scans that are
united with others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support import read, walk
from tests.vfs.conftest import Compose, Shelf
from xnatfs.content.access_pattern import access_of
from xnatfs.demo import resources
from xnatfs.demo.data import freesurfer
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, Resource
from xnatfs.demo.server import DemoServer
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server import listing_requests
from xnatfs.server.records import FileRecord, Owner, ResourceRecord
from xnatfs.vfs import Vfs


def contents(vfs: Vfs, path: str) -> dict[str, bytes]:
    return {name[len(path) + 1 :]: read(vfs, name) for name, _ in walk(vfs, path)}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoServer]:
    """A subject with a resource, a session and an assessor, at home in HOME and shared into GUEST, of which
    `guest` is a member.

    The stand-in's URIs are made those of the real server (xnat-rest.md 13): a subject's files are listed
    through its primary project."""
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("owner")
    make.user("guest")
    home, guest = (
        make.project("HOME", "HOME", members=["owner"]),
        make.project("GUEST", "GUEST", members=["guest"]),
    )
    subject = make.subject(home, "at_home")
    session = make.experiment(subject, "mr_home", date="2024-01-08")
    scan = make.scan(session, "1", "T1")
    assessor = make.assessor(session, "qc", "xnat:qcManualAssessorData")
    for one in (subject, session, assessor):
        one.shares[guest.id] = f"{one.label}_as_guest"
    texts: list[Resource] = [
        make.resource(subject, "FORMS", {"consent.pdf": b"consent", "sub/x.txt": b"x"}),
        make.resource(session, "NOTES", {"notes.txt": b"notes"}),
        make.resource(scan, "NIFTI", {f"t{number}.nii": b"%d" % number for number in range(20)}),
        make.resource(assessor.out_resources, "DATA", {"out.csv": b"out"}),
    ]
    numbers = {one.id for one in subject.resources}
    locate = resources._locate

    def through_the_primary_project(item: object, entry: object, base: str, locator: str) -> str:
        if item.resource.id in numbers and locator == "URI":  # type: ignore[attr-defined]
            base = f"/data/projects/{subject.project}/subjects/{subject.id}"
        return locate(item, entry, base, locator)  # type: ignore[arg-type]

    monkeypatch.setattr(resources, "_locate", through_the_primary_project, raising=False)
    assert texts
    with DemoServer(archive) as server:
        yield server


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_a_user_of_the_sharing_project_alone_reads_every_file(
    shared: DemoServer, compose: Compose, profile: str
) -> None:
    shared.switches.profile = profile
    vfs = compose(shared, user="guest").vfs
    found = contents(vfs, "/projects/GUEST")
    assert {name.rpartition("/")[2] for name in found} >= {
        "consent.pdf",
        "x.txt",
        "notes.txt",
        "out.csv",
        "t0.nii",
        "t19.nii",
    }
    assert found["subjects/at_home_as_guest/RESOURCES/FORMS/consent.pdf"] == b"consent"
    assert sorted(contents(vfs, "/archive/projects/GUEST").values()) == sorted(found.values())
    assert not shared.requests("/projects/HOME")


def test_the_address_shown_is_the_one_that_is_asked(shared: DemoServer, compose: Compose) -> None:
    vfs = compose(shared, user="guest").vfs
    for name, _ in walk(vfs, "/projects/GUEST"):
        uri = vfs.xattr(name, "user.xnat.uri").decode()
        assert "/projects/" not in uri
        shared.clear_log()
        read(vfs, name)
        assert all(
            one.target.partition("?")[0] in (uri, uri[: uri.index("/files/") + 6])
            for one in shared.requests()
        ), uri


@pytest.fixture
def united() -> Iterator[DemoServer]:
    """A session whose scan 4 has the type "2", and whose scan 2 has resources of the same labels."""
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    session = make.experiment(
        make.subject(make.project("P", "P", members=["demo"]), "s"), "S", date="2024-01-08"
    )
    for scan, kind in (("2", "T1"), ("4", "2")):
        one = make.scan(session, scan, kind)
        make.resource(one, "NIFTI", {"image.nii": f"image of {scan}".encode(), f"only{scan}.nii": b"only"})
        make.resource(one, "DICOM", {f"{number}.dcm": f"{number} of {scan}".encode() for number in range(30)})
    for recon, kind in (("r1", "r2"), ("r2", "x")):
        for way in ("in", "out"):
            again = make.reconstruction(session, recon, kind) if way == "in" else session.reconstructions[-1]
            make.resource(
                again.in_resources if way == "in" else again.out_resources,
                "NII",
                {"r.nii": f"{way} of {recon}".encode()},
            )
    with DemoServer(archive) as server:
        yield server


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_a_scan_whose_type_is_the_id_of_another_is_kept_apart(
    united: DemoServer, compose: Compose, profile: str
) -> None:
    united.switches.profile = profile
    united.switches.latency_ms = 5
    vfs = compose(united).vfs
    for room, folders in (
        ("/projects/P/subjects/s/S/SCANS", {"2": "2-T1", "4": "4-2"}),
        ("/archive/projects/P/experiments/S/SCANS", {"2": "2", "4": "4"}),
    ):
        assert [name for name, _ in vfs.entries(room)] == sorted(folders.values())
        for scan, folder in folders.items():
            other = "4" if scan == "2" else "2"
            found = contents(vfs, f"{room}/{folder}")
            assert len(found) == 32 and f"NIFTI/only{other}.nii" not in found
            assert found["NIFTI/image.nii"] == f"image of {scan}".encode()
            assert all(found[f"DICOM/{number}.dcm"] == f"{number} of {scan}".encode() for number in range(30))
    assert united.requests("format=zip") and all(
        "/resources/" in one.target for one in united.requests("format=zip")
    )
    flat = contents(vfs, "/views/P/by-scan-type/2/all/NIFTI")
    assert sorted(flat.values()) == [b"image of 4", b"only"]
    found = contents(vfs, "/projects/P/subjects/s/S/RECONSTRUCTIONS")
    assert len(found) == 4 and all(text.split(b" of ")[1] in name.encode() for name, text in found.items()), (
        found
    )


@pytest.mark.parametrize("numbers", [True, False])
def test_a_table_takes_no_values_from_a_scan_that_is_united_with_its_own(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch, numbers: bool
) -> None:
    """Of the last session, scan 2 lacks the file and scan 4, of the type "2", has it: by label the server
    gives that one for both.

    Without numbers, as from a server that does not tell them in its listing of all scans, no path is guessed
    at below a scan."""
    if not numbers:
        monkeypatch.setattr(listing_requests, "_SCAN_EXTRAS", ())
    for label in ("one", "two", "three", "z_united"):
        session = shelf.make.experiment(shelf.subject, label, date="2024-01-08")
        for scan, kind in (("2", "T1"), ("4", "2")) if label == "z_united" else (("2", "T1"),):
            stats = (
                {f"{label}/stats/aseg.stats": freesurfer.aseg_stats(session.id, "6", "x")}
                if (label, scan) != ("z_united", "2")
                else {}
            )
            shelf.make.resource(
                shelf.make.scan(session, scan, kind), "FREESURFER6", {"log.txt": b"done", **stats}
            )
    vfs = compose(shelf.server).vfs
    table = read(vfs, "/tables/P/freesurfer6/aseg.csv").decode().splitlines()
    assert {row.split(",")[table[0].split(",").index("label")] for row in table[1:]} == {
        "one",
        "two",
        "three",
    }
    problems = read(vfs, "/tables/P/freesurfer6/aseg.problems.csv").decode()
    assert any("z_united" in row and "scan 2" in row for row in problems.splitlines())


def test_the_listing_of_resources_tells_whose_files_are_before_their_uris_do() -> None:
    """A URI names another scan, or repeats what was asked; the number in the listing of resources is one
    scan's.
    """
    right, wrong = Owner("scan", "E1", "4"), Owner("scan", "E1", "2")
    rows = [FileRecord(wrong, 14, "NIFTI", "x.nii", 5, ""), FileRecord(wrong, 11, "NIFTI", "t1.nii", 5, "")]
    snapshot = FileIndex.of(rows)
    files = snapshot.of_resource(ResourceRecord(right, "NIFTI", 14))
    assert files is not None and [one.uri for one in files] == [
        "/data/experiments/E1/scans/4/resources/14/files/x.nii"
    ]
    assert access_of(snapshot, files).records[0].owner == right
    theirs = snapshot.of_resource(ResourceRecord(wrong, "NIFTI", 11))
    assert (
        theirs is not None
        and theirs is snapshot.by_resource[11]
        and access_of(snapshot, theirs).records is theirs
    )
    assert snapshot.of_resource(ResourceRecord(right, "NIFTI")) is None
