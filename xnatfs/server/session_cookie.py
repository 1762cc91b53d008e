"""What is known of the session on the server: whether it is over, and whether its cookie is enough.

Once the server is known to refuse strangers, requests carry the cookie alone, so that a session that ends
with 16 requests on their way costs one login and not 16. An open server would serve an expired session as a
guest, in silence: there each request carries the password too.

Used by `login_state` and `connection`.
Threading: any thread; no lock. What two answers say at the same time may be counted as one.
"""

from __future__ import annotations

import contextlib
import re
import time
from urllib.parse import urlsplit

from requests.cookies import CookieConflictError

from xnatfs.server.http_transport import HttpTransport
from xnatfs.server.transport import SESSION

_TIMES = "SESSION_EXPIRATION_TIME"  # milliseconds: now, and how long a session lasts without a request
_IDLE_S = (
    900.0  # XNAT's default; SESSION_EXPIRATION_TIME, which comes with every answer, says what it is here
)
# in a row: the cookie is worth nothing here (marked Secure on plain http; a balancer that forgets where it
# sent us)
_MISSES = 8
_IN_VAIN_S = 60.0  # after a login that changed nothing, only a session that is over is renewed
_CONFIRMED_S = 2.0  # for this long a session that the server confirmed is not asked about again


class SessionCookie:
    """The cookie of the session in use.

    Attributes:
        refuses_strangers: the server is known to refuse whoever is not logged in.
    """

    def __init__(self, transport: HttpTransport) -> None:
        self.refuses_strangers = False
        self._transport = transport
        self._good_at: float | None = None  # when the server last took the session or the login
        self._idle = _IDLE_S  # seconds a session lasts without a request
        self._misses = 0  # in a row: requests with the cookie alone
        self._renewals = 0  # in a row: answers that began a new session
        self._in_vain_at: float | None = None  # when a login last changed nothing
        self._confirmed_at: float | None = None  # when the server last named the user

    @property
    def is_held(self) -> bool:
        """Whether there is one."""
        return SESSION in self._transport.cookies

    @property
    def id(self) -> str:
        """The session's id; "" without one."""
        with contextlib.suppress(CookieConflictError):
            return self._transport.cookies.get(SESSION) or ""
        return ""

    def put(self, session: str, server: str) -> None:
        """Use a session that somebody else logged in for. Its cookie is for this server alone."""
        parts = urlsplit(server)
        host = re.sub(r":\d+$", "", parts.netloc).lower()
        self._transport.cookies.set(
            SESSION,
            session,
            domain=host if "." in host else f"{host}.local",  # as `http.cookiejar` has them
            path=parts.path or "/",
            secure=parts.scheme == "https",
        )

    @property
    def suffices(self) -> bool:
        """Whether a request needs the cookie only."""
        return self.refuses_strangers and self.is_held

    @property
    def is_over(self) -> bool:
        """Whether nothing was asked for so long that the server has ended the session."""
        return self._good_at is not None and _now() - self._good_at > self._idle

    def was_good_within(self, seconds: float) -> bool:
        """Whether the server took the session or the login in the last seconds."""
        return self._good_at is not None and _now() - self._good_at < seconds

    def good(self, *, alone: bool = False) -> None:
        """The server took the session or the password; `alone`: the cookie without a password."""
        self._good_at = _now()
        if alone:
            self._misses = 0
        with contextlib.suppress(KeyError, IndexError, ValueError, CookieConflictError):
            self._idle = float(self._transport.cookies[_TIMES].strip('"').split(",")[1]) / 1000

    def missed(self, *, guest: bool) -> None:
        """The cookie alone did not do: the session is over. `guest`: the server made a new one for nobody, so
        it is open.
        """
        self._misses += 1
        if guest or self._misses > _MISSES:
            self.refuses_strangers = False

    def note_answer(self, *, new: bool) -> None:
        """Whether an answer began a new session although the request brought one."""
        self._renewals = self._renewals + 1 if new else 0

    def renewed_in_vain(self) -> None:
        """An answer looked like the end of the session, and was the same after a new login: a gateway's page,
        or a listing that cannot be had.
        """
        self._in_vain_at = _now()

    @property
    def is_doubted(self) -> bool:
        """Whether an answer that looks like its end says little, since a login changed nothing lately: then
        the server is asked whether it is over.
        """
        return self._in_vain_at is not None and _now() - self._in_vain_at < _IN_VAIN_S

    def confirmed(self) -> None:
        """The server named the user for this cookie."""
        self._confirmed_at = _now()

    @property
    def is_confirmed(self) -> bool:
        """Whether the server did so a moment ago."""
        return self._confirmed_at is not None and _now() - self._confirmed_at < _CONFIRMED_S

    @property
    def is_restless(self) -> bool:
        """Whether the server begins a new session with every answer: that says nothing then."""
        return self._renewals > _MISSES


def _now() -> float:
    """Seconds, counted while the machine sleeps too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
