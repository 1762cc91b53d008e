"""The processes that keep a mount busy: with an open file, their current or root folder.

Used by `xnatfs unmount`. Reads links of /proc only (proc(5)), so that a mount that hangs is never touched.
Files that are only mapped are not looked for: /proc/PID/maps waits for the lock of the memory map, which a
page fault in a stuck mount may hold. Processes of other users show theirs to root only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from xnatfs.text import printable


class Holder(NamedTuple):
    """A process in a mount."""

    pid: int
    name: str
    how: str  # "open files" or "current folder"

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.pid}, {self.how})"


def holders(mountpoint: str) -> list[Holder]:
    """The processes with something open at or below a mountpoint, as far as this user may know."""
    prefix = mountpoint.rstrip("/") + "/"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        how = _how(process, mountpoint, prefix)
        if how:
            with contextlib.suppress(OSError):
                found.append(Holder(int(process.name), (process / "comm").read_text().strip(), how))
    return sorted(found)


def _how(process: Path, mountpoint: str, prefix: str) -> str:
    def inside(path: str) -> bool:
        return path == mountpoint or path.startswith(prefix)

    with contextlib.suppress(OSError):
        if any(inside(target) for target in _targets(process / "fd")):
            return "open files"
    for link in ("cwd", "root"):
        with contextlib.suppress(OSError):
            if inside(os.readlink(process / link)):
                return "current folder"
    return ""


def _targets(folder: Path) -> Iterator[str]:
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            yield os.readlink(folder / name)
