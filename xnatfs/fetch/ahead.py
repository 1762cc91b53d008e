"""When things are asked for in order, what comes next?

Used by `catalogs`: a `find` visits session after session; fetching the next ones meanwhile, in parallel, takes the round trips out of it.
One look fetches nothing ahead: `ls` of one session in a project of 20,000 must not ask for the others.
Threading: any thread; one lock, held for moments.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable

from cachetools import TTLCache

_WIDEST = 32
_FORGOTTEN = 20.0  # seconds after which a walk over the same place is a new one


class Order:
    """Ids in the order the tree lists them."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.ids = list(ids)
        self.position = {one: index for index, one in enumerate(self.ids)}


class Ahead:
    """Recognises walks; several may go on at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: TTLCache[tuple[Hashable, int], int] = TTLCache(4096, ttl=_FORGOTTEN)

    def window(self, walk: Hashable, order: Order, current: str) -> list[str]:
        """What to fetch beside `current`: nothing at first, then 4, 8, ... 32 ids as the walk goes on."""
        position = order.position.get(current)
        if position is None:
            return []
        with self._lock:
            if (walk, position) in self._runs:
                return []  # told a moment ago: a session is looked into many times
            run = self._runs.get((walk, position - 1), 0) + 1
            self._runs[walk, position] = run
        if run < 2:
            return []
        return order.ids[position + 1 : position + 1 + min(_WIDEST, 2**run)]
