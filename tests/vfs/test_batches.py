"""Whole resources as zips, parts of large files: what crosses the wire, counted in the server's log."""

from __future__ import annotations

import contextlib
import errno
import random
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import composed, disk_usage, read, until, walk
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive, ComputedContent
from xnatfs.demo.server import DemoServer

KIB, MIB = 1024, 1 << 20
FILES = 1000


@contextlib.contextmanager
def served(
    folder: Path, switches: Switches, archive: Archive, limits: Limits | None = None
) -> Iterator[tuple[DemoServer, Core]]:
    with (
        DemoServer(archive, switches) as server,
        composed(server.url, folder, user="admin", limits=limits) as mounted,
    ):
        yield server, mounted


def resource_folder(mounted: Core, path: str = "/projects/SCALE/subjects") -> str:
    """The first folder that holds files."""
    name, _ = mounted.vfs.entries(path)[0]
    below = f"{path}/{name}"
    inner = mounted.vfs.entries(below)
    return resource_folder(mounted, path=below) if stat.S_ISDIR(inner[0][1].mode) else below


def counted(server: DemoServer) -> tuple[int, int]:
    """(zips, single files) asked for."""
    zips = server.requests(r"/files\?.*format=zip")
    return len(zips), len(server.requests(r"/files/[^?]"))


def content_of(server: DemoServer, path: str, size: int) -> bytes:
    """The true bytes of the file of this name in the first scan."""
    name = path.rsplit("/", 1)[1]
    for experiment in server.archive.experiments.values():
        for scan in experiment.scans:
            for resource in scan.resources:
                for entry in resource.entries:
                    if entry.path == name and entry.content is not None:
                        return entry.content.read(0, size)
    raise AssertionError(name)


@pytest.mark.parametrize("order", ["catalog", "name", "shuffled"])
def test_a_thousand_siblings_cost_one_zip_and_a_handful_of_files(tmp_path: Path, order: str) -> None:
    archive = build("scale", sessions=1, scans=1, files=FILES, file_size=20 * KIB, digests=False)
    with served(tmp_path, Switches(latency_ms=10), archive) as (server, mounted):
        folder = resource_folder(mounted)
        paths = [f"{folder}/{name}" for name, _ in mounted.vfs.entries(folder)]
        if order == "name":
            paths.sort()
        elif order == "shuffled":
            random.Random(7).shuffle(paths)
        truth = {
            entry.path: entry.content
            for one in archive.experiments.values()
            for scan in one.scans
            for entry in scan.resources[0].entries
        }
        for path in paths:
            content = truth[path.rsplit("/", 1)[1]]
            assert content is not None
            assert read(mounted.vfs, path) == content.read(0, content.size)
        zips, singles = counted(server)
        assert zips == 1
        assert singles <= 12
        server.clear_log()
        for path in paths[:100]:
            read(mounted.vfs, path)
        assert counted(server) == (0, 0)  # a second read costs none


def test_headers_over_a_slow_line_do_not_pull_the_whole(tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=1, files=60, file_size=400 * KIB, digests=False)
    with served(tmp_path, Switches(latency_ms=5, bandwidth=2.5e6), archive) as (server, mounted):
        folder = resource_folder(mounted)
        for name, _ in mounted.vfs.entries(folder):
            opened = mounted.vfs.open(f"{folder}/{name}")
            assert len(mounted.vfs.read(opened.handle, 0, 16 * KIB)) == 16 * KIB
            mounted.vfs.release(opened.handle)
        sent = sum(one.sent for one in server.requests("/files"))
        assert counted(server)[0] == 0
        assert sent < 60 * 400 * KIB * 0.5


def test_what_the_zip_lacks_is_fetched_singly(tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=1, files=60, file_size=50 * KIB)
    switches = Switches(latency_ms=20, zip_omit=["*7.dcm"])
    with served(tmp_path, switches, archive) as (server, mounted):
        folder = resource_folder(mounted)
        for name, _ in mounted.vfs.entries(folder):
            assert read(mounted.vfs, f"{folder}/{name}") == content_of(server, f"{folder}/{name}", 50 * KIB)
        zips, singles = counted(server)
        assert zips >= 1 and singles >= 6


