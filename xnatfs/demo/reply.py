"""What a handler answers: a status, headers and a body, whole or in pieces; and errors as exceptions.

Used by every module of the stand-in that answers requests; `app` turns a `Reply` into ASGI messages. Values
only, no I/O, any thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

Kind = Literal["page", "text", "listing", "file", "bulk"]


@dataclass
class Reply:
    """An answer.

    `length` is the Content-Length *announced*; None announces none (chunked). It may disagree with what the
    body has (xnat-rest.md 3: ranges past the end), then the connection is left open for `hang` as Tomcat
    leaves it. `stream` makes the pieces of the body; `body` is used where there is none.
    """

    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    kind: Kind = "page"
    length: int | None = None
    stream: Callable[[], AsyncIterator[bytes]] | None = None
    hang: bool = False
    close: bool = False
    from_restlet: bool = True  # False: the container or Spring answered, so neither Accept-Ranges nor Vary


class HttpError(Exception):
    """Ends the handling of a request with an error page.

    `page` says who writes the page: Restlet's status filter, or the container (an empty entity or
    `sendError`; xnat-rest.md 9).
    """

    def __init__(
        self, status: int, message: str = "", page: Literal["restlet", "tomcat"] = "restlet"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message or reason(status)
        self.page = page


def reason(status: int) -> str:
    """The reason phrase of a status."""
    return HTTPStatus(status).phrase


def text(body: str, status: int = 200, content_type: str = "text/plain;charset=ISO-8859-1") -> Reply:
    """A short reply with its length."""
    data = body.encode()
    return Reply(status, data, [("Content-Type", content_type)], "text", len(data))


def nothing() -> Reply:
    """A 200 with no body, which has no type either."""
    return Reply(200, b"", [], "text", 0)


def html_text(body: str) -> Reply:
    """HTML that Restlet streams: no length, no charset."""
    return Reply(200, body.encode(), [("Content-Type", "text/html")], "listing")


def page(html: str, status: int = 200) -> Reply:
    """An HTML page with its length."""
    data = html.encode("iso-8859-1", "xmlcharrefreplace")
    return Reply(status, data, [("Content-Type", "text/html;charset=ISO-8859-1")], "page", len(data))
