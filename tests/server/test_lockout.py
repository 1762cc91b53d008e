"""A refused password is sent once, at most twice, whoever asks: sites lock an account after 20 failures, some
after 3.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, scripted, xnat
from tests.support import change_password
from xnatfs.auth.credentials import Credentials
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import login_state, session_cookie
from xnatfs.server.connection import Connection
from xnatfs.server.resultset import rows_of


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause before the second try is for the server; here it only has to be there."""
    monkeypatch.setattr(login_state, "_CALM", 0.05)


def projects(made: Connection) -> int:
    return len(made.listing("/data/projects", {"format": "json"}, rows_of))


def refusals(server: DemoServer) -> int:
    """How often credentials were refused: what XNAT counts towards its lock-out."""
    return len([one for one in server.requests() if one.login and one.status == 401])


def together(count: int, ask: Callable[[], object]) -> list[Cause | None]:
    """What so many threads at once meet."""
    barrier, met = threading.Barrier(count), []

    def one() -> None:
        barrier.wait(20)
        try:
            ask()
            met.append(None)
        except Failure as failure:
            met.append(failure.cause)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return met


def test_sixteen_threads_that_meet_a_changed_password_cost_two_refusals(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        made.logins.learn()
        assert made.logins.session.refuses_strangers
        change_password(own, "changed")
        own.expire_sessions()
        own.clear_log()
        assert together(16, lambda: projects(made)) == [Cause.LOGIN_REFUSED] * 16
        assert refusals(own) == 2
        sent = len(own.requests())
        assert together(16, lambda: made.get("/data/auth")) == [Cause.LOGIN_REFUSED] * 16
        assert len(own.requests()) == sent


def test_a_password_that_worked_long_ago_is_sent_once(
    own: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_state, "_MOMENT", 0.0)
    with connection(own.url) as made:
        made.login()
        made.logins.learn()
        change_password(own, "changed")
        own.expire_sessions()
        own.clear_log()
        with pytest.raises(Failure) as caught:
            projects(made)
        assert caught.value.cause is Cause.LOGIN_REFUSED
        assert refusals(own) == 1


def test_a_login_beyond_the_number_of_sessions_is_tried_once_more_and_calmly(
    own: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection(own.url) as made:
        made.login()
        made.logins.learn()
        own.expire_sessions()
        own.switches.max_sessions = 0

        def pause(seconds: float) -> None:
            if seconds:
                own.switches.max_sessions = 1000

        monkeypatch.setattr(login_state.time, "sleep", pause)
        own.clear_log()
        assert projects(made) == 1
        assert refusals(own) == 1


def test_sixteen_threads_that_meet_an_expired_session_log_in_once_and_carry_no_password(
    own: DemoServer,
) -> None:
    with connection(own.url) as made:
        made.login()
        made.logins.learn()
        own.expire_sessions()
        own.clear_log()
        assert together(16, lambda: projects(made)) == [None] * 16
        assert len(own.requests("GET /data/JSESSION")) == 1
        assert refusals(own) == 0
        assert not any(one.login for one in own.requests("/data/projects") if one.status == 401)


def test_where_strangers_are_refused_the_password_is_sent_at_logins_only(
    server: DemoServer, logged_in: Connection
) -> None:
    logged_in.logins.learn()
    server.clear_log()
    for _ in range(3):
        assert projects(logged_in) == len(READABLE)
    assert {one.login for one in server.requests()} == {""}


def test_an_open_server_gets_the_password_with_each_request(
    server: DemoServer, logged_in: Connection
) -> None:
    server.switches.require_login = False
    logged_in.logins.learn()
    assert not logged_in.logins.session.refuses_strangers
    server.clear_log()
    server.expire_sessions()
    assert projects(logged_in) == len(READABLE)
    assert {one.login for one in server.requests()} == {"demo"}


def test_a_server_that_opens_itself_meanwhile_shows_nobody_a_guests_view(
    server: DemoServer, logged_in: Connection
) -> None:
    logged_in.logins.learn()
    server.switches.require_login = False
    server.expire_sessions()
    assert projects(logged_in) == len(READABLE)
    assert not logged_in.logins.session.refuses_strangers


def test_a_cookie_that_is_worth_nothing_is_not_relied_on_for_long() -> None:
    def script(one: Asked) -> Answer:
        if one.target == "/data/JSESSION":
            return Answer(body=b"x", headers={"Set-Cookie": "JSESSIONID=x; Path=/"})
        if "authorization" not in one.headers and not one.target.startswith("/xapi"):
            return Answer(401)
        return (
            Answer(body=b'{"ResultSet":{"Result":[]}}')
            if one.target.startswith("/data/projects")
            else xnat(one)
        )

    with scripted(script) as odd, connection(odd.url) as made:
        made.login()
        made.logins.learn()
        for _ in range(20):
            assert projects(made) == 0
        odd.asked.clear()
        assert projects(made) == 0
        assert len(odd.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_login_that_is_refused_is_not_sent_again_by_anybody(status: int) -> None:
    with (
        scripted(lambda one: Answer(status) if one.target.startswith("/data/") else xnat(one)) as odd,
        connection(odd.url) as made,
    ):
        # XNAT says 401 to a wrong password; 403 is a gateway's, which has not shown it the login.
        cause = Cause.LOGIN_REFUSED if status == 401 else Cause.LOGIN_BLOCKED
        assert together(4, made.login) == [cause] * 4
        assert len([one for one in odd.asked if "authorization" in one.headers]) == 1


def test_a_login_that_is_sent_to_a_web_page_is_told_so() -> None:
    moved = Answer(302, headers={"Location": "/app/template/XDATScreen_UpdateUser.vm"})
    with (
        scripted(lambda one: moved if one.target.startswith("/data/") else xnat(one)) as odd,
        connection(odd.url) as made,
    ):
        with pytest.raises(Failure) as caught:
            made.login()
        assert caught.value.cause is Cause.LOGIN_REFUSED
        assert "browser" in str(caught.value)


@pytest.mark.parametrize("password", ["demo", "changed"])
def test_after_a_night_sixteen_threads_log_in_once_also_where_strangers_are_let_in(
    own: DemoServer, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    own.switches.require_login = False
    with connection(own.url) as made:
        made.login()
        own.switches.session_timeout_s = 3600.0
        projects(made)
        change_password(own, password)
        own.expire_sessions()
        own.clear_log()
        night = 3000.0
        now = session_cookie._now
        monkeypatch.setattr(session_cookie, "_now", lambda: now() + night)
        made.logins.ready()
        assert own.requests() == []  # the server said how long a session lasts
        night = 3700.0
        met = together(16, lambda: projects(made))
        if password == "demo":
            assert met == [None] * 16 and refusals(own) == 0
            assert own.call(lambda: len(own._application.sessions.of_user("demo"))) == 1
        else:
            assert met == [Cause.LOGIN_REFUSED] * 16 and refusals(own) == 1


# --- other credentials --------------------------------------------------------------------------------------


def token(server: DemoServer, user: str = "demo") -> Credentials:
    made = server.call(lambda: server._application.sessions.issue(server.archive.users[user]))
    return Credentials(server.url, made.alias, made.secret, "the other place", owner=user)


def test_new_credentials_lift_the_refusal_and_cost_one_request(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        change_password(own, "changed")
        own.expire_sessions()
        assert together(3, lambda: projects(made)) == [Cause.LOGIN_REFUSED] * 3
        assert made.logins.refused
        own.clear_log()
        made.logins.take(token(own))
        assert [one.target for one in own.requests()] == ["/data/auth"]
        assert projects(made) == 1 and not made.logins.refused
        own.expire_sessions()
        assert projects(made) == 1


def test_a_wrong_new_password_is_sent_once_and_the_old_one_stays(own: DemoServer) -> None:
    with connection(own.url) as made:
        made.login()
        own.clear_log()
        for _ in range(3):
            with pytest.raises(Failure) as caught:
                made.logins.take(Credentials(own.url, "demo", "wrong", "the other place"))
            assert caught.value.cause is Cause.LOGIN_REFUSED
            assert "wrong" not in str(caught.value)
        assert refusals(own) == 1
        assert projects(made) == 1


def test_another_users_login_is_not_taken(server: DemoServer, logged_in: Connection) -> None:
    with pytest.raises(UsageError, match="outsider, and the mount is demo's"):
        logged_in.logins.take(Credentials(server.url, "outsider", "outsider", "the other place"))
    server.clear_log()
    assert projects(logged_in) == len(READABLE)
    assert {one.user for one in server.requests()} == {"demo"}


def test_credentials_that_were_renewed_elsewhere_are_found_when_the_old_ones_are_refused(
    own: DemoServer,
) -> None:
    old, new = token(own), token(own)
    with connection(own.url, old.user, old.password) as made:
        made.login()
        made.logins.elsewhere = lambda: new
        own.call(lambda: own._application.sessions.forget_token(old.user))
        own.expire_sessions()
        assert together(8, lambda: projects(made)) == [None] * 8
        assert made.logins.credentials is new
        made.logins.elsewhere = lambda: new
        own.call(lambda: own._application.sessions.forget_token(new.user))
        own.expire_sessions()
        assert together(8, lambda: projects(made)) == [Cause.LOGIN_REFUSED] * 8