def test_a_zip_that_ends_early_loses_nothing(tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=1, files=60, file_size=50 * KIB)
    with served(tmp_path, Switches(latency_ms=20, zip_stop_after=10), archive) as (server, mounted):
        folder = resource_folder(mounted)
        for name, _ in mounted.vfs.entries(folder):
            assert read(mounted.vfs, f"{folder}/{name}") == content_of(server, f"{folder}/{name}", 50 * KIB)


def test_a_resource_larger_than_the_cache_does_not_come_as_a_zip(tmp_path: Path) -> None:
    """Its files would be pushed out before they are read; and it is not looked for in the cache again at
    every file.
    """
    archive = build("scale", sessions=1, scans=1, files=60, file_size=50 * KIB)
    with served(tmp_path, Switches(latency_ms=20), archive, Limits(cache_size=2 * MIB, min_free=0)) as (
        server,
        mounted,
    ):
        folder = resource_folder(mounted)
        for name, _ in mounted.vfs.entries(folder):
            assert read(mounted.vfs, f"{folder}/{name}") == content_of(server, f"{folder}/{name}", 50 * KIB)
        assert counted(server) == (0, 60)


def test_a_zip_the_cache_has_no_room_for_is_not_tried_again_at_every_file(tmp_path: Path) -> None:
    archive = build("scale", sessions=1, scans=1, files=60, file_size=50 * KIB)
    with served(tmp_path, Switches(latency_ms=20), archive, Limits(cache_size=4 * MIB, min_free=0)) as (
        server,
        mounted,
    ):
        other = mounted.cache.draft(2 * MIB)  # somebody else's
        folder = resource_folder(mounted)
        started: list[str] = []
        pile = mounted.cache.pile
        mounted.cache.pile = lambda size: started.append("zip") or pile(size)  # type: ignore[method-assign, func-returns-value]
        for name, _ in mounted.vfs.entries(folder):
            assert read(mounted.vfs, f"{folder}/{name}") == content_of(server, f"{folder}/{name}", 50 * KIB)
        other.close()
        assert started == ["zip"] and counted(server) == (0, 60)


def big(mounted: Core) -> str:
    return f"{resource_folder(mounted, '/projects/BIG/subjects')}/one.nii"


def test_a_header_of_a_large_file_is_one_small_part(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, big_files={"one.nii": 256 * MIB}, big_digests=False)
    with served(tmp_path, Switches(), archive) as (server, mounted):
        opened = mounted.vfs.open(big(mounted))
        assert len(mounted.vfs.read(opened.handle, 0, 352)) == 352
        mounted.vfs.release(opened.handle)
        until(lambda: mounted.content_manager.counts()["transfers"] == 0)
        assert sum(one.sent for one in server.requests("/files/")) <= MIB


def test_random_reads_get_little_more_than_they_ask_for(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, big_files={"one.nii": 256 * MIB}, big_digests=False)
    with served(tmp_path, Switches(), archive) as (server, mounted):
        opened = mounted.vfs.open(big(mounted))
        chance = random.Random(3)
        for _ in range(100):
            offset = chance.randrange(0, 255 * MIB)
            assert len(mounted.vfs.read(opened.handle, offset, 64 * KIB)) == 64 * KIB
        mounted.vfs.release(opened.handle)
        assert sum(one.sent for one in server.requests("/files/")) < 3 * 100 * 64 * KIB + MIB


