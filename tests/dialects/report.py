"""The cells of one process, and the page of all; used by `scripts/dialects`."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from pathlib import Path

from tests.dialects.cells import VERDICTS, Bench, Outcome
from tests.dialects.world import quick, wired

PAGE = Path(__file__).parents[2] / "docs/dialects.md"
PROFILES = ("full", "proven")
HEAD = """# Other answers

Written by `scripts/dialects`. A server that has not been seen yet, a fork or a proxy answers some listing in
another way. Each row is a form that xnatfs asks, with the number of *cells* that ended in each way. A cell is
one other answer to that form (a column left out, blank, filled with something else or written otherwise; rows
missing, doubled, in another order or invented; an HTTP status, a web page, a redirect, nothing, JSON that is
cut), given always, once, or for one object only, to a mount that knows nothing or to one that knows all. Then
the server heals.

- **the same tree**: nothing was lost or shown otherwise.
- **an error**: what could not be proven was an error at that place; nothing was missing without one.
- **an oddity**: everything was there, under another name or with another size, and `oddities.txt` says so.
- **not met**: that answer never came up.
- **wrong**: a silent loss, a file twice or invented, requests or logins without an end, or something wrong
  that stayed after the server had healed, in this mount or a later one.

"""

Result = tuple[str, str, str, Outcome]


def run(job: tuple[str, int, int, str]) -> list[Result]:
    """The cells of one process: profile, its number among how many, and a part of the names."""
    profile, part, parts, wanted = job
    logging.disable(logging.CRITICAL)
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, quick(), wired(profile) as wire:
        bench = Bench.of(profile, wire, Path(folder))
        for number, cell in enumerate(bench.cells()):
            if number % parts == part and wanted in str(cell):
                found.append((profile, cell.form, str(cell), bench.run(cell)))
    return found


def page(results: list[Result]) -> str:
    """The table."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for profile, form, _, outcome in results:
        rows.setdefault((profile, form), Counter())[outcome.verdict] += 1
        rows.setdefault(("all", ""), Counter())[outcome.verdict] += 1
    lines = [
        f"| server | form | cells | {' | '.join(VERDICTS)} |",
        f"|---|---|{'---:|' * (len(VERDICTS) + 1)}",
    ]
    for (profile, form), counts in sorted(rows.items(), key=lambda row: (row[0][0] == "all", row[0])):
        numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {profile} | {form} | {counts.total()} | {numbers} |")
    return HEAD + "\n".join(lines) + "\n"
