"""The tables of subjects, sessions and assessors: every cell is what a plain REST query gives, its type is
right, and they join with measurements as they are.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest
import requests

from tests.support import lab_archive, read, until
from tests.vfs.conftest import LIMITS, Compose, Shelf
from tests.vfs.test_details import FULL, PROJECTS, rest
from xnatfs import api
from xnatfs.config import Privacy
from xnatfs.core import Core
from xnatfs.demo.server import DemoServer
from xnatfs.errors import UsageError
from xnatfs.tables.engine import materialize

Rows = list[dict[str, str]]


def rows(core: Core, path: str) -> Rows:
    """A .csv in `tables/`, its cells as they were before what a spreadsheet may run was made harmless."""
    found = csv.DictReader(io.StringIO(read(core.vfs, f"/tables/{path}").decode()))
    return [{name: cell.removeprefix("'") for name, cell in row.items()} for row in found]


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("project", PROJECTS)
def test_every_cell_is_what_a_plain_query_gives(
    lab: DemoServer, compose: Compose, project: str, profile: str
) -> None:
    lab.switches.profile = profile
    core = compose(lab, privacy=FULL)
    subjects = {row["subject_ID"]: row for row in rows(core, f"{project}/subjects.csv")}
    asked = (
        "ID,label,project,insert_date,gender,yob,dob,age,handedness,group,education,height,weight,race,ses"
    )
    theirs = rest(lab, f"/data/projects/{project}/subjects", columns=asked)
    assert {row["ID"] for row in theirs} <= subjects.keys()
    for row in theirs:
        mine = subjects[row["ID"]]
        assert mine["subject"] == row["label"] and mine["primary_project"] == row["project"]
        assert mine["shared"] == ("false" if row["project"] == project else "true")
        assert (mine["sex"], mine["subject_age"]) == (row["gender"], row["age"])
        for name in ("insert_date", "yob", "dob", "handedness", "group", "education", "height", "weight"):
            assert mine[name] == row[name]
        assert mine.get("race", "") == row["race"] and mine.get("ses", "") == row["ses"]
    sessions = {row["ID"]: row for row in rows(core, f"{project}/sessions.csv")}
    path, own = f"/data/projects/{project}/experiments", "xnat:subjectAssessorData/age"
    theirs = rest(lab, path, columns=f"ID,label,subject_ID,subject_label,date,time,xsiType,visit_id,{own}")
    assert [row["ID"] for row in theirs if row["ID"] not in sessions] == []
    for row in theirs:
        mine = sessions[row["ID"]]
        for name in ("label", "subject_ID", "subject_label", "date", "time", "xsiType", "visit_id"):
            assert mine[name] == row[name]
        assert (mine["age"] == row[own.lower()]) if row[own.lower()] else mine["age_from"] != "session"
    path = f"/data/projects/{project}/experiments"
    scanner = "ID,scanner,operator,fieldStrength,xnat:imageSessionData/scanner/model"
    for row in rest(lab, path, columns=scanner, xsiType="xnat:imageSessionData"):
        mine = sessions[row["ID"]]
        assert [mine[name] for name in ("scanner", "operator", "field_strength", "model")] == [
            *(row[name] for name in ("scanner", "operator", "fieldStrength")),
            row["xnat:imagesessiondata/scanner/model"],
        ]
        scans = rest(lab, f"/data/experiments/{row['ID']}/scans")
        assert int(mine["scans"]) == len(scans)
        assert int(mine["scans_usable"]) == sum(scan["quality"] == "usable" for scan in scans)


def test_the_messy_lab_is_shown_as_it_is(lab: DemoServer, compose: Compose) -> None:
    """Nobody's word for "unknown" is made another, and what is no age is none."""
    core = compose(lab)
    found = {row["subject"]: row for row in rows(core, "MESSY/subjects.csv")}
    assert (found["m00"]["sex"], found["m00"]["subject_age"], found["m00"]["handedness"]) == ("U", ">89", "U")
    assert (found["m01"]["sex"], found["m01"]["yob"], found["m01"]["ages"]) == ("unknown", "1980", "42; 42")
    assert found["m05"]["sex"] == "" and found["m03"]["ages"] == ""  # born after the session
    assert found["Ana María"]["group"] == "señal & ruido"
    assert found["m04"]["ethnicity"] == "español\tdoble\nlínea"
    assert found["m02"]["person"] == found["m03"]["person"] == "00042"
    assert found["m04"]["visits"] == "3" and found["m04"]["consent"] == "true"
    # A custom variable called `age` is not the age.
    assert found["m02"]["custom_age"] == "unknown" and found["m04"]["custom_age"] == ""
    sessions = {row["label"]: row for row in rows(core, "MESSY/sessions.csv")}
    assert (sessions["m04_MR1"]["age"], sessions["m04_MR1"]["age_from"]) == ("-1", "session")
    assert sessions["m01_scans"]["age_from"] == "yob"