def test_parts_that_are_here_serve_after_a_remount(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, big_files={"one.nii": 64 * MIB}, big_digests=False)
    with DemoServer(archive) as server:
        for expected in (True, False):
            with composed(server.url, tmp_path, user="admin") as mounted:
                path = big(mounted)
                server.clear_log()
                opened = mounted.vfs.open(path)
                data = mounted.vfs.read(opened.handle, 0, 4096)
                mounted.vfs.release(opened.handle)
                until(lambda: mounted.content_manager.counts()["transfers"] == 0)
                assert len(data) == 4096
                bodies = [one for one in server.requests("/files/") if one.sent > 1000]
                assert (
                    bool(bodies) is expected
                )  # the second time only the question whether it is still the same file


def test_without_range_one_stream_serves_all(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, big_files={"one.nii": 12 * MIB}, big_digests=True)
    with served(tmp_path, Switches(no_range=True), archive) as (_, mounted):
        path = big(mounted)
        opened = mounted.vfs.open(path)
        content = next(
            entry.content
            for one in archive.experiments.values()
            for scan in one.scans
            for entry in scan.resources[0].entries
            if entry.path == "one.nii"
        )
        assert content is not None
        assert mounted.vfs.read(opened.handle, 7 * MIB, 4096) == content.read(7 * MIB, 4096)
        assert mounted.vfs.read(opened.handle, 0, 4096) == content.read(0, 4096)
        mounted.vfs.release(opened.handle)
        assert read(mounted.vfs, path, MIB) == content.read(0, 12 * MIB)


def test_the_cap_holds_while_many_read(tmp_path: Path) -> None:
    archive = build(
        "scale", sessions=1, scans=1, files=60, file_size=MIB, digests=False, big_files={"one.nii": 64 * MIB}
    )
    limits = Limits(cache_size=16 * MIB, min_free=0)
    with served(tmp_path, Switches(), archive, limits) as (_, mounted):
        folder = resource_folder(mounted)
        paths = [f"{folder}/{name}" for name, _ in mounted.vfs.entries(folder)] + [big(mounted)]
        truth = {
            entry.path: entry.content
            for one in archive.experiments.values()
            for scan in one.scans
            for entry in scan.resources[0].entries
        }
        wrong: list[str] = []
        peak = 0

        def work(number: int) -> None:
            for path in paths[number::10]:
                content = truth[path.rsplit("/", 1)[1]]
                assert content is not None
                opened = mounted.vfs.open(path)
                offset = 0
                while piece := mounted.vfs.read(opened.handle, offset, MIB):
                    if piece != content.read(offset, len(piece)):
                        wrong.append(path)
                    offset += len(piece)
                if offset != content.size:
                    wrong.append(path)
                mounted.vfs.release(opened.handle)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, disk_usage(mounted.cache.directory))
            threads[0].join(0.05)
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert peak <= 16 * MIB * 1.05


def test_after_an_outage_a_large_file_that_is_still_open_can_be_opened_again(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, big_files={"one.nii": 64 * MIB}, big_digests=False)
    with served(
        tmp_path, Switches(), archive, Limits(cache_size=10**9, min_free=0, progress_deadline=10)
    ) as (server, mounted):
        path = big(mounted)
        opened = mounted.vfs.open(path)
        mounted.vfs.read(opened.handle, 0, 4096)
        server.stop()
        with pytest.raises(OSError):
            mounted.vfs.read(opened.handle, 40 * MIB, 4096)
        server.start()
        again = mounted.vfs.open(path)
        assert len(mounted.vfs.read(again.handle, 40 * MIB, 4096)) == 4096
        assert len(mounted.vfs.read(opened.handle, 50 * MIB, 4096)) == 4096
        mounted.vfs.release(again.handle)
        mounted.vfs.release(opened.handle)


