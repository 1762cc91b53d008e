"""Who is in a study: its subjects and sessions with all that the server knows of them, as tables and as
columns beside others.

Used by `from_listings` and `joined_columns`. What is known comes from `listing.details`: a column that the
server does not tell is left out here, too. Custom variables follow under their own names.
Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from xnatfs.errors import Cause, Failure
from xnatfs.listing.ages import Age
from xnatfs.listing.snapshot import ProjectSnapshot, SessionSnapshot
from xnatfs.server.detail_requests import DetailListing
from xnatfs.server.records import ExperimentRecord, natural
from xnatfs.tables.engine.build import Builder, chosen_sessions
from xnatfs.tables.engine.built_table import table_order
from xnatfs.tables.engine.listed_table import ID, LABEL, SUBJECT, Listed, session_of
from xnatfs.tables.engine.refusals import confirm_unlistable
from xnatfs.tables.spec import Column, Row, Rows

_FEW = 64  # sessions: asked one by one
_QUALITIES = ("usable", "questionable", "unusable")


@dataclass(frozen=True)
class _Known:
    """A column of what the server knows: `name` in the table, `key` in `Details`; `sparse`: left out where
    nobody has a value.
    """

    key: str
    column: Column
    sparse: bool = False


def _known(name: str, key: str = "", unit: str = "", source: str = "", *, text: bool = False) -> _Known:
    return _Known(key or name, Column(name, unit, source, text))


_SUBJECTS = (
    _known("sex", "gender", source="gender", text=True),
    _known("yob", source="year of birth", unit="year"),
    _known("dob", source="date of birth; with --birth-dates full", text=True),
    _known("subject_age", "age", "years", "the subject's own age, as entered"),
    _known("handedness", text=True),
    _known("group", text=True),
    _known("education", unit="years"),
    _known("height", unit="as entered"),
    _known("weight", unit="as entered"),
    *(
        _Known(key, Column(name, source="where anybody has it", text=text), sparse=True)
        for name, key, text in (
            ("education_desc", "educationDesc", True),
            ("race", "race", True),
            ("ethnicity", "ethnicity", True),
            ("ses", "ses", False),
            ("src", "src", True),
            ("gestational_age", "gestational_age", False),
            ("post_menstrual_age", "post_menstrual_age", False),
            ("birth_weight", "birth_weight", False),
        )
    ),
)
_SESSIONS = (
    _known("visit_id", text=True),
    _known("scanner", text=True),
    _known("manufacturer", text=True),
    _known("model", text=True),
    _known("field_strength", "fieldStrength", "as entered"),
    _known("operator", text=True),
)
_NAME = Column("subject", source="label of the subject in the project", text=True)
_SUBJECT_ID = Column("subject_ID", source="accession id of the subject", text=True)
_PRIMARY = Column("primary_project", source="the project the subject belongs to", text=True)
_SHARED = Column("shared", source="whether it is shared in from there")
_INSERTED = Column("insert_date", source="when it was entered", text=True)
_COUNT = Column("sessions", source="number of experiments in the project")
_AGES = Column("ages", "years", "age at each of them that has one, by date", text=True)
_PROJECT, _TYPE = Column("project", text=True), Column("xsiType", text=True)
_DATE, _TIME = Column("date", text=True), Column("time", text=True)
_AGE = Column("age", "years", "the session's own age, else computed")
_AGE_FROM = Column("age_from", source="session, dob or yob", text=True)
_SCANS = (
    Column("scans", source="number of scans"),
    *(Column(f"scans_{quality}", source=f"of these, {quality}") for quality in _QUALITIES),
)
_RESOURCES = Column("resources", source="labels of the session's own resources", text=True)
# What `Details` calls it -> what it is called here.
SUBJECT_NAMES = {known.key: known.column.name for known in _SUBJECTS}
SESSION_NAMES = {known.key: known.column.name for known in _SESSIONS}
_BEFORE, _AFTER = (_NAME, _SUBJECT_ID), (_COUNT, _AGES, _PRIMARY, _SHARED, _INSERTED)
_FIRST = (ID, LABEL, SUBJECT, _PROJECT, _TYPE, _DATE)
_THEN = (_SUBJECT_ID, _TIME, _AGE, _AGE_FROM)
# A custom variable of one of these names would be taken for it when tables are joined.
_TAKEN = {
    *(column.name for column in (*_BEFORE, *_AFTER, *_FIRST, *_THEN, *_SCANS, _RESOURCES)),
    *(known.column.name for known in (*_SUBJECTS, *_SESSIONS)),
}


class _People:
    """What is known of a project's subjects and sessions, once for a table."""

    def __init__(self, builder: Builder, project: str, sessions: Sequence[str]) -> None:
        self.builder, self.project, self.chosen_few = builder, project, bool(sessions)
        service = builder.services.listing_service
        self._details = service.details
        self.snapshot: ProjectSnapshot = service.projects.get(project)
        self.subjects: DetailListing = self._details.subjects(project)
        self.experiments = sorted(
            chosen_sessions(builder.summaries.get(project), sessions)
            if sessions
            else self.snapshot.experiments.values(),
            key=table_order,
        )
        self._sessions: DetailListing | None = None

    @property
    def sessions(self) -> DetailListing:
        """Asked for only where a column needs it."""
        if self._sessions is None:
            self._sessions = self._details.sessions(self.project)
        return self._sessions

    def age(self, experiment: ExperimentRecord) -> Age:
        """The age at a session."""
        return self._details.age(self.project, experiment, self.subjects)

    @staticmethod
    def shown(every: Iterable[_Known], listing: DetailListing, objects: Collection[str]) -> list[_Known]:
        """The columns that the server tells, and that are shown."""
        return [
            known
            for known in every
            if known.key in listing.columns
            and (not known.sparse or any(listing.value(one, known.key) for one in objects))
        ]


