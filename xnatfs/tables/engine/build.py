"""Tables over a project or some of its sessions: collected in parallel, kept by session.

Used by `tables.engine.materialize` (which writes files) and by `xnatfs.table`.
Threading: `Builder.build` may be called by any thread and waits; its sessions run in the pool of the builder.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from xnatfs._version import __version__
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.errors import UsageError
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.listing.summaries import ProjectSummaries
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.built_table import (
    PROBLEM_COLUMNS,
    BuiltTable,
    JoinedTable,
    joined_state,
    table_order,
)
from xnatfs.tables.engine.collect import Collector
from xnatfs.tables.engine.listed_files import ListedFiles
from xnatfs.tables.engine.overrides import Site, Spec
from xnatfs.tables.engine.project_overrides import ProjectOverrides
from xnatfs.tables.engine.recheck import Rechecks
from xnatfs.tables.engine.scheduling import Progress, SessionScheduler, Status
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.engine.session_results import SessionResult
from xnatfs.tables.spec import Table
from xnatfs.text import did_you_mean

__all__ = ["PROBLEM_COLUMNS", "Builder", "BuiltTable", "Progress", "chosen_sessions"]


class Builder:
    """Builds tables of one server.

    Args:
        services: what it asks the server with, and what keeps what was read.
        tables: all tables by key.
        site: the user's overrides.

    Attributes:
        groups: lists of sessions by name: gives their projects and the sessions of each.
        running: the builds under way.
        rechecks: which tables have to ask for all their files.
        files: fetches listed files.
        overrides: what the sites say of the tables.
    """

    def __init__(self, services: TableServices, tables: Mapping[str, Table], site: Site) -> None:
        self.services = services
        self.tables = tables
        self.groups: dict[str, Callable[[], Sequence[tuple[str, Sequence[str]]]]] = {}
        self.running: dict[int, Status] = {}
        self.rechecks = Rechecks()
        self.files = ListedFiles(self.services)
        self.overrides = ProjectOverrides(services.listing_service, self.files, tables, site)
        # More than connections: while some parse, the others keep these busy.
        self._workers = WorkerPool("table", 2 * services.limits.connections)

    @property
    def summaries(self) -> ProjectSummaries:
        """The projects' sessions with their own resources."""
        return self.services.summaries

    def build(
        self,
        project: str,
        key: str,
        sessions: Sequence[str] = (),
        progress: Progress | None = None,
        *,
        given: Mapping[str, SessionResult] = MappingProxyType({}),
    ) -> BuiltTable:
        """A table over a project, or over some of its sessions (labels or accession ids).

        Args:
            progress: called as sessions are done.
            given: what other processes collected, by accession id (`session_transfer`); the rows of these
                sessions are in the store.

        Raises:
            UsageError: there is no such table or session.
            Failure: the server or the cache cannot be used, or TIMED_OUT.
        """
        as_of = time.time()
        if project in self.groups:
            table = self._table(key)
            parts = [
                self.build(part, key, members, progress, given=given) for part, members in self.parts(project)
            ]
            return JoinedTable(parts, table, as_of)
        summary = self.summaries.get(project)
        spec = self.spec(summary, key)
        chosen = sorted(chosen_sessions(summary, sessions), key=table_order)
        status = Status(project, key, len(chosen), whole=not sessions)
        self.running[id(status)] = status
        try:
            self.summaries.look_into(summary, [experiment.id for experiment in chosen], all_of_them=False)
            check = self.rechecks.due(project, key, sessions)
            collector = Collector(self.services, spec, summary, check=check, given=given)
            scheduler = SessionScheduler(
                self._workers, collector, spec, project, self.services.limits.table_deadline
            )
            built_sessions = scheduler.run(chosen, status, progress)
            if check:
                self.rechecks.note(project, key, sessions, as_of)
        finally:
            del self.running[id(status)]
        unsettled = any(
            session.result.refusal is not None or session.result.provisional for session in built_sessions
        )
        state = "" if unsettled else _state(project, spec.fingerprint, chosen)
        return BuiltTable(spec, project, built_sessions, collector.files, as_of, state)

    def state(self, project: str, key: str, sessions: Sequence[str] = (), *, recheck: bool = True) -> str:
        """The same as long as a build would give the same table: the sessions with their stamps, and what is
        read of them. "" if only a build can show it: for tables made from listings or with columns from them,
        servers without stamps, and once after `check_again`.

        Args:
            recheck: without it, what the stamps tell of tables made from listings too, and after
                `check_again`.

        Raises:
            UsageError, Failure: see `build`.
        """
        if project in self.groups:
            parts = self.parts(project)
            return joined_state([self.state(part, key, members, recheck=recheck) for part, members in parts])
        summary = self.summaries.get(project)
        chosen = chosen_sessions(summary, sessions)
        if recheck and (key not in self.tables or self.rechecks.due(project, key, sessions)):
            return ""
        if key not in self.tables:
            return _state(project, key, chosen)
        state = _state(project, self.spec(summary, key).fingerprint, chosen)
        added = self.overrides.of(summary).columns(self.tables[key])
        # What is known of subjects may change without a session's stamp.
        return state if not added else "" if recheck else joined_state([state, *added])

    def added_columns(self, project: str, key: str) -> tuple[str, ...]:
        """The columns about subject and session that the site adds to a table.

        Raises:
            UsageError, Failure: see `build`.
        """
        table = self._table(key)
        parts = [part for part, _ in self.parts(project)]
        every = [self.overrides.of(self.summaries.get(part)).columns(table) for part in parts]
        return tuple(dict.fromkeys(name for names in every for name in names))

    def parts(self, project: str, sessions: Sequence[str] = ()) -> list[tuple[str, Sequence[str]]]:
        """The projects, and the sessions of each, that a name stands for: a project, or a group (a list of
        sessions).

        Raises:
            Failure: NO_ENTRY if there is no such project; what keeps the server from answering.
        """
        if project in self.groups:
            return list(self.groups[project]())
        self.summaries.get(project)  # what the user may not see any more is not there
        return [(project, sessions)]

    def check_again(self) -> None:
        """At its next build, each table asks for all its files again, whatever the sessions' stamps say
        (`If-Modified-Since`).
        """
        self.rechecks.request()

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()
        self.files.close()
        self.summaries.close()
        self.services.store.close()

    def _table(self, key: str) -> Table:
        table = self.tables.get(key)
        if table is None:
            raise UsageError(
                f"there is no table {key!r}{_like(key, self.tables)} `xnatfs table --list` shows all"
            )
        return table

    def spec(self, summary: ProjectSummary, key: str) -> Spec:
        """A table as it is read in a project.

        Raises:
            UsageError, Failure: see `build`.
        """
        table = self._table(key)
        return self.overrides.of(summary).spec(table)


