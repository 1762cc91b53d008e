"""The switches of a failing database: dead, out of connections, one table broken, one query failing
(xnat-rest.md 13, executed).
"""

from __future__ import annotations

import pytest
import requests

from xnatfs.demo.server import DemoServer

from .conftest import Client

DEAD = {
    "/data/auth": 200,
    "/data/JSESSION": 200,
    "/data/projects": 500,
    "/data/projects?accessible=true": 500,
    "/data/projects/P1?format=json": 404,
    "/data/projects/P1/subjects": 404,
    "/data/projects/P1/experiments": 404,
    "/data/projects/P1/resources": 404,
    "/data/projects/P1/experiments/mr1?format=json": 404,
    "/data/experiments?project=P1": 500,
    "/data/experiments/T_E1?format=json": 404,
    "/data/experiments/T_E1/scans": 500,
    "/data/experiments/T_E1/assessors": 404,
    "/data/experiments/T_E1/reconstructions": 500,
    "/data/experiments/T_E1/resources?all=true": 404,
    "/data/experiments/T_E1/files?all=true": 500,
    "/data/experiments/T_E1/scans/1/resources/DICOM/files": 500,
    "/data/experiments/T_E1/resources/110/files/plain.txt": 500,
    "/data/experiments/T_E1/resources/110/files?format=zip": 500,
    "/data/subjects": 500,
    "/data/subjects/T_S1?format=json": 404,
    "/data/subjects/T_S1/files": 404,
    "/data/subjects/T_S1/resources/NOTES/files/n.txt": 404,
}
FILES = "/data/experiments/T_E1/files?all=true&format=json"


@pytest.mark.parametrize("switch", ["database_down", "pool_exhausted"])
def test_what_exists_is_not_found_while_the_login_answers(
    server: DemoServer, alice: Client, switch: str
) -> None:
    server.switches.pool_wait_s = 0.001
    assert alice.get("/data/JSESSION").status_code == 200
    reply = requests.post(server.url + "/demo/switches", json={switch: True}, timeout=5)
    assert reply.json()[switch] is True
    assert {path: alice.get(path).status_code for path in DEAD} == DEAD
    assert alice.head("/data/experiments/T_E1/resources/110/files/plain.txt").status_code == 404
    with Client(server, "bob") as other:
        assert other.get("/data/JSESSION").status_code == 500  # nobody new can be looked up
    setattr(server.switches, switch, False)
    assert {alice.get(path).status_code for path in DEAD} == {200}
    assert server.switches.fired["database"] > 20


def test_a_broken_table_looks_like_an_empty_session(server: DemoServer, alice: Client) -> None:
    whole = alice.rows(FILES)
    server.switches.failing_table = "img_assessor_out_resource"
    reply = alice.get(FILES).json()["ResultSet"]
    assert whole and reply["Result"] == [] and reply["title"] == "Files" and "totalRecords" not in reply
    assert (
        alice.get("/data/experiments/T_E1,T_E2/files?all=true&format=json").json()["ResultSet"]["Result"]
        == []
    )
    reply = alice.get("/data/experiments/T_E1/resources?all=true")
    assert reply.status_code == 200 and reply.content == b""
    assert len(alice.rows("/data/experiments/T_E1/resources")) == 4
    assert alice.get("/data/experiments/T_E1/resources/110/files").status_code == 500
    assert (
        alice.get(
            "/data/experiments/T_E1/assessors/T_A1/out/resources/DATA/files/stats/aseg.stats"
        ).status_code
        == 404
    )
    item = alice.get("/data/experiments/T_E1?format=json").text
    assert "assessors/assessor" in item and '"SNAP"' not in item
    server.switches.failing_table = "xnat_imagescandata"
    assert alice.get("/data/experiments/T_E1/scans").status_code == 500
    reply = alice.get(
        "/data/projects/P1/experiments?columns=ID,xnat:imageScanData/ID&xsiType=xnat:imageSessionData"
    )
    assert reply.status_code == 200 and reply.content == b""
    assert "scans/scan" not in alice.get("/data/experiments/T_E1?format=json").text
    server.switches.failing_table = "xnat_subjectdata_resource"
    assert alice.get("/data/subjects/T_S1/resources").content == b""
    assert alice.rows("/data/subjects/T_S1/files") == []
    assert (
        alice.get(
            "/data/projects/P1/subjects?columns=ID,xnat:subjectData/resources/resource/label"
        ).status_code
        == 500
    )
    server.switches.failing_table = "xnat_projectdata_meta_data"
    assert (
        alice.get("/data/projects").status_code == 500
        and alice.get("/data/projects/P1/subjects").status_code == 404
    )
    assert alice.rows("/data/experiments?project=P1")
    server.switches.failing_table = ""
    assert alice.rows(FILES) == whole
    assert (
        requests.post(server.url + "/demo/switches", json={"failing_table": "users"}, timeout=5).status_code
        == 400
    )


def test_a_query_that_fails_inside(server: DemoServer, alice: Client) -> None:
    server.switches.failing_query = r"GET /data/(projects/P1|experiments/T_E1)\b"
    assert alice.rows(FILES) == [] and alice.rows("/data/projects/P1/resources") == []
    reply = alice.get("/data/projects/P1/experiments?columns=ID,label")
    assert reply.status_code == 200 and reply.content == b""
    assert alice.get("/data/experiments/T_E1/scans").status_code == 500
    assert alice.rows("/data/experiments/T_E2/resources") == []
    server.switches.failing_query = ""
    assert alice.rows(FILES)
