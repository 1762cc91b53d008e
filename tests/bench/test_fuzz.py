"""`scripts/fuzz`: it finds what is planted, counts what it tries, and ends when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.test_bench import REPOSITORY, SCRIPTS

PLANTED = """
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.support import FUZZ


@FUZZ
@given(st.binary())
def test_that_fails(data):
    assert len(data) < 3


@FUZZ
@given(st.binary())
def test_that_holds(data):
    assert bytes(data) == data


def test_without_examples():
    raise AssertionError("is not run")
"""


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(PLANTED)
    result = tmp_path / "result.json"
    words = (
        "--minutes",
        "0.2",
        "--processes",
        "2",
        "--round",
        "1",
        "--tests",
        str(tmp_path),
        "--database",
        str(tmp_path / "kept"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "fuzzing", *words, "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{SCRIPTS}:{REPOSITORY}"},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    tests = {name.rpartition("::")[2]: one for name, one in json.loads(result.read_text())["tests"].items()}
    assert set(tests) == {"test_that_fails", "test_that_holds"}
    assert (
        "assert len(data) < 3" in tests["test_that_fails"]["failure"]
        and tests["test_that_holds"]["failure"] == ""
    )
    assert tests["test_that_holds"]["examples"] >= 100 and tests["test_that_fails"]["rounds"] == 1
    assert (tmp_path / "kept" / "examples").is_dir() and not list((tmp_path / "kept").glob("*.log"))
