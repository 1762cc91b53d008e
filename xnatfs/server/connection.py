"""One logged-in connection to one XNAT: login, session cookie, and the check that an answer is what it claims
to be.

Used by `listing_requests`, `resources` and `downloads`.
Threading: any thread. How requests are sent: `http_transport`; who logs in when, and how often:
`login_state`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from requests import RequestException, Response

from xnatfs import retry
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import json_stream
from xnatfs.server.breaker import Breaker
from xnatfs.server.http_transport import HttpTransport
from xnatfs.server.limiter import RequestLimiter
from xnatfs.server.login_state import Known, Login
from xnatfs.server.pyxnat_interface import make_interface
from xnatfs.server.request_auth import without_password
from xnatfs.server.server_address import find_server, is_readable_by_all, may_move
from xnatfs.server.transport import SESSION, redirect_target

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Connection:
    """A login on one server.

    Args:
        settings: where the server is, and the limits.
        credentials: whose login.

    Nothing is sent before `login()`.
    """

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self.settings = settings
        self.version = ""
        self.slots = RequestLimiter(settings.limits.connections)
        self.transport = HttpTransport(settings, credentials)
        self.logins = Login(self.transport, credentials, self.change_login)
        self._pyxnat: Any = None

    def limit(self, connections: int, requests_per_second: float) -> None:
        """Send so much at once, and a second, from now on."""
        self.slots.limit(connections)
        self.transport.pacer.rate = requests_per_second

    @property
    def server(self) -> str:
        """Its address: where it was found, which may be another than the user named."""
        return self.transport.server

    @property
    def user(self) -> str:
        """As the server names it, which for an alias token is its owner; "" before the login."""
        return self.logins.user

    @property
    def breaker(self) -> Breaker:
        """Whether the server is there."""
        return self.transport.breaker

    @property
    def requests(self) -> int:
        """Sent so far, for `status`."""
        return self.transport.requests

    # --- login ----------------------------------------------------------------------------------------------

    def login(self, known: Known | None = None) -> str:
        """Log in and return the user's name on the server.

        Args:
            known: what an earlier login of these credentials found. It spares the look for the server: one
                request in place of three.

        Raises:
            Failure: UNKNOWN_HOST, UNREACHABLE, BAD_CERTIFICATE, TIMED_OUT, NOT_AN_XNAT, MOVED, PLAIN_HTTP or
                LOGIN_REFUSED; OFFLINE for an offline mount of a server nobody has logged in to from here.
        """
        if self.settings.offline:
            if known is None:
                raise Failure(
                    Cause.OFFLINE,
                    self.server,
                    "nothing from this server is: mount it once while it is reachable",
                )
            self._be_at(known)
            return self.user
        usable = (
            known is not None
            and may_move(self.settings, known.server)
            and not is_readable_by_all(self.transport, known.server)
        )
        if known is not None and usable and self.logins.as_known(known):
            self._be_at(known)
            return self.user
        self.version = find_server(self.transport)
        if is_readable_by_all(self.transport, self.server):
            raise Failure(Cause.PLAIN_HTTP, self.server)
        self.logins.first()
        return self.user

    def _be_at(self, known: Known) -> None:
        self.transport.server, self.logins.user, self.version, _ = known

    @property
    def known(self) -> Known:
        """What this login found, for the next one."""
        return Known(self.server, self.user, self.version, self.logins.session.refuses_strangers)

    def alike(self, login: Credentials) -> Connection:
        """A connection to the same server with another login, which it has not made yet."""
        return Connection(replace(self.settings, server=self.server), login)

    def change_login(self, login: Credentials) -> None:
        """Log in with other credentials of the same user, and go on with that session.

        Raises:
            Failure: LOGIN_REFUSED, and what keeps the server from answering. The session in use stays.
            UsageError: they are another user's.
        """
        trial = self.alike(login)
        try:
            name = trial.login(self.known)
            if name != self.user:
                raise UsageError(
                    f"{login.source} has a login for {name}, and the mount is {self.user}'s: unmount it first"
                )
        except (Failure, UsageError):
            trial.close()
            raise
        self.transport.adopt(trial.transport, login)
        self._pyxnat = None  # the next one names the new user

    def close(self) -> None:
        """End the server-side session, if the server is there; XNAT counts at most 1000 of them a user."""
        self.transport.stop_probing()
        with contextlib.suppress(OSError, RequestException):
            if self.logins.count and not self.logins.credentials.session and not self.breaker.quiet(1.0):
                self.transport.send("DELETE", f"{self.server}/data/JSESSION", timeout=5)
        self.transport.close()

    @property
    def pyxnat(self) -> Any:
        """pyxnat's `Interface` on this session: logged in, with the same proxy and certificates.

        Raises:
            MissingExtra: pyxnat is not installed.
            Failure: OFFLINE.
        """
        if self.settings.offline:
            raise Failure(Cause.OFFLINE, self.server, "pyxnat asks the server")
        if self._pyxnat is None:
            self._pyxnat = make_interface(self.server, self.logins.credentials, self.transport.session)
        return self._pyxnat

    # --- requests -------------------------------------------------------------------------------------------

    def listing(self, path: str, params: Mapping[str, str], parse: Callable[[Response], _T]) -> _T:
        """GET a listing and return `parse(response)`.

        `parse` reads the body (with `json_stream`) to its end. It raises `ValueError` for one that is not
        what it should be (cut, a web page); it is then asked for again: a chunked reply may end early and
        cleanly (xnat-rest.md 9), so only parsing to the end proves it whole.

        Raises:
            Failure: UNPROVEN (404: a status proves no absence, xnat-rest.md 13), NOT_ALLOWED (403),
                LOGIN_REFUSED, SERVER_ERROR, BAD_LISTING, TOO_LARGE, UNREACHABLE, TIMED_OUT.
        """
        limits = self.settings.limits
        with (
            self.slots.listing(limits.listing_deadline),
            retry.Attempts(retry.LISTING) as attempts,
        ):
            deadline = time.monotonic() + limits.listing_deadline
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(Cause.TIMED_OUT, path)
                try:
                    response = self.get(
                        path, params=params, stream=True, timeout=(limits.connect_timeout, left)
                    )
                    with response:
                        json_stream.end_by(response, deadline)
                        return parse(response)
                except ValueError as error:
                    problem = Failure(Cause.BAD_LISTING, path, str(error)[:200])
                except Failure as failure:
                    failure.subject = failure.subject or path
                    if failure.cause is Cause.NO_ENTRY:
                        raise Failure(Cause.UNPROVEN, path, failure.detail, failure.status) from failure
                    problem = failure
                if not attempts.may_cure(problem):
                    raise problem
                log.warning("%s, asking again", problem)
                attempts.pause()

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
        """GET `path` (already percent-encoded, below the server's URL) on the session; logs in again once if
        it has expired.

        Raises:
            Failure: any status not in `accept`, and whatever keeps the server from answering.
        """
        url, session = self.server + path, self.logins.session
        for attempt in (1, 2):
            seen = self.logins.ready()
            # The second time the login was taken just now: there the password heals whatever ends the session
            # meanwhile.
            borrowed = bool(self.logins.credentials.session)  # there is no password
            bare, had = borrowed or (attempt == 1 and session.suffices), session.is_held
            auth = without_password if bare else None
            patience = timeout or self.transport.timeout(stream)
            response = self.transport.send(
                "GET", url, params=params, headers=headers, stream=stream, timeout=patience, auth=auth
            )
            # A new session for a request that brought one: that one is over. Where the password came along,
            # XNAT says that the answer is still this user's (xnat-rest.md 1 [I]); a gateway that forgot the
            # session may have kept the password to itself.
            new = had and SESSION in response.cookies
            guest = new and (bare or not session.is_restless)
            session.note_answer(new=new)
            if attempt == 1 and (guest or self._looks_expired(response)):
                response.close()
                refused = response.status_code == 401
                renewed = self.logins.again(seen, spent=refused and not bare, replaced=not (refused or guest))
                if renewed or not self._looks_expired(response):
                    if bare:
                        session.missed(guest=guest)
                    continue
            elif attempt == 2 and self._looks_expired(response):
                session.renewed_in_vain()
            elif attempt == 2 and guest and borrowed:
                # Whose answer that is cannot be told without a password.
                response.close()
                raise Failure(
                    Cause.SERVER_ERROR,
                    path,
                    "it begins another session with every answer; run `xnatfs login`",
                )
            break
        if response.status_code in accept and not self._looks_expired(response):
            session.good(alone=bare)
            return response
        failure = self._status_failure(response, path)
        response.close()
        raise failure

    @staticmethod
    def _looks_expired(response: Response) -> bool:
        if response.status_code == 401 or response.is_redirect:
            return True
        # XNAT's downloads carry a Content-Disposition and its listings are JSON: a bare web page is a login
        # page, whatever its status.
        kind = response.headers.get("Content-Type", "")
        return (
            response.status_code == 200
            and kind.startswith("text/html")
            and "Content-Disposition" not in response.headers
        )

    def _status_failure(self, response: Response, path: str) -> Failure:
        code = response.status_code
        if response.is_redirect:
            # Never followed: XNAT redirects to its login page only (xnat-rest.md 1), and nobody else is to
            # see cookie or password.
            return Failure(
                Cause.NOT_DATA, path, f"it redirects to {redirect_target(self.server + path, response)}"
            )
        if code == 200:
            return Failure(Cause.NOT_DATA, path)
        # The login itself is good, or `logins` would have said otherwise.
        cause = {401: Cause.SERVER_ERROR, 403: Cause.NOT_ALLOWED, 404: Cause.NO_ENTRY}.get(
            code, Cause.SERVER_ERROR
        )
        return Failure(cause, path, f"HTTP {code}", code)
