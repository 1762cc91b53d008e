"""Contents: parts of files with any header, and the zip of a resource: the right bytes, or `Failure`; never a
byte too many.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterator

import pytest
import requests
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.support import FUZZ, ODD_TEXTS, bounded, damaged
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.errors import Failure
from xnatfs.server.connection import Connection
from xnatfs.server.downloads import Downloads
from xnatfs.server.records import FileRecord, Owner

_URL = "http://127.0.0.1:9"
RECORD = FileRecord(Owner("scan", "E1", "1"), 7, "DICOM", "a/1.dcm", 100, "")
DATA = bytes(range(100))


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    made = Connection(Settings(_URL), Credentials(_URL, "who", "secret", "the test"))
    yield made
    made.close()


def answering(
    connection: Connection, body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Downloads:
    """Downloads whose every answer is this one."""

    def get(*_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url = status, _URL
        response.headers.update(headers or {})
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(body), headers=headers, status=status, preload_content=False
        )
        return response

    connection.get = get  # type: ignore[method-assign]
    return Downloads(connection)


# --- parts --------------------------------------------------------------------------------------------------

EDGES = st.one_of(st.integers(0, 120).map(str), ODD_TEXTS)
RANGES = st.one_of(st.builds("bytes {}-{}/{}".format, EDGES, EDGES, EDGES), ODD_TEXTS, st.just("bytes */100"))


def _latin(text: str) -> str:
    """As a header arrives."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1").replace("\r", "").replace("\n", "")


@FUZZ
@given(
    start=st.integers(0, 99),
    length=st.integers(1, 200),
    status=st.sampled_from((200, 206, 206, 206, 412)),
    told=RANGES,
    size=EDGES,
    body=st.binary(max_size=150),
)
@example(5, 10, 206, "bytes 5-14/" + "9" * 5000, "10", b"")
@example(5, 10, 206, "bytes 5-4/0", "0", b"")
@example(0, 10, 206, "bytes 0-" + "9" * 30 + "/" + "9" * 30, "-1", b"x" * 150)
def test_a_part_is_within_what_was_asked_for(
    connection: Connection, start: int, length: int, status: int, told: str, size: str, body: bytes
) -> None:
    contents = answering(
        connection, body, status, {"Content-Range": _latin(told), "Content-Length": _latin(size)}
    )
    with contextlib.suppress(Failure), contents.part(RECORD, start, start + length, "") as part:
        assert part.size is None or 0 <= part.size < 2**63
        assert part.start in (0, start)
        got = b"".join(part.pieces)
        if part.end is None:
            assert status == 200 and got == body
        else:
            assert part.start == start and part.end <= start + length
            assert got == body[: max(0, part.end - start)]


@FUZZ
@given(start=st.integers(0, 99), length=st.integers(1, 200))
def test_a_right_part_comes_back(connection: Connection, start: int, length: int) -> None:
    end = min(100, start + length)
    contents = answering(connection, DATA[start:end], 206, {"Content-Range": f"bytes {start}-{end - 1}/100"})
    with contents.part(RECORD, start, start + length, "") as part:
        assert (part.start, part.size, part.end) == (start, 100, end) and b"".join(part.pieces) == DATA[
            start:end
        ]


# --- zips ---------------------------------------------------------------------------------------------------

PATHS = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}", fullmatch=True)
MEMBERS = st.lists(st.tuples(PATHS, st.binary(max_size=200)), max_size=4, unique_by=lambda one: one[0])
Members = list[tuple[str, bytes]]


