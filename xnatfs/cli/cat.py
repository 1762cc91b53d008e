"""`xnatfs cat`: the contents of files on the server, without a mount."""

from __future__ import annotations

import sys
from typing import Any

import click

from xnatfs.cli import completing
from xnatfs.cli.options import Where, privacy, tree_options, where
from xnatfs.cli.trees import Problems, tree
from xnatfs.config import Privacy
from xnatfs.errors import Failure
from xnatfs.vfs_io import RawFile

_PIECE_BYTES = 2**20


@click.command("cat")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", shell_complete=completing.paths)
@where
@tree_options
@privacy
def command(paths: tuple[str, ...], where: Where, shown: dict[str, Any], privacy: Privacy) -> int:
    """Write the files PATH... to standard output, one after the other.

    Paths are those of a mount: a file of a project, a table, as tables/ALFA/ashs/volumes.csv. PATH may be a
    pattern, in quotes. Exit code 3 if some of it cannot be had.
    """
    problems = Problems()
    out = sys.stdout.buffer
    with tree(where, shown, privacy) as core:
        for path in problems.matched(core, paths):
            try:
                file = RawFile(core.vfs, path)
            except Failure as failure:
                problems.about(path, failure)
                continue
            with file:
                while True:
                    try:
                        piece = file.read(_PIECE_BYTES)
                    except Failure as failure:
                        problems.about(path, failure)
                        break
                    if not piece:
                        problems.done += 1
                        break
                    out.write(piece)
        out.flush()
    return problems.exit_code
