"""`xnatfs ls`: what is on the server, without a mount."""

from __future__ import annotations

import json
import stat
import time
from typing import Any

import click

from xnatfs.cli import completing
from xnatfs.cli.format import say
from xnatfs.cli.options import Where, privacy, tree_options, where
from xnatfs.cli.trees import Problems, tree
from xnatfs.config import Privacy
from xnatfs.core import Core
from xnatfs.errors import Failure
from xnatfs.tree.node import UnknownSize
from xnatfs.vfs import Attributes

Entry = tuple[str, str, Attributes]  # the name as it is shown, the path, the attributes


@click.command("ls")
@click.argument("paths", nargs=-1, metavar="[PATH]...", shell_complete=completing.paths)
@where
@tree_options
@privacy
@click.option("-l", "--long", is_flag=True, help="Sizes in bytes and dates, too.")
@click.option("-d", "--directory", is_flag=True, help="Folders themselves, not what is in them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
def command(
    paths: tuple[str, ...],
    where: Where,
    shown: dict[str, Any],
    privacy: Privacy,
    long: bool,
    directory: bool,
    as_json: bool,
) -> int:
    """List what is at PATH on the server, by default at the top.

    Paths are those of a mount, as projects/ALFA/subjects. PATH may be a pattern, in quotes: 'projects/*',
    'projects/ALFA/**/*.json'. `?` stands for the size of a table that is not built yet. Exit code 3 if some
    PATH is not there.
    """
    problems = Problems()
    with tree(where, shown, privacy) as core:
        files: list[Entry] = []
        folders: list[Entry] = []
        for path in problems.matched(core, paths or ("",)):
            try:
                entry = (path.removeprefix("/") or "/", path, core.vfs.attributes(path))
            except Failure as failure:
                problems.about(path, failure)
                continue
            (files if directory or not stat.S_ISDIR(entry[2].mode) else folders).append(entry)
        problems.done += len(files)
        _print(files, long, as_json)
        headed = len(files) + len(folders) + problems.count > 1 and not as_json
        for number, (name, path, _) in enumerate(folders):
            if headed:
                say(f"{chr(10) if files or number else ''}{name}:")
            try:
                _print(_entries(core, path, as_json), long, as_json)
                problems.done += 1
            except Failure as failure:
                problems.about(path, failure)
    return problems.exit_code


def _entries(core: Core, path: str, whole: bool) -> list[Entry]:
    above = path.rstrip("/")
    return [
        (f"{above}/{name}".removeprefix("/") if whole else name, f"{above}/{name}", attributes)
        for name, attributes in core.vfs.entries(path)
    ]


def _print(entries: list[Entry], long: bool, as_json: bool) -> None:
    if as_json:
        for name, _, attributes in entries:
            click.echo(json.dumps(_as_json(name, attributes)))
        return
    if not long:
        for name, _, _ in entries:
            say(name)
        return
    sizes = [_size(attributes) for _, _, attributes in entries]
    width = max(map(len, sizes), default=0)
    for size, (name, _, attributes) in zip(sizes, entries, strict=True):
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(attributes.mtime))
        say(f"{size:>{width}}  {date}  {name}{'/' if stat.S_ISDIR(attributes.mode) else ''}")


def _size(attributes: Attributes) -> str:
    if stat.S_ISDIR(attributes.mode):
        return "-"
    return "?" if isinstance(attributes.size, UnknownSize) else str(attributes.size)


def _as_json(name: str, attributes: Attributes) -> dict[str, Any]:
    folder = stat.S_ISDIR(attributes.mode)
    unknown = folder or isinstance(attributes.size, UnknownSize)
    return {
        "path": name,
        "type": "folder" if folder else "file",
        "size": None if unknown else attributes.size,
        "mtime": attributes.mtime,
    }
