"""A login that is a session somebody else logged in for (`XNAT_TOKEN`): used as it is, until it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.conftest import LIMITS
from tests.server.scripted import Answer, Asked, scripted, xnat
from tests.server.test_login_command import issued
from xnatfs.auth import credentials, token_store
from xnatfs.auth.credentials import Credentials, find
from xnatfs.config import Settings
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.connection import Connection
from xnatfs.server.resultset import rows_of


@contextlib.contextmanager
def borrowed(url: str, session: str, user: str = "") -> Iterator[Connection]:
    made = Connection(
        Settings(server=url, limits=LIMITS),
        Credentials(url, user, "", "environment XNAT_TOKEN", session=session),
    )
    try:
        yield made
    finally:
        made.close()


def session_of(server: DemoServer) -> str:
    """A session as another program opened it."""
    lent = Connection(Settings(server=server.url, limits=LIMITS), Credentials(server.url, "demo", "demo", ""))
    lent.login()
    lent.transport.close()  # and did not end
    server.clear_log()
    return lent.logins.session.id


def projects(made: Connection) -> int:
    return len(made.listing("/data/projects", {"format": "json"}, rows_of))


def test_it_is_used_as_it_is_and_left_open_at_the_end(own: DemoServer) -> None:
    session = session_of(own)
    with borrowed(own.url, session) as made:
        assert made.login() == made.user == "demo"
        assert projects(made) == 1
    assert not any(one.login for one in own.requests()), "there is no password to send"
    assert own.requests("JSESSION") == []
    with borrowed(own.url, session) as again:
        assert again.login() == "demo"


@pytest.mark.parametrize("closed", [True, False])
def test_when_it_ends_one_sentence_says_what_to_do_and_nothing_more_is_sent(
    own: DemoServer, closed: bool
) -> None:
    """Also where an open server would go on to answer a guest."""
    own.call(lambda: own.switches.update({"require_login": closed}))
    with borrowed(own.url, session_of(own)) as made:
        made.login()
        own.expire_sessions()
        with pytest.raises(Failure, match="session in XNAT_TOKEN has ended; run `xnatfs login`") as caught:
            projects(made)
        assert caught.value.cause is Cause.LOGIN_REFUSED
        own.clear_log()
        with pytest.raises(Failure):
            projects(made)
        assert own.requests() == []


def test_one_that_has_ended_before_is_refused_at_the_login(own: DemoServer) -> None:
    with (
        borrowed(own.url, "0123456789ABCDEF") as made,
        pytest.raises(Failure, match="session in XNAT_TOKEN has ended") as caught,
    ):
        made.login()
    assert "0123456789ABCDEF" not in str(caught.value)


def test_another_users_is_refused(own: DemoServer) -> None:
    with (
        borrowed(own.url, session_of(own), "jane") as made,
        pytest.raises(Failure, match="XNAT_TOKEN belongs to demo"),
    ):
        made.login()


def test_a_login_that_lasts_takes_over_when_it_ends(own: DemoServer) -> None:
    with borrowed(own.url, session_of(own)) as made:
        made.login()
        made.logins.elsewhere = lambda: Credentials(own.url, "demo", "demo", "elsewhere")
        own.expire_sessions()
        assert projects(made) == 1
        assert made.logins.credentials.source == "elsewhere" and not made.logins.refused


def test_it_goes_to_no_other_host_not_even_after_a_redirect() -> None:
    with scripted(xnat) as elsewhere:
        away = {"Location": elsewhere.url + "/data/projects"}

        def script(one: Asked) -> Answer:
            return Answer(302, headers=away) if one.target.endswith("/projects") else xnat(one)

        with scripted(script) as server, borrowed(server.url, "A1B2") as made:
            assert made.login() == "demo"
            with pytest.raises(Failure):
                made.get("/data/projects")
            sent = [one.headers.get("cookie") for one in server.asked if one.target.endswith("/projects")]
        assert set(sent) == {"JSESSIONID=A1B2"} and elsewhere.asked == []


def test_a_gateway_that_begins_a_session_with_every_answer_is_not_believed() -> None:
    """Its answer may be the guest's, and there is no password to make sure."""

    def script(one: Asked) -> Answer:
        found = xnat(one)
        if one.target.endswith("/projects"):
            found = Answer(body=b"{}", headers={"Set-Cookie": "JSESSIONID=new; Path=/data"})
        return found

    with scripted(script) as server, borrowed(server.url, "A1B2") as made:
        made.login()
        with pytest.raises(Failure, match="another session with every answer"):
            made.get("/data/projects")
        assert {one.headers.get("cookie") for one in server.asked[1:]} == {"JSESSIONID=A1B2"}


# --- `xnatfs login` -----------------------------------------------------------------------------------------


def test_login_exchanges_it_for_a_token(
    own: DemoServer,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_of(own)
    monkeypatch.setenv("XNAT_URL", own.url)
    monkeypatch.setenv("XNAT_TOKEN", session)
    code, said = run("login")
    assert code == 0 and "logged in" in said and session not in said
    assert [one.alias for one in token_store.kept()] == issued(own)
    assert find(prompt=False).session == "", "the token comes first from now on"
    with borrowed(own.url, session) as made:
        assert made.login() == "demo", "it is still whose it was"


def test_login_asks_for_the_password_where_it_has_ended(
    own: DemoServer,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XNAT_URL", own.url)
    monkeypatch.setenv("XNAT_TOKEN", "0123")
    code, said = run("login")
    assert code == 77 and "session in XNAT_TOKEN has ended" in said and said.count("\n") == 1
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "demo")
    monkeypatch.setattr(credentials.getpass, "getpass", lambda _: "demo")
    code, said = run("login")
    assert code == 0 and len(issued(own)) == 1


def test_login_takes_a_name_and_logout_too(
    own: DemoServer,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    (tmp_path / "config.toml").write_text(f'[servers.lab]\nurl = "{own.url}"\nuser = "demo"\n')
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("XNAT_USER", "demo")
    monkeypatch.setenv("XNAT_PASS", "demo")
    assert run("login", "--server", "lab")[0] == 0
    code, said = run("logout", "--server", "lba")
    assert code == 1 and "did you mean lab?" in said
    assert run("logout", "--server", "lab")[0] == 0 and issued(own) == []
