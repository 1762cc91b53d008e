"""How far something has come that fetches files: a bar on a terminal, else a line now and then.

Used by `warm` and `get`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from xnatfs.cli.format import say, size

_EVERY_S = 10.0  # between lines without a terminal
_LOOK_S = 0.02


class Followed(Protocol):
    """What is followed: what is done and what is to be done, as far as it is known."""

    files: int
    bytes: int
    total_files: int
    total_bytes: int


def follow(work: Followed, running: Callable[[], bool], *, quiet: bool = False) -> None:
    """Show it until it ends.

    Args:
        running: whether it goes on.
        quiet: only wait.

    Raises:
        KeyboardInterrupt: it is interrupted, and goes on.
    """
    terminal = sys.stderr.isatty()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not terminal) as bar:
        task = bar.add_task("fetching", total=None)
        said = time.monotonic()
        while running():
            time.sleep(_LOOK_S)
            bar.update(
                task,
                completed=work.bytes,
                total=max(work.total_bytes, work.bytes),  # a table's size is known when it is built
                description=f"fetching {work.files} of {work.total_files} files",
            )
            if not terminal and not quiet and time.monotonic() - said > _EVERY_S:
                said = time.monotonic()
                say(
                    f"{work.files} of {work.total_files} files, {size(work.bytes)} of "
                    f"{size(work.total_bytes)}",
                    err=True,
                )
