"""Numbers as people read them, and what the commands say."""

from __future__ import annotations

import click

from xnatfs.text import printable_lines
from xnatfs.text import size as size


def say(text: str, *, err: bool = False) -> None:
    """Print text whose names come from other people, with terminal control sequences escaped."""
    click.echo(printable_lines(text), err=err)


def counted(count: int, thing: str, things: str = "") -> str:
    """`1 file`, `2 files`."""
    return f"{count} {thing if count == 1 else things or thing + 's'}"
