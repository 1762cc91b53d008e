"""`scripts/bench` measures, reports and cleans up: one tiny work, no figures asserted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "scripts"
TINY = (
    "--quick",
    "--only",
    "copy",
    "--skip-capability",
    "--size",
    "scans=1",
    "--size",
    "files=5",
    "--without",
    "pyxnat",
    "--without",
    "xnatpy",
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("unzip")), reason="needs curl and unzip"
)


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPTS}:{REPOSITORY}"}
    command = [
        sys.executable,
        "-m",
        "benchmark",
        *TINY,
        "--without",
        "rclone",
        "--scratch",
        str(folder),
        "--trend",
        str(folder.with_name("trend.json")),
        *arguments,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def left_behind(folder: Path) -> list[str]:
    """Mounts and processes that still have to do with a folder, and what is in it."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in command:
            processes.append(command)
    return mounts + processes + [str(path) for path in folder.iterdir()]


def test_a_work_is_measured_and_reported(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    files = {kind: tmp_path / f"result.{kind}" for kind in ("json", "markdown")}
    process = start(
        *(part for kind, path in files.items() for part in (f"--{kind}", str(path))), folder=scratch
    )
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    document = json.loads(files["json"].read_text())
    (outcome,) = document["outcomes"]
    entries = {entry["name"]: entry for entry in outcome["entries"]}
    zips = "curl: a zip of each scan, 8 at once"
    ours = {"xnatfs: cp -r", "xnatfs get"}
    assert set(entries) == {*ours, "curl -o session.zip", "curl -o session.zip; unzip -q", zips}
    assert all(
        entry["problem"] == "" and entry["seconds"] > 0 and entry["sent"] > 5 * 150_000
        for entry in entries.values()
    )
    assert entries["curl -o session.zip"]["requests"] == 1 and entries["curl -o session.zip"]["ratio"] == 1
    assert [target["met"] for target in outcome["targets"]][1:3] == [
        None,
        None,
    ]  # rclone and pyxnat did not take part
    assert outcome["targets"][3]["value"] > 0
    assert outcome["targets"][0]["value"] == pytest.approx(entries["xnatfs: cp -r"]["ratio"])
    assert "target: time, x curl -o of the zip" in output
    assert "| xnatfs: cp -r |" in files["markdown"].read_text()
    (run,) = json.loads((tmp_path / "trend.json").read_text())
    ratio = run["figures"]["copy, 20ms: xnatfs: cp -r, time x curl -o session.zip"]["value"]
    assert ratio == pytest.approx(entries["xnatfs: cp -r"]["ratio"], abs=0.001)
    assert run["sizes"]["files"] == 5
    assert left_behind(scratch) == []


def compared(file: Path) -> tuple[int, str]:
    """`scripts/bench --compare` on a file of runs."""
    process = start("--compare", "--trend", str(file), folder=file.parent)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_compare_shows_what_got_worse(tmp_path: Path) -> None:
    def run(time: float, speed: float, files: int = 5) -> dict[str, object]:
        figures = {"time of a copy": {"value": time}, "speed": {"value": speed, "least": True}}
        return {"date": "2026", "xnatfs": "0.1", "sizes": {"files": files}, "figures": figures}

    file = tmp_path / "trend.json"
    assert compared(file) == (0, "no run is recorded yet\n")
    file.write_text(json.dumps([run(1.0, 0.9), run(1.2, 0.8), run(9.0, 0.1, files=6), run(1.04, 0.91)]))
    assert "2 not worse, 0 without" in compared(file)[1]
    file.write_text(json.dumps([run(1.0, 0.9), run(1.5, 0.6)]))
    output = compared(file)[1]
    assert "worse: time of a copy: 1.5, before 1 (+50%)" in output
    assert "worse: speed: 0.6, before 0.9 (-33%)" in output
    file.write_text(json.dumps([run(1.0, 0.9), run(0.5, 1.6)]))
    assert "worse" not in compared(file)[1].replace("not worse", "")
    file.write_text("{}")
    assert compared(file)[0] == 1


def test_tables_are_measured_and_compared_with_curl(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = tmp_path / "result.json"
    sizes = ("cohort=6", "cohort_maps=2", "cohort_large=6", "cohort_xlsx=3")
    options = [part for size in sizes for part in ("--size", size)]
    process = start("--only", "tables", "--without", "bx", "--json", str(result), *options, folder=scratch)
    output, _ = process.communicate(timeout=110)
    assert process.returncode == 0, output
    outcomes = {outcome["work"]: outcome for outcome in json.loads(result.read_text())["outcomes"]}
    assert {"tables-aseg", "tables-ashs", "tables-spm12", "tables-large-csv", "tables-large-xlsx"} < set(
        outcomes
    )
    entries = {
        work: {entry["name"]: entry for entry in outcome["entries"]} for work, outcome in outcomes.items()
    }
    assert not [
        entry["problem"] for found in entries.values() for entry in found.values() if entry["problem"]
    ]
    assert entries["tables-ashs"]["curl: the same files, 8 at a time"]["requests"] == 18
    assert entries["tables-ashs"]["xnatfs: the same again"]["requests"] == 0
    assert entries["tables-large-xlsx"]["count the rows"]["extra"]["rows"] == 3 * 625
    assert left_behind(scratch) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = start("--size", "files=2000", folder=scratch)
    deadline = time.monotonic() + 60
    while not any(str(scratch) in line for line in Path("/proc/self/mounts").read_text().splitlines()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in output
    deadline = time.monotonic() + 15
    while left_behind(scratch) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind(scratch) == []
