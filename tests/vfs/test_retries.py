"""What a file, a zip, a listing or a table's file costs a server that answers nothing but errors: its log has
the requests and the pauses between them (`xnatfs.retry`)."""

from __future__ import annotations

import errno
import itertools
import stat
import time

import pytest

from tests.support import read
from tests.vfs.conftest import FOLDER, Compose, Shelf
from tests.vfs.test_tables import NOW, rows
from tests.vfs.test_tables_doubts import TABLE, with_aseg
from xnatfs import retry
from xnatfs.demo.requestlog import Record
from xnatfs.vfs import Vfs

MIB = 1 << 20
TROUBLE = pytest.mark.parametrize("status", [500, 503])


@pytest.fixture(autouse=True)
def pauses_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.05)


def fail(shelf: Shelf, match: str, status: int, times: int = -1) -> None:
    shelf.server.clear_log()
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = match, status, times


def refused(vfs: Vfs, path: str) -> int:
    """The errno of listing it, or of reading it."""
    with pytest.raises(OSError) as caught:
        if stat.S_ISDIR(vfs.attributes(path).mode):
            vfs.entries(path)
        read(vfs, path)
    assert caught.value.errno is not None
    return caught.value.errno


def check(requests: list[Record]) -> None:
    """As many as the budget allows, and further and further apart."""
    assert len(requests) == retry.REQUESTS == 5
    gaps = [after.time - before.time for before, after in itertools.pairwise(requests)]
    least = [0.05 * (1 - retry.JITTER) * 2**number for number in range(4)]
    assert all(gap >= pause for gap, pause in zip(gaps, least, strict=True)), gaps


@TROUBLE
@pytest.mark.parametrize("digest", [True, False])
def test_a_small_file(shelf: Shelf, compose: Compose, status: int, digest: bool) -> None:
    shelf.put(shelf.make.entry("f", b"x" * 10_000, digest=None if digest else ""))
    vfs = compose(shelf.server).vfs
    assert stat.S_ISREG(vfs.attributes(f"{FOLDER}/f").mode)
    fail(shelf, "/files/f", status)
    assert refused(vfs, f"{FOLDER}/f") == errno.EIO
    check(shelf.server.requests("/files/f"))
    shelf.switches.fail_next = 0
    assert read(vfs, f"{FOLDER}/f") == b"x" * 10_000


