"""When the sessions of a build are collected: one by one until one has shown where its files lie, then many
at once.

Used by `build`.
Threading: one thread runs a build and waits in `SessionScheduler.run`; its sessions are collected in the pool
of the builder. One condition around what they gave.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.concurrency.waiting import wait_until
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.built_table import TableSession, combined
from xnatfs.tables.engine.collect import Collector
from xnatfs.tables.engine.overrides import Spec

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # sessions done, sessions in all
# Sessions are collected one by one until one has shown where its files lie. After this many that have the
# resource but not the files, or this many in all, the others are collected side by side.
_MAX_SEQUENTIAL_SESSIONS = 4
_MAX_PROBED_SESSIONS = 200


@dataclass
class Status:
    """Where a build is, for `.xnatfs/` and progress bars. `whole`: it is over all sessions of the project."""

    project: str
    table: str
    total: int = 0
    whole: bool = True
    done: int = 0
    started: float = field(default_factory=time.time)


class SessionScheduler:
    """Collects the sessions of one build.

    Args:
        workers: where sessions are collected.
        collector: collects one.
        spec: the table.
        project: whose sessions they are.
        timeout_s: seconds all of them may take.
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
        """The sessions with what they gave, in the order of the experiments.

        Raises:
            Failure: the server or the cache cannot be used, TIMED_OUT, or no session gave anything and the
                server refused one.
            UsageError: of a session.
        """
        deadline = time.monotonic() + self._timeout_s
        self._collector.paths.on_learnt = self._wake
        reported = 0
        try:
            while reported < len(experiments):
                allowed = self._allowed(experiments, reported)
                for experiment in experiments[self._sent : allowed]:
                    self._workers.submit(partial(self._collect, experiment))
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
            session.result.refusal for session in self._collected if session.result.refusal is not None
        ]
        if refused and not any(session.rows for session in self._collected):
            raise refused[0]  # without any session there is no table
        order = {experiment.id: number for number, experiment in enumerate(experiments)}
        return sorted(self._collected, key=lambda session: order[session.experiment.id])

    def _allowed(self, experiments: Sequence[ExperimentRecord], done: int) -> int:
        """How many may have been started once `done` are done."""
        alone = sum(1 for session in self._collected[:done] if not session.result.missing)
        if self._collector.paths.known or alone >= _MAX_SEQUENTIAL_SESSIONS or done >= _MAX_PROBED_SESSIONS:
            return len(experiments)
        return min(done + 1, len(experiments))

    def _wait(self, experiments: Sequence[ExperimentRecord], reported: int, timeout_s: float) -> None:
        """Wait until more are done or may be started.

        Raises:
            Failure: of a session; TIMED_OUT.
        """

        def progressed() -> bool:
            return (
                len(self._collected) > reported
                or self._failure is not None
                or self._sent < self._allowed(experiments, reported)
            )

        with self._condition:
            wait_until(self._condition, progressed, timeout_s)
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
        """Note how many rows a session has, and their columns, without keeping them."""
        try:
            parsed = combined(self._spec, self._project, session, self._collector.files)
        except (Failure, UsageError):
            raise
        except Exception as error:
            # A mistake in a table's definition, which may be a plug-in's, costs the session and not the
            # table.
            log.exception("session %s does not fit table %s", session.experiment.id, self._spec.table.key)
            session.remarks.append(f"its files cannot be combined ({type(error).__name__}: {error})")
            return
        session.columns, session.rows = parsed.columns, len(parsed.rows)
        session.remarks += parsed.notes
        if not parsed.rows and not session.problems:
            session.remarks.append("its files contain no rows")
