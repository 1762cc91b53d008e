"""Single files: headers, ranges, conditions, awkward names (xnat-rest.md 3, 9)."""

from __future__ import annotations

import time

import pytest

from xnatfs.demo.model import ComputedContent
from xnatfs.demo.ranges import select
from xnatfs.demo.server import DemoServer

from .conftest import Client
from .wire import exchange

FILES = "/data/experiments/T_E1/resources/110/files"
BIG = f"{FILES}/f100k.bin"
CONTENT = ComputedContent("f100k", 100_000).read(0, 100_000)


def test_headers_of_a_file(alice: Client) -> None:
    reply = alice.get(BIG)
    assert reply.content == CONTENT
    assert reply.headers["Content-Length"] == "100000"
    assert reply.headers["Last-Modified"] == "Tue, 05 Mar 2024 06:07:08 GMT"  # the fraction is cut
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Cache-Control"] == "must-revalidate"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="f100k.bin";'
    assert reply.headers["Accept-Ranges"] == "bytes" and "Accept-Encoding" in reply.headers["Vary"]
    assert reply.headers["Server"].startswith("Noelios-Restlet-Engine/")
    assert not reply.headers.keys() & {"ETag", "Content-MD5", "Expires", "Content-Encoding"}
    head = alice.head(BIG)
    same = {"Content-Length", "Last-Modified", "Content-Type", "Content-Disposition"}
    assert {name: head.headers[name] for name in same} == {
        name: reply.headers[name] for name in same
    } and head.content == b""


def test_content_type_is_by_extension(alice: Client) -> None:
    assert alice.get(f"{FILES}/plain.txt").headers["Content-Type"] == "text/plain"
    assert alice.get(f"{FILES}/p.PDF").headers["Content-Type"] == "application/pdf"
    assert alice.get(f"{FILES}/data").headers["Content-Type"] == "application/octet-stream"
    nifti = alice.get("/data/experiments/T_E1/scans/1/resources/102/files/t1.nii.gz")
    assert nifti.headers["Content-Type"] == "application/octet-stream" and nifti.content == b"n" * 20


# Range, status, Content-Length, Content-Range, body: xnat-rest.md 3, executed against Restlet 1.1.10.
RANGES = [
    ("0-99", 206, "100", "bytes 0-99/100000", slice(0, 100)),
    ("99999-99999", 206, "1", "bytes 99999-99999/100000", slice(99999, 100000)),
    ("0-", 206, "100000", "bytes 0-99999/100000", slice(0, 100000)),
    ("99000-", 206, "1000", "bytes 99000-99999/100000", slice(99000, 100000)),
    ("-100", 206, "100", "bytes 99900-99999/100000", slice(99900, 100000)),
    ("99000-199999", 206, "101000", "bytes 99000-199999/100000", slice(99000, 100000)),
    ("-200000", 206, "200000", "bytes -100000-99999/100000", slice(0, 100000)),
    ("100000-", 206, "0", "bytes 100000-99999/100000", slice(0, 0)),
    ("-0", 206, "0", "bytes 100000-99999/100000", slice(0, 0)),
    ("200000-", 206, "-100000", "bytes 200000-99999/100000", slice(0, 0)),
    ("200000-200099", 206, "100", "bytes 200000-200099/100000", slice(0, 0)),
    ("10-5", 206, "-4", "bytes 10-5/100000", slice(0, 0)),
    ("10-8", 206, "99990", "bytes 10-99999/100000", slice(10, 100000)),
    ("5", 206, "0", "bytes 0--1/100000", slice(0, 0)),
    ("-", 500, "100000", None, slice(0, 100000)),
    ("a-b", 500, "100000", None, slice(0, 100000)),
    ("0-9223372036854775808", 500, "100000", None, slice(0, 100000)),
]


@pytest.mark.parametrize(("asked", "status", "length", "content_range", "body"), RANGES)
def test_range_table(
    server: DemoServer, asked: str, status: int, length: str, content_range: str | None, body: slice
) -> None:
    server.switches.update(
        {"idle_seconds": 0.05, "hang_seconds": 1.5}
    )  # so that the replies that do not hang are told from those that do
    seen = exchange(server, BIG, f"Range: bytes={asked}")
    assert (seen.status, seen.headers["content-length"], seen.headers.get("content-range")) == (
        status,
        length,
        content_range,
    )
    assert seen.body == CONTENT[body]
    hangs = int(length) != len(seen.body)
    assert (seen.seconds > 1.4) == hangs
    assert seen.headers.get("connection") == ("close" if status == 500 else None)


