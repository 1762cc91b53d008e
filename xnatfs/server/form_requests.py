"""Asking a server for a listing: one form after the other, each answer checked by what the form claims, and a
refusal remembered.

Used by `listing_requests` and `detail_requests`, whose classes are made of this.
Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import requests

from xnatfs.errors import Cause, Failure
from xnatfs.server import claims
from xnatfs.server.breaker import Breaker
from xnatfs.server.capabilities import Capabilities
from xnatfs.server.claims import Claim
from xnatfs.server.connection import Connection
from xnatfs.server.json_stream import whole
from xnatfs.server.resultset import Row, has_column, number, rows_of

T = TypeVar("T")


class FormRequests:
    """Listings of one server in any form.

    Attributes:
        capabilities: which forms the server refused.
    """

    def __init__(self, connection: Connection, capabilities: Capabilities | None = None) -> None:
        self._connection = connection
        self.capabilities = Capabilities() if capabilities is None else capabilities

    @property
    def breaker(self) -> Breaker:
        """Whether the server is there."""
        return self._connection.breaker

    def table(self, path: str, claim: Claim = claims.NONE, /, **params: str) -> list[Row]:
        """GET a listing as rows, which are as its form claims."""

        def checked(response: requests.Response) -> list[Row]:
            rows = rows_of(response)
            claim.check(rows)
            return rows

        return self._connection.listing(path, {"format": "json", **params}, checked)

    def object(self, path: str, parse: Callable[[bytes], T], **params: str) -> T:
        """GET a JSON document and read it; `parse` raises ValueError for what is none.

        Raises:
            Failure: see `Connection.listing`.
        """

        def read(response: requests.Response) -> T:
            try:
                return parse(whole(response))
            except RecursionError:
                raise ValueError("it is nested too deeply") from None

        return self._connection.listing(path, params, read)

    def size_of(self, path: str) -> int | None:
        """The size in bytes of the file at a percent-encoded path, from the head of an answer for its first
        byte; None where it does not tell.
        """
        response = self._connection.get(
            path, headers={"Range": "bytes=0-0"}, stream=True, accept=frozenset({200, 206})
        )
        with response:
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            return number(
                whole if response.status_code == 206 else response.headers.get("Content-Length", "")
            )

    def with_extras(
        self,
        form: str,
        path: str,
        columns: Sequence[str],
        tiers: Sequence[Sequence[str]],
        *,
        need: Sequence[str] | None = None,
        plain: bool = True,
        claim: Claim = claims.NONE,
        **params: str,
    ) -> tuple[list[Row], bool]:
        """Ask with each tier of extra columns until one is taken; (rows, whether the needed columns came
        back).

        `need` are the columns without which the answer is worthless; by default the last tier's. A request
        that is refused with every tier is asked without them if `plain`, else answered with no rows and
        False. What is refused is remembered as `form`, for a while; but only if a simpler form about the same
        objects is answered: a database in trouble fails all of them.

        Raises:
            Failure: what keeps the server from answering; the refusal, if a simpler form is refused as well.
        """
        if need is None:
            need = tuple("/" + column.split("/", 1)[1] for column in tiers[-1])
        if not self.capabilities.may(form):
            return (self.table(path, claim, columns=",".join(columns), **params) if plain else []), False
        for tier in tiers:
            try:
                rows = self.table(path, claim, columns=",".join((*columns, *tier)), **params)
            except Failure as failure:
                if not is_refusal(failure):
                    raise
                if failure.status == 404:
                    break  # it is the form that is refused, not a column
                continue
            granted = all(has_column(rows, column) for column in need)
            if not granted:
                self.capabilities.refuse(form)
            return rows, granted
        if plain:
            rows = self.table(path, claim, columns=",".join(columns), **params)
        else:
            rows = []
            self.table(
                path, columns="ID", **{name: value for name, value in params.items() if name == "project"}
            )
        self.capabilities.refuse(form)
        return rows, False


def is_refusal(failure: Failure) -> bool:
    """Whether the server will not take this form: a passing trouble (429, 502, 503, 504, no answer) must not
    be remembered as one.
    """
    return (
        failure.status in (400, 403, 404, 405, 406, 417, 422, 500, 501) or failure.cause is Cause.BAD_LISTING
    )
