"""`xnatfs selftest` on servers that answer a form in some other way: it names the form, and what is done
instead.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from tests.dialects.forms import form_of
from tests.dialects.mutations import Row, answer_mutations, column_mutations, on_rows, row_mutations
from tests.dialects.world import Asked, Change, Reply, Wire, wired
from tests.server.selftests import MOST, below, by_form, facts, printed, selftested
from xnatfs.server import observed
from xnatfs.server.form_findings import BAD, NOTE, OK
from xnatfs.server.self_test import SelfTestReport


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "_PAUSE_S", 0.0)


# --- wrong answers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with wired("full") as made:
        yield made


def struck(form: str, change: Change) -> Change:
    """The change, applied to the replies of one form."""

    def changed(asked: Asked, reply: Reply) -> Reply:
        try:
            return change(asked, reply) if form_of(asked) == form else reply
        except LookupError:  # a form that only lists of sessions need
            return reply

    return changed


def report_of(wire: Wire, change: Change | None, project: str = "P") -> SelfTestReport:
    wire.clear()
    wire.change = change
    try:
        report = selftested(wire.server.url, project)
    finally:
        wire.change = None
    assert report.requests <= MOST and wire.logins == 1
    return report


def column(name: str, what: str) -> Change:
    """A mutation of one column, by its name in the matrix of dialects."""

    def change(asked: Asked, reply: Reply) -> Reply:
        rows = json.loads(reply.body)["ResultSet"]["Result"]
        for one in column_mutations(name, rows):
            if one.name == f"{name}: {what}":
                return one.change(asked, reply)
        return reply

    return change


def mutation(name: str) -> Change:
    return next(one.change for one in (*answer_mutations(), *row_mutations()) if one.name == name)


def half(rows: list[Row]) -> list[Row]:
    return rows[: len(rows) // 2]


def one_more_file(rows: list[Row]) -> list[Row]:
    return [{**row, "file_count": str(int(row["file_count"]) + 1)} for row in rows]


WRONG: list[tuple[str, Change, str, str, str]] = [
    # the form that is struck, how, the form that is named, its mark, and what is said of it
    ("scans", mutation("HTTP 500"), "scans of a project", NOTE, "HTTP 500"),
    ("scans", mutation("HTTP 503"), "scans of a project", BAD, "HTTP 503"),
    ("scans", mutation("nothing at all"), "scans of a project", NOTE, "an empty body"),
    ("scans", mutation("a web page"), "scans of a project", BAD, "a web page"),
    ("scans", mutation("half of the rows"), "scans of a project", NOTE, "it claims 6 rows and has 3"),
    ("scans", on_rows(half, total=True), "scans of a project", NOTE, "sessions"),
    ("scans", mutation("no rows, total 0"), "scans of a project", NOTE, "lacks 4 of 4 sessions"),
    (
        "scans",
        column("xnat:imagescandata/id", "the parent's id"),
        "scans of a project",
        NOTE,
        "the id of what",
    ),
    ("scans", column("xnat:imagescandata/id", "blank"), "scans of a project", NOTE, "is blank in all"),
    ("scans", column("xnat:imagescandata/type", "blank"), "scans of a project", NOTE, "another type"),
    (
        "scans",
        column("xnat:imagescandata/file/xnat_abstractresource_id", "dropped"),
        "scans of a project",
        NOTE,
        "tells no numbers",
    ),
    (
        "reconstructions",
        column("xnat:reconstructedimagedata/id", "the parent's id"),
        "reconstructions of a project",
        NOTE,
        "is the id of what it is below",
    ),
    ("assessors", mutation("no rows, total 0"), "assessors of a project", NOTE, "lacks 1 of 1 assessors"),
    ("assessors", column("label", "blank"), "assessors of a project", NOTE, "label is blank"),
    (
        "experiments with stamps",
        column("label", "the parent's id"),
        "experiments with stamps",
        NOTE,
        "names 5 of 5",
    ),
    ("experiments with stamps", on_rows(half, total=True), "experiments with stamps", NOTE, "lacks 3 of 5"),
    ("experiments with stamps", mutation("nothing at all"), "experiments with stamps", NOTE, "an empty body"),
    ("experiments", mutation("HTTP 404"), "experiments", NOTE, "HTTP 404"),
    ("resources of experiments", mutation("nothing at all"), "resources of experiments", NOTE, "empty body"),
    (
        "resources of experiments",
        mutation("no rows, total 0"),
        "resources of experiments",
        NOTE,
        "lacks 5 of 5",
    ),
    ("subjects with resources", column("label", "blank"), "subjects with resources", NOTE, "label is blank"),
    ("subjects with resources", mutation("HTTP 400"), "subjects with resources", NOTE, "HTTP 400"),
    ("projects with columns", mutation("HTTP 401"), "projects with columns", BAD, "HTTP 401"),
    ("projects with columns", mutation("no rows, total 0"), "projects with columns", BAD, "lacks 2 of 2"),
    ("labels", column("label", "blank"), "labels of experiments", NOTE, "names 5 of 5"),
    ("files of a session", column("digest", "blank"), "files of a session", NOTE, "leaves out the digests"),
    ("files of a session", column("Size", "blank"), "files of a session", NOTE, "leaves out the sizes"),
    ("resources of a session", mutation("no rows, total 0"), "resources of a session", NOTE, "lacks"),
    ("projects with columns", mutation("HTTP 500"), "projects with columns", NOTE, "HTTP 500"),
    ("scans of a session", mutation("no rows, total 0"), "scans of a session", NOTE, "lacks 3 of 3 scans"),
    (
        "resources of a session",
        on_rows(one_more_file),
        "counts of files",
        NOTE,
        "are not the number of files",
    ),
    ("files of a session", on_rows(half), "files of a session", NOTE, "lists fewer files"),
    ("files of a session", mutation("HTTP 500"), "files of a session", NOTE, "HTTP 500"),
    ("files of one resource", mutation("no rows"), "files of one resource", NOTE, "lacks"),
    ("files of sessions", mutation("HTTP 414"), "files of several sessions", NOTE, "HTTP 414"),
    ("item of a subject", mutation("HTTP 500"), "item of a subject", NOTE, "HTTP 500"),
    ("labels", mutation("no rows, total 0"), "labels of experiments", NOTE, "lacks 5 of 5 experiments"),
    ("some experiment", mutation("rows doubled"), "some experiment of a project", NOTE, "more than one"),
    ("ids of projects", mutation("nothing at all"), "ids of projects", NOTE, "an empty body"),
]


@pytest.mark.parametrize(
    ("struck_form", "change", "named", "level", "said"),
    WRONG,
    ids=[f"{number}-{one[0]}".replace(" ", "-") for number, one in enumerate(WRONG)],
)
def test_a_form_that_is_wrong_is_named(
    wire: Wire, struck_form: str, change: Change, named: str, level: str, said: str
) -> None:
    before = by_form(report_of(wire, None))
    report = report_of(wire, struck(struck_form, change))
    found = by_form(report)[named]
    assert (found.level, said in found.finding) == (level, True), found
    assert bool(found.instead) == (level == NOTE)
    assert report.good == (level != BAD)
    # No other form is to blame.
    blamed = {form for form, one in by_form(report).items() if one.level == BAD != before[form].level}
    assert blamed <= {named}


def test_what_takes_the_place_of_a_form_has_to_hold() -> None:
    """Where the forms about the project are refused, nothing is left if those about a session are wrong."""
    with wired("proven") as other:
        assert report_of(other, None).good
        for form, change, named in (
            ("resources of a session", mutation("no rows, total 0"), "resources of a session"),
            ("resources of a session", mutation("HTTP 500"), "resources of a session"),
            ("resources of one object", mutation("a web page"), "resources of one object"),
            ("experiments", mutation("HTTP 404"), "experiments"),
        ):
            report = report_of(other, struck(form, change))
            assert not report.good and named in below(report, BAD)


def test_rows_that_are_missing_without_a_sign_are_bad(wire: Wire) -> None:
    """A scan less of a session that has others, and the total is that of the rows."""

    def without_one(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["xnat:imagescandata/id"] != "2"]

    report = report_of(wire, struck("scans", on_rows(without_one, total=True)))
    assert not report.good and "scans of a project" in below(report, BAD)
    assert "lacks 1 of" in by_form(report)["scans of a project"].finding


@pytest.mark.parametrize(
    "change",
    [
        column("xnat:imagescandata/file/xnat_abstractresource_id", "with .0"),
        column("xnat:imagescandata/file/xnat_abstractresource_id", "as numbers"),
        mutation("rows in reverse"),
        mutation("rows doubled"),
    ],
)
def test_another_dress_of_the_same_changes_nothing(wire: Wire, change: Change) -> None:
    report = report_of(wire, struck("scans", change))
    assert report.good and by_form(report)["scans of a project"].level == OK


def test_a_passing_trouble_is_told_and_passes(wire: Wire) -> None:
    left = [1]

    def once(asked: Asked, reply: Reply) -> Reply:
        return mutation("HTTP 503")(asked, reply) if left and left.pop() else reply

    found = by_form(report_of(wire, struck("scans", once)))["scans of a project"]
    assert (found.level, found.finding) == (NOTE, "holds when asked again (HTTP 503)")


# --- what lies between --------------------------------------------------------------------------------------


def everywhere(change: Callable[[Reply], Reply]) -> Change:
    return lambda asked, reply: change(reply)


def test_compressed_answers_nobody_asked_for(wire: Wire) -> None:
    def zipped(reply: Reply) -> Reply:
        return reply.with_body(gzip.compress(reply.body), None, ("Content-Encoding", "gzip"))

    report = report_of(
        wire, lambda asked, reply: zipped(reply) if asked.path != "/xapi/siteConfig/buildInfo" else reply
    )
    assert facts(report)["encoding"][0] == NOTE
    assert below(report, BAD) == set()


def test_a_gateway_that_strips_cookies(wire: Wire) -> None:
    numbers = itertools.count()

    def strip(reply: Reply) -> Reply:
        cookie = ("Set-Cookie", f"JSESSIONID=SECRETPOOL{next(numbers)}; Path=/")
        return Reply(reply.status, (*reply.headers, cookie), reply.body)

    report = report_of(wire, everywhere(strip))
    level, words = facts(report)["session"]
    assert level == NOTE and "began a new session" in words
    assert report.good and "SECRET" not in printed(report)