def test_range_past_the_end_closes_at_once_for_who_asked_to(server: DemoServer) -> None:
    server.switches.hang_seconds = 10
    seen = exchange(server, BIG, "Range: bytes=99000-199999", "Connection: close")
    assert seen.headers["content-length"] == "101000" and len(seen.body) == 1000 and seen.seconds < 5


def test_a_pipelined_reply_arrives_inside_the_missing_bytes(server: DemoServer) -> None:
    server.switches.idle_seconds = 0.05
    seen = exchange(
        server, BIG, "Range: bytes=99990-100099\r\n\r\nGET /data/projects HTTP/1.1\r\nHost: x\r\nX: y"
    )
    assert (
        seen.headers["content-length"] == "110"
        and seen.body[:10] == CONTENT[-10:]
        and seen.body[10:].startswith(b"HTTP/1.1 401")
    )


def test_multi_range_is_501(server: DemoServer) -> None:
    seen = exchange(server, BIG, "Range: bytes=0-9,20-29")
    assert seen.status == 501 and b"Status page" in seen.body and seen.headers["connection"] == "close"


def test_not_a_range(alice: Client) -> None:
    for value in ("items=0-9", "Bytes=0-9", "bytes = 0-9"):
        assert alice.get(BIG, headers={"Range": value}).status_code == 200
    for value in ("bytes=0-9", "bytes=0-9,20-29"):
        empty = alice.get(f"{FILES}/empty", headers={"Range": value})
        assert (empty.status_code, empty.headers["Content-Length"]) == (200, "0")
    assert alice.get("/data/projects", headers={"Range": "bytes=0-9"}).status_code == 200
    head = alice.head(BIG, headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.headers["Content-Length"]) == (206, "10")


def test_offsets_beyond_four_gigabytes() -> None:
    size = 5 << 30
    choice = select(f"bytes={size - 7}-", size)
    assert (choice.length, choice.stop - choice.start, choice.content_range) == (
        7,
        7,
        f"bytes {size - 7}-{size - 1}/{size}",
    )


BEFORE, AT, AFTER = (
    "Tue, 05 Mar 2024 06:07:07 GMT",
    "Tue, 05 Mar 2024 06:07:08 GMT",
    "Tue, 05 Mar 2024 06:07:09 GMT",
)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Modified-Since": AT}, 304),
        ({"If-Modified-Since": AFTER}, 304),
        ({"If-Modified-Since": BEFORE}, 200),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-None-Match": "*"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": AT}, 304),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": "*"}, 200),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-Unmodified-Since": AT}, 200),
        ({"If-Unmodified-Since": AT, "Range": "bytes=0-9"}, 206),
        ({"If-Unmodified-Since": BEFORE, "Range": "bytes=0-9"}, 412),
        ({"If-Modified-Since": AT, "Range": "bytes=0-9"}, 304),
        ({"If-Range": BEFORE, "Range": "bytes=0-9"}, 206),
    ],
)
def test_conditions(alice: Client, headers: dict[str, str], status: int) -> None:
    reply = alice.get(BIG, headers=headers)
    assert reply.status_code == status
    if status == 304:
        assert (
            not reply.headers.keys() & {"Last-Modified", "Content-Length"}
            and "Cache-Control" in reply.headers
        )


def test_conditions_on_listings_are_ignored(alice: Client) -> None:
    assert (
        alice.get("/data/projects", headers={"If-Modified-Since": AFTER, "If-Match": '"x"'}).status_code
        == 200
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a%2Bb.txt", "a+b.txt"),
        ("a+b.txt", "a+b.txt"),
        ("a%2bb.txt", "a+b.txt"),
        ("a%20b.txt", "a b.txt"),
        ("dir/c%23d.txt", "dir/c#d.txt"),
        ("dir/%C3%A9.txt", "dir/é.txt"),
        ("pl%61in.txt", "plain.txt"),
    ],
)
def test_names(server: DemoServer, path: str, name: str) -> None:
    seen = exchange(server, f"{FILES}/{path}", "Connection: close")
    assert (seen.status, seen.body) == (200, name.encode())


def test_control_characters_in_a_name(own: DemoServer) -> None:
    own.call(lambda: setattr(own.archive.experiments["T_E1"].resources[0].entries[0], "path", "a\x01\r\nb"))
    assert (
        exchange(own, f"{FILES}/a%01%0D%0Ab", "Connection: close").headers["content-disposition"]
        == 'attachment; filename="a   b";'
    )


