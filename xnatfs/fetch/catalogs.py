"""What the server holds, as far as anybody has asked: listings fetched once, held, renewed when they age.

Used by the tree. Cost (DESIGN 4.1): a project in about eight requests, then one a session for its files; a session whose resources no
bulk listing tells costs one more, and both are fetched ahead, in parallel, when sessions are walked in order.
Threading: any thread. Published holdings are never changed in place; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from xnatfs.config import Limits
from xnatfs.errors import Cause, Failure
from xnatfs.fetch.ahead import Ahead
from xnatfs.fetch.bulk import BulkLoader
from xnatfs.fetch.filelists import AWAY, LONGEST, FileLists
from xnatfs.fetch.flights import Flight, Flights, Workers
from xnatfs.fetch.history import History
from xnatfs.fetch.holdings import FileHoldings, ProjectHoldings, SessionHoldings
from xnatfs.fetch.later import Later
from xnatfs.fetch.names import Names
from xnatfs.fetch.patience import Patience
from xnatfs.fetch.renewal import patched
from xnatfs.fetch.singly import SingleLoader
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
        # What waits for listings runs apart from what fetches them: in one pool, eight projects at once would wait for each other.
        self._composers = Workers("project", 32)
        self._composing = Flights(self._composers)
        self._later = Later(_SOON)
        self._lock = threading.Lock()
        self._projects: tuple[float, dict[str, ProjectRecord]] | None = None
        self._holdings: dict[str, ProjectHoldings] = {}
        self._sessions: dict[tuple[str, str], tuple[str, float, SessionHoldings]] = {}  # by project and experiment
        self._patience = Patience(listings.breaker)
        self._files = FileLists(self._resources, self._flights, limits, troubles, stored, history, self._later, self._patience)
        self._bulk = BulkLoader(listings, self._resources, self._flights, limits.listing_deadline)
        self._single = SingleLoader(listings, self._resources)
        self._ahead = Ahead()
        self.names = Names(listings, self._begin, limits.listing_deadline, self._patience, self.fresh, self.project)
        self._changed = -1e9  # time.monotonic() of the last listing that may differ from what was shown before
        self._epoch = 0  # rises with every refresh: what was asked for before it is not held after it
        self._refreshed = 0.0  # epoch seconds of that
        for form in stored.forms():
            if form.startswith("+"):
                self._single.items_proven = True
            else:
                listings.capabilities.refuse(form)

    # --- projects ------------------------------------------------------------------------------------------------

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
                self._later.add("projects", lambda: self._begin("projects", self._load_projects, urgent=False))
                return found
        try:
            return self._get("projects", self._load_projects, held=held is not None)
        except Failure as failure:
            if held is None or failure.cause is Cause.INTERRUPTED:
                raise
            self._stale("the list of projects", failure)
            self._projects = (time.monotonic(), held[1])
            return held[1]

    def fresh(self, identity: str) -> ProjectHoldings | None:
        """A project's holdings if they need not be renewed; no request."""
        held = self._holdings.get(identity)
        return held if held is not None and time.monotonic() - held.loaded < self._limits.ttl else None

    def project(self, identity: str) -> ProjectHoldings:
        """A project's holdings, at most `ttl` old.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if nothing is held yet.
        """
        if (fresh := self.fresh(identity)) is not None:
            return fresh
        held = self._holdings.get(identity)
        try:
            give_up = self._patience(held=held is not None)
            return self._composing.get((self._epoch, identity), lambda: self._renew(identity), self._limits.listing_deadline, give_up)
        except Failure as failure:
            if failure.cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED, Cause.INTERRUPTED):
                raise
            if held is None:
                kept = self._stored.project(identity) if failure.cause in AWAY and (not self._only or identity in self._only) else None
                if kept is None:
                    raise
                held = self._holdings.setdefault(identity, kept.value)
            self._stale(f"project {identity}", failure)
            held.loaded = time.monotonic()
            return held

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

    def _renew(self, identity: str) -> ProjectHoldings:
        """One to three requests tell whether anything changed since the holdings were made; only what did is listed again."""
        epoch = self._epoch
        held = self._holdings.get(identity)
        kept = self._stored.project(identity) if held is None and not self._refreshed else None
        if kept is not None and (not self._only or identity in self._only):
            record: ProjectRecord | None = kept.value.project  # whether it still is this user's tells the next request
        else:
            kept = None
            record = self.projects().get(identity)
        if record is None:
            self._forget(identity)
            raise Failure(Cause.NO_ENTRY, identity)
        try:
            experiments = {one.id: one for one in self._listings.experiments(identity)}
        except Failure as failure:
            if failure.cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED):
                self._forget(identity)
            raise
        assessors = partial(self._listings.assessors, identity)
        fresh: ProjectHoldings | None = None
        if kept is not None:
            # Shown with one request; the rest is asked for in a moment.
            fresh = patched(kept.value, record, experiments, None, kept.value.own_resources, assessors)
            if fresh is not None:
                fresh.made = time.monotonic() - kept.age
                self._later.add(("project", identity), lambda: self._look_again(identity))
        elif held is not None and time.monotonic() - held.made < LONGEST:
            people = self._listings.subjects(identity)
            fresh = patched(held, record, experiments, people, self._resources.of(Owner("project", identity)), assessors)
        if fresh is None:
            fresh = self._bulk.load(record, experiments)
            fresh.made = time.monotonic()
        fresh.loaded = time.monotonic()
        with self._lock:
            if epoch == self._epoch:
                if held is not None and fresh is not held:
                    self._changed = time.monotonic()
                self._holdings[identity] = fresh
        if fresh is not held and (kept is None or fresh is not kept.value):
            self._stored.put_project(fresh)
        self._stored.put_forms(self._listings.capabilities.refused + ["+items"] * self._single.items_proven)
        return fresh

    def _look_again(self, identity: str) -> None:
        held = self._holdings.get(identity)
        if held is not None:
            held.loaded = -1e9
            self._composing.start((self._epoch, identity), lambda: self._renew(identity), urgent=False)

    def _forget(self, identity: str) -> None:
        self._holdings.pop(identity, None)
        self._stored.drop_project(identity)

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
            found = self._get(("session", project, identity), lambda: self._load_session(holdings, experiment))
        return self._with_files(found)

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
        for session in told[1]:
            self._hold_session(holdings, session)
        if subject not in holdings.complete_subjects:  # of a subject that is not shared along with its session, nothing is shown
            self._hold_subject(holdings, subject, told[0])

    def _with_files(self, session: SessionHoldings) -> SessionHoldings:
        """Add resources that only the file listing told of (a bulk listing may hide one behind an equal label)."""
        held = self._files.held(session.experiment.id)
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
            self._get(("subject", project, subject), lambda: self._load_subject(holdings, subject))
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
        session = _session_with(owner)
        experiment = holdings.experiments.get(session)
        stamp = experiment.changed if experiment is not None else self._stamp(holdings, owner)
        if owner.direction == "in" or not session:  # as in `outdated`
            found = self._files.of(("owner", owner), stamp, lambda: self._resources.files_of(owner))
        else:
            window = self._ahead.window(("files", project), holdings.order, session)
            self._files.ahead((other, holdings.experiments[other].changed) for other in window if self._may_have_files(holdings, other))
            found = self._files.of_session(session, stamp)
        if found.of_resource(resource) is None and resource.file_count != 0:
            # Seen on a real server: no rows although the resource counts files (xnat-recorded.md 25); asked singly before it is believed.
            key = ("resource", resource.id or (owner, resource.label))
            return self._files.of(key, stamp, lambda: self._files_of_resource(resource))
        return found

    def outdated(self, record: FileRecord) -> bool:
        """Whether a file that is not what its listing says is listed otherwise by now; asks the server."""
        owner = record.owner
        if owner.direction == "in" or not (session := _session_with(owner)):
            return self._files.outdated(("owner", owner), lambda: self._resources.files_of(owner), record)
        return self._files.outdated(("session", session), partial(self._resources.files_of_session, session), record)

    def list_files(self, project: str, sessions: Sequence[str]) -> None:
        """Begin to list the files of these sessions, in parallel and several a request: each will be asked for with `files` next."""
        experiments = self.project(project).experiments
        self._files.ahead((one, experiments[one].changed) for one in sessions if one in experiments)

    @staticmethod
    def _may_have_files(holdings: ProjectHoldings, session: str) -> bool:
        known = holdings.session(holdings.experiments[session])
        return known is None or bool(known.resources)

    def resource_files(self, resource: ResourceRecord, stamp: str) -> list[FileRecord]:
        """The files of one resource, in catalog order; see `listing_of`."""
        return self.listing_of(resource, stamp).of_resource(resource) or []

    def listing_of(self, resource: ResourceRecord, stamp: str) -> FileHoldings:
        """Holdings with the files of one resource, as of the `last_modified` of its session: its session's listing where that is held,
        else one request for just this resource.

        Raises:
            Failure: what keeps the server from answering.
        """
        held = self._files.held(_session_of(resource), stamp)
        if held is not None and held.of_resource(resource) is not None:
            return held
        if not addressable(resource):
            return self._files.of_session(_session_of(resource), stamp)
        return self._files.of(*self._one_resource(resource, stamp))

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
            try:
                found.append(self.listing_of(resource, stamp))
            except Failure as failure:
                if failure.cause is Cause.NO_ENTRY:  # gone since its session was listed: no reason to say that the folder does not exist
                    raise Failure(
                        Cause.GONE, f"{resource.label} of {resource.owner.part or resource.owner.id}", failure.detail
                    ) from failure
                raise
            if progress is not None:
                progress(len(found), len(resources))
        return found

    def _one_resource(self, resource: ResourceRecord, stamp: str) -> tuple[Hashable, str, Callable[[], FileListing]]:
        key = ("resource", resource.id or (resource.owner, resource.label))
        return key, stamp, partial(self._files_of_resource, resource)

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
            self._changed = time.monotonic()
            if project is None:
                self._holdings.clear()
            else:
                self._holdings.pop(project, None)
            self._projects = None
            self._sessions.clear()
        self._files.refresh()

    def changed_within(self, seconds: float) -> bool:
        """Whether a listing was replaced by another in the last so many seconds."""
        return time.monotonic() - max(self._changed, self._files.changed) < seconds

    def counts(self) -> dict[str, int]:
        """For `status`."""
        listings, records = self._files.counts()
        return {"projects listed": len(self._holdings), "file listings held": listings, "file records held": records}

    @property
    def refused_forms(self) -> list[str]:
        """The inferred forms this server does not take."""
        return self._listings.capabilities.refused

    def close(self) -> None:
        """Start nothing more."""
        self._later.close()
        self._composers.close()
        self._workers.close()
        self._stored.close()

    def _holds(self, held_stamp: str, held_at: float, stamp: str) -> bool:
        # With a last_modified a listing holds until that moves; uploads that change no count may not move it (fact sheet 5), so it is
        # asked again after ten minutes all the same. Without one, age is all there is.
        age = time.monotonic() - held_at
        return held_stamp == stamp and age < (max(LONGEST, self._limits.ttl) if stamp else self._limits.ttl)

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


def _session_with(owner: Owner) -> str:
    """The session whose file listing has what `owner` has; "" for what belongs to none."""
    return {"experiment": owner.id, "scan": owner.id, "reconstruction": owner.id, "assessor": owner.part}.get(owner.level, "")
