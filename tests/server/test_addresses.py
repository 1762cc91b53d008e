"""Whose a resource and its files are, on a server that answers more than what was asked.

The answers are those that XNAT's own code gave (xnat-rest.md 13) for a session whose scan 4 is of the type
"2": by `/scans/2/...` both are united, and one resource asked for by its number names them both in its URIs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, scripted, xnat
from xnatfs.server.connection import Connection
from xnatfs.server.downloads import Downloads
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import FileRecord, Owner, ResourceRecord
from xnatfs.server.resources import Resources

TWO, FOUR = Owner("scan", "E1", "2"), Owner("scan", "E1", "4")
Answers = dict[str, list[dict[str, str]]]


def file(uri: str, number: int, label: str = "NIFTI") -> dict[str, str]:
    return {
        "Name": uri.rpartition("/")[2],
        "Size": "5",
        "URI": uri,
        "collection": label,
        "cat_ID": str(number),
        "digest": "",
    }


def held(number: int, label: str, scan: str, category: str = "scans") -> dict[str, str]:
    return {
        "xnat_abstractresource_id": str(number),
        "label": label,
        "category": category,
        "cat_id": scan,
        "file_count": "1",
    }


UNITED: Answers = {
    "/data/experiments/E1/scans/2/resources": [
        held(11, "NIFTI", "2"),
        held(10, "DICOM", "2"),
        held(14, "NIFTI", "4"),
    ],
    "/data/experiments/E1/scans/2/files": [
        file("/data/experiments/E1/scans/2/resources/11/files/t1.nii", 11),
        file("/data/experiments/E1/scans/2/resources/10/files/1.dcm", 10, "DICOM"),
        file("/data/experiments/E1/scans/4/resources/14/files/x.nii", 14),
    ],
    "/data/experiments/E1/scans/2/resources/NIFTI/files": [
        file("/data/experiments/E1/scans/2/resources/11/files/t1.nii", 11),
        file("/data/experiments/E1/scans/4/resources/14/files/x.nii", 14),
    ],
    "/data/experiments/E1/scans/2/resources/11/files": [
        file("/data/experiments/E1/scans/2,4/resources/11/files/t1.nii", 11)
    ],
    # Only one of the two has such a resource: its URI is what was asked.
    "/data/experiments/E1/scans/2/resources/DICOM/files": [
        file("/data/experiments/E1/scans/2,4/resources/10/files/1.dcm", 10, "DICOM")
    ],
    "/data/experiments/E1/scans/2/resources/SNAPSHOTS/files": [
        file("/data/experiments/E1/scans/2,4/resources/15/files/x.gif", 15, "SNAPSHOTS")
    ],
}


@contextlib.contextmanager
def answering(answers: Answers) -> Iterator[tuple[Connection, Callable[[], list[str]]]]:
    """A connection to a server with these listings (all else is 404), and the paths asked for since."""

    def script(one: Asked) -> Answer:
        rows: Any = answers.get(unquote(urlsplit(one.target).path))
        if rows is None:
            return xnat(one)
        return Answer(
            body=json.dumps({"ResultSet": {"Result": rows}}).encode(),
            headers={"Content-Type": "application/json"},
        )

    with scripted(script) as server, connection(server.url) as made:
        made.login()
        before = len(server.asked)
        yield made, lambda: [unquote(urlsplit(one.target).path) for one in server.asked[before:]]


def test_resources_of_a_scan_are_its_own() -> None:
    with answering(UNITED) as (made, _):
        resources = Resources(ListingRequests(made))
        assert {one.id for one in resources.of(TWO)} == {10, 11}
        assert resources.file_count(ResourceRecord(TWO, "NIFTI")) == 1


def test_files_of_a_scan_are_its_own() -> None:
    with answering(UNITED) as (made, asked):
        assert [(one.owner, one.path) for one in Resources(ListingRequests(made)).files_of(TWO).files] == [
            (TWO, "t1.nii"),
            (TWO, "1.dcm"),
        ]
        assert len(asked()) == 1


@pytest.mark.parametrize(
    ("resource", "paths", "requests"),
    [
        (ResourceRecord(TWO, "NIFTI", 11), ["t1.nii"], 1),
        (ResourceRecord(TWO, "NIFTI"), ["t1.nii"], 1),
        (
            ResourceRecord(TWO, "DICOM"),
            ["1.dcm"],
            2,
        ),  # its URI does not say whose it is: the resources' listing does
        (ResourceRecord(TWO, "SNAPSHOTS"), [], 2),
    ],
)
def test_files_of_a_resource_are_of_the_scan_that_was_asked_for(
    resource: ResourceRecord, paths: list[str], requests: int
) -> None:
    with answering(UNITED) as (made, asked):
        found = Resources(ListingRequests(made)).files_of_resource(resource)
        assert [one.path for one in found.files] == paths and not found.odd
        assert {one.owner for one in found.files} <= {TWO}
        assert len(asked()) == requests


def test_a_scan_whose_id_cannot_stand_in_a_url_is_told_by_the_rows() -> None:
    comma = Owner("scan", "E1", "1,2")
    answers = {
        "/data/experiments/E1/scans/ALL/resources": [held(1, "NIFTI", "1"), held(12, "NIFTI", "1,2")],
        "/data/experiments/E1/scans/ALL/files": [
            file("/data/experiments/E1/scans/1/resources/1/files/a", 1),
            file("/data/experiments/E1/scans/1,2/resources/12/files/b", 12),
        ],
        "/data/experiments/E1/scans/ALL/resources/12/files": [
            file("/data/experiments/E1/scans/1,1,2/resources/12/files/b", 12)
        ],
    }
    with answering(answers) as (made, _):
        resources = Resources(ListingRequests(made))
        assert [one.id for one in resources.of(comma)] == [12]
        assert [(one.owner, one.path) for one in resources.files_of(comma).files] == [(comma, "b")]
        assert [one.path for one in resources.files_of_resource(ResourceRecord(comma, "NIFTI")).files] == [
            "b"
        ]


@pytest.mark.parametrize("label", ["22", "NULL", "", "my res"])
def test_a_label_that_means_something_else_in_a_url_is_asked_for_by_its_number(label: str) -> None:
    """By `resources/22` the server gives whatever has that number, from any session: its having come says
    nothing.
    """
    owner = Owner("experiment", "E1")
    answers = {
        "/data/experiments/E1/resources": [
            held(7, label, "", "resources"),
            held(8, "other", "", "resources"),
        ],
        "/data/experiments/E1/resources/7/files": [
            file("/data/experiments/E1/resources/7/files/right", 7, label)
        ],
        "/data/experiments/E1/resources/22/files": [
            file("/data/experiments/E1/resources/22/files/of another session", 22)
        ],
    }
    with answering(answers) as (made, asked):
        assert [
            one.path
            for one in Resources(ListingRequests(made)).files_of_resource(ResourceRecord(owner, label)).files
        ] == ["right"]
        assert f"/data/experiments/E1/resources/{label}/files" not in asked()


def test_a_zip_is_asked_for_by_number() -> None:
    with answering({}) as (made, asked):
        with pytest.raises(OSError), Downloads(made).zip(FileRecord(TWO, 11, "NIFTI", "t1.nii", 5, "")):
            pass
        assert asked() == ["/data/experiments/E1/scans/2/resources/11/files"]
