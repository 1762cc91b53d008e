"""`docs/reliability.md`: made of what the cells found, and read again by each cell, which fails where it
finds something else.

`scripts/reliability` runs the matrix with `XNATFS_RELIABILITY` naming a folder: then each cell leaves what it
found there in place of comparing it, and `python -m tests.faults.report FOLDER` writes the document."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.faults.catalogue import CONTROL, FAULTS, Fault
from tests.faults.operations import OPERATIONS, Operation
from tests.support import md5

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
_FOLDER = "XNATFS_RELIABILITY"
_OLDER = ", older server"

Key = tuple[str, str]  # fault, column

_HEAD = """\
# What goes wrong, and what comes of it

Made by `scripts/reliability`; do not edit. Every operation in the columns was carried out under every \
fault in the rows, on the stand-in
over real HTTP, with the bytes compared to what the server truly holds. `scripts/test` runs all of it again \
(`tests/faults`) and fails
where a cell comes out otherwise than it stands here.

Of each cell this holds as well: no call took longer than its deadline (30 s without progress, 120 s for a \
listing, 15 min for a table; the
tests use a fifteenth of that); once the fault was gone the same operation gave the right bytes, without a \
new mount; nothing was left in
the cache that is not true (every cached file compared with the server's, every stored listing too); no \
thread and no open file was left.
Where there was no fault there was no error and no warning.

- `-`: the fault did not meet the operation (the stand-in counts how often each strikes), and the bytes \
were right.
- `retried`: it did; the bytes are right and the user sees nothing.
- `right`: a lasting fault, and the bytes are right all the same. `new`: right, those the server has now. \
`as listed`: the catalog's wrong
  size shows until the file is opened.
- `told`: the table is built without the sessions concerned, and `*.problems.csv` names them.
- an errno: what the program gets; of two, the one or the other, as it happens. `xnatfs status` and the log \
say the cause in a sentence.

Faults begin in the middle where there is a middle: after the first bytes of a file read in order, after \
the first slice of a scan, before
the second mount of *mount again*. *older server*: one that refuses the newer forms of listings.

What cannot be seen here: without a digest in the catalog a byte that was changed on its way is not \
noticed, unless the size or a zip's own
checksum tells. Who has already read a damaged part of a large file gets an error before its end; the next \
open is right.
"""


def columns() -> list[tuple[str, Operation, str]]:
    """(title, operation, profile)."""
    found = []
    for one in OPERATIONS:
        found.append((one.name, one, "full"))
        if one.both_profiles:
            found.append((one.name + _OLDER, one, "proven"))
    return found


def title(operation: Operation, profile: str) -> str:
    """The column of a cell."""
    return operation.name if profile == "full" else operation.name + _OLDER


def missing(fault: Fault, profile: str) -> bool:
    """Whether there is no such cell."""
    return profile != "full" and fault.needs_counts


def keys() -> list[Key]:
    """Every cell."""
    return [
        (fault.name, name)
        for fault in (CONTROL, *FAULTS)
        for name, _, profile in columns()
        if not missing(fault, profile)
    ]


def render(cells: dict[Key, str]) -> str:
    """The document."""
    titles = [name for name, _, _ in columns()]
    lines = [_HEAD]
    for heading, cured in (("Cured by a new try", True), ("Not cured by a new try", False)):
        faults = [one for one in (CONTROL, *FAULTS) if one.cured is cured]
        lines += [f"## {heading}", "", f"| fault | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        lines += [
            f"| {one.name} | {' | '.join(cells.get((one.name, name), '') for name in titles)} |"
            for one in faults
        ]
        lines += ["", "What a user sees:", ""]
        lines += [f"- *{one.name}*: {one.sentence}." for one in faults if one is not CONTROL]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def parse(text: str) -> dict[Key, str]:
    """The cells of the document."""
    found: dict[Key, str] = {}
    titles: list[str] = []
    for line in text.splitlines():
        if not line.startswith("| "):
            continue
        name, *values = (part.strip() for part in line.strip("|").split(" |"))
        if name == "fault":
            titles = values
            continue
        found |= {(name, column): value for column, value in zip(titles, values, strict=True) if value}
    return found


def note(fault: Fault, operation: Operation, profile: str, result: str) -> None:
    """One cell is through: compare it with the document, or leave it for the next one.

    Raises:
        AssertionError: the document says something else.
    """
    folder = os.environ.get(_FOLDER)
    key = (fault.name, title(operation, profile))
    if folder is None:
        said = parse(DOCUMENT.read_text(encoding="utf-8")).get(key)
        assert result == said, (
            f"it came out as {result!r}, and docs/reliability.md says {said!r}: scripts/reliability makes "
            f"that anew"
        )
        return
    path = Path(folder) / f"{md5(repr(key).encode())}.json"
    path.write_text(json.dumps([*key, result]), encoding="utf-8")


def main() -> None:
    """Write the document from what the cells left in a folder."""
    cells: dict[Key, str] = {}
    for path in Path(sys.argv[1]).glob("*.json"):
        fault, column, result = json.loads(path.read_text(encoding="utf-8"))
        cells[fault, column] = result
    lacking = [key for key in keys() if key not in cells]
    if lacking:
        sys.exit(f"cells that found nothing: {lacking}")
    DOCUMENT.write_text(render(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
