"""Files that change, or go, while a program has them open: on a real mount, since the kernel's pages are what
could be mixed, with each of libfuse's interfaces, which keep them apart in two ways.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.semantics.conftest import MIB, Place, opened, placed, refused
from tests.semantics.quoting import rule
from tests.support import run, until
from xnatfs.config import HIGH_LEVEL, LOW_LEVEL
from xnatfs.demo.model import ComputedContent
from xnatfs.fuse import session


@pytest.fixture(scope="module", params=[LOW_LEVEL, HIGH_LEVEL])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None
) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("place"), "--fuse", request.param) as made:
        made.keeps_versions = request.param == LOW_LEVEL and not session.missing()
        yield made


def whole(descriptor: int) -> bytes:
    """From the start to where the kernel says that the file ends."""
    data = b""
    while piece := os.pread(descriptor, 100_000, len(data)):
        data += piece
    return data


VERSIONS = pytest.mark.parametrize(
    ("old", "new"),
    [(3 * MIB, 3 * MIB), (3 * MIB, MIB), (MIB + 5, 3 * MIB)],
    ids=["equal", "smaller", "larger"],
)


def two_versions(place: Place, name: str, old: int, new: int) -> tuple[ComputedContent, ComputedContent]:
    """A file, and what will come in its place."""
    before, after = ComputedContent(f"{name} before", old), ComputedContent(f"{name} after", new)
    place.add(place.shelf.make.entry(name, before))
    return before, after


@rule(
    "4.3",
    "The version of a file is chosen when it is opened. An open file returns the bytes of that version or "
    "an error, never those of another one: ESTALE where those bytes are no longer available (only parts "
    "were cached). Without `--fuse low-level` also ESTALE if the new version is known to be larger, and "
    "EIO, also from `close`, once a program on this machine has opened the new version under the same path.",
)
@VERSIONS
def test_an_open_file_keeps_its_version(place: Place, old: int, new: int) -> None:
    name = f"keeps {old}-{new}"
    before, after = two_versions(place, name, old, new)
    path = place.folder / name
    with opened(path) as first:
        assert os.pread(first, 4096, 0) == before.read(0, 4096)
        place.replace(name, place.shelf.make.entry(name, after))
        for _ in range(2):
            # Whoever looks at it tells the kernel of another size.
            assert [one.stat().st_size for one in os.scandir(place.folder) if one.name == name]
            size = os.stat(path).st_size
            assert (size, os.fstat(first).st_size) == (new, old) if place.keeps_versions else size >= old
            if new <= old or place.keeps_versions:
                assert whole(first) == before.read(0, old)
        if new > old and not place.keeps_versions:
            until(lambda: refused(lambda: whole(first)) == errno.ESTALE)
    until(lambda: os.stat(path).st_size == new)
    assert path.read_bytes() == after.read(0, new)


@rule(
    "4.3",
    "The version of a file is chosen when it is opened. An open file returns the bytes of that version or "
    "an error, never those of another one: ESTALE where those bytes are no longer available (only parts "
    "were cached). Without `--fuse low-level` also ESTALE if the new version is known to be larger, and "
    "EIO, also from `close`, once a program on this machine has opened the new version under the same path.",
)
@rule("4.4", "Opening a file opens the newest known version, even while an older one is still open.")
@VERSIONS
def test_two_versions_of_one_file_are_open_at_once_and_neither_gets_the_other_s_bytes(
    place: Place, old: int, new: int
) -> None:
    name = f"both {old}-{new}"
    before, after = two_versions(place, name, old, new)
    path = place.folder / name
    true = after.read(0, new)
    with (
        opened(path, given_up=not place.keeps_versions) as first,
        mmap.mmap(first, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as kept,
    ):
        assert os.pread(first, 300_000, 0) == before.read(0, 300_000) == kept[:300_000]
        place.replace(name, place.shelf.make.entry(name, after))
        with opened(path) as second, opened(path) as third:
            assert (os.fstat(second).st_size, os.stat(path).st_size) == (new, new)
            for _ in range(2):
                assert os.pread(third, 300_000, 100_000) == after.read(100_000, 300_000)
                if place.keeps_versions:
                    assert whole(first) == before.read(0, old) == kept[:]
                else:
                    assert refused(lambda: whole(first)) == errno.EIO
                assert kept[:300_000] == before.read(0, 300_000)
                assert whole(second) == whole(third) == true
                for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
                    with mmap.mmap(second, 0, flags=flags, prot=mmap.PROT_READ) as pages:
                        assert pages[:] == true
    assert path.read_bytes() == true


@rule("4.4", "Opening a file opens the newest known version, even while an older one is still open.")
def test_many_open_a_new_version_at_the_same_time(place: Place) -> None:
    before, after = two_versions(place, "many readers", MIB, MIB)
    path = place.folder / "many readers"
    with opened(path, given_up=not place.keeps_versions) as first:
        assert whole(first) == before.read(0, MIB)
        place.replace("many readers", place.shelf.make.entry("many readers", after))
        with ThreadPoolExecutor(12) as readers:
            assert set(readers.map(lambda _: path.read_bytes(), range(48))) == {after.read(0, MIB)}


@rule(
    "4.3",
    "The version of a file is chosen when it is opened. An open file returns the bytes of that version or "
    "an error, never those of another one: ESTALE where those bytes are no longer available (only parts "
    "were cached). Without `--fuse low-level` also ESTALE if the new version is known to be larger, and "
    "EIO, also from `close`, once a program on this machine has opened the new version under the same path.",
)
def test_a_large_file_that_changes_while_only_a_part_is_here_is_stale(place: Place) -> None:
    size = 40 * MIB
    before, after = ComputedContent("part before", size), ComputedContent("part after", size)
    entry = place.shelf.make.entry("part", before, digest="")
    place.add(entry)
    with opened(place.folder / "part") as descriptor:
        assert os.pread(descriptor, 4096, 0) == before.read(0, 4096)

        def overwrite() -> None:
            entry.content, entry.modified = after, place.shelf.archive.tick()

        place.shelf.server.call(overwrite)
        assert refused(lambda: os.pread(descriptor, 4096, size - 8192)) == errno.ESTALE


@rule(
    "4.5",
    "An open file that is removed on the server, or is no longer yours, returns its bytes or an error, "
    "never a shorter file.",
)
def test_an_open_file_that_is_removed_gives_its_bytes_or_an_error(place: Place) -> None:
    content = ComputedContent("removed", MIB)
    place.add(place.shelf.make.entry("removed", content))
    with opened(place.folder / "removed") as descriptor:
        os.pread(descriptor, 10, 0)
        place.remove("removed")
        try:
            assert whole(descriptor) == content.read(0, MIB)
        except OSError as error:
            assert error.errno == errno.ENOENT


@rule(
    "4.2",
    "After `xnatfs refresh` has returned, folders list what the server has, and opening a file opens the "
    "server's current version. For another 40 s the kernel may answer `stat` of a removed name; opening it "
    "returns ENOENT at once.",
)
def test_after_a_refresh_all_is_new_but_stat_of_what_was_removed(place: Place) -> None:
    make = place.shelf.make
    place.add(make.entry("goes", b"gone soon"), make.entry("changes", b"old"))
    assert [(place.folder / name).read_bytes() for name in ("goes", "changes")] == [b"gone soon", b"old"]

    def work() -> None:
        entries = place.shelf.resource.entries
        del entries[place.entry("goes")]
        entries[place.entry("changes")] = make.entry("changes", b"new and longer")
        entries.append(make.entry("comes", b"come"))

    place.change(work)
    assert {"changes", "comes"} <= set(os.listdir(place.folder)) and "goes" not in os.listdir(place.folder)
    assert (place.folder / "changes").read_bytes() == b"new and longer" and (
        place.folder / "changes"
    ).stat().st_size == 14
    assert (place.folder / "comes").read_bytes() == b"come"
    assert refused(lambda: (place.folder / "goes").read_bytes()) == errno.ENOENT
    with contextlib.suppress(FileNotFoundError):
        assert (place.folder / "goes").stat().st_size == len(b"gone soon")


@rule(
    "4.7",
    "In a folder that was removed on the server, every name returns ENOENT. Rereading it through a handle "
    "that is still open shows it empty.",
)
def test_in_a_removed_folder_nothing_is_found(place: Place) -> None:
    place.add(place.shelf.make.entry("leaves/within", b"within"))
    with opened(place.folder / "leaves") as folder:
        assert os.listdir(folder) == ["within"]
        place.remove("leaves/within")
        assert refused(lambda: os.open("within", os.O_RDONLY, dir_fd=folder)) == errno.ENOENT
        assert refused(lambda: os.stat("another name", dir_fd=folder)) == errno.ENOENT
        assert os.listdir(folder) == []
    assert refused(lambda: os.listdir(place.folder / "leaves")) == errno.ENOENT


@rule(
    "1.7",
    "An open directory that is being read keeps showing the listing it had when it was opened, whatever "
    "changes meanwhile, and can be read from any position again. `rewinddir` shows the current listing.",
)
def test_a_folder_is_read_as_it_was_when_it_was_opened(place: Place) -> None:
    names = [f"many/{number:03}" for number in range(300)]
    place.add(*(place.shelf.make.entry(name, b"1") for name in names))
    expected = [name.removeprefix("many/") for name in names]
    with opened(place.folder / "many") as folder:
        with os.scandir(folder) as found:
            first = next(found).name
            place.remove("many/000")
            assert [first, *(one.name for one in found)] == expected
        assert os.listdir(folder) == expected[1:]  # the same descriptor, rewound
    place.change(lambda: place.shelf.resource.entries.__delitem__(slice(-299, None)))


PLACES = r"""
opendir(my $folder, $ARGV[0]) or die $!;
my @seen;
while (1) { my $place = telldir($folder); my $name = readdir($folder) // last; push @seen, [$place, $name]; }
for my $one (reverse @seen) {
    seekdir($folder, $one->[0]);
    readdir($folder) eq $one->[1] or die "another name at $one->[0]";
}
print scalar(@seen);
"""


@rule(
    "1.7",
    "An open directory that is being read keeps showing the listing it had when it was opened, whatever "
    "changes meanwhile, and can be read from any position again. `rewinddir` shows the current listing.",
)
def test_every_place_of_an_open_folder_can_be_gone_back_to(place: Place) -> None:
    done = run("perl", "-e", PLACES, place.mounted.point)
    assert (done.returncode, done.stderr, done.stdout) == (
        0,
        "",
        str(len(os.listdir(place.mounted.point)) + 2),
    )
