"""Validation reports as tables."""

from __future__ import annotations

import json

import pytest

from tests.unit.tables.support import matches, session
from xnatfs.tables.pipelines.validators import ARCHIVING, VALIDATED, ends_last
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import ParseError

REPORT = {
    "version": "12345678",
    "generated": "2021-03-04, 10:20",
    "experiment_id": "X_E1",
    "HasCorrectItems": {"has_passed": True, "data": []},
    "HasLogs": {"has_passed": False, "data": ["x\u2028y"]},
    "Snapshot": {"has_passed": None, "data": None},
}


@pytest.mark.parametrize(
    "key", [f"{pipeline}/tests" for pipeline in VALIDATED] + [f"archiving/{name}" for name in ARCHIVING]
)
def test_outcomes_are_true_false_or_empty(key: str) -> None:
    validator = VALIDATED[key.split("/")[0]][1][0] if key.endswith("/tests") else ARCHIVING[key.split("/")[1]]
    files = {
        f"{validator}_S01.pdf": "",
        f"Other{validator}.json": "",
        f"{validator}_S01.json": json.dumps(REPORT, ensure_ascii=False),
    }
    found = session(key, files)
    assert found.columns == ("HasCorrectItems", "HasLogs", "Snapshot", "version", "generated")
    assert found.rows == [("true", "false", "", "12345678", "2021-03-04, 10:20")]
    table = all_tables()[key]
    assert table.resources == ("BBRC_VALIDATOR",) and table.lead == ("ID",) and table.trail == ()
    assert all(column.text for column in table.columns)  # a version of digits is no number


def test_the_reports_of_pipelines_with_similar_names_are_told_apart() -> None:
    paths = [f"{name}_S01.json" for _, validators in VALIDATED.values() for name in validators]
    for pipeline, (_, validators) in VALIDATED.items():
        found = matches(all_tables()[f"{pipeline}/tests"].inputs[0], paths)
        assert found == [f"{validators[0]}_S01.json"]


def test_tests_first_seen_later_come_before_version_and_date() -> None:
    columns = ("ID", "A", "version", "generated", "B", "label", "date")
    rows = [("1", "a", "v", "g", "", "l", "d"), ("2", "", "v", "g", "b", "l", "d")]
    assert ends_last(columns, rows) == (
        ("ID", "A", "B", "version", "generated", "label", "date"),
        [("1", "a", "", "v", "g", "l", "d"), ("2", "", "b", "v", "g", "l", "d")],
    )
    assert ends_last(("ID", "version", "A"), [("1", "v", "a")])[0] == ("ID", "A", "version")
    assert ends_last((), []) == ((), [])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "empty"),
        ("<html>", "web page"),
        ("{", "not JSON, or is cut short"),
        (json.dumps(REPORT)[:-5], "cut short"),
        ("[]", "not a validation report"),
        ("{}", "no tests"),
        ('{"A": {"has_passed": "perhaps"}}', "'perhaps', not true, false or null"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_report_is_refused(content: str, sentence: str) -> None:
    with pytest.raises(ParseError, match=sentence):
        session("ashs/tests", {"ASHSValidator_S01.json": content})


# --- the MRI session of a PET session -----------------------------------------------------------------------

ANSWER = {"ID": "X_E2", "date": "2020-01-02", "project": "P2", "scan": 301}


@pytest.mark.parametrize(
    ("key", "validator"),
    [
        ("fdg/mri", "PetSessionValidator"),
        ("ftm/mri", "PetSessionValidator"),
        ("tau/mri", "TauPetSessionValidator"),
        ("centaur/mri", "TauPetSessionValidator"),
    ],
)
def test_the_mri_session_is_the_one_the_test_found(key: str, validator: str) -> None:
    table = all_tables()[key]
    assert table.lead == ("subject_label", "ID", "date", "project") and table.trail == ()

    def with_answer(passed: bool | None, *data: object) -> str:
        return json.dumps({"HasUsableT1": {"has_passed": passed, "data": list(data)}})

    path = f"{validator}_S01.json"
    found = session(key, {path: with_answer(True, ANSWER)})
    assert found.columns == ("MRI_ID", "MRI_date", "MRI_project", "MRI_scanID", "notes")
    assert found.rows == [("X_E2", "2020-01-02", "P2", "301", "")]
    assert session(key, {path: with_answer(True, {**ANSWER, "notes": "far"})}).rows[0][4] == "far"
    found = session(key, {path: with_answer(False, "none")})
    assert found.rows == [("",) * 5] and found.notes
    for content in (with_answer(True), with_answer(True, "X"), with_answer(True, {"ID": "X"}), "{}"):
        with pytest.raises(ParseError, match="HasUsableT1"):
            session(key, {path: content})