def test_the_subjects_join_with_measurements_as_they_are(lab: DemoServer, compose: Compose) -> None:
    """Neither names collide nor do rows get lost."""
    client = api.Client(compose(lab))
    subjects, aseg = client.subjects("ALFA"), client.table("ALFA", "freesurfer6/aseg", wide=True)
    joined = pandas.merge(subjects, aseg)
    assert len(joined) == len(aseg) and set(joined["sex"]) == {"male", "female"}
    assert not [name for name in joined.columns if name.endswith(("_x", "_y"))]
    sessions = client.sessions("ALFA")
    assert len(pandas.merge(sessions, aseg)) == len(aseg)
    assert len(pandas.merge(subjects, sessions)) == len(sessions)
    assert len(pandas.merge(client.table("ALFA", "assessors/fs_fsData"), aseg)) == 1  # one lacks FREESURFER6


def test_numbers_are_numbers_and_names_are_names(lab: DemoServer, compose: Compose) -> None:
    core = compose(lab)
    client = api.Client(core)
    frame = client.subjects("ALFA")
    assert {name: str(frame[name].dtype) for name in ("yob", "education", "sessions")} == {
        "yob": "int64",
        "education": "int64",
        "sessions": "int64",
    }
    assert pandas.api.types.is_float_dtype(client.sessions("ALFA")["age"])
    assert sorted(frame["screening id"])[0] == "001949"  # a name, and not a number
    assert client.subjects("MESSY")["height"].dropna().tolist() == [180.0]
    parquet = Path(core.settings.cache_dir) / "subjects.parquet"
    parquet.write_bytes(read(core.vfs, "/tables/ALFA/subjects.parquet"))
    schema = pyarrow.parquet.read_schema(parquet)
    assert str(schema.field("yob").type) == "int64" and str(schema.field("screening id").type) == "string"
    assert read(core.vfs, "/tables/ALFA/subjects.xlsx").startswith(b"PK")


def test_long_ids_stay_what_they_are(shelf: Shelf, compose: Compose) -> None:
    shelf.subject.custom = {"id": "12345678901234567890", "tiny": "1e-400"}
    frame = api.Client(compose(shelf.server)).subjects("P")
    assert frame["id"].tolist() == ["12345678901234567890"] and frame["tiny"].tolist() == ["1e-400"]


def test_assessors_have_their_own_fields(lab: DemoServer, compose: Compose) -> None:
    core = compose(lab)
    for name, kind in (("cnda_neuropsychData", "cnda:neuropsychData"), ("fs_fsData", "fs:fsData")):
        found = rows(core, f"ALFA/assessors/{name}.csv")
        assert found and {row["xsiType"] for row in found} == {kind}
        for row in found:
            answer = requests.get(
                f"{lab.url}/data/experiments/{row['assessor_ID'] or row['ID']}",
                params={"format": "json"},
                auth=("demo", "demo"),
                timeout=20,
            )
            fields = answer.json()["items"][0]["data_fields"]
            assert row["assessor_date"] == fields["date"] and row.get("mmse", "") == fields.get("mmse", "")
    lab.clear_log()
    core.builder.check_again()
    assert rows(core, "ALFA/assessors/fs_fsData.csv")
    assert lab.requests("GET /data/experiments/") == []


@pytest.mark.parametrize(
    ("privacy", "shown", "hidden"),
    [
        (Privacy(), {"yob", "sex", "ages"}, {"dob"}),
        (Privacy(birth_dates="full"), {"yob", "dob", "sex"}, set()),
        (Privacy(birth_dates="none"), {"sex", "subject_age"}, {"yob", "dob"}),
        (Privacy(demographics=False), {"subject", "insert_date"}, {"sex", "yob", "ages", "group", "apoe"}),
    ],
)
def test_what_is_shown_of_a_birth_is_what_was_chosen(
    lab: DemoServer, compose: Compose, privacy: Privacy, shown: set[str], hidden: set[str]
) -> None:
    core = compose(lab, privacy=privacy)
    (first, *_) = rows(core, "ALFA/subjects.csv")
    assert shown <= first.keys() and not hidden & first.keys()
    session = rows(core, "ALFA/sessions.csv")[0]
    assert ("age" in session) is privacy.demographics
    if privacy.birth_dates == "none":
        assert session["age"] == ""  # a computed one would tell the year


