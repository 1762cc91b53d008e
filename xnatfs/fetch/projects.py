"""The projects of a server: which there are, and what each holds down to its resources. Listed once, held, brought up to date.

Used by `catalogs`. Cost (DESIGN 4.1): a project in about eight requests; a look whether anything changed in four, and what did is listed
again. What was proven last stays until a listing that came back right says otherwise: a 404 proves nothing (fact sheet 13), a project is
gone when the list of projects is without it.
Threading: any thread. Published holdings are never changed in place; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial

from xnatfs.config import Limits
from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.fetch.bulk import BulkLoader
from xnatfs.fetch.flights import Flights, Workers
from xnatfs.fetch.holdings import Memo, ProjectHoldings
from xnatfs.fetch.later import Later
from xnatfs.fetch.patience import Patience
from xnatfs.fetch.renewal import patched
from xnatfs.fetch.stamps import ExperimentLists
from xnatfs.fetch.stored import Kept, StoredListings
from xnatfs.fetch.troubles import Troubles
from xnatfs.server.listings import Listings
from xnatfs.server.records import ExperimentRecord, Owner, ProjectRecord, ResourceRecord, SubjectRecord
from xnatfs.server.resources import Resources

log = logging.getLogger(__name__)


class ProjectLists:
    """The projects of one server, for one user.

    Args:
        listings, resources: where they come from.
        experiments: lists the experiments of a project with the stamps that move.
        flights: fetches single listings.
        limits: how long a listing holds.
        troubles: what is odd on the server is reported there.
        stored: what earlier mounts listed: shown at once where the server's stamps agree, or where the server is away.
        later: renews what was shown from the store.
        patience: when not to wait on.
        only: show only these projects (none: all).
    """

    def __init__(
        self,
        listings: Listings,
        resources: Resources,
        experiments: ExperimentLists,
        flights: Flights,
        limits: Limits,
        troubles: Troubles,
        stored: StoredListings,
        later: Later,
        patience: Patience,
        only: tuple[str, ...] = (),
    ) -> None:
        self._listings = listings
        self._resources = resources
        self._experiments = experiments
        self._flights = flights
        self._limits = limits
        self._troubles = troubles
        self._stored = stored
        self._later = later
        self._patience = patience
        self._only = only
        # What waits for listings runs apart from what fetches them: in one pool, eight projects at once would wait for each other.
        self._composers = Workers("project", 32)
        self._composing = Flights(self._composers)
        self._bulk = BulkLoader(listings, resources, experiments, flights, limits.listing_deadline)
        self._lock = threading.Lock()
        self._projects: tuple[float, dict[str, ProjectRecord]] | None = None
        self.held: dict[str, ProjectHoldings] = {}
        self.changed = -1e9  # time.monotonic() of the last listing that may differ from what was shown before
        self._epoch = 0  # rises with every refresh: what was asked for before it is not held after it
        self._refreshed = False
        # Called with the holdings before and after when a project was compared with the server.
        self.on_renewed: Callable[[ProjectHoldings | None, ProjectHoldings], None] = lambda before, after: None

    # --- which there are -----------------------------------------------------------------------------------------

    def projects(self) -> dict[str, ProjectRecord]:
        """The projects shown, by id."""
        held = self._projects
        if held is not None and time.monotonic() - held[0] < self._limits.ttl:
            return held[1]
        if held is None and not self._refreshed:
            kept = self._stored.projects()
            if kept is not None:
                found = self._shown(kept.value)
                self._projects = (time.monotonic(), found)
                self._later.add("projects", lambda: self._flights.start((self._epoch, "projects"), self._load_projects, urgent=False))
                return found
        try:
            give_up = self._patience(held=held is not None)
            return self._flights.get((self._epoch, "projects"), self._load_projects, self._limits.listing_deadline, give_up)
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED:
                raise
            kept = self._stored.projects() if held is None and failure.cause in UNANSWERED else None
            if held is None and kept is None:
                raise
            self._stale("the list of projects", failure)
            found = held[1] if held is not None else self._shown(kept.value) if kept is not None else {}
            self._projects = (time.monotonic(), found)
            return found

    def _shown(self, projects: dict[str, ProjectRecord]) -> dict[str, ProjectRecord]:
        return {one.id: one for one in projects.values() if not self._only or one.id in self._only}

    def _load_projects(self) -> dict[str, ProjectRecord]:
        epoch = self._epoch
        everything = {one.id: one for one in self._listings.projects()}
        found = self._shown(everything)
        self._stored.put_projects(everything)
        if epoch == self._epoch:
            self._projects = (time.monotonic(), found)
        return found

    # --- one of them ---------------------------------------------------------------------------------------------

    def fresh(self, identity: str) -> ProjectHoldings | None:
        """A project's holdings if they need not be renewed; no request."""
        held = self.held.get(identity)
        return held if held is not None and time.monotonic() - held.loaded < self._limits.ttl else None

    def get(self, identity: str) -> ProjectHoldings:
        """A project's holdings, at most `ttl` old.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if nothing is held yet.
        """
        if (fresh := self.fresh(identity)) is not None:
            return fresh
        held = self.held.get(identity)
        try:
            give_up = self._patience(held=held is not None)
            return self._composing.get((self._epoch, identity), lambda: self._renew(identity), self._limits.listing_deadline, give_up)
        except Failure as failure:
            if failure.cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED, Cause.INTERRUPTED):
                raise
            if held is None:
                kept = self._stored.project(identity) if failure.cause in UNANSWERED and self._may_show(identity) else None
                if kept is None:
                    raise
                held = self.held.setdefault(identity, kept.value)
            self._stale(f"project {identity}", failure)
            held.loaded = time.monotonic()
            return held

    def _may_show(self, identity: str) -> bool:
        return not self._only or identity in self._only

    def _renew(self, identity: str) -> ProjectHoldings:
        """One to four requests tell whether anything changed since the holdings were made; only what did is listed again."""
        epoch = self._epoch
        held = self.held.get(identity)
        kept = self._stored.project(identity) if held is None and not self._refreshed and self._may_show(identity) else None
        if kept is not None:
            record: ProjectRecord | None = kept.value.project  # whether it still is this user's tells the next request
        else:
            record = self.projects().get(identity)
        if record is None:
            if not self.gone(identity):
                raise Failure(Cause.UNPROVEN, f"project {identity}")
            self._forget(identity)
            raise Failure(Cause.NO_ENTRY, identity)
        people = cache(lambda: self._listings.people(identity))
        before = held or (kept.value if kept is not None else None)
        experiments = self._listed(identity, people, before)
        fresh = self._patched(record, experiments, people, held, kept)
        if fresh is held is not None and held.as_it_was:
            fresh = replace(held, memo=Memo(), as_it_was=False)
        if fresh is None:
            fresh = self._bulk.load(record, experiments, partial(self.own_resources, identity, _expected(record, before)))
            fresh.made = time.monotonic()
            if before is not None:
                fresh.take_over(before)
        fresh.loaded = time.monotonic()
        with self._lock:
            if epoch == self._epoch:
                if held is not None and fresh is not held:
                    self.changed = time.monotonic()
                self.held[identity] = fresh
        if fresh is not held and (kept is None or fresh is not kept.value):
            self._stored.put_project(fresh)
        self.on_renewed(before, fresh)
        return fresh

    def _listed(
        self, identity: str, people: Callable[[], list[SubjectRecord]], before: ProjectHoldings | None
    ) -> dict[str, ExperimentRecord]:
        try:
            return self._experiments.get(identity, people, before.experiments.values() if before is not None else ())
        except Failure as failure:
            if failure.cause is Cause.NOT_ALLOWED:
                self.held.pop(identity, None)
            elif failure.cause is Cause.UNPROVEN and self.gone(identity):
                self._forget(identity)
                raise Failure(Cause.NO_ENTRY, identity, failure.detail, failure.status) from failure
            raise

    def _patched(
        self,
        record: ProjectRecord,
        experiments: dict[str, ExperimentRecord],
        people: Callable[[], list[SubjectRecord]],
        held: ProjectHoldings | None,
        kept: Kept[ProjectHoldings] | None,
    ) -> ProjectHoldings | None:
        """What is held or kept, with what changed since; None if all of it has to be listed again."""
        identity = record.id
        assessors = partial(self._listings.assessors, identity)
        if kept is not None:
            # Shown with one request; the rest is asked for in a moment.
            fresh = patched(kept.value, record, experiments, None, kept.value.own_resources, assessors)
            if fresh is not None:
                fresh.made = time.monotonic() - kept.age
                self._later.add(("project", identity), lambda: self._look_again(identity))
            return fresh
        if held is None or time.monotonic() - held.made >= self._limits.relist_after:
            return None
        try:
            own = self.own_resources(identity, _expected(record, held))
        except Failure as failure:
            if failure.cause is not Cause.UNPROVEN:
                raise
            self._stale(f"the resources of project {identity}", failure)  # they hold up nothing else
            own = held.own_resources
        return patched(held, record, experiments, people(), own, assessors)

    def own_resources(self, identity: str, expected: Iterable[int]) -> list[ResourceRecord]:
        """The resources of the project itself. Their listing can come back right and empty while a query inside it fails (fact sheet
        13), so what it lacks of the `expected` ones (their numbers) has to be lacking in the list of projects, too.

        Raises:
            Failure: UNPROVEN if it is not; what keeps the server from answering.
        """
        found = self._resources.of(Owner("project", identity))
        lacking = set(expected) - {one.id for one in found}
        if lacking:
            now = {one.id: one for one in self._listings.projects()}.get(identity)
            if now is not None and now.resources is not None:
                lacking &= {number for number, _, _ in now.resources}
            else:  # the list of projects does not tell, perhaps because of the same query
                lacking = {one for one in lacking if self._answers_for(identity, one)}
        if lacking:
            raise Failure(Cause.UNPROVEN, f"the resources of project {identity}", f"{len(lacking)} are not listed")
        return found

    def _answers_for(self, identity: str, number: int) -> bool:
        """Whether the server still knows a resource of a project: of an unknown number it says 404, of one it cannot read just now 500.

        Raises:
            Failure: what keeps the server from answering.
        """
        try:
            self._resources.files_of_resource(ResourceRecord(Owner("project", identity), "", number))
        except Failure as failure:
            if failure.status != 404:
                raise
            return False
        return True

    def _look_again(self, identity: str) -> None:
        held = self.held.get(identity)
        if held is not None:
            held.loaded = -1e9
            self._composing.start((self._epoch, identity), lambda: self._renew(identity), urgent=False)

    def check(self, identity: str) -> None:
        """Return if the server answers about a project, asked now: what it refuses otherwise is then its own failure.

        Raises:
            Failure: UNPROVEN, or what keeps the server from answering.
        """
        if not self._listings.first_experiment(identity):
            raise Failure(Cause.UNPROVEN, f"project {identity}", "it has no experiment any more")

    def gone(self, identity: str) -> bool:
        """Whether a list of projects that came back right, asked for now, is without this one."""
        try:
            return identity not in {one.id for one in self._listings.projects()}
        except Failure as failure:
            log.info("whether project %s is gone cannot be told: %s", identity, failure)
            return False

    def _forget(self, identity: str) -> None:
        self.held.pop(identity, None)
        self._stored.drop_project(identity)

    # --- all of them ---------------------------------------------------------------------------------------------

    def refresh(self, project: str | None = None) -> None:
        """Forget what is held, of one project or of all: the next look asks the server."""
        with self._lock:
            self._epoch += 1
            self._refreshed = True
            self.changed = time.monotonic()
            if project is None:
                self.held.clear()
            else:
                self.held.pop(project, None)
            self._projects = None

    def close(self) -> None:
        """Start nothing more."""
        self._composers.close()

    def _stale(self, what: str, failure: Failure) -> None:
        log.warning("%s could not be listed again and is shown as it was: %s", what, failure)
        self._troubles.failed(failure)


def _expected(record: ProjectRecord, before: ProjectHoldings | None) -> set[int]:
    """The numbers of the resources a project should have: as the list of projects says, and as was known before."""
    known = {one.id for one in before.own_resources if one.id is not None} if before is not None else set()
    return known | {number for number, _, _ in record.resources or ()}
