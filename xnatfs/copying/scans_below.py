"""The scans below a path of a `nifti/` or `bids/` that are made of DICOM files: a path for each, by which it
is converted.

Used by the commands `convert`, `get` and `warm`: what somebody names is converted before its names and sizes
are looked at, since they may turn out to be others.
Threading: one thread.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Protocol

from xnatfs.convert.converted_scans import IMAGE_SUFFIX
from xnatfs.core import Core
from xnatfs.errors import Cause, Failure
from xnatfs.vfs import XATTR_PREFIX

VIEWS = ("views", "lists")
KEY = f"{XATTR_PREFIX}key"
_DEPTH = 6  # views/PROJECT/nifti/SUBJECT/SESSION/SCAN


class ScanPlaces(Protocol):
    """Where paths are looked at: a mount, or the tree without one. Paths have no slash before them."""

    def listed(self, below: str) -> list[tuple[str, bool]]:
        """The names in a folder, and whether each is a folder.

        Raises:
            OSError: it cannot be listed.
        """
        ...

    def to_convert(self, below: str, *, image: bool) -> str | None:
        """What tells the scan from others that an image, or else a folder of `nifti/`, is of; None if there
        is nothing to convert.

        Raises:
            OSError: it cannot be looked at.
        """
        ...


class TreeScans:
    """The tree without a mount. What is known already is not converted: it may not be needed again."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def listed(self, below: str) -> list[tuple[str, bool]]:
        """See `ScanPlaces`."""
        return [(name, stat.S_ISDIR(one.mode)) for name, one in self._core.vfs.entries(f"/{below}")]

    def to_convert(self, below: str, *, image: bool) -> str | None:
        """See `ScanPlaces`."""
        try:
            if not image:
                self._core.vfs.folder(f"/{below}", walking=True)
                return None
            key = self._core.vfs.xattr(f"/{below}", KEY).decode()
            return None if self._core.conversions.known(key) else key
        except Failure as failure:
            if failure.cause is Cause.NOT_CONVERTED:
                return below
            if failure.cause is Cause.NO_ATTRIBUTE:  # an image of the server
                return None
            raise


def folders_with_scans(below: str) -> list[str]:
    """The path itself if it is in a `nifti/` or `bids/`; these two if it is a project, or list, in a view."""
    parts = [part for part in below.split("/") if part]
    if parts[:1] and parts[0] in VIEWS:
        if len(parts) == 2:
            return [f"{parts[0]}/{parts[1]}/{name}" for name in ("nifti", "bids")]
        if parts[2:3] in (["nifti"], ["bids"]):
            return ["/".join(parts)]
    return []


def scans_below(places: ScanPlaces, below: str, problems: list[str]) -> Iterator[str]:
    """The scans at, above or below a path that `folders_with_scans` gave; what cannot be listed becomes a
    problem.
    """
    in_bids = below.split("/")[2] == "bids"
    known: set[str] = set()
    todo = [below]
    while todo:
        path = todo.pop()
        scan = not in_bids and path.count("/") >= _DEPTH - 1
        try:
            if scan or (in_bids and path.endswith(IMAGE_SUFFIX)):
                path = path if in_bids else "/".join(path.split("/")[:_DEPTH])
                key = places.to_convert(path, image=in_bids)
                if key is not None and key not in known:
                    known.add(key)
                    yield path
                continue
            listed = sorted(places.listed(path), reverse=True)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            continue
        todo += [
            f"{path}/{name}" for name, folder in listed if folder or (in_bids and name.endswith(IMAGE_SUFFIX))
        ]
