"""Requests that another thread ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import urllib3

from tests.server.conftest import connection
from tests.support import certificate, until
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure
from xnatfs.server.cancel import CancellableAdapter, CancelScope, held
from xnatfs.server.connection import Connection
from xnatfs.server.downloads import Downloads
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import FileRecord
from xnatfs.server.resources import Resources


def some_file(made: Connection) -> FileRecord:
    (session, *_) = ListingRequests(made).experiments("SCALE")
    return Resources(ListingRequests(made)).files_of_session(session.id).files[0]


def ended_after(
    begun: Callable[[], object], hold: CancelScope, work: Callable[[], object]
) -> tuple[float, list[BaseException]]:
    """Seconds from the end of the hold until the work in another thread was over, and what that raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Failure as failure:
            raised.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    until(begun)
    time.sleep(0.2)  # into the socket
    assert thread.is_alive()
    began = time.monotonic()
    hold.end()
    thread.join(30)
    return time.monotonic() - began, raised


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("where", ["head", "body"])
def test_a_request_that_waits_is_ended_at_once_and_not_sent_again(
    tmp_path: Path, where: str, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = certificate(tmp_path, "good", "IP:127.0.0.1", "-days", "2") if tls else None
    if pair is not None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair[0]))
    archive = build("scale", sessions=1, scans=1, files=1, file_size=100_000)
    with DemoServer(archive, tls=pair) as own, connection(own.url) as made:
        made.login()
        record, contents, hold = some_file(made), Downloads(made), CancelScope()
        own.clear_log()

        def read() -> None:
            with contents.file(record, hold) as stream:
                for _ in stream.pieces:
                    pass

        if where == "head":
            own.switches.latency_ms = 60_000
        else:
            own.switches.stall_after_bytes = 10
        seconds, raised = ended_after(lambda: own.requests("/files/"), hold, read)
        assert seconds < 3, "its time-out is 8 s"
        assert len(raised) == 1 and len(own.requests("/files/")) == 1
        assert made.slots.in_use == 0 and made.breaker.away() is None
        own.switches.latency_ms, own.switches.stall_after_bytes = 0, -1
        with contents.file(record, CancelScope()) as stream:  # the connection of another
            assert sum(map(len, stream.pieces)) == 100_000
        with pytest.raises(Failure), contents.file(record, hold):
            pytest.fail("what was given up begins no more")


def test_a_server_in_the_middle_of_a_large_body_is_told_at_once() -> None:
    """What has filled the window waits for room: it hears of a socket that is shut down only after a
    minute.
    """
    told = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, requests.Session() as session:

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted, contextlib.suppress(ConnectionError):
                accepted.settimeout(20)
                accepted.recv(10_000)
                accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
                accepted.sendall(bytes(100_000_000))
            told.set()

        thread = threading.Thread(target=serve)
        thread.start()
        session.mount("http://", CancellableAdapter())
        hold = CancelScope()
        with (
            held(hold),
            session.get(
                f"http://127.0.0.1:{listener.getsockname()[1]}/", stream=True, timeout=20
            ) as response,
        ):
            assert response.raw.read(1000)
            time.sleep(0.3)  # until it waits for room
            hold.end()
            with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
                while response.raw.read(1 << 20):
                    pass
        assert told.wait(5)
        thread.join(20)


def test_what_waits_since_before_an_outage_is_asked_anew_after_it(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        own.switches.latency_ms = 3.6e6
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.extend(ListingRequests(made).experiments("SCALE")))
        thread.start()
        until(lambda: own.requests("/experiments"))
        own.switches.latency_ms = 0
        time.sleep(0.1)
        made.transport.retry_unanswered()  # what the prober calls
        thread.join(10)
        assert not thread.is_alive() and len(found) == 2, "the first request waits for an hour"
