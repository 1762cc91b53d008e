"""Alias tokens: issued, invalidated, and asked how long they are good for (xnat-rest.md 1).

Used by `cli.login` and `server.token_renewal`.
Threading: any thread.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from dataclasses import dataclass, field
from typing import Any

import requests

from xnatfs.auth.token_store import StoredToken
from xnatfs.errors import Cause, Failure
from xnatfs.server.connection import Connection
from xnatfs.server.urls import encode

_ISSUE = "/data/services/tokens/issue"
_UNTIL = "estimatedExpirationTime"
_ALIAS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Issued:
    """A new token; times in seconds since 1970 by this machine's clock."""

    alias: str = field(repr=False)
    secret: str = field(repr=False)
    issued: float
    expires: float | None


def is_alias(user: str) -> bool:
    """Whether a user name looks like an alias: XNAT makes them as UUIDs."""
    return _ALIAS.fullmatch(user) is not None


def issue(connection: Connection) -> Issued:
    """A new alias token of the connection's user.

    Raises:
        Failure: NO_ENTRY, NOT_ALLOWED or SERVER_ERROR where the server gives none; NOT_DATA for an answer
            that is no token.
    """
    response = connection.get(_ISSUE)
    try:
        row = response.json()
        alias, secret = row["alias"], row["secret"]
    except (ValueError, KeyError, TypeError):
        raise Failure(Cause.NOT_DATA, _ISSUE) from None
    return Issued(str(alias), str(secret), time.time(), _time(row, _UNTIL, response))


def token(connection: Connection, new: Issued) -> StoredToken:
    """The new token, as it is kept."""
    login = connection.logins.credentials
    return StoredToken(
        connection.server,
        connection.user,
        new.alias,
        new.secret,
        new.issued,
        new.expires,
        verify=login.verify,
        proxy=login.proxy,
    )


def invalidate(connection: Connection, alias: str) -> None:
    """Make a token of the connection's user worthless at once.

    Raises:
        Failure: NO_ENTRY where the server does not know it (any more), and whatever keeps it from answering.
    """
    connection.get(f"/data/services/tokens/invalidate/{encode(alias)}")


def times(connection: Connection, alias: str) -> tuple[float | None, float | None]:
    """Since when and until when a token of the connection's user is good; None where the server does not say.
    One request.

    Raises:
        Failure: the server does not show tokens (before XNAT 1.8), or does not answer.
    """
    response = connection.get("/data/services/tokens/show")
    with contextlib.suppress(ValueError):
        rows = response.json()
        for row in rows if isinstance(rows, list) else [rows]:
            if isinstance(row, dict) and row.get("alias") == alias:
                return _time(row, "created", response), _time(row, _UNTIL, response)
    return None, None


def _time(row: dict[str, Any], name: str, response: requests.Response) -> float | None:
    """By this machine's clock: the server's may be wrong, and says with each answer how late it is there."""
    try:
        there = float(row[name]) / 1000
    except (KeyError, TypeError, ValueError):
        return None
    now = time.time()
    try:
        return (
            there - email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp() - 1 + now
        )  # it says whole seconds
    except (KeyError, TypeError, ValueError):
        return there
