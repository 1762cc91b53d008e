"""Numbers as people read them, and what the commands say."""

from __future__ import annotations

import click

from xnatfs.text import printable_lines


def say(text: str, *, err: bool = False) -> None:
    """Print text whose names come from other people, with terminal control sequences escaped."""
    click.echo(printable_lines(text), err=err)


def size(count: float) -> str:
    """Bytes, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(count: int, thing: str, things: str = "") -> str:
    """`1 file`, `2 files`."""
    return f"{count} {thing if count == 1 else things or thing + 's'}"
