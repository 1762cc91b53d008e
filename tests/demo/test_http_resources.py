"""Resource and file lists, catalogs, items (xnat-rest.md 2.3 to 2.6, 7)."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree

import pytest

from xnatfs.demo.server import DemoServer

from .conftest import Client

E1 = "/data/experiments/T_E1"


def test_resources_of_each_kind(alice: Client) -> None:
    (row,) = alice.rows("/data/projects/P1/resources")
    assert list(row) == [
        "xnat_abstractresource_id", "label", "element_name", "category", "cat_id", "cat_desc",
        "file_count", "file_size", "tags", "content", "format",
    ]  # fmt: skip
    assert (row["category"], row["cat_id"], row["cat_desc"]) == ("resources", "", " ")
    table = alice.get("/data/subjects/T_S1/resources").json()["ResultSet"]
    assert table["title"] == "Resources" and table["totalRecords"] == "1"
    kinds = {
        f"{E1}/resources": ("resources", "T_E1", " "),
        f"{E1}/scans/3-MR1/resources": ("scans", "3-MR1", ""),
        f"{E1}/reconstructions/R1/resources": ("reconstructions", "R1", "avg"),
        f"{E1}/assessors/T_A1/resources": ("assessors", "T_A1", "fs:fsData"),
    }
    for path, expected in kinds.items():
        row = alice.rows(path)[0]
        assert (row["category"], row["cat_id"], row["cat_desc"]) == expected


def test_counts_are_strings_and_empty_when_never_computed(alice: Client, server: DemoServer) -> None:
    assert [row["file_count"] for row in alice.rows(f"{E1}/scans/ALL/resources")] == ["3", "2", ""]
    server.switches.profile = "proven"
    assert {row["file_count"] + row["file_size"] for row in alice.rows(f"{E1}/scans/ALL/resources")} == {""}


def labels(alice: Client, path: str) -> list[str]:
    return [row["label"] for row in alice.rows(path)]


def test_all(alice: Client) -> None:
    assert labels(alice, f"{E1}/resources") == ["FILES", "", "777", "MY RES"]
    everything = labels(alice, f"{E1}/resources?all=true")
    assert everything == [
        "FILES",
        "",
        "777",
        "MY RES",
        "DICOM",
        "NIFTI",
        "DICOM",
        "MEAN",
        "DATA",
        "SNAP",
        "PLAIN",
    ]


def test_in_and_out(alice: Client) -> None:
    assert labels(alice, "/data/projects/P1/experiments/mr1/assessors/fs1/in/resources") == ["INPUT"]
    assert labels(alice, f"{E1}/assessors/T_A1/out/resources") == ["DATA", "SNAP"]
    assert labels(alice, "/data/experiments/T_A1/resources") == ["DATA", "SNAP", "PLAIN"]
    assert labels(alice, f"{E1}/reconstructions/R1/in/resources") == ["RAWIN"]
    assert labels(alice, f"{E1}/assessors/fs:fsData/out/resources") == ["DATA", "SNAP"]
    assert labels(alice, f"{E1}/assessors/*/resources") == ["DATA", "SNAP", "PLAIN"]


@pytest.mark.parametrize(
    ("scans", "expected"),
    [
        ("1", ["101", "102"]),  # and scan 2, of *type* 1, which has none
        ("T1%20w%5BSLASH%5DGRE", ["101", "102"]),
        ("NULL", ["103"]),
        ("1,3-MR1", ["101", "102", "103"]),
        ("ALL", ["101", "102", "103"]),
        ("*", ["101", "102", "103"]),
    ],
)
def test_scans_by_id_type_and_list(alice: Client, scans: str, expected: list[str]) -> None:
    assert [
        row["xnat_abstractresource_id"] for row in alice.rows(f"{E1}/scans/{scans}/resources")
    ] == expected


def test_a_scan_type_that_is_another_scans_id(alice: Client) -> None:
    assert {row["Name"] for row in alice.rows(f"{E1}/scans/2/files")} == set()
    reply = alice.get(f"{E1}/scans/1?format=json")
    assert reply.json()["items"][0]["data_fields"]["ID"] == "1"
    assert alice.get(f"{E1}/scans/nope/resources").status_code == 404


def test_file_rows(alice: Client) -> None:
    reply = alice.get(f"{E1}/scans/1/resources/NIFTI/files?format=json")
    assert (
        '{"ResultSet":{"Columns":[{"key":"URI","serverRoot":""}],"Result":[' in reply.text
        and "totalRecords" not in reply.text
    )
    gz, json = reply.json()["ResultSet"]["Result"]
    assert list(gz) == [
        "Name",
        "Size",
        "URI",
        "collection",
        "file_tags",
        "file_format",
        "file_content",
        "cat_ID",
        "digest",
    ]
    assert gz["URI"] == f"{E1}/scans/1/resources/102/files/t1.nii.gz"
    assert (gz["Size"], gz["digest"], gz["file_format"], gz["cat_ID"], gz["collection"]) == (
        "20",
        "",
        "NII",
        "102",
        "NIFTI",
    )
    assert (json["digest"], json["file_tags"], json["file_format"]) == (
        hashlib.md5(b"{}").hexdigest(),
        "a=b",
        "",
    )


def test_uris(alice: Client) -> None:
    through = alice.rows("/data/projects/P1/subjects/sub1/experiments/mr1/scans/1/resources/DICOM/files")
    assert (
        through[0]["URI"]
        == "/data/projects/P1/subjects/T_S1/experiments/T_E1/scans/1/resources/101/files/0.dcm"
    )
    several = {
        row["URI"] for row in alice.rows("/data/projects/P1/subjects/sub1/experiments/mr1/files?all=true")
    }
    assert (
        f"{E1}/scans/1/resources/101/files/0.dcm" in several
        and f"{E1}/resources/110/files/a b.txt" in several
    )
    assert f"{E1}/resources/110/files/dir/é.txt" in several
    assert f"{E1}/assessors/T_A1/out/resources/131/files/stats/aseg.stats" in several
    assert "/data/experiments/T_A1/resources/133/files/plain.txt" in several
    assert "/data/experiments/T_E1/reconstructions/R1/out/resources/121/files/m.nii" in several


def test_every_listed_uri_that_http_can_carry_is_served(alice: Client, server: DemoServer) -> None:
    server.switches.firewall = False
    for row in alice.rows(f"{E1}/files?all=true"):
        path = "".join(
            c if c.isascii() and (c.isalnum() or c in "-._~/:") else "".join(f"%{b:02X}" for b in c.encode())
            for c in row["URI"]
        )
        status = alice.get(path).status_code
        assert status == (404 if row["Name"] == "gone.bin" or "x.zip/" in row["URI"] else 200), row["URI"]


def test_files_of_many_sessions(alice: Client) -> None:
    uris = {row["URI"] for row in alice.rows("/data/experiments/T_E1,T_E9/files?all=true")}
    assert (
        "/data/experiments/T_E9/resources/13/files/f.json" in uris
        and f"{E1}/resources/113/files/space.txt" in uris
    )


def test_which_level(alice: Client) -> None:
    assert [row["Name"] for row in alice.rows("/data/projects/P1/files")] == ["d.pdf"]
    assert [row["URI"] for row in alice.rows("/data/projects/P1/subjects/sub1/files")] == [
        "/data/projects/P1/subjects/T_S1/resources/11/files/n.txt"  # through the primary project
    ]
    assert [row["URI"] for row in alice.rows("/data/subjects/T_S1/files")] == [
        "/data/projects/P1/subjects/T_S1/resources/11/files/n.txt"
    ]
    assert {row["collection"] for row in alice.rows(f"{E1}/files")} == {"FILES", "", "777", "MY RES"}


def test_resource_names(alice: Client) -> None:
    assert len(alice.rows(f"{E1}/resources/110/files")) == len(alice.rows(f"{E1}/resources/FILES/files")) > 5
    assert alice.rows(f"{E1}/resources/NOPE/files") == []  # an unknown label is an empty list
    assert alice.get(f"{E1}/resources/NOPE/files/x").status_code == 404
    unknown = alice.get(f"{E1}/resources/99999/files")
    assert unknown.status_code == 404 and "Status page" in unknown.text
    assert alice.get(f"{E1}/resources/777/files").status_code == 404  # digits are a number
    assert alice.rows(f"{E1}/resources/112/files")[0]["Name"] == "digits.txt"
    assert alice.rows(f"{E1}/resources/NULL/files")[0]["Name"] == "nolabel.txt"
    assert alice.rows(f"{E1}/resources/MY%20RES/files") == []  # not decoded
    assert len(alice.rows(f"{E1}/resources/113,111/files")) == 2
    assert len(alice.rows(f"{E1}/scans/ALL/resources/DICOM/files")) == 4
    assert alice.rows(f"{E1}/assessors/T_A1/resources/130/files")[0]["Name"] == "in.txt"


def test_file_filters(alice: Client) -> None:
    # What the entry says counts; that its resource is DICOM does not.
    names = [row["Name"] for row in alice.rows(f"{E1}/scans/1/files?file_format=NII&file_format=DICOM")]
    assert names == ["t1.nii.gz"]
    assert [row["Name"] for row in alice.rows(f"{E1}/scans/1/files?file_format=NULL")] == [
        "0.dcm",
        "1.dcm",
        "2.dcm",
        "t1.json",
    ]
    assert alice.rows(f"{E1}/scans/1/files?file_content=RAW") == []
    assert alice.get(f"{E1}/scans/1/files?file_format=NULL&index=1").content == bytes([1]) * 10
    assert {row["Name"] for row in alice.rows(f"{E1}/resources/FILES/files/dir/")} == {"c#d.txt", "é.txt"}
    row = alice.rows(f"{E1}/scans/1/resources/DICOM/files?locator=absolutePath")[0]
    assert row["absolutePath"].startswith("/") and "URI" not in row


def test_proven_rows_have_no_digest(alice: Client, server: DemoServer) -> None:
    server.switches.profile = "proven"
    assert "digest" not in alice.rows(f"{E1}/scans/1/files")[0]


def test_wrong_digest_and_empty_lists(alice: Client, server: DemoServer) -> None:
    server.switches.wrong_digest = r"1\.dcm$"
    rows = alice.rows(f"{E1}/scans/1/resources/DICOM/files")
    assert [row["digest"] == hashlib.md5(bytes([n]) * 10).hexdigest() for n, row in enumerate(rows)] == [
        True,
        False,
        True,
    ]
    server.switches.empty_file_lists = True
    assert alice.rows(f"{E1}/scans/1/resources/DICOM/files") == []


def test_catalog(alice: Client) -> None:
    reply = alice.get(f"{E1}/scans/1/resources/DICOM?format=json")
    tree = ElementTree.fromstring(reply.text)
    entries = tree.findall(".//{http://nrg.wustl.edu/catalog}entry")
    assert (
        len(entries) == 3
        and entries[0].get("URI") == "0.dcm"
        and entries[0].get("createdTime")
        and entries[0].get("digest")
    )


def test_item_json(alice: Client) -> None:
    item = alice.get(f"{E1}?format=json").json()["items"][0]
    assert item["meta"]["xsi:type"] == "xnat:mrSessionData" and item["meta"]["isHistory"] is False
    assert (
        item["data_fields"]["scanner/model"] == "Skyra"
        and item["data_fields"]["ID"] == item["data_fields"]["id"] == "T_E1"
    )
    children = {child["field"]: child["items"] for child in item["children"]}
    assert children.keys() == {
        "scans/scan",
        "reconstructions/reconstructedImage",
        "assessors/assessor",
        "resources/resource",
    }
    files = {child["field"]: child["items"] for child in children["scans/scan"][0]["children"]}["file"]
    fields = files[0]["data_fields"]
    assert (
        fields["file_count"] == 3 and fields["file_size"] == 30 and fields["xnat_abstractresource_id"] == 101
    )
    assert fields["URI"].startswith("/") and fields["URI"].endswith("/SCANS/1/DICOM/1_catalog.xml")
    assert "file_count" not in children["scans/scan"][2]["children"][0]["items"][0]["data_fields"]
    assessor = {
        child["field"]: [sub["data_fields"]["label"] for sub in child["items"]]
        for child in children["assessors/assessor"][0]["children"]
    }
    assert assessor == {"in/file": ["INPUT"], "out/file": ["DATA", "SNAP"], "resources/resource": ["PLAIN"]}


def test_other_items(alice: Client) -> None:
    subject = alice.get("/data/subjects/T_S1?format=json").json()["items"][0]
    nested = {child["field"]: child["items"] for child in subject["children"]}["experiments/experiment"]
    assert [item["data_fields"]["ID"] for item in nested] == ["T_E1", "T_E9"] and nested[0]["children"]
    assert alice.get("/data/projects/P1?format=json").json()["items"][0]["data_fields"]["name"] == "The P1"
    assert alice.get(f"{E1}/scans/1?format=json").json()["items"][0]["meta"]["xsi:type"] == "xnat:mrScanData"
    assert (
        alice.get("/data/experiments/T_A1?format=json").json()["items"][0]["data_fields"]["imageSession_ID"]
        == "T_E1"
    )
    assert alice.get(E1).text.startswith("<!DOCTYPE html>")  # items default to HTML
    assert alice.get(E1, headers={"Accept": "application/json"}).json()["items"]
    tree = ElementTree.fromstring(alice.get(f"{E1}?format=xml").text)
    assert (
        tree.tag == "{http://nrg.wustl.edu/xnat}MRSession"
        and len(tree.findall(".//{http://nrg.wustl.edu/xnat}scan")) == 4
    )


def test_schemas(alice: Client) -> None:
    assert alice.get("/xapi/schemas?format=json").json() == ["xdat", "xnat", "fs"]
    for name in ("xdat", "xnat", "fs"):
        ElementTree.fromstring(alice.get(f"/xapi/schemas/{name}").text)
    assert alice.get("/xapi/schemas/nope").status_code == 404
