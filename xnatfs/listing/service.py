"""What the server holds, as far as anybody has asked: the listings of one server, put together.

Used by the tree and the tables. Each kind is listed by a class of its own; what concerns all of them is here.
Threading: any thread; no state.
"""

from __future__ import annotations

from xnatfs.concurrency.clock import Clock
from xnatfs.concurrency.debounce import Debouncer
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.config import Limits, Privacy
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Failure
from xnatfs.listing.codec import StoredListings
from xnatfs.listing.configurations import ConfigurationListings
from xnatfs.listing.details import DetailListings
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.files import FileListings
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.project_access import ProjectAccessTable
from xnatfs.listing.projects import ProjectListings
from xnatfs.listing.session_names import SessionNames
from xnatfs.listing.sessions import SessionListings
from xnatfs.listing.snapshot import ProjectSnapshot, owner_session
from xnatfs.listing.stamps import ExperimentListings
from xnatfs.listing.wait_policy import WaitPolicy
from xnatfs.server.detail_requests import DetailRequests
from xnatfs.server.listing_requests import FORMS_OF_RESOURCES, ListingRequests
from xnatfs.server.records import ResourceRecord
from xnatfs.server.resources import Resources

_DOUBT_LASTS = 3600.0  # seconds
_SOON = 2.0  # seconds until what an earlier mount stored is asked for again


class ListingService:
    """The listings of one server, for one user.

    Args:
        listings: where they come from.
        limits: how long they hold, how many file records are kept.
        diagnostics: what is odd on the server is reported there.
        stored: what earlier mounts listed: shown at once where the server's stamps agree, or where the server
            is away.
        history: when files changed.
        only: show only these projects (none: all).
        privacy: what is asked for, and kept, of people.

    Attributes:
        projects, sessions, files: the listings.
        details: what is known of subjects and sessions beyond their labels.
        experiments: lists the experiments of a project with the stamps that move, always asking.
        names: finds sessions by name.
        access: what the user is in each project.
        configurations: mapping files that labs keep on the server.
        environment: what they are made with.
        clock: they age by it; tests let time pass with it.
    """

    def __init__(
        self,
        listings: ListingRequests,
        limits: Limits,
        diagnostics: Diagnostics,
        stored: StoredListings,
        history: MtimeHistory,
        only: tuple[str, ...] = (),
        privacy: Privacy | None = None,
    ) -> None:
        self.clock = Clock()
        self.history = history
        self._workers = WorkerPool("listing", limits.connections)
        self.environment = ListingEnvironment(
            listings,
            Resources(listings),
            SingleFlight(self._workers),
            limits,
            diagnostics,
            stored,
            history,
            Debouncer(_SOON),
            WaitPolicy(listings.breaker),
            self.clock,
        )
        self.experiments = ExperimentListings(listings, diagnostics)
        self.projects = ProjectListings(self.environment, self.experiments, only)
        self.projects.on_renewed = self._renewed
        self.files = FileListings(self.environment, self.projects)
        self.files.on_wrong = self._wrong
        self.sessions = SessionListings(self.environment, self.projects, self.files)
        self.access = ProjectAccessTable(self.environment)
        self.configurations = ConfigurationListings(self.environment)
        self.names = SessionNames(self.environment, self.projects)
        self.details = DetailListings(
            self.environment, self.projects, DetailRequests(listings, privacy or Privacy())
        )
        refused, proofs = stored.forms()
        listings.capabilities.recall(refused)
        self.sessions.loader.items_proven = "items" in proofs
        self.experiments.proven = "stamps" in proofs

    def keep_forms(self) -> None:
        """Keep for later mounts which forms the server refused, and which it proved to be right in."""
        proofs = ["items"] * self.sessions.loader.items_proven + ["stamps"] * self.experiments.proven
        self.environment.stored.put_forms(self.environment.listings.capabilities.refused_at, proofs)

    def _renewed(self, before: ProjectSnapshot | None, after: ProjectSnapshot) -> None:
        if before is not None and before is not after:
            self.sessions.remember(before, after)
        self.keep_forms()

    def _wrong(self, project: str, resource: ResourceRecord) -> None:
        """A resource is not what its listing said: the form that said so is not used again for a while."""
        level = resource.owner.level
        for form in FORMS_OF_RESOURCES.get(level, ()):
            self.environment.listings.capabilities.refuse(form)
        self.projects.distrust(project, level)
        if level not in ("project", "subject"):
            self.sessions.distrust(project, owner_session(resource.owner))
        self.keep_forms()

    def refresh(self, project: str | None = None) -> None:
        """Forget what is held, of one project or of all: the next look asks the server."""
        self.sessions.refresh()
        self.projects.refresh(project)
        self.access.forget()
        self.configurations.refresh()
        self.files.refresh()
        self.details.refresh()

    def changed_within(self, seconds: float) -> bool:
        """Whether a listing was replaced by another in the last so many seconds."""
        changes = [one for one in (self.projects.snapshots.changed, self.files.changed) if one is not None]
        return bool(changes) and self.clock.now() - max(changes) < seconds

    @property
    def version(self) -> int:
        """A number that changes with whatever is held: where it stays, nothing is listed otherwise."""
        values = sum(one.version for one in self.environment.values)
        return values + self.files.contradictions.changes + self.history.changes

    def steady(self, project: str) -> bool:
        """Whether any change in a project's sessions shows by asking for the project again: all of them have
        stamps, nothing is in doubt, and nothing failed to be listed.
        """
        held = self.projects.snapshots.held(project)
        doubted = self.sessions.doubted
        if held is None or (doubted is not None and self.clock.now() - doubted < _DOUBT_LASTS):
            return False
        snapshot = held.value
        stamped = snapshot.memo.get(
            "all stamped", lambda: all(one.changed for one in snapshot.experiments.values())
        )
        return stamped and not self.failing()

    def counts(self) -> dict[str, int]:
        """For `status`."""
        listings, records = self.files.counts()
        return {
            "projects listed": self.projects.snapshots.counts()[0],
            "file listings held": listings,
            "file records held": records,
        }

    def failing(self) -> list[Failure]:
        """The listings that could not be had, or not be proven, when they were last asked for: what they list
        is shown as it was, or is an error.
        """
        return [failure for values in self.environment.values for failure in values.failing()]

    @property
    def refused_forms(self) -> list[str]:
        """The inferred forms this server does not take."""
        return self.environment.listings.capabilities.refused

    def close(self) -> None:
        """Start nothing more."""
        self.environment.later.close()
        self.details.close()
        self.projects.close()
        self._workers.close()
        self.environment.stored.close()
