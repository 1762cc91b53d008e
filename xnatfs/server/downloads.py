"""The bytes of files: a single file as a stream, and a resource's files as XNAT's zip.

Used by `content.manager`. Every answer is checked to be what it claims before a byte is passed on (see
`connection.Connection.get`); bytes are passed on in pieces, never held whole.
Threading: any thread; each stream belongs to the thread that opened it.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
import urllib3
from stream_unzip import UnzipError, stream_unzip

from xnatfs.errors import Cause, Failure
from xnatfs.server.cancel import CancelScope, held
from xnatfs.server.connection import Connection
from xnatfs.server.records import FileRecord
from xnatfs.server.resultset import number
from xnatfs.server.transport import transport_cause
from xnatfs.server.urls import encode, files_path

log = logging.getLogger(__name__)

PIECE = 256 * 1024
_DECODED = ("gzip", "x-gzip", "deflate")  # by urllib3, with nothing else installed
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_DAMAGED = (UnzipError, ValueError)  # the second is what stream-inflate, which it uses for Deflate64, raises
# Names a real XNAT may refuse one by one: Spring's firewall answers 400 to `%25` and `;`, and a folder called
# `x.zip` is taken for an archive to look into (xnat-rest.md 3). All of them are in the resource's zip.
_ARCHIVES = (".zip", ".jar", ".rar", ".ear", ".gar", ".mrb")
_REFUSED_CHARACTERS = frozenset("%;")
# To a backslash Tomcat answers 400 however it is written, and a catalogue has a TAB as a blank: no zip has
# these either (xnat-rest.md 13).
_NOWHERE = frozenset("\\\t")


NOT_IN_ZIP = "neither by itself nor in the resource's zip"
NO_WAY = "XNAT cannot serve a name with a backslash or a TAB"


@dataclass
class Stream:
    """A file on its way: `size` in bytes as the answer says (None if it does not), `last_modified` as the
    header's text.
    """

    size: int | None
    last_modified: str
    pieces: Iterator[bytes]


@dataclass
class RangePart:
    """A part of a file on its way.

    It begins at `start`; `size` is that of the whole file in bytes (None if the answer does not tell); it
    goes up to `end`, or to the end of the file where that is None: the server does not do Range and sends the
    whole.
    """

    start: int
    size: int | None
    end: int | None
    last_modified: str
    pieces: Iterator[bytes]


class Downloads:
    """Downloads from one server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.breaker = connection.breaker
        self.server = connection.server
        self._patience = connection.settings.limits.progress_deadline

    @contextmanager
    def file(self, record: FileRecord, hold: CancelScope | None = None) -> Iterator[Stream]:
        """Open one file as a stream; `hold` can end it.

        Raises:
            Failure: GONE if the server does not have what it listed; any transport or login failure.
                Iterating raises CUT_SHORT or TIMED_OUT when the stream breaks.
        """
        with _listed(record), self._open(_file_path(record), {}, hold=hold) as response:
            size, stamp = (
                number(response.headers.get("Content-Length", "")),
                response.headers.get("Last-Modified", ""),
            )
            encoded = _encoding(response, record, size)
            # The length is that of the encoded answer: the file's own shows at its end.
            yield Stream(
                None if encoded else size, stamp, _pieces(response, self._patience, decode=bool(encoded))
            )

    @contextmanager
    def part(
        self, record: FileRecord, start: int, end: int, last_modified: str, hold: CancelScope | None = None
    ) -> Iterator[RangePart]:
        """Open the bytes from `start` to `end` of a file, if it is still the one with this Last-Modified (""
        for the first look); `hold` can end it.

        `end` must not be past the end of the file as far as that is known: a real server then keeps the
        connection open and the reader waiting for 20 s (xnat-rest.md 3). The size in Content-Range is in the
        answer before any of the body is read.

        Raises:
            Failure: CHANGED (412: it is another file now), GONE, or whatever keeps the server from answering.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if last_modified:
            headers["If-Unmodified-Since"] = last_modified
        with (
            _listed(record),
            self._open(_file_path(record), headers, accept=frozenset({200, 206, 412}), hold=hold) as response,
        ):
            if response.status_code == 412:
                raise Failure(Cause.CHANGED, record.uri)
            stamp = response.headers.get("Last-Modified", "")
            if response.status_code == 200:
                length = number(response.headers.get("Content-Length", ""))
                encoded = _encoding(response, record, length)
                pieces = _pieces(response, self._patience, decode=bool(encoded))
                yield RangePart(0, None if encoded else length, None, stamp, pieces)
                return
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if match is None or int(match[1]) != start:
                raise Failure(Cause.NOT_DATA, record.uri, "part of a file without a valid Content-Range")
            size = int(match[3])
            last = min(int(match[2]) + 1, end, size)
            exact = response.headers.get("Content-Length", "") == str(int(match[2]) + 1 - start)
            if encoded := _encoding(response, record, size if exact else None):
                # A part of the encoded file is none of the file. Without a size it is fetched whole.
                yield RangePart(start, None, last, stamp, _unusable(record, encoded))
                return
            yield RangePart(start, size, last, stamp, _pieces(response, self._patience, last - start))

    def unchanged(self, record: FileRecord, last_modified: str) -> bool:
        """Whether the file is still the one with this Last-Modified: one conditional request, no body read
        (xnat-rest.md 3).

        Raises:
            Failure: GONE if the server does not have it any more; any transport or login failure.
        """
        headers = {"If-Modified-Since": last_modified}
        # As short as a listing's, so it need not wait until a stream ends.
        with (
            _listed(record),
            self._open(_file_path(record), headers, accept=frozenset({200, 304}), short=True) as response,
        ):
            return response.status_code == 304 or response.headers.get("Last-Modified") == last_modified

    @contextmanager
    def zip(
        self, record: FileRecord, hold: CancelScope | None = None
    ) -> Iterator[Iterator[tuple[str, int | None, Iterator[bytes]]]]:
        """The whole resource of `record` as (path inside the resource, size, pieces), in the zip's order;
        streamed. `hold` can end it.

        XNAT leaves out files it cannot find and ends the archive validly (xnat-rest.md 3), so a missing
        member is no proof of anything.

        Raises:
            Failure: GONE for a 404, which is no proof either (xnat-rest.md 13); any transport or login
                failure.
        """
        with (
            _listed(record),
            self._open(
                files_path(record), {}, params={"format": "zip", "compression": "0"}, hold=hold
            ) as response,
        ):
            yield _members(_pieces(response, self._patience, decode=True))

    @contextmanager
    def _open(
        self,
        path: str,
        headers: dict[str, str],
        *,
        params: dict[str, str] | None = None,
        accept: frozenset[int] = frozenset({200}),
        hold: CancelScope | None = None,
        short: bool = False,
    ) -> Iterator[requests.Response]:
        limits, slots = self._connection.settings.limits, self._connection.slots
        with (
            (slots.listing if short else slots.contents)(limits.listing_deadline),
            held(hold or CancelScope()),
        ):
            response = self._connection.get(path, params=params, headers=headers, stream=True, accept=accept)
            try:
                yield response
            finally:
                response.close()


@contextmanager
def _listed(record: FileRecord) -> Iterator[None]:
    """A 404 for a file that is listed: not "there is nothing of this name" but GONE; and so is a name that
    cannot be asked for at all.
    """
    try:
        yield
    except Failure as failure:
        if failure.status in (400, 404) and out_of_reach(record.path):
            raise Failure(Cause.GONE, record.uri, NO_WAY, failure.status) from None
        if failure.cause is Cause.NO_ENTRY:
            raise Failure(Cause.GONE, record.uri, failure.detail, failure.status) from None
        raise


def _file_path(record: FileRecord) -> str:
    return f"{files_path(record)}/{encode(record.path)}"


def only_in_zip(path: str) -> bool:
    """Whether the server may refuse this file by itself, so that it is worth looking for in the resource's
    zip.
    """
    folders = path.lower().split("/")[:-1]
    return bool(_REFUSED_CHARACTERS & set(path)) or any(folder.endswith(_ARCHIVES) for folder in folders)


def out_of_reach(path: str) -> bool:
    """Whether no server is known to give a file of this name, in any way: it is asked for once, and never
    looked for in a zip.
    """
    return bool(_NOWHERE & set(path))


def _encoding(response: requests.Response, record: FileRecord, size: int | None) -> str:
    """How an answer of `size` bytes is encoded, which nobody asked for; "" if it is not. A proxy compresses
    what passes it; and a web server may say "gzip" of a `.nii.gz` that it sends as it is: that has the size
    of the catalogue, and a compressed answer has not.

    Raises:
        Failure: NOT_DATA if it cannot be decoded.
    """
    encoded = response.headers.get("Content-Encoding", "").strip().lower()
    if encoded in ("", "identity") or (size is not None and size == record.size):
        return ""
    if encoded not in _DECODED:
        raise Failure(Cause.NOT_DATA, record.uri, f"it came encoded ({encoded}), which nobody asked for")
    log.info("%s came encoded (%s), which nobody asked for", record.uri, encoded)
    return encoded


def _unusable(record: FileRecord, encoded: str) -> Iterator[bytes]:
    detail = f"a part of it came encoded ({encoded}), which nobody asked for"
    raise Failure(Cause.NOT_DATA, record.uri, detail)
    yield b""  # which makes it an iterator


def _pieces(
    response: requests.Response, patience: float, left: int = sys.maxsize, *, decode: bool = False
) -> Iterator[bytes]:
    """The body, or its first `left` bytes, in pieces; a broken connection becomes a `Failure`, and so does
    one that only trickles: each byte starts the time-out of the socket anew, but a piece has to come within
    `patience` seconds.

    Not a byte more is asked for than the file has: a server that promised more never sends it (xnat-rest.md
    3).
    """
    while left > 0:
        piece, trouble = _piece(response, min(PIECE, left), patience, decode)
        if piece:
            yield piece
        if trouble is not None:
            try:
                raise trouble
            finally:
                del trouble, piece  # else the error holds this frame, and the frame the error
        if not piece:
            return
        left -= len(piece)


def _piece(
    response: requests.Response, length: int, patience: float, decode: bool
) -> tuple[bytes, Failure | None]:
    """The next bytes, fewer than `length` only at the end; and what broke after them."""
    deadline = time.monotonic() + patience
    parts = []
    trouble: Failure | None = None
    subject = response.url.partition("?")[0]
    try:
        while length > 0 and (part := response.raw.read1(length, decode_content=decode)):
            parts.append(part)
            length -= len(part)
            if length > 0 and time.monotonic() > deadline:
                trouble = Failure(Cause.TIMED_OUT, subject, "hardly anything comes")
                break
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = transport_cause(error)
        trouble = Failure(Cause.CUT_SHORT if cause is Cause.UNREACHABLE else cause, subject)
        trouble.__cause__ = error.with_traceback(
            None
        )  # which would hold the frame, with all its bytes, and the frame this error
    return parts[0] if len(parts) == 1 else b"".join(parts), trouble


def _members(pieces: Iterator[bytes]) -> Iterator[tuple[str, int | None, Iterator[bytes]]]:
    try:
        for name, size, body in stream_unzip(pieces, chunk_size=PIECE):
            # LABEL/scans/ID-TYPE/resources/RLABEL/files/PATH (xnat-rest.md 3): the path follows the first
            # `/files/` after `/resources/`.
            text = name.decode("utf-8", "surrogateescape")
            _, found, tail = text.partition("/resources/")
            path = tail.partition("/files/")[2] if found else text.partition("/files/")[2]
            yield path or text, size, _member(body)
    except _DAMAGED as error:
        raise Failure(Cause.CUT_SHORT, "zip", type(error).__name__) from error


def _member(body: Iterator[bytes]) -> Iterator[bytes]:
    # Whoever reads a member meets the end of a cut zip here, outside of the loop over the members.
    try:
        yield from body
    except _DAMAGED as error:
        raise Failure(Cause.CUT_SHORT, "zip", type(error).__name__) from error
