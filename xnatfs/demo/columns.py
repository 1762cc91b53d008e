"""The query organizer: `columns=` as aliases and paths, the joins they need, and filters (xnat-rest.md 2.2,
12 [X]).

A column has a *join*: "" for the listed object itself, or a table it multiplies rows by (scans, their
resources, ...). An object without a partner in a join keeps one row with blanks (LEFT JOIN). Used by
`listings` and `search`. Pure, reads the archive on the event loop.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .tables import Row

Value = Callable[[Any], str]


@dataclass(frozen=True)
class Column:
    """One column of a result: the key it has there, what it is joined over, and how its value is read off."""

    key: str
    join: str
    value: Value
    proven: bool = True


@dataclass(frozen=True)
class Join:
    """A to-many relation of the listed object. Where the finer relation `refined_by` is needed too, that one
    serves for both.
    """

    name: str
    partners: Callable[[Any], Iterable[Any]]
    refined_by: str = ""


class QueryFailed(Exception):
    """The query cannot be made: an unknown field of a known type, a type that cannot be joined, a value that
    cannot be compared.

    What is answered then depends on the listing: a 500, or a 200 with nothing in it (xnat-rest.md 12 [X]).
    """


Resolved = tuple[str, Value, bool]


@dataclass(frozen=True)
class Root:
    """A kind of listed object: its aliases (alias -> path), its joins, and how paths are understood.

    `resolve` gets a lower-cased path and answers (join, value, proven), None for a type that does not exist
    (such a column is dropped), or raises QueryFailed.
    """

    aliases: Mapping[str, str]
    joins: Mapping[str, Join]
    resolve: Callable[[str], Resolved | None]

    def column(self, name: str) -> Column | None:
        """The column for an alias or a path; None for an unknown alias (logged and dropped by XNAT). Aliases
        have a case, paths none.

        A path that has an alias comes back under it, others in lower case.
        """
        if "/" not in name:
            if name not in self.aliases:
                return None
            resolved = self.resolve(self.aliases[name].lower())
            return None if resolved is None else Column(name, *resolved)
        path = name.lower()
        resolved = self.resolve(path)
        key = next((alias for alias, registered in self.aliases.items() if registered.lower() == path), path)
        return None if resolved is None else Column(key, *resolved)

    def select(self, names: Iterable[str], proven_only: bool) -> list[Column]:
        """The columns of a request in order, each once; unproven ones left out under the strict profile."""
        chosen: dict[str, Column] = {}
        custom: set[str] = set()
        for name in names:
            column = self.column(name)
            if column is None or (proven_only and not column.proven):
                continue
            if _CUSTOM.search(column.key):
                # The name of a custom variable is not looked at: a second one is the same column
                # (xnat-rest.md 14 [X]).
                field = _CUSTOM.sub("fields/field/", column.key)
                if field in custom:
                    continue
                custom.add(field)
            chosen.setdefault(column.key, column)
        return list(chosen.values())


_CUSTOM = re.compile(r"fields/field\[[^]]*\]/")


def rows_of(
    root: Root,
    objects: Iterable[Any],
    columns: list[Column],
    filters: list[tuple[Column, Callable[[str], bool]]],
) -> list[Row]:
    """One row for each combination of joined partners that passes the filters."""
    needed = {column.join for column in columns} | {column.join for column, _ in filters}
    coarse = {
        name: join.refined_by
        for name, join in root.joins.items()
        if join.refined_by and name in needed and join.refined_by in needed
    }
    if coarse:
        columns = [replace(column, join=coarse.get(column.join, column.join)) for column in columns]
        filters = [
            (replace(column, join=coarse.get(column.join, column.join)), test) for column, test in filters
        ]
        needed -= coarse.keys()
    order = [name for name in root.joins if name in needed]
    base_columns = [column for column in columns if not column.join]
    own_filters = [(column, test) for column, test in filters if not column.join]
    joined = [[column for column in columns if column.join == name] for name in order]
    joined_filters = [[(column, test) for column, test in filters if column.join == name] for name in order]
    rows: list[Row] = []
    for item in objects:
        if not all(test(column.value(item)) for column, test in own_filters):
            continue
        base = {column.key: column.value(item) for column in base_columns}
        if not order:
            rows.append(base)
            continue
        choices = [
            _partial_rows(root.joins[name], item, wanted, tests)
            for name, wanted, tests in zip(order, joined, joined_filters, strict=True)
        ]
        for combination in itertools.product(*choices):
            row = dict(base)
            for part in combination:
                row.update(part)
            rows.append(row)
    return rows


def united(rows: list[Row]) -> list[Row]:
    """Rows equal in everything asked for, once: the UNION of XNAT's query since 1.8.9 (xnat-rest.md 12
    [X]).
    """
    return list({tuple(row.items()): row for row in rows}.values())


def _partial_rows(
    join: Join, item: Any, columns: list[Column], filters: list[tuple[Column, Callable[[str], bool]]]
) -> list[Row]:
    partners = list(join.partners(item))
    complete = [
        {column.key: column.value(partner) for column in columns}
        for partner in partners
        if all(test(column.value(partner)) for column, test in filters)
    ]
    if not partners and not filters:
        return [dict.fromkeys((column.key for column in columns), "")]
    return complete


_DATE_RANGE = re.compile(r"(\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4})(?:-(\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}))?")
_NUMBER_RANGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
_DATES = frozenset({"date", "dob", "insert_date", "last_modified"})


def _iso(date: str) -> str:
    return f"{date[6:]}-{date[:2]}-{date[3:5]}" if "/" in date else date


def matcher(key: str, wanted: str) -> Callable[[str], bool]:
    """The test for a filter: strings with `,` as OR and `*`/`%` as LIKE; ranges for dates and numbers
    (xnat-rest.md 2.2).
    """
    tests = [_one_matcher(key, part) for part in wanted.split(",")]
    return lambda value: any(test(value) for test in tests)


def _one_matcher(key: str, wanted: str) -> Callable[[str], bool]:
    dates = _DATE_RANGE.fullmatch(wanted) if key in _DATES else None
    if dates is not None:
        first = _iso(dates[1])
        last = _iso(dates[2]) if dates[2] else first
        return lambda value: bool(value) and first <= value[:10] <= last
    if "*" in wanted or "%" in wanted:
        pattern = re.compile(fnmatch.translate(re.sub(r"([?\[\]])", r"[\1]", wanted).replace("%", "*")))
        return lambda value: pattern.fullmatch(value) is not None
    numbers = _NUMBER_RANGE.fullmatch(wanted)
    if numbers is not None:
        low, high = float(numbers[1]), float(numbers[2])

        def between(value: str) -> bool:
            # A label such as 185574-1 looks like a range: equal text matches too.
            return value == wanted or (value.replace(".", "", 1).isdigit() and low <= float(value) <= high)

        return between
    return lambda value: value == wanted
