"""`scripts/shared_cache`: sixteen processes, of which four are killed midway, fetch each byte once."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.test_bench import SCRIPTS
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

sys.path.insert(0, str(SCRIPTS))

from sharing.__main__ import measure

SIZE = 60 * 2 * 40_000


def test_each_byte_leaves_the_server_once_although_nodes_die(tmp_path: Path) -> None:
    """Would fail if the others waited for ever for those that died, or fetched what these had given already;
    `measure` compares what each has read."""
    with DemoServer(build("scale", sessions=1, scans=60, files=2, file_size=40_000)) as server:
        server.switches.bandwidth = 4e6  # so that there is a midway
        outcome = measure(server, SIZE, tmp_path, str(tmp_path / "shared"), 16, 4, worst=False)
    assert outcome.killed == 4
    assert 1 <= outcome.times <= 1.05
