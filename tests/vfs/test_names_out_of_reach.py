"""Files that the server cannot be asked for by themselves, or at all: how many requests that costs, and what
is said of it.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.support import read, walk
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.content.temporary import TemporaryDownloads
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord, Owner
from xnatfs.vfs import Vfs


def refused(vfs: Vfs, path: str) -> int | None:
    with pytest.raises(OSError) as caught:
        read(vfs, path)
    return caught.value.errno


def zips(server: DemoServer) -> int:
    return len(server.requests("format=zip"))


def singles(server: DemoServer) -> int:
    return len(server.requests(r"/resources/\d+/files/"))


def oddities(vfs: Vfs) -> list[str]:
    return [
        line
        for line in read(vfs, "/.xnatfs/oddities.txt").decode().splitlines()
        if "XNAT cannot serve" in line
    ]


def unanswered(shelf: Shelf) -> None:
    """The stand-in finds a name with a TAB, which the real server does not."""
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "%09", 404, -1


@pytest.mark.parametrize(("name", "shown"), [("a\\b.txt", "a\\b.txt"), ("a\tb.txt", "a%09b.txt")])
def test_a_name_with_a_backslash_or_a_tab_is_one_error_and_one_line(
    shelf: Shelf, compose: Compose, name: str, shown: str
) -> None:
    unanswered(shelf)
    for path in ("before", name, "after"):
        shelf.put(shelf.make.entry(path, b"data"))
    vfs = compose(shelf.server).vfs
    assert {path for path, _ in vfs.entries(FOLDER)} == {"before", shown, "after"}
    shelf.server.clear_log()
    assert refused(vfs, f"{FOLDER}/{shown}") == errno.EIO
    assert [one.method for one in shelf.server.requests()] == ["GET"] and not zips(shelf.server)
    for _ in range(3):
        assert refused(vfs, f"{FOLDER}/{shown}") == errno.EIO
    assert (len(shelf.server.requests()), zips(shelf.server)) == (4, 0)
    assert len(oddities(vfs)) == 1


def test_a_copy_of_a_resource_with_such_names_costs_one_zip(shelf: Shelf, compose: Compose) -> None:
    unanswered(shelf)
    shelf.switches.latency_ms = 5
    bad = ["a\\b", "c\\d\\e", "f\tg", "h\\i"]
    for number in range(60):
        shelf.put(shelf.make.entry(f"{number:02}", b"%d" % number))
        if number % 15 == 14:
            shelf.put(shelf.make.entry(bad[number // 15], b"bad"))
    vfs = compose(shelf.server).vfs
    names = [name for name, _ in walk(vfs, FOLDER)]
    errors = 0
    for name in names:
        if name.rpartition("/")[2].isdigit():
            assert read(vfs, name) == b"%d" % int(name.rpartition("/")[2])
        else:
            errors += refused(vfs, name) == errno.EIO
    assert errors == 4 == len(oddities(vfs))
    assert zips(shelf.server) == 1 and singles(shelf.server) <= 4 + 2


def test_what_a_whole_zip_did_not_bring_is_not_looked_for_in_another(shelf: Shelf, compose: Compose) -> None:
    """Some are missing on the server's disk, some are not what the catalogue says: one zip, then each by
    itself.
    """
    shelf.switches.latency_ms = 20
    shelf.switches.zip_omit = ["1?"]
    for number in range(40):
        stale = number // 10 == 2
        shelf.put(
            shelf.make.entry(
                f"{number:02}",
                b"%d" % number,
                catalog_size=1000 if stale else None,
                digest="" if stale else None,
            )
        )
    vfs = compose(shelf.server).vfs
    for path, _ in walk(vfs, FOLDER):
        assert read(vfs, path) == b"%d" % int(path.rpartition("/")[2])
    assert (
        zips(shelf.server) == 1 and singles(shelf.server) <= 10 + 2 * 10 + 2
    )  # a wrong size without a digest is looked at twice


def test_several_names_that_only_the_zip_has_cost_two_zips_not_one_each(
    shelf: Shelf, compose: Compose
) -> None:
    for number in range(8):
        shelf.put(shelf.make.entry(f"a;{number}", b"%d" % number * 500_000))
    vfs = compose(shelf.server).vfs
    for number in range(8):
        assert read(vfs, f"{FOLDER}/a;{number}") == b"%d" % number * 500_000
    assert zips(shelf.server) == 2 and singles(shelf.server) == 1


@pytest.mark.parametrize(("name", "most"), [("a;b", 1), ("a\\b", 0)])
def test_a_table_does_not_fetch_the_zip_again_and_again(
    shelf: Shelf, compose: Compose, tmp_path: Path, name: str, most: int
) -> None:
    shelf.put(shelf.make.entry(name, b"data"))
    shelf.put(shelf.make.entry("other", b"data"))
    shelf.switches.zip_omit = ["a*"]
    mounted = compose(shelf.server)
    loose = TemporaryDownloads(mounted.content_manager.context, tmp_path)
    record = FileRecord(Owner("experiment", shelf.session.id), shelf.resource.id, "R", name, 4, "")
    with pytest.raises(Failure) as caught:
        loose.fetch(record, listed=True)
    assert caught.value.cause is Cause.GONE
    assert zips(shelf.server) == most and singles(shelf.server) == 1
