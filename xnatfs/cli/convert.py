"""`xnatfs convert`: convert the DICOM scans below some paths to NIfTI, before somebody needs them."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from xnatfs.cli.format import say
from xnatfs.daemon import control, mount_registry
from xnatfs.errors import UsageError
from xnatfs.text import printable
from xnatfs.vfs import XATTR_PREFIX

_SHOWN = 20  # problems
_EVERY = 10.0  # seconds between progress lines without a terminal
_LONGEST_S = 3600.0  # for one scan, which waits for others
_VIEWS = ("views", "lists")
_KEY = f"{XATTR_PREFIX}key"
_DEPTH = 6  # views/PROJECT/nifti/SUBJECT/SESSION/SCAN


class _ScanPath(NamedTuple):
    """The folder of a scan in a `nifti/`, or an image of it in a `bids/`: the mount's socket, and the path
    below the mountpoint.
    """

    socket: str
    below: str


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
    scans = [scan for path in paths for scan in _scans_below(path, problems)]
    images, whole = 0, 0
    said = time.monotonic()
    pool = ThreadPoolExecutor(jobs or os.cpu_count() or 1)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("converting", total=len(scans))
            asked: dict[Future[Any], _ScanPath] = {pool.submit(_convert, scan): scan for scan in scans}
            for number, future in enumerate(as_completed(asked), 1):
                answer = future.result()
                images += answer["images"]
                whole += not answer["problems"]
                problems += [f"{asked[future].below}: {one}" for one in answer["problems"]]
                bar.update(task, completed=number, description=f"converting {number} of {len(scans)} scans")
                if not sys.stderr.isatty() and time.monotonic() - said > _EVERY:
                    said = time.monotonic()
                    say(f"{number} of {len(scans)} scans", err=True)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        say("interrupted; run the same command to continue", err=True)
        return 130
    for problem in sorted(problems)[:_SHOWN]:
        say(f"xnatfs: {printable(problem)}", err=True)
    if len(problems) > _SHOWN:
        say(f"xnatfs: ... and {len(problems) - _SHOWN} more", err=True)
    say(f"{whole} of {len(scans)} scans are converted ({images} images)")
    return 1 if problems else 0


def _convert(scan: _ScanPath) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = control.ask(scan.socket, "convert", _LONGEST_S, below=scan.below)
        return answer
    except UsageError as error:
        return {"images": 0, "problems": [str(error)]}


def _scans_below(path: str, problems: list[str]) -> Iterator[_ScanPath]:
    """The scans at, above or below a path; what cannot be listed becomes a problem.

    Raises:
        UsageError: there are none by its place.
    """
    mount = mount_registry.containing(path)
    if mount is None:
        raise UsageError(f"{path} is not in an xnatfs mount")
    parts = [part for part in mount_registry.absolute(path)[len(mount.mountpoint) :].split("/") if part]
    if len(parts) == 2:
        parts.append("nifti")
    if len(parts) < 3 or parts[0] not in _VIEWS or parts[2] not in ("nifti", "bids"):
        raise UsageError(f"{path} has no scans to convert; name views/PROJECT/nifti, or a folder in it")
    if parts[2] == "bids":
        yield from _images_below(mount, "/".join(parts), problems)
        return
    todo = ["/".join(parts[:_DEPTH])]
    while todo:
        below = todo.pop()
        if below.count("/") == _DEPTH - 1:
            yield _ScanPath(mount.socket, below)
        else:
            todo += [f"{below}/{name}" for name, _ in _listed(mount, below, problems, folders=True)]


def _images_below(mount: mount_registry.Registration, below: str, problems: list[str]) -> Iterator[_ScanPath]:
    """An image of each scan in a `bids/` that is made of DICOM files."""
    known: set[bytes] = set()
    todo = [below]
    while todo:
        path = todo.pop()
        if path.endswith(".nii.gz"):
            try:
                key = os.getxattr(os.path.join(mount.mountpoint, path), _KEY)
            except OSError as error:
                if error.errno != errno.ENODATA:  # else it is an image of the server
                    problems.append(f"{path}: {error.strerror}")
                continue
            if key not in known:
                known.add(key)
                yield _ScanPath(mount.socket, path)
        else:
            todo += [
                f"{path}/{name}"
                for name, folder in _listed(mount, path, problems)
                if folder or name.endswith(".nii.gz")
            ]


def _listed(
    mount: mount_registry.Registration, below: str, problems: list[str], *, folders: bool = False
) -> list[tuple[str, bool]]:
    """The names in a folder, the last first, and whether each is a folder; of `folders` alone."""
    try:
        with os.scandir(os.path.join(mount.mountpoint, below)) as found:
            names = [(one.name, one.is_dir()) for one in found]
    except OSError as error:
        problems.append(f"{below}: {error.strerror}")
        return []
    return sorted(((name, folder) for name, folder in names if folder or not folders), reverse=True)
