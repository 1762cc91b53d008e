"""Bytes: a file as a stream, a resource as a zip, and everything that can go wrong on the way."""

from __future__ import annotations

import hashlib

import pytest

from tests.server.conftest import connection
from xnatfs.config import Limits
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.connection import Connection
from xnatfs.server.downloads import Downloads, only_in_zip, out_of_reach
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import FileRecord
from xnatfs.server.resources import Resources


@pytest.fixture
def contents(logged_in: Connection) -> Downloads:
    return Downloads(logged_in)


def true_file(server: DemoServer, resource: str, path: str, project: str = "MESSY") -> TrueFile:
    return next(
        one for one in files(server.archive, project, "demo") if one.resource == resource and one.path == path
    )


def record_of(server: DemoServer, connection: Connection, resource: str, path: str) -> FileRecord:
    truth = true_file(server, resource, path)
    listed = Resources(ListingRequests(connection)).files_of_session(truth.session_id)
    server.clear_log()
    return next(one for one in listed.files if one.resource_id == truth.resource_id and one.path == path)


def whole(contents: Downloads, record: FileRecord) -> bytes:
    with contents.file(record) as stream:
        return b"".join(stream.pieces)


def test_a_file_comes_in_pieces_with_its_size_and_date(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    record = record_of(server, logged_in, "LARGE", "nine.bin")
    digest, count = hashlib.md5(usedforsecurity=False), 0
    with contents.file(record) as stream:
        assert stream.size == record.size
        assert stream.last_modified.endswith("GMT")
        for piece in stream.pieces:
            assert len(piece) <= 1 << 20
            digest.update(piece)
            count += 1
    assert count > 8
    assert digest.hexdigest() == true_file(server, "LARGE", "nine.bin").digest
    assert len(server.requests()) == 1
    assert logged_in.slots.in_use == 0


def test_every_ordinary_file_of_the_messy_project_can_be_had(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    """Names with blanks, accents, line ends, pluses; scans with a slash, a per cent sign or a comma in their
    ids.
    """
    resources = Resources(ListingRequests(logged_in))
    for session in [
        one for one in server.archive.experiments.values() if one.label in ("m01_scans", "m05_names")
    ]:
        truth = {
            (one.resource_id, one.path): one
            for one in files(server.archive, "MESSY", "demo")
            if one.session_id == session.id
        }
        for record in resources.files_of_session(session.id).files:
            if not only_in_zip(record.path) and not out_of_reach(record.path):
                assert (
                    hashlib.md5(whole(contents, record)).hexdigest()
                    == truth[record.resource_id, record.path].digest
                ), record.uri


def test_a_file_of_no_bytes(server: DemoServer, logged_in: Connection, contents: Downloads) -> None:
    assert whole(contents, record_of(server, logged_in, "TREE", "empty.txt")) == b""


def test_a_file_without_a_length_is_read_to_its_end(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    server.switches.chunked_files = True
    record = record_of(server, logged_in, "SIZES", "right.bin")
    with contents.file(record) as stream:
        assert stream.size is None
        assert b"".join(stream.pieces) == true_file(server, "SIZES", "right.bin").read()


def test_a_listed_file_that_is_not_there_is_gone(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    record = record_of(server, logged_in, "GONE", "gone.bin")
    with pytest.raises(Failure) as caught, contents.file(record):
        pytest.fail("there is no such file")
    assert (caught.value.cause, caught.value.status) == (Cause.GONE, 404)
    assert "gone.bin" in str(caught.value)
    assert logged_in.slots.in_use == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_that_is_cut_is_told(
    server: DemoServer, logged_in: Connection, contents: Downloads, chunked: bool
) -> None:
    record = record_of(server, logged_in, "LARGE", "nine.bin")
    server.switches.chunked_files = chunked
    server.switches.cut_after_bytes = 3_000_000
    with pytest.raises(Failure) as caught:
        whole(contents, record)
    assert caught.value.cause is Cause.CUT_SHORT
    assert logged_in.slots.in_use == 0


def test_a_stream_that_ends_before_its_length_is_told(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    record = record_of(server, logged_in, "SIZES", "right.bin")
    server.switches.truncate_after_bytes = 1000
    with pytest.raises(Failure) as caught:
        whole(contents, record)
    assert caught.value.cause is Cause.CUT_SHORT


def test_a_stream_that_stalls_is_given_up(server: DemoServer) -> None:
    with connection(
        server.url, limits=Limits(progress_deadline=0.4, connect_timeout=5, listing_deadline=20)
    ) as made:
        made.login()
        record = record_of(server, made, "SIZES", "right.bin")
        server.switches.stall_after_bytes = 1000
        with pytest.raises(Failure) as caught:
            whole(Downloads(made), record)
        assert caught.value.cause is Cause.TIMED_OUT


@pytest.mark.parametrize("status", [500, 403])
def test_the_body_of_an_error_is_never_content(
    server: DemoServer, logged_in: Connection, contents: Downloads, status: int
) -> None:
    record = record_of(server, logged_in, "SIZES", "right.bin")
    server.switches.fail_status, server.switches.fail_next = status, -1
    with pytest.raises(Failure) as caught:
        whole(contents, record)
    assert caught.value.status == status


def test_a_login_page_is_never_content(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    record = record_of(server, logged_in, "SIZES", "right.bin")
    server.switches.match = "/files/"
    server.switches.html_instead = 1
    assert whole(contents, record) == true_file(server, "SIZES", "right.bin").read()
    server.switches.html_instead = -1
    with pytest.raises(Failure) as caught:
        whole(contents, record)
    assert caught.value.cause is Cause.NOT_DATA


def test_a_web_page_that_is_a_file_is_content(own: DemoServer) -> None:
    """A QC report: `text/html`, but sent as a file."""
    from xnatfs.demo.model import BytesContent, CatalogEntry

    session = next(iter(own.archive.experiments.values()))
    group = session.scans[0].resources[0].entries
    own.call(
        lambda: group.append(
            CatalogEntry("report.html", BytesContent(b"<html>fine</html>"), own.archive.clock)
        )
    )
    with connection(own.url) as made:
        made.login()
        listed = Resources(ListingRequests(made)).files_of_session(session.id).files
        record = next(one for one in listed if one.path == "report.html")
        assert whole(Downloads(made), record) == b"<html>fine</html>"
        assert len(own.requests("GET /data/JSESSION")) == 1


def test_an_unchanged_file_costs_no_body(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    record = record_of(server, logged_in, "SIZES", "right.bin")
    with contents.file(record) as stream:
        stamp = stream.last_modified
        for _ in stream.pieces:
            pass
    server.clear_log()
    assert contents.unchanged(record, stamp)
    assert not contents.unchanged(record, "Tue, 05 Mar 1999 06:07:08 GMT")
    assert [one.status for one in server.requests()] == [304, 200]
    assert server.requests()[0].sent == 0


def test_a_zip_has_every_file_of_the_resource(
    server: DemoServer, logged_in: Connection, contents: Downloads
) -> None:
    for resource, path in (("NAMES", "a+b.txt"), ("TREE", "real.zip")):
        record = record_of(server, logged_in, resource, path)
        truth = {
            one.path: one.read()
            for one in files(server.archive, "MESSY", "demo")
            if one.resource_id == record.resource_id
        }
        with contents.zip(record) as members:
            found = {name: (size, b"".join(pieces)) for name, size, pieces in members}
        assert {name: data for name, (_, data) in found.items()} == truth
        assert all(size == len(data) for size, data in found.values())
        assert len(server.requests()) == 1


def test_a_zip_that_is_cut_is_told(server: DemoServer, logged_in: Connection, contents: Downloads) -> None:
    record = record_of(server, logged_in, "LARGE", "nine.bin")
    for fault in ("cut_after_bytes", "truncate_after_bytes"):
        setattr(server.switches, fault, 1_000_000)
        with pytest.raises(Failure) as caught, contents.zip(record) as members:
            for _, _, pieces in members:
                for _ in pieces:
                    pass
        assert caught.value.cause is Cause.CUT_SHORT
        setattr(server.switches, fault, -1)


@pytest.mark.parametrize("path", ["50%.txt", "a;b", "x.zip/in.txt", "a/X.JAR/b/c"])
def test_names_that_xnat_refuses_singly_are_known(path: str) -> None:
    assert only_in_zip(path)


@pytest.mark.parametrize("path", ["a.zip", "plain/b+c.txt", "zip/a", "é #.txt"])
def test_other_names_are_asked_for_singly(path: str) -> None:
    assert not only_in_zip(path) and not out_of_reach(path)


@pytest.mark.parametrize("path", ["a\\b", "folder\\/b.txt", "a\tb"])
def test_names_that_xnat_gives_in_no_way_are_known(path: str) -> None:
    assert out_of_reach(path) and not only_in_zip(path)


def test_downloads_leave_a_connection_for_listings(server: DemoServer) -> None:
    with connection(server.url, limits=Limits(connections=2, listing_deadline=10)) as made:
        made.login()
        record = record_of(server, made, "SIZES", "right.bin")
        with Downloads(made).file(record):
            assert len(ListingRequests(made).projects()) == len(READABLE)
