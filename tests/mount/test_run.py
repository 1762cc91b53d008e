"""`xnatfs run`: a mount for one command, seen by nobody else, and gone with it however it ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import LET_GO, of_folder, until
from xnatfs.cli import main
from xnatfs.daemon import namespace
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

NOBODY = 65534
REPOSITORY = Path(__file__).parents[2]
AS_A_USER = 'exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'


def machine(folder: Path) -> str:
    """A script for a mount namespace with what an ordinary user finds elsewhere: a /dev/fuse that everybody
    may open, and a Python and a repository that are not in root's home.
    """
    fuse = f"{folder}-fuse"
    lines = [f"mknod -m 666 {fuse} c 10 229; mount --bind {fuse} /dev/fuse; rm -f {fuse}"]
    closed = []
    for number, path in enumerate({Path(sys.base_prefix), Path(sys.prefix), REPOSITORY}):
        above = [one for one in reversed(path.parents) if not one.stat().st_mode & 0o001]
        if above:
            kept = f"{folder}-{number}"
            closed.append(f"mkdir -p {path}; mount --bind {kept} {path}")
            lines.insert(0, f"mkdir -p {kept}; mount --bind {path} {kept}")
            lines.append(f"mount -t tmpfs -o mode=755 none {above[0]}")
    return "; ".join([*dict.fromkeys(lines), *closed]) + "\n"


@dataclass
class Runner:
    """Who calls `xnatfs run`, in a folder of theirs."""

    folder: Path
    url: str
    before: list[str] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it."""
        env = {**os.environ, "XNAT_HOST": self.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
        env |= {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PYTHONPATH": str(REPOSITORY)}
        env |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {f"XNATFS_{one.upper()}_DIR": str(self.folder / one) for one in ("cache", "state")}
        return subprocess.Popen(
            [*self.before, sys.executable, "-m", "xnatfs", "run", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=env,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run it to its end: exit code, output, errors."""
        with self.start(*words) as running:
            said, errors = running.communicate(timeout=60)
        return running.returncode, said, errors

    def left(self) -> list[str]:
        """What of it still runs, or is mounted in any namespace."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                mounts = (process / "mounts").read_text()
            except OSError:
                continue
            if f" {self.folder}/" in mounts or of_folder(int(process.name), self.folder):
                found.append(process.name)
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=1, scans=1, files=2, file_size=1000)) as made:
        yield made


@pytest.fixture(scope="module", params=["root", "user"])
def runner(request: pytest.FixtureRequest, server: DemoServer) -> Iterator[Runner]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="xnatfs-run-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Runner(folder, server.url)
        if request.param == "user" and os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            script = f"set -e; {LET_GO}{machine(folder)}{AS_A_USER}"
            made.before = ["unshare", "-m", "sh", "-c", script, "sh"]
            for number in range(3):
                stack.callback(shutil.rmtree, f"{folder}-{number}", ignore_errors=True)
            allowed = subprocess.run(["setpriv", "--reuid=65534", "unshare", "-Um", "true"], timeout=20)
            if allowed.returncode != 0:
                pytest.skip("this kernel gives ordinary users no namespaces of their own")
        elif request.param == "root" and os.geteuid() != 0:
            pytest.skip("these tests run as an ordinary user: that half is what is tried")
        yield made
        assert made.left() == []


COMMAND = """
cd "$XNATFS_MOUNT/projects/SCALE"
cat subjects/*/*/SCANS/*/*/* | wc -c
xnatfs="$0 -m xnatfs"; $xnatfs status | head -1
sleep 600 >&- 2>&- &
id -u; exit 7
"""


def test_the_command_has_a_mount_and_nothing_stays(runner: Runner, server: DemoServer) -> None:
    """Would fail if the mount were not there, showed outside, or outlived the command; if the exit code were
    another; if a process in the background went on, or the session on the server did."""
    server.clear_log()
    code, said, errors = runner.run("--", "sh", "-c", COMMAND, sys.executable)
    assert (code, errors) == (7, "")
    bytes_read, shown, user = said.splitlines()
    assert (bytes_read, user) == ("2000", str(NOBODY if runner.before else os.geteuid()))
    assert shown.startswith(f"{runner.folder}/state/run/mnt  {server.url} as demo ")
    assert runner.left() == []
    ended = [one for one in server.requests() if one.method == "DELETE" and one.path == "/data/JSESSION"]
    assert len(ended) == 1


def test_a_signal_is_the_commands(runner: Runner) -> None:
    """SIGTERM to all processes of a job, as a scheduler sends it: the command can still read; would fail if
    the mount heeded it, or the exit code were not the command's."""
    script = 'trap "cat at/README.txt | wc -l; exit 3" TERM; echo ready; while :; do sleep 0.1; done'
    with runner.start("--at", str(runner.folder / "at"), "--", "sh", "-c", script) as running:
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        for one in runner.left():
            with suppress(ProcessLookupError):  # a `sleep` that has ended meanwhile
                os.kill(int(one), signal.SIGTERM)
        said, errors = running.communicate(timeout=30)
    assert running.returncode == 3, errors
    assert int(said.splitlines()[0]) > 5
    assert list((runner.folder / "at").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_end(runner: Runner, number: signal.Signals) -> None:
    """A scheduler's time limit: would fail if the daemon, the command, a child of its, or a mount in whatever
    namespace were left. As a user with an overlay, which has one process more."""
    overlay = ["--overlay", str(runner.folder / "changes")]
    script = 'echo changed > "$XNATFS_MOUNT/new"; cat "$XNATFS_MOUNT/new"; sleep 600 & wait'
    with runner.start(*overlay, "--", "sh", "-c", script) as running:
        assert running.stdout is not None and running.stdout.readline() == "changed\n"
        os.kill(running.pid, number)
        assert running.wait(30) == (-number if number == signal.SIGKILL else 128 + number)
        until(lambda: runner.left() == [])
    assert (runner.folder / "changes/upper/new").read_text() == "changed\n"


def test_a_command_that_is_not_there(runner: Runner) -> None:
    code, said, errors = runner.run("--", "no-such-command")
    assert (code, said, errors) == (127, "", "xnatfs: no-such-command: No such file or directory\n")


def test_a_kernel_that_forbids_it(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, which says what works instead; nothing is run."""

    def refused(flags: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(namespace, "_unshare", refused)
    for name, value in (("HOST", server.url), ("USER", "demo"), ("PASS", "demo")):
        monkeypatch.setenv(f"XNAT_{name}", value)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--", "touch", "made"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "xnatfs: this machine does not let you mount in a namespace of your own (Operation not permitted); "
        "without a mount, `xnatfs get` copies files, and fsspec (xnat://) reads them\n"
    )


HANDED_OVER = """
import ctypes, os, subprocess, sys
from xnatfs.daemon import namespace
point, user, group = sys.argv[1], os.getuid(), os.getgid()
namespace.enter()
device = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(device, True)
options = f"fd={device},rootmode=40000,user_id={user},group_id={group}"
namespace.mount("xnat", point, "fuse", 0, options)
words = [sys.executable, "-m", "xnatfs", "mount", "--foreground", f"/dev/fd/{device}"]
running = subprocess.Popen(words, pass_fds=(device,))
os.close(device)
print(len(os.listdir(f"{point}/projects")))
ctypes.CDLL(None).umount2(point.encode(), 2)
sys.exit(running.wait(30))
"""


def test_a_mount_that_somebody_else_has_made(server: DemoServer, tmp_path: Path) -> None:
    """`/dev/fd/N`, as Apptainer's --fusemount names the open device: served until it is unmounted."""
    (tmp_path / "mnt").mkdir()
    env = {**os.environ, "XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
    done = subprocess.run(
        [sys.executable, "-c", HANDED_OVER, str(tmp_path / "mnt")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**env, "PYTHONPATH": str(REPOSITORY)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 1
