"""File contents that a proxy compresses on their way, though nobody asked for that."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.server.scripted import Answer, Asked, scripted
from tests.support import composed, read
from tests.vfs.conftest import FOLDER, Shelf
from xnatfs.core import Core
from xnatfs.demo.model import ComputedContent
from xnatfs.server.records import FileRecord

MIB = 1 << 20
TEXT = b"a line of a text that can be compressed\n" * 500
PACKED = gzip.compress(TEXT)
LARGE = ComputedContent("large", 12 * MIB)
_PASSED_ON = ("Content-Type", "Last-Modified", "Content-Range", "Set-Cookie", "WWW-Authenticate")
Encode = Callable[[bytes], bytes]
WAYS: dict[str, Encode] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture
def made() -> Iterator[Shelf]:
    shelf = Shelf()
    shelf.put(shelf.make.entry("text.txt", TEXT))
    shelf.put(shelf.make.entry("packed.nii.gz", PACKED))
    shelf.put(shelf.make.entry("large", LARGE))
    with shelf.server:
        yield shelf


def behind(made: Shelf, encoding: str, encode: Encode) -> Callable[[Asked], Answer]:
    """A proxy that sends the bytes of files `encode`d, and says so."""

    def answer(one: Asked) -> Answer:
        headers = {name: value for name, value in one.headers.items() if name not in ("host", "connection")}
        told = requests.request(
            one.method, made.server.url + one.target, headers=headers, allow_redirects=False, timeout=20
        )
        passed = {name: told.headers[name] for name in _PASSED_ON if name in told.headers}
        if "/files/" not in one.target or told.status_code not in (200, 206):
            return Answer(told.status_code, told.content, passed)
        return Answer(told.status_code, encode(told.content), {**passed, "Content-Encoding": encoding})

    return answer


def content_of(mounted: Core, path: str) -> bytes:
    return read(mounted.vfs, f"{FOLDER}/{path}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["text.txt", "packed.nii.gz", "large"])
@pytest.mark.parametrize("digests", [True, False])
def test_a_compressed_answer_is_the_file(
    made: Shelf, tmp_path: Path, way: str, name: str, digests: bool
) -> None:
    """Whole files and those that are read by ranges; also in the cache, and where nothing tells the MD5."""
    made.switches.profile = "full" if digests else "proven"
    expected = {"text.txt": TEXT, "packed.nii.gz": PACKED, "large": LARGE.read(0, 12 * MIB)}
    with scripted(behind(made, way, WAYS[way])) as proxy:
        with composed(proxy.url, tmp_path) as mounted:
            assert content_of(mounted, name) == expected[name]
            opened = mounted.vfs.open(f"{FOLDER}/{name}")
            assert opened.size == len(expected[name])
            mounted.vfs.release(opened.handle)
            assert mounted.diagnostics.counts() == {}
        with composed(proxy.url, tmp_path) as mounted:
            assert content_of(mounted, name) == expected[name]


@pytest.mark.parametrize("name", ["packed.nii.gz", "large"])
def test_a_file_that_only_claims_to_be_compressed_is_served_as_it_is(
    made: Shelf, tmp_path: Path, name: str
) -> None:
    """A web server that takes `.gz` for an encoding: unpacked it would not be the file."""
    with (
        scripted(behind(made, "gzip", lambda data: data)) as proxy,
        composed(proxy.url, tmp_path) as mounted,
    ):
        expected = PACKED if name == "packed.nii.gz" else LARGE.read(0, 12 * MIB)
        assert content_of(mounted, name) == expected
        assert mounted.diagnostics.counts() == {}


def test_a_file_of_a_table_is_decoded(made: Shelf, tmp_path: Path) -> None:
    with (
        scripted(behind(made, "gzip", gzip.compress)) as proxy,
        composed(proxy.url, tmp_path) as mounted,
    ):
        session = next(iter(mounted.listing_service.projects.get("P").experiments.values()))
        resources = mounted.listing_service.environment.resources.of_session(session.id)
        guess = FileRecord(resources[0].owner, resources[0].id or 0, "R", "text.txt", 0, "")
        with mounted.builder.services.downloads.fetch(guess, listed=False).stream as stream:
            assert stream.read() == TEXT


def test_an_encoding_that_cannot_be_undone_is_named(made: Shelf, tmp_path: Path) -> None:
    with (
        scripted(behind(made, "br", lambda data: b"\x1b" + data)) as proxy,
        composed(proxy.url, tmp_path) as mounted,
        pytest.raises(OSError, match=r"encoded \(br\), which nobody asked for"),
    ):
        content_of(mounted, "text.txt")
