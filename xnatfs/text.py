"""Makes foreign text safe to print: names, labels and error texts of a server may contain terminal control
sequences. Finds what a misspelt name may have meant, and writes numbers of bytes.

Used by everything that prints, logs or refuses a name, or a size. Pure functions; imports nothing of xnatfs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SUGGESTED = 3


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


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """ "; did you mean A, B or C?" for up to three names that are like a misspelt or partial one; "" if none
    is.
    """
    by_folded = {one.casefold(): one for one in names}
    folded = name.casefold()
    found = [one for one in by_folded if folded and (folded in one or one in folded) and len(one) > 1]
    found = sorted(found, key=lambda one: (not one.startswith(folded), len(one), one))
    found += [one for one in difflib.get_close_matches(folded, by_folded, _SUGGESTED) if one not in found]
    if not found:
        return ""
    *others, last = [printable(by_folded[one]) for one in found[:_SUGGESTED]]
    return f"; did you mean {', '.join(others)} or {last}?" if others else f"; did you mean {last}?"


def size(count: float) -> str:
    """Bytes, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
