"""The bodies of answers, read in pieces and never beyond a bound: a server, or whoever sits before it, may
send without an end.

Used by `http_transport` (short answers), `connection` (deadlines), `items` and `resultset` (listings). Files
have bounds of their own, in `listing` and `content`. Listings come as
`{"ResultSet": {..., "Result": [row, row, ...], ...}}` and are read row by row, so that memory holds what is
made of the rows and not the text too: a million files are 300 MB of text.
Threading: any thread; an answer belongs to the thread that asked.
"""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

from xnatfs.errors import Cause, Failure
from xnatfs.server.transport import transport_cause

SHORT = 64 * 1024  # bytes that are looked at of an answer that is neither a listing nor a file
WHOLE = 64 * 2**20  # of JSON that is read as a whole; parsed it takes up to ten times that
LARGEST = 2**30  # of a listing: a million rows of a kilobyte each
CELLS = 20_000_000  # of a listing: a million rows of twenty columns, some 2 GB as Python holds them
ROW = 4 * 2**20  # characters of one row
_PIECE = 256 * 1024
_OF_NUMBERS = "0123456789+-.eE"
_BLANKS = re.compile(r"[ \t\r\n]*")


def whole(response: requests.Response, longest: int = WHOLE) -> bytes:
    """The body, which is at most `longest` bytes.

    Raises:
        Failure: TOO_LARGE; CUT_SHORT or TIMED_OUT if it does not come.
    """
    return b"".join(_pieces(response, longest))


def first(response: requests.Response, longest: int = SHORT) -> bytes:
    """The body, or as much of it as `longest` bytes; the rest is not asked for.

    Raises:
        Failure: CUT_SHORT or TIMED_OUT if it does not come.
    """
    held = b""
    for piece in _pieces(response, LARGEST, longest):
        held += piece
        if len(held) >= longest:
            return held[:longest]
    return held


def end_by(response: requests.Response, deadline: float) -> None:
    """Whoever reads the body gets TIMED_OUT after `deadline` (of `time.monotonic`): each byte that trickles
    in starts the time-out of the socket anew, so that alone would never end.
    """
    response.raw = _Timed(response.raw, deadline)


def rows(response: requests.Response) -> Iterator[dict[str, Any]]:
    """The rows of a listing, as they come.

    Raises:
        ValueError: the body is no such JSON, or does not parse to its end.
        Failure: as `whole`.
    """
    text = _Text(_pieces(response, LARGEST))
    text.expect("{")
    found = False
    for key in _members(text):
        if key == "ResultSet":
            found = True
            yield from _result_set(text)
        else:
            text.value()
    if not found or text.peek():
        raise ValueError("no ResultSet in the listing" if not found else "something follows the listing")


def _result_set(text: _Text) -> Iterator[dict[str, Any]]:
    if text.peek() != "{":
        raise ValueError("no ResultSet in the listing")
    text.expect("{")
    found = False
    count = cells = 0
    total: Any = None
    for key in _members(text):
        if key != "Result" or found:
            value = text.value()
            total = value if key == "totalRecords" else total
            continue
        found = True
        if text.peek() != "[":
            raise ValueError("no rows in the listing")
        text.expect("[")
        if text.peek() == "]":
            text.expect("]")
            continue
        while True:
            row = text.value()
            if not isinstance(row, dict):
                raise ValueError("a row of the listing is not an object")
            cells += 1 + len(row)
            if cells > CELLS:
                raise Failure(Cause.TOO_LARGE, detail=f"more than {CELLS:,} cells")
            yield row
            count += 1
            if text.take("]") == "]":
                break
    if not found:
        raise ValueError("no ResultSet in the listing")
    # Always the number of rows, as a string, on every form used here (xnat-rest.md 12, executed). Where it is
    # missing or no number nothing is proven, and nothing refuted.
    if str(total).isdecimal() and int(total) != count:
        raise ValueError(f"it claims {total} rows and has {count}")


def _members(text: _Text) -> Iterator[str]:
    """The keys of an object whose brace is read; whoever asks for the next one has read the value of the
    last.
    """
    if text.peek() == "}":
        text.expect("}")
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise ValueError("no JSON")
        text.expect(":")
        yield key
        if text.take("}") == "}":
            return


class _Text:
    """JSON that is still coming."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            if self._at < len(self._text) and (char := self._text[self._at]) not in " \t\r\n":
                return char
            # it matches nothing, too
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at == len(self._text) and not self._more():
                return ""

    def expect(self, char: str) -> None:
        """Read this character."""
        if self.peek() != char:
            raise ValueError(f"no {char!r} where one is required")
        self._at += 1

    def take(self, end: str) -> str:
        """What follows a member of an object or list: "," or its end."""
        char = self.peek()
        if char not in (",", end):
            raise ValueError("no JSON" if char else "the listing is cut short")
        self._at += 1
        return char

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                found, end = self._scan(self._text, self._at)
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            except json.JSONDecodeError as error:
                # Not whole yet, or wrong: that shows when no more comes, or when it gets longer than anything
                # true.
                if len(self._text) - self._at > ROW or not self._more():
                    raise ValueError(f"the listing is cut short or not JSON ({error.msg})") from None
                continue
            whole = isinstance(found, (dict, list, str)) or self._text[end:].lstrip(_OF_NUMBERS)
            if not whole and self._more():
                continue  # a number may go on: `1` of `1.5`, `1.` of it too
            self._at = end
            return found

    def _more(self) -> bool:
        """Read on; at least as much as is there, so that a long value is not scanned again for every
        piece.
        """
        if self._ended:
            return False
        rest = self._text[self._at :]
        fresh: list[str] = []
        count = 0
        while count <= len(rest):
            piece = next(self._pieces, b"")
            text = self._utf8.decode(piece, final=not piece)
            fresh.append(text)
            count += len(text)
            if not piece:
                self._ended = True
                break
        self._text, self._at = rest + "".join(fresh), 0
        return count > 0


class _Timed:
    """A body that has to come by a time."""

    def __init__(self, raw: Any, deadline: float) -> None:
        self._raw = raw
        self._deadline = deadline

    def read1(self, amount: int, decode_content: bool) -> bytes:
        if time.monotonic() > self._deadline:
            raise Failure(Cause.TIMED_OUT, detail="the listing is incomplete")
        piece: bytes = self._raw.read1(amount, decode_content=decode_content)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _pieces(response: requests.Response, longest: int, at_once: int = _PIECE) -> Iterator[bytes]:
    left = longest
    try:
        while piece := response.raw.read1(at_once, decode_content=True):
            left -= len(piece)
            if left < 0:
                raise Failure(Cause.TOO_LARGE, detail=f"more than {longest >> 20} MiB")
            yield piece
    except Failure:
        raise
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = transport_cause(error)
        raise Failure(
            Cause.CUT_SHORT if cause is Cause.UNREACHABLE else cause, response.url.partition("?")[0]
        ) from error
