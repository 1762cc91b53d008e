"""Asks the listing forms about all projects and about one, and compares them with each other.

Used by `self_test`. What most forms say is right, as in a mount; whether a mount would see a difference by
itself is known here from what `listing` looks at.
Threading: one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from xnatfs.server import form_findings as forms
from xnatfs.server.form_checks import HUGE, LARGE, MOST_FILES, BulkView, comparable
from xnatfs.server.form_findings import FormLog
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import ExperimentRecord, Owner, ProjectRecord, ResourceRecord, SubjectRecord
from xnatfs.server.resources import Resources
from xnatfs.server.witness_requests import WitnessRequests

_LOOKED_AT = 4  # projects, to find the one with the most sessions
_PLENTY = 1000  # sessions: no other project is looked at
_FIELDS = ("subject_id", "subject_label", "xsi_type", "date", "time", "inserted")  # of an experiment


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
        found = log.ask(forms.PROJECTS, self._listings.projects)
        ids = log.ask(forms.PROJECT_IDS, self._witnesses.project_ids)
        if found is not None and ids is not None:
            log.compare(forms.PROJECTS, "projects", {one.id for one in found} & ids, ids)
            log.compare(forms.PROJECT_IDS, "projects", ids, {one.id for one in found}, seen=True)
        return found or []

    def look_at(self, projects: Sequence[ProjectRecord]) -> BulkView | None:
        """Of the first few projects that with the most experiments; None if none may be looked into."""
        views: list[BulkView] = []
        for project in projects:
            listed = self._log.ask(
                forms.EXPERIMENTS, partial(self._listings.experiments, project.id), may_be_closed=True
            )
            if listed is None and self._log.is_refused(forms.EXPERIMENTS):
                answers = self._log.ask(
                    forms.STAMPED, partial(self._listings.stamped_experiments, project.id, ())
                )
                listed = [one for one, _, _ in answers] if answers is not None else None
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
        if len(people) > HUGE:
            log.leave_out(forms.PEOPLE, LARGE)
            log.leave_out(forms.SUBJECT_LABELS, LARGE)
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
        said, true = comparable(bulk, singly)
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
        answers: Mapping[str, Mapping[str, str] | None],
        *,
        missed: AbstractSet[str],
        lightly: AbstractSet[str],
        also: AbstractSet[str] = frozenset(),
    ) -> None:
        """Compare forms that tell ids and labels: what most of them have is there, and named so.

        Args:
            answers: by form; None where it is refused.
            missed: ids that a mount misses where a form lacks them.
            lightly: forms whose differences a mount sees and goes round.
            also: ids that a form without labels has.
        """
        answered = {form: listed for form, listed in answers.items() if listed is not None}
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
        if len(experiments) > HUGE:
            log.leave_out(forms.LABELS, LARGE)
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
        if sum(one.file_count or 0 for one in listed or ()) > MOST_FILES:
            log.leave_out(forms.FILES_OF_PROJECT, LARGE)
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


def _labels(listed: Iterable[SubjectRecord | ExperimentRecord]) -> dict[str, str]:
    return {one.id: one.label for one in listed}
