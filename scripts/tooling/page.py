"""docs/tools.md: its rows as values, and the page as text.

Used by the command and by the test that compares the page with the catalogue. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tooling.program import Program

_HEADER = ("tool", "version", "command", "result", "requests", "remark")
_INTRODUCTION = """# Programs on a mount

Written by `scripts/tools`; do not edit. {good} commands find on a mount what is true. {bad}

    scripts/tools                # all of them, about {minutes} minutes; installs what is missing
    scripts/tools --only mc      # one, whose row is renewed
    scripts/tools --check        # whether this page has the rows of the catalogue

Each program is run by its command, in an empty folder, on a mount of the embedded server that has fetched
and built nothing yet: `~/xnat` is the mount, `~/copy` holds the true files, which never passed it. A result
is what was compared: the files that were made, byte by byte, or what was printed on the mount and on the true
files. A row also fails if the mount records an error, or its log a traceback. *requests* counts those that
the program made the mount send to the server, lists included. Keys are those typed in a terminal.

The programs are in `scripts/tooling/catalogue/`, a few lines each.
"""


@dataclass(frozen=True)
class Row:
    """A row of the page, as plain text."""

    tool: str
    version: str
    command: str
    result: str
    requests: str
    remark: str

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.tool, self.command

    @property
    def good(self) -> bool:
        """Whether the program did what it should."""
        return not self.result.startswith("**fails**")


def render(
    catalogue: Mapping[str, Sequence[Program]], rows: Mapping[tuple[str, str], Row], minutes: int
) -> str:
    """The page, with the rows of the catalogue in its order; programs that have not been run are left out."""
    bad = sum(not row.good for row in rows.values())
    parts = [
        _INTRODUCTION.format(
            good=len(rows) - bad,
            bad="None fails."
            if not bad
            else f"{bad} {'fails' if bad == 1 else 'fail'}, and the rows say why.",
            minutes=minutes,
        )
    ]
    for title, programs in catalogue.items():
        lines = [f"## {title}", "", f"| {' | '.join(_HEADER)} |", "|---" * len(_HEADER) + "|"]
        lines += [_line(rows[one.key]) for one in programs if one.key in rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(row: Row) -> str:
    assert "`" not in row.command, row.command
    cells = (row.tool, row.version, f"`{row.command}`", row.result, row.requests, row.remark)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def parse(text: str) -> dict[tuple[str, str], Row]:
    """The rows of a page."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == len(_HEADER) and cells[2].startswith("`"):
            row = Row(*cells[:2], cells[2].strip("`"), *cells[3:])
            found[row.key] = row
    return found


def differences(catalogue: Mapping[str, Sequence[Program]], rows: Mapping[tuple[str, str], Row]) -> list[str]:
    """What the page lacks, has too much, or says otherwise than the catalogue: a sentence each."""
    wanted = {one.key: one for programs in catalogue.values() for one in programs}
    return [
        *(f"{tool} has no row for its command: {command}" for tool, command in wanted.keys() - rows.keys()),
        *(
            f"{tool} has a row that the catalogue has not: {command}"
            for tool, command in rows.keys() - wanted.keys()
        ),
        *(
            f"{key[0]} has another remark: {rows[key].remark}"
            for key, one in wanted.items()
            if key in rows and rows[key].remark != one.remark
        ),
    ]
