"""When things are asked for in order, what comes next?

Used by `listing.sessions` and `listing.files`: a `find` visits session after session; fetching the next ones
meanwhile, in parallel, takes the round trips out of it. One look fetches nothing ahead: `ls` of one session
in a project of 20,000 must not ask for the others.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable, Iterable

from cachetools import TTLCache

_WIDEST = 32
_DIGITS = re.compile(r"\d+")
_FORGOTTEN = 20.0  # seconds after which a walk over the same place is a new one


class WalkOrder:
    """Ids in the order the tree lists them (by label: `find`, `rsync`) and by the number in them (inode
    order: `cp -r`).
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.ids = list(ids)
        self.position = {one: index for index, one in enumerate(self.ids)}
        self.by_number = sorted(self.ids, key=lambda one: (_number(one), one))
        self.number_position = {one: index for index, one in enumerate(self.by_number)}


class WalkDetector:
    """Recognises walks; several may go on at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: TTLCache[tuple[Hashable, str, int], int] = TTLCache(4096, ttl=_FORGOTTEN)

    def window(self, walk: Hashable, order: WalkOrder, current: str) -> list[str]:
        """What to fetch beside `current`: nothing at first, then 4, 8, ... 32 ids as the walk goes on."""
        if current not in order.position:
            return []
        best: tuple[int, list[str], int] = (1, [], 0)
        with self._lock:
            for name, ids, positions in (
                ("label", order.ids, order.position),
                ("number", order.by_number, order.number_position),
            ):
                position = positions[current]
                if (walk, name, position) in self._runs:
                    return []  # told a moment ago: a session is looked into many times
                run = self._runs.get((walk, name, position - 1), 0) + 1
                self._runs[walk, name, position] = run
                best = max(best, (run, ids, position), key=lambda found: found[0])
        run, ids, position = best
        return ids[position + 1 : position + 1 + min(_WIDEST, 2**run)] if run > 1 else []


def _number(identity: str) -> int:
    numbers = _DIGITS.findall(identity)
    return int(numbers[-1][-18:]) if numbers else 0
