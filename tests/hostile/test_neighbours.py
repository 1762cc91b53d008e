"""Another user of this machine: sees neither mount, nor cache, nor socket, nor log. Tried with second and
third user ids.

Root mounts and another user looks; then an ordinary user mounts and root and a third user look. The ordinary
one's mount is in a mount namespace of its own, where everybody may open /dev/fuse, as distributions have it;
there it needs nothing but fusermount3."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xnatfs as package
from tests.support import LET_GO, Mount, mount
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users")

NOBODY, DAEMON = 65534, 1  # in every /etc/passwd: fusermount3 asks there for the user's name
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"  # one that every user may run

ATTACK = """
import json, os, socket, sys
def told(work):
    try:
        return ["got", work()]
    except OSError as error:
        return ["refused", error.errno]
def connect(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(5)
        made.connect(path)
        made.sendall(b'{"command": "status"}\\n')
        return len(made.makefile("rb").readline())
wanted, answers = json.load(sys.stdin), {}
for kind, path in wanted:
    work = {
        "list": lambda: len(os.listdir(path)),
        "read": lambda: len(open(path, "rb").read(100)),
        "connect": lambda: connect(path),
        "memory": lambda: len(open(path + "/environ", "rb").read()) + len(os.readlink(path + "/cwd")),
    }[kind]
    answers[kind + " " + path] = told(work)
print(json.dumps(answers))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder everybody can get into, unlike pytest's: what is tested is what keeps them out further
    down.
    """
    made = Path(tempfile.mkdtemp(prefix="xnatfs-neighbours-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=1, scans=1, files=2, file_size=1000)) as made:
        yield made


def _entered(user: int, inside: int, *command: str) -> list[str]:
    """A command as this user in the mount namespace of a process."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["nsenter", "-t", str(inside), "-m", "--", *become, *command]


def attack(user: int, wanted: list[tuple[str, str]], inside: int | None = None) -> dict[str, Any]:
    """What a user gets who tries all this; `inside`: in the mount namespace of this process."""
    command = [PYTHON, "-I", "-c", ATTACK]
    if inside is not None:
        command = _entered(user, inside, *command)
        user = 0
    done = subprocess.run(
        command,
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def everything(base: Path, one: dict[str, Any]) -> list[tuple[str, str]]:
    """All there is to be tried: the mount, and what root finds in the cache, the state and the runtime
    folder; the socket, the process.
    """
    point = one["mountpoint"]
    wanted = [
        ("list", point),
        ("read", f"{point}/README.txt"),
        ("read", f"{point}/.xnatfs/config.json"),
        ("memory", f"/proc/{one['pid']}"),
    ]
    for top in (base / "cache", base / "state", base / "run/xnatfs"):
        for folder, _, files in os.walk(top):
            wanted.append(("list", folder))
            wanted += [
                ("connect" if one.endswith(".sock") else "read", os.path.join(folder, one)) for one in files
            ]
    kinds = {Path(path).suffix for _, path in wanted}
    assert {".sqlite", ".json", ".log", ".sock"} <= kinds, kinds
    return wanted


def modes(folder: Path) -> dict[str, str]:
    """What of a folder is open to anybody else, by its mode."""
    found = {}
    for top, folders, files in os.walk(folder):
        for one in (*folders, *files):
            status = os.lstat(os.path.join(top, one))
            if status.st_mode & 0o077:
                found[os.path.join(top, one)] = stat.filemode(status.st_mode)
    return found


def registered(state: Path) -> dict[str, Any]:
    (path,) = (state / "mounts").glob("*.json")
    one: dict[str, Any] = json.loads(path.read_text())
    return one


@contextlib.contextmanager
def rooted(server: DemoServer, folder: Path) -> Iterator[Mount]:
    """Root's mount, with the loosest umask."""
    (folder / "run").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        with mount(server.url, folder, env={"XDG_RUNTIME_DIR": str(folder / "run")}) as mounted:
            os.umask(before)
            for path in (mounted.point / "projects").rglob("*"):
                if path.is_file():
                    path.read_bytes()
            yield mounted
    finally:
        os.umask(before)


def test_another_user_gets_at_nothing_of_roots_mount(server: DemoServer, open_folder: Path) -> None:
    with rooted(server, open_folder):
        wanted = everything(open_folder, registered(open_folder / "state"))
        assert {answer[0] for answer in attack(0, wanted).values()} == {"got"}, (
            "root gets at all of it, so the attack is one"
        )
        assert {answer[0] for answer in attack(NOBODY, wanted).values()} == {"refused"}
        assert [modes(open_folder / one) for one in ("cache", "state", "run")] == [{}, {}, {}], (
            "whatever the umask"
        )


def ordinary(server: DemoServer, folder: Path, *options: str, user: int = NOBODY) -> list[str]:
    """The command line that mounts as an ordinary user where /dev/fuse is everybody's and all may read the
    code.
    """
    repo = Path(package.__file__).parent.parent
    script = """
        set -e; cd /; umask 0
        mount -t tmpfs -o mode=755 none "$1/dev"; mknod -m 666 "$1/dev/fuse" c 10 229
        mount --bind "$1/dev/fuse" /dev/fuse; mount --bind "$2" "$1/repo"; mount --bind "$3" "$1/python"
        user=$4; shift 4; folder=$1; shift
        exec setpriv --reuid="$user" --regid="$user" --clear-groups \\
            "$folder/python/bin/python" -m xnatfs mount "$folder/user/mnt" "$@"
    """
    for name in ("dev", "repo", "python", "user", "user/mnt", "user/home", "user/run"):
        (folder / name).mkdir(mode=0o755)
        if name.startswith("user"):
            os.chown(folder / name, user, user)
    (folder / "user/run").chmod(0o700)
    arguments = [str(folder), str(repo), sys.prefix, str(user), str(folder), *options]
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", LET_GO + script, "sh", *arguments]


def environment(server: DemoServer, folder: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder / "user/home"),
        "PYTHONPATH": str(folder / "repo"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XNATFS_CACHE_DIR": str(folder / "user/cache"),
        "XNATFS_STATE_DIR": str(folder / "user/state"),
        "XDG_RUNTIME_DIR": str(folder / "user/run"),
        "XNAT_HOST": server.url,
        "XNAT_USER": "demo",
        "XNAT_PASS": "demo",
    }


def test_an_ordinary_users_mount_is_closed_to_root_and_to_others(
    server: DemoServer, open_folder: Path
) -> None:
    daemon = subprocess.Popen(
        ordinary(server, open_folder, "--foreground"),
        env=environment(server, open_folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stdout is not None and daemon.stderr is not None
        line = daemon.stdout.readline()
        assert "is mounted at" in line, daemon.stderr.read()
        user = open_folder / "user"
        one = registered(user / "state")
        (user / "state/logs/x.log").touch(mode=0o600)  # one in the foreground has no log file
        os.chown(user / "state/logs/x.log", NOBODY, NOBODY)
        point, inside = one["mountpoint"], one["pid"]
        image = _files(NOBODY, f"{point}/projects", inside)[0]
        assert attack(NOBODY, [("read", image)], inside)[f"read {image}"][0] == "got"
        assert [modes(user / one) for one in ("cache", "state", "run")] == [{}, {}, {}]
        wanted = [*everything(user, one), ("read", image)]
        refused = {what for what, answer in attack(NOBODY, wanted, inside).items() if answer[0] != "got"}
        assert refused == {f"memory /proc/{inside}"}, (
            "it is all the user's own, but not even the user looks into the daemon"
        )
        third = attack(DAEMON, wanted, inside)
        assert {answer[0] for answer in third.values()} == {"refused"}
        root = attack(0, [("list", point), ("read", f"{point}/README.txt"), ("read", image)], inside)
        assert {answer[0] for answer in root.values()} == {"refused"}, (
            "the kernel keeps even root out of an ordinary user's mount"
        )
    finally:
        daemon.terminate()
        daemon.wait(20)
        for stream in (daemon.stdout, daemon.stderr):
            if stream is not None:
                stream.close()


def _files(user: int, top: str, inside: int) -> list[str]:
    find = _entered(user, inside, "find", top, "-type", "f")
    done = subprocess.run(find, capture_output=True, text=True, timeout=60, check=True, cwd="/")
    return done.stdout.splitlines()


def test_an_ordinary_user_cannot_let_others_in_unless_the_machine_allows_it(
    server: DemoServer, open_folder: Path
) -> None:
    server.clear_log()
    done = subprocess.run(
        ordinary(server, open_folder, "--allow-other"),
        env=environment(server, open_folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr == "xnatfs: only root may use --allow-other here; an administrator can allow it: "
        "`user_allow_other` in /etc/fuse.conf\n"
    )
    assert server.requests() == []


def test_what_fusermount_says_is_told(server: DemoServer, open_folder: Path) -> None:
    done = subprocess.run(
        ordinary(server, open_folder, user=54321),
        env=environment(server, open_folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "could not mount" in done.stderr and "fusermount3: could not determine username" in done.stderr


def test_a_mount_let_open_says_whose_rights_are_lent_to_whom(server: DemoServer, open_folder: Path) -> None:
    with mount(server.url, open_folder, "--allow-other") as mounted:
        got = attack(NOBODY, [("list", str(mounted.point)), ("read", str(mounted.point / "README.txt"))])
        assert {answer[0] for answer in got.values()} == {"got"}
        closed = attack(
            NOBODY,
            [("list", str(open_folder / "cache")), ("connect", registered(open_folder / "state")["socket"])],
        )
        assert {answer[0] for answer in closed.values()} == {"refused"}
        assert mounted.status()["allow_other"] is True


def test_somebody_else_may_not_ask_even_where_the_sockets_mode_lets_them(open_folder: Path) -> None:
    from xnatfs.daemon.control import ControlServer, ask

    path = open_folder / "control.sock"
    control = ControlServer(path, {"status": lambda _: "secret"})
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ask(str(path), "status") == "secret"
        path.chmod(0o777)
        (answer,) = attack(NOBODY, [("connect", str(path))]).values()
        assert answer in (["got", 0], ["refused", 104], ["refused", 32]), "an end without an answer"
    finally:
        control.close()
