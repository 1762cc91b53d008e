"""What single sessions give to a table, as it is stored from build to build.

Used by `collect`. A result is stored with the stamp of its session and the fingerprint of the table's
definition; it counts while both are the same and the rows of its files are in the store.
Threading: any thread; no state but the store's.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from xnatfs.errors import Cause, Failure
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.overrides import Spec
from xnatfs.tables.engine.parsed_files import ParsedInput
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.spec import SessionInfo

_FORMAT_VERSION = 2  # of stored results


@dataclass
class SessionResult:
    """What a session gives: the files that were read, or why nothing; sentences for the problems list either
    way.
    """

    reads: list[ParsedInput] = field(default_factory=list)
    resource: str = ""  # where they lie, for `--explain`
    problems: list[str] = field(default_factory=list)
    missing: bool = False  # the session has no such resource
    failed: bool = False  # it has one, but the rows could not be had
    refusal: Failure | None = None  # why the server would not give a file; it is asked at the next build
    # a listed file is missing or damaged: possibly permanent, but checked at every build
    provisional: bool = False
    # The files of the resource, if the server counts them and each that was read was the only one to match.
    count: int | None = None


class SessionResults:
    """The stored results of the sessions of one project for one table.

    Args:
        services: the store, and after how long a result is compared with a new listing.
        spec: the table.
        project: whose sessions they are.
        check: trust no stored result.
    """

    def __init__(self, services: TableServices, spec: Spec, project: str, *, check: bool) -> None:
        self._store = services.store
        self._relist_after = services.limits.relist_after
        self._spec = spec
        self._project = project
        self._check = check

    def recall(self, experiment: ExperimentRecord) -> tuple[SessionResult | None, bool]:
        """A session's stored result, and whether it is so old that a new listing has to agree with it."""
        if not experiment.changed or self._check:
            return None, False
        choice = self._store.choice(self._key(experiment))
        if choice is None or choice.stamp != experiment.version or choice.spec != self._spec.fingerprint:
            return None, False
        result = _decoded(choice.body)
        if result is None or any(self._store.stamp(read.key) != experiment.changed for read in result.reads):
            return None, False
        aged = not result.missing and not 0 <= time.time() - choice.made < self._relist_after
        return result, aged

    def previous(self, experiment: ExperimentRecord, result: SessionResult) -> SessionResult:
        """For a session that the server refuses now: the rows it had, if it had any. They stay until it is
        known what became of them.
        """
        choice = self._store.choice(self._key(experiment))
        if (
            choice is None
            or choice.spec != self._spec.fingerprint
            or result.refusal is None
            or result.refusal.cause is Cause.NOT_ALLOWED
        ):
            return result
        before = _decoded(choice.body)
        if (
            before is None
            or not before.reads
            or any(self._store.stamp(read.key) is None for read in before.reads)
        ):
            return result
        problems = [*result.problems, "its previous rows are used"]
        return SessionResult(
            before.reads, before.resource, problems, refusal=result.refusal, provisional=True
        )

    def keep(self, experiment: ExperimentRecord, result: SessionResult) -> None:
        """Store a result, unless the next build may give another for the same stamp."""
        if experiment.changed and result.refusal is None and not result.provisional:
            self._store.put_choice(
                self._key(experiment), experiment.version, self._spec.fingerprint, _encoded(result)
            )

    def _key(self, experiment: ExperimentRecord) -> str:
        return json.dumps([self._project, self._spec.table.key, experiment.id])


def session_info(project: str, experiment: ExperimentRecord) -> SessionInfo:
    """An experiment as a table shows it."""
    return SessionInfo(experiment.id, experiment.label, experiment.subject_label, experiment.date, project)


def _encoded(result: SessionResult) -> str:
    about = (result.reads, result.resource, result.problems, result.missing, result.failed)
    return json.dumps([_FORMAT_VERSION, *about, result.count])


def _decoded(body: str) -> SessionResult | None:
    try:
        version, reads, resource, problems, missing, failed, count = json.loads(body)
        if version != _FORMAT_VERSION:
            return None
        files = [ParsedInput(*read) for read in reads]
        return SessionResult(files, resource, problems, missing, failed, count=count)
    except (ValueError, TypeError):
        return None
