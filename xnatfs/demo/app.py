"""The HTTP application: what is refused before XNAT sees it, who is asking, the handler, the common headers.

Used by `server`. An ASGI application on uvicorn's event loop; control routes (/demo) are a Starlette
application beside it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.cookies import CookieError, SimpleCookie
from typing import Any
from weakref import WeakSet

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from . import routes, xapi
from .auth import COOKIE, GUEST, Session, Sessions, Unauthorized, is_interactive, sent_login
from .call import Call
from .connection import Connection, connection_of
from .control import control_app
from .delivery import Delivery
from .faults import Line, Switches, happens
from .model import Archive, User
from .pages import login_page, restlet_error, start_page, tomcat_error
from .plain import ROOT, PlainView
from .ranges import of_unknown_size
from .reply import HttpError, Reply
from .requestlog import Record, RequestLog

_LOGGER = logging.getLogger(__name__)
_DATA = re.compile(r"/(?:data|REST)(?:/archive(?![^/]))?(?:/|$)")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TOMCAT = re.compile(r"%2f|%5c|%00|[\[\]{}|\"<>\\^`]|[^\x21-\x7e]", re.IGNORECASE)
_QUERY = re.compile(r"[\[\]{}|\"<>\\^`]|[^\x21-\x7e]")
_FIREWALL = re.compile(r"%25|;|%3b|%2e|//|/\.\.?(?:/|$)", re.IGNORECASE)
_OPEN = frozenset({"/data/services/auth", "/REST/services/auth", "/xapi/siteConfig/buildInfo"})
_TUNNELLED = frozenset({"media", "charset", "language", "encoding"})
_GUARD_REALM = 'Basic realm="XNAT Protected Area"'


class Application:
    """One stand-in: the archive, its sessions, switches and log behind an ASGI interface."""

    def __init__(self, archive: Archive, switches: Switches) -> None:
        self.archive = archive
        self.switches = switches
        self.sessions = Sessions(archive, switches)
        self.log = RequestLog()
        self.line = Line()
        self.started = time.monotonic()
        self._connections: WeakSet[Connection] = WeakSet()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="demo-digest")
        self._control = control_app(archive, switches, self.log, self.sessions, self.lose_connections)
        self._plain = PlainView(archive)

    def close(self) -> None:
        """After the event loop ended."""
        self._pool.shutdown(cancel_futures=True)

    def lose_connections(self) -> int:
        """All connections there are go silent, as after a suspend or a gateway's restart. Returns how
        many.
        """
        for connection in self._connections:
            connection.lost = True
        return len(self._connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: str = scope["raw_path"].decode("ascii")
        is_plain = raw.startswith(ROOT)
        if raw.startswith("/demo/") and not is_plain:
            await self._control(scope, receive, send)
            return
        headers = Headers(scope=scope)
        client = scope.get("client") or ("", 0)
        record = Record(
            time.time(),
            scope["method"],
            raw,
            scope["query_string"].decode("latin-1"),
            "",
            headers.get("range", ""),
            headers.get("user-agent", ""),
            client[1],
            login=sent_login(headers.get("authorization", "")),
        )
        self.log.append(record)
        begin = time.perf_counter()
        is_data = _DATA.match(raw) is not None or raw.startswith("/xapi/")
        faulty = is_data and self.switches.matches(record.target)
        delivery = Delivery(scope, send, self.switches, self.line, record, faulty)
        try:
            self._connections.add(connection_of(scope))
            if connection_of(scope).lost:
                self.switches.fired["lost"] += 1
                await delivery.silence()
                return
            if faulty and self.switches.refuse_connections:
                self.switches.fired["refuse"] += 1
                delivery.reset()
                return
            if faulty and self.switches.strikes("silent"):
                record.fault = "silent"
                await delivery.silence()
                return
            if (is_data or is_plain) and self.switches.latency_ms:
                await asyncio.sleep(self.switches.latency_ms / 1000)
            failure = self.switches.fails_now() if faulty else ""
            if failure == "reset":
                record.fault = failure
                delivery.reset()
                return
            reply = self._injected(failure) if faulty else None
            if reply is not None:
                record.fault = failure or ("redirect" if reply.status == 302 else "html")
            else:
                body = await _body(receive, headers)
                if faulty and self.switches.strikes("guest"):
                    record.fault = "guest"
                    headers = _without_login(headers)
                reply = await self._answer(raw, scope, headers, body, record)
                if (
                    faulty
                    and reply.kind == "listing"
                    and self.switches.garble_listings
                    and self.switches.strikes("garble")
                ):
                    reply.body = _garbled(reply.body, self.switches.garble_listings)
            await delivery.send(reply)
        except asyncio.CancelledError:
            # The server is stopping: clients that still wait get a closed connection.
            connection_of(scope).transport.abort()
        finally:
            # Until the client was gone: on a slow line, a piece notices it up to a tenth of a second later.
            record.duration = (connection_of(scope).ended or time.perf_counter()) - begin

    def _injected(self, failure: str) -> Reply | None:
        switches = self.switches
        if failure:
            reply = tomcat_error(int(failure), "Injected failure")
            if switches.retry_after:
                reply.headers.append(("Retry-After", switches.retry_after))
            return reply
        if switches.html_instead and switches.take("html_instead"):
            switches.fired["html"] += 1
            return login_page(self.archive.site)
        if switches.strikes("redirect"):
            return Reply(302, b"", [("Location", "/app/template/Login.vm")], "page", 0, from_restlet=False)
        return None

    async def _answer(self, raw: str, scope: Scope, headers: Headers, body: bytes, record: Record) -> Reply:
        query_text = record.query
        if _LONE_PERCENT.search(raw) or _TOMCAT.search(raw) or _QUERY.search(query_text):
            return tomcat_error(400, "Invalid character found in the request target.")
        if self.switches.firewall and _FIREWALL.search(raw):
            return tomcat_error(400, "The request was rejected because the URL was not normalized.")
        if raw == "/":
            return start_page(self.archive.site)
        if raw == "/app/template/Login.vm":
            return login_page(self.archive.site)
        if raw.startswith(ROOT):
            try:
                user = self.sessions.user_of(headers.get("authorization", ""))
            except Unauthorized as refusal:
                return _unauthorized(refusal.message)
            record.user = user.login
            return self._plain.answer(scope["method"], raw, headers, user)
        match = _DATA.match(raw)
        if match is None and not raw.startswith("/xapi/"):
            return tomcat_error(404, "Not Found")
        query, method = _tunnel(QueryParams(query_text), scope["method"])
        cookie = _cookie(headers)
        if cookie and happens(self.switches.expire_rate) and self.sessions.expire(cookie):
            record.fault = "expired"
        try:
            session, new = self.sessions.identify(cookie, headers.get("authorization", ""))
        except Unauthorized as refusal:
            return self._finished(_unauthorized(refusal.message), None)
        if new and (self.switches.database_down or self.switches.pool_exhausted):
            # A user who is not known by a cookie cannot be looked up (xnat-rest.md 13 [X]).
            self.sessions.end(session)
            return self._finished(restlet_error(500, "Internal Server Error"), None)
        user = session.user if session is not None else GUEST
        if user is GUEST:
            if self.switches.require_login and raw not in _OPEN:
                return self._finished(self._login_needed(raw, headers), None)
            if session is None and raw not in _OPEN:
                session, new = self.sessions.new_session(GUEST), True
        record.user = user.login
        path = raw[match.end() :] if match is not None else raw[len("/xapi/") :]
        call = self._call(method, path, query, headers, body, user, session)
        handler = routes.handle if match is not None else partial(xapi.handle, started=self.started)
        reply = await self._guarded(call, handler)
        record.user = call.user.login
        # A login or logout in the handler changes the session.
        issued = call.session if new or call.session is not session else None
        return self._finished(reply, issued)

    def _call(
        self,
        method: str,
        path: str,
        query: QueryParams,
        headers: Headers,
        body: bytes,
        user: User,
        session: Session | None,
    ) -> Call:
        run: Callable[..., Any] = partial(asyncio.get_running_loop().run_in_executor, self._pool)
        return Call(
            method,
            path,
            query,
            headers,
            body,
            user,
            session,
            self.archive,
            self.switches,
            self.sessions,
            self._pool,
            run,
        )

    async def _guarded(self, call: Call, handler: Callable[[Call], Any]) -> Reply:
        """Run a handler; its exceptions become XNAT's error pages."""
        try:
            if _csrf_missing(call):
                raise HttpError(500, "INVALID CSRF")
            reply: Reply = await handler(call)
            # Of a zip Restlet knows no length, though the container may write one.
            unknown = (reply.length is None or reply.kind == "bulk") and reply.status == 200
            status = of_unknown_size(call.headers.get("range")) if unknown else 200
            if status != 200 and not call.switches.no_range:
                raise HttpError(status)
        except HttpError as error:
            if error.page == "tomcat":
                return tomcat_error(error.status, error.message, restlet=True)
            return restlet_error(error.status, error.message)
        except Unauthorized as refusal:
            return _unauthorized(refusal.message)
        except Exception as error:
            # Restlet shows the exception's message (xnat-rest.md 9 [X]); here it is a defect of the stand-in
            # or of its data, so it is logged.
            _LOGGER.exception("%s %s", call.method, call.path)
            return restlet_error(500, str(error))
        return reply

    def _login_needed(self, raw: str, headers: Headers) -> Reply:
        """Nobody is logged in where one must be (xnat-rest.md 1)."""
        browser = is_interactive(headers.get("user-agent", ""))
        if raw.endswith("/JSESSION"):
            # An open URL for Spring, so Restlet's own guard answers.
            reply = login_page(self.archive.site) if browser else restlet_error(401, "Unauthorized")
            reply.status = 401
            if not browser:
                reply.headers.append(("WWW-Authenticate", _GUARD_REALM))
            return reply
        if browser:
            return Reply(302, b"", [("Location", "/app/template/Login.vm")], "page", 0, from_restlet=False)
        return _unauthorized("Full authentication is required to access this resource")

    def _finished(self, reply: Reply, issued: Session | None) -> Reply:
        """Cookies: the expiry on every response, the session where it is new."""
        if issued is not None:
            reply.headers.append(("Set-Cookie", f"{COOKIE}={issued.id}; Path=/; HttpOnly"))
        times = f"{int(time.time() * 1000)},{int(self.switches.session_timeout_s * 1000)}"
        reply.headers.append(("Set-Cookie", f'SESSION_EXPIRATION_TIME="{times}"; Version=1; Path=/'))
        return reply


