"""What `doctor` finds out by trying."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.conftest import connection
from tests.support import xnatfs
from xnatfs.cli import doctor
from xnatfs.demo.data import build
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.server import DemoServer
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.probes import clock_offset, range_works, some_file


def test_range_is_found_to_work_where_it_does(
    server: DemoServer, logged_in: Connection, listings: ListingRequests
) -> None:
    file = some_file(listings)
    assert file is not None and file.size > 0
    assert range_works(logged_in, file)
    server.switches.no_range = True
    assert not range_works(logged_in, file)


def test_without_a_file_there_is_nothing_to_try() -> None:
    with DemoServer(build("empty")) as server, connection(server.url) as made:
        made.login()
        assert some_file(ListingRequests(made)) is None


def test_a_project_in_trouble_is_passed_over(server: DemoServer, listings: ListingRequests) -> None:
    server.switches.match = "ALFA"
    server.switches.fail_status, server.switches.fail_next = 404, -1
    file = some_file(listings)
    assert file is not None and "ALFA" not in file.uri


def test_the_clock_of_the_server_is_compared(logged_in: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = clock_offset(logged_in)
    assert offset is not None and abs(offset) < 30

    reply = SimpleNamespace(headers={}, close=lambda: None)
    monkeypatch.setattr(logged_in, "get", lambda *_: reply)
    assert clock_offset(logged_in) is None
    reply.headers = {"Date": "yesterday"}
    assert clock_offset(logged_in) is None


def findings(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch, password: str = "demo"
) -> dict[str, tuple[str, str]]:
    for name, value in (("HOST", server.url), ("USER", "demo"), ("PASS", password)):
        monkeypatch.setenv(f"XNAT_{name}", value)
    told: dict[str, tuple[str, str]] = {}
    for level, what, finding in doctor._server(None, None, None, None):
        told[what] = (level, finding)
    return told


def test_doctor_says_what_it_found(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told = findings(server, monkeypatch)
    assert {level for level, _ in told.values()} == {"ok"}
    assert "XNAT 1.8.10" in told["server"][1] and "demo" in told["server"][1]
    assert told["projects"][1] == f"{len(READABLE)} can be read"
    assert len(server.requests("DELETE /data/JSESSION")) == 1


def test_doctor_says_what_is_wrong(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.switches.no_range = True
    monkeypatch.setattr(doctor, "clock_offset", lambda _: -120.0)
    told = findings(server, monkeypatch)
    assert told["Range"][0] == "note"
    assert told["clock"] == ("note", "the server's is 120 s behind this machine's")
    told = findings(server, monkeypatch, "sesame")
    assert told["server"][0] == "bad" and "refused" in told["server"][1]
    assert "sesame" not in json.dumps(told)


def test_doctor_as_a_program(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    env: dict[str, Any] = {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
    result = xnatfs("doctor", env=env)
    assert "logged in as demo" in result.stdout
    assert result.stderr == ""
