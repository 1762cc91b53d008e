"""The listing forms that xnatfs relies on, what it does where a server refuses one, and what a self-test
found out about each.

Used by `project_checks` and `session_checks`, which ask and compare, and `self_test`, which reports. No
finding has a name of the site in it: words of these modules and numbers only.
Threading: one thread.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from xnatfs.errors import Cause, Failure
from xnatfs.server.listing_requests import STAMPS
from xnatfs.server.observed import (
    BROKEN_OFF,
    NO_ANSWER,
    TOO_LATE,
    Answer,
    ObservedConnection,
    OutOfRequestsError,
)

T = TypeVar("T")

OK, NOTE, BAD, NONE = "ok", "note", "bad", "none"
_ROWS = 100  # from so many on, the time for a thousand says something
_NOTHING = "nothing here to try it with"
_OVER_ALL = "the listing over all projects: one request more, and one for each session that is shared in"


class Form(NamedTuple):
    """A form, and what else there is.

    Attributes:
        instead: what xnatfs does where it is refused, and what that costs; "": nothing can be done.
        capabilities: names under which `listing_requests` remembers a refusal, where one has a cheaper
            substitute of its own with that.
        only_for: other forms, one of which it takes the place of; where all of these hold nothing depends on
            it.
    """

    instead: str = ""
    capabilities: Mapping[str, str] = {}
    only_for: tuple[str, ...] = ()


PROJECTS = "projects with columns"
PROJECT_IDS = "ids of projects"
EXPERIMENTS = "experiments"
STAMPED = "experiments with stamps"
LABELS = "labels of experiments"
SUBJECTS = "subjects with resources"
PEOPLE = "subjects"
SUBJECT_LABELS = "labels of subjects"
OF_EXPERIMENTS = "resources of experiments"
SCANS = "scans of a project"
ASSESSORS = "assessors of a project"
RECONSTRUCTIONS = "reconstructions of a project"
SOME = "some experiment of a project"
SCANS_OF_ONE = "scans of a session"
OF_SESSION = "resources of a session"
ASSESSORS_OF_ONE = "assessors of a session"
INPUTS = "inputs of a session"
OF_ONE = "resources of one object"
ITEM = "item of a subject"
FILES = "files of a session"
FILES_TOGETHER = "files of several sessions"
FILES_OF_RESOURCE = "files of one resource"
FILES_OF_PROJECT = "files of a project"
COUNTS = "counts of files"
BY_NAME = "experiments by name"

FORMS: Mapping[str, Form] = {
    PROJECTS: Form(
        "the plain list of projects and the one with dates: one request more for each look at the projects",
        {"columns of projects": ""},
    ),
    PROJECT_IDS: Form("none; a project that was removed is shown for longer"),
    STAMPED: Form(
        "the stamps of subjects: one request more for each look at a project, and a change lists all "
        "sessions of its subject again",
        {STAMPS: ""},
    ),
    EXPERIMENTS: Form(only_for=(STAMPED,)),
    LABELS: Form("none; where two listings differ the project is an error until they agree"),
    SUBJECTS: Form(
        "each subject is asked for its resources: one request more for each subject",
        {"subject resource labels": ""},
    ),
    PEOPLE: Form(only_for=(STAMPED,)),
    SUBJECT_LABELS: Form("none; where two listings differ the project is an error until they agree"),
    OF_EXPERIMENTS: Form(
        "each session is asked for its resources: one request more for each session, or for each subject "
        "where its item is whole",
        {"experiment resource labels": ""},
    ),
    SCANS: Form(
        "each session is asked for what it has: one request more for each session",
        {"scans of experiments": "", "scans of a project": _OVER_ALL},
    ),
    ASSESSORS: Form(
        "each session is asked for what it has: one request more for each session",
        {"assessor resource labels": "", "assessors of a project": _OVER_ALL},
    ),
    RECONSTRUCTIONS: Form(
        "each session is asked for its resources: one request more for each session",
        {"reconstructions of a project": ""},
    ),
    SOME: Form("none; an empty project is asked for again at each look"),
    SCANS_OF_ONE: Form(only_for=(SCANS,)),
    OF_SESSION: Form(only_for=(OF_EXPERIMENTS, SCANS, ASSESSORS, RECONSTRUCTIONS)),
    ASSESSORS_OF_ONE: Form(only_for=(ASSESSORS,)),
    INPUTS: Form(only_for=(ASSESSORS, RECONSTRUCTIONS)),
    OF_ONE: Form(only_for=(SUBJECTS, OF_EXPERIMENTS)),
    ITEM: Form("one request for each session instead of one for each subject", only_for=(OF_EXPERIMENTS,)),
    FILES_OF_RESOURCE: Form(only_for=(FILES,)),
    FILES: Form("each resource is listed: one request for each resource instead of one for each session"),
    FILES_TOGETHER: Form("one request for each session instead of one for up to eight"),
    FILES_OF_PROJECT: Form("each resource of the project is listed: one request more for each"),
    COUNTS: Form("each resource that counts more than is listed is listed singly: one request more for each"),
    BY_NAME: Form("lists of sessions go through all projects: one request more for each project"),
}


@dataclass
class Evidence:
    """What came out about a form.

    Attributes:
        asked, refused: objects it was asked about, and those it was refused for.
        compared: things that were compared with what another form says.
        tallies: by the kind of thing and whether xnatfs sees a difference by itself: how many are lacking,
            how many more there are, and how many there should be.
        words: other differences, with whether xnatfs sees them.
        left_out: why it was not asked.
    """

    asked: int = 0
    refused: int = 0
    compared: int = 0
    tallies: dict[tuple[str, bool], tuple[int, int, int]] = field(default_factory=dict)
    words: list[tuple[str, bool]] = field(default_factory=list)
    left_out: str = ""

    @property
    def differences(self) -> list[tuple[str, bool]]:
        """All in words, with whether xnatfs sees them."""
        found = []
        for (things, seen), (lacking, more, of) in self.tallies.items():
            words = [f"lacks {lacking} of {of} {things}"] * bool(lacking)
            words += [f"has {more} {things} that another form has not"] * bool(more)
            if words:
                found.append((" and ".join(words), seen))
        return list(dict.fromkeys([*found, *self.words]))


@dataclass(frozen=True)
class FormFinding:
    """A line of the report about a form.

    Attributes:
        level: `ok`, `note` (xnatfs goes round it), `bad` (something cannot be shown right) or `none` (not
            tried).
        instead: what xnatfs does instead, and what that costs.
        ms: the median time of a good answer.
        ms_per_1000_rows: None where too few rows came to say.
    """

    form: str
    level: str
    finding: str
    instead: str = ""
    requests: int = 0
    rows: int = 0
    compared: int = 0
    ms: float | None = None
    ms_per_1000_rows: float | None = None


class FormLog:
    """Gathers the evidence about all forms.

    Args:
        connection: what is asked through.
        refused: whether a form is remembered as refused, by its name in `capabilities`.
    """

    def __init__(self, connection: ObservedConnection, refused: Callable[[str], bool]) -> None:
        self._connection = connection
        self._refused = refused
        self._evidence: defaultdict[str, Evidence] = defaultdict(Evidence)

    def ask(self, form: str, work: Callable[[], T | None], *, may_be_closed: bool = False) -> T | None:
        """What `work` asks for, noted under this form; None if it is refused, or may not be asked any more.

        Args:
            may_be_closed: a 403 is about the object, and not about the form.

        Raises:
            Failure: the server is away.
        """
        evidence = self._evidence[form]
        with self._connection.asking(form):
            try:
                found = work()
            except OutOfRequestsError:
                evidence.left_out = "not asked: enough was asked already"
                return None
            except Failure as failure:
                if failure.away:
                    raise
                if not (may_be_closed and failure.cause is Cause.NOT_ALLOWED):
                    evidence.asked += 1
                    evidence.refused += 1
                return None
        evidence.asked += 1
        return found

    def leave_out(self, form: str, why: str) -> None:
        """It is not asked."""
        self._evidence[form].left_out = why

    def is_refused(self, form: str) -> bool:
        """Whether xnatfs has gone over to something else."""
        evidence = self._evidence[form]
        refused = any(map(self._refused, FORMS[form].capabilities))
        return refused or 0 < evidence.asked == evidence.refused

    def compare(
        self,
        form: str,
        things: str,
        said: Collection[object],
        true: Collection[object],
        *,
        seen: bool = False,
    ) -> None:
        """Note where a form differs from the truth.

        Args:
            things: what is compared, in the plural.
            seen: xnatfs sees it by itself and goes round it.
        """
        ours, theirs, evidence = set(said), set(true), self._evidence[form]
        evidence.compared += len(theirs)
        # Where nothing differs it is all the same whether it would be seen.
        key = things, seen or ours == theirs
        lacking, more, of = evidence.tallies.get(key, (0, 0, 0))
        evidence.tallies[key] = (
            lacking + len(theirs - ours),
            more + len(ours - theirs),
            of + len(theirs),
        )

    def differs(self, form: str, words: str, *, seen: bool) -> None:
        """Note that a form says something else than another one."""
        self._evidence[form].words.append((words, seen))

    def counted(self, form: str, things: int) -> None:
        """Note that so many things were compared, and agreed."""
        self._evidence[form].compared += things

    # --- what came out --------------------------------------------------------------------------------------

    def findings(self) -> list[FormFinding]:
        """One for each form, in the order of `FORMS`."""
        levels: dict[str, str] = {}
        found = {}
        for form in sorted(FORMS, key=lambda form: len(FORMS[form].only_for)):
            found[form] = self._finding(form, levels)
            levels[form] = found[form].level
        return [found[form] for form in FORMS]

    def _finding(self, form: str, levels: Mapping[str, str]) -> FormFinding:
        evidence, answers = self._evidence[form], self._connection.answers[form]
        level, words, instead = self._verdict(form, evidence, answers)
        others = FORMS[form].only_for
        unanswered = {one.trouble for one in answers} <= {BROKEN_OFF, NO_ANSWER, TOO_LATE}
        if answers and unanswered:
            level, instead = BAD, ""  # of a server that does not answer nothing is known
        elif level == BAD and others and all(levels[other] in (OK, NONE) for other in others):
            level, instead = NOTE, f"nothing, as long as {_listed(others)} hold{'s' * (len(others) == 1)}"
        good = [one for one in answers if not one.trouble]
        rows = sum(one.rows for one in good)
        return FormFinding(
            form,
            level,
            words,
            instead,
            requests=len(answers),
            rows=rows,
            compared=evidence.compared,
            ms=round(statistics.median(one.seconds for one in good) * 1000, 1) if good else None,
            ms_per_1000_rows=(
                round(sum(one.seconds for one in good) * 1e6 / rows, 1) if rows >= _ROWS else None
            ),
        )

    def _verdict(self, form: str, evidence: Evidence, answers: Sequence[Answer]) -> tuple[str, str, str]:
        """(level, finding, instead)."""
        instead = FORMS[form].instead
        troubles = list(dict.fromkeys(one.trouble for one in answers if one.trouble))
        refused = f"refused ({'; '.join(troubles[:3])})" if troubles else "its rows cannot be understood"
        found = evidence.differences
        differences = [words for words, _ in found]
        if not (evidence.asked or evidence.compared or differences):
            return NONE, evidence.left_out or _NOTHING, ""
        if not all(seen for _, seen in found):
            return BAD, "; ".join(differences), ""
        if evidence.asked and evidence.asked == evidence.refused:
            # A form with fallbacks of its own fails only where these fail, too.
            helped = instead and not FORMS[form].capabilities
            return (NOTE if helped else BAD), refused, instead if helped else ""
        for name, cheaper in FORMS[form].capabilities.items():
            if self._refused(name):
                left_out = [] if differences else ["the columns asked for are left out"]
                said = [*differences, *([refused] if troubles else left_out)]
                return NOTE, "; ".join(said), cheaper or instead
        if differences:
            return NOTE, "; ".join(differences), instead
        if evidence.refused:
            words = f"{refused} for {evidence.refused} of {evidence.asked} objects"
            return NOTE, words, "an error for these alone, as long as it lasts"
        if troubles and any(one.again and not one.trouble for one in answers):
            return NOTE, f"holds when asked again ({troubles[0]})", "it is asked again"
        if troubles:
            return NOTE, f"holds with fewer columns ({troubles[0]})", "what has no number is asked for singly"
        return OK, "holds", ""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
