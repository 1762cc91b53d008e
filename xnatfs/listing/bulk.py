"""A project in bulk: its handful of listings side by side, put together, and doubted where they may keep
something back.

Used by `listing.projects`. About eight requests whatever the size of the project (xnat-rest.md 2.9, design.md
4.1).
Threading: any thread; the listings run in the pool of `concurrency.single_flight`, the caller waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TypeVar

from xnatfs.concurrency.single_flight import SharedCall
from xnatfs.errors import Cause, Failure
from xnatfs.listing.cross_check import (
    assessors_unnamed,
    claimed_twice,
    labels_differ,
    unplaced_sessions,
    untyped_scans,
)
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.shared_sessions import as_listed
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.listing.stamps import ExperimentListings
from xnatfs.listing.subjects import confirmed
from xnatfs.server.bulk_rows import AssessorListing, BulkResources, ReconstructionListing, ScanListing
from xnatfs.server.records import ExperimentRecord, Owner, ProjectRecord, ResourceRecord, ScanRecord

log = logging.getLogger(__name__)
T = TypeVar("T")

# Asked one by one without a second thought; above it, a few are asked for the rest.
_FEW = 64
_SAMPLED = 8
_REFUSED = frozenset({Cause.UNPROVEN, Cause.NOT_ALLOWED, Cause.SERVER_ERROR, Cause.BAD_LISTING})


class BulkLoader:
    """Loads projects of one server."""

    def __init__(
        self,
        environment: ListingEnvironment,
        experiments: ExperimentListings,
    ) -> None:
        self._listings = environment.listings
        self._diagnostics = environment.diagnostics
        self._experiments = experiments
        self._resources = environment.resources
        self._single_flight = environment.calls
        self._clock = environment.clock
        self._patience = environment.limits.listing_deadline

    def load(
        self,
        record: ProjectRecord,
        experiments: dict[str, ExperimentRecord],
        own_resources: Callable[[], list[ResourceRecord]],
        before: ProjectSnapshot | None,
    ) -> ProjectSnapshot:
        """Everything the bulk listings tell of a project whose experiments are already listed; what they keep
        back and `before` had stays known.

        Args:
            own_resources: lists those of the project itself.
        """
        identity, listings, patience = record.id, self._listings, self._patience
        snapshot = ProjectSnapshot(record, experiments=experiments)
        subjects = self._begin(("subjects", identity), lambda: listings.subjects(identity))
        own = self._begin(("project resources", identity), own_resources)
        if experiments:
            labels = self._begin(
                ("experiment resources", identity), lambda: listings.experiment_resources(identity)
            )
            if any(one.may_have_scans for one in experiments.values()):
                scans = self._begin(("scans", identity), lambda: listings.scans(identity))
                assessors = self._begin(("assessors", identity), lambda: listings.assessors(identity))
                own_labels = labels.wait(patience)
                experiments = self._experiments.confirm(identity, experiments, own_labels.seen)
                if labels_differ(identity, experiments, scans.wait(patience)):
                    experiments = self._experiments.named(identity, experiments)
                snapshot.experiments = experiments
                # Without the labels each session is asked singly anyhow, which tells its reconstructions too.
                reconstructions = listings.reconstructions(identity) if own_labels.known else None
                below = scans.wait(patience), assessors.wait(patience), reconstructions
                below = self._settle_doubts(identity, experiments, own_labels, *below)
                if listings.capabilities.may("assessors of a project"):
                    snapshot.experiments = as_listed(identity, experiments, *below[:2])
                snapshot.add_sessions(own_labels, *below, self._in_doubt(identity, own_labels, *below))
            else:
                snapshot.add_sessions(
                    labels.wait(patience), ScanListing(), AssessorListing(), ReconstructionListing()
                )
        people, their_resources = subjects.wait(patience)
        if (
            their_resources.blank
            and len(people) <= _FEW
            and self._has_resources(Owner("subject", one.id) for one in people[:2])
        ):
            their_resources.known.clear()
        known = before.subjects.values() if before is not None else ()
        people = confirmed(listings, self._diagnostics, identity, people, known, experiments)
        snapshot.add_subjects(people, their_resources)
        snapshot.own_resources = own.wait(patience)
        snapshot.put_in_order()
        snapshot.made = self._clock.now()
        if before is not None:
            snapshot.take_over(before)
        return snapshot

    def _in_doubt(
        self,
        project: str,
        own: BulkResources,
        scans: ScanListing,
        assessors: AssessorListing,
        reconstructions: ReconstructionListing | None,
    ) -> set[str]:
        """The sessions to ask about singly: the listings do not place all that is below them, or place
        something twice.
        """
        below = reconstructions.resources if reconstructions is not None else BulkResources()
        twice = claimed_twice(own, scans.resources, assessors.resources, below)
        unplaced = unplaced_sessions(scans, reconstructions)
        listing = f"the listing of project {project}"
        for one in sorted(unplaced):
            self._diagnostics.odd(f"session {one}: {listing} has something below it without its id")
        untyped = untyped_scans(scans)
        if untyped:
            self._diagnostics.odd(
                f"project {project}: {len(untyped)} of {len(scans.scans)} scans have no type "
                f"({untyped[0].id} of {untyped[0].session_id})"
            )
        for one in assessors.unplaced:
            self._diagnostics.odd(f"assessor {one}: {listing} does not name its session")
        return twice | unplaced

    def _settle_doubts(
        self,
        project: str,
        experiments: dict[str, ExperimentRecord],
        own: BulkResources,
        scans: ScanListing,
        assessors: AssessorListing,
        reconstructions: ReconstructionListing | None,
    ) -> tuple[ScanListing, AssessorListing, ReconstructionListing | None]:
        """Blank columns and empty lists are believed only after a look at a few sessions.

        A server may answer a path it does not know with blanks in place of dropping the column, and one that
        lists no assessors at all may only not list them in this form.
        """
        untyped = untyped_scans(scans)
        if untyped and self._have_types(untyped):
            self._diagnostics.odd(f"project {project}: the listing of its scans leaves out their types")
            scans = ScanListing()
        if not scans.scans and scans.sessions and self._have_scans(_spread(sorted(scans.sessions), 2)):
            self._diagnostics.odd(f"project {project}: the listing of its scans has none")
            scans = ScanListing()
        if assessors_unnamed(assessors) and self._have_names(project, assessors):
            self._diagnostics.odd(f"project {project}: the listing of its assessors leaves out their labels")
            self._listings.capabilities.refuse("assessors of a project")
            own.known.clear()
        if not own.known:
            return scans, assessors, reconstructions
        sessions = [one.id for one in experiments.values() if one.may_have_scans]
        few = len(sessions) <= _FEW
        seen: set[str] = set()
        assessed: set[str] = set()  # sessions
        if (
            own.blank
            or not assessors.assessors
            or reconstructions is None
            or not reconstructions.reconstructions
        ):
            wanted = 4 if few else 1 if reconstructions is not None else _SAMPLED
            looks = [
                self._begin(("look", one), partial(self._resources.of_session, one))
                for one in _spread(sessions, wanted)
            ]
            found = self._answered(looks)
            seen = {resource.owner.level for resource in found}
            assessed = {resource.owner.part for resource in found if resource.owner.level == "assessor"}
        if own.blank and "experiment" in seen:
            own.known.clear()
        # Those of a session that is shared into this project may all be in another one, which this user reads
        # as well (xnat-rest.md 12).
        if not assessors.assessors and any(
            self._listings.assessors_of_session(one, project) for one in sorted(assessed)[:3]
        ):
            self._listings.capabilities.refuse("assessors of a project")
            own.known.clear()
        asked = assessors.assessors[:3]
        if "in" in assessors.resources.blank and self._has_inputs(
            "assessor", (one.session_id for one in asked)
        ):
            assessors.resources.known.clear()
        if "" in assessors.resources.blank and self._has_resources(
            Owner("experiment", one.id) for one in asked[:1]
        ):
            assessors.resources.known.clear()
        return scans, assessors, self._doubt_reconstructions(reconstructions, seen, few)

    def _doubt_reconstructions(
        self, listing: ReconstructionListing | None, seen: set[str], few: bool
    ) -> ReconstructionListing | None:
        if listing is None:
            # No form lists them all. In a large project with none in the sampled sessions, one request for
            # every session would be spent on what is almost never there; a session's own file listing still
            # brings to light what it has.
            return None if few or "reconstruction" in seen else ReconstructionListing()
        if not listing.reconstructions and "reconstruction" in seen:
            return None
        with_some = list(dict.fromkeys(one.session_id for one in listing.reconstructions))
        if listing.resources.blank and self._has_inputs("reconstruction", with_some[:3]):
            listing.resources.known.clear()
        return listing

    def _have_types(self, scans: list[ScanRecord]) -> bool:
        """Whether any of these scans has a type by itself; looks into two sessions."""
        asked = {(one.session_id, one.id) for one in scans}
        some = _spread(list(dict.fromkeys(one.session_id for one in scans)), 2)
        return any(
            scan.type not in ("", scan.id)
            for session in some
            for scan in self._listings.scans_of_session(session)
            if (session, scan.id) in asked
        )

    def _have_scans(self, sessions: Iterable[str]) -> bool:
        return any(self._listings.scans_of_session(one) for one in sessions)

    def _have_names(self, project: str, assessors: AssessorListing) -> bool:
        some = _spread(list(dict.fromkeys(one.session_id for one in assessors.assessors)), 2)
        known = {one.id: one.label for one in assessors.assessors}
        return any(
            one.label not in ("", one.id) and one.id in known
            for session in some
            for one in self._listings.assessors_of_session(session, project)
        )

    def _has_inputs(self, level: str, sessions: Iterable[str]) -> bool:
        looks = [
            self._begin(("inputs", level, one), partial(self._resources.inputs_of_session, one, level))
            for one in dict.fromkeys(sessions)
        ]
        return bool(self._answered(looks))

    def _has_resources(self, owners: Iterable[Owner]) -> bool:
        return bool(
            self._answered(
                [self._begin(("resources", one), partial(self._resources.of, one)) for one in owners]
            )
        )

    def _answered(self, looks: list[SharedCall[list[ResourceRecord]]]) -> list[ResourceRecord]:
        """What the looks at single sessions found. A session may be listed and not be readable (xnat-rest.md
        12): the others are looked at.

        Raises:
            Failure: what keeps the server from answering; what the last of them was refused with, if all
                were.
        """
        found: list[ResourceRecord] = []
        refused: Failure | None = None
        answered = not looks
        for look in looks:
            try:
                found += look.wait(self._patience)
                answered = True
            except Failure as failure:
                if failure.away or failure.cause not in _REFUSED:
                    raise
                refused = failure
        if not answered and refused is not None:
            raise refused
        return found

    def _begin(self, key: Hashable, work: Callable[[], T]) -> SharedCall[T]:
        return self._single_flight.start(key, work)


def _spread(ids: list[str], count: int) -> list[str]:
    """`count` ids, spread evenly."""
    if len(ids) <= count:
        return ids
    return [ids[index * (len(ids) - 1) // max(1, count - 1)] for index in range(count)]
