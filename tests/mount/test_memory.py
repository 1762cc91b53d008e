"""The daemon's memory while a zip of any size is unpacked: it is streamed, nothing of it is held.

600 MB in the suite; `XNATFS_ZIP=4G pytest tests/mount/test_memory.py` (or `scripts/memory`) for the 4 GiB of
the requirement."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import mount
from xnatfs.config import parse_size
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

MIB = 1 << 20
SIZE = parse_size(os.environ.get("XNATFS_ZIP", "600M"))
_FILE = 512 * 1024


def peak(pid: int) -> int:
    """The most memory the process ever had, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1]) * 1024


@pytest.mark.timeout(120 + SIZE // (5 * MIB))
def test_unpacking_a_zip_takes_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = -(-SIZE // _FILE)
    archive = build("scale", sessions=1, scans=1, files=count, file_size=_FILE, digests=False)
    (experiment,) = archive.experiments.values()
    entries = sorted(experiment.scans[0].resources[0].entries, key=lambda entry: entry.path)
    with (
        DemoServer(archive) as server,
        mount(server.url, tmp_path, "--cache-size", "8G", interpreter=True) as mounted,
    ):
        server.switches.latency_ms = 20  # a zip is worth more where requests cost something
        folder = mounted.point / "projects/SCALE/subjects/sub00001/sub00001_MR1/SCANS/1-TYPE1/DICOM"
        pid = mounted.pid
        before = peak(pid)
        words = ["sh", "-c", 'cd "$1" && ls | xargs cat | md5sum', "sh", str(folder)]
        read = subprocess.run(
            words, capture_output=True, text=True, timeout=100 + SIZE // (5 * MIB), check=True
        )
        after = peak(pid)
        sent = sum(one.sent for one in server.requests(r"format=zip"))
    expected = hashlib.md5(usedforsecurity=False)
    for entry in entries:
        assert entry.content is not None
        expected.update(entry.content.read(0, _FILE))
    assert read.stdout.split()[0] == expected.hexdigest()
    assert sent > 0.9 * SIZE, "nothing was shown: it did not come as a zip"
    with capsys.disabled():
        print(
            f"\n{sent / MIB:.0f} MiB of zip unpacked: the daemon's peak was {after / MIB:.0f} MiB, "
            f"{before / MIB:.0f} before"
        )
    assert after < 200 * MIB
