"""`UPath("xnat://...")`: what universal_pathlib makes of an `xnat://` URL; without it, it would warn.

Public, by way of its entry point: see docs/fsspec.md.
Threading: any thread; immutable values.
"""

from __future__ import annotations

from fsspec import get_filesystem_class
from upath import UPath

get_filesystem_class("xnat")  # it knows the rules for a path only of file systems that are loaded


class XnatPath(UPath):
    """A path in the tree of an XNAT server, with the methods of `pathlib.Path` that read."""

    __slots__ = ()
