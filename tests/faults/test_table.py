"""One operation of the matrix under every fault; see `matrix`. A file an operation, so that they run side by
side.
"""

from __future__ import annotations

import pytest

from tests.faults.cells import Run, cells
from tests.faults.operations import OPERATIONS


@pytest.mark.parametrize("cell", cells(OPERATIONS[8]), ids=str)
def test_cell(cell: Run, request: pytest.FixtureRequest) -> None:
    cell(request)
