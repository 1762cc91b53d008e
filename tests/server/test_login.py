"""Logging in: as whom, how often, and where never."""

from __future__ import annotations

import base64
import os
import socket
import threading

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, scripted, xnat
from xnatfs.config import Limits
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.connection import Connection
from xnatfs.server.http_transport import USER_AGENT
from xnatfs.server.resultset import rows_of


def failed_login(
    url: str, user: str = "demo", password: str | None = None, limits: Limits | None = None
) -> Failure:
    with (
        connection(url, user, password, limits or Limits(connect_timeout=10, progress_deadline=20)) as made,
        pytest.raises(Failure) as caught,
    ):
        made.login()
    return caught.value


def sessions(server: DemoServer) -> int:
    """Server-side sessions of anybody."""
    application = server._application
    return server.call(lambda: len(application.sessions._sessions))


# --- whose login --------------------------------------------------------------------------------------------


def test_a_login_learns_the_users_name_and_the_version(server: DemoServer) -> None:
    with connection(server.url) as made:
        assert made.login() == made.user == "demo"
        assert made.version == "1.8.10"
        assert sessions(server) == 1


def test_an_alias_token_logs_in_as_its_owner(server: DemoServer) -> None:
    token = server.call(lambda: server._application.sessions.issue(server.archive.users["demo"]))
    with connection(server.url, token.alias, token.secret) as made:
        assert made.login() == "demo"
        assert made.get("/data/auth").text == "User 'demo' is logged in"
        # A session of the token serves all requests: no new one for each.
        assert sessions(server) == 1


def test_names_and_passwords_may_have_any_characters(server: DemoServer) -> None:
    server.archive.users["demo"].password = "sésame: %+漢"
    try:
        with connection(server.url, "demo", "sésame: %+漢") as made:
            assert made.login() == "demo"
    finally:
        server.archive.users["demo"].password = "demo"


def test_all_requests_share_one_server_side_session_which_ends_with_the_connection(
    server: DemoServer,
) -> None:
    with connection(server.url) as made:
        made.login()
        for _ in range(5):
            made.get("/data/projects", params={"format": "json"})
        assert sessions(server) == 1
    assert len(server.requests(r"^DELETE /data/JSESSION$")) == 1
    assert sessions(server) == 0


def test_a_connection_that_never_logged_in_ends_without_a_request(server: DemoServer) -> None:
    with connection(server.url):
        pass
    assert server.requests() == []


