"""Just what tables need of a project: its experiments and the resources of the sessions themselves, in two or
three requests.

Used by `tables.engine.build`. The whole project (`catalogs`) costs about ten requests, which a table over
session resources does not need; what lies below scans and assessors is asked of `listing.service` when a
session has not what is looked for. Threading: any thread; outlines are replaced, never changed, but for what
is learnt of single sessions, which is only added."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from functools import cache, partial

from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.config import Limits
from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.listing.codec import StoredListings
from xnatfs.listing.service import ListingService
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.listing.stale_policy import StalePolicy
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import ExperimentRecord, ResourceRecord
from xnatfs.server.resources import Resources

log = logging.getLogger(__name__)


class ProjectSummaries:
    """The outlines of one server's projects."""

    def __init__(
        self,
        listings: ListingRequests,
        limits: Limits,
        stored: StoredListings,
        listing_service: ListingService,
    ) -> None:
        self._listings = listings
        self._listing_service = listing_service
        self._resources = Resources(listings)
        self._limits = limits
        self._patience = StalePolicy(listings.breaker)
        self._stored = stored
        self._workers = WorkerPool("outline", limits.connections)
        self._single_flight = SingleFlight(self._workers)
        self._composers = WorkerPool("outlines", 4)  # these wait for the others
        self._composing = SingleFlight(self._composers)
        self._lock = threading.Lock()
        self._held: dict[str, ProjectSummary] = {}
        self._epoch = 0
        self._refreshed = False

    def get(self, project: str) -> ProjectSummary:
        """The outline of a project, at most `ttl` old.

        Raises: Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if
            nothing is held yet."""
        held = self._held.get(project)
        whole = self._listing_service.fresh(project)
        # Never older than the whole project: what is made from both, and kept with that, would lack what is
        # new.
        if (
            held is not None
            and time.monotonic() - held.loaded < self._limits.ttl
            and (whole is None or whole.loaded <= held.loaded)
        ):
            return held
        try:
            give_up = self._patience(held=held is not None)
            return self._composing.get(
                (self._epoch, project), lambda: self._renew(project), self._limits.listing_deadline, give_up
            )
        except Failure as failure:
            kept = held or (self._stored.summary(project) if failure.cause in UNANSWERED else None)
            if kept is None or failure.cause not in UNANSWERED:
                raise
            log.warning(
                "project %s could not be listed again; using the previous summary: %s", project, failure
            )
            kept.loaded = time.monotonic()
            self._held[project] = kept
            return kept

    def look_into(
        self, summary: ProjectSummary, identities: Iterable[str], *, all_of_them: bool = True
    ) -> set[str]:
        """Make the resources of these experiments known: one request each, in parallel, for those the bulk
        listing does not tell.

        Without `all_of_them` some may be refused, as a session in quarantine is (xnat-rest.md 12), if the
        server answers about the project and any session is known; they are returned.

        Raises:
            Failure: what keeps the server from answering.
        """
        missing = [one for one in identities if summary.session_resources(one) is None]
        calls = [
            self._single_flight.start(
                (self._epoch, summary.project, one), partial(self._look_at, summary, one)
            )
            for one in missing
        ]
        refused: dict[str, Failure] = {}
        for one, call in zip(missing, calls, strict=True):
            try:
                call.wait(self._limits.listing_deadline, self._patience(held=False))
            except Failure as failure:
                if (
                    all_of_them
                    or failure.away
                    or (failure.status not in (403, 404, 500) and failure.cause is not Cause.BAD_LISTING)
                ):
                    raise
                refused[one] = failure
        if refused:
            if all(summary.session_resources(one) is None for one in summary.experiments):
                raise next(iter(refused.values()))
            self._listing_service.check(summary.project)
        if missing:
            self._stored.put_outline(summary)
        return set(refused)

    def refresh(self) -> None:
        """Ask the server at the next look."""
        with self._lock:
            self._epoch += 1
            self._refreshed = True
            self._held.clear()

    def close(self) -> None:
        """Start nothing more."""
        self._composers.close()
        self._workers.close()

    def _look_at(self, summary: ProjectSummary, identity: str) -> None:
        if identity not in summary.every:
            summary.every[identity] = self._resources.of_session(identity)

    def _renew(self, project: str) -> ProjectSummary:
        epoch = self._epoch
        before = self._held.get(project) or (None if self._refreshed else self._stored.summary(project))
        whole = self._listing_service.fresh(
            project
        )  # where it was listed a moment ago its experiments are not asked for again
        if whole is not None:
            experiments, resources = dict(whole.experiments), whole.own_resources
        else:
            experiments, resources = self._listed(project, epoch, before)
        same = {
            one
            for one in experiments
            if before is not None and before.experiments.get(one) == experiments[one]
        }
        stamped = all(one.changed for one in experiments.values())
        if before is not None and stamped and len(same) == len(experiments) == len(before.experiments):
            fresh = ProjectSummary(project, experiments, resources, before.own, before.known, before.every)
        else:
            told = self._listings.experiment_resources(project) if experiments else None
            if whole is None and told is not None:
                experiments = self._listing_service.experiments.confirm(project, experiments, told.seen)
            labels: dict[str, list[ResourceRecord]] = {}
            for resource in told.resources if told is not None else ():
                labels.setdefault(resource.owner.id, []).append(resource)
            # A column that is blank throughout may be one the server does not know; then each session is
            # asked.
            known = set() if told is None or told.blank else told.known & experiments.keys()
            every = (
                {one: found for one, found in before.every.items() if one in same}
                if before is not None and stamped
                else {}
            )
            fresh = ProjectSummary(project, experiments, resources, labels, known, every)
        fresh.loaded = time.monotonic() if whole is None else whole.loaded
        self._listing_service.keep_forms()
        with self._lock:
            if epoch == self._epoch:
                self._held[project] = fresh
        if before is None or fresh.own is not before.own or fresh.resources != before.resources:
            self._stored.put_outline(fresh)
        return fresh

    def _listed(
        self, project: str, epoch: int, before: ProjectSummary | None
    ) -> tuple[dict[str, ExperimentRecord], list[ResourceRecord]]:
        expected = {one.id for one in before.resources if one.id is not None} if before is not None else ()
        own = self._single_flight.start(
            (epoch, project, "resources"), lambda: self._listing_service.own_resources(project, expected)
        )
        try:
            known = before.experiments.values() if before is not None else ()
            experiments = self._listing_service.experiments.get(
                project, cache(lambda: self._listings.people(project)), known
            )
        except Failure as failure:
            cause = failure.cause
            if cause is Cause.UNPROVEN and self._listing_service.gone(project):
                cause = Cause.NO_ENTRY
                self._stored.drop_outline(project)
            if cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED):
                self._held.pop(project, None)
                raise Failure(cause, f"project {project}", failure.detail, failure.status) from failure
            raise
        return experiments, own.wait(self._limits.listing_deadline)
