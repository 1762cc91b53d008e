"""What one project, and one session, are known to hold: plain values built from records.

Made by `catalogs`, read by the tree. Immutable by agreement once published: a change makes a new value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from xnatfs.fetch.ahead import Order
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

if TYPE_CHECKING:
    from xnatfs.server.bulk_rows import AssessorListing, BulkResources, ReconstructionListing, ScanListing

T = TypeVar("T")


class Memo:
    """What others derive from holdings and want to keep as long as these live."""

    def __init__(self) -> None:
        self._derived: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made now if it is not there. Two threads may both make it; one value stays."""
        try:
            return cast(T, self._derived[key])
        except KeyError:
            return cast(T, self._derived.setdefault(key, make()))


@dataclass
class ProjectHoldings:
    """A project down to the labels of resources, as far as bulk listings tell.

    `complete` holds the ids of experiments, and `complete_subjects` of subjects, whose resources are all in `resources`; `speaks_for`
    the sessions whose scans are all in `scans`. `order` is the experiments, `subject_order` the subjects, as the tree lists them.
    """

    project: ProjectRecord
    subjects: dict[str, SubjectRecord] = field(default_factory=dict)
    experiments: dict[str, ExperimentRecord] = field(default_factory=dict)
    of_subject: dict[str, list[ExperimentRecord]] = field(default_factory=dict)
    order: Order = field(default_factory=Order)
    subject_order: Order = field(default_factory=Order)
    scans: dict[str, list[ScanRecord]] = field(default_factory=dict)
    speaks_for: set[str] = field(default_factory=set)
    scans_known: set[str] = field(default_factory=set)  # of these, also every resource of every scan
    assessors: dict[str, list[AssessorRecord]] = field(default_factory=dict)
    reconstructions: dict[str, list[ReconstructionRecord]] = field(default_factory=dict)
    resources: dict[Owner, list[ResourceRecord]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    complete_subjects: set[str] = field(default_factory=set)
    without_item: set[str] = field(default_factory=set)  # subjects whose item was asked for and not believed
    renewed: set[str] = field(default_factory=set)  # sessions that changed since the bulk listings: each is asked for by itself
    own_resources: list[ResourceRecord] = field(default_factory=list)
    as_it_was: bool = False  # something of it was shown as it was, the server not telling: what was made of it is made again
    loaded: float = 0.0  # time.monotonic() of the last agreement with the server ...
    made: float = 0.0  # ... and of the last time all of it was listed
    memo: Memo = field(default_factory=Memo, compare=False)

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
    ) -> None:
        """What the listings below experiments told. An experiment is complete where every one of them speaks for it."""
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
            complete -= {one.session_id for one in reconstructions.reconstructions} - reconstructions.resources.known
            parts.append(reconstructions.resources)
        for part in parts:
            self.add_resources(part.resources)
        self.complete = complete

    def take_over(self, before: ProjectHoldings) -> None:
        """What an earlier listing told completely and this one does not, of sessions and subjects whose stamp did not move meanwhile: a
        form that fails for a minute must not make anything less known than it was."""
        lacking = [
            one
            for identity, one in self.experiments.items()
            if one.changed and before.experiments.get(identity) == one and self.session(one) is None and before.session(one) is not None
        ]
        theirs = {one.id for one in lacking}
        unknown = [one for one in self.subjects.values() if one.changed and one.id not in self.complete_subjects]
        subjects = {one.id for one in unknown if one.id in before.complete_subjects and before.subjects.get(one.id) == one}
        if not theirs and not subjects:
            return
        self.scans = _with(self.scans, before.scans, theirs)
        self.assessors = _with(self.assessors, before.assessors, theirs)
        self.reconstructions = _with(self.reconstructions, before.reconstructions, theirs)
        self.resources = {owner: found for owner, found in self.resources.items() if owner_session(owner) not in theirs}
        for owner, found in before.resources.items():
            if owner_session(owner) in theirs or (owner.level == "subject" and owner.id in subjects):
                self.resources[owner] = found
        self.complete |= theirs
        self.speaks_for |= theirs & before.speaks_for
        self.scans_known |= theirs & before.scans_known
        self.complete_subjects |= subjects
        self.memo = Memo()

    def put_in_order(self) -> None:
        """Fill `of_subject` and `order` from `subjects` and `experiments`; subjects nobody listed are made up from the experiments."""
        for experiment in self.experiments.values():
            subject = experiment.subject_id or experiment.subject_label
            if subject not in self.subjects:
                self.subjects[subject] = SubjectRecord(subject, experiment.subject_label, experiment.inserted, "")
                self.complete_subjects.add(subject)  # not shared into this project, so neither are its resources
            self.of_subject.setdefault(subject, []).append(experiment)
        self.subjects = {one.id: one for one in sorted(self.subjects.values(), key=lambda one: (one.label, one.id))}
        for subject in self.subjects:
            theirs = self.of_subject.setdefault(subject, [])
            theirs.sort(key=lambda one: (one.label, one.id))
        self.order = Order(one.id for subject in self.subjects for one in self.of_subject[subject])
        self.subject_order = Order(self.subjects)

    def session(self, experiment: ExperimentRecord) -> SessionHoldings | None:
        """One experiment as the bulk listings tell it; None unless they tell it completely."""
        return self.memo.get(("session", experiment.id), lambda: self._session(experiment))

    def _session(self, experiment: ExperimentRecord) -> SessionHoldings | None:
        identity = experiment.id
        if identity not in self.complete or (experiment.may_have_scans and identity not in self.speaks_for):
            return None
        assessors, reconstructions = self.assessors.get(identity, []), self.reconstructions.get(identity, [])
        owners = [Owner("experiment", identity)]
        owners += [Owner("scan", identity, one.id) for one in self.scans.get(identity, [])]
        owners += [Owner("assessor", one.id, identity, way) for one in assessors for way in ("out", "in", "")]
        owners += [Owner("reconstruction", identity, one.id, way) for one in reconstructions for way in ("out", "in")]
        resources = {owner: list(self.resources[owner]) for owner in owners if owner in self.resources}
        return SessionHoldings(experiment, self.scans.get(identity, []), assessors, reconstructions, resources)

    def add_resources(self, resources: Iterable[ResourceRecord]) -> None:
        """File resources under their owners."""
        for resource in resources:
            self.resources.setdefault(resource.owner, []).append(resource)


