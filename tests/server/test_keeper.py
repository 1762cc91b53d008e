"""What looks after a mount's login: the token's time, its renewal, and credentials that are read again."""

from __future__ import annotations

import email.utils
import json
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.server.conftest import connection
from tests.server.test_lockout import projects, refusals
from tests.support import change_password, until
from xnatfs.auth import credentials, token_store
from xnatfs.auth.credentials import Credentials
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import alias_tokens as remote
from xnatfs.server import connection as session
from xnatfs.server import identity, login_state
from xnatfs.server.connection import Connection
from xnatfs.server.token_renewal import TokenRenewal


@dataclass
class Kept:
    """A logged-in connection and its keeper, who looks when a test says so."""

    connection: Connection
    token_renewal: TokenRenewal
    renewed: list[None]

    @property
    def state(self) -> str:
        return self.token_renewal.state()


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_state, "_CALM", 0.01)


def stored(server: DemoServer, user: str = "demo") -> token_store.StoredToken:
    """What `xnatfs login` would have kept."""
    made = server.call(lambda: server._application.sessions.issue(server.archive.users[user]))
    return token_store.keep(
        token_store.StoredToken(server.url, user, made.alias, made.secret, made.created, made.expires)
    )[0]


def kept(server: DemoServer, chosen: Credentials) -> Iterator[Kept]:
    with connection(server.url) as plain:
        made = plain.alike(chosen)
        try:
            made.login()
            refreshed: list[None] = []
            yield Kept(made, TokenRenewal(made, plain.settings, lambda: refreshed.append(None)), refreshed)
        finally:
            made.close()


@pytest.fixture
def ours(own: DemoServer) -> Iterator[Kept]:
    """With the token of `xnatfs login`."""
    stored(own)
    yield from kept(own, credentials.find(own.url, prompt=False))


@pytest.fixture
def typed(own: DemoServer) -> Iterator[Kept]:
    """With a password from the environment."""
    yield from kept(own, Credentials(own.url, "demo", "demo", "environment XNAT_*"))


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Here, not on the server, where tokens live on: a wrong clock must do no harm."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)


DAY = 86400.0


