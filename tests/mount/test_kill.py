"""kill -9 of the daemon while files are on their way: what is read is true, and the cache is whole when it is
next opened.

Twelve kills in the suite; `scripts/kills [N]` (200) for many, with the figures.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mount.spelling import Spelling
from tests.support import Mount, kill, mount, run, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.server import DemoServer

KILLS = int(os.environ.get("XNATFS_KILLS", "12"))
SEED = int(os.environ.get("XNATFS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
MIB = 1 << 20
_BANDWIDTH = 8e6  # all of the data takes ten seconds


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    with_transfer: int = 0  # the server was just sending a file's bytes
    ways: Counter[str] = field(default_factory=Counter)  # what it was sending then
    digests: int = 0  # whole files read before a kill, and compared
    bytes_compared: int = 0  # of random reads
    verified: int = 0  # runs of `xnatfs cache verify`
    beside: int = 0  # of them beside transfers

    def __str__(self) -> str:
        ways = ", ".join(f"{count} x {way}" for way, count in sorted(self.ways.items()))
        return (
            f"{self.kills} kills, {self.with_transfer} with a transfer open ({ways}); {self.digests} "
            f"whole files and "
            f"{self.bytes_compared} bytes of random reads compared before; {self.verified} x cache verify "
            f"({self.beside} beside transfers)"
        )


def under_way(server: DemoServer) -> list[str]:
    """What the server is just sending."""
    sending = [
        one
        for one in server.requests(r"^GET .*/files(/|\?)")
        if one.duration == 0 and one.status in (200, 206) and one.sent
    ]
    return ["zip" if "format=zip" in one.query else "part" if one.range else "file" for one in sending]


def readers(
    chance: random.Random, truth: dict[Path, TrueFile]
) -> list[tuple[subprocess.Popen[bytes], bytes | None]]:
    """Programs that read in different ways; each with the bytes it has to give, or None for lines of
    md5sum.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in truth:
        by_folder.setdefault(path.parent, []).append(path)
    started: list[tuple[subprocess.Popen[bytes], bytes | None]] = []

    def start(*command: str | Path, expected: bytes | None = None) -> None:
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        started.append((process, expected))

    for folder in chance.sample(sorted(by_folder), 3):
        start(
            "md5sum", *sorted(by_folder[folder])
        )  # a scan in a row comes as a zip, a large file as a stream
    for path in chance.sample(sorted(truth), 3):
        skip = chance.randrange(max(1, truth[path].size // 4096 - 16))
        expected = truth[path].read()[
            skip * 4096 : (skip + 16) * 4096
        ]  # at most 64 KiB, which fit into the pipe
        start("dd", f"if={path}", "bs=4096", f"skip={skip}", "count=16", "status=none", expected=expected)
    return started


def compare(
    ran: list[tuple[subprocess.Popen[bytes], bytes | None]], truth: dict[Path, TrueFile], tally: Tally
) -> None:
    """Whatever they had read is true."""
    for process, expected in ran:
        output, _ = process.communicate(timeout=30)
        if expected is not None:
            assert expected.startswith(output), f"wrong bytes: {process.args!r}"
            assert process.returncode or output == expected, f"short: {process.args!r}"
            tally.bytes_compared += len(output)
            continue
        for line in output.decode().splitlines():
            digest, _, name = line.partition("  ")
            assert truth[Path(name)].digest == digest, f"wrong bytes in {name}"
            tally.digests += 1


def verified(mounted: Mount, tally: Tally, *, beside: bool = False) -> None:
    done = xnatfs("cache", "verify", env=mounted.env, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    tally.verified += 1
    tally.beside += beside


def one_kill(
    mounted: Mount, server: DemoServer, chance: random.Random, truth: dict[Path, TrueFile], tally: Tally
) -> None:
    """Mount, verify, read, kill."""
    cap = chance.choice(["20M", "40M", "1G"])  # with 80 MB of data: much evicted, a little, nothing
    xnatfs("mount", str(mounted.point), "--cache-size", cap, env=mounted.env, check=True)
    verified(mounted, tally)
    pid = mounted.pid
    server.clear_log()
    ran = readers(chance, truth)
    try:
        if chance.random() < 0.2:
            time.sleep(0.2)
            verified(mounted, tally, beside=bool(under_way(server)))
        time.sleep(chance.uniform(0.0, 1.0))
        deadline = time.monotonic() + 1.5
        while not under_way(server) and time.monotonic() < deadline:
            time.sleep(0.002)
        ways = under_way(server)
        kill(pid)
        tally.kills += 1
        tally.with_transfer += bool(ways)
        tally.ways.update(set(ways))
        compare(ran, truth, tally)
    finally:
        for process, _ in ran:
            process.kill()
            process.communicate(timeout=20)


@pytest.mark.timeout(max(300, KILLS * 10))
def test_whatever_moment_the_daemon_is_killed_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = build(
        "scale",
        sessions=2,
        scans=2,
        files=100,
        file_size=70_000,
        big_files={"a.nii": 30 * MIB, "b.bin": 20 * MIB},
        big_digests=True,
    )
    for experiment in archive.experiments.values():
        for entry in experiment.scans[0].resources[0].entries:
            if entry.path == "b.bin" or entry.path.endswith("3.dcm"):
                entry.digest = ""
    chance = random.Random(SEED)
    tally = Tally()
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        truth: dict[Path, TrueFile] = {}
        for project in ("SCALE", "BIG"):
            spelling = Spelling(archive, files(archive, project, "demo"))
            truth |= {
                mounted.point / "projects" / project / path: file for path, file in spelling.people().items()
            }
        kill(mounted.pid)
        server.switches.bandwidth, server.switches.latency_ms = _BANDWIDTH, 5
        try:
            for _ in range(KILLS):
                one_kill(mounted, server, chance, truth, tally)
        finally:
            with capsys.disabled():
                print(f"\n{tally} (XNATFS_SEED={SEED})")
        server.switches.bandwidth = 0
        for cap in ("40M", "1G"):
            xnatfs("mount", str(mounted.point), "--cache-size", cap, env=mounted.env, check=True)
            verified(mounted, tally)
            done = run("md5sum", *truth, timeout=100)
            assert done.returncode == 0, done.stderr
            assert {Path(line[34:]): line[:32] for line in done.stdout.splitlines()} == {
                path: file.digest for path, file in truth.items()
            }
            xnatfs("unmount", str(mounted.point), env=mounted.env, check=True)
            verified(mounted, tally)
    assert tally.with_transfer >= 0.75 * KILLS