def custom_columns(listing: DetailListing) -> dict[str, str]:
    """The custom variables' names -> what their columns are called: another name where that one is taken."""
    return {
        name: f"custom_{name}" if name in _TAKEN or not name.strip() else name
        for name in listing.custom_names()
    }


def _custom(listing: DetailListing, identity: str, names: Iterable[str]) -> list[str]:
    found = listing.of.get(identity)
    return [found.custom.get(name, "") if found is not None else "" for name in names]


def subjects(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    """The subjects of a project, or of some of its sessions."""
    people = _People(builder, project, sessions)
    listing = people.subjects
    theirs: dict[str, list[ExperimentRecord]] = {}
    for experiment in people.experiments:
        theirs.setdefault(experiment.subject_id, []).append(experiment)
    chosen = [one for one in people.snapshot.subjects.values() if one.id in theirs or not people.chosen_few]
    known = people.shown(_SUBJECTS, listing, [one.id for one in chosen])
    custom = custom_columns(listing)
    demographics = [_AGES] if builder.services.listing_service.details.privacy.demographics else []
    columns = (
        *_BEFORE,
        *(one.column for one in known),
        _COUNT,
        *demographics,
        *(_PRIMARY, _SHARED, _INSERTED),
        *(Column(name) for name in custom.values()),
    )
    rows: list[Row] = []
    for subject in sorted(chosen, key=lambda one: (one.label, one.id)):
        experiments = sorted(theirs.get(subject.id, []), key=lambda one: (one.date, one.label, one.id))
        ages = [people.age(one).years for one in experiments] if demographics else []
        primary = listing.value(subject.id, "project")
        rows.append(
            (
                subject.label,
                subject.id,
                *(listing.value(subject.id, one.key) for one in known),
                str(len(experiments)),
                *(["; ".join(filter(None, ages))] if demographics else []),
                primary,
                "" if not primary else "true" if primary != project else "false",
                listing.value(subject.id, "insert_date"),
                *_custom(listing, subject.id, custom),
            )
        )
    return Rows(columns, rows)


def sessions(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    """The experiments of a project with all that is known of them."""
    return _session_rows(builder, project, sessions, scans=True)


def visits(builder: Builder, project: str, sessions: Sequence[str], names: Collection[str]) -> Rows:
    """The same with at least these of its columns: what is below a session is looked at only if need be."""
    return _session_rows(
        builder, project, sessions, scans=any(column.name in names for column in (*_SCANS, _RESOURCES))
    )


def _session_rows(builder: Builder, project: str, chosen: Sequence[str], *, scans: bool) -> Rows:
    try:
        people = _People(builder, project, chosen)
        listing = people.sessions
    except Failure as failure:
        if failure.cause is not Cause.OFFLINE:
            raise
        # What was kept of tables alone: as a server's that lists no more, without the other columns.
        experiments = sorted(chosen_sessions(builder.summaries.get(project), chosen), key=table_order)
        return Rows((*_FIRST, *_THEN[:2]), [_first_cells(project, one) for one in experiments])
    below = _Below(people) if scans else None
    known = people.shown(_SESSIONS, listing, [one.id for one in people.experiments])
    custom = custom_columns(listing)
    demographics = builder.services.listing_service.details.privacy.demographics
    columns = (
        *_FIRST,
        *(_THEN if demographics else _THEN[:2]),
        *(one.column for one in known),
        *(below.columns if below is not None else ()),
        *(Column(name) for name in custom.values()),
    )
    rows: list[Row] = [
        (
            *_first_cells(project, experiment),
            *(people.age(experiment) if demographics else ()),
            *(listing.value(experiment.id, one.key) for one in known),
            *(below.cells(experiment) if below is not None else ()),
            *_custom(listing, experiment.id, custom),
        )
        for experiment in people.experiments
    ]
    return Rows(columns, rows)


def _first_cells(project: str, experiment: ExperimentRecord) -> Row:
    return (
        *(experiment.id, experiment.label, experiment.subject_label, project, experiment.xsi_type),
        *(experiment.date, experiment.subject_id, experiment.time),
    )


class _Below:
    """What is below the sessions: scans by usability, labels of resources.

    From the project's listings, which tell all of it at once. Of a few sessions that they do not tell
    (changed a moment ago) each is asked; on a server that tells of none, what would cost a request a session
    is left out.
    """

    def __init__(self, people: _People) -> None:
        self._people = people
        snapshot = people.snapshot
        unknown = [one for one in people.experiments if snapshot.session(one) is None]
        self._asking = len(unknown) <= _FEW
        told = all(one.id in snapshot.speaks_for for one in unknown if one.may_have_scans)
        scans = self._asking or told
        self.columns = (*(_SCANS if scans else ()), *((_RESOURCES,) if self._asking else ()))
        self._with_scans = scans
        if not self._asking:
            missing = "their resources" if scans else "their scans and resources"
            people.builder.services.listing_service.environment.diagnostics.odd(
                f"project {people.project}: its server lists its sessions without {missing}, which are left "
                f"out"
            )

    def cells(self, experiment: ExperimentRecord) -> tuple[str, ...]:
        """Of one session; blank where they cannot be listed."""
        snapshot = self._people.snapshot
        session = snapshot.session(experiment)
        if session is None and self._asking:
            session = self._asked(experiment)
            if session is None:
                return ("",) * len(self.columns)
        scans = session.scans if session is not None else snapshot.scans.get(experiment.id, [])
        found: list[str] = []
        if self._with_scans:
            found += [
                str(len(scans)),
                *(str(sum(one.quality == word for one in scans)) for word in _QUALITIES),
            ]
        if session is not None and self._asking:
            labels = {resource.label for resource in session.of("experiment")}
            found.append("; ".join(sorted(labels, key=natural)))
        return tuple(found)

    def _asked(self, experiment: ExperimentRecord) -> SessionSnapshot | None:
        builder, project = self._people.builder, self._people.project
        service = builder.services.listing_service
        try:
            return session_of(builder, project, experiment)
        except Failure as failure:
            confirm_unlistable(failure, service, project)
            sentence = f"session {experiment.id}: its scans cannot be listed or counted"
            service.environment.diagnostics.odd(sentence)
            return None


LISTED = {
    "subjects": Listed(
        subjects,
        "Every subject of the project with what the server knows of it: demographics, custom variables.",
        (*_BEFORE, *(one.column for one in _SUBJECTS if not one.sparse), *_AFTER),
        ("subject", "subject_ID"),
    ),
    "sessions": Listed(
        sessions,
        "Every experiment of the project with its ids (bx id), the age at it, scanner, scans and more.",
        (*_FIRST, *_THEN, *(one.column for one in _SESSIONS), *_SCANS, _RESOURCES),
    ),
}
