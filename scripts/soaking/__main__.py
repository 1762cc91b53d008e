"""The command: starts the stand-in, the mount and the workers, watches them, and judges.

One thread: workers are forked, now and when one has died, which is safe in a process without other threads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shlex
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmark.harness import Harness, Mount, Server
from benchmark.host import FailedError, Host, memory_of
from benchmark.results import NETWORKS

from soaking import report
from soaking.findings import Findings
from soaking.jobs import JOBS, references
from soaking.truth import FULL, SMALL, Truth, serving
from soaking.watch import Blocked, Look, growths, log_classes, look
from soaking.worker import work

_POLL = 1.0  # seconds between two looks at the state of processes
_SETTLED = 10.0  # minutes after which memory has to be flat; a sixth of a run that is shorter than an hour
_ENDING = 120.0  # seconds the workers get to finish their jobs in the end
_DEADLINE = (
    40.0  # seconds in state D without being woken: the mount promises an answer within 30 s without progress
)
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_FORK = multiprocessing.get_context("fork")

FAULTS: dict[str, Any] = {
    "fail_rate": 0.05,
    "fail_kinds": ["500", "503", "429", "reset"],
    "retry_after": "1",
    "cut_rate": 0.02,
    "stall_rate": 0.002,
    "expire_rate": 0.01,
    # A client that meets an expired session with seven requests at a time gets seven new ones; nobody sees a
    # real server's sessions expire every second, so they are not counted here.
    "max_sessions": 1_000_000,
    "session_timeout_s": 60.0,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Many programs on a mount of a server that fails, every byte compared.",
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--workers", type=int, default=16, help="programs at the same time (16)")
    parser.add_argument("--cache-size", default="256M", help="cap of the cache; the data has 744 MB (256M)")
    parser.add_argument("--latency-ms", type=float, default=5, help="delay of every request (5)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SWITCH=VALUE",
        help="another switch of the stand-in, as JSON; off=1: no faults",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[job.__name__ for job in JOBS],
        help="only this job (again for more)",
    )
    parser.add_argument("--small", action="store_true", help="less data, for a run of seconds")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(1 << 30),
        help="repeats the workers' choices",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where the cache and copies go (the system's temporary folder)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="a markdown file with a section for it (docs/soak.md)"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="where to copy the daemon's log in the end")
    chosen = parser.parse_args()
    if chosen.report is not None and (problem := report.lacks(chosen.report)):
        parser.error(problem)  # now, and not after an hour
    return chosen


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass
class Crew:
    """The workers and what they tell."""

    arguments: tuple[Any, ...]  # what a worker gets after its pipe and its seed, but for its scratch folder
    scratch: Path
    seed: int
    findings: Findings
    began: float
    running: dict[Connection, tuple[BaseProcess, int]] = field(default_factory=dict)
    doing: dict[Connection, str] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    def hire(self, number: int) -> None:
        """Start one more."""
        # A signal in between would leave one that nobody knows of; and what its handler raises in a hook
        # that `os.fork` runs is swallowed by the interpreter. Blocking it is not enough: another thread
        # (a numerical library's) takes it then, and the handler still runs in this one.
        held: list[int] = []
        before = {one: signal.signal(one, lambda got, _: held.append(got)) for one in _SIGNALS}
        try:
            self._hire(number)
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        if held:
            raise KeyboardInterrupt

    def _hire(self, number: int) -> None:
        ours, theirs = _FORK.Pipe()
        folder = self.scratch / f"worker{number}"
        folder.mkdir(exist_ok=True)
        truth, point, *rest = self.arguments
        process = _FORK.Process(
            target=work, args=(theirs, self.seed + number, truth, point, folder, *rest), daemon=True
        )
        process.start()
        theirs.close()
        assert process.pid is not None
        self.running[ours] = process, number
        self.sessions.add(process.pid)

    def listen(self, seconds: float, *, replace: bool = True) -> None:
        """Take in what comes within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.running and (left := deadline - time.monotonic()) > 0:
            for pipe in wait(list(self.running), left):
                assert isinstance(pipe, Connection)
                message: tuple[Any, ...] = ()
                with contextlib.suppress(EOFError, OSError):
                    message = pipe.recv()
                if message:
                    self._hear(pipe, message)
                else:
                    self._gone(pipe, replace)
        if not self.running:
            time.sleep(max(0.0, deadline - time.monotonic()))

    def _hear(self, pipe: Connection, message: tuple[Any, ...]) -> None:
        kind, *rest = message
        if kind == "begin":
            self.doing[pipe] = rest[0]
        elif kind == "end":
            self.findings.ended(*rest, self.when)
        elif kind == "timed":
            self.findings.timed(*rest)
        elif kind == "slow":
            self.findings.slow.append(f"{self.when} {rest[0]}")
        elif kind == "fact":
            self.findings.fact(*rest, self.when)
        else:
            raise FailedError(f"a worker broke:\n{rest[0]}")

    def _gone(self, pipe: Connection, replace: bool) -> None:
        process, number = self.running.pop(pipe)
        pipe.close()
        process.join(10)
        job = self.doing.pop(pipe, "nothing")
        if (process.exitcode or 0) < 0:  # a mapped page that could not be read is a SIGBUS
            self.findings.ended(
                job,
                0.0,
                0,
                signal.Signals(-(process.exitcode or 0)).name,
                "the reader was ended by it",
                self.when,
            )
        if replace:
            self.hire(number + 1000)

    @property
    def when(self) -> str:
        """The minute."""
        return f"[{(time.monotonic() - self.began) / 60:.1f} min]"

    def dismiss(self, grace: float) -> None:
        """Ask all to end after the job they are at; those that do not are stuck."""
        for pipe in self.running:
            with contextlib.suppress(OSError):
                pipe.send("end")
        deadline = time.monotonic() + grace
        while self.running and time.monotonic() < deadline:
            self.listen(0.2, replace=False)
        for pipe, (process, _) in self.running.items():
            if grace:
                self.findings.stuck.append(
                    f"{self.when} {self.doing.get(pipe)} was still at work {grace:.0f} s after the end"
                )
            self._kill(process)
        self.running.clear()

    def _kill(self, process: BaseProcess) -> None:
        assert process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # one that has only just been forked has no group of its own yet
        process.join(5)


