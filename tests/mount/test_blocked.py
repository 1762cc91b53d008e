"""A hundred reads that wait for a server that says nothing: nobody else waits with them, and Ctrl-C ends
each.

One round in the suite; `scripts/blocked [N]` (20 rounds) prints the figures: what listed and cached things
cost meanwhile, and how soon Ctrl-C works."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Mount, mount, run, until
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

ROUNDS = int(os.environ.get("XNATFS_BLOCKED", "1"))
READERS = 100
SESSIONS = (
    40 + 3 * ROUNDS
)  # whoever walks through them has up to 32 listed ahead, and some are to be unlisted
_NOISE = 2.0  # seconds: this machine may be busy; the figure to reach, 0.1, is printed by scripts/blocked
_CTRL_C = 2.0
_HOUR = 3.6e6  # milliseconds

# Many readers for the price of one interpreter. Each is a process of its own, as a `cat` is, since Ctrl-C is
# a signal to a process.
_PROGRAM = """
import json, os, select, signal, sys, time
what, paths = sys.argv[1], sys.argv[2:]
children = {}
for path in paths:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            if what == "stat":
                os.stat(path)
            elif what == "ls":
                os.listdir(path)
            else:
                os.read(os.open(path, os.O_RDONLY), 4096)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    children[pid] = path
print("ready", flush=True)
sys.stdin.readline()
seconds, codes = [], []
for pid in list(children):
    if os.waitpid(pid, os.WNOHANG)[0]:
        codes.append("ended by itself")
        del children[pid]
began = {}
for pid in children:
    began[pid] = time.monotonic()
    os.kill(pid, signal.SIGINT)
while children and time.monotonic() < max(began.values()) + 10:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            seconds.append(time.monotonic() - began[pid])
            ours = os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 4  # EINTR
            codes.append("interrupted" if ours else "exit code %d" % os.WEXITSTATUS(status))
            del children[pid]
    time.sleep(0.005)
codes += ["hangs"] * len(children)
print(json.dumps([seconds, codes]), flush=True)
"""


class Blocked:
    """Processes that wait in the mount."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ctrl_c(self) -> list[float]:
        """Interrupt each; the seconds until each was gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, codes = json.loads(self._process.stdout.readline())
        assert set(codes) == {"interrupted"}, codes
        return [float(one) for one in seconds]


@contextlib.contextmanager
def blocked(what: str, paths: list[Path]) -> Iterator[Blocked]:
    """So many processes that `read`, `stat` or `ls` a path each."""
    command = [sys.executable, "-S", "-c", _PROGRAM, what, *map(str, paths)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield Blocked(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


class Figures:
    """What was measured: seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], object], most: float = _NOISE) -> None:
        began = time.monotonic()
        work()
        self.note(name, [time.monotonic() - began], most)

    def note(self, name: str, seconds: list[float], most: float) -> None:
        self.seconds.setdefault(name, []).extend(seconds)
        assert max(seconds) < most, f"{name}: {max(seconds):.2f} s"

    def __str__(self) -> str:
        return "\n".join(
            f"{name:44} median {1000 * statistics.median(all_of):7.1f} ms, max {1000 * max(all_of):7.1f} "
            f"ms  ({len(all_of)})"
            for name, all_of in self.seconds.items()
        )


def scan(mounted: Mount, number: int, room: str = "projects") -> Path:
    name = f"sub{number:05d}"
    if room == "archive":
        return mounted.point / f"archive/projects/SCALE/experiments/{name}_MR1/SCANS/1/DICOM"
    return mounted.point / f"projects/SCALE/subjects/{name}/{name}_MR1/SCANS/1-TYPE1/DICOM"


