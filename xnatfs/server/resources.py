"""Resources and their files: what a session, a subject, a project or one resource holds.

Used by `listing.service`. Never one request a directory entry: one listing has all files of a session with
sizes and digests (xnat-rest.md 2.4, 2.9 point 6).
XNAT unites a scan with every scan whose *type* is its id, and gives a resource's number under any owner. So
whose a resource is tells its row in a listing of resources (`cat_id`), or the number in a bulk listing; never
an answer's having come (`_exactly`).
Threading: any thread; no state but the connection's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from xnatfs.errors import Cause, Failure
from xnatfs.server import claims
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import FileRecord, Owner, ResourceRecord
from xnatfs.server.resultset import Row, number, pick
from xnatfs.server.urls import (
    addressable,
    all_of,
    awkward,
    encode,
    files_path,
    owner_of,
    path_of,
    resource_number,
    resource_path,
    segment,
    split_file_uri,
)

log = logging.getLogger(__name__)

_MD5 = re.compile(r"[0-9a-f]{32}")
_LARGEST = (
    2**44
)  # bytes: ext4 holds no larger file, and what is here of one is remembered in a byte for each 128 KiB
_ASKED_SINGLY = 64  # files of a listing without sizes
_DEEPEST = 250  # folders: with names of a few letters a path has at most 4096 bytes (PATH_MAX)
_UNITED = frozenset(
    {"scan", "reconstruction", "assessor"}
)  # addressed by what may mean another, too: its type, its label
_CATEGORY_LEVELS = {
    "scans": "scan",
    "reconstructions": "reconstruction",
    "assessors": "assessor",
    "resources": "experiment",
}


@dataclass
class FileListing:
    """Files of one or many resources, in catalog order; `odd` are rows that say no file that can be served,
    with the reason.
    """

    files: list[FileRecord] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    unsized: list[int] = field(
        default_factory=list
    )  # places in `files` of those without a size in the listing


class Resources:
    """The resource and file listings of one server."""

    def __init__(self, listings: ListingRequests) -> None:
        self._table = listings.table
        self._size_of = listings.size_of
        self.capabilities = listings.capabilities

    # --- resources ------------------------------------------------------------------------------------------

    def of(self, owner: Owner) -> list[ResourceRecord]:
        """The resources of exactly one object; none where it has or is none."""
        united, name = owner.level in _UNITED, owner.id if owner.level == "assessor" else owner.part
        path = all_of(owner) if awkward(owner) else path_of(owner)
        rows = self._table(f"{path}/resources", claims.RESOURCES)
        ours = [
            row
            for row in rows
            if not united or pick(row, "cat_id") == name or not (pick(row, "cat_id") or awkward(owner))
        ]
        return list({one.id: one for one in (_resource(row, owner) for row in ours)}.values())

    def file_count(self, resource: ResourceRecord) -> int | None:
        """How many files the server counts in a resource; None where it has not counted them."""
        for one in self.of(resource.owner):
            if one.id == resource.id if resource.id is not None else one.label == resource.label:
                return one.file_count
        return None

    def of_session(self, session: str) -> list[ResourceRecord]:
        """Every resource of a session: its own, its scans', its reconstructions' (out) and its assessors'
        (out and plain).

        The rows tell the level and the scan, reconstruction or assessor id, but not whether an assessor's
        resource is `out` or plain (XNAT: `XNATTemplate.java:546-597`), so all are taken as "of the assessor".
        """
        path = f"/data/experiments/{segment(session)}/resources"
        rows = self._table(path, claims.RESOURCES_OF_SESSION, all="true")
        # One resource may be mapped to two owners (xnat-rest.md 12).
        found: dict[tuple[int, Owner], ResourceRecord] = {}
        for row in rows:
            level, part = _CATEGORY_LEVELS.get(pick(row, "category"), ""), pick(row, "cat_id")
            if not level or (level != "experiment" and part in ("", session)):
                what = f"a resource of {pick(row, 'category')!r} {part!r}"
                raise Failure(Cause.BAD_LISTING, path, what)
            owner = Owner("experiment", session)
            if level == "assessor":
                owner = Owner("assessor", part, session)
            elif level != "experiment":
                owner = Owner(level, session, part, "out" if level == "reconstruction" else "")
            record = _resource(row, owner)
            found[record.id or 0, owner] = record
        return list(found.values())

    def inputs_of_session(self, session: str, level: str) -> list[ResourceRecord]:
        """The `in` resources of all assessors or reconstructions of a session, which no other listing has."""
        plural = level + "s"
        rows = self._table(f"/data/experiments/{segment(session)}/{plural}/ALL/in/resources", claims.INPUTS)
        found: list[ResourceRecord] = []
        for row in rows:
            part = pick(row, "cat_id")
            ids = (part, session) if level == "assessor" else (session, part)
            found.append(_resource(row, Owner(level, *ids, "in")))
        return found

    # --- files ----------------------------------------------------------------------------------------------

    def files_of_session(self, session: str) -> FileListing:
        """All files of a session: its own resources', its scans', its reconstructions' (out) and its
        assessors' (out and plain).
        """
        rows = self._table(f"/data/experiments/{segment(session)}/files", all="true")
        return self._sized(_files(rows, partial(_of_session, session)))

    def files_of_sessions(
        self, sessions: Sequence[str], session_of: Callable[[str], str] = lambda assessor: ""
    ) -> dict[str, FileListing] | None:
        """All files of several sessions in one request (xnat-rest.md 2.5 [I]); None if a row does not tell
        which session it is of.

        Args:
            session_of: the session of an assessor: its own (plain) resources have URIs that name it as an
                experiment, without its session.

        Raises:
            Failure: also for one session whose catalog cannot be read, which says nothing of the others
                (xnat-rest.md 12).
        """
        rows = self._table(
            f"/data/experiments/{','.join(segment(one) for one in sessions)}/files", all="true"
        )
        theirs: dict[str, list[Row]] = {one: [] for one in sessions}
        for row in rows:
            split = split_file_uri(pick(row, "uri"), pick(row, "cat_id"))
            owner = owner_of(split[0]) if split is not None else None
            session = "" if owner is None else owner.part if owner.level == "assessor" else owner.id
            if session not in theirs:
                session = session_of(session)
            if session not in theirs:
                return None
            theirs[session].append(row)
        return {one: self._sized(_files(found, partial(_of_session, one))) for one, found in theirs.items()}

    def files_of(self, owner: Owner) -> FileListing:
        """All files of the resources of exactly one object."""
        rows = self._table(f"{all_of(owner) if awkward(owner) else path_of(owner)}/files")
        return self._sized(_files(self._exactly(owner, rows), lambda _: owner))

    def files_of_resource(self, resource: ResourceRecord) -> FileListing:
        """The files of one resource, asked for by its numeric id (by its label where that is all there
        is).
        """
        owner = resource.owner
        if resource.id is not None:
            rows = self._table(f"{resource_path(owner, resource.id)}/files")
        elif addressable(resource):
            rows = self._exactly(owner, self._table(f"{resource_path(owner, None, resource.label)}/files"))
        else:
            numbers = [one.id for one in self.of(owner) if one.label == resource.label]
            rows = [row for number in numbers for row in self._table(f"{resource_path(owner, number)}/files")]
        return self._sized(_files(rows, lambda _: owner))

    def _sized(self, listing: FileListing) -> FileListing:
        """The listing with the sizes it does not tell asked for, file by file: believed to be 0, tools that
        trust `stat` would copy nothing of them.

        Raises:
            Failure: BAD_LISTING if there are too many; what keeps the server from answering.
        """
        if len(listing.unsized) > _ASKED_SINGLY:
            what = f"the sizes of {len(listing.unsized)} of {len(listing.files)} files are not listed"
            raise Failure(Cause.BAD_LISTING, listing.files[0].base, what)
        for place in listing.unsized:
            record = listing.files[place]
            try:
                size = self._size_of(files_path(record) + "/" + encode(record.path))
            except Failure as failure:
                if failure.away or failure.status not in (400, 404):
                    raise
                size = None  # listed, and not there (xnat-rest.md 12)
            if size is None:
                listing.odd.append(
                    f"{record.uri!r}: its size is not listed and cannot be asked for; shown as 0"
                )
            else:
                listing.files[place] = record._replace(size=size)
        return listing

    def _exactly(self, owner: Owner, rows: list[Row]) -> list[Row]:
        """Of the rows that came for an object, its own. Their URIs tell; where one does not
        (`scans/2,4/...`), the listing of resources.
        """
        if owner.level not in _UNITED:
            return rows
        verdicts = [_same_object(owner, _named_owner(row)) for row in rows]
        if None not in verdicts:
            return [row for row, ours in zip(rows, verdicts, strict=True) if ours]
        ours = {str(one.id) for one in self.of(owner)}
        return [row for row in rows if pick(row, "cat_id") in ours]


def _resource(row: Row, owner: Owner) -> ResourceRecord:
    return ResourceRecord(
        owner,
        pick(row, "label"),
        number(pick(row, "xnat_abstractresource_id")),
        pick(row, "format"),
        number(pick(row, "file_count")),
        number(pick(row, "file_size")),
    )


def _named_owner(row: Row) -> Owner | None:
    split = split_file_uri(pick(row, "uri"), pick(row, "cat_id"))
    return owner_of(split[0]) if split is not None else None


def _same_object(owner: Owner, named: Owner | None) -> bool | None:
    """Whether a URI speaks of this scan, reconstruction or assessor; None where it does not say."""
    if named is None or named.level != owner.level:
        return (
            True if named == Owner("experiment", owner.id) and owner.level == "assessor" else None
        )  # an assessor is an experiment, too
    if owner.level == "assessor":
        return named.id == owner.id
    return named.part == owner.part or (None if awkward(named) or named.part == "ALL" else False)


def _of_session(session: str, base: str) -> Owner:
    return _within(owner_of(base), session)


def _within(owner: Owner | None, session: str) -> Owner:
    """The owner as seen from its session: an assessor may be addressed as an experiment of its own."""
    if owner is None:
        return Owner("experiment", session)
    if owner.level == "experiment" and owner.id != session:
        return Owner("assessor", owner.id, session)
    return owner


def _files(rows: Iterable[Row], owner_for: Callable[[str], Owner]) -> FileListing:
    listing = FileListing()
    # What the files of a resource have in common is worked out once: a project has 160,000 rows and a few
    # thousand resources.
    known: dict[
        str, tuple[str, Owner, int, str]
    ] = {}  # resource number -> the URIs' beginning, owner, number, label
    for row in rows:
        uri, resource = row.get("uri", ""), row.get("cat_id", "")
        common = known.get(resource)
        if common is None or not uri.startswith(common[0]):
            split = split_file_uri(uri, resource)
            identity = resource_number(uri, resource)
            if split is None or identity is None:
                # Left out, it would be missing from every copy.
                raise Failure(Cause.BAD_LISTING, uri, f"no file of a resource: {uri!r} of {resource!r}")
            base, path = split
            if reason := hostile(base[1:]):
                listing.odd.append(f"{uri!r}: below {reason}")
                continue
            common = known[resource] = (
                uri[: len(uri) - len(path)],
                owner_for(base),
                identity,
                row.get("collection", ""),
            )
        beginning, owner, identity, label = common
        path = uri[len(beginning) :]
        reason = hostile(path)
        if reason:
            listing.odd.append(f"{uri!r}: {reason}")
            continue
        size = number(row.get("size", ""))
        if size is None:
            listing.unsized.append(len(listing.files))
            size = 0
        if size > _LARGEST:
            listing.odd.append(f"{uri!r}: {size} bytes, more than any file system can store")
            continue
        # The digest names the file in the cache: nothing but one gets there.
        digest = row.get("digest", "").lower()
        listing.files.append(
            FileRecord(owner, identity, label, path, size, digest if _MD5.fullmatch(digest) else "")
        )
    if not listing.unsized and all(one.size == one.resource_id for one in listing.files):
        # The column has something else in it: more than one file of just that size is no chance.
        listing.unsized = list(range(len(listing.files)))
    return listing


def hostile(path: str) -> str:
    """Why a catalog path must not be followed; "" if it may. Such a path is reported, never asked for and
    never written.
    """
    if path.startswith("/"):
        return "an absolute path"
    parts = path.split("/")
    if ".." in parts:
        return "a path that leaves its resource"
    if len(parts) > _DEEPEST:
        return "a path too deep for any program"
    if "." in parts or "" in parts:
        # The server would have to be asked for a URL that every HTTP library rewrites.
        return "a path with an empty part or a single dot"
    return "a path with a NUL in it" if "\0" in path else ""
