"""Where the token of `xnatfs login` is kept, and who may have touched it."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest

from xnatfs.auth import token_store
from xnatfs.auth.credentials import find, places
from xnatfs.auth.token_store import FILE, KEYRING, StoredToken
from xnatfs.config import state_home
from xnatfs.errors import UsageError

A, B = "https://a.example.org", "https://b.example.org"
ALIAS = "a8174140-acb3-4b28-ba3d-006dd68be980"


def token(server: str = A, user: str = "ann", secret: str = "sesame", **more: object) -> StoredToken:
    now = time.time()
    return replace(StoredToken(server, user, ALIAS, secret, now, now + 1000), **more)  # type: ignore[arg-type]


def path() -> Path:
    return state_home() / "login" / "tokens.json"


@pytest.fixture(autouse=True)
def no_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)


class Ring:
    """A keyring, as the library of that name shows one."""

    priority = 5.0

    def __init__(self) -> None:
        self.words: dict[tuple[str, str], str] = {}
        self.broken = False
        self.silent = threading.Event()
        self.silent.set()

    def get_password(self, service: str, name: str) -> str | None:
        self.silent.wait(20)
        if self.broken:
            raise RuntimeError("locked: sesame")
        return self.words.get((service, name))

    def set_password(self, service: str, name: str, word: str) -> None:
        self.get_password(service, name)
        self.words[service, name] = word

    def delete_password(self, service: str, name: str) -> None:
        del self.words[service, name]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A desktop with a keyring."""
    made = Ring()
    module = types.ModuleType("keyring")
    module.get_keyring = lambda: made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    monkeypatch.setenv("DISPLAY", ":0")
    return made


# --- a file -------------------------------------------------------------------------------------------------


def test_a_token_is_kept_in_a_file_nobody_else_can_read() -> None:
    kept, why_not = token_store.keep(token())
    assert kept.place == FILE and "desktop" in why_not
    assert stat.S_IMODE(path().stat().st_mode) == 0o600
    assert stat.S_IMODE(path().parent.stat().st_mode) == 0o700
    assert token_store.kept() == [kept] and token_store.whole(kept).secret == "sesame"
    assert token_store.where(kept) == str(path())
    assert sorted(one.name for one in path().parent.iterdir()) == ["tokens.json", "tokens.lock"]


def test_one_token_for_a_server_and_user_the_newest_first() -> None:
    token_store.keep(token(secret="old", issued=1.0))
    token_store.keep(token(B, issued=2.0))
    token_store.keep(token(user="bob", issued=4.0))
    token_store.keep(token(secret="new", issued=3.0))
    assert [(one.server, one.user, one.secret) for one in token_store.kept()] == [
        (A, "bob", "sesame"),
        (A, "ann", "new"),
        (B, "ann", "sesame"),
    ]
    token_store.forget(token())
    assert [(one.server, one.user) for one in token_store.kept()] == [(A, "bob"), (B, "ann")]


