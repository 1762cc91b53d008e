"""What is kept on this machine, without a mount."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from tests.semantics.conftest import MIB
from tests.semantics.quoting import rule
from tests.support import composed, read, until, xnatfs
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from xnatfs.demo.model import ComputedContent

FILE = f"{FOLDER}/file"


def fill(shelf: Shelf, count: int, size: int) -> list[str]:
    """Files that come one by one: each in a resource of its own."""
    paths = []
    for number in range(count):
        resource = shelf.make.resource(shelf.session, f"N{number}")
        resource.entries.append(shelf.make.entry("file", ComputedContent(f"{number}", size)))
        paths.append(f"{FOLDER.removesuffix('/R')}/N{number}/file")
    return paths


@rule("7.1", "Data that was read once is read again without a request, also by the next mount.")
def test_what_was_read_costs_no_request(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    first = compose(shelf.server)
    assert read(first.vfs, FILE) == b"content"
    shelf.server.clear_log()
    assert read(first.vfs, FILE) == b"content"
    assert shelf.server.requests() == []
    first.close()
    assert read(compose(shelf.server).vfs, FILE) == b"content"
    assert shelf.downloads() == 0


@rule(
    "7.2",
    "A cache belongs to one server and one of its users: another login never reads from it. Its folder is "
    "0700.",
)
def test_another_login_reads_nothing_of_it(shelf: Shelf, compose: Compose, tmp_path: Path) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    shelf.make.user("other")
    shelf.project.members.add("other")
    for count, user in enumerate(("demo", "other"), 1):
        mounted = compose(shelf.server, user=user)
        assert read(mounted.vfs, FILE) == b"content"
        assert shelf.downloads() == count
        assert (
            stat.S_IMODE(mounted.cache.directory.stat().st_mode)
            == stat.S_IMODE((tmp_path / "mount/cache").stat().st_mode)
            == 0o700
        )


@rule(
    "7.3",
    "Cached files and downloads in progress never take more than `--cache-size` together. The least "
    "recently used go first; open files stay.",
)
def test_the_cap_holds_and_the_oldest_goes(shelf: Shelf, compose: Compose) -> None:
    paths = fill(shelf, 5, 100_000)
    mounted = compose(shelf.server, limits=dataclasses.replace(LIMITS, cache_size=350_000))
    held = mounted.vfs.open(paths[0])
    for path in paths[1:]:
        read(mounted.vfs, path)
        _, size, reserved = mounted.cache.usage()
        assert size + reserved <= 350_000
    assert mounted.vfs.read(held.handle, 0, 200_000) == ComputedContent("0", 100_000).read(0, 100_000)
    kept = [mounted.vfs.xattr(path, "user.xnat.cached") for path in paths]
    assert kept == [b"yes", b"no", b"no", b"yes", b"yes"]
    mounted.vfs.release(held.handle)


@rule(
    "7.4",
    "A file that does not fit in the cache or on its disk is read all the same, straight from the server.",
)
@pytest.mark.parametrize("full", [{"cache_size": 50_000}, {"min_free": 10**18}], ids=["cache", "disk"])
@pytest.mark.parametrize("size", [100_000, 9 * MIB])
def test_what_does_not_fit_is_read_all_the_same(
    shelf: Shelf, compose: Compose, full: dict[str, int], size: int
) -> None:
    content = ComputedContent("file", size)
    shelf.put(shelf.make.entry("file", content))
    mounted = compose(shelf.server, limits=dataclasses.replace(LIMITS, **full))
    assert read(mounted.vfs, FILE, MIB) == content.read(0, size)
    assert mounted.cache.usage()[0] == 0


@rule(
    "7.5",
    "`kill -9`, or a crash of the machine, leaves a cache that the next mount can use: half-written data "
    "is removed, and a truncated file is fetched again.",
)
def test_a_file_that_was_cut_on_the_disk_is_fetched_again(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    first = compose(shelf.server)
    assert read(first.vfs, FILE) == b"content"
    ((key, _, _),) = first.cache.keys()
    os.truncate(first.cache.path(key), 3)
    first.close()
    assert read(compose(shelf.server).vfs, FILE) == b"content"
    assert shelf.downloads() == 2


@rule("7.6", "Several mounts may use one cache folder at the same time, and share its size.")
def test_two_mounts_share_a_folder_and_its_size(shelf: Shelf, compose: Compose) -> None:
    paths = fill(shelf, 4, 100_000)
    limits = dataclasses.replace(LIMITS, cache_size=250_000)
    one, two = compose(shelf.server, limits=limits), compose(shelf.server, limits=limits)
    read(one.vfs, paths[0])
    asked = shelf.downloads()
    read(two.vfs, paths[0])
    assert shelf.downloads() == asked == 1
    for path in paths:
        read(one.vfs, path)
        read(two.vfs, path)
        assert sum(one.cache.usage()[1:]) == sum(two.cache.usage()[1:]) <= 250_000


@rule(
    "6.4",
    "The bytes of removed files stay in the cache, where nothing refers to them, until they are evicted or "
    "`xnatfs cache clear` removes them.",
)
@rule("7.7", "`xnatfs cache clear` does not take a file away from a program that has it open.")
@rule(
    "7.8",
    "A cached file that something else changed on the disk is not noticed while it is read. `xnatfs cache "
    "verify` finds it.",
)
def test_changed_removed_and_cleared(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    with composed(shelf.server.url, tmp_path, limits=LIMITS) as mounted:

        def cache(*words: str) -> tuple[int, str]:
            done = xnatfs("cache", *words, "--cache-dir", str(tmp_path / "cache"))
            return done.returncode, done.stdout + done.stderr

        opened = mounted.vfs.open(FILE)
        ((key, _, _),) = mounted.cache.keys()
        path = Path(mounted.cache.path(key))
        path.chmod(0o600)
        path.write_bytes(b"changed")
        assert (
            mounted.vfs.read(opened.handle, 0, 100) == read(mounted.vfs, FILE) == b"changed"
        )  # by others: not noticed
        code, said = cache("verify")
        assert code == 1 and "1 file" in said, said
        assert read(mounted.vfs, FILE) == b"content"
        mounted.vfs.release(opened.handle)
        opened = mounted.vfs.open(FILE)

        shelf.server.call(shelf.resource.entries.clear)
        mounted.refresh()
        assert mounted.cache.usage()[:2] == (1, len(b"content"))
        code, said = cache("clear", "--yes")
        assert code == 0, said
        until(lambda: mounted.cache.usage()[:2] == (0, 0))
        assert mounted.vfs.read(opened.handle, 0, 100) == b"content"
        mounted.vfs.release(opened.handle)
