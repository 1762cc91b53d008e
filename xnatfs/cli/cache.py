"""`xnatfs cache`: show, check or remove what is stored on this machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from xnatfs.auth.credentials import choose
from xnatfs.cache import maintenance
from xnatfs.cli.format import counted, say, size
from xnatfs.cli.options import server_option
from xnatfs.config import Settings, cache_home
from xnatfs.daemon import mount_registry
from xnatfs.errors import UsageError

_SHOWN = 20  # damaged files named one by one


@click.group("cache")
def command() -> None:
    """Manage the files stored on this machine.

    Everything in the cache is a copy: removed files are fetched again when they are next read. These
    commands work while mounts run.
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = server_option("Only files from this server.")(function)
    return click.option(
        "--cache-dir",
        type=click.Path(path_type=Path),
        help="The cache directory (default: XNATFS_CACHE_DIR, or ~/.cache/xnatfs).",
    )(function)


def _scopes(cache_dir: Path | None, server: str | None) -> tuple[Path, list[maintenance.CacheScope]]:
    """The cache directory, and the requested caches in it."""
    directory = (cache_dir or cache_home()).absolute()
    if cache_dir is not None and not directory.is_dir():
        raise UsageError(f"there is no directory {directory}")
    found = maintenance.scopes(directory)
    if server is None:
        return directory, found
    url = choose(server).url
    wanted = [scope for scope in found if scope.of(url)]
    if not wanted:
        raise UsageError(f"nothing from {urlsplit(url).netloc} is cached in {directory}")
    return directory, wanted


@command.command("info")
@_options
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: a list with one object per server and user."
)
def info(cache_dir: Path | None, server: str | None, as_json: bool) -> None:
    """Show what is cached: how many files, how large, when last used, by which mounts."""
    directory, scopes = _scopes(cache_dir, server)
    reports = [(maintenance.info(scope), _mounts(scope)) for scope in scopes]
    if as_json:
        click.echo(json.dumps([asdict(one) | {"mounts": mounts} for one, mounts in reports], indent=2))
        return
    if not reports:
        say(f"nothing is cached in {directory}")
    for one, mounts in reports:
        say(_text(one, mounts))


def _mounts(scope: maintenance.CacheScope) -> list[str]:
    """The mounts that use a cache: those of its server and user, if the cache is open at all."""
    if not scope.in_use:
        return []
    return [
        one.mountpoint
        for one in mount_registry.running()
        if Settings(one.server).scope(one.user) == scope.name
    ]


def _text(one: maintenance.Info, mounts: list[str]) -> str:
    lines = [f"{one.server}  {one.directory}"]
    if one.problem:
        lines.append(f"  {one.problem}")
    kept = f"  {counted(one.files, 'file')}, {size(one.bytes)}"
    if one.partial_files:
        kept += f"; parts of {counted(one.partial_files, 'large file')}, {size(one.partial_bytes)}"
    if one.reserved:
        kept += f"; {size(one.reserved)} reserved for downloads in progress"
    lines.append(kept)
    if one.oldest_use is not None and one.newest_use is not None:
        lines.append(f"  last used between {_time(one.oldest_use)} and {_time(one.newest_use)}")
    lines.append(
        f"  used by {', '.join(mounts) or 'another program'}" if one.in_use else "  no mount uses it"
    )
    network = ", a network file system: a local one is faster and safer" if one.network else ""
    lines.append(f"  on {one.file_system or 'an unknown file system'}{network}; {size(one.disk_free)} free")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


@command.command("verify")
@_options
def verify(cache_dir: Path | None, server: str | None) -> int:
    """Reread everything, compare it with the digests, and remove what is damaged.

    Exit code 0 if everything was intact, 1 if something was damaged (and has been removed).
    """
    directory, scopes = _scopes(cache_dir, server)
    if not scopes:
        say(f"nothing is cached in {directory}")
    wrong = 0
    for scope in scopes:
        with _progress(scope.server) as progress:
            found = maintenance.verify(scope, progress)
        wrong += len(found.wrong)
        say(_report(scope, found))
    if wrong:
        things = "1 problem was found and" if wrong == 1 else f"{wrong} problems were found and"
        say(f"{things} fixed; removed files are fetched again when they are read")
    return 1 if wrong else 0


def _report(scope: maintenance.CacheScope, found: maintenance.Verified) -> str:
    text = f"{scope.server}: {counted(found.files, 'file')}, {size(found.bytes)}"
    if found.by_size_only:
        text += f", {found.by_size_only} checked by size only (the server has no digest for them)"
    if found.partials:
        text += f"; parts of {counted(found.partials, 'large file')}"
    if found.in_use:
        text += f"; {found.in_use} being written by a mount and left alone"
    lines = [text + (": all well" if not found.wrong else "")]
    lines += [f"  {line}" for line in found.wrong[:_SHOWN]]
    if len(found.wrong) > _SHOWN:
        lines.append(f"  and {len(found.wrong) - _SHOWN} more")
    return "\n".join(lines)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@command.command("clear")
@_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(cache_dir: Path | None, server: str | None, yes: bool) -> None:
    """Remove everything except what a mount is fetching right now."""
    directory, scopes = _scopes(cache_dir, server)
    if not scopes:
        say(f"nothing is cached in {directory}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "`xnatfs cache clear` asks before it removes anything; without a terminal, pass --yes"
            )
        reports = [maintenance.info(scope) for scope in scopes]
        for one in reports:
            say(
                f"{one.server}: {counted(one.files + one.partial_files, 'file')}, "
                f"{size(one.bytes + one.partial_bytes)}"
            )
        if not click.confirm("Remove all of them from this machine?"):
            say("nothing was removed")
            return
    for scope in scopes:
        freed, left = maintenance.clear(scope)
        rest = f"; {size(left)} remain: a mount is fetching them" if left else ""
        say(f"{scope.server}: {size(freed)} freed{rest}")
