"""Files of which parts are here: what is said to be here is here, whatever was evicted, dropped or taken by
another mount meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xnatfs.cache.contents import ContentCache
from xnatfs.cache.partial import PAGE, Partial
from xnatfs.errors import Cause, Failure

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ContentCache]:
    made = ContentCache(tmp_path / "c", 16 * MIB)
    yield made
    made.close()


def fill(cache: ContentCache, partial: Partial, start: int, end: int) -> None:
    cache.reserve_pages(partial.key, end - start)
    partial.write(start, b"x" * (end - start))
    partial.mark(start, end)


def test_pages_are_here_again_when_it_is_opened_the_next_time(cache: ContentCache) -> None:
    partial = cache.partial("k", MIB, "stamp")
    fill(cache, partial, PAGE, 2 * PAGE)
    assert partial.missing(0, MIB) == (0, PAGE)
    partial.close()
    partial = cache.partial("k", MIB, "stamp")
    assert partial.has(PAGE, 2 * PAGE) and not partial.has(0, PAGE)
    assert os.pread(partial.fd, 4, PAGE) == b"xxxx"
    partial.close()
    other = cache.partial("k", MIB, "another stamp")
    assert other.present == 0
    other.close()


def test_an_eviction_that_did_not_make_enough_room_leaves_no_pages_without_bytes(cache: ContentCache) -> None:
    partial = cache.partial("k", MIB, "stamp")
    fill(cache, partial, 0, PAGE)
    partial.close()
    held = cache.draft(15 * MIB)
    for size in (40 * MIB, 2 * MIB):  # more than the cap; more than can be made free
        with pytest.raises(Failure) as caught:
            cache.pile(size)
        assert caught.value.cause is Cause.NO_SPACE
    partial = cache.partial("k", MIB, "stamp")
    assert not partial.has(0, PAGE) or os.pread(partial.fd, 4, 0) == b"xxxx"
    partial.close()
    held.close()


def test_a_file_whose_bytes_were_removed_is_not_believed(cache: ContentCache) -> None:
    partial = cache.partial("k", MIB, "stamp")
    fill(cache, partial, 0, PAGE)
    partial.close()
    (cache.directory / "partials/k").unlink()
    partial = cache.partial("k", MIB, "stamp")
    assert partial.present == 0
    partial.close()


def test_nothing_is_dropped_from_what_is_an_object_by_now(cache: ContentCache) -> None:
    partial = cache.partial("kk", MIB, "stamp")
    fill(cache, partial, 0, MIB)
    partial.commit("kk", "md5")
    assert partial.drop(0, MIB // 2) == 0
    partial.close()
    entry = cache.open("kk")
    assert entry is not None
    assert os.pread(entry.fd, MIB, 0) == b"x" * MIB
    entry.close()


def test_dropped_pages_are_gone_before_their_bytes_are(cache: ContentCache) -> None:
    partial = cache.partial("k", MIB, "stamp")
    fill(cache, partial, 0, MIB)
    freed = partial.drop(0, MIB // 2)
    assert freed in (0, MIB // 2)  # 0 where the file system punches no holes
    assert partial.has(0, PAGE) == (freed == 0)
    assert partial.has(MIB // 2, MIB)
    partial.close()


def test_a_second_mount_leaves_the_reservations_of_the_first_alone(cache: ContentCache) -> None:
    pile = cache.pile(14 * MIB)
    draft = cache.draft(MIB)
    other = ContentCache(cache.directory, 16 * MIB)
    assert other.usage()[2] == 15 * MIB
    with pytest.raises(Failure):
        other.draft(14 * MIB)
    pile.close()
    draft.close()
    other.close()
    assert cache.usage() == (0, 0, 0)


def test_two_mounts_do_not_write_the_same_partial_file(cache: ContentCache) -> None:
    mine = cache.partial("k", MIB, "stamp")
    other = ContentCache(cache.directory, 16 * MIB)
    theirs = other.partial("k", MIB, "stamp")
    assert not os.path.samestat(os.fstat(mine.fd), os.fstat(theirs.fd))
    theirs.close()
    mine.close()
    other.close()
    assert list((cache.directory / "partials").iterdir()) == []


def test_a_pile_never_takes_more_than_it_reserved(cache: ContentCache) -> None:
    held = cache.draft(14 * MIB)
    pile = cache.pile(MIB)
    for number, fits in enumerate((True, True, False)):
        if not fits:
            with pytest.raises(Failure) as caught:
                pile.begin(MIB + 1)
            assert caught.value.cause is Cause.NO_SPACE
            break
        pile.begin(MIB)  # the second one takes the last MiB below the cap
        pile.write(b"y" * MIB)
        pile.keep(f"{number}{number}", "crc")
        assert sum(cache.usage()[1:]) <= 16 * MIB
    pile.close()
    held.close()
    assert cache.usage()[1:] == (2 * MIB, 0)
