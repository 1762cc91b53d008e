"""Finds (or installs) the real `bx` and runs it.

Used by the tests in this directory. bx lives in a virtual environment of its own, because its second package,
bbrc-pyxnat, installs itself over the module `pyxnat`. `XNATFS_TEST_BX` names an executable; else one is
installed under the user's cache directory, once for all runs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import pytest

VERSION = "0.9.2"
# Found at import: a test has a HOME of its own, and would install bx there, for itself alone (40 s).
_HOME = Path(platformdirs.user_cache_dir("xnatfs-tests")) / f"bx-{VERSION}"


@cache
def executable() -> Path:
    """The bx to test with; skips the test where it cannot be installed (no network)."""
    named = os.environ.get("XNATFS_TEST_BX")
    if named:
        return Path(named)
    home = _HOME
    home.mkdir(parents=True, exist_ok=True)
    found, complete = home / "venv" / "bin" / "bx", home / "complete"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _install(home / "venv")
            complete.write_text(VERSION)
    return found


def _install(venv: Path) -> None:
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        [
            str(venv / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            f"bbrc-bx=={VERSION}",
            "setuptools<81",
        ],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
        if done.returncode:
            pytest.skip(f"bx {VERSION} cannot be installed: {done.stderr.strip()[-300:]}")


@dataclass(frozen=True)
class Bx:
    """bx with its configuration file, on one server."""

    program: Path
    config: Path

    def run(
        self, *args: str, dest: Path, answers: str = "", defaults: bool = False, timeout: float = 100
    ) -> str:
        """Run `bx <args>`; `answers` go to its prompts, `defaults` silences those that can be. Returns what
        it printed.
        """
        environment = {key: value for key, value in os.environ.items() if key not in ("BX_DUMP", "CI_TEST")}
        environment |= {"BX_DUMP": "1"} if defaults else {}
        done = subprocess.run(
            [str(self.program), *args, "--config", str(self.config), "--dest", str(dest)],
            input=answers,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        assert "Traceback" not in told, told
        return told

    def table(
        self, *args: str, dest: Path, answers: str = "", defaults: bool = False
    ) -> list[dict[str, str]]:
        """Run a command that makes a table; its rows, every value as text."""
        told = self.run(*args, dest=dest, answers=answers, defaults=defaults)
        workbooks = list(dest.glob("*.xlsx"))
        assert len(workbooks) == 1, told
        # openpyxl is bx's dependency, not ours: its own Python reads the workbook.
        script = (
            "import json, openpyxl, sys\n"
            "rows = list(openpyxl.load_workbook(sys.argv[1]).active.values)\n"
            "print(json.dumps([dict(zip(rows[0], ['' if v is None else str(v) for v in row])) for row in "
            "rows[1:]]))\n"
        )
        python = self.program.parent / "python"
        done = subprocess.run(
            [str(python), "-c", script, str(workbooks[0])],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        rows: list[dict[str, str]] = json.loads(done.stdout)
        return rows

    def several(self, commands: Sequence[str], dest: Path) -> dict[str, Any]:
        """Run several commands in one process: command -> the rows of its table, or the names of its files,
        or the error it ended with.

        A command is a line such as `bamos stats PIPES`; words after `<` are the answers to its prompts.
        """
        lines = [line.partition("<") for line in commands]
        asked = [{"args": args.split(), "answers": answers.split()} for args, _, answers in lines]
        done = subprocess.run(
            # -I: else this very module would be what it imports as `bx`.
            [
                str(self.program.parent / "python"),
                "-I",
                str(Path(__file__).with_name("many.py")),
                str(self.config),
                str(dest),
            ],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(zip(commands, json.loads(done.stdout), strict=True))


def several_once(
    url: str, commands: Sequence[str], factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, Path]]:
    """Run those of the commands that no worker has run in this run of the tests, as `demo` on the `lab`
    data in the profile `full`: command -> what `Bx.several` gives for it, and the folder of its files. Two
    modules want the same thirty tables.
    """
    base = factory.getbasetemp()
    store = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bx-several.json"
    with store.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known: dict[str, tuple[Any, str]] = json.loads(store.read_text()) if store.exists() else {}
        missing = [command for command in commands if command not in known]
        folder = factory.mktemp("bx")
        made = configure(url, "demo", folder).several(missing, folder) if missing else {}
        known |= {line: (made[line], str(folder / str(number))) for number, line in enumerate(missing)}
        store.write_text(json.dumps(known))
    return {command: (known[command][0], Path(known[command][1])) for command in commands}


def configure(url: str, login: str, folder: Path) -> Bx:
    """bx for `login` on the server at `url`."""
    config = folder / f"{login}.xnat.cfg"
    config.write_text(json.dumps({"server": url, "user": login, "password": login, "verify": True}))
    return Bx(executable(), config)
