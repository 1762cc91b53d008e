"""What the commands say about a mount, and that the password is said nowhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, fuse_mounts, lab_archive, mount, run, until, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.server import DemoServer

PASSWORD = "Tr0ub4dor&3-unusual"


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    archive = lab_archive()
    archive.users["demo"].password = PASSWORD
    with DemoServer(archive) as server:
        yield server


@pytest.fixture
def mounted(server: DemoServer, tmp_path: Path) -> Iterator[Mount]:
    with mount(server.url, tmp_path, password=PASSWORD) as mounted:
        yield mounted


GONE = "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES/GONE/gone.bin"
HOSTILE = "projects/MESSY/subjects/m05/m05_names/SCANS/1-T1/HOSTILE"
FILE = "projects/ALFA/subjects/sub001/sub001_MR1/SCANS/4-DWI/NIFTI/sub001_MR1_DWI.bvec"


def test_status_says_what_runs(mounted: Mount, server: DemoServer) -> None:
    data = (mounted.point / FILE).read_bytes()
    assert run("cat", mounted.point / GONE).returncode == 1
    assert os.listdir(mounted.point / HOSTILE) == ["harmless.txt"]
    for arguments in ((str(mounted.point),), (str(mounted.point / FILE),)):
        done = xnatfs("status", *arguments, env=mounted.env)
        assert done.returncode == 0 and done.stderr == ""
        text = done.stdout.splitlines()
        assert re.fullmatch(rf"{mounted.point}  {server.url} as demo \(pid \d+\)", text[0])
        assert re.fullmatch(
            r"  since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \d+ requests to XNAT \d[\d.]*, "
            r"\d+(\.\d)? \w+ of files received",
            text[1],
        )
        assert text[2] == "  server: answers"
        assert text[3] == f"  cache: 1 files, {len(data)} B of 20.0 GB; 0 downloads in progress, 0 open"
        assert re.fullmatch(r"  errors: \d+ x gone", text[4])
        assert re.match(
            r"  last, \d\d:\d\d:\d\d: .*gone\.bin: the server lists this file but does not have it", text[5]
        )
        assert (
            text[6]
            == f"  8 oddities on the server, left out or doubtful; see {mounted.point}/.xnatfs/oddities.txt"
        )


def test_status_for_programs(mounted: Mount, server: DemoServer) -> None:
    (mounted.point / FILE).read_bytes()
    with (mounted.point / FILE).open("rb"):
        report = mounted.status()
    expected = {
        "mountpoint": str(mounted.point),
        "server": server.url,
        "user": "demo",
        "errors": {},
        "last_error": None,
    }
    assert expected.items() <= report.items()
    assert report["contents"]["open files"] == 1 and report["contents"]["cached files"] == 1
    assert report["requests"] == len(server.requests()) - report_before(server, report)
    assert Path(f"/proc/{report['pid']}").exists()
    assert set(report["kernel"]) >= {"getattr", "readdirplus", "open", "read"}


def report_before(server: DemoServer, report: dict[str, object]) -> int:
    """Requests of earlier mounts of this module's server: all before the last login."""
    targets = [record.path for record in server.requests()]
    return len(targets) - 1 - targets[::-1].index("/xapi/siteConfig/buildInfo")


def test_the_control_folder_says_the_same(mounted: Mount) -> None:
    assert sorted(os.listdir(mounted.point / ".xnatfs")) == [
        "config.json",
        "errors.txt",
        "oddities.txt",
        "progress.txt",
        "status.json",
    ]
    assert (mounted.point / ".xnatfs/errors.txt").read_text() == "no errors\n"
    assert (mounted.point / ".xnatfs/oddities.txt").read_text() == "nothing unusual was found\n"
    config = json.loads((mounted.point / ".xnatfs/config.json").read_text())
    assert config["server"] == mounted.url and config["cache_dir"] == mounted.env["XNATFS_CACHE_DIR"]
    assert json.loads((mounted.point / ".xnatfs/status.json").read_text())["errors"] == {}


