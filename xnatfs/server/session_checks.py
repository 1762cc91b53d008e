"""Asks the listing forms about single sessions, and compares them with those about the whole project.

Used by `self_test`. What two forms say differently a third one decides, as in a mount; whether a mount would
see the difference by itself is known here from what `listing` looks at.
Threading: one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from xnatfs.server import claims
from xnatfs.server import form_findings as forms
from xnatfs.server.bulk_rows import assessors_of
from xnatfs.server.form_checks import (
    HUGE,
    LARGE,
    MOST_FILES,
    BulkView,
    comparable,
    resource_key,
    without_number,
)
from xnatfs.server.form_findings import FormLog
from xnatfs.server.items import SubjectItem
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import ExperimentRecord, FileRecord, Owner, ResourceRecord, ScanRecord
from xnatfs.server.resources import FileListing, Resources
from xnatfs.server.resultset import Row, pick
from xnatfs.server.urls import addressable, segment

_SESSIONS = 2
_RICH = 20  # resources of a session: more of them show no more
_DISPUTES = 4  # that a third form is asked about


@dataclass
class SingleView:
    """What the forms about one session say of it; None where they were refused."""

    scans: list[ScanRecord] | None = None
    resources: list[ResourceRecord] | None = None
    assessors: list[Row] | None = None
    files: FileListing | None = None

    @property
    def parts(self) -> set[tuple[str, str]]:
        """The level and id of whatever in it has a resource or a file."""
        owners = [one.owner for one in self.resources or ()]
        owners += [one.owner for one in (self.files.files if self.files else ())]
        return {(one.level, one.id if one.level == "assessor" else one.part) for one in owners}


class SessionChecks:
    """The forms about single sessions of a project, and what those about all of it say of the same."""

    def __init__(self, listings: ListingRequests, log: FormLog, view: BulkView) -> None:
        self._listings = listings
        self._resources = Resources(listings)
        self._log = log
        self._view = view
        self._singles: dict[str, SingleView] = {}
        self._disputes = 0
        self._found_wrong: set[str] = set()  # by a third form

    @property
    def files(self) -> list[FileRecord]:
        """All that were listed."""
        return self._view.files + [
            file for one in self._singles.values() if one.files is not None for file in one.files.files
        ]

    def sample(self) -> list[ExperimentRecord]:
        """Sessions whose primary project this is, those first that have the most kinds of things."""
        view = self._view

        def rank(one: ExperimentRecord) -> tuple[bool, int, int]:
            found = view.of_session(one.id)
            kinds = len(found) + any(a.session_id == one.id for a in view.assessors.assessors)
            return not one.may_have_scans, -kinds, -min(_RICH, sum(map(len, found.values())))

        def small(one: ExperimentRecord) -> bool:
            resources = [each for level in view.of_session(one.id).values() for each in level]
            return sum(each.file_count or 0 for each in resources) <= MOST_FILES

        ours = [
            one
            for one in view.experiments.values()
            if view.scans.labels.get(one.id, (view.id, ""))[0] == view.id
        ][:500]
        found = sorted(filter(small, ours), key=rank)
        # Without assessors, whose own files hide what the form for several sessions is worth.
        assessed = {one.session_id for one in view.assessors.assessors}
        more = [one for one in found[_SESSIONS:] if one.id not in assessed]
        return found[:_SESSIONS] + more[: max(0, sum(one.id in assessed for one in found[:_SESSIONS]))]

    def run(self, sessions: Sequence[ExperimentRecord]) -> None:
        """Ask for each of them, and compare."""
        for place, session in enumerate(sessions):
            self._ask(session, whole=place < _SESSIONS)
        for session in sessions:
            self._compare(session)
        for session in sessions:
            self._compare_files(session)
        self._together(sessions)

    def _ask(self, session: ExperimentRecord, *, whole: bool) -> None:
        log, identity = self._log, session.id
        single = self._singles[identity] = SingleView()
        single.resources = log.ask(forms.OF_SESSION, lambda: self._resources.of_session(identity))
        single.files = log.ask(forms.FILES, lambda: self._resources.files_of_session(identity))
        if session.may_have_scans and whole:
            single.scans = log.ask(forms.SCANS_OF_ONE, lambda: self._listings.scans_of_session(identity))
            single.assessors = log.ask(
                forms.ASSESSORS_OF_ONE,
                lambda: self._listings.table(
                    f"/data/experiments/{segment(identity)}/assessors", claims.ASSESSORS_OF_SESSION
                ),
            )

    # --- what is below a session ----------------------------------------------------------------------------

    def _compare(self, session: ExperimentRecord) -> None:
        identity, view, single = session.id, self._view, self._singles[session.id]
        if single.scans is not None and identity in view.scans.sessions:
            self._scans(identity, single.scans)
        if single.assessors is not None and not self._log.is_refused(forms.ASSESSORS):
            self._assessors(identity, single.assessors)
        ours = [one.id for one in view.reconstructions.reconstructions if one.session_id == identity]
        if single.resources is not None and not self._log.is_refused(forms.RECONSTRUCTIONS):
            there = {part for level, part in single.parts if level == "reconstruction"}
            none = not view.reconstructions.reconstructions
            self._log.compare(forms.RECONSTRUCTIONS, "reconstructions", there & set(ours), there, seen=none)
        if single.resources is not None:
            self._below(identity, single.resources)
        with_assessors = any(one.session_id == identity for one in view.assessors.assessors)
        for level, worth in (("assessor", with_assessors), ("reconstruction", bool(ours))):
            if worth and single.assessors is not None:
                self._inputs(identity, level)

    def _scans(self, session: str, singly: list[ScanRecord]) -> None:
        log, view = self._log, self._view
        bulk = {one.id: one for one in view.scans.scans if one.session_id == session}
        single = {one.id: one for one in singly}
        third = {part for level, part in self._singles[session].parts if level == "scan"}
        true = single.keys() | (bulk.keys() & third)
        log.compare(forms.SCANS, "scans", bulk.keys(), true, seen=not view.scans.scans)
        log.compare(forms.SCANS_OF_ONE, "scans", single.keys(), true)
        untyped = all(one.type in ("", one.id, session) for one in view.scans.scans)
        otherwise = [one for one in bulk.keys() & single.keys() if bulk[one].type != single[one].type]
        if otherwise and all(single[one].type in ("", one) for one in otherwise):
            log.differs(forms.SCANS_OF_ONE, f"leaves out the types of {len(otherwise)} scans", seen=False)
        elif otherwise:
            words = f"tells another type of {len(otherwise)} of {len(single)} scans"
            log.differs(forms.SCANS, words, seen=untyped)

    def _assessors(self, session: str, singly: list[Row]) -> None:
        log, view = self._log, self._view
        bulk = {one.id: one.label for one in view.assessors.assessors if one.session_id == session}
        # It lists those of all projects, and the form about the project only its own and those shared in.
        here = [row for row in singly if pick(row, "project") in ("", view.id)]
        single = {one.id: one.label for one in assessors_of(here, session)}
        everywhere = {one.id for one in assessors_of(singly, session)}
        third = {part for level, part in self._singles[session].parts if level == "assessor"}
        true = single.keys() | (bulk.keys() & (third | everywhere))
        none = not view.assessors.assessors
        log.compare(forms.ASSESSORS, "assessors", bulk.keys(), true, seen=none)
        log.compare(forms.ASSESSORS_OF_ONE, "assessors", true & everywhere, true)
        other = [one for one in bulk.keys() & single.keys() if bulk[one] != single[one]]
        nameless = sum(single[one] in ("", one) for one in other)
        if nameless:
            words = f"leaves out the labels of {nameless} assessors"
            log.differs(forms.ASSESSORS_OF_ONE, words, seen=False)
        otherwise = len(other) - nameless
        unnamed = all(one.label in ("", one.id) for one in view.assessors.assessors)
        if otherwise:
            log.differs(
                forms.ASSESSORS, f"names {otherwise} of {len(single)} assessors otherwise", seen=unnamed
            )

    def _below(self, session: str, singly: list[ResourceRecord]) -> None:
        view = self._view
        listed = view.of_session(session)
        assessors = {one.id for one in view.assessors.assessors if one.session_id == session}
        for level, form, bulk, known in (
            ("experiment", forms.OF_EXPERIMENTS, view.own, session in view.own.known),
            ("scan", forms.SCANS, view.scans.resources, session in view.scans.resources.known),
            (
                "assessor",
                forms.ASSESSORS,
                view.assessors.resources,
                bool(assessors) and assessors <= view.assessors.resources.known,
            ),
            (
                "reconstruction",
                forms.RECONSTRUCTIONS,
                view.reconstructions.resources,
                session in view.reconstructions.resources.known,
            ),
        ):
            if known:
                ours = [one for one in listed.get(level, ()) if one.owner.direction != "in"]
                theirs = [
                    one
                    for one in singly
                    if one.owner.level == level and (level != "assessor" or one.owner.id in assessors)
                ]
                self._settle((form, ours), (forms.OF_SESSION, theirs), nothing=not bulk.resources)
        counts = {one.id: one.file_count for one in singly}
        bulk_counts = [(one.file_count, counts.get(one.id)) for level in listed.values() for one in level]
        if other := sum(one != two for one, two in bulk_counts if one is not None and two is not None):
            words = f"{other} of {len(bulk_counts)} differ between the forms about the project and a session"
            self._log.differs(forms.COUNTS, words, seen=True)

    def _settle(
        self,
        about_all: tuple[str, list[ResourceRecord]],
        about_one: tuple[str, list[ResourceRecord]],
        *,
        nothing: bool,
    ) -> None:
        """Compare the resources of one level; where two forms differ a third one is asked about one
        object.
        """
        log, (form, bulk), (single_form, singly) = self._log, about_all, about_one
        said, true = comparable(bulk, singly)
        if said == true:
            log.counted(form, len(true))
            log.counted(single_form, len(true))
            return
        differing = said ^ true
        disputed = next(
            one
            for one in (*bulk, *singly)
            if differing & {resource_key(one), without_number(resource_key(one))}
        )
        owner = disputed.owner
        third: list[ResourceRecord] | None = None
        if self._disputes < _DISPUTES:
            self._disputes += 1
            third = log.ask(forms.OF_ONE, lambda: self._of(owner))
        # By number alone the label may be wrong: `listing.contradictions` asks which is right.
        named = {one[0] for one in said} == {one[0] for one in true} != {None}
        if third is None:
            wrong, ours, theirs = (form, said, true)
            if single_form in self._found_wrong:
                wrong, ours, theirs = single_form, true, said
            log.compare(wrong, "resources", ours, theirs, seen=nothing or named)
            return
        for wrong, mine, other, seen in (
            (form, bulk, (said, true), nothing or named),
            (single_form, singly, (true, said), named),
        ):
            ours, right = comparable([one for one in mine if _same(one.owner, owner)], third)
            if ours != right:
                self._found_wrong.add(wrong)
                log.compare(wrong, "resources", *other, seen=seen)

    def _of(self, owner: Owner) -> list[ResourceRecord]:
        if owner.level != "assessor" or owner.direction == "in":
            return self._resources.of(owner)
        return [
            one
            for direction in ("out", "")
            for one in self._resources.of(owner._replace(direction=direction))
        ]

    def _inputs(self, session: str, level: str) -> None:
        """The resources that are what an assessor or reconstruction was made of."""
        view = self._view
        form, bulk = (
            (forms.ASSESSORS, view.assessors.resources)
            if level == "assessor"
            else (forms.RECONSTRUCTIONS, view.reconstructions.resources)
        )
        singly = self._log.ask(forms.INPUTS, lambda: self._resources.inputs_of_session(session, level))
        ours = [one for one in view.of_session(session).get(level, ()) if one.owner.direction == "in"]
        known = session in bulk.known or any(one.owner.id in bulk.known for one in ours) or "in" in bulk.blank
        if singly is None or not known or self._log.is_refused(form):
            return
        self._settle((form, ours), (forms.INPUTS, singly), nothing="in" in bulk.blank)

    # --- files ----------------------------------------------------------------------------------------------

    def _compare_files(self, session: ExperimentRecord) -> None:
        log, single = self._log, self._singles[session.id]
        if single.resources is None:
            return
        if single.files is None:
            # What takes its place has to be tried then.
            some = [one for one in single.resources if one.file_count != 0 and addressable(one)]
            if some:
                one = min(some, key=lambda one: one.file_count or 0)
                log.ask(forms.FILES_OF_RESOURCE, partial(self._resources.files_of_resource, one))
            return
        if single.files.odd:
            words = f"has {len(single.files.odd)} rows of which no file can be made"
            log.differs(forms.FILES, words, seen=True)
        if single.files.unsized:
            words = f"leaves out the sizes of {len(single.files.unsized)} files: one request more for each"
            log.differs(forms.FILES, words, seen=True)
        listed = Counter(one.resource_id for one in single.files.files)
        counted = [one for one in single.resources if one.file_count is not None and addressable(one)]
        wrong = [] if single.files.odd else [one for one in counted if one.file_count != listed[one.id or 0]]
        log.counted(forms.COUNTS, len(counted))
        stale = fewer = 0
        for one in wrong[:2]:
            files = log.ask(forms.FILES_OF_RESOURCE, partial(self._resources.files_of_resource, one))
            if files is None:
                continue
            fewer += len(files.files) > listed[one.id or 0]
            stale += len(files.files) == listed[one.id or 0]
        if fewer:
            words = f"lists fewer files of {len(wrong)} of {len(counted)} resources than these have"
            log.differs(
                forms.FILES, words, seen=all((one.file_count or 0) > listed[one.id or 0] for one in wrong)
            )
        if stale:
            words = f"{len(wrong)} of {len(counted)} are not the number of files that are listed"
            log.differs(forms.COUNTS, words, seen=True)
        right = sorted(
            (
                one
                for one in single.resources
                if listed[one.id or 0] and one not in wrong and addressable(one)
            ),
            key=lambda one: listed[one.id or 0],
        )
        if right:
            files = log.ask(forms.FILES_OF_RESOURCE, lambda: self._resources.files_of_resource(right[0]))
            if files is not None:
                self._same_files(
                    forms.FILES_OF_RESOURCE,
                    files.files,
                    [one for one in single.files.files if one.resource_id == right[0].id],
                )

    def _same_files(self, form: str, files: list[FileRecord], listed: list[FileRecord]) -> None:
        """Compare what a form says of files with the listing of their session."""
        ours, theirs = _contents(files), _contents(listed)
        seen = form == forms.FILES_TOGETHER
        self._log.compare(form, "files", ours.keys(), theirs.keys(), seen=seen)
        both = [(ours[one], theirs[one]) for one in ours.keys() & theirs.keys() if ours[one] != theirs[one]]
        if bare := sum(not theirs for _, theirs in both):
            self._log.differs(forms.FILES, f"leaves out the digests of {bare} files", seen=True)
        if len(both) > bare:
            words = f"tells other digests, or none, of {len(both) - bare} of {len(theirs)} files"
            self._log.differs(form, words, seen=seen)

    def _together(self, sessions: Sequence[ExperimentRecord]) -> None:
        log = self._log
        held = {one: files for one, single in self._singles.items() if (files := single.files) is not None}
        if len(held) < 2:
            return
        names = [one.id for one in sessions if one.id in held]
        # An assessor's own files are listed below the assessor alone.
        of = {one.id: one.session_id for one in self._view.assessors.assessors}
        listed = log.ask(
            forms.FILES_TOGETHER,
            lambda: self._resources.files_of_sessions(names, lambda assessor: of.get(assessor, "")),
        )
        if listed is None:
            if not log.is_refused(forms.FILES_TOGETHER):
                log.differs(forms.FILES_TOGETHER, "a row does not tell its session", seen=True)
            return
        for name in names:
            self._same_files(forms.FILES_TOGETHER, listed[name].files, held[name].files)

    # --- by other ways --------------------------------------------------------------------------------------

    def item(self, session: ExperimentRecord, ask: Callable[[str], SubjectItem]) -> None:
        """The item of its subject."""
        log, single = self._log, self._singles[session.id]
        item = log.ask(forms.ITEM, lambda: ask(session.subject_id)) if session.subject_id else None
        if item is None or single.resources is None:
            return
        entry = item.experiments.get(session.id)
        said = (
            {one.id for one in entry.resources if one.owner.direction != "in"} if entry is not None else set()
        )
        log.compare(forms.ITEM, "resources", said, {one.id for one in single.resources}, seen=True)
        if single.scans is not None:
            scans = entry.scans if entry is not None else set()
            log.compare(forms.ITEM, "scans", scans, {one.id for one in single.scans}, seen=True)

    def by_name(self, session: ExperimentRecord) -> None:
        """Found among all experiments by id, and by label."""
        if len(self._view.experiments) > HUGE:
            self._log.leave_out(forms.BY_NAME, LARGE)
            return
        names = [session.id, session.label]
        found = self._log.ask(forms.BY_NAME, lambda: self._listings.find_experiments(names))
        if found is not None:
            said = {one[0] for one in found} & {session.id}
            self._log.compare(forms.BY_NAME, "experiments", said, {session.id}, seen=True)


def _is_assessors_own(owner: Owner) -> bool:
    return owner.level == "assessor" and not owner.direction


def _same(one: Owner, other: Owner) -> bool:
    return (one.level, one.id, one.part) == (other.level, other.id, other.part)


def _contents(files: Iterable[FileRecord]) -> dict[tuple[int, str, int], str]:
    """The digests, by resource, path and size."""
    return {(one.resource_id, one.path, one.size): one.digest for one in files}
