"""The configuration service: lists of tools, texts, and who may read them (xnat-rest.md 16)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xnatfs.demo.model import Configuration
from xnatfs.demo.server import DemoServer

from .conftest import Client


@pytest.fixture(autouse=True)
def texts(server: DemoServer) -> Iterator[None]:
    project = server.archive.projects["P1"]
    project.configurations = [
        Configuration("bids", "bidsmap", '[{"series_description": "x"}]'),
        Configuration("dcm2bids", "bidsconfig", "{}", status="disabled"),
    ]
    yield
    project.configurations = []


def rows(alice: Client, path: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = alice.get(f"{path}?format=json").json()["ResultSet"]["Result"]
    return found


def test_tools_and_texts(alice: Client) -> None:
    root = "/data/projects/P1/config"
    assert rows(alice, root) == [{"tool": "bids"}, {"tool": "dcm2bids"}]
    (row,) = rows(alice, f"{root}/bids")
    assert (row["path"], row["project"], row["status"]) == ("bidsmap", "P1", "enabled")
    assert rows(alice, f"{root}/bids/bidsmap")[0]["contents"] == '[{"series_description": "x"}]'
    text = alice.get(f"{root}/bids/bidsmap?contents=true")
    assert text.text == '[{"series_description": "x"}]' and text.headers["Content-Type"][:10] == "text/plain"
    # One that is disabled is listed, and has no text.
    assert rows(alice, f"{root}/dcm2bids")[0]["status"] == "disabled"
    assert alice.get(f"{root}/dcm2bids/bidsconfig?contents=true").status_code == 404


def test_what_is_not_there_or_not_to_be_read(alice: Client) -> None:
    for path in ("P1/config/none", "P1/config/bids/none", "PUB/config", "HID/config", "none/config"):
        assert alice.get(f"/data/projects/{path}").status_code == 404, path
    assert alice.get("/data/projects/PROT/config").status_code == 403
    assert rows(alice, "/data/config") == [{"tool": "scan-quality"}]
    assert alice.get("/data/config/bids/bidsmap?contents=true").status_code == 404
    assert "unusable" in alice.get("/data/config/scan-quality/labels?contents=true").text
