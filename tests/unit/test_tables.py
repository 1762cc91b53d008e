"""The envelope of a listing, its columns and its stamps."""

from __future__ import annotations

import io
import json

import pytest
import requests
import urllib3

from xnatfs.server.records import ExperimentRecord, parse_stamp
from xnatfs.server.resultset import has_column, number, pick, rows_of


def reply(body: object) -> requests.Response:
    response = requests.Response()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response.raw = urllib3.HTTPResponse(io.BytesIO(data), preload_content=False)
    return response


def test_rows_have_lower_case_keys_and_texts_only() -> None:
    rows = rows_of(
        reply({"ResultSet": {"Result": [{"ID": "E1", "Size": 3, "note": None}], "totalRecords": "1"}})
    )
    assert rows == [{"id": "E1", "size": "3", "note": ""}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Login</html>",
        b'{"ResultSet":{"Result":[{"ID":"E1"}',
        b'{"ResultSet":{"Result":[{"ID":"E1"}]}} trailing',
        {"items": []},
        {"ResultSet": {}},
        {"ResultSet": {"Result": 3}},
        {"ResultSet": {"Result": ["text"]}},
        [],
    ],
)
def test_anything_else_is_no_listing(body: object) -> None:
    with pytest.raises(ValueError):
        rows_of(reply(body))


def test_a_column_is_found_by_the_end_of_its_xpath() -> None:
    row = {"xnat:imagescandata/id": "1", "id": "E1", "label": ""}
    assert pick(row, "/imagescandata/id") == "1"
    assert pick(row, "ID") == "E1"
    assert pick(row, "label", "id") == "E1"
    assert pick(row, "nothing") == ""
    assert pick({"subject_id": "S"}, "/subject_id") == ""


def test_a_column_is_there_only_if_every_row_has_it() -> None:
    rows = [{"id": "", "xnat:imagescandata/file/label": ""}]
    assert has_column(rows, "/imagescandata/file/label")
    assert has_column(rows, "other spelling", "id")
    assert not has_column(rows, "/imagescandata/file/file_size")
    assert not has_column([*rows, {"id": "2"}], "/imagescandata/file/label")


def test_numbers_are_read_and_blanks_are_not() -> None:
    assert number("12") == 12
    assert number("") is None
    assert number("1.5") is None


def test_stamps_are_read_as_utc_with_any_fraction() -> None:
    assert parse_stamp("2024-03-05 06:07:08.62") == pytest.approx(1709618828.62)
    assert parse_stamp("2024-03-05 06:07:08.123456") == pytest.approx(1709618828.123456)
    assert parse_stamp("2024-03-05T06:07:08") == 1709618828.0
    assert parse_stamp("1970-01-01 00:00:00.0") == 0.0


@pytest.mark.parametrize(
    "text", ["", None, "yesterday", "2024-03-05", "2024-13-45 99:99:99.0", "05.03.2024 06:07:08"]
)
def test_what_is_no_stamp_has_no_time(text: str | None) -> None:
    assert parse_stamp(text) is None


@pytest.mark.parametrize(
    ("kind", "may"),
    [("xnat:mrSessionData", True), ("xnat:petSessionData", True), ("xnat:qcData", False), ("", False)],
)
def test_only_session_types_may_have_scans(kind: str, may: bool) -> None:
    assert ExperimentRecord("E", "l", "S", "s", kind, "", None, "").may_have_scans is may
