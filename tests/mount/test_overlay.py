"""`mount --overlay`: a place to write beside the input. The kernel's overlay and fuse-overlayfs, and the
server is never changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_freshness import FILES, Study
from tests.support import Mount, clear_away, kill, lab_archive, mount, run, until, xnatfs
from xnatfs.daemon import overlay as overlays
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

SESSION = "projects/ALFA/subjects/sub001/sub001_MR1"
DICOM = f"{SESSION}/SCANS/2-T1_ALFA1/DICOM"
NIFTI = f"{SESSION}/SCANS/4-DWI/NIFTI"
BVEC = "sub001_MR1_DWI.bvec"
BVAL = "sub001_MR1_DWI.bval"
READS = re.compile(r"GET|HEAD")
ENTERED = re.compile(r"/data/JSESSION")  # the session that a login made is ended by a DELETE


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server
        written = [
            one for one in server.requests() if not READS.match(one.method) and not ENTERED.search(one.path)
        ]
        assert server.requests() and not written


@pytest.fixture(params=[overlays.KERNEL, overlays.PROGRAM])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the overlay is made; skipped where this machine lacks it."""
    if request.param not in overlays.kinds():
        pytest.skip(f"this machine or user has no {request.param} overlay")
    monkeypatch.setenv(overlays.FORCE, request.param)
    return str(request.param)


def mounted_below(folder: Path) -> list[str]:
    """Whatever is mounted below a folder, and every private mount of an overlay that shows."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        words[1] for words in lines if words[1].startswith(f"{folder}/") or f"lowerdir={folder}" in words[3]
    ]


@contextlib.contextmanager
def overlaid(url: str, folder: Path, *options: str) -> Iterator[Mount]:
    """A mount with an overlay whose changes are kept in `folder/changes`; nothing stays mounted, whatever
    happened.
    """
    point = folder / "mnt"
    try:
        with mount(url, folder, "--overlay", str(folder / "changes"), *options) as mounted:
            yield mounted
            done = xnatfs("unmount", str(point), env=mounted.env, timeout=60)
            assert done.returncode == 0 or "nothing is mounted" in done.stderr, done.stderr
    finally:
        left = mounted_below(folder)
        for one in left:
            subprocess.run(
                ["umount" if os.geteuid() == 0 else "fusermount3", "-l" if os.geteuid() == 0 else "-uz", one],
                timeout=10,
            )
        clear_away(point, folder / "state")
    assert left == []
    assert processes(folder) == []


def processes(folder: Path) -> list[int]:
    """Daemons and fuse-overlayfs processes of a test."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes()
            if os.fsencode(folder) in command and (b"xnatfs" in command or b"fuse-overlayfs" in command):
                found.append(int(path.name))
    return [pid for pid in found if pid != os.getpid()]


def changed(mounted: Mount) -> tuple[int, int, int]:
    """What `status` counts: files, bytes, deletions."""
    upper = mounted.status()["overlay"]
    return upper["files"], upper["bytes"], upper["deleted"]


# --- writing ------------------------------------------------------------------------------------------------


def test_dcm2niix_writes_beside_the_images(server: DemoServer, tmp_path: Path, way: str) -> None:
    import nibabel

    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / DICOM
        before = set(os.listdir(folder))
        assert folder.is_dir() and len(before) > 5
        done = run("dcm2niix", folder)
        assert done.returncode == 0, done.stdout + done.stderr
        made = set(os.listdir(folder)) - before
        (image,) = (name for name in made if ".nii" in name)
        assert nibabel.load(folder / image).get_fdata().size > 1000
        assert before < set(os.listdir(folder))
        assert {path.name for path in (tmp_path / "changes/upper" / DICOM).iterdir()} == made
        assert changed(mounted)[0] == len(made)
        disk = os.statvfs(tmp_path / "changes")  # where a program that asks for free space will write
        assert os.statvfs(mounted.point).f_blocks == disk.f_blocks


