"""Text of other people, made fit to be shown: names, labels and error texts of a server may hold what a
terminal obeys.

Used by everything that prints or logs. Pure functions; imports nothing.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Text on one line, with what is not printable spelled out: control characters and terminal escapes
    (`\x1b`), line ends, what turns the direction of writing (`\u202e`), lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def printable_lines(text: str) -> str:
    """Text of several lines, each made printable."""
    return text if text.isprintable() else "\n".join(printable(line) for line in text.split("\n"))
