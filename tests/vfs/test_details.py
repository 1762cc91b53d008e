"""What is known of subjects and sessions: every value is what a plain REST query gives, in few requests, and
a server that fails on a column loses that column alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sqlite3
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.config import Privacy
from xnatfs.core import Core
from xnatfs.demo import fields, listings, roots
from xnatfs.demo.columns import Column, Root
from xnatfs.demo.server import DemoServer

FULL = Privacy(birth_dates="full")
COLUMNS = ("gender", "yob", "dob", "age", "handedness", "group", "education", "race", "height", "weight")
# by project; MESSY has a session that is shared without its subject, DWI shared ones of both kinds
PROJECTS = ("ALFA", "MESSY", "DWI")


def rest(server: DemoServer, path: str, **params: str) -> list[dict[str, str]]:
    """What anybody gets who asks."""
    answer = requests.get(
        server.url + path, params={"format": "json", **params}, auth=("demo", "demo"), timeout=20
    )
    rows: list[dict[str, str]] = answer.json()["ResultSet"]["Result"]
    return rows


@pytest.mark.parametrize("profile", ["full", "1.8.8", "proven"])
@pytest.mark.parametrize("project", PROJECTS)
def test_every_value_is_what_the_server_says(
    lab: DemoServer, compose: Compose, project: str, profile: str
) -> None:
    lab.switches.profile = profile
    details = compose(lab, privacy=FULL).listing_service.details
    found = details.subjects(project)
    for row in rest(lab, f"/data/projects/{project}/subjects", columns=",".join(("ID", *COLUMNS))):
        assert [found.value(row["ID"], name) for name in COLUMNS] == [row[name] for name in COLUMNS]
    assert set(COLUMNS) <= set(found.columns)
    sessions = details.sessions(project)
    kind = {"xsiType": "xnat:imageSessionData"}
    path = f"/data/projects/{project}/experiments"
    for row in rest(lab, path, columns="ID,scanner,operator,fieldStrength", **kind):
        assert [sessions.value(row["ID"], name) for name in ("scanner", "operator", "fieldStrength")] == [
            row["scanner"],
            row["operator"],
            row["fieldStrength"],
        ]
    for row in rest(lab, path, columns="ID,xnat:subjectAssessorData/age,visit_id"):
        assert sessions.value(row["ID"], "age") == row["xnat:subjectassessordata/age"]
        assert sessions.value(row["ID"], "visit_id") == row["visit_id"]


def test_custom_variables_go_to_whom_they_belong(lab: DemoServer, compose: Compose) -> None:
    """The form that names one variable answers with any (xnat-rest.md 14)."""
    found = compose(lab).listing_service.details.subjects("ALFA")
    pair = [f"xnat:subjectData/fields/field/{name}" for name in ("name", "field")]
    expected: dict[str, dict[str, str]] = {}
    for row in rest(lab, "/data/projects/ALFA/subjects", columns=",".join(("ID", *pair))):
        expected.setdefault(row["ID"], {})[row[pair[0].lower()]] = row[pair[1].lower()]
    assert {one: dict(details.custom) for one, details in found.of.items()} == expected
    assert found.custom_names() == ["apoe", "screening id"]


def test_custom_fields_are_there_by_the_names_of_their_forms(lab: DemoServer, compose: Compose) -> None:
    found = compose(lab).listing_service.details.subjects("MESSY")
    labels = {row["label"]: row["ID"] for row in rest(lab, "/data/projects/MESSY/subjects")}
    assert found.of[labels["m04"]].custom == {
        "apoe": "e3/e4",
        "visits": "3",
        "consent": "true",
        "notes": '["a", "b"]',
    }
    assert found.of[labels["m03"]].custom == {"person": "00042", "Blood Type": "A+", "age": "unknown"}


# --- requests -----------------------------------------------------------------------------------------------


def both(core: Core) -> None:
    """Look at the details of both kinds."""
    core.listing_service.details.subjects("P")
    core.listing_service.details.sessions("P")


def asked(server: DemoServer, work: Callable[[], object]) -> list[str]:
    """The requests of some work."""
    server.clear_log()
    work()
    return [record.target for record in server.requests(r"GET /(data|xapi/custom)")]


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_a_thousand_subjects_cost_two_requests_beyond_the_listings(
    thousand: Shelf, compose: Compose, profile: str
) -> None:
    """And none until a stamp moves, in another mount either."""
    server = thousand.server
    server.switches.profile = profile
    core = compose(server)
    core.listing_service.projects.get("P")
    spent = asked(server, lambda: both(core))
    # A server that does not list the column of the forms' fields is asked, once, whether it has any.
    assert len([one for one in spent if "custom-fields" not in one]) == 2
    assert len(spent) == (2 if profile == "full" else 3)
    assert asked(server, lambda: both(core)) == []
    core.close()
    again = compose(server)
    again.listing_service.projects.get("P")
    assert asked(server, lambda: both(again)) == []


def test_a_stamp_that_moves_costs_one_request_a_kind(shelf: Shelf, compose: Compose) -> None:
    """What changed is shown then."""
    person(shelf)
    core = compose(shelf.server, limits=dataclasses.replace(LIMITS, ttl=0.0))
    details = core.listing_service.details
    assert details.subjects("P").value(shelf.subject.id, "gender") == "female"
    both(core)

    def renamed() -> None:
        shelf.subject.gender = "male"
        shelf.archive.edit(subject=shelf.subject)

    shelf.server.call(renamed)
    spent = asked(shelf.server, lambda: both(core))
    assert [one for one in spent if "gender" in one or "scanner" in one] == [
        one for one in spent if "gender" in one
    ]
    assert len([one for one in spent if "gender" in one]) == 1
    assert details.subjects("P").value(shelf.subject.id, "gender") == "male"


# --- servers that do not take a column ----------------------------------------------------------------------


def person(shelf: Shelf) -> None:
    """Something to be known."""
    shelf.subject.gender, shelf.subject.yob = "female", "1960"
    shelf.subject.fields |= {"handedness": "left", "dob": "1960-05-06"}
    shelf.subject.custom |= {"apoe": "e3/e3"}
    shelf.session.fields |= {"scanner": "3T", "age": "63.5"}
    shelf.make.subject(shelf.project, "unknown")


def oddities(core: Core) -> list[str]:
    """What was said of the server, of its details."""
    return [one for one in core.diagnostics.oddities() if "left out" in one or "left" in one]


def test_a_column_that_fails_the_form_is_left_out_alone(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(shelf)
    monkeypatch.setattr(fields, "DEMOGRAPHICS", tuple(one for one in fields.DEMOGRAPHICS if one != "race"))
    core = compose(shelf.server)
    found = core.listing_service.details.subjects("P")
    assert "race" not in found.columns and {"gender", "handedness", "height"} <= set(found.columns)
    assert found.value(shelf.subject.id, "handedness") == "left"
    assert found.of[shelf.subject.id].custom == {"apoe": "e3/e3"}
    assert oddities(core) == ["project P: its server lists its subjects without race, which is left out"]
    # The next look does not ask for it again.
    shelf.server.call(lambda: shelf.archive.touch(subject=shelf.subject))
    core.refresh()
    spent = asked(shelf.server, lambda: core.listing_service.details.subjects("P"))
    assert len([one for one in spent if "gender" in one]) == 1
    assert len(oddities(core)) == 1


def test_a_column_that_costs_rows_is_left_out(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a column of something that a subject need not have, joined the wrong way."""
    person(shelf)
    rows_of = listings.rows_of

    def narrowing(root: Root, objects: Any, columns: list[Column], filters: Any) -> list[dict[str, str]]:
        rows = rows_of(root, objects, columns, filters)
        return [row for row in rows if row.get("handedness", "x")]

    monkeypatch.setattr(listings, "rows_of", narrowing)
    core = compose(shelf.server)
    found = core.listing_service.details.subjects("P")
    assert len(found.of) == 2 and "handedness" not in found.columns
    assert found.value(shelf.subject.id, "gender") == "female"
    assert oddities(core) == [
        "project P: its server lists its subjects without handedness, which is left out"
    ]


