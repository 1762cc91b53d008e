"""Rules and their quotes: `@rule(number, text)` on a test, `ELSEWHERE` for rules that a heavy test of another
folder proves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

DOCUMENT = Path(__file__).parents[2] / "docs/semantics.md"
_T = TypeVar("_T", bound=Callable[..., Any])


def rule(number: str, text: str) -> Callable[[_T], _T]:
    """This test tries the rule of this number, which says this."""

    def quote(test: _T) -> _T:
        test.__dict__.setdefault("rules", []).append((number, text))
        return test

    return quote


def written() -> dict[str, str]:
    """The rules of the document by number, each on one line."""
    found: dict[str, str] = {}
    for number, text in re.findall(
        r"^\*\*(\d+\.\d+)\*\* (.+?)(?=\n\n|\Z)", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        assert number not in found, f"two rules are {number}"
        found[number] = " ".join(text.split())
    return found


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first column has this heading."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        table.append([cell.strip().replace("\\|", "|") for cell in cells])
    return table
