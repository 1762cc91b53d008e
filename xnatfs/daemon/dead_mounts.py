"""Mounts whose process is gone, stopped or stuck: found without touching them, since any access would hang.

Used by the commands.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from xnatfs.daemon import mount_registry, mount_table
from xnatfs.daemon.mount_registry import Registration

_STATES = {
    "T": "is stopped (`kill -CONT {pid}` resumes it)",
    "t": "is stopped by a debugger",
    "D": "waits for this machine's disk or network file system",
}


class DeadMount(NamedTuple):
    """A mountpoint whose process is gone, and the sentence to show."""

    mountpoint: str
    source: str
    problem: str


def dead() -> list[DeadMount]:
    """The dead mounts of this user."""
    running = mount_registry.running()
    known = {one.mountpoint for one in running}
    folders = [one.overlay.rstrip("/") + "/" for one in running if one.overlay]
    found = []
    for entry in mount_table.entries():
        place = entry.mountpoint
        owner = re.search(r"\buser_id=(\d+)", entry.options)
        ours = entry.kind == "fuse.xnatfs" and owner is not None and int(owner[1]) == os.geteuid()
        if (
            ours
            and place not in known
            and not any(place.startswith(one) for one in folders)
            and mount_table.is_dead(place)
        ):
            found.append(
                DeadMount(place, entry.source, f"its process is gone; `xnatfs unmount {place}` removes it")
            )
    return found


def problem_of(one: Registration) -> str:
    """Why the process of a mount may not answer, in one sentence."""
    return (
        f"the mount does not answer: its process {_about(one)}; `xnatfs unmount {one.mountpoint}` removes it"
    )


def left_behind(one: Registration) -> str:
    """The sentence about a process that keeps running although its mount is gone."""
    return f"its process {_about(one)} and did not end; `kill -9 {one.pid}` ends it"


def stopped(one: Registration) -> bool:
    """Whether the process is stopped, so that it can answer nothing."""
    return _state(one) in ("T", "t")


def _about(one: Registration) -> str:
    return f"{one.pid} {_STATES.get(_state(one), 'is busy or stuck').format(pid=one.pid)}"


def _state(one: Registration) -> str:
    try:
        return Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