def test_what_tools_do_beside_their_input(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / NIFTI
        image = next(name for name in os.listdir(folder) if name.endswith(".nii.gz"))
        data = (folder / image).read_bytes()
        text = (folder / BVEC).read_text()
        for command in (
            ("cp", image, "reoriented.nii.gz"),
            ("mkdir", "image.feat"),
            ("touch", "IsRunning"),
            ("mv", "reoriented.nii.gz", "image.feat/"),
            ("mv", BVAL, "renamed.bval"),
            ("touch", BVEC),
            ("sh", "-c", f"echo more >> {BVEC}"),
        ):
            done = run(*command, cwd=folder)
            assert (done.returncode, done.stderr) == (0, ""), command
        assert (folder / "image.feat/reoriented.nii.gz").read_bytes() == data
        assert (folder / BVEC).read_text() == text + "more\n"
        assert (folder / "renamed.bval").stat().st_size > 0 and not (folder / BVAL).exists()
        assert {"image.feat", "IsRunning", "renamed.bval", BVEC, image} <= set(os.listdir(folder))
        (folder / "IsRunning").unlink()
        files, size, deleted = changed(mounted)
        assert (files, deleted) == (3, 1) and size >= len(data) + len(text) + 5


@pytest.mark.usefixtures("way")
def test_a_table_that_nobody_opened_before_is_written_to(server: DemoServer, tmp_path: Path) -> None:
    """The overlay copies it first, as many bytes as it was told."""
    with mount(server.url, tmp_path / "plain") as plain:
        truth = (plain.point / "tables/ALFA/sessions.csv").read_bytes()
    with overlaid(server.url, tmp_path) as mounted:
        path = mounted.point / "tables/ALFA/sessions.csv"
        assert path.stat().st_size > len(truth)
        with path.open("ab") as table:
            table.write(b"more")
        assert path.stat().st_size == len(truth) + 4
        assert path.read_bytes() == truth + b"more"


def test_a_folder_is_renamed(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        scans = mounted.point / SESSION / "SCANS"
        names = set(os.listdir(scans / "4-DWI/NIFTI"))
        done = run("mv", "4-DWI", "DWI", cwd=scans)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(os.listdir(scans / "DWI/NIFTI")) == names and not (scans / "4-DWI").exists()
        assert all((scans / "DWI/NIFTI" / name).read_bytes() for name in names)


def test_a_deletion_hides_and_is_not_sent(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / NIFTI
        text = (folder / BVEC).read_text()
        (folder / BVEC).unlink()
        shutil.rmtree(mounted.point / DICOM)
        assert BVEC not in os.listdir(folder) and not (folder / BVEC).exists()
        assert BVEC not in run("ls", folder).stdout and not (mounted.point / DICOM).exists()
        assert changed(mounted) == (0, 0, 2)
        said = xnatfs("status", str(mounted.point), env=mounted.env, check=True).stdout
        assert f"  overlay: {tmp_path}/changes holds 0 files (0 B) and 2 deletions; by " in said
        (folder / BVEC).write_text("my own")
        assert (folder / BVEC).read_text() == "my own" and changed(mounted) == (1, 6, 1)
        with mount(server.url, tmp_path / "plain") as plain:
            assert (plain.point / NIFTI / BVEC).read_text() == text
            assert len(os.listdir(plain.point / DICOM)) > 5
            assert plain.status()["overlay"] is None
            with pytest.raises(OSError):
                (plain.point / NIFTI / "x").write_text("")


def test_the_changes_are_there_again_after_a_remount(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        folder = mounted.point / NIFTI
        (folder / "new.txt").write_text("new")
        (folder / BVAL).unlink()
        before = changed(mounted)
    with overlaid(server.url, tmp_path) as mounted:
        assert (
            (folder / "new.txt").read_text() == "new"
            and not (folder / BVAL).exists()
            and (folder / BVEC).exists()
        )
        assert changed(mounted) == before == (1, 3, 1)


def test_the_other_commands_know_the_overlay(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        file = mounted.point / NIFTI / BVEC
        assert os.getxattr(file, "user.xnat.cached") == b"no"
        done = xnatfs("warm", str(mounted.point / NIFTI), env=mounted.env)
        assert done.returncode == 0, done.stderr
        assert os.getxattr(file, "user.xnat.cached") == b"yes" and os.getxattr(file, "user.xnat.scan") == b"4"
        assert "user.xnat.cached" not in os.listxattr(file) and "user.xnat.uri" in os.listxattr(file)
        for arguments in ((str(file),), ()):
            assert (
                xnatfs("refresh", *arguments, env=mounted.env).stdout
                == f"{mounted.point} will check {server.url} again\n"
            )
        assert xnatfs("status", str(file), env=mounted.env).returncode == 0
        again = xnatfs("mount", str(mounted.point), env=mounted.env)
        assert again.returncode == 1 and f"is already mounted at {mounted.point}" in again.stderr
        assert "a layer that stores changes on this machine" in (mounted.point / "README.txt").read_text()
        report = mounted.status()["overlay"]
        assert (report["directory"], report["kind"]) == (str(tmp_path / "changes"), way)
        said = xnatfs("doctor", env=mounted.env).stdout
        assert re.search(r"^ok    overlay: `mount --overlay` uses ", said, re.MULTILINE)


def test_others_of_this_machine_may_not_enter(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        assert stat.S_IMODE(mounted.point.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "changes").stat().st_mode) == 0o700
        assert stat.S_IMODE((mounted.point / NIFTI / BVEC).stat().st_mode) == 0o644


def test_looking_around_fetches_no_files(server: DemoServer, tmp_path: Path, way: str) -> None:
    with overlaid(server.url, tmp_path) as mounted:
        assert run("ls", "-lR", mounted.point / SESSION).stdout.count(".dcm") > 20
        assert mounted.status()["contents"]["cached files"] == 0
        assert run("file", mounted.point / NIFTI / BVEC).stdout.rstrip().endswith("ASCII text"), (
            "opens as fuse-overlayfs does, and reads"
        )


@pytest.mark.timeout(150)
def test_changes_on_the_server_show_or_say_so(tmp_path: Path, way: str) -> None:
    """Never another file's bytes, never a listing that ends in the middle."""
    study = Study()
    with study.server, overlaid(study.server.url, tmp_path) as mounted:
        top = mounted.point / FILES
        assert sorted(os.listdir(top)) == ["changed", "kept", "removed"] and not (top / "added").exists()
        assert {name: (top / name).read_bytes() for name in os.listdir(top)} == {
            "changed": b"old",
            "kept": b"kept",
            "removed": b"gone soon",
        }
        study.server.call(study.change)
        xnatfs("refresh", str(mounted.point), env=mounted.env, check=True)
        began = time.monotonic()
        while time.monotonic() - began < 60:
            names = set(os.listdir(top))
            assert "kept" in names and (top / "kept").read_bytes() == b"kept"
            with contextlib.suppress(OSError):
                assert (top / "removed").read_bytes() in (b"", b"gone soon")
            if time.monotonic() - began > 45 and {"added", "changed", "kept"} <= names:
                break
            time.sleep(1)
        assert (top / "added").read_bytes() == b"added" and (top / "changed").read_bytes() == b"new"
        with pytest.raises(OSError):
            (top / "removed").read_bytes()
        (top / "mine").write_text("mine")
        assert (
            {"added", "changed", "kept", "mine"}
            <= set(os.listdir(top))
            <= {"added", "changed", "kept", "mine", "removed"}
        )
        if way == overlays.KERNEL:
            assert "removed" not in os.listdir(top)


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


def refused(folder: Path, directory: str | Path, url: str, **more: str) -> str:
    """The one sentence that `mount --overlay` says."""
    point = folder / "mnt"
    point.mkdir(exist_ok=True)
    env = {"XNAT_HOST": url, "XNAT_USER": "demo", "XNAT_PASS": "demo", **more}
    done = xnatfs("mount", str(point), "--overlay", str(directory), env=env)
    assert done.returncode == 1 and done.stdout == ""
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
        tmp_path, tmp_path / "changes", server.url, XNAT_PASS="wrong"
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
            AS_NOBODY,
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