def test_the_secret_is_in_no_text() -> None:
    for text in (repr(token()), str(token()), repr(token_store.keep(token()))):
        assert "sesame" not in text and ALIAS not in text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_can_reach_is_refused(mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    token_store.keep(token())
    path().chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        token_store.kept()
    with pytest.raises(UsageError):
        find(A, prompt=False)
    assert "open to others" in capsys.readouterr().err


def test_a_folder_that_others_can_reach_is_closed() -> None:
    token_store.keep(token())
    path().parent.chmod(0o755)
    assert len(token_store.kept()) == 1
    assert stat.S_IMODE(path().parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_another_users_file_is_refused() -> None:
    token_store.keep(token())
    os.chown(path(), 12345, 12345)
    with pytest.raises(UsageError, match="belongs to another user"):
        token_store.kept()


def test_a_damaged_file_is_told_and_keeps_nobody_from_other_logins(
    private_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token_store.keep(token())
    path().write_text('[{"server": "sesame"')
    with pytest.raises(UsageError, match="xnatfs login"):
        token_store.kept()
    for name, value in {"XNAT_HOST": A, "XNAT_USER": "env", "XNAT_PASS": "word"}.items():
        monkeypatch.setenv(name, value)
    assert find(prompt=False).user == "env"
    assert "sesame" not in capsys.readouterr().err


def test_many_at_once_lose_nothing() -> None:
    threads = [
        threading.Thread(target=token_store.keep, args=(token(user=f"user{number}"),)) for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {one.user for one in token_store.kept()} == {f"user{number}" for number in range(12)}


def test_one_process_renews_at_a_time() -> None:
    with token_store.renewing() as first, token_store.renewing() as second:
        assert (first, second) == (True, False)
    with token_store.renewing() as third:
        assert third


# --- the keyring --------------------------------------------------------------------------------------------


def test_a_keyring_keeps_the_secret_and_the_file_does_not(ring: Ring) -> None:
    kept, why_not = token_store.keep(token())
    assert kept.place == KEYRING and why_not == ""
    assert "sesame" not in path().read_text() and ALIAS not in path().read_text()
    assert token_store.whole(token_store.kept()[0]).secret == "sesame"
    assert find(prompt=False).password == "sesame"
    token_store.forget(kept)
    assert ring.words == {} and token_store.kept() == []


def test_a_file_can_be_asked_for(ring: Ring) -> None:
    assert token_store.keep(token(), FILE)[0].place == FILE
    assert ring.words == {}


def test_a_keyring_that_refuses_is_fallen_back_from_with_a_sentence(ring: Ring) -> None:
    ring.broken = True
    kept, why_not = token_store.keep(token())
    assert kept.place == FILE and "refused" in why_not and "sesame" not in why_not
    with pytest.raises(UsageError, match="refused"):
        token_store.keep(token(), KEYRING)


def test_a_keyring_that_says_nothing_holds_up_nobody(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "_KEYRING_TIMEOUT_S", 0.1)
    kept, _ = token_store.keep(token())
    ring.silent.clear()
    with pytest.raises(UsageError, match="does not answer"):
        token_store.whole(kept)
    with pytest.raises(UsageError, match="does not answer"):
        find(A, prompt=False)
    assert "does not answer" in token_store.keep(token())[1]
    ring.silent.set()


def test_no_keyring_is_asked_without_a_desktop(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY")
    ring.silent.clear()
    assert token_store.keep(token())[0].place == FILE
    with pytest.raises(UsageError, match="no desktop"):
        token_store.keep(token(), KEYRING)


def test_a_library_that_is_not_there_or_has_no_keyring(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.priority = 0
    assert "no keyring" in token_store.keep(token())[1]
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "not installed" in token_store.keep(token())[1]


# --- found --------------------------------------------------------------------------------------------------


def test_its_place_in_the_order(private_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = private_home / ".netrc"
    netrc.write_text(
        "machine a.example.org login netrc password p4\nmachine b.example.org login netrc password p4\n"
    )
    netrc.chmod(0o600)
    token_store.keep(token())
    login = find(prompt=False)
    assert (login.server, login.user, login.password, login.owner, login.source) == (
        A,
        ALIAS,
        "sesame",
        "ann",
        "`xnatfs login`",
    )
    assert (
        login.expires == token_store.kept()[0].expires and login.again is not None and login.again() == login
    )
    assert find(A, "ann", prompt=False).user == ALIAS
    assert find(A, "netrc", prompt=False).password == "p4"
    assert find(B, prompt=False).password == "p4"
    assert find(A, prompt=False, stored=False).password == "p4"
    assert places()[0] == ("`xnatfs login`", A, "ann")
    for name, value in {"XNAT_HOST": A, "XNAT_USER": "env", "XNAT_PASS": "word"}.items():
        monkeypatch.setenv(name, value)
    assert find(prompt=False).user == "env"


def test_the_last_of_several_logins_at_a_server_is_taken(private_home: Path) -> None:
    token_store.keep(token(user="ann", secret="one", issued=2.0))
    token_store.keep(token(user="bob", secret="two", issued=3.0))
    assert find(A, prompt=False).owner == "bob"
    assert find(A, "ann", prompt=False).password == "one"
    token_store.keep(token(B))
    with pytest.raises(UsageError, match="several servers"):
        find(prompt=False)


def test_an_expired_token_is_passed_over_and_told(private_home: Path) -> None:
    token_store.keep(token(expires=time.time() - 1))
    with pytest.raises(UsageError, match="has expired"):
        find(A, prompt=False)
    assert find(A, prompt=False, expired=True).owner == "ann"
    assert "expired" in places()[0][0]
    netrc = private_home / ".netrc"
    netrc.write_text("machine a.example.org login netrc password p4\n")
    netrc.chmod(0o600)
    assert find(A, prompt=False).user == "netrc"


def test_verification_and_proxy_go_with_the_token() -> None:
    token_store.keep(token(verify="/etc/ca.pem", proxy="http://proxy:3128"))
    login = find(A, prompt=False)
    assert (login.verify, login.proxy) == ("/etc/ca.pem", "http://proxy:3128")
    assert json.loads(path().read_text())[0]["proxy"] == "http://proxy:3128"
