"""One request on its way to a handler.

Made by `app`, read by every handler. Lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, QueryParams

from .access import View
from .auth import Session, Sessions
from .faults import Switches
from .model import Archive, User


@dataclass
class Call:
    """A request: `path` is what follows /data (or one of its other names), still percent-encoded, without the
    leading slash.
    """

    method: str
    path: str
    query: QueryParams
    headers: Headers
    body: bytes
    user: User
    session: Session | None
    archive: Archive
    switches: Switches
    sessions: Sessions
    pool: Executor
    run: Callable[
        ..., Any
    ]  # loop.run_in_executor with the pool bound: for hashing, which lets go of the interpreter lock
    lacks: str = ""  # what an item comes without, because a query inside fails (`database.lacking`)

    @property
    def view(self) -> View:
        return View(self.archive, self.user)

    @property
    def accept(self) -> str:
        return self.headers.get("accept", "*/*")

    def flag(self, name: str) -> bool:
        """A query parameter that says true."""
        return self.query.get(name, "").lower() == "true"

    def first(self, name: str) -> str:
        """A query parameter; given twice, the first counts. "" where it is not given."""
        return next(iter(self.query.getlist(name)), "")
