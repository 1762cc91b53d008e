"""What a listing does when the server is in trouble: again where that can help, a plain failure where it
cannot.
"""

from __future__ import annotations

import errno
import os
import threading
import time

import pytest
import urllib3

from tests.server.conftest import LIMITS, connection
from tests.server.scripted import Answer, Asked, scripted, xnat
from tests.support import until
from xnatfs.config import Limits
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.resultset import rows_of

TABLE = b'{"ResultSet":{"Result":[{"ID":"P1"},{"ID":"P2"}], "totalRecords": "2"}}'


def projects(connection: Connection) -> set[str]:
    return {row["id"] for row in connection.listing("/data/projects", {"format": "json"}, rows_of)}


def refused(connection: Connection) -> Failure:
    with pytest.raises(Failure) as caught:
        projects(connection)
    return caught.value


@pytest.mark.parametrize(("status", "times"), [(503, 1), (503, 3), (502, 1), (504, 1), (500, 2), (429, 2)])
def test_a_passing_trouble_is_waited_out(
    server: DemoServer, logged_in: Connection, status: int, times: int
) -> None:
    server.switches.fail_status, server.switches.fail_next = status, times
    assert projects(logged_in) == set(READABLE)
    assert [one.status for one in server.requests()] == [status] * times + [200]


def test_the_server_says_how_long_to_wait(server: DemoServer, logged_in: Connection) -> None:
    server.switches.fail_status, server.switches.fail_next, server.switches.retry_after = 429, 1, "1"
    assert projects(logged_in)
    first, second = server.requests()
    assert second.time - first.time >= 0.99


def test_what_the_server_asks_for_holds_for_every_thread(server: DemoServer, logged_in: Connection) -> None:
    """One is answered 429; would fail if another one sent anything while that one waits."""
    server.switches.fail_status, server.switches.fail_next, server.switches.retry_after = 429, 1, "1"
    waiting = threading.Thread(target=projects, args=(logged_in,))
    waiting.start()
    until(lambda: server.requests() and server.requests()[0].status)
    time.sleep(0.2)  # until the answer has arrived
    assert projects(logged_in) == set(READABLE)
    waiting.join()
    first, *others = server.requests()
    assert len(others) == 2 and all(one.time - first.time >= 0.99 for one in others)


@pytest.mark.parametrize("status", [500, 503])
def test_a_lasting_trouble_becomes_a_failure_after_a_few_tries(
    server: DemoServer, logged_in: Connection, status: int
) -> None:
    server.switches.fail_status, server.switches.fail_next = status, -1
    failure = refused(logged_in)
    assert (failure.cause, failure.status) == (Cause.SERVER_ERROR, status)
    assert 2 <= len(server.requests()) <= 5


@pytest.mark.parametrize(
    ("status", "cause"), [(403, Cause.NOT_ALLOWED), (404, Cause.UNPROVEN), (400, Cause.SERVER_ERROR)]
)
def test_a_refusal_is_not_asked_again(
    server: DemoServer, logged_in: Connection, status: int, cause: Cause
) -> None:
    server.switches.fail_status, server.switches.fail_next = status, -1
    failure = refused(logged_in)
    assert (failure.cause, failure.status) == (cause, status)
    assert len(server.requests()) == 1


def test_a_connection_that_is_dropped_is_made_again(server: DemoServer, logged_in: Connection) -> None:
    server.switches.requests_per_connection = 1
    for _ in range(3):
        assert projects(logged_in)


