"""The real bx 0.9.2 and the mount make the same tables from the same server: column for column, row for row,
cell by cell.

What may differ is written down here, and in docs/tables.md under "Differences from bx"; anything else fails.
Cells are equal as texts or as numbers; only what is computed (from images, or as a mean) may differ in its
last digits."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from tests.clients.bx import executable, several_once
from tests.support import composed, lab_archive, mount, read
from xnatfs.demo.server import DemoServer
from xnatfs.tables.registry import LEFT_OUT, all_tables

pytestmark = pytest.mark.timeout(900)  # the first run ever installs bx
Rows = list[dict[str, str]]
Tables = dict[tuple[str, str], Any]  # by project and key

PROJECTS = ("ALFA", "PIPES")
DOWNLOADS = {
    "files",
    "report",
    "snapshot",
    "maps",
    "rc",
    "layers",
    "lobes",
    "template",
    "nifti",
    "usable",
    "all",
    "show",
}
ATLASES = ("aal", "dk", "hammers")  # what a `regional` of fdg, ftm and tau asks for
ASKING = {"fdg/regional", "ftm/regional", "tau/regional"}
LISTINGS = {"id": "sessions", "scandates": "scandates"}  # bx's command -> our table

# bx cannot make these here, with reasons.
BX_CANNOT = {"mrtrix3/connectome": "bx fetches the names of the nodes from GitHub at run time"}
A_WORKBOOK_A_SESSION = ("xcpd/conmat", "xcpd/timeseries")  # compared in a test of their own

# Sums over images and means of several values: bx computes them in single or double precision, in another
# order.
COMPUTED = {
    *(
        "spm12/volumes",
        "cat12/volumes",
        "fslanat/volumes",
        "fslanat/subcortical",
        "bamos/volumes",
        "bamos/stats",
    ),
    *(
        "braak/volumes",
        "braak/thickness",
        "braak/fdg",
        "signature/jack",
        "freesurfer7/jack",
        "pyment/predictions",
    ),
}
ROUNDED = 1e-6
# pandas reads numbers of 17 digits with an error in the last one (its fast parser).
READ = 1e-15

# bx asks which of two pipelines is meant; run without a terminal it takes the first. Ours has every session,
# with the first that it has.
SECOND_CHOICE = {
    "spm12/volumes": ("SPM12_SEGMENT", "SPM12_SEGMENT_T1T2"),
    "spm12/tests": ("SPM12_SEGMENT", "SPM12_SEGMENT_T1T2"),
    "dtifit/tests": ("TOPUP_DTIFIT", "DWIFSLPREPROC_DTIFIT"),
}
TEXTS = {
    "ID",
    "subject",
    "subject_label",
    "label",
    "project",
    "region",
    "Braak region",
    "measurement",
    "side",
    "date",
    "MRI_ID",
    "MRI_scanID",
}


def listed_by_bx() -> dict[str, list[str]]:
    """bx's own commands and subcommands."""
    script = (
        "import bx, json\n"
        "from bx import parse\n"
        "found = {c.__name__[:-7].lower(): c for c in parse.__find_all_commands__(bx) if c.__name__ != "
        "'Command'}\n"
        "print(json.dumps({n: list(getattr(c(n, ['', ''], None, ''), 'subcommands', [])) for n, c in "
        "found.items()}))\n"
    )
    python = executable().parent / "python"
    done = subprocess.run(
        [str(python), "-I", "-c", script], capture_output=True, text=True, timeout=100, check=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@dataclass(frozen=True)
class Bxs:
    """What bx made: its tables, and the folder of the files of each command."""

    tables: Tables
    folders: dict[tuple[str, str], Path]


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    """Key of a table -> bx's command line, with PROJECT in it."""
    found: dict[str, str] = {}
    for command, subcommands in listed_by_bx().items():
        for name in dict.fromkeys(subcommands):
            key = f"{command}/{name}"
            if name in DOWNLOADS or (
                name in ("jack", "amygNucVolumes", "brainstem", "thalamus", "hypothalamus")
                and "freesurfer6" in command
            ):
                continue  # bx's classes share one list: FreeSurfer 6 has not these files
            if command == "freesurfer7extras" and name != "tests":
                continue
            if key in ASKING:
                found |= {f"{key}_{atlas}": f"{command} {name} PROJECT < {atlas}" for atlas in ATLASES}
            else:
                found[key] = f"{command} {name} PROJECT"
    return found | {ours: f"{command} PROJECT" for command, ours in LISTINGS.items()}


@pytest.fixture(scope="module")
def bx(server: DemoServer, commands: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Bxs:
    wanted = [(project, key) for project in PROJECTS for key in commands if key not in BX_CANNOT]
    lines = [commands[key].replace("PROJECT", project) for project, key in wanted]
    made = several_once(server.url, lines, tmp_path_factory)
    found = dict(zip(wanted, (made[line] for line in lines), strict=True))
    return Bxs({one: rows for one, (rows, _) in found.items()}, {one: at for one, (_, at) in found.items()})


@pytest.fixture(scope="module")
def ours(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Every long table of the room `tables/`, as read from there."""
    found: Tables = {}
    with composed(server.url, tmp_path_factory.mktemp("ours")) as mounted:
        for project in PROJECTS:
            top = f"/tables/{project}"
            for name, _ in mounted.vfs.entries(top):
                if name in ("sessions.csv", "scandates.csv"):
                    found[project, name[:-4]] = parsed(read(mounted.vfs, f"{top}/{name}"))
                elif "." not in name and name not in ("sessions", "assessors"):
                    for file, _ in mounted.vfs.entries(f"{top}/{name}"):
                        if file.endswith(".csv") and not file.endswith(("_wide.csv", ".problems.csv")):
                            found[project, f"{name}/{file[:-4]}"] = parsed(
                                read(mounted.vfs, f"{top}/{name}/{file}")
                            )
    return found


def parsed(data: bytes) -> Rows:
    return list(csv.DictReader(io.StringIO(data.decode())))


def by_session(rows: Rows) -> dict[str, Rows]:
    """The rows of each session in their order; sessions come in no order from bx."""
    found: dict[str, Rows] = {}
    for row in rows:
        found.setdefault(row["ID"], []).append(row)
    return found


def same(key: str, column: str, theirs: str, own: str) -> bool:
    """Whether two cells say the same."""
    own = {"true": "True", "false": "False"}.get(own, own)
    if theirs == own:
        return True
    if column in TEXTS:
        return False
    try:
        left, right = float(theirs), float(own)
    except ValueError:
        return False
    return abs(left - right) <= (ROUNDED if key in COMPUTED else READ) * abs(left)


def made(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict)


def test_every_table_of_bx_is_a_table_here_or_left_out_with_a_reason(commands: dict[str, str]) -> None:
    here = {*all_tables(), *LISTINGS.values()}
    assert set(commands) - here == set(LEFT_OUT)
    assert len(commands) > 80
    beyond = {key for key in here - set(commands) if not key.endswith(("/aparc_a2009s", "/aparc_DKT"))}
    assert beyond == ASKING | {"ashs/volumes_heur", "ashs/volumes_corr_usegray"}


def test_bx_makes_every_one_of_its_tables_from_one_of_the_projects(bx: Bxs, commands: dict[str, str]) -> None:
    """Else nothing would be compared: what bx does not make is named."""
    lacking = {
        key
        for key in commands
        if key not in BX_CANNOT and not any(made(bx.tables[project, key]) for project in PROJECTS)
    }
    assert lacking == set(A_WORKBOOK_A_SESSION)


def test_where_bx_makes_a_table_so_does_the_mount_and_the_other_way(bx: Bxs, ours: Tables) -> None:
    theirs = {one for one, rows in bx.tables.items() if made(rows)} | {
        ("PIPES", key) for key in A_WORKBOOK_A_SESSION
    }
    theirs |= {("PIPES", key) for key in BX_CANNOT}
    more = {
        one
        for one in ours
        if one[1].endswith(("/aparc_a2009s", "/aparc_DKT", "/volumes_heur", "/volumes_corr_usegray"))
    }
    more |= {one for one in ours if one[1] in ASKING}
    shown = {one for one, rows in ours.items() if rows and one not in more}
    assert shown == {one for one in theirs if one[1] not in LEFT_OUT}


def _keys() -> list[str]:
    listed = {*all_tables(), *LISTINGS.values()} - ASKING - set(BX_CANNOT) - set(A_WORKBOOK_A_SESSION)
    ours_alone = ("/aparc_a2009s", "/aparc_DKT", "/volumes_heur", "/volumes_corr_usegray")
    return sorted(key for key in listed if not key.endswith(ours_alone))


@pytest.mark.parametrize("key", _keys())
def test_a_table_equals_bx(bx: Bxs, ours: Tables, server: DemoServer, key: str) -> None:
    compared = 0
    for project in PROJECTS:
        theirs, mine = bx.tables[project, key], ours.get((project, key), [])
        if not made(theirs):
            continue
        _same_columns(key, list(theirs[0]), list(mine[0]))
        left, right = by_session(theirs), by_session(mine)
        if key.endswith("/mri") and key != "archiving/mri":
            # A session without a report is an empty row of bx's, and among our problems.
            left = {session: rows for session, rows in left.items() if session in right or rows[0]["MRI_ID"]}
        if key in SECOND_CHOICE:
            first, second = SECOND_CHOICE[key]
            labels = {
                one.id: {made.label for made in one.resources} for one in server.archive.experiments.values()
            }
            assert all(
                first not in labels[session] and second in labels[session]
                for session in right.keys() - left.keys()
            )
            right = {session: rows for session, rows in right.items() if session in left}
        assert left.keys() == right.keys()
        for session, rows in left.items():
            own = right[session]
            if key == "freesurfer6/aparc":
                own = [row for row in own if row["region"] != "CortexVol"]
                assert len(own) == len(right[session]) - 1
            if key == "lcmodel/stats":  # bx runs through a set of regions
                rows, own = (sorted(some, key=lambda row: row["region"]) for some in (rows, own))
            assert len(rows) == len(own), session
            for number, (row, mine_row) in enumerate(zip(rows, own, strict=True)):
                wrong = {
                    name: (cell, mine_row[name])
                    for name, cell in row.items()
                    if not same(key, name, cell, mine_row[name])
                }
                assert not wrong, (project, session, number, wrong)
                compared += len(row)
    assert compared


def _same_columns(key: str, theirs: list[str], mine: list[str]) -> None:
    """Ours are bx's, then `label` and `date` where bx has none."""
    added = [name for name in ("label", "date") if name not in theirs]
    if key == "sessions":  # and what the server knows of each, after them
        added = ["xsiType", "date"]
        mine = mine[: len(theirs) + len(added)]
    if key == "scandates":
        added = []
    if key.endswith("/tests") or key.startswith(
        "archiving/"
    ):  # bx has the tests of all sessions, and runs through a set
        assert (mine[0], mine[-4:]) == (theirs[0], [*theirs[-2:], "label", "date"])
        assert set(theirs) <= set(mine) and len(set(mine)) == len(mine)
    else:
        assert mine == theirs + added


@pytest.mark.parametrize("key", A_WORKBOOK_A_SESSION)
def test_workbooks_of_single_sessions_are_stacked(bx: Bxs, ours: Tables, key: str) -> None:
    books = sorted(bx.folders["PIPES", key].glob("*.xlsx"))
    mine = by_session(ours["PIPES", key])
    assert len(books) == len(mine) == 3
    for book in books:
        header, *rows = [
            ["" if cell is None else str(cell) for cell in row]
            for row in openpyxl.load_workbook(book).active.values
        ]
        (session,) = [one for one in mine if f"_{one}_" in book.name]
        header[0] = header[0] or "Node"
        assert list(mine[session][0]) == ["ID", *header, "subject", "label", "date"]
        assert len(rows) == len(mine[session])
        for row, own in zip(rows, mine[session], strict=True):
            assert all(same(key, name, cell, own[name]) for name, cell in zip(header, row, strict=True))


def test_the_three_atlases_together_are_those_of_bx_one_by_one(ours: Tables) -> None:
    for key in ASKING:
        rows = ours["PIPES", key]
        parts = [row for atlas in ATLASES for row in ours["PIPES", f"{key}_{atlas}"]]
        assert sorted(map(str, rows)) == sorted(map(str, parts)) and rows


@pytest.mark.parametrize("key", ["freesurfer6/aparc", "ashs/volumes", "spm12/volumes"])
def test_the_real_mount_has_the_same_bytes(
    server: DemoServer, ours: Tables, tmp_path: Path, key: str
) -> None:
    with mount(server.url, tmp_path) as mounted:
        assert parsed((mounted.point / f"tables/ALFA/{key}.csv").read_bytes()) == ours["ALFA", key]