def test_closing_while_the_server_is_away_is_quiet(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        own.stop()


def test_it_never_looks_like_a_browser(server: DemoServer) -> None:
    with connection(server.url) as made:
        made.login()
    assert {one.user_agent for one in server.requests()} == {USER_AGENT}
    assert "Mozilla" not in USER_AGENT


# --- refused ------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_sent_exactly_once_and_never_again(server: DemoServer) -> None:
    with connection(server.url, "demo", "wrong") as made:
        for _ in range(3):
            with pytest.raises(Failure) as caught:
                made.login()
            assert caught.value.cause is Cause.LOGIN_REFUSED
        assert "wrong" not in str(caught.value)
    assert [one.status for one in server.requests("JSESSION|/data/auth")] == [401]
    assert server.requests("DELETE") == []


def test_a_refused_login_says_where_it_was_found(server: DemoServer) -> None:
    assert "the test" in str(failed_login(server.url, "demo", "wrong"))


def test_a_password_that_changes_while_mounted_is_tried_once_by_all_threads_together(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        own.call(lambda: setattr(own.archive.users["demo"], "password", "changed"))
        own.expire_sessions()
        own.clear_log()
        causes: list[Cause] = []

        def ask() -> None:
            try:
                made.listing("/data/projects", {"format": "json"}, rows_of)
            except Failure as failure:
                causes.append(failure.cause)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert causes == [Cause.LOGIN_REFUSED] * 6
        assert len(own.requests("GET /data/JSESSION")) == 1
        # At most one refusal a request that was under way, one for the login: far from a lock-out at 20.
        assert len([one for one in own.requests() if one.status == 401]) <= 7


def test_no_password_is_sent_any_more_once_it_was_refused(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        own.call(lambda: setattr(own.archive.users["demo"], "password", "changed"))
        own.expire_sessions()
        for _ in range(25):
            with pytest.raises(Failure) as caught:
                made.listing("/data/projects", {"format": "json"}, rows_of)
            assert caught.value.cause is Cause.LOGIN_REFUSED
        assert len([one for one in own.requests() if one.status == 401]) < 5


def test_a_guest_on_an_open_server_is_not_taken_for_a_login(server: DemoServer) -> None:
    server.switches.require_login = False

    def script(one: Asked) -> Answer:
        return Answer(body=b"User 'guest' is logged in") if one.target == "/data/auth" else xnat(one)

    with scripted(script) as odd:
        failure = failed_login(odd.url)
    assert failure.cause is Cause.LOGIN_REFUSED
    assert "guest" in str(failure)
    with connection(server.url) as made:
        assert made.login() == "demo"


# --- the session expires ------------------------------------------------------------------------------------


@pytest.mark.parametrize("require_login", [True, False])
def test_an_expired_session_is_renewed_without_anybody_noticing(
    server: DemoServer, logged_in: Connection, require_login: bool
) -> None:
    server.switches.require_login = require_login
    for _ in range(3):
        server.expire_sessions()
        rows = logged_in.listing("/data/projects", {"format": "json"}, rows_of)
        assert {row["id"] for row in rows} == set(READABLE)


def test_sessions_that_end_after_every_few_requests_do_no_harm(
    server: DemoServer, logged_in: Connection
) -> None:
    server.switches.expire_after_requests = 3
    for _ in range(12):
        assert len(logged_in.listing("/data/projects", {"format": "json"}, rows_of)) == len(READABLE)


def test_eight_threads_that_meet_an_expired_session_log_in_once(own: DemoServer) -> None:
    # A server that hears the password only at a login: else the stand-in, like XNAT, heals the session by
    # itself.
    living, lock, logins = ["first"], threading.Lock(), []

    def script(one: Asked) -> Answer:
        if one.target == "/data/JSESSION":
            with lock:
                logins.append(one)
                living[0] = f"session{len(logins)}"
            return Answer(body=b"x", headers={"Set-Cookie": f"JSESSIONID={living[0]}; Path=/"})
        if one.target.startswith("/data/projects"):
            if one.headers.get("cookie") != f"JSESSIONID={living[0]}":
                return Answer(401, headers={"WWW-Authenticate": "Basic"})
            return Answer(body=b'{"ResultSet":{"Result":[]}}', headers={"Content-Type": "application/json"})
        return xnat(one)

    with scripted(script) as odd, connection(odd.url) as made:
        made.login()
        assert len(logins) == 1
        living[0] = "ended by an administrator"
        barrier, results = threading.Barrier(8), []

        def ask() -> None:
            barrier.wait(20)
            results.append(made.listing("/data/projects", {}, rows_of))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert results == [[]] * 8
        assert len(logins) == 2


def test_the_way_to_the_login_page_is_no_data_but_an_expired_session() -> None:
    sent: list[Asked] = []

    def script(one: Asked) -> Answer:
        if one.target.startswith("/data/projects"):
            sent.append(one)
            return Answer(302, headers={"Location": "/app/template/Login.vm"})
        return xnat(one)

    with scripted(script) as odd, connection(odd.url) as made:
        made.login()
        with pytest.raises(Failure) as caught:
            made.listing("/data/projects", {"format": "json"}, rows_of)
        assert caught.value.cause is Cause.NOT_DATA
        assert 2 <= len(sent) <= 6
        assert "/app/template/Login.vm" not in [one.target for one in odd.asked]


@pytest.mark.parametrize("pages", [1, 2, 100])
def test_a_web_page_with_status_200_is_never_data(
    server: DemoServer, logged_in: Connection, pages: int
) -> None:
    server.switches.html_instead = pages
    server.switches.match = "^/data/projects"
    if pages == 100:
        with pytest.raises(Failure) as caught:
            logged_in.listing("/data/projects", {"format": "json"}, rows_of)
        assert caught.value.cause is Cause.NOT_DATA
        assert len(server.requests("GET /data/projects")) <= 10
    else:
        assert len(logged_in.listing("/data/projects", {"format": "json"}, rows_of)) == len(READABLE)


# --- the way there ------------------------------------------------------------------------------------------


def test_credentials_never_follow_to_another_host() -> None:
    with scripted(xnat) as thief:
        elsewhere = thief.url.replace("127.0.0.1", "localhost")

        def script(one: Asked) -> Answer:
            return Answer(302, headers={"Location": elsewhere + one.target})

        with scripted(script) as moved:
            failure = failed_login(moved.url)
            assert failure.cause is Cause.MOVED
            assert elsewhere in str(failure)
            assert not any("authorization" in one.headers for one in moved.asked)
        assert thief.asked == []


def test_credentials_never_follow_a_redirect_of_a_listing(own: DemoServer) -> None:
    with scripted(xnat) as thief:
        elsewhere = thief.url.replace("127.0.0.1", "localhost")

        def script(one: Asked) -> Answer:
            return (
                Answer(302, headers={"Location": elsewhere + one.target})
                if one.target.startswith("/data/projects")
                else xnat(one)
            )

        with scripted(script) as moved, connection(moved.url) as made:
            made.login()
            with pytest.raises(Failure) as caught:
                made.listing("/data/projects", {}, rows_of)
            assert caught.value.cause is Cause.NOT_DATA
        assert thief.asked == []


def test_a_move_to_another_port_is_told_and_not_followed(server: DemoServer) -> None:
    def script(one: Asked) -> Answer:
        return Answer(301, headers={"Location": server.url + one.target})

    with scripted(script) as old:
        failure = failed_login(old.url)
        assert failure.cause is Cause.MOVED
        assert server.url in str(failure)
        assert len(old.asked) == 1
        assert "authorization" not in old.asked[0].headers
    assert server.requests() == []


def test_a_move_to_another_path_is_followed() -> None:
    def script(one: Asked) -> Answer:
        return (
            xnat(one)
            if one.target.startswith("/xnat/")
            else Answer(301, headers={"Location": "/xnat" + one.target})
        )

    with scripted(script) as deeper, connection(deeper.url) as made:
        assert made.login() == "demo"
        assert made.server == deeper.url + "/xnat"


def test_the_password_is_not_sent_before_the_server_is_known_to_be_one(server: DemoServer) -> None:
    with scripted(xnat) as seen, connection(seen.url) as made:
        made.login()
        assert "authorization" not in seen.asked[0].headers
        expected = "Basic " + base64.b64encode(b"demo:demo").decode()
        assert {one.headers.get("authorization") for one in seen.asked[1:]} == {expected}


def test_a_netrc_entry_does_not_replace_the_chosen_login(private_home: object, server: DemoServer) -> None:
    path = os.path.join(str(private_home), ".netrc")
    with open(path, "w") as stream:
        stream.write("machine 127.0.0.1 login outsider password outsider\n")
    os.chmod(path, 0o600)
    with connection(server.url) as made:
        assert made.login() == "demo"
    assert {one.user for one in server.requests("/data/")} == {"demo"}


def test_a_redirect_in_a_circle_ends() -> None:
    def script(one: Asked) -> Answer:
        return Answer(302, headers={"Location": one.target})

    with scripted(script) as odd:
        assert failed_login(odd.url).cause in (Cause.MOVED, Cause.NOT_AN_XNAT)
        assert len(odd.asked) < 10


# --- something else there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_server_that_is_no_xnat_is_told_so(status: int) -> None:
    with scripted(
        lambda one: Answer(status, b"<html>It works!</html>", {"Content-Type": "text/html"})
    ) as odd:
        failure = failed_login(odd.url)
    assert failure.cause is Cause.NOT_AN_XNAT
    assert odd.url in str(failure)


def test_an_xnat_of_before_1_7_without_xapi_is_taken() -> None:
    def script(one: Asked) -> Answer:
        return Answer(404) if "/xapi/" in one.target else xnat(one)

    with scripted(script) as old, connection(old.url) as made:
        assert made.login() == "demo"
        assert made.version == ""


def test_an_xnat_below_a_path_is_found_there() -> None:
    def script(one: Asked) -> Answer:
        return xnat(one) if one.target.startswith("/xnat/") else Answer(404)

    with scripted(script) as deep:
        with connection(deep.url + "/xnat") as made:
            assert made.login() == "demo"
        assert failed_login(deep.url).cause is Cause.NOT_AN_XNAT


def test_an_unknown_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:  # asking the real name servers would leave this machine
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert failed_login("http://no-such-host.invalid").cause is Cause.UNKNOWN_HOST


def test_a_refused_connection_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert failed_login(f"http://127.0.0.1:{port}").cause is Cause.UNREACHABLE


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert (
            failed_login(url, limits=Limits(connect_timeout=0.3, progress_deadline=0.3)).cause
            is Cause.TIMED_OUT
        )


def test_a_server_in_trouble_is_not_called_something_else(server: DemoServer) -> None:
    server.switches.fail_next = -1
    server.switches.match = "^/data/"
    assert failed_login(server.url).cause is Cause.SERVER_ERROR
