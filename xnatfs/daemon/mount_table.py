"""The kernel's list of mounts, and unmounting. Never touches a mountpoint itself: accessing a dead mount
hangs.

Used by `run` and by the commands.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from xnatfs.errors import UsageError

_MNT_DETACH = 2  # linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


class MountEntry(NamedTuple):
    """A line of /proc/self/mounts."""

    source: str
    mountpoint: str
    kind: str
    options: str = ""


def entries() -> list[MountEntry]:
    """Everything mounted, in mounting order."""
    with open("/proc/self/mounts", "rb") as stream:
        # Decoded as arguments are, in whatever locale: paths are compared.
        lines = [os.fsdecode(line).split() for line in stream]
    return [
        MountEntry(_unescape(line[0]), _unescape(line[1]), line[2], _unescape(line[3]))
        for line in lines
        if len(line) > 3
    ]


def at(mountpoint: str) -> MountEntry | None:
    """What is mounted at exactly this path, topmost."""
    return next((one for one in reversed(entries()) if one.mountpoint == mountpoint), None)


def kind_of(path: str | Path) -> str:
    """The type of the file system that contains a path."""
    real = os.path.realpath(path)
    over = [
        one
        for one in entries()
        if real == one.mountpoint or real.startswith(one.mountpoint.rstrip("/") + "/")
    ]
    return max(
        reversed(over),
        key=lambda one: len(one.mountpoint),
        default=MountEntry("", "", "an unknown file system"),
    ).kind


def is_dead(mountpoint: str) -> bool:
    """Whether the daemon of the FUSE mount at this path is gone."""
    return state_of(mountpoint) == DEAD


DEAD, SILENT, ANSWERS = "dead", "silent", "answers"
_LOOK = 3.0  # seconds


def state_of(mountpoint: str) -> str:
    """Whether the FUSE mount at this path is DEAD, SILENT or ANSWERS. A separate process asks, with a time
    limit.

    `statfs`, because the kernel answers a `stat` from its cache.
    """
    command = ["stat", "-f", "-t", "--", mountpoint]
    asking = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        _, said = asking.communicate(timeout=_LOOK)
    except subprocess.TimeoutExpired:
        asking.kill()
        with contextlib.suppress(
            subprocess.TimeoutExpired
        ):  # it cannot be killed once a stopped daemon has read its request
            asking.communicate(timeout=1)
        return SILENT
    return DEAD if asking.returncode != 0 and "not connected" in said else ANSWERS


def unmount(mountpoint: str, *, lazy: bool) -> str:
    """Unmount; "" on success, else the system's message."""
    tool = fusermount()
    entry = at(mountpoint)
    if os.geteuid() != 0 and _detached(mountpoint, lazy):
        return ""
    if tool and (entry is None or entry.kind.startswith("fuse")):
        command = [tool, "-u", *(["-z"] if lazy else []), "--", mountpoint]
    elif os.geteuid() == 0:
        command = ["umount", *(["-l"] if lazy else []), "--", mountpoint]
    else:
        raise UsageError("fusermount3 was not found; install the package fuse3")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}  # and no password
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=15, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return "it took too long"
    return "" if result.returncode == 0 else (result.stderr.strip() or f"exit code {result.returncode}")


def _detached(mountpoint: str, lazy: bool) -> bool:
    """Whether this process could unmount by itself: in a namespace of its own, where the set-uid helper has
    no power, it can.
    """
    return bool(_libc.umount2(os.fsencode(mountpoint), _MNT_DETACH if lazy else 0) == 0)


def fusermount() -> str | None:
    """The set-uid helper that lets users mount; libfuse 3's, else libfuse 2's."""
    return shutil.which("fusermount3") or shutil.which("fusermount")


def wait_gone(mountpoint: str, seconds: float) -> bool:
    """Wait until nothing is mounted there."""
    deadline = time.monotonic() + seconds
    while at(mountpoint) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: os.fsdecode(bytes([int(match[1], 8)])), text)
