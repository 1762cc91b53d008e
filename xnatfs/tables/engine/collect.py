"""One session's part of a table: which resource, which files, their parsed rows; from what is kept where the
server's stamps agree.

Used by `build`. Cost: one request a file. Where the file lies in the resource is learnt from the first
sessions (the path with the subject's and session's names taken out) and tried first; a listing of the
resource is asked for only where that fails, or where a table wants the newest or all of several files. What
was parsed is kept with the stamp of its session (`listing.stamps`): while that stays nothing is asked, but
for a listing of the resource after some hours, whose digests tell of what moves no stamp. When the stamp has
moved, a file is fetched again and compared.
Threading: any thread; one lock around the learnt paths.
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
from xnatfs.cache.measurement_store import MeasurementStore, ParsedFile
from xnatfs.content.temporary import TemporaryDownloads
from xnatfs.errors import Cause, Failure, MissingExtra
from xnatfs.listing.service import ListingService
from xnatfs.listing.snapshot import FileIndex, ProjectSummary, SessionSnapshot
from xnatfs.server.records import ExperimentRecord, FileRecord, ResourceRecord, natural
from xnatfs.server.urls import addressable
from xnatfs.tables.engine.overrides import Spec, Wanted
from xnatfs.tables.spec import Input, Parsed, ParseError, SessionInfo

log = logging.getLogger(__name__)

_FORM = 1
# a listing of this age is new enough to compare what is kept with: the formats of a table are built one by
# one
_JUST_NOW_S = 60.0
_BY_LABEL = (
    "experiment",
    "subject",
    "project",
)  # of these; scans and the like may be united with others (xnat-rest.md 13)
_LEARNT = 4  # paths a role
_IN_VAIN = (
    3  # sessions more in which no learnt path was right than in which one was: then none is tried any more
)
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
    """Gathers for one table of one project.

    Args: spec: the table. outline: the project's sessions with their own resources. catalogs: for what lies
        below scans and assessors, and for listings of resources. loose: fetches files. store: keeps rows.
        relist_after: the age in seconds from which a kept choice is compared with a new listing, though no
        stamp moved. check: ask for every file again, whatever the stamps say."""

    def __init__(
        self,
        spec: Spec,
        summary: ProjectSummary,
        listing_service: ListingService,
        loose: TemporaryDownloads,
        store: MeasurementStore,
        relist_after: float,
        *,
        check: bool = False,
    ) -> None:
        self._spec = spec
        self._summary = summary
        self._listing_service = listing_service
        self._loose = loose
        self._store = store
        self._relist_after = relist_after
        self._check = check
        self._lock = threading.Lock()
        self.on_learnt: Callable[[], None] = lambda: None  # called when `learnt` may have become true
        self._paths: dict[str, list[str]] = {}  # by role, the first learnt first
        self._digests: dict[str, str] = {}  # by key of a read
        self._luck: Counter[str] = (
            Counter()
        )  # by role: sessions in which a learnt path was right, less those in which none was

    @property
    def learnt(self) -> bool:
        """Whether a session has shown where the files lie."""
        guessed = [one for one in self._spec.inputs if _guessable(one)]
        needed = [one.role for one in guessed if one.required]
        if needed:
            return all(role in self._paths for role in needed)
        return not guessed or any(one.role in self._paths for one in guessed)

    def gather(self, experiment: ExperimentRecord) -> SessionResult:
        """A session's files, fetched and parsed where they are not kept.

        Raises:
            Failure: the server or the cache cannot be used; what only concerns this session is in the result.
        """
        visit = visit_of(self._summary.project, experiment)
        key = json.dumps([self._summary.project, self._spec.table.key, experiment.id])
        kept, aged = self._kept(key, experiment)
        if kept is not None and not aged:
            return kept
        try:
            found, stale = self._resources(experiment)
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
        if not found:
            names = " or ".join(map(str, self._spec.wanted))
            result = SessionResult(problems=[f"has no resource {names}"], missing=True)
        else:
            result = self._read_all(found[0], visit, experiment, aged)
            if len(found) > 1 and result.reads:
                others = ", ".join(_place(one) for one in found[1:4]) + (" ..." if len(found) > 4 else "")
                result.problems.append(
                    f"{len(found)} resources match; {_place(found[0])} was read, {others} not"
                )
        result.passing = result.passing or stale
        if result.trouble is not None and not result.reads:
            return self._as_it_was(key, result)
        if experiment.changed and result.trouble is None and not result.passing:
            body = json.dumps(
                [_FORM, result.reads, result.resource, result.problems, result.missing, result.failed]
            )
            self._store.put_choice(key, experiment.changed, self._spec.fingerprint, body)
        return result

    def rows(self, read: ParsedInput) -> Parsed:
        """The rows of a file that was read.

        Raises:
            Failure: they are not kept any more (another process cleared the cache).
        """
        kept = self._store.parsed(read.key)
        if kept is None:
            raise Failure(
                Cause.CACHE_BROKEN,
                read.path,
                "the rows parsed from it have been evicted; open the table again",
            )
        self._digests[read.key] = kept.digest
        return _parsed(kept)

    def digest(self, read: ParsedInput) -> str:
        """The MD5 of a file whose `rows` were asked for."""
        return self._digests.get(read.key, "")

    # --- what is kept ---------------------------------------------------------------------------------------

    def _kept(self, key: str, experiment: ExperimentRecord) -> tuple[SessionResult | None, bool]:
        """What is kept of a session, and whether it is so old that a new listing has to agree with it."""
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
        order the site names them. And whether they are those of another moment than the stamp."""
        own = self._summary.session_resources(experiment.id) or []
        found = [
            one for want in self._spec.wanted if not want.xsi_type for one in own if one.label == want.label
        ]
        if found:
            return found, False
        every = self._summary.every.get(experiment.id)
        if every is not None and not any(want.xsi_type for want in self._spec.wanted):
            return self._below(every, {}), False
        session: SessionSnapshot = self._listing_service.sessions.get(self._summary.project, experiment.id)
        types = {one.id: one.xsi_type for one in session.assessors}
        stale = session.experiment.changed != experiment.changed
        return self._below([one for group in session.resources.values() for one in group], types), stale

    def _below(self, resources: list[ResourceRecord], types: Mapping[str, str]) -> list[ResourceRecord]:
        found: list[ResourceRecord] = []
        for want in self._spec.wanted:
            for level in ("experiment", "assessor", "reconstruction", "scan"):
                fits = [
                    one
                    for one in resources
                    if one.owner.level == level and one.label == want.label and _is(want, one, types)
                ]
                found += sorted(
                    fits, key=lambda one: (natural(one.owner.id + "/" + one.owner.part), one.id or 0)
                )
        return found

    # --- files ----------------------------------------------------------------------------------------------

    def _read_all(
        self, resource: ResourceRecord, visit: SessionInfo, experiment: ExperimentRecord, aged: bool
    ) -> SessionResult:
        result = SessionResult(resource=_place(resource))
        snapshot: FileIndex | None = None

        def listing() -> FileIndex:
            nonlocal snapshot
            if snapshot is None:
                oldest = min(_JUST_NOW_S, self._relist_after) if aged else None
                snapshot = self._listing_service.files.index_of(resource, experiment.changed, oldest)
                result.passing = result.passing or snapshot.stale
                self._learn_from(snapshot.of_resource(resource) or [], visit)
            return snapshot

        for one in self._spec.inputs:
            before = len(result.problems)
            reads = self._read_input(one, resource, visit, experiment.changed, listing, result, aged)
            result.reads += reads
            if not reads and one.required:
                if len(result.problems) == before:
                    result.problems.append(f"{_place(resource)} has no file {_filled(one, visit)[0]}")
                result.failed = True
        if result.failed:
            result.reads = []
        elif not result.reads:
            # All its files are optional, and none is there or can be read: `combine` would have nothing to
            # say.
            if not result.problems:
                names = ", ".join(_filled(one, visit)[0] for one in self._spec.inputs)
                result.problems.append(f"{_place(resource)} has none of the files {names}")
            result.failed = True
        return result

    def _read_input(
        self,
        one: Input,
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
            and _guessable(one)
            and (resource.id is not None or (resource.owner.level in _BY_LABEL and addressable(resource)))
        ):
            with self._lock:
                hopeless = self._luck[one.role] < -_IN_VAIN
                shapes = () if hopeless else self._paths.get(one.role, ())
                paths = [
                    path for path in (_fill(shape, visit) for shape in shapes) if _best(one, path, visit)
                ]
            for path in paths:
                before = len(problems)
                try:
                    with budgets[path], retry.Attempts(retry.GUESS):
                        found = self._read(one, _guess(resource, path), False, stamp, problems)
                except Failure as failure:
                    looked_up = failure.cause in (*_MISSING, *_BROKEN) or of_this_file(failure)
                    if failure.away or not looked_up:
                        raise
                    continue
                if found is None:
                    continue
                if (
                    not found
                ):  # it does not parse. Perhaps it was damaged on its way: the listing has its digest
                    del problems[before:]
                    continue
                self._lucky(one.role, 1)
                return found
            if paths:
                self._lucky(one.role, -1)
        try:
            listed = listing()
        except Failure as failure:
            self._must_be_its_own(failure)
            result.trouble = failure
            problems.append(f"{_place(resource)} cannot be listed: {failure.cause.sentence}")
            return []
        chosen = _choose(one, listed.of_resource(resource) or [], visit, problems)
        if listed.stale:
            stamp = ""  # what it says is older
        reads: list[ParsedInput] = []
        for record in chosen:
            try:
                with budgets[record.path]:
                    reads += self._read_for_sure(one, record, stamp, problems, aged)
            except Failure as failure:
                if failure.cause not in (*_MISSING, Cause.BAD_DIGEST):
                    if not of_this_file(failure):
                        raise
                    result.trouble = failure
                result.passing = True
                problems.append(f"{record.path}: {failure.cause.sentence}")
                if one.several:
                    return []  # a part of what was to be read is no answer
        with self._lock:
            for read in reads:
                self._learn(read.role, read.path, visit)
        return reads

    def _read_for_sure(
        self, one: Input, record: FileRecord, stamp: str, problems: list[str], aged: bool
    ) -> list[ParsedInput]:
        """A listed file, read. What the server does not give is its own failure only if the server answers
        otherwise: without its database XNAT says 404 or 500 to everything (xnat-rest.md 13).

        Raises:
            Failure: it cannot be had, or the server is in trouble.
        """
        try:
            return self._read(one, record, True, stamp, problems, aged) or []
        except Failure as failure:
            if failure.cause not in _MISSING and not of_this_file(failure):
                raise
            self._listing_service.projects.proof.check(self._summary.project)
            return self._read(one, record, True, stamp, problems, aged) or []

    def _read(
        self,
        one: Input,
        record: FileRecord,
        listed: bool,
        stamp: str,
        problems: list[str],
        aged: bool = False,
    ) -> list[ParsedInput] | None:
        """The file, read; empty if it is not what it should be; None if a guess cannot be told whole from cut
        short. `aged`: that the stamp is the same proves nothing."""
        place = f"{record.base}\0{record.path}\0{self._spec.table.key}/{one.role}/{one.version}"
        key = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
        read = ParsedInput(one.role, record.path, key)
        kept = self._store.parsed(key)
        if (
            kept is not None
            and not self._check
            and (
                (kept.stamp == stamp != "" and not aged)
                or (listed and record.digest and kept.digest == record.digest)
            )
        ):
            if kept.stamp != stamp:
                self._store.confirm(key, stamp)
            return [read]
        fetched = self._loose.fetch(record, listed=listed)
        if not listed and not fetched.sure:
            fetched.stream.close()
            return None
        if kept is not None and kept.digest == fetched.md5:
            fetched.stream.close()
            self._store.confirm(key, stamp)
            return [read]
        with fetched.stream as stream:
            try:
                parsed = one.parse(stream, record.path)
            except ParseError as error:
                problems.append(f"{record.path}: {error}")
                return []
            except MissingExtra:
                raise  # nothing is known of the file: not to be kept
            except Exception as error:
                # A mistake in a parser, which may be a plug-in's, costs the session and not the table.
                log.exception("%s: %s/%s cannot parse it", record.uri, self._spec.table.key, one.role)
                problems.append(f"{record.path}: it cannot be parsed ({type(error).__name__}: {error})")
                return []
        body = json.dumps([_FORM, parsed.columns, parsed.rows, parsed.notes])
        self._store.put_parsed(key, stamp, fetched.last_modified, fetched.md5, body)
        return [read]

    def _learn_from(self, files: list[FileRecord], visit: SessionInfo) -> None:
        """Where the files lie, from a listing: the other sessions need not wait until this one's are
        fetched.
        """
        chosen = [
            (one.role, file)
            for one in self._spec.inputs
            if _guessable(one)
            for file in _choose(one, files, visit, [])
        ]
        with self._lock:
            for role, file in chosen:
                self._learn(role, file.path, visit)
        self.on_learnt()

    def _learn(self, role: str, path: str, visit: SessionInfo) -> None:
        known = self._paths.setdefault(role, [])
        shape = _shape(path, visit)
        if shape not in known and len(known) < _LEARNT:
            known.append(shape)

    def _lucky(self, role: str, step: int) -> None:
        with self._lock:
            self._luck[role] += step


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
    """A choice as it was kept."""
    try:
        form, reads, resource, problems, missing, failed = json.loads(body)
        return (
            SessionResult([ParsedInput(*one) for one in reads], resource, problems, missing, failed)
            if form == _FORM
            else None
        )
    except (ValueError, TypeError):
        return None


