"""A table over a project or some of its sessions: collected in parallel, kept by session, read back row by
row.

Used by `tables.engine.materialize` (which writes files) and by `xnatfs.table`. Memory: what is held of a
session is which files it gave, never its rows; `BuiltTable.rows` reads them back from the store session by
session (but for tables with `finish`, which need all rows at once).
Threading: `build` may be called by any thread and waits; its sessions run in the pool of the builder.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from xnatfs._version import __version__
from xnatfs.cache.measurement_store import MeasurementStore
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.concurrency.waiting import wait_until
from xnatfs.config import Limits
from xnatfs.content.temporary import TemporaryDownloads
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.listing.service import ListingService
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.listing.summaries import ProjectSummaries
from xnatfs.server.records import ExperimentRecord, FileRecord
from xnatfs.tables.engine import overrides
from xnatfs.tables.engine.collect import Collector, SessionResult, visit_of
from xnatfs.tables.engine.overrides import Site, Spec
from xnatfs.tables.spec import Column, Parsed, ParseError, Row, Rows, SessionInfo, Table, text_lines
from xnatfs.text import printable

log = logging.getLogger(__name__)

PROBLEM_COLUMNS = (
    Column("ID", text=True),
    Column("subject", text=True),
    Column("label", text=True),
    Column("date", text=True),
    Column("problem", text=True),
)
Progress = Callable[[int, int], None]  # sessions done, sessions in all


@dataclass
class Status:
    """Where a build is, for `.xnatfs/` and progress bars."""

    project: str
    table: str
    total: int = 0
    done: int = 0
    started: float = field(default_factory=time.time)


@dataclass
class TableSession:
    """A session and what it gave."""

    experiment: ExperimentRecord
    result: SessionResult
    columns: tuple[str, ...] = ()
    rows: int = 0


class BuiltTable:
    """A table whose rows are in the store. See `table.Frame`."""

    def __init__(
        self,
        spec: Spec,
        project: str,
        sessions: list[TableSession],
        collector: Collector,
        as_of: float,
        state: str = "",
    ) -> None:
        self._spec = spec
        self._project = project
        self._collector = collector
        self.state = state  # see `Builder.state`, of what this was built from
        self._set_up(spec.table, sessions, as_of)

    def _set_up(self, table: Table, sessions: list[TableSession], as_of: float) -> None:
        self.table = table
        self.sessions = sessions
        self.as_of = as_of  # epoch seconds at which the server was asked
        self._finished: tuple[tuple[str, ...], list[Row]] | None = None
        names = _layout(table, dict.fromkeys(name for session in sessions for name in session.columns))
        if table.finish is not None:
            self._finished = table.finish(names, list(self._long(names)))
            names = self._finished[0]
        known = {column.name: column for column in table.columns}
        self.columns = tuple(known.get(name) or Column(name, text=name in _TEXTS) for name in names)

    def rows(self) -> Iterator[Row]:
        """The rows: by subject, session, and the order of the files."""
        if self._finished is not None:
            return iter(self._finished[1])
        return self._long(tuple(column.name for column in self.columns))

    def _long(self, names: Sequence[str]) -> Iterator[Row]:
        for session in self.sessions:
            yield from self.session_rows(session, names)

    def session_rows(self, session: TableSession, names: Sequence[str]) -> Iterator[Row]:
        """The rows of one of the sessions, under these columns (before `finish`)."""
        if session.rows:
            parsed = _combined(self._spec, self._project, session, self._collector)
            about = _about(visit_of(self._project, session.experiment))
            at = {name: number for number, name in enumerate(parsed.columns)}
            # A column of the table itself wins over one of ours of the same name (bx's `subject` of a file is
            # overwritten, as `lead`).
            ours = {*self.table.lead, *self.table.trail, *_OURS}
            picks = [
                (None, about[name])
                if name in ours and name not in at
                else (at.get(name), about.get(name, ""))
                for name in names
            ]
            for row in parsed.rows:
                yield tuple(fixed if number is None else row[number] for number, fixed in picks)

    def problems(self, notes: Sequence[str] = ()) -> Rows:
        """A row for every session that is not, or not wholly, in the table, with the reason; then `notes` on
        the table as a whole. Names in a reason are somebody else's, and a terminal may show it.
        """
        rows: list[Row] = [
            (
                session.experiment.id,
                session.experiment.subject_label,
                session.experiment.label,
                session.experiment.date,
                printable(problem),
            )
            for session in self.sessions
            for problem in session.result.problems
        ]
        return Rows(PROBLEM_COLUMNS, rows + [("", "", "", "", note) for note in notes])

    @property
    def fingerprint(self) -> str:
        """The same for the same rows and problems: what files were read, in which version, by which
        definition.
        """
        digest = hashlib.sha256(self._spec.fingerprint.encode())
        for session in self.sessions:
            about = visit_of(self._project, session.experiment)
            digests = [self._collector.digest(read) for read in session.result.reads]
            state = repr(
                (about, session.experiment.changed, session.result.reads, digests, session.result.problems)
            )
            digest.update(state.encode("utf-8", "backslashreplace"))
        return digest.hexdigest()[:20]

    def counts(self) -> dict[str, int]:
        """Sessions used, without the resource, and failed; rows."""
        return {
            "sessions": sum(1 for session in self.sessions if session.rows),
            "missing": sum(1 for session in self.sessions if session.result.missing),
            "failed": sum(1 for session in self.sessions if not session.rows and not session.result.missing),
            "rows": sum(session.rows for session in self.sessions),
        }


class JoinedTable(BuiltTable):
    """The same table of several projects as one: for lists of sessions."""

    def __init__(self, parts: list[BuiltTable], table: Table, as_of: float) -> None:
        self._parts = parts
        self.state = _joined([part.state for part in parts])
        self._whose = {id(session): part for part in parts for session in part.sessions}
        sessions = [session for part in parts for session in part.sessions]
        sessions.sort(
            key=lambda session: (
                session.experiment.subject_label,
                session.experiment.label,
                session.experiment.id,
            )
        )
        self._set_up(table, sessions, as_of)

    def session_rows(self, session: TableSession, names: Sequence[str]) -> Iterator[Row]:
        return self._whose[id(session)].session_rows(session, names)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint for part in self._parts).encode()).hexdigest()[:20]


class Builder:
    """Builds tables of one server.

    Args:
        summaries, listing_service: what is on the server.
        downloads: fetches files.
        store: keeps what was parsed.
        limits: how many sessions at once, how long a build may take.
        tables: all tables by key.
        site: the user's overrides.
    """

    def __init__(
        self,
        summaries: ProjectSummaries,
        listing_service: ListingService,
        downloads: TemporaryDownloads,
        store: MeasurementStore,
        limits: Limits,
        tables: Mapping[str, Table],
        site: Site,
    ) -> None:
        self.tables = tables
        self.summaries = summaries
        self.listing_service = listing_service
        self._downloads = downloads
        self._store = store
        self._limits = limits
        self._site = site
        self._sites: dict[str, tuple[FileRecord | None, Site]] = {}
        # More than connections: while some parse, the others keep these busy.
        self._workers = WorkerPool("table", 2 * limits.connections)
        self._readers = WorkerPool("site", 2)
        self.running: dict[int, Status] = {}
        # Lists: name -> their projects and sessions.
        self.groups: dict[str, Callable[[], Sequence[tuple[str, Sequence[str]]]]] = {}
        # Tables that were built since the last request for a refresh.
        self._checked: set[tuple[str, str, tuple[str, ...]]] = set()
        self.asked_again = 0.0  # when that was, epoch seconds

    def site(self, summary: ProjectSummary) -> Site:
        """The overrides for a project: its own `tables.toml`, and the user's over it.

        Raises:
            UsageError: the project's cannot be understood.
        """
        holder = next(
            (resource for resource in summary.resources if resource.label == overrides.RESOURCE), None
        )
        if holder is None:
            return self._site
        files = self.listing_service.files.of_resource(holder, "")
        file = next((record for record in files if record.path.rsplit("/", 1)[-1] == overrides.NAME), None)
        cached = self._sites.get(summary.project)
        if cached is None or cached[0] != file:
            cached = self._sites[summary.project] = (
                file,
                Site() if file is None else self._read_site(summary.project, file),
            )
        return self._site.over(cached[1])

    def spec(self, summary: ProjectSummary, key: str) -> Spec:
        """A table as the project has it.

        Raises:
            UsageError: there is no such table.
        """
        table = self.tables.get(key)
        if table is None:
            raise UsageError(f"there is no table {key!r}; `xnatfs table --list` shows them")
        return self.site(summary).spec(table)

    def build(
        self, project: str, key: str, sessions: Sequence[str] = (), progress: Progress | None = None
    ) -> BuiltTable:
        """A table over a project, or over some of its sessions (labels or accession ids).

        Raises:
            UsageError: there is no such table or session.
            Failure: the server or the cache cannot be used, or TIMED_OUT.
        """
        if project in self.groups:
            if key not in self.tables:
                raise UsageError(f"there is no table {key!r}; `xnatfs table --list` shows them")
            as_of = time.time()
            return JoinedTable(
                [self.build(part, key, members, progress) for part, members in self.parts(project)],
                self.tables[key],
                as_of,
            )
        as_of = time.time()
        summary = self.summaries.get(project)
        spec = self.spec(summary, key)
        chosen = sorted(
            chosen_sessions(summary, sessions),
            key=lambda experiment: (experiment.subject_label, experiment.label, experiment.id),
        )
        status = Status(project, key, len(chosen))
        self.running[id(status)] = status
        try:
            self.summaries.look_into(summary, [experiment.id for experiment in chosen], all_of_them=False)
            check = self._to_check(project, key, sessions)
            collector = Collector(
                spec,
                summary,
                self.listing_service,
                self._downloads,
                self._store,
                self._limits.relist_after,
                check=check,
            )
            built_sessions = _Parallel(
                self._workers, collector, spec, project, self._limits.table_deadline
            ).run(chosen, status, progress)
            if check and self.asked_again <= as_of:
                self._checked.add((project, key, tuple(sorted(sessions))))
        finally:
            del self.running[id(status)]
        troubled = any(
            session.result.trouble is not None or session.result.passing for session in built_sessions
        )
        return BuiltTable(
            spec,
            project,
            built_sessions,
            collector,
            as_of,
            "" if troubled else self._state(project, spec, chosen),
        )

    def state(self, project: str, key: str, sessions: Sequence[str] = ()) -> str:
        """The same as long as a build would give the same table: the sessions with their stamps, and what is
        read of them. "" if only a build can show it: for tables made from listings, servers without stamps,
        and once after `check_again`.

        Raises:
            UsageError, Failure: see `build`.
        """
        if project in self.groups:
            states = [self.state(part, key, members) for part, members in self.parts(project)]
            return _joined(states)
        summary = self.summaries.get(project)
        chosen = chosen_sessions(summary, sessions)
        if key not in self.tables or self._to_check(project, key, sessions):
            return ""
        return self._state(project, self.spec(summary, key), chosen)

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
        self._checked = set()
        self.asked_again = time.time()

    def content(self, file: FileRecord) -> BinaryIO:
        """A listed file, fetched whole.

        Raises:
            Failure: it is not available.
        """
        # Not in the caller's thread, which may serve an operation: a socket is deaf to Ctrl-C.
        return self._readers.do(
            lambda: self._downloads.fetch(file, listed=True).stream, self._limits.listing_deadline
        )

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()
        self._readers.close()
        self.summaries.close()
        self._store.close()

    @staticmethod
    def _state(project: str, spec: Spec, chosen: Sequence[ExperimentRecord]) -> str:
        if not all(experiment.changed for experiment in chosen):
            return ""
        state = [__version__, project, spec.fingerprint, *sorted(map(repr, chosen))]
        return hashlib.sha256("\n".join(state).encode("utf-8", "backslashreplace")).hexdigest()[:20]

    def _to_check(self, project: str, key: str, sessions: Sequence[str]) -> bool:
        return self.asked_again > 0 and (project, key, tuple(sorted(sessions))) not in self._checked

    def _read_site(self, project: str, file: FileRecord) -> Site:
        where = f"the {overrides.NAME} in the resource {overrides.RESOURCE} of project {project}"
        try:
            with self.content(file) as stream:
                text = "\n".join(text_lines(stream)) if stream.read(1) and stream.seek(0) == 0 else ""
        except ParseError as error:
            raise UsageError(f"{where}: {error}") from None
        return overrides.parse(text, where, self.tables)


# Sessions are collected one by one until one has shown where its files lie. After this many that have the
# resource but not the files, or this many in all, the others are collected side by side.
_MAX_SEQUENTIAL_SESSIONS = 4
_MAX_PROBED_SESSIONS = 200


class _Parallel:
    """The sessions of one build: one by one until a session has shown where its files lie, then many at
    once.
    """

    def __init__(
        self, workers: WorkerPool, collector: Collector, spec: Spec, project: str, timeout_s: float
    ) -> None:
        self._workers = workers
        self._collector = collector
        self._spec = spec
        self._project = project
        self._timeout_s = timeout_s
        self._condition = threading.Condition()
        self._collected: list[TableSession] = []
        self._failure: BaseException | None = None
        self._sent = 0
        self._ending = False

    def run(
        self, experiments: Sequence[ExperimentRecord], status: Status, progress: Progress | None
    ) -> list[TableSession]:
        deadline = time.monotonic() + self._timeout_s
        self._collector.on_paths_known = self._wake
        reported = 0
        try:
            while reported < len(experiments):
                for experiment in experiments[self._sent : (allowed := self._allowed(experiments, reported))]:
                    # a default binds the loop's variable; mypy cannot type such a lambda
                    self._workers.submit(lambda experiment=experiment: self._collect(experiment))  # type: ignore[misc]
                self._sent = max(self._sent, allowed)
                self._wait(experiments, reported, max(0.0, deadline - time.monotonic()))
                if len(self._collected) > reported:
                    reported = status.done = len(self._collected)
                    if progress is not None:
                        progress(reported, status.total)
        except BaseException:
            self._ending = True
            raise
        refused = [
            session.result.trouble for session in self._collected if session.result.trouble is not None
        ]
        if refused and not any(session.rows for session in self._collected):
            raise refused[0]  # without any session there is no table
        order = {experiment.id: number for number, experiment in enumerate(experiments)}
        return sorted(self._collected, key=lambda session: order[session.experiment.id])

    def _allowed(self, experiments: Sequence[ExperimentRecord], done: int) -> int:
        """How many may have been started once `done` are done."""
        alone = sum(1 for session in self._collected[:done] if not session.result.missing)
        if self._collector.paths_known or alone >= _MAX_SEQUENTIAL_SESSIONS or done >= _MAX_PROBED_SESSIONS:
            return len(experiments)
        return min(done + 1, len(experiments))

    def _wait(self, experiments: Sequence[ExperimentRecord], reported: int, timeout_s: float) -> None:
        """Until more are done or may be started.

        Raises:
            Failure: of a session; TIMED_OUT.
        """

        def news() -> bool:
            return (
                len(self._collected) > reported
                or self._failure is not None
                or self._sent < self._allowed(experiments, reported)
            )

        with self._condition:
            wait_until(self._condition, news, timeout_s)
        if self._failure is not None:
            raise self._failure

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _collect(self, experiment: ExperimentRecord) -> None:
        if self._ending or self._workers.closed:
            return
        try:
            session = TableSession(experiment, self._collector.collect(experiment))
            if session.result.reads:
                self._count(session)
        except BaseException as error:
            if not isinstance(error, (Failure, UsageError)):
                log.exception("session %s made table %s fail", experiment.id, self._spec.table.key)
                error = Failure(
                    Cause.BAD_LISTING, experiment.label, f"the table {self._spec.table.key} failed: {error!r}"
                )
            with self._condition:
                self._failure = self._failure or error
                self._condition.notify_all()
            return
        with self._condition:
            self._collected.append(session)
            self._condition.notify_all()

    def _count(self, session: TableSession) -> None:
        """What the session's rows are, without keeping them."""
        problems = session.result.problems
        try:
            parsed = _combined(self._spec, self._project, session, self._collector)
        except (Failure, UsageError):
            raise
        except Exception as error:
            # A mistake in a table's definition, which may be a plug-in's, costs the session and not the
            # table.
            log.exception("session %s does not fit table %s", session.experiment.id, self._spec.table.key)
            problems.append(f"its files cannot be combined ({type(error).__name__}: {error})")
            return
        session.columns, session.rows = parsed.columns, len(parsed.rows)
        problems += parsed.notes
        if not parsed.rows and not problems:
            problems.append("its files contain no rows")


_OURS = ("label", "date")  # what we add to bx's columns
_TEXTS = frozenset({"ID", "subject", "subject_label", "label", "project", "date", "MRI_ID", "session"})


def _joined(states: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(states).encode()).hexdigest()[:20] if all(states) else ""


def _layout(table: Table, columns: Mapping[str, None]) -> tuple[str, ...]:
    # A file that is passed through keeps its own order.
    middle = list(columns) or [column.name for column in table.columns]
    names = [
        *table.lead,
        *(name for name in middle if name not in table.lead and name not in table.trail),
        *table.trail,
    ]
    return tuple(names + [name for name in _OURS if name not in names])


def _about(visit: SessionInfo) -> dict[str, str]:
    return {
        "ID": visit.id,
        "subject": visit.subject,
        "subject_label": visit.subject,
        "project": visit.project,
        "label": visit.label,
        "date": visit.date,
    }


def _combined(spec: Spec, project: str, session: TableSession, collector: Collector) -> Parsed:
    inputs: dict[str, list[tuple[str, Parsed]]] = {input.role: [] for input in spec.inputs}
    for read in session.result.reads:
        inputs[read.role].append((read.path, collector.rows(read)))
    return spec.table.combine(visit_of(project, session.experiment), inputs)


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
