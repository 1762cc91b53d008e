"""Whose login a connection uses, when it is sent, and how often at most.

Used by `connection`. XNAT locks an account after 20 refused logins, some sites after 3 (tools.md 2), and
every request may carry the password. So a login is single flight: whoever finds the session expired logs in,
the others wait for that one. What the server refused is sent again by nobody until there are other
credentials. Credentials may also be a session that somebody else logged in for: it is not ours to end, and
there is no second one when it ends.
Threading: any thread. The login lock is held while a login is on its way; that is what it is for.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import requests

from xnatfs import retry
from xnatfs.auth.credentials import STORED, Credentials
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server.http_transport import HttpTransport
from xnatfs.server.request_auth import as_stranger, auth_of, without_password
from xnatfs.server.session_cookie import SessionCookie
from xnatfs.server.transport import SESSION

log = logging.getLogger(__name__)

_LOGGED_IN = re.compile(r"User '(?P<name>.*)' is logged in")
_NAME = 4096  # characters in which that is looked for
_TOO_MANY = re.compile(r"[Mm]aximum sessions")  # Spring Security's words, in the 401
# A refusal of what worked a moment ago may be one session too many (XNAT says 401 to both, xnat-rest.md 1):
# one more try, after a pause.
_MOMENT = 60.0
_CALM = 2.0
_REFUSALS = (401, 403)


class Known(NamedTuple):
    """What a login found: the server's address (it may redirect), the user's name on it, its version, whether
    it refuses strangers.
    """

    server: str
    user: str
    version: str
    closed: bool = False


class Login:
    """The login of one connection.

    Args:
        change: log in with other credentials of the same user, and go on with that session. Raises as `take`.

    Attributes:
        user: as the server names it, which for an alias token is its owner; "" before the first login.
        count: logins so far.
        session: what the logins are for.
        refused: the server refused these credentials; nothing is sent any more.
        elsewhere: asked once when a login is refused in the middle: are there other credentials now where
            these were found?
    """

    def __init__(
        self, transport: HttpTransport, credentials: Credentials, change: Callable[[Credentials], None]
    ) -> None:
        self.credentials = credentials
        self.user = ""
        self.count = 0
        self.refused = False
        self.elsewhere: Callable[[], Credentials | None] = lambda: None
        self.session = SessionCookie(transport)
        self._transport = transport
        self._change = change
        self._lock = threading.Lock()
        self._busy = False
        self._turned_down: set[int] = set()  # hashes of what was refused
        # Why no login is sent now, though the credentials may be good, and until when.
        self._held_back: tuple[Failure, float] | None = None

    # --- before a request -----------------------------------------------------------------------------------

    def ready(self) -> int:
        """Wait for a login that is under way; the number of logins so far.

        Raises:
            Failure: LOGIN_REFUSED: each request could carry the password, so each one would be another step
                towards a lock-out.
        """
        if self._busy:
            with self._lock:
                pass
        if self.refused:
            raise self._refusal()
        if not self.count:
            self._check_held_back()
        if not self.session.refuses_strangers and self.count and self.session.is_over:
            # The session is over, and the server would make one for each of the requests that are about to
            # come, or refuse each.
            self.again(self.count, spent=False)
        return self.count

    def _afresh(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """A login: the password, and not the cookie of the session that is over. `requests` calls this
        last.
        """
        request.headers.pop("Cookie", None)
        return auth_of(self.credentials)(request)

    # --- logging in -----------------------------------------------------------------------------------------

    def as_known(self, known: Known) -> bool:
        """Ask who we are at the address of last time; the answer brings the session's cookie (xnat-rest.md
        1). False: ask all again.

        Raises:
            Failure: LOGIN_REFUSED, or what keeps the server from answering.
        """
        if self.credentials.session:
            self.session.put(self.credentials.session, known.server)
        response = self._transport.ask(f"{known.server}/data/auth")
        match = _LOGGED_IN.search(response.text[:_NAME]) if response.status_code == 200 else None
        if match is None or match["name"] != known.user or not self.session.is_held:
            if response.status_code in _REFUSALS:
                raise self._refused_by(response)
            self._transport.cookies.clear()
            return False
        self.user, self.session.refuses_strangers = known.user, known.closed
        self.count += 1
        self.session.good()
        return True

    def first(self) -> None:
        """The first login at a server that was found.

        Raises:
            Failure: LOGIN_REFUSED, NOT_AN_XNAT, SERVER_ERROR, or what keeps the server from answering.
        """
        with self._lock:
            self._log_in()

    def again(self, seen: int, spent: bool, *, replaced: bool = False) -> bool:
        """Log in after an answer that shows an expired session, unless another thread has done so. False: the
        session is as good as ever, and the answer has another reason.

        Args:
            seen: the number of logins when that request was sent.
            spent: it carried the password, and the answer was 401.
            replaced: the session may be good still; it is ended when another one takes its place.

        Raises:
            Failure: as `first`; NOT_DATA in place of NOT_AN_XNAT.
        """
        with self._lock:
            if self.count != seen:
                return True
            if self.session.is_doubted and self._is_logged_in():
                return False
            log.info("the session at %s has expired; logging in again", self._transport.server)
            self._busy = True
            try:
                before = self.session.id
                self._patiently(spent)
                if replaced and not self.credentials.session and before not in ("", self.session.id):
                    self._end(before)
            except Failure as refusal:
                if refusal.cause is not Cause.LOGIN_REFUSED or not self._found_others():
                    raise
            finally:
                self._busy = False
        return True

    def _is_logged_in(self) -> bool:
        """Whether the server names our user for the cookie alone."""
        if not self.session.is_confirmed:
            who = self._transport.ask(f"{self._transport.server}/data/auth", auth=without_password)
            match = _LOGGED_IN.search(who.text[:_NAME]) if who.ok else None
            if match is None or match["name"] != self.user:
                return False
            self.session.confirmed()
        return True

    def _check_held_back(self) -> None:
        if self._held_back is not None and time.monotonic() < self._held_back[1]:
            failure = self._held_back[0]
            raise Failure(failure.cause, failure.subject, failure.detail, failure.status) from failure

    def _hold_back(self, cause: Cause, detail: str, status: int) -> Failure:
        """A login that says nothing about the credentials: it is not sent again for a while."""
        failure = Failure(cause, self._transport.server, detail, status)
        self._held_back = failure, time.monotonic() + _MOMENT
        return failure

    def _patiently(self, spent: bool) -> None:
        with retry.Attempts(retry.LOGIN) as attempts:
            while True:
                try:
                    self._log_in(spent)
                    return
                except Failure as failure:
                    if failure.cause is not Cause.NOT_AN_XNAT:
                        raise
                    if not attempts.again(failure):
                        raise Failure(
                            Cause.NOT_DATA, self._transport.server, failure.detail or "at login"
                        ) from None

    def _log_in(self, spent: bool = False) -> None:
        """One request with the password, one that asks who we are. Called with the lock held."""
        if self.refused:
            raise self._refusal()
        self._check_held_back()
        server = self._transport.server
        lately = self.session.was_good_within(_MOMENT)
        for pause in ([_CALM] if spent else [0, _CALM]) if lately else [0]:
            time.sleep(pause)
            if self.credentials.session:
                self.session.put(self.credentials.session, server)
                response = self._transport.ask(f"{server}/data/auth")
            else:
                response = self._transport.ask(f"{server}/data/JSESSION", auth=self._afresh)
            if response.status_code not in _REFUSALS:
                break
        else:
            raise self._refused_by(response)
        who = response if self.credentials.session else self._transport.ask(f"{server}/data/auth")
        match = _LOGGED_IN.search(who.text[:_NAME]) if who.ok else None
        if self.credentials.session and response.is_redirect:
            raise self._refuse()
        if not response.ok or match is None:
            if response.status_code >= 500:
                raise Failure(Cause.SERVER_ERROR, server, f"HTTP {response.status_code} at login")
            if response.is_redirect and ".vm" in response.headers["Location"]:
                # Not remembered as refused: XNAT took the password, or a proxy redirects for a moment only.
                detail = (
                    "the server redirects this login to a web page: log in with a browser to see why (an "
                    "expired password?)"
                )
                raise Failure(Cause.NOT_AN_XNAT if self.count else Cause.LOGIN_REFUSED, server, detail)
            raise Failure(Cause.NOT_AN_XNAT, server)
        name = match["name"]
        if name == "guest" and self.credentials.user != "guest":
            raise self._refuse("" if self.credentials.session else "the server treats the login as a guest")
        if self.credentials.session and self.credentials.user not in ("", name):
            raise self._refuse(f"the session in {self.credentials.source} belongs to {name}")
        if self.user and name != self.user:
            raise self._refuse(f"the server now says that it belongs to {name}")
        self.user = name
        self.count += 1
        self.session.good()
        self._held_back = None

    def _end(self, session: str) -> None:
        """End a session that another one takes the place of: it may be good still, and XNAT counts them."""

        def with_it(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Cookie"] = f"{SESSION}={session}"
            return without_password(request)

        try:
            self._transport.send("DELETE", f"{self._transport.server}/data/JSESSION", auth=with_it, timeout=5)
        except Failure as failure:
            log.info("a session that is replaced could not be ended: %s", failure)

    def _refused_by(self, response: requests.Response) -> Failure:
        if _TOO_MANY.search(response.text[:_NAME]):
            return self._hold_back(
                Cause.TOO_MANY_SESSIONS, "XNAT ends unused ones, by default after 15 minutes", 401
            )
        if response.status_code == 403:
            # XNAT says 401 to a wrong password (xnat-rest.md 1).
            return self._hold_back(
                Cause.LOGIN_BLOCKED, "HTTP 403, as a gateway answers; it was not the password", 403
            )
        return self._refuse()

    def _refuse(self, detail: str = "") -> Failure:
        self.refused = True
        self._turned_down.add(_mark(self.credentials))
        return self._refusal(detail)

    def _refusal(self, detail: str = "") -> Failure:
        login = self.credentials
        if not detail and login.source == STORED:
            over = login.expires is not None and login.expires < time.time()
            detail = (
                f"the token of {login.source} {'has expired' if over else 'is no longer valid'}; run it again"
            )
        if not detail and login.session:
            name = login.source.rpartition(" ")[2]
            detail = f"the session in {name} has ended; run `xnatfs login`, which stores a login that lasts"
        return Failure(
            Cause.LOGIN_REFUSED,
            self.user or login.owner or login.user or self._transport.server,
            detail or f"found in {login.source}",
        )

    # --- other credentials ----------------------------------------------------------------------------------

    def take(self, login: Credentials) -> None:
        """Use other credentials of the same user from here on. Costs one login; what is under way goes on.

        Raises:
            Failure: LOGIN_REFUSED, and what keeps the server from answering. The credentials in use stay.
            UsageError: they are another user's; what this one may read is kept in the cache.
        """
        with self._lock:
            self._take(login)

    def _take(self, login: Credentials) -> None:
        mark = _mark(login)
        whose = login.owner or login.user
        if mark in self._turned_down:
            raise Failure(
                Cause.LOGIN_REFUSED,
                whose,
                f"the login from {login.source} was refused before and is not sent again",
            )
        try:
            self._change(login)
        except Failure as failure:
            if failure.cause is Cause.LOGIN_REFUSED:
                self._turned_down.add(mark)
            raise
        self.credentials = login
        self.refused = False
        self.count += 1
        self.session.good()

    def turned_down(self, login: Credentials) -> bool:
        """Whether the server has refused these before."""
        return _mark(login) in self._turned_down

    def _found_others(self) -> bool:
        """Whether other credentials are found now, and the server takes them: another mount renewed the
        token, somebody logged in anew.
        """
        try:
            login = self.elsewhere()
            if login is None or _mark(login) == _mark(self.credentials):
                return False
            self._take(login)
        except (Failure, UsageError) as problem:
            log.warning("%s", problem)
            return False
        log.info("found a new login for %s in %s", self._transport.server, login.source)
        return True

    def learn(self) -> None:
        """Ask the server once, as a stranger, whether it refuses strangers.

        Raises:
            Failure: what keeps the server from answering.
        """
        answer = self._transport.ask(f"{self._transport.server}/data/auth", auth=as_stranger)
        self.session.refuses_strangers = answer.status_code == 401


def _mark(login: Credentials) -> int:
    return hash((login.user, login.password, login.session))
