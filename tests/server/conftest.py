"""The stand-in with the lab's data, and logged-in connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import as_new, lab_archive
from xnatfs import cli, retry
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Limits, Settings
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests

# Short enough for tests of what never comes, long enough for a busy machine.
LIMITS = Limits(progress_deadline=20.0, listing_deadline=20.0, connect_timeout=10.0)


@contextlib.contextmanager
def connection(
    url: str, user: str = "demo", password: str | None = None, limits: Limits = LIMITS, **settings: object
) -> Iterator[Connection]:
    """A connection that has not logged in yet."""
    made = Connection(
        Settings(server=url, limits=limits, **settings),
        Credentials(url, user, user if password is None else password, "the test"),
    )  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what is tried, not the pauses between (`tests/unit/test_retry.py`)."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="package")
def _served() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture(params=["full", "proven"])
def profile(request: pytest.FixtureRequest) -> str:
    """Which inferred forms the server grants."""
    name: str = request.param
    return name


@pytest.fixture
def server(_served: DemoServer) -> Iterator[DemoServer]:
    """The shared server, its switches, sessions and log as new. Its data must not be changed: see `own`."""
    as_new(_served)
    assert _served._server is not None and _served._server.loop is not None
    # Its Date is renewed once a second, by a clock that another test may have set ahead a moment ago.
    asyncio.run_coroutine_threadsafe(_served._server.on_tick(0), _served._server.loop).result(20)
    yield _served


@pytest.fixture
def own() -> Iterator[DemoServer]:
    """A server of one's own, for tests that change data or stop it."""
    with DemoServer(build("scale", sessions=2, scans=2, files=2, file_size=1000)) as server:
        yield server


@pytest.fixture
def logged_in(server: DemoServer) -> Iterator[Connection]:
    """A connection of the user `demo`."""
    with connection(server.url) as made:
        made.login()
        server.clear_log()
        yield made


@pytest.fixture
def listings(logged_in: Connection) -> ListingRequests:
    """The listings of the user `demo`."""
    return ListingRequests(logged_in)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call `xnatfs`: its exit code, and what it said."""
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        return (ended.value.code if isinstance(ended.value.code, int) else 0), out + err

    return call
