"""A share of the matrix of other answers; all of it: `scripts/dialects`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.dialects.cells import VERDICTS, Bench
from tests.dialects.forms import FORMS
from tests.dialects.world import quick, wired

PROFILES = ("full", "proven")
SHARE = 45  # one cell in so many: a cell takes a tenth of a second, and all of them would take ten minutes


@pytest.fixture(scope="module", params=PROFILES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with quick(), wired(request.param) as wire:
        yield Bench.of(request.param, wire, tmp_path_factory.mktemp("dialects"))


def chosen(name: str) -> bool:
    """Whether a cell is of the share; the same ones in every run."""
    return int(hashlib.md5(name.encode()).hexdigest(), 16) % SHARE == 0


def test_no_cell_is_silent_endless_or_poisoned(bench: Bench) -> None:
    cells = [cell for cell in bench.cells() if chosen(str(cell))]
    assert len(cells) > 50
    outcomes = {str(cell): bench.run(cell) for cell in cells}
    assert {name: outcome.wrong for name, outcome in outcomes.items() if outcome.wrong} == {}
    counts = Counter(outcome.verdict for outcome in outcomes.values())
    # Else the matrix would try nothing: some answers are harmless, some have to be seen.
    assert counts.keys() <= set(VERDICTS) and min(counts["the same tree"], counts["an error"]) > 5


def test_every_listing_that_is_sent_is_of_a_form_of_the_matrix(bench: Bench) -> None:
    """`Bench.of` looks up the form of each request, and fails on one of none."""
    assert bench.rows.keys() <= FORMS.keys()
    assert len(bench.rows) >= 11
