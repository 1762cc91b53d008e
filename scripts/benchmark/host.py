"""What a run takes from this machine and has to give back: a scratch folder, processes, mounts.

Used by every other module. Whatever touches a mount runs in a process of its own with a time limit, so that a
stuck mount cannot stick the benchmark. One thread runs the benchmark; `start` and `finish` may also be called
from others."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


class FailedError(Exception):
    """Something could not be measured; the text says why."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well."""

    seconds: float
    output: str


class Host:
    """The scratch folder and the processes of one run."""

    def __init__(self, scratch: Path | None, limit: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="xnatfs-bench-", dir=scratch)).resolve()
        self.limit = limit
        self.path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        self._running: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self._count = 0

    def fresh(self, name: str) -> Path:
        """A new, empty folder."""
        self._count += 1
        made = self.folder / f"{self._count:03d}-{name}"
        made.mkdir()
        return made

    def remove(self, folder: Path) -> None:
        """Give the space of a folder of ours back. Its files stay, empty, until the end: ext4 looks past each
        inode that was deleted some minutes ago whenever it makes a file, for which whoever is measured next
        would pay (2,000 files: 0.2 s of a processor, after thousands were deleted up to 1 s).
        """
        assert self.folder in folder.parents
        for place, _, names in os.walk(folder):
            for name in names:
                path = Path(place, name)
                with contextlib.suppress(OSError):
                    if path.is_file() and not path.is_symlink() and path.stat().st_size:
                        os.truncate(path, 0)

    def find(self, tool: str) -> str | None:
        """Where a program is, the virtual environment's first."""
        return shutil.which(tool, path=self.path)

    def start(
        self,
        *command: str | Path,
        env: dict[str, str] | None = None,
        quiet: bool = False,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process, away from our terminal's Ctrl-C. `quiet`: output to /dev/null. `log`: to a
        file.
        """
        environment = {
            **os.environ,
            "PATH": self.path,
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": f"{HERE.parent}:{REPOSITORY}",
            **(env or {}),
        }
        with contextlib.ExitStack() as stack:
            target = (
                stack.enter_context(log.open("ab"))
                if log is not None
                else subprocess.DEVNULL
                if quiet
                else subprocess.PIPE
            )
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.STDOUT if log is not None else subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        with self._lock:
            self._running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], limit: float | None = None) -> str:
        """Wait for a process and give its output; FailedError if it fails or takes too long."""
        name = Path(str(process.args[0])).name if isinstance(process.args, list) else "a process"
        try:
            output, problem = process.communicate(timeout=limit or self.limit)
        except subprocess.TimeoutExpired:
            raise FailedError(f"{name} took longer than {limit or self.limit:.0f} s") from None
        finally:
            self.end(process)
        if process.returncode != 0:
            said = (problem or output or "").strip().splitlines()
            raise FailedError(f"{name} ended with {process.returncode}: {said[-1] if said else 'no message'}")
        return output or ""

    def run(
        self,
        *command: str | Path,
        env: dict[str, str] | None = None,
        quiet: bool = False,
        cwd: Path | None = None,
        limit: float | None = None,
    ) -> Finished:
        """Run a process to its end, with the time it took."""
        begin = time.perf_counter()
        output = self.finish(self.start(*command, env=env, quiet=quiet, cwd=cwd), limit)
        return Finished(time.perf_counter() - begin, output)

    def end(self, process: subprocess.Popen[str], grace: float = 0.0) -> None:
        """End a process of ours and what it started; gently first if there is a `grace` period."""
        if process.poll() is None and grace:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A process that waits for a dead mount goes when the mount goes.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        for stream in (process.stdout, process.stderr):
            if stream is not None and process.poll() is not None:
                stream.close()
        with self._lock:
            if process in self._running:
                self._running.remove(process)

    def drop_page_cache(self) -> bool:
        """Forget all cached pages, as root can; False where that is not possible."""
        os.sync()
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give everything back, whatever happened."""
        for point in mounts_below(self.folder):
            take_away(point)
        with self._lock:
            running = list(self._running)
        for process in running:
            self.end(process)
        for point in mounts_below(self.folder):
            take_away(point)
        shutil.rmtree(self.folder, ignore_errors=True)


def mounts_below(folder: Path) -> list[Path]:
    """What is mounted in a folder, latest first."""
    lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    points = [Path(line.split()[1].replace("\\040", " ")) for line in lines]
    return [point for point in reversed(points) if folder in point.parents]


def take_away(point: Path) -> None:
    """Unmount lazily, never touching the mountpoint itself: a dead mount hangs who looks."""
    tool = shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount3"
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        subprocess.run([tool, "-uz", str(point)], check=False, timeout=15, capture_output=True)


def memory_of(pid: int, *, peak: bool = False) -> int:
    """Resident bytes of a process, or the most it ever had; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0
