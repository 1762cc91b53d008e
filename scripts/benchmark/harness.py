"""The stand-in in a process of its own, and the mounts of one workload.

Used by the workloads. One thread; `Harness.curl` and `Harness.read` may be used by several.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmark.host import FailedError, Finished, Host, memory_of, mounts_below, take_away
from benchmark.results import Network, Sample

LOGIN = "demo:demo"
RCLONE_FLAGS = (
    "--read-only",
    "--vfs-cache-mode",
    "full",
    "--dir-cache-time",
    "1h",
    "--attr-timeout",
    "1m",
    "--config",
    "",
)
# What rclone's manual proposes where one connection does not fill the line.
RCLONE_STREAMS = ("--vfs-read-chunk-streams", "8", "--vfs-read-chunk-size", "4Mi")
_SETTLE = 3.0
_MOUNTING = 60.0


class Server:
    """`xnatfs serve-demo`, its switches and its log."""

    def __init__(self, host: Host, *options: str) -> None:
        self._host = host
        self._process = host.start(sys.executable, "-m", "xnatfs", "serve-demo", "--port", "0", *options)
        timer = threading.Timer(120, self._process.kill)
        timer.start()
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        self.url = next((word for word in line.split() if word.startswith("http://")), "")
        if not self.url:
            host.finish(self._process, 5)
            raise FailedError("the stand-in did not start")
        for stream in (self._process.stdout, self._process.stderr):
            threading.Thread(target=_read_away, args=(stream,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._host.end(self._process, grace=5)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def memory(self) -> int:
        """Its resident bytes."""
        return memory_of(self._process.pid)

    def _ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def set(self, network: Network) -> None:
        """Put this network between the server and everybody."""
        self.switch(
            latency_ms=network.latency_ms,
            bandwidth=network.bandwidth,
            connection_bandwidth=network.connection_bandwidth,
        )

    def switch(self, **values: Any) -> None:
        """Set switches (see `xnatfs.demo.faults`)."""
        self._ask("/demo/switches", "POST", values)

    def clear_log(self) -> dict[str, Any]:
        """Forget the requests so far; their totals."""
        totals: dict[str, Any] = self._ask("/demo/log", "DELETE")
        return totals

    def records(self) -> list[dict[str, Any]]:
        """The requests since the log was cleared."""
        found: list[dict[str, Any]] = self._ask("/demo/log")
        return found

    def settled(self) -> dict[str, int]:
        """Number and bytes of the requests once none is under way, but after some seconds in any case."""
        deadline = time.monotonic() + _SETTLE
        while True:
            totals: dict[str, int] = self._ask("/demo/log/totals")
            if not totals["under_way"] or time.monotonic() > deadline:
                return totals
            time.sleep(0.1)

    def login(self) -> str:
        """A session's cookie, for clients that make very many requests."""
        basic = base64.b64encode(LOGIN.encode()).decode()
        request = urllib.request.Request(
            self.url + "/data/JSESSION", headers={"Authorization": f"Basic {basic}"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return f"JSESSIONID={response.read().decode()}"

    def digests(self, path: str) -> list[str]:
        """The sorted MD5 sums of a `/files` listing: what every copy has to have."""
        request = urllib.request.Request(f"{self.url}{path}?format=json", headers={"Cookie": self.login()})
        with urllib.request.urlopen(request, timeout=300) as response:
            rows = json.loads(response.read())["ResultSet"]["Result"]
        return sorted(row["digest"] for row in rows)


def _read_away(stream: IO[str] | None) -> None:
    """A program whose pipe is full stands still: the stand-in says a line for each connection that it resets,
    and stood still after an hour's thousand of them."""
    with contextlib.suppress(ValueError, OSError):  # closed at the end
        for _ in stream or ():
            pass


@dataclass(frozen=True)
class Mount:
    """Something mounted: where, its cache folder, and its process."""

    point: Path
    cache: Path
    pid: int


@dataclass
class Harness:
    """One workload's surroundings."""

    host: Host
    server: Server
    network: Network
    rclone_backend: str = "http"
    bx: str | None = None
    cache_size: str = "4GiB"
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def sample(self, action: Callable[[], float], **extra: float) -> Sample:
        """Do something that says how long it took, and count the requests it made."""
        os.sync()  # what the one before has written is not to be paid for by the next
        self.server.clear_log()
        seconds = action()
        totals = self.server.settled()
        return Sample(seconds, totals["requests"], totals["sent"], dict(extra))

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new folder that is gone afterwards."""
        made = self.host.fresh(name)
        try:
            yield made
        finally:
            self.host.remove(made)

    def environment(self, folder: Path) -> dict[str, str]:
        """What `xnatfs` finds its login by, and keeps everything in the folder."""
        return {
            "XNAT_HOST": self.server.url,
            "XNAT_USER": "demo",
            "XNAT_PASS": "demo",
            "HOME": str(folder),
            "XNATFS_CACHE_DIR": str(folder / "cache"),
            "XNATFS_STATE_DIR": str(folder / "state"),
        }

    @contextlib.contextmanager
    def xnatfs(self, folder: Path | None = None, *, name: str = "mnt") -> Iterator[Mount]:
        """A new mount by the real command at `name`, with a new cache and a new state directory, or with
        those in `folder`, which stays.
        """
        with self.folder("xnatfs") if folder is None else contextlib.nullcontext(folder) as folder:
            point = folder / name
            point.mkdir(exist_ok=True)
            environment = self.environment(folder)
            command = (sys.executable, "-m", "xnatfs")
            pid = 0
            try:
                self.host.run(
                    *command,
                    "mount",
                    point,
                    "--cache-size",
                    self.cache_size,
                    env=environment,
                    limit=_MOUNTING,
                )
                pid = _daemon(folder / "state")
                yield Mount(point, folder / "cache", pid)
            finally:
                if point in mounts_below(folder):
                    with contextlib.suppress(FailedError):
                        self.host.run(*command, "unmount", point, env=environment, limit=30)
                _gone(folder, point, pid or _daemon(folder / "state"))

    @contextlib.contextmanager
    def rclone(self, *flags: str) -> Iterator[Mount]:
        """`rclone mount` of the plain view, with a new cache directory and these flags more."""
        program = self.host.find("rclone")
        if program is None:
            raise FailedError("rclone is not installed")
        with self.folder("rclone") as folder:
            point = folder / "mnt"
            point.mkdir()
            remote = self._remote(program)
            process = self.host.start(
                program,
                "mount",
                remote,
                point,
                "--cache-dir",
                folder / "cache",
                *RCLONE_FLAGS,
                *flags,
                log=folder / "log",
                env={"HOME": str(folder)},
            )
            try:
                deadline = time.monotonic() + _MOUNTING
                while point not in mounts_below(folder):
                    if process.poll() is not None or time.monotonic() > deadline:
                        said = (folder / "log").read_text(errors="replace").strip().splitlines()
                        raise FailedError(f"rclone did not mount: {said[-1] if said else 'no message'}")
                    time.sleep(0.05)
                yield Mount(point, folder / "cache", process.pid)
            finally:
                take_away(point)
                self.host.end(process, grace=10)

    def _remote(self, program: str) -> str:
        if self.rclone_backend == "http":
            return f":http,url='{self.server.url.replace('//', f'//{LOGIN}@')}/demo/plain/':"
        user, _, password = LOGIN.partition(":")
        hidden = self.host.run(program, "obscure", password).output.strip()
        return f":webdav,url='{self.server.url}/demo/plain/',vendor=other,user={user},pass={hidden}:"

    def curl(self, path: str, output: Path | str, *options: str) -> Finished:
        """One curl to one file."""
        return self.host.run(
            "curl", "-sS", "--fail", "-u", LOGIN, "-o", output, *options, self.server.url + path
        )

    def curls(self, wanted: Iterable[tuple[str, str, Path | str]], at_a_time: int) -> Finished:
        """One curl for many (path, range or "", output), so many at a time on as many connections; in one
        session of the server.
        """
        cookie = self.server.login()
        blocks = []
        for path, part, output in wanted:
            block = [
                f'url = "{self.server.url}{path}"',
                f'output = "{output}"',
                "fail",
                "silent",
                "show-error",
                f'cookie = "{cookie}"',
            ]
            blocks.append("\n".join([*block, f'range = "{part}"'] if part else block))
        with self.folder("curl") as folder:
            (folder / "config").write_text("\nnext\n".join(blocks) + "\n")
            limits = ("-Z", "--parallel-immediate", "--parallel-max", str(at_a_time)) if at_a_time > 1 else ()
            self.server.clear_log()
            done = self.host.run("curl", *limits, "-K", folder / "config")
        if len(blocks) != (answered := sum(200 <= one["status"] < 300 for one in self.server.records())):
            raise FailedError(f"curl: {answered} of {len(blocks)} requests succeeded")
        return done

    def read(self, job: str, *arguments: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
        """A job of `readers` in a process of its own; what it found."""
        done = self.host.run(sys.executable, "-m", "benchmark.readers", job, *arguments, env=env)
        found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return found


def _daemon(state: Path) -> int:
    for registration in (state / "mounts").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads(registration.read_text())["pid"])
    return 0


def _gone(folder: Path, point: Path, pid: int) -> None:
    """After an unmount: nothing is mounted any more and the daemon has ended."""
    if point in mounts_below(folder):
        take_away(point)
    deadline = time.monotonic() + 10
    command = Path(f"/proc/{pid}/cmdline")
    while pid and time.monotonic() < deadline:
        if not command.exists() or not command.read_bytes():
            return
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        if pid and os.fsencode(point) in command.read_bytes():
            os.kill(pid, signal.SIGKILL)


def check_files(folder: Path, digests: list[str]) -> None:
    """That a copy has exactly the bytes it has to have; FailedError if not."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.md5(usedforsecurity=False)
                while piece := stream.read(1 << 20):
                    digest.update(piece)
            found.append(digest.hexdigest())
    if sorted(found) != digests:
        raise FailedError(
            f"the copy is wrong: {len(found)} files where there should be {len(digests)}, or other bytes"
        )
