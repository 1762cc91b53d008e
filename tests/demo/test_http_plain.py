"""The plain view of the files: pages of links, WebDAV's answer, ranges, and who may see what."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
import requests

from tests.demo.conftest import tiny
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

ALICE = ("alice", "alice")


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(tiny(), Switches()) as running:
        yield running


def ask(
    server: DemoServer, path: str, method: str = "GET", auth: tuple[str, str] | None = ALICE, **headers: str
) -> requests.Response:
    return requests.request(
        method,
        f"{server.url}/demo/plain/{path}",
        auth=auth,
        headers=headers,
        timeout=10,
        allow_redirects=False,
    )


def links(server: DemoServer, path: str) -> list[str]:
    return re.findall(r'<a href="([^"]+)">', ask(server, path).text)


def test_pages_of_links(server: DemoServer) -> None:
    assert links(server, "") == ["P1/", "PUB/"]
    assert links(server, "P1/") == ["mr1/", "shared_mr/", "visit/"]
    assert links(server, "P1/visit/") == ["RESOURCES/"]
    assert links(server, "P1/mr1/1/") == ["DICOM/", "NIFTI/"]
    assert links(server, "P1/mr1/1/DICOM/") == ["0.dcm", "1.dcm", "2.dcm"]
    assert ask(server, "P1/mr1").headers["Location"] == "/demo/plain/P1/mr1/"


def test_what_is_not_there_and_what_is_not_yours(server: DemoServer) -> None:
    for path in ("NONE/", "HID/", "PROT/", "P1/none/", "P1/mr1/99/", "P1/mr1/1/NONE/", "P1/mr1/1/DICOM/none"):
        assert ask(server, path).status_code == 404
    assert ask(server, "", auth=None).status_code == 401
    assert ask(server, "", auth=("alice", "wrong")).status_code == 401
    assert ask(server, "", "DELETE").status_code == 405


def test_files_and_ranges(server: DemoServer) -> None:
    path = "P1/mr1/1/DICOM/2.dcm"
    whole = ask(server, path)
    assert whole.content == b"\2" * 10 and whole.headers["Last-Modified"] == "Tue, 05 Mar 2024 06:07:08 GMT"
    assert ask(server, path, "HEAD").headers["Content-Length"] == "10"
    for wanted, length, answered in (
        ("2-4", 3, "bytes 2-4/10"),
        ("8-99", 2, "bytes 8-9/10"),
        ("-3", 3, "bytes 7-9/10"),
        ("9-", 1, "bytes 9-9/10"),
    ):
        part = ask(server, path, Range=f"bytes={wanted}")
        assert (part.status_code, len(part.content), part.headers["Content-Range"]) == (206, length, answered)
    assert ask(server, path, Range="bytes=10-").status_code == 416


def test_webdav(server: DemoServer) -> None:
    def found(path: str, depth: str) -> dict[str, str]:
        answer = ask(server, path, "PROPFIND", Depth=depth)
        assert answer.status_code == 207
        rows = ElementTree.fromstring(answer.text).findall("{DAV:}response")
        return {
            row.findtext("{DAV:}href", ""): row.findtext(".//{DAV:}getcontentlength", "folder")
            for row in rows
        }

    base = "/demo/plain/P1/mr1/1/NIFTI/"
    assert found("P1/mr1/1/NIFTI/", "1") == {base: "folder", base + "t1.nii.gz": "20", base + "t1.json": "2"}
    assert found("P1/mr1/1/NIFTI", "0") == {base: "folder"}
    assert found("P1/mr1/1/NIFTI/t1.json", "0") == {base + "t1.json": "2"}
    assert "PROPFIND" in ask(server, "", "OPTIONS").headers["Allow"]


def test_changes_show_and_requests_are_logged_and_delayed(server: DemoServer) -> None:
    assert links(server, "PUB/")
    server.call(lambda: setattr(server.archive.experiments["T_E2"], "label", "renamed"))
    server.call(lambda: server.archive.tick())
    assert links(server, "PUB/") == ["renamed/"]
    server.clear_log()
    server.switches.latency_ms = 100
    begin = time.monotonic()
    ask(server, "PUB/")
    server.switches.latency_ms = 0
    assert time.monotonic() - begin >= 0.1
    assert [record.target for record in server.requests()] == ["/demo/plain/PUB/"]
    totals = requests.get(f"{server.url}/demo/log/totals", timeout=10).json()
    assert totals["requests"] == 1 and totals["sent"] > 0 and totals["under_way"] == 0
