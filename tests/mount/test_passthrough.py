"""Cached files that the kernel reads by itself (docs/internals/kernel.md 6): no read reaches the daemon, and
nothing else changes for who reads. `FUSE_LIBRARY_PATH` chooses a libfuse that can.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.semantics.conftest import MIB, Place, opened, placed
from tests.support import until
from xnatfs.config import LOW_LEVEL
from xnatfs.demo.model import ComputedContent
from xnatfs.fuse import session
from xnatfs.fuse.library import LIBFUSE


def _missing() -> str:
    if session.missing():
        return session.missing()
    if LIBFUSE < (3, 17):
        return f"FUSE passthrough needs libfuse 3.17, this is {'.'.join(map(str, LIBFUSE))}"
    if os.geteuid():
        return "FUSE passthrough needs root"
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return "" if kernel >= (6, 9) else f"FUSE passthrough needs Linux 6.9, this is {os.uname().release}"


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("place"), "--fuse", LOW_LEVEL) as made:
        yield made


def made(place: Place, name: str, size: int = 3 * MIB) -> tuple[Path, bytes]:
    """A file and its bytes."""
    content = ComputedContent(name, size)
    place.add(place.shelf.make.entry(name, content))
    return place.folder / name, content.read(0, size)


def asked(place: Place, work: Callable[[], object]) -> dict[str, int]:
    """What the kernel asked while this was done."""
    before = place.mounted.status()["kernel"]
    work()
    after = place.mounted.status()["kernel"]
    return {kind: after[kind] - before[kind] for kind in ("open", "read", "passthrough")}


def test_a_cached_file_is_read_without_the_daemon(place: Place) -> None:
    path, true = made(place, "cached")
    assert path.read_bytes() == true
    seen: list[bytes] = []

    def again() -> None:
        with opened(path) as descriptor:
            seen.append(os.pread(descriptor, len(true), 0))
            with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as pages:
                seen.append(pages[:])

    assert asked(place, again) == {"open": 1, "read": 0, "passthrough": 1}
    assert seen == [true, true] and path.stat().st_size == len(true)


def test_a_file_that_is_open_in_the_usual_way_is_opened_so_again(place: Place) -> None:
    """The kernel answers EIO to who opens a file in both ways at once."""
    path, true = made(place, "both")
    with opened(path) as first:
        assert os.pread(first, len(true), 0) == true  # from the server: it is in the cache now
        with opened(path) as second:
            assert os.pread(second, len(true), 0) == true
    until(lambda: asked(place, path.read_bytes)["passthrough"] == 1)
    with opened(path) as first, opened(path) as second:
        assert os.pread(first, 100, MIB) == os.pread(second, 100, MIB) == true[MIB : MIB + 100]


def test_a_file_that_leaves_the_cache_stays_for_who_reads_it(place: Place) -> None:
    path, true = made(place, "evicted")
    assert path.read_bytes() == true
    with opened(path) as first, mmap.mmap(first, 0, prot=mmap.PROT_READ) as pages:
        for folder in Path(place.mounted.env["XNATFS_CACHE_DIR"]).glob("*/objects"):
            for below in folder.iterdir():
                shutil.rmtree(below)
        with opened(path) as second:  # from the server, and yet by the file that the kernel has
            assert os.pread(second, len(true), 0) == true
        assert os.pread(first, len(true), 0) == pages[:] == true
    assert path.read_bytes() == true


def test_two_versions_are_open_side_by_side(place: Place) -> None:
    path, true = made(place, "versions")
    after = ComputedContent("versions after", 2 * MIB)
    assert path.read_bytes() == true
    with opened(path) as first, mmap.mmap(first, 0, prot=mmap.PROT_READ) as pages:
        assert asked(place, lambda: os.pread(first, len(true), 0))["read"] == 0
        place.replace("versions", place.shelf.make.entry("versions", after))
        assert path.read_bytes() == path.read_bytes() == after.read(0, after.size)
        assert os.pread(first, len(true), 0) == pages[:] == true
        assert (os.fstat(first).st_size, path.stat().st_size) == (len(true), after.size)
