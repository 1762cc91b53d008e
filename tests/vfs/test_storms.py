"""What keeps failing does not make a walk endless, nor a web page in place of a listing a storm of logins."""

from __future__ import annotations

import dataclasses
import errno
from collections import Counter
from pathlib import Path

import pytest

from tests.support import walk
from tests.vfs.conftest import LIMITS, Compose
from xnatfs.concurrency import recent_failures
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

SESSIONS = 50
TTL = dataclasses.replace(LIMITS, ttl=60.0)


@pytest.fixture
def real_pauses(short_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For how long a failure is remembered is what is tried here."""
    monkeypatch.setattr(recent_failures, "FIRST_PAUSE_S", 2.0)


def all_of(core: Core, path: str = "/projects") -> tuple[int, list[int]]:
    """Files below a folder, and the errors met, going on after each."""
    files, errors, todo = 0, [], [path]
    while todo:
        folder = todo.pop()
        try:
            entries = core.vfs.entries(folder)
        except OSError as error:
            errors.append(error.errno)
            continue
        for name, attributes in entries:
            if attributes.mode & 0o040000:
                todo.append(f"{folder}/{name}")
            else:
                files += 1
    return files, errors


@pytest.mark.usefixtures("real_pauses")
@pytest.mark.parametrize("form", ["files?", "resources?", "experiments?", "imageScanData", "subjects?"])
@pytest.mark.parametrize("status", [500, 403, 503])
def test_a_form_that_always_fails_does_not_make_a_walk_endless(
    compose: Compose, form: str, status: int
) -> None:
    archive = build("scale", sessions=SESSIONS, scans=2, files=2, file_size=10)
    with DemoServer(archive) as server:
        core = compose(server, user="admin", limits=TTL)
        server.switches.match, server.switches.fail_status = form.replace("?", r"\?"), status
        server.switches.fail_next = -1
        server.clear_log()
        files, errors = all_of(core)
        times = Counter(one.target for one in server.requests())
        assert max(times.values()) <= 10, times.most_common(3)
        assert errors or files == sum(1 for _ in walk(core.vfs, "/projects"))
        server.switches.fail_next = 0
        core.listing_service.clock.advance(61.0)
        assert all_of(core)[1] == []


@pytest.mark.usefixtures("real_pauses")
@pytest.mark.parametrize("switch", ["html_instead", "redirect_next"])
def test_a_page_in_place_of_a_listing_starts_no_storm(compose: Compose, switch: str) -> None:
    archive = build("scale", sessions=SESSIONS, scans=2, files=2, file_size=10)
    with DemoServer(archive) as server:
        core = compose(server, user="admin", limits=TTL)
        server.switches.match = r"/files\?"
        setattr(server.switches, switch, -1)
        server.clear_log()
        files, errors = all_of(core)
        assert (files, set(errors)) == (0, {errno.EIO})
        logins = server.requests(r"^GET /data/JSESSION")
        assert len(logins) <= 2
        assert server.call(lambda: len(server._application.sessions.of_user("admin"))) <= 2
        assert not core.connection.logins.refused
        setattr(server.switches, switch, 0)
        core.listing_service.clock.advance(61.0)
        assert all_of(core)[1] == []


@pytest.mark.usefixtures("real_pauses")
def test_a_refresh_forgets_what_failed(compose: Compose) -> None:
    """On a server without bulk listings, where a session is asked for by itself."""
    archive = build("scale", sessions=2, scans=1, files=1, file_size=10)
    with DemoServer(archive, Switches(profile="proven")) as server:
        core = compose(server, user="admin", limits=TTL)
        server.switches.match, server.switches.fail_status = r"/(resources|files)\?|/subjects/[^/]*\?", 500
        server.switches.fail_next = -1
        assert all_of(core)[1]
        server.switches.fail_next = 0
        core.refresh()
        assert all_of(core)[1] == []


def test_too_many_sessions_are_no_refused_password(compose: Compose, tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=1, files=1, file_size=10)
    with DemoServer(archive) as server:
        core = compose(server, user="admin", limits=TTL)
        server.expire_sessions()
        server.switches.max_sessions = 0
        _, errors = all_of(core)
        assert errors == [errno.EUSERS]
        assert not core.connection.logins.refused
