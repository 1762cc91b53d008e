"""`xnatfs doctor`: check this machine, the server, the login, and what the server allows."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click

from xnatfs import servers
from xnatfs._version import __version__
from xnatfs.auth import credentials as logins
from xnatfs.cli.login import until
from xnatfs.cli.options import login_options
from xnatfs.config import Settings, cache_home, make_folder, state_home
from xnatfs.daemon import dead_mounts, mount_registry, mount_table, overlay
from xnatfs.errors import Failure, UsageError
from xnatfs.server import alias_tokens as remote
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.probes import clock_offset, range_works, some_file
from xnatfs.text import printable

Finding = tuple[str, str, str]  # "ok", "note" or "bad"; subject; finding


@click.command("doctor")
@login_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="For programs: a list with one object per finding (level ok, note or bad; subject; finding).",
)
def command(
    server: str | None,
    user: str | None,
    config: Path | None,
    netrc: Path | None,
    allow_http: bool,
    as_json: bool,
) -> int:
    """Check for anything that would keep a mount from working, and say how to fix it.

    Exit code 1 if something would.
    """
    bad = False
    marks = {
        "ok": click.style("ok  ", fg="green"),
        "note": click.style("note", fg="yellow"),
        "bad": click.style("BAD ", fg="red"),
    }
    found = []
    for level, what, finding in (*_machine(), *_server(server, user, config, netrc, allow_http)):
        bad = bad or level == "bad"
        found.append({"level": level, "subject": what, "finding": finding})
        if not as_json:  # as they are found: a server that is away takes its time
            click.echo(f"{marks[level]}  {what}: {printable(finding)}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    return 1 if bad else 0


def _machine() -> Iterator[Finding]:
    yield "ok", "xnatfs", f"{__version__}, Python {platform.python_version()}, Linux {platform.release()}"
    from xnatfs.cli.mount import check_fuse

    try:
        check_fuse()
        from xnatfs.fuse.library import LIBFUSE

        if LIBFUSE[0] == 3:
            yield (
                "ok",
                "FUSE",
                f"/dev/fuse, libfuse {LIBFUSE[0]}.{LIBFUSE[1]}, "
                f"{shutil.which('fusermount3') or 'no fusermount3'}",
            )
        else:
            yield (
                "note",
                "FUSE",
                f"libfuse {LIBFUSE[0]}.{LIBFUSE[1]}: works, but listings of large folders are slower; "
                f"install fuse3",
            )
    except UsageError as error:
        yield "bad", "FUSE", str(error)
    for one in dead_mounts.dead():
        yield "bad", "mount", f"{one.mountpoint}: {one.problem}"
    for each in mount_registry.running():
        if mount_table.state_of(each.mountpoint) == mount_table.SILENT:
            yield "bad", "mount", f"{each.mountpoint}: {dead_mounts.problem_of(each)}"
    possible = overlay.kinds()
    if overlay.KERNEL in possible:
        yield "ok", "overlay", "`mount --overlay` uses the kernel's"
    elif possible:
        yield "ok", "overlay", f"`mount --overlay` uses {shutil.which(overlay.PROGRAM)}"
    else:
        yield "note", "overlay", f"no `mount --overlay`: {overlay.what_lacks()}"
    for name, folder in (("cache", cache_home()), ("state", state_home())):
        try:
            make_folder(folder)
            usable = os.access(folder, os.W_OK)
            yield (
                ("ok" if usable else "bad"),
                name,
                f"{folder}, {shutil.disk_usage(folder).free / 1e9:.1f} GB free",
            )
        except OSError as error:
            yield "bad", name, f"{folder}: {error.strerror}"


def _server(
    server: str | None, user: str | None, config: Path | None, netrc: Path | None, allow_http: bool = False
) -> Iterator[Finding]:
    try:
        listed = servers.load()
        for name, each in listed.servers.items():
            also = f" as {each.user}" if each.user else ""
            also += " (default)" if each is listed.preferred else ""
            yield "ok", f"server {name}", f"{each.url}{also} in {servers.config_file()}"
    except UsageError as error:
        yield "bad", servers.NAME, str(error)
        return
    try:
        for place, known, who in logins.places(config, netrc):
            yield "ok", "login found", f"{place}: {known} as {who}"
        login = logins.find(server, user, config=config, netrc_file=netrc)
    except UsageError as error:
        yield "bad", "login", str(error)
        return
    connection = Connection(
        Settings(server=login.server, verify=login.verify, proxy=login.proxy, allow_http=allow_http), login
    )
    try:
        name = connection.login()
        yield (
            "ok",
            "server",
            f"{connection.server} is an XNAT {connection.version or '(version unknown)'}; logged in "
            f"as {name}",
        )
        yield from _token(connection)
        yield from _probes(connection)
    except Failure as failure:
        yield "bad", "server", str(failure)
    finally:
        connection.close()


def _token(connection: Connection) -> Iterator[Finding]:
    login = connection.logins.credentials
    expires = login.expires
    if expires is None and remote.is_alias(login.user):
        with contextlib.suppress(Failure):
            _, expires = remote.times(connection, login.user)
    if expires is not None:
        soon = expires - time.time() < 12 * 3600
        yield (
            ("note" if soon else "ok"),
            "token",
            until(expires) + ("; `xnatfs login` gets a new one" if soon else ""),
        )


def _probes(connection: Connection) -> Iterator[Finding]:
    listings = ListingRequests(connection)
    projects = listings.projects()
    yield (
        ("ok" if projects else "note"),
        "projects",
        f"{len(projects)} can be read" if projects else "this user can read no project",
    )
    file = some_file(listings)
    if file is None:
        yield "note", "Range", "no file was found to test it with"
    elif range_works(connection, file):
        yield "ok", "Range", "parts of files can be fetched"
    else:
        yield "note", "Range", "this server (or its proxy) sends whole files only"
    offset = clock_offset(connection)
    if offset is None or abs(offset) < 60:
        yield (
            "ok",
            "clock",
            "agrees with the server's" if offset is not None else "the server does not report its own",
        )
    else:
        yield (
            "note",
            "clock",
            f"the server's is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's",
        )
    yield "ok", "listings", "not looked at here: `xnatfs selftest` compares all that xnatfs relies on"
