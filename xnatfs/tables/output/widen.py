"""A long table with one row a session: what was a row becomes columns.

Used by `tables.engine.finished_table` and `xnatfs.table`. The long table is read once for the columns' names
and again for the rows; one session's rows and the names are in memory. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from xnatfs.tables.spec import Column, Frame, Row, Table

_ADDED = ("label", "date")  # what the builder puts at the end where a table has none
_Slot = tuple[
    Row, int, int
]  # the keys' cells, how often this session had them before, which of the value columns


def widen(frame: Frame, table: Table) -> Frame:
    """The table with one row a session, its columns in the order they are first seen in, over all sessions.

    A session that has the same keys twice gets a second column (`..._2`), also if the cells are equal:
    nothing is overwritten. A name that is taken, by a column about the session or by other keys that read the
    same once joined, gets `_2` as well.

    Raises:
        ValueError: the table does not widen, or lacks a column it widens by.
    """
    if table.wide is None:
        raise ValueError(f"{table.key} has no wide form")
    names = [column.name for column in frame.columns]
    lead, trail = _about_session(names, table)
    keys, values = table.wide.keys, table.wide.values
    if not keys:
        values = tuple(name for at, name in enumerate(names) if at not in {*lead, *trail})
    missing = [name for name in (*keys, *values) if name not in names]
    if missing:
        raise ValueError(f"{table.key} has no column {missing[0]!r} to widen by")
    wide = _Wide(frame, lead, trail, tuple(map(names.index, keys)), tuple(map(names.index, values)))
    wide.name()
    return wide


def _about_session(names: list[str], table: Table) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the columns about the session stand, before and after the measurements.

    By their place where they are at the two ends, since a measurement may have the name of one of them
    (`label`).
    """
    count = len(table.lead)
    if tuple(names[:count]) == table.lead:
        added = tuple(name for name in _ADDED if name not in table.lead + table.trail)
        for more in (added, *((name,) for name in added), ()):
            tail = table.trail + more
            first = len(names) - len(tail)
            if first >= count and tuple(names[first:]) == tail:
                return tuple(range(count)), tuple(range(first, len(names)))
    lead = tuple(names.index(name) for name in table.lead if name in names)
    return lead, tuple(
        names.index(name) for name in table.trail + _ADDED if name in names and names.index(name) not in lead
    )


@dataclass
class _Wide:
    """The widened table; its columns are known after `name`."""

    frame: Frame
    lead: tuple[int, ...]
    trail: tuple[int, ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]
    columns: tuple[Column, ...] = ()
    _slots: dict[_Slot, int] = field(default_factory=dict)  # -> place among the columns

    def name(self) -> None:
        """Read the long table for the names."""
        long = self.frame.columns
        before = [long[at] for at in self.lead]
        after = [long[at] for at in self.trail]
        taken = {column.name for column in (*before, *after)}
        added: list[Column] = []
        for _, rows in self._sessions():
            for slot, _ in self._cells(rows):
                if slot not in self._slots:
                    self._slots[slot] = len(before) + len(added)
                    column = long[self.values[slot[2]]]
                    name = _free(self._name_of(slot), taken)
                    taken.add(name)
                    added.append(Column(name, column.unit, column.source, column.text))
        self.columns = (*before, *added, *after)

    def rows(self) -> Iterator[Row]:
        """See `Frame`."""
        width = len(self.columns)
        for about, rows in self._sessions():
            row = [""] * width
            row[: len(self.lead)] = about[: len(self.lead)]
            row[width - len(self.trail) :] = about[len(self.lead) :]
            for slot, cell in self._cells(rows):
                row[self._slots[slot]] = cell
            yield tuple(row)

    def _sessions(self) -> Iterator[tuple[Row, Iterator[Row]]]:
        """The cells about each session, and its rows, which are adjacent."""
        about = _picker((*self.lead, *self.trail))
        yield from groupby(self.frame.rows(), about)

    def _cells(self, rows: Iterator[Row]) -> Iterator[tuple[_Slot, str]]:
        """Where each value of a session's rows belongs."""
        key_of, values_of = _picker(self.keys), _picker(self.values)
        seen: dict[Row, int] = {}
        for row in rows:
            key = key_of(row)
            before = seen.get(key, 0)
            seen[key] = before + 1
            for number, cell in enumerate(values_of(row)):
                yield (key, before, number), cell

    def _name_of(self, slot: _Slot) -> str:
        key, before, number = slot
        parts = [cell for cell in key if cell]
        if len(self.values) > 1 or not parts:
            parts.append(self.frame.columns[self.values[number]].name)
        return "_".join(parts) + (f"_{before + 1}" if before else "")


def _picker(places: tuple[int, ...]) -> Callable[[Row], Row]:
    """A function that takes a row's cells at these places."""
    return lambda row: tuple([row[at] for at in places])


def _free(name: str, taken: set[str]) -> str:
    """The name, or with the first `_2`, `_3`, ... that is free."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