def test_the_age_is_as_precise_as_the_dates_are(shelf: Shelf, compose: Compose) -> None:
    shelf.subject.fields["dob"] = "1960-05-06"
    exact = rows(compose(shelf.server, "full", privacy=FULL), "P/sessions.csv")[0]
    assert (exact["age"], exact["age_from"]) == ("63.67", "dob")
    year = rows(compose(shelf.server, "year"), "P/sessions.csv")[0]
    assert (year["age"], year["age_from"]) == ("64", "yob")


# --- beside other tables ------------------------------------------------------------------------------------


def test_columns_to_add_stand_last_and_in_a_wide_table_first(lab: DemoServer, compose: Compose) -> None:
    client = api.Client(compose(lab))
    plain = client.table("ALFA", "freesurfer6/aseg")
    added = client.table("ALFA", "freesurfer6/aseg", with_columns=["age", "sex", "apoe"])
    assert list(added.columns) == [*plain.columns, "age", "sex", "apoe"]
    assert added[list(plain.columns)].equals(plain)
    wide = client.table("ALFA", "freesurfer6/aseg", wide=True, with_columns=["age", "sex"])
    assert list(wide.columns[:3]) == ["ID", "age", "sex"]
    ages = client.sessions("ALFA").set_index("ID")["age"]
    assert wide["age"].fillna(-1).tolist() == ages[wide["ID"]].fillna(-1).tolist()
    for name in ("sessions", "scandates", "scans"):
        table = client.table("ALFA", name, with_columns=["sex", "age"])
        assert "sex" in table.columns and list(table.columns).count("age") == 1
    with pytest.raises(UsageError, match="no column 'aeg' to add; did you mean"):
        client.table("ALFA", "scans", with_columns=["aeg"])
    with pytest.raises(UsageError, match="has no sessions"):
        client.table("ALFA", "subjects", with_columns=["age"])


