"""A connection that notes what the server says to each form: statuses, rows, times, and what is wrong.

Used by `self_test`. It asks through the very code that a mount asks through (`listing_requests`,
`resources`), but never logs in again, asks a second time only after a passing trouble, and stops after a
number of requests. What it notes has no name in it: words of this module, numbers and columns that xnatfs
asked for.
Threading: one thread.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from requests import Response

from xnatfs import retry
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.errors import Cause, Failure
from xnatfs.server import json_stream
from xnatfs.server.connection import Connection
from xnatfs.server.proxy_signs import ProxySigns
from xnatfs.server.transport import SESSION

_T = TypeVar("_T")
# Nothing is sent again below `listing`, where each request is counted.
_ONCE = retry.Policy(frozenset(), requests=1)
_PAUSE_S = 0.5  # before a request is sent again
_END = 400  # bytes of the beginning and the end of a body that are kept to look for the total
# What `claims` and `json_stream` say of rows: columns and numbers, never a value.
_HARMLESS = re.compile(
    r"it claims \d+ rows and has \d+"
    r"|[/\w]+ is (?:blank|no number|no type|the id of what it is below) in (?:all )?\d+ (?:of \d+ )?rows"
    r"(?: that should have it)?",
    re.ASCII,
)
BROKEN_OFF, TOO_LATE, NO_ANSWER = "the answer breaks off", "no answer in time", "no answer"
_WORDS = {
    Cause.NOT_DATA: "a web page or a redirect in its place",
    Cause.TIMED_OUT: TOO_LATE,
    Cause.TOO_LARGE: "larger than any valid answer",
    Cause.CUT_SHORT: BROKEN_OFF,
}


class OutOfRequestsError(Exception):
    """As many requests were sent as may be, or as long as may be."""


@dataclass(frozen=True)
class Answer:
    """One answer to a form.

    Attributes:
        status: of HTTP; 0 if there was none.
        rows: of a listing that is as its form claims.
        told_total: whether it says how many rows it has.
        trouble: what is wrong with it, in words without a name; "" if nothing is.
        again: it was asked for a second time.
    """

    status: int
    seconds: float
    rows: int = 0
    told_total: bool = False
    trouble: str = ""
    again: bool = False


class ObservedConnection(Connection):
    """A connection for `self_test`.

    Args:
        most: requests it may send in all, the login included.
        seconds: it may take in all.

    Attributes:
        answers: to each form, in the order they came.
        signs: of what lies between.
    """

    def __init__(self, settings: Settings, credentials: Credentials, most: int, seconds: float) -> None:
        super().__init__(settings, credentials)
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self.signs = ProxySigns()
        self._form = ""
        self._most = most
        self._until = time.monotonic() + seconds

    @contextmanager
    def asking(self, form: str) -> Iterator[None]:
        """What is asked within belongs to this form."""
        before, self._form = self._form, form
        try:
            yield
        finally:
            self._form = before

    def listing(self, path: str, params: Mapping[str, str], parse: Callable[[Response], _T]) -> _T:
        """See `Connection.listing`; one try, and another after a passing trouble.

        Raises:
            OutOfRequestsError: it may not be asked for any more.
        """
        try:
            return self._listing(path, params, parse)
        except Failure as failure:
            # XNAT says 500 to a form it does not take, too: the second answer tells.
            passing = failure.status in retry.STATUSES or failure.cause is Cause.CUT_SHORT
            if failure.away or not passing:
                raise
        time.sleep(_PAUSE_S)
        return self._listing(path, params, parse, again=True)

    def _listing(
        self, path: str, params: Mapping[str, str], parse: Callable[[Response], _T], again: bool = False
    ) -> _T:
        self._check()
        began = time.monotonic()
        deadline = min(self._until, began + self.settings.limits.listing_deadline)
        patience = self.settings.limits.connect_timeout, max(0.1, deadline - began)
        body: _Counted | None = None
        try:
            with self.get(path, params=params, stream=True, timeout=patience) as response:
                response.raw = body = _Counted(response.raw)
                json_stream.end_by(response, deadline)
                found = parse(response)
        except ValueError as error:
            self._note(Answer(200, time.monotonic() - began, trouble=_words(str(error), body), again=again))
            raise Failure(Cause.BAD_LISTING, path, str(error)[:200]) from error
        except Failure as failure:
            trouble = f"HTTP {failure.status}" if failure.status else _WORDS.get(failure.cause, NO_ANSWER)
            self._note(Answer(failure.status, time.monotonic() - began, trouble=trouble, again=again))
            if failure.cause is Cause.NO_ENTRY:
                raise Failure(Cause.UNPROVEN, path, failure.detail, failure.status) from failure
            raise
        rows = len(found) if isinstance(found, list) else 0
        self._note(Answer(200, time.monotonic() - began, rows, body.told_total, again=again))
        return found

    def get(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: tuple[float, float] | None = None,
        accept: frozenset[int] = frozenset({200}),
    ) -> Response:
        """See `Connection.get`. Each request carries cookie and password: a session that is over, or a cookie
        that gets lost on the way, needs no login then.
        """
        had = self.logins.session.is_held
        patience = timeout or self.transport.timeout(stream)

        def send() -> Response:
            self._check()
            return self.transport.send(
                "GET", self.server + path, params=params, headers=headers, stream=stream, timeout=patience
            )

        with retry.Attempts(_ONCE):
            try:
                response = send()
            except Failure as closed:
                # A connection that the server closed meanwhile says nothing of the form.
                if closed.away or closed.cause is not Cause.CUT_SHORT:
                    raise
                response = send()
        self.signs.note(response.headers, response.cookies.keys(), new=had and SESSION in response.cookies)
        if response.status_code in accept and not self._looks_expired(response):
            return response
        failure = self._status_failure(response, path)
        response.close()
        raise failure

    def _check(self) -> None:
        if self.requests >= self._most or time.monotonic() >= self._until:
            raise OutOfRequestsError

    def _note(self, answer: Answer) -> None:
        self.answers[self._form].append(answer)


class _Counted:
    """A body, counted as it is read."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._first = self._last = b""
        self.size = 0

    def read1(self, amount: int, decode_content: bool) -> bytes:
        piece: bytes = self._raw.read1(amount, decode_content=decode_content)
        self.size += len(piece)
        self._first = (self._first + piece[:_END])[:_END]
        self._last = (self._last + piece[-_END:])[-_END:]
        return piece

    @property
    def told_total(self) -> bool:
        return b'"totalRecords"' in self._first or b'"totalRecords"' in self._last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _words(error: str, body: _Counted | None) -> str:
    if body is not None and not body.size:
        return "an empty body"
    return error if _HARMLESS.fullmatch(error) else "not JSON of this form, or cut short"
