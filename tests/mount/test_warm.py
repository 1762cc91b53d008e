"""`xnatfs warm` and `mount --offline`, as a user has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, mount, run, until, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

SESSION = "projects/SCALE/subjects/sub00002"


@pytest.fixture
def scale() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=4, scans=2, files=5, file_size=300_000)) as server:
        yield server


def sums(top: Path) -> list[str]:
    """MD5 and name of every file below `top`, by a tool that knows nothing of us."""
    found = run("sh", "-c", f"cd '{top}' && find . -type f | sort | xargs md5sum")
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def downloads(server: DemoServer) -> int:
    return len(server.requests(r"^GET .*/files(/|\?format=zip)"))


def warm(mounted: Mount, *paths: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return xnatfs("warm", *(str(mounted.point / path) for path in paths), env=mounted.env, check=check)


def test_what_was_warmed_is_read_offline_and_after_a_remount(scale: DemoServer, tmp_path: Path) -> None:
    with mount(scale.url, tmp_path) as mounted:
        said = warm(mounted, SESSION)
        assert "10 of 10 files are in the cache (3.0 MB)" in said.stdout
        asked = downloads(scale)
        assert "10 of 10 files are in the cache (3.0 MB)" in warm(mounted, SESSION).stdout
        assert downloads(scale) == asked  # resumed: nothing is fetched twice
        truth = sums(mounted.point / SESSION)
    scale.stop()
    with mount(scale.url, tmp_path, "--offline") as mounted:
        assert sums(mounted.point / SESSION) == truth
        refused = run(
            "cat",
            mounted.point / "projects/SCALE/subjects/sub00003/sub00003_MR1/SCANS/1-TYPE1/DICOM/0001.dcm",
            timeout=10,
        )
        assert refused.returncode != 0 and "Host is down" in refused.stderr
        assert "offline" in xnatfs("status", str(mounted.point), env=mounted.env, check=True).stdout


def test_a_server_that_is_gone_at_mount_time_is_said_with_the_way_out(
    scale: DemoServer, tmp_path: Path
) -> None:
    with mount(scale.url, tmp_path) as mounted:
        pass
    scale.stop()
    said = xnatfs("mount", str(mounted.point), env=mounted.env)
    assert said.returncode == 1 and "cannot be reached" in said.stderr and "`--offline` shows" in said.stderr
    elsewhere = {**mounted.env, "XNATFS_STATE_DIR": str(tmp_path / "none")}
    said = xnatfs("mount", str(mounted.point), env=elsewhere)
    assert said.returncode == 1 and "--offline" not in said.stderr
    said = xnatfs("mount", str(mounted.point), "--offline", env=elsewhere)
    assert said.returncode == 1 and "mount it once while it is reachable" in said.stderr
    assert "Traceback" not in said.stderr


def test_more_than_the_cache_holds_is_refused(scale: DemoServer, tmp_path: Path) -> None:
    with mount(scale.url, tmp_path, "--cache-size", "5M") as mounted:
        said = warm(mounted, "projects", check=False)
        assert (
            said.returncode == 1
            and "this is 12.0 MB, and the cache of this mount is limited to 5.0 MB" in said.stderr
        )
        assert downloads(scale) == 0
        assert warm(mounted, SESSION).returncode == 0


def test_what_cannot_be_read_is_named_and_the_rest_is_fetched(scale: DemoServer, tmp_path: Path) -> None:
    with mount(scale.url, tmp_path) as mounted:
        scale.switches.match, scale.switches.fail_status, scale.switches.fail_next = "/0003.dcm", 404, -1
        scale.switches.zip_omit = ["0003.dcm"]
        said = warm(mounted, SESSION, f"{SESSION}/nothing", check=False)
        assert said.returncode == 1
        assert "nothing: No such file or directory" in said.stderr
        assert said.stderr.count("0003.dcm: Input/output error") == 2
        assert "8 of 10 files are in the cache" in said.stdout


def test_outside_a_mount_it_is_one_sentence(tmp_path: Path) -> None:
    said = xnatfs("warm", str(tmp_path))
    assert said.returncode == 1 and "is not in an xnatfs mount" in said.stderr


def test_ctrl_c_ends_it_and_the_next_run_goes_on(scale: DemoServer, tmp_path: Path) -> None:
    with mount(scale.url, tmp_path) as mounted:
        scale.switches.bandwidth = 2_000_000
        child = subprocess.Popen(
            [sys.executable, "-m", "xnatfs", "warm", str(mounted.point / "projects")],
            env={**os.environ, **mounted.env},
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: mounted.status()["contents"]["cached files"] >= 1, 30)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
        assert child.returncode == 130 and "run the same command to continue" in said
        scale.switches.bandwidth = 0
        asked = downloads(scale)
        assert "40 of 40 files" in warm(mounted, "projects").stdout
        assert downloads(scale) > asked
