"""One session's resource read into a result: all inputs of a table, by known paths or by a listing.

Used by `collect`. Cost: one request a file. Paths that other sessions showed (`known_paths`) are tried first
in resources that are as large as theirs; a listing of the resource is requested where that fails or the size
differs, where a table wants the newest or all of several files, or where a result is so old that digests have
to show whether it still holds.
Threading: any thread; one call reads one session.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from xnatfs import retry
from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.records import ExperimentRecord, FileRecord, ResourceRecord
from xnatfs.server.urls import addressable
from xnatfs.tables.engine.file_patterns import choose, filled_patterns, guessable
from xnatfs.tables.engine.known_paths import KnownPaths
from xnatfs.tables.engine.overrides import Spec
from xnatfs.tables.engine.parsed_files import ParsedFiles, ParsedInput
from xnatfs.tables.engine.refusals import confirm_unlistable, of_this_file
from xnatfs.tables.engine.resource_choice import describe
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.engine.session_results import SessionResult, session_info
from xnatfs.tables.spec import Input, SessionInfo

# A listing of this age is new enough to compare stored results with: the formats of a table are built one
# after another.
_RECENT_LISTING_S = 60.0
# Owners whose resources have addresses by label; scans and the like may be united with others
# (xnat-rest.md 13).
_BY_LABEL = ("experiment", "subject", "project")
_MISSING = frozenset({Cause.GONE, Cause.NO_ENTRY})
# A guess has few tries; whether the server is in trouble shows when the path is looked up.
_BROKEN = frozenset({Cause.SERVER_ERROR, Cause.CUT_SHORT, Cause.NOT_DATA, Cause.UNREACHABLE})


@dataclass
class _Reading:
    """A session that is being read. `aged`: that its stamp is the same proves nothing."""

    resource: ResourceRecord
    info: SessionInfo
    stamp: str
    aged: bool
    result: SessionResult
    index: FileIndex | None = None
    alone: bool = True  # no file that was read has another beside it that matches as well
    # by input and path: a guess and the try that follows a listing share one budget
    budgets: dict[tuple[str, str], retry.Attempts] = field(
        default_factory=lambda: defaultdict(lambda: retry.Attempts(retry.TABLE_FILE))
    )


class ResourceReader:
    """Reads resources for one table of one project.

    Args:
        services: what it is built with.
        spec: the table.
        project: the project.
        files: reads single files.
        paths: where they lie, as far as sessions have shown.
    """

    def __init__(
        self, services: TableServices, spec: Spec, project: str, files: ParsedFiles, paths: KnownPaths
    ) -> None:
        self._listing_service = services.listing_service
        self._relist_after = services.limits.relist_after
        self._spec = spec
        self._project = project
        self._files = files
        self._paths = paths

    def read(self, resource: ResourceRecord, experiment: ExperimentRecord, *, aged: bool) -> SessionResult:
        """What a session gives from one of its resources.

        Args:
            aged: there is a stored result, which a new listing has to agree with.

        Raises:
            Failure: the server or the cache cannot be used; what only concerns this session is in the result.
        """
        place = describe(resource)
        result = SessionResult(resource=place)
        info = session_info(self._project, experiment)
        reading = _Reading(resource, info, experiment.changed, aged, result)
        for input in self._spec.inputs:
            before = len(result.problems)
            reads = self._read_input(input, reading)
            result.reads += reads
            if not reads and input.required:
                if len(result.problems) == before:
                    result.problems.append(f"{place} has no file {filled_patterns(input, info)[0]}")
                result.failed = True
        if reading.alone and resource.file_count is not None:
            result.count = resource.file_count
        if result.failed:
            result.reads = []
        elif not result.reads:
            # All its files are optional, and none is there or can be read: `combine` would have nothing to
            # say.
            if not result.problems:
                names = ", ".join(filled_patterns(input, info)[0] for input in self._spec.inputs)
                result.problems.append(f"{place} has none of the files {names}")
            result.failed = True
        return result

    def _read_input(self, input: Input, reading: _Reading) -> list[ParsedInput]:
        reads = self._read_guessed(input, reading)
        return self._read_listed(input, reading) if reads is None else reads

    # --- by known paths -------------------------------------------------------------------------------------

    def _read_guessed(self, input: Input, reading: _Reading) -> list[ParsedInput] | None:
        """An input where other sessions have it; None if only a listing can tell."""
        resource, problems = reading.resource, reading.result.problems
        addressed = resource.id is not None or (resource.owner.level in _BY_LABEL and addressable(resource))
        if reading.aged or not guessable(input) or not addressed:
            return None
        paths = self._paths.candidates(input, reading.info, resource.file_count)
        for path in paths:
            before = len(problems)
            record = FileRecord(resource.owner, resource.id or 0, resource.label, path, 0, "")
            try:
                with reading.budgets[input.role, path], retry.Attempts(retry.GUESS):
                    reads = self._files.read(input, record, problems, listed=False, stamp=reading.stamp)
            except Failure as failure:
                looked_up = failure.cause in (*_MISSING, *_BROKEN) or of_this_file(failure)
                if failure.away or not looked_up:
                    raise
                continue
            if reads is None:
                continue
            if not reads:
                # It does not parse. Perhaps it was damaged on its way: the listing has its digest.
                del problems[before:]
                continue
            self._paths.score(input.role, right=True)
            return reads
        if paths:
            self._paths.score(input.role, right=False)
        return None

    # --- by a listing ---------------------------------------------------------------------------------------

    def _read_listed(self, input: Input, reading: _Reading) -> list[ParsedInput]:
        resource, result = reading.resource, reading.result
        try:
            index = self._index(reading)
        except Failure as failure:
            confirm_unlistable(failure, self._listing_service, self._project)
            result.refusal = failure
            result.problems.append(f"{describe(resource)} cannot be listed: {failure.cause.sentence}")
            return []
        reads: list[ParsedInput] = []
        files, before = index.of_resource(resource) or [], len(result.problems)
        chosen = choose(input, files, reading.info, result.problems)
        if len(result.problems) > before or len(files) != resource.file_count:
            reading.alone = False
        for record in chosen:
            try:
                with reading.budgets[input.role, record.path]:
                    reads += self._read_record(input, record, reading, index)
            except Failure as failure:
                if failure.cause not in (*_MISSING, Cause.BAD_DIGEST):
                    if not of_this_file(failure):
                        raise
                    result.refusal = failure
                result.provisional = True
                result.problems.append(f"{record.path}: {failure.cause.sentence}")
                if input.several:
                    return []  # a part of what was to be read is no answer
        self._paths.learn([(read.role, read.path) for read in reads], reading.info)
        return reads

    def _index(self, reading: _Reading) -> FileIndex:
        """The files of the resource, listed once for all inputs."""
        if reading.index is None:
            oldest = min(_RECENT_LISTING_S, self._relist_after) if reading.aged else None
            index = self._listing_service.files.index_of(reading.resource, reading.stamp, oldest)
            reading.index = index
            reading.result.provisional = reading.result.provisional or index.stale
            if index.stale:
                problem = (
                    f"{describe(reading.resource)} cannot be listed now and was read as it was listed last"
                )
                reading.result.problems.append(problem)
            files = index.of_resource(reading.resource) or []
            self._paths.learn_from(files, reading.info, None if index.stale else reading.resource.file_count)
        return reading.index

    def _read_record(
        self, input: Input, record: FileRecord, reading: _Reading, index: FileIndex
    ) -> list[ParsedInput]:
        """A listed file, read. What the server does not give is its own failure only if the server answers
        otherwise: without its database XNAT says 404 or 500 to everything (xnat-rest.md 13).

        Raises:
            Failure: it is not available, or the server is in trouble.
        """

        def read() -> list[ParsedInput]:
            stamp = "" if index.stale else reading.stamp  # a stale listing describes an older file
            problems = reading.result.problems
            return (
                self._files.read(input, record, problems, listed=True, stamp=stamp, aged=reading.aged) or []
            )

        try:
            return read()
        except Failure as failure:
            if failure.cause not in _MISSING and not of_this_file(failure):
                raise
            self._listing_service.projects.proof.check(self._project)
            return read()
