"""The sessions a view is about: all of a project, or those of a list, which may come from several projects.

Used by the views (by scan type, by resource, BIDS). A scope is a name and a way to its members; the members
are looked up at each use, so that they are as fresh as the listings.
Threading: immutable; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from xnatfs.listing.snapshot import Derived, ProjectSnapshot
from xnatfs.server.records import ExperimentRecord, Owner, ResourceRecord, ScanRecord
from xnatfs.tree.resource import Sources

T = TypeVar("T")


class Member(NamedTuple):
    """A session of a scope, as one project shows it."""

    project: str
    experiment: ExperimentRecord


class Snapshot(NamedTuple):
    """The members at one moment, in order, and the snapshots of their projects; `memo` is kept as long as
    these are the newest.
    """

    members: list[Member]
    project_snapshots: dict[str, ProjectSnapshot]
    memo: Derived


@dataclass(frozen=True)
class SessionScope:
    """What a view is about.

    Args:
        identity: names it for inode numbers, as ("ALFA",) or ("list", "hippocampus").
        title: for people.
        members: the sessions, sorted by subject, label and id.
    """

    identity: tuple[str, ...]
    title: str
    members: Callable[[], Snapshot]

    def kept(self, key: Hashable, make: Callable[[Snapshot], T]) -> T:
        """Something made from the members, kept while they stay the same."""
        snapshot = self.members()
        return snapshot.memo.get((self.identity, key), lambda: make(snapshot))


def project_scope(sources: Sources, project: str) -> SessionScope:
    """All sessions of a project."""

    def members() -> Snapshot:
        project_snapshot = sources.listing_service.projects.get(project)
        return project_snapshot.memo.get(
            "scope",
            lambda: Snapshot(
                _ordered(project_snapshot, project), {project: project_snapshot}, project_snapshot.memo
            ),
        )

    return SessionScope((project,), f"project {project}", members)


def by_project(scope: SessionScope) -> list[tuple[str, tuple[str, ...]]]:
    """The projects of a scope's members, and the accession ids of each's."""
    sessions: dict[str, list[str]] = {}
    for member in scope.members().members:
        sessions.setdefault(member.project, []).append(member.experiment.id)
    return [(project, tuple(ids)) for project, ids in sessions.items()]


def scans_of(
    sources: Sources, snapshot: Snapshot, member: Member
) -> list[tuple[ScanRecord, list[ResourceRecord]]]:
    """The scans of a member with their resources; one request only where no bulk listing has them."""
    project_snapshot, identity = snapshot.project_snapshots[member.project], member.experiment.id
    if not member.experiment.may_have_scans:
        return []
    if identity in project_snapshot.scans_known:
        return [
            (scan, project_snapshot.resources.get(Owner("scan", identity, scan.id), []))
            for scan in project_snapshot.scans.get(identity, [])
        ]
    session = sources.listing_service.sessions.get(member.project, identity)
    return [(scan, session.of("scan", scan.id)) for scan in session.scans]


def scan_records(sources: Sources, snapshot: Snapshot, member: Member) -> list[ScanRecord]:
    """The scans of a member without their resources, which more servers list in bulk."""
    project_snapshot, identity = snapshot.project_snapshots[member.project], member.experiment.id
    if not member.experiment.may_have_scans:
        return []
    if identity in project_snapshot.speaks_for:
        return project_snapshot.scans.get(identity, [])
    return sources.listing_service.sessions.get(member.project, identity).scans


def scan_resources(
    sources: Sources, snapshot: Snapshot, member: Member, scan: ScanRecord
) -> list[ResourceRecord]:
    """The resources of one scan of a member."""
    project_snapshot, identity = snapshot.project_snapshots[member.project], member.experiment.id
    if identity in project_snapshot.scans_known:
        return project_snapshot.resources.get(Owner("scan", identity, scan.id), [])
    return sources.listing_service.sessions.get(member.project, identity).of("scan", scan.id)


def _ordered(project_snapshot: ProjectSnapshot, project: str) -> list[Member]:
    experiments = sorted(
        project_snapshot.experiments.values(),
        key=lambda experiment: (experiment.subject_label, experiment.label, experiment.id),
    )
    return [Member(project, experiment) for experiment in experiments]
