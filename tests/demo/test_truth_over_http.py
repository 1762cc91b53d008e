"""The ground truth and the server say the same: every true file can be had at its address, or is known to be
out of reach.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator

import pytest
import requests

from tests.support import lab_archive
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.server import DemoServer

# Refused by Tomcat or by XNAT's firewall, or taken for a place inside a zip file: such a file comes only in a
# zip of its resource.
UNREACHABLE = {"(a) #1 50%+;?&'\" b.txt", "%41.txt", "a\\b.txt", "x.zip/inside.txt"}


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture
def http(server: DemoServer) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.auth = ("demo", "demo")
        session.get(f"{server.url}/data/JSESSION").raise_for_status()
        yield session


def test_every_file_at_its_address(server: DemoServer, http: requests.Session) -> None:
    failed = []
    for project in READABLE:
        for file in files(server.archive, project, "demo"):
            if file.size > 1 << 20:
                continue
            reply = http.get(server.url + file.uri)
            if reply.status_code != 200 or hashlib.md5(reply.content).hexdigest() != file.digest:
                failed.append(file)
    assert all(f.project == "MESSY" or f.gone for f in failed)
    odd = {f.path for f in failed if not f.hostile and not f.gone and f.scan != "10%#"}
    assert odd == UNREACHABLE
    assert {f.path for f in failed if f.gone} == {"gone.bin", "b_gone/stats/aseg.stats"}
    assert {f.path for f in failed if f.hostile} == {
        f.path for f in files(server.archive, "MESSY", "demo") if f.hostile
    }


def test_every_file_of_a_resource_in_its_zip(server: DemoServer, http: requests.Session) -> None:
    resources: dict[str, list[TrueFile]] = {}
    for project in ("DWI", "MESSY", "NORD", "PIPES"):
        for file in files(server.archive, project, "demo"):
            if not file.hostile and file.scan != "10%#" and file.resource != "LARGE":
                resources.setdefault(file.uri.partition("/files/")[0], []).append(file)
    for address, expected in resources.items():
        reply = http.get(f"{server.url}{address}/files?format=zip")
        assert reply.status_code == 200, address
        with zipfile.ZipFile(io.BytesIO(reply.content)) as packed:
            for file in expected:
                members = [name for name in packed.namelist() if name.endswith(f"/files/{file.path}")]
                assert bool(members) != file.gone, file
                assert file.gone or hashlib.md5(packed.read(members[-1])).hexdigest() == file.digest, file


@pytest.mark.parametrize("project", READABLE)
def test_every_file_in_the_listing_of_its_session(
    server: DemoServer, http: requests.Session, project: str
) -> None:
    """`files?all=true` has everything of a session but `in` resources; and the unshared assessors of a shared
    session besides.
    """
    sessions: dict[str, dict[tuple[str, str], TrueFile]] = {}
    for file in files(server.archive, project, "demo"):
        if file.session_id and file.direction != "in":
            sessions.setdefault(file.session_id, {})[str(file.resource_id), file.path] = file
    for session, expected in sessions.items():
        rows = http.get(f"{server.url}/data/experiments/{session}/files?all=true&format=json").json()[
            "ResultSet"
        ]["Result"]
        listed = {
            (row["cat_ID"], row["URI"].partition(f"/resources/{row['cat_ID']}/files/")[2]): row
            for row in rows
        }
        beside = set(listed) - set(expected)
        owners = [
            a for a in server.archive.experiments.values() if a.session_id == session and a.project != project
        ]
        unshared = {
            str(r.id) for a in owners if project not in a.shares for r in (*a.out_resources, *a.resources)
        }
        assert set(expected) <= set(listed) and {number for number, _ in beside} == unshared
        for key, file in expected.items():
            assert (listed[key]["Size"], listed[key]["digest"]) == (str(file.listed_size), file.listed_digest)
            assert (
                listed[key]["collection"] == file.resource
                and listed[key]["Name"] == file.path.rpartition("/")[2]
            )


@pytest.mark.parametrize("login", ["admin", "demo", "outsider"])
def test_who_sees_which_projects(server: DemoServer, login: str) -> None:
    """A project with files for a login is listed to it; SECRET is listed to the administrator alone."""
    rows = requests.get(f"{server.url}/data/projects?format=json", auth=(login, login), timeout=10).json()[
        "ResultSet"
    ]["Result"]
    listed = {row["ID"] for row in rows}
    assert {p for p in server.archive.projects if files(server.archive, p, login)} <= listed
    assert ("SECRET" in listed) == (login == "admin")
