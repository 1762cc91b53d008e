"""A mount whose process is stopped for longer than any of its deadlines: programs in the middle of their work
notice a pause, no more.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.mount.spelling import Spelling
from tests.support import mount, until, xnatfs
from xnatfs.config import Limits
from xnatfs.demo.data import build
from xnatfs.demo.data.truth import files
from xnatfs.demo.server import DemoServer

# seconds: twice the deadline for an operation without progress, and as long as XNAT lets a connection idle
STOPPED = 65.0
MIB = 1 << 20
SCAN = "subjects/sub00001/sub00001_MR1/SCANS/1-TYPE1"
LARGE = ("a.bin", "b.bin")  # of 48 MiB
TABLE = "tables/COHORT/freesurfer6/aseg.csv"
PLACES = (33 * MIB, 21 * MIB, 0)
_AT = (
    f"import os, sys; f = os.open(sys.argv[1], 0); sys.stdout.buffer.write(b''.join(os.pread(f, 5000, "
    f"at) for at in {PLACES}))"
)

# What shows in the server's log once a program is in the middle of its work.
ASKED = {
    "list": r"/files\?format=json",
    "copy": r"DEMO_E00001/scans/1/.*(format=zip|/files/)",
    "read": r"/files/a\.bin",
    "read here and there": r"/files/b\.bin",
    "table": r"/files/.*aseg\.stats",
}


@pytest.mark.timeout(400)
def test_programs_go_on_after_a_stop_of_more_than_a_minute(tmp_path: Path) -> None:
    assert 2 * Limits().progress_deadline < STOPPED
    archive = build(
        "scale",
        sessions=4,
        scans=2,
        files=200,
        file_size=50_000,
        big_files=dict.fromkeys(LARGE, 48 * MIB),
        cohort=60,
    )
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        true = Spelling(archive, files(archive, "SCALE", "demo")).people()
        large = {file.path: file for file in files(archive, "BIG", "demo")}
        a, b = (
            mounted.point / f"projects/BIG/subjects/big/big_MR{number}/SCANS/1-T1/NIFTI/{name}"
            for number, name in enumerate(LARGE, 1)
        )
        project = mounted.point / "projects/SCALE"
        pid = mounted.pid
        server.switches.latency_ms, server.switches.bandwidth = 500.0, 4_000_000.0
        commands: dict[str, tuple[str | Path, ...]] = {
            "list": ("find", "-H", project, "-type", "f", "-printf", "%P %s\\n"),
            "stat": ("stat", "-c", "%s", a),
            "copy": ("cp", "-r", project / SCAN, tmp_path / "copy"),
            "read": ("md5sum", a),
            "read here and there": ("python3", "-c", _AT, b),
            "table": ("cat", mounted.point / TABLE),
        }
        started = {
            name: subprocess.Popen(
                [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for name, words in commands.items()
        }
        try:
            for name, begun in ASKED.items():
                assert until(lambda begun=begun: server.requests(begun), 20), name
            assert [
                name for name, process in started.items() if process.poll() is None and name != "stat"
            ] == [*ASKED]
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(STOPPED)
            finally:
                os.kill(pid, signal.SIGCONT)
            server.switches.latency_ms = server.switches.bandwidth = 0.0
            said = {name: process.communicate(timeout=120) for name, process in started.items()}
        finally:
            for process in started.values():
                process.kill()
                process.communicate(timeout=20)
        assert {
            name: (process.returncode, said[name][1]) for name, process in started.items()
        } == dict.fromkeys(started, (0, b""))
        output = {
            name: out.decode("utf-8", "surrogateescape")
            for name, (out, _) in said.items()
            if name != "read here and there"
        }
        assert set(output["list"].splitlines()) == {f"{path} {file.size}" for path, file in true.items()}
        assert output["stat"] == f"{large['a.bin'].size}\n"
        copied = {
            f"{SCAN}/{path.relative_to(tmp_path / 'copy')}": path
            for path in (tmp_path / "copy").rglob("*")
            if path.is_file()
        }
        expected = {path: file.digest for path, file in true.items() if path.startswith(f"{SCAN}/")}
        assert (
            {
                path: hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
                for path, file in copied.items()
            }
            == expected
            != {}
        )
        content = large["a.bin"].entry.content
        assert (
            output["read"].split()[0]
            == hashlib.md5(content.read(0, content.size), usedforsecurity=False).hexdigest()
        )
        content = large["b.bin"].entry.content
        assert said["read here and there"][0] == b"".join(content.read(at, 5000) for at in PLACES)
        env = mounted.env | {
            "XNATFS_CACHE_DIR": str(tmp_path / "other cache"),
            "XNATFS_STATE_DIR": str(tmp_path / "other state"),
        }
        assert output["table"] == xnatfs("table", "COHORT", "freesurfer6/aseg", env=env, check=True).stdout
        assert mounted.status()["errors"] == {}
