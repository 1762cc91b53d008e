"""One session's part of a table: its stored result where the server's stamps agree, else a resource that is
read.

Used by `build`. Which resource is read `resource_choice` says, how `resource_reader`. While the stamp of a
session stays, its stored result is used and nothing is requested, except a listing of the resource after some
hours, whose digests show changes that move no stamp.
Threading: any thread; one collector is shared by all sessions of a build.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from xnatfs.errors import Failure
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.server.records import ExperimentRecord, ResourceRecord
from xnatfs.tables.engine.known_paths import KnownPaths
from xnatfs.tables.engine.overrides import Spec
from xnatfs.tables.engine.parsed_files import ParsedFiles
from xnatfs.tables.engine.refusals import confirm_unlistable, removed
from xnatfs.tables.engine.resource_choice import describe, fitting_resources
from xnatfs.tables.engine.resource_reader import ResourceReader
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.engine.session_results import SessionResult, SessionResults, session_info


class Collector:
    """Collects for one table of one project.

    Args:
        services: what it is built with.
        spec: the table.
        summary: the project's sessions with their own resources.
        check: ask for every file again, whatever the stamps say.
        given: what other processes collected, by the session's accession id.

    Attributes:
        files: the files that were read, with their rows.
        paths: where they lie, as far as sessions have shown.
    """

    def __init__(
        self,
        services: TableServices,
        spec: Spec,
        summary: ProjectSummary,
        *,
        check: bool = False,
        given: Mapping[str, SessionResult] = MappingProxyType({}),
    ) -> None:
        self._given = given
        self._listing_service = services.listing_service
        self._spec = spec
        self._summary = summary
        self.files = ParsedFiles(services, spec.table.key, check=check)
        self.paths = KnownPaths(spec.inputs)
        self._reader = ResourceReader(services, spec, summary.project, self.files, self.paths)
        self._results = SessionResults(services, spec, summary.project, check=check)

    def collect(self, experiment: ExperimentRecord) -> SessionResult:
        """A session's files, fetched and parsed where the store does not have them.

        Raises:
            Failure: the server or the cache cannot be used; what only concerns this session is in the result.
        """
        given = self._given.get(experiment.id)
        if given is not None:
            self._results.keep(experiment, given)
            return given
        stored, aged = self._results.recall(experiment)
        if stored is not None:
            info = session_info(self._summary.project, experiment)
            self.paths.learn([(read.role, read.path) for read in stored.reads], info, stored.count)
            if not aged:
                return stored
        result = self._collect_now(experiment, aged)
        if result.refusal is not None and not result.reads:
            return self._results.previous(experiment, result)
        self._results.keep(experiment, result)
        return result

    def _collect_now(self, experiment: ExperimentRecord, aged: bool) -> SessionResult:
        try:
            resources, stale = fitting_resources(
                self._spec, self._summary, self._listing_service.sessions, experiment
            )
        except Failure as failure:
            if removed(failure, experiment):
                problem = "it was removed while the table was built"
                return SessionResult(problems=[problem], missing=True, provisional=True)
            confirm_unlistable(failure, self._listing_service, self._summary.project)
            problem = f"it cannot be listed: {failure.cause.sentence}"
            return SessionResult(problems=[problem], failed=True, refusal=failure)
        if resources:
            result = self._reader.read(resources[0], experiment, aged=aged)
            if len(resources) > 1 and result.reads:
                result.problems.append(_ambiguity(resources))
        else:
            names = " or ".join(map(str, self._spec.wanted))
            result = SessionResult(problems=[f"has no resource {names}"], missing=True)
        result.provisional = result.provisional or stale
        return result


def _ambiguity(resources: list[ResourceRecord]) -> str:
    others = ", ".join(map(describe, resources[1:4])) + (" ..." if len(resources) > 4 else "")
    return f"{len(resources)} resources would do; {describe(resources[0])} was read, {others} not"
