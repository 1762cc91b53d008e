"""One session's part of a table: which resource, which files, their parsed rows; from the store where the
server's stamps agree.

Used by `build`. Cost: one request a file. Where the file lies in the resource is known from the first
sessions (the path with the subject's and session's names taken out) and tried first; a listing of the
resource is requested only where that fails, or where a table wants the newest or all of several files. What
was parsed is stored with the stamp of its session (`listing.stamps`): while that stays nothing is requested,
except a listing of the resource after some hours, whose digests show changes that move no stamp. When the
stamp has moved, a file is fetched again and compared.
Threading: any thread; one lock around the known paths.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from xnatfs import retry
from xnatfs.cache.measurement_store import ParsedFile
from xnatfs.errors import Cause, Failure, MissingExtra
from xnatfs.listing.snapshot import FileIndex, ProjectSummary, SessionSnapshot
from xnatfs.server.records import ExperimentRecord, FileRecord, ResourceRecord, natural
from xnatfs.server.urls import addressable
from xnatfs.tables.engine.overrides import Spec, Wanted
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.spec import Input, Parsed, ParseError, SessionInfo

log = logging.getLogger(__name__)

_FORMAT_VERSION = 1  # of stored results and rows
# A listing of this age is new enough to compare stored results with: the formats of a table are built one
# after another.
_RECENT_LISTING_S = 60.0
# Owners whose resources have addresses by label; scans and the like may be united with others
# (xnat-rest.md 13).
_BY_LABEL = ("experiment", "subject", "project")
_MAX_PATHS = 4  # for each role
# Once guesses have failed in this many more sessions than they were right in, a role is no longer guessed.
_MAX_FAILED_GUESSES = 3
_MISSING = frozenset({Cause.GONE, Cause.NO_ENTRY})
# A guess has few tries; whether the server is in trouble shows when the path is looked up.
_BROKEN = frozenset({Cause.SERVER_ERROR, Cause.CUT_SHORT, Cause.NOT_DATA, Cause.UNREACHABLE})
_NO_LISTING = frozenset({Cause.BAD_LISTING, Cause.LISTING_EMPTY})


class ParsedInput(NamedTuple):
    """A file that was read: its role, its path inside the resource, and the key its rows are kept under."""

    role: str
    path: str
    key: str


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
    trouble: Failure | None = None  # the server would not give a file: asked again at the next build
    # it does not have a file it lists, or a damaged one: that may be so for ever, but is asked again too
    passing: bool = False


class Collector:
    """Collects for one table of one project.

    Args:
        services: what it is built with.
        spec: the table.
        summary: the project's sessions with their own resources.
        check: ask for every file again, whatever the stamps say.
    """

    def __init__(
        self,
        services: TableServices,
        spec: Spec,
        summary: ProjectSummary,
        *,
        check: bool = False,
    ) -> None:
        self._spec = spec
        self._summary = summary
        self._listing_service = services.listing_service
        self._downloads = services.downloads
        self._store = services.store
        self._relist_after = services.limits.relist_after
        self._check = check
        self._lock = threading.Lock()
        # called when `paths_known` may have become true
        self.on_paths_known: Callable[[], None] = lambda: None
        self._paths: dict[str, list[str]] = {}  # by role, the first known first
        self._digests: dict[str, str] = {}  # by key of a read
        # By role: sessions in which a known path was right, less those in which none was.
        self._scores: Counter[str] = Counter()

    @property
    def paths_known(self) -> bool:
        """Whether a session has shown where the files lie."""
        guessed = [input for input in self._spec.inputs if _guessable(input)]
        needed = [input.role for input in guessed if input.required]
        if needed:
            return all(role in self._paths for role in needed)
        return not guessed or any(input.role in self._paths for input in guessed)

    def collect(self, experiment: ExperimentRecord) -> SessionResult:
        """A session's files, fetched and parsed where the store does not have them.

        Raises:
            Failure: the server or the cache cannot be used; what only concerns this session is in the result.
        """
        visit = visit_of(self._summary.project, experiment)
        key = json.dumps([self._summary.project, self._spec.table.key, experiment.id])
        stored, aged = self._stored_result(key, experiment)
        if stored is not None and not aged:
            return stored
        try:
            resources, stale = self._resources(experiment)
        except Failure as failure:
            if removed(failure, experiment):
                return SessionResult(
                    problems=["it was removed while the table was built"], missing=True, passing=True
                )
            self._must_be_its_own(failure)
            refused = SessionResult(
                problems=[f"it cannot be listed: {failure.cause.sentence}"], failed=True, trouble=failure
            )
            return self._as_it_was(key, refused)
        if not resources:
            names = " or ".join(map(str, self._spec.wanted))
            result = SessionResult(problems=[f"has no resource {names}"], missing=True)
        else:
            result = self._read_all(resources[0], visit, experiment, aged)
            if len(resources) > 1 and result.reads:
                others = ", ".join(_place(resource) for resource in resources[1:4]) + (
                    " ..." if len(resources) > 4 else ""
                )
                result.problems.append(
                    f"{len(resources)} resources would do; {_place(resources[0])} was read, {others} not"
                )
        result.passing = result.passing or stale
        if result.trouble is not None and not result.reads:
            return self._as_it_was(key, result)
        if experiment.changed and result.trouble is None and not result.passing:
            body = json.dumps(
                [
                    _FORMAT_VERSION,
                    result.reads,
                    result.resource,
                    result.problems,
                    result.missing,
                    result.failed,
                ]
            )
            self._store.put_choice(key, experiment.changed, self._spec.fingerprint, body)
        return result

    def rows(self, read: ParsedInput) -> Parsed:
        """The rows of a file that was read.

        Raises:
            Failure: they are not in the store any more (another process cleared the cache).
        """
        stored = self._store.parsed(read.key)
        if stored is None:
            raise Failure(
                Cause.CACHE_BROKEN,
                read.path,
                "the rows parsed from it have been evicted; open the table again",
            )
        self._digests[read.key] = stored.digest
        return _parsed(stored)

    def digest(self, read: ParsedInput) -> str:
        """The MD5 of a file whose `rows` were asked for."""
        return self._digests.get(read.key, "")

    # --- the store ------------------------------------------------------------------------------------------

    def _stored_result(self, key: str, experiment: ExperimentRecord) -> tuple[SessionResult | None, bool]:
        """A session's stored result, and whether it is so old that a new listing has to agree with it."""
        choice = self._store.choice(key) if experiment.changed and not self._check else None
        if choice is None or choice.stamp != experiment.changed or choice.spec != self._spec.fingerprint:
            return None, False
        result = _chosen(choice.body)
        if result is None:
            return None, False
        for read in result.reads:
            if self._store.stamp(read.key) != experiment.changed:
                return None, False
        with self._lock:
            for read in result.reads:
                self._learn(read.role, read.path, visit_of(self._summary.project, experiment))
        aged = not result.missing and not 0 <= time.time() - choice.made < self._relist_after
        return result, aged

    def _as_it_was(self, key: str, result: SessionResult) -> SessionResult:
        """A session that the server refuses now: with the rows it had, if it had any. They stay until it is
        known what became of them.
        """
        choice = self._store.choice(key)
        if (
            choice is None
            or choice.spec != self._spec.fingerprint
            or result.trouble is None
            or result.trouble.cause is Cause.NOT_ALLOWED
        ):
            return result
        before = _chosen(choice.body)
        if (
            before is None
            or not before.reads
            or any(self._store.stamp(read.key) is None for read in before.reads)
        ):
            return result
        problems = [*result.problems, "its previous rows are used"]
        return SessionResult(before.reads, before.resource, problems, trouble=result.trouble, passing=True)

    def _must_be_its_own(self, failure: Failure) -> None:
        """Return if a listing failed for reasons of its own: a catalogue that cannot be read, a session in
        quarantine.

        Raises:
            Failure: the server is away, or in trouble.
        """
        if failure.away or not (of_this_file(failure) or failure.cause in _NO_LISTING):
            raise failure
        self._listing_service.projects.proof.check(self._summary.project)

    # --- resources ------------------------------------------------------------------------------------------

    def _resources(self, experiment: ExperimentRecord) -> tuple[list[ResourceRecord], bool]:
        """The resources that would do, best first: the session's own, its assessors', its scans'; each in the
        order the site names them. And whether they are those of another moment than the stamp.
        """
        own_resources = self._summary.session_resources(experiment.id) or []
        wanted = [
            resource
            for want in self._spec.wanted
            if not want.xsi_type
            for resource in own_resources
            if resource.label == want.label
        ]
        if wanted:
            return wanted, False
        every = self._summary.every.get(experiment.id)
        if every is not None and not any(want.xsi_type for want in self._spec.wanted):
            return self._below(every, {}), False
        session: SessionSnapshot = self._listing_service.sessions.get(self._summary.project, experiment.id)
        types = {assessor.id: assessor.xsi_type for assessor in session.assessors}
        stale = session.experiment.changed != experiment.changed
        return self._below(
            [resource for group in session.resources.values() for resource in group], types
        ), stale

    def _below(self, resources: list[ResourceRecord], types: Mapping[str, str]) -> list[ResourceRecord]:
        wanted: list[ResourceRecord] = []
        for want in self._spec.wanted:
            for level in ("experiment", "assessor", "reconstruction", "scan"):
                fits = [
                    resource
                    for resource in resources
                    if resource.owner.level == level
                    and resource.label == want.label
                    and _is(want, resource, types)
                ]
                wanted += sorted(
                    fits,
                    key=lambda resource: (
                        natural(resource.owner.id + "/" + resource.owner.part),
                        resource.id or 0,
                    ),
                )
        return wanted

    # --- files ----------------------------------------------------------------------------------------------

    def _read_all(
        self, resource: ResourceRecord, visit: SessionInfo, experiment: ExperimentRecord, aged: bool
    ) -> SessionResult:
        result = SessionResult(resource=_place(resource))
        snapshot: FileIndex | None = None

        def listing() -> FileIndex:
            nonlocal snapshot
            if snapshot is None:
                oldest = min(_RECENT_LISTING_S, self._relist_after) if aged else None
                snapshot = self._listing_service.files.index_of(resource, experiment.changed, oldest)
                result.passing = result.passing or snapshot.stale
                self._learn_from(snapshot.of_resource(resource) or [], visit)
            return snapshot

        for input in self._spec.inputs:
            before = len(result.problems)
            reads = self._read_input(input, resource, visit, experiment.changed, listing, result, aged)
            result.reads += reads
            if not reads and input.required:
                if len(result.problems) == before:
                    result.problems.append(f"{_place(resource)} has no file {_filled(input, visit)[0]}")
                result.failed = True
        if result.failed:
            result.reads = []
        elif not result.reads:
            # All its files are optional, and none is there or can be read: `combine` would have nothing to
            # say.
            if not result.problems:
                names = ", ".join(_filled(input, visit)[0] for input in self._spec.inputs)
                result.problems.append(f"{_place(resource)} has none of the files {names}")
            result.failed = True
        return result

    def _read_input(
        self,
        input: Input,
        resource: ResourceRecord,
        visit: SessionInfo,
        stamp: str,
        listing: Callable[[], FileIndex],
        result: SessionResult,
        aged: bool,
    ) -> list[ParsedInput]:
        problems = result.problems
        budgets: dict[str, retry.Attempts] = defaultdict(lambda: retry.Attempts(retry.TABLE_FILE))
        if (
            not aged
            and _guessable(input)
            and (resource.id is not None or (resource.owner.level in _BY_LABEL and addressable(resource)))
        ):
            with self._lock:
                hopeless = self._scores[input.role] < -_MAX_FAILED_GUESSES
                shapes = () if hopeless else self._paths.get(input.role, ())
                paths = [
                    path for path in (_fill(shape, visit) for shape in shapes) if _best(input, path, visit)
                ]
            for path in paths:
                before = len(problems)
                try:
                    with budgets[path], retry.Attempts(retry.GUESS):
                        guesses = self._read(input, _guess(resource, path), False, stamp, problems)
                except Failure as failure:
                    looked_up = failure.cause in (*_MISSING, *_BROKEN) or of_this_file(failure)
                    if failure.away or not looked_up:
                        raise
                    continue
                if guesses is None:
                    continue
                if not guesses:
                    # It does not parse. Perhaps it was damaged on its way: the listing has its digest.
                    del problems[before:]
                    continue
                self._score(input.role, 1)
                return guesses
            if paths:
                self._score(input.role, -1)
        try:
            listed = listing()
        except Failure as failure:
            self._must_be_its_own(failure)
            result.trouble = failure
            problems.append(f"{_place(resource)} cannot be listed: {failure.cause.sentence}")
            return []
        chosen = _choose(input, listed.of_resource(resource) or [], visit, problems)
        if listed.stale:
            stamp = ""  # what it says is older
        reads: list[ParsedInput] = []
        for record in chosen:
            try:
                with budgets[record.path]:
                    reads += self._read_for_sure(input, record, stamp, problems, aged)
            except Failure as failure:
                if failure.cause not in (*_MISSING, Cause.BAD_DIGEST):
                    if not of_this_file(failure):
                        raise
                    result.trouble = failure
                result.passing = True
                problems.append(f"{record.path}: {failure.cause.sentence}")
                if input.several:
                    return []  # a part of what was to be read is no answer
        with self._lock:
            for read in reads:
                self._learn(read.role, read.path, visit)
        return reads

    def _read_for_sure(
        self, input: Input, record: FileRecord, stamp: str, problems: list[str], aged: bool
    ) -> list[ParsedInput]:
        """A listed file, read. What the server does not give is its own failure only if the server answers
        otherwise: without its database XNAT says 404 or 500 to everything (xnat-rest.md 13).

        Raises:
            Failure: it is not available, or the server is in trouble.
        """
        try:
            return self._read(input, record, True, stamp, problems, aged) or []
        except Failure as failure:
            if failure.cause not in _MISSING and not of_this_file(failure):
                raise
            self._listing_service.projects.proof.check(self._summary.project)
            return self._read(input, record, True, stamp, problems, aged) or []

    def _read(
        self,
        input: Input,
        record: FileRecord,
        listed: bool,
        stamp: str,
        problems: list[str],
        aged: bool = False,
    ) -> list[ParsedInput] | None:
        """The file, read; empty if it is not what it should be; None if it is a guess and may have been cut
        short. `aged`: that the stamp is the same proves nothing.
        """
        place = f"{record.base}\0{record.path}\0{self._spec.table.key}/{input.role}/{input.version}"
        key = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
        read = ParsedInput(input.role, record.path, key)
        stored = self._store.parsed(key)
        if (
            stored is not None
            and not self._check
            and (
                (stored.stamp == stamp != "" and not aged)
                or (listed and record.digest and stored.digest == record.digest)
            )
        ):
            if stored.stamp != stamp:
                self._store.confirm(key, stamp)
            return [read]
        fetched = self._downloads.fetch(record, listed=listed)
        if not listed and not fetched.sure:
            fetched.stream.close()
            return None
        if stored is not None and stored.digest == fetched.md5:
            fetched.stream.close()
            self._store.confirm(key, stamp)
            return [read]
        with fetched.stream as stream:
            try:
                parsed = input.parse(stream, record.path)
            except ParseError as error:
                problems.append(f"{record.path}: {error}")
                return []
            except MissingExtra:
                raise  # nothing is known of the file: not to be kept
            except Exception as error:
                # A mistake in a parser, which may be a plug-in's, costs the session and not the table.
                log.exception("%s: %s/%s cannot parse it", record.uri, self._spec.table.key, input.role)
                problems.append(f"{record.path}: it cannot be parsed ({type(error).__name__}: {error})")
                return []
        body = json.dumps([_FORMAT_VERSION, parsed.columns, parsed.rows, parsed.notes])
        self._store.put_parsed(key, stamp, fetched.last_modified, fetched.md5, body)
        return [read]

    def _learn_from(self, files: list[FileRecord], visit: SessionInfo) -> None:
        """Where the files lie, from a listing: the other sessions need not wait until this one's are
        fetched.
        """
        chosen = [
            (input.role, file)
            for input in self._spec.inputs
            if _guessable(input)
            for file in _choose(input, files, visit, [])
        ]
        with self._lock:
            for role, file in chosen:
                self._learn(role, file.path, visit)
        self.on_paths_known()

    def _learn(self, role: str, path: str, visit: SessionInfo) -> None:
        known = self._paths.setdefault(role, [])
        shape = _shape(path, visit)
        if shape not in known and len(known) < _MAX_PATHS:
            known.append(shape)

    def _score(self, role: str, step: int) -> None:
        with self._lock:
            self._scores[role] += step


