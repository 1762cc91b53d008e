"""XNAT's listing envelope as rows, and the look-up of columns whose names come back in several spellings.

Used by `listing_requests`, `resources`, `claims` and `items`. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import requests

from xnatfs.server import json_stream

Row = Mapping[str, str]
_NUMBER = re.compile(r" *([0-9]{1,18})(?:\.0{1,9})? *")


def rows_of(response: requests.Response) -> list[Row]:
    """All rows of a listing; see `each_row`."""
    return list(each_row(response))


def each_row(response: requests.Response) -> Iterator[Row]:
    """The rows of `{"ResultSet": {"Result": [...]}}` as they come, keys lower-cased, values as strings (""
    for null).

    Raises:
        ValueError: the body is no such JSON, or does not parse to its end.
        Failure: TOO_LARGE, or it does not come.
    """
    names: dict[str, str] = {}  # every row has the same keys
    for row in json_stream.rows(response):
        yield {
            names.get(key) or names.setdefault(key, key.lower()): "" if value is None else str(value)
            for key, value in row.items()
        }


def has_column(rows: Iterable[Row], *names: str) -> bool:
    """Whether the column came back, under any of its spellings. An unknown column is dropped silently
    (xnat-rest.md 2.2).
    """
    return all(any(_find(row, name) is not None for name in names) for row in rows)


def pick(row: Row, *names: str) -> str:
    """The value of a column, looked for under each name in turn; "" if there is none.

    A name that starts with `/` matches the end of a lower-cased xpath (`xnat:imagescandata/id` for
    `/imagescandata/id`), because the prefix differs with the root element of the query.
    """
    for name in names:
        value = _find(row, name)
        if value:
            return value
    return ""


def number(text: str) -> int | None:
    """A whole number from a table cell; None where there is none (all values are strings, "" while not
    computed), or none that a count or a size can be: below zero, or beyond 18 digits, which SQLite and the
    kernel's 64 bits still hold. `12.0` and ` 12 ` are 12: a driver or a proxy may write it so.
    """
    match = _NUMBER.fullmatch(text)
    return int(match[1]) if match else None


def _find(row: Row, name: str) -> str | None:
    name = name.lower()
    if not name.startswith("/"):
        return row.get(name)
    for key, value in row.items():
        if key.endswith(name) or key.endswith(":" + name[1:]):
            return value
    return None
