"""Small tables the tests of the formats write, and what reads them back."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from xnatfs.tables.spec import Column, Row, Rows

ODD_CELLS = [
    *(
        "007",
        "-0",
        "+5",
        "1e5",
        "1E5",
        "NaN",
        "nan",
        "inf",
        "-inf",
        "1_000",
        "0",
        "12.3400",
        "0.30000000000000004",
        "9007199254740993",
    ),
    *(
        "9007199254740992",
        "123456789012345678901",
        "-9223372036854775808",
        "1e-400",
        "1e308",
        "1e-310",
        ".5",
        "5.",
        " 5",
        "\u0663",
    ),
    *(
        "=1+1",
        "+a",
        "-a",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "\n=1",
        "\0=1",
        "-",
        "--1",
        "-1.2.3",
        "-e",
        "-1e5",
        "-5\n",
        "\uff1d1",
    ),
    *("true", "FALSE", "2020-01-31", "2020-02-30", "1899-12-31", "NA", "n/a", ".", "null"),
    *(
        'a"b',
        "a,b",
        "a\nb",
        "a\rb",
        "a\r\nb",
        "'",
        '"',
        ",",
        " ",
        "  x  ",
        "h\xe4",
        "\U0001f9e0",
        "\x07",
        "\0",
        "\ud800",
        "\ufffe",
        "_x0041_",
    ),
    *(
        "<r>",
        "<r></r>",
        "<r><t>x</t></r></is></c><c><f>1+1</f></c><c><is><r></r>",
        "&amp;",
        "<b>",
        "{=1}",
        "http://x.org",
        "mailto:a@b",
    ),
]

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.decimals(-1000, 1000, places=4).map(str),
)
CELLS = st.one_of(
    st.just(""),
    st.sampled_from(ODD_CELLS),
    NUMBERS,
    st.text(max_size=8),
    st.text("=+-@\t\r\n ,\"'0a", max_size=6),
)


def frames(cells: st.SearchStrategy[str] = CELLS) -> st.SearchStrategy[Rows]:
    """Tables of up to four columns, some of them text."""

    def of(texts: list[bool]) -> st.SearchStrategy[Rows]:
        columns = tuple(Column(f"c{number}", text=text) for number, text in enumerate(texts))
        return st.lists(st.tuples(*[cells] * len(texts)), max_size=6).map(lambda rows: Rows(columns, rows))

    return st.lists(st.booleans(), min_size=1, max_size=4).flatmap(of)


def frame(names: str, *rows: Row, text: str = "") -> Rows:
    """A table with columns of these names, separated by blanks; those in `text` are text columns."""
    return Rows(tuple(Column(name, text=name in text.split()) for name in names.split()), list(rows))


def column(*cells: str, text: bool = False) -> Rows:
    """A table of one column, `x`, behind one that is never empty."""
    return Rows((Column("n", text=True), Column("x", text=text)), [("row", cell) for cell in cells])


@dataclass
class Made:
    """A table whose rows are made while they are read."""

    columns: tuple[Column, ...]
    count: int

    def rows(self) -> Iterator[Row]:
        width = len(self.columns)
        return (tuple(f"{at}.{place}" for place in range(width)) for at in range(self.count))


def csv_rows(path: Path) -> list[list[str]]:
    """What Python's own reader finds."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def texts(rows: Iterable[Iterable[str]]) -> list[list[str]]:
    return [list(row) for row in rows]
