"""Fetching ahead in flat folders: who gets what ahead."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.content import readahead
from xnatfs.content.readahead import FolderReadahead
from xnatfs.errors import Cause, Failure


class Made:
    """A file that notes when it is fetched ahead."""

    def __init__(self, number: int, inode: int, size: int, fetched: list[int]) -> None:
        self.number, self.inode, self.size = number, inode, size
        self.kept = False
        self.fail = False
        self.gate = threading.Event()
        self.gate.set()
        self.stamp = ""
        self._fetched = fetched

    def open_unwatched(self) -> Made:
        self._fetched.append(self.number)
        if self.fail:
            raise Failure(Cause.GONE)
        return self

    def read(self, offset: int, length: int) -> bytes:
        assert self.gate.wait(10)
        count = max(0, min(length, self.size - offset))
        self.kept = self.kept or offset + count == self.size
        return bytes(count)

    def close(self) -> None:
        pass


class Folder:
    """Files whose inode numbers go another way than their names, and a reader."""

    def __init__(
        self,
        workers: WorkerPool,
        count: int = 100,
        size: int = 4_000_000,
        widest: int = 14,
        most: int = 10**12,
        shuffled: bool = True,
    ) -> None:
        self.fetched: list[int] = []
        self.inodes = list(range(1000, 1000 + count))
        if shuffled:
            random.Random(3).shuffle(self.inodes)
        self.files = [Made(number, self.inodes[number], size, self.fetched) for number in range(count)]
        self.ahead = FolderReadahead(workers, widest, self.files, most)
        self.by_inode = sorted(range(count), key=self.inodes.__getitem__)

    def read(self, number: int, whole: bool = True) -> None:
        """As `FlatFile` tells it; what was fetched is then kept."""
        self.ahead.opened(number)
        if whole:
            self.files[number].kept = True
            self.ahead.read_whole(number)
        else:
            self.ahead.read_in_part(number)

    def rest(self) -> list[int]:
        """What was fetched ahead, once nothing is under way."""
        deadline = time.monotonic() + 10
        while self.ahead._begun:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return sorted(self.fetched)


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    made = WorkerPool("test", 7)
    yield made
    made.close()


def test_one_file_brings_nothing_and_the_second_two(workers: WorkerPool) -> None:
    folder = Folder(workers)
    folder.read(5)
    assert folder.rest() == []
    folder.read(6)
    assert folder.rest() == [7, 8]
    folder.read(7)
    assert folder.rest() == [7, 8, 9, 10, 11]


def test_of_small_files_more_come_at_once(workers: WorkerPool) -> None:
    folder = Folder(workers, size=500_000)
    folder.read(5)
    folder.read(6)
    assert folder.rest() == list(range(7, 15))
    tiny = Folder(workers, size=0)
    tiny.read(5)
    tiny.read(6)
    assert tiny.rest() == list(range(7, 21))


@pytest.mark.parametrize("order", ["names", "inodes"])
def test_a_walk_in_either_order_has_everything_fetched_once(workers: WorkerPool, order: str) -> None:
    folder = Folder(workers)
    way = list(range(100)) if order == "names" else folder.by_inode
    missed = 0
    for number in way:
        missed += not folder.files[number].kept
        folder.read(number)
        folder.rest()
    assert missed == 2
    assert sorted(folder.fetched) == sorted(way[2:]) and len(set(folder.fetched)) == len(folder.fetched)


def test_what_is_ahead_is_bounded_in_number(workers: WorkerPool) -> None:
    folder = Folder(workers, widest=14)
    for file in folder.files:
        file.gate.clear()
    for number in range(20):
        folder.read(number)
        assert all(number < one <= number + 14 for one in folder.ahead._begun if not folder.files[one].kept)
    for file in folder.files:
        file.gate.set()
    folder.rest()


def test_what_is_ahead_is_bounded_in_bytes(workers: WorkerPool) -> None:
    folder = Folder(workers, size=4_000_000, most=10_000_000)
    for file in folder.files:
        file.gate.clear()
    for number in range(6):
        folder.read(number)
        assert sum(folder.ahead._begun.values()) <= 10_000_000
    assert folder.ahead._begun
    for file in folder.files:
        file.gate.set()
    folder.rest()
    large = Folder(workers, size=20_000_000, most=10_000_000)
    for number in range(6):
        large.read(number)
    assert large.rest() == []


def test_headers_alone_bring_nothing(workers: WorkerPool) -> None:
    folder = Folder(workers)
    for number in range(50):
        folder.read(number, whole=False)
    assert folder.rest() == []
    folder.read(50)
    folder.read(51)
    assert folder.rest() == [52, 53]
    folder.read(52, whole=False)
    before = folder.rest()
    for number in range(53, 60):
        folder.read(number, whole=False)
    assert folder.rest() == before


def test_a_jumping_reader_gets_next_to_nothing(workers: WorkerPool) -> None:
    folder = Folder(workers, count=1000)
    way = list(range(1000))
    random.Random(5).shuffle(way)
    for number in way[:300]:
        folder.read(number)
        folder.rest()
    assert len(folder.fetched) < 30


def test_a_walk_backwards_brings_next_to_nothing(workers: WorkerPool) -> None:
    folder = Folder(workers, shuffled=False)
    for number in range(99, -1, -1):
        folder.read(number)
    assert folder.rest() == []


def test_two_readers_side_by_side_both_have_theirs_ahead(workers: WorkerPool) -> None:
    folder = Folder(workers)
    for number in range(10):
        folder.read(number)
        folder.read(50 + number)
        folder.rest()
    assert set(range(2, 12)) <= set(folder.fetched) and set(range(52, 62)) <= set(folder.fetched)


def test_what_is_in_the_cache_is_not_fetched(workers: WorkerPool) -> None:
    folder = Folder(workers)
    for file in folder.files[:90]:
        file.kept = True
    for number in range(70):
        folder.read(number)
    assert folder.rest() == []


def test_what_left_the_cache_is_fetched_again(workers: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while: looking for each of the next files at every file costs."""
    monkeypatch.setattr(readahead, "_RECHECK_AFTER_S", 0.0)
    folder = Folder(workers)
    for _ in range(2):
        for number in range(4):
            folder.read(number)
            folder.rest()
        for file in folder.files:
            file.kept = False
    assert folder.fetched.count(3) == 2


def test_a_file_that_cannot_be_had_does_not_stop_the_others(workers: WorkerPool) -> None:
    folder = Folder(workers)
    folder.files[3].fail = True
    for number in range(10):
        folder.read(number)
        folder.rest()
    assert {4, 5, 6, 7, 8} <= set(folder.fetched)


def test_nothing_is_begun_when_the_mount_ends(workers: WorkerPool) -> None:
    folder = Folder(workers)
    folder.read(0)
    workers.close()
    folder.read(1)
    assert folder.fetched == []