def test_a_text_that_changes_is_never_cut_at_its_old_length(mounted: Mount) -> None:
    """The kernel keeps sizes for half a minute; these files grow meanwhile."""
    errors = mounted.point / ".xnatfs/errors.txt"
    assert errors.read_text() == "no errors\n" and errors.stat().st_size == 10
    assert run("cat", mounted.point / GONE).returncode == 1
    time.sleep(2.1)  # a text is kept for two seconds, so that what `stat` told is what `cat` reads
    text = errors.read_text()
    assert (
        text.splitlines()[-1].endswith("(HTTP 404)")
        and "gone.bin: the server lists this file but does not have it" in text
    )
    assert errors.stat().st_size == len(text.encode())
    assert json.loads((mounted.point / ".xnatfs/status.json").read_text())["errors"]["GONE"] >= 1


def test_refresh_of_a_path_of_the_current_folder_and_of_all(mounted: Mount, server: DemoServer) -> None:
    said = f"{mounted.point} will check {server.url} again\n"
    for arguments, cwd in (
        ((str(mounted.point / "projects/ALFA"),), None),
        ((), mounted.point / "projects"),
        ((), None),
    ):
        assert os.listdir(mounted.point / "projects/ALFA/subjects")
        before = len(server.requests())
        done = run(sys.executable, "-m", "xnatfs", "refresh", *arguments, cwd=cwd, env=mounted.env)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
        assert os.listdir(mounted.point / "projects/ALFA/subjects")
        assert len(server.requests()) > before, "nothing was asked again"


def test_commands_about_what_is_not_mounted(tmp_path: Path) -> None:
    for command in ("status", "unmount", "refresh"):
        done = xnatfs(command, str(tmp_path))
        assert done.returncode == 1 and done.stdout == ""
        assert re.fullmatch(rf"xnatfs: .*{tmp_path}.*\n", done.stderr)
    assert xnatfs("refresh").stderr == "xnatfs: nothing is mounted\n"


def test_doctor_of_a_machine_and_a_server_in_order(server: DemoServer) -> None:
    done = xnatfs("doctor", env={"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": PASSWORD})
    dead = [
        line for line in done.stdout.splitlines() if re.match("BAD +mount: ", line)
    ]  # of other tests, which kill theirs
    assert done.returncode == (1 if dead else 0), done.stdout + done.stderr
    found = {
        line.split(": ", 1)[0].split(None, 1)[1]: line
        for line in done.stdout.splitlines()
        if line not in dead
    }
    assert all(line.startswith(("ok ", "note ")) for line in found.values())
    assert {"xnatfs", "FUSE", "cache", "state", "login found", "server", "projects", "Range", "clock"} <= set(
        found
    )
    assert "logged in as demo" in found["server"] and "environment XNAT_*" in found["login found"]
    assert (
        f"{len(READABLE)} can be read" in found["projects"]
        and "parts of files can be fetched" in found["Range"]
    )
    assert PASSWORD not in done.stdout + done.stderr


def test_doctor_names_what_is_wrong(server: DemoServer) -> None:
    for env, said in (
        (
            {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "wrong"},
            "refused this user name and password",
        ),
        (
            {"XNAT_HOST": "http://127.0.0.1:9", "XNAT_USER": "demo", "XNAT_PASS": PASSWORD},
            "cannot be reached",
        ),
        ({}, "which server?"),
    ):
        done = xnatfs("doctor", env=env)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert [line for line in done.stdout.splitlines() if line.startswith("BAD") and said in line], (
            done.stdout
        )
        assert PASSWORD not in done.stdout + done.stderr


def test_the_password_is_nowhere(mounted: Mount, tmp_path: Path) -> None:
    """Not among arguments, in the log, the status, the control folder, the cache, nor in what `mount` and
    `df` print.
    """
    (mounted.point / FILE).read_bytes()
    assert run("cat", mounted.point / GONE).returncode == 1
    needle = PASSWORD.encode()
    shown = [run("ps", "axww", "-o", "args").stdout, run("mount").stdout, run("df", mounted.point).stdout]
    shown += [xnatfs("status", env=mounted.env).stdout, xnatfs("status", "--json", env=mounted.env).stdout]
    assert mounted.env["XNAT_PASS"] == PASSWORD and all(PASSWORD not in text for text in shown)
    kept = [path for top in ("cache", "state") for path in (tmp_path / top).rglob("*") if path.is_file()]
    control = [mounted.point / ".xnatfs" / name for name in os.listdir(mounted.point / ".xnatfs")]
    assert len(kept) >= 4 and len(control) == 5
    assert [
        str(path) for path in (*kept, *control, mounted.point / "README.txt") if needle in path.read_bytes()
    ] == []


