"""Columns about the subject and the session beside those of any table: `--with age,sex`, and `with` in
`tables.toml`.

Used by `finished_table` and the library. A row finds its cells by its session (`ID`). They stand at the end
of a long table, and first in a wide one, after its `lead`: bx's columns keep their places.
Threading: immutable; any thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from xnatfs.errors import UsageError
from xnatfs.tables.engine import people_tables
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.spec import Column, Frame, Row, Rows
from xnatfs.text import did_you_mean

_KEY = "ID"


@dataclass(frozen=True)
class JoinedColumns:
    """Columns to add, and their cells by session."""

    columns: tuple[Column, ...]
    of: Mapping[str, Row]

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column.name for column in self.columns]

    @property
    def fingerprint(self) -> str:
        """The same for the same columns and cells."""
        text = repr((self.columns, sorted(self.of.items())))
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:20]

    def beside(self, frame: Frame, place: int | None = None) -> Frame:
        """A table with these columns at a place, by default the end; as it is if it has no `ID`, or none are
        to be added. A column that it has by this name stays the one.
        """
        names = [column.name for column in frame.columns]
        new = [at for at, column in enumerate(self.columns) if column.name not in names]
        if _KEY not in names or not new:
            return frame
        return _Beside(self, frame, tuple(new), len(names) if place is None else place, names.index(_KEY))


class _Beside:
    """See `JoinedColumns.beside`."""

    def __init__(
        self, joined: JoinedColumns, frame: Frame, new: tuple[int, ...], place: int, key: int
    ) -> None:
        self._joined, self._frame, self._new, self._place, self._key = joined, frame, new, place, key
        added = tuple(joined.columns[at] for at in new)
        self.columns = (*frame.columns[:place], *added, *frame.columns[place:])

    def rows(self) -> Iterator[Row]:
        """See `Frame`."""
        nothing = ("",) * len(self._joined.columns)
        for row in self._frame.rows():
            cells = self._joined.of.get(row[self._key], nothing)
            yield (*row[: self._place], *(cells[at] for at in self._new), *row[self._place :])


def joined_columns(
    builder: Builder, parts: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]
) -> JoinedColumns:
    """The columns of these names.

    Args:
        parts: projects, and the sessions of each (none: all).
        names: as the tables `subjects` and `sessions` have them; the session's where both do.

    Raises:
        UsageError: there is no such column.
        Failure: what keeps the server from answering.
    """
    known: dict[str, Column] = {}
    found: dict[str, dict[str, str]] = {}
    for project, sessions in parts:
        subjects = people_tables.subjects(builder, project, sessions)
        visits = people_tables.visits(builder, project, sessions, names)
        by_subject = {row[_at(subjects, "subject_ID")]: row for row in subjects.held}
        for frame in (visits, subjects):
            known = {**{column.name: column for column in frame.columns}, **known}
        for row in visits.held:
            subject = by_subject.get(row[_at(visits, "subject_ID")], ("",) * len(subjects.columns))
            cells = _cells(subjects, subject) | _cells(visits, row)
            found[row[0]] = {name: cells.get(name, "") for name in names}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no column {name!r} to add{did_you_mean(name, known)}")
    return JoinedColumns(
        tuple(known[name] for name in names),
        {identity: tuple(cells[name] for name in names) for identity, cells in found.items()},
    )


def _at(frame: Rows, name: str) -> int:
    return next(at for at, column in enumerate(frame.columns) if column.name == name)


def _cells(frame: Rows, row: Row) -> dict[str, str]:
    return {column.name: cell for column, cell in zip(frame.columns, row, strict=True)}
