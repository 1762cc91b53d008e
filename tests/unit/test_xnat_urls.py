"""Which server an `xnat://` URL means, and where in its tree."""

from __future__ import annotations

import pytest

from xnatfs.auth.addresses import Address, KnownServers, address
from xnatfs.errors import UsageError

KNOWN = KnownServers(
    frozenset({"lab"}),
    [
        "https://one.example.org",
        "https://two.example.org/xnat",
        "http://localhost:8080",
        "https://h/a",
        "https://h/a/b",
    ],
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (None, None, "/")),
        ("/projects/P", (None, None, "/projects/P")),
        ("jane@/projects", (None, "jane", "/projects")),
        ("lab/projects/P", ("lab", None, "/projects/P")),
        ("jane@lab", ("lab", "jane", "/")),
        ("one.example.org/projects/P/", ("https://one.example.org", None, "/projects/P")),
        ("ONE.example.org/tables", ("https://one.example.org", None, "/tables")),
        ("localhost:8080/views", ("http://localhost:8080", None, "/views")),
        # a server that is not at the root of its host, with its path and without
        ("two.example.org/xnat/projects", ("https://two.example.org/xnat", None, "/projects")),
        ("two.example.org/xnat", ("https://two.example.org/xnat", None, "/")),
        ("two.example.org/projects/xnat", ("https://two.example.org/xnat", None, "/projects/xnat")),
        ("h/a/b/projects", ("https://h/a/b", None, "/projects")),
        ("h/a/projects", ("https://h/a", None, "/projects")),
        # not known
        ("new.example.org/projects/P", ("new.example.org", None, "/projects/P")),
        ("new.example.org/xnat/projects/P", ("new.example.org/xnat", None, "/projects/P")),
        ("new.example.org:8443", ("new.example.org:8443", None, "/")),
    ],
)
def test_a_server_and_a_path(text: str, found: tuple[str | None, str | None, str]) -> None:
    assert address(text, KNOWN) == Address(*found)


@pytest.mark.parametrize("text", ["jane:secret@lab/projects", "jane:se/cret@lab/projects", ":secret@lab"])
def test_no_password(text: str) -> None:
    with pytest.raises(UsageError, match="does not belong in a URL") as refused:
        address(text, KNOWN)
    assert "cret" not in str(refused.value)


def test_no_host() -> None:
    with pytest.raises(UsageError, match="names no server"):
        address("projects/P", KNOWN)
