"""The HTML pages: Restlet's status page, Tomcat's error page, the login page, the start page (xnat-rest.md 1
and 9).

Used by `app` for every error and by the routes outside /data. Pure functions, any thread.
"""

from __future__ import annotations

from html import escape

from .reply import Reply, page, reason


def restlet_page(status: int, message: str) -> str:
    """Restlet's StatusFilter page: titled "Status page", the message in <h3> (xnat-rest.md 9 [X])."""
    return (
        "<html>\n<head>\n   <title>Status page</title>\n</head>\n<body>\n"
        f"<h3>{escape(message)}</h3><p>You can get technical details <a "
        f'href="http://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#sec10">here</a>.<br>\n'
        'Please continue your visit at our <a href="/">home page</a>.\n</p>\n</body>\n</html>\n'
    )


def tomcat_page(status: int, message: str) -> str:
    """The servlet container's own page (xnat-rest.md 3: "Missing" [X])."""
    title = f"HTTP Status {status} \N{EN DASH} {reason(status)}"
    return (
        f'<!doctype html><html lang="en"><head><title>{title}</title></head><body><h1>{title}</h1><hr '
        f'class="line" />'
        f"<p><b>Type</b> Status Report</p><p><b>Message</b> {escape(message)}</p>"
        '<hr class="line" /><h3>Apache Tomcat/9.0.70</h3></body></html>'
    )


def restlet_error(status: int, message: str) -> Reply:
    """An error of a handler that left no entity; 400, 500 and 501 close the connection, a 500 has no
    Accept-Ranges (xnat-rest.md 3, 9).
    """
    reply = page(restlet_page(status, message), status)
    reply.close = status in (400, 500, 501)
    reply.from_restlet = status != 500
    return reply


def tomcat_error(status: int, message: str, restlet: bool = False) -> Reply:
    """An error page of the container; `restlet` for those sent after a Restlet handler left an empty
    entity.
    """
    data = tomcat_page(status, message).encode()
    reply = Reply(
        status,
        data,
        [("Content-Type", "text/html;charset=utf-8"), ("Content-Language", "en")],
        "page",
        len(data),
    )
    reply.close = status in (400, 500, 501)
    reply.from_restlet = restlet
    return reply


def login_page(site: str) -> Reply:
    """What a browser (and a client that looks like one) gets instead of a 401: a 200 with HTML."""
    return page(
        "<!DOCTYPE html>\n<html><head><title>" + escape(site) + "</title></head><body>\n"
        '<form name="form1" method="post" action="/login"><input name="username"/><input name="password" '
        'type="password"/>'
        '<button type="submit">Login</button></form>\n</body></html>\n'
    )


def item_page(name: str) -> str:
    """The page about an object that some writes are answered with."""
    return (
        f"<!DOCTYPE "
        f"html>\n<html><head><title>{escape(name)}</title></head><body><h1>{escape(name)}</h1></body></html>\n"
    )


def start_page(site: str) -> Reply:
    """`GET /`: any 200 is enough for the clients (bx.md 6.2)."""
    return page(
        f"<!DOCTYPE html>\n<html><head><title>{escape(site)}</title></head><body>{escape(site)} "
        f"(stand-in)</body></html>\n"
    )
