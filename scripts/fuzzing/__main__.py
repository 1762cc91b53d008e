"""The command: which test runs next in which process, until the time is over; what failed, and how many
examples were tried.

Each process runs pytest on one test after the other, with a limit on its memory: an explosion becomes a
`MemoryError`, which is found as any other exception. A test that failed is not run again."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_EXAMPLES = re.compile(r"(\d+) passing(?: examples?)?, (\d+) failing(?: examples?)?,(?: and)? (\d+) invalid")
_MEMORY = 6 << 30  # bytes of addresses a process may have
_LONGEST = 1800  # seconds of one round, after which it hangs
_FIRST, _MOST = 100, 50_000  # examples of a round
_STARTING = 2.0  # seconds of it before the first example
_SHOWN = 60  # lines of a failure
BYTEWISE = ("listing", "zip", "stats", "image", "workbook")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="The fuzz tests for as long as wanted.")
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="at the same time (one a processor)"
    )
    parser.add_argument(
        "--round",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long a test runs before the next one does (60)",
    )
    parser.add_argument(
        "--database",
        type=Path,
        default=Path(".fuzz"),
        metavar="DIR",
        help="where what was found is kept (.fuzz)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="only tests with this in their names (again for more)",
    )
    parser.add_argument(
        "--tests",
        type=Path,
        default=ROOT / "tests" / "fuzz",
        metavar="DIR",
        help="other tests than tests/fuzz",
    )
    parser.add_argument(
        "--atheris", action="store_true", help="also atheris on the parsers of bytes, if it is installed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


@dataclass
class Tried:
    """What was tried of one test."""

    rounds: int = 0
    examples: int = 0
    seconds: float = 0.0
    failure: str = ""
    each: float = 0.0  # seconds an example took in the last round


@dataclass
class Round:
    """A process at work."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    began: float = field(default_factory=time.monotonic)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