def of_this_file(failure: Failure) -> bool:
    """Whether the server refuses just this file: not that it is away or busy, where waiting helps and nothing
    is said of the file.
    """
    return failure.cause is Cause.TOO_LARGE or failure.status in (400, 403, 404, 410, 500)


def removed(failure: Failure, experiment: ExperimentRecord) -> bool:
    """Whether a listing made since has the project without this experiment."""
    return failure.cause is Cause.NO_ENTRY and failure.subject == experiment.id


def visit_of(project: str, experiment: ExperimentRecord) -> SessionInfo:
    """An experiment as a table shows it."""
    return SessionInfo(experiment.id, experiment.label, experiment.subject_label, experiment.date, project)


def _chosen(body: str) -> SessionResult | None:
    """A choice as it was stored."""
    try:
        form, reads, resource, problems, missing, failed = json.loads(body)
        return (
            SessionResult([ParsedInput(*read) for read in reads], resource, problems, missing, failed)
            if form == _FORMAT_VERSION
            else None
        )
    except (ValueError, TypeError):
        return None


def _parsed(stored: ParsedFile) -> Parsed:
    _, columns, rows, notes = json.loads(stored.body)
    return Parsed(tuple(columns), [tuple(row) for row in rows], tuple(notes))


def _guessable(input: Input) -> bool:
    """Whether paths may be guessed: which is the newest of several files, or all, only a listing says."""
    return not input.several and input.prefer is None


