"""Several streams at once, where the line rewards them: counted in the server's log. How many are rewarded is
`tests/unit/test_streams.py`'s; here it is given.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import md5, read, until
from tests.vfs.conftest import FOLDER, Compose, Shelf
from tests.vfs.test_batches import counted, served
from xnatfs.config import Limits
from xnatfs.content import zip_scheduler
from xnatfs.content.stream_tuner import StreamTuner
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import ComputedContent
from xnatfs.demo.server import DemoServer

KIB, MIB = 1024, 1 << 20
SCANS = "/projects/SCALE/subjects/sub00001/sub00001_MR1/SCANS"
HELD_BACK = 128 * KIB
_HANDOVER_S = 0.02


@pytest.fixture
def rewarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many streams the line rewards: what a test puts here."""
    streams = [4]
    monkeypatch.setattr(StreamTuner, "_allowed", lambda self: streams[0])
    return streams


def at_once(server: DemoServer, pattern: str) -> int:
    """The most answers with these targets that were under way at the same time: for longer than the moment
    between one that ends and the next, seen by the server in either order.
    """
    marks = []
    for one in server.requests(pattern):
        lasted = (one.duration or 1e9) - _HANDOVER_S
        if lasted > 0:
            marks += [(one.time, 1), (one.time + lasted, -1)]
    most = now = 0
    for _, change in sorted(marks):
        now += change
        most = max(most, now)
    return most


def sent(server: DemoServer, pattern: str) -> int:
    return sum(one.sent for one in server.requests(pattern))


# --- a large file -------------------------------------------------------------------------------------------


def test_a_large_file_comes_by_as_many_streams_as_are_rewarded_and_every_byte_once(
    shelf: Shelf, compose: Compose, rewarded: list[int]
) -> None:
    content = ComputedContent("large", 20 * MIB + 17)
    shelf.put(shelf.make.entry("f", content))
    mounted = compose(shelf.server)
    shelf.switches.latency_ms, shelf.switches.connection_bandwidth = 5, 20e6
    assert read(mounted.vfs, f"{FOLDER}/f", MIB) == content.read(0, content.size)
    assert 3 <= at_once(shelf.server, "/files/f") <= rewarded[0] + 1  # one may be about to end
    until(lambda: mounted.content_manager.counts()["transfers"] == 0)
    assert sent(shelf.server, "/files/f") == content.size
    assert b"md5" in mounted.vfs.xattr(f"{FOLDER}/f", "user.xnat.verified")


def test_one_stream_where_more_are_not_rewarded(shelf: Shelf, compose: Compose, rewarded: list[int]) -> None:
    rewarded[0] = 1
    content = ComputedContent("large", 20 * MIB)
    shelf.put(shelf.make.entry("f", content))
    mounted = compose(shelf.server)
    shelf.switches.latency_ms, shelf.switches.connection_bandwidth = 5, 60e6
    assert read(mounted.vfs, f"{FOLDER}/f", MIB) == content.read(0, content.size)
    assert at_once(shelf.server, "/files/f") <= 2  # the next one is asked for when one is about to end
    assert sent(shelf.server, "/files/f") == content.size


def test_bytes_out_of_order_with_a_wrong_digest_are_an_error_before_the_last_block(
    shelf: Shelf, compose: Compose, rewarded: list[int]
) -> None:
    content = ComputedContent("large", 24 * MIB)
    shelf.put(shelf.make.entry("f", content, digest="0" * 32))
    vfs = compose(shelf.server).vfs
    shelf.switches.connection_bandwidth = 20e6
    opened = vfs.open(f"{FOLDER}/f")
    with pytest.raises(OSError) as caught:
        for offset in range(0, content.size, HELD_BACK):
            assert vfs.read(opened.handle, offset, HELD_BACK) == content.read(offset, HELD_BACK)
            assert offset < content.size - HELD_BACK, "the last block was served"
    assert caught.value.errno == errno.EIO
    vfs.release(opened.handle)
    assert at_once(shelf.server, "/files/f") >= 3


