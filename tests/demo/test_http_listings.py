"""Tables: envelopes, columns, filters, sharing, permissions (xnat-rest.md 2, 7, 8)."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest

from xnatfs.demo.server import DemoServer

from .conftest import Client
from .wire import exchange

SCANS = "xsiType=xnat:imageSessionData&columns=ID,label,subject_label," + ",".join(
    ("xnat:imageScanData/id", "xnat:imagescandata/type", "xnat:imagescandata/file/label")
)


def test_envelope(alice: Client, server: DemoServer) -> None:
    reply = alice.get("/data/projects?format=json")
    assert reply.text.startswith('{"ResultSet":{"Result":[{') and reply.text.endswith(
        '], "totalRecords": "3"}}'
    )
    assert "Content-Length" not in reply.headers and reply.headers["Transfer-Encoding"] == "chunked"
    assert list(reply.json()["ResultSet"]["Result"][0]) == [
        "ID",
        "secondary_ID",
        "name",
        "description",
        "pi_firstname",
        "pi_lastname",
        "URI",
    ]
    head = exchange(server, "/data/projects", "Connection: close", method="HEAD")
    assert head.headers["transfer-encoding"] == "chunked" and head.body == b""


def test_formats(alice: Client) -> None:
    text = alice.get("/data/experiments/T_E1/scans?format=csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert (
        rows[0]["ID"] == "1"
        and rows[0]["series_description"] == "T1, sagittal"
        and '"T1, sagittal"' in text.text
    )
    tree = ElementTree.fromstring(alice.get("/data/experiments/T_E1/scans?format=xml").text)
    assert [column.text for column in tree.iter("column")][:2] == ["xnat_imagescandata_id", "ID"]
    assert alice.get("/data/projects?format=text/csv").headers["Content-Type"].startswith("text/csv")
    assert alice.get("/data/projects?format=html").text.startswith("<html>")
    assert alice.get("/data/projects", headers={"Accept": "text/html"}).text.startswith("<html>")
    assert alice.get("/data/projects", headers={"Accept": "image/png"}).status_code == 406


def test_empty_csv_has_raw_headers(alice: Client) -> None:
    full = alice.get("/data/projects/P1/experiments?format=csv").text.splitlines()[0]
    empty = alice.get("/data/projects/P1/experiments?format=csv&label=nothing").text.splitlines()
    assert full == "xnat:subjectassessordata/id,ID,project,date,xsiType,label,insert_date,URI"
    assert len(empty) == 1 and "xnat:subjectassessordata/id" not in empty[0]


def test_accessible_projects(alice: Client) -> None:
    table = alice.get("/data/projects?accessible=true").json()["ResultSet"]
    assert {row["id"] for row in table["Result"]} == {"P1", "PUB", "PROT"}
    assert table["title"] and table["xdat_user_id"] and "project_access" in table["Result"][0]


def test_active_since(alice: Client) -> None:
    assert (
        alice.rows("/data/projects?activeSince=2024-03-06")
        == []
        != alice.rows("/data/projects?activeSince=03/05/2024")
    )
    assert alice.get("/data/projects?activeSince=lately").status_code == 422


def test_projects_of_an_administrator(admin: Client) -> None:
    assert {row["ID"] for row in admin.rows("/data/projects")} == {"P1", "PUB", "PROT", "HID"}


def test_subjects(alice: Client) -> None:
    rows = {row["ID"]: row for row in alice.rows("/data/projects/P1/subjects")}
    assert list(rows["T_S1"]) == ["ID", "project", "label", "insert_date", "insert_user", "URI"]
    assert rows["T_S1"]["insert_date"] == "2024-03-05 06:07:08.7"
    # Shared: the label is replaced, the project is not.
    assert (rows["T_S2"]["label"], rows["T_S2"]["project"], rows["T_S2"]["URI"]) == (
        "shared_sub",
        "PUB",
        "/data/subjects/T_S2",
    )
    assert {row["label"] for row in alice.rows("/data/subjects")} == {"sub1", "sub2"}
    assert alice.rows("/data/projects/P1/subjects?columns=label,gender,last_modified,nonsense")[0].keys() == {
        "label",
        "gender",
        "last_modified",
        "ID",
        "URI",
    }


def test_no_readable_project_at_all(own: DemoServer) -> None:
    own.call(lambda: setattr(own.archive.projects["PUB"], "access", "private"))
    with Client(own, "bob") as bob:
        assert bob.get("/data/subjects").status_code == 500


def test_experiments_of_a_project(alice: Client) -> None:
    table = alice.get("/data/projects/P1/experiments").json()["ResultSet"]
    rows = {row["ID"]: row for row in table["Result"]}
    assert table["totalRecords"] == "3" and rows.keys() == {"T_E1", "T_E2", "T_E9"}  # no assessor
    assert (
        rows["T_E1"]["xnat:subjectassessordata/id"] == "T_E1"
        and rows["T_E1"]["URI"] == "/data/experiments/T_E1"
    )
    assert (rows["T_E2"]["label"], rows["T_E2"]["project"]) == ("shared_mr", "P1")
    of_subject = alice.rows("/data/projects/P1/subjects/sub1/experiments?columns=subject_label,label")
    assert [row["label"] for row in of_subject] == ["mr1", "visit"]


def test_experiments_of_the_server(alice: Client) -> None:
    rows = {row["ID"]: row for row in alice.rows("/data/experiments")}
    assert rows.keys() == {"T_E1", "T_E2", "T_E9", "T_A1"}  # assessors too
    # `project=` is the primary project, with original labels.
    assert {row["label"] for row in alice.rows("/data/experiments?project=P1")} == {"mr1", "visit", "fs1"}
    assert alice.rows("/data/experiments?project=PUB&columns=label")[0]["label"] == "mr2"
    rows = {row["ID"]: row for row in alice.rows("/data/experiments?xsiType=xnat:imageAssessorData")}
    assert rows["T_A1"]["session_label"] == "mr1" and rows["T_A1"]["xnat:imageassessordata/id"] == "T_A1"
    assert alice.rows("/data/experiments?xsiType=xnat:mrSessionData")[0]["subject_label"] == "sub1"


def test_narrowing_by_a_column(alice: Client) -> None:
    rows = alice.rows("/data/experiments?columns=xnat:mrSessionData/fieldStrength")
    # A path that has an alias comes back under it.
    assert [(row["xnat:mrsessiondata/id"], row["fieldStrength"]) for row in rows] == [
        ("T_E1", "3.0"),
        ("T_E2", ""),
    ]


def test_column_keys(alice: Client) -> None:
    row = alice.rows(
        "/data/experiments?ID=T_E1&columns=xnat:subjectAssessorData/subject_id,xnat:experimentData/date,xnat:mrSessionData/subject_id"
    )[0]
    assert (
        row["subject_ID"] == "T_S1"
        and row["date"] == "2024-01-02"
        and row["xnat:mrsessiondata/subject_id"] == "T_S1"
    )
    row = alice.rows(
        "/data/experiments?xsiType=xnat:mrSessionData&ID=T_E1&columns=scanner/model,xnat:mrSessionData/scanner/model"
    )[0]
    assert row["xnat:mrsessiondata/scanner/model"] == "Skyra"


def test_fields_lists_the_aliases(alice: Client) -> None:
    for path in (
        "/data/projects",
        "/data/subjects",
        "/data/experiments",
        "/data/experiments/T_E1/scans",
        "/data/experiments/T_E1/assessors",
    ):
        assert "ID" in {row["key"] for row in alice.rows(f"{path}?fields=x")}


@pytest.mark.parametrize("path", ["/data/projects/P1/experiments?", "/data/archive/experiments?project=P1&"])
def test_one_row_for_each_scan_and_resource(alice: Client, path: str) -> None:
    rows = [row for row in alice.rows(path + SCANS) if row["ID"] == "T_E1"]
    found = [
        (row["xnat:imagescandata/id"], row["xnat:imagescandata/type"], row["xnat:imagescandata/file/label"])
        for row in rows
    ]
    assert found == [
        ("1", "T1 w/GRE", "DICOM"),
        ("1", "T1 w/GRE", "NIFTI"),
        ("2", "1", ""),
        ("3-MR1", "", "DICOM"),
        ("a b/c,d", "odd", ""),
    ]
    assert rows[0].keys() == {
        "ID", "label", "subject_label", "project", "xsiType", "URI", "session_ID",
        "xnat:imagescandata/id", "xnat:imagescandata/type", "xnat:imagescandata/file/label",
    }  # fmt: skip
    empty = [row for row in alice.rows("/data/experiments?" + SCANS) if row["ID"] == "T_E2"]
    assert [row["xnat:imagescandata/id"] for row in empty] == [""]


def test_unproven_columns(alice: Client, server: DemoServer) -> None:
    fields = ("id", "file/label", "file/file_count", "file/xnat_abstractresource_id")
    scan = "&columns=" + ",".join(f"xnat:imagescandata/{field}" for field in fields)
    path = "/data/experiments?project=P1&xsiType=xnat:imageSessionData" + scan
    first = alice.rows(path)[0]
    assert (
        first["xnat:imagescandata/file/file_count"],
        first["xnat:imagescandata/file/xnat_abstractresource_id"],
    ) == ("3", "101")
    session = "/data/projects/P1/experiments?columns=ID,xnat:experimentData/resources/resource/label"
    labels = [
        row["xnat:experimentdata/resources/resource/label"]
        for row in alice.rows(session)
        if row["ID"] == "T_E1"
    ]
    assert labels == ["FILES", "", "777", "MY RES"]
    subjects = "/data/projects/P1/subjects?columns=ID,xnat:subjectData/resources/resource/label"
    assert alice.rows(subjects)[0]["xnat:subjectdata/resources/resource/label"] == "NOTES"
    recon = (
        "/data/experiments?ID=T_E1&xsiType=xnat:imageSessionData&columns=ID,xnat:reconstructedImageData/id,"
    )
    recon += "xnat:reconstructedImageData/out/file/label"
    assert alice.rows(recon)[0]["xnat:reconstructedimagedata/out/file/label"] == "MEAN"

    server.switches.profile = "proven"
    assert (
        alice.rows(path)[0].keys()
        & {"xnat:imagescandata/file/file_count", "xnat:imagescandata/file/xnat_abstractresource_id"}
        == set()
    )
    assert alice.rows(path)[0]["xnat:imagescandata/file/label"] == "DICOM"
    assert [row["ID"] for row in alice.rows(session)].count("T_E1") == 1
    assert alice.rows(subjects)[0].keys() == {"ID", "URI"}
    assert "xnat:reconstructedimagedata/id" not in alice.rows(recon)[0]
    assert alice.get("/data/projects/P1/experiments?" + SCANS).status_code == 404
    assert alice.get("/data/archive/experiments?project=P1&" + SCANS).status_code == 200
    assert alice.get("/data/experiments/T_E1,T_E2/files?all=true").status_code == 404


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("element", ["xnat:imageAssessorData", "fs:fsData"])
def test_assessor_resources_as_columns(alice: Client, server: DemoServer, profile: str, element: str) -> None:
    server.switches.profile = profile
    columns = f"ID,session_ID,{element}/out/file/label,{element}/in/file/label,{element}/procstatus"
    rows = alice.rows(f"/data/projects/P1/experiments?xsiType={element}&columns={columns}")
    assert [row[f"{element.lower()}/out/file/label"] for row in rows] == ["DATA", "SNAP"]
    assert (f"{element.lower()}/in/file/label" in rows[0]) == (profile == "full")
    assert rows[0][f"{element.lower()}/procstatus"] == "COMPLETE" and rows[0]["session_ID"] == "T_E1"


def test_scans(alice: Client) -> None:
    rows = alice.rows("/data/experiments/T_E1/scans?ID=1&limit=1")  # filters and limit are ignored
    assert len(rows) == 4
    assert list(rows[0]) == [
        "xnat_imagescandata_id",
        "ID",
        "type",
        "quality",
        "xsiType",
        "note",
        "series_description",
        "URI",
    ]
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert rows[3]["URI"] == "/data/experiments/T_E1/scans/a b/c,d"
    assert alice.rows("/data/projects/P1/experiments/mr1/scans?columns=ID,frames")[0].keys() == {
        "xnat_imagescandata_id",
        "ID",
        "frames",
        "URI",
    }


def test_assessors_and_reconstructions(alice: Client) -> None:
    (row,) = alice.rows("/data/experiments/T_E1/assessors")
    assert (
        row["session_label"] == "mr1"
        and row["xsiType"] == "fs:fsData"
        and row["URI"] == "/data/experiments/T_A1"
    )
    (recon,) = alice.rows("/data/experiments/T_E1/reconstructions")
    assert list(recon) == ["xnat_reconstructedimagedata_id", "ID", "type", "baseScanType", "URI"]


def test_filters(alice: Client) -> None:
    def ids(query: str) -> set[str]:
        return {row["ID"] for row in alice.rows(f"/data/experiments?{query}")}

    assert ids("label=mr1,visit") == {"T_E1", "T_E9"}
    assert ids("label=mr*") == ids("label=mr%25") == {"T_E1", "T_E2"}
    assert (
        alice.get("/data/experiments?date=2024-01-02").status_code == 500
    )  # a comparison that fails in the database
    assert ids("xsiType=xnat:subjectAssessorData&xnat:subjectData/label=sub2") == {"T_E2"}
    assert ids("xsiType=xnat:imageSessionData&xnat:imageScanData/type=odd&columns=ID") == {"T_E1"}
    assert ids("ID=T_E1&ID=T_E2") == {"T_E1"}  # given twice, the first counts
    assert ids("xnat:experimentData/nosuch=1&nosuch=1") == {
        "T_E1",
        "T_E2",
        "T_E9",
        "T_A1",
    }  # what is unknown filters nothing
    assert ids("xsiType=xnat:mrSessionData,xnat:qcData") == {
        "T_E1",
        "T_E2",
        "T_E9",
        "T_A1",
    }  # a comma list is ignored


def test_paging_and_sorting(alice: Client) -> None:
    table = alice.get("/data/experiments?limit=2&offset=1").json()["ResultSet"]
    assert len(table["Result"]) == 2 and "totalRecords" not in table
    assert alice.get("/data/experiments?limit=*").json()["ResultSet"]["totalRecords"] == "4"
    labels = [row["label"] for row in alice.rows("/data/experiments?sortBy=label&sortOrder=DESC")]
    assert labels == sorted(labels, reverse=True)
    assert "totalRecords" in alice.get("/data/projects?limit=1").json()["ResultSet"]  # not honoured there


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/data/projects/HID/experiments", 404),
        ("/data/projects/HID/files", 404),
        ("/data/projects/NOPE/subjects", 404),
        ("/data/projects/PROT/subjects", 403),
        ("/data/projects/PROT/experiments", 403),
        ("/data/projects/HID?format=json", 404),
        ("/data/experiments/T_E3?format=json", 404),
        ("/data/subjects/T_S3?format=json", 404),
        (
            "/data/experiments/mr1/scans",
            500,
        ),  # a label without its project; of what is not there, scans and files are a 500
        ("/data/experiments/mr1/assessors", 404),
        ("/data/experiments/mr1/resources?all=true", 404),
        ("/data/experiments/mr1/files?all=true", 500),
        ("/data/experiments/mr1/resources/110/files/plain.txt", 500),
        ("/data/experiments/T_E9/scans", 500),  # no imaging session
        ("/data/nonsense", 404),
        ("/data/scans", 404),
    ],
)
def test_not_seen(alice: Client, path: str, status: int) -> None:
    reply = alice.get(path)
    assert reply.status_code == status and "<title>Status page</title>" in reply.text


def test_no_new_projects(alice: Client) -> None:
    assert alice.put("/data/projects/NEW").status_code == 405  # projects are not made here


def test_labels_in_a_project(alice: Client) -> None:
    assert alice.get("/data/projects/P1/experiments/shared_mr/scans").status_code == 200
    assert alice.get("/data/projects/P1/experiments/mr2/scans").status_code == 500
    assert (
        alice.get("/data/projects/P1/subjects/shared_sub?format=json").json()["items"][0]["data_fields"]["ID"]
        == "T_S2"
    )


def test_labels_are_not_decoded_but_scan_ids_are(own: DemoServer) -> None:
    own.call(lambda: setattr(own.archive.experiments["T_E9"], "label", "my visit"))
    with Client(own) as alice:
        assert alice.get("/data/projects/P1/experiments/my%20visit?format=json").status_code == 404
        assert (
            alice.rows(
                "/data/experiments/T_E1/scans/a%20b[SLASH]c[COMMA]d/resources".replace("[", "%5B").replace(
                    "]", "%5D"
                )
            )
            == []
        )


def test_search(alice: Client) -> None:
    names = {row["ELEMENT_NAME"] for row in alice.rows("/data/search/elements")}
    assert {"xnat:mrSessionData", "fs:fsData", "xnat:subjectData"} <= names
    assert {row["FIELD_ID"] for row in alice.rows("/data/search/elements/xnat:mrSessionData")} >= {
        "LABEL",
        "DATE",
    }
    assert alice.get("/data/search").status_code == 405
    assert alice.post("/data/search?format=csv", data="<nonsense").status_code == 422