class Fuzzing:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._database = arguments.database.resolve()
        self._database.mkdir(parents=True, exist_ok=True)
        self._tests: Path = arguments.tests.resolve()
        self._running: list[Round] = []
        self._waiting: list[str] = []
        self.tried: dict[str, Tried] = {}
        self.notes: list[str] = []

    def collect(self) -> None:
        """Which tests there are: those with examples to vary."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--collect-only",
                "-q",
                "-m",
                "hypothesis",
                "-p",
                "no:cacheprovider",
                str(self._tests),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        names = [line for line in done.stdout.splitlines() if "::" in line]
        if done.returncode or not names:
            raise SystemExit(
                f"scripts/fuzz: the tests cannot be collected\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        if self._arguments.atheris:
            if importlib.util.find_spec("atheris") is None:
                self.notes.append(
                    "atheris is not installed here; the parsers of bytes ran under hypothesis only"
                )
            else:
                names += [f"atheris::{one}" for one in BYTEWISE]
        chosen = [
            name
            for name in names
            if not self._arguments.only or any(text in name for text in self._arguments.only)
        ]
        if not chosen:
            raise SystemExit("scripts/fuzz: no test has that in its name")
        self.tried = {name: Tried() for name in chosen}

    def run(self) -> None:
        """Rounds until the time is over."""
        end = time.monotonic() + 60 * self._arguments.minutes
        try:
            while time.monotonic() < end:
                while len(self._running) < self._arguments.processes and (name := self._next()):
                    self._start(name, end - time.monotonic())
                if not self._running:
                    break  # all have failed
                time.sleep(0.2)
                for one in list(self._running):
                    if one.process.poll() is not None:
                        self._ended(one)
                    elif time.monotonic() - one.began > _LONGEST:
                        self._stop(one)
                        self.tried[
                            one.name
                        ].failure = f"it went on for more than {_LONGEST} s\n{_tail(one.log)}"
        finally:
            for one in list(self._running):
                self._stop(one)

    def _next(self) -> str:
        if not self._waiting:
            self._waiting = [name for name, one in self.tried.items() if not one.failure]
            random.shuffle(self._waiting)
        busy = {one.name for one in self._running}
        name = next((one for one in self._waiting if one not in busy and not self.tried[one].failure), "")
        if name:
            self._waiting.remove(name)
        else:
            self._waiting.clear()
        return name

    def _start(self, name: str, left: float) -> None:
        log = self._database / f"round-{len(self._running)}-{os.getpid()}-{time.monotonic_ns()}.log"
        environment = {
            **os.environ,
            "XNATFS_FUZZ_EXAMPLES": str(self._examples(name, left)),
            "XNATFS_FUZZ_DATABASE": str(self._database / "examples"),
            "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}",
        }
        if name.startswith("atheris::"):
            seconds = max(1, min(120, int(left)))
            corpus = self._database / "atheris" / name.partition("::")[2]
            command = [
                sys.executable,
                "-m",
                "fuzzing.bytewise",
                name.partition("::")[2],
                str(corpus),
                str(seconds),
            ]
        else:
            options = (
                "-q",
                "-p",
                "no:cacheprovider",
                "--hypothesis-show-statistics",
                "--tb=short",
                "--timeout=0",
                "-n0",
                "--rootdir",
                ROOT,
            )
            command = [sys.executable, "-m", "pytest", *map(str, options), self._place(name)]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
                preexec_fn=None
                if name.startswith("atheris::")
                else _limited,  # libFuzzer has a limit of its own
            )
        self._running.append(Round(name, process, log))

    def _place(self, name: str) -> str:
        """What pytest calls a test: files outside of the project by their whole path."""
        file, _, test = name.partition("::")
        return name if (ROOT / file).exists() else f"{self._tests / Path(file).name}::{test}"

    def _examples(self, name: str, left: float) -> int:
        """As many as take a round, judged by the last one."""
        each = self.tried[name].each
        return max(_FIRST, min(_MOST, int(min(self._arguments.round, left) / each))) if each else _FIRST

    def _ended(self, one: Round) -> None:
        self._running.remove(one)
        text = one.log.read_text(errors="replace")
        found = self.tried[one.name]
        found.rounds += 1
        found.seconds += time.monotonic() - one.began
        done = sum(int(number) for match in _EXAMPLES.finditer(text) for number in match.groups())
        done += sum(int(number) for number in re.findall(r"^Done (\d+) runs", text, re.MULTILINE))
        found.examples += done
        found.each = max(0.0, time.monotonic() - one.began - _STARTING) / done if done else 0.0
        if one.process.returncode:
            found.failure = _tail(one.log)
            print(f"\nFOUND by {one.name}:\n{found.failure}", flush=True)
        one.log.unlink(missing_ok=True)

    def _stop(self, one: Round) -> None:
        self._running.remove(one)
        os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait(10)
        self.tried[one.name].seconds += time.monotonic() - one.began
        one.log.unlink(missing_ok=True)


def _tail(log: Path) -> str:
    lines = [line[:400] for line in log.read_text(errors="replace").splitlines()]
    return "\n".join(lines[-_SHOWN:])


def main() -> int:
    """Run it; 0 if nothing was found."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fuzzing = Fuzzing(arguments)
    fuzzing.collect()
    print(
        f"{len(fuzzing.tried)} tests, {arguments.processes} processes, {arguments.minutes:g} minutes",
        flush=True,
    )
    began = time.monotonic()
    interrupted = False
    try:
        fuzzing.run()
    except KeyboardInterrupt:
        interrupted = True
    width = max(map(len, fuzzing.tried))
    for name, one in sorted(fuzzing.tried.items()):
        print(
            (
                f"{name.ljust(width)}  {one.examples:>10,} examples in {one.rounds} rounds  "
                f"{'FAILED' if one.failure else ''}"
            ).rstrip()
        )
    failed = [name for name, one in fuzzing.tried.items() if one.failure]
    examples = sum(one.examples for one in fuzzing.tried.values())
    minutes = (time.monotonic() - began) / 60
    print(
        *fuzzing.notes,
        f"{examples:,} examples in {minutes:.1f} minutes; {len(failed)} of {len(fuzzing.tried)} tests failed",
        sep="\n",
    )
    if arguments.json:
        document = {
            "minutes": minutes,
            "examples": examples,
            "notes": fuzzing.notes,
            "tests": {name: vars(one) for name, one in fuzzing.tried.items()},
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 130 if interrupted else 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
