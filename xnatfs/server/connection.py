"""One logged-in connection to one XNAT: login, session cookie, retries, and the check that an answer is what
it claims to be.

While the server is known to be away (`breaker`), every request fails at once.

Used by `listing_requests`, `resources` and `downloads`.
Threading: any thread; requests run side by side on a connection pool. Who logs in when, and how often:
`login`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urljoin

import requests
import urllib3
from requests.cookies import RequestsCookieJar

from xnatfs import retry
from xnatfs._version import __version__
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings, is_loopback, origin, shown_url
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import json_stream
from xnatfs.server.breaker import Breaker
from xnatfs.server.cancel import CancelScope, ended, held
from xnatfs.server.limiter import RequestLimiter
from xnatfs.server.login_state import SESSION, Known, Login, as_stranger, basic, without_password
from xnatfs.server.prober import Prober
from xnatfs.server.pyxnat_interface import make_interface
from xnatfs.server.transport import (
    FewCookies,
    RetryingAdapter,
    never_led_on,
    transport_cause,
    transport_words,
)

log = logging.getLogger(__name__)

# Must not look like a browser: XNAT sends those a login page where a script gets a plain 401 (xnat-rest.md
# 1).
USER_AGENT = f"xnatfs/{__version__}"

_BUILD_INFO = "/xapi/siteConfig/buildInfo"
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
        self.user = ""  # as /data/auth names it, which for an alias token is its owner
        self.version = ""
        self.slots = RequestLimiter(settings.limits.connections)
        self.breaker = Breaker(settings.server)
        self._prober = Prober(self.breaker, self._probe, self._back, self._look_at_clock)
        self._unanswered: set[CancelScope] = set()
        self.requests = 0  # sent so far, for `status`
        self._count_lock = threading.Lock()
        self.logins = Login(self, credentials)
        self._http = self._make_session()
        self._pyxnat: Any = None

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
            known is not None and self._may_move(known.server) and not self._is_readable_by_all(known.server)
        )
        if known is not None and usable and self.logins.as_known(known):
            self._be_at(known)
            return self.user
        self._find_server()
        if self._is_readable_by_all(self.server):
            raise Failure(Cause.PLAIN_HTTP, self.server)
        self.logins.first()
        return self.user

    def _be_at(self, known: Known) -> None:
        self.server, self.user, self.version, _ = known

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
        self._change_to(trial, login)

    def _change_to(self, other: Connection, login: Credentials) -> None:
        self._http.cookies = other.cookies
        self._http.auth = basic(login)
        self._pyxnat = None  # the next one names the new user
        with self._count_lock:
            self.requests += other.requests
        other._prober.close()
        other._http.close()

    def close(self) -> None:
        """End the server-side session, if the server is there; XNAT counts at most 1000 of them a user."""
        self._prober.close()
        with contextlib.suppress(OSError, requests.RequestException):
            if self.logins.count and not self.breaker.quiet(1.0):
                self._send("DELETE", f"{self.server}/data/JSESSION", timeout=5)
        self._http.close()

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
            self._pyxnat = make_interface(self.server, self.logins.credentials, self._http)
        return self._pyxnat

    def _make_session(self) -> requests.Session:
        login = self.logins.credentials
        session = requests.Session()
        session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
        never_led_on(session)
        session.cookies.set_policy(FewCookies(session.cookies))
        session.proxies = {"http": login.proxy, "https": login.proxy} if login.proxy else {}
        if self.settings.verify is not None:
            session.verify = self.settings.verify
        if session.verify is False:
            log.warning(
                "the certificate of %s is not checked (verify is false): anyone on the network path can read "
                "the password",
                self.server,
            )
            urllib3.disable_warnings(
                urllib3.exceptions.InsecureRequestWarning
            )  # it would say so with every request
        elif session.verify is True and not any(
            map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
        ):
            session.verify = (
                os.environ.get("SSL_CERT_FILE") or True
            )  # requests itself knows only the other two
        pool = self.settings.limits.connections
        for scheme in ("http://", "https://"):
            session.mount(scheme, RetryingAdapter(pool_connections=1, pool_maxsize=pool))
        # A netrc entry of the same host must not replace the credentials that were chosen.
        session.auth = basic(login)
        return session

    def _find_server(self) -> None:
        """Ask for the build information, without credentials: is there an XNAT, and is it still at this
        address?
        """
        for _ in range(5):
            response = self._send("GET", self.server + _BUILD_INFO, auth=as_stranger, timeout=self._timeout())
            if not response.is_redirect:
                break
            target = _target(self.server + _BUILD_INFO, response)
            if "Login.vm" in target:
                return
            moved = target.removesuffix(_BUILD_INFO)
            if moved in (target, self.server) or not self._may_move(moved):
                raise Failure(Cause.MOVED, self.server, f"it redirects to {target}")
            log.warning("%s redirects to %s, which is used from now on", self.server, moved)
            self.server = moved
        if response.ok:
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                self.version = str(json.loads(response.content).get("version", ""))[:100]
        # An XNAT before 1.7 has no /xapi; whether this is one shows in the login.

    def _may_move(self, target: str) -> bool:
        """Whether the server named by the user may be found at this address: at another path, or in place of
        http:// at https://, whose certificate says that it is the same host. Credentials never go to another
        host, nor unasked to another port or in the clear.
        """
        asked, there = origin(self.settings.server), origin(target)
        if asked is None or there is None or asked.host != there.host:
            return False
        return asked == there or (asked.scheme, there.scheme) == ("http", "https")

    def _is_readable_by_all(self, server: str) -> bool:
        """Whether what is sent there crosses a network in the clear, and nobody said that it may."""
        there = origin(server)
        if there is None or there.scheme != "http" or self.settings.allow_http:
            return False
        proxies = self._http.merge_environment_settings(server, {}, None, None, None)["proxies"]
        return not is_loopback(there.host) or bool(requests.utils.select_proxy(server, proxies))

    def ask(
        self, url: str, auth: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None
    ) -> requests.Response:
        """GET a URL as it is, whatever the status; for `login`.

        Raises:
            Failure: whatever keeps the server from answering.
        """
        return self._send("GET", url, timeout=self._timeout(), auth=auth)

    # --- requests -------------------------------------------------------------------------------------------

    def listing(self, path: str, params: Mapping[str, str], parse: Callable[[requests.Response], _T]) -> _T:
        """GET a listing and return `parse(response)`.

        `parse` reads the body (with `bodies`) to its end. It raises `ValueError` for one that is not what it
        should be (cut, a web page); it is then asked for again: a chunked reply may end early and cleanly
        (xnat-rest.md 9), so only parsing to the end proves it whole.

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
    ) -> requests.Response:
        """GET `path` (already percent-encoded, below the server's URL) on the session; logs in again once if
        it has expired.

        Raises:
            Failure: any status not in `accept`, and whatever keeps the server from answering.
        """
        url = self.server + path
        for attempt in (1, 2):
            seen = self.logins.ready()
            # The second time the login was taken just now: there the password heals whatever ends the session
            # meanwhile.
            bare, had = attempt == 1 and self.logins.bare, SESSION in self.cookies
            auth = without_password if bare else None
            patience = timeout or self._timeout(stream)
            response = self._send(
                "GET", url, params=params, headers=headers, stream=stream, timeout=patience, auth=auth
            )
            # A new session for a request that brought one: that one is over. Where the password came along,
            # XNAT says that the answer is still this user's (xnat-rest.md 1 [I]); a gateway that forgot the
            # session may have kept the password to itself.
            guest = had and SESSION in response.cookies and (bare or not self.logins.restless)
            self.logins.session_of_answer(new=had and SESSION in response.cookies)
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
        # XNAT's downloads carry a Content-Disposition and its listings are JSON: a bare web page is a login
        # page, whatever its status.
        kind = response.headers.get("Content-Type", "")
        return (
            response.status_code == 200
            and kind.startswith("text/html")
            and "Content-Disposition" not in response.headers
        )

    def _status_failure(self, response: requests.Response, path: str) -> Failure:
        code = response.status_code
        if response.is_redirect:
            # Never followed: XNAT redirects to its login page only (xnat-rest.md 1), and nobody else is to
            # see cookie or password.
            return Failure(Cause.NOT_DATA, path, f"it redirects to {_target(self.server + path, response)}")
        if code == 200:
            return Failure(Cause.NOT_DATA, path)
        cause = {401: Cause.LOGIN_REFUSED, 403: Cause.NOT_ALLOWED, 404: Cause.NO_ENTRY}.get(
            code, Cause.SERVER_ERROR
        )
        return Failure(cause, path, f"HTTP {code}", code)

    def _timeout(self, stream: bool = False) -> tuple[float, float]:
        """(connect, read). A stream is given up at less than half of a reader's patience, so that a second
        try can still reach it.
        """
        patience = self.settings.limits.progress_deadline
        return self.settings.limits.connect_timeout, patience * 0.4 if stream else patience

    def _send(self, method: str, url: str, *, stream: bool = False, **options: Any) -> requests.Response:
        """The answer; its body is read, if it is short, unless `stream` leaves that to the caller."""
        if self.settings.offline:
            raise Failure(Cause.OFFLINE, self.server)
        if ended():
            raise Failure(Cause.INTERRUPTED, self.server, "nothing is waiting for it any more")
        self._look_at_clock()
        self._prober.start()
        self.breaker.check()
        with self._count_lock:
            self.requests += 1
        unanswered = CancelScope()
        with self.breaker.asking() as began, self._while_unanswered(unanswered), held(unanswered):
            try:
                # Named with each request: else REQUESTS_CA_BUNDLE would win over what the user configured.
                response = self._http.request(
                    method, url, allow_redirects=False, verify=self._http.verify, stream=True, **options
                )
                if not stream:
                    with response:
                        response._content = json_stream.first(
                            response
                        )  # where requests itself puts it, which knows no bound
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                failure = Failure(transport_cause(error), self.server)
                if not ended():
                    self.breaker.failed(failure.cause, transport_words(error), began)
                raise failure from error
            except Failure as failure:
                self.breaker.failed(failure.cause, transport_words(failure.__cause__), began)
                raise
            except OSError as error:  # of the file with the certificates, which requests looks for itself
                raise Failure(Cause.BAD_CERTIFICATE, self.server, str(error)) from error
        self.breaker.answered()
        return response

    @contextlib.contextmanager
    def _while_unanswered(self, hold: CancelScope) -> Iterator[None]:
        self._unanswered.add(hold)
        try:
            yield
        finally:
            self._unanswered.discard(hold)

    def _back(self) -> None:
        """The server is there again. What waits since before may wait for a connection that is long dead: it
        is asked anew.
        """
        for one in list(self._unanswered):
            one.end()

    def _probe(self) -> None:
        """Ask for the build information, without credentials or cookies, on a connection of its own; any
        answer will do.

        Raises:
            Failure: there is none.
        """
        with self._count_lock:
            self.requests += 1
        with requests.Session() as session:
            session.headers["User-Agent"] = USER_AGENT
            session.proxies = self._http.proxies
            never_led_on(session)
            try:
                session.get(
                    self.server + _BUILD_INFO,
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
            log.info("the machine was suspended or its clock set; opening new connections")
            for scheme in ("http://", "https://"):
                self._http.get_adapter(scheme).close()


def _target(url: str, response: requests.Response) -> str:
    """Where a redirect leads, fit to be shown and used: without user, query or a session's id."""
    try:
        return shown_url(urljoin(url, response.headers["Location"]))
    except ValueError:
        return "an invalid address"
