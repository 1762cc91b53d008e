"""A mount whose login ends in the middle, and comes back without a remount."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, fuse_mounts, mount, run, until, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

FILE = "projects/SCALE/README.txt"


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=2, scans=2, files=2, file_size=1000)) as server:
        yield server


def read_all(point: Path) -> int:
    """The exit code of reading every file."""
    return run("find", point / "projects", "-type", "f", "-exec", "cat", "{}", "+").returncode


def forget_sessions_and_tokens(server: DemoServer) -> None:
    def all_of_them() -> None:
        sessions = server._application.sessions
        for token in sessions.tokens_of("demo"):
            sessions.forget_token(token.alias)

    server.call(all_of_them)
    server.expire_sessions()


def logged_in(server: DemoServer, env: dict[str, str]) -> str:
    return xnatfs(
        "login", "--server", server.url, env={**env, "XNAT_USER": "demo", "XNAT_PASS": "demo"}, check=True
    ).stdout


def no_password(folder: Path) -> dict[str, str]:
    """The places of a mount below `folder`, and no login in the environment."""
    return {"XNATFS_CACHE_DIR": str(folder / "cache"), "XNATFS_STATE_DIR": str(folder / "state")}


def test_a_token_that_ends_while_mounted_is_an_error_and_a_login_brings_the_mount_back(
    server: DemoServer, tmp_path: Path
) -> None:
    env = no_password(tmp_path)
    said = logged_in(server, env)
    assert f"logged in to {server.url} as demo; the token is valid until" in said and "tokens.json" in said
    with mount(server.url, tmp_path, env={"XNAT_USER": "", "XNAT_PASS": ""}) as mounted:
        status = mounted.status()
        assert (
            status["user"] == "demo"
            and status["login"]["from"] == "`xnatfs login`"
            and status["login"]["state"] == "ok"
        )
        assert "valid until" in xnatfs("status", env=env).stdout
        some = run("find", mounted.point / "projects", "-type", "f").stdout.splitlines()[0]
        with open(some, "rb") as held:
            begin = held.read(10)
            forget_sessions_and_tokens(server)
            xnatfs("refresh", str(mounted.point), env=env, check=True)
            until(lambda: read_all(mounted.point) != 0)
            assert mounted.status()["login"]["state"] == "refused"
            assert "`xnatfs login` brings the mount back" in xnatfs("status", env=env).stdout
            said = logged_in(server, env)
            assert f"{mounted.point}: continues with the login from `xnatfs login`" in said
            assert read_all(mounted.point) == 0
            held.seek(0)
            assert held.read(10) == begin
        assert mounted.status()["login"]["state"] == "ok"
        secret = server.call(lambda: server._application.sessions.tokens_of("demo")[-1].secret)
        for text in (
            said,
            str(mounted.status()),
            *[one.read_text() for one in (tmp_path / "state/logs").iterdir()],
        ):
            assert secret not in text
        left = xnatfs("logout", env=env)
        assert left.returncode == 0 and "was deleted" in left.stdout
        assert server.call(lambda: server._application.sessions.tokens_of("demo")) == []


def test_sighup_has_the_password_read_again(server: DemoServer, tmp_path: Path, private_home: Path) -> None:
    netrc = private_home / ".netrc"

    def write(word: str) -> None:
        netrc.write_text(f"machine 127.0.0.1 login demo password {word}\n")
        netrc.chmod(0o600)

    def state(mounted: Mount) -> str:
        return str(mounted.status()["login"]["state"])

    write("demo")
    with mount(server.url, tmp_path, env={"XNAT_USER": "", "XNAT_PASS": ""}) as mounted:
        assert read_all(mounted.point) == 0
        pid = mounted.pid
        server.call(lambda: setattr(server.archive.users["demo"], "password", "changed"))
        server.expire_sessions()
        xnatfs("refresh", env=mounted.env, check=True)
        until(lambda: read_all(mounted.point) != 0)
        assert state(mounted) == "refused"
        write("changed")
        os.kill(pid, signal.SIGHUP)
        until(lambda: state(mounted) == "ok")
        assert read_all(mounted.point) == 0 and mounted.pid == pid
        assert len([one for one in server.requests() if one.login and one.status == 401]) <= 3


def test_a_mount_in_the_foreground_ends_with_its_terminal(server: DemoServer, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    env = {
        **os.environ,
        **no_password(tmp_path),
        "XNAT_HOST": server.url,
        "XNAT_USER": "demo",
        "XNAT_PASS": "demo",
    }
    ours, theirs = pty.openpty()
    # A session of its own, whose terminal this is: `setsid --ctty` makes it so.
    command = [
        "setsid",
        "--ctty",
        "--wait",
        sys.executable,
        "-m",
        "xnatfs",
        "mount",
        "--foreground",
        str(point),
    ]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        try:
            until(lambda: str(point) in fuse_mounts() and (point / "README.txt").is_file(), 30)
            (pid,) = [int(one) for one in os.listdir("/proc") if one.isdigit() and _is(one, point)]
            os.kill(pid, signal.SIGHUP)  # the terminal is still there: the login is read again
            assert (point / "projects/SCALE").is_dir()
            os.close(ours)
            until(lambda: str(point) not in fuse_mounts(), 20)
            process.wait(20)
        finally:
            run("fusermount3", "-uqz", point)
            process.kill()


def _is(pid: str, point: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(point) in words and words[0] == os.fsencode(sys.executable)
