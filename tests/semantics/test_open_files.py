"""Files that change, or go, while a program has them open: on a real mount, since the kernel's pages are what could be mixed."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import Mount, mount, until, xnatfs
from tests.vfs.conftest import FOLDER, Shelf
from xnatfs.demo.model import ComputedContent

MIB = 1 << 20


class Place:
    """A mounted shelf."""

    def __init__(self, shelf: Shelf, mounted: Mount) -> None:
        self.shelf = shelf
        self.mounted = mounted
        self.folder = mounted.point / FOLDER[1:]

    def refresh(self) -> None:
        xnatfs("refresh", str(self.mounted.point), env=self.mounted.env, check=True)

    def change(self, work: Callable[[], object]) -> None:
        """Something on the server, and a look at it."""
        self.shelf.server.call(work)
        self.refresh()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None) -> Iterator[Place]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("place")
        shelf = Shelf()
        stack.enter_context(shelf.server)
        yield Place(shelf, stack.enter_context(mount(shelf.server.url, folder, env={"HOME": str(folder)})))


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def whole(descriptor: int) -> bytes:
    """From the start to where the kernel says that the file ends."""
    data = b""
    while piece := os.pread(descriptor, 100_000, len(data)):
        data += piece
    return data


def mapped(path: Path) -> bytes:
    with opened(path) as descriptor:
        return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)[:]


def may_be_mapped(path: Path) -> bool:
    try:
        return bool(mapped(path))
    except OSError as error:
        assert error.errno == errno.ENODEV
        return False


@pytest.mark.parametrize(("old", "new"), [(3 * MIB, 3 * MIB), (3 * MIB, MIB), (MIB + 5, 3 * MIB)], ids=["equal", "smaller", "larger"])
def test_two_versions_of_one_file_are_open_at_once_and_neither_gets_the_other_s_bytes(place: Place, old: int, new: int) -> None:
    name = f"{old}-{new}"
    before, after = ComputedContent(f"{name} before", old), ComputedContent(f"{name} after", new)
    entries = place.shelf.resource.entries
    place.change(lambda: entries.append(place.shelf.make.entry(name, before)))
    path = place.folder / name
    with opened(path) as first:
        assert os.pread(first, 4096, 0) == before.read(0, 4096)
        place.change(lambda: entries.__setitem__(-1, place.shelf.make.entry(name, after)))
        with opened(path) as second:
            assert os.pread(second, 300_000, 100_000) == after.read(100_000, 300_000)
            for _ in range(3):
                if new <= old:
                    assert whole(first) == before.read(0, old)
                else:
                    with pytest.raises(OSError) as caught:
                        whole(first)
                    assert caught.value.errno == errno.ESTALE
                assert whole(second) == after.read(0, new)
                assert os.stat(path).st_size == max(old, new)
            assert not may_be_mapped(path)
    until(lambda: may_be_mapped(path))  # the daemon hears of a closing a moment later
    assert os.stat(path).st_size == new
    assert mapped(path) == path.read_bytes() == after.read(0, new)


def test_a_folder_that_is_held_open_can_be_listed_anew(place: Place) -> None:
    with opened(place.folder) as folder:
        assert "appears" not in os.listdir(folder)
        place.change(lambda: place.shelf.resource.entries.append(place.shelf.make.entry("appears", b"now")))
        assert "appears" in os.listdir(folder)