@TROUBLE
def test_a_large_file(shelf: Shelf, compose: Compose, status: int) -> None:
    data = bytes(range(256)) * (10 * MIB // 256)
    shelf.put(shelf.make.entry("f", data))
    vfs = compose(shelf.server).vfs
    assert stat.S_ISREG(vfs.attributes(f"{FOLDER}/f").mode)
    fail(shelf, "/files/f", status)
    assert refused(vfs, f"{FOLDER}/f") == errno.EIO
    check(shelf.server.requests("/files/f"))
    shelf.switches.fail_next = 0
    assert read(vfs, f"{FOLDER}/f") == data


@TROUBLE
def test_a_large_file_that_begins_to_fail_while_it_is_read(
    shelf: Shelf, compose: Compose, status: int
) -> None:
    shelf.put(shelf.make.entry("f", b"x" * 10 * MIB))
    vfs = compose(shelf.server).vfs
    opened = vfs.open(f"{FOLDER}/f")
    assert vfs.read(opened.handle, 0, 1000) == b"x" * 1000
    fail(shelf, "/files/f", status)
    with pytest.raises(OSError) as caught:
        vfs.read(opened.handle, 8 * MIB, 1000)
    assert caught.value.errno == errno.EIO
    check(shelf.server.requests("/files/f"))
    vfs.release(opened.handle)


@TROUBLE
@pytest.mark.parametrize("name", ["a;b", "50%"])
def test_a_file_that_may_have_to_come_from_the_zip(
    shelf: Shelf, compose: Compose, status: int, name: str
) -> None:
    """By itself and as a part of the zip together, not one after the other."""
    shelf.put(shelf.make.entry(name, b"data"))
    shelf.switches.firewall = False
    vfs = compose(shelf.server).vfs
    names = [one for one, _ in vfs.entries(FOLDER)]
    fail(shelf, "/files/|format=zip", status)
    assert refused(vfs, f"{FOLDER}/{names[0]}") == errno.EIO
    assert len(shelf.server.requests("/files/.|format=zip")) <= retry.REQUESTS


@TROUBLE
def test_a_zip(shelf: Shelf, compose: Compose, status: int) -> None:
    for number in range(12):
        shelf.put(shelf.make.entry(f"f{number}", b"%d" % number * 20_000))
    shelf.switches.latency_ms = 20
    vfs = compose(shelf.server).vfs
    names = [name for name, _ in vfs.entries(FOLDER)]
    fail(shelf, "format=zip", status)
    for name in names:
        assert len(read(vfs, f"{FOLDER}/{name}")) == len(name[1:]) * 20_000
    asked = shelf.server.requests("format=zip")
    assert len(asked) % retry.REQUESTS == 0 and asked
    check(asked[: retry.REQUESTS])


@TROUBLE
def test_a_listing(shelf: Shelf, compose: Compose, status: int) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    vfs = compose(shelf.server).vfs
    vfs.entries(FOLDER.rsplit("/", 1)[0])
    fail(shelf, r"/files(\?|$)", status)
    assert refused(vfs, FOLDER) == errno.EIO
    # What fails for a whole session is asked once more for the resource: one catalog may be what is broken.
    check(shelf.server.requests(r"/files\?.*all="))
    check(shelf.server.requests(r"/resources/\d+/files\?"))


def test_a_file_of_a_table(shelf: Shelf, compose: Compose) -> None:
    """Where its path is guessed, where the listing has it, and after a look whether the server is well."""
    with_aseg(shelf, "one", "two", "three")
    mounted = compose(shelf.server, limits=NOW)
    fail(shelf, "two/stats", 500)
    assert {row["label"] for row in rows(mounted, TABLE)} == {"one", "three"}
    requests = shelf.server.requests("two/stats")
    assert len(requests) == retry.REQUESTS
    assert requests[-1].time - requests[0].time > 0.2 * (1 - retry.JITTER)


def test_a_file_of_a_table_while_the_server_is_busy(shelf: Shelf, compose: Compose) -> None:
    with_aseg(shelf, "one", "two", "three")
    vfs = compose(shelf.server, limits=NOW).vfs
    fail(shelf, "two/stats", 503)
    assert refused(vfs, TABLE) == errno.EIO
    assert 2 <= len(shelf.server.requests("two/stats")) <= retry.REQUESTS


@pytest.mark.parametrize("times", [1, 2, 4])
def test_what_passes_costs_no_more_than_it_lasts(shelf: Shelf, compose: Compose, times: int) -> None:
    shelf.put(shelf.make.entry("f", b"data"))
    vfs = compose(shelf.server).vfs
    assert stat.S_ISREG(vfs.attributes(f"{FOLDER}/f").mode)
    fail(shelf, "/files/f", 503, times)
    assert read(vfs, f"{FOLDER}/f") == b"data"
    assert [one.status for one in shelf.server.requests("/files/f")] == [503] * times + [200]


def test_failures_of_different_kinds_spend_one_budget(shelf: Shelf, compose: Compose) -> None:
    """An answer that is cut each time, after errors each time: tries at two levels add up."""
    shelf.put(shelf.make.entry("f", b"x" * 10_000))
    vfs = compose(shelf.server).vfs
    assert stat.S_ISREG(vfs.attributes(f"{FOLDER}/f").mode)
    shelf.switches.cut_after_bytes = 100
    fail(shelf, "/files/f", 503, 2)
    began = time.monotonic()
    assert refused(vfs, f"{FOLDER}/f") == errno.EIO
    assert [one.status for one in shelf.server.requests("/files/f")] == [503, 503, 200, 200, 200]
    assert time.monotonic() - began < 5
