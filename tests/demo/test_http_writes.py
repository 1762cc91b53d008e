"""Writes over REST and what they move, as XNAT's own code was seen to do (xnat-rest.md 4, 13, 14; all of it
beside `test_replies`).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import pytest
import requests

from xnatfs.demo.model import Resource
from xnatfs.demo.server import DemoServer

from .conftest import Client
from .test_stamps import stamps

E1 = "/data/experiments/T_E1"
NOTES = f"{E1}/resources/NOTES"
SESSION = {"mr T_E1", "subject T_S1"}


@pytest.fixture
def owner(own: DemoServer) -> Iterator[Client]:
    """The administrator, who may delete too."""
    own.call(lambda: own.archive.experiments["T_E1"].resources.append(Resource(140, "NOTES")))
    with Client(own, "admin") as client:
        yield client


def moved(client: Client, method: str, path: str, data: bytes | None = None, status: int = 200) -> set[str]:
    """Which stamps of things that were there before move with a request."""
    before = stamps(client)
    reply = client.request(method, path, data=data)
    assert reply.status_code == status, reply.text
    after = stamps(client)
    return {name for name in before if after.get(name, before[name]) != before[name]}


def paths(client: Client, resource: str = NOTES) -> list[str]:
    return [row["URI"].partition("/files/")[2] for row in client.rows(f"{resource}/files")]


def test_uploads(owner: Client) -> None:
    inbody = f"{NOTES}/files/a.txt?inbody=true"
    assert moved(owner, "PUT", inbody, b"four") == SESSION | {"resource 140"}
    assert moved(owner, "PUT", inbody, b"other bytes") == set()  # it is there: 200, and nothing is stored
    assert (
        owner.put(inbody, data=b"x").text == '{"duplicates":["a.txt"]}'
        and owner.get(f"{NOTES}/files/a.txt").content == b"four"
    )
    assert moved(owner, "PUT", inbody + "&overwrite=true", b"FOUR") == set()  # equal size
    assert owner.get(f"{NOTES}/files/a.txt").content == b"FOUR"
    assert moved(owner, "PUT", inbody + "&overwrite=true", b"more than four") == SESSION | {"resource 140"}
    assert owner.put(f"{NOTES}/files/empty?inbody=true", data=b"").status_code == 500
    assert owner.put(f"{NOTES}/files/chunked?inbody=true", data=iter([b"x"])).status_code == 500
    assert owner.put(f"{NOTES}/files/empty", files={"file": ("any", b"")}).status_code == 200
    assert owner.put(f"{NOTES}/files", files={"file": ("by form.txt", b"x")}).status_code == 200
    # Percent-codes other than those of a space and a plus stay in the name.
    assert owner.put(f"{NOTES}/files/a%20b.txt?inbody=true", data=b"x").status_code == 200
    assert owner.put(f"{NOTES}/files/%C3%BC.txt?inbody=true", data=b"x").status_code == 200
    assert paths(owner) == ["a.txt", "empty", "by form.txt", "a b.txt", "%C3%BC.txt"]


def test_uploads_make_resources_and_land_in_out(owner: Client) -> None:
    assert moved(owner, "PUT", f"{E1}/scans/2/resources/FIRST/files/x?inbody=true", b"x") == SESSION | {
        "mrscan T_E1/2"
    }
    assert owner.rows(f"{E1}/scans/2/resources")[0]["content"] == "RAW"  # the first resource of a scan
    made = owner.rows(
        "/data/projects/P1/experiments?xsiType=xnat:imageSessionData&columns=xnat:imageScanData/file/meta/last_modified"
    )
    assert "" in {
        row["xnat:imagescandata/file/meta/last_modified"] for row in made
    }  # blank until it is written to again
    assert moved(
        owner, "PUT", f"{E1}/assessors/T_A1/in/resources/NEW/files/x?inbody=true", b"x"
    ) == SESSION | {"fs T_A1"}
    assert "NEW" in [row["label"] for row in owner.rows(f"{E1}/assessors/T_A1/out/resources")]
    assert [row["label"] for row in owner.rows(f"{E1}/assessors/T_A1/in/resources")] == ["INPUT"]
    # Scan 2 has the type 1: two scans are meant.
    assert owner.put(f"{E1}/scans/1/resources/DICOM/files/x?inbody=true", data=b"x").status_code == 404
    assert owner.put(f"{E1}/scans/1/resources/101/files/x?inbody=true", data=b"x").status_code == 404


def test_zips_are_extracted(owner: Client) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/b", b"b")
        archive.writestr("c", b"c")
    assert moved(owner, "PUT", f"{NOTES}/files/z.zip?inbody=true&extract=true", out.getvalue()) == SESSION | {
        "resource 140"
    }
    assert paths(owner) == ["a/b", "c"]
    assert (
        owner.put(f"{NOTES}/files/bad.zip?inbody=true&extract=true", data=b"no zip").status_code == 200
    )  # and nothing is stored
    assert paths(owner) == ["a/b", "c"]


def test_who_may_write(own: DemoServer, owner: Client) -> None:
    owner.put(f"{NOTES}/files/a.txt?inbody=true", data=b"a")
    own.call(lambda: own.archive.projects["P1"].collaborators.add("bob"))
    with Client(own, "bob") as reader, Client(own) as alice:
        assert reader.put(f"{NOTES}/files/b.txt?inbody=true", data=b"b").status_code == 200 and paths(
            owner
        ) == ["a.txt"]
        assert (
            reader.put(f"{E1}/resources/OTHER").status_code
            == reader.delete(f"{NOTES}/files/a.txt").status_code
            == 403
        )
        assert alice.put(f"{NOTES}/files/b.txt?inbody=true", data=b"b").status_code == 200 and paths(
            owner
        ) == ["a.txt", "b.txt"]
        assert alice.delete(f"{NOTES}/files/b.txt").status_code == 403  # members do not delete
        assert alice.put("/data/experiments/T_E3/resources/X").status_code == 404


def test_deletes_take_what_begins_alike(owner: Client) -> None:
    for name in ("w1", "w2", "sub/x", "keep"):
        owner.put(f"{NOTES}/files/{name}?inbody=true", data=b"x")
    assert owner.delete(f"{NOTES}/files/w*").status_code == 404
    assert moved(owner, "DELETE", f"{NOTES}/files/w") == SESSION | {"resource 140"}
    assert moved(owner, "DELETE", f"{NOTES}/files/sub/") == SESSION | {"resource 140"}
    assert paths(owner) == ["keep"] and owner.delete(f"{NOTES}/files/w1").status_code == 404
    assert owner.delete(f"{E1}/resources/NOSUCH/files/x").status_code == 400
    assert owner.delete(f"{NOTES}/files").status_code == 200 and paths(owner) == []
    assert moved(owner, "DELETE", NOTES) == SESSION
    assert owner.delete(NOTES).status_code == 200  # of an unknown one


def test_resources(owner: Client) -> None:
    assert moved(owner, "PUT", f"{E1}/resources/MADE?format=A&content=B") == SESSION
    (row,) = [row for row in owner.rows(f"{E1}/resources") if row["label"] == "MADE"]
    assert (row["file_count"], row["file_size"], row["format"], row["content"]) == ("", "", "A", "B")
    assert (
        owner.put(f"{E1}/resources/MADE").status_code == 409
        and owner.put(f"{E1}/resources/made").status_code == 200
    )
    assert (
        owner.put(f"{E1}/resources/1234").status_code == 404
        and owner.put(f"{E1}/resources/a%20b").status_code == 200
    )
    assert "a%20b" in [row["label"] for row in owner.rows(f"{E1}/resources")]
    assert owner.post(f"{E1}/resources?label=LOST&format=X").status_code == 200
    assert "LOST" not in [row["label"] for row in owner.rows(f"{E1}/resources")]


def test_edits(owner: Client) -> None:
    session = "/data/projects/P1/subjects/sub1/experiments/mr1"
    own = SESSION | {"own T_E1", "image T_E1"}
    assert (
        moved(owner, "PUT", f"{session}?note=changed") == own
        and moved(owner, "PUT", f"{session}?note=changed") == set()
    )
    assert moved(owner, "PUT", f"{session}?fieldStrength=7") == own
    assert (
        moved(owner, "PUT", f"{session}?xnat:experimentData/fields/field%5Bname%3Dscore%5D/field=8")
        == SESSION
    )
    assert (
        moved(owner, "PUT", f"{session}?quarantine=true") == SESSION
        and moved(owner, "PUT", f"{session}?lock=true") == set()
    )
    assert moved(owner, "PUT", f"{session}?activate=true") == SESSION
    scan = f"{session}/scans/1?type=T2"
    assert moved(owner, "PUT", scan) == SESSION | {"scan T_E1/1", "mrscan T_E1/1"}
    assert moved(owner, "PUT", f"{session}/scans/9?xsiType=xnat:mrScanData&type=%3Cnew%3E") == SESSION
    assert owner.rows(f"{E1}/scans")[-1]["type"] == "&lt;new&gt;"  # texts of a query are stored with entities
    assert moved(owner, "DELETE", f"{session}/scans/9") == SESSION
    assert moved(owner, "PUT", "/data/projects/P1/subjects/sub1?gender=female") == {"subject T_S1"}
    assert moved(owner, "PUT", "/data/projects/P1?description=x") == {"project P1"}
    assert moved(owner, "PUT", "/data/projects/P1/accessibility/public") == set()


def test_things_made_shared_and_deleted(owner: Client) -> None:
    below = "/data/projects/P1/subjects"
    made = owner.put(f"{below}/new")
    assert (made.status_code, made.text) == (201, "T_S00004") and owner.put(f"{below}/new").status_code == 200
    made = owner.put(f"{below}/new/experiments/mr?xsiType=xnat:mrSessionData&date=2024-02-03")
    assert (
        made.status_code == 201 and owner.get(f"/data/experiments/{made.text}?format=json").status_code == 200
    )
    assert moved(owner, "PUT", f"{E1}/assessors/qc?xsiType=xnat:qcManualAssessorData", status=201) == SESSION
    assert moved(owner, "DELETE", f"{E1}/assessors/qc") == SESSION
    assert moved(owner, "PUT", f"{below}/sub1/experiments/mr1/projects/PUB?label=there") == {"mr T_E1"}
    assert owner.put(f"{below}/sub1/experiments/mr1/projects/PUB").status_code == 409
    assert moved(owner, "DELETE", "/data/projects/PUB/experiments/there") == {"mr T_E1"}
    assert owner.get(E1 + "?format=json").status_code == 200  # only the share is gone
    # A shared subject's share takes those of its sessions along.
    assert owner.delete("/data/projects/P1/subjects/shared_sub").status_code == 200
    assert "T_E2" not in {row["ID"] for row in owner.rows("/data/projects/P1/experiments")}
    assert (
        owner.delete(f"{below}/new").status_code == 200
        and owner.get("/data/experiments/" + made.text).status_code == 404
    )


def test_the_catalog_is_not_the_disk_until_a_refresh(own: DemoServer, owner: Client) -> None:
    def change(**operation: object) -> None:
        assert requests.post(own.url + "/demo/change", json=operation, timeout=5).status_code == 200

    def refreshed(options: str) -> set[str]:
        return moved(
            owner,
            "POST",
            f"/data/services/refresh/catalog?resource=/archive/experiments/T_E1/resources/NOTES&options={options}",
        )

    def row(name: str) -> tuple[str, bool] | None:
        found = [row for row in owner.rows(f"{NOTES}/files") if row["Name"] == name]
        return (found[0]["Size"], bool(found[0]["digest"])) if found else None

    def count() -> str:
        return next(row["file_count"] for row in owner.rows(f"{E1}/resources") if row["label"] == "NOTES")

    owner.put(f"{NOTES}/files/a?inbody=true", data=b"a")
    change(op="put_on_disk", resource=140, path="b", text="bb")
    assert row("b") is None and refreshed("append") == set() and row("b") == ("2", False) and count() == "1"
    assert refreshed("checksum") == set() and row("b") == ("2", True)
    assert refreshed("populateStats") == SESSION | {"resource 140"} and count() == "2"
    change(op="put_on_disk", resource=140, path="a", text="longer")
    assert row("a") == ("1", True) and owner.get(f"{NOTES}/files/a").content == b"longer"
    assert refreshed("checksum,populateStats") == SESSION | {"resource 140"} and row("a") == ("6", True)
    change(op="delete_file", resource=140, path="b", gone=True)
    assert (
        row("b") is not None
        and refreshed("delete,populateStats") == SESSION | {"resource 140"}
        and row("b") is None
    )
    assert refreshed("append,delete,checksum,populateStats") == set()
    assert (
        owner.post("/data/services/refresh/catalog?resource=/archive/experiments/NOSUCH").status_code == 400
    )
