"""How a mount lives and ends: signals, crashes, slow and broken servers. Whatever happens, a reader gets the
true bytes or an error.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.spelling import Spelling
from tests.support import Mount, fuse_mounts, kill, lab_archive, mount, run, until, xnatfs
from xnatfs.demo.control import Changes
from xnatfs.demo.data import build
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import files
from xnatfs.demo.server import DemoServer

MIB = 1 << 20
BIG = "projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI/big.bin"
SCAN = "projects/SCALE/subjects/sub00001/sub00001_MR1/SCANS/1-TYPE1/DICOM"


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """One session of 60 small files, and one file of 30 MiB."""
    archive = build(
        "scale", sessions=2, scans=1, files=60, file_size=100_000, big_files={"big.bin": 30 * MIB}
    )
    with DemoServer(archive) as server:
        yield server


@contextlib.contextmanager
def started(*command: str | Path, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A command that runs beside the test, and does not outlive it."""
    words = [str(part) for part in command]
    process = subprocess.Popen(
        words, stdout=stdout, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def registrations(mounted: Mount) -> list[Path]:
    return list(Path(mounted.env["XNATFS_STATE_DIR"]).glob("mounts/*.json"))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(mounted: Mount, pid: int) -> bool:
    """Nothing mounted, no daemon, no registration, no socket."""
    return str(mounted.point) not in fuse_mounts() and not running(pid) and not registrations(mounted)


def everything_is_true(mounted: Mount, server: DemoServer, project: str = "SCALE") -> None:
    """Every file of a project, by the real md5sum, against the ground truth."""
    expected = {
        path: file.digest
        for path, file in Spelling(server.archive, files(server.archive, project, "demo")).people().items()
    }
    done = run(
        "find", ".", "-type", "f", "-exec", "md5sum", "{}", "+", cwd=mounted.point / "projects" / project
    )
    assert done.returncode == 0, done.stderr
    assert {line[36:]: line[:32] for line in done.stdout.splitlines()} == expected != {}


# --- ending -------------------------------------------------------------------------------------------------


def test_two_mounts_of_two_servers_at_once(server: DemoServer, tmp_path: Path) -> None:
    with DemoServer(lab_archive()) as other, mount(server.url, tmp_path / "a") as one:
        # One user, one state directory: as in life.
        with mount(other.url, tmp_path / "b", env={"XNATFS_STATE_DIR": one.env["XNATFS_STATE_DIR"]}) as two:
            assert sorted(os.listdir(one.point / "projects")) == ["BIG", "SCALE"]
            assert sorted(os.listdir(two.point / "projects")) == list(READABLE)
            everything_is_true(one, server)
            everything_is_true(two, other, "DWI")
            shown = xnatfs("status", env=one.env).stdout
            assert all(f"{each.point}  {each.url} as demo" in shown for each in (one, two))
            assert two.status()["server"] == other.url and one.status()["server"] == server.url
        assert (one.point / "README.txt").is_file() and xnatfs(
            "status", str(two.point), env=one.env
        ).returncode == 1


def test_unmount_ends_the_daemon_and_its_session_on_the_server(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        began = time.monotonic()
        done = xnatfs("unmount", str(mounted.point), env=mounted.env)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{mounted.point} is unmounted\n", "")
        assert time.monotonic() - began < 5
        assert gone(mounted, pid)
        assert [record.status for record in server.requests("^DELETE /data/JSESSION")] == [200]
        again = xnatfs("unmount", str(mounted.point), env=mounted.env)
        assert again.returncode == 1 and again.stderr == f"xnatfs: nothing is mounted at {mounted.point}\n"


def test_unmount_while_a_file_is_being_read(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        assert (mounted.point / BIG).is_file()
        server.switches.bandwidth = 500_000
        with started("cat", mounted.point / BIG) as reader:
            until(lambda: server.requests(r"/files/big\.bin"))
            began = time.monotonic()
            done = xnatfs("unmount", str(mounted.point), env=mounted.env)
            assert done.returncode == 0, done.stderr
            assert time.monotonic() - began < 20
            assert str(mounted.point) not in fuse_mounts()
            until(lambda: reader.poll() is not None, 10)
            assert reader.returncode == 1, "a reader must not take a part of a file for the whole"
        until(lambda: gone(mounted, pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_mount_cleanly(server: DemoServer, tmp_path: Path, number: int) -> None:
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        assert len(registrations(mounted)) == 1
        kill(pid, number)
        assert gone(mounted, pid)
        assert len(server.requests("^DELETE /data/JSESSION")) == 1


def test_sigterm_ends_a_mount_whose_reader_is_stuck(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        assert (mounted.point / BIG).is_file()
        server.switches.stall_after_bytes = MIB
        with started("cat", mounted.point / BIG) as reader:
            until(lambda: server.requests(r"/files/big\.bin"))
            os.kill(pid, signal.SIGTERM)
            until(lambda: gone(mounted, pid), 15)
            until(lambda: reader.poll() is not None, 5)
            assert reader.returncode == 1


def test_after_a_crash_the_next_mount_at_that_place_works(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        everything_is_true(mounted, server)
        kill(mounted.pid)
        with pytest.raises(OSError):
            os.listdir(mounted.point)
        shown = xnatfs("status", env=mounted.env)
        assert shown.returncode == 1 and "its process is gone" in shown.stdout
        done = xnatfs("mount", str(mounted.point), env=mounted.env)
        assert done.returncode == 0, done.stderr
        assert fuse_mounts().count(str(mounted.point)) == 1
        everything_is_true(mounted, server)


def test_a_crash_in_the_middle_of_a_download_leaves_no_half_file(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        assert (mounted.point / BIG).is_file()
        server.switches.bandwidth = 5 * MIB
        with started("cat", mounted.point / BIG):
            until(lambda: any(record.sent > 2 * MIB for record in server.requests(r"/files/big\.bin")))
            kill(mounted.pid)
        server.switches.bandwidth = 0
        xnatfs("mount", str(mounted.point), env=mounted.env, check=True)
        everything_is_true(mounted, server, "BIG")


def test_unmount_clears_a_dead_mount_away(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        kill(mounted.pid)
        assert str(mounted.point) in fuse_mounts()
        xnatfs("unmount", str(mounted.point), env=mounted.env, check=True)
        assert str(mounted.point) not in fuse_mounts() and os.listdir(mounted.point) == []


def test_a_mount_in_the_foreground_ends_with_ctrl_c(
    server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    for name, value in {"HOST": server.url, "USER": "demo", "PASS": "demo"}.items():
        monkeypatch.setenv(f"XNAT_{name}", value)
    with started(
        sys.executable, "-u", "-m", "xnatfs", "mount", "--foreground", str(point), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert (
                process.stdout.readline()
                == f"{server.url} is mounted at {point}; `xnatfs unmount {point}` ends it\n"
            )
            assert sorted(os.listdir(point / "projects")) == ["BIG", "SCALE"]
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=15)
            assert (process.returncode, errors) == (0, "")
            assert str(point) not in fuse_mounts()
            assert len(server.requests("^DELETE /data/JSESSION")) == 1
        finally:
            run("fusermount3", "-uqz", point)


# --- waiting ------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_a_read_that_waits_for_the_server(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        assert (mounted.point / BIG).is_file()
        server.switches.stall_after_bytes = 0
        with started("cat", mounted.point / BIG) as reader:
            until(lambda: server.requests(r"/files/big\.bin"))
            time.sleep(0.3)
            assert reader.poll() is None
            began = time.monotonic()
            reader.send_signal(signal.SIGINT)
            reader.wait(10)
            assert time.monotonic() - began < 5
        assert (mounted.point / "README.txt").read_text().startswith("This folder shows the XNAT server")


def test_what_the_kernel_reads_ahead_keeps_no_daemon_alive(server: DemoServer, tmp_path: Path) -> None:
    """A reader that is gone leaves a request behind that nobody waits for."""
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        assert (mounted.point / BIG).is_file()
        server.switches.stall_after_bytes = 0
        with started("cat", mounted.point / BIG):
            until(lambda: server.requests(r"/files/big\.bin"))
            time.sleep(0.3)
        began = time.monotonic()
        xnatfs("unmount", str(mounted.point), env=mounted.env, check=True)
        assert time.monotonic() - began < 5
        assert gone(mounted, pid)


def test_ctrl_c_ends_a_look_that_waits_for_a_listing(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        assert sorted(os.listdir(mounted.point / "projects")) == ["BIG", "SCALE"]
        server.switches.listing_delay_ms = 15_000
        with started("stat", mounted.point / "projects/SCALE/subjects/sub00001") as look:
            until(lambda: server.requests(r"/projects/SCALE/"))
            assert look.poll() is None
            began = time.monotonic()
            look.send_signal(signal.SIGINT)
            look.wait(10)
            assert time.monotonic() - began < 5
            # The others do not wait with it.
            assert (mounted.point / "README.txt").is_file() and len(os.listdir(mounted.point)) >= 4
            assert time.monotonic() - began < 8


def test_forty_stuck_reads_keep_nobody_from_looking_around(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        folder = mounted.point / SCAN
        names = sorted(os.listdir(folder))
        first = (folder / names[-1]).read_bytes()
        server.switches.stall_after_bytes = 1000
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(started("cat", folder / name)) for name in names[:40]]
            until(lambda: mounted.status()["kernel"]["open"] >= 41)
            began = time.monotonic()
            assert run("ls", "-l", folder, timeout=20).stdout.count("\n") == 61
            assert (folder / names[-1]).read_bytes() == first, "what is cached is read"
            assert (
                run("ls", mounted.point / "projects/SCALE/subjects", timeout=20).stdout
                == "sub00001\nsub00002\n"
            )
            assert os.listdir(
                mounted.point / "projects/SCALE/subjects/sub00002/sub00002_MR1/SCANS/1-TYPE1"
            ) == ["DICOM"]
            assert len(os.listdir(mounted.point / SCAN.replace("00001", "00002"))) == 60, (
                "what is not yet listed is listed"
            )
            assert time.monotonic() - began < 8
            assert all(reader.poll() is None for reader in readers), (
                "nothing was shown: the reads were not stuck"
            )
            for reader in readers:
                reader.send_signal(signal.SIGINT)
            began = time.monotonic()
            for reader in readers:
                reader.wait(10)
            assert time.monotonic() - began < 8


# --- bad days of a server -----------------------------------------------------------------------------------


def reading(mounted: Mount, server: DemoServer, project: str, meanwhile: object) -> None:
    """Read a whole project while something happens to the server."""
    assert callable(meanwhile)
    failed: list[BaseException] = []

    def read() -> None:
        try:
            everything_is_true(mounted, server, project)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        until(lambda: len(server.requests("/files/|format=zip")) >= 3, 20)
        meanwhile()
    finally:
        thread.join(100)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def test_a_server_that_is_restarted_in_between(server: DemoServer, tmp_path: Path) -> None:
    def restart() -> None:
        server.stop()
        time.sleep(0.3)
        server.start()
        expired.append(server.expire_sessions())

    expired: list[int] = []
    server.switches.latency_ms = 20
    with mount(server.url, tmp_path) as mounted:
        reading(mounted, server, "SCALE", restart)
    assert expired == [1], "nothing was shown: there was no session to end"


def test_a_session_that_expires_in_between(server: DemoServer, tmp_path: Path) -> None:
    server.switches.latency_ms = 20
    with mount(server.url, tmp_path) as mounted:
        expired: list[int] = []
        reading(mounted, server, "SCALE", lambda: expired.append(server.expire_sessions()))
        assert expired == [1], "nothing was shown: there was no session to end"
        assert len(server.requests("^GET /data/JSESSION")) <= 2, (
            "at most one silent login more, whoever noticed first"
        )


def test_sessions_that_expire_all_the_time(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        server.switches.expire_after_requests = 10
        everything_is_true(mounted, server)


@pytest.mark.parametrize(
    "trouble",
    [
        {"latency_ms": 40.0},
        {"fail_next": 3, "fail_status": 503},
        {"fail_rate": 0.05, "fail_status": 502},
        {"cut_after_bytes": 30_000, "cut_next": 3},
        {"truncate_after_bytes": 30_000, "truncate_next": 3, "chunked_files": True},
        {"html_instead": 3, "match": "/data/(projects|experiments)"},
        {"html_instead": 3, "match": r"/files/.*dcm"},
        {"no_range": True},
        {"chunked_files": True},
        {"bandwidth": 8e6},
    ],
    ids=lambda trouble: "-".join(trouble),
)
def test_the_bytes_are_true_whatever_the_server_does(
    server: DemoServer, tmp_path: Path, trouble: dict[str, float | str]
) -> None:
    with mount(server.url, tmp_path) as mounted:
        for name, value in trouble.items():
            setattr(server.switches, name, value)
        everything_is_true(mounted, server)
        spent = [name for name in trouble if name.endswith("_next") or name == "html_instead"]
        assert [getattr(server.switches, name) for name in spent] == [0] * len(spent), (
            "nothing was shown: the trouble did not happen"
        )


def test_a_large_file_is_true_though_its_connection_is_cut(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        server.switches.cut_after_bytes, server.switches.cut_next = 7 * MIB, 3
        everything_is_true(mounted, server, "BIG")
        assert server.switches.cut_next == 0, "nothing was shown: the connection was not cut"


def test_a_file_whose_digest_is_wrong_is_an_error_until_the_catalog_is_right(
    server: DemoServer, tmp_path: Path
) -> None:
    with mount(server.url, tmp_path) as mounted:
        server.switches.wrong_digest = r"0007\.dcm$"
        path = mounted.point / SCAN / "0007.dcm"
        assert run("cat", path).stderr.endswith("Input/output error\n")
        server.switches.wrong_digest = ""
        xnatfs("refresh", str(path), env=mounted.env, check=True)
        (file,) = (
            file
            for file in files(server.archive, "SCALE", "demo")
            if file.path == "0007.dcm" and file.session == "sub00001_MR1"
        )
        until(lambda: run("cat", path).returncode == 0, 40)
        assert path.read_bytes() == file.read()


# --- changes on the server ----------------------------------------------------------------------------------


def test_a_new_session_appears_after_refresh(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        subjects = mounted.point / "projects/SCALE/subjects/sub00001"
        programs = mounted.point / "archive/projects/SCALE/experiments"
        assert os.listdir(subjects) == ["sub00001_MR1"] and not (programs / "new_MR1").exists()
        changes = Changes(server.archive)
        subject = next(one.id for one in server.archive.subjects.values() if one.label == "sub00001")
        number = server.call(
            lambda: changes.apply(
                {"op": "add_session", "project": "SCALE", "subject": subject, "label": "new_MR1"}
            )
        )
        resource = server.call(
            lambda: changes.apply({"op": "add_resource", "session": number, "label": "NOTES"})
        )
        server.call(
            lambda: changes.apply({"op": "put_file", "resource": resource, "path": "a.txt", "text": "hello"})
        )
        done = xnatfs("refresh", str(subjects), env=mounted.env)
        assert (done.returncode, done.stdout) == (0, f"{mounted.point} will check {server.url} again\n")
        assert sorted(os.listdir(subjects)) == ["new_MR1", "sub00001_MR1"]
        assert (subjects / "new_MR1/RESOURCES/NOTES/a.txt").read_text() == "hello"
        assert (programs / "new_MR1/RESOURCES/NOTES/a.txt").read_text() == "hello"


def test_a_changed_file_is_read_whole_after_refresh(server: DemoServer, tmp_path: Path) -> None:
    """Longer and shorter than before: the kernel must not cut it at the old size."""
    with mount(server.url, tmp_path) as mounted:
        path = mounted.point / SCAN / "0003.dcm"
        assert path.stat().st_size == 100_000 and len((path.parent / "0004.dcm").read_bytes()) == 100_000
        (file,) = (
            file
            for file in files(server.archive, "SCALE", "demo")
            if file.path == "0003.dcm" and file.session == "sub00001_MR1"
        )
        changes = Changes(server.archive)
        for text in ("longer" * 50_000, "short", "longer again" * 20_000):
            server.call(
                lambda text=text: changes.apply(
                    {"op": "put_file", "resource": file.resource_id, "path": file.path, "text": text}
                )
            )
            xnatfs("refresh", str(path), env=mounted.env, check=True)
            assert path.read_text() == text
            assert path.stat().st_size == len(text)


def test_a_deleted_session_is_gone_after_refresh(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        folder = mounted.point / "projects/SCALE/subjects/sub00002"
        assert os.listdir(folder) == ["sub00002_MR1"]
        (number,) = (one.id for one in server.archive.experiments.values() if one.label == "sub00002_MR1")
        server.call(lambda: Changes(server.archive).apply({"op": "delete_session", "id": number}))
        xnatfs("refresh", env=mounted.env, check=True)
        assert os.listdir(folder) == []


def test_ctrl_c_ends_an_open_of_a_file_that_another_program_waits_for(tmp_path: Path) -> None:
    """After a refresh an open has the kernel drop what it has of the file, and the kernel waits for pages
    that are on their way.
    """
    archive = build("scale", sessions=0, big_files={"a.bin": 20 << 20})
    with DemoServer(archive) as stand_in, mount(stand_in.url, tmp_path) as mounted:
        path = mounted.point / "projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI/a.bin"
        assert path.stat().st_size == 20 << 20
        stand_in.switches.update({"stall_after_bytes": 300_000, "match": "a.bin"})
        started: list[subprocess.Popen[bytes]] = []
        try:
            started.append(subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL))
            until(lambda: [one for one in stand_in.requests("a.bin") if one.sent], 20)
            time.sleep(0.3)  # until the kernel has asked for the pages behind those
            xnatfs("refresh", str(mounted.point), env=mounted.env, check=True)
            started.append(subprocess.Popen(["head", "-c", "1", path], stdout=subprocess.DEVNULL))
            time.sleep(0.5)
            assert started[-1].poll() is None, "nothing is shown: it did not have to wait"
            started[-1].send_signal(signal.SIGINT)
            assert started[-1].wait(5) == -signal.SIGINT
        finally:
            stand_in.switches.stall_next = 0
            stand_in.stop()  # else `cat` waits until the stalled stream is given up
            stand_in.start()
            for one in started:
                one.kill()
                one.wait(40)
