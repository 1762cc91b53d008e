"""Contents that are not what was listed: zip bombs, members with names of their own, files without an end,
names SQLite refuses.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import composed, read, walk
from xnatfs.cache.corrections import Corrections
from xnatfs.cache.listing_store import ListingStore
from xnatfs.cache.measurement_store import MeasurementStore
from xnatfs.content import temporary, zip_batch
from xnatfs.content.access_pattern import ResourceAccess
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import Downloads, Stream, _members
from xnatfs.server.records import FileRecord, Owner

FILES = 12
ZEROS = bytes(256 * 1024)


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=1, scans=1, files=FILES, file_size=1000)) as made:
        yield made


Member = tuple[str, "int | None", Iterator[bytes]]


class Bomb:
    """A zip of a test's making in place of the server's; counts what is taken of it."""

    def __init__(self) -> None:
        self.bytes = self.members = self.opened = 0

    def zip(self, members: Any) -> Any:
        @contextlib.contextmanager
        def opened(_: object, record: FileRecord, *more: object) -> Iterator[Iterator[Member]]:
            self.opened += 1
            yield self._counted(members(record))

        return opened

    def _counted(self, members: Iterator[Member]) -> Iterator[Member]:
        for path, size, pieces in members:
            self.members += 1
            yield path, size, self._pieces(pieces)

    def _pieces(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.bytes += len(piece)
            yield piece


def inflating(record: FileRecord) -> Iterator[Member]:
    """The first file, and it never ends."""
    yield record.path, None, itertools.repeat(ZEROS)


def strangers(_: FileRecord) -> Iterator[Member]:
    """Files nobody listed, without an end."""
    return ((f"x{number}", 0, iter(())) for number in itertools.count())


def outside(_: FileRecord) -> Iterator[Member]:
    """Names that would lead out of any folder."""
    names = [
        "../../../evil",
        "/evil",
        "..",
        "C:\\evil",
        "CON",
        "a\0b",
        "\x1b[2J",
        "evil.zip/evil",
        "\udcff",
        "",
    ]
    return ((name, 4, iter([b"evil"])) for name in names)


@pytest.mark.parametrize("members", [inflating, strangers, outside])
def test_a_zip_that_is_not_what_was_listed_costs_little_and_no_file(
    server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: Any
) -> None:
    monkeypatch.setattr(zip_batch, "_SLACK", 2**20)
    monkeypatch.setattr(ResourceAccess, "worth_a_zip", lambda *_, **__: True)
    bomb = Bomb()
    monkeypatch.setattr(Downloads, "zip", bomb.zip(members))
    with composed(server.url, tmp_path) as mounted:
        paths = [path for path, _ in walk(mounted.vfs, "/projects") if "/SCANS/" in path]
        assert len(paths) == FILES
        for path in paths:
            assert len(read(mounted.vfs, path)) == 1000
    assert 1 <= bomb.opened <= FILES, "each file may try it, as the patched rule says"
    assert bomb.bytes <= bomb.opened * (2 * FILES * 1000 + 2**20 + len(ZEROS))
    assert bomb.members <= bomb.opened * (2 * FILES + 1001)
    assert not list(tmp_path.rglob("*evil*")) and not list(tmp_path.parent.glob("*evil*"))


def test_members_of_a_true_zip_with_such_names_are_only_names() -> None:
    buffer = io.BytesIO()
    names = ["L/scans/1-T/resources/R/files/../../x", "/etc/passwd", "L/resources/R/files//a", "\x1b.dcm"]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, ZEROS * 40)
    data = buffer.getvalue()
    assert len(data) < 100_000
    largest = 0
    found = []
    for path, _, pieces in _members(data[at : at + 1000] for at in range(0, len(data), 1000)):
        found.append(path)
        largest = max(largest, *map(len, pieces))
    assert found == ["../../x", "/etc/passwd", "/a", "\x1b.dcm"]
    assert largest <= len(ZEROS), "10 MiB come in pieces"


def test_a_file_for_a_table_without_an_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "_MOST", 3 * 2**20)
    made = temporary.TemporaryDownloads.__new__(temporary.TemporaryDownloads)
    made._folder = tmp_path
    record = FileRecord(Owner("experiment", "E"), 1, "R", "aseg.stats", 100, "")
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += len(ZEROS)
            yield ZEROS

    with pytest.raises(Failure) as caught:
        made._spooled(record, Stream(None, "", endless()), True)
    assert caught.value.cause is Cause.TOO_LARGE
    assert taken <= 4 * 2**20


SURROGATE = "a\ud800\udcff\0'\";--"


def test_names_that_sqlite_refuses_are_kept_all_the_same(tmp_path: Path) -> None:
    learnt = Corrections(tmp_path / "learnt.sqlite")
    learnt.put("bad digest", SURROGATE, SURROGATE)
    assert learnt.get("bad digest", SURROGATE) is not None
    learnt.close()
    again = Corrections(tmp_path / "learnt.sqlite")
    assert again.get("bad digest", SURROGATE) is not None and again.get("bad digest", "other") is None
    again.close()

    listings = ListingStore(tmp_path / "listings.sqlite")
    listings.put("files", SURROGATE, SURROGATE, SURROGATE)
    listings.flush()
    stored = listings.get("files", SURROGATE)
    assert stored is not None and stored.body == SURROGATE
    listings.drop("files", SURROGATE)
    assert listings.get("files", SURROGATE) is None
    listings.close()

    rows = MeasurementStore(tmp_path / "measurements.sqlite")
    rows.put_parsed(SURROGATE, SURROGATE, SURROGATE, "", "[]")
    rows.put_choice(SURROGATE, SURROGATE, SURROGATE, SURROGATE)
    assert rows.parsed(SURROGATE) is not None and rows.choice(SURROGATE) is not None
    rows.confirm(SURROGATE, "new")
    assert rows.stamp(SURROGATE) == "new"
    rows.close()
