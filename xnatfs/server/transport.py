"""What lies below a request: sending it again, what its exceptions mean, which cookies are kept, and that
redirects lead nowhere.

Used by `http_transport`, `connection`, `json_stream` and `downloads`. Any thread.
"""

from __future__ import annotations

import errno
import http.cookiejar
import ssl
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3

from xnatfs import retry
from xnatfs.config import shown_url
from xnatfs.errors import Cause
from xnatfs.server.cancel import CancellableAdapter, ended
from xnatfs.server.pacer import Pacer

SESSION = "JSESSIONID"


class RetryingAdapter(CancellableAdapter):
    """Sends a request again, as it is, if it fails before an answer or gets a status that passes, as often as
    the budget of the operation allows (`xnatfs.retry`).

    Below `requests`' session: the cookies of an answer that is not passed on change nothing.

    Args:
        pacer: says when a request may be sent; what a server asks for holds for all threads.
    """

    def __init__(self, pacer: Pacer, **options: Any) -> None:
        super().__init__(**options)
        self._pacer = pacer

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """See requests."""
        attempts = retry.current() or retry.Attempts(retry.REQUEST)
        repeatable = request.method in ("GET", "HEAD")
        while True:
            self._pacer.wait(ended)
            try:
                response = super().send(request, *arguments, **options)
            except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
                cause = _cause_before_an_answer(error)
                if not repeatable or ended() or cause is None or not attempts.may_resend(cause):
                    raise
                stated = 0.0
            else:
                stated = _retry_after(response) if response.status_code in (429, 503) else 0.0
                if stated:
                    self._pacer.hold(stated)
                if not repeatable or response.status_code not in retry.STATUSES or ended():
                    return response
                if not attempts.may_resend():
                    return response
                cause, stated = None, stated or _retry_after(response)
                response.close()
            attempts.pause(stated, first_at_once=cause is not None)


def _cause_before_an_answer(error: BaseException) -> Cause | None:
    """Why a request never got as far as an answer; None for what sending it again does not change (a
    certificate, what a proxy refuses, a time-out).
    """
    cause = transport_cause(error)
    refused = any(isinstance(one, urllib3.exceptions.NewConnectionError) for one in _behind(error))
    return cause if refused or cause is Cause.CUT_SHORT else None


def _retry_after(response: requests.Response) -> float:
    """Seconds that the server asks to wait; 0 if it does not."""
    value = response.headers.get("Retry-After")
    if value is None:
        return 0.0
    try:
        return urllib3.util.Retry().parse_retry_after(value)
    except urllib3.exceptions.InvalidHeader:
        return 0.0


class FewCookies(http.cookiejar.DefaultCookiePolicy):
    """Takes as many cookies as an XNAT and the proxies before it set, and no more: they are kept, and sent
    with every request, which a Tomcat refuses with more than 8 KiB of headers.
    """

    _MOST = 4096  # characters of all of them

    def __init__(self, jar: http.cookiejar.CookieJar, but: Collection[str] = ()) -> None:
        super().__init__()
        self._jar = jar
        self._but = but  # cookies that are not the server's to set

    def set_ok(self, cookie: http.cookiejar.Cookie, request: Any) -> bool:
        """See `http.cookiejar`."""
        if cookie.name in self._but:
            return False
        held = sum(map(_length, self._jar))
        return held + _length(cookie) <= self._MOST and super().set_ok(cookie, request)


def _length(cookie: http.cookiejar.Cookie) -> int:
    return len(cookie.name) + len(cookie.value or "") + len(cookie.path)


def never_led_on(session: requests.Session) -> None:
    """Even where a redirect is not followed, requests reads the whole body of one, and parses where it
    leads.
    """
    session.get_redirect_target = _nowhere  # type: ignore[method-assign,assignment]  # the way to say so


def _nowhere(_: requests.Response) -> None:
    return None


def redirect_target(url: str, response: requests.Response) -> str:
    """Where a redirect leads, fit to be shown and used: without user, query or a session's id."""
    try:
        return shown_url(urljoin(url, response.headers["Location"]))
    except ValueError:
        return "an invalid address"


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


_HUNG_UP = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ConnectionError,
)  # in the middle of a handshake: says nothing of the certificate


# What OpenSSL says to an answer that is no TLS at all, as of an http server (versions 1.1 and 3).
_NO_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "UNKNOWN_PROTOCOL",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
    }
)
# This process's own limits say nothing of the server.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


def transport_cause(error: BaseException | None) -> Cause:
    """The cause behind a `requests` or urllib3 exception."""
    found = Cause.UNREACHABLE
    if any(isinstance(one, OSError) and one.errno in _OURS for one in _behind(error)):
        return Cause.NO_RESOURCES
    for one in _behind(error):
        if isinstance(one, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
            if any(isinstance(each, _HUNG_UP) for each in _behind(error)):
                return Cause.CUT_SHORT
            if any(isinstance(each, ssl.SSLError) and each.reason in _NO_TLS for each in _behind(error)):
                return Cause.NO_TLS
            return Cause.BAD_CERTIFICATE
        if isinstance(one, urllib3.exceptions.NameResolutionError):
            return Cause.UNKNOWN_HOST
        refused = isinstance(
            one, urllib3.exceptions.NewConnectionError
        )  # which urllib3 derives from its time-outs
        if isinstance(one, (requests.Timeout, urllib3.exceptions.TimeoutError)) and not refused:
            found = Cause.TIMED_OUT
        elif (
            isinstance(one, (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.ProtocolError))
            and found is Cause.UNREACHABLE
        ):
            found = Cause.CUT_SHORT
    return found


_WORDS = {
    Cause.UNKNOWN_HOST: "no such host",
    Cause.BAD_CERTIFICATE: "certificate not trusted",
    Cause.NO_TLS: "no TLS",
    Cause.TIMED_OUT: "silence",
    Cause.CUT_SHORT: "connection closed without an answer",
}


def transport_words(error: BaseException | None) -> str:
    """The same in a few words; the system's own ("Connection refused", "No route to host") where it has
    some.
    """
    cause = transport_cause(error)
    if cause in _WORDS:
        return _WORDS[cause]
    stated = (
        one.strerror
        for one in _behind(error)
        if isinstance(one, OSError) and one.errno and isinstance(one.strerror, str)
    )
    return next(stated, "cannot be reached").lower()
