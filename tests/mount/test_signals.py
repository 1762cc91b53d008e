"""Signals that do not end a program take nothing from what it reads; those that do end it at once.

The kernel calls a request interrupted for every signal of the caller. A local disk answers all the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, mount, until
from xnatfs.demo.data import build
from xnatfs.demo.data.truth import files
from xnatfs.demo.server import DemoServer

EVERY_S = 0.06
# What a scheduler, a shell or a debugger does to a program in the middle of its work.
STOPS = (signal.SIGSTOP, signal.SIGTSTP)
_WITH_A_TIMER = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
def fail(error): raise error
count = 0
for folder, _, names in os.walk(sys.argv[1], onerror=fail):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            count += len(file.read()) > 0
signal.setitimer(signal.ITIMER_REAL, 0)
print(count)
"""


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[tuple[DemoServer, Mount, int]]:
    """A mount that knows nothing of a server with a slow line, and how many files it has."""
    archive = build("scale", sessions=6, scans=2, files=12, file_size=2000)
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        server.switches.latency_ms = 60.0
        yield server, mounted, len(list(files(archive, "SCALE", "demo")))


def commands(project: Path, copy: Path) -> dict[str, list[str]]:
    """Each with what it prints counted in lines, or what it copies."""
    return {
        "find": ["find", str(project), "-type", "f", "-size", "+0"],
        "grep": ["grep", "-rlc", "", str(project)],
        "cp": ["cp", "-rv", str(project), str(copy)],
        "tar": ["tar", "-cf", "/dev/null", "--totals", "-v", str(project)],
        "rsync": ["rsync", "-a", "--out-format=%n", f"{project}/", str(copy)],
    }


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
@pytest.mark.parametrize("tool", ["find", "grep", "cp", "tar", "rsync"])
def test_a_program_that_is_stopped_and_continued_misses_nothing(
    cold: tuple[DemoServer, Mount, int], tmp_path: Path, tool: str, number: signal.Signals
) -> None:
    _, mounted, count = cold
    copy = tmp_path / "copy"
    command = commands(mounted.point / "projects/SCALE", copy)[tool]
    # In a process group of its own, as a shell's job: rsync is three processes.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=os.setpgrp, text=True
    ) as running:
        stops = 0
        pauses = 0
        while running.poll() is None and pauses < 600:
            time.sleep(EVERY_S)
            pauses += 1
            stops += signalled(running.pid, number)
            time.sleep(0.005)
            signalled(running.pid, signal.SIGCONT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err[-2000:]
    assert stops > 5  # or it was over before anything was tried
    if tool in ("cp", "rsync"):
        assert sum(path.is_file() for path in copy.rglob("*")) == count
    else:
        lines = [line for line in out.splitlines() if not line.endswith("/")]
        assert len(lines) == count


def test_a_program_with_a_timer_misses_nothing(cold: tuple[DemoServer, Mount, int]) -> None:
    _, mounted, count = cold
    done = subprocess.run(
        ["python3", "-c", _WITH_A_TIMER, str(mounted.point / "projects/SCALE")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(count)), done.stderr


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name
)
def test_what_ends_a_program_ends_its_wait(
    cold: tuple[DemoServer, Mount, int], number: signal.Signals
) -> None:
    """Also after a signal that did not: the kernel says only once that a request is interrupted."""
    server, mounted, _ = cold
    server.switches.match, server.switches.silent_next = "/projects/SCALE", -1
    with subprocess.Popen(["ls", str(mounted.point / "projects/SCALE")], stderr=subprocess.PIPE) as blocked:
        until(lambda: waits(blocked.pid))
        os.kill(blocked.pid, signal.SIGSTOP)
        os.kill(blocked.pid, signal.SIGCONT)
        time.sleep(0.5)
        assert blocked.poll() is None
        os.kill(blocked.pid, number)
        # The mount itself would wait for 20 s.
        assert blocked.wait(timeout=8) == -number


def signalled(group: int, number: signal.Signals) -> bool:
    """Signal a process group, if it is there still."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def waits(pid: int) -> bool:
    """Whether a process waits for an answer of FUSE."""
    try:
        return (
            "fuse" in Path(f"/proc/{pid}/wchan").read_text()
            or "request_wait" in Path(f"/proc/{pid}/stack").read_text()
        )
    except OSError:
        return False
