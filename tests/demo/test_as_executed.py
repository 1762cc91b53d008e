"""What was learnt when XNAT's own code was executed, as facts of the stand-in (xnat-rest.md 12 to 14).

The recorded replies themselves are compared with in `test_replies`, where they are; these stay here so that
nothing is lost without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xnatfs.demo.model import Experiment, Resource, Scan
from xnatfs.demo.server import DemoServer

from .conftest import WHEN, Client, entry

P1 = "/data/projects/P1/experiments"
E1 = "/data/experiments/T_E1"
EMPTY = (200, b"", "application/json;charset=ISO-8859-1")


@pytest.fixture
def site(own: DemoServer) -> Iterator[DemoServer]:
    """The tiny archive with custom variables, a second assessor resource, a session with a broken catalogue
    and a quarantined one.
    """

    def prepare() -> None:
        archive = own.archive
        archive.subjects["T_S1"].custom = {"code": "v1", "Blood Type": "A+"}
        archive.subjects["T_S1"].fields = {"height": "180", "handedness": "right"}
        for name, label in (("T_E4", "broken"), ("T_E5", "away")):
            session = Experiment(name, label, "P1", "T_S1", "xnat:mrSessionData", WHEN)
            session.resources = [Resource(401 if name == "T_E4" else 501, "GOOD", [entry("g.txt", b"good")])]
            session.scans = [
                Scan(
                    "1",
                    "T1",
                    290,
                    resources=[Resource(402 if name == "T_E4" else 502, "NIFTI", [entry("t1.nii")])],
                )
            ]
            archive.experiments[name] = session
        archive.experiments["T_E4"].resources.append(Resource(403, "BROKEN", [entry("b.txt")], broken=True))
        archive.experiments["T_E5"].status = "quarantine"
        archive.projects["P1"].collaborators.add("bob")
        archive.experiments["T_E2"].resources.append(Resource(601, "NOTES", [entry("shared.txt", b"shared")]))
        archive.subjects["T_S2"].resources.append(Resource(602, "CONSENT", [entry("c.pdf")]))
        archive.projects["PUB"].access = "private"

    own.call(prepare)
    return own


@pytest.fixture
def alice(site: DemoServer) -> Iterator[Client]:
    with Client(site) as client:
        yield client


def only(client: Client, path: str, name: str) -> dict[str, str]:
    (row,) = [row for row in client.rows(path) if row["ID"] == name]
    return row


def test_whose_labels_a_form_has(alice: Client) -> None:
    """Those of the project in its own list if the label is asked for, else the primary ones."""
    row = only(alice, f"{P1}?columns=ID,label,project,subject_label", "T_E2")
    assert (row["label"], row["project"], row["subject_label"]) == ("shared_mr", "P1", "shared_sub")
    assert only(alice, f"{P1}?columns=ID,project", "T_E2")["project"] == "PUB"
    for root in ("xnat:imageSessionData", "xnat:experimentData", "xnat:mrSessionData"):
        row = only(alice, f"{P1}?xsiType={root}&columns=ID,label,project", "T_E2")
        assert (row["label"], row["project"]) == ("mr2", "PUB")
    row = only(alice, f"{P1}?xsiType=xnat:subjectAssessorData&columns=ID,label,project", "T_E2")
    assert (row["label"], row["project"]) == ("shared_mr", "P1")
    # Filters know primary labels only.
    assert alice.rows(f"{P1}?label=shared_mr") == [] and len(alice.rows(f"{P1}?label=mr2")) == 1
    assert alice.rows("/data/projects/P1/subjects?label=shared_sub") == []


def test_which_rows_and_keys_a_form_has(alice: Client) -> None:
    sessions = {"T_E1", "T_E2", "T_E4", "T_E5"}
    rows = {row["ID"] for row in alice.rows(f"{P1}?columns=ID,xnat:experimentData/resources/resource/label")}
    assert rows == sessions | {"T_E9"}  # no image assessors
    assert {row["ID"] for row in alice.rows(f"{P1}?xsiType=xnat:experimentData&columns=ID")} == sessions | {
        "T_E9",
        "T_A1",
    }
    for narrowing in ("session_ID", "scanner", "xnat:imageSessionData/scanner/model"):
        rows = alice.rows(f"{P1}?columns=ID,{narrowing}")
        assert {row["ID"] for row in rows} == sessions and rows[0]["session_ID"] == rows[0]["ID"]
    assert only(alice, f"{P1}?columns=ID,label", "T_E1").keys() == {
        "xnat:subjectassessordata/id",
        "ID",
        "label",
        "xsiType",
        "project",
        "URI",
    }
    assert only(alice, f"{P1}?columns=ID&xsiType=xnat:mrSessionData", "T_E1").keys() == {
        "xnat:mrsessiondata/id",
        "ID",
        "URI",
    }
    # Paths in any case, back in lower case; aliases have one.
    row = only(alice, f"{P1}?columns=ID,XNAT:IMAGESCANDATA/ID&xsiType=xnat:imageSessionData", "T_E4")
    assert row["xnat:imagescandata/id"] == "1"
    assert alice.rows(f"{P1}?columns=id,LABEL")[0].keys() == {
        "xnat:subjectassessordata/id",
        "xsiType",
        "project",
        "URI",
    }
    assert (
        len(alice.rows(f"{P1}?xsiType=xnat:mrSessionData,xnat:petSessionData")) == 5
    )  # a comma list filters nothing


@pytest.mark.parametrize(
    "query",
    [
        "columns=ID,xnat:imageScanData/ID",  # no images under the default root
        "columns=ID,xnat:imageScanData/nosuch&xsiType=xnat:imageSessionData",
        "columns=ID,xnat:imageScanData/file/format&xsiType=xnat:imageSessionData",
        "columns=ID,xnat:projectData/name",
        "columns=ID,subject_label&xsiType=xnat:imageAssessorData",
        "columns=ID&xsiType=xnat:nosuchData",
        "columns=ID&date=2024-01-02",
        "columns=ID&limit=x",
    ],
)
def test_a_form_that_fails_is_a_200_with_nothing(alice: Client, query: str) -> None:
    reply = alice.get(f"{P1}?{query}")
    assert (reply.status_code, reply.content, reply.headers["Content-Type"]) == EMPTY
    assert alice.get(f"/data/experiments?project=P1&{query}").status_code == 500 or "ScanData/ID" in query


def test_an_unknown_element_is_dropped(alice: Client) -> None:
    assert "T_E1" in {row["ID"] for row in alice.rows(f"{P1}?columns=ID,xnat:nosuchData/x,nosuch")}
    assert alice.get("/data/projects/P1/subjects?columns=ID,xnat:subjectData/nosuch").status_code == 500
    assert alice.get("/data/projects/P1/subjects?columns=ID,xnat:imageScanData/ID").status_code == 500
    assert alice.get(f"{E1}/scans?columns=ID,xnat:imageScanData/nosuch").status_code == 500


def test_products_and_united_rows(alice: Client, site: DemoServer) -> None:
    columns = ",".join(
        f"xnat:imageAssessorData/{where}/label" for where in ("out/file", "in/file", "resources/resource")
    )
    rows = alice.rows(f"{P1}?xsiType=xnat:imageAssessorData&columns=ID,{columns}")
    assert [
        tuple(
            row[f"xnat:imageassessordata/{where}/label"]
            for where in ("out/file", "in/file", "resources/resource")
        )
        for row in rows
    ] == [
        ("DATA", "INPUT", "PLAIN"),
        ("SNAP", "INPUT", "PLAIN"),
    ]
    labels = f"{P1}?xsiType=xnat:imageSessionData&columns=ID,xnat:imageScanData/file/label&ID=T_E1"
    assert len(alice.rows(labels)) == 3  # DICOM twice, NIFTI, and two scans without
    site.switches.profile = "1.8.8"
    assert len(alice.rows(labels)) > 3 and {row["ID"] for row in alice.rows(labels)} > {
        "T_E1"
    }  # and the filter is ignored
    assert {row["ID"] for row in alice.rows("/data/experiments?ID=T_E1")} == {"T_E1"}


def test_lists_without_a_project_up_to_1_8_8(alice: Client, site: DemoServer) -> None:
    """The first one of each type and project decides for all of them."""
    site.call(
        lambda: site.archive.experiments.update(
            T_E6=Experiment("T_E6", "other", "PUB", "T_S2", "xnat:mrSessionData", WHEN)
        )
    )
    assert "T_E6" not in {row["ID"] for row in alice.rows("/data/experiments")}
    site.switches.profile = "1.8.8"
    assert "T_E6" in {row["ID"] for row in alice.rows("/data/experiments")}
    assert alice.get("/data/experiments/T_E6?format=json").status_code == 404


def test_subjects_data(alice: Client) -> None:
    subjects = "/data/projects/P1/subjects?columns=ID,"
    row = only(alice, f"{subjects}height,handedness,gender,yob", "T_S1")
    assert (row["height"], row["handedness"], row["gender"], row["yob"]) == ("180.0", "right", "F", "1950")
    # A variable's name is not looked at: one row each, whoever asks for which.
    rows = [
        row
        for row in alice.rows(f"{subjects}xnat:subjectData/fields/field%5Bname%3Dnosuch%5D/field")
        if row["ID"] == "T_S1"
    ]
    assert {row["xnat:subjectdata/fields/field[name=nosuch]/field"] for row in rows} == {"v1", "A+"}
    rows = alice.rows(f"{subjects}xnat:subjectData/fields/field/name,xnat:subjectData/fields/field/field")
    pairs = [
        (row["xnat:subjectdata/fields/field/name"], row["xnat:subjectdata/fields/field/field"])
        for row in rows
        if row["ID"] == "T_S1"
    ]
    assert pairs == [("code", "v1"), ("Blood Type", "A+")]
    assert alice.get(f"{subjects}xnat:subjectData/demographics/gender").status_code == 500


def test_a_quarantined_session_is_listed_but_closed_to_who_may_not_activate(
    site: DemoServer, alice: Client
) -> None:
    with Client(site, "bob") as bob:
        assert only(bob, f"{P1}?columns=ID,label", "T_E5")["label"] == "away"
        away = "/data/experiments/T_E5"
        found = [
            bob.get(away + path).status_code
            for path in ("?format=json", "/resources?all=true", "/assessors", "/scans", "/files?all=true")
        ]
        assert found == [404, 404, 404, 500, 500]
        assert bob.get(f"{away}/resources/501/files/g.txt").status_code == 500
        assert bob.get(f"{E1}/resources/501/files/g.txt").content == b"good"  # by number below another
        assert {row["cat_ID"] for row in bob.rows("/data/experiments/T_E4,T_E5/scans/ALL/files")} == {"402"}
        assert alice.get(f"{away}?format=json").status_code == 200  # a member may


def test_one_broken_catalogue_hides_the_others(alice: Client) -> None:
    session = "/data/experiments/T_E4"
    assert (
        alice.get(f"{session}/files?all=true").status_code
        == alice.get("/data/experiments/T_E1,T_E4/files").status_code
        == 404
    )
    assert (
        alice.get(f"{session}/files?all=true&format=zip").status_code
        == alice.get(f"{session}/resources/BROKEN/files").status_code
        == 404
    )
    assert (
        len(alice.rows(f"{session}/resources?all=true")) == 3
        and len(alice.rows(f"{session}/scans/ALL/files")) == 1
    )
    assert alice.rows(f"{session}/resources/GOOD/files")[0]["Name"] == "g.txt"


def test_several_sessions_in_one_request(alice: Client) -> None:
    uris = [row["URI"] for row in alice.rows("/data/experiments/T_E2,T_E3,NOSUCH,T_E2/files?all=true")]
    assert uris == [
        "/data/experiments/T_E2/resources/601/files/shared.txt"
    ]  # unknown and unreadable ones are left out, each is once
    assert alice.get("/data/experiments/T_E3,NOSUCH/files?all=true").status_code == 500
    # Of an image assessor among several only what it has as an experiment.
    assert [row["cat_ID"] for row in alice.rows("/data/experiments/T_E2,T_A1/files?all=true")] == [
        "601",
        "133",
    ]


def test_a_number_is_answered_below_any_owner(alice: Client, site: DemoServer) -> None:
    for owner in (E1, "/data/experiments/T_E9", "/data/subjects/T_S1", "/data/projects/P1"):
        assert alice.get(f"{owner}/resources/601/files/shared.txt").content == b"shared"
    (row,) = alice.rows(f"{E1}/resources/601/files")
    assert row["URI"] == f"{E1}/resources/601/files/shared.txt"
    site.call(lambda: site.archive.experiments["T_E2"].shares.clear())
    assert alice.get(f"{E1}/resources/601/files/shared.txt").status_code == 404


def test_a_subjects_files_are_named_through_its_primary_project(alice: Client) -> None:
    uri = "/data/projects/PUB/subjects/T_S2/resources/602/files/c.pdf"
    for path in ("/data/subjects/T_S2", "/data/projects/P1/subjects/shared_sub"):
        assert [row["URI"] for row in alice.rows(f"{path}/files")] == [uri]
        assert alice.get(f"{path}/resources/602/files/c.pdf").status_code == 200
    assert alice.get(uri).status_code == 404  # who reads the sharing project only


def test_a_scan_type_equal_to_another_scans_id(alice: Client, site: DemoServer) -> None:
    site.call(
        lambda: (
            site.archive.experiments["T_E1"]
            .scans[1]
            .resources.append(Resource(700, "NIFTI", [entry("two.nii", b"2")]))
        )
    )
    assert [row["cat_ID"] for row in alice.rows(f"{E1}/scans/1/resources/NIFTI/files")] == [
        "102",
        "102",
        "700",
    ]
    assert alice.get(f"{E1}/scans/1/resources/NIFTI/files/t1.json").status_code == 200
    assert (
        alice.get(f"{E1}/scans/1/resources/NIFTI/files/two.nii").status_code == 404
    )  # only the first is looked in
    assert alice.head(f"{E1}/scans/1/resources/NIFTI/files/t1.json").status_code == 404
    assert alice.head(f"{E1}/scans/1/resources/102/files/t1.json").status_code == 200
    assert {row["URI"] for row in alice.rows(f"{E1}/scans/1/resources/102/files")} == {
        f"{E1}/scans/1,2/resources/102/files/t1.nii.gz",
        f"{E1}/scans/1,2/resources/102/files/t1.json",
    }


def test_assessors_are_listed_whoever_asks(alice: Client, site: DemoServer) -> None:
    site.call(lambda: setattr(site.archive.experiments["T_A1"], "project", "HID"))
    assert [row["ID"] for row in alice.rows(f"{E1}/assessors")] == ["T_A1"]
    assert (
        alice.get("/data/experiments/T_A1?format=json").status_code
        == alice.get(f"{E1}/assessors/T_A1/resources").status_code
        == 404
    )
    assert alice.get(f"{E1}/assessors/T_A1/files").status_code == 500
    assert "131" not in {row["xnat_abstractresource_id"] for row in alice.rows(f"{E1}/resources?all=true")}


def test_a_session_that_is_not_there_falls_through(alice: Client) -> None:
    """Below a subject or project its own resources are answered instead."""
    assert [row["cat_ID"] for row in alice.rows("/data/projects/P1/experiments/NOSUCH/files")] == ["12"]
    assert [
        row["label"] for row in alice.rows("/data/projects/P1/subjects/sub1/experiments/NOSUCH/resources")
    ] == ["NOTES"]
    assert alice.get("/data/experiments/NOSUCH/files").status_code == 500


def test_a_protected_project_shows_itself_and_its_own_files(alice: Client, site: DemoServer) -> None:
    site.call(lambda: site.archive.projects["PROT"].resources.append(Resource(800, "R", [entry("p.txt")])))
    assert alice.get("/data/projects/PROT?format=json").status_code == 200
    assert [row["label"] for row in alice.rows("/data/projects/PROT/resources")] == ["R"]
    assert alice.get("/data/projects/PROT/resources/R/files/p.txt").status_code == 200
    assert (
        alice.get("/data/projects/PROT/subjects").status_code
        == alice.get("/data/projects/PROT/experiments").status_code
        == 403
    )
