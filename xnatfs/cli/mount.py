"""`xnatfs mount`: mount a server, in the background unless --foreground is given."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from xnatfs.auth.credentials import Credentials
from xnatfs.cli import completing
from xnatfs.cli.format import say
from xnatfs.cli.options import F, Where, privacy, tree_options, where, with_options
from xnatfs.config import HIGH_LEVEL, LOW_LEVEL, Privacy, Settings
from xnatfs.daemon import dead_mounts, mount_registry, mount_table, upper_layer
from xnatfs.daemon import overlay as overlays
from xnatfs.daemon.run import background, foreground, is_handed_over
from xnatfs.errors import UsageError
from xnatfs.text import printable

_FUSE_CONF = Path("/etc/fuse.conf")


class _Mount(click.Command):
    """Takes a URL before the folder, too, as sshfs and mount(8) have it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and "://" in args[0] and not args[0].startswith("-"):
            args = [f"--server={args[0]}", *args[1:]]
        return super().parse_args(ctx, args)


def mount_options(command: F) -> F:
    """Give a command the options that say what a mount shows and how: those of `mount` and `run`."""
    return with_options(
        command,
        where,
        click.option(
            "--project",
            "projects",
            metavar="ID",
            multiple=True,
            help="Show only this project (may be repeated).",
            shell_complete=completing.projects,
        ),
        tree_options,
        click.option(
            "--bad-digest",
            type=click.Choice(["refuse", "serve"]),
            default="refuse",
            show_default=True,
            help="What to do with files that differ from the server's digest.",
        ),
        click.option(
            "--overlay",
            type=click.Path(path_type=str),
            metavar="DIR",
            help="Let programs write in the mount: changes are stored in DIR and never sent to the server.",
        ),
        click.option(
            "--inode32",
            is_flag=True,
            help="Fold inode numbers into 32 bits, for old programs; two files may then share one.",
        ),
        click.option(
            "--fuse",
            type=click.Choice([HIGH_LEVEL, LOW_LEVEL]),
            default=HIGH_LEVEL,
            show_default=True,
            help="Which interface of libfuse to use; low-level (experimental): the kernel keeps listings.",
        ),
        privacy,
    )


def settings_of(
    where: Where,
    *,
    projects: tuple[str, ...],
    shown: dict[str, Any],
    bad_digest: str,
    overlay: str | None,
    inode32: bool,
    fuse: str,
    privacy: Privacy,
    fsname: str | None = None,
) -> tuple[Settings, Credentials]:
    """The settings and the login that the options of `mount_options` select.

    Raises:
        UsageError: no login matches, or a value is invalid.
    """
    if inode32 and overlay is not None:
        # fuse-overlayfs takes two names of one number for one file, and serves one for the other.
        raise UsageError("--inode32 cannot be used with --overlay, which would take two files for one")
    return where.settings(
        projects=projects,
        **shown,
        serve_bad_digests=bad_digest == "serve",
        inode32=inode32,
        fuse=fuse,
        lower=overlay is not None,
        shown_as=fsname or "",
        privacy=privacy,
    )


@click.command("mount", cls=_Mount)
@click.argument("mountpoint")  # no click.Path: it accesses the path, which may hang
@mount_options
@click.option(
    "--allow-other",
    is_flag=True,
    help="Let other users of this machine read the mount, with YOUR rights on the server.",
)
@click.option("--fsname", metavar="NAME", hidden=True, help="Shown as the source in the list of mounts.")
@click.option(
    "--foreground",
    "in_foreground",
    is_flag=True,
    help="Stay in the foreground; Ctrl-C or closing the terminal ends the mount.",
)
def command(
    mountpoint: str,
    where: Where,
    allow_other: bool,
    overlay: str | None,
    fsname: str | None,
    in_foreground: bool,
    **more: Any,
) -> None:
    """Mount an XNAT server at MOUNTPOINT: an empty folder, or one that is made and goes with the mount.

    Returns once the mount answers. The login is taken from the first of these that has one: --config or
    --netrc, XNAT_HOST/XNAT_USER/XNAT_PASS (or XNATPY_*), the token stored by `xnatfs login`, ~/.netrc,
    ~/.xnat.cfg, ~/.xnatPass, xnatctl's profiles, ~/.xnat_auth, XNAT_TOKEN, a prompt. A password is never an
    argument: arguments show in `ps`. Options may have defaults in config.toml (docs/commands.md).
    """
    settings, login = settings_of(where, overlay=overlay, fsname=fsname, **more)
    start(settings, login, mountpoint, allow_other=allow_other, overlay=overlay, in_foreground=in_foreground)


def start(
    settings: Settings,
    login: Credentials,
    mountpoint: str,
    *,
    allow_other: bool = False,
    overlay: str | None = None,
    in_foreground: bool = False,
) -> None:
    """Run the checks that need no login, then mount."""
    if is_handed_over(mountpoint):
        if overlay is not None or allow_other:
            raise UsageError(f"{mountpoint} is mounted already: --overlay and --allow-other come too late")
        foreground(settings, login, mountpoint)
        return
    check_fuse()
    if allow_other:
        check_allow_other()
    place = mount_registry.absolute(mountpoint)
    check_own_folders(place, settings)
    check_mountpoint(place)
    with made_mountpoint(place) as made:
        _start(settings, login, place, allow_other, overlay, in_foreground, made)


@contextlib.contextmanager
def made_mountpoint(place: str) -> Iterator[bool]:
    """Make the folder to mount at where it is missing; whether it was. It is gone again if mounting fails.

    Raises:
        UsageError: it cannot be made.
    """
    made = not os.path.lexists(place)
    if made:
        try:
            os.makedirs(place, mode=0o700)
        except OSError as error:
            raise UsageError(f"{place} does not exist and cannot be made: {error.strerror}") from None
    try:
        yield made
    except BaseException:
        if made and mount_table.at(place) is None:
            with contextlib.suppress(OSError):
                os.rmdir(place)
        raise


