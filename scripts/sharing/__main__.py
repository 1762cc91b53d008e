"""How much leaves the server if many nodes read the same session, with and without a shared cache, and how
long each takes. `scripts/shared_cache --help`.

Nodes are processes on this machine, which share its cores and its disk: times are those of so many nodes on
one machine, and only their ratios say something of a cluster. What leaves the server is exact.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import queue
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.results import NETWORKS

from sharing.node import Done, Progress, run
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

_CONTENT = re.compile(r"/resources/\d+/files(/|$)")
_LIMIT_S = 1800.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sharing.node"])


@dataclass(frozen=True)
class Outcome:
    """Of nodes that read at once."""

    nodes: int
    size: int  # of what each reads
    sent: int  # bytes of contents that left the server
    seconds: float  # of the node in the middle ...
    slowest: float
    first: float  # ... to its first file
    killed: int

    @property
    def times(self) -> float:
        """How often everything left the server."""
        return self.sent / self.size


def sent(server: DemoServer) -> int:
    """Bytes of contents that the server has sent."""
    return sum(one.sent for one in server.requests() if one.method == "GET" and _CONTENT.search(one.path))


def measure(
    server: DemoServer,
    size: int,
    folder: Path,
    shared: str,
    nodes: int,
    killed: int = 0,
    *,
    worst: bool = True,
    cache: int = 10**9,
) -> Outcome:
    """Have so many nodes read project SCALE at once, which has `size` bytes, each with so large a `cache`.
    Some are killed once half of that has left the server: those that have fetched most, which is the `worst`
    that can happen, or just any.

    Raises:
        RuntimeError: a node failed, or read something else than the others.
    """
    before = sent(server)
    gate, results = _context.Event(), _context.Queue()
    progress = [Progress(_context.Value("q"), _context.Value("q")) for _ in range(nodes)]
    processes = []
    for number in range(nodes):
        arguments = (server.url, "SCALE", folder / f"node{number}", cache, shared, gate, progress[number])
        processes.append(_context.Process(target=run, args=(number, results, *arguments)))
    for process in processes:
        process.start()
    gate.set()
    done: dict[int, Done] = {}
    dead: set[int] = set()
    deadline = time.monotonic() + _LIMIT_S
    while len(done) + len(dead) < nodes:
        if killed and not dead and sent(server) - before >= size // 2:
            most = [number for number in range(nodes) if number not in done]
            if worst:
                most.sort(key=lambda one: -progress[one].fetched.value)
            for number in most[:killed]:
                os.kill(processes[number].pid or 0, signal.SIGKILL)
                dead.add(number)
        with contextlib.suppress(queue.Empty):
            number, one = results.get(timeout=0.05)
            done[number] = one
        failed = [n for n, one in enumerate(processes) if one.exitcode and n not in dead]
        if failed or time.monotonic() > deadline:
            for process in processes:
                process.kill()
            raise RuntimeError(f"nodes failed: {failed}")
    for process in processes:
        process.join()
    if {one.size for one in done.values()} != {size} or len({one.digest for one in done.values()}) != 1:
        raise RuntimeError("they did not read the same")
    times = [one.seconds for one in done.values()]
    return Outcome(
        nodes,
        size,
        sent(server) - before,
        statistics.median(times),
        max(times),
        statistics.median(one.first for one in done.values()),
        len(dead),
    )


@contextlib.contextmanager
def object_store() -> Iterator[str]:
    """moto's server in a process of its own; the URL of a bucket there."""
    import boto3

    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        os.environ[f"AWS_{name}"] = "x"
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    script = (
        "import sys; from moto.server import ThreadedMotoServer as S; s = S(ip_address='127.0.0.1', port=0); "
        "s.start(); print(*s.get_host_and_port(), flush=True); sys.stdin.read(); s.stop()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        for line in server.stdout:
            if re.fullmatch(r"[\d.]+ \d+\n", line):
                break
        os.environ["AWS_ENDPOINT_URL"] = "http://" + line.strip().replace(" ", ":")
        boto3.client("s3").create_bucket(Bucket="nodes")
        try:
            yield "s3://nodes"
        finally:
            server.stdin.close()


def main() -> None:
    """The program."""
    options = _options()
    line = NETWORKS[options.line]
    each = options.size * 10**6 // (options.scans * options.files)
    size, cache = each * options.scans * options.files, options.cache * 10**6
    archive = build("scale", sessions=1, scans=options.scans, files=options.files, file_size=each)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xnatfs-shared-")))
        places = {"none": "", "directory": str(folder / "shared")}
        if "s3" in options.tiers:
            places["s3"] = stack.enter_context(object_store())
        server = stack.enter_context(DemoServer(archive))
        server.switches.latency_ms = line.latency_ms
        server.switches.bandwidth = line.bandwidth
        server.switches.connection_bandwidth = line.connection_bandwidth
        print(f"{options.size} MB in {options.scans} scans of {options.files} files; {line.title}")
        for tier in options.tiers:
            for nodes in options.nodes:
                for killed in sorted({0, min(options.kill, nodes - 1)}):
                    place = places[tier] and f"{places[tier]}/{nodes}-{killed}"
                    with _gone(folder / "shared" / Path(place).name):
                        with _gone(folder / "nodes"):
                            outcome = measure(
                                server, size, folder / "nodes", place, nodes, killed, cache=cache
                            )
                            _show(tier, outcome)
                        if tier == "none" or killed:
                            continue
                        with _gone(folder / "nodes"):  # what is in the tier by now is enough
                            outcome = measure(server, size, folder / "nodes", place, 1, cache=cache)
                            _show(f"{tier}, warm", outcome)


@contextlib.contextmanager
def _gone(folder: Path) -> Iterator[None]:
    """Afterwards there is nothing left in it."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(tier: str, outcome: Outcome) -> None:
    print(
        f"{tier:16} {outcome.nodes:3} nodes, {outcome.killed} killed: {outcome.times:6.2f} x left the "
        f"server; a node {outcome.seconds:6.1f} s (slowest {outcome.slowest:.1f}), first file "
        f"{outcome.first:.2f} s",
        flush=True,
    )


def _options() -> Any:
    parser = argparse.ArgumentParser("scripts/shared_cache", description=__doc__)
    parser.add_argument("--size", type=int, default=2000, help="megabytes of the session (2000)")
    parser.add_argument("--scans", type=int, default=40, help="in the session (40)")
    parser.add_argument("--files", type=int, default=50, help="of each scan (50)")
    parser.add_argument("--nodes", type=_numbers, default=[1, 4, 16], help="how many read at once (1,4,16)")
    parser.add_argument("--kill", type=int, default=4, help="so many of them midway, in a run more (4)")
    parser.add_argument(
        "--tiers", type=lambda text: text.split(","), default=["none", "directory"], help="none,directory,s3"
    )
    parser.add_argument(
        "--cache", type=int, default=800, help="megabytes of a node's own; the disk holds one for each (800)"
    )
    parser.add_argument("--line", choices=NETWORKS, default="wan", help="to the server (wan)")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


if __name__ == "__main__":
    main()
