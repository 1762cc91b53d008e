"""Single sessions and subjects: what the bulk listings of their project do not tell.

Used by the tree and the tables. A session whose resources no bulk listing tells costs one request, as does a
subject; where a subject's item can be believed, that one tells all its sessions. When these are
walked in order, the next ones are fetched ahead, in parallel. What is learnt lives here, beside the project's
snapshot, which does not change.
Threading: any thread; no lock is held over I/O.
"""

from __future__ import annotations

import logging
import math
from functools import partial

from xnatfs.concurrency.refreshable import Refreshable
from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.files import FileListings
from xnatfs.listing.prefetch import WalkDetector
from xnatfs.listing.projects import ProjectListings
from xnatfs.listing.session_proof import prove_session
from xnatfs.listing.single import SingleLoader
from xnatfs.listing.snapshot import ProjectSnapshot, SessionSnapshot
from xnatfs.server.records import ExperimentRecord, Owner, ResourceRecord

log = logging.getLogger(__name__)


Key = tuple[str, str]  # project and experiment, or project and subject


class SessionListings:
    """The sessions and subjects of one server, for one user.

    Args:
        environment: what listings are made with.
        projects: what bulk listings tell of them.
        files: may tell of resources that no other listing does.

    Attributes:
        loader: asks for them singly, and knows whether subjects' items can be believed.
        doubted: when a session was last held only for a moment because it is in doubt, as the clock says.
    """

    def __init__(
        self, environment: ListingEnvironment, projects: ProjectListings, files: FileListings
    ) -> None:
        self._environment = environment
        self._projects = projects
        self._files = files
        self.loader = SingleLoader(
            environment.listings, environment.resources, environment.diagnostics, environment.clock
        )
        self.doubted: float | None = None
        self._walks = WalkDetector()
        stored = environment.stored
        # By project, too: a shared session has other labels, and other assessors, in each.
        self._sessions: Refreshable[Key, SessionSnapshot] = environment.refreshable(
            "session", lambda key: stored.session(*key)
        )
        self._subjects: Refreshable[Key, list[ResourceRecord]] = environment.refreshable(
            "subject", lambda key: stored.subject(key[1])
        )
        # Subjects whose item was asked for and not believed.
        self._without_item: Refreshable[Key, bool] = environment.refreshable("item", lambda key: None)

    # --- sessions -------------------------------------------------------------------------------------------

    def get(self, project: str, identity: str) -> SessionSnapshot:
        """One experiment of a project, down to its resources.

        Raises:
            Failure: NO_ENTRY if the project has no such experiment; what keeps the server from answering if
                nothing is known of it.
        """
        snapshot = self._projects.get(project)
        experiment = snapshot.experiments.get(identity)
        if experiment is None:
            raise Failure(Cause.NO_ENTRY, identity)
        found = snapshot.session(experiment) or self._known_session(project, experiment)
        if found is None and self.loader.items and identity not in snapshot.renewed:
            self._ask_item(snapshot, experiment.subject_id)
            found = self._known_session(project, experiment)
        if found is None:
            for other in self._walks.window(("sessions", project), snapshot.order, identity):
                one = snapshot.experiments[other]
                if self._known_session(project, one) is None and snapshot.session(one) is None:
                    self._sessions.begin((project, other), partial(self._load_session, snapshot, one))
            found = self._sessions.get((project, identity), partial(self._load_session, snapshot, experiment))
            if found.experiment.version != experiment.version:
                self._projects.derive_again(project)
        return self._with_files(found)

    def distrust(self, project: str, identity: str) -> None:
        """A listing of a session was wrong: it is asked for again at the next look."""
        self._sessions.drop((project, identity))
        self._environment.stored.drop("session", (project, identity))

    def remember(self, before: ProjectSnapshot, after: ProjectSnapshot) -> None:
        """What was known of a session that changed stays known until it could be asked for."""
        for identity in after.renewed:
            old = before.experiments.get(identity)
            session = before.session(old) if old is not None else None
            if old is not None and session is not None:
                self._sessions.put((after.project.id, identity), session, stamp=old.version)

    def _known_session(self, project: str, experiment: ExperimentRecord) -> SessionSnapshot | None:
        key, stamp = (project, experiment.id), experiment.version
        if self._sessions.held(key) is not None:
            return self._sessions.fresh(key, self._environment.lasts(stamp), stamp)
        kept = self._sessions.recall(key, stamp)
        if kept is None or kept.value.experiment != experiment:
            return None
        self._sessions.put(key, kept.value, stamp=stamp)
        return kept.value

    def _load_session(self, snapshot: ProjectSnapshot, experiment: ExperimentRecord) -> SessionSnapshot:
        epoch = self._sessions.epoch
        known = self._known_session(snapshot.project.id, experiment)
        if known is not None:
            return known
        session = self.loader.session(snapshot, experiment)
        before = self._sessions.latest((snapshot.project.id, experiment.id))
        if before is not None:
            prove_session(self._environment.resources, before.value, session)
        return self._hold_session(snapshot, session, epoch)

    def _hold_session(
        self, snapshot: ProjectSnapshot, session: SessionSnapshot, epoch: int
    ) -> SessionSnapshot:
        identity, stamp = session.experiment.id, session.experiment.version
        key = snapshot.project.id, identity
        resources = [one for group in session.resources.values() for one in group]
        if not self._files.contradictions.settled(identity, resources) or session.doubtful:
            self.doubted = self._environment.clock.now()
            age = self._environment.lasts(stamp) - self._environment.limits.ttl
            self._sessions.put(key, session, epoch=epoch, stamp=stamp, age=age)
            return session
        self._sessions.put(key, session, epoch=epoch, stamp=stamp)
        self._environment.stored.put_session(snapshot.project.id, session)
        return session

    def _with_files(self, session: SessionSnapshot) -> SessionSnapshot:
        """Add resources that only the file listing told of (a bulk listing may hide one behind an equal
        label).
        """
        # Of the same stamp: an older one tells of resources that are gone by now.
        held = self._files.held(session.experiment.id, session.experiment.changed or None)
        right = self._files.contradictions.corrected(session.experiment.id)
        if held is None and not right:
            return session
        if session.merged is None or session.merged[0] is not held or session.merged[1] != right:
            grown = session.corrected(right) if right else session
            if held is not None:
                grown = grown.with_resources(held.resources())
            session.merged = held, right, grown
        return session.merged[2]

    # --- items: a subject and all its sessions --------------------------------------------------------------

    def _ask_item(self, snapshot: ProjectSnapshot, subject: str) -> None:
        """A subject and all its sessions in one request, and the next subjects of a walk with it."""
        project = snapshot.project.id
        if subject not in snapshot.subject_order.position or self._doubted(snapshot, subject):
            return
        for other in self._walks.window(("items", project), snapshot.subject_order, subject):
            if self._held_subject(snapshot, other) is None and not self._doubted(snapshot, other):
                self._without_item.begin((project, other), partial(self._load_item, snapshot, other))
        work = partial(self._load_item, snapshot, subject)
        try:
            self._without_item.get((project, subject), work, tolerated=lambda failure: False)
        except Failure as failure:
            if failure.away or failure.cause not in UNANSWERED:
                raise
            log.info("%s; subject %s and its sessions are asked for singly", failure, subject)

    def _load_item(self, snapshot: ProjectSnapshot, subject: str) -> bool:
        """Ask for the item; whether it was believed."""
        if self._held_subject(snapshot, subject) is not None or self._doubted(snapshot, subject):
            return True  # the walk came here just when the look ahead had
        epoch = self._sessions.epoch
        told = self.loader.by_item(snapshot, subject)
        if told is None or not self.loader.confirmed(snapshot, subject, told[0]):
            return self._doubt(snapshot, subject)
        believed = True
        # An item comes without resources while a query inside it fails (xnat-rest.md 13): where it tells less
        # than was known, they are asked for by themselves.
        for session in told[1]:
            known = self._sessions.latest((snapshot.project.id, session.experiment.id))
            if known is None or known.value.numbers() <= session.numbers():
                self._hold_session(snapshot, session, epoch)
            else:
                believed = self._doubt(snapshot, subject)
        if self._held_subject(snapshot, subject) is not None:
            return believed  # of a subject that is not shared along with its session, nothing is shown
        kept = self._environment.stored.subject(subject)
        if kept is None or {one.id for one in kept.value} <= {one.id for one in told[0]}:
            self._hold_subject(snapshot, subject, told[0], epoch)
            return believed
        return self._doubt(snapshot, subject)

    def _doubt(self, snapshot: ProjectSnapshot, subject: str) -> bool:
        stamp = snapshot.subjects[subject].changed
        self._without_item.put((snapshot.project.id, subject), True, stamp=stamp)
        return False

    def _doubted(self, snapshot: ProjectSnapshot, subject: str) -> bool:
        stamp = snapshot.subjects[subject].changed
        lasts = self._environment.lasts(stamp)
        return self._without_item.fresh((snapshot.project.id, subject), lasts, stamp) is not None

    # --- subjects -------------------------------------------------------------------------------------------

    def of_subject(self, project: str, subject: str) -> list[ResourceRecord]:
        """The resources of a subject itself.

        Raises:
            Failure: NO_ENTRY if the project has no such subject; what keeps the server from answering if
                nothing is known of it.
        """
        found = self._listed_subject(project, subject)
        right = self._files.contradictions.corrected(subject)
        if not right:
            return found
        return [one for one in found if one.id not in right] + [
            one for one in right.values() if one.owner.level == "subject"
        ]

    def _listed_subject(self, project: str, subject: str) -> list[ResourceRecord]:
        snapshot = self._projects.get(project)
        if subject not in snapshot.subjects:
            raise Failure(Cause.NO_ENTRY, subject)
        found = self._held_subject(snapshot, subject)
        if found is None:
            found = self._recall_subject(snapshot, subject)
        if found is None and self.loader.items:
            self._ask_item(snapshot, subject)
            found = self._held_subject(snapshot, subject)
        if found is None:
            for other in self._walks.window(("subjects", project), snapshot.subject_order, subject):
                if self._held_subject(snapshot, other) is None:
                    self._subjects.begin((project, other), partial(self._load_subject, snapshot, other))
            found = self._subjects.get((project, subject), partial(self._load_subject, snapshot, subject))
        return found

    def _held_subject(self, snapshot: ProjectSnapshot, subject: str) -> list[ResourceRecord] | None:
        """What is in memory of a subject: from the bulk listings, or learnt since."""
        if subject in snapshot.complete_subjects:
            return snapshot.resources.get(Owner("subject", subject), [])
        key, stamp = (snapshot.project.id, subject), snapshot.subjects[subject].changed
        if stamp:
            return self._subjects.fresh(key, math.inf, stamp)
        # Without a stamp it holds as long as what was listed with its project.
        held, agreed = self._subjects.held(key), self._projects.agreed(snapshot.project.id)
        if held is None or held.stamp or held.at is None or (agreed is not None and held.at < agreed):
            return None
        return held.value

    def _recall_subject(self, snapshot: ProjectSnapshot, subject: str) -> list[ResourceRecord] | None:
        key, stamp = (snapshot.project.id, subject), snapshot.subjects[subject].changed
        kept = self._subjects.recall(key, stamp)
        if kept is None:
            return None
        self._subjects.put(key, kept.value, stamp=stamp)
        return kept.value

    def _load_subject(self, snapshot: ProjectSnapshot, subject: str) -> list[ResourceRecord]:
        epoch = self._subjects.epoch
        known = self._held_subject(snapshot, subject)
        if known is not None:
            return known
        return self._hold_subject(snapshot, subject, self.loader.subject(subject), epoch)

    def _hold_subject(
        self, snapshot: ProjectSnapshot, subject: str, resources: list[ResourceRecord], epoch: int
    ) -> list[ResourceRecord]:
        stamp = snapshot.subjects[subject].changed
        self._subjects.put((snapshot.project.id, subject), resources, epoch=epoch, stamp=stamp)
        self._environment.stored.put_subject(subject, stamp, resources)
        return resources

    # --- the whole ------------------------------------------------------------------------------------------

    def resources_of(self, owner: Owner) -> list[ResourceRecord]:
        """The resources of one object with all the server tells of them, asked now.

        Raises:
            Failure: what keeps the server from answering.
        """
        environment = self._environment
        return environment.calls.get(
            (self._sessions.epoch, "resources", owner),
            lambda: environment.resources.of(owner),
            environment.limits.listing_deadline,
            environment.policy(held=False),
        )

    def refresh(self) -> None:
        """Forget what is held: the next look asks the server."""
        for values in (self._sessions, self._subjects, self._without_item):
            values.refresh()
        self.loader.refresh()