def test_percent_without_the_firewall(server: DemoServer) -> None:
    assert exchange(server, f"{FILES}/100%25.txt", "Connection: close").status == 400
    server.switches.firewall = False
    assert exchange(server, f"{FILES}/100%25.txt", "Connection: close").body == b"100%.txt"


TOMCAT = ["%2F", "%5c", "%00", "%", "%zz", "[", "]", "{", "}", "|", "é"]
FIREWALL = ["%25", ";x", "%3B", "%2E", "//", "./", "../"]


@pytest.mark.parametrize("bad", [*TOMCAT, *FIREWALL])
def test_refused_before_xnat(server: DemoServer, bad: str) -> None:
    seen = exchange(server, f"{FILES}/{bad}/x".encode())
    assert seen.status == 400 and b"HTTP Status 400" in seen.body and seen.headers["connection"] == "close"
    assert "accept-ranges" not in seen.headers


def test_literal_plus_next_to_a_space(own: DemoServer) -> None:
    own.call(lambda: setattr(own.archive.experiments["T_E1"].resources[0].entries[0], "path", "a+ b.txt"))
    assert exchange(own, f"{FILES}/a+%20b.txt", "Connection: close").status == 404
    assert exchange(own, f"{FILES}/a%2B%20b.txt", "Connection: close").status == 200


def test_missing(alice: Client) -> None:
    for name in ("nope.txt", "gone.bin", "PLAIN.TXT"):
        reply = alice.get(f"{FILES}/{name}")
        assert (
            reply.status_code == 404
            and "HTTP Status 404" in reply.text
            and "Unable to find file." in reply.text
        )
    assert alice.get(f"{FILES}/nope.txt?accept-not-found=true").status_code == 204
    head = alice.head(f"{FILES}/nope.txt")
    assert head.status_code == 404 and head.content == b""


def test_short_form_looks_into_the_first_resource_only(alice: Client) -> None:
    assert alice.get("/data/experiments/T_E1/files/plain.txt").content == b"plain.txt"
    assert alice.get("/data/experiments/T_E1/files/digits.txt").status_code == 404
    assert alice.get("/data/experiments/T_E1/files/0.dcm").status_code == 404
    assert alice.get("/data/experiments/T_E1/scans/1/files/2.dcm").content == bytes([2]) * 10


def test_files_in_zips(alice: Client) -> None:
    assert alice.get(f"{FILES}/pack.zip!/dir/in").content == b"two"
    inside = alice.get(f"{FILES}/pack.zip/top", headers={"Range": "bytes=0-0"})
    assert (inside.status_code, inside.content) == (200, b"one") and "Content-Length" not in inside.headers
    assert alice.rows(f"{FILES}/pack.zip?listContents=true") == [
        {"File Name": "top", "Size": "3"},
        {"File Name": "dir/in", "Size": "3"},
    ]
    assert alice.get(f"{FILES}/pack.zip!/nope").status_code == 404
    assert alice.get(f"{FILES}/x.zip/in.txt").status_code == 404  # a directory named x.zip is taken for a zip


def test_hundredth_request_closes(server: DemoServer) -> None:
    server.switches.requests_per_connection = 3
    with Client(server) as alice:
        closing = [alice.get(f"{FILES}/plain.txt").headers.get("Connection") for _ in range(4)]
        assert closing == ["keep-alive", "keep-alive", "close", "keep-alive"]
    ports = [record.connection for record in server.requests()]
    assert ports[0] == ports[1] == ports[2] != ports[3]


def test_idle_close(server: DemoServer) -> None:
    server.switches.idle_seconds = 0.2
    seen = exchange(server, f"{FILES}/plain.txt")
    assert seen.body == b"plain.txt" and 0.15 < seen.seconds < 10


def test_no_range_and_no_length(alice: Client, server: DemoServer) -> None:
    server.switches.no_range = True
    assert alice.get(BIG, headers={"Range": "bytes=0-9"}).status_code == 200
    server.switches.chunked_files = True
    reply = alice.get(BIG)
    assert reply.content == CONTENT and "Content-Length" not in reply.headers


def test_catalog_cost(alice: Client, server: DemoServer) -> None:
    server.switches.catalog_entry_cost_us = 10_000
    begin = time.monotonic()
    alice.get(f"{FILES}/plain.txt")
    assert time.monotonic() - begin > 0.1
