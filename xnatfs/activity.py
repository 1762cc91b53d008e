"""What a mount is doing right now, as lines for people: tables being built, long listings, downloads.

Used by `.xnatfs/progress.txt` and `xnatfs status`, both from the report of the mount (`core.Core.report`), so
that they agree. Pure functions; any thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from xnatfs.text import printable, size


def activity(report: Mapping[str, Any]) -> list[str]:
    """A line for each thing under way, tables first; none if the mount is idle.

    Args:
        report: with `tables`, `listing` and `downloads`; a part that is not there has nothing under way.
    """
    lines = [
        f"building the table {printable(one['project'])}/{one['table']}: "
        f"{so_far(one['done'], one['total'])} sessions, since {clock_time(one['started'])}"
        for one in report.get("tables", ())
    ]
    lines += [
        f"{printable(one['what'])}: {so_far(one['done'], one['total'])}, since {clock_time(one['started'])}"
        for one in report.get("listing", ())
    ]
    return lines + [
        f"downloading {printable(one['file'])}: {size(one['received'])} of {size(one['size'])}"
        for one in report.get("downloads", ())
    ]


def so_far(done: int, total: int) -> str:
    """`3 of 9`."""
    return f"{done} of {total}"


def clock_time(when: float) -> str:
    """Epoch seconds as a time of day on this machine; with the date unless it is less than 12 hours ago."""
    form = "%H:%M:%S" if time.time() - when < 12 * 3600 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(when))