def test_what_is_kept_is_for_this_user_alone(mounted: Mount, tmp_path: Path) -> None:
    """Contents, names and logs: a file, or a folder it lies in, is closed to others."""
    (mounted.point / FILE).read_bytes()
    kept = [path for top in ("cache", "state") for path in (tmp_path / top).rglob("*") if not path.is_dir()]
    assert len(kept) >= 4
    for path in kept:
        chain = [path, *path.parents[: len(path.relative_to(tmp_path).parts) - 1]]
        assert any(part.stat().st_mode & 0o077 == 0 for part in chain), f"others can read {path}"


def test_the_login_is_found_where_people_keep_it(
    server: DemoServer, tmp_path: Path, private_home: Path
) -> None:
    (private_home / ".netrc").write_text(f"machine 127.0.0.1 login demo password {PASSWORD}\n")
    (private_home / ".netrc").chmod(0o600)
    cfg = tmp_path / "x.cfg"
    cfg.write_text(json.dumps({"server": server.url, "user": "admin", "password": "admin"}))
    cfg.chmod(0o600)
    point = tmp_path / "mnt"
    point.mkdir()
    for options, user in (((f"--server={server.url}",), "demo"), (("--config", str(cfg)), "admin")):
        try:
            done = xnatfs("mount", str(point), *options)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"{server.url} is mounted at {point}; `xnatfs unmount {point}` ends it\n"
            assert json.loads(xnatfs("status", "--json", str(point)).stdout)[0]["user"] == user
        finally:
            xnatfs("unmount", str(point))
    assert str(point) not in fuse_mounts()


# --- cache --------------------------------------------------------------------------------------------------


def test_the_cache_is_told_verified_and_cleared_beside_a_running_mount(tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=1, files=30, file_size=50_000, big_files={"big.bin": 20 << 20})
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        small = mounted.point / "projects/SCALE/subjects/sub00001/sub00001_MR1/SCANS/1-TYPE1/DICOM"
        big = mounted.point / "projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI/big.bin"
        sums = run("md5sum", *sorted(small.iterdir())).stdout
        (content,) = (
            one.scans[0].resources[0].entries[0]
            for one in archive.experiments.values()
            if one.label == "big_MR1"
        )
        server.switches.bandwidth = 4e6
        with subprocess.Popen(["md5sum", str(big)], stdout=subprocess.PIPE, text=True) as reading:
            try:
                until(lambda: any(one.sent > 1 << 20 for one in server.requests(r"/files/big\.bin")))
                (told,) = json.loads(xnatfs("cache", "info", "--json", env=mounted.env, check=True).stdout)
                assert (told["files"], told["bytes"], told["partial_files"], told["in_use"]) == (
                    30,
                    1_500_000,
                    1,
                    True,
                )
                assert told["mounts"] == [str(mounted.point)] and told["server"] == f"127.0.0.1:{server.port}"
                shown = xnatfs("cache", "info", env=mounted.env, check=True).stdout
                assert f"used by {mounted.point}" in shown and "30 files, 1.5 MB" in shown
                assert (
                    "1 being written by a mount and left alone: all well"
                    in xnatfs("cache", "verify", env=mounted.env, check=True).stdout
                )
                cleared = xnatfs("cache", "clear", "--yes", env=mounted.env, check=True).stdout
                assert "1.5 MB freed" in cleared and "a mount is fetching them" in cleared
                server.switches.bandwidth = 0
                output, _ = reading.communicate(timeout=60)
                assert output.split()[0] == content.true_digest
            finally:
                reading.kill()
        assert run("md5sum", *sorted(small.iterdir())).stdout == sums
        xnatfs("unmount", str(mounted.point), env=mounted.env, check=True)
        assert "no mount uses it" in xnatfs("cache", "info", env=mounted.env, check=True).stdout