def test_a_file_that_changes_under_several_streams_is_stale_and_never_mixed(
    shelf: Shelf, compose: Compose, rewarded: list[int]
) -> None:
    old, new = ComputedContent("old", 40 * MIB), ComputedContent("new", 40 * MIB)
    entry = shelf.put(shelf.make.entry("f", old, digest=""))
    vfs = compose(shelf.server).vfs
    shelf.switches.connection_bandwidth = 10e6
    opened = vfs.open(f"{FOLDER}/f")

    def change() -> None:
        entry.content, entry.modified = new, shelf.archive.tick()

    with pytest.raises(OSError) as caught:
        for offset in range(0, old.size, MIB):
            assert vfs.read(opened.handle, offset, MIB) == old.read(offset, MIB)
            if offset == 5 * MIB:
                shelf.server.call(change)
    assert caught.value.errno == errno.ESTALE
    vfs.release(opened.handle)


def test_a_further_stream_that_the_server_refuses_does_not_show(
    shelf: Shelf, compose: Compose, rewarded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = ComputedContent("large", 24 * MIB)
    shelf.put(shelf.make.entry("f", content))
    refusals: list[int] = []
    monkeypatch.setattr(StreamTuner, "refused", lambda self: refusals.append(1) or rewarded.__setitem__(0, 1))
    vfs = compose(shelf.server).vfs
    shelf.switches.connection_bandwidth = 20e6
    opened = vfs.open(f"{FOLDER}/f")
    came = vfs.read(opened.handle, 0, MIB)
    # All but the streams that the reader waits for: those before here are under way or done.
    shelf.switches.match, shelf.switches.fail_status = "/files/f", 403
    shelf.switches.fail_next = 1
    rest = b""
    while len(came) + len(rest) < content.size:
        try:
            rest += vfs.read(opened.handle, len(came) + len(rest), MIB)
        except OSError:  # the one refused was the one that the reader waited for
            shelf.switches.fail_next = 0
    assert came + rest == content.read(0, content.size)
    vfs.release(opened.handle)


def test_many_readers_never_have_more_connections_than_there_are_for_contents(
    shelf: Shelf, compose: Compose, rewarded: list[int]
) -> None:
    rewarded[0] = 8
    contents = [ComputedContent(f"large{number}", 16 * MIB) for number in range(4)]
    for number, content in enumerate(contents):
        shelf.put(shelf.make.entry(f"f{number}", content))
    limits = Limits(cache_size=10**9, ttl=3600.0, progress_deadline=20.0, connections=4)
    mounted = compose(shelf.server, limits=limits)
    mounted.vfs.entries(FOLDER)
    shelf.switches.connection_bandwidth = 20e6
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = md5(read(mounted.vfs, f"{FOLDER}/f{number}", MIB))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: md5(one.read(0, one.size)) for number, one in enumerate(contents)}
    assert at_once(shelf.server, "/files/f") <= 3


def test_a_newcomer_gets_a_connection_from_a_file_that_has_several(
    shelf: Shelf, compose: Compose, rewarded: list[int]
) -> None:
    large = ComputedContent("large", 400 * MIB)
    shelf.put(shelf.make.entry("f", large, digest=""))
    shelf.put(shelf.make.entry("small", b"small"))
    limits = Limits(cache_size=10**9, ttl=3600.0, progress_deadline=20.0, connections=4)
    mounted = compose(shelf.server, limits=limits)
    mounted.vfs.entries(FOLDER)
    shelf.switches.connection_bandwidth = 10e6
    over = threading.Event()

    def copy() -> None:
        opened = mounted.vfs.open(f"{FOLDER}/f")
        offset = 0
        while not over.is_set() and offset < large.size:
            offset += len(mounted.vfs.read(opened.handle, offset, HELD_BACK))
        mounted.vfs.release(opened.handle)

    reader = threading.Thread(target=copy)
    reader.start()
    try:
        until(lambda: mounted.content_manager.context.workers.spare == 0)
        assert read(mounted.vfs, f"{FOLDER}/small") == b"small"
        assert reader.is_alive()  # 400 MiB at 30 MB/s
    finally:
        over.set()
        reader.join(30)


