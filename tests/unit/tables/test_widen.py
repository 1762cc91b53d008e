"""A long table with one row a session."""

from __future__ import annotations

import dataclasses
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tables.frames import frame
from xnatfs.tables.output.widen import widen
from xnatfs.tables.spec import Column, Rows, Table, Wide

TABLE = Table("freesurfer7", "aseg", ("FS",), (), wide=Wide(("region",), ("volume",)))


def table(keys: str = "", values: str = "", **changes: object) -> Table:
    return dataclasses.replace(TABLE, wide=Wide(tuple(keys.split()), tuple(values.split())), **changes)  # type: ignore[arg-type]


def found(long: Rows, table: Table) -> tuple[str, list[tuple[str, ...]]]:
    wide = widen(long, table)
    rows = list(wide.rows())
    assert list(wide.rows()) == rows
    assert all(len(row) == len(wide.columns) for row in rows)
    return " ".join(column.name for column in wide.columns), rows


def test_one_row_a_session_with_columns_in_the_order_first_seen() -> None:
    long = frame(
        "ID region volume subject label date",
        *[
            ("E1", "left", "1.50", "S1", "L1", "2020-01-01"),
            ("E1", "right", "2", "S1", "L1", "2020-01-01"),
            ("E2", "new", "3", "S1", "L2", ""),
            ("E2", "left", "4", "S1", "L2", ""),
        ],
    )
    assert found(long, TABLE) == (
        "ID left right new subject label date",
        [("E1", "1.50", "2", "", "S1", "L1", "2020-01-01"), ("E2", "4", "", "3", "S1", "L2", "")],
    )


def test_several_keys_and_values_are_joined() -> None:
    long = frame(
        "ID hemi region area thick subject",
        ("E1", "lh", "a", "1", "2", "S"),
        ("E1", "rh", "a", "3", "4", "S"),
    )
    assert found(long, table("hemi region", "area thick")) == (
        "ID lh_a_area lh_a_thick rh_a_area rh_a_thick subject",
        [("E1", "1", "2", "3", "4", "S")],
    )


def test_units_sources_and_text_are_those_of_the_value() -> None:
    long = Rows(
        (Column("ID"), Column("region"), Column("volume", "mm3", "aseg.stats", True), Column("subject")),
        [("E1", "a", "1", "S")],
    )
    assert widen(long, TABLE).columns == (
        Column("ID"),
        Column("a", "mm3", "aseg.stats", True),
        Column("subject"),
    )


def test_a_name_that_comes_twice_overwrites_nothing() -> None:
    long = frame(
        "ID region volume subject",
        ("E1", "a", "1", "S"),
        ("E1", "a", "1", "S"),
        ("E1", "a", "3", "S"),
        ("E2", "a", "4", "S"),
    )
    assert found(long, TABLE) == (
        "ID a a_2 a_3 subject",
        [("E1", "1", "1", "3", "S"), ("E2", "4", "", "", "S")],
    )


def test_names_that_collide_are_told_apart() -> None:
    long = frame(
        "ID k l v subject",
        ("E1", "a_b", "c", "1", "S"),
        ("E1", "a", "b_c", "2", "S"),
        ("E1", "subject", "", "3", "S"),
        ("E1", "", "", "4", "S"),
    )
    assert found(long, table("k l", "v")) == (
        "ID a_b_c a_b_c_2 subject_2 v subject",
        [("E1", "1", "2", "3", "4", "S")],
    )


def test_a_second_cell_and_a_name_that_ends_in_2_are_told_apart() -> None:
    long = frame(
        "ID region volume subject", ("E1", "a_2", "1", "S"), ("E1", "a", "2", "S"), ("E1", "a", "3", "S")
    )
    assert found(long, TABLE) == ("ID a_2 a a_2_2 subject", [("E1", "1", "2", "3", "S")])


def test_without_keys_a_row_stays_and_a_second_one_is_put_beside() -> None:
    long = frame("ID x y subject", ("E1", "1", "2", "S"), ("E2", "3", "4", "S"))
    assert found(long, table()) == ("ID x y subject", long.held)
    long.held.append(("E2", "5", "6", "S"))
    assert found(long, table()) == (
        "ID x y x_2 y_2 subject",
        [("E1", "1", "2", "", "", "S"), ("E2", "3", "4", "5", "6", "S")],
    )


def test_a_measurement_may_have_the_name_of_a_column_about_the_session() -> None:
    long = frame(
        "ID label volume subject date",
        ("E1", "4", "1", "S", "2020-01-01"),
        ("E1", "17", "2", "S", "2020-01-01"),
    )
    assert found(long, table("label", "volume")) == (
        "ID 4 17 subject date",
        [("E1", "1", "2", "S", "2020-01-01")],
    )


def test_other_leading_columns() -> None:
    long = frame(
        "subject_label ID region volume project label date",
        ("S", "E1", "a", "1", "P", "L", "D"),
        ("S", "E2", "a", "2", "P", "L", "D"),
    )
    other = table("region", "volume", lead=("subject_label", "ID"), trail=("project",))
    assert found(long, other) == (
        "subject_label ID a project label date",
        [("S", "E1", "1", "P", "L", "D"), ("S", "E2", "2", "P", "L", "D")],
    )


def test_a_table_without_rows() -> None:
    assert found(frame("ID region volume subject label date"), TABLE) == ("ID subject label date", [])


def test_what_cannot_widen_is_said() -> None:
    with pytest.raises(ValueError, match="freesurfer7/aseg has no wide form"):
        widen(frame("ID"), dataclasses.replace(TABLE, wide=None))
    with pytest.raises(ValueError, match="freesurfer7/aseg has no column 'region'"):
        widen(frame("ID volume subject"), TABLE)


KEYS = st.sampled_from(["a", "b", "a_b", "a_2", "", "subject", "b_2"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["E1", "E2", "E3"]), KEYS, KEYS, st.integers(0, 9).map(str)), max_size=12
    )
)
def test_no_cell_is_lost_and_no_name_is_there_twice(rows: list[tuple[str, str, str, str]]) -> None:
    rows.sort(key=lambda row: row[0])
    wide = widen(frame("ID k l v subject", *[(*row, "S") for row in rows]), table("k l", "v"))
    names = [column.name for column in wide.columns]
    assert len(set(names)) == len(names)
    expected = {name: sorted(row[3] for row in group) for name, group in groupby(rows, lambda row: row[0])}
    assert {row[0]: sorted(filter(None, row[1:-1])) for row in wide.rows()} == expected
