"""The part of docs/tables.md that the tables themselves know: what each one reads and gives.

Run as `python -m xnatfs.tables.reference docs/tables.md` it rewrites that part; a test compares the two.
Plain functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from xnatfs.tables.pipelines.validators import ARCHIVING, VALIDATED
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import Column, Table

PLACE = ("<!-- begin: python -m xnatfs.tables.reference docs/tables.md -->", "<!-- end -->")


def reference() -> str:
    """A section for each pipeline, in the order of the catalogue."""
    lines: list[str] = []
    tables = [
        table for table in all_tables().values() if table.pipeline != "archiving" and table.name != "tests"
    ]
    for pipeline, group in groupby(tables, key=lambda table: table.pipeline):
        lines += [f"### {pipeline}", ""]
        remaining = list(group)
        while remaining:
            alike = [remaining[0], *(table for table in remaining[1:] if _same(table, remaining[0]))]
            lines += _section(alike)
            remaining = [table for table in remaining if table not in alike]
    return "\n".join([*lines, *_validated()])


def _shown(text: str) -> str:
    return text.replace("|", "\\|")


def _code(*texts: str) -> str:
    return ", ".join(f"`{_shown(text)}`" for text in dict.fromkeys(texts))


def _same(table: Table, other: Table) -> bool:
    """Whether two tables differ only in what is chosen from the same kind of file."""
    return (
        table.columns == other.columns
        and table.resources == other.resources
        and table.wide == other.wide
        and bool(table.columns)
    )


def _section(alike: list[Table]) -> list[str]:
    first = alike[0]
    lines = [line for table in alike for line in _head(table)]
    shown = [*first.lead, *(column.name for column in first.columns), *first.trail]
    named = (
        _code(*shown)
        if first.columns
        else f"{_code(*first.lead)}, the columns of the file, {_code(*first.trail)}"
    )
    lines += [f"Columns: {named}", ""]
    if first.columns:
        lines += ["| column | unit | from |", "|---|---|---|"]
        lines += [
            f"| `{_shown(column.name)}` | {_unit(column)} | {_shown(column.source)} |"
            for column in first.columns
        ]
        lines += [""]
    if first.wide:
        name = "_".join(f"<{key}>" for key in first.wide.keys)
        if len(first.wide.values) > 1:
            name += f"_<{'|'.join(first.wide.values)}>" if len(first.wide.values) < 4 else "_<measure>"
        lines += [f"Wide: a column `{name}` for each row of a session.", ""]
    else:
        lines += ["Wide: none.", ""]
    return lines


def _unit(column: Column) -> str:
    return column.unit or ("text" if column.text else "-")


def _head(table: Table) -> Iterator[str]:
    yield f"**`{table.key}`**: {table.doc}"
    files = "; ".join(_files(table))
    yield f"From {' or '.join(f'`{label}`' for label in table.resources)}: {files}."
    yield ""


def _files(table: Table) -> Iterator[str]:
    for wanted in table.inputs:
        first = wanted.patterns[0]
        # `fields.anywhere` ends in the pattern that says it all.
        shown = next(
            (pattern for pattern in wanted.patterns if first.startswith("*/") and pattern == f"*{first[2:]}"),
            first,
        )
        yield (
            f"`{_shown(shown)}`"
            + ("" if wanted.required else " (may be missing)")
            + (" (all)" if wanted.several else "")
        )


def _validated() -> Iterator[str]:
    yield "### Validation reports"
    yield ""
    yield "From `BBRC_VALIDATOR`: the report `<Validator>*.json`. One row per session."
    yield (
        "Columns: `ID`, a column for each test that any session has, in order of first appearance, "
        "`version`, `generated`."
    )
    yield "A cell is `true`, `false`, or empty where the test was skipped or is not in the session's report."
    yield ""
    yield "| table | validator |"
    yield "|---|---|"
    for pipeline, (_, validators) in VALIDATED.items():
        yield f"| `{pipeline}/tests` | {_code(*validators)} |"
    for name, validator in ARCHIVING.items():
        yield f"| `archiving/{name}` | `{validator}` |"


def write(path: Path) -> None:
    """Puts the reference into its place in the document."""
    content = path.read_text(encoding="utf-8")
    begin, end = PLACE
    before, after = content[: content.index(begin) + len(begin)], content[content.index(end) :]
    path.write_text(f"{before}\n\n{reference()}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
