"""One logged-in connection to one XNAT: login, session cookie, retries, and the check that an answer is what it claims to be.

While the server is known to be away (`breaker`), every request fails at once.

Used by `listings` and `contents`. It rides on pyxnat's `Interface` (its `requests` session), so that pyxnat's API works on the same login.
Threading: any thread; requests run side by side on a connection pool. Who logs in when, and how often: `login`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from pyxnat import Interface
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3.util.retry import Retry

from xnatfs import __version__
from xnatfs.config import Settings
from xnatfs.credentials import Credentials
from xnatfs.errors import Cause, Failure
from xnatfs.server.breaker import Breaker, Prober
from xnatfs.server.login import SESSION, Known, Login, as_stranger, basic, without_password
from xnatfs.server.slots import Slots

log = logging.getLogger(__name__)

# Must not look like a browser: XNAT sends those a login page where a script gets a plain 401 (fact sheet 1).
USER_AGENT = f"xnatfs/{__version__}"


# 500 too: XNAT answers it for passing troubles (a full database pool, a catalog being written).
class _Patient(Retry):
    """Retries what fails at once. A time-out is no such thing: four of them in a row would outlast every deadline above."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> _Patient:
        """See urllib3."""
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # which urllib3 derives from its time-outs
        if isinstance(error, urllib3.exceptions.TimeoutError) and not refused:
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """What the server asks for, within reason: a proxy may say an hour, for which nobody waits."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_PAUSE)


_LONGEST_PAUSE = 10.0  # seconds

_RETRY = _Patient(
    total=5,
    connect=4,  # after 0, 0.4, 0.8, 1.6 s: a server that is restarted is often there again by then
    read=3,
    status=3,
    redirect=0,
    other=0,  # a certificate does not get better
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "HEAD"),
    backoff_factor=0.2,
    respect_retry_after_header=True,
    raise_on_status=False,
    raise_on_redirect=False,
)

_PIECE = 256 * 1024
_PROBE_TIMEOUT = 5.0  # seconds

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
        self.server = settings.server
        self.version = ""
        self.slots = Slots(settings.limits.connections)
        self.breaker = Breaker(settings.server)
        self._prober = Prober(self.breaker, self._probe, self._look_at_clock)
        self.requests = 0  # sent so far, for `status`
        self._count_lock = threading.Lock()
        self.logins = Login(self, credentials)
        self.interface = self._make_interface()
        self._http: requests.Session = self.interface._http

    # --- login ---------------------------------------------------------------------------------------------------

    def login(self, known: Known | None = None) -> str:
        """Log in and return the user's name on the server.

        Args:
            known: what an earlier login of these credentials found. It spares the look for the server: one request in place of three.

        Raises:
            Failure: UNKNOWN_HOST, UNREACHABLE, BAD_CERTIFICATE, TIMED_OUT, NOT_AN_XNAT, MOVED or LOGIN_REFUSED; OFFLINE
                for an offline mount of a server nobody has logged in to from here.
        """
        if self.settings.offline:
            if known is None:
                raise Failure(Cause.OFFLINE, self.server, "nothing of it is: mount it once while it can be reached")
            self._be_at(known)
            return self.user
        if known is not None and self.logins.as_known(known):
            self._be_at(known)
            return self.user
        self._find_server()
        self.logins.first()
        return self.user

    def _be_at(self, known: Known) -> None:
        self.server, self.logins.user, self.version, _ = known
        self.interface._server = self.server

    @property
    def user(self) -> str:
        """The user's name on the server."""
        return self.logins.user

    @property
    def known(self) -> Known:
        """What this login found, for the next one."""
        return Known(self.server, self.user, self.version, self.logins.closed)

    @property
    def cookies(self) -> RequestsCookieJar:
        """Of the session."""
        return self._http.cookies

    def alike(self, login: Credentials) -> Connection:
        """A connection to the same server with another login, which it has not made yet."""
        return Connection(replace(self.settings, server=self.server), login)

    def change_to(self, other: Connection) -> None:
        """Go on with the login and the session of another connection, which ends."""
        login = other.logins.credentials
        self._http.cookies = other.cookies
        self._http.auth = basic(login)
        self.interface._user, self.interface._pwd = login.user, login.password
        with self._count_lock:
            self.requests += other.requests
        other._prober.close()
        other._http.close()

    def close(self) -> None:
        """End the server-side session, if the server is there; XNAT counts at most 1000 of them a user."""
        self._prober.close()
        with contextlib.suppress(OSError, requests.RequestException):
            if self.logins.count and not self.breaker.quiet(1.0):
                self._http.delete(f"{self.server}/data/JSESSION", timeout=5, allow_redirects=False)
        self._http.close()

    def _make_interface(self) -> Interface:
        # pyxnat sends nothing until its first call. It would then try the password twice (/data, /REST): two steps towards
        # XNAT's lock-out for one wrong password, so the entry point is set and the login is ours.
        login = self.logins.credentials
        interface = Interface(self.server, login.user, login.password, proxy=login.proxy, verify=login.verify)
        interface._entry = "/data"
        session: requests.Session = interface._http
        session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
        if self.settings.verify is not None:
            session.verify = self.settings.verify
        pool = self.settings.limits.connections
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=pool, max_retries=_RETRY))
        # A netrc entry of the same host must not replace the credentials that were chosen.
        session.auth = basic(login)
        return interface

    def _find_server(self) -> None:
        """Ask for the build information, without credentials: is there an XNAT, and is it still at this address?"""
        url = f"{self.server}/xapi/siteConfig/buildInfo"
        for _ in range(5):
            response = self._send("GET", url, auth=as_stranger, timeout=self._timeout())
            if not response.is_redirect:
                break
            # Only the scheme, port or path of the same host may change; credentials never go to another host.
            target = urljoin(url, response.headers["Location"])
            if "Login.vm" in target:
                return
            if urlsplit(target).hostname != urlsplit(url).hostname or not target.endswith("/xapi/siteConfig/buildInfo"):
                raise Failure(Cause.MOVED, self.server, f"it redirects to {target}")
            url = target
        moved = url.removesuffix("/xapi/siteConfig/buildInfo")
        if moved != self.server:
            log.warning("%s redirects to %s, which is used from here on", self.server, moved)
            self.server = moved
            self.interface._server = moved
        if response.ok:
            with contextlib.suppress(ValueError, AttributeError):
                self.version = str(response.json().get("version", ""))
        # An XNAT before 1.7 has no /xapi; whether this is one shows in the login.

    def ask(self, url: str, auth: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None) -> requests.Response:
        """GET a URL as it is, whatever the status; for `login`.

        Raises:
            Failure: whatever keeps the server from answering.
        """
        return self._send("GET", url, timeout=self._timeout(), auth=auth)

    # --- requests ------------------------------------------------------------------------------------------------

    def listing(self, path: str, params: Mapping[str, str], parse: Callable[[requests.Response], _T]) -> _T:
        """GET a listing and return `parse(response)`.

        The body is read whole. `parse` raises `ValueError` for a body that is not what it should be (cut, a web page); it is then
        asked for again: a chunked reply may end early and cleanly (fact sheet 9), so only parsing to the end proves it whole.

        Raises:
            Failure: NO_ENTRY (404), NOT_ALLOWED (403), LOGIN_REFUSED, SERVER_ERROR, BAD_LISTING, UNREACHABLE, TIMED_OUT.
        """
        limits = self.settings.limits
        with self.slots.listing(limits.listing_deadline):
            deadline = time.monotonic() + limits.listing_deadline
            problem = Failure(Cause.BAD_LISTING, path)
            for _ in range(3):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(Cause.TIMED_OUT, path)
                try:
                    response = self.get(path, params=params, stream=True, timeout=(limits.connect_timeout, left))
                    self._read_whole(response, path, deadline)
                    return parse(response)
                except ValueError as error:
                    problem = Failure(Cause.BAD_LISTING, path, str(error)[:200])
                    log.warning("%s, asking again", problem)
                except Failure as failure:
                    if failure.cause not in (Cause.NOT_DATA, Cause.CUT_SHORT):
                        raise
                    problem = failure
                    log.warning("%s, asking again", problem)
            raise problem

    def _read_whole(self, response: requests.Response, path: str, deadline: float) -> None:
        """Read the body by a time: each byte that trickles in starts the time-out of the socket anew, so that alone would never end."""
        pieces: list[bytes] = []
        try:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                pieces.append(piece)
                if time.monotonic() > deadline:
                    raise Failure(Cause.TIMED_OUT, path, "the listing did not come to its end")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            if isinstance(error, Failure):
                raise
            cause = transport_cause(error)
            raise Failure(Cause.CUT_SHORT if cause is Cause.UNREACHABLE else cause, path) from error
        response.raw.release_conn()
        response._content = b"".join(pieces)  # where requests itself puts it

    def get(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: tuple[float, float] | None = None,
        accept: frozenset[int] = frozenset({200}),
    ) -> requests.Response:
        """GET `path` (already percent-encoded, below the server's URL) on the session; logs in again once if it has expired.

        Raises:
            Failure: any status not in `accept`, and whatever keeps the server from answering.
        """
        url = self.server + path
        for attempt in (1, 2):
            seen = self.logins.ready()
            # The second time the login was taken just now: there the password heals whatever ends the session meanwhile.
            bare = attempt == 1 and self.logins.bare
            auth = without_password if bare else None
            patience = timeout or self._timeout(stream)
            response = self._send("GET", url, params=params, headers=headers, stream=stream, timeout=patience, auth=auth)
            # A new session for a request that brought one: that one is over, and the server has been opened to guests.
            guest = bare and SESSION in response.cookies
            if attempt == 1 and (guest or self._looks_expired(response)):
                response.close()
                if bare:
                    self.logins.bare_missed(guest)
                self.logins.again(seen, spent=response.status_code == 401 and not bare)
                continue
            break
        if response.status_code in accept and not self._looks_expired(response):
            self.logins.good(bare)
            return response
        failure = self._status_failure(response, path)
        response.close()
        raise failure

    @staticmethod
    def _looks_expired(response: requests.Response) -> bool:
        if response.status_code == 401 or response.is_redirect:
            return True
        # XNAT's downloads carry a Content-Disposition and its listings are JSON: a bare web page is a login page, whatever its status.
        kind = response.headers.get("Content-Type", "")
        return response.status_code == 200 and kind.startswith("text/html") and "Content-Disposition" not in response.headers

    def _status_failure(self, response: requests.Response, path: str) -> Failure:
        code = response.status_code
        if code == 200 or response.is_redirect:
            return Failure(Cause.NOT_DATA, path)
        cause = {401: Cause.LOGIN_REFUSED, 403: Cause.NOT_ALLOWED, 404: Cause.NO_ENTRY}.get(code, Cause.SERVER_ERROR)
        return Failure(cause, path, f"HTTP {code}", code)

    def _timeout(self, stream: bool = False) -> tuple[float, float]:
        """(connect, read). A stream is given up at less than half of a reader's patience, so that a second try can still reach it."""
        patience = self.settings.limits.progress_deadline
        return self.settings.limits.connect_timeout, patience * 0.4 if stream else patience

    def _send(self, method: str, url: str, **options: Any) -> requests.Response:
        if self.settings.offline:
            raise Failure(Cause.OFFLINE, self.server)
        self._look_at_clock()
        self._prober.start()
        self.breaker.check()
        with self._count_lock:
            self.requests += 1
        with self.breaker.asking() as began:
            try:
                # Named with each request: else REQUESTS_CA_BUNDLE would win over what the user configured.
                response = self._http.request(method, url, allow_redirects=False, verify=self._http.verify, **options)
            except requests.RequestException as error:
                failure = self._failure(error, self.server)
                self.breaker.failed(failure.cause, transport_words(error), began)
                raise failure from error
        self.breaker.answered()
        return response

    def _probe(self) -> None:
        """Ask for the build information, without credentials or cookies, on a connection of its own; any answer will do.

        Raises:
            Failure: there is none.
        """
        with self._count_lock:
            self.requests += 1
        with requests.Session() as session:
            session.headers["User-Agent"] = USER_AGENT
            session.proxies = self._http.proxies
            try:
                session.get(
                    f"{self.server}/xapi/siteConfig/buildInfo",
                    auth=as_stranger,
                    timeout=(min(_PROBE_TIMEOUT, self.settings.limits.connect_timeout), _PROBE_TIMEOUT),
                    verify=self._http.verify,
                    allow_redirects=False,
                    stream=True,
                ).close()
            except requests.RequestException as error:
                raise Failure(transport_cause(error), self.server, transport_words(error)) from error

    def _look_at_clock(self) -> None:
        if self.breaker.leapt():
            # The other side has long given up the connections from before, and may never say so.
            log.info("the machine was suspended or its clock set; connections are made anew")
            for scheme in ("http://", "https://"):
                self._http.get_adapter(scheme).close()

    def _failure(self, error: Exception, subject: str) -> Failure:
        return Failure(transport_cause(error), subject)


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all those in it: `requests` and urllib3 wrap each other several times."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def transport_cause(error: BaseException | None) -> Cause:
    """The cause behind a `requests` or urllib3 exception."""
    found = Cause.UNREACHABLE
    for one in _behind(error):
        if isinstance(one, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
            return Cause.BAD_CERTIFICATE
        if isinstance(one, urllib3.exceptions.NameResolutionError):
            return Cause.UNKNOWN_HOST
        refused = isinstance(one, urllib3.exceptions.NewConnectionError)  # which urllib3 derives from its time-outs
        if isinstance(one, (requests.Timeout, urllib3.exceptions.TimeoutError)) and not refused:
            found = Cause.TIMED_OUT
        elif isinstance(one, (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.ProtocolError)) and found is Cause.UNREACHABLE:
            found = Cause.CUT_SHORT
    return found


_WORDS = {
    Cause.UNKNOWN_HOST: "no such host",
    Cause.BAD_CERTIFICATE: "certificate not trusted",
    Cause.TIMED_OUT: "silence",
    Cause.CUT_SHORT: "connection closed without an answer",
}


def transport_words(error: BaseException | None) -> str:
    """The same in a few words; the system's own ("Connection refused", "No route to host") where it has some."""
    cause = transport_cause(error)
    if cause in _WORDS:
        return _WORDS[cause]
    told = (one.strerror for one in _behind(error) if isinstance(one, OSError) and one.errno and isinstance(one.strerror, str))
    return next(told, "cannot be reached").lower()
