"""A project in bulk: its handful of listings side by side, put together, and doubted where they may keep
something back.

Used by `listing.service`. About eight requests whatever the size of the project (xnat-rest.md 2.9, design.md
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
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.listing.stamps import ExperimentListings
from xnatfs.server.bulk_rows import AssessorListing, BulkResources, ReconstructionListing, ScanListing
from xnatfs.server.records import ExperimentRecord, Owner, ProjectRecord, ResourceRecord

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
                experiments = snapshot.experiments = self._experiments.confirm(
                    identity, experiments, own_labels.seen
                )
                # Without the labels each session is asked singly anyhow, which tells its reconstructions too.
                reconstructions = listings.reconstructions(identity) if own_labels.known else None
                below = scans.wait(patience), assessors.wait(patience), reconstructions
                below = self._settle_doubts(identity, experiments, own_labels, *below)
                snapshot.add_sessions(own_labels, *below)
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
        snapshot.add_subjects(people, their_resources)
        snapshot.own_resources = own.wait(patience)
        snapshot.put_in_order()
        snapshot.made = self._clock.now()
        if before is not None:
            snapshot.take_over(before)
        return snapshot

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