def test_a_server_that_went_away_is_unreachable(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        own.stop()
        assert refused(made).cause is Cause.UNREACHABLE
        own.start()
        assert projects(made) == {"SCALE"}


@pytest.mark.parametrize("length", [0, 1, 40, 100])
def test_a_listing_that_ends_early_and_cleanly_is_asked_again(
    server: DemoServer, logged_in: Connection, length: int
) -> None:
    server.switches.truncate_after_bytes, server.switches.truncate_next = length, 2
    assert projects(logged_in) == set(READABLE)
    assert len(server.requests()) == 3


def test_a_listing_that_always_ends_early_is_never_half_believed(
    server: DemoServer, logged_in: Connection
) -> None:
    server.switches.truncate_after_bytes = 100
    assert refused(logged_in).cause is Cause.BAD_LISTING
    assert len(server.requests()) == 3


def test_a_listing_that_is_cut_is_asked_again(server: DemoServer, logged_in: Connection) -> None:
    server.switches.match = "^/data/projects"
    server.switches.cut_after_bytes, server.switches.cut_next = 50, 2
    assert projects(logged_in) == set(READABLE)


def test_a_listing_that_is_always_cut_is_a_failure(server: DemoServer, logged_in: Connection) -> None:
    server.switches.match = "^/data/projects"
    server.switches.cut_after_bytes = 50
    assert refused(logged_in).cause in (Cause.CUT_SHORT, Cause.UNREACHABLE)


def test_a_length_that_lies_is_noticed() -> None:
    answers = [
        Answer(200, TABLE, {"Content-Type": "application/json"}, length=len(TABLE) + 10),
        Answer(200, TABLE, {"Content-Type": "application/json"}),
    ]

    def script(one: Asked) -> Answer:
        return answers.pop(0) if one.target.startswith("/data/projects") else xnat(one)

    with scripted(script) as odd, connection(odd.url) as made:
        made.login()
        assert projects(made) == {"P1", "P2"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"ResultSet":{}}', b"busy", b"\xff\xfe"])
def test_what_is_no_listing_is_a_failure_that_says_so(body: bytes) -> None:
    def script(one: Asked) -> Answer:
        return (
            Answer(200, body, {"Content-Type": "application/json"})
            if one.target.startswith("/data/projects")
            else xnat(one)
        )

    with scripted(script) as odd, connection(odd.url) as made:
        made.login()
        assert refused(made).cause is Cause.BAD_LISTING


def test_a_listing_that_never_comes_is_given_up(server: DemoServer) -> None:
    limits = Limits(progress_deadline=20, listing_deadline=0.4, connect_timeout=5)
    with connection(server.url, limits=limits) as made:
        made.login()
        server.switches.listing_delay_ms = 20_000
        assert refused(made).cause is Cause.TIMED_OUT


def test_a_500_is_never_taken_for_an_empty_listing(server: DemoServer, logged_in: Connection) -> None:
    listings = ListingRequests(logged_in)
    server.switches.match = "/data/projects/ALFA/"
    server.switches.fail_status, server.switches.fail_next = 500, -1
    for ask in (listings.subjects, listings.experiments):
        with pytest.raises(Failure) as caught:
            ask("ALFA")
        assert caught.value.cause is Cause.SERVER_ERROR
    server.switches.fail_next = 0
    assert listings.subjects("ALFA")[0]
    assert listings.experiments("ALFA")


def test_own_descriptors_used_up_say_nothing_of_the_server(
    logged_in: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    logged_in.transport.session.get_adapter(logged_in.server).close()
    with monkeypatch.context() as patch:
        patch.setattr(urllib3.util.connection, "create_connection", exhausted)
        failure = refused(logged_in)
    assert failure.cause is Cause.NO_RESOURCES
    assert logged_in.breaker.away() is None
    assert projects(logged_in)


def test_requests_are_counted_for_status(server: DemoServer, logged_in: Connection) -> None:
    before = logged_in.requests
    projects(logged_in)
    assert logged_in.requests == before + 1
    assert logged_in.slots.in_use == 0


def test_a_proxy_can_be_named(server: DemoServer) -> None:
    def script(one: Asked) -> Answer:
        assert one.target.startswith("http://xnat.example.org/")
        inner = Asked(one.method, one.target.removeprefix("http://xnat.example.org"), one.headers)
        return xnat(inner)

    from xnatfs.auth.credentials import Credentials
    from xnatfs.config import Settings

    with scripted(script) as proxy:
        login = Credentials("http://xnat.example.org", "demo", "demo", "the test", proxy=proxy.url)
        made = Connection(Settings("http://xnat.example.org", limits=LIMITS, allow_http=True), login)
        try:
            assert made.login() == "demo"
        finally:
            made.close()
        assert len(proxy.asked) == 4