def test_a_column_that_is_dropped_is_not_taken_for_empty(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(shelf)
    aliases = {one: path for one, path in roots.SUBJECT_ALIASES.items() if one != "yob"}
    monkeypatch.setattr(roots, "SUBJECT_ALIASES", aliases)
    core = compose(shelf.server, privacy=FULL)
    found = core.listing_service.details.subjects("P")
    assert "yob" not in found.columns and found.value(shelf.subject.id, "dob") == "1960-05-06"
    assert oddities(core) == ["project P: its server lists its subjects without yob, which is left out"]


def test_columns_that_are_blank_throughout_are_not_believed(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(shelf)
    monkeypatch.setattr(fields, "demographic", lambda subject, name: "")
    core = compose(shelf.server)
    found = core.listing_service.details.subjects("P")
    shelf.server.call(lambda: shelf.archive.touch(subject=shelf.subject))
    core.refresh()
    found = core.listing_service.details.subjects("P")
    assert "gender" not in found.columns
    assert any("blank where it lists its subjects" in one for one in core.diagnostics.oddities())


def test_image_columns_that_narrow_the_rows_are_asked_of_image_sessions(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may take the most derived type for the root although another is named."""
    person(shelf)
    shelf.make.experiment(shelf.subject, "NP", "xnat:subjectVariablesData", fields={"age": "64"})
    rows_of = listings.rows_of

    def narrowing(root: Root, objects: Any, columns: list[Column], filters: Any) -> list[dict[str, str]]:
        images = any(column.key == "scanner" for column in columns)
        return rows_of(root, [one for one in objects if not images or one.experiment.scans], columns, filters)

    monkeypatch.setattr(listings, "rows_of", narrowing)
    shelf.make.scan(shelf.session, "1", "T1")
    core = compose(shelf.server)
    found = core.listing_service.details.sessions("P")
    assert {details.values.get("age") for details in found.of.values()} == {"63.5", "64.0"}
    assert found.value(shelf.session.id, "scanner") == "3T" and len(found.of) == 2
    assert oddities(core) == []


def test_where_nothing_tells_who_has_custom_fields_it_is_said(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that changed last has none: another may, and a request for each would be too many."""
    person(shelf)
    (other,) = (one for one in shelf.archive.subjects.values() if one is not shelf.subject)
    monkeypatch.delitem(fields.OF_SUBJECT, "custom_fields")
    core = compose(shelf.server)
    found = core.listing_service.details.subjects("P")
    assert found.of[shelf.subject.id].custom == {"apoe": "e3/e3"}
    said = [one for one in core.diagnostics.oddities() if "custom fields" in one]
    assert len(said) == 1 and "1 of 2 asked" in said[0]
    # Once the newest has some, everybody is asked.
    shelf.subject.custom_fields, other.custom_fields = {"diet": "vegan"}, {"diet": "none"}
    shelf.server.call(lambda: shelf.archive.touch(subject=other))
    core.refresh()
    found = core.listing_service.details.subjects("P")
    assert found.of[shelf.subject.id].custom == {"apoe": "e3/e3", "diet": "vegan"}


def test_two_values_of_one_thing_are_both_shown(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(shelf)
    rows_of = listings.rows_of

    def twice(root: Root, objects: Any, columns: list[Column], filters: Any) -> list[dict[str, str]]:
        rows = rows_of(root, objects, columns, filters)
        return rows + [{**row, "gender": "male"} for row in rows if row.get("gender")]

    monkeypatch.setattr(listings, "rows_of", twice)
    core = compose(shelf.server)
    found = core.listing_service.details.subjects("P")
    assert found.value(shelf.subject.id, "gender") == "female; male"
    assert any("2 values of gender" in one for one in core.diagnostics.oddities())


# --- what is not shown is not kept --------------------------------------------------------------------------


def on_disk(core: Core) -> str:
    """All that is stored of listings."""
    core.listing_service.environment.stored.flush()
    (path,) = core.settings.cache_dir.rglob("listings.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as database:
        return "\n".join(
            zlib.decompress(body).decode() for (body,) in database.execute("SELECT body FROM listings")
        )


@pytest.mark.parametrize(
    ("privacy", "kept", "left_out"),
    [
        (Privacy(), ["1960", "63.5", "left"], ["1960-05-06"]),
        (Privacy(birth_dates="full"), ["1960-05-06"], []),
        (Privacy(birth_dates="none"), ["female", "63.5"], ["1960"]),
        (Privacy(demographics=False), ["3T"], ["1960", "63.5", "female", "e3/e3"]),
    ],
)
def test_what_is_not_shown_is_not_kept(
    shelf: Shelf, compose: Compose, privacy: Privacy, kept: list[str], left_out: list[str]
) -> None:
    person(shelf)
    core = compose(shelf.server, privacy=privacy)
    core.listing_service.projects.get("P")
    both(core)
    text = on_disk(core)

    def stored(one: str) -> bool:
        return re.search(rf"(?<!\d){re.escape(one)}(?!\d)", text) is not None  # not within a time in seconds

    assert [one for one in kept if not stored(one)] == []
    assert [one for one in left_out if stored(one)] == []
    if not privacy.demographics:
        assert not shelf.server.requests("gender|subjectAssessorData%2Fage|custom|fields%2Ffield")


def test_another_choice_does_not_show_what_an_earlier_mount_kept(shelf: Shelf, compose: Compose) -> None:
    person(shelf)
    first = compose(shelf.server, privacy=FULL)
    both(first)
    first.close()
    details = compose(shelf.server).listing_service.details
    found = details.subjects("P")
    assert "dob" not in found.columns and "dob" not in found.of[shelf.subject.id].values
    assert found.value(shelf.subject.id, "yob") == "1960"
