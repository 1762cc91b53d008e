"""Who is asking: sessions, Basic authentication, lock-outs, alias tokens (xnat-rest.md 1).

Used by `app` for every request and by `accounts` for the login routes. Lives on the event loop.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field

from .faults import Switches
from .model import Archive, User

GUEST = User("guest", "")
COOKIE = "JSESSIONID"
_INTERACTIVE = re.compile(r".*MSIE.*|.*Mozilla.*|.*AppleWebKit.*|.*Opera.*")


def is_interactive(agent: str) -> bool:
    """Whether XNAT takes this User-Agent for a browser (and so redirects it to a login page)."""
    return "XNATDesktopClient" not in agent and _INTERACTIVE.fullmatch(agent) is not None


@dataclass
class Session:
    """A servlet session; `user` is GUEST for one nobody logged in to."""

    id: str
    user: User
    last_used: float
    requests: int = 1  # with the one that made it
    csrf: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Token:
    """An alias token: usable as Basic user and password until it expires."""

    alias: str
    secret: str
    user: User
    created: float
    expires: float
    number: int


class Unauthorized(Exception):
    """No valid login: `app` answers 401 or the way to the login page. `sent_wrong` tells bad credentials from
    none; `message` is what the page says.
    """

    def __init__(self, sent_wrong: bool, message: str = "Invalid username or password.") -> None:
        super().__init__()
        self.sent_wrong = sent_wrong
        self.message = message


class Sessions:
    """All sessions, tokens and failed logins of one server."""

    def __init__(self, archive: Archive, switches: Switches) -> None:
        self._archive = archive
        self._switches = switches
        self._sessions: dict[str, Session] = {}
        self._tokens: dict[str, Token] = {}
        self._numbers = itertools.count(1)
        self._failures: dict[str, tuple[int, float]] = {}

    def identify(self, cookie: str, authorization: str) -> tuple[Session | None, bool]:
        """The session of a request and whether it is new. None: anonymous without a session.

        Raises Unauthorized for wrong credentials only; that anonymous requests may be refused is the caller's
        business.
        """
        session = self._alive(cookie)
        credentials = _basic(authorization)
        if credentials is None:
            return session, False
        login, password = credentials
        # Same user, or the owner of the alias: not checked again (cookie + Basic heals itself after expiry,
        # xnat-rest.md 1 [I]).
        if session is not None and session.user is not GUEST and session.user.login == self._owner(login):
            return session, False
        return self.new_session(self.check(login, password)), True

    def user_of(self, authorization: str) -> User:
        """Who sends these Basic credentials, without making a session; raises Unauthorized for wrong ones and
        for none.
        """
        credentials = _basic(authorization)
        if credentials is None:
            raise Unauthorized(False)
        return self.check(*credentials)

    def check(self, login: str, password: str) -> User:
        """The user of these credentials, or Unauthorized; counts failures and locks."""
        token = self._tokens.get(login)
        if token is not None:
            if token.secret == password and token.expires > time.time():
                return token.user
            raise Unauthorized(True)
        count, last = self._failures.get(login, (0, 0.0))
        if count and time.monotonic() - last > self._switches.lockout_s:
            count = 0
        locked = 0 < self._switches.max_failed_logins <= count
        user = self._archive.users.get(login)
        if user is None or user.password != password or locked:
            self._failures[login] = (count + 1, time.monotonic())
            raise Unauthorized(True)
        self._failures.pop(login, None)
        return user

    def new_session(self, user: User) -> Session:
        """A fresh session; the one over the cap is refused (xnat-rest.md 1: maxSessionsPreventsLogin)."""
        if user is not GUEST and len(self.of_user(user.login)) >= self._switches.max_sessions:
            # Spring Security's words.
            most = self._switches.max_sessions
            raise Unauthorized(True, f"Maximum sessions of {most} for this principal exceeded")
        session = Session(secrets.token_hex(16).upper(), user, time.monotonic())
        self._sessions[session.id] = session
        return session

    def end(self, session: Session | None) -> None:
        """Invalidate."""
        if session is not None:
            self._sessions.pop(session.id, None)

    def expire(self, cookie: str) -> bool:
        """Invalidate the session of a cookie; False if there is none."""
        return self._sessions.pop(cookie, None) is not None

    def end_all(self, login: str = "") -> int:
        """Kill all sessions (of one user): an administrator's or a test's doing."""
        doomed = self.of_user(login) if login else list(self._sessions.values())
        for session in doomed:
            self.end(session)
        return len(doomed)

    def of_user(self, login: str) -> list[Session]:
        """The living sessions of a user."""
        now = time.monotonic()
        living = [session for session in self._sessions.values() if not self._expired(session, now)]
        if len(living) < len(self._sessions):
            self._sessions = {session.id: session for session in living}
        return [session for session in living if session.user.login == login]

    def issue(self, user: User) -> Token:
        """A new alias token."""
        now = time.time()
        token = Token(
            str(uuid.uuid4()),
            secrets.token_urlsafe(48)[:64],
            user,
            now,
            now + self._switches.token_lifetime_s,
            next(self._numbers),
        )
        self._tokens[token.alias] = token
        return token

    def token(self, alias: str) -> Token | None:
        """A token that has not expired."""
        token = self._tokens.get(alias)
        return token if token is not None and token.expires > time.time() else None

    def any_token(self, alias: str) -> Token | None:
        """A token, expired or not: XNAT clears expired ones away later."""
        return self._tokens.get(alias)

    def tokens_of(self, login: str) -> list[Token]:
        """The tokens of a user."""
        return [token for token in self._tokens.values() if token.user.login == login]

    def forget_token(self, alias: str) -> None:
        self._tokens.pop(alias, None)

    def _alive(self, cookie: str) -> Session | None:
        session = self._sessions.get(cookie)
        if session is None:
            return None
        now = time.monotonic()
        if self._expired(session, now):
            self.end(session)
            return None
        session.last_used = now
        session.requests += 1
        return session

    def _expired(self, session: Session, now: float) -> bool:
        limit = self._switches.expire_after_requests
        return now - session.last_used > self._switches.session_timeout_s or 0 < limit <= session.requests

    def _owner(self, login: str) -> str:
        token = self._tokens.get(login)
        return token.user.login if token is not None else login


def sent_login(authorization: str) -> str:
    """The user name of a Basic header, whether or not it is right; "" without one."""
    try:
        credentials = _basic(authorization)
    except Unauthorized:
        return "?"
    return credentials[0] if credentials else ""


def _basic(authorization: str) -> tuple[str, str] | None:
    """User and password of a Basic header; the user may carry a provider prefix, `provider/user`."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        login, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthorized(True) from None
    return login.rsplit("/", 1)[-1], password