def _unauthorized(message: str) -> Reply:
    reply = tomcat_error(401, message)
    reply.headers.append(("WWW-Authenticate", 'Basic realm="XNAT"'))
    return reply


def _csrf_missing(call: Call) -> bool:
    """Only browsers with a login are asked for the token, on anything that writes; failing is a 500
    (xnat-rest.md 1).
    """
    if call.method not in ("POST", "PUT", "DELETE") or call.user is GUEST or call.session is None:
        return False
    return (
        is_interactive(call.headers.get("user-agent", ""))
        and call.query.get("XNAT_CSRF") != call.session.csrf
    )


def _tunnel(query: QueryParams, method: str) -> tuple[QueryParams, str]:
    """Restlet's TunnelService: some parameters are eaten, and a POST may name another method (xnat-rest.md 1
    [X]).
    """
    if not any(name in query for name in (*_TUNNELLED, "method")):
        return query, method
    parameters = [(name, value) for name, value in query.multi_items() if name not in _TUNNELLED]
    if method == "POST" and "method" in query:
        return QueryParams([item for item in parameters if item[0] != "method"]), query["method"].upper()
    return QueryParams(parameters), method


def _without_login(headers: Headers) -> Headers:
    return Headers(
        raw=[(name, value) for name, value in headers.raw if name not in (b"cookie", b"authorization")]
    )


def _garbled(body: bytes, how: str) -> bytes:
    return b"{" + body if how == "json" else body.replace(b'":"', b'":"\xff', 1)


def _cookie(headers: Headers) -> str:
    value = headers.get("cookie", "")
    if COOKIE not in value:
        return ""
    try:
        morsel = SimpleCookie(value).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


async def _body(receive: Receive, headers: Headers) -> bytes:
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    parts = []
    while True:
        message: MutableMapping[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(parts)
