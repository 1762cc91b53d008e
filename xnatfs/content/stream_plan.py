"""How much of a large file is fetched at once, for whom, and how far ahead (design.md 4.2).

- A reader that begins at the start gets a first part of 512 KiB, enough for any header; if it reads on, 4
  MiB, then one stream to the end that keeps ahead of it by a bounded window, waits while nobody reads, and
  lets go of its connection when nobody does for some time.
- A read elsewhere, out of order, gets the pages it touches.

Used by `content.stream_scheduler`, which does it. Plain functions: they look and decide, and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from xnatfs.content.stream_activity import StreamActivity

FIRST = 512 * 1024
SECOND = 4 * 2**20
WINDOW = 32 * 2**20  # a stream keeps at most this far ahead of its readers
NEAR = 4 * 2**20  # a read this far ahead of a running stream waits for it
IDLE_S = 8.0  # after which a stream that nobody reads lets its connection go
IN_ORDER = 2**20  # bytes: a read no further than this from the end of the last one is in order


class Fetch(StreamActivity):
    """One answer being received: it is at `position` and will go to `end`."""

    def __init__(self, position: int, end: int) -> None:
        super().__init__()
        self.position = position
        self.end = end


class Place(Protocol):
    """Where a reader is: the last read ended at `position`, after `run` bytes in order."""

    position: int
    run: int


def is_coming(fetches: Iterable[Fetch], start: int, near: int = NEAR) -> bool:
    """Whether the byte at `start` is on its way, and not more than `near` bytes off."""
    return any(one.position <= start < one.end and start - one.position <= near for one in fetches)


def is_far_ahead(fetch: Fetch, readers: Iterable[Place]) -> bool:
    """Whether a stream is so far ahead of all readers that it had better wait."""
    return not any(fetch.position - WINDOW <= one.position <= fetch.end + NEAR for one in readers)


def end_for(reader: Place, start: int, size: int, first: int) -> int:
    """How far to fetch from `start` on for a reader in order; `first` is its first part."""
    if reader.run > FIRST + SECOND // 2:
        return size
    return min(size, start + (SECOND if reader.run > first // 2 else first))


def end_ahead(position: int, start: int, size: int) -> int:
    """How far to fetch from `start` on for a reader in order that is at `position` and still has bytes."""
    return min(size, start + SECOND) if position < FIRST + SECOND // 2 else size
