"""Just what tables need of a project: its experiments and the resources of the sessions themselves, in two or
three requests.

Used by `tables.engine.build`. The whole project (`projects`) costs about ten requests, which a table over
session resources does not need; what lies below scans and assessors is asked of `sessions` when a session has
not what is looked for.
Threading: any thread; summaries are replaced, never changed, but for what is learnt of single sessions, which
is only added.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial

from xnatfs.concurrency.refreshable import Refreshable
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.errors import Cause, Failure
from xnatfs.listing.service import ListingService
from xnatfs.listing.shared_sessions import with_homes
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.server.records import ExperimentRecord, ResourceRecord


class ProjectSummaries:
    """The summaries of one server's projects."""

    def __init__(self, listing_service: ListingService) -> None:
        self._listing_service = listing_service
        self._environment = environment = listing_service.environment
        self._projects = listing_service.projects
        self._workers = WorkerPool("outline", environment.limits.connections)
        self._single_flight = SingleFlight(self._workers)
        self._composers = WorkerPool("summaries", 4)  # these wait for the others
        self._values: Refreshable[str, ProjectSummary] = environment.refreshable(
            "project",
            environment.stored.summary,
            calls=SingleFlight(self._composers),
            again_after=environment.limits.ttl,
        )

    def get(self, project: str) -> ProjectSummary:
        """The summary of a project, at most `ttl` old.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if
                nothing is held yet.
        """
        held = self._values.shown(project) or self._values.held(project)
        if held is not None and held.at is not None and self._young(project, held.at):
            return held.value
        return self._values.get(project, lambda: self._renew(project))

    def _young(self, project: str, at: float) -> bool:
        if self._environment.clock.now() - at >= self._environment.limits.ttl:
            return False
        # Never older than the whole project: what is made from both, and kept with that, would lack what is
        # new.
        whole = self._projects.agreed(project) if self._projects.fresh(project) is not None else None
        return whole is None or whole <= at

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
                (self._values.epoch, summary.project, one), partial(self._look_at, summary, one)
            )
            for one in missing
        ]
        refused: dict[str, Failure] = {}
        for one, call in zip(missing, calls, strict=True):
            try:
                call.wait(self._environment.limits.listing_deadline, self._environment.policy(held=False))
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
            self._projects.proof.check(summary.project)
        if missing:
            self._environment.stored.put_outline(summary)
        return set(refused)

    def refresh(self) -> None:
        """Ask the server at the next look."""
        self._values.refresh()

    def close(self) -> None:
        """Start nothing more."""
        self._composers.close()
        self._workers.close()

    def _look_at(self, summary: ProjectSummary, identity: str) -> None:
        if identity not in summary.every:
            summary.every[identity] = self._environment.resources.of_session(identity)

    def _renew(self, project: str) -> ProjectSummary:
        epoch, clock = self._values.epoch, self._environment.clock
        newest = self._values.held(project) if self._values.refreshed else self._values.latest(project)
        before = newest.value if newest is not None else None
        # Where it was listed a moment ago its experiments are not asked for again.
        agreed, whole = self._projects.agreed(project), self._projects.fresh(project)
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
            told = None
            if experiments:
                told = self._environment.listings.experiment_resources(project, counts=True)
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
        age = clock.now() - agreed if whole is not None and agreed is not None else 0.0
        self._listing_service.keep_forms()
        self._values.put(project, fresh, epoch=epoch, age=age)
        if before is None or fresh.own is not before.own or fresh.resources != before.resources:
            self._environment.stored.put_outline(fresh)
        return fresh

    def _listed(
        self, project: str, epoch: int, before: ProjectSummary | None
    ) -> tuple[dict[str, ExperimentRecord], list[ResourceRecord]]:
        expected = {one.id for one in before.resources if one.id is not None} if before is not None else ()
        own = self._single_flight.start(
            (epoch, project, "resources"),
            lambda: self._projects.proof.own_resources(project, expected, witness=True),
        )
        try:
            known = list(before.experiments.values()) if before is not None else []
            whole = self._projects.snapshots.held(project)
            if whole is not None:
                known = with_homes(known, whole.value.experiments)
            experiments = self._listing_service.experiments.get(
                project, cache(lambda: self._environment.listings.people(project)), known
            )
        except Failure as failure:
            cause = failure.cause
            if cause is Cause.UNPROVEN and self._projects.proof.gone(project):
                cause = Cause.NO_ENTRY
                self._environment.stored.drop("outline", project)
            if cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED):
                self._values.drop(project)
                raise Failure(cause, f"project {project}", failure.detail, failure.status) from failure
            raise
        return experiments, own.wait(self._environment.limits.listing_deadline)
