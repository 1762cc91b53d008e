"""`xnatfs refresh`: check the server for changes now."""

from __future__ import annotations

import os

import click

from xnatfs.cli import completing
from xnatfs.cli.format import say
from xnatfs.daemon import control, mount_registry
from xnatfs.errors import UsageError


@click.command("refresh")
@click.argument(
    "path", required=False, shell_complete=completing.mounts
)  # no click.Path: it accesses the path, which may hang
def command(path: str | None) -> None:
    """Make a mount check the server at the next access, so that new data shows at once.

    PATH is a mount or any path in it; only that project is checked. Without PATH: the mount of the current
    folder, or else all mounts.
    """
    if path is None:
        here = mount_registry.containing(os.getcwd())
        asked = [(one, "") for one in ([here] if here else mount_registry.running())]
        if not asked:
            raise UsageError("nothing is mounted")
    else:
        one = mount_registry.containing(path)
        if one is None:
            raise UsageError(f"{path} is not in an xnatfs mount")
        asked = [(one, mount_registry.absolute(path)[len(one.mountpoint) :])]
    for one, below in asked:
        control.ask(one.socket, "refresh", below=below)
        say(f"{one.mountpoint} will check {one.server} again")
