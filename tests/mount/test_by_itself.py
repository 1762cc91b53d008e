"""Mounts that nobody types: mount(8) and fstab with the link in /sbin and without, a systemd unit."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import LET_GO, clear_away, fuse_mounts, lab_archive, until
from xnatfs.demo.server import DemoServer

REPOSITORY = Path(__file__).parents[2]
UNIT = REPOSITORY / "docs" / "systemd" / "xnatfs@.service"


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture
def login(server: DemoServer, tmp_path: Path) -> Path:
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1:{server.port} login demo password demo\n")
    path.chmod(0o600)
    return path


def as_root(tmp_path: Path, script: str, *, link: bool) -> str:
    """Run a script in a mount namespace of its own where /sbin has the link, or the program by its name."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount by mount(8)")
    program = tmp_path / "sbin" / ("mount.fuse.xnatfs" if link else "xnatfs")
    program.parent.mkdir()
    # mount.fuse(8) and mount(8) hand on an environment of their own.
    kept = {name: value for name, value in os.environ.items() if name.startswith(("XNATFS_", "PYTHON"))}
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\nos.environ.update({kept!r})\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\nfrom xnatfs.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    # What is on top of /usr/sbin is seen by this script alone.
    before = f"set -e; mount -t overlay none -o lowerdir={program.parent}:/usr/sbin /usr/sbin; set +e; "
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", LET_GO + before + script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("link", [True, False])
def test_mount_and_umount(server: DemoServer, login: Path, tmp_path: Path, link: bool) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    umount, mount = shutil.which("umount"), shutil.which("mount")
    options = f"ro,user=demo,netrc={login},project=ALFA,_netdev"
    try:
        said = as_root(
            tmp_path,
            f"{mount} -t fuse.xnatfs {server.url} {point} -o {options}; echo code $?; "
            f"ls {point}/projects; grep {point} /proc/self/mounts; {umount} {point}; echo code $?; "
            f"ls {point}",
            link=link,
        )
    finally:
        clear_away(point, Path(os.environ["XNATFS_STATE_DIR"]))
    lines = said.splitlines()
    assert lines[1:3] == ["code 0", "ALFA"], said
    assert lines[3].startswith(f"{server.url} {point} fuse.xnatfs ro,")
    assert lines[4:] == ["code 0"], "nothing is left behind"


def test_a_line_of_fstab(server: DemoServer, login: Path, tmp_path: Path) -> None:
    """`mount -a` mounts it once, however often it is called; bad options are one sentence."""
    point = tmp_path / "mnt"
    point.mkdir()
    table = tmp_path / "fstab"
    table.write_text(f"{server.url} {point} fuse.xnatfs ro,nofail,username=demo,netrc={login} 0 0\n")
    bad = tmp_path / "bad"
    bad.write_text(f"{server.url} {point} fuse.xnatfs ro,nofail,usr=demo 0 0\n")
    mount, umount = shutil.which("mount"), shutil.which("umount")
    try:
        said = as_root(
            tmp_path,
            f"{mount} --fstab {bad} {point}; echo code $?; {mount} --fstab {table} -a; echo code $?; "
            f"{mount} --fstab {table} -a; echo code $?; grep -c {point} /proc/self/mounts; {umount} {point}",
            link=True,
        )
    finally:
        clear_away(point, Path(os.environ["XNATFS_STATE_DIR"]))
    out = [line for line in said.splitlines() if not line.startswith(server.url)]
    assert out[:4] == ["code 1", "code 0", "code 0", "1"], said
    assert out[4:] == ["xnatfs: there is no mount option 'usr'; did you mean user?"]


def test_the_unit_is_one_that_systemd_knows(tmp_path: Path) -> None:
    program = tmp_path / ".local" / "bin" / "xnatfs"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_in_place_of_systemd(server: DemoServer, login: Path, tmp_path: Path) -> None:
    """Its ExecStart, run as systemd runs it: READY when the mount answers, STOPPING at its end by SIGTERM.
    SIGHUP ends nothing (ExecReload).
    """
    lines = dict(
        line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    assert lines["Type"] == "notify" and lines["ExecReload"] == "/bin/kill -HUP $MAINPID"
    point = tmp_path / "lab"
    words = lines["ExecStart"].replace("--server %i", f"--server {server.url} --netrc {login}")
    words = words.replace("%h/.local/bin/xnatfs", f"{sys.executable} -m xnatfs").replace("%h/%i", str(point))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        manager.settimeout(60)
        process = subprocess.Popen(
            words.split(),
            env={**os.environ, "NOTIFY_SOCKET": f"{tmp_path}/notify"},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd=REPOSITORY,
        )
        try:
            said = manager.recv(1000).decode()
            assert said == f"READY=1\nSTATUS=mounted at {point}"
            assert (point / "projects" / "ALFA").is_dir(), "it answers when it says so"
            process.send_signal(signal.SIGHUP)
            until(lambda: (point / "README.txt").is_file())
            process.terminate()
            assert manager.recv(1000) == b"STOPPING=1"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait(10)
            clear_away(point, Path(os.environ["XNATFS_STATE_DIR"]))
    assert not point.exists() and str(point) not in fuse_mounts()


def test_a_refused_login_is_not_tried_again(server: DemoServer, login: Path, tmp_path: Path) -> None:
    """The exit code that the unit's RestartPreventExitStatus names."""
    assert "RestartPreventExitStatus=77\n" in UNIT.read_text()
    login.write_text(login.read_text().replace("password demo", "password wrong"))
    point = str(tmp_path / "mnt")
    for more in ([], ["--foreground"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "xnatfs",
                "mount",
                f"--server={server.url}",
                f"--netrc={login}",
                *more,
                point,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 77 and "refused this user name and password" in done.stderr, done.stderr
