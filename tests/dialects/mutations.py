"""Other answers: what a server, a fork or a proxy may say in place of what XNAT says.

Used by `cells`. A `Mutation` changes one reply; those of rows leave the envelope as it is, `totalRecords`
included, unless their name says otherwise.
Threading: pure.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.dialects.world import Asked, Reply

Row = dict[str, Any]
Rows = Callable[[list[Row]], list[Row]]


@dataclass(frozen=True)
class Mutation:
    """One other answer.

    Attributes:
        name: what it does, for people.
        change: the reply in place of the right one.
    """

    name: str
    change: Callable[[Asked, Reply], Reply]


def rows_in(reply: Reply) -> list[Row] | None:
    """The rows of a listing; None if it is none."""
    try:
        result = json.loads(reply.body)["ResultSet"]["Result"]
    except (ValueError, KeyError, TypeError):
        return None
    return result if isinstance(result, list) else None


def on_rows(change: Rows, *, total: bool = False) -> Callable[[Asked, Reply], Reply]:
    """Changes the rows; with `total` also their number in the envelope."""

    def changed(_: Asked, reply: Reply) -> Reply:
        if rows_in(reply) is None:
            return reply
        body = json.loads(reply.body)
        result = body["ResultSet"]
        result["Result"] = change([dict(row) for row in result["Result"]])
        if total and "totalRecords" in result:
            result["totalRecords"] = str(len(result["Result"]))
        return reply.with_body(json.dumps(body).encode())

    return changed


# --- columns ------------------------------------------------------------------------------------------------


def column_mutations(column: str, rows: Sequence[Row]) -> Iterator[Mutation]:
    """What may happen to one column, as far as it changes anything."""
    values = [row.get(column) for row in rows]
    numeric = any(str(value).isdecimal() for value in values)

    def each(name: str, change: Callable[[int, Row], Any]) -> Mutation:
        def rows_changed(found: list[Row]) -> list[Row]:
            for number, row in enumerate(found):
                if column in row:
                    row[column] = change(number, row)
            return found

        return Mutation(f"{column}: {name}", on_rows(rows_changed))

    def dropped(found: list[Row]) -> list[Row]:
        return [{key: value for key, value in row.items() if key != column} for row in found]

    def upper(found: list[Row]) -> list[Row]:
        return [{key.upper() if key == column else key: value for key, value in row.items()} for row in found]

    def owner(row: Row) -> Any:
        return row.get("ID") or row.get("cat_ID") or row.get("session_ID")

    yield Mutation(f"{column}: dropped", on_rows(dropped))
    yield Mutation(f"{column}: in capitals", on_rows(upper))
    if any(value not in ("", None) for value in values):
        yield each("blank", lambda number, row: "")
        yield each("null", lambda number, row: None)
        if len([value for value in values if value]) > 1:
            yield each("blank in every second row", lambda number, row: row[column] if number % 2 else "")
    if column != "ID" and any(owner(row) for row in rows):
        yield each("the parent's id", lambda number, row: owner(row))
    if numeric:
        yield each("with .0", lambda number, row: f"{row[column]}.0" if str(row[column]) else "")
        yield each("with blanks around", lambda number, row: f" {row[column]} ")
        yield each(
            "as numbers", lambda number, row: int(row[column]) if str(row[column]).isdecimal() else None
        )


# --- rows ---------------------------------------------------------------------------------------------------


def _unknown(found: list[Row]) -> list[Row]:
    if not found:
        return found
    strange = {
        key: (f"{value}_X" if "id" in key.lower() and value else value) for key, value in found[-1].items()
    }
    return [*found, strange]


def row_mutations() -> Iterator[Mutation]:
    """What may happen to all rows."""
    yield Mutation(
        "rows doubled", on_rows(lambda rows: [one for row in rows for one in (row, row)], total=True)
    )
    yield Mutation("rows in reverse", on_rows(lambda rows: rows[::-1]))
    yield Mutation("half of the rows", on_rows(lambda rows: rows[: len(rows) // 2]))
    yield Mutation("no rows", on_rows(lambda rows: []))
    yield Mutation("no rows, total 0", on_rows(lambda rows: [], total=True))
    yield Mutation("a row of something unknown", on_rows(_unknown, total=True))
    yield Mutation(
        "a row of blanks more",
        on_rows(lambda rows: [*rows, dict.fromkeys(rows[0], "")] if rows else [], total=True),
    )


# --- answers ------------------------------------------------------------------------------------------------

_PAGE = b"<html><head><title>Gateway</title></head><body>Please wait</body></html>"


def _status(code: int) -> Mutation:
    def change(_: Asked, reply: Reply) -> Reply:
        page = b"" if code == 204 else b"<html><body>HTTP %d</body></html>" % code
        return Reply(code, (("Content-Type", "text/html"), ("Content-Length", str(len(page)))), page)

    return Mutation(f"HTTP {code}", change)


def _redirect(asked: Asked, _: Reply) -> Reply:
    return Reply(302, (("Location", "/app/template/Login.vm"), ("Content-Length", "0")), b"")


def answer_mutations() -> Iterator[Mutation]:
    """What may come in place of a listing."""
    for code in (204, 400, 401, 403, 404, 410, 414, 500, 503):
        yield _status(code)
    yield Mutation("redirect to a login page", _redirect)
    yield Mutation("a web page", lambda asked, reply: reply.with_body(_PAGE, "text/html"))
    yield Mutation("nothing at all", lambda asked, reply: reply.with_body(b""))
    yield Mutation(
        "JSON cut in the middle", lambda asked, reply: reply.with_body(reply.body[: len(reply.body) // 2])
    )
    yield Mutation(
        "gzip, unasked",
        lambda asked, reply: reply.with_body(gzip.compress(reply.body), None, ("Content-Encoding", "gzip")),
    )
    yield Mutation("no totalRecords, no rows", lambda asked, reply: _bare(reply))


def _bare(reply: Reply) -> Reply:
    return reply if rows_in(reply) is None else reply.with_body(b'{"ResultSet":{"Result":[]}}')
