"""What one project, and one session, are known to hold: plain values built from records.

Made by the listings, read by the tree. Immutable by agreement once published: a change makes a new value, and
what is learnt of a single session or subject is kept beside (`sessions`). Only memos are filled in later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from xnatfs.listing.prefetch import WalkOrder
from xnatfs.server.bulk_rows import AssessorListing, BulkResources, ReconstructionListing, ScanListing
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    FileRecord,
    Owner,
    ProjectRecord,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
    SubjectRecord,
)

T = TypeVar("T")


class Derived:
    """What others derive from a snapshot and want to keep as long as these live."""

    def __init__(self) -> None:
        self._derived: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made now if it is not there. Two threads may both make it; one value stays."""
        try:
            return cast(T, self._derived[key])
        except KeyError:
            return cast(T, self._derived.setdefault(key, make()))


@dataclass
class ProjectSnapshot:
    """A project down to the labels of resources, as far as bulk listings tell.

    `complete` holds the ids of experiments, and `complete_subjects` of subjects, whose resources are all in
    `resources`; `speaks_for` the sessions whose scans are all in `scans`. `order` is the experiments,
    `subject_order` the subjects, as the tree lists them.
    """

    project: ProjectRecord
    subjects: dict[str, SubjectRecord] = field(default_factory=dict)
    experiments: dict[str, ExperimentRecord] = field(default_factory=dict)
    of_subject: dict[str, list[ExperimentRecord]] = field(default_factory=dict)
    order: WalkOrder = field(default_factory=WalkOrder)
    subject_order: WalkOrder = field(default_factory=WalkOrder)
    scans: dict[str, list[ScanRecord]] = field(default_factory=dict)
    speaks_for: set[str] = field(default_factory=set)
    scans_known: set[str] = field(default_factory=set)  # of these, also every resource of every scan
    assessors: dict[str, list[AssessorRecord]] = field(default_factory=dict)
    reconstructions: dict[str, list[ReconstructionRecord]] = field(default_factory=dict)
    resources: dict[Owner, list[ResourceRecord]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    complete_subjects: set[str] = field(default_factory=set)
    renewed: set[str] = field(
        default_factory=set
    )  # sessions that changed since the bulk listings: each is asked for by itself
    own_resources: list[ResourceRecord] = field(default_factory=list)
    made: float | None = None  # when all of it was last listed, as the clock of the listings says
    memo: Derived = field(default_factory=Derived, compare=False)

    def add_subjects(self, subjects: Iterable[SubjectRecord], bulk: BulkResources) -> None:
        """What the subjects' listing told."""
        self.subjects = {one.id: one for one in subjects}
        self.complete_subjects = set(bulk.known)
        self.add_resources(bulk.resources)

    def add_sessions(
        self,
        own: BulkResources,
        scans: ScanListing,
        assessors: AssessorListing,
        reconstructions: ReconstructionListing | None,
        in_doubt: Collection[str] = (),
    ) -> None:
        """What the listings below experiments told. An experiment is complete where every one of them speaks
        for it, and it is not `in_doubt`.
        """
        for scan in scans.scans:
            self.scans.setdefault(scan.session_id, []).append(scan)
        self.speaks_for = scans.sessions
        self.scans_known = scans.sessions & scans.resources.known
        for assessor in assessors.assessors:
            self.assessors.setdefault(assessor.session_id, []).append(assessor)
        complete = own.known & set(self.experiments)
        complete -= scans.sessions - scans.resources.known
        complete -= {one.session_id for one in assessors.assessors if one.id not in assessors.resources.known}
        parts = [own, scans.resources, assessors.resources]
        if reconstructions is None:
            complete -= {one.id for one in self.experiments.values() if one.may_have_scans}
        else:
            for reconstruction in reconstructions.reconstructions:
                self.reconstructions.setdefault(reconstruction.session_id, []).append(reconstruction)
            complete -= {
                one.session_id for one in reconstructions.reconstructions
            } - reconstructions.resources.known
            parts.append(reconstructions.resources)
        for part in parts:
            self.add_resources(part.resources)
        self.complete = complete - set(in_doubt)

    def take_over(self, before: ProjectSnapshot) -> None:
        """What an earlier listing told completely and this one does not, of sessions and subjects whose stamp
        did not move meanwhile: a form that fails for a minute must not make anything less known than it
        was.
        """
        lacking = [
            one
            for identity, one in self.experiments.items()
            if one.changed
            and before.experiments.get(identity) == one
            and self.session(one) is None
            and before.session(one) is not None
        ]
        theirs = {one.id for one in lacking}
        unknown = [
            one for one in self.subjects.values() if one.changed and one.id not in self.complete_subjects
        ]
        subjects = {
            one.id
            for one in unknown
            if one.id in before.complete_subjects and before.subjects.get(one.id) == one
        }
        if not theirs and not subjects:
            return
        self.scans = _with(self.scans, before.scans, theirs)
        self.assessors = _with(self.assessors, before.assessors, theirs)
        self.reconstructions = _with(self.reconstructions, before.reconstructions, theirs)
        self.resources = {
            owner: found
            for owner, found in self.resources.items()
            if owner_session(owner) not in theirs and not (owner.level == "subject" and owner.id in subjects)
        }
        for owner, found in before.resources.items():
            if owner_session(owner) in theirs or (owner.level == "subject" and owner.id in subjects):
                self.resources[owner] = found
        self.complete |= theirs
        self.speaks_for |= theirs & before.speaks_for
        self.scans_known |= theirs & before.scans_known
        self.complete_subjects |= subjects
        self.memo = Derived()

    def put_in_order(self) -> None:
        """Fill `of_subject` and `order` from `subjects` and `experiments`; subjects nobody listed are made up
        from the experiments.
        """
        by_label = {one.label: one.id for one in self.subjects.values()}
        for experiment in self.experiments.values():
            label = experiment.subject_label
            subject = experiment.subject_id or by_label.get(label) or label
            if subject not in self.subjects:
                self.subjects[subject] = SubjectRecord(
                    subject, experiment.subject_label, experiment.inserted, ""
                )
                self.complete_subjects.add(
                    subject
                )  # not shared into this project, so neither are its resources
            self.of_subject.setdefault(subject, []).append(experiment)
        self.subjects = {
            one.id: one for one in sorted(self.subjects.values(), key=lambda one: (one.label, one.id))
        }
        for subject in self.subjects:
            theirs = self.of_subject.setdefault(subject, [])
            theirs.sort(key=lambda one: (one.label, one.id))
        self.order = WalkOrder(one.id for subject in self.subjects for one in self.of_subject[subject])
        self.subject_order = WalkOrder(self.subjects)

    def assessor_sessions(self) -> dict[str, str]:
        """The session of each assessor, by their accession ids."""
        return self.memo.get(
            "assessor sessions",
            lambda: {one.id: session for session, group in self.assessors.items() for one in group},
        )

    def session(self, experiment: ExperimentRecord) -> SessionSnapshot | None:
        """One experiment as the bulk listings tell it; None unless they tell it completely."""
        return self.memo.get(("session", experiment.id), lambda: self._session(experiment))

    def _session(self, experiment: ExperimentRecord) -> SessionSnapshot | None:
        identity = experiment.id
        if identity not in self.complete or (experiment.may_have_scans and identity not in self.speaks_for):
            return None
        assessors, reconstructions = self.assessors.get(identity, []), self.reconstructions.get(identity, [])
        owners = [Owner("experiment", identity)]
        owners += [Owner("scan", identity, one.id) for one in self.scans.get(identity, [])]
        owners += [Owner("assessor", one.id, identity, way) for one in assessors for way in ("out", "in", "")]
        owners += [
            Owner("reconstruction", identity, one.id, way) for one in reconstructions for way in ("out", "in")
        ]
        resources = {owner: list(self.resources[owner]) for owner in owners if owner in self.resources}
        return SessionSnapshot(
            experiment, self.scans.get(identity, []), assessors, reconstructions, resources
        )

    def add_resources(self, resources: Iterable[ResourceRecord]) -> None:
        """File resources under their owners."""
        for resource in resources:
            self.resources.setdefault(resource.owner, []).append(resource)


@dataclass
class SessionSnapshot:
    """One experiment down to the labels (and, where known, numeric ids) of its resources.

    `doubtful`: its listings disagree, so it is shown and neither kept nor believed for long.
    """

    experiment: ExperimentRecord
    scans: list[ScanRecord]
    assessors: list[AssessorRecord]
    reconstructions: list[ReconstructionRecord]
    resources: dict[Owner, list[ResourceRecord]]
    memo: Derived = field(default_factory=Derived, compare=False)
    doubtful: bool = field(default=False, compare=False)
    # with what that file listing told besides, and what had to be asked for singly
    merged: tuple[FileIndex | None, dict[int, ResourceRecord], SessionSnapshot] | None = None

    def of(self, level: str, part: str = "") -> list[ResourceRecord]:
        """The resources of the experiment itself, of one scan (by its id), of one reconstruction or assessor
        (in, out and plain).
        """
        found: list[ResourceRecord] = []
        for owner, resources in self.resources.items():
            own = owner.id if level == "assessor" else owner.part
            if owner.level == level and (level == "experiment" or own == part):
                found += resources
        return found

    def numbers(self) -> set[int | None]:
        """The numbers of its resources."""
        return {one.id for group in self.resources.values() for one in group}

    def owners(self) -> set[tuple[str, str, str]]:
        """The scans, assessors and reconstructions, as owners without a direction."""
        session = self.experiment.id
        return (
            {("scan", session, one.id) for one in self.scans}
            | {("assessor", one.id, session) for one in self.assessors}
            | {("reconstruction", session, one.id) for one in self.reconstructions}
        )

    def with_resources(self, resources: Iterable[ResourceRecord]) -> SessionSnapshot:
        """This snapshot and the resources among `resources` that are not yet in it; the same object if
        there are none.
        """
        known = [resource for group in self.resources.values() for resource in group]
        ids = {one.id for one in known}
        grown = {owner: list(group) for owner, group in self.resources.items()}
        extras = 0
        for one in resources:
            if one.id in ids or any(
                it.id is None and it.label == one.label and same_owner(it.owner, one.owner) for it in known
            ):
                continue
            grown.setdefault(one.owner, []).append(one)
            extras += 1
        return self.having(grown) if extras else self

    def corrected(self, right: Mapping[int, ResourceRecord]) -> SessionSnapshot:
        """This snapshot with the resources in `right` (by number) where, and named as, they are there."""
        kept = {
            owner: [one for one in group if one.id not in right] for owner, group in self.resources.items()
        }
        for one in right.values():
            kept.setdefault(one.owner, []).append(one)
        return self.having({owner: group for owner, group in kept.items() if group})

    def having(self, resources: dict[Owner, list[ResourceRecord]]) -> SessionSnapshot:
        """With other resources; a scan or reconstruction that has one and nobody listed is there too, so that
        nothing is out of reach. Not so an assessor: of a session that is shared, those of the other project
        have resources too, and are none of this project's (xnat-rest.md 12).
        """
        session = self.experiment.id
        parts = {
            level: {one.part for one in resources if one.level == level}
            for level in ("scan", "reconstruction")
        }
        scans = parts["scan"] - {one.id for one in self.scans}
        reconstructions = parts["reconstruction"] - {one.id for one in self.reconstructions}
        return SessionSnapshot(
            self.experiment,
            [*self.scans, *(ScanRecord(session, one, "") for one in sorted(scans))],
            self.assessors,
            [*self.reconstructions, *(ReconstructionRecord(session, one) for one in sorted(reconstructions))],
            resources,
        )


@dataclass
class FileIndex:
    """The files of some resources, by numeric resource id, in catalog order; `odd` says what was left out and
    why.

    `stale`: the server would not list them now, and this is what it listed last.
    """

    by_resource: dict[int, list[FileRecord]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    count: int = 1
    memo: Derived = field(default_factory=Derived, compare=False)
    stale: bool = False

    @classmethod
    def of(cls, files: Iterable[FileRecord], odd: Iterable[str] = ()) -> FileIndex:
        """Sorted into resources."""
        snapshot = cls(odd=list(odd))
        for file in files:
            snapshot.by_resource.setdefault(file.resource_id, []).append(file)
            snapshot.count += 1
        return snapshot

    def of_resource(self, resource: ResourceRecord) -> list[FileRecord] | None:
        """The files of one resource; None if no row is about it.

        By its numeric id; while only the label is known, by owner and label. There the direction (in, out)
        may lack on either side. With a number they are of the owner that the listing of resources names,
        whatever their URIs say: that one tells of each resource whose it is, and a URI may only repeat what
        was asked (xnat-rest.md 13).
        """
        if resource.id is not None:
            files = self.by_resource.get(resource.id)
            if not files or same_owner(files[0].owner, resource.owner):
                return files
            return [file._replace(owner=resource.owner) for file in files]
        for files in self.by_resource.values():
            if files[0].resource_label == resource.label and same_owner(files[0].owner, resource.owner):
                return files
        return None

    def named_files(self, resource: ResourceRecord) -> int:
        """How many files of a resource there are, those included that cannot be served."""

        def count() -> int:
            marker = f"/resources/{resource.id}/files/"
            unserved = sum(marker in odd for odd in self.odd) if resource.id is not None else 0
            return len({file.path for file in self.of_resource(resource) or ()}) + unserved

        return self.memo.get(("count", resource.id, resource.owner, resource.label), count)

    def named(self, record: FileRecord) -> list[FileRecord]:
        """The files that have its place: the same path in the same resource."""
        return [one for one in self.by_resource.get(record.resource_id, ()) if one.path == record.path]

    def resources(self) -> list[ResourceRecord]:
        """The resources the files belong to."""
        return [
            ResourceRecord(files[0].owner, files[0].resource_label, number)
            for number, files in self.by_resource.items()
        ]


@dataclass
class ProjectSummary:
    """A project's experiments by accession id; `own` has the resources of those in `server.identity`, `every`
    those of all levels below some.
    """

    project: str
    experiments: dict[str, ExperimentRecord]
    resources: list[ResourceRecord]  # of the project itself
    own: dict[str, list[ResourceRecord]]
    known: set[str]
    every: dict[str, list[ResourceRecord]] = field(default_factory=dict)

    def session_resources(self, identity: str) -> list[ResourceRecord] | None:
        """The resources of one experiment itself; None if they are not known yet."""
        if identity in self.known:
            return self.own.get(identity, [])
        found = self.every.get(identity)
        return None if found is None else [one for one in found if one.owner.level == "experiment"]


def _with(now: dict[str, list[T]], then: dict[str, list[T]], sessions: set[str]) -> dict[str, list[T]]:
    """What is known now, but of these sessions what was known then."""
    return {one: found for one, found in now.items() if one not in sessions} | {
        one: then[one] for one in sessions & then.keys()
    }


def owner_session(owner: Owner) -> str:
    """The experiment an owner is, or belongs to; "" for projects and subjects."""
    return {"experiment": owner.id, "scan": owner.id, "reconstruction": owner.id, "assessor": owner.part}.get(
        owner.level, ""
    )


def same_owner(left: Owner, right: Owner) -> bool:
    """Whether two owners are the same object, where one of them may not know the direction."""
    return left[:3] == right[:3] and (
        left.direction == right.direction or "" in (left.direction, right.direction)
    )