class _Stream(io.RawIOBase):
    """What cannot be sought in: a zip written to it has its sizes behind its members."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: object) -> int:
        self.data += bytes(piece)  # type: ignore[call-overload]
        return len(bytes(piece))  # type: ignore[call-overload]


def packed(
    members: Members,
    method: int = zipfile.ZIP_STORED,
    *,
    streamed: bool = False,
    long: bool = False,
    prefix: str = "",
) -> bytes:
    """A zip as XNAT writes one."""
    target: io.BytesIO | _Stream = _Stream() if streamed else io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:  # type: ignore[arg-type]
        for path, data in members:
            entry = zipfile.ZipInfo(f"{prefix}{path}")
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=long) as stream:
                stream.write(data)
    return bytes(target.data) if isinstance(target, _Stream) else target.getvalue()


def _zip(members: Members, method: int, streamed: bool, long: bool, prefix: str) -> bytes:
    # What is stored without a size before it cannot be told from what follows: nobody streams such.
    return packed(
        members, zipfile.ZIP_DEFLATED if streamed else method, streamed=streamed, long=long, prefix=prefix
    )


def _lied(data: bytes, at: int, size: int, where: str) -> bytes:
    """A local header that lies about a length."""
    offset = data.find(b"PK\x03\x04", at if at < len(data) else 0)
    if offset < 0:
        return data
    place, form = {
        "packed": (18, "<I"),
        "size": (22, "<I"),
        "name": (26, "<H"),
        "extra": (28, "<H"),
        "method": (8, "<H"),
        "crc": (14, "<I"),
    }[where]
    value = struct.pack(form, size % (1 << (8 * struct.calcsize(form))))
    return data[: offset + place] + value + data[offset + place + len(value) :]


ZIPS = st.builds(
    _zip,
    MEMBERS,
    st.sampled_from(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(
        (
            "",
            "S/scans/1-T1/resources/DICOM/files/",
            "../",
            "/",
            "S/scans/1/resources/a/files/b/resources/c/files/",
            "ä/",
        )
    ),
)
LIES = st.builds(
    _lied,
    ZIPS,
    st.integers(0, 300),
    st.sampled_from((0, 1, 7, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 10, 12, 14, 99)),
    st.sampled_from(("packed", "size", "name", "extra", "method", "crc")),
)


# Deflate64 of a block type that there is none of; found by atheris.
DEFLATE64 = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 9, 0, 0, 0, 10, 10, 1, 0) + b"a" + b"\xff" * 40


def unpacked(contents: Downloads) -> Members:
    """All of it."""
    with contents.zip(RECORD) as members:
        found: Members = []
        for path, size, pieces in members:
            data = b"".join(pieces)
            assert size is None or size == len(data)
            found.append((path, data))
        return found


@FUZZ
@given(damaged(ZIPS | LIES, most=2))
@example(b"")
@example(b"PK\x03\x04")
@example(b"PK\x05\x06" + b"\0" * 18)
@example(DEFLATE64)
def test_a_zip_is_unpacked_or_refused(connection: Connection, body: bytes) -> None:
    contents = answering(connection, body)
    with contextlib.suppress(Failure):
        bounded(len(body), lambda: unpacked(contents))


@FUZZ
@given(MEMBERS, st.booleans(), st.booleans())
def test_a_right_zip_comes_back(connection: Connection, members: Members, streamed: bool, long: bool) -> None:
    prefix = "S/scans/1-T1/resources/DICOM/files/"
    body = _zip(members, zipfile.ZIP_STORED, streamed, long, prefix)
    assert unpacked(answering(connection, body)) == members


@FUZZ
@given(MEMBERS.filter(bool), st.data())
def test_a_zip_that_is_cut_never_looks_whole(
    connection: Connection, members: Members, data: st.DataObject
) -> None:
    body = packed(members)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with contextlib.suppress(Failure):
        found = unpacked(answering(connection, cut))
        # Behind the last member nothing is lost that anybody reads.
        assert cut[:4] == b"PK\x03\x04" and found == members and b"PK\x01\x02" in cut


@FUZZ
@given(MEMBERS.filter(lambda one: any(data for _, data in one)), st.integers(0), st.integers(1, 255))
def test_a_flipped_byte_of_a_member_is_seen(
    connection: Connection, members: Members, at: int, flip: int
) -> None:
    body = packed(members)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        starts = [one.header_offset + 30 + len(one.orig_filename) for one in archive.infolist()]
    places = [
        start + number
        for start, (_, data) in zip(starts, members, strict=True)
        for number in range(len(data))
    ]
    place = places[at % len(places)]
    damaged_body = body[:place] + bytes([body[place] ^ flip]) + body[place + 1 :]
    with pytest.raises(Failure):
        unpacked(answering(connection, damaged_body))


def zip_target(connection: Connection) -> Callable[[bytes], None]:
    """For a fuzzer that makes its own bytes."""

    def target(body: bytes) -> None:
        with contextlib.suppress(Failure):
            unpacked(answering(connection, body))

    return target
