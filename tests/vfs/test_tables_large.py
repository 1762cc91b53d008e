"""Tables of many sessions: the memory they take, how many requests they cost, that no row is lost."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import read
from tests.vfs.conftest import Compose
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

SESSIONS = 150
ROWS = 426  # of aseg a session
MIB = 1 << 20


@pytest.fixture(scope="module")
def cohort() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=0, cohort=SESSIONS)) as server:
        yield server


def rows_by_session(data: bytes) -> Counter[bytes]:
    return Counter(line.partition(b",")[0] for line in data.splitlines()[1:])


def test_every_session_is_there_with_one_request_each(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    cohort.clear_log()
    found = rows_by_session(read(mounted.vfs, "/tables/COHORT/freesurfer6/aseg.csv"))
    assert len(found) == SESSIONS and set(found.values()) == {ROWS}
    assert len(cohort.requests(r"^GET .*/files/.*aseg\.stats")) == SESSIONS
    # The first session's listing, and of those that begin before it is there none.
    assert len(cohort.requests(r"^GET .*/resources/\d+/files\?")) == 1
    cohort.clear_log()
    read(mounted.vfs, "/tables/COHORT/freesurfer6/aseg.csv")
    assert not cohort.requests(r"/files")


def test_memory_does_not_grow_with_the_rows(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    builder = mounted.builder
    builder.build("COHORT", "freesurfer6/aseg", ["c00001_MR1", "c00002_MR1"])  # what is loaded once
    gc.collect()
    tracemalloc.start()
    try:
        built = builder.build("COHORT", "freesurfer6/aseg")
        count = sum(1 for _ in built.rows())
        _, most = tracemalloc.get_traced_memory()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == SESSIONS * ROWS
    # 64,000 rows would be 30 MB. The stand-in, in this process, keeps 64 files of 10 kB, and its log.
    assert most < 16 * MIB
    assert kept < 8 * MIB
