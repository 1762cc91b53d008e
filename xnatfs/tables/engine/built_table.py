"""A table that was built: which files each session gave, and their rows, read back from the store.

Used by `build` (which makes it), `materialize` (which writes it to files) and `xnatfs.table`. Memory: what is
kept of a session is which files it gave, never its rows; `BuiltTable.rows` reads them back session by session
(but for tables with `finish`, which need all rows at once).
Threading: any thread; what is built does not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.overrides import Spec
from xnatfs.tables.engine.parsed_files import ParsedFiles
from xnatfs.tables.engine.session_results import SessionResult, session_info
from xnatfs.tables.spec import Column, Parsed, Row, Rows, SessionInfo, Table
from xnatfs.text import printable

PROBLEM_COLUMNS = (
    Column("ID", text=True),
    Column("subject", text=True),
    Column("label", text=True),
    Column("date", text=True),
    Column("problem", text=True),
)
_ADDED = ("label", "date")  # to bx's columns, where a table has none of these names
_TEXT_COLUMNS = frozenset({"ID", "subject", "subject_label", "label", "project", "date", "MRI_ID", "session"})


def table_order(experiment: ExperimentRecord) -> tuple[str, str, str]:
    """The order of the sessions in a table."""
    return experiment.subject_label, experiment.label, experiment.id


@dataclass
class TableSession:
    """A session and what it gave; `remarks` came up when its files were put together."""

    experiment: ExperimentRecord
    result: SessionResult
    columns: tuple[str, ...] = ()
    rows: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Why it is not, or not wholly, in the table."""
        return [*self.result.problems, *self.remarks]


class BuiltTable:
    """A table whose rows are in the store. See `table.Frame`."""

    def __init__(
        self,
        spec: Spec,
        project: str,
        sessions: list[TableSession],
        files: ParsedFiles,
        as_of: float,
        state: str = "",
    ) -> None:
        self._spec = spec
        self._project = project
        self._files = files
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
        self.columns = tuple(known.get(name) or Column(name, text=name in _TEXT_COLUMNS) for name in names)

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
            parsed = combined(self._spec, self._project, session, self._files)
            about = _about(session_info(self._project, session.experiment))
            at = {name: number for number, name in enumerate(parsed.columns)}
            # A column of the file wins over the session's own of the same name (bx's `subject` of a file is
            # overwritten, as `lead`).
            own = {*self.table.lead, *self.table.trail, *_ADDED}
            picks = [
                (None, about[name]) if name in own and name not in at else (at.get(name), about.get(name, ""))
                for name in names
            ]
            # By columns: zip puts the rows together several times as fast as a loop here would.
            cells = list(zip(*parsed.rows, strict=True))
            yield from zip(
                *(
                    repeat(fixed, session.rows) if number is None else cells[number]
                    for number, fixed in picks
                ),
                strict=True,
            )

    def problems(self, notes: Sequence[str] = ()) -> Rows:
        """A row for every session that is not, or not wholly, in the table, with the reason; then `notes` on
        the table as a whole. A reason may contain names that others chose, and a terminal may show it.
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
            for problem in session.problems
        ]
        return Rows(PROBLEM_COLUMNS, rows + [("", "", "", "", note) for note in notes])

    @property
    def fingerprint(self) -> str:
        """The same for the same rows and problems: what files were read, in which version, by which
        definition.
        """
        digest = hashlib.sha256(self._spec.fingerprint.encode())
        for session in self.sessions:
            about = session_info(self._project, session.experiment)
            digests = [self._files.digest(read) for read in session.result.reads]
            content = (about, session.experiment.changed, session.result.reads, digests)
            state = repr((*content, session.problems))
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
        self.state = joined_state([part.state for part in parts])
        self._part_of = {id(session): part for part in parts for session in part.sessions}
        sessions = [session for part in parts for session in part.sessions]
        sessions.sort(key=lambda session: table_order(session.experiment))
        self._set_up(table, sessions, as_of)

    def session_rows(self, session: TableSession, names: Sequence[str]) -> Iterator[Row]:
        return self._part_of[id(session)].session_rows(session, names)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint for part in self._parts).encode()).hexdigest()[:20]


def joined_state(states: Sequence[str]) -> str:
    """The state of several parts together; "" if that of one is not known. See `Builder.state`."""
    return hashlib.sha256(" ".join(states).encode()).hexdigest()[:20] if all(states) else ""


def _layout(table: Table, columns: Mapping[str, None]) -> tuple[str, ...]:
    # A file that is passed through keeps its own order.
    middle = list(columns) or [column.name for column in table.columns]
    names = [
        *table.lead,
        *(name for name in middle if name not in table.lead and name not in table.trail),
        *table.trail,
    ]
    return tuple(names + [name for name in _ADDED if name not in names])


def _about(info: SessionInfo) -> dict[str, str]:
    return {
        "ID": info.id,
        "subject": info.subject,
        "subject_label": info.subject,
        "project": info.project,
        "label": info.label,
        "date": info.date,
    }


def combined(spec: Spec, project: str, session: TableSession, files: ParsedFiles) -> Parsed:
    """The rows of all files of a session, as the table's definition puts them together.

    Raises:
        Failure: they are not in the store any more.
    """
    inputs: dict[str, list[tuple[str, Parsed]]] = {input.role: [] for input in spec.inputs}
    for read in session.result.reads:
        inputs[read.role].append((read.path, files.rows(read)))
    return spec.table.combine(session_info(project, session.experiment), inputs)