def test_a_token_far_from_its_end_is_left_alone(
    own: DemoServer, ours: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.clear_log()
    ours.token_renewal.look()
    later(monkeypatch, 1.4 * DAY)
    ours.token_renewal.look()
    assert ours.state == "ok" and own.requests() == []
    report = ours.token_renewal.report()
    assert report["token"] and report["expires"] and "valid until" in report["text"]


def test_a_token_of_ours_is_renewed_before_its_end(
    own: DemoServer, ours: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ours.connection.logins.credentials
    later(monkeypatch, 1.6 * DAY)
    assert ours.state == "expires soon"
    own.clear_log()
    ours.token_renewal.look()
    new = token_store.kept()[0]
    assert new.alias != old.user and ours.connection.logins.credentials.user == new.alias
    assert ours.state == "ok" and projects(ours.connection) == 1
    own.expire_sessions()
    assert projects(ours.connection) == 1
    # The old one lives until other mounts have looked, and then no more.
    assert own.call(lambda: own._application.sessions.token(old.user)) is not None
    ours.token_renewal.close()
    assert own.call(lambda: own._application.sessions.token(old.user)) is None
    assert refusals(own) == 0


def test_it_is_renewed_while_nobody_looks(own: DemoServer) -> None:
    first = stored(own)
    now = time.time()
    token_store.keep(replace(first, issued=now - 900, expires=now + 100))
    for one in kept(own, credentials.find(own.url, prompt=False)):
        one.token_renewal.start()
        until(partial(_uses_another_than, one, first), 20)
        one.token_renewal.close()
        assert one.state == "ok"
        own.expire_sessions()
        assert projects(one.connection) == 1
    assert refusals(own) == 0


def _uses_another_than(one: Kept, first: token_store.StoredToken) -> bool:
    used = one.connection.logins.credentials.user
    return token_store.kept()[0].alias == used != first.alias


def test_an_expired_token_costs_no_request_and_no_processor_time(
    own: DemoServer, ours: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, 3 * DAY)
    own.clear_log()
    for _ in range(3):
        ours.token_renewal.look()
    assert ours.state == "expired" and own.requests() == []
    assert ours.token_renewal._pause() == 30


def test_a_token_that_another_mount_renewed_is_taken(own: DemoServer, ours: Kept) -> None:
    new = stored(own)
    ours.token_renewal.look()
    assert ours.connection.logins.credentials.user == new.alias


def test_only_one_of_two_mounts_renews(own: DemoServer, ours: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in kept(own, credentials.find(own.url, prompt=False)):
        later(monkeypatch, 1.6 * DAY)
        ours.token_renewal.look()
        other.token_renewal.look()
        assert other.connection.logins.credentials.user == ours.connection.logins.credentials.user
        assert len(own.requests("tokens/issue")) == 1


def test_where_the_server_gives_no_new_token_it_is_said_in_time(
    own: DemoServer, ours: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    later(monkeypatch, 1.6 * DAY)
    own.switches.match, own.switches.fail_next, own.switches.fail_status = "tokens/issue", -1, 403
    with pytest.raises(Failure):
        ours.token_renewal.look()
    ours.token_renewal.look()
    assert len(own.requests("tokens/issue")) == 1  # not asked again and again
    assert "run `xnatfs login` before then" in ours.token_renewal.report()["text"]
    assert [one.message for one in caplog.records].count(ours.token_renewal.report()["text"]) == 1
    later(monkeypatch, DAY)
    assert ours.state == "expired" and "EXPIRED" in ours.token_renewal.report()["text"]


def test_the_end_of_a_foreign_token_is_asked_for_once(
    own: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.switches.token_lifetime_s = 3600.0
    made = own.call(lambda: own._application.sessions.issue(own.archive.users["demo"]))
    for one in kept(own, Credentials(own.url, made.alias, made.secret, "environment XNAT_*")):
        assert one.token_renewal.report()["expires"] is None
        own.clear_log()
        one.token_renewal.look()
        one.token_renewal.look()
        assert [asked.target for asked in own.requests()] == ["/data/services/tokens/show"]
        assert abs((one.token_renewal._lifetime().expires or 0) - made.expires) < 5
        assert one.state == "ok"
        with monkeypatch.context() as patch:
            later(patch, 2800.0)  # in the last quarter of its hour
            assert (
                one.state == "expires soon"
                and "run `xnatfs login` before then" in one.token_renewal.report()["text"]
            )
        text = str(one.token_renewal.report())
        assert made.alias not in text and made.secret not in text


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_server_that_does_not_show_tokens_does_no_harm(own: DemoServer, status: int) -> None:
    made = own.call(lambda: own._application.sessions.issue(own.archive.users["demo"]))
    own.switches.match, own.switches.fail_next, own.switches.fail_status = "tokens/show", -1, status
    for one in kept(own, Credentials(own.url, made.alias, made.secret, "environment XNAT_*")):
        one.token_renewal.look()
        assert one.state == "ok" and projects(one.connection) == 1


def test_a_password_costs_no_request(own: DemoServer, typed: Kept) -> None:
    own.clear_log()
    typed.token_renewal.look()
    assert own.requests() == [] and typed.token_renewal.report()["text"] == ""


def test_whether_strangers_are_refused_is_learnt_and_remembered(
    own: DemoServer, typed: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed.token_renewal._learn_at = 0.0
    own.clear_log()
    typed.token_renewal.look()
    typed.token_renewal.look()
    assert [(one.target, one.login, one.status) for one in own.requests()] == [("/data/auth", "", 401)]
    remembered = identity.recall(typed.connection.settings, "demo")
    assert remembered is not None and remembered.closed


# --- read again ---------------------------------------------------------------------------------------------


def test_a_new_login_brings_a_refused_mount_back(own: DemoServer, typed: Kept) -> None:
    change_password(own, "changed")
    own.expire_sessions()
    with pytest.raises(Failure):
        projects(typed.connection)
    assert typed.state == "refused" and "xnatfs login" in typed.token_renewal.report()["text"]
    with pytest.raises(UsageError, match=r"environment XNAT_.* cannot be read again"):
        typed.token_renewal.read_again()
    stored(own)
    assert "`xnatfs login`" in typed.token_renewal.read_again("login")
    assert typed.renewed == [None]
    assert typed.state == "ok" and projects(typed.connection) == 1


def test_a_refused_mount_finds_a_login_made_on_another_machine(own: DemoServer, typed: Kept) -> None:
    change_password(own, "changed")
    own.expire_sessions()
    with pytest.raises(Failure):
        projects(typed.connection)
    own.clear_log()
    for _ in range(3):
        typed.token_renewal.look()
    assert own.requests() == []
    stored(own)
    typed.token_renewal.look()
    assert projects(typed.connection) == 1


def test_a_changed_file_is_read_again_and_a_wrong_word_in_it_sent_once(
    own: DemoServer, private_home: Path
) -> None:
    netrc = private_home / ".netrc"

    def write(word: str) -> None:
        netrc.write_text(f"machine 127.0.0.1 login demo password {word}\n")
        netrc.chmod(0o600)

    write("demo")
    for one in kept(own, credentials.find(own.url, prompt=False)):
        assert "nothing new" in one.token_renewal.read_again()
        change_password(own, "changed")
        own.expire_sessions()
        with pytest.raises(Failure):
            projects(one.connection)
        with pytest.raises(UsageError, match="has the login that the server refused"):
            one.token_renewal.read_again()
        write("wrong")
        own.clear_log()
        for _ in range(3):
            with pytest.raises(Failure) as caught:
                one.token_renewal.read_again()
            assert caught.value.cause is Cause.LOGIN_REFUSED
            one.token_renewal.look()
        assert refusals(own) == 1
        write("changed")
        one.token_renewal.look()
        assert projects(one.connection) == 1


def test_another_users_login_is_refused_for_a_running_mount(own: DemoServer, private_home: Path) -> None:
    netrc = private_home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login demo password demo\n")
    netrc.chmod(0o600)
    own.archive.users["other"] = type(own.archive.users["demo"])("other", "other")
    for one in kept(own, credentials.find(own.url, prompt=False)):
        netrc.write_text("machine 127.0.0.1 login other password other\n")
        with pytest.raises(UsageError, match="other, and the mount is demo's"):
            one.token_renewal.read_again()
        assert projects(one.connection) == 1 and one.connection.user == "demo"


def test_a_server_with_a_wrong_clock_tells_the_time_left(
    own: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection(own.url) as made:
        made.login()
        assert abs((remote.issue(made).expires or 0.0) - time.time() - 2 * DAY) < 5
        later(monkeypatch, 5 * DAY)  # this machine's clock is ahead; the server's answers carry its own
        monkeypatch.setattr(session.Connection, "get", lambda self, path, **_: _dated(own))
        assert abs((remote.issue(made).expires or 0.0) - time.time() - 2 * DAY) < 5


def _dated(server: DemoServer) -> object:
    there = time.time() - 5 * DAY
    body = {"alias": "a", "secret": "b", "estimatedExpirationTime": int((there + 2 * DAY) * 1000)}
    return types.SimpleNamespace(
        json=lambda: json.loads(json.dumps(body)),
        headers={"Date": email.utils.formatdate(there, usegmt=True)},
    )