def test_the_columns_that_tables_toml_names_follow_the_server(
    lab: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the files of a mount too, and a change of a subject alone is seen."""
    config = Path(os.environ["HOME"]) / "config"
    config.mkdir()
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(config))
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    (config / "tables.toml").write_text('with = ["sex"]\n[tables.freesurfer7]\nwith = []\n')
    with DemoServer(lab_archive()) as server:
        core = compose(server, limits=dataclasses.replace(LIMITS, ttl=0.0))
        wide = "ALFA/freesurfer6/aseg_wide.csv"
        assert list(rows(core, wide)[0])[:2] == ["ID", "sex"]
        assert rows(core, wide)[0]["sex"] == "male"
        assert "sex" in rows(core, "ALFA/freesurfer6/aseg.csv")[0]
        assert "sex" not in rows(core, "ALFA/freesurfer7/aseg.csv")[0]
        subject = next(one for one in server.archive.subjects.values() if one.label == "007")

        def corrected() -> None:
            subject.gender = "other"
            server.archive.edit(subject=subject)

        server.call(corrected)
        core.refresh()
        assert until(lambda: rows(core, wide)[0]["sex"] == "other")


def test_no_file_of_another_choice_is_served(shelf: Shelf, compose: Compose) -> None:
    """Tables are kept on the disk: those with a date of birth are not shown where only its year is."""
    shelf.subject.fields["dob"] = "1960-05-06"
    first = compose(shelf.server, privacy=FULL)
    assert rows(first, "P/subjects.csv")[0]["dob"] == "1960-05-06"
    first.close()
    assert "dob" not in rows(compose(shelf.server), "P/subjects.csv")[0]
    assert "yob" not in rows(compose(shelf.server, privacy=Privacy(False)), "P/subjects.csv")[0]


# --- attributes ---------------------------------------------------------------------------------------------


def attributes(core: Core, path: str) -> dict[str, str]:
    """The extended attributes of a folder, without their prefix."""
    return {
        name.removeprefix("user.xnat."): core.vfs.xattr(path, name).decode() for name in core.vfs.xattrs(path)
    }


def test_subjects_and_sessions_have_what_is_known_as_attributes(lab: DemoServer, compose: Compose) -> None:
    """From memory: the first look asks in the background, and costs two requests a project."""
    core = compose(lab)
    subject = "/projects/ALFA/subjects/007"
    core.vfs.entries("/projects/ALFA/subjects")
    lab.clear_log()
    found = until(lambda: (known := attributes(core, subject)).get("sex") and known)
    assert {
        name: found[name] for name in ("sex", "yob", "handedness", "group", "subject", "custom.apoe")
    } == {
        "sex": "male",
        "yob": "1953",
        "handedness": "right",
        "group": "patient",
        "subject": "007",
        "custom.apoe": "e3/e4",
    }
    assert "dob" not in found
    session = until(lambda: (known := attributes(core, f"{subject}/007_MR1")).get("age") and known)
    assert (session["age"], session["scanner"], session["field_strength"]) == ("68", "SIM3T", "3.0")
    assert len([one for one in lab.requests("GET /data") if "columns" in one.target]) == 2


def test_attributes_follow_the_server(shelf: Shelf, compose: Compose) -> None:
    """What was true of an earlier state is not shown of a newer one; what did not change stays."""
    shelf.subject.gender = "male"
    shelf.make.subject(shelf.project, "other", gender="female")
    core = compose(shelf.server)
    there, other = "/projects/P/subjects/s", "/projects/P/subjects/other"
    core.vfs.entries("/projects/P/subjects")
    assert until(lambda: attributes(core, there).get("sex")) == "male"

    def corrected() -> None:
        shelf.subject.gender = "female"
        shelf.archive.edit(subject=shelf.subject)

    shelf.server.call(corrected)
    shelf.server.clear_log()
    core.listing_service.clock.advance(LIMITS.ttl + 1)
    core.listing_service.projects.get("P")
    assert attributes(core, there).get("sex") in (None, "female")
    assert attributes(core, other)["sex"] == "female"
    assert until(lambda: attributes(core, there).get("sex")) == "female"
    # Not at each change: somebody may be looking all the time.
    shelf.server.call(corrected)
    core.listing_service.projects.snapshots.expire("P")
    core.listing_service.projects.get("P")
    shelf.server.clear_log()
    assert "sex" not in attributes(core, there) and attributes(core, other)["sex"] == "female"
    assert not shelf.server.requests("gender")


def test_attributes_say_nothing_where_nothing_is_to_be_shown(lab: DemoServer, compose: Compose) -> None:
    core = compose(lab, privacy=Privacy(demographics=False))
    core.listing_service.details.subjects("ALFA")
    core.listing_service.details.sessions("ALFA")
    assert not {"sex", "yob", "custom.apoe"} & attributes(core, "/projects/ALFA/subjects/007").keys()
    assert "age" not in attributes(core, "/projects/ALFA/subjects/007/007_MR1")


def test_attributes_are_ones_that_the_kernel_takes(shelf: Shelf, compose: Compose) -> None:
    """A name with a NUL would be two; with more than 64 KiB of them the folder could not be copied."""
    shelf.subject.custom = {"a\0b": "1", "long" * 100: "2", "good é": "3", "huge": "4" * 70_000}
    core = compose(shelf.server)
    core.vfs.entries("/projects/P/subjects")
    found = until(
        lambda: (known := attributes(core, "/projects/P/subjects/s")).get("custom.good é") and known
    )
    assert [name for name in found if name.startswith("custom.")] == ["custom.good é"]


def test_a_server_that_tells_no_resources_costs_no_request_a_session(
    thousand: Shelf, compose: Compose
) -> None:
    """The column is left out, and that is said once."""
    thousand.server.switches.profile = "proven"
    core = compose(thousand.server)
    core.listing_service.projects.get("P")
    read(core.vfs, "/tables/P/subjects.csv")
    thousand.server.clear_log()
    found = rows(core, "P/sessions.csv")
    assert len(found) == 1000 and found[-1]["scans"] == "0" and "resources" not in found[0]
    assert len(thousand.server.requests("GET /data")) <= 2
    (said,) = [one for one in core.diagnostics.oddities() if "their resources" in one]
    assert said.endswith("without their resources, which are left out")
