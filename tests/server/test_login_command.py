"""`xnatfs login` and `xnatfs logout`, as they are typed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, scripted, xnat
from xnatfs.auth import credentials, token_store
from xnatfs.config import Settings, state_home
from xnatfs.daemon import mount_registry
from xnatfs.daemon.control import ControlServer
from xnatfs.daemon.mount_registry import Registration
from xnatfs.demo.server import DemoServer
from xnatfs.server import identity


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A terminal, on which these words are typed as passwords."""
    words: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(credentials.getpass, "getpass", lambda _: words.pop(0))
    monkeypatch.setattr("builtins.input", lambda _: words.pop(0))
    return words


def issued(server: DemoServer, user: str = "demo") -> list[str]:
    """The aliases that are good on the server."""
    return [one.alias for one in server.call(lambda: server._application.sessions.tokens_of(user))]


def environment(monkeypatch: pytest.MonkeyPatch, server: DemoServer, password: str = "demo") -> None:
    for name, value in {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": password}.items():
        monkeypatch.setenv(name, value)


def test_a_typed_password_is_sent_once_and_kept_nowhere(
    own: DemoServer, run: Any, typed: list[str], private_home: Path
) -> None:
    own.call(lambda: setattr(own.archive.users["demo"], "password", "correct horse"))
    typed += ["correct horse"]
    code, said = run("login", "--server", own.url, "--user", "demo")
    assert (
        code == 0
        and f"logged in to {own.url} as demo; the token is valid until" in said
        and "(2 days)" in said
    )
    (alias,) = issued(own)
    kept = token_store.kept()[0]
    assert (kept.server, kept.user, kept.alias) == (own.url, "demo", alias)
    written = "".join(one.read_text() for one in state_home().rglob("*") if one.is_file())
    for text in (said, written):
        assert "correct horse" not in text
    assert kept.secret not in said and kept.secret in written
    assert [one.target for one in own.requests("GET") if one.login] == [
        "/data/JSESSION",
        "/data/auth",
        "/data/services/tokens/issue",
    ]
    assert len(own.requests("DELETE /data/JSESSION")) == 1
    # An offline mount knows whose it is.
    remembered = identity.recall(Settings(own.url), "demo")
    assert remembered is not None and remembered.user == "demo"


def test_a_second_login_replaces_the_first_which_is_given_back(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own)
    run("login")
    first = issued(own)
    code, said = run("login")
    assert code == 0 and "take precedence over this login" in said
    assert len(issued(own)) == 1 and issued(own) != first
    assert token_store.kept()[0].alias == issued(own)[0]


def test_the_second_time_the_server_need_not_be_named(own: DemoServer, run: Any, typed: list[str]) -> None:
    typed += ["demo", "demo", "demo"]
    assert run("login", "--server", own.url)[0] == 0
    assert run("login")[0] == 0
    assert typed == [] and len(issued(own)) == 1


def test_the_user_can_have_it_ask(
    own: DemoServer, run: Any, typed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own, "wrong")
    typed += ["demo", "demo"]
    assert run("login", "--ask")[0] == 0
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert "needs a terminal" in run("login", "--ask")[1]


def test_a_wrong_password_is_sent_once_and_nothing_is_kept(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own, "wrong")
    code, said = run("login")
    assert code == 77 and "refused" in said and said.count("\n") == 1
    assert len([one for one in own.requests() if one.login]) == 1
    assert token_store.kept() == []


@pytest.mark.parametrize(
    "answer",
    [Answer(404), Answer(403), Answer(200, b"<html>", {"Content-Type": "text/html"}), Answer(200, b"[]")],
)
def test_a_server_that_gives_no_tokens_is_told_so(
    run: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    with scripted(lambda one: answer if "tokens" in one.target else xnat(one)) as old:
        for name, value in {"XNAT_HOST": old.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}.items():
            monkeypatch.setenv(name, value)
        code, said = run("login")
    assert code == 1 and "issues no token to demo" in said and token_store.kept() == []


def test_a_keyring_that_was_asked_for_and_is_not_there_is_an_error(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own)
    code, said = run("login", "--keep", "keyring")
    assert code == 1 and "no desktop" in said
    assert issued(own) == []  # what cannot be kept is given back


def test_logout_gives_the_token_back(own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, own)
    run("login")
    assert run("logout") == (0, f"the login of demo at {own.url} was deleted\n")
    assert token_store.kept() == [] and issued(own) == []
    code, said = run("logout")
    assert code == 1 and "there is no login" in said


def test_logout_without_the_server_forgets_all_the_same_and_says_so(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own)
    run("login")
    own.stop()
    code, said = run("logout")
    assert code == 1 and "could not revoke the token" in said and "valid until" in said
    assert token_store.kept() == []


def test_of_several_logins_one_is_to_be_named(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own)
    run("login")
    token_store.keep(token_store.StoredToken("https://b.example.org", "ann", "alias", "secret", 1.0, 2.0))
    code, said = run("logout")
    assert code == 1 and "ann at https://b.example.org" in said and "demo at" in said
    assert run("logout", "--user", "ann")[0] == 0  # expired: the server need not be told
    assert run("logout", "--server", own.url)[0] == 0


def test_mounts_of_that_server_and_user_are_told_and_no_others(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment(monkeypatch, own)
    told: list[str] = []
    servers = []

    def mounted(name: str, user: str, server: str, trouble: str = "") -> None:
        def take(asked: dict[str, Any]) -> str:
            told.append(f"{name} {asked['place']}")
            if trouble:
                raise ValueError(trouble)
            return "goes on"

        socket = tmp_path / f"{name}.sock"
        servers.append(ControlServer(socket, {"credentials": take}))
        mount_registry.register(Registration(f"/mnt/{name}", os.getpid(), server, user, str(socket), ""))

    try:
        mounted("a", "demo", own.url)
        mounted("b", "other", own.url)
        mounted("c", "demo", "https://c.example.org")
        assert "/mnt/a: goes on" in run("login")[1]
        assert told == ["a login"]
        mounted("d", "demo", own.url, "it will not")
        code, said = run("login")
        assert (
            code == 1 and "/mnt/d: it will not" in said and sorted(told) == ["a login", "a login", "d login"]
        )
    finally:
        for one in servers:
            one.close()


def test_doctor_says_until_when(own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, own)
    run("login")
    for name in ("XNAT_USER", "XNAT_PASS"):
        monkeypatch.delenv(name)
    said = run("doctor")[1]
    assert "login found: `xnatfs login`" in said and "the token is valid until" in said
    assert token_store.kept()[0].secret not in said


def test_a_token_logs_in_as_its_owner_below_the_same_cache(
    own: DemoServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, own)
    run("login")
    kept = json.loads((state_home() / "login/tokens.json").read_text())[0]
    with connection(own.url, kept["alias"], kept["secret"]) as made:
        assert made.login() == "demo"
