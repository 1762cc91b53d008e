"""`mount -t fuse.xnatfs SOURCE DIR -o OPTIONS` and lines of fstab, translated into `xnatfs mount`.

mount(8) calls `/sbin/mount.fuse.xnatfs SOURCE DIR [-sfnv] [-o OPTIONS]` if there is such a link to `xnatfs`
(mount(8), "External helpers"); without the link it calls libfuse's mount.fuse(8), which calls
`xnatfs SOURCE DIR -o OPTIONS`. Used by the command line before it looks for a command.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Container, Iterator

import click

from xnatfs.errors import UsageError
from xnatfs.text import did_you_mean

NAME = "mount.fuse.xnatfs"  # of the link in /sbin

# What mount(8), systemd and mount.fuse(8) keep for themselves, or what every xnatfs mount is anyway.
_NOT_OURS = frozenset(
    {"ro", "rw", "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "nousers"}
    | {"owner", "group", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "diratime"}
    | {"nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime"}
    | {"sync", "async", "dirsync", "nosymfollow", "silent", "loud", "default_permissions", "nonempty"}
)
_SETUID = "setuid="
_WITH_A_VALUE_NOT_OURS = ("x-", "X-", "comment=", _SETUID, "subtype=")
_OTHER_NAMES = {"username": "user", "projects": "project"}


def translated(program: str, arguments: list[str], commands: Container[str] = ()) -> list[str] | None:
    """The arguments of `xnatfs` that do what mount(8) asks for ([]: nothing); None if it did not call.

    Args:
        program: the path by which xnatfs was called.
        commands: what `xnatfs` itself knows as its first word.

    Raises:
        UsageError: an option is unknown, or has no value where it needs one.
    """
    if os.path.basename(program) != NAME and not _by_mount_fuse(arguments, commands):
        return None
    places: list[str] = []
    options: list[str] = []
    flags: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("-o", "-t"):
            value = next(words, "")
            options += value.split(",") if word == "-o" else []
        elif re.fullmatch("-[sfnvN]+", word):
            flags += word[1:]
        elif word.startswith("-") and len(word) > 1:
            raise UsageError(f"mount does not call a helper with {word!r}")
        else:
            places.append(word)
    if len(places) != 2:
        raise UsageError(f"mount calls a helper with a source and a folder: {NAME} SOURCE DIR -o OPTIONS")
    source, folder = places
    wanted = list(_translated_options(options, sloppy="s" in flags))
    if "f" in flags:  # mount(8): everything except the mounting
        return []
    for option in options:
        if option.startswith(_SETUID):  # mount.fuse(8) does it for us; the link has to do it itself
            _become(option[len(_SETUID) :])
    # The source as it was given: `mount -a` would else mount a second time what is mounted.
    shown = [] if any(one.startswith("--fsname") for one in wanted) else [f"--fsname={source}"]
    verbose = ["--verbose"] if "v" in flags else []
    return [*verbose, "mount", f"--server={source}", *shown, *wanted, "--", folder]


def _become(name: str) -> None:
    """Go on as another user, as mount.fuse(8) does for its option `setuid`.

    Raises:
        UsageError: there is no such user, or only root may do it.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"setuid={name}: there is no such user on this machine") from None
    if user.pw_uid == os.geteuid():
        return
    try:
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except OSError as error:
        raise UsageError(f"setuid={name}: {error.strerror}") from None
    os.environ["HOME"] = user.pw_dir


def _by_mount_fuse(arguments: list[str], commands: Container[str]) -> bool:
    """Whether these are the arguments that mount.fuse(8) gives: a source, a folder in full, and -o."""
    return (
        len(arguments) == 4
        and arguments[2] == "-o"
        and arguments[0] not in commands
        and not arguments[0].startswith("-")
        and arguments[1].startswith("/")
    )


def _translated_options(options: list[str], *, sloppy: bool) -> Iterator[str]:
    known = _known()
    for option in options:
        name, equals, value = option.partition("=")
        if not option or option in _NOT_OURS or option.startswith(_WITH_A_VALUE_NOT_OURS):
            continue
        name = name.replace("_", "-")
        name = _OTHER_NAMES.get(name, name)
        flag = known.get(name)
        if flag is None:
            if sloppy:
                continue
            raise UsageError(
                f"there is no mount option {option.partition('=')[0]!r}{did_you_mean(name, known)}"
            )
        if flag:
            if equals:
                raise UsageError(f"the mount option {name!r} has no value")
            yield f"--{name}"
        elif not value:
            raise UsageError(f"the mount option {name!r} needs a value: {name}=...")
        else:
            # A comma parts options, so that projects are parted by colons.
            for each in value.split(":") if name == "project" else [value]:
                yield f"--{name}={each}"


def _known() -> dict[str, bool]:
    """The options of `xnatfs mount`, without their hyphens; whether each is one without a value."""
    from xnatfs.cli.mount import command

    return {
        spelling[2:]: parameter.is_flag
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for spelling in parameter.opts
        if spelling.startswith("--") and spelling not in ("--server", "--foreground", "--help")
    }
