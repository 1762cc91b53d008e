"""Makes foreign text safe to print: names, labels and error texts of a server may contain terminal control
sequences.

Used by everything that prints or logs. Pure functions; imports nothing.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Text on one line, with unprintable characters escaped: control characters and terminal escapes
    (`\x1b`), line ends, changes of the writing direction (`\u202e`), lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def printable_lines(text: str) -> str:
    """Text of several lines, each made printable."""
    return text if text.isprintable() else "\n".join(printable(line) for line in text.split("\n"))
