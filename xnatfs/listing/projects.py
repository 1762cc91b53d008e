"""The projects of a server: which there are, and what each holds down to its resources. Listed once, held,
brought up to date.

Used by `listing.service`. Cost (design.md 4.1): a project in about eight requests; a look whether anything
changed in four, and what did is listed again. What was proven last stays until a listing that came back right
says otherwise: a 404 proves nothing (xnat-rest.md 13), a project is gone when the list of projects is without
it.
Threading: any thread. Published snapshots are never changed in place; no lock is held over I/O.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import TypeVar

from xnatfs.concurrency.refreshable import Kept, Refreshable
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.errors import Cause, Failure
from xnatfs.listing.bulk import BulkLoader
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.incremental import apply_changes
from xnatfs.listing.project_proof import ProjectProof
from xnatfs.listing.snapshot import Derived, ProjectSnapshot
from xnatfs.listing.stamps import ExperimentListings
from xnatfs.listing.subjects import confirmed
from xnatfs.server.records import ExperimentRecord, ProjectRecord, SubjectRecord
from xnatfs.server.witness_requests import WitnessRequests

log = logging.getLogger(__name__)
_T = TypeVar("_T")


# What ends a project for this user, or says nothing about it: it is not shown as it was then.
_FINAL = frozenset({Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED})
_ALL = "of projects"  # the one key there is


class ProjectListings:
    """The projects of one server, for one user.

    Args:
        environment: what listings are made with. What earlier mounts stored is shown at once where the
            server's stamps agree, or where the server is away.
        experiments: lists the experiments of a project with the stamps that move.
        only: show only these projects (none: all).

    Attributes:
        snapshots: what each project holds, with the time of the last agreement with the server.
        proof: whether what a project lacks, or a project, is really gone.
        on_renewed: called with the snapshots before and after when a project was compared with the server.
    """

    def __init__(
        self, environment: ListingEnvironment, experiments: ExperimentListings, only: tuple[str, ...] = ()
    ) -> None:
        self._environment = environment
        self._listings = environment.listings
        self._experiments = experiments
        self._only = only
        # What waits for listings runs apart from what fetches them: in one pool, eight projects at once would
        # wait for each other.
        self._composers = WorkerPool("project", 32)
        self._derived_from_stale: set[str] = set()
        self.proof = ProjectProof(environment.listings, environment.resources)
        self._bulk = BulkLoader(environment, experiments)
        ttl = environment.limits.ttl
        self._list: Refreshable[str, dict[str, ProjectRecord]] = environment.refreshable(
            "the list", self._kept_list, again_after=ttl
        )
        self.snapshots: Refreshable[str, ProjectSnapshot] = environment.refreshable(
            "project", self._kept, calls=SingleFlight(self._composers), again_after=ttl
        )
        self.on_renewed: Callable[[ProjectSnapshot | None, ProjectSnapshot], None] = lambda before, after: (
            None
        )

    # --- which there are ------------------------------------------------------------------------------------

    def all(self) -> dict[str, ProjectRecord]:
        """The projects shown, by id."""
        held = self._fresh(self._list, _ALL)
        if held is not None:
            return held
        if self._list.held(_ALL) is None and self._list.refreshed is None:
            kept = self._kept_list(_ALL)
            if kept is not None:
                self._list.put(_ALL, kept.value)
                self._environment.later.add(_ALL, lambda: self._list.begin(_ALL, self._load_list))
                return kept.value
        return self._list.get(_ALL, self._load_list, tolerated=lambda failure: True)

    def known(self) -> dict[str, ProjectRecord]:
        """The projects shown, as far as they are in memory: no request, and nothing to wait for."""
        held = self._list.held(_ALL)
        return {} if held is None else held.value

    def _kept_list(self, _: str) -> Kept[dict[str, ProjectRecord]] | None:
        kept = self._environment.stored.projects()
        return kept and replace(kept, value=self._shown(kept.value))

    def _shown(self, projects: dict[str, ProjectRecord]) -> dict[str, ProjectRecord]:
        return {one.id: one for one in projects.values() if not self._only or one.id in self._only}

    def _load_list(self) -> dict[str, ProjectRecord]:
        epoch = self._list.epoch
        everything = {one.id: one for one in self._listings.projects()}
        before = self._environment.stored.projects()
        if not everything or (before is not None and before.value.keys() - everything.keys()):
            lacking = WitnessRequests(self._listings).project_ids() - everything.keys()
            if lacking:
                what = f"{len(lacking)} are only in one of two listings"
                self._environment.diagnostics.odd(f"the projects: {what}")
                raise Failure(Cause.UNPROVEN, "the projects", what)
        found = self._shown(everything)
        self._environment.stored.put_projects(everything)
        self._list.put(_ALL, found, epoch=epoch)
        return found

    def _fresh(self, values: Refreshable[str, _T], key: str) -> _T | None:
        fresh = values.fresh(key, self._environment.limits.ttl)
        if fresh is None and (shown := values.shown(key)) is not None:
            return shown.value
        return fresh

    # --- one of them ----------------------------------------------------------------------------------------

    def fresh(self, identity: str) -> ProjectSnapshot | None:
        """A project's snapshot if it need not be renewed; no request."""
        return self._fresh(self.snapshots, identity)

    def agreed(self, identity: str) -> float | None:
        """When the snapshot last agreed with the server, or was shown as it was because that could not be
        asked; as the clock says. None: never.
        """
        held = self.snapshots.shown(identity) or self.snapshots.held(identity)
        return held.at if held is not None else None

    def get(self, identity: str) -> ProjectSnapshot:
        """A project's snapshot, at most `ttl` old.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if
                nothing is held yet.
        """
        if (fresh := self.fresh(identity)) is not None:
            return fresh
        return self.snapshots.get(
            identity, lambda: self._renew(identity), tolerated=lambda failure: failure.cause not in _FINAL
        )

    def distrust(self, identity: str, level: str) -> None:
        """A listing of the project was wrong about a resource of something of this level: all of it is listed
        again at the next renewal, until then what is on that level is asked for singly, and a later mount
        does not begin with it.
        """
        held = self.snapshots.held(identity)
        if held is not None and held.value.made is not None:
            known = replace(held.value, made=None, memo=Derived())
            if level == "subject":
                known.complete_subjects = {
                    one for one in held.value.complete_subjects if not held.value.subjects[one].changed
                }
            else:
                known.complete = set()
            self.snapshots.put(identity, known)
        self._environment.stored.drop("project", identity)

    def derive_again(self, identity: str) -> None:
        """Something of the project is shown as it was, the server not answering: what is derived from its
        snapshot meanwhile (views) is derived again after the next comparison.
        """
        self._derived_from_stale.add(identity)

    def _kept(self, identity: str) -> Kept[ProjectSnapshot] | None:
        shown = not self._only or identity in self._only
        return self._environment.stored.project(identity) if shown else None

    def _renew(self, identity: str) -> ProjectSnapshot:
        """One to four requests tell whether anything changed since the snapshot was made; only what did is
        listed again.
        """
        epoch = self.snapshots.epoch
        entry = self.snapshots.held(identity)
        held = entry.value if entry is not None else None
        kept = self._kept(identity) if held is None and self.snapshots.refreshed is None else None
        if kept is not None:
            record: ProjectRecord | None = (
                kept.value.project
            )  # whether it still is this user's tells the next request
        else:
            record = self.all().get(identity)
        if record is None:
            if not self.proof.gone(identity):
                raise Failure(Cause.UNPROVEN, f"project {identity}")
            self._forget(identity)
            raise Failure(Cause.NO_ENTRY, identity)
        people = cache(lambda: self._listings.people(identity))
        before = held or (kept.value if kept is not None else None)
        experiments = self._listed(identity, people, before)
        fresh = self._patched(record, experiments, people, held, kept)
        if fresh is held is not None and identity in self._derived_from_stale:
            fresh = replace(held, memo=Derived())
        if fresh is None:
            fresh = self._bulk.load(
                record,
                experiments,
                partial(
                    self.proof.own_resources,
                    identity,
                    _expected(record, before),
                    witness=before is not None or record.resources is not None,
                ),
                before,
            )
        self._derived_from_stale.discard(identity)
        if self.snapshots.put(identity, fresh, epoch=epoch) and held is not None and fresh is not held:
            self.snapshots.note_change()
        if fresh is not held and (kept is None or fresh is not kept.value):
            self._environment.stored.put_project(fresh)
        self.on_renewed(before, fresh)
        return fresh

    def _listed(
        self, identity: str, people: Callable[[], list[SubjectRecord]], before: ProjectSnapshot | None
    ) -> dict[str, ExperimentRecord]:
        try:
            return self._experiments.get(
                identity, people, before.experiments.values() if before is not None else ()
            )
        except Failure as failure:
            if failure.cause is Cause.NOT_ALLOWED:
                self.snapshots.drop(identity)
            elif failure.cause is Cause.UNPROVEN and self.proof.gone(identity):
                self._forget(identity)
                raise Failure(Cause.NO_ENTRY, identity, failure.detail, failure.status) from failure
            raise

    def _patched(
        self,
        record: ProjectRecord,
        experiments: dict[str, ExperimentRecord],
        people: Callable[[], list[SubjectRecord]],
        held: ProjectSnapshot | None,
        kept: Kept[ProjectSnapshot] | None,
    ) -> ProjectSnapshot | None:
        """What is held or kept, with what changed since; None if all of it has to be listed again."""
        identity = record.id
        assessors = partial(self._listings.assessors, identity)
        if kept is not None:
            # Shown with one request; the rest is asked for in a moment.
            fresh = apply_changes(kept.value, record, experiments, None, kept.value.own_resources, assessors)
            if fresh is not None:
                fresh.made = self._environment.clock.now() - kept.age
                self._environment.later.add(("project", identity), lambda: self._look_again(identity))
            return fresh
        if held is None or held.made is None:
            return None
        if self._environment.clock.now() - held.made >= self._environment.limits.relist_after:
            return None
        try:
            own = self.proof.own_resources(identity, _expected(record, held), witness=True)
        except Failure as failure:
            if failure.cause is not Cause.UNPROVEN:
                raise
            # They hold up nothing else.
            log.warning("the resources of project %s are shown as they were: %s", identity, failure)
            self._environment.diagnostics.failed(failure)
            own = held.own_resources
        subjects = confirmed(
            self._listings,
            self._environment.diagnostics,
            identity,
            people(),
            held.subjects.values(),
            experiments,
        )
        return apply_changes(held, record, experiments, subjects, own, assessors)

    def _look_again(self, identity: str) -> None:
        if self.snapshots.held(identity) is not None:
            self.snapshots.expire(identity)
            self.snapshots.begin(identity, lambda: self._renew(identity))

    def _forget(self, identity: str) -> None:
        self.snapshots.drop(identity)
        self._environment.stored.drop("project", identity)

    # --- all of them ----------------------------------------------------------------------------------------

    def refresh(self, project: str | None = None) -> None:
        """Forget what is held, of one project or of all: the next look asks the server."""
        self.snapshots.refresh(project)
        self._list.refresh()

    def close(self) -> None:
        """Start nothing more."""
        self._composers.close()


def _expected(record: ProjectRecord, before: ProjectSnapshot | None) -> set[int]:
    """The numbers of the resources a project should have: as the list of projects says, and as was known
    before.
    """
    known = {one.id for one in before.own_resources if one.id is not None} if before is not None else set()
    return known | {number for number, _, _ in record.resources or ()}
