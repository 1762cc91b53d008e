"""A server that goes away and comes back: what fails, how soon, and that it is found again."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.server.conftest import connection
from tests.support import until
from xnatfs import retry
from xnatfs.config import Limits
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server import breaker, http_transport
from xnatfs.server.connection import Connection
from xnatfs.server.downloads import Downloads
from xnatfs.server.records import FileRecord, Owner
from xnatfs.server.resultset import rows_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is tested with a clock of its own; here it is a little more impatient."""
    monkeypatch.setattr(breaker, "SPREAD", 0.2)
    monkeypatch.setattr(breaker, "SILENCE", 0.5)
    monkeypatch.setattr(http_transport, "_PROBE_TIMEOUT", 0.5)


def projects(made: Connection) -> set[str]:
    return {row["id"] for row in made.listing("/data/projects", {"format": "json"}, rows_of)}


def refused(made: Connection) -> Failure:
    with pytest.raises(Failure) as caught:
        projects(made)
    return caught.value


@contextlib.contextmanager
def listening(sends: bytes, pause: float) -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes connections and sends these bytes, `pause` seconds apart after the head, then
    nothing.
    """
    taken: list[socket.socket] = []

    def serve(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if one.recv(65536) and sends:
                one.sendall(sends)
            while pause:
                one.sendall(b" ")
                time.sleep(pause)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                threading.Thread(target=serve, args=(taken[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for one in taken:
                one.close()


def test_a_server_that_is_known_to_be_away_is_not_asked_and_is_found_again(
    own: DemoServer, quick: None
) -> None:
    with connection(own.url) as made:
        made.login()
        own.stop()
        until(lambda: refused(made).away)
        began = time.monotonic()
        failures = [refused(made) for _ in range(100)]
        assert time.monotonic() - began < 6, "with retries it would be a quarter of a minute"
        assert all(failure.away for failure in failures)
        assert {failure.cause for failure in failures} == {Cause.UNREACHABLE}
        assert "connection refused since " in str(failures[-1])
        own.start()
        until(lambda: made.breaker.away() is None, 20)  # nobody asks
        assert projects(made) == {"SCALE"}
        assert len(own.requests("buildInfo")) >= 2 and own.requests("buildInfo")[-1].user == "guest"


@pytest.mark.parametrize("seconds", [0.3, 1.2])
def test_a_restart_is_not_noticed(own: DemoServer, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.2)  # as it is outside of tests
    with connection(own.url) as made:
        made.login()
        own.stop()
        threading.Timer(seconds, own.start).start()
        assert projects(made) == {"SCALE"}
        assert made.breaker.away() is None


def test_a_silent_server_is_noticed_before_its_time_out(quick: None) -> None:
    with listening(b"", 0) as (url, _), connection(url) as made:
        began = time.monotonic()
        thread = threading.Thread(target=_try, args=(made,), daemon=True)
        thread.start()
        until(lambda: made.breaker.away() is not None)
        assert time.monotonic() - began < 8 and thread.is_alive(), "the request itself waits for 20 s"
        assert refused(made).cause is Cause.TIMED_OUT


def _try(made: Connection) -> None:
    with contextlib.suppress(Failure):
        projects(made)


def test_a_listing_that_trickles_ends_in_time() -> None:
    limits = Limits(progress_deadline=20, listing_deadline=0.6, connect_timeout=5)
    with listening(HEAD, 0.05) as (url, taken), connection(url, limits=limits) as made:
        began = time.monotonic()
        assert refused(made).cause is Cause.TIMED_OUT
        assert time.monotonic() - began < 5 and len(taken) == 1
        assert made.breaker.away() is None, "it did answer"


def test_a_pause_that_is_asked_for_has_a_limit(
    server: DemoServer, logged_in: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.2)
    server.switches.fail_status, server.switches.fail_next, server.switches.retry_after = 429, 1, "3600"
    began = time.monotonic()
    assert projects(logged_in)
    assert time.monotonic() - began < 10


def test_after_the_machine_slept_connections_are_made_anew(server: DemoServer, logged_in: Connection) -> None:
    assert projects(logged_in)
    assert projects(logged_in)
    logged_in.breaker.clock._offset -= 3600  # as if the wall clock had gone on for an hour without the other
    assert projects(logged_in)
    first, second, third = (one.connection for one in server.requests("^GET /data/projects"))
    assert first == second != third


def test_a_file_that_trickles_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 100000\r\n\r\n"
    limits = Limits(progress_deadline=0.6, listing_deadline=20, connect_timeout=5)
    record = FileRecord(Owner("experiment", "X"), 1, "R", "a", 100000, "")
    with listening(head, 0.05) as (url, _), connection(url, limits=limits) as made:
        began = time.monotonic()
        with Downloads(made).file(record) as stream, pytest.raises(Failure) as caught:
            for _ in stream.pieces:
                pass
        assert caught.value.cause is Cause.TIMED_OUT
        assert time.monotonic() - began < 5
