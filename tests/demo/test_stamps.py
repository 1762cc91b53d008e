"""Which stamps move with which change, and the columns they are read from (xnat-rest.md 13 and 14, executed
on XNAT's own code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests

from xnatfs.demo.server import DemoServer

from .conftest import Client

SESSIONS = "/data/projects/P1/experiments?xsiType=xnat:subjectAssessorData&columns=ID,last_modified,"
RESOURCES = "xnat:experimentData/resources/resource/"
FILES = "xnat:imageScanData/file/"

Stamps = dict[str, str]
Moved = Callable[..., set[str]]


@pytest.fixture
def p1(own: DemoServer) -> Iterator[Client]:
    with Client(own, "admin") as client:
        yield client


def stamps(client: Client) -> Stamps:
    """Every stamp that is about subject T_S1, session T_E1, its scan 1, its assessor, and the project P1."""
    found: Stamps = {}

    def add(kind: str, path: str, key: str, *column: str) -> None:
        for row in client.rows(path):
            name = "/".join(row[part] for part in column)
            if column and all(row[part] for part in column):
                found[f"{kind} {name}"] = row[key]

    add("subject", "/data/projects/P1/subjects?columns=ID,last_modified", "last_modified", "ID")
    add("own", SESSIONS, "last_modified", "ID")
    add(
        "mr",
        SESSIONS + "xnat:mrSessionData/meta/last_modified",
        "xnat:mrsessiondata/meta/last_modified",
        "ID",
    )
    image = "/data/projects/P1/experiments?xsiType=xnat:imageSessionData&columns=ID,"
    add(
        "image",
        image + "xnat:imageSessionData/meta/last_modified",
        "xnat:imagesessiondata/meta/last_modified",
        "ID",
    )
    assessors = "/data/projects/P1/experiments?xsiType=xnat:imageAssessorData&columns=ID,"
    add("fs", assessors + "fs:fsData/meta/last_modified", "fs:fsdata/meta/last_modified", "ID")
    columns = f"{RESOURCES}xnat_abstractresource_id,{RESOURCES}meta/last_modified"
    lower = RESOURCES.lower()
    add("resource", SESSIONS + columns, f"{lower}meta/last_modified", f"{lower}xnat_abstractresource_id")
    columns = "xnat:imageScanData/ID,xnat:imageScanData/meta/last_modified"
    columns += f",{FILES}xnat_abstractresource_id,{FILES}meta/last_modified"
    lower = FILES.lower()
    add("resource", image + columns, f"{lower}meta/last_modified", f"{lower}xnat_abstractresource_id")
    add("scan", image + columns, "xnat:imagescandata/meta/last_modified", "ID", "xnat:imagescandata/id")
    columns = "xnat:mrScanData/ID,xnat:mrScanData/meta/last_modified"
    add("mrscan", image + columns, "xnat:mrscandata/meta/last_modified", "ID", "xnat:mrscandata/id")
    columns = "ID,xnat:projectData/meta/last_modified"
    add("project", f"/data/projects?columns={columns}", "xnat:projectdata/meta/last_modified", "ID")
    resource = "xnat:projectData/resources/resource"
    columns = f"{resource}/xnat_abstractresource_id,{resource}/meta/last_modified"
    add(
        "resource",
        f"/data/projects?columns={columns}",
        columns.split(",")[1].lower(),
        columns.split(",")[0].lower(),
    )
    return found


@pytest.fixture
def moved(own: DemoServer, p1: Client) -> Moved:
    """Carries out changes and tells which stamps of things that were there before moved."""

    def change(*operations: dict[str, object]) -> set[str]:
        before = stamps(p1)
        reply = requests.post(own.url + "/demo/change", json=list(operations), timeout=5)
        assert reply.status_code == 200, reply.text
        after = stamps(p1)
        return {name for name in before if after.get(name, before[name]) != before[name]}

    return change


def test_files_move_the_concrete_type_the_subject_and_the_resource(moved: Moved) -> None:
    session = {"mr T_E1", "subject T_S1"}
    assert moved({"op": "put_file", "resource": 110, "path": "new", "text": "four"}) == session | {
        "resource 110"
    }
    assert moved({"op": "put_file", "resource": 110, "path": "new", "text": "sixsix"}) == session | {
        "resource 110"
    }
    assert moved({"op": "put_file", "resource": 110, "path": "new", "text": "SIXSIX"}) == set()
    assert (
        moved({"op": "put_file", "resource": 110, "path": "new", "text": "longer than six", "bump": False})
        == set()
    )
    assert moved({"op": "delete_file", "resource": 110, "path": "new"}) == session | {"resource 110"}
    assert moved({"op": "put_file", "resource": 101, "path": "new", "text": "four"}) == session | {
        "resource 101",
        "mrscan T_E1/1",
    }
    assert moved({"op": "put_file", "resource": 131, "path": "new", "text": "four"}) == session | {"fs T_A1"}
    assert moved({"op": "put_file", "resource": 11, "path": "new", "text": "four"}) == {"subject T_S1"}
    assert moved({"op": "put_file", "resource": 12, "path": "new", "text": "four"}) == {
        "project P1",
        "resource 12",
    }


def test_things_made_and_deleted_move_no_own_stamp(moved: Moved) -> None:
    session = {"mr T_E1", "subject T_S1"}
    assert moved({"op": "add_resource", "session": "T_E1", "label": "NEW"}) == session
    assert moved({"op": "add_resource", "session": "T_E1", "scan": "1", "label": "NEW"}) == session | {
        "mrscan T_E1/1"
    }
    assert moved({"op": "delete_resource", "resource": 111}) == session
    assert moved({"op": "add_scan", "session": "T_E1", "scan": "9", "type": "T1"}) == session
    assert moved({"op": "delete_scan", "session": "T_E1", "scan": "9"}) == session
    assert moved({"op": "add_session", "project": "P1", "subject": "T_S1", "label": "mr9"}) == {
        "subject T_S1"
    }
    assessor = {
        "op": "add_session",
        "project": "P1",
        "subject": "T_S1",
        "label": "a9",
        "session_id": "T_E1",
        "xsi_type": "fs:fsData",
    }
    assert moved({**assessor, "id": "T_A9"}) == session
    assert moved({"op": "delete_session", "id": "T_A9"}) == session


def test_own_fields_move_the_own_stamp(moved: Moved) -> None:
    session = {"mr T_E1", "subject T_S1"}
    assert moved({"op": "edit", "experiment": "T_E1", "note": "x"}) == session | {"own T_E1", "image T_E1"}
    assert moved({"op": "edit", "experiment": "T_A1"}) == session | {"fs T_A1"}
    assert moved({"op": "set_type", "session": "T_E1", "scan": "1", "type": "T2"}) == session | {
        "mrscan T_E1/1",
        "scan T_E1/1",
    }
    assert moved({"op": "edit", "subject": "T_S1"}) == {"subject T_S1"}
    assert moved({"op": "edit", "project": "P1", "description": "x"}) == {"project P1"}
    assert moved({"op": "set_access", "project": "P1", "members": ["alice", "bob"]}) == set()
    assert moved({"op": "share", "experiment": "T_E1", "project": "PUB"}) == {"mr T_E1"}
    assert moved({"op": "share", "experiment": "T_E1", "project": "PUB", "end": True}) == {"mr T_E1"}


def test_both_states_of_an_own_stamp(own: DemoServer, p1: Client) -> None:
    experiments = own.archive.experiments.values()

    def blank() -> None:
        for experiment in experiments:
            experiment.last_modified = None

    own.call(blank)
    assert {row["last_modified"] for row in p1.rows(SESSIONS)} == {""}
    assert requests.post(own.url + "/demo/change", json={"op": "edit"}, timeout=5).status_code == 200
    assert "" not in {row["last_modified"] for row in p1.rows(SESSIONS)}


def test_a_type_s_column_narrows_only_without_a_root(p1: Client) -> None:
    column = "columns=ID,xnat:mrSessionData/meta/last_modified"
    assert {row["ID"] for row in p1.rows(f"/data/projects/P1/experiments?{column}")} == {"T_E1", "T_E2"}
    rows = {
        row["ID"]: row
        for row in p1.rows(f"/data/projects/P1/experiments?{column}&xsiType=xnat:subjectAssessorData")
    }
    assert (
        set(rows) == {"T_E1", "T_E2", "T_E9"} and rows["T_E9"]["xnat:mrsessiondata/meta/last_modified"] == ""
    )
    # A type the server lacks is dropped, and the rest answered.
    rows = {
        row["ID"]: row
        for row in p1.rows(
            "/data/projects/P1/experiments?columns=ID,xnat:petmrSessionData/meta/last_modified"
        )
    }
    assert (
        set(rows) == {"T_E1", "T_E2", "T_E9"}
        and "xnat:petmrsessiondata/meta/last_modified" not in rows["T_E1"]
    )


def test_the_strict_profile_knows_no_stamp_paths(own: DemoServer, p1: Client) -> None:
    own.switches.profile = "proven"
    asked = "xnat:subjectData/meta/last_modified,xnat:mrSessionData/meta/last_modified"
    rows = p1.rows(
        f"/data/projects/P1/experiments?xsiType=xnat:subjectAssessorData&columns=ID,last_modified,{asked}"
    )
    assert "last_modified" in rows[0] and not [key for key in rows[0] if "meta/last_modified" in key]
    rows = p1.rows("/data/projects?columns=ID,xnat:projectData/meta/last_modified")
    assert rows[0].keys() == {"ID", "URI"}
