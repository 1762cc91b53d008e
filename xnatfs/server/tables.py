"""XNAT's listing envelope as rows, and the look-up of columns whose names come back in several spellings.

Used by `listings` and `resources`. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import requests

Row = Mapping[str, str]


def rows_of(response: requests.Response) -> list[Row]:
    """The rows of `{"ResultSet": {"Result": [...]}}`, keys lower-cased, values as strings ("" for null).

    Raises:
        ValueError: the body is no such JSON, or does not parse to its end.
    """
    body = json.loads(response.content)
    try:
        result = body["ResultSet"]["Result"]
        names: dict[str, str] = {}  # every row has the same keys
        return [
            {names.get(key) or names.setdefault(key, key.lower()): "" if value is None else str(value) for key, value in row.items()}
            for row in result
        ]
    except (KeyError, TypeError, AttributeError):
        raise ValueError("no ResultSet in the listing") from None


def has_column(rows: Iterable[Row], *names: str) -> bool:
    """Whether the column came back, under any of its spellings. An unknown column is dropped silently (fact sheet 2.2)."""
    return all(any(_find(row, name) is not None for name in names) for row in rows)


def pick(row: Row, *names: str) -> str:
    """The value of a column, looked for under each name in turn; "" if there is none.

    A name that starts with `/` matches the end of a lower-cased xpath (`xnat:imagescandata/id` for `/imagescandata/id`), because the
    prefix differs with the root element of the query.
    """
    for name in names:
        value = _find(row, name)
        if value:
            return value
    return ""


def number(text: str) -> int | None:
    """A whole number from a table cell; None where there is none (all values are strings, "" while not computed)."""
    try:
        return int(text)
    except ValueError:
        return None


def _find(row: Row, name: str) -> str | None:
    name = name.lower()
    if not name.startswith("/"):
        return row.get(name)
    for key, value in row.items():
        if key.endswith(name) or key.endswith(":" + name[1:]):
            return value
    return None
