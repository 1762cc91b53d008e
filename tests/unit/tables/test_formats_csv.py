"""A table as a .csv, and the cells that need a note."""

from __future__ import annotations

import io
from pathlib import Path

import pandas
import pytest
from hypothesis import given

from tests.unit.tables.frames import ODD_CELLS, csv_rows, frame, frames, texts
from xnatfs.tables.output.types import MAX_LISTED_CHANGES, distinct, plain_number
from xnatfs.tables.output.write import FORMATS, csv_cell, problems, risky, write
from xnatfs.tables.spec import Column, Row, Rows, is_number


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "table.csv"


def kept(cell: str) -> str:
    """What a reader finds for a cell."""
    cell = f"'{cell}" if risky(cell) else cell
    return cell.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


@given(frames())
def test_pythons_reader_finds_every_cell(path: Path, table: Rows) -> None:
    write(table, "csv", path)
    assert csv_rows(path) == texts(
        [[column.name for column in table.columns], *([kept(cell) for cell in row] for row in table.held)]
    )


@given(frames())
def test_pandas_finds_every_cell(path: Path, table: Rows) -> None:
    write(table, "csv", path)
    read = pandas.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    assert [[str(cell) for cell in row] for row in read.to_numpy().tolist()] == [
        [kept(cell) for cell in row] for row in table.held
    ]


@given(frames())
def test_no_cell_can_be_a_formula(path: Path, table: Rows) -> None:
    write(table, "csv", path)
    for row in csv_rows(path):
        for cell in row:
            start = cell.lstrip("\t\r\n\f\v \0\ufeff")[:1]
            assert (
                not start
                or start not in "=+-@"
                or is_number(cell)
                or cell.lower()[1:] in ("nan", "inf", "infinity")
            )


@given(frames())
def test_what_is_written_fast_is_what_is_written_cell_by_cell(path: Path, table: Rows) -> None:
    write(table, "csv", path)
    rows: list[Row] = [tuple(column.name for column in table.columns), *table.held]
    lines = [",".join(map(csv_cell, row)) for row in rows]
    slow = "".join((line if line.strip() else f'"{line}"') + "\n" for line in lines)
    assert path.read_bytes() == slow.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+a",
        "-a",
        "@x",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "-",
        "=",
        "-1.2.3",
        "-e",
        "+1_000",
        "--1",
        "=-1",
        "\uff1d1",
    ],
)
def test_text_that_starts_like_a_formula_gets_an_apostrophe(path: Path, cell: str) -> None:
    assert risky(cell)
    write(frame("a b", (cell, "1")), "csv", path)
    assert csv_rows(path)[1] == [f"'{cell}", "1"]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "a=b",
        "'=1",
        "-0",
        "+5",
        "-1e5",
        "-1.5",
        "-.5",
        "-inf",
        "+NaN",
        "-Infinity",
        "1_000",
        "007",
        "2020-01-01",
    ],
)
def test_numbers_and_harmless_text_stay_as_they_are(path: Path, cell: str) -> None:
    assert not risky(cell)
    write(frame("a b", (cell, "1")), "csv", path)
    assert path.read_text() == f"a,b\n{cell},1\n"


def test_the_bytes_are_utf8_with_plain_line_ends_and_no_mark(path: Path) -> None:
    write(frame("ID h\xe4 volume", ("E1", "\U0001f9e0", "12.3400"), ("E2", "a,b", "")), "csv", path)
    assert path.read_bytes() == 'ID,h\xe4,volume\nE1,\U0001f9e0,12.3400\nE2,"a,b",\n'.encode()


def test_a_row_of_one_empty_cell_is_a_row(path: Path) -> None:
    write(frame("a", ("",), ("x",)), "csv", path)
    assert path.read_text() == 'a\n""\nx\n'
    assert len(pandas.read_csv(path)) == 2


def test_a_name_like_a_formula_is_changed_and_said(path: Path) -> None:
    table = frame("=a b", ("1", "2"))
    write(table, "csv", path)
    assert path.read_text() == "'=a,b\n1,2\n"
    assert problems(table) == (
        "the column name '=a' could be taken for a formula; in the .csv an apostrophe precedes it",
    )


def test_each_changed_cell_is_said_once_with_its_column() -> None:
    table = frame("note x", ("=1\n", "5"), ("=1\n", "-5"), ("a\x07", "@x"), ("b" * 40_000, ""))
    said = problems(table)
    assert said == (
        "column 'note': '=1\\n' could be taken for a formula; in the .csv an apostrophe precedes it",
        "column 'note': 'a\\x07' has characters that not every format can store; there they are spelled "
        "out, as \\x07",
        f"column 'note': '{'b' * 80}...' is 40000 characters long; the .xlsx has the first 32,767 at most",
        "column 'x': '@x' could be taken for a formula; in the .csv an apostrophe precedes it",
    )
    assert not any(map(risky, said))


def test_the_list_of_changed_cells_ends() -> None:
    said = problems(Rows((Column("x"),), [(f"={number}",) for number in range(100_000)]))
    assert len(said) == MAX_LISTED_CHANGES + 1
    assert said[-1] == "more cells were changed than the 200 listed"


def test_ordinary_tables_have_no_notes() -> None:
    assert (
        problems(
            frame(
                "ID x date note",
                ("E1", "-1.5", "2020-01-01", "left (h\xe4) & more, 'so'"),
                ("E2", "nan", "", "a\nb"),
            )
        )
        == ()
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_table_without_columns_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="the table has no columns"):
        write(Rows(()), kind, tmp_path / "t")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_ragged_row_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        write(frame("a b", ("1", "2"), ("1",)), kind, tmp_path / "t")
    assert not [entry for entry in tmp_path.iterdir() if entry.name != "home"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="csv, xlsx, parquet, not as 'ods'"):
        write(frame("a"), "ods", tmp_path / "t")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(OSError):
        write(frame("a"), kind, tmp_path / "no" / "t")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("a b", "a b"),
        ("a a a", "a a_2 a_3"),
        ("a a a_2", "a a_3 a_2"),
        ("a_2 a a", "a_2 a a_3"),
        ("a A", "a A"),
    ],
)
def test_no_two_columns_have_one_name(names: str, found: str) -> None:
    assert distinct(tuple(names.split())) == tuple(found.split())


def test_plain_numbers_are_ascii_without_blanks() -> None:
    assert [cell for cell in ODD_CELLS[:24] if is_number(cell) and not plain_number(cell)] == [" 5", "\u0663"]


def test_pandas_reads_the_types(path: Path) -> None:
    write(frame("ID x y d", ("E1", "1.50", "3", "2020-01-31"), ("E2", "", "4", "2020-02-01")), "csv", path)
    read = pandas.read_csv(io.BytesIO(path.read_bytes()), parse_dates=["d"])
    assert read["x"].dtype == "float64"
    assert read["y"].tolist() == [3, 4]
    assert read["d"].dt.year.tolist() == [2020, 2020]
