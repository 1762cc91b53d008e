"""Mistakes: one plain sentence, an exit code, nothing left behind. As root and as an ordinary user.

Those of logins, certificates and addresses are in test_refusals.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import LET_GO, lab_archive
from xnatfs.demo.server import DemoServer

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534


@dataclass
class Mistake:
    """What was typed; the exit code; the sentence, a regular expression in which W is the current folder."""

    typed: str
    said: str
    code: int = 1
    env: dict[str, str] = field(default_factory=dict)
    closed: str = ""
    cwd: str = ""
    busy: bool = False
    of: str = "both"  # "root" or "user" alone

    def asked(self) -> dict[str, Any]:
        words = [json.loads(word) if word.startswith('"') else word for word in self.typed.split()]
        asked = {"words": words, "env": self.env, "closed": self.closed, "cwd": self.cwd}
        return asked | ({"busy": True} if self.busy else {})


NOWHERE = {"XNATFS_STATE_DIR": "/proc/no/state", "XNATFS_CACHE_DIR": "/proc/no/cache"}
SIZE = "too small for any image"
TWICE = "must not contain each other"
BROKEN = r"/usr/share/\S+: the cache directory cannot be used \(Permission denied\)"
MISTAKES = [
    # the mountpoint
    Mistake("mount", "Missing argument 'MOUNTPOINT'.", 2),
    Mistake("mount a b", r"Got unexpected extra argument \(b\)", 2),
    Mistake("mount /", rf"the mountpoint \(/\) and the cache .* {TWICE}"),
    Mistake("mount file/x", "W/file/x does not exist and cannot be made: Not a directory"),
    Mistake("mount file", "W/file is not a folder"),
    Mistake("mount full", "W/full is not empty; mount at an empty folder"),
    Mistake("mount broken", "W/broken is a link to nothing"),
    Mistake(f"mount {'x' * 300}", "W/x+ does not exist and cannot be made: File name too long"),
    Mistake("mount mnt", r"xnat:\S+ is already mounted at W/mnt; `xnatfs unmount W/mnt` ends it"),
    Mistake(
        "mount mnt/projects/x", "W/mnt/projects/x does not exist and cannot be made: Read-only file system"
    ),
    Mistake("mount mnt/projects", "W/mnt/projects is not empty; mount at an empty folder"),
    Mistake("mount empty --cache-dir empty/c", rf"the mountpoint \(W/empty\) and the cache .* {TWICE}"),
    Mistake("mount kept/mnt --cache-dir kept", rf"the mountpoint \(W/kept/mnt\) and the cache .* {TWICE}"),
    Mistake("mount empty", rf".* and the state .* {TWICE}", env={"XNATFS_STATE_DIR": "empty/state"}),
    Mistake("mount empty --overlay empty/o", rf"the folder for changes .* {TWICE}"),
    Mistake("mount empty --inode32 --overlay o", "--inode32 cannot be used with --overlay, which .*"),
    Mistake(
        "mount /usr/empty-here",
        "/usr/empty-here does not exist and cannot be made: Permission denied",
        of="user",
    ),
    Mistake("mount /media", "you cannot write to /media, which mounting requires; .*", of="user"),
    Mistake(
        "mount empty --allow-other", "only root may use --allow-other here; an administrator .*", of="user"
    ),
    Mistake("mount empty", BROKEN, env={"XNATFS_CACHE_DIR": "/usr/share"}, of="user"),
    # other arguments and options
    Mistake("mount htps://x empty", "'htps://x' is not a server URL; .*"),
    Mistake("mount http://x", "Missing argument 'MOUNTPOINT'.", 2),
    Mistake("mount --password x empty", "(?s)No such option.*--password.*a password is asked for, .*", 2),
    Mistake("mont", r"there is no command 'mont'; did you mean mount or unmount\?", 2),
    Mistake(
        "https://x.org mnt2", "there is no command .*; to mount a server: xnatfs mount DIR --server URL", 2
    ),
    Mistake("mount -x empty", "No such option '?-x'?.?", 2),
    Mistake("mount --user", "Option '--user' requires an argument.", 2),
    Mistake("mount empty --list nofile", "the list nofile cannot be read: No such file or directory"),
    Mistake("mount empty --list full", "the list full cannot be read: Is a directory"),
    Mistake("mount empty --list binary", "the list binary is not a text file"),
    Mistake("mount empty --bids-map file", r"file: Expected '\]' at the end of a table declaration .*"),
    Mistake("mount empty --config binary", "binary is not a configuration as pyxnat writes it .*"),
    Mistake("mount empty --netrc file", "file cannot be read as a netrc file: .*"),
    Mistake("mount empty --project ALF", r"no project 'ALF' that demo can read; did you mean ALFA\?"),
    Mistake("mount empty --server htps://x", "'htps://x' is not a server URL; .*"),
    Mistake('mount empty --server "http://a\\u0020b"', "'http://a b' is not a server URL; .*"),
    Mistake("mount empty --cache-size 20", rf"--cache-size 20 is 20 bytes, {SIZE}; did you mean 20G\?"),
    Mistake("mount empty --cache-size 0", rf"--cache-size 0 is 0 bytes, {SIZE}"),
    Mistake("mount empty", "'many' is not a size; .*", env={"XNATFS_MOUNT_CACHE_SIZE": "many"}),
    Mistake(
        "mount empty", "Invalid value for '--offline': 'maybe' .*", 2, env={"XNATFS_MOUNT_OFFLINE": "maybe"}
    ),
    Mistake("--log-file no/log mount empty", "W/no/log: No such file or directory"),
    # the surroundings
    Mistake("mount empty", "demo: the server refused .*", 77, env={"XNAT_PASS": "wrong"}),
    Mistake(
        "mount empty", "http://.*: the server's name cannot .*", env={"http_proxy": "http://nonsense.invalid"}
    ),
    Mistake("mount empty", "/proc/no: No such file or directory", env={**NOWHERE}),
    Mistake("status", "/proc/no: No such file or directory", env={**NOWHERE}),
    Mistake("doctor", "/proc/no: No such file or directory", env={**NOWHERE}),
    Mistake("mount x", "the current folder was removed: No such file or directory", cwd="removed"),
    Mistake("refresh", "the current folder was removed: No such file or directory", cwd="removed"),
    Mistake("status", "standard output: No space left on device", closed="full"),
    Mistake("table --list", "", 0, closed="stdout"),
    Mistake("ls", "", 0, closed="stdout"),
    Mistake("cat README.txt", "standard output: No space left on device", closed="full"),
    Mistake("get README.txt mnt/copy", "mnt/copy cannot be made: Read-only file system"),
    Mistake("get README.txt /usr", r"README.txt: it cannot be written: Permission denied", of="user"),
    Mistake("table ALFA freesurfer7/aseg", "standard output: No space left on device", closed="full"),
    # a mount that runs
    Mistake("unmount nothing", "nothing is mounted at W/nothing"),
    Mistake("unmount mnt/projects", "nothing is mounted at W/mnt/projects; it is in the mount at W/mnt"),
    Mistake("unmount /proc", r"/proc is not an xnatfs mount but \S+ \(proc\)"),
    Mistake("status file", "no xnatfs mount at file"),
    Mistake("refresh /etc", "/etc is not in an xnatfs mount"),
    Mistake("warm file", "file is not in an xnatfs mount"),
    Mistake("warm mnt/projects/ALF", r"mnt/projects/ALF: No such file or directory; did you mean ALFA\?"),
    Mistake(
        "warm mnt/views/ALFA/by-scan-type/T1",
        r"mnt/views/ALFA/by-scan-type/T1: No such file or directory; did you mean T1_ALFA1\?",
    ),
    # tables
    Mistake("table", "which project\\? .*"),
    Mistake("table alfa", r"no project 'alfa' that demo can read; did you mean ALFA\?"),
    Mistake(
        "table ALFA freesurfer7", "there is no table 'freesurfer7'; freesurfer7 has freesurfer7/aseg, .*"
    ),
    Mistake("table ALFA aseg", "there is no table 'aseg'; there is .*freesurfer7/aseg.*"),
    Mistake("table ALFA freesurfer7/asge", r".*; did you mean freesurfer7/aseg, .*"),
    Mistake("table ALFA sessions --wide", "the table sessions has no wide form"),
    Mistake("table ALFA freesurfer7/aseg --session 9", "project ALFA has no session '9'.*"),
    Mistake("table ALFA freesurfer7/aseg -o a.txt", "a.txt: a table is written as .csv, .xlsx or .parquet"),
    Mistake("table ALFA freesurfer7/aseg -o no/a.csv", "W/no is not a folder"),
    Mistake(
        "table ALFA freesurfer7/aseg -o kept/x.csv", r"kept/x.csv is written\n3 remarks on sessions .*", 3
    ),
    Mistake("table ALFA --json", "--json is for --list; .*"),
    # the rest
    Mistake(
        "cache clear", "`xnatfs cache clear` asks before it removes anything; without a terminal, pass --yes"
    ),
    Mistake("cache info --cache-dir no", "there is no directory W/no"),
    Mistake("cache info --server nope.org", "nothing from nope.org is cached in W/cache"),
    Mistake("logout", "there is no login .*"),
    Mistake("selftest --project NOPE", "no project NOPE can be read"),
    Mistake("completion tcsh", ".*'tcsh' is not one of 'bash', 'zsh', 'fish'.", 2),
    Mistake("help mont", r"there is no command 'mont' in xnatfs; did you mean mount or unmount\?"),
    Mistake("demo --once full", "W/full is not empty; mount at an empty folder"),
    # The last: it ends the mount.
    Mistake(
        "unmount mnt",
        r"W/mnt is in use by sleep \(\d+, current folder\); it is detached in 5 s if it still is",
        0,
        busy=True,
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture(scope="module", params=["root", "user"])
def done(server: DemoServer, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """All of them, by one user, in a mount namespace. The ordinary user may pass through folders (the
    repository may be in root's home), and finds /dev/fuse as open as it is on most machines.
    """
    if os.geteuid() != 0 and request.param == "root":
        pytest.skip("these tests run as an ordinary user: that half is what is tried")
    assert shutil.which("unshare") and shutil.which("setpriv")
    folder = Path(tempfile.mkdtemp(prefix="xnatfs-mistakes-"))
    words = [sys.executable, "-m", "tests.mount.mistakes", str(folder), server.url]
    if os.geteuid() == 0:
        become, open_fuse = "", ""
        if request.param == "user":
            os.chown(folder, NOBODY, NOBODY)
            fuse = f"{folder}-fuse"
            open_fuse = f"mknod -m 666 {fuse} c 10 229; mount --bind {fuse} /dev/fuse; rm -f {fuse}; "
            become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
            become += "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search "
        words = ["unshare", "-m", "sh", "-c", f'set -e; {LET_GO}{open_fuse} exec {become} "$@"', "sh", *words]
    mistakes = [one for one in MISTAKES if one.of in ("both", request.param)]
    try:
        ran = subprocess.run(
            words,
            input=json.dumps([one.asked() for one in mistakes]),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert ran.returncode == 0, ran.stderr
        yield json.loads(ran.stdout) | {"folder": str(folder), "mistakes": mistakes, "who": request.param}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_each_is_one_sentence_and_an_exit_code(done: dict[str, Any]) -> None:
    first, *results = done["results"]
    assert (first["code"], first["err"]) == (0, ""), first
    wrong = []
    for mistake, result in zip(done["mistakes"], results, strict=True):
        said = result["err"].replace(done["folder"], "W")
        if result["code"] == 2:  # click's own, with the usage before it
            said = said.rpartition("\n\n")[2].removeprefix("Error: ")
        elif mistake.code not in (0, 3):
            said = "\n".join(line.removeprefix("xnatfs: ") for line in said.splitlines())
        if result["code"] != mistake.code or not re.fullmatch(mistake.said, said.strip()):
            wrong.append((mistake.typed, mistake.env, result["code"], said))
    assert wrong == []


def test_nothing_is_left_behind(done: dict[str, Any]) -> None:
    assert (done["left behind"], done["mounts"]) == ([], [])
    assert done["uid"] == (0 if done["who"] == "root" else NOBODY if os.geteuid() == 0 else os.getuid())


def test_a_machine_without_libfuse() -> None:
    words = [sys.executable, "-m", "xnatfs", "mount", "/nowhere", "--server", "x"]
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "FUSE_LIBRARY_PATH": "/nowhere/libfuse.so",
            "XNAT_HOST": "x",
            "XNAT_USER": "u",
            "XNAT_PASS": "p",
        },
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "xnatfs: libfuse was not found; install the package fuse3 (Debian, Ubuntu, Fedora)\n"
