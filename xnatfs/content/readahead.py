"""Fetching ahead in flat folders: files that come one after the other but belong to different resources, so
that no zip helps.

Used by the views. A reader who opens a file after having read the one before it to its end, in the order of
names (`rsync`, shells) or of inode numbers (`cp -r`), will open the next ones: they are fetched into the
cache meanwhile, two (or 4 MiB) at first, then as many as keep every connection busy. Whoever reads only
headers, or jumps about, gets nothing ahead.
Threading: any thread; one lock a folder, held for moments.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.content.manager import ContentReader
from xnatfs.errors import Failure

log = logging.getLogger(__name__)

_PIECE_BYTES = 2**20
_INITIAL_FILES = 2  # files ...
_INITIAL_BYTES = 4 * 2**20  # ... or, of small ones, as many as are less than this
_RECHECK_AFTER_S = 10.0  # until a file is looked for in the cache again
_MAX_RECENT_FILES = (
    8  # files read to their end that are remembered: there may be several readers side by side
)


class Fetchable(Protocol):
    """A file that can be fetched ahead."""

    @property
    def inode(self) -> int:
        """Its inode number."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def kept(self) -> bool:
        """Whether it is whole in the cache."""
        ...

    def open_unwatched(self) -> ContentReader:
        """Its content, without anybody taking notice."""
        ...


class FolderReadahead:
    """The files of one flat folder, by their place in the listing.

    Args:
        workers: do the fetching.
        widest: files ahead at most.
        files: in listed order.
        most: bytes ahead at most.
    """

    def __init__(self, workers: WorkerPool, widest: int, files: Sequence[Fetchable], most: int) -> None:
        self._workers = workers
        self._widest = widest
        self._files = files
        self._most = most
        inodes = [file.inode for file in files]
        by_inode = sorted(range(len(files)), key=inodes.__getitem__)
        listed = list(range(len(files)))
        self._orders = [
            (listed, listed),
            (by_inode, _places(by_inode)),
        ]  # each with the place of every file in it
        self._lock = threading.Lock()
        sizes = sorted(file.size for file in files)
        usual = sizes[len(sizes) // 2] if sizes else 0
        self._at_first = max(_INITIAL_FILES, min(widest, _INITIAL_BYTES // max(1, usual)))
        self._whole: deque[int] = deque(maxlen=_MAX_RECENT_FILES)
        self._depth = 0  # nothing yet
        self._begun: dict[int, int] = {}  # what is on its way -> bytes
        # time.monotonic() at which a file was begun, or found in the cache
        self._looked: dict[int, float] = {}

    def opened(self, number: int) -> None:
        """A file is opened by a reader."""
        with self._lock:
            match = next(
                ((order, places) for order, places in self._orders if self._follows(order, places, number)),
                None,
            )
            if match is None:
                self._depth = 0
                return
            order, place = match[0], match[1][number] + 1
            if not self._depth:
                # A reader that comes straight from the file before reads on; with another read in between it
                # may be chance.
                self._depth = self._at_first if match[0][place - 2] == self._whole[-1] else _INITIAL_FILES
            now = time.monotonic()
            following = [
                upcoming
                for upcoming in order[place : place + self._depth]
                if now - self._looked.get(upcoming, -_RECHECK_AFTER_S) >= _RECHECK_AFTER_S
            ]
            self._looked.update(dict.fromkeys(following, now))
            self._depth = min(self._widest, self._depth * 2)
        wanted = [upcoming for upcoming in following if not self._files[upcoming].kept]
        with self._lock:
            begin = []
            for upcoming in wanted:
                size = self._files[upcoming].size
                if upcoming in self._begun:
                    continue
                if sum(self._begun.values()) + size > self._most:
                    self._looked.pop(upcoming, None)
                    continue
                self._begun[upcoming] = size
                begin.append(upcoming)
        for upcoming in begin:
            try:
                # a default binds the loop's variable
                self._workers.submit(lambda upcoming=upcoming: self._fetch(upcoming), urgent=False)  # type: ignore[misc]
            except Failure:  # the mount is ending
                return

    def read_whole(self, number: int) -> None:
        """A reader came to the end of a file. (Reported by the read: the kernel reports the close only
        after the next open.)
        """
        with self._lock:
            if number not in self._whole:
                self._whole.append(number)

    def read_in_part(self, number: int) -> None:
        """A reader closed a file without having come to its end."""
        with self._lock:
            self._whole.clear()
            self._depth = 0

    def _follows(self, order: Sequence[int], places: Sequence[int], number: int) -> bool:
        return places[number] > 0 and order[places[number] - 1] in self._whole

    def _fetch(self, number: int) -> None:
        file = self._files[number]
        try:
            if file.kept:
                return  # its reader was quicker
            reader = file.open_unwatched()
            try:
                position = 0
                while (
                    not self._workers.closed
                    and not file.kept
                    and (piece := reader.read(position, _PIECE_BYTES))
                ):
                    position += len(piece)
            finally:
                reader.close()
        except OSError as error:  # the reader who comes for it meets it himself
            log.info("a file could not be fetched ahead: %s", error)
        finally:
            with self._lock:
                self._begun.pop(number, None)


def _places(order: Sequence[int]) -> list[int]:
    places = [0] * len(order)
    for place, number in enumerate(order):
        places[number] = place
    return places
