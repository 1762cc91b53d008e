"""Helpers for tests: a mount put together without FUSE, a mount in a process of its own, and looks at what is
mounted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.forked import forked
from xnatfs.auth.credentials import Credentials
from xnatfs.cli import cli
from xnatfs.config import Limits, Settings
from xnatfs.core import Core, compose
from xnatfs.demo.data import build
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer
from xnatfs.errors import UsageError
from xnatfs.vfs import Attributes, Vfs

# Variables that an interpreter reads when it starts, or the dynamic linker.
_INTERPRETER = re.compile("PYTHON|LC_|LANG|LD_|COVERAGE|FUSE_").match


# A folder of all processes that run the tests together, if there are several (`tests/conftest.py`).
shared_folder: list[Path] = []


def _pickled(kind: str) -> bytes:
    return pickle.dumps(build(kind), pickle.HIGHEST_PROTOCOL)


_built = functools.cache(_pickled)


def lab_archive(kind: str = "lab") -> Archive:
    """The lab (or another sample archive), one of its own for each caller: built once in a run of the tests
    (2 s), by whichever process wants it first, then copied (0.03 s).
    """
    if not shared_folder:
        data = _built(kind)
    else:
        stored = shared_folder[0] / f"{kind}.pickle"
        with open(stored.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not stored.exists():
                stored.write_bytes(_pickled(kind))
        data = stored.read_bytes()
    made: Archive = pickle.loads(data)
    return made


# For a script, first in a mount namespace of its own: that has copies of the mounts of tests that run beside
# it, whose daemons end only once the last copy is gone.
LET_GO = f"""mounts=$(cat /proc/self/mounts); printf '%s\\n' "$mounts" | while read -r _ point kind _; do
    case $kind:$point in
        fuse.*:{tempfile.gettempdir()}/*|overlay:{tempfile.gettempdir()}/*) umount -l "$point" || true ;;
    esac
done 2>/dev/null
"""


def fuse_mounts() -> list[str]:
    """Mountpoints of xnatfs mounts, as the kernel has them."""
    return [
        line.split()[1]
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[2].startswith("fuse.xnatfs")
    ]


@contextlib.contextmanager
def composed(
    url: str, folder: Path, *, user: str = "demo", limits: Limits | None = None, **settings: Any
) -> Iterator[Core]:
    """All layers of a mount but FUSE, in this process, logged in at `url`."""
    bounds = limits or Limits(cache_size=10**9)
    chosen = Settings(
        server=url, cache_dir=folder / "cache", state_dir=folder / "state", limits=bounds, **settings
    )
    mounted = compose(chosen, Credentials(url, user, user, "the test"), "/mnt/xnat")
    try:
        yield mounted
    finally:
        mounted.close()


def walk(vfs: Vfs, path: str) -> Iterator[tuple[str, Attributes]]:
    """Every file below `path`, with its attributes."""
    for name, attributes in vfs.entries(path):
        below = f"{path.rstrip('/')}/{name}"
        if stat.S_ISDIR(attributes.mode):
            yield from walk(vfs, below)
        else:
            yield below, attributes


def read(vfs: Vfs, path: str, piece: int = 131072) -> bytes:
    """The whole content of a file, read as the kernel would."""
    opened = vfs.open(path)
    try:
        data = b""
        while more := vfs.read(opened.handle, len(data), piece):
            data += more
        return data
    finally:
        vfs.release(opened.handle)


def disk_usage(folder: Path) -> int:
    """Bytes on disk of the contents in a cache, those being written included; files that vanish count 0."""
    used = 0
    for part in ("objects", "partials", "drafts"):
        for place, _, names in os.walk(folder / part):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    used += os.stat(f"{place}/{name}").st_blocks * 512
    return used


def as_new(server: DemoServer, **switches: Any) -> None:
    """Make a server whose data no test changes what the next test expects: switches (all at their default but
    these), sessions and log.
    """
    server.switches.update(dataclasses.asdict(Switches(**switches)))
    server.switches.fired.clear()
    server.expire_sessions()
    server.clear_log()


def change_password(server: DemoServer, password: str) -> None:
    """The user `demo` has another password on the server from here on."""
    server.call(lambda: setattr(server.archive.users["demo"], "password", password))


def md5(data: bytes) -> str:
    """MD5 as lower-case hex."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def xnatfs(
    *arguments: str,
    timeout: float = 60,
    env: dict[str, str] | None = None,
    check: bool = False,
    interpreter: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the command `xnatfs` in a process of its own: a forked one (`tests.forked`); with `interpreter` a
    new one, as also where the environment concerns that, or where it is to record which lines it ran.
    """
    environment = os.environ | (env or {})
    if interpreter or "COVERAGE_PROCESS_START" in os.environ or any(map(_INTERPRETER, env or {})):
        result = subprocess.run(
            [sys.executable, "-m", "xnatfs", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    else:
        result = forked(arguments, environment, timeout)
    if check:
        assert result.returncode == 0, result.stderr
    return result


def in_process(*arguments: str, env: dict[str, str]) -> str:
    """What a command of `xnatfs` prints, run in this process: a tenth of a second less than in one of its
    own. For what a test needs besides; commands that are tested are run as users run them, by `xnatfs`.

    Raises:
        UsageError: the command fails.
    """
    done = CliRunner().invoke(cli, arguments, env=env, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    assert not done.return_value, done.output
    return done.stdout


def run(
    *command: str | Path, timeout: float = 120, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a real tool with a time limit; output as text."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
    )


@dataclass
class Mount:
    """A mount in a process of its own."""

    point: Path
    url: str
    env: dict[str, str] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        """`xnatfs status --json` of this mount."""
        report: dict[str, Any] = json.loads(in_process("status", "--json", str(self.point), env=self.env))[0]
        return report

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return int(self.status()["pid"])


@contextlib.contextmanager
def mount(
    url: str,
    folder: Path,
    *options: str,
    user: str = "demo",
    password: str | None = None,
    env: dict[str, str] | None = None,
    interpreter: bool = False,
) -> Iterator[Mount]:
    """Mount `url` below `folder` (made anew there) with the real command; unmounts in the end, whatever
    happened. `interpreter`: in one of its own (`tests.forked`).
    """
    point = folder / "mnt"
    point.mkdir(parents=True, exist_ok=True)
    environment = {
        "XNAT_HOST": url,
        "XNAT_USER": user,
        "XNAT_PASS": password if password is not None else user,
        "XNATFS_CACHE_DIR": str(folder / "cache"),
        "XNATFS_STATE_DIR": str(folder / "state"),
        **(env or {}),
    }
    try:
        xnatfs("mount", str(point), *options, env=environment, check=True, interpreter=interpreter)
        yield Mount(point, url, environment)
    finally:
        if str(point) in fuse_mounts():
            with contextlib.suppress(UsageError):
                in_process("unmount", str(point), env=environment)
        clear_away(point, folder / "state")


def clear_away(point: Path, state: Path) -> None:
    """Whatever a mount at `point` may have left: the mount itself, and its daemon if that still runs."""
    if str(point) in fuse_mounts():
        subprocess.run(["fusermount3", "-uz", str(point)], check=False, timeout=10)
    for registration in (state / "mounts").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(json.loads(registration.read_text())["pid"])
            if of_folder(pid, state.parent):
                os.kill(pid, signal.SIGKILL)


def of_folder(pid: int, folder: Path) -> bool:
    """Whether a folder is named in a process's arguments, or a file in it is open there."""
    with contextlib.suppress(OSError):
        if os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes():
            return True
        for opened in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(opened.path).startswith(f"{folder}/"):
                    return True
    return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process of this test and wait until it is gone."""
    os.kill(pid, number)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    until(gone, 15)


# For `openssl req`: a small key, and whose it is.
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test")


def certificate(folder: Path, name: str, subject: str, *more: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    command = ["openssl", "req", "-x509", *NEW_KEY]
    command += ["-keyout", str(key), "-out", str(cert), "-addext", f"subjectAltName={subject}", *more]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return cert, key
