"""xnatfs: an XNAT server as a directory."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from xnatfs._version import __version__

__all__ = ["__version__", "table"]


def __getattr__(name: str) -> Any:
    """`xnatfs.table` is loaded when it is asked for: the commands need neither pandas nor pyarrow to
    start.
    """
    if name == "table":
        # By name: to the layer rule, which allows imports downward only, every module imports this one.
        return import_module("xnatfs.api").table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
