"""Restlet 1.1.10's byte ranges, with their bugs: the table of xnat-rest.md 3 [X] as one function.

Used by `files`. Pure, any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

_LONG_MAX = 2**63 - 1


@dataclass(frozen=True)
class Selection:
    """What a Range header makes of a file: the status, the announced length, and the bytes `start` to `stop`
    really sent.
    """

    status: int
    length: int
    start: int
    stop: int
    content_range: str = ""

    @property
    def short(self) -> bool:
        """More (or less than nothing) was announced than is sent: the client waits."""
        return self.length != self.stop - self.start


def _number(text: str) -> int:
    """Java's Long.parseLong: raises ValueError on anything but a 64-bit decimal."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    value = int(text)
    if value > _LONG_MAX:
        raise ValueError(text)
    return value


def select(header: str | None, size: int) -> Selection:
    """What the server does with `Range: header` on a file of `size` bytes. Status 501 stands for Restlet's
    status page.
    """
    whole = Selection(200, size, 0, size)
    if not header or size == 0 or not header.startswith("bytes="):
        return whole
    value = header[len("bytes=") :]
    if "," in value:
        return Selection(501, 0, 0, 0)
    try:
        index, count = _index_and_count(value, size)
    except ValueError:
        return Selection(500, size, 0, size)  # the whole file under a 500
    length = size - index if count is None else count
    last = size - 1 if count is None else index + count - 1
    start = min(max(index, 0), size)
    stop = min(size, start + max(length, 0))
    return Selection(206, length, start, stop, f"bytes {index}-{last}/{size}")


def of_unknown_size(header: str | None) -> int:
    """The status that a Range makes of a listing, zip or zip member: 200 (ignored), 500 or 501 with Restlet's
    page.

    `0-` asks for everything and is taken to be ignored [I]; the other open ends need the size.
    """
    if not header or not header.startswith("bytes="):
        return 200
    value = header[len("bytes=") :]
    if "," in value:
        return 501
    open_ended = value.startswith("-") or value.endswith("-")
    return 500 if open_ended and value != "0-" else 200


def _index_and_count(value: str, size: int) -> tuple[int, int | None]:
    """First byte and number of bytes as RangeUtils reads them; None for "to the end" (its own marker is -1,
    hence `10-8`).
    """
    if value.startswith("-"):
        count = _number(value[1:])
        return size - count, count
    first, dash, last = value.partition("-")
    if not dash:
        return 0, 0  # `bytes=5`, `bytes=x`: an empty range at the start, "bytes 0--1/size"
    index = _number(first)
    if not last:
        return index, None
    count = _number(last) - index + 1
    return index, None if count == -1 else count
