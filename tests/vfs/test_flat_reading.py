"""What a reader of a flat folder has fetched ahead, and what that costs, counted in the server's log."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import read, until
from tests.vfs.conftest import LIMITS, Compose
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

FLAT = "/views/SCALE/by-scan-type/TYPE1/usable/NIFTI"
FILES = 40
MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer(
        build("scale", sessions=FILES, scans=1, files=1, file_size=200_000, resource="NIFTI"),
        Switches(latency_ms=10),
    ) as made:
        yield made


@pytest.fixture
def large() -> Iterator[DemoServer]:
    with DemoServer(
        build("scale", sessions=8, scans=1, files=1, file_size=10 * MIB, resource="NIFTI", digests=False)
    ) as made:
        yield made


def listed(mounted: Core, server: DemoServer) -> dict[str, int]:
    """The names in the folder with their inode numbers."""
    found = {f"{FLAT}/{name}": attributes.inode for name, attributes in mounted.vfs.entries(FLAT)}
    server.clear_log()
    return found


def fetched(server: DemoServer) -> Counter[str]:
    """How often each file was asked for, once nothing more is."""
    seen = -1

    def at_rest() -> bool:
        nonlocal seen
        before, seen = seen, len(server.requests())
        return before == seen

    until(at_rest)
    return Counter(re.sub(r".*/experiments/(\w+)/.*", r"\1", one.path) for one in server.requests())


@pytest.mark.parametrize("order", ["names", "inodes"])
def test_a_walk_fetches_each_file_once_and_side_by_side(
    server: DemoServer, compose: Compose, order: str
) -> None:
    mounted = compose(server)
    paths = listed(mounted, server)
    way = sorted(paths) if order == "names" else sorted(paths, key=paths.__getitem__)
    for path in way[:4]:
        assert len(read(mounted.vfs, path)) == 200_000
    until(lambda: len(server.requests()) >= 10)  # more than were read
    for path in way[4:]:
        read(mounted.vfs, path)
    assert set(fetched(server).values()) == {1} and len(server.requests()) == FILES


def test_a_shuffled_reader_costs_no_more_than_one_request_a_file(
    server: DemoServer, compose: Compose
) -> None:
    mounted = compose(server)
    way = sorted(listed(mounted, server))
    random.Random(11).shuffle(way)
    for path in way[:10]:
        read(mounted.vfs, path)
    assert sum(fetched(server).values()) <= 14
    for path in way[10:]:
        read(mounted.vfs, path)
    assert set(fetched(server).values()) == {1}


def test_who_reads_headers_has_nothing_fetched_ahead(large: DemoServer, compose: Compose) -> None:
    mounted = compose(large)
    for path in sorted(listed(mounted, large)):
        opened = mounted.vfs.open(path)
        assert len(mounted.vfs.read(opened.handle, 0, 65536)) == 65536
        mounted.vfs.release(opened.handle)
    assert sum(fetched(large).values()) == 8
    assert sum(one.sent for one in large.requests()) < 8 * 2 * MIB


def test_large_files_are_fetched_ahead_whole_and_once(large: DemoServer, compose: Compose) -> None:
    mounted = compose(large)
    for path in sorted(listed(mounted, large)):
        assert len(read(mounted.vfs, path)) == 10 * MIB
    fetched(large)
    assert sum(one.sent for one in large.requests()) < 1.05 * 8 * 10 * MIB


def test_what_is_ahead_fits_the_cache(compose: Compose) -> None:
    archive = build("scale", sessions=30, scans=1, files=1, file_size=MIB, resource="NIFTI", digests=False)
    with DemoServer(archive) as server:
        mounted = compose(server, limits=LIMITS.__class__(cache_size=8 * MIB, ttl=3600.0))
        paths = sorted(listed(mounted, server))
        for path in paths:
            assert len(read(mounted.vfs, path)) == MIB
        assert set(fetched(server).values()) == {1} and len(server.requests()) == 30


def test_a_reader_who_comes_meanwhile_waits_for_what_is_on_its_way(
    server: DemoServer, compose: Compose
) -> None:
    mounted = compose(server)
    way = sorted(listed(mounted, server))
    read(mounted.vfs, way[0])
    server.switches.latency_ms = 300
    threads = [threading.Thread(target=read, args=(mounted.vfs, path)) for path in way[1:5]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    server.switches.latency_ms = 0
    for path in way[5:]:
        read(mounted.vfs, path)
    assert set(fetched(server).values()) == {1}


def test_a_broken_file_among_them_is_met_by_its_reader_only(server: DemoServer, compose: Compose) -> None:
    mounted = compose(server)
    way = sorted(listed(mounted, server))
    server.switches.match = "/experiments/DEMO_E00010/"
    server.switches.fail_next = -1
    server.switches.fail_status = 404
    for number, path in enumerate(way):
        if "DEMO_E00010" in path:
            with pytest.raises(OSError):
                read(mounted.vfs, path)
        else:
            assert len(read(mounted.vfs, path)) == 200_000, number