def _state(project: str, what: str, chosen: Sequence[ExperimentRecord]) -> str:
    if not all(experiment.changed for experiment in chosen):
        return ""
    state = [__version__, project, what, *sorted(map(repr, chosen))]
    return hashlib.sha256("\n".join(state).encode("utf-8", "backslashreplace")).hexdigest()[:20]


def chosen_sessions(summary: ProjectSummary, sessions: Sequence[str]) -> list[ExperimentRecord]:
    """The experiments of these labels or accession ids; all if none are named.

    Raises:
        UsageError: there is no such session.
    """
    if not sessions:
        return list(summary.experiments.values())
    chosen: dict[str, ExperimentRecord] = {}
    for name in sessions:
        matches = [
            experiment
            for experiment in summary.experiments.values()
            if name in (experiment.id, experiment.label)
        ]
        if not matches:
            raise UsageError(f"project {summary.project} has no session {name!r}")
        chosen |= {experiment.id: experiment for experiment in matches}
    return list(chosen.values())


def _like(key: str, tables: Mapping[str, Table]) -> str:
    """What a table that is not there may have been meant to be: of a pipeline, its tables; of a table's name
    alone, those of all pipelines.
    """
    pipeline, _, name = key.partition("/")
    of_pipeline = [one for one, table in tables.items() if table.pipeline == pipeline]
    named = [one for one, table in tables.items() if table.name in (key, name)]
    if of_pipeline and not name:
        return f"; {pipeline} has {', '.join(of_pipeline)}."
    if named and key not in tables and not of_pipeline:
        return f"; there is {', '.join(named)}."
    return did_you_mean(key, of_pipeline or tables) or ";"
