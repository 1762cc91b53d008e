"""What the bulk listings do not tell, session by session or subject by subject.

Used by `listing.sessions`. A subject's item tells the subject and all its sessions in one request, where it
can be believed; else one request a session, and one a subject.
Threading: any thread; called in workers.
"""

from __future__ import annotations

import logging
from collections import Counter

from xnatfs.concurrency.clock import Clock
from xnatfs.concurrency.recent_failures import RecentFailures
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import ProjectSnapshot, SessionSnapshot
from xnatfs.server.items import ExperimentItem, SubjectItem
from xnatfs.server.listing_requests import FORMS_OF_RESOURCES, ListingRequests
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    Owner,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
)
from xnatfs.server.resources import Resources

log = logging.getLogger(__name__)

_ITEMS = "subject items"
_ASKED_FOR = 4  # scans of a session
_CONFIRMED = 2  # subjects of a project


class SingleLoader:
    """Loads single sessions and subjects of one server."""

    def __init__(
        self, listings: ListingRequests, resources: Resources, diagnostics: Diagnostics, clock: Clock
    ) -> None:
        self._listings = listings
        self._diagnostics = diagnostics
        self._resources = resources
        # Each listing of a session's resources is asked for in several places, one after the other.
        self._failures: RecentFailures[tuple[str, str]] = RecentFailures(clock)
        self.items_proven = False  # a subject's item was once compared with the listings and agreed

    def refresh(self) -> None:
        """What failed a moment ago may be asked for again."""
        self._failures.clear()

    @property
    def items(self) -> bool:
        """Whether subjects' items are worth asking for."""
        return self._listings.capabilities.may(_ITEMS)

    def session(self, snapshot: ProjectSnapshot, experiment: ExperimentRecord) -> SessionSnapshot:
        """One experiment: `resources?all=true`, and the `in` resources where there is something that can have
        them.
        """
        identity = experiment.id
        found = self._of_session(identity)
        if not found:
            # A session without a single file is rare; a listing that leaves them out may not be.
            found = [
                ResourceRecord(one.owner, one.resource_label, one.resource_id)
                for one in self._resources.files_of_session(identity).files
            ]
        assessors = self._assessors(snapshot, identity, found)
        ids = {one.owner.part for one in found if one.owner.level == "reconstruction"}
        reconstructions = snapshot.reconstructions.get(identity) or [
            ReconstructionRecord(identity, one) for one in sorted(ids)
        ]
        for level, present in (("assessor", assessors), ("reconstruction", reconstructions)):
            if present:
                found += self._resources.inputs_of_session(identity, level)
        scans, typed = self._scans(snapshot, experiment)
        listed = {one.id for one in scans}
        if any(one.owner.level == "scan" and one.owner.part not in listed for one in found) and (
            identity in snapshot.speaks_for
        ):
            log.info("the listing of the scans of a project lacks some of session %s", identity)
            for form in FORMS_OF_RESOURCES["scan"]:
                self._listings.capabilities.refuse(form)
            scans, typed = self._own_scans(identity)
        session = SessionSnapshot(experiment, scans, assessors, reconstructions, {})
        whole = session.having(_by_owner(found))
        more = whole.owners() - session.owners()
        if more:
            names = ", ".join(sorted(" ".join(one) for one in more)[:3])
            self._diagnostics.odd(
                f"session {identity}: {len(more)} things have files and are not listed ({names})"
            )
        invented = self._invented(identity, scans, found)
        whole.doubtful = bool(more or invented) or not typed
        return whole

    def _of_session(self, session: str) -> list[ResourceRecord]:
        key = "resources", session
        self._failures.check(key)
        return self._failures.noting(key, lambda: self._resources.of_session(session))

    def _assessors(
        self, snapshot: ProjectSnapshot, session: str, resources: list[ResourceRecord]
    ) -> list[AssessorRecord]:
        """The assessors of a session: as its project lists them, and those that have a resource and are its
        project's all the same. Those of another project that a shared session brings along stay out.
        """
        assessors = snapshot.assessors.get(session, [])
        told = self._listings.capabilities.may("assessors of a project")
        with_some = {one.owner.id for one in resources if one.owner.level == "assessor"}
        unlisted = with_some - {one.id for one in assessors}
        if not unlisted and (told or not with_some):
            return assessors
        asked = self._listings.assessors_of_session(session, snapshot.project.id)
        if not told:
            return asked
        lacking = [one for one in asked if one.id in unlisted]
        if lacking:
            self._diagnostics.odd(
                f"session {session}: the listing of its project lacks {len(lacking)} of its assessors"
            )
            self._listings.capabilities.refuse("assessors of a project")
        return [*assessors, *lacking]

    def _invented(self, session: str, scans: list[ScanRecord], resources: list[ResourceRecord]) -> list[str]:
        """The scans without any resource that the server does not know by themselves, beside others that have
        some; a few are asked for. Only of servers that tell scans session by session: elsewhere the listing
        of the project knows them, too.
        """
        if self._listings.capabilities.may(FORMS_OF_RESOURCES["scan"][0]):
            return []
        with_some = {one.owner.part for one in resources if one.owner.level == "scan"}
        bare = [one.id for one in scans if one.id not in with_some] if with_some else []
        invented = []
        for scan in bare[:_ASKED_FOR]:
            try:
                self._resources.of(Owner("scan", session, scan))
            except Failure as failure:
                if failure.cause is not Cause.UNPROVEN:
                    raise
                invented.append(scan)
        if invented:
            self._diagnostics.odd(f"session {session}: scan {invented[0]} is listed, and not there by itself")
        return invented

    def subject(self, subject: str) -> list[ResourceRecord]:
        """The resources of one subject."""
        return self._resources.of(Owner("subject", subject))

    def confirmed(self, snapshot: ProjectSnapshot, subject: str, listed: list[ResourceRecord]) -> bool:
        """Whether the subject's own resources in an item may be believed: those of the first two of a project
        that have none are asked for by themselves, too, since an item lacks all of them while a query inside
        it fails (xnat-rest.md 13).
        """
        asked: set[str] = snapshot.memo.get("items without resources", set)
        if listed or len(asked) >= _CONFIRMED or subject in asked:
            return True
        if self.subject(subject):
            return False
        asked.add(subject)
        return True

    def by_item(
        self, snapshot: ProjectSnapshot, subject: str
    ) -> tuple[list[ResourceRecord], list[SessionSnapshot]] | None:
        """The subject's resources and its sessions from its item; None where the item cannot be believed.

        An item is believed whole if it has every session of the subject, and every session the scans and
        resource labels that the proven bulk listing has. The first one is also compared with
        `resources?all=true`.
        """
        try:
            item = self._listings.subject_item(subject)
        except Failure as failure:
            if failure.cause not in (Cause.BAD_LISTING, Cause.SERVER_ERROR, Cause.UNPROVEN) or failure.away:
                raise
            # It is the form that is refused if a simpler one about the same subject is answered.
            self.subject(subject)
            self._listings.capabilities.refuse(_ITEMS)
            return None
        theirs = snapshot.of_subject.get(subject, [])
        evidence = [self._agrees(snapshot, one, item) for one in theirs]
        if False in evidence or not (
            self.items_proven or self._first_proof(snapshot, theirs, item, evidence)
        ):
            if False in evidence:
                self._listings.capabilities.refuse(_ITEMS)
            return None
        sessions = []
        for one in theirs:
            told = item.experiments[one.id]
            assessors = (
                self._assessors(snapshot, one.id, told.resources)
                if self._listings.capabilities.may("assessors of a project")
                else told.assessors
            )
            sessions.append(
                SessionSnapshot(
                    one,
                    self._scans(snapshot, one)[0],
                    assessors,
                    told.reconstructions,
                    _by_owner(told.resources),
                )
            )
        return item.resources, sessions

    def _first_proof(
        self,
        snapshot: ProjectSnapshot,
        theirs: list[ExperimentRecord],
        item: SubjectItem,
        evidence: list[bool | None],
    ) -> bool:
        found = self._witness([one for one, agrees in zip(theirs, evidence, strict=True) if agrees])
        if found is None:
            return False
        witness, listed = found
        told = {one.id for one in item.experiments[witness.id].resources if one.owner.direction != "in"}
        spare = len(snapshot.experiments) > len(snapshot.subjects)
        if listed != told or (
            spare
            and {one.id for one in self.subject(item_subject(item, theirs))}
            != {one.id for one in item.resources}
        ):
            log.info("a subject's item is less complete than the listings of %s", witness.id)
            self._listings.capabilities.refuse(_ITEMS)
            return False
        self.items_proven = True
        return True

    def _witness(self, sessions: list[ExperimentRecord]) -> tuple[ExperimentRecord, set[int | None]] | None:
        """The first of these sessions that can be read singly, and the numbers of its resources."""
        for session in sessions:
            try:
                return session, {one.id for one in self._of_session(session.id)}
            except Failure as failure:
                # It may be closed to this user, or broken, and none of the others (xnat-rest.md 12).
                if failure.away or failure.cause is Cause.INTERRUPTED:
                    raise
                log.info("session %s bears no witness: %s", session.id, failure)
        return None

    @staticmethod
    def _agrees(snapshot: ProjectSnapshot, experiment: ExperimentRecord, item: SubjectItem) -> bool | None:
        """Whether the item tells this experiment as the bulk listing does; None where that has nothing to
        compare with.
        """
        told: ExperimentItem | None = item.experiments.get(experiment.id)
        if told is None:
            return False
        if experiment.id not in snapshot.speaks_for:
            return None
        scans = snapshot.scans.get(experiment.id, [])
        if {one.id for one in scans} != told.scans:
            return False
        labels = Counter((one.owner.part, one.label) for one in told.resources if one.owner.level == "scan")
        bulk = Counter(
            (scan.id, resource.label)
            for scan in scans
            for resource in snapshot.resources.get(Owner("scan", experiment.id, scan.id), [])
        )
        # The bulk listing may have merged equal labels and cannot tell a resource without one.
        if any(key not in labels for key in bulk) or any(key not in bulk for key in labels if key[1]):
            return False
        return True if labels else None

    def _scans(
        self, snapshot: ProjectSnapshot, experiment: ExperimentRecord
    ) -> tuple[list[ScanRecord], bool]:
        """The scans of a session, and whether each has a type."""
        if experiment.id in snapshot.speaks_for or not experiment.may_have_scans:
            return snapshot.scans.get(experiment.id, []), True
        return self._own_scans(experiment.id)

    def _own_scans(self, session: str) -> tuple[list[ScanRecord], bool]:
        scans = self._listings.scans_of_session(session)
        untyped = [one.id for one in scans if one.type in ("", one.id)]
        if untyped:
            self._diagnostics.odd(
                f"session {session}: {len(untyped)} of {len(scans)} scans have no type ({untyped[0]})"
            )
        return scans, not untyped


def item_subject(item: SubjectItem, theirs: list[ExperimentRecord]) -> str:
    """The accession id of the subject an item is about."""
    return item.resources[0].owner.id if item.resources else theirs[0].subject_id


def _by_owner(found: list[ResourceRecord]) -> dict[Owner, list[ResourceRecord]]:
    resources: dict[Owner, list[ResourceRecord]] = {}
    # By what they belong to, too: one may be mapped to two assessors (xnat-rest.md 12), and is below both.
    for resource in {(one.id, one.owner[:3]): one for one in found}.values():
        resources.setdefault(resource.owner, []).append(resource)
    return resources
