"""The servers of tests/vfs, and one mounted server for what only the kernel can show."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import Mount, mount, xnatfs
from tests.vfs.conftest import FOLDER, Shelf, _lab, compose, lab, shelf, short_pauses
from tests.vfs.test_addresses import shared, united
from tests.vfs.test_lists import across
from xnatfs.demo.model import CatalogEntry, ComputedContent

__all__ = ["_lab", "across", "compose", "lab", "shared", "shelf", "short_pauses", "united"]

MIB = 1 << 20
TEXT = b"the content of a small file\n"


class Place:
    """A mounted shelf: a few files, and a session that may go."""

    keeps_versions = False  # a version is not taken away from who has it open when another one is opened

    def __init__(self, made: Shelf, mounted: Mount) -> None:
        self.shelf = made
        self.mounted = mounted
        self.folder = mounted.point / FOLDER[1:]

    @property
    def file(self) -> Path:
        return self.folder / "file"

    def refresh(self) -> None:
        xnatfs("refresh", str(self.mounted.point), env=self.mounted.env, check=True)

    def change(self, work: Callable[[], object]) -> None:
        """Something on the server, and a look at it."""
        self.shelf.server.call(work)
        self.refresh()

    def entry(self, name: str) -> int:
        """Where a file stands in the catalog."""
        return next(number for number, entry in enumerate(self.shelf.resource.entries) if entry.path == name)

    def replace(self, name: str, entry: CatalogEntry) -> None:
        """Another version of a file."""
        self.change(lambda: self.shelf.resource.entries.__setitem__(self.entry(name), entry))

    def remove(self, name: str) -> None:
        """A file less."""
        self.change(lambda: self.shelf.resource.entries.pop(self.entry(name)))

    def add(self, *entries: CatalogEntry) -> None:
        """More files."""
        self.change(lambda: self.shelf.resource.entries.extend(entries))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None) -> Iterator[Place]:
    """One mount for all tests of a module: they leave what they did not make as it was."""
    with placed(tmp_path_factory.mktemp("place")) as made:
        yield made


@contextmanager
def placed(folder: Path, *options: str) -> Iterator[Place]:
    """A shelf, mounted with these options."""
    with ExitStack() as stack:
        made = Shelf()
        made.put(made.make.entry("file", TEXT))
        made.put(made.make.entry("folder/deep", b"deep"))
        made.put(made.make.entry("large", ComputedContent("large", 12 * MIB)))
        stack.enter_context(made.server)
        mounted = stack.enter_context(mount(made.server.url, folder, *options, env={"HOME": str(folder)}))
        yield Place(made, mounted)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY, *, given_up: bool = False) -> Iterator[int]:
    """A descriptor; closing one that the kernel has `given_up` meanwhile tells so."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        if given_up:
            assert refused(lambda: os.close(descriptor)) == errno.EIO
        else:
            os.close(descriptor)


def refused(work: Callable[[], object]) -> int:
    """The errno of a call that has to fail."""
    with pytest.raises(OSError) as caught:
        work()
    assert caught.value.errno is not None
    return caught.value.errno
