"""The rows of bulk listings as records, with what could not be learnt in bulk.

Used by `listing_requests` (which asks) and `listing.bulk` (which doubts). Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from xnatfs.server.claims import ABOUT_RECONSTRUCTIONS, ABOUT_SCANS
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    Owner,
    ProjectRecord,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
    SubjectRecord,
    parse_stamp,
)
from xnatfs.server.resultset import Row, has_column, number, pick

AGE = "xnat:subjectAssessorData/age"  # its alias is dropped (xnat-rest.md 14)


@dataclass
class BulkResources:
    """Resources as a bulk listing tells them: `known` holds the objects whose resources are told completely.

    `blank` names the columns (directions for assessors and reconstructions) that came back but were blank
    throughout. There may be nothing to tell, or the server does not know the path: one object has to be asked
    singly before it is believed.
    """

    resources: list[ResourceRecord] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # accession ids of all the listing has a row of
    known: set[str] = field(default_factory=set)  # of subjects, experiments or assessors
    blank: set[str] = field(default_factory=set)


@dataclass
class ScanListing:
    """Scans of a project; `resources.known` holds the sessions whose *scan* resources are complete."""

    scans: list[ScanRecord] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)  # sessions the listing speaks for
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)  # of sessions: primary project and label
    unplaced: set[str] = field(default_factory=set)  # sessions with a scan whose id the listing does not tell
    resources: BulkResources = field(default_factory=BulkResources)


@dataclass
class AssessorListing:
    """Image assessors of a project; `resources.known` holds those whose resources (in, out and plain) are
    complete.
    """

    assessors: list[AssessorRecord] = field(default_factory=list)
    resources: BulkResources = field(default_factory=BulkResources)
    unplaced: list[str] = field(default_factory=list)  # accession ids of those whose session it does not tell


@dataclass
class ReconstructionListing:
    """Reconstructions of a project; `resources.known` holds the sessions whose reconstructions' resources are
    complete.
    """

    reconstructions: list[ReconstructionRecord] = field(default_factory=list)
    resources: BulkResources = field(default_factory=BulkResources)
    unplaced: set[str] = field(default_factory=set)  # sessions with one whose id the listing does not tell


def experiment_of(row: Row) -> ExperimentRecord:
    """The experiment of a row, without a stamp."""
    return ExperimentRecord(
        id=pick(row, "id"),
        label=pick(row, "label"),
        subject_id=pick(row, "subject_id", "/subject_id"),
        subject_label=pick(row, "subject_label", "/subjectdata/label"),
        xsi_type=pick(row, "xsitype"),
        date=pick(row, "date"),
        inserted=parse_stamp(pick(row, "insert_date")),
        changed="",
        time=pick(row, "time"),
        age=row.get(AGE.lower()),
    )


def projects_of(rows: Iterable[Row]) -> list[ProjectRecord]:
    """The projects of the rows of `ListingRequests.projects`, one row a project x resource."""
    heads: dict[str, Row] = {}
    resources: dict[str, list[tuple[int, str, int | None]]] = {}
    for row in rows:
        if not (identity := pick(row, "id")):
            continue
        heads.setdefault(identity, row)
        theirs = resources.setdefault(identity, [])
        resource = number(pick(row, "/resources/resource/xnat_abstractresource_id"))
        if resource is not None:
            theirs.append(
                (
                    resource,
                    pick(row, "/resources/resource/label"),
                    number(pick(row, "/resources/resource/file_count")),
                )
            )
    return [
        ProjectRecord(
            one,
            pick(row, "name"),
            pick(row, "description"),
            parse_stamp(pick(row, "/insert_date")),
            tuple(sorted(resources[one])),
        )
        for one, row in heads.items()
    ]


def subjects_of(rows: Iterable[Row]) -> list[SubjectRecord]:
    """The subjects of their rows, each once."""
    found: dict[str, SubjectRecord] = {}
    for row in rows:
        if identity := pick(row, "id"):
            # Blank is a stamp, too: never changed. Without the column nothing is known of changes.
            changed = pick(row, "last_modified") or ("never" if "last_modified" in row else "")
            found[identity] = SubjectRecord(
                identity, pick(row, "label"), parse_stamp(pick(row, "insert_date")), changed
            )
    return list(found.values())


def assessors_of(rows: Iterable[Row], session: str = "") -> list[AssessorRecord]:
    """The assessors of their rows, each once; `session` is that of all of them where the rows do not tell
    it.
    """
    found: dict[str, AssessorRecord] = {}
    for row in rows:
        identity, parent = pick(row, "id"), pick(row, "session_id", "/imagesession_id") or session
        if identity and parent:
            found[identity] = AssessorRecord(
                identity,
                pick(row, "label"),
                parent,
                pick(row, "xsitype"),
                parse_stamp(pick(row, "insert_date")),
            )
    return list(found.values())


def assessor_owner(direction: str, row: Row) -> Owner:
    """What a row's resource in this direction belongs to."""
    return Owner("assessor", pick(row, "id"), pick(row, "session_id", "/imagesession_id"), direction)


def reconstruction_owner(direction: str, row: Row) -> Owner:
    """What a row's resource in this direction belongs to."""
    return Owner("reconstruction", pick(row, "id"), pick(row, "/reconstructedimagedata/id"), direction)


