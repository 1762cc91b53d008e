"""What sessions give to a table, carried from the process that collected it to the one that builds the table.

Used by `distributed`: its workers collect, the process that asked puts the rows into its own store and builds
from them. So it is one and the same code that writes the table, with one process or with many.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from xnatfs.cache.measurement_store import ParsedFile
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.build import Builder, chosen_sessions
from xnatfs.tables.engine.session_results import SessionResult, SessionResults


class CollectedSession(NamedTuple):
    """A session's result with the rows it refers to. Picklable.

    Attributes:
        id: its accession id.
        stamp: the session's when it was collected; "" where the server has none.
        files: the rows of its files, by the key they are stored under.
    """

    id: str
    stamp: str
    result: SessionResult
    files: dict[str, ParsedFile]


def missing_sessions(
    builder: Builder, summary: ProjectSummary, key: str, sessions: Sequence[str]
) -> list[ExperimentRecord]:
    """The sessions that a build would ask the server about: all but those that are stored as they are now.

    Raises:
        UsageError, Failure: see `Builder.build`.
    """
    results = SessionResults(builder.services, builder.spec(summary, key), summary.project, check=False)

    def is_stored(experiment: ExperimentRecord) -> bool:
        result, aged = results.recall(experiment)
        return result is not None and not aged

    return [one for one in chosen_sessions(summary, sessions) if not is_stored(one)]


def collect(builder: Builder, project: str, key: str, sessions: Sequence[str]) -> list[CollectedSession]:
    """Collect these sessions (accession ids), for another process. What the server refused, or what may be
    another at the next try, is left out: whoever builds the table asks again.

    Raises:
        UsageError, Failure: see `Builder.build`.
    """
    store = builder.services.store
    collected = []
    for session in builder.build(project, key, sessions).sessions:
        result = session.result
        if result.refusal is not None or result.provisional:
            continue
        files = {read.key: store.parsed(read.key) for read in result.reads}
        whole = {key: found for key, found in files.items() if found is not None}
        if len(whole) == len(files):
            stamp = session.experiment.changed
            collected.append(CollectedSession(session.experiment.id, stamp, result, whole))
    return collected


def take(
    builder: Builder, summary: ProjectSummary, collected: Iterable[CollectedSession]
) -> dict[str, SessionResult]:
    """Store the rows, and give the results for `Builder.build`, by accession id; without those of sessions
    that have changed meanwhile.

    Raises:
        Failure: the store cannot be written.
    """
    found = {}
    for session in collected:
        experiment = summary.experiments.get(session.id)
        if experiment is None or experiment.changed != session.stamp:
            continue
        for key, file in session.files.items():
            builder.services.store.put_parsed(key, *file)
        found[session.id] = session.result
    return found
