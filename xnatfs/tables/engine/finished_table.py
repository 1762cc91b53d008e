"""A finished table, ready to be written in any of the variants its files have.

Used by `materialize` (which finishes tables) and `file_store` (which keeps their files).
Threading: a finished table belongs to the thread that writes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xnatfs._version import __version__
from xnatfs.errors import UsageError
from xnatfs.tables.engine.build import Builder, BuiltTable
from xnatfs.tables.engine.built_table import joined_state
from xnatfs.tables.engine.from_listings import listed_table
from xnatfs.tables.engine.joined_columns import JoinedColumns
from xnatfs.tables.engine.listed_table import Listed
from xnatfs.tables.output.types import ColumnScan, scan
from xnatfs.tables.output.widen import widen
from xnatfs.tables.output.write import FORMATS, write
from xnatfs.tables.spec import Column, Frame, Parsed, Rows, Table, stack

_PROBLEMS = "problems.csv"


@dataclass(frozen=True)
class Variant:
    """One file of a table: long or wide, and its format; `problems.csv` is one of its own."""

    format: str
    wide: bool = False
    problems: bool = False

    @property
    def suffix(self) -> str:
        """What follows the table's name."""
        return f".{_PROBLEMS}" if self.problems else f"{'_wide' if self.wide else ''}.{self.format}"


def variants(table: Table | None) -> list[Variant]:
    """The files a table has. None: one made from listings."""
    files = [Variant(kind) for kind in FORMATS]
    if table is not None and table.wide is not None:
        files += [Variant(kind, wide=True) for kind in FORMATS]
    return files if table is None else [*files, Variant("csv", problems=True)]


@dataclass
class FinishedTable:
    """A table ready to be written.

    Attributes:
        key: the table's key.
        fingerprint: the same for the same files.
        as_of: epoch seconds at which the server was asked.
        about: its provenance as texts.
        variants: the files it has.
        frame: its rows.
        built: how it was built; None if it is made from listings.
        state: of the project when it was built, see `Builder.state`.
        joined: the columns about subject and session to add.
    """

    key: str
    fingerprint: str
    as_of: float
    about: dict[str, str]
    variants: list[Variant]
    frame: Frame
    built: BuiltTable | None = None
    state: str = ""
    joined: JoinedColumns | None = None
    _scan: ColumnScan | None = None

    def write(self, variant: Variant, path: Path) -> None:
        """Write one of its files."""
        if variant.problems and self.built is not None:
            write(self.built.problems(self._scanned().notes), "csv", path, title=f"{self.key} problems")
        elif variant.wide and self.built is not None:
            wide = wide_with(self.built, self.joined)
            write(wide, variant.format, path, title=f"{self.key}_wide")
        else:
            scanned = self._scanned() if variant.format != "csv" else None
            write(self._long, variant.format, path, title=self.key, scanned=scanned)

    @property
    def _long(self) -> Frame:
        return self.frame if self.joined is None else self.joined.beside(self.frame)

    def _scanned(self) -> ColumnScan:
        if self._scan is None:
            self._scan = scan(self._long)
        return self._scan


def wide_with(built: BuiltTable, joined: JoinedColumns | None) -> Frame:
    """The wide form of a table, the columns to add first after those that lead it."""
    wide = widen(built, built.table)
    return wide if joined is None else joined.beside(wide, len(built.table.lead))


def finish(built: BuiltTable, joined: JoinedColumns | None = None) -> FinishedTable:
    """A built table, ready to be written, with the columns to add."""
    counts = built.counts() | {"problems": len(built.problems().held)}
    about = {name: str(value) for name, value in counts.items()} | _times(built.as_of)
    more = "" if joined is None else joined.fingerprint
    fingerprint = hashlib.sha256(f"{built.fingerprint} {__version__}{more}".encode()).hexdigest()[:20]
    return FinishedTable(
        built.table.key,
        fingerprint,
        built.as_of,
        about,
        variants(built.table),
        built,
        built,
        built.state if joined is None else joined_state([built.state, *joined.names]),
        joined,
    )


def finish_listed(builder: Builder, project: str, key: str, sessions: Sequence[str]) -> FinishedTable:
    """A table made from listings, ready to be written.

    Raises:
        Failure, UsageError: see `Builder.build`.
    """
    as_of = time.time()
    state = builder.state(project, key, sessions, recheck=False)
    table = listed_table(key)
    if table is None:
        raise UsageError(f"there is no table {key!r}")
    frames = [table.build(builder, part, members) for part, members in builder.parts(project, sessions)]
    frame = together(table, frames)
    rows = frame.held
    digest = hashlib.sha256(repr((__version__, frame.columns)).encode("utf-8", "backslashreplace"))
    for row in rows:
        digest.update(repr(row).encode("utf-8", "backslashreplace"))
    about = {"rows": str(len(rows))} | _times(as_of)
    return FinishedTable(key, digest.hexdigest()[:20], as_of, about, variants(None), frame, state=state)


def together(table: Listed, frames: Sequence[Rows]) -> Rows:
    """The rows of several projects under the union of their columns, sorted."""
    known: dict[str, Column] = {}
    for frame in frames:
        for column in frame.columns:
            known.setdefault(column.name, column)
    stacked = stack(Parsed(tuple(column.name for column in frame.columns), frame.held) for frame in frames)
    at = [stacked.columns.index(name) for name in table.order if name in stacked.columns]
    rows = sorted(stacked.rows, key=lambda row: [row[place] for place in at])
    return Rows(tuple(known[name] for name in stacked.columns) or table.columns, rows)


def as_iso(when: float) -> str:
    """Epoch seconds as a date and time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _times(as_of: float) -> dict[str, str]:
    return {"as_of": as_iso(as_of), "built_at": as_iso(time.time()), "xnatfs_version": __version__}
