"""`xnatfs demo`: what it shows, what it says can be typed, and that it leaves nothing, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import fuse_mounts, run, until, xnatfs
from xnatfs.demo.data.lab import READABLE


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where demos have their folders; in the end nothing is left of them."""
    folder = tmp_path / "t m p"  # paths have to be quoted
    folder.mkdir()
    yield folder
    escaped = str(folder).replace(" ", "\\040")
    until(lambda: not [point for point in fuse_mounts() if point.startswith(escaped)])
    until(lambda: not of_demo(folder), 30)
    assert [path.name for path in folder.iterdir() if not re.fullmatch(r"xnatfs-\d+", path.name)] == []


def of_demo(folder: Path) -> list[bytes]:
    """The processes with this folder for temporary files, the demo's server and mount too: how they were
    started.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes())
    return found


@contextlib.contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "xnatfs", "demo", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], pattern: str) -> tuple[list[str], re.Match[str]]:
    """The lines up to the one that matches."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if found := re.match(pattern, line):
            return lines, found
    pytest.fail(f"the demo ended by itself: {process.stderr.read() if process.stderr else ''}")


def test_the_tour_shows_ten_things_and_leaves_nothing(temporary: Path) -> None:
    done = xnatfs("demo", "--tour", env={"TMPDIR": str(temporary), "COLUMNS": "100"}, timeout=150)
    assert (done.returncode, done.stderr) == (0, "")
    head, *steps = re.split(r"^\d+/10  ", done.stdout, flags=re.MULTILINE)
    assert "is mounted at" in head and len(steps) == 10
    for step in steps:
        title, *why = step.splitlines()[:3]
        assert title and all(0 < len(line) <= 84 and not line.startswith("$") for line in why)
        assert 1 <= step.count("\n$ ") <= 5 and len(step.splitlines()) <= 45
    shown = dict(zip((step.splitlines()[0] for step in steps), steps, strict=True))
    assert "112 x 112 x 40 voxels of 2 x 2 x 4 mm" in shown["The tree"] and "@@@@" in shown["The tree"]
    header = shown["The header of a large image"]
    assert "[1024, 1024, 1023]" in header
    before, after = (megabytes(found) for found in re.findall(r"(\S+ \wB) of files received", header))
    assert 0 < after - before < 5  # of 1074 MB
    assert "007_007_MR1_2_DEMO_E00008.nii.gz" in shown["One sequence of the whole study"]
    assert "sub-007_ses-MR1_T1w.nii.gz" in shown["The project as a BIDS dataset"]
    assert "BrainSegVol_Volume_mm3" in shown["Measurements as tables"]
    assert "has no resource FREESURFER7" in shown["What is missing, and why"]
    assert re.search(r"^freesurfer7/aseg  .* 8 .*3392$", shown["What is missing, and why"], re.MULTILINE)
    twice = shown["Read twice, fetched once"]
    assert len(set(re.findall(r"^[0-9a-f]{32}", twice, re.MULTILINE))) == 1
    assert "Arrived by bicycle" in shown["New data"]
    away = shown["Without the server"]
    assert re.findall(r"^[0-9a-f]{32}", away, re.MULTILINE) == re.findall(r"^[0-9a-f]{32}", twice, re.M)[:1]
    assert "Host is down" in away and "the server cannot be reached" in away
    assert "Read-only file system" in steps[-1] and "is unmounted" in steps[-1]
    assert done.stdout.endswith("Unmounted.\n")


def megabytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"kB": 0.001, "MB": 1.0, "GB": 1000.0}[unit]


def test_what_it_names_for_a_second_terminal_works_as_typed(temporary: Path, tmp_path: Path) -> None:
    with demo(temporary) as process:
        lines, found = read_until(process, r".*The mount stays at (.+) until Ctrl-C")
        point = Path(found[1])
        assert sorted(os.listdir(point / "projects")) == sorted([*READABLE, "BIG", "RAW"])
        text = "\n".join(lines)
        for part in (
            "007_MR1_T1_ALFA1.nii.gz: 112 x 112 x 40 voxels",
            "views/ALFA/by-scan-type",
            "sub-007_ses-MR1_T1w.nii.gz",
            "Left-Hippocampus",
        ):
            assert part in text
        commands = [
            line.strip() for line in lines[lines.index("Try in a second terminal:") + 1 :] if line[:2] == "  "
        ]
        assert len(commands) >= 5
        for command in commands:
            done = run("sh", "-c", command, cwd=tmp_path)
            assert done.returncode == 0 and (done.stdout or command.startswith("cp")), (command, done)
        assert list(tmp_path.glob("t1s/*.nii.gz"))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "Unmounted.\n", "")


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        ("An embedded XNAT serves", signal.SIGINT),  # it is mounting
        ("3/10", signal.SIGHUP),  # a command is running, and the terminal is closed
        ("", signal.SIGTERM),  # the server is starting
    ],
)
def test_it_can_be_ended_at_any_time(temporary: Path, pattern: str, number: int) -> None:
    """`temporary` sees that no mount, process or file is left."""
    with demo(temporary, "--tour") as process:
        if pattern:
            read_until(process, pattern)
        else:
            until(lambda: any(b"serve-demo" in command for command in of_demo(temporary)), 60)
        time.sleep(0.05)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "") and output.endswith("Unmounted.\n")
        assert "10/10" not in output
