"""A table as a .parquet: types, nulls, and the cells as they are."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet
import pytest
from hypothesis import given

from tests.unit.tables.frames import Made, column, frame, frames
from xnatfs.tables.output import parquet
from xnatfs.tables.output.types import encodable, scan
from xnatfs.tables.output.write import write
from xnatfs.tables.spec import Column, Rows


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parquet") / "table.parquet"


def read(path: Path) -> Any:
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read()


@given(frames())
def test_every_cell_is_found_with_its_value(path: Path, table: Rows) -> None:
    write(table, "parquet", path)
    found = read(path)
    assert found.num_rows == len(table.held)
    assert found.column_names == [column.name for column in table.columns]
    for place, kind in enumerate(table.columns):
        type_ = str(found.schema.field(place).type)
        assert type_ == "string" or not kind.text
        for row, value in zip(table.held, found.column(place).to_pylist(), strict=True):
            cell = row[place]
            if cell == "":
                assert value is None
            elif type_ == "string":
                assert value == encodable(cell)
            elif type_ == "int64":
                assert str(value) == cell
            else:
                assert type_ == "double"
                assert value == float(cell) or (math.isnan(value) and math.isnan(float(cell)))


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "", "-3"], "int64", [1, None, -3]),
        (["1", "2.50"], "double", [1.0, 2.5]),
        (["1", "+5"], "double", [1.0, 5.0]),
        (["-0"], "double", [-0.0]),
        (["1e5"], "double", [1e5]),
        (["1.5", "inf", "-inf"], "double", [1.5, math.inf, -math.inf]),
        (["nan", "nan"], "string", ["nan", "nan"]),
        (["007", "12"], "string", ["007", "12"]),
        (["1", "1_000"], "string", ["1", "1_000"]),
        (["1", "NA"], "string", ["1", "NA"]),
        (["9007199254740993", "1"], "int64", [9007199254740993, 1]),
        (["9007199254740993", "1.5"], "string", ["9007199254740993", "1.5"]),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["9223372036854775808"], "string", ["9223372036854775808"]),
        (["9" * 5000], "string", ["9" * 5000]),
        (["+" + "9" * 30], "string", ["+" + "9" * 30]),
        (["1e-400"], "string", ["1e-400"]),
        ([" 5", "\u0663"], "string", [" 5", "\u0663"]),
        (["2020-01-31"], "string", ["2020-01-31"]),
        (["true"], "string", ["true"]),
        (["", ""], "string", [None, None]),
        (
            ["=1", "\0", "a\r\nb", "\ud800", "\U0001f9e0"],
            "string",
            ["=1", "\0", "a\r\nb", "\\ud800", "\U0001f9e0"],
        ),
    ],
)
def test_types(path: Path, cells: list[str], kind: str, values: list[Any]) -> None:
    write(column(*cells), "parquet", path)
    found = read(path)
    assert str(found.schema.field("x").type) == kind
    assert found.column("x").to_pylist() == values
    if kind == "double":
        assert math.copysign(1, found.column("x")[0].as_py()) == math.copysign(1, values[0])


def test_text_columns_are_never_numbers(path: Path) -> None:
    write(column("7", text=True), "parquet", path)
    assert read(path).column("x").to_pylist() == ["7"]


def test_pandas_reads_it(path: Path) -> None:
    write(frame("ID x", ("E1", "1.5"), ("E2", ""), text="ID"), "parquet", path)
    found = pandas.read_parquet(path)
    assert found["ID"].tolist() == ["E1", "E2"]
    assert found["x"].dtype == "float64"
    assert found["x"].isna().tolist() == [False, True]
    assert found.index.tolist() == [0, 1]


def test_units_and_sources_are_in_the_metadata(path: Path) -> None:
    write(Rows((Column("ID"), Column("v", "mm3", "aseg.stats"))), "parquet", path, title="freesurfer7/aseg")
    schema = read(path).schema
    assert schema.metadata == {b"title": b"freesurfer7/aseg"}
    assert schema.field("ID").metadata is None
    assert {
        key: value for key, value in schema.field("v").metadata.items() if key != b"PARQUET:field_id"
    } == {
        b"unit": b"mm3",
        b"source": b"aseg.stats",
    }


def test_a_table_without_rows_has_its_columns(path: Path) -> None:
    write(frame("ID x"), "parquet", path)
    assert pandas.read_parquet(path).columns.tolist() == ["ID", "x"]


def test_three_thousand_columns(path: Path) -> None:
    write(Made(tuple(Column(f"c{number}") for number in range(3000)), 50), "parquet", path)
    found = read(path)
    assert (found.num_rows, found.num_columns) == (50, 3000)
    assert found.column("c2999")[49].as_py() == 49.2999


def test_row_groups_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_CELLS", 100_000)
    write(Made(tuple(map(Column, "abcde")), 50_000), "parquet", path)
    with pyarrow.parquet.ParquetFile(path) as file:
        assert file.metadata.num_row_groups == 3
        assert file.read().column("a").to_pylist() == [float(f"{number}.0") for number in range(50_000)]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    table = frame("ID x d", ("E1", "1.5", "2020-01-31"), ("E2", "=1", ""))
    first, second = tmp_path / "one.parquet", tmp_path / "two.tmp"
    write(table, "parquet", first, title="aseg")
    time.sleep(1.1)
    write(table, "parquet", second, title="aseg", scanned=scan(table))
    assert first.read_bytes() == second.read_bytes()