def scans_of(rows: Iterable[Row]) -> ScanListing:
    """The scans of the rows of `ListingRequests.scans`, one row a scan x resource."""
    listing = ScanListing()
    scans: dict[tuple[str, str], ScanRecord] = {}
    with_scan: list[Row] = []
    for row in rows:
        session, scan = pick(row, "id"), pick(row, "/imagescandata/id")
        listing.sessions.add(session)
        listing.labels[session] = pick(row, "project"), pick(row, "label")
        if scan:  # a session without scans is one row of blanks
            with_scan.append(row)
            found = ScanRecord(
                session,
                scan,
                pick(row, "/imagescandata/type"),
                pick(row, "/imagescandata/series_description"),
                pick(row, "/imagescandata/quality"),
                pick(row, "/imagescandata/frames"),
                pick(row, "/imagescandata/starttime"),
            )
            if found.type or (session, scan) not in scans:
                scans[session, scan] = found
        elif any(pick(row, *column) for column in ABOUT_SCANS):
            listing.unplaced.add(session)
    listing.sessions -= listing.unplaced
    listing.scans = list(scans.values())
    collect(
        listing.resources,
        with_scan,
        "/imagescandata/file",
        lambda row: Owner("scan", pick(row, "id"), pick(row, "/imagescandata/id")),
    )
    listing.resources.known |= listing.sessions - {pick(row, "id") for row in with_scan}
    return listing


def collect(
    bulk: BulkResources,
    rows: Iterable[Row],
    branch: str,
    owner_of: Callable[[Row], Owner],
    *,
    blank_is_none: bool = False,
) -> None:
    """Resources from the columns `branch/label` (and `branch/xnat_abstractresource_id`, ...) into `bulk`.

    With the numeric id every resource is certain. With labels alone a blank may be "no resource" or "a
    resource without a label", and a label that comes twice for one owner hides a second resource: such
    objects are left out of `server.identity` and asked singly. `blank_is_none` takes a blank for "no
    resource" all the same, where most objects have none and asking each would cost a request.
    """
    seen: dict[tuple[Owner, int | str], ResourceRecord] = {}
    uncertain: set[str] = set()
    everyone: set[str] = set()
    id_column = f"{branch}/xnat_abstractresource_id"
    for row in rows:
        one = pick(row, "id")
        everyone.add(one)
        label, identity = pick(row, f"{branch}/label"), number(pick(row, id_column))
        if identity is None and not label:
            if not blank_is_none and not has_column([row], id_column):
                uncertain.add(one)
            continue
        owner = owner_of(row)
        if identity is None and ((owner, label) in seen or has_column([row], id_column)):
            uncertain.add(
                one
            )  # a column of ids that is there but blank is no better than none, and may hide equal labels
        seen[owner, label if identity is None else identity] = ResourceRecord(
            owner,
            label,
            identity,
            "",
            number(pick(row, f"{branch}/file_count")),
            number(pick(row, f"{branch}/file_size")),
        )
    bulk.resources += seen.values()
    bulk.seen |= everyone
    bulk.known |= everyone - uncertain
    if not seen and everyone:
        bulk.blank.add(branch)


def assessor_listing(rows: Sequence[Row], branches: Mapping[str, str]) -> AssessorListing:
    """The assessors of the rows of `ListingRequests.assessors`, one row an assessor x resource; `branches`
    are the paths of the resources by their direction.
    """
    found = assessors_of(rows)
    bulk = BulkResources()
    parts: list[BulkResources] = []
    for direction, branch in branches.items():
        tail = "/" + branch.split("/", 1)[1]
        if not rows or not has_column(rows, f"{tail}/label"):
            break
        parts.append(BulkResources())
        collect(parts[-1], rows, tail, partial(assessor_owner, direction))
    if len(parts) == len(branches):
        bulk.resources = [resource for part in parts for resource in part.resources]
        bulk.known = set.intersection(*(part.known for part in parts))
        bulk.blank = {direction for direction, part in zip(branches, parts, strict=True) if part.blank}
    unplaced = sorted({pick(row, "id") for row in rows} - {one.id for one in found})
    return AssessorListing(found, bulk, unplaced)


def reconstruction_listing(rows: Sequence[Row], branches: Mapping[str, str]) -> ReconstructionListing:
    """The reconstructions of the rows of `ListingRequests.reconstructions`; `branches` as above."""
    found: dict[tuple[str, str], ReconstructionRecord] = {}
    bulk = BulkResources(known={pick(row, "id") for row in rows})
    theirs: list[Row] = []
    unplaced: set[str] = set()
    for row in rows:
        session, identity = pick(row, "id"), pick(row, "/reconstructedimagedata/id")
        if identity:
            theirs.append(row)
            kind = pick(row, "/reconstructedimagedata/type")
            found[session, identity] = ReconstructionRecord(session, identity, kind)
        elif any(pick(row, *column) for column in ABOUT_RECONSTRUCTIONS):
            unplaced.add(session)
    sessions = {pick(row, "id") for row in theirs}
    for direction, branch in branches.items():
        part = BulkResources()
        tail = "/" + branch.split(":", 1)[1].lower()
        collect(part, theirs, tail, partial(reconstruction_owner, direction))
        bulk.resources += part.resources
        bulk.blank |= {direction} if part.blank else set()
        bulk.known -= sessions - part.known
    return ReconstructionListing(list(found.values()), bulk, unplaced)
