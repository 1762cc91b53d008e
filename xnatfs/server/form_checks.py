"""Asks each listing form for one project, and for a few objects in it by themselves, and compares.

Used by `self_test`. What two forms say differently a third one decides, as a mount does it; whether a mount
would see the difference by itself is known here from what `listing` looks at.
Threading: one thread.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from xnatfs.server import claims
from xnatfs.server import form_findings as forms
from xnatfs.server.bulk_rows import (
    AssessorListing,
    BulkResources,
    ReconstructionListing,
    ScanListing,
    assessors_of,
)
from xnatfs.server.form_findings import FormLog
from xnatfs.server.items import SubjectItem
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import (
    ExperimentRecord,
    FileRecord,
    Owner,
    ProjectRecord,
    ResourceRecord,
    ScanRecord,
    SubjectRecord,
)
from xnatfs.server.resources import FileListing, Resources
from xnatfs.server.resultset import Row, pick
from xnatfs.server.urls import addressable, segment
from xnatfs.server.witness_requests import WitnessRequests

_LOOKED_AT = 4  # projects, to find the one with the most sessions
_PLENTY = 1000  # sessions: no other project is looked at
_HUGE = 20_000  # experiments: what lists them once more is left out
_MOST_FILES = 20_000  # of a session that is looked into
_SESSIONS = 2
_RICH = 20  # resources of a session: more of them show no more
_DISPUTES = 4  # that a third form is asked about
_FIELDS = ("subject_id", "subject_label", "xsi_type", "date", "time", "inserted")  # of an experiment
_LARGE = "left out: the project is large"

Key = tuple[int | None, str, str]  # of a resource: number, scan or the like, label


@dataclass
class BulkView:
    """What the forms about the whole project say of it."""

    id: str
    experiments: dict[str, ExperimentRecord]
    plain: dict[str, ExperimentRecord] = field(default_factory=dict)
    stamped: dict[str, ExperimentRecord] = field(default_factory=dict)
    stamps: list[str] = field(default_factory=list)
    own: BulkResources = field(default_factory=BulkResources)
    scans: ScanListing = field(default_factory=ScanListing)
    assessors: AssessorListing = field(default_factory=AssessorListing)
    reconstructions: ReconstructionListing = field(default_factory=ReconstructionListing)
    files: list[FileRecord] = field(default_factory=list)  # of the project itself

    def of_session(self, session: str) -> dict[str, list[ResourceRecord]]:
        """The resources of a session and all below it, by level."""
        found: dict[str, list[ResourceRecord]] = defaultdict(list)
        for listing in (
            self.own,
            self.scans.resources,
            self.assessors.resources,
            self.reconstructions.resources,
        ):
            for one in listing.resources:
                owner = one.owner
                if (owner.part if owner.level == "assessor" else owner.id) == session:
                    found[owner.level].append(one)
        return found


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


class ProjectChecks:
    """The forms about all projects and about one."""

    def __init__(self, listings: ListingRequests, log: FormLog) -> None:
        self._listings = listings
        self._resources = Resources(listings)
        self._witnesses = WitnessRequests(listings)
        self._log = log

    def projects(self) -> list[ProjectRecord]:
        """All that can be read."""
        log = self._log
        found = log.ask(forms.PROJECTS, self._listings.projects) or []
        ids = log.ask(forms.PROJECT_IDS, self._witnesses.project_ids)
        if ids is not None:
            log.compare(forms.PROJECTS, "projects", {one.id for one in found} & ids, ids)
            log.compare(forms.PROJECT_IDS, "projects", ids, {one.id for one in found}, seen=True)
        return found

    def look_at(self, projects: Sequence[ProjectRecord]) -> BulkView | None:
        """Of the first few projects that with the most experiments; None if none may be looked into."""
        views: list[BulkView] = []
        for project in projects:
            listed = self._log.ask(
                forms.EXPERIMENTS, partial(self._listings.experiments, project.id), may_be_closed=True
            )
            if listed is None and self._log.is_refused(forms.EXPERIMENTS):
                told = self._log.ask(
                    forms.STAMPED, partial(self._listings.stamped_experiments, project.id, ())
                )
                listed = [one for one, _, _ in told] if told is not None else None
            if listed is not None:
                plain = {one.id: one for one in listed}
                views.append(BulkView(project.id, plain, plain))
            if len(views) >= _LOOKED_AT or (views and len(views[-1].experiments) >= _PLENTY):
                break
        return max(views, key=lambda view: len(view.experiments), default=None)

    def bulk(self, view: BulkView) -> None:
        """Ask the forms that a mount shows the project by."""
        log, listings, project = self._log, self._listings, view.id
        types = sorted({one.xsi_type for one in view.experiments.values()})
        stamped = log.ask(forms.STAMPED, lambda: listings.stamped_experiments(project, types))
        if not view.experiments and not stamped:
            return
        own = log.ask(forms.OF_EXPERIMENTS, lambda: listings.experiment_resources(project))
        witness = own.seen if own is not None else set()
        if stamped:
            view.stamps = [text for _, *stamps in stamped for text in stamps if text]
            if all(text is None for _, *stamps in stamped for text in stamps):
                log.differs(forms.STAMPED, "leaves out the stamps", seen=True)
            view.stamped = {one.id: one for one, _, _ in stamped}
            self._otherwise(view)
            # As a mount does it: one that only this form has is there if a third one has it, too.
            more = {one: record for one, record in view.stamped.items() if one in witness or not witness}
            view.experiments = {**more, **view.plain}
        listed = view.experiments.keys()
        if own is not None and not log.is_refused(forms.OF_EXPERIMENTS):
            view.own = own
            # What it has no row of, or none that is certain, is asked for singly.
            log.compare(forms.OF_EXPERIMENTS, "experiments", own.known & listed, listed, seen=True)
        if any(one.may_have_scans for one in view.experiments.values()):
            view.scans = log.ask(forms.SCANS, lambda: listings.scans(project)) or view.scans
            view.assessors = log.ask(forms.ASSESSORS, lambda: listings.assessors(project)) or view.assessors
            view.reconstructions = (
                log.ask(forms.RECONSTRUCTIONS, lambda: listings.reconstructions(project))
                or view.reconstructions
            )
            self._certain(view)

    def _otherwise(self, view: BulkView) -> None:
        """Compare what two forms tell of the same experiments; a blank says less than a value."""
        here: set[str] = set()
        plain: set[str] = set()
        for one in view.stamped.keys() & view.plain.keys():
            for name in _FIELDS:
                ours, theirs = getattr(view.stamped[one], name), getattr(view.plain[one], name)
                if ours != theirs:
                    (plain if not theirs else here).add(one)
        for form, wrong in ((forms.STAMPED, here), (forms.EXPERIMENTS, plain)):
            if wrong:
                words = (
                    f"tells something else of {len(wrong)} of {len(view.plain)} experiments than another form"
                )
                self._log.differs(form, words, seen=False)

    def _certain(self, view: BulkView) -> None:
        """Whom the forms leave out, or tell nothing certain of, is asked for singly."""
        log = self._log
        sessions = {one.id for one in view.experiments.values() if one.may_have_scans}
        if not any(map(log.is_refused, (forms.SCANS, forms.OF_EXPERIMENTS))):
            log.compare(forms.SCANS, "sessions", view.scans.resources.known & sessions, sessions, seen=True)
        if not log.is_refused(forms.RECONSTRUCTIONS):
            known = view.reconstructions.resources.known
            log.compare(forms.RECONSTRUCTIONS, "sessions", known & sessions, sessions, seen=True)
        if not log.is_refused(forms.ASSESSORS):
            assessors = {one.id for one in view.assessors.assessors}
            known = view.assessors.resources.known & assessors
            if assessors - known:
                words = f"tells nothing certain of the resources of {len(assessors - known)} assessors"
                log.differs(forms.ASSESSORS, words, seen=True)
        for form, bulk in (
            (forms.OF_EXPERIMENTS, view.own),
            (forms.SCANS, view.scans.resources),
            (forms.ASSESSORS, view.assessors.resources),
            (forms.RECONSTRUCTIONS, view.reconstructions.resources),
        ):
            if nameless := sum(one.id is None for one in bulk.resources):
                words = f"tells no numbers of {nameless} of {len(bulk.resources)} resources"
                log.differs(form, words, seen=True)

    def subjects(self, view: BulkView) -> None:
        """The forms about its subjects."""
        log, project = self._log, view.id
        found = log.ask(forms.SUBJECTS, lambda: self._listings.subjects(project), may_be_closed=True)
        if found is None:
            return
        people, bulk = found
        with_some = [one for one in bulk.resources if one.id is not None or one.label]
        owner = with_some[0].owner if with_some else Owner("subject", people[0].id) if people else None
        if owner is not None and not log.is_refused(forms.SUBJECTS):
            singly = log.ask(forms.OF_ONE, lambda: self._resources.of(owner))
            if singly is not None:
                ours = [one for one in bulk.resources if one.owner == owner]
                self._one_subject(owner, ours, singly, blank=bool(bulk.blank))
        if len(people) > _HUGE:
            log.leave_out(forms.PEOPLE, _LARGE)
            log.leave_out(forms.SUBJECT_LABELS, _LARGE)
            return
        labels = log.ask(forms.SUBJECT_LABELS, lambda: self._witnesses.subject_labels(project))
        plain = log.ask(forms.PEOPLE, lambda: self._listings.people(project))
        self._vote(
            "subjects",
            {
                forms.SUBJECTS: _labels(people),
                forms.PEOPLE: _labels(plain) if plain is not None else None,
                forms.SUBJECT_LABELS: labels,
            },
            # A subject of an experiment is missed; see `listing.subjects`.
            missed={one.subject_id for one in view.experiments.values()},
            lightly={forms.SUBJECT_LABELS},
        )
        if nameless := sum(one.id is None for one in bulk.resources):
            words = f"tells no numbers of {nameless} of {len(bulk.resources)} resources"
            log.differs(forms.SUBJECTS, words, seen=True)

    def _one_subject(
        self, owner: Owner, bulk: list[ResourceRecord], singly: list[ResourceRecord], *, blank: bool
    ) -> None:
        """Compare the resources of a subject; where two forms differ, its files tell which is right."""
        log = self._log
        said, true = _comparable(bulk, singly)
        numbers = {number for number, _, _ in said}
        if said == true or numbers == {number for number, _, _ in true} != {None}:
            log.compare(forms.SUBJECTS, "resources", said, true, seen=True)  # a label, at most
            return
        files = log.ask(forms.OF_ONE, lambda: self._resources.files_of(owner))
        third = {one.resource_id for one in files.files} if files is not None else set()
        if third and third <= numbers and not third <= {one.id for one in singly}:
            log.compare(forms.OF_ONE, "resources", true & said, said)
        else:
            log.compare(forms.SUBJECTS, "resources", said, true, seen=blank)

    def _vote(
        self,
        things: str,
        told: Mapping[str, Mapping[str, str] | None],
        *,
        missed: AbstractSet[str],
        lightly: AbstractSet[str],
        also: AbstractSet[str] = frozenset(),
    ) -> None:
        """Compare forms that tell ids and labels: what most of them have is there, and named so.

        Args:
            told: by form; None where it is refused.
            missed: ids that a mount misses where a form lacks them.
            lightly: forms whose differences a mount sees and goes round.
            also: ids that a form without labels has.
        """
        answered = {form: listed for form, listed in told.items() if listed is not None}
        count = Counter(one for listed in answered.values() for one in listed)
        count.update(also)
        voters = len(answered) + bool(also)
        true = {one for one, times in count.items() if times > 1 or voters < 3}
        names: dict[str, str] = {}
        for one in true:
            said = Counter(
                listed[one] for listed in answered.values() if listed.get(one, "") not in ("", one)
            )
            names[one] = said.most_common(1)[0][0] if said else ""
        for form, listed in answered.items():
            labels = list(listed.values())
            # Then a mount asks the form that tells nothing else; see `listing.cross_check`.
            seen = form in lightly or "" in labels or len(set(labels)) < len(labels)
            seen = seen or all(label == one for one, label in listed.items())
            lacking = true - listed.keys()
            self._log.compare(form, things, listed.keys(), true, seen=seen or bool(lacking & missed))
            if wrong := sum(names.get(one, "") not in ("", label) for one, label in listed.items()):
                self._log.differs(form, f"names {wrong} of {len(listed)} {things} otherwise", seen=seen)

    def witnesses(self, view: BulkView) -> None:
        """The small forms that decide where others differ."""
        log, project, experiments = self._log, view.id, view.experiments
        labels: dict[str, str] | None = None
        if len(experiments) > _HUGE:
            log.leave_out(forms.LABELS, _LARGE)
        else:
            labels = log.ask(forms.LABELS, lambda: self._witnesses.labels(project))
        self._vote(
            "experiments",
            {
                forms.EXPERIMENTS: _labels(view.plain.values()) if view.plain else None,
                forms.STAMPED: _labels(view.stamped.values()) if view.stamped else None,
                forms.LABELS: labels,
            },
            # As `listing.stamps` does: the plain form decides what the one with stamps leaves out.
            missed=experiments.keys() - view.stamped.keys(),
            lightly={forms.LABELS},
            also=view.own.seen,
        )
        some = log.ask(forms.SOME, lambda: self._witnesses.first_experiment(project))
        if some is not None and not some and experiments:
            log.differs(forms.SOME, "has none of a project that has some", seen=True)
        elif some is not None and len(some) > 1:
            log.differs(forms.SOME, "lists more than one", seen=True)

    def own_resources(self, view: BulkView, record: ProjectRecord | None) -> None:
        """Those of the project itself."""
        log, owner = self._log, Owner("project", view.id)
        listed = log.ask(forms.OF_ONE, lambda: self._resources.of(owner))
        if listed is not None and record is not None and record.resources is not None:
            said = {number for number, _, _ in record.resources}
            true = {one.id for one in listed}
            log.compare(forms.PROJECTS, "resources", said & true, true, seen=True)
            # The list of projects bears witness for the listing: what only that has is an error.
            log.compare(forms.OF_ONE, "resources", true, said | true)
        if sum(one.file_count or 0 for one in listed or ()) > _MOST_FILES:
            log.leave_out(forms.FILES_OF_PROJECT, _LARGE)
        elif listed and (found := log.ask(forms.FILES_OF_PROJECT, lambda: self._resources.files_of(owner))):
            view.files = found.files
            numbers = {one.id for one in listed if one.file_count}
            log.compare(
                forms.FILES_OF_PROJECT,
                "resources",
                {one.resource_id for one in found.files} & numbers,
                numbers,
                seen=True,
            )


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
            return sum(each.file_count or 0 for each in resources) <= _MOST_FILES

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
        told = view.of_session(session)
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
                ours = [one for one in told[level] if one.owner.direction != "in"]
                theirs = [
                    one
                    for one in singly
                    if one.owner.level == level and (level != "assessor" or one.owner.id in assessors)
                ]
                self._settle((form, ours), (forms.OF_SESSION, theirs), nothing=not bulk.resources)
        counts = {one.id: one.file_count for one in singly}
        bulk_counts = [(one.file_count, counts.get(one.id)) for level in told.values() for one in level]
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
        said, true = _comparable(bulk, singly)
        if said == true:
            log.counted(form, len(true))
            log.counted(single_form, len(true))
            return
        disputed = next(
            one for one in (*bulk, *singly) if _key(one) in said ^ true or _short(_key(one)) in said ^ true
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
            ours, right = _comparable([one for one in mine if _same(one.owner, owner)], third)
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
        ours = [one for one in view.of_session(session)[level] if one.owner.direction == "in"]
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
        told = log.ask(forms.FILES_TOGETHER, lambda: self._resources.files_of_sessions(names))
        if told is None and not log.is_refused(forms.FILES_TOGETHER):
            # An assessor's own files are listed below the assessor alone.
            own = {one for one in names for file in held[one].files if _is_assessors_own(file.owner)}
            words = "a row does not tell its session" + " (an assessor's own files do not)" * bool(own)
            log.differs(forms.FILES_TOGETHER, words, seen=True)
            names = [one for one in names if one not in own]
            if own and len(names) > 1:
                told = log.ask(forms.FILES_TOGETHER, lambda: self._resources.files_of_sessions(names))
        if told is None:
            return
        for name in names:
            self._same_files(forms.FILES_TOGETHER, told[name].files, held[name].files)

    # --- by other ways --------------------------------------------------------------------------------------

    def item(self, session: ExperimentRecord, ask: Callable[[str], SubjectItem]) -> None:
        """The item of its subject."""
        log, single = self._log, self._singles[session.id]
        item = log.ask(forms.ITEM, lambda: ask(session.subject_id)) if session.subject_id else None
        if item is None or single.resources is None:
            return
        told = item.experiments.get(session.id)
        said = (
            {one.id for one in told.resources if one.owner.direction != "in"} if told is not None else set()
        )
        log.compare(forms.ITEM, "resources", said, {one.id for one in single.resources}, seen=True)
        if single.scans is not None:
            scans = told.scans if told is not None else set()
            log.compare(forms.ITEM, "scans", scans, {one.id for one in single.scans}, seen=True)

    def by_name(self, session: ExperimentRecord) -> None:
        """Found among all experiments by id, and by label."""
        if len(self._view.experiments) > _HUGE:
            self._log.leave_out(forms.BY_NAME, _LARGE)
            return
        names = [session.id, session.label]
        found = self._log.ask(forms.BY_NAME, lambda: self._listings.find_experiments(names))
        if found is not None:
            said = {one[0] for one in found} & {session.id}
            self._log.compare(forms.BY_NAME, "experiments", said, {session.id}, seen=True)


def _labels(listed: Iterable[SubjectRecord | ExperimentRecord]) -> dict[str, str]:
    return {one.id: one.label for one in listed}


def _key(one: ResourceRecord) -> Key:
    owner = one.owner
    return one.id, owner.id if owner.level == "assessor" else owner.part, one.label


def _short(key: Key) -> Key:
    return None, *key[1:]


def _comparable(
    some: Iterable[ResourceRecord], others: Iterable[ResourceRecord]
) -> tuple[set[Key], set[Key]]:
    """The resources as what both sides tell of them: without numbers where one does not know them."""
    one, other = {_key(each) for each in some}, {_key(each) for each in others}
    if any(number is None for number, _, _ in one):
        return {_short(key) for key in one}, {_short(key) for key in other}
    return one, other


def _is_assessors_own(owner: Owner) -> bool:
    return owner.level == "assessor" and not owner.direction


def _same(one: Owner, other: Owner) -> bool:
    return (one.level, one.id, one.part) == (other.level, other.id, other.part)


def _contents(files: Iterable[FileRecord]) -> dict[tuple[int, str, int], str]:
    """The digests, by resource, path and size."""
    return {(one.resource_id, one.path, one.size): one.digest for one in files}
