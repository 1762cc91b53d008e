"""A subject as one JSON item: its own resources and those of everything below it, in one request
(xnat-rest.md 2.6).

Used by `listing.single` on servers that refuse the bulk forms. XNAT builds items from whole object trees, so
a subject's has its experiments with scans, assessors, reconstructions and all their resources; that
is checked before one is believed.
Pure functions but for `subject_item`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from xnatfs.server.connection import Connection
from xnatfs.server.json_stream import whole
from xnatfs.server.records import AssessorRecord, Owner, ReconstructionRecord, ResourceRecord, parse_stamp
from xnatfs.server.resultset import number
from xnatfs.server.urls import segment

Item = dict[str, Any]


@dataclass
class ExperimentItem:
    """What the item tells of one experiment."""

    scans: set[str] = field(default_factory=set)
    assessors: list[AssessorRecord] = field(default_factory=list)
    reconstructions: list[ReconstructionRecord] = field(default_factory=list)
    resources: list[ResourceRecord] = field(default_factory=list)


@dataclass
class SubjectItem:
    """What the item tells of a subject."""

    resources: list[ResourceRecord] = field(default_factory=list)
    experiments: dict[str, ExperimentItem] = field(default_factory=dict)


def subject_item(connection: Connection, subject: str) -> SubjectItem:
    """GET and read a subject's item.

    Raises:
        Failure: see `Connection.listing`; BAD_LISTING for what is no item.
    """
    return connection.listing(
        f"/data/subjects/{segment(subject)}",
        {"format": "json"},
        lambda response: read_subject(whole(response), subject),
    )


def read_subject(body: bytes, identity: str) -> SubjectItem:
    """The item of a subject.

    Raises:
        ValueError: it is none.
    """
    try:
        (item,) = json.loads(body)["items"]
        found = SubjectItem(_resources(item, "resources/resource", Owner("subject", identity)))
        for experiment in _children(item, "experiments/experiment"):
            session = _text(experiment, "ID")
            found.experiments[session] = _experiment(experiment, session)
        return found
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("no item") from None


def _experiment(item: Item, session: str) -> ExperimentItem:
    found = ExperimentItem(resources=_resources(item, "resources/resource", Owner("experiment", session)))
    for scan in _children(item, "scans/scan"):
        identity = _text(scan, "ID")
        found.scans.add(identity)
        found.resources += _resources(scan, "file", Owner("scan", session, identity))
    for one in _children(item, "assessors/assessor"):
        identity = _text(one, "ID")
        stamp = parse_stamp(_text(one, "insert_date"))
        found.assessors.append(
            AssessorRecord(
                identity, _text(one, "label"), session, str(one["meta"].get("xsi:type", "")), stamp
            )
        )
        for branch, direction in (("out/file", "out"), ("in/file", "in"), ("resources/resource", "")):
            found.resources += _resources(one, branch, Owner("assessor", identity, session, direction))
    for one in _children(item, "reconstructions/reconstructedImage"):
        identity = _text(one, "ID")
        found.reconstructions.append(ReconstructionRecord(session, identity, _text(one, "type")))
        for branch, direction in (("out/file", "out"), ("in/file", "in")):
            found.resources += _resources(one, branch, Owner("reconstruction", session, identity, direction))
    return found


def _resources(item: Item, branch: str, owner: Owner) -> list[ResourceRecord]:
    return [
        ResourceRecord(
            owner,
            _text(one, "label"),
            number(_text(one, "xnat_abstractresource_id")),
            _text(one, "format"),
            number(_text(one, "file_count")),
            number(_text(one, "file_size")),
        )
        for one in _children(item, branch)
    ]


def _children(item: Item, branch: str) -> Iterator[Item]:
    for group in item["children"]:
        if group["field"].lower() == branch.lower():
            yield from group["items"]


def _text(item: Item, name: str) -> str:
    value = item["data_fields"].get(name)
    return "" if value is None else str(value)
