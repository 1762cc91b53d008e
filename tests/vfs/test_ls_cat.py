"""`xnatfs ls` and `cat`: the tree on the command line, without a mount."""

from __future__ import annotations

import json
import os

import click
import pytest
from click.shell_completion import CompletionItem

from tests.support import read
from tests.vfs.conftest import Command, Compose, Done
from xnatfs.cli import cli, completing
from xnatfs.demo.server import DemoServer

SUBJECT = "projects/ALFA/subjects/007"
NIFTI = f"{SUBJECT}/007_MR1/SCANS/2-T1_ALFA1/NIFTI"
IMAGE = f"{NIFTI}/007_MR1_T1_ALFA1.nii.gz"


def test_ls(lab: DemoServer, command: Command) -> None:
    assert command(lab, "ls") == Done(0, "README.txt\nprojects\narchive\ntables\nviews\n", "")
    assert command(lab, "ls", SUBJECT).out == "007_MR1\n007_MR2\n"
    assert command(lab, "ls", IMAGE).out == f"{IMAGE}\n"
    both = command(lab, "ls", SUBJECT, f"/{NIFTI}/").out
    assert both.startswith(f"{SUBJECT}:\n007_MR1\n007_MR2\n\n{NIFTI}:\n")
    assert command(lab, "ls", "-d", "projects/*/subjects/007").out.split() == [
        f"projects/{project}/subjects/007" for project in ("ALFA", "BROKEN")
    ]
    lines = command(lab, "ls", "-l", NIFTI, "tables/ALFA/spm12").out.splitlines()
    assert lines[2].split() == ["1003970", "2024-01-12", lines[2].split()[2], "007_MR1_T1_ALFA1.nii.gz"]
    assert lines[5].split()[0] == "?" and lines[5].endswith("  volumes.csv")
    found = [json.loads(line) for line in command(lab, "ls", "--json", NIFTI).out.splitlines()]
    assert [(one["path"], one["type"], one["size"]) for one in found][1] == (IMAGE, "file", 1003970)


def test_cat(lab: DemoServer, command: Command, compose: Compose) -> None:
    table = command(lab, "cat", "tables/ALFA/ashs/volumes.csv")
    assert table.code == 0 and table.out.startswith("ID,subject,side,region")
    whole = command(lab, "cat", IMAGE, f"{NIFTI}/*.json")
    sidecar = f"{NIFTI}/007_MR1_T1_ALFA1.json"
    vfs = compose(lab).vfs
    assert os.fsencode(whole.out) == read(vfs, f"/{IMAGE}") + read(vfs, f"/{sidecar}")


def test_paths_are_completed_from_what_was_listed(lab: DemoServer, command: Command) -> None:
    assert command(lab, "ls", "projects").code == 0
    context, parameter = click.Context(cli), click.Argument(["paths"])

    def completed(begun: str) -> list[object]:
        return [*completing.paths_and_folder(context, parameter, begun)]

    lab.clear_log()
    assert completed("t") == ["tables/"] and completed("views/AL") == ["views/ALFA/"]
    (folder,) = completed("./out")
    assert isinstance(folder, CompletionItem) and folder.type == "dir"
    assert lab.requests() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("ls projects/ALFB", 1, "there is no file or folder 'ALFB' in projects; did you mean ALFA?"),
        ("ls ALFA", 1, "there is no file or folder 'ALFA' at the top; did you mean projects/ALFA?"),
        (
            f"ls {SUBJECT}/007_MR3/SCANS",
            1,
            f"there is no folder '007_MR3' in {SUBJECT}; did you mean 007_MR2 or",
        ),
        (f"ls {IMAGE}/x", 1, f"{IMAGE} is a file, not a folder"),
        ("ls projects ALFA", 3, "there is no file or folder 'ALFA' at the top"),
        ("ls projects/ALFA/sub[a-c]*/x", 1, "nothing matches projects/ALFA/sub[a-c]*/x"),
        ("ls https://xnat.example.org/x", 1, "https://xnat.example.org/x is a URL; a path begins at the top"),
        ("cat projects", 1, "projects: this is a folder, not a file"),
        ("cat README.txt nothing", 3, "there is no file or folder 'nothing' at the top"),
    ],
)
def test_mistakes(lab: DemoServer, command: Command, words: str, code: int, said: str) -> None:
    done = command(lab, *words.split())
    assert done.code == code
    line = done.err.splitlines()[-1]
    assert line.removeprefix("xnatfs: ").removeprefix("Error: ").startswith(said)
