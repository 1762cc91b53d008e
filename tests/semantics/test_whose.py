"""Whose a file is, and where it can be reached, without a mount."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.semantics.conftest import refused
from tests.semantics.quoting import rule
from tests.support import read, walk
from tests.vfs.conftest import FOLDER, Compose, Shelf
from tests.vfs.test_lists import Across
from xnatfs.demo.server import DemoServer


@rule(
    "1.8",
    "Data shared into a project is shown there in full, also to users who can read only that project: a "
    "subject's files, a session's, and those of its assessors that are shared too.",
)
def test_a_member_of_the_sharing_project_reads_all_of_it(shared: DemoServer, compose: Compose) -> None:
    vfs = compose(shared, user="guest").vfs
    found = {path.rpartition("/")[2]: read(vfs, path) for path, _ in walk(vfs, "/projects/GUEST")}
    assert (
        found["consent.pdf"] == b"consent"
        and found["notes.txt"] == b"notes"
        and found["out.csv"] == b"out"
        and found["t3.nii"] == b"3"
    )
    assert refused(lambda: vfs.entries("/projects/HOME")) == errno.ENOENT


@rule(
    "1.9",
    "The folder of a scan has that scan's files and no others, even where the type of one scan is the id "
    "of another.",
)
def test_scans_are_told_apart(united: DemoServer, compose: Compose) -> None:
    vfs = compose(united).vfs
    for scan, folder in (("2", "2-T1"), ("4", "4-2")):
        for path in (
            f"/projects/P/subjects/s/S/SCANS/{folder}/NIFTI",
            f"/archive/projects/P/experiments/S/SCANS/{scan}/NIFTI",
        ):
            assert {name: read(vfs, f"{path}/{name}") for name, _ in vfs.entries(path)} == {
                "image.nii": f"image of {scan}".encode(),
                f"only{scan}.nii": b"only",
            }


@rule(
    "1.10",
    "A list shows the sessions it names that you can read, whichever project owns them. Each name that "
    "matches no session, and each project that cannot be searched, is a line in the list's `README.txt`; "
    "neither keeps the other sessions from being shown.",
)
def test_a_list_shows_what_can_be_read_and_says_what_cannot(
    across: Across, compose: Compose, tmp_path: Path
) -> None:
    named = tmp_path / "cohort.txt"
    named.write_text("own\nas_guest\nhidden\nmisspelt\n")
    vfs = compose(across.server, lists=(named,)).vfs
    assert sorted(name for name, _ in vfs.entries("/lists/cohort/by-scan-resource/NIFTI")) == [
        "as_guest",
        "own",
    ]
    told = read(vfs, "/lists/cohort/README.txt").decode().splitlines()
    assert {"hidden", "misspelt", "CLOSED: this user may not read this"} <= set(told)


@rule(
    "3.11",
    "A name with a backslash or a TAB is listed, but XNAT offers no way to fetch its file: opening it "
    "returns EIO, and `.xnatfs/oddities.txt` lists it.",
)
@pytest.mark.parametrize(("name", "shown"), [("a\\b", "a\\b"), ("a\tb", "a%09b")])
def test_a_name_that_cannot_be_asked_for(shelf: Shelf, compose: Compose, name: str, shown: str) -> None:
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = (
        "%09",
        404,
        -1,
    )  # the stand-in finds a TAB
    for path in (name, "other"):
        shelf.put(shelf.make.entry(path, b"data"))
    vfs = compose(shelf.server).vfs
    assert {one for one, _ in vfs.entries(FOLDER)} == {shown, "other"}
    assert (
        refused(lambda: read(vfs, f"{FOLDER}/{shown}")) == errno.EIO
        and read(vfs, f"{FOLDER}/other") == b"data"
    )
    assert (
        len(
            [
                line
                for line in read(vfs, "/.xnatfs/oddities.txt").decode().splitlines()
                if "XNAT cannot serve" in line
            ]
        )
        == 1
    )
