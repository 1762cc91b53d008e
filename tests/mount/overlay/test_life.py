"""`mount --overlay` ends with everything that belongs to it, however it ends, and says in one sentence why it
cannot be.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.overlay.conftest import BVAL, BVEC, NIFTI, mounted_below, overlaid, processes
from tests.support import LET_GO, kill, run, until, xnatfs
from xnatfs.daemon import overlay as overlays
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

# --- life ---------------------------------------------------------------------------------------------------


def test_after_a_crash_unmount_and_mount_clear_it_away(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        mine = mounted.point / NIFTI / "mine.txt"
        mine.write_text("kept")
        kill(mounted.pid)
        assert mounted_below(tmp_path) == [str(mounted.point)]
        done = xnatfs("unmount", str(mounted.point), env=mounted.env)
        assert (done.returncode, done.stdout) == (0, f"{mounted.point} is unmounted\n"), done.stderr
        assert mounted_below(tmp_path) == [] and not list((tmp_path / "state/overlays").iterdir())
        until(lambda: processes(tmp_path) == [])
        xnatfs(
            "mount", str(mounted.point), "--overlay", str(tmp_path / "changes"), env=mounted.env, check=True
        )
        assert mine.read_text() == "kept"
        kill(mounted.pid)
        xnatfs(
            "mount", str(mounted.point), "--overlay", str(tmp_path / "changes"), env=mounted.env, check=True
        )
        assert mine.read_text() == "kept" and len(mounted_below(tmp_path)) == 1


def test_who_still_holds_a_file_of_a_crashed_one_gets_some_seconds(
    server: DemoServer, tmp_path: Path, way: str
) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        mine = mounted.point / NIFTI / "mine.txt"
        mine.write_text("kept")
        again = ("mount", str(mounted.point), "--overlay", str(tmp_path / "changes"))
        with mine.open("rb"):
            kill(mounted.pid)
            done = xnatfs(*again, env=mounted.env)
            assert done.returncode == 1 and "a program still has files of an ended " in done.stderr, (
                done.stderr
            )
            until(lambda: mounted_below(tmp_path) == [])
            waiting = subprocess.Popen(
                [sys.executable, "-m", "xnatfs", *again], env={**os.environ, **mounted.env}
            )
            time.sleep(2.0)
        assert waiting.wait(30) == 0
        assert mine.read_text() == "kept" and len(mounted_below(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it(server: DemoServer, tmp_path: Path, way: str, number: int) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        kill(mounted.pid, number)
        until(lambda: mounted_below(tmp_path) == [] and processes(tmp_path) == [])


def test_unmounted_by_other_means_the_daemon_ends(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        pid = mounted.pid
        run(*(("umount",) if way == overlays.KERNEL else ("fusermount3", "-u")), mounted.point)
        until(lambda: not Path(f"/proc/{pid}").exists() and processes(tmp_path) == [])
        assert mounted_below(tmp_path) == []


def test_ctrl_c_in_the_foreground(
    server: DemoServer, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    for name, value in {"HOST": server.url, "USER": "demo", "PASS": "demo"}.items():
        monkeypatch.setenv(f"XNAT_{name}", value)
    command = [
        sys.executable,
        "-u",
        "-m",
        "xnatfs",
        "mount",
        "--foreground",
        "--overlay",
        str(tmp_path / "changes"),
        str(point),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert (
            process.stdout.readline()
            == f"{server.url} is mounted at {point}; `xnatfs unmount {point}` ends it\n"
        )
        (point / "mine").write_text("mine")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
        assert mounted_below(tmp_path) == [] and (tmp_path / "changes/upper/mine").read_text() == "mine"
        until(lambda: processes(tmp_path) == [])
    finally:
        process.kill()
        process.wait(10)
        if mounted_below(tmp_path):
            subprocess.run(["umount", "-l", str(point)], timeout=10)


def test_a_busy_overlay_is_unmounted_and_what_is_being_written_is_kept(
    server: DemoServer, tmp_path: Path, way: str
) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        changes = str(tmp_path / "changes")
        with (mounted.point / NIFTI / "long.txt").open("w") as stream:
            stream.write("one\n")
            stream.flush()
            done = xnatfs("unmount", str(mounted.point), env=mounted.env, timeout=60)
            assert done.returncode == 0 and mounted_below(tmp_path) == [], done.stderr
            again = xnatfs("mount", str(mounted.point), "--overlay", changes, env=mounted.env)
            assert again.returncode == 1 and len(again.stderr.splitlines()) == 1, again.stderr
            assert "open" in again.stderr
            stream.write("two\n")
        assert (tmp_path / "changes/upper" / NIFTI / "long.txt").read_text() == "one\ntwo\n"
        xnatfs("mount", str(mounted.point), "--overlay", changes, env=mounted.env, check=True)
        assert (mounted.point / NIFTI / "long.txt").read_text() == "one\ntwo\n"


# --- refusals -----------------------------------------------------------------------------------------------


def refused(folder: Path, directory: str | Path, url: str, code: int = 1, **more: str) -> str:
    """The one sentence that `mount --overlay` says."""
    point = folder / "mnt"
    point.mkdir(exist_ok=True)
    env = {"XNAT_HOST": url, "XNAT_USER": "demo", "XNAT_PASS": "demo", **more}
    done = xnatfs("mount", str(point), "--overlay", str(directory), env=env)
    assert done.returncode == code and done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert mounted_below(folder) == [] and processes(folder) == []
    return said.removeprefix("xnatfs: ")


def test_places_that_cannot_be(server: DemoServer, tmp_path: Path, way: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled/thesis.tex").write_text("")
    for directory, said in (
        (tmp_path / "mnt/changes", "must not contain each other"),
        (tmp_path, "must not contain each other"),
        (tmp_path / "cache/changes", "must not contain each other"),
        (tmp_path / "state", "must not contain each other"),
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "filled", "is not empty and was not created by"),
        ("/proc/changes", "cannot be the upper layer of an overlay"),
    ):
        assert said in refused(tmp_path, directory, server.url)
    assert os.listdir(tmp_path / "filled") == ["thesis.tex"] and os.listdir(tmp_path / "mnt") == []


def test_a_folder_is_one_mount_s_and_one_server_s(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        said = refused(tmp_path / "home", tmp_path / "changes", server.url)
        assert said.startswith(f"{tmp_path}/changes is in use by ")
        assert "is in an xnatfs mount" in refused(
            tmp_path / "home", mounted.point / "x", server.url, **mounted.env
        )
    with DemoServer(build("empty")) as other:
        assert f"has changes made over {server.url}" in refused(tmp_path, tmp_path / "changes", other.url)


def test_a_login_that_fails_leaves_nothing(server: DemoServer, tmp_path: Path, way: str) -> None:
    assert "refused this user name and password" in refused(
        tmp_path, tmp_path / "changes", server.url, 77, XNAT_PASS="wrong"
    )
    assert json.loads((tmp_path / "changes/overlay.json").read_text())["kind"] == way


def test_with_neither_it_says_what_to_install(server: DemoServer, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/fusermount3").symlink_to(shutil.which("fusermount3") or "/usr/bin/fusermount3")
    if overlays.KERNEL not in overlays.kinds():
        said = refused(tmp_path, tmp_path / "changes", server.url, PATH=str(tmp_path / "bin"))
        assert said == "an overlay needs fuse-overlayfs (or root); install the package fuse-overlayfs"
    else:
        said = refused(
            tmp_path,
            tmp_path / "changes",
            server.url,
            PATH=str(tmp_path / "bin"),
            XNATFS_OVERLAY="fuse-overlayfs",
        )
        assert said == "XNATFS_OVERLAY=fuse-overlayfs is not possible here"


def test_changes_stay_with_what_they_were_made_with(server: DemoServer, tmp_path: Path) -> None:
    if overlays.KERNEL not in overlays.kinds() or overlays.PROGRAM not in overlays.kinds():
        pytest.skip("this machine or user has not both kinds of overlay")
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes/overlay.json").write_text(
        json.dumps({"server": server.url, "kind": overlays.KERNEL})
    )
    said = refused(tmp_path, tmp_path / "changes", server.url, XNATFS_OVERLAY=overlays.PROGRAM)
    assert "were made with the kernel's overlay (as root), which this user cannot use here" in said


AS_NOBODY = """
set -e
mknod "$1/fuse" c 10 229 && chmod 666 "$1/fuse" && mount --bind "$1/fuse" /dev/fuse
chown 65534:65534 "$1/home"
capabilities="--inh-caps +dac_read_search --ambient-caps +dac_read_search"
exec setpriv --reuid 65534 --regid 65534 --clear-groups $capabilities sh -ec '
cd "$1/home"; mkdir mnt
"$2" -m xnatfs mount mnt --overlay changes
trap "fusermount3 -uzq mnt || true" EXIT
cd mnt/"$3"
echo more >> "$4"; cp "$4" copy; mkdir d; mv copy d/; rm "$5"; chmod 600 "$4"
tail -n 1 d/copy; ls; cd ../../../../../../../../..
"$2" -m xnatfs status mnt
"$2" -m xnatfs unmount mnt
' sh "$@"
"""


def test_without_root(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As the user nobody, in a mount namespace of its own where everybody may open /dev/fuse."""
    tools = [
        tool for tool in ("unshare", "setpriv", overlays.PROGRAM, "fusermount3") if shutil.which(tool) is None
    ]
    if os.geteuid() != 0 or tools:
        pytest.skip(f"only root can become another user; lacking: {tools}")
    with contextlib.ExitStack() as stack:
        folder = Path(run("mktemp", "-d", "/tmp/xnatfs-nobody-XXXXXX").stdout.strip())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        env = {
            "XNAT_HOST": server.url,
            "XNAT_USER": "demo",
            "XNAT_PASS": "demo",
            "HOME": f"{folder}/home",
            "TMPDIR": f"{folder}/home",
        }
        env |= {"XNATFS_CACHE_DIR": f"{folder}/home/cache", "XNATFS_STATE_DIR": f"{folder}/home/state"}
        done = run(
            "unshare",
            "-m",
            "sh",
            "-c",
            LET_GO + AS_NOBODY,
            "sh",
            folder,
            sys.executable,
            NIFTI,
            BVEC,
            BVAL,
            env=env,
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (
            "\nmore\n" in done.stdout
            and "by fuse-overlayfs" in done.stdout
            and "and 1 deletion;" in done.stdout
        )
        upper = folder / "home/changes/upper" / NIFTI
        assert upper.stat().st_uid == 65534 and (upper / "d/copy").read_text().endswith("more\n")
        assert stat.S_IMODE((upper / BVEC).stat().st_mode) == 0o600
        until(lambda: processes(folder) == [])