# --- zips ---------------------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Iterator[tuple[DemoServer, Core]]:
    """Six scans of 30 files of 100 kB."""
    archive = build("scale", sessions=1, scans=6, files=30, file_size=100_000)
    with served(tmp_path, Switches(latency_ms=10), archive) as found:
        yield found


def read_scan(mounted: Core, scan: str) -> None:
    folder = f"{SCANS}/{scan}/DICOM"
    for name, _ in mounted.vfs.entries(folder):
        assert len(read(mounted.vfs, f"{folder}/{name}")) == 100_000


def test_a_walk_through_listed_scans_has_zips_side_by_side_and_each_once(
    session: tuple[DemoServer, Core], rewarded: list[int]
) -> None:
    server, mounted = session
    names = [name for name, _ in mounted.vfs.entries(SCANS)]
    server.switches.connection_bandwidth = 3e6
    for name in names:
        read_scan(mounted, name)
    zips, _ = counted(server)
    assert zips == 6
    # The log ends an answer a moment after the client has it.
    assert 3 <= at_once(server, "format=zip") <= rewarded[0] + 1
    assert sent(server, "/files") < 1.1 * 6 * 30 * 100_000


def test_one_scan_that_was_not_found_by_listing_pulls_no_other(
    session: tuple[DemoServer, Core], rewarded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script converts a scan whose path it knows."""
    server, mounted = session
    names = [name for name, _ in mounted.vfs.entries(SCANS)]
    monkeypatch.setattr(zip_scheduler, "_LISTED_S", 0.0)
    read_scan(mounted, names[0])
    assert counted(server)[0] == 1


def test_one_stream_fetches_the_scans_of_a_walk_one_after_the_other(
    session: tuple[DemoServer, Core], rewarded: list[int]
) -> None:
    server, mounted = session
    rewarded[0] = 1
    names = [name for name, _ in mounted.vfs.entries(SCANS)]
    server.switches.connection_bandwidth = 6e6
    for name in names:
        read_scan(mounted, name)
    assert counted(server)[0] == 6
    assert at_once(server, "format=zip") <= 2  # the next one is asked for when one is about to end


def test_the_bound_of_what_is_fetched_ahead_holds(tmp_path: Path, rewarded: list[int]) -> None:
    archive = build("scale", sessions=1, scans=6, files=30, file_size=100_000)
    limits = Limits(cache_size=10**9, min_free=0, ahead=7_000_000)  # two scans and a bit
    with served(tmp_path, Switches(latency_ms=10), archive, limits) as (server, mounted):
        names = [name for name, _ in mounted.vfs.entries(SCANS)]
        read_scan(mounted, names[0])
        until(lambda: mounted.content_manager.counts()["transfers"] == 0)
        assert counted(server)[0] == 3


def test_other_readers_get_a_connection_from_the_zips_ahead(tmp_path: Path, rewarded: list[int]) -> None:
    """One of them ends for it: its scan is fetched again when the walk comes there."""
    rewarded[0] = 3
    archive = build("scale", sessions=1, scans=4, files=16, file_size=100_000, big_files={"one.nii": 1 << 20})
    limits = Limits(cache_size=10**9, min_free=0, connections=4)
    with served(tmp_path, Switches(latency_ms=50), archive, limits) as (server, mounted):
        other = "/projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI"
        mounted.vfs.entries(other)
        names = [name for name, _ in mounted.vfs.entries(SCANS)]
        folder = f"{SCANS}/{names[0]}/DICOM"
        files = [name for name, _ in mounted.vfs.entries(folder)]
        for name in files[:2]:
            read(mounted.vfs, f"{folder}/{name}")
        server.switches.connection_bandwidth = 400_000
        for name in files[2:4]:
            read(mounted.vfs, f"{folder}/{name}")
        until(lambda: mounted.content_manager.context.workers.spare == 0)
        assert len(read(mounted.vfs, f"{other}/one.nii", MIB)) == MIB
        server.switches.connection_bandwidth = 0
        for name in names:
            folder = f"{SCANS}/{name}/DICOM"
            assert [len(read(mounted.vfs, f"{folder}/{file}")) for file in files] == [100_000] * len(files)
        until(lambda: mounted.content_manager.counts()["transfers"] == 0)
        assert at_once(server, "/files[/?]") <= 3
