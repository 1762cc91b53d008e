"""Memory does not grow with the table."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest

from tests.unit.tables.frames import Made
from xnatfs.tables.output.widen import widen
from xnatfs.tables.output.write import FORMATS, problems, write
from xnatfs.tables.spec import Column, Row, Table, Wide

ROWS = 30_000
COLUMNS = tuple(map(Column, ("ID", "region", "volume", "subject")))


def peak(work: Callable[[], object]) -> int:
    """Bytes Python objects took at most while it worked."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_table_is_written_in_pieces(tmp_path: Path, kind: str) -> None:
    held = peak(lambda: list(Made(COLUMNS, ROWS).rows()))
    assert held > 7e6
    write(Made(COLUMNS, 10), kind, tmp_path / "t")  # what is loaded once does not count
    pool = pyarrow.default_memory_pool()
    before = pool.bytes_allocated()
    assert peak(lambda: write(Made(COLUMNS, ROWS), kind, tmp_path / "t")) < 5e6
    assert pool.bytes_allocated() <= before


def test_problems_are_found_in_pieces() -> None:
    assert peak(lambda: problems(Made(COLUMNS, ROWS))) < 5e6


class Regions:
    """Many sessions with a few rows each."""

    columns = COLUMNS

    def rows(self) -> Iterator[Row]:
        return ((f"E{at // 60:06d}", f"r{at % 60}", f"{at}.5", f"S{at // 60}") for at in range(ROWS))


def test_a_table_is_widened_in_pieces() -> None:
    table = Table("p", "t", ("R",), (), wide=Wide(("region",), ("volume",)))

    def work() -> None:
        assert sum(1 for _ in widen(Regions(), table).rows()) == ROWS // 60

    assert peak(work) < 1e6
