"""What a server grants, found out by trying: Range requests, conditions, and its clock.

Used by `doctor` and `self_test`. A reverse proxy can change each, so no documentation replaces the probe
(xnat-rest.md 3).
"""

from __future__ import annotations

import email.utils
import hashlib
import itertools
import time

from xnatfs.errors import Failure
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import FileRecord, Owner
from xnatfs.server.resources import Resources
from xnatfs.server.urls import encode, files_path

_LOOKED_AT = 3  # projects, and sessions of each


def some_file(listings: ListingRequests) -> FileRecord | None:
    """Any file that is not empty, from the first few projects and sessions."""
    resources = Resources(listings)
    for project in itertools.islice(listings.projects(), _LOOKED_AT):
        try:
            owners = [Owner("project", project.id)]
            owners += [
                Owner("experiment", one.id)
                for one in itertools.islice(listings.experiments(project.id), _LOOKED_AT)
            ]
            for owner in owners:
                listed = (
                    resources.files_of(owner)
                    if owner.level == "project"
                    else resources.files_of_session(owner.id)
                )
                for file in listed.files:
                    if file.size > 0:
                        return file
        except Failure:
            continue
    return None


def range_works(connection: Connection, file: FileRecord) -> bool:
    """Whether `Range: bytes=0-0` gives a 206 with the right Content-Range and one byte."""
    path = f"{files_path(file)}/{encode(file.path)}"
    response = connection.get(path, headers={"Range": "bytes=0-0"}, stream=True, accept=frozenset({200, 206}))
    try:
        if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(
            "bytes 0-0/"
        ):
            return False
        return len(response.raw.read(2)) == 1
    finally:
        response.close()


def clock_offset(connection: Connection) -> float | None:
    """Seconds by which the server's clock is ahead of this machine's; None if it does not tell."""
    response = connection.get("/data/auth")
    try:
        return email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None


def condition_works(connection: Connection, file: FileRecord, last_modified: str) -> bool:
    """Whether a part is given with `If-Unmodified-Since` as long as the file is the same, and refused (412)
    once it is another: so a file is never put together of two.
    """
    path = f"{files_path(file)}/{encode(file.path)}"
    statuses = []
    for since in (last_modified, "Mon, 01 Jan 1990 00:00:00 GMT"):
        headers = {"Range": "bytes=0-0", "If-Unmodified-Since": since}
        with connection.get(
            path, headers=headers, stream=True, accept=frozenset({200, 206, 412})
        ) as response:
            statuses.append(response.status_code)
    return statuses[0] in (200, 206) and statuses[1] == 412


def whole_file(connection: Connection, file: FileRecord) -> tuple[int, str, str]:
    """(bytes, MD5, Last-Modified) of a file as it is sent; at most a few bytes more than listed are read."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with connection.get(f"{files_path(file)}/{encode(file.path)}", stream=True) as response:
        last_modified = response.headers.get("Last-Modified", "")
        while size <= file.size and (piece := response.raw.read(65536, decode_content=True)):
            size += len(piece)
            digest.update(piece)
    return size, digest.hexdigest(), last_modified
