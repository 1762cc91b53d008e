"""What the PATHs of a command mean: files and folders of the tree, by their names or by shell patterns.

Used by the commands `ls`, `cat` and `get`.
Threading: any thread; no state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.text import did_you_mean
from xnatfs.vfs import Vfs
from xnatfs.vfs_io import absolute, glob

_MAGIC = re.compile(r"[*?[]")
_MISSING = (Cause.NO_ENTRY, Cause.NOT_A_DIRECTORY, Cause.NAME_TOO_LONG)


def matched(vfs: Vfs, pattern: str) -> Iterator[str]:
    """The absolute paths that a PATH stands for: the one of this very name, else those that match.

    Raises:
        UsageError: there is none; the text names what was not found, and what may have been meant.
        Failure: what keeps the server from answering.
    """
    if "://" in pattern:
        raise UsageError(
            f"{pattern} is a URL; a path begins at the top, as in projects/ALFA (--server names the server)"
        )
    path = absolute(pattern)
    try:
        vfs.attributes(path)
    except Failure as failure:
        if failure.cause not in _MISSING:
            raise
    else:
        yield path
        return
    if not _MAGIC.search(pattern):
        raise UsageError(not_found(vfs, path))
    found = None
    for found in glob(vfs, path):
        yield found
    if found is None:
        raise UsageError(not_found(vfs, path))


def not_found(vfs: Vfs, path: str) -> str:
    """A sentence about a path that is not there: the first name that is missing, and names like it."""
    above = ""
    parts = path.split("/")[1:]
    for number, name in enumerate(parts):
        if _MAGIC.search(name):
            return f"nothing matches {path.removeprefix('/')}"
        try:
            vfs.attributes(f"{above}/{name}")
        except Failure as failure:
            if failure.cause not in _MISSING:
                raise
            return _sentence(vfs, above, name, last=number == len(parts) - 1)
        above = f"{above}/{name}"
    return f"{path.removeprefix('/')}: {Cause.NO_ENTRY.sentence}"


def _sentence(vfs: Vfs, above: str, name: str, *, last: bool) -> str:
    try:
        names = [one for one, _ in vfs.entries(above or "/")]
        like = did_you_mean(name, names)
        if not above and not like and name in [one for one, _ in vfs.entries("/projects")]:
            like = f"; did you mean projects/{name}?"
    except Failure as failure:
        if failure.cause is Cause.NOT_A_DIRECTORY:
            return f"{above.removeprefix('/')} is a file, not a folder"
        raise
    where = f" in {above.removeprefix('/')}" if above else " at the top"
    kind = "file or folder" if last else "folder"
    return f"there is no {kind} {name!r}{where}{like}"
