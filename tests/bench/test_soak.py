"""`scripts/soak`: a run of seconds holds and leaves nothing behind; and what it looks for it finds."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.test_bench import REPOSITORY, SCRIPTS, left_behind
from tests.support import until

sys.path.insert(0, str(SCRIPTS))

from soaking import jobs, report
from soaking.__main__ import Crew
from soaking.findings import Findings
from soaking.truth import Truth
from soaking.watch import Blocked, Look, growths

TINY = {
    "sessions": 1,
    "scans": 1,
    "files": 3,
    "file_size": 70_000,
    "big_files": {"odd.bin": 300_000, "some.nii": 1_200_000},
    "dicom": 2,
    "cohort": 1,
    "nifti": 1,
}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPTS}:{REPOSITORY}"}
    command = [sys.executable, "-m", "soaking", "--small", "--scratch", str(folder), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def test_a_short_run_holds_and_is_reported(tmp_path: Path) -> None:
    scratch, result, page = tmp_path / "scratch", tmp_path / "result.json", tmp_path / "page.md"
    scratch.mkdir()
    page.write_text("before\n<!-- soak: begin -->\nnothing\n<!-- soak: end -->\nafter\n")
    words = (
        "--minutes",
        "0.2",
        "--workers",
        "5",
        "--cache-size",
        "60M",
        "--json",
        str(result),
        "--report",
        str(page),
    )
    process = start(scratch, *words, "--set", "fail_rate=0.1", "--set", "stall_rate=0.0")
    output, _ = process.communicate(timeout=110)
    assert process.returncode == 0, output
    document = json.loads(result.read_text())
    assert document["problems"] == [] and "everything held" in output
    done = {name: kind["done"] for name, kind in document["kinds"].items()}
    assert len(done) > 8 and sum(done.values()) > 30
    assert sum(kind["compared"] for kind in document["kinds"].values()) > 50e6
    assert sum(document["faults"].values()) > 5
    assert document["looks"][-1]["requests"] > 50 and document["looks"][-1]["resident"] > 0
    text = page.read_text()
    assert (
        text.startswith("before\n")
        and text.endswith("after\n")
        and "| what | done |" in text
        and "nothing\n" not in text
    )
    assert left_behind(scratch) == []


def test_a_report_that_cannot_be_written_is_refused_before_the_hour(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert report.lacks(page) == f"{page} cannot be read: No such file or directory"
    page.write_text("text")
    assert report.lacks(page).startswith(f"{page} has no lines <!--")
    done = subprocess.run(
        [REPOSITORY / "scripts/soak", "--report", page],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.endswith(f"error: {report.lacks(page)}\n")


@pytest.mark.timeout(240)
def test_a_signal_leaves_nothing_behind(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with start(scratch, "--minutes", "5", "--workers", "3") as process:
        try:
            until(lambda: list(scratch.glob("*/*-copies/worker2")), 80)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "interrupted" in output
    until(lambda: left_behind(scratch) == [], 30)


def test_a_signal_during_a_fork_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forking = threading.Event()

    def signalled() -> None:
        forking.wait(10)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=signalled)  # started before, so that it blocks nothing
    thread.start()

    def fork(self: Crew, number: int) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # as the interpreter does in what runs around a fork
            forking.set()
            thread.join(10)
            time.sleep(0.01)

    monkeypatch.setattr(Crew, "_hire", fork)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Crew((), tmp_path, 1, Findings(), 0.0).hire(0)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(TINY)


def desk(truth: Truth, folder: Path, seed: int) -> jobs.Desk:
    """A worker's desk on an ordinary folder."""
    (folder / "scratch").mkdir(exist_ok=True)
    return jobs.Desk(
        truth,
        folder / "mnt",
        folder / "scratch",
        random.Random(seed),
        20,
        dict(os.environ),
        {},
        lambda *_: None,
    )


@pytest.fixture
def copied(truth: Truth, tmp_path: Path) -> Path:
    """The true files in an ordinary folder, as a mount would show them."""
    for path, file in truth.files.items():
        target = tmp_path / "mnt" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read())
    return tmp_path


@pytest.mark.parametrize("job", [jobs.cp, jobs.rsync, jobs.tar, jobs.cat, jobs.md5sum, jobs.dd, jobs.pread])
def test_a_job_finds_wrong_bytes(truth: Truth, copied: Path, job: Callable[[jobs.Desk], None]) -> None:
    job(desk(truth, copied, 1))
    for path in truth.files:
        target = copied / "mnt" / path
        data = bytes(byte ^ 1 for byte in target.read_bytes())
        target.write_bytes(data)
    with pytest.raises(jobs.WrongError):
        for seed in range(20):  # an empty file cannot be wrong
            job(desk(truth, copied, seed))


@pytest.mark.parametrize("job", [jobs.cp, jobs.tar, jobs.md5sum, jobs.find, jobs.look, jobs.pread])
def test_a_job_finds_short_and_missing_files(
    truth: Truth, copied: Path, job: Callable[[jobs.Desk], None]
) -> None:
    job(desk(truth, copied, 1))
    for path in truth.files:
        with (copied / "mnt" / path).open("r+b") as stream:
            stream.truncate(max(0, truth.files[path].size - 1))
    with pytest.raises(jobs.WrongError):
        for seed in range(20):
            job(desk(truth, copied, seed))
    shutil.rmtree(copied / "mnt/projects")
    shutil.rmtree(copied / "mnt/archive")
    with pytest.raises(OSError) as caught:
        job(desk(truth, copied, 1))
    assert caught.value.errno == 2


def test_growth_and_errors_are_problems() -> None:
    def look(minute: int, resident: int, descriptors: int) -> Look:
        return Look(minute, resident << 20, descriptors, 50, 10**6, 100, 10, 1000, 1)

    def problems(looks: list[Look], findings: Findings) -> list[str]:
        result = report.Result(
            "",
            0,
            60,
            10,
            40,
            "1M",
            findings,
            looks,
            growths(looks, 10),
            Blocked(),
            Counter(),
            {},
            Counter(),
            False,
        )
        return result.problems

    assert problems([look(minute, 200, 40) for minute in range(60)], Findings()) == []
    assert any(
        "resident memory" in one
        for one in problems([look(minute, 200 + minute, 40) for minute in range(60)], Findings())
    )
    assert any(
        "open descriptors" in one
        for one in problems([look(minute, 200, 40 + minute) for minute in range(60)], Findings())
    )
    findings = Findings()
    findings.ended("cat", 1.0, 0, "EIO", "cat: Input/output error", "")
    findings.ended("cat", 1.0, 0, "wrong", "other bytes", "")
    assert len(problems([look(minute, 200, 40) for minute in range(60)], findings)) == 2


def test_a_process_that_is_not_woken_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        real = Path.read_text

        def read(path: Path, *args: object, **options: object) -> str:
            text = real(path, errors="replace")
            return text.replace(") S ", ") D ", 1) if str(path) == f"/proc/{process.pid}/stat" else text

        until(lambda: real(Path(f"/proc/{process.pid}/stat")).rpartition(")")[2].split()[0] == "S", 10)
        monkeypatch.setattr(Path, "read_text", read)
        blocked = Blocked()
        blocked.look({process.pid})
        time.sleep(0.1)
        blocked.look({process.pid})
        assert blocked.worst >= 0.1 and "sleep" in blocked.who
        blocked.look(set())
        assert not blocked.since
    finally:
        process.kill()
        process.wait(10)