def _parsed(kept: ParsedFile) -> Parsed:
    _, columns, rows, notes = json.loads(kept.body)
    return Parsed(tuple(columns), [tuple(row) for row in rows], tuple(notes))


def _guessable(one: Input) -> bool:
    """Where the newest or all of several files are wanted, only a listing tells which there are."""
    return not one.several and one.prefer is None


def _best(one: Input, path: str, visit: SessionInfo) -> bool:
    """Whether no file that an earlier pattern prefers can lie beside this one, unless it is of the same name
    in another folder.
    """
    first = _filled(one, visit)[0]
    return fnmatch.fnmatchcase(path.rpartition("/")[2], first.rpartition("/")[2]) and any(
        fnmatch.fnmatchcase(path, pattern) for pattern in _filled(one, visit)
    )


def _guess(resource: ResourceRecord, path: str) -> FileRecord:
    return FileRecord(resource.owner, resource.id or 0, resource.label, path, 0, "")


def _choose(one: Input, files: list[FileRecord], visit: SessionInfo, problems: list[str]) -> list[FileRecord]:
    for pattern in _filled(one, visit):
        fits = [file for file in files if fnmatch.fnmatchcase(file.path, pattern)]
        if one.several or len(fits) < 2:
            if fits:
                return fits
            continue
        best = fits[0] if one.prefer is None else max(fits, key=lambda file: one.prefer(file.path))  # type: ignore[misc, arg-type, return-value]
        others = [file.path for file in fits if file is not best]
        problems.append(f"{len(fits)} files match; {best.path} was read, {', '.join(others[:3])} not")
        return [best]
    return []


def _filled(one: Input, visit: SessionInfo) -> list[str]:
    escaped = SessionInfo(*(glob.escape(value) for value in (visit.id, visit.label, visit.subject)))
    return [_fill(pattern, escaped) for pattern in one.patterns]


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
        key=lambda one: -len(one[1]),
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
