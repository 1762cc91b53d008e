"""What the server holds, as far as anybody has asked: listings fetched once, held, renewed when they age.

Used by the tree. Projects are in `projects.py`, files in `filelists.py`. A session costs one request for its files; one whose resources
no bulk listing tells costs one more, and both are fetched ahead, in parallel, when sessions are walked in order.
Threading: any thread. Published holdings are never changed in place; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from xnatfs.config import Limits
from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.fetch.ahead import Ahead
from xnatfs.fetch.filelists import FileLists
from xnatfs.fetch.flights import Flight, Flights, Workers
from xnatfs.fetch.history import History
from xnatfs.fetch.holdings import FileHoldings, ProjectHoldings, SessionHoldings, owner_session
from xnatfs.fetch.later import Later
from xnatfs.fetch.names import Names
from xnatfs.fetch.patience import Patience
from xnatfs.fetch.projects import ProjectLists
from xnatfs.fetch.singly import SingleLoader
from xnatfs.fetch.stamps import ExperimentLists
from xnatfs.fetch.stored import StoredListings
from xnatfs.fetch.troubles import Troubles
from xnatfs.server.listings import Listings
from xnatfs.server.records import ExperimentRecord, FileRecord, Owner, ProjectRecord, ResourceRecord
from xnatfs.server.resources import FileListing, Resources
from xnatfs.server.urls import addressable

log = logging.getLogger(__name__)
T = TypeVar("T")


_LISTED_AHEAD = 64  # resources
_SOON = 2.0  # seconds until what an earlier mount stored is asked for again


class Catalogs:
    """The listings of one server, for one user.

    Args:
        listings: where they come from.
        limits: how long they hold, how many file records are kept.
        troubles: what is odd on the server is reported there.
        stored: what earlier mounts listed: shown at once where the server's stamps agree, or where the server is away.
        history: when files changed.
        only: show only these projects (none: all).
    """

    def __init__(
        self,
        listings: Listings,
        limits: Limits,
        troubles: Troubles,
        stored: StoredListings,
        history: History,
        only: tuple[str, ...] = (),
    ) -> None:
        self._listings = listings
        self._resources = Resources(listings)
        self._limits = limits
        self._troubles = troubles
        self._stored = stored
        self.history = history
        self._only = only
        self._workers = Workers("listing", limits.connections)
        self._flights = Flights(self._workers)
        self._later = Later(_SOON)
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, str], tuple[str, float, SessionHoldings]] = {}  # by project and experiment
        self._patience = Patience(listings.breaker)
        self._files = FileLists(self._resources, self._flights, limits, troubles, stored, history, self._later, self._patience)
        self.experiments = ExperimentLists(listings, troubles)
        self._projects = ProjectLists(
            *(listings, self._resources, self.experiments, self._flights, limits, troubles, stored, self._later, self._patience), only
        )
        self._projects.on_renewed = self._renewed
        self._single = SingleLoader(listings, self._resources)
        self._ahead = Ahead()
        self.names = Names(listings, self._begin, limits.listing_deadline, self._patience, self.fresh, self.project)
        self._epoch = 0  # rises with every refresh: what was asked for before it is not held after it
        self._refreshed = 0.0  # epoch seconds of that
        refused, proofs = stored.forms()
        listings.capabilities.recall(refused)
        self._single.items_proven = "items" in proofs
        self.experiments.proven = "stamps" in proofs

    # --- projects ------------------------------------------------------------------------------------------------

    def projects(self) -> dict[str, ProjectRecord]:
        """The projects shown, by id."""
        return self._projects.projects()

    def fresh(self, identity: str) -> ProjectHoldings | None:
        """A project's holdings if they need not be renewed; no request."""
        return self._projects.fresh(identity)

    def project(self, identity: str) -> ProjectHoldings:
        """A project's holdings, at most `ttl` old; see `ProjectLists.get`."""
        return self._projects.get(identity)

    def own_resources(self, identity: str, expected: Iterable[int]) -> list[ResourceRecord]:
        """The resources of a project itself; see `ProjectLists.own_resources`."""
        return self._projects.own_resources(identity, expected)

    def check(self, identity: str) -> None:
        """Return if the server answers about a project; see `ProjectLists.check`."""
        self._projects.check(identity)

    def gone(self, identity: str) -> bool:
        """Whether a list of projects, asked for now, proves that this one is not there."""
        return self._projects.gone(identity)

    def keep_forms(self) -> None:
        """Keep for later mounts which forms the server refused, and which it proved to be right in."""
        proofs = ["items"] * self._single.items_proven + ["stamps"] * self.experiments.proven
        self._stored.put_forms(self._listings.capabilities.refused_at, proofs)

    def _renewed(self, before: ProjectHoldings | None, after: ProjectHoldings) -> None:
        # What was known of a session that changed stays known until it could be asked for.
        for identity in after.renewed if before is not None and before is not after else ():
            old = before.experiments.get(identity) if before is not None else None
            session = before.session(old) if before is not None and old is not None else None
            if old is not None and session is not None:
                self._sessions[after.project.id, identity] = old.changed, time.monotonic(), session
        self.keep_forms()

    # --- sessions ------------------------------------------------------------------------------------------------

    def session(self, project: str, identity: str) -> SessionHoldings:
        """One experiment of a project, down to its resources."""
        holdings = self.project(project)
        experiment = holdings.experiments.get(identity)
        if experiment is None:
            raise Failure(Cause.NO_ENTRY, identity)
        found = holdings.session(experiment) or self._held_session(project, experiment)
        if found is None and self._single.items and identity not in holdings.renewed:
            self._ask_item(holdings, experiment.subject_id)
            found = self._held_session(project, experiment)
        if found is None:
            for other in self._ahead.window(("sessions", project), holdings.order, identity):
                one = holdings.experiments[other]
                if self._held_session(project, one) is None and holdings.session(one) is None:
                    self._begin(("session", project, other), partial(self._load_session, holdings, one), urgent=False)
            try:
                found = self._get(("session", project, identity), lambda: self._load_session(holdings, experiment))
            except Failure as failure:
                found = self._as_it_was(project, identity, failure)
                if found is None:
                    raise
        return self._with_files(found)

    def _as_it_was(self, project: str, identity: str, failure: Failure) -> SessionHoldings | None:
        """What was last known of a session that the server does not tell of now; None if nothing was, or it is no trouble of the server."""
        if failure.cause not in UNANSWERED:
            return None
        held = self._sessions.get((project, identity))
        kept = self._stored.session(project, identity) if held is None else None
        found = held[2] if held is not None else kept.value if kept is not None else None
        if found is not None:
            log.warning("session %s could not be listed again and is shown as it was: %s", identity, failure)
            if (holdings := self._projects.held.get(project)) is not None:
                holdings.as_it_was = True
            self._troubles.failed(failure)
        return found

    def _held_session(self, project: str, experiment: ExperimentRecord) -> SessionHoldings | None:
        key = project, experiment.id
        held = self._sessions.get(key)
        if held is not None:
            return held[2] if self._holds(held[0], held[1], experiment.changed) else None
        kept = self._stored.session(*key) if experiment.changed else None
        if kept is None or kept.stamp != experiment.changed or kept.value.experiment != experiment or self._predates(kept.age):
            return None
        self._sessions[key] = (kept.stamp, time.monotonic(), kept.value)
        return kept.value

    def _load_session(self, holdings: ProjectHoldings, experiment: ExperimentRecord) -> SessionHoldings:
        held = self._held_session(holdings.project.id, experiment)
        return held or self._hold_session(holdings, self._single.session(holdings, experiment))

    def _hold_session(self, holdings: ProjectHoldings, session: SessionHoldings) -> SessionHoldings:
        key = holdings.project.id, session.experiment.id  # a shared session has other labels, and other assessors, in each project
        self._sessions[key] = (session.experiment.changed, time.monotonic(), session)
        self._stored.put_session(holdings.project.id, session)
        return session

    def _ask_item(self, holdings: ProjectHoldings, subject: str) -> None:
        """A subject and all its sessions in one request, and the next subjects of a walk with it."""
        if subject not in holdings.subject_order.position or subject in holdings.without_item:
            return
        for other in self._ahead.window(("items", holdings.project.id), holdings.subject_order, subject):
            if other not in holdings.complete_subjects and other not in holdings.without_item:
                self._begin(("item", holdings.project.id, other), partial(self._load_item, holdings, other), urgent=False)
        self._get(("item", holdings.project.id, subject), lambda: self._load_item(holdings, subject))

    def _load_item(self, holdings: ProjectHoldings, subject: str) -> None:
        if subject in holdings.complete_subjects or subject in holdings.without_item:
            return  # the walk came here just when the look ahead had
        told = self._single.by_item(holdings, subject)
        if told is None:
            holdings.without_item.add(subject)
            return
        # An item comes without resources while a query inside it fails (fact sheet 13): where it tells less than was known, they are
        # asked for by themselves.
        for session in told[1]:
            if self._known_numbers(holdings.project.id, session.experiment.id) <= _numbers(session):
                self._hold_session(holdings, session)
            else:
                holdings.without_item.add(subject)
        if subject in holdings.complete_subjects:  # of a subject that is not shared along with its session, nothing is shown
            return
        kept = self._stored.subject(subject)
        if kept is None or {one.id for one in kept.value} <= {one.id for one in told[0]}:
            self._hold_subject(holdings, subject, told[0])
        else:
            holdings.without_item.add(subject)

    def _known_numbers(self, project: str, identity: str) -> set[int | None]:
        held = self._sessions.get((project, identity))
        kept = self._stored.session(project, identity) if held is None else None
        known = held[2] if held is not None else kept.value if kept is not None else None
        return set() if known is None else _numbers(known)

    def _with_files(self, session: SessionHoldings) -> SessionHoldings:
        """Add resources that only the file listing told of (a bulk listing may hide one behind an equal label)."""
        # Of the same stamp: an older one tells of resources that are gone by now.
        held = self._files.held(session.experiment.id, session.experiment.changed or None)
        if held is None:
            return session
        if session.merged is None or session.merged[0] is not held:
            session.merged = held, session.with_resources(held.resources())
        return session.merged[1]

    def subject_resources(self, project: str, subject: str) -> list[ResourceRecord]:
        """The resources of a subject itself."""
        holdings = self.project(project)
        owner = Owner("subject", subject)
        if subject not in holdings.subjects:
            raise Failure(Cause.NO_ENTRY, subject)
        if subject not in holdings.complete_subjects:
            self._recall_subject(holdings, subject)
        if subject not in holdings.complete_subjects and self._single.items:
            self._ask_item(holdings, subject)
        if subject not in holdings.complete_subjects:
            for other in self._ahead.window(("subjects", project), holdings.subject_order, subject):
                if other not in holdings.complete_subjects:
                    self._begin(("subject", project, other), partial(self._load_subject, holdings, other), urgent=False)
            try:
                self._get(("subject", project, subject), lambda: self._load_subject(holdings, subject))
            except Failure as failure:
                kept = self._stored.subject(subject) if failure.cause in UNANSWERED else None
                if kept is None:
                    raise
                log.warning("subject %s could not be listed again and is shown as it was: %s", subject, failure)
                self._troubles.failed(failure)
                return kept.value
        return holdings.resources.get(owner, [])

    def _load_subject(self, holdings: ProjectHoldings, subject: str) -> None:
        if subject not in holdings.complete_subjects:
            self._hold_subject(holdings, subject, self._single.subject(subject))

    def _hold_subject(self, holdings: ProjectHoldings, subject: str, resources: list[ResourceRecord]) -> None:
        holdings.resources[Owner("subject", subject)] = resources
        holdings.complete_subjects.add(subject)
        self._stored.put_subject(subject, holdings.subjects[subject].changed, resources)

    def _recall_subject(self, holdings: ProjectHoldings, subject: str) -> None:
        stamp = holdings.subjects[subject].changed
        kept = self._stored.subject(subject) if stamp else None
        if kept is not None and kept.stamp == stamp and not self._predates(kept.age):
            holdings.resources[Owner("subject", subject)] = kept.value
            holdings.complete_subjects.add(subject)

    # --- files ---------------------------------------------------------------------------------------------------

    def files(self, project: str, resource: ResourceRecord) -> FileHoldings:
        """The holdings that have the files of `resource`: all of its session, subject or project in one request.

        Raises:
            Failure: LISTING_EMPTY if the server counts files in the resource and lists none, however it is asked.
        """
        owner = resource.owner
        holdings = self.project(project)
        session = owner_session(owner)
        experiment = holdings.experiments.get(session)
        stamp = experiment.changed if experiment is not None else self._stamp(holdings, owner)
        if owner.direction == "in" or not session:  # as in `outdated`
            found = self._files.of(("owner", owner), stamp, *self._of_owner(owner))
        else:
            window = self._ahead.window(("files", project), holdings.order, session)
            self._files.ahead((other, holdings.experiments[other].changed) for other in window if self._may_have_files(holdings, other))
            found = self._files.of_session(session, stamp)
        if found.of_resource(resource) is None and resource.file_count != 0:
            # Seen on a real server: no rows although the resource counts files (xnat-recorded.md 25); asked singly before it is believed.
            singly = self._files.of(*self._one_resource(resource, stamp))
            if session and singly.of_resource(resource):
                self._files.distrust(("session", session))
            return singly
        return found

    def _of_owner(self, owner: Owner) -> tuple[Callable[[], FileListing], Callable[[], dict[int, int | None]]]:
        """How the files of one object are asked for, and how many its resources count."""

        def counts() -> dict[int, int | None]:
            if owner.level == "project":
                projects = {one.id: one for one in self._listings.projects()}
                told = projects[owner.id].resources if owner.id in projects else ()
                if told is not None:
                    return {number: count for number, _, count in told}
            return {one.id: one.file_count for one in self._resources.of(owner) if one.id is not None}

        return partial(self._resources.files_of, owner), counts

    def outdated(self, record: FileRecord) -> bool:
        """Whether a file that is not what its listing says is listed otherwise by now; asks the server."""
        owner = record.owner
        if owner.direction == "in" or not (session := owner_session(owner)):
            return self._files.outdated(("owner", owner), *self._of_owner(owner), record)
        return self._files.session_outdated(session, record)

    def list_files(self, project: str, sessions: Sequence[str]) -> None:
        """Begin to list the files of these sessions, in parallel and several a request: each will be asked for with `files` next."""
        experiments = self.project(project).experiments
        self._files.ahead((one, experiments[one].changed) for one in sessions if one in experiments)

    @staticmethod
    def _may_have_files(holdings: ProjectHoldings, session: str) -> bool:
        known = holdings.session(holdings.experiments[session])
        return known is None or bool(known.resources)

    def resource_files(self, resource: ResourceRecord, stamp: str, oldest: float | None = None) -> list[FileRecord]:
        """The files of one resource, in catalog order; see `listing_of`."""
        return self.listing_of(resource, stamp, oldest).of_resource(resource) or []

    def listing_of(self, resource: ResourceRecord, stamp: str, oldest: float | None = None) -> FileHoldings:
        """Holdings with the files of one resource, as of the stamp of its session: its session's listing where that is held, else one
        request for just this resource. `oldest`: see `FileLists.of`.

        Raises:
            Failure: what keeps the server from answering.
        """
        held = self._files.held(_session_of(resource), stamp) if oldest is None else None
        if held is not None and held.of_resource(resource) is not None:
            return held
        if not addressable(resource):
            return self._files.of_session(_session_of(resource), stamp)
        return self._files.of(*self._one_resource(resource, stamp), oldest)

    def listings_of(
        self, resources: Sequence[tuple[ResourceRecord, str]], progress: Callable[[int, int], object] | None = None
    ) -> list[FileHoldings]:
        """The same for many resources, each with the stamp of its session; those not held are listed in parallel.

        `progress` is told how many are listed, and of how many. Ends with the first failure; what was listed until then is kept.

        Raises:
            Failure: what keeps the server from answering; INTERRUPTED.
        """
        found: list[FileHoldings] = []
        begun = 0
        for resource, stamp in resources:
            # Only so many ahead of the one waited for: who interrupts this does not leave thousands of requests behind.
            for other, its_stamp in resources[begun : len(found) + _LISTED_AHEAD]:
                begun += 1
                if self._files.held(_session_of(other), its_stamp) is None and addressable(other):
                    self._files.begin(*self._one_resource(other, its_stamp))
            found.append(self.listing_of(resource, stamp))
            if progress is not None:
                progress(len(found), len(resources))
        return found

    def _one_resource(
        self, resource: ResourceRecord, stamp: str
    ) -> tuple[Hashable, str, Callable[[], FileListing], Callable[[], dict[int, int | None]]]:
        key = ("resource", resource.id or (resource.owner, resource.label))
        return key, stamp, partial(self._files_of_resource, resource), self._of_owner(resource.owner)[1]

    def _files_of_resource(self, resource: ResourceRecord) -> FileListing:
        listing = self._resources.files_of_resource(resource)
        if not listing.files and not listing.odd:
            # The bulk listings of labels do not tell counts.
            count = self._resources.file_count(resource) if resource.file_count is None else resource.file_count
            if count:
                raise Failure(Cause.LISTING_EMPTY, f"{resource.label} of {resource.owner.part or resource.owner.id}", f"it counts {count}")
        return listing

    @staticmethod
    def _stamp(holdings: ProjectHoldings, owner: Owner) -> str:
        subject = holdings.subjects.get(owner.id)
        return subject.changed if subject is not None and owner.level == "subject" else ""

    # --- helpers -------------------------------------------------------------------------------------------------

    def resources_of(self, owner: Owner) -> list[ResourceRecord]:
        """The resources of one object with all the server tells of them, asked now."""
        return self._get(("resources", owner), lambda: self._resources.of(owner))

    def refresh(self, project: str | None = None) -> None:
        """Forget what is held, of one project or of all: the next look asks the server."""
        with self._lock:
            self._epoch += 1
            self._refreshed = time.time()
            self._sessions.clear()
        self._projects.refresh(project)
        self._files.refresh()

    def changed_within(self, seconds: float) -> bool:
        """Whether a listing was replaced by another in the last so many seconds."""
        return time.monotonic() - max(self._projects.changed, self._files.changed) < seconds

    def counts(self) -> dict[str, int]:
        """For `status`."""
        listings, records = self._files.counts()
        return {"projects listed": len(self._projects.held), "file listings held": listings, "file records held": records}

    @property
    def refused_forms(self) -> list[str]:
        """The inferred forms this server does not take."""
        return self._listings.capabilities.refused

    def close(self) -> None:
        """Start nothing more."""
        self._later.close()
        self._projects.close()
        self._workers.close()
        self._stored.close()

    def _holds(self, held_stamp: str, held_at: float, stamp: str) -> bool:
        # With a stamp a listing holds until that moves; some changes move none (fact sheet 13), so it is asked for again after some
        # hours all the same. Without one, age is all there is.
        age = time.monotonic() - held_at
        return held_stamp == stamp and age < (max(self._limits.relist_after, self._limits.ttl) if stamp else self._limits.ttl)

    def _predates(self, age: float) -> bool:
        """Whether something of this age was listed before the last refresh."""
        return time.time() - age < self._refreshed

    def _get(self, key: Hashable, work: Callable[[], T], *, held: bool = False) -> T:
        return self._flights.get((self._epoch, key), work, self._limits.listing_deadline, self._patience(held=held))

    def _begin(self, key: Hashable, work: Callable[[], T], *, urgent: bool = True) -> Flight[T]:
        return self._flights.start((self._epoch, key), work, urgent=urgent)

    def _stale(self, what: str, failure: Failure) -> None:
        log.warning("%s could not be listed again and is shown as it was: %s", what, failure)
        self._troubles.failed(failure)


def _session_of(resource: ResourceRecord) -> str:
    return resource.owner.part if resource.owner.level == "assessor" else resource.owner.id


def _numbers(session: SessionHoldings) -> set[int | None]:
    return {one.id for group in session.resources.values() for one in group}
