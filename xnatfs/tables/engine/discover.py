"""Which tables a project has: those whose resource exists in it, anywhere below its sessions.

Used by the tree's section `tables/` and by `xnatfs table --explain`. A listing of tables never waits long: on
a server that has no bulk listing of session resources, each session has to be asked, and what is not known
after some seconds is looked for in the background.
Threading: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.errors import UNANSWERED, Cause, Failure
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.server.records import parse_stamp
from xnatfs.tables.engine import overrides
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.pipelines.validators import VALIDATED

log = logging.getLogger(__name__)

_LOOK_TIMEOUT_S = 10.0  # a listing waits for sessions that have to be asked one by one
_PRESENT_TTL_S = 20.0
_BELOW = ("assessor", "scan", "reconstruction")


@dataclass
class PresentTables:
    """The tables of a project: their keys, and whether all its sessions have been looked into."""

    keys: list[str]
    whole: bool
    # (level, label) of every resource below the sessions
    labels: set[tuple[str, str]] = field(default_factory=set)
    types: set[tuple[str, str]] = field(default_factory=set)  # (xsiType, label) of the assessors' resources
    made: float = 0.0  # as the clock of the listings says


class TableDiscovery:
    """Finds out which tables projects have."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._clock = builder.services.listing_service.clock
        self._workers = WorkerPool("presence", 4)
        self._single_flight = SingleFlight(self._workers)
        self._lock = threading.Lock()
        self._cached: dict[str, PresentTables] = {}
        self._from_summary: dict[str, tuple[ProjectSummary, list[str]]] = {}
        self._newest: dict[tuple[str, ...], tuple[ProjectSummary, float]] = {}

    def present(self, project: str) -> PresentTables:
        """The tables of a project.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering.
        """
        if project in self._builder.groups:
            parts = [self.present(part) for part, _ in self._builder.parts(project)]
            return PresentTables(
                self._in_order(key for part in parts for key in part.keys), all(part.whole for part in parts)
            )
        summary = self._builder.summaries.get(project)
        fresh = self._fresh(project)
        if fresh is not None:
            return fresh
        call = self._single_flight.start(project, lambda: self._look(summary))
        try:
            return call.wait(_LOOK_TIMEOUT_S)
        except Failure as failure:
            if failure.cause is not Cause.TIMED_OUT:
                raise
            return self._of(summary, whole=False)

    def at_once(self, project: str) -> list[str]:
        """The tables that are known from the summary alone: fed by a resource of a session itself, where the
        server lists those.

        Looking up a table by name starts here: looking below scans and assessors costs about ten requests
        more.

        Raises:
            Failure: see `tables.engine.discover`.
        """
        if project in self._builder.groups:
            return self._in_order(
                key for part, _ in self._builder.parts(project) for key in self.at_once(part)
            )
        summary = self._builder.summaries.get(project)
        fresh = self._fresh(project)
        if fresh is not None:
            return fresh.keys
        before = self._from_summary.get(project)
        if before is not None and before[0] is summary:
            return before[1]
        names = {
            resource.label
            for identity in summary.experiments
            for resource in summary.session_resources(identity) or ()
        }
        keys = self._keys(summary, names, set())
        if keys:
            self._from_summary[project] = summary, keys
        return keys

    def newest(self, project: str, sessions: Sequence[str] = ()) -> float:
        """When a session of the project (or of these) changed last, epoch seconds; 0 if that is not known.

        A table's time of change has to be the same before and after it is built, else `rsync` would copy
        everything twice.
        """
        try:
            if project in self._builder.groups:
                return max(
                    (self.newest(part, members) for part, members in self._builder.parts(project)),
                    default=0.0,
                )
            summary = self._builder.summaries.get(project)
        except Failure:
            return 0.0
        key = (project, *sessions)
        before = self._newest.get(key)
        if before is None or before[0] is not summary:
            chosen = (
                experiment
                for experiment in summary.experiments.values()
                if not sessions or experiment.id in sessions
            )
            # Without a stamp a session was not changed since it was created.
            before = self._newest[key] = (
                summary,
                max(
                    (parse_stamp(experiment.changed) or experiment.inserted or 0.0 for experiment in chosen),
                    default=0.0,
                ),
            )
        return before[1]

    def _in_order(self, keys: Iterable[str]) -> list[str]:
        known = set(keys)
        return [key for key in self._builder.tables if key in known]

    def forget(self) -> None:
        """Look again."""
        self._cached.clear()
        self._from_summary.clear()
        self._newest.clear()

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()

    def _fresh(self, project: str) -> PresentTables | None:
        cached = self._cached.get(project)
        if cached is None or not cached.whole or self._clock.now() - cached.made >= _PRESENT_TTL_S:
            return None
        return cached

    def _look(self, summary: ProjectSummary) -> PresentTables:
        refused = self._builder.summaries.look_into(summary, summary.experiments, all_of_them=False)
        present = self._of(summary, whole=True)
        with self._lock:
            before = self._cached.get(summary.project)
            if refused and before is not None:  # what only the refused sessions have is still there
                present.keys = self._in_order([*present.keys, *before.keys])
                present.labels |= before.labels
                present.types |= before.types
            self._cached[summary.project] = present
        return present

    def _of(self, summary: ProjectSummary, *, whole: bool) -> PresentTables:
        labels: set[tuple[str, str]] = set()
        types: set[tuple[str, str]] = set()  # of assessors, with the labels of their resources
        for identity in summary.experiments:
            labels.update(
                (resource.owner.level, resource.label)
                for resource in summary.session_resources(identity) or ()
            )
            labels.update(
                (resource.owner.level, resource.label)
                for resource in summary.every.get(identity, ())
                if resource.owner.level != "experiment"
            )
        asked_all = len(summary.every) >= len(summary.experiments)  # one by one, with all that is below them
        below = [resource for resources in list(summary.every.values()) for resource in resources]
        try:
            below_needed = not asked_all or any(level == "assessor" for level, _ in labels)
            snapshot = (
                self._builder.services.listing_service.projects.get(summary.project) if below_needed else None
            )
        except Failure as failure:
            if failure.cause not in UNANSWERED:
                raise
            snapshot, whole = None, False  # what the sessions themselves have is known from before
        if snapshot is not None:
            kinds = {
                assessor.id: assessor.xsi_type for group in snapshot.assessors.values() for assessor in group
            }
            below += [resource for group in list(snapshot.resources.values()) for resource in group]
            types = {
                (kinds.get(resource.owner.id, ""), resource.label)
                for resource in below
                if resource.owner.level == "assessor"
            }
            if not asked_all:
                labels.update(
                    (resource.owner.level, resource.label)
                    for resource in below
                    if resource.owner.level in _BELOW
                )
        keys = self._keys(summary, {label for _, label in labels}, types)
        return PresentTables(keys, whole, labels, types, self._clock.now())

    def _keys(self, summary: ProjectSummary, names: set[str], types: set[tuple[str, str]]) -> list[str]:
        site = self._builder.overrides.of(summary)
        keys = []
        for key, table in self._builder.tables.items():
            spec = site.spec(table)
            has_resource = any(
                ((want.xsi_type, want.label) in types) if want.xsi_type else want.label in names
                for want in spec.wanted
            )
            if has_resource and self._worth(key, site, names, types, summary):
                keys.append(key)
        return keys

    @staticmethod
    def _worth(
        key: str, site: overrides.Site, names: set[str], types: set[tuple[str, str]], summary: ProjectSummary
    ) -> bool:
        """Every validator's reports lie in one resource: `qsmxt/tests` is shown only where there is something
        of QSMxT, `fdg/mri` where there are PET sessions.
        """
        pipeline, _, name = key.partition("/")
        if name == "mri" and pipeline in VALIDATED:
            return any(
                experiment.xsi_type.lower().startswith("xnat:pet")
                for experiment in summary.experiments.values()
            )
        if name != "tests" or pipeline not in VALIDATED:
            return True
        labels = [other for label in VALIDATED[pipeline][0] for other in site.labels.get(label, (label,))]
        return any(
            (tuple(label.rsplit("/", 1)) in types) if "/" in label else label in names for label in labels
        )
