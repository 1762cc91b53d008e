"""What a request costs: the way, and the catalogue that the server parses for it. No clock here: the times
are given.
"""

from __future__ import annotations

import itertools

import pytest

from xnatfs.content.access_pattern import ResourceAccess
from xnatfs.content.cost_model import LinkModel
from xnatfs.server.records import FileRecord, Owner


def resource(count: int, size: int, number: int = 1) -> ResourceAccess:
    return ResourceAccess(
        [FileRecord(Owner("experiment", "E"), number, "R", f"{one:05}", size, "") for one in range(count)]
    )


def opened(series: ResourceAccess, line: LinkModel, cost: float = 0.0, most: int = 100) -> int:
    """How many files are fetched one by one, in order, until the zip is worth it."""
    for number, record in enumerate(series.records[:most]):
        series.opened(record.path)
        left = len(series.records) - number
        if series.worth_a_zip(line, left, left * record.size):
            return number
        if cost:
            line.answered(cost, series.entries)
    return most


@pytest.mark.parametrize("way", [0.0005, 0.02, 0.3])
@pytest.mark.parametrize("parsing", [0.0, 65e-6, 400e-6])
@pytest.mark.parametrize(
    "order", [(1,), (5000,), (1, 5000), (5000, 1), (3, 2000, 300, 1), (2000, 1, 1, 1, 1, 1)]
)
def test_the_time_of_any_resource_that_is_read_is_learnt(
    way: float, parsing: float, order: tuple[int, ...]
) -> None:
    line = LinkModel()
    for entries in itertools.islice(itertools.cycle(order), 150):
        line.answered(way + entries * parsing, entries)
    for entries in order:
        truth = way + entries * parsing
        assert line.singly(1, 0, entries) == pytest.approx(truth, rel=0.1, abs=0.003)


@pytest.mark.parametrize("way", [0.0005, 0.02, 0.3])
@pytest.mark.parametrize("parsing", [0.0, 65e-6, 400e-6])
def test_a_large_resource_says_nothing_of_the_way_to_small_ones(way: float, parsing: float) -> None:
    line = LinkModel()
    for _ in range(10):
        line.answered(way + parsing, 1)
    for _ in range(50):
        line.answered(way + 5000 * parsing, 5000)
        line.answered(way + 3 * parsing, 3)
    assert line.singly(1, 0, 3) == pytest.approx(way, rel=0.1, abs=0.003)
    assert line.parsing == pytest.approx(parsing, rel=0.1, abs=2e-6)


def test_before_anything_is_measured_many_entries_are_dear_on_any_line() -> None:
    line = LinkModel(latency=0.001, rate=1e9)
    assert line.singly(1, 0, 5000) == pytest.approx(0.326)
    assert line.singly(1, 0, 1) < 0.002


def test_many_small_files_come_at_once_after_two_though_the_way_is_short() -> None:
    """200 files of single-file resources were read on a line of 1 ms: 2,000 files of 60 MB in one resource
    cost 0.13 s each.
    """
    line = LinkModel(rate=50e6)
    for _ in range(200):
        line.answered(0.001, 1)
    assert opened(resource(2000, 30_000), line, 0.131) == 1


def test_after_a_large_resource_the_headers_of_a_few_large_files_are_no_reason_for_a_zip() -> None:
    line = LinkModel(rate=50e6)
    for _ in range(20):
        line.answered(0.002, 1)
    for _ in range(20):
        line.answered(0.327, 5000)
    few = resource(30, 4 << 20, 2)
    for record in few.records[:4]:
        few.opened(record.path)
        few.reads.closed(record.size, 1024)
    assert not few.worth_a_zip(line, 26, 26 * (4 << 20))