def _best(input: Input, path: str, visit: SessionInfo) -> bool:
    """Whether no file that an earlier pattern prefers can lie beside this one, unless it is of the same name
    in another folder.
    """
    first = _filled(input, visit)[0]
    return fnmatch.fnmatchcase(path.rpartition("/")[2], first.rpartition("/")[2]) and any(
        fnmatch.fnmatchcase(path, pattern) for pattern in _filled(input, visit)
    )


def _guess(resource: ResourceRecord, path: str) -> FileRecord:
    return FileRecord(resource.owner, resource.id or 0, resource.label, path, 0, "")


def _choose(
    input: Input, files: list[FileRecord], visit: SessionInfo, problems: list[str]
) -> list[FileRecord]:
    for pattern in _filled(input, visit):
        fits = [file for file in files if fnmatch.fnmatchcase(file.path, pattern)]
        if input.several or len(fits) < 2:
            if fits:
                return fits
            continue
        best = fits[0] if input.prefer is None else max(fits, key=lambda file: input.prefer(file.path))  # type: ignore[misc, arg-type, return-value]
        others = [file.path for file in fits if file is not best]
        problems.append(f"{len(fits)} files match; {best.path} was read, {', '.join(others[:3])} not")
        return [best]
    return []


def _filled(input: Input, visit: SessionInfo) -> list[str]:
    escaped = SessionInfo(*(glob.escape(value) for value in (visit.id, visit.label, visit.subject)))
    return [_fill(pattern, escaped) for pattern in input.patterns]


def _fill(path: str, visit: SessionInfo) -> str:
    for name, value in (("{id}", visit.id), ("{label}", visit.label), ("{subject}", visit.subject)):
        path = path.replace(name, value)
    return path


def _shape(path: str, visit: SessionInfo) -> str:
    """A path with the names of subject and session taken out, the longest first: `sub001_MR1` holds
    `sub001`.
    """
    names = sorted(
        (("{id}", visit.id), ("{label}", visit.label), ("{subject}", visit.subject)),
        key=lambda substitution: -len(substitution[1]),
    )
    for name, value in names:
        if value:
            path = path.replace(value, name)
    return path


def _is(want: Wanted, resource: ResourceRecord, types: Mapping[str, str]) -> bool:
    return not want.xsi_type or (
        resource.owner.level == "assessor" and types.get(resource.owner.id) == want.xsi_type
    )


def _place(resource: ResourceRecord) -> str:
    owner = resource.owner
    if owner.level == "experiment":
        return resource.label
    return f"{owner.level} {owner.id if owner.level == 'assessor' else owner.part}, {resource.label}"
