"""The files of resources: one request a session, subject or project, or just one resource.

Used by the tree and the tables. Which listing tells of a resource is decided here; how listings are held and
compared is `file_indexes`' business, several sessions in one request `session_batches`'. When sessions are
walked in order, the next ones are listed ahead.
Threading: any thread; no state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.listing.contradictions import Contradictions
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.file_indexes import FileIndexes, FileRequest
from xnatfs.listing.prefetch import WalkDetector
from xnatfs.listing.projects import ProjectListings
from xnatfs.listing.session_batches import SessionBatches
from xnatfs.listing.snapshot import FileIndex, ProjectSnapshot, owner_session
from xnatfs.server.records import FileRecord, Owner, ResourceRecord
from xnatfs.server.resources import FileListing
from xnatfs.server.urls import addressable

log = logging.getLogger(__name__)

_LISTED_AHEAD = 64  # resources


class FileListings:
    """The files of one server's resources, for one user.

    Args:
        environment: what listings are made with.
        projects: tell the stamps that file listings are kept by.

    Attributes:
        contradictions: what to believe of a resource that two listings name differently.
        on_wrong: called with a project and one of its resources that is not what its listing said.
    """

    def __init__(self, environment: ListingEnvironment, projects: ProjectListings) -> None:
        self._environment = environment
        self._resources = environment.resources
        self._projects = projects
        self._indexes = FileIndexes(environment)
        self.on_wrong: Callable[[str, ResourceRecord], None] = lambda project, resource: None
        self.contradictions = Contradictions(environment.diagnostics, environment.resources.of)
        self._batches = SessionBatches(environment, self._indexes, self._session_request, self._session_of)
        self._walks = WalkDetector()

    # --- as the tree asks -----------------------------------------------------------------------------------

    def of(self, project: str, resource: ResourceRecord) -> FileIndex:
        """The index that has the files of `resource`: all of its session, subject or project in one request.

        Raises:
            Failure: LISTING_EMPTY if the server counts files in the resource and lists none, however it is
                asked; what keeps the server from answering, if nothing was ever listed.
        """
        owner = resource.owner
        snapshot = self._projects.get(project)
        session = owner_session(owner)
        experiment = snapshot.experiments.get(session)
        stamp = experiment.changed if experiment is not None else _subject_stamp(snapshot, owner)
        together = partial(self._indexes.get, self._owner_request(owner, stamp))
        if owner.direction != "in" and session:  # as in `outdated`
            window = self._walks.window(("files", project), snapshot.order, session)
            self._batches.prefetch(
                (other, snapshot.experiments[other].changed)
                for other in window
                if _may_have_files(snapshot, other)
            )
            together = partial(self._of_session, session, stamp)
        return self._checked(project, resource, stamp, self._or_singly(resource, stamp, together))

    def _or_singly(
        self, resource: ResourceRecord, stamp: str, together: Callable[[], FileIndex]
    ) -> FileIndex:
        """The listing of all files of the object or session; where the server cannot make that, of just this
        resource: one catalog that is broken fails the listing of all that it is in (xnat-rest.md 12).
        """
        try:
            return together()
        except Failure as failure:
            if failure.away or failure.cause not in UNANSWERED or not addressable(resource):
                raise
            log.info("%s; listing %s singly", failure, resource.label)
            return self._indexes.get(self._resource_request(resource, stamp))

    def _checked(self, project: str, resource: ResourceRecord, stamp: str, index: FileIndex) -> FileIndex:
        """The index if it has what the server counts, else that of just this resource.

        Raises:
            Failure: UNPROVEN for a resource that is another one by what its files and it itself say.
        """
        files, counted = index.of_resource(resource), resource.file_count
        if (files is None and counted != 0) or (counted or 0) > index.named_files(resource):
            # Seen on a real server: no rows although the resource counts files (xnat-rest.md 15.25); asked
            # singly before it is believed.
            singly = self._indexes.get(self._resource_request(resource, stamp))
            session = owner_session(resource.owner)
            if singly.named_files(resource) > index.named_files(resource):
                index = singly
                if session:
                    self._indexes.distrust(("session", session))
            elif files is None:
                index = singly
            if (listed := index.named_files(resource)) < (counted or 0):
                self._environment.diagnostics.odd(
                    f"{resource.owner.uri}/resources/{resource.id or resource.label}: the server counts "
                    f"{counted} files and lists {listed}"
                )
        listed_as = index.by_resource.get(resource.id or 0, [])
        if not self.contradictions.stands(resource, listed_as):
            self.on_wrong(project, resource)
            raise Failure(Cause.UNPROVEN, f"{resource.owner.uri}: {resource.label!r}", "asked for singly")
        return index

    def outdated(self, record: FileRecord) -> bool:
        """Whether a file that is not what its listing says is listed otherwise by now; asks the server."""
        owner = record.owner
        if owner.direction == "in" or not (session := owner_session(owner)):
            return self._indexes.outdated(self._owner_request(owner, ""), record)
        return self._indexes.outdated(self._session_request(session, ""), record)

    def prefetch(self, project: str, sessions: Sequence[str]) -> None:
        """Begin to list the files of these sessions, in parallel and several a request: each will be asked
        for with `of` next.
        """
        experiments = self._projects.get(project).experiments
        self._batches.prefetch((one, experiments[one].changed) for one in sessions if one in experiments)

    # --- as tables and views ask ----------------------------------------------------------------------------

    def of_resource(
        self, resource: ResourceRecord, stamp: str, oldest: float | None = None
    ) -> list[FileRecord]:
        """The files of one resource, in catalog order; see `index_of`."""
        return self.index_of(resource, stamp, oldest).of_resource(resource) or []

    def index_of(self, resource: ResourceRecord, stamp: str, oldest: float | None = None) -> FileIndex:
        """An index with the files of one resource, as of the stamp of its session: its session's listing
        where that is held, else one request for just this resource.

        Args:
            oldest: the age in seconds from which a listing is asked for again, instead of
                `Limits.relist_after`.

        Raises:
            Failure: what keeps the server from answering.
        """
        held = self.held(_session_of(resource), stamp) if oldest is None else None
        if held is not None and held.of_resource(resource) is not None:
            return held
        if not addressable(resource):
            return self._of_session(_session_of(resource), stamp)
        return self._indexes.get(self._resource_request(resource, stamp), oldest)

    def indexes_of(
        self,
        resources: Sequence[tuple[ResourceRecord, str]],
        progress: Callable[[int, int], object] | None = None,
    ) -> list[FileIndex]:
        """The same for many resources, each with the stamp of its session; those not held are listed in
        parallel.

        `progress` gets how many are listed, and of how many. Ends with the first failure; what was listed
        until then is kept.

        Raises:
            Failure: what keeps the server from answering; INTERRUPTED.
        """
        found: list[FileIndex] = []
        begun = 0
        for resource, stamp in resources:
            # Only so many ahead of the one waited for: who interrupts this does not leave thousands of
            # requests behind.
            for other, its_stamp in resources[begun : len(found) + _LISTED_AHEAD]:
                begun += 1
                if self.held(_session_of(other), its_stamp) is None and addressable(other):
                    self._indexes.begin(self._resource_request(other, its_stamp))
            found.append(self.index_of(resource, stamp))
            if progress is not None:
                progress(len(found), len(resources))
        return found

    # --- the whole ------------------------------------------------------------------------------------------

    def held(self, session: str, stamp: str | None = None) -> FileIndex | None:
        """What is in memory of a session's files, however old; with a stamp, only what came with that."""
        return self._indexes.held(("session", session), stamp)

    @property
    def changed(self) -> float | None:
        """When a listing was last replaced by another one, as the clock of the listings says."""
        return self._indexes.values.changed

    def counts(self) -> tuple[int, int]:
        """(listings, records) held."""
        return self._indexes.values.counts()

    def refresh(self) -> None:
        """Forget what is held: the next look asks the server."""
        self._indexes.values.refresh()
        self.contradictions.refresh()

    # --- requests -------------------------------------------------------------------------------------------

    def _session_of(self, assessor: str) -> str:
        """The session of an assessor in any project that is held, by their accession ids; "" if in none."""
        found = self._projects.snapshots.first(lambda _, snapshot: assessor in snapshot.assessor_sessions())
        return found[1].assessor_sessions()[assessor] if found is not None else ""

    def _of_session(self, session: str, stamp: str) -> FileIndex:
        """The files of a session and all below it."""
        self._batches.wait_for(session, stamp)
        return self._indexes.get(self._session_request(session, stamp))

    def _session_request(self, session: str, stamp: str) -> FileRequest:
        def counts() -> dict[int, int | None]:
            return _counts(self._resources.of_session(session))

        return FileRequest(
            ("session", session), stamp, partial(self._resources.files_of_session, session), counts
        )

    def _owner_request(self, owner: Owner, stamp: str) -> FileRequest:
        """The files of one object."""

        def counts() -> dict[int, int | None]:
            if owner.level == "project":
                projects = {one.id: one for one in self._environment.listings.projects()}
                listed = projects[owner.id].resources if owner.id in projects else ()
                if listed is not None:
                    return {number: count for number, _, count in listed}
            return _counts(self._resources.of(owner))

        return FileRequest(("owner", owner), stamp, partial(self._resources.files_of, owner), counts)

    def _resource_request(self, resource: ResourceRecord, stamp: str) -> FileRequest:
        key = ("resource", resource.id or (resource.owner, resource.label))
        counts = self._owner_request(resource.owner, stamp).counts
        return FileRequest(key, stamp, partial(self._load_resource, resource), counts)

    def _load_resource(self, resource: ResourceRecord) -> FileListing:
        listing = self._resources.files_of_resource(resource)
        if not listing.files and not listing.odd:
            # The bulk listings of labels do not tell counts.
            count = (
                self._resources.file_count(resource) if resource.file_count is None else resource.file_count
            )
            if count:
                raise Failure(
                    Cause.LISTING_EMPTY,
                    f"{resource.label} of {resource.owner.part or resource.owner.id}",
                    f"it counts {count}",
                )
        return listing


def _counts(resources: list[ResourceRecord]) -> dict[int, int | None]:
    return {one.id: one.file_count for one in resources if one.id is not None}


def _may_have_files(snapshot: ProjectSnapshot, session: str) -> bool:
    known = snapshot.session(snapshot.experiments[session])
    return known is None or bool(known.resources)


def _subject_stamp(snapshot: ProjectSnapshot, owner: Owner) -> str:
    subject = snapshot.subjects.get(owner.id)
    return subject.changed if subject is not None and owner.level == "subject" else ""


def _session_of(resource: ResourceRecord) -> str:
    return resource.owner.part if resource.owner.level == "assessor" else resource.owner.id
