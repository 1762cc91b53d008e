"""Sends requests to one server: cookies, retries, time-outs, cancelling.

While the server is known to be away (`breaker`), every request fails at once; the prober sees when it is
back.

Used by `login_state`, `server_address` and `connection`, which know what an answer means.
Threading: any thread; requests run side by side on a connection pool. No lock is held over a request.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
import urllib3
from requests.cookies import RequestsCookieJar

from xnatfs._version import __version__
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.errors import Cause, Failure
from xnatfs.server import json_stream
from xnatfs.server.breaker import Breaker
from xnatfs.server.cancel import CancelScope, ended, held
from xnatfs.server.pacer import Pacer
from xnatfs.server.prober import Prober
from xnatfs.server.request_auth import as_stranger, auth_of
from xnatfs.server.transport import (
    SESSION,
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

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
BUILD_INFO = "/xapi/siteConfig/buildInfo"
_PROBE_TIMEOUT = 5.0  # seconds


class HttpTransport:
    """The way to one server.

    Args:
        settings: where the server is, and the limits.
        credentials: what its requests carry until `adopt`.

    Attributes:
        server: its address; `server_address` finds where it moved.
        session: of `requests`.
        requests: sent so far, for `status`.
        pacer: how many a second.
    """

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self.settings = settings
        self.server = settings.server
        self.breaker = Breaker(settings.server)
        self.pacer = Pacer(settings.limits.requests_per_second)
        self.session = _make_session(settings, credentials, self.pacer)
        self.requests = 0
        self._count_lock = threading.Lock()
        self._prober = Prober(self.breaker, self._probe, self.retry_unanswered, self._renew_after_leap)
        self._unanswered: set[CancelScope] = set()

    @property
    def cookies(self) -> RequestsCookieJar:
        """Of the session."""
        return self.session.cookies

    def timeout(self, stream: bool = False) -> tuple[float, float]:
        """(connect, read). A stream is given up at less than half of a reader's patience, so that a second
        try can still reach it.
        """
        patience = self.settings.limits.progress_deadline
        return self.settings.limits.connect_timeout, patience * 0.4 if stream else patience

    def ask(
        self, url: str, auth: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None
    ) -> requests.Response:
        """GET a URL as it is, whatever the status.

        Raises:
            Failure: whatever keeps the server from answering.
        """
        return self.send("GET", url, timeout=self.timeout(), auth=auth)

    def adopt(self, other: HttpTransport, login: Credentials) -> None:
        """Go on with the session of another one, which ends, and its login. What is under way goes on."""
        self.session.cookies = other.cookies
        self.session.auth = auth_of(login)
        with self._count_lock:
            self.requests += other.requests
        other.close()

    def stop_probing(self) -> None:
        """No more probes."""
        self._prober.close()

    def close(self) -> None:
        """Send nothing more."""
        self.stop_probing()
        self.session.close()

    def send(self, method: str, url: str, *, stream: bool = False, **options: Any) -> requests.Response:
        """The answer; its body is read, if it is short, unless `stream` leaves that to the caller."""
        if self.settings.offline:
            raise Failure(Cause.OFFLINE, self.server)
        if ended():
            raise Failure(Cause.INTERRUPTED, self.server, "nothing is waiting for it any more")
        self._renew_after_leap()
        self._prober.start()
        self.breaker.check()
        with self._count_lock:
            self.requests += 1
        unanswered = CancelScope()
        with self.breaker.asking() as began, self._while_unanswered(unanswered), held(unanswered):
            try:
                response = self.session.request(method, url, allow_redirects=False, stream=True, **options)
                if not stream:
                    with response:
                        response._content = json_stream.first(
                            response
                        )  # where requests itself puts it, which knows no bound
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                failure = Failure(transport_cause(error), self.server)
                if failure.cause is Cause.NO_RESOURCES:
                    log.warning("%s (%s)", failure, transport_words(error))
                elif not ended():
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

    def retry_unanswered(self) -> None:
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
            session.trust_env = False
            session.proxies = self.session.proxies
            never_led_on(session)
            try:
                session.get(
                    self.server + BUILD_INFO,
                    auth=as_stranger,
                    timeout=(min(_PROBE_TIMEOUT, self.settings.limits.connect_timeout), _PROBE_TIMEOUT),
                    verify=self.session.verify,
                    allow_redirects=False,
                    stream=True,
                ).close()
            except requests.RequestException as error:
                raise Failure(transport_cause(error), self.server, transport_words(error)) from error

    def _renew_after_leap(self) -> None:
        if self.breaker.leapt():
            # The other side has long given up the connections from before, and may never say so.
            log.info("the machine was suspended or its clock set; opening new connections")
            for scheme in ("http://", "https://"):
                self.session.get_adapter(scheme).close()


def _make_session(settings: Settings, login: Credentials, pacer: Pacer) -> requests.Session:
    session = requests.Session()
    # The environment is looked up here, once: requests would read all of it twice for every request, which
    # took 0.24 of the 3 ms of a small one. And a netrc entry of the same host must not replace the login that
    # was chosen.
    session.trust_env = False
    session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
    never_led_on(session)
    session.cookies.set_policy(FewCookies(session.cookies, but=(SESSION,) if login.session else ()))
    session.proxies = {"http": login.proxy, "https": login.proxy} if login.proxy else {}
    session.proxies |= requests.utils.get_environ_proxies(settings.server)
    if settings.verify is not None:
        session.verify = settings.verify
    if session.verify is False:
        log.warning(
            "the certificate of %s is not checked (verify is false): anyone on the network path can read "
            "the password",
            settings.server,
        )
        urllib3.disable_warnings(
            urllib3.exceptions.InsecureRequestWarning
        )  # it would say so with every request
    elif session.verify is True:  # requests itself knows the first two
        session.verify = next(filter(None, map(os.environ.get, _CERTIFICATES)), True)
    pool = settings.limits.connections
    for scheme in ("http://", "https://"):
        session.mount(scheme, RetryingAdapter(pacer, pool_connections=1, pool_maxsize=pool))
    session.auth = auth_of(login)
    return session
