"""`xnatfs warm`: fetch everything below some paths into the cache."""

from __future__ import annotations

import sys

import click
from rich.progress import Progress, TextColumn

from xnatfs.cli.convert import ScanPath, convert_all, in_mount, to_warm
from xnatfs.cli.following import follow
from xnatfs.cli.format import say, size
from xnatfs.daemon import control, mount_registry
from xnatfs.daemon.warm_up import Warming, survey
from xnatfs.errors import UsageError
from xnatfs.text import printable

_SHOWN = 20  # problems


@click.command("warm")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=str), metavar="PATH...")
def command(paths: tuple[str, ...]) -> int:
    """Fetch every file below PATH... into the cache, so that it can be read later without the server (see
    `mount --offline`). DICOM scans below it in a nifti or bids folder are converted.

    Each PATH is inside a mount: a project, a session, a scan, a file. Cached files are skipped, so after an
    interruption the same command continues where it stopped. Exit code 0 if everything is cached, else 1.
    """
    caps: dict[str, int] = {}
    scans: list[ScanPath] = []
    for path in paths:
        mount = mount_registry.containing(path)
        if mount is None:
            raise UsageError(f"{path} is not in an xnatfs mount")
        if mount.mountpoint not in caps:
            caps[mount.mountpoint] = int(control.ask(mount.socket, "status")["contents"]["cap"])
        scans += to_warm(path, mount)
    try:
        convert_all(scans, in_mount)  # what fails is met again below
    except KeyboardInterrupt:
        return _interrupted()
    with Progress(TextColumn("{task.description}"), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("listing", total=None)
        plan = survey(
            paths,
            lambda so_far: bar.update(
                task, description=f"listing: {so_far.files} files, {size(so_far.bytes)}"
            ),
        )
    cap = min(caps.values())
    if plan.bytes > cap:
        raise UsageError(
            f"this is {size(plan.bytes)}, and the cache of this mount is limited to {size(cap)}; mount "
            f"with a larger --cache-size, or warm less"
        )
    warming = Warming(plan)
    warming.start()
    try:
        follow(warming, lambda: warming.running)
    except KeyboardInterrupt:
        warming.stop()
        return _interrupted()
    for problem in warming.problems[:_SHOWN]:
        say(f"xnatfs: {printable(problem)}", err=True)
    if len(warming.problems) > _SHOWN:
        say(f"xnatfs: ... and {len(warming.problems) - _SHOWN} more", err=True)
    good = warming.files - len(warming.problems) + len(plan.problems)
    say(f"{good} of {plan.files} files are in the cache ({size(plan.bytes)})")
    return 1 if warming.problems else 0


def _interrupted() -> int:
    say("interrupted; run the same command to continue", err=True)
    return 130
