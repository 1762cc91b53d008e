"""`xnatfs help`: the man page of a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from xnatfs.cli.format import say
from xnatfs.errors import UsageError
from xnatfs.text import did_you_mean


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write all pages to DIR, such as ~/.local/share/man/man1, where `man xnatfs-mount` finds them.",
)
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...], folder: Path | None) -> int:
    """Show the manual of COMMAND, or of xnatfs."""
    from xnatfs.cli import manual

    root = ctx.find_root()
    if folder is not None:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        pages = manual.contexts(root)
        for one in pages:
            name = one.command_path.replace(" ", "-")
            (folder / f"{name}.1").write_text(manual.page(one), encoding="utf-8")
        say(f"{len(pages)} pages are in {folder}")
        return 0
    found = _found(root, words)
    if shutil.which("man") is None or not sys.stdout.isatty():
        click.echo(found.get_help())
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".1", encoding="utf-8") as page:
        page.write(manual.page(found))
        page.flush()
        return subprocess.run(["man", "-l", page.name], check=False, env=dict(os.environ)).returncode


def _found(ctx: click.Context, words: tuple[str, ...]) -> click.Context:
    for word in words:
        group = ctx.command
        below = group.get_command(ctx, word) if isinstance(group, click.Group) else None
        if below is None:
            known = group.list_commands(ctx) if isinstance(group, click.Group) else []
            raise UsageError(f"there is no command {word!r} in {ctx.command_path}{did_you_mean(word, known)}")
        ctx = click.Context(below, info_name=below.name, parent=ctx)
    return ctx
