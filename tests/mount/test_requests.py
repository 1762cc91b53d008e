"""What looking costs: requests counted in the server's log, and questions of the kernel in the mount's own
report.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import Mount, mount, run, until
from xnatfs.config import Limits
from xnatfs.demo.data import build
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

SCANS, FILES = 8, 5
SESSIONS = {"full": 1000, "proven": 250}  # one request each takes its time
MANY = 20_000


@dataclass
class Scale:
    """A server with many sessions of 8 scans with 20 files each, and a mount that has looked at nothing."""

    server: DemoServer
    profile: str
    mount: Mount

    @property
    def sessions(self) -> int:
        """How many there are."""
        return SESSIONS[self.profile]

    def count(self) -> int:
        """The requests so far, once those that run ahead have come to rest."""
        seen = -1

        def at_rest() -> bool:
            nonlocal seen
            before, seen = seen, len(self.server.requests())
            return before == seen

        until(at_rest, 20)
        return seen


@pytest.fixture(scope="module", params=["full", "proven"])
def scale(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None
) -> Iterator[Scale]:
    archive = build("scale", sessions=SESSIONS[request.param], scans=SCANS, files=FILES, digests=False)
    folder = tmp_path_factory.mktemp("scale")
    with (
        DemoServer(archive, Switches(profile=request.param)) as server,
        mount(server.url, folder, env={"HOME": str(folder)}) as mounted,
    ):
        yield Scale(server, request.param, mounted)


def lines(*command: str | Path, timeout: float = 100) -> list[str]:
    done = run(*command, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def renewed_since(began: float) -> int:
    """A slow machine takes longer than the listings hold: then four requests ask whether anything changed."""
    return 4 * math.ceil((time.monotonic() - began) / Limits().ttl - 0.5)


def test_find_over_the_metadata_of_a_large_project_costs_a_handful_of_requests(scale: Scale) -> None:
    """Down to the resource folders: 10 requests where the server grants the bulk forms, else at most one more
    a session.

    And then one more a session to see the files, whatever was looked at before.
    """
    root = scale.mount.point / "projects/SCALE"
    before, began = scale.count(), time.monotonic()
    found = lines("find", root, "-mindepth", "6", "-maxdepth", "6", "-type", "d")
    assert len(found) == scale.sessions * SCANS
    assert sorted({path.rpartition("/")[2] for path in found}) == ["DICOM"]
    folders = scale.count() - before
    print(f"\n{scale.profile}: {folders} requests down to the resource folders")
    renewals = renewed_since(began)
    # Where forms are refused: six more once an hour, to try them and to see that simpler ones are answered;
    # and six to see that what the others leave out is not there.
    assert folders <= (10 if scale.profile == "full" else 22 + scale.sessions) + renewals

    before = scale.count()
    count = len(lines("find", root, "-type", "f", timeout=110))
    assert count == scale.sessions * SCANS * FILES
    files = scale.count() - before
    print(f"{scale.profile}: {files} requests more to see the files")
    assert files <= scale.sessions + 10  # the ten: whatever changed is looked for twice a minute


def test_the_other_room_costs_nothing_more(scale: Scale) -> None:
    root = scale.mount.point / "archive/projects/SCALE/experiments"
    assert len(os.listdir(root)) == scale.sessions
    before, began = scale.count(), time.monotonic()
    assert len(lines("find", root, "-type", "f")) == scale.sessions * SCANS * FILES
    assert scale.count() - before <= 10 + renewed_since(began)


def test_one_look_at_one_session_does_not_ask_for_the_others(tmp_path: Path) -> None:
    archive = build("scale", sessions=50, scans=2, files=3)
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        lines("ls", mounted.point / "projects/SCALE/subjects")
        before = len(server.requests())
        lines("ls", "-lR", mounted.point / "projects/SCALE/subjects/sub00030/sub00030_MR1")
        assert [record.target for record in server.requests()[before:]] == [
            "/data/experiments/DEMO_E00030/files?format=json&all=true"
        ]


def test_a_listing_of_20000_files_with_sizes_asks_the_kernel_for_none_singly(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, flat=MANY, flat_size=100, digests=False)
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        folder = mounted.point / "projects/FLAT/subjects/flat/flat_MR1/RESOURCES/FLAT"
        assert folder.is_dir()
        before = mounted.status()["kernel"]
        text = lines("ls", "-l", folder)
        after = mounted.status()["kernel"]
        sizes = [int(line.split()[4]) for line in text[1:]]
        assert sizes == [100] * MANY
        assert after["readdirplus"] - before["readdirplus"] >= MANY // 1000
        assert after["getattr"] - before["getattr"] <= 20
        assert len(server.requests("/files")) == 1


def test_opening_files_again_asks_nobody(tmp_path: Path) -> None:
    """Tools open a file up to 22 times."""
    archive = build("scale", sessions=1, scans=1, files=3, file_size=50_000)
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        folder = mounted.point / "projects/SCALE/subjects/sub00001/sub00001_MR1/SCANS/1-TYPE1/DICOM"
        wanted = [(folder / name).read_bytes() for name in sorted(os.listdir(folder))]
        assert [len(data) for data in wanted] == [50_000] * 3
        before, reads = len(server.requests()), mounted.status()["kernel"]["read"]
        for _ in range(20):
            assert [(folder / name).read_bytes() for name in sorted(os.listdir(folder))] == wanted
        assert len(server.requests()) - before <= 5  # the listings may have aged
        assert mounted.status()["kernel"]["read"] == reads, "the kernel did not keep the pages"


def test_contents_outlive_a_remount(tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=2, files=5, file_size=20_000)
    with DemoServer(archive) as server:
        found = []
        for _ in range(2):
            with mount(server.url, tmp_path) as mounted:
                before = len(server.requests(r"/files/|format=zip"))
                found.append(
                    sorted(
                        lines(
                            "sh", "-c", f"cd {mounted.point}/projects && find . -type f -exec md5sum {{}} +"
                        )
                    )
                )
        assert found[0] == found[1] and len(found[0]) == 10
        assert len(server.requests(r"/files/|format=zip")) == before > 0
