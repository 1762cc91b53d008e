"""Which kind of shared tier a place that a user names is.

Used by `core`, which opens it, and what other machines of the user have listed; by the commands and the
library, which check what was typed.
"""

from __future__ import annotations

import re
from pathlib import Path

from xnatfs.cache.shared_directory import LISTINGS, SharedDirectory
from xnatfs.cache.shared_listings import SharedListings
from xnatfs.cache.shared_objects import SharedObjects
from xnatfs.cache.shared_tier import SharedTier
from xnatfs.errors import UsageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_tier(where: str) -> SharedTier:
    """The tier in a folder, or at a URL of an object store.

    Raises:
        UsageError: it cannot be used; the text says why. MissingExtra without fsspec.
    """
    if not _URL.match(where):
        return SharedDirectory(where)
    return SharedObjects(where)


def open_listings(where: str, scope: str) -> SharedListings | None:
    """What other machines of a user have listed, in the same tier; None where it cannot tell who wrote
    something.

    Args:
        scope: names the server and the user on it.
    """
    if not where or _URL.match(where):
        return None
    return SharedListings(Path(where).expanduser().absolute() / LISTINGS, scope)


def checked_place(where: str) -> str:
    """A place for a tier as a user wrote it, "" for none; of a folder, the whole path.

    Raises:
        UsageError: it is a URL with a secret in it.
    """
    if not _URL.match(where):
        return where and str(Path(where).expanduser().absolute())
    if "@" in where.partition("://")[2].partition("/")[0]:
        raise UsageError(
            "no password or key belongs in the URL of a shared cache; they are looked for where the store's "
            "library does it (for s3: the environment, or ~/.aws)"
        )
    return where