def _start(
    settings: Settings,
    login: Credentials,
    place: str,
    allow_other: bool,
    overlay: str | None,
    in_foreground: bool,
    made: bool,
) -> None:
    upper = None
    if overlay is not None:
        upper = upper_layer.claim(
            overlay, place, settings.server, settings.cache_dir, allow_other=allow_other
        )
    if in_foreground:
        foreground(
            settings,
            login,
            place,
            allow_other=allow_other,
            overlay=upper,
            made=made,
            ready=lambda mounted: _announce(
                place, mounted.connection.server, mounted.connection.user, allow_other
            ),
        )
        return
    background(settings, login, place, allow_other=allow_other, overlay=upper, made=made)
    if login.verify is False:  # the daemon says so in its log
        say(
            f"xnatfs: warning: the certificate of {settings.server} is not checked (verify is false): anyone "
            f"on the network path can read the login",
            err=True,
        )
    if login.session:
        say(
            f"xnatfs: warning: the login is a session from the {login.source}, which the server ends when it "
            f"is not used for a while; `xnatfs login` stores a login that lasts",
            err=True,
        )
    one = mount_registry.of(place)
    _announce(place, settings.server, one.user if one is not None else login.user, allow_other)


def _announce(place: str, server: str, user: str, allow_other: bool) -> None:
    say(f"{server} is mounted at {place}; `xnatfs unmount {place}` ends it")
    if allow_other:
        say(
            f"xnatfs: warning: every user of this machine can now read, at {place}, everything "
            f"that {printable(user)} may read at {server}",
            err=True,
        )


def check_allow_other() -> None:
    """Check that this user may use --allow-other.

    Raises:
        UsageError: this machine does not allow it.
    """
    if os.geteuid() == 0:
        return
    try:
        allowed = any(
            line.strip() == "user_allow_other" for line in _FUSE_CONF.read_text(errors="replace").splitlines()
        )
    except OSError:
        allowed = False
    if not allowed:
        raise UsageError(
            f"only root may use --allow-other here; an administrator can allow it: `user_allow_other` in "
            f"{_FUSE_CONF}"
        )


def check_fuse(*, helper: bool = True) -> None:
    """Check that this machine can mount at all; `helper`: with the set-uid program.

    Raises:
        UsageError: it cannot; the text says what is missing.
    """
    device = Path("/dev/fuse")
    if not device.exists() or not stat.S_ISCHR(device.stat().st_mode):
        raise UsageError(
            "this machine has no /dev/fuse; load the kernel module (modprobe fuse), or start the "
            "container with --device /dev/fuse"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise UsageError(
            "you have no permission to open /dev/fuse; ask your administrator (on some systems: "
            "membership in the group fuse)"
        )
    if helper and mount_table.fusermount() is None and os.geteuid() != 0:
        raise UsageError("fusermount3 was not found; ask your administrator to install the package fuse3")
    try:
        import xnatfs.fuse.library  # noqa: F401  (loads libfuse)
    except OSError:
        raise UsageError(
            "libfuse was not found; install the package fuse3 (Debian, Ubuntu, Fedora)"
        ) from None


def check_own_folders(place: str, settings: Settings) -> None:
    """Check that the mount would not hide what xnatfs itself keeps, or the other way round.

    Raises:
        UsageError: it would.
    """
    point = Path(os.path.realpath(place))
    for what, folder in (("cache", settings.cache_dir), ("state", settings.state_dir)):
        kept = Path(os.path.realpath(folder))
        if kept.is_relative_to(point) or point.is_relative_to(kept):
            raise UsageError(
                f"the mountpoint ({point}) and the {what} directory of xnatfs ({kept}) must not contain each "
                f"other"
            )


def check_mountpoint(place: str) -> None:
    """Check that something can be mounted here; a dead xnatfs mount is removed.

    Raises:
        UsageError: it cannot.
    """
    entry = mount_table.at(place)
    if entry is not None:
        running = mount_registry.of(place)
        ours = overlays.is_ours(entry)
        state = mount_table.state_of(place) if ours else ""
        # Without a process it is dead (though the kernel still shows an overlay's upper layer); one that
        # answers has a process, which is merely registered elsewhere.
        orphan = running is None and (state != mount_table.ANSWERS or entry.kind != "fuse.xnatfs")
        if ours and (orphan or state == mount_table.DEAD):
            problem = mount_table.unmount(place, lazy=True)
            if problem:
                raise UsageError(f"a dead mount at {place} could not be removed: {problem}")
            overlays.clear(place)
        elif ours and running is not None and state == mount_table.SILENT:
            raise UsageError(
                f"{entry.source} is already mounted at {place}: {dead_mounts.problem_of(running)}"
            )
        elif ours:
            raise UsageError(
                f"{entry.source} is already mounted at {place}; `xnatfs unmount {place}` ends it"
            )
        else:
            raise UsageError(f"{entry.source} ({entry.kind}) is already mounted at {place}")
    if not os.path.lexists(place):
        return  # it will be made
    if not os.path.exists(place):
        raise UsageError(f"{place} is a link to nothing")
    if not os.path.isdir(place):
        raise UsageError(f"{place} is not a folder")
    try:
        filled = bool(os.listdir(place))
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}") from None
    if filled:
        raise UsageError(f"{place} is not empty; mount at an empty folder")
    with contextlib.suppress(OSError):
        if os.geteuid() != 0 and not os.access(place, os.W_OK):
            raise UsageError(
                f"you cannot write to {place}, which mounting requires; mount at a folder of your own"
            )
