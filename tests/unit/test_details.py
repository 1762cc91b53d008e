"""Small rules of what is known of people: ages, years, words, the fields of forms and items. No network."""

from __future__ import annotations

import json

import pytest

from xnatfs.bids.participants import age, handedness, sex
from xnatfs.errors import UsageError
from xnatfs.listing.ages import age_at
from xnatfs.server.detail_requests import flat_fields, read_fields
from xnatfs.tables.engine.overrides import Site, parse
from xnatfs.tables.registry import all_tables


@pytest.mark.parametrize(
    ("own", "dob", "yob", "date", "expected"),
    [
        ("34.5", "1960-01-01", "1960", "2020-01-01", ("34.5", "session")),
        (">89", "", "", "", (">89", "session")),
        ("-1", "", "1960", "2020-01-01", ("-1", "session")),
        ("", "1960-05-06", "", "2024-01-08", ("63.67", "dob")),
        ("", "1960-05-06", "1961", "1960-05-06", ("0.00", "dob")),
        ("", "1980-00-00", "", "2022-02-02", ("42", "dob")),
        ("", "1980", "", "2022-02-02", ("42", "dob")),
        ("", "", "1960", "2024-01-08", ("64", "yob")),
        ("", "", "1960", "2024", ("64", "yob")),
        ("", "2023-01-01", "", "2022-01-01", ("", "")),
        ("", "", "2023", "2022-01-01", ("", "")),
        ("", "", "1960", "", ("", "")),
        ("", "unknown", "60", "2022-01-01", ("", "")),
        ("", "", "", "2022-01-01", ("", "")),
    ],
)
def test_an_age_is_what_is_known(own: str, dob: str, yob: str, date: str, expected: tuple[str, str]) -> None:
    assert age_at(own, dob, yob, date) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("34.5", "34.5"), ("0", "0"), ("88.9", "88.9"), ("89", "89+"), (">89", "89+"), ("90+", "89+")),
        *((">=89", "89+"), ("≥ 90", "89+"), ("-1", ""), ("", ""), ("unknown", ""), (">60", ""), ("60+", "")),
    ],
)
def test_an_age_in_bids_is_a_number_or_89_and_more(text: str, expected: str) -> None:
    assert age(text) == expected


def test_a_word_that_bids_does_not_have_is_none() -> None:
    assert [sex(one) for one in ("M", "Female", " other ", "U", "unknown", "", "mf")] == [
        *("male", "female", "other", "", "", "", "")
    ]
    assert [handedness(one) for one in ("R", "LEFT", "ambidextrous", "unknown")] == [
        *("right", "left", "ambidextrous", "")
    ]


def test_the_fields_of_a_form_lose_its_id_and_nothing_else() -> None:
    form, other = "5f0c4a0e-8f4f-4d5e-9a3c-0d2f1c6b7a89", "6f0c4a0e-8f4f-4d5e-9a3c-0d2f1c6b7a89"
    fields = {form: {"a": "x", "n": 3, "no": None}, other: {"a": "y"}, "plain": {"b": True}, "l": [1]}
    assert flat_fields(fields) == {
        "a": "x",
        "n": "3",
        "no": "",
        f"{other}.a": "y",
        "plain.b": "true",
        "l": "[1]",
    }
    assert flat_fields({}) == {}
    for wrong in ([], "text", None, 3):
        with pytest.raises(ValueError, match="no object"):
            flat_fields(wrong)


def test_an_item_gives_its_own_fields_alone() -> None:
    child = {"data_fields": {"rating": 4}, "children": [], "meta": {}}
    resource = {"data_fields": {"label": "R"}, "children": [], "meta": {}}
    variable = {"data_fields": {"name": "score", "field": "7"}, "children": [], "meta": {}}
    item = {
        "data_fields": {"ID": "E", "mmse": 29, "note": None},
        "children": [
            {"field": "rating", "items": [child]},
            {"field": "out/file", "items": [resource]},
            {"field": "resources/resource", "items": [resource]},
            {"field": "fields/field", "items": [variable]},
            {"field": "region", "items": [child, child]},
        ],
    }
    assert read_fields(json.dumps({"items": [item]}).encode()) == {
        "ID": "E",
        "mmse": "29",
        "note": "",
        "rating/rating": "4",
        "score": "7",
        "region1/rating": "4",
        "region2/rating": "4",
    }
    for wrong in (b"{}", b'{"items": []}', b"[]", b'{"items": [3]}'):
        with pytest.raises(ValueError, match=r"no item|to unpack"):
            read_fields(wrong)


def test_columns_to_add_are_named_for_every_table_or_for_one() -> None:
    tables = all_tables()
    aseg, volumes = tables["freesurfer7/aseg"], tables["ashs/volumes"]
    text = 'with = ["age"]\n[tables.ashs]\nwith = ["sex"]\n[tables."freesurfer7/aseg"]\nwith = []\n'
    site = parse(text, "tables.toml", tables)
    assert site.columns(aseg) == () and site.columns(volumes) == ("sex",)
    assert site.columns(tables["freesurfer6/aseg"]) == ("age",)
    mine = parse('with = ["group"]\n', "tables.toml", tables).over(site)
    assert mine.columns(tables["freesurfer6/aseg"]) == ("group",) and mine.columns(volumes) == ("sex",)
    assert Site().columns(aseg) == ()
    for wrong in ("with = 3\n", 'with = ["age", 3]\n', "[tables.ashs]\nwith = [3]\n"):
        with pytest.raises(UsageError, match="must be a text or a list of texts"):
            parse(wrong, "tables.toml", tables)
