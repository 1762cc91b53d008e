"""`xnatfs convert`: convert the DICOM scans below some paths to NIfTI, before somebody needs them.

Used by `get` and `warm` too, for what they are to copy or read.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from xnatfs.cli.format import say
from xnatfs.copying.scans_below import KEY, folders_with_scans, scans_below
from xnatfs.daemon import control, mount_registry
from xnatfs.errors import UsageError
from xnatfs.text import printable

_SHOWN = 20  # problems
_EVERY = 10.0  # seconds between progress lines without a terminal
_LONGEST_S = 3600.0  # for one scan, which waits for others


class ScanPath(NamedTuple):
    """The folder of a scan in a `nifti/`, or an image of it in a `bids/`: the mount's socket ("" without a
    mount), and the path below the mountpoint.
    """

    socket: str
    below: str


@dataclass
class Done:
    """What came of some scans: images, scans of which nothing was refused, and what was, or failed."""

    images: int = 0
    whole: int = 0
    problems: list[str] = field(default_factory=list)


@click.command("convert")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=str), metavar="PATH...")
@click.option("--jobs", type=click.IntRange(1, 64), help="Scans at a time.  [default: processors]")
def command(paths: tuple[str, ...], jobs: int | None) -> int:
    """Convert the DICOM scans of views/PROJECT/nifti, or bids, below PATH... to NIfTI, and keep them, so that
    they are there when they are read.

    Each PATH is inside a mount: a project in views/, its nifti or bids folder, a subject, a session, a scan
    in that. In bids, that is what has a place there. Before a program that reads all of bids, convert it.
    What is converted already is skipped, so after an interruption the same command continues where it
    stopped. Exit code 0 if everything is converted, 1 if something was refused or failed.
    """
    problems: list[str] = []
    scans = [scan for path in paths for scan in _scans_at(path, problems)]
    try:
        done = convert_all(scans, in_mount, jobs)
    except KeyboardInterrupt:
        say("interrupted; run the same command to continue", err=True)
        return 130
    problems += done.problems
    for problem in sorted(problems)[:_SHOWN]:
        say(f"xnatfs: {printable(problem)}", err=True)
    if len(problems) > _SHOWN:
        say(f"xnatfs: ... and {len(problems) - _SHOWN} more", err=True)
    say(f"{done.whole} of {len(scans)} scans are converted ({done.images} images)")
    return 1 if problems else 0


def convert_all(
    scans: list[ScanPath], convert: Callable[[ScanPath], dict[str, Any]], jobs: int | None = None
) -> Done:
    """Convert scans, several at a time, with a progress bar on a terminal.

    Args:
        convert: converts one, as `Core.convert` does.
        jobs: how many at a time; as many as there are processors by default.

    Raises:
        KeyboardInterrupt: no further one is begun.
    """
    done = Done()
    if not scans:
        return done
    said = time.monotonic()
    pool = ThreadPoolExecutor(jobs or os.cpu_count() or 1)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("converting", total=len(scans))
            asked: dict[Future[Any], ScanPath] = {pool.submit(convert, scan): scan for scan in scans}
            for number, future in enumerate(as_completed(asked), 1):
                answer = future.result()
                done.images += answer["images"]
                done.whole += not answer["problems"]
                done.problems += [f"{asked[future].below}: {one}" for one in answer["problems"]]
                bar.update(task, completed=number, description=f"converting {number} of {len(scans)} scans")
                if not sys.stderr.isatty() and time.monotonic() - said > _EVERY:
                    said = time.monotonic()
                    say(f"{number} of {len(scans)} scans", err=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return done


def in_mount(scan: ScanPath) -> dict[str, Any]:
    """Convert a scan of a mount."""
    try:
        answer: dict[str, Any] = control.ask(scan.socket, "convert", _LONGEST_S, below=scan.below)
        return answer
    except UsageError as error:
        return {"images": 0, "problems": [str(error)]}


class _MountScans:
    """A mount; see `scans_below.ScanPlaces`."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint

    def listed(self, below: str) -> list[tuple[str, bool]]:
        with os.scandir(os.path.join(self._mountpoint, below)) as found:
            return [(one.name, one.is_dir()) for one in found]

    def to_convert(self, below: str, *, image: bool) -> str | None:
        if not image:
            return below
        try:
            return os.getxattr(os.path.join(self._mountpoint, below), KEY).decode()
        except OSError as error:
            if error.errno == errno.ENODATA:  # an image of the server
                return None
            raise


def to_warm(path: str, mount: mount_registry.Registration) -> Iterator[ScanPath]:
    """The scans below a path of a mount that is to be read whole; none where there are none by its place."""
    below = mount_registry.absolute(path)[len(mount.mountpoint) :]
    for folder in folders_with_scans(below):
        for scan in scans_below(_MountScans(mount.mountpoint), folder, []):
            yield ScanPath(mount.socket, scan)


def _scans_at(path: str, problems: list[str]) -> Iterator[ScanPath]:
    """The scans at, above or below a path; what cannot be listed becomes a problem.

    Raises:
        UsageError: there are none by its place.
    """
    mount = mount_registry.containing(path)
    if mount is None:
        raise UsageError(f"{path} is not in an xnatfs mount")
    folders = folders_with_scans(mount_registry.absolute(path)[len(mount.mountpoint) :])
    if not folders:
        raise UsageError(f"{path} has no scans to convert; name views/PROJECT/nifti, or a folder in it")
    for scan in scans_below(_MountScans(mount.mountpoint), folders[0], problems):
        yield ScanPath(mount.socket, scan)
