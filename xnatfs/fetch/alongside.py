"""Fetching ahead in flat folders: files that come one after the other but belong to different resources, so that no zip helps.

Used by the views. A reader who opened two files in a row, in the order of names (`rsync`, shells) or of inode numbers (`cp -r`), and read
the first to its end, will open the next ones: they are fetched into the cache meanwhile, two at first, then up to one a connection. Whoever
reads only headers, or jumps about, gets nothing ahead.
Threading: any thread; one lock a folder, held for moments.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from xnatfs.errors import Failure
from xnatfs.fetch.flights import Workers
from xnatfs.fetch.transfers import Reader

log = logging.getLogger(__name__)

_PIECE = 2**20
_AT_FIRST = 2


class Alongside:
    """The files of one flat folder, by their place in the listing.

    Args:
        workers: do the fetching.
        widest: files ahead at most.
        opens: for each file in listed order, what opens it.
        inodes: their inode numbers.
        sizes: their sizes in bytes.
        most: bytes ahead at most.
    """

    def __init__(
        self, workers: Workers, widest: int, opens: Sequence[Callable[[], Reader]], inodes: Sequence[int], sizes: Sequence[int], most: int
    ) -> None:
        self._workers = workers
        self._widest = widest
        self._opens = opens
        self._sizes = sizes
        self._most = most
        by_inode = sorted(range(len(opens)), key=lambda number: inodes[number])
        listed = list(range(len(opens)))
        self._orders = [(listed, listed), (by_inode, _places(by_inode))]  # each with the place of every file in it
        self._lock = threading.Lock()
        self._last: int | None = None
        self._read_whole = False
        self._depth = _AT_FIRST
        self._begun: set[int] = set()
        self._under_way = 0  # bytes

    def opened(self, number: int) -> None:
        """A file is opened by a reader."""
        with self._lock:
            last, self._last = self._last, number
            if last is None or last == number or not self._read_whole:
                return
            found = next(((order, places) for order, places in self._orders if places[number] == places[last] + 1), None)
            if found is None:
                self._depth = _AT_FIRST
                return
            order, place = found[0], found[1][number] + 1
            following = order[place : place + self._depth]
            self._depth = min(self._widest, self._depth * 2)
            begin = []
            for one in following:
                if one in self._begun or self._under_way + self._sizes[one] > self._most:
                    continue
                self._begun.add(one)
                self._under_way += self._sizes[one]
                begin.append(one)
        for one in begin:
            try:
                self._workers.submit(lambda one=one: self._fetch(one), urgent=False)  # type: ignore[misc]
            except Failure:  # the mount is ending
                return

    def closed(self, number: int, furthest: int) -> None:
        """A reader closed a file after reading up to `furthest`."""
        with self._lock:
            self._read_whole = furthest >= self._sizes[number]
            if not self._read_whole:
                self._depth = _AT_FIRST

    def _fetch(self, number: int) -> None:
        try:
            reader = self._opens[number]()
            try:
                position = 0
                while not self._workers.closed and (piece := reader.read(position, _PIECE)):
                    position += len(piece)
            finally:
                reader.close()
        except OSError as error:  # the reader who comes for it meets it himself
            log.info("a file could not be fetched ahead: %s", error)
        finally:
            with self._lock:
                self._under_way -= self._sizes[number]
                self._begun.discard(number)


def _places(order: Sequence[int]) -> list[int]:
    places = [0] * len(order)
    for place, number in enumerate(order):
        places[number] = place
    return places
