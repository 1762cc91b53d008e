"""`xnatfs unmount`: end a mount, also a dead or a busy one."""

from __future__ import annotations

import contextlib
import os
import time

import click

from xnatfs.cli import completing
from xnatfs.cli.format import say
from xnatfs.daemon import control, dead_mounts, mount_registry, mount_table, overlay
from xnatfs.daemon.holders import holders
from xnatfs.errors import UsageError

_CLOSE_TIMEOUT_S = 5.0  # for programs to close their files
_ANSWER_TIMEOUT_S = 3.0  # for the process to answer
_NAMED = 5  # processes


@click.command("unmount")
@click.argument(
    "mountpoint", shell_complete=completing.mounts
)  # no click.Path: it accesses the path, which may hang
def command(mountpoint: str) -> None:
    """End the mount at MOUNTPOINT.

    If files in it are still open, the programs that hold it are named; after a few seconds the mount is
    detached all the same, and programs reading in it get an error.
    """
    place = mount_registry.absolute(mountpoint)
    stuck = end(place)
    say(f"{place} is unmounted")
    if stuck:
        say(stuck, err=True)


def end(place: str) -> str:
    """Unmount and wait until the daemon is gone; the sentence to show if it stays.

    Raises:
        UsageError: nothing is mounted there, or it cannot be unmounted.
    """
    entry = mount_table.at(place)
    running = mount_registry.of(place)
    if entry is None and running is None:
        around = mount_registry.containing(place)
        meant = f"; it is in the mount at {around.mountpoint}" if around is not None else ""
        raise UsageError(f"nothing is mounted at {place}{meant}")
    if entry is not None and not overlay.is_ours(entry):
        raise UsageError(f"{place} is not an xnatfs mount but {entry.source} ({entry.kind})")
    stopped = running is not None and dead_mounts.stopped(running)
    if entry is not None:
        deadline = time.monotonic() + (0.0 if stopped else _CLOSE_TIMEOUT_S)
        problem = mount_table.unmount(place, lazy=False)
        if problem and "busy" in problem and not stopped:
            _say_who(place)
        while problem and "busy" in problem and time.monotonic() < deadline:
            time.sleep(0.2)
            problem = mount_table.unmount(place, lazy=False)
        if problem and mount_table.at(place) is not None:
            if running is not None and not stopped:
                with contextlib.suppress(UsageError):
                    control.ask(running.socket, "stop", timeout=_ANSWER_TIMEOUT_S)
            mount_table.unmount(place, lazy=True)
        if not mount_table.wait_gone(place, _CLOSE_TIMEOUT_S):
            raise UsageError(f"{place} could not be unmounted: {problem}")
    if running is not None and not stopped:
        # The kernel may have requested readahead for a reader that is gone: the daemon would wait for the
        # server for nothing.
        with contextlib.suppress(UsageError):
            control.ask(running.socket, "stop", timeout=_ANSWER_TIMEOUT_S)
        _wait_for_end(running)
    overlay.clear(place)
    return dead_mounts.left_behind(running) if running is not None and running.alive else ""


def _say_who(place: str) -> None:
    found = holders(place)
    who = (
        ", ".join(str(one) for one in found[:_NAMED])
        or "a program that cannot be named (another user's, or by a mapped file)"
    )
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    say(
        f"{place} is in use by {who}{more}; it is detached in {_CLOSE_TIMEOUT_S:.0f} s if it still is",
        err=True,
    )


def _wait_for_end(running: mount_registry.Registration) -> None:
    deadline = time.monotonic() + 10
    while (
        running.alive and time.monotonic() < deadline
    ):  # a zombie is no longer alive: its parent may reap it later
        time.sleep(0.05)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(running.pid, os.WNOHANG)  # `xnatfs demo` started it itself
