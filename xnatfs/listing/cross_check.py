"""What the bulk listings of one project say about each other: no request, only what is in doubt.

Used by `listing.bulk`, which asks singly about the sessions named here, or in another form.
Threading: pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from xnatfs.listing.snapshot import owner_session
from xnatfs.server.bulk_rows import AssessorListing, BulkResources, ReconstructionListing, ScanListing
from xnatfs.server.records import ExperimentRecord, Owner, ScanRecord, SubjectRecord


def claimed_twice(*listings: BulkResources) -> set[str]:
    """The sessions of resources that two objects claim by number. XNAT can map one to two assessors
    (xnat-rest.md 12), which is rare enough to ask about.
    """
    owners: defaultdict[int, set[Owner]] = defaultdict(set)
    for listing in listings:
        for resource in listing.resources:
            if resource.id is not None:
                owners[resource.id].add(resource.owner)
    return {
        owner_session(owner) for claimants in owners.values() if len(claimants) > 1 for owner in claimants
    } - {""}


def unplaced_sessions(scans: ScanListing, reconstructions: ReconstructionListing | None) -> set[str]:
    """The sessions with something below them whose id the listings do not tell."""
    return scans.unplaced | (reconstructions.unplaced if reconstructions is not None else set())


class _Labelled(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def changed(self) -> str: ...


_L = TypeVar("_L", bound=_Labelled)


def doubtful(before: Iterable[_L], now: Mapping[str, _L]) -> bool:
    """Whether a listing of subjects or experiments has to be compared with another form: something is gone or
    new, is named otherwise although its stamp stayed, has no label of its own, or that of another one (XNAT
    lets a project have each label once).
    """
    before = list(before)
    labels = {one.label for one in now.values()}
    if not now or "" in labels or len(labels) < len(now):
        return True
    if before and now.keys() - {one.id for one in before}:
        return True
    for one in before:
        found = now.get(one.id)
        if found is None or (found.label != one.label and found.changed == one.changed):
            return True
    return all(one.label == one.id for one in now.values())


def labels_differ(project: str, experiments: Mapping[str, ExperimentRecord], scans: ScanListing) -> bool:
    """Whether the listing of scans names a session otherwise than the one of experiments. It has primary
    labels, so only those of the project itself are compared.
    """
    return any(
        where == project and label and identity in experiments and experiments[identity].label != label
        for identity, (where, label) in scans.labels.items()
    )


def subjects_differ(experiments: Iterable[ExperimentRecord], subjects: Mapping[str, SubjectRecord]) -> bool:
    """Whether the subjects' listing lacks a subject that has an experiment, or names one otherwise. (A
    session may be shared without its subject, too: xnat-rest.md 12.)
    """
    return any(
        one.subject_id not in subjects or one.subject_label not in ("", subjects[one.subject_id].label)
        for one in experiments
        if one.subject_id
    )


def assessors_unnamed(assessors: AssessorListing) -> bool:
    """Whether no assessor has a label of its own."""
    return bool(assessors.assessors) and all(one.label in ("", one.id) for one in assessors.assessors)


def untyped_scans(scans: ScanListing) -> list[ScanRecord]:
    """The scans without a type, or with what can be none."""
    return [one for one in scans.scans if one.type in ("", one.id, one.session_id)]
