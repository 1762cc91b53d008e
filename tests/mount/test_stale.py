"""Mounts whose daemon was killed or has stopped: every command says so in time, and takes them away where
asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, fuse_mounts, kill, mount, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=1, scans=1, files=2, file_size=1000)) as server:
        yield server


@pytest.fixture
def mounted(server: DemoServer, tmp_path: Path) -> Iterator[Mount]:
    with mount(server.url, tmp_path) as mounted:
        yield mounted


@pytest.fixture
def stopped(mounted: Mount) -> Iterator[int]:
    """Its daemon is stopped; it goes on in the end, so that it can be ended."""
    pid = mounted.pid
    os.kill(pid, signal.SIGSTOP)
    yield pid
    for number in (signal.SIGCONT, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def said(mounted: Mount, *arguments: str) -> tuple[int, str]:
    began = time.monotonic()
    done = xnatfs(*arguments, env=mounted.env, timeout=60)
    assert time.monotonic() - began < 40
    return done.returncode, done.stdout + done.stderr


def test_a_killed_daemon_is_named_by_every_command(mounted: Mount) -> None:
    place = str(mounted.point)
    kill(mounted.pid)
    for arguments in (
        ("status",),
        ("status", f"{place}/projects"),
    ):  # the first tells of other tests' dead mounts too
        code, text = said(mounted, *arguments)
        assert (
            code == 1
            and f"{place}  xnat:" in text
            and f"its process is gone; `xnatfs unmount {place}` removes it" in text
        )
    (report,) = [
        one
        for one in json.loads(xnatfs("status", "--json", env=mounted.env).stdout)
        if one["mountpoint"] == place
    ]
    assert "gone" in report["problem"]
    code, text = said(mounted, "doctor")
    assert code == 1 and f"mount: {place}: its process is gone" in text
    assert said(mounted, "unmount", place) == (0, f"{place} is unmounted\n")
    assert place not in fuse_mounts()
    assert place not in said(mounted, "status")[1]
    assert said(mounted, "status", place) == (1, f"xnatfs: no xnatfs mount at {place}\n")


def test_a_stopped_daemon_is_named_and_taken_away(mounted: Mount, stopped: int) -> None:
    place = str(mounted.point)
    why = f"its process {stopped} is stopped (`kill -CONT {stopped}` resumes it)"
    for arguments in (("status", f"{place}/projects/SCALE"), ("mount", place), ("doctor",)):
        code, text = said(mounted, *arguments)
        assert (
            code == 1 and f"the mount does not answer: {why}; `xnatfs unmount {place}` removes it" in text
        ), arguments
    os.kill(stopped, signal.SIGCONT)
    code, text = said(mounted, "status", place)
    assert code == 0 and "server: answers" in text, text
    os.kill(stopped, signal.SIGSTOP)
    waiting = subprocess.Popen(
        ["cat", f"{place}/README.txt"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        code, text = said(mounted, "unmount", place)
        assert (code, text) == (
            0,
            f"{place} is unmounted\n{why} and did not end; `kill -9 {stopped}` ends it\n",
        )
        assert place not in fuse_mounts()
    finally:
        os.kill(stopped, signal.SIGKILL)
        waiting.communicate(timeout=20)
    code, text = said(mounted, "mount", place)
    assert code == 0, text
    assert (mounted.point / "README.txt").is_file()