class Soak:
    """One run."""

    def __init__(self, arguments: argparse.Namespace, host: Host) -> None:
        self.arguments = arguments
        self.host = host
        self.findings = Findings()
        self.blocked = Blocked()
        self.looks: list[Look] = []
        self.faults: Counter[str] = Counter()
        self.requests = self.sent = 0
        self.status: dict[str, Any] = {}
        self.log: Counter[str] = Counter()
        self.began = time.monotonic()

    def run(self) -> None:
        """All of it."""
        arguments = self.arguments
        data = SMALL if arguments.small else FULL
        _say("working out the truth ...")
        truth = Truth(data)
        folder = self.host.fresh("references")
        true = references(lambda *command: self.host.run(*command).output.encode(), truth, folder)
        self.host.remove(folder)
        server = Server(self.host, *serving(data))
        harness = Harness(self.host, server, NETWORKS["loopback"], cache_size=arguments.cache_size)
        folder = self.host.fresh("xnatfs")
        with harness.xnatfs(folder) as mount:
            server.switch(latency_ms=arguments.latency_ms, **self._switches())
            try:
                self._work(server, mount, truth, true, folder)
            finally:
                logs = list((folder / "state" / "logs").glob("*.log"))
                self.log = log_classes(logs[0]) if logs else Counter()
                if arguments.log and logs:
                    arguments.log.write_bytes(logs[0].read_bytes())
                server.switch(fail_rate=0.0, cut_rate=0.0, stall_rate=0.0, expire_rate=0.0)
        server.close()

    def _switches(self) -> dict[str, Any]:
        chosen = dict(FAULTS)
        for text in self.arguments.set:
            name, _, value = text.partition("=")
            if name == "off":
                chosen = {}
            else:
                chosen[name] = json.loads(value)
        return chosen

    def _work(self, server: Server, mount: Mount, truth: Truth, true: dict[str, str], folder: Path) -> None:
        arguments = self.arguments
        environment = {
            **os.environ,
            "PATH": self.host.path,
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
            "XNATFS_STATE_DIR": str(folder / "state"),
            "XNATFS_CACHE_DIR": str(folder / "cache"),
        }
        self.began = time.monotonic()
        crew = Crew(
            (truth, mount.point, arguments.limit, environment, true, frozenset(arguments.only)),
            self.host.fresh("copies"),
            arguments.seed,
            self.findings,
            self.began,
        )
        self._look(server, mount)
        try:
            for number in range(arguments.workers):
                crew.hire(number)
            end = self.began + 60 * arguments.minutes
            every = min(60.0, 60 * arguments.minutes / 12)
            following = self.began + every
            while time.monotonic() < end:
                crew.listen(_POLL)
                self.blocked.look(crew.sessions)
                if time.monotonic() >= following:
                    following += every
                    self._look(server, mount)
                    _say(report.line(self.looks[-1], self.findings))
                if memory_of(mount.pid) == 0:
                    raise FailedError("the daemon has ended")
            _say("the workers finish what they are at ...")
            crew.dismiss(_ENDING)
            self._look(server, mount)
            # What readers left behind (streams let go of their connection after some seconds) is not counted.
            deadline = time.monotonic() + 30
            while (
                self._ask_status(mount, environment)["contents"]["open files"] and time.monotonic() < deadline
            ):
                time.sleep(0.5)
            time.sleep(min(10.0, 6 * arguments.minutes))
            self.status = self._ask_status(mount, environment)
            self._look(server, mount)
        finally:
            crew.dismiss(0)

    def _ask_status(self, mount: Mount, environment: dict[str, str]) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(
            self.host.run(
                sys.executable, "-m", "xnatfs", "status", "--json", mount.point, env=environment, limit=60
            ).output
        )
        return found[0]

    def _look(self, server: Server, mount: Mount) -> None:
        totals = server.clear_log()
        self.requests += totals["requests"]
        self.sent += totals["sent"]
        self.faults.update(totals["faults"])
        self.looks.append(
            look(
                mount.pid,
                mount.cache,
                minute=(time.monotonic() - self.began) / 60,
                requests=self.requests,
                jobs=self.findings.jobs,
                compared=self.findings.compared,
                server=server.memory(),
            )
        )


