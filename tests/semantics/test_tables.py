"""Tables: one input, one output."""

from __future__ import annotations

import pytest

from tests.semantics.quoting import rule
from tests.support import read
from tests.vfs.conftest import Compose
from xnatfs.demo.server import DemoServer


@rule("11.3", "The same files on the server produce the same bytes, on any machine.")
@pytest.mark.parametrize(
    "name", ["aseg.csv", "aseg.xlsx", "aseg.parquet", "aseg_wide.csv", "aseg.problems.csv"]
)
def test_the_same_files_make_the_same_bytes(lab: DemoServer, compose: Compose, name: str) -> None:
    made = [read(compose(lab, folder).vfs, f"/tables/ALFA/freesurfer7/{name}") for folder in ("one", "two")]
    assert made[0] == made[1] != b""
