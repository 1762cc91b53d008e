"""No password, token or session id where others (or a bug report) find it: every byte a mount writes or says
is searched.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mount.overlay.conftest import mounted_below
from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, scripted
from tests.support import mount, until, xnatfs
from xnatfs.auth.credentials import Credentials
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure

PASSWORD = "Canary7-%2B:é-Horse"
WRONG = "Wrong7-Canary"


def everywhere(*folders: Path) -> dict[str, bytes]:
    """Every file's bytes; of what is mounted, too."""
    found = {}
    for folder in folders:
        for top, _, files in os.walk(folder):
            for name in files:
                path = Path(top, name)
                if not path.is_socket():
                    found[str(path)] = path.read_bytes()
    return found


def spellings(secret: str) -> set[bytes]:
    """How a secret may be written down."""
    plain = secret.encode()
    pairs = {base64.b64encode(b"demo:" + plain), base64.b64encode(plain)}
    return {plain, secret.encode("latin-1"), plain.hex().encode(), *pairs, secret.encode("unicode_escape")}


def children(pid: int) -> list[int]:
    return [
        int(one)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for one in (task / "children").read_text().split()
    ]


def clear_overlays(folder: Path) -> None:
    """What `mount` does not look for in the end."""
    for one in mounted_below(folder):
        subprocess.run(["umount", "-l", one], check=False, timeout=10)


@pytest.fixture
def server() -> DemoServer:
    made = DemoServer(build("scale", sessions=1, scans=1, files=2, file_size=1000))
    made.archive.users["demo"].password = PASSWORD
    return made


def test_a_whole_mount_writes_and_says_no_secret(
    server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    env = {"XNATFS_LOG": "DEBUG", "XDG_RUNTIME_DIR": str(runtime), "XNATFS_OVERLAY": "fuse-overlayfs"}
    assert shutil.which("fuse-overlayfs")
    said: dict[str, bytes] = {}
    with server, contextlib.ExitStack() as stack:
        stack.callback(clear_overlays, tmp_path)
        options = ("--overlay", str(tmp_path / "changes"))
        with mount(
            server.url, tmp_path / "m", *options, password=PASSWORD, env=env, interpreter=True
        ) as mounted:
            report = mounted.status()
            daemon = report["pid"]
            for path in (mounted.point / "projects").rglob("*"):
                if path.is_file():
                    path.read_bytes()
            server.expire_sessions()
            for command in (
                *(
                    ("status",),
                    ("status", "--json"),
                    ("refresh",),
                    ("doctor",),
                    ("selftest",),
                    ("cache", "info"),
                    ("cache", "verify"),
                ),
                *(
                    ("table", "SCALE", "--explain"),
                    ("table", "SCALE", "scans"),
                    ("warm", str(mounted.point / "projects")),
                ),
                ("mount", str(mounted.point)),
            ):
                done = xnatfs(*command, env=mounted.env | env)
                said[" ".join(command)] = (done.stdout + done.stderr).encode()
            (helper,) = (
                one
                for one in children(daemon)
                if b"fuse-overlayfs" in Path(f"/proc/{one}/cmdline").read_bytes()
            )
            said["the helper's environment"] = Path(f"/proc/{helper}/environ").read_bytes()
            for one in (daemon, helper):
                said[f"ps {one}"] = Path(f"/proc/{one}/cmdline").read_bytes()
            limits = Path(f"/proc/{daemon}/limits").read_text()
            assert [
                line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")
            ] == [["0", "0"]]
            bad = {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": WRONG, "XNATFS_LOG": "DEBUG"}
            (tmp_path / "other").mkdir()
            done = xnatfs("mount", str(tmp_path / "other"), "--foreground", env=bad)
            assert done.returncode == 77
            said["a wrong password"] = (done.stdout + done.stderr).encode()
            sessions = server.call(lambda: list(server._application.sessions._sessions))
            done = xnatfs("unmount", str(mounted.point), env=mounted.env | env, check=True)
            said["unmount"] = (done.stdout + done.stderr).encode()
        said |= everywhere(tmp_path)
    assert any(
        (name.endswith(".log") and b"DEBUG" in text) or b"INFO" in text for name, text in said.items()
    ), "the log says something"
    assert (
        sessions
        and any(name.endswith("listings.sqlite") for name in said)
        and any(name.endswith("logins.json") for name in said)
    )
    for secret in (PASSWORD, WRONG, *sessions):
        for spelling in spellings(secret):
            assert [name for name, text in said.items() if spelling in text] == []


def test_a_token_is_not_shown_either(server: DemoServer, tmp_path: Path) -> None:
    with server:
        token = server.call(lambda: server._application.sessions.issue(server.archive.users["demo"]))
        with mount(
            server.url, tmp_path / "m", user=token.alias, password=token.secret, env={"XNATFS_LOG": "DEBUG"}
        ) as mounted:
            until(lambda: (mounted.point / "projects").is_dir())
            said = everywhere(tmp_path, mounted.point / ".xnatfs") | {
                "status": str(mounted.status()).encode()
            }
    assert any(name.endswith("config.json") for name in said)
    assert [name for name, text in said.items() if token.secret.encode() in text] == []


def test_no_failure_tells_what_a_redirect_or_a_url_has_in_it() -> None:
    def script(one: Asked) -> Answer:
        return Answer(
            302, headers={"Location": f"http://me:{WRONG}@127.0.0.1:1/a;jsessionid={WRONG}?token={WRONG}"}
        )

    with scripted(script) as odd, connection(odd.url, "demo", PASSWORD) as made:
        with pytest.raises(Failure) as caught:
            made.login()
        told = [
            str(caught.value),
            repr(caught.value),
            repr(made.transport.session.auth),
            repr(made.logins.credentials),
        ]
        told += [str(caught.value.__cause__), repr(caught.value.__context__)]
    assert not any(WRONG in one or PASSWORD in one for one in told)


def test_credentials_do_not_show_their_secrets() -> None:
    login = Credentials("https://h", "me", PASSWORD, "x", proxy=f"http://me:{WRONG}@proxy")
    assert PASSWORD not in repr(login) and WRONG not in repr(login)