def main() -> int:
    """Run it; 0 if everything held."""
    arguments = _arguments()
    arguments.limit = max(300.0, 60 * arguments.minutes)
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    command = shlex.join(
        ["scripts/soak", *(Path(part).name if part.startswith("/") else part for part in sys.argv[1:])]
    )
    host = Host(arguments.scratch, 300.0)
    soak = Soak(arguments, host)
    interrupted = False
    try:
        soak.run()
    except FailedError as error:
        soak.findings.broken.append(str(error))
    except KeyboardInterrupt:
        interrupted = True
        _say("\nscripts/soak: interrupted; unmounting")
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        host.close()
    settled = min(_SETTLED, arguments.minutes / 6)
    result = report.Result(
        command=command,
        seed=arguments.seed,
        minutes=(time.monotonic() - soak.began) / 60,
        settled=settled,
        deadline=_DEADLINE,
        cap=arguments.cache_size,
        findings=soak.findings,
        looks=soak.looks,
        growths=growths(soak.looks[:-1], settled),
        blocked=soak.blocked,
        faults=soak.faults,
        status=soak.status,
        log=soak.log,
        interrupted=interrupted,
    )
    _say(report.text(result))
    if arguments.json:
        report.as_json(arguments.json, result)
    if arguments.report and not interrupted:
        report.into(arguments.report, result)
    if interrupted:
        return 130
    return 0 if not result.problems else 1


if __name__ == "__main__":
    sys.exit(main())
