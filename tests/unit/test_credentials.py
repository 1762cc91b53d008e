"""Where a login is found, in which order, and that its password shows nowhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from xnatfs.auth import credentials
from xnatfs.auth.credentials import Credentials, find, places
from xnatfs.errors import UsageError

A, B = "https://a.example.org", "https://b.example.org"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


def netrc(
    home: Path, text: str = "machine a.example.org login ann password sesame\n", mode: int = 0o600
) -> Path:
    return write(home / ".netrc", text, mode)


def config(
    path: Path, server: str = A, user: str = "cfg", password: str = "sesame-cfg", **more: object
) -> Path:
    return write(path, json.dumps({"server": server, "user": user, "password": password, **more}))


def environment(monkeypatch: pytest.MonkeyPatch, prefix: str = "XNAT_", **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(prefix + name, value)


def found(server: str | None = None, user: str | None = None, **options: object) -> tuple[str, str, str]:
    login = find(server, user, prompt=False, **options)  # type: ignore[arg-type]
    assert login.password not in repr(login)
    return login.server, login.user, login.password


# --- each place ---------------------------------------------------------------------------------------------


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, HOST=A + "/", USER="env", PASS="sesame")
    assert found() == (A, "env", "sesame")


def test_from_the_environment_of_xnatpy(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "XNATPY_", HOST=A, USER="env", PASS="sesame")
    assert found() == (A, "env", "sesame")


def test_user_and_password_alone_serve_the_server_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, USER="env", PASS="sesame")
    assert found(B) == (B, "env", "sesame")


def test_from_netrc(private_home: Path) -> None:
    netrc(private_home)
    assert found() == (A, "ann", "sesame")


def test_from_netrc_with_windows_line_ends(private_home: Path) -> None:
    netrc(private_home, "machine a.example.org\r\n  login ann\r\n  password sesame\r\n")
    assert found() == (A, "ann", "sesame")


def test_netrc_serves_every_port_of_its_host(private_home: Path) -> None:
    netrc(private_home)
    assert found("http://a.example.org:8080") == ("http://a.example.org:8080", "ann", "sesame")
    with pytest.raises(UsageError):
        found("https://sub.a.example.org")


def test_the_default_entry_of_netrc_is_not_sent_to_anybody(private_home: Path) -> None:
    netrc(private_home, "default login anonymous password sesame\n")
    with pytest.raises(UsageError, match="no password"):
        found(A)


def test_from_the_netrc_that_the_environment_names(
    private_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc(private_home, "machine b.example.org login wrong password wrong\n")
    other = write(tmp_path / "other", "machine a.example.org login ann password sesame\n")
    monkeypatch.setenv("NETRC", str(other))
    assert found() == (A, "ann", "sesame")


def test_from_the_file_pyxnat_and_bx_keep(private_home: Path) -> None:
    config(private_home / ".xnat.cfg", verify=False, proxy="http://proxy:3128")
    login = find(prompt=False)
    assert (login.server, login.user, login.password, login.verify, login.proxy) == (
        A,
        "cfg",
        "sesame-cfg",
        False,
        "http://proxy:3128",
    )


def test_from_the_password_file_of_pyxnat(private_home: Path) -> None:
    write(private_home / ".xnatPass", f"# notes\r\nann@{A}=ses=ame \r\n")
    assert found() == (A, "ann", "ses=ame")


def test_a_plus_marks_the_login_to_use_by_default(private_home: Path) -> None:
    write(private_home / ".xnatPass", f"ann@{A}=first\n+bob@{A}=second\n")
    assert found() == (A, "bob", "second")
    assert found(user="ann") == (A, "ann", "first")


def test_from_the_file_that_is_named(tmp_path: Path, private_home: Path) -> None:
    config(tmp_path / "mine.cfg", server=B)
    assert found(config=tmp_path / "mine.cfg") == (B, "cfg", "sesame-cfg")
    write(tmp_path / "mine.netrc", "machine b.example.org login bob password sesame\n")
    assert found(netrc_file=tmp_path / "mine.netrc") == (B, "bob", "sesame")


def test_from_a_prompt_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(text: str, value: str) -> str:
        asked.append(text)
        return value

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: answer(text, " tim "))
    monkeypatch.setattr(credentials.getpass, "getpass", lambda text: answer(text, "sesame"))
    login = find(A)
    assert (login.user, login.password, login.source) == ("tim", "sesame", "the terminal")
    assert [A in text for text in asked] == [True, True]


# --- their order --------------------------------------------------------------------------------------------


def test_the_first_place_in_the_documented_order_wins(
    private_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(private_home / ".xnatPass", f"pass@{A}=p6\n")
    assert found() == (A, "pass", "p6")
    config(private_home / ".xnat.cfg", user="cfg", password="p5")
    assert found() == (A, "cfg", "p5")
    netrc(private_home, "machine a.example.org login netrc password p4\n")
    assert found() == (A, "netrc", "p4")
    environment(monkeypatch, "XNATPY_", HOST=A, USER="xnatpy", PASS="p3")
    assert found() == (A, "xnatpy", "p3")
    environment(monkeypatch, HOST=A, USER="xnat", PASS="p2")
    assert found() == (A, "xnat", "p2")
    named = write(tmp_path / "named.netrc", "machine a.example.org login named password p1\n")
    assert found(netrc_file=named) == (A, "named", "p1")
    mine = config(tmp_path / "mine.cfg", user="mine", password="p0")
    assert found(config=mine, netrc_file=named) == (A, "mine", "p0")
    assert [place[2] for place in places()] == ["xnat", "xnatpy", "netrc", "cfg", "pass"]
    assert "p4" not in str(places())


def test_a_named_user_is_looked_for_in_all_places(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, HOST=A, USER="env", PASS="one")
    netrc(private_home)
    assert found(user="ann") == (A, "ann", "sesame")


def test_a_host_in_the_environment_takes_its_password_from_netrc(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, HOST=A)
    netrc(
        private_home,
        "machine a.example.org login ann password sesame\nmachine b.example.org login x password y\n",
    )
    assert found() == (A, "ann", "sesame")


def test_the_scheme_and_port_come_from_whoever_knows_them(private_home: Path) -> None:
    netrc(private_home)
    config(private_home / ".xnat.cfg", server="http://a.example.org", user="other")
    assert find(prompt=False).server == "http://a.example.org"


def test_another_servers_password_is_never_used(private_home: Path) -> None:
    netrc(private_home)
    with pytest.raises(UsageError, match=r"no password for https://b\.example\.org"):
        found(B)
    with pytest.raises(UsageError, match="no password for the user zoe"):
        found(A, "zoe")


# --- what cannot be decided ---------------------------------------------------------------------------------


def test_several_servers_and_none_named_is_refused_with_their_names(private_home: Path) -> None:
    netrc(
        private_home,
        "machine a.example.org login ann password sesame\nmachine b.example.org login bob password sesame\n",
    )
    with pytest.raises(UsageError) as caught:
        found()
    assert A in str(caught.value) and B in str(caught.value) and "--server" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert found(B) == (B, "bob", "sesame")


def test_no_server_at_all_says_how_to_name_one() -> None:
    with pytest.raises(UsageError, match=r"--server URL or XNAT_HOST"):
        found()


def test_a_named_file_that_is_missing_or_something_else_is_told(tmp_path: Path) -> None:
    for option in ({"config": tmp_path / "no"}, {"netrc_file": tmp_path / "no"}):
        with pytest.raises(UsageError, match=f"there is no file {tmp_path}/no"):
            found(A, **option)
    for text in ("sesame", "[]", '"sesame"', "{}", '{"server": "ftp://sesame"}'):
        with pytest.raises(UsageError):
            found(A, config=write(tmp_path / "odd.cfg", text))


@pytest.mark.parametrize(
    "text", ["machine a.example.org login ann password my sesame\n", "machine a.example.org sesame ann\n"]
)
def test_a_broken_netrc_is_told_without_its_words(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        found(A, netrc_file=write(tmp_path / "broken", text))
    assert "broken" in str(caught.value) and "line " in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_broken_netrc_in_its_usual_place_does_not_stop_other_logins(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc(private_home, "machine\n")
    environment(monkeypatch, HOST=A, USER="env", PASS="sesame")
    assert found() == (A, "env", "sesame")


# --- secrecy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_warned_of(
    private_home: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    netrc(private_home, mode=mode)
    found()
    told = capsys.readouterr().err
    assert "chmod 600" in told and ".netrc" in told
    assert "sesame" not in told


def test_a_private_file_is_not_warned_of(private_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netrc(private_home)
    found()
    assert capsys.readouterr().err == ""


def test_no_password_is_in_any_text(private_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, HOST=A, USER="env", PASS="sesame")
    netrc(private_home)
    entries = list(credentials._entries(credentials._Files(None, None), None))
    assert len(entries) == 2
    for text in (
        repr(entries),
        str(entries),
        repr(Credentials(A, "u", "sesame", "here")),
        f"{find(prompt=False)}",
        repr(places()),
    ):
        assert "sesame" not in text
