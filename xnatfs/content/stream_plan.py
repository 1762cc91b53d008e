"""How much of a large file is fetched at once, for whom, and how far ahead (design.md 4.2).

- A reader that begins at the start gets a first part of 512 KiB, enough for any header; if it reads on, 4
  MiB, then the rest: in stretches of 256 MiB where one stream is known to be enough, each kept ahead of it by
  a bounded window, waiting while nobody reads, and giving up its connection when nobody does for some time.
- Where more streams are worth it (`content.stream_tuner`), or where that is not known yet, in segments, as
  many at once as there are streams. A segment is received to its end: it is short, and what is on its way
  would be lost. Towards the end of the file they become shorter, so that all streams end together.
- A read elsewhere, out of order, gets the pages it touches.

Used by `content.stream_scheduler`, which does it. Plain functions: they look and decide, and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from xnatfs.content.stream_activity import StreamActivity

FIRST = 512 * 1024
SECOND = 4 * 2**20
WINDOW = 32 * 2**20  # a stream keeps at most this far ahead of its readers
NEAR = 4 * 2**20  # a read this far ahead of a running stream waits for it
STRETCH = 256 * 2**20  # of one stream that is enough; then it is looked again whether it still is
PROBE = 8 * 2**20  # the first segment while it is not known how many streams are worth it; then doubled
SEGMENTS = (4 * 2**20, 32 * 2**20)  # of several streams: at least, at most ...
_REQUESTS = 24  # ... and between the two, as much as comes in the time of so many requests
_LAST_SEGMENT = 2 * 2**20
_LEAD = 1.5  # round trips before the end of a stream, at which the next one is asked for
IDLE_S = 8.0  # after which a stream that nobody reads lets its connection go
IN_ORDER = 2**20  # bytes: a read no further than this from the end of the last one is in order


class Fetch(StreamActivity):
    """One answer being received: it is at `position` and will go to `end`.

    Attributes:
        in_order: for a reader in order: what comes is summed as soon as all before it is here.
        extra: begun beside another stream, with no reader waiting for it.
    """

    def __init__(self, position: int, end: int, *, in_order: bool = False, extra: bool = False) -> None:
        super().__init__()
        self.position = position
        self.end = end
        self.in_order = in_order
        self.extra = extra
        self.segment = end - position <= SEGMENTS[1]


class Place(Protocol):
    """Where a reader is: the last read ended at `position`, after `run` bytes in order."""

    position: int
    run: int


def is_coming(fetches: Iterable[Fetch], start: int, near: int = NEAR) -> bool:
    """Whether the byte at `start` is on its way, and not more than `near` bytes off."""
    return any(one.position <= start < one.end and start - one.position <= near for one in fetches)


def is_far_ahead(fetch: Fetch, readers: Iterable[Place]) -> bool:
    """Whether a stream is so far ahead of all readers that it had better wait."""
    return not fetch.segment and not any(
        fetch.position - WINDOW <= one.position <= fetch.end + NEAR for one in readers
    )


def reads_on(reader: Place) -> bool:
    """Whether a reader in order is beyond what it got to begin with, so that all of the file is fetched for
    it.
    """
    return reader.run > FIRST + SECOND // 2


def end_for(reader: Place, start: int, size: int, first: int, length: int) -> int:
    """How far to fetch from `start` on for a reader in order; `first` is its first part, `length` what is
    fetched at once later.
    """
    if reads_on(reader):
        return min(size, start + length)
    return min(size, start + (SECOND if reader.run > first // 2 else first))


def end_ahead(position: int, start: int, size: int, length: int) -> int:
    """How far to fetch from `start` on for a reader in order that is at `position` and still has bytes."""
    return min(size, start + (SECOND if position < FIRST + SECOND // 2 else length))


def segment_length(left: int, streams: int, rate: float, latency: float) -> int:
    """Bytes of a segment, where `left` are still to be fetched by so many streams.

    Args:
        rate: of all streams together, bytes a second.
        latency: of a request, seconds.
    """
    least, most = SEGMENTS
    wanted = max(least, min(most, int(rate / streams * latency * _REQUESTS)))
    return max(_LAST_SEGMENT, min(wanted, left // (2 * streams)))


def lead(streams: int, rate: float, latency: float) -> int:
    """Bytes before its end at which a stream counts as ended, so that the line is never idle."""
    return min(SECOND, int(rate / max(1, streams) * latency * _LEAD))


def window_of(streams: int, length: int) -> int:
    """How far ahead of its reader a segment may begin."""
    return max(WINDOW, (streams + 2) * length)


def first_unclaimed(
    fetches: Iterable[Fetch], start: int, missing: Callable[[int], tuple[int, int]]
) -> tuple[int, int]:
    """The first bytes from `start` on that are neither here nor on their way, from and to; none are left
    where the two are equal.

    Args:
        missing: the first bytes from one on that are not here, from and to.
    """
    fetches = list(fetches)
    place, stop = missing(start)
    while over := [one.end for one in fetches if one.position <= place < one.end]:
        place, stop = missing(max(over))
    return place, min([stop, *(one.position for one in fetches if one.position > place)])