@dataclass
class SessionHoldings:
    """One experiment down to the labels (and, where known, numeric ids) of its resources."""

    experiment: ExperimentRecord
    scans: list[ScanRecord]
    assessors: list[AssessorRecord]
    reconstructions: list[ReconstructionRecord]
    resources: dict[Owner, list[ResourceRecord]]
    memo: Memo = field(default_factory=Memo, compare=False)
    merged: tuple[FileHoldings, SessionHoldings] | None = None  # with what that file listing told besides

    def of(self, level: str, part: str = "") -> list[ResourceRecord]:
        """The resources of the experiment itself, of one scan (by its id), of one reconstruction or assessor (in, out and plain)."""
        found: list[ResourceRecord] = []
        for owner, resources in self.resources.items():
            own = owner.id if level == "assessor" else owner.part
            if owner.level == level and (level == "experiment" or own == part):
                found += resources
        return found

    def with_resources(self, resources: Iterable[ResourceRecord]) -> SessionHoldings:
        """These holdings and the resources among `resources` that are not yet in them; the same object if there are none."""
        known = [resource for group in self.resources.values() for resource in group]
        ids = {one.id for one in known}
        grown = {owner: list(group) for owner, group in self.resources.items()}
        extras = 0
        for one in resources:
            if one.id in ids or any(it.id is None and it.label == one.label and same_owner(it.owner, one.owner) for it in known):
                continue
            grown.setdefault(one.owner, []).append(one)
            extras += 1
        return SessionHoldings(self.experiment, self.scans, self.assessors, self.reconstructions, grown) if extras else self


@dataclass
class FileHoldings:
    """The files of some resources, by numeric resource id, in catalog order; `odd` says what was left out and why.

    `stale`: the server would not list them now, and this is what it listed last.
    """

    by_resource: dict[int, list[FileRecord]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    count: int = 1
    memo: Memo = field(default_factory=Memo, compare=False)
    stale: bool = False

    @classmethod
    def of(cls, files: Iterable[FileRecord], odd: Iterable[str] = ()) -> FileHoldings:
        """Sorted into resources."""
        holdings = cls(odd=list(odd))
        for file in files:
            holdings.by_resource.setdefault(file.resource_id, []).append(file)
            holdings.count += 1
        return holdings

    def of_resource(self, resource: ResourceRecord) -> list[FileRecord] | None:
        """The files of one resource; None if no row is about it.

        By its numeric id; while only the label is known, by owner and label. There the direction (in, out) may lack on either side.
        With a number they are of the owner that the listing of resources names, whatever their URIs say: that one tells of each resource
        whose it is, and a URI may only repeat what was asked (fact sheet 13).
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

    def named(self, record: FileRecord) -> list[FileRecord]:
        """The files that have its place: the same path in the same resource."""
        return [one for one in self.by_resource.get(record.resource_id, ()) if one.path == record.path]

    def resources(self) -> list[ResourceRecord]:
        """The resources the files belong to."""
        return [ResourceRecord(files[0].owner, files[0].resource_label, number) for number, files in self.by_resource.items()]


@dataclass
class Outline:
    """A project's experiments by accession id; `own` has the resources of those in `known`, `every` those of all levels below some."""

    project: str
    experiments: dict[str, ExperimentRecord]
    resources: list[ResourceRecord]  # of the project itself
    own: dict[str, list[ResourceRecord]]
    known: set[str]
    every: dict[str, list[ResourceRecord]] = field(default_factory=dict)
    loaded: float = 0.0  # time.monotonic()

    def session_resources(self, identity: str) -> list[ResourceRecord] | None:
        """The resources of one experiment itself; None if they are not known yet."""
        if identity in self.known:
            return self.own.get(identity, [])
        found = self.every.get(identity)
        return None if found is None else [one for one in found if one.owner.level == "experiment"]


def _with(now: dict[str, list[T]], then: dict[str, list[T]], sessions: set[str]) -> dict[str, list[T]]:
    """What is known now, but of these sessions what was known then."""
    return {one: found for one, found in now.items() if one not in sessions} | {one: then[one] for one in sessions & then.keys()}


def owner_session(owner: Owner) -> str:
    """The experiment an owner is, or belongs to; "" for projects and subjects."""
    return {"experiment": owner.id, "scan": owner.id, "reconstruction": owner.id, "assessor": owner.part}.get(owner.level, "")


def same_owner(left: Owner, right: Owner) -> bool:
    """Whether two owners are the same object, where one of them may not know the direction."""
    return left[:3] == right[:3] and (left.direction == right.direction or "" in (left.direction, right.direction))
