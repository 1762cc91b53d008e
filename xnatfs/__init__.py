"""An XNAT server as a directory, and as a Python library.

The public names are those of `dir(xnatfs)`: `connect`, `table`, `subjects` and `sessions` (and `Client`, what
`connect` returns), the modules `errors` and `plugin`, `__version__`. They are loaded when they are first
used, so importing `xnatfs` costs nothing. Everything else in this package is private and changes without
notice.

See docs/python.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xnatfs._version import __version__

if TYPE_CHECKING:
    from xnatfs import errors, plugin
    from xnatfs.api import connect, sessions, subjects, table
    from xnatfs.client import Client

__all__ = ["Client", "__version__", "connect", "errors", "plugin", "sessions", "subjects", "table"]

_MODULES = ("errors", "plugin")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return import_module(f"xnatfs.{name}")
    value = globals()[name] = getattr(import_module("xnatfs.api"), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
