"""A second tier behind the caches of many machines: contents by their digest, put there once and read by all.

Used by `content.shared_content`, which decides what goes there; made by `shared_place`. Two kinds: a folder
on a shared disk (`shared_directory`), and an object store that fsspec knows (`shared_objects`). Both have

    objects/ab/<MD5>-<size>   whole files; never changed, may be deleted at any time
    leases/<name>             who is fetching something just now, or is there at all: a hint; no lock

Nothing in it is believed: whoever takes an object compares its MD5 with the one the server lists.
Threading: any thread; no state but the connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

_KEY = re.compile(r"[0-9a-f]{32}-[0-9]{1,18}")


class StoredObject(NamedTuple):
    """An object found: its bytes in pieces, which may raise whatever its store raises."""

    pieces: Iterator[bytes]


class SharedTier(Protocol):
    """Where objects and leases are. Any method may raise whatever its store raises: OSError, or an error of
    its client.
    """

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        ...

    def open(self, key: str, *, fresh: bool = False) -> StoredObject | None:
        """An object; None if there is none. `fresh`: it may have come since somebody looked."""
        ...

    def many(self, keys: Iterable[str]) -> Iterator[tuple[str, StoredObject]]:
        """Those of these small objects that are there, in whatever order."""
        ...

    def put(self, key: str, fd: int, size: int) -> None:
        """Put the first `size` bytes of a file there, all at once for whoever looks."""
        ...

    def remove(self, key: str) -> None:
        """Remove an object that is not what its name says."""
        ...

    def claim(self, name: str, holder: str) -> bool:
        """Leave a lease; False if there is one."""
        ...

    def lease(self, name: str) -> str:
        """Something that changes as long as a lease is renewed; "" if there is none."""
        ...

    def holder(self, name: str) -> str:
        """Whose lease it is; "" if there is none."""
        ...

    def renew(self, name: str, holder: str) -> None:
        """The holder is still at it."""
        ...

    def ages(self, begin: str) -> dict[str, float]:
        """The leases whose names begin so, each with the seconds by which the newest of them was renewed
        later, as the store's own clock says.
        """
        ...

    def release(self, name: str, holder: str) -> None:
        """Remove a lease, if it is this holder's."""
        ...

    def bury(self, name: str, state: str) -> None:
        """Remove a lease whosever it is, if it is still in this state."""
        ...


def object_path(key: str) -> str:
    """Where an object lies, below the tier.

    Raises:
        ValueError: it is not the key of one: what the server says becomes no path.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key[:100]!r} is not the key of a shared object")
    return f"objects/{key[:2]}/{key}"


def relative(renewed: dict[str, float]) -> dict[str, float]:
    """How much older each is than the newest."""
    newest = max(renewed.values(), default=0.0)
    return {name: newest - at for name, at in renewed.items()}


def is_key(key: str) -> bool:
    """Whether this is the key of a content that is named by its digest."""
    return _KEY.fullmatch(key) is not None
