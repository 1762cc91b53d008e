"""Whether the files that a new listing lacks are really gone: a listing of files has no count of its own.

Used by `listing.file_indexes`. While one query inside it fails, XNAT answers a listing of files with 200,
well-formed, and with nothing or less in it (xnat-rest.md 13, executed); believed, `rsync --delete` would
empty a copy. So where files are missing that were listed before, another form is asked: how many files the
resources count. While that says more than is listed, what was listed before stays.
Threading: any thread; no lock is held over I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping

from cachetools import LRUCache

from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import FileIndex

# A count in XNAT's database can be wrong for good (a catalog edited on its disk). What is listed alike for so
# long is believed, as long as it is anything at all.
ACCEPTED_AFTER_S = 600.0

Counts = Callable[[], Mapping[int, int | None]]


class Absences:
    """Judges the listings of one server."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._lock = threading.Lock()
        self._doubted: LRUCache[Hashable, tuple[float, tuple[tuple[int, int], ...]]] = LRUCache(4096)

    def prove(
        self,
        key: Hashable,
        before: FileIndex,
        after: FileIndex,
        *,
        moved: bool,
        counts: Counts,
        again: Callable[[], FileIndex],
    ) -> None:
        """Return if `after` may take the place of `before`.

        Args:
            key: what they list.
            moved: whether the stamp of what they list moved.
            counts: asks for the files each resource counts, by number of the resource; None for one that was
                never counted.
            again: asks for the listing once more.

        Raises:
            Failure: UNPROVEN if files are missing in `after` that another form still counts; what keeps the
                server from answering.
        """
        lacking = [
            number
            for number, files in before.by_resource.items()
            if _paths(before, number) - _paths(after, number)
        ]
        if not lacking:
            with self._lock:
                self._doubted.pop(key, None)
            return
        counted = counts()
        there = {number: len(after.by_resource.get(number, ())) for number in lacking}
        known = {number: count for number in lacking if (count := counted.get(number)) is not None}
        doubtful = [number for number, count in known.items() if count > there[number] + len(after.odd)]
        uncounted = [number for number in lacking if number in counted and number not in known]
        if not doubtful and uncounted and not moved and again().by_resource != after.by_resource:
            doubtful = uncounted
        if not doubtful:
            return
        if all(there[number] for number in doubtful) and self._stands(key, after):
            self._diagnostics.odd(
                f"{_said(key)}: the server counts {sum(known[one] for one in doubtful)} files and keeps "
                f"listing fewer"
            )
            return
        words = (
            f"{sum(there[one] for one in doubtful)} files are listed, "
            f"{sum(known.get(one, 0) for one in doubtful)} are counted"
        )
        self._diagnostics.odd(f"{_said(key)}: {words}; showing the previous listing")
        raise Failure(Cause.UNPROVEN, _said(key), words)

    def _stands(self, key: Hashable, after: FileIndex) -> bool:
        seen = tuple((number, len(files)) for number, files in after.by_resource.items())
        with self._lock:
            first, what = self._doubted.get(key, (0.0, ()))
            if what != seen:
                first = time.monotonic()
                self._doubted[key] = first, seen
        return time.monotonic() - first >= ACCEPTED_AFTER_S


def _paths(snapshot: FileIndex, number: int) -> set[str]:
    return {file.path for file in snapshot.by_resource.get(number, ())}


def _said(key: Hashable) -> str:
    """A key of `listing.files` in words."""
    kind, what = key if isinstance(key, tuple) and len(key) == 2 else ("listing", key)
    return f"the files of {kind} {what}"
