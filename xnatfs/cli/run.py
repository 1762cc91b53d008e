"""`xnatfs run`: a mount for the life of one command, which nobody else sees."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from xnatfs.cli import mount
from xnatfs.cli.options import Where
from xnatfs.daemon import job, mount_registry, namespace, upper_layer
from xnatfs.errors import UsageError


@click.command("run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@mount.mount_options
@click.option(
    "--at",
    "place",
    metavar="DIR",
    help="Mount at DIR, an empty folder. Without it the mount is where the variable XNATFS_MOUNT says.",
)
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...", type=click.UNPROCESSED)
def command(where: Where, place: str | None, overlay: str | None, words: tuple[str, ...], **more: Any) -> int:
    """Run COMMAND with a mount that only COMMAND and what it starts can see, and that ends with it.

    Neither root nor fusermount3 is needed, but a kernel that lets users have namespaces of their own.
    COMMAND finds the mount at $XNATFS_MOUNT, or at the DIR of --at. Signals are passed on to it; the exit
    code is COMMAND's, or 128 + N if signal N ended it. Whatever happens, nothing stays mounted, and nothing
    that COMMAND has started goes on.
    """
    settings, login = mount.settings_of(where, overlay=overlay, **more)
    try:
        mount.check_fuse(helper=False)
    except UsageError as problem:
        raise UsageError(f"{problem}; {namespace.WITHOUT_A_MOUNT}") from None
    if place is None:
        point = job.default_place()
    else:
        point = mount_registry.absolute(place)
        mount.check_own_folders(point, settings)
        mount.check_mountpoint(point)
    # In a user namespace root's links are nobody's, and would be refused as another user's.
    settings = dataclasses.replace(settings, cache_dir=Path(os.path.realpath(settings.cache_dir)))
    upper = None
    if overlay is not None:
        upper = upper_layer.claim(overlay, point, settings.server, settings.cache_dir)
    return job.run(settings, login, point, upper, words)
