"""Tables: one input, one output."""

from __future__ import annotations

import csv
import io

import pytest

from tests.semantics.quoting import rule
from tests.support import read
from tests.vfs.conftest import Compose, Shelf
from xnatfs.demo.data import freesurfer, measurements
from xnatfs.demo.server import DemoServer


@rule("11.3", "The same files on the server produce the same bytes, on any machine.")
@pytest.mark.parametrize(
    "name", ["aseg.csv", "aseg.xlsx", "aseg.parquet", "aseg_wide.csv", "aseg.problems.csv"]
)
def test_the_same_files_make_the_same_bytes(lab: DemoServer, compose: Compose, name: str) -> None:
    made = [read(compose(lab, folder).vfs, f"/tables/ALFA/freesurfer7/{name}") for folder in ("one", "two")]
    assert made[0] == made[1] != b""


@rule(
    "11.6",
    "Where several files of a session would do, the first in the server's catalog is read (or the one that"
    " docs/tables.md names), whatever was read before, and `TABLE.problems.csv` names the others.",
)
@pytest.mark.parametrize("shown", [False, True])
def test_the_first_of_two_files_is_read(shelf: Shelf, compose: Compose, shown: bool) -> None:
    """Where the path of the second is known of another session, and where it is not."""
    rest = {f"run/mri/{number:03}.mgz": b"" for number in range(40)}
    first, second = freesurfer.aseg_stats("1", "6", "1"), freesurfer.aseg_stats("2", "6", "2")
    both = {"old/stats/aseg.stats": first, "run/stats/aseg.stats": second}
    if shown:
        other = shelf.make.experiment(shelf.subject, "O", date="2023-01-01")
        shelf.make.resource(other, "FREESURFER6", {"run/stats/aseg.stats": second, **rest})
    shelf.make.resource(shelf.session, "FREESURFER6", both | rest)
    vfs = compose(shelf.server).vfs
    table = csv.DictReader(io.StringIO(read(vfs, "/tables/P/freesurfer6/aseg.csv").decode()))
    (value,) = [
        row["value"]
        for row in table
        if (row["label"], row["measurement"], row["region"]) == ("S", "Volume_mm3", "Left-Caudate")
    ]
    assert value == str(measurements.aseg("1", "6")["Left-Caudate"]["Volume_mm3"])
    assert b"run/stats/aseg.stats not" in read(vfs, "/tables/P/freesurfer6/aseg.problems.csv")