def test_a_small_file_does_not_wait_until_large_copies_end(tmp_path: Path) -> None:
    large = {f"f{number}.nii": 64 * MIB for number in range(4)}
    archive = build(
        "scale",
        sessions=1,
        scans=1,
        files=1,
        file_size=1000,
        digests=False,
        big_files=large,
        big_digests=False,
    )
    limits = Limits(cache_size=10**9, min_free=0, connections=4)
    with served(tmp_path, Switches(bandwidth=10e6), archive, limits) as (_, mounted):
        folders = [path for path, _ in walk(mounted.vfs, "/projects/BIG")]
        small = resource_folder(mounted)
        name = mounted.vfs.entries(small)[0][0]
        ended = threading.Event()

        def copy(path: str) -> None:
            opened = mounted.vfs.open(path)
            offset = 0
            while not ended.is_set() and offset < 64 * MIB:
                offset += len(mounted.vfs.read(opened.handle, offset, 131072))
            mounted.vfs.release(opened.handle)

        threads = [threading.Thread(target=copy, args=(path,)) for path in folders]
        for thread in threads:
            thread.start()
        until(lambda: mounted.connection.slots.in_use >= 3)
        assert len(read(mounted.vfs, f"{small}/{name}")) == 1000
        assert any(thread.is_alive() for thread in threads)  # 256 MiB at 10 MB/s take 26 s
        ended.set()
        for thread in threads:
            thread.join(30)


def test_large_files_without_a_length_are_read_whole(tmp_path: Path) -> None:
    archive = build("scale", sessions=0, big_files={"one.nii": 12 * MIB}, big_digests=True)
    with served(tmp_path, Switches(chunked_files=True, no_range=True), archive) as (_, mounted):
        path = big(mounted)
        entries = (
            entry
            for one in archive.experiments.values()
            for scan in one.scans
            for entry in scan.resources[0].entries
        )
        content = next(entry.content for entry in entries if entry.path == "one.nii")
        assert content is not None
        assert read(mounted.vfs, path, MIB) == content.read(0, 12 * MIB)


def test_an_empty_file_the_catalog_calls_large_does_not_turn_ranges_off(
    shelf: Shelf, compose: Compose
) -> None:
    shelf.put(shelf.make.entry("empty", b"", catalog_size=20 * MIB))
    mounted = compose(shelf.server)
    assert read(mounted.vfs, f"{FOLDER}/empty") == b""
    assert not mounted.content_manager.context.range_refused


@pytest.mark.parametrize("cache_size", [10**9, 2 * MIB])
def test_an_open_file_is_read_on_where_the_server_stops_telling_lengths(
    shelf: Shelf, compose: Compose, cache_size: int
) -> None:
    """A proxy that begins to compress or to chunk half-way: the date tells that it still is the same file."""
    content = ComputedContent("f", 20 * MIB)
    shelf.put(shelf.make.entry("f", content, digest=""))
    mounted = compose(
        shelf.server, limits=Limits(cache_size=cache_size, min_free=0, ttl=3600.0, progress_deadline=10)
    )
    opened = mounted.vfs.open(f"{FOLDER}/f")
    assert mounted.vfs.read(opened.handle, 0, 4096) == content.read(0, 4096)
    shelf.switches.chunked_files = shelf.switches.no_range = True
    assert mounted.vfs.read(opened.handle, 9 * MIB, 4096) == content.read(9 * MIB, 4096)
    mounted.vfs.release(opened.handle)


def test_a_large_file_without_a_length_that_has_no_room_is_read_once_there_are_lengths_again(
    shelf: Shelf, compose: Compose
) -> None:
    content = ComputedContent("f", 20 * MIB)
    shelf.put(shelf.make.entry("f", content, digest=""))
    mounted = compose(
        shelf.server, limits=Limits(cache_size=2 * MIB, min_free=0, ttl=3600.0, progress_deadline=10)
    )
    shelf.switches.chunked_files = shelf.switches.no_range = True
    with pytest.raises(OSError) as caught:
        read(mounted.vfs, f"{FOLDER}/f", MIB)
    assert caught.value.errno == errno.ENOSPC
    shelf.switches.chunked_files = shelf.switches.no_range = False
    assert read(mounted.vfs, f"{FOLDER}/f", MIB) == content.read(0, 20 * MIB)
