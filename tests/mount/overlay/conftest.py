"""What the tests of `mount --overlay` share: a server that is never changed, both kinds of overlay, and
mounts of which nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, clear_away, in_process, lab_archive, mount, of_folder, until
from xnatfs.daemon import overlay as overlays
from xnatfs.demo.server import DemoServer
from xnatfs.errors import UsageError

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
            try:
                in_process("unmount", str(point), env=mounted.env)
            except UsageError as error:
                assert "nothing is mounted" in str(error)
    finally:
        left = mounted_below(folder)
        for one in left:
            subprocess.run(
                ["umount" if os.geteuid() == 0 else "fusermount3", "-l" if os.geteuid() == 0 else "-uz", one],
                timeout=10,
            )
        clear_away(point, folder / "state")
    assert left == []
    until(lambda: processes(folder) == [])


def processes(folder: Path) -> list[int]:
    """Daemons and fuse-overlayfs processes of a test."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes()
            ours = b"python" in command or b"fuse-overlayfs" in command
            if ours and int(path.name) != os.getpid() and of_folder(int(path.name), folder):
                found.append(int(path.name))
    return found


def changed(mounted: Mount) -> tuple[int, int, int]:
    """What `status` counts: files, bytes, deletions."""
    upper = mounted.status()["overlay"]
    return upper["files"], upper["bytes"], upper["deleted"]
