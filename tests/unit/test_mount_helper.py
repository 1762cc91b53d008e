"""What mount(8) and mount.fuse(8) call, as recorded of util-linux 2.38.1 and libfuse 3.14."""

from __future__ import annotations

import os
import pwd

import pytest

from xnatfs.cli.mount_helper import translated
from xnatfs.errors import UsageError

LINK = "/sbin/mount.fuse.xnatfs"
URL = "https://xnat.example.org"


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ("rw", []),
        ("ro,user=jane,_netdev,exec,suid,dev", ["--user=jane"]),
        ("ro,noexec,nosuid,nodev,project=A,user,_netdev,nofail", ["--project=A"]),
        ("username=jane,x-systemd.automount,comment=mine", ["--user=jane"]),
        ("project=A:B", ["--project=A", "--project=B"]),
        ("cache_dir=/c,cache-size=20G", ["--cache-dir=/c", "--cache-size=20G"]),
        ("allow_other,offline", ["--allow-other", "--offline"]),
        ("netrc=/etc/a=b", ["--netrc=/etc/a=b"]),
    ],
)
def test_options_of_mount(options: str, meant: list[str]) -> None:
    asked = translated(LINK, [URL, "/mnt/x", "-o", options])
    assert asked == ["mount", f"--server={URL}", f"--fsname={URL}", *meant, "--", "/mnt/x"]


def test_the_flags_that_mount_hands_on() -> None:
    asked = translated(LINK, [URL, "/mnt/x", "-v", "-n", "-t", "fuse.xnatfs", "-o", "rw,fsname=lab"])
    assert asked == ["--verbose", "mount", f"--server={URL}", "--fsname=lab", "--", "/mnt/x"]
    assert translated(LINK, [URL, "/mnt/x", "-f", "-o", "rw"]) == [], "`mount -f` mounts nothing"
    assert translated(LINK, [URL, "/mnt/x"]) is not None


def test_libfuse_calls_the_program_itself() -> None:
    asked = translated("/usr/local/bin/xnatfs", ["lab", "/mnt/x", "-o", "ro,user=jane,exec,suid,dev"])
    assert asked == ["mount", "--server=lab", "--fsname=lab", "--user=jane", "--", "/mnt/x"]


@pytest.mark.parametrize(
    "arguments", [[], ["status"], ["mount", "/mnt/x"], ["table", "P", "-o", "x.csv"], ["--version"]]
)
def test_a_command_is_none_of_it(arguments: list[str]) -> None:
    assert translated("/usr/local/bin/xnatfs", arguments) is None


def test_a_command_with_a_path_is_none_of_it_either() -> None:
    assert translated("/usr/local/bin/xnatfs", ["table", "/x", "-o", "x.csv"], {"table"}) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "usr=jane"], "there is no mount option 'usr'; did you mean user?"),
        (["-o", "password=x"], "there is no mount option 'password'"),
        (["-o", "netrc"], "the mount option 'netrc' needs a value: netrc=..."),
        (["-o", "offline=yes"], "the mount option 'offline' has no value"),
        (["-o", "server=x"], "there is no mount option 'server'"),
        (["-o", "setuid=nobody-here"], "setuid=nobody-here: there is no such user on this machine"),
        (["--offline"], "mount does not call a helper with '--offline'"),
        (["third"], "mount calls a helper with a source and a folder: "),
    ],
)
def test_what_it_refuses(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        translated(LINK, [URL, "/mnt/x", *arguments])
    assert str(refused.value).startswith(said)


def test_a_secret_in_an_option_is_not_repeated() -> None:
    with pytest.raises(UsageError) as refused:
        translated(LINK, [URL, "/mnt/x", "-o", "pass=sesame"])
    assert "sesame" not in str(refused.value)


def test_sloppy_ignores_what_it_does_not_know() -> None:
    assert translated(LINK, [URL, "/m", "-s", "-o", "uid=7"]) == translated(LINK, [URL, "/m"])


def test_setuid_of_oneself_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setuid", lambda _: pytest.fail("it became another user"))
    name = pwd.getpwuid(os.geteuid()).pw_name
    asked = translated(LINK, [URL, "/m", "-o", f"setuid={name}"])
    assert asked == translated(LINK, [URL, "/m"])


def test_setuid_takes_the_home_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, whose cache and login another user must not get."""
    done: list[str] = []
    other = next(one for one in pwd.getpwall() if one.pw_uid not in (0, os.geteuid()))
    for name in ("initgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda *_, name=name: done.append(name))
    monkeypatch.setenv("HOME", "/root")
    translated(LINK, [URL, "/m", "-o", f"setuid={other.pw_name}"])
    assert done == ["initgroups", "setgid", "setuid"], "groups first: afterwards it may not"
    assert os.environ["HOME"] == other.pw_dir