def while_blocked(mounted: Mount, cached: list[Path], figures: Figures, when: str) -> None:
    """Listed and cached things answer as ever."""
    folder = scan(mounted, 1)
    listed = run("ls", folder).stdout
    assert listed.count("\n") == 120
    figures.time(f"ls -l of a listed folder, {when}", lambda: run("ls", "-l", folder))
    figures.time(f"stat of a listed file, {when}", lambda: os.stat(folder / "0001.dcm"))
    path = cached.pop()
    content: list[bytes] = []
    figures.time(f"read of a cached file, {when}", lambda: content.append(path.read_bytes()))
    assert len(content[0]) == 30_000
    figures.time(f"df, {when}", lambda: os.statvfs(mounted.point))


def one_round(server: DemoServer, mounted: Mount, cached: list[Path], number: int, figures: Figures) -> None:
    # Scans nobody has read yet; the last one not even listed (from the other end: in a walk the next are
    # listed ahead).
    stalled, silent, unlisted = (
        scan(mounted, 3 + 2 * number),
        scan(mounted, 4 + 2 * number),
        scan(mounted, SESSIONS - number),
    )
    names = sorted(path.name for path in stalled.iterdir())
    assert sorted(path.name for path in silent.iterdir()) == names
    # Silence in the middle of files, from a server that else answers.
    server.switches.stall_after_bytes = 0
    before = mounted.status()["kernel"]["open"]
    with blocked("read", [stalled / name for name in names[:READERS]]) as readers:
        until(lambda: mounted.status()["kernel"]["open"] >= before + READERS, 30)
        while_blocked(mounted, cached, figures, "files stall")
        figures.note("Ctrl-C of a blocked read", readers.ctrl_c(), _CTRL_C)
    server.switches.stall_after_bytes = -1
    # The connections they had are free for others.
    figures.time("read of another file after Ctrl-C", (stalled / names[-1]).read_bytes, 6)

    # A server that takes connections and says nothing at all.
    server.switches.latency_ms = _HOUR
    try:
        with (
            blocked("read", [silent / name for name in names[:READERS]]) as readers,
            blocked("stat", [unlisted / "0001.dcm"] * 3) as looks,
            blocked("ls", [unlisted] * 3) as lists,
        ):
            time.sleep(1)
            while_blocked(mounted, cached, figures, "all is silent")
            figures.note("Ctrl-C of a blocked open", readers.ctrl_c(), _CTRL_C)
            figures.note("Ctrl-C of a blocked stat", looks.ctrl_c(), _CTRL_C)
            figures.note("Ctrl-C of a blocked ls", lists.ctrl_c(), _CTRL_C)
        # Whoever goes on asking finds it away.
        asking = subprocess.Popen(
            ["cat", silent / names[0]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            figures.time(
                "silence until the server is known to be away",
                lambda: until(lambda: mounted.status()["away"], 20),
                20,
            )
        finally:
            asking.kill()
            asking.wait(10)
        assert mounted.status()["away"]["words"] == "silence"
        figures.time("error for what is not here", lambda: run("cat", silent / names[1]))
        while_blocked(mounted, cached, figures, "known to be away")
    finally:
        server.switches.latency_ms = 0.0
        server.stop()  # who waits there for an hour
        server.start()
    figures.time("until it is found again", lambda: until(lambda: not mounted.status()["away"], 30), 30)
    figures.time("read after that", (silent / names[2]).read_bytes, 20)


@pytest.mark.timeout(120 + 90 * ROUNDS)
def test_a_hundred_blocked_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = build("scale", sessions=SESSIONS, scans=1, files=120, file_size=30_000)
    figures = Figures()
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        # Into the cache by another room: the kernel's own pages of a file are those of one path.
        everything = sorted(scan(mounted, 2, "archive").iterdir())
        for path in everything:
            path.read_bytes()
        cached = [scan(mounted, 2) / path.name for path in everything]
        os.listdir(scan(mounted, 1))
        os.listdir(scan(mounted, 2))
        for number in range(ROUNDS):
            one_round(server, mounted, cached, number, figures)
    if ROUNDS > 1:
        with capsys.disabled():
            print(f"\n{READERS} blocked readers, {ROUNDS} rounds:\n{figures}")
