"""What the server holds, as far as anybody has asked: listings fetched once, held, renewed when they age.

Used by the tree. Cost (DESIGN 4.1): a project in about eight requests, then one a session for its files; a session whose resources no
bulk listing tells costs one more, and both are fetched ahead, in parallel, when sessions are walked in order.
Threading: any thread. Published holdings are never changed in place; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar

from cachetools import LRUCache

from xnatfs.config import Limits
from xnatfs.errors import Cause, Failure
from xnatfs.fetch.ahead import Ahead
from xnatfs.fetch.bulk import BulkLoader
from xnatfs.fetch.flights import Flight, Flights, Workers
from xnatfs.fetch.holdings import FileHoldings, ProjectHoldings, SessionHoldings
from xnatfs.fetch.singly import SingleLoader
from xnatfs.fetch.troubles import Troubles
from xnatfs.server.listings import Listings
from xnatfs.server.records import ExperimentRecord, Owner, ProjectRecord, ResourceRecord
from xnatfs.server.resources import FileListing, Resources

log = logging.getLogger(__name__)
T = TypeVar("T")


class Catalogs:
    """The listings of one server, for one user.

    Args:
        listings: where they come from.
        limits: how long they hold, how many file records are kept.
        troubles: what is odd on the server is reported there.
        only: show only these projects (none: all).
    """

    def __init__(self, listings: Listings, limits: Limits, troubles: Troubles, only: tuple[str, ...] = ()) -> None:
        self._listings = listings
        self._resources = Resources(listings)
        self._limits = limits
        self._troubles = troubles
        self._only = only
        self._workers = Workers("listing", limits.connections)
        self._flights = Flights(self._workers)
        # What waits for listings runs apart from what fetches them: in one pool, eight projects at once would wait for each other.
        self._composers = Workers("project", 32)
        self._composing = Flights(self._composers)
        self._lock = threading.Lock()
        self._projects: tuple[float, dict[str, ProjectRecord]] | None = None
        self._holdings: dict[str, ProjectHoldings] = {}
        self._sessions: dict[tuple[str, str], tuple[str, float, SessionHoldings]] = {}  # by project and experiment
        self._files: LRUCache[Hashable, tuple[str, float, FileHoldings]] = LRUCache(
            limits.file_records, getsizeof=lambda held: held[2].count
        )
        self._bulk = BulkLoader(listings, self._resources, self._flights, limits.listing_deadline)
        self._single = SingleLoader(listings, self._resources)
        self._ahead = Ahead()
        self._changed = -1e9  # time.monotonic() of the last listing that may differ from what was shown before
        self._epoch = 0  # rises with every refresh: what was asked for before it is not held after it

    # --- projects ------------------------------------------------------------------------------------------------

    def projects(self) -> dict[str, ProjectRecord]:
        """The projects shown, by id."""
        held = self._projects
        if held is not None and time.monotonic() - held[0] < self._limits.ttl:
            return held[1]
        try:
            found = self._get("projects", self._load_projects)
        except Failure as failure:
            if held is None or failure.cause is Cause.INTERRUPTED:
                raise
            self._stale("the list of projects", failure)
            self._projects = (time.monotonic(), held[1])
            return held[1]
        return found

    def project(self, identity: str) -> ProjectHoldings:
        """A project's holdings, at most `ttl` old.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if nothing is held yet.
        """
        held = self._holdings.get(identity)
        if held is not None and time.monotonic() - held.loaded < self._limits.ttl:
            return held
        try:
            return self._composing.get((self._epoch, identity), lambda: self._renew(identity), self._limits.listing_deadline)
        except Failure as failure:
            if held is None or failure.cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED, Cause.INTERRUPTED):
                raise
            self._stale(f"project {identity}", failure)
            held.loaded = time.monotonic()
            return held

    def _load_projects(self) -> dict[str, ProjectRecord]:
        epoch = self._epoch
        found = {one.id: one for one in self._listings.projects() if not self._only or one.id in self._only}
        if epoch == self._epoch:
            self._projects = (time.monotonic(), found)
        return found

    def _renew(self, identity: str) -> ProjectHoldings:
        """Two requests tell whether anything changed since the holdings were made; all are listed again only then."""
        epoch = self._epoch
        held = self._holdings.get(identity)
        record = self.projects().get(identity)
        if record is None:
            self._holdings.pop(identity, None)
            raise Failure(Cause.NO_ENTRY, identity)
        try:
            experiments = {one.id: one for one in self._listings.experiments(identity)}
        except Failure as failure:
            if failure.cause is Cause.NO_ENTRY:
                self._holdings.pop(identity, None)
            raise
        stamped = all(one.changed for one in experiments.values())
        if held is not None and stamped and experiments == held.experiments:
            subjects, _ = self._listings.subjects(identity)
            resources = self._resources.of(Owner("project", identity))
            known = {one.id: one for one in held.subjects.values() if one.changed}
            if {one.id: one for one in subjects} == known and resources == held.own_resources:
                held.loaded = time.monotonic()
                return held
        fresh = self._bulk.load(record, experiments)
        with self._lock:
            if epoch == self._epoch:
                self._holdings[identity] = fresh
        return fresh

    # --- sessions ------------------------------------------------------------------------------------------------

    def session(self, project: str, identity: str) -> SessionHoldings:
        """One experiment of a project, down to its resources."""
        holdings = self.project(project)
        experiment = holdings.experiments.get(identity)
        if experiment is None:
            raise Failure(Cause.NO_ENTRY, identity)
        found = holdings.session(experiment) or self._held_session(project, experiment)
        if found is None and self._single.items:
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
        held = self._sessions.get((project, experiment.id))
        return held[2] if held is not None and self._holds(held[0], held[1], experiment.changed) else None

    def _load_session(self, holdings: ProjectHoldings, experiment: ExperimentRecord) -> SessionHoldings:
        held = self._held_session(holdings.project.id, experiment)
        return held or self._hold_session(holdings, self._single.session(holdings, experiment))

    def _hold_session(self, holdings: ProjectHoldings, session: SessionHoldings) -> SessionHoldings:
        key = holdings.project.id, session.experiment.id  # a shared session has other labels, and other assessors, in each project
        self._sessions[key] = (session.experiment.changed, time.monotonic(), session)
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
            holdings.resources[Owner("subject", subject)] = told[0]
            holdings.complete_subjects.add(subject)

    def _with_files(self, session: SessionHoldings) -> SessionHoldings:
        """Add resources that only the file listing told of (a bulk listing may hide one behind an equal label)."""
        with self._lock:
            held = self._files.get(("session", session.experiment.id))
        if held is None:
            return session
        if session.merged is None or session.merged[0] is not held[2]:
            session.merged = held[2], session.with_resources(held[2].resources())
        return session.merged[1]

    def subject_resources(self, project: str, subject: str) -> list[ResourceRecord]:
        """The resources of a subject itself."""
        holdings = self.project(project)
        owner = Owner("subject", subject)
        if subject not in holdings.subjects:
            raise Failure(Cause.NO_ENTRY, subject)
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
            holdings.resources[Owner("subject", subject)] = self._single.subject(subject)
            holdings.complete_subjects.add(subject)

    # --- files ---------------------------------------------------------------------------------------------------

    def files(self, project: str, resource: ResourceRecord) -> FileHoldings:
        """The holdings that have the files of `resource`: all of its session, subject or project in one request.

        Raises:
            Failure: LISTING_EMPTY if the server counts files in the resource and lists none, however it is asked.
        """
        owner = resource.owner
        holdings = self.project(project)
        session = {"experiment": owner.id, "scan": owner.id, "reconstruction": owner.id, "assessor": owner.part}.get(owner.level, "")
        experiment = holdings.experiments.get(session)
        stamp = experiment.changed if experiment is not None else self._stamp(holdings, owner)
        if owner.direction == "in" or not session:
            found = self._files_for(("owner", owner), stamp, lambda: self._resources.files_of(owner))
        else:
            for other in self._ahead.window(("files", project), holdings.order, session):
                theirs = ("session", other), holdings.experiments[other].changed
                if not self._held(*theirs):
                    self._begin(
                        ("files", theirs[0]),
                        partial(self._load_files, *theirs, self._session_files(other)),
                        urgent=False,
                    )
            found = self._files_for(("session", session), stamp, self._session_files(session))
        if found.of_resource(resource) is None and resource.file_count != 0:
            # Seen on a real server: no rows although the resource counts files (xnat-recorded.md 25); asked singly before it is believed.
            key = ("resource", resource.id or (owner, resource.label))
            return self._files_for(key, stamp, lambda: self._files_of_resource(resource))
        return found

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

    def _session_files(self, session: str) -> Callable[[], FileListing]:
        return lambda: self._resources.files_of_session(session)

    def _files_for(self, key: Hashable, stamp: str, load: Callable[[], FileListing]) -> FileHoldings:
        held = self._held(key, stamp)
        if held is not None:
            return held
        try:
            return self._get(("files", key), lambda: self._load_files(key, stamp, load))
        except Failure as failure:
            stale = self._files.get(key)
            if stale is None or failure.cause not in (Cause.UNREACHABLE, Cause.UNKNOWN_HOST, Cause.TIMED_OUT, Cause.SERVER_ERROR):
                raise
            self._stale(f"the files of {key}", failure)
            return stale[2]

    def _load_files(self, key: Hashable, stamp: str, load: Callable[[], FileListing]) -> FileHoldings:
        held = self._held(key, stamp)
        if held is not None:
            return held  # came between the look for it and this
        epoch = self._epoch
        listing = load()
        holdings = FileHoldings.of(listing.files, listing.odd)
        for odd in listing.odd:
            self._troubles.odd(odd)
        with self._lock:
            if key in self._files:
                self._changed = time.monotonic()
            if epoch == self._epoch and holdings.count <= self._files.maxsize:
                self._files[key] = (stamp, time.monotonic(), holdings)
        return holdings

    def _held(self, key: Hashable, stamp: str) -> FileHoldings | None:
        with self._lock:
            held = self._files.get(key)
        return held[2] if held is not None and self._holds(held[0], held[1], stamp) else None

    # --- helpers -------------------------------------------------------------------------------------------------

    def resources_of(self, owner: Owner) -> list[ResourceRecord]:
        """The resources of one object with all the server tells of them, asked now."""
        return self._get(("resources", owner), lambda: self._resources.of(owner))

    def refresh(self, project: str | None = None) -> None:
        """Forget what is held, of one project or of all: the next look asks the server."""
        with self._lock:
            self._epoch += 1
            self._changed = time.monotonic()
            if project is None:
                self._holdings.clear()
            else:
                self._holdings.pop(project, None)
            self._projects = None
            self._sessions.clear()
            self._files.clear()

    def changed_within(self, seconds: float) -> bool:
        """Whether a listing was replaced by another in the last so many seconds."""
        return time.monotonic() - self._changed < seconds

    def counts(self) -> dict[str, int]:
        """For `status`."""
        with self._lock:
            return {
                "projects listed": len(self._holdings),
                "file listings held": len(self._files),
                "file records held": int(self._files.currsize),
            }

    @property
    def refused_forms(self) -> list[str]:
        """The inferred forms this server does not take."""
        return self._listings.capabilities.refused

    def close(self) -> None:
        """Start nothing more."""
        self._composers.close()
        self._workers.close()

    def _holds(self, held_stamp: str, held_at: float, stamp: str) -> bool:
        # With a last_modified a listing holds until that moves; uploads that change no count may not move it (fact sheet 5), so it is
        # asked again after ten minutes all the same. Without one, age is all there is.
        age = time.monotonic() - held_at
        return held_stamp == stamp and age < (max(600.0, self._limits.ttl) if stamp else self._limits.ttl)

    def _get(self, key: Hashable, work: Callable[[], T]) -> T:
        return self._flights.get((self._epoch, key), work, self._limits.listing_deadline)

    def _begin(self, key: Hashable, work: Callable[[], T], *, urgent: bool = True) -> Flight[T]:
        return self._flights.start((self._epoch, key), work, urgent=urgent)

    def _stale(self, what: str, failure: Failure) -> None:
        log.warning("%s could not be listed again and is shown as it was: %s", what, failure)
        self._troubles.failed(failure)
