"""docs/from-bx.md: every command of bx 0.9.2 is in it, and what it names here is what bx makes there.

Tables are compared in test_tables_as_bx.py, `nifti` in test_views_as_bx.py; here what those leave out, each
command once, for one session: `files`, `report`, and the single files of a resource.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients import test_tables_as_bx, test_views_as_bx
from tests.clients.bx import configure
from tests.clients.test_tables_as_bx import BX_CANNOT, listed_by_bx
from tests.support import composed, lab_archive, md5, read, walk
from xnatfs.copying.matching import matched
from xnatfs.demo.server import DemoServer
from xnatfs.tables.registry import LEFT_OUT, all_tables
from xnatfs.vfs import Vfs

pytestmark = pytest.mark.timeout(900)  # the first run ever installs bx

DOCUMENT = (Path(__file__).parents[2] / "docs/from-bx.md").read_text(encoding="utf-8")
GENERIC = {"files", "report", "snapshot", "tests"}
WITHOUT_A_ROW = {"nifti", "id", "lists", "scandates"}  # of their own: they are in the first table
PROJECTS = ("PIPES", "ALFA")
# What bx asks, and the answers that together give all files.
ASKED = {
    **{f"{command} maps": ("native", "std", "struct") for command in ("asl3d", "basil", "teasl")},
    "ftm maps": ("raw", "cgm", "wcbs", "pons", "wc", "wm"),
    "fdg maps": ("raw", "cgm", "wcbs", "pons", "wc", "wm", "vermis"),
    "reface nifti": ("ALL",),
}


@dataclass(frozen=True)
class DocumentRow:
    """A command's row: its resource and report, the tables and single files by the names of subcommands."""

    resource: str
    report: str
    tables: set[str]
    missing: set[str]
    files: dict[str, list[str]] = field(default_factory=dict)


def _rows() -> dict[str, DocumentRow]:
    found = {}
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5 or not re.fullmatch(r"`\w+`", cells[0]):
            continue
        command, resources, reports, tables, files = cells
        here, _, missing = tables.partition("not ")
        named = {part.partition(":")[0]: part.partition(":")[2] for part in files.split("; ") if part}
        found[command.strip("`")] = DocumentRow(
            _quoted(resources)[0],
            "".join(_quoted(reports)),
            set(_quoted(here)),
            set(_quoted(missing)),
            {name.strip("`"): _quoted(patterns) for name, patterns in named.items()},
        )
    return found


def _quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


ROWS = _rows()


@pytest.fixture(scope="module")
def listed() -> dict[str, list[str]]:
    return listed_by_bx()


def test_every_command_of_bx_is_there(listed: dict[str, list[str]]) -> None:
    assert len(listed) == 37 and f"All {len(listed)} commands" in DOCUMENT
    assert {*ROWS, *WITHOUT_A_ROW} == set(listed)
    for command in WITHOUT_A_ROW:
        assert f"| `bx {command} " in DOCUMENT
    for command, row in ROWS.items():
        named = row.tables | row.missing | set(row.files)
        lacking = set(listed[command]) - GENERIC - named
        assert lacking == ({"template"} if command == "dartel" else set()), command
        assert named <= set(listed[command])
        assert bool(row.report) == bool(GENERIC & set(listed[command])), command


def test_every_table_is_compared_with_bx(listed: dict[str, list[str]]) -> None:
    """By test_a_table_equals_bx, whose parameters these are; or the document says that there is none."""
    compared = {*test_tables_as_bx._keys(), *test_tables_as_bx.A_WORKBOOK_A_SESSION, *BX_CANNOT}
    compared |= test_tables_as_bx.ASKING  # one atlas each, and the three together
    for command, row in ROWS.items():
        tables = {f"{command}/{name}" for name in row.tables}
        tables |= {f"{command}/tests"} if "tests" in listed[command] else set()
        assert tables <= compared & {*all_tables()}, command
        assert {f"{command}/{name}" for name in row.missing} == {
            key for key in LEFT_OUT if key.startswith(f"{command}/")
        }


def test_the_tests_that_the_document_names_are_there() -> None:
    assert callable(test_tables_as_bx.test_a_table_equals_bx)
    assert callable(test_views_as_bx.test_bx_nifti_and_the_flat_folders_of_every_type)
    named = set(re.findall(r"`(tests/\w+/\w+\.py)`", DOCUMENT))
    assert {Path(one).stem for one in named} == {"test_from_bx", "test_tables_as_bx", "test_views_as_bx"}


@dataclass(frozen=True)
class BothSides:
    """What bx left of each command line, and the tree."""

    made: dict[str, Any]
    folders: dict[str, Path]
    session: dict[str, str]  # of each command
    project: dict[str, str]
    vfs: Vfs

    def theirs(self, line: str) -> dict[str, str]:
        """Names and MD5 of the files that bx left, those in a zip by their own names."""
        assert isinstance(self.made[line], list), (line, self.made[line])
        found = {}
        for path in self.folders[line].rglob("*"):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    found |= {one: md5(archive.read(one)) for one in archive.namelist()}
            elif path.is_file() and path.suffix != ".png":  # `rc` adds a snapshot
                found[path.name] = md5(path.read_bytes())
        return found

    def ours(self, command: str, pattern: str) -> list[str]:
        """MD5 of the files that match a pattern of the document, of the command's session."""
        pattern = pattern.replace("/P/", f"/{self.project[command]}/")
        return sorted(
            md5(read(self.vfs, path))
            for path in matched(self.vfs, pattern)
            if self.vfs.xattr(path, "user.xnat.id").decode() == self.session[command]
        )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothSides]:
    folder = tmp_path_factory.mktemp("from-bx")
    with DemoServer(lab_archive()) as server:
        project, session, lines = {}, {}, []
        for command, row in ROWS.items():
            chosen = next(
                one
                for place in PROJECTS
                for one in server.archive.experiments.values()
                if one.project == place and any(made.label == row.resource for made in one.resources)
            )
            project[command], session[command] = str(chosen.project), chosen.id
            # `files` leaves the report, too, but of `dartel`, which has none.
            whole = "report" if command == "dartel" else "files"
            for name in [*row.files, *([whole] if row.report else [])]:
                begun = f"{command} {name} {chosen.id}"
                asked = ASKED.get(f"{command} {name}")
                lines += [begun] if asked is None else [f"{begun} < {answer}" for answer in asked]
        made = configure(server.url, "demo", folder).several(lines, folder)
        folders = {line: folder / str(number) for number, line in enumerate(lines)}
        with composed(server.url, folder / "ours") as mounted:
            yield BothSides(made, folders, session, project, mounted.vfs)


@pytest.mark.parametrize("command", [command for command, row in ROWS.items() if row.report])
def test_files_and_reports_are_those_of_bx(both: BothSides, command: str) -> None:
    row = ROWS[command]
    report = both.ours(command, f"views/P/by-resource/BBRC_VALIDATOR/*/{row.report}*.pdf")
    assert report
    if command == "dartel":
        assert sorted(both.theirs(f"{command} report {both.session[command]}").values()) == report
        return
    folder = f"views/{both.project[command]}/by-resource/{row.resource}"
    (mine,) = (
        name
        for name, _ in both.vfs.entries(f"/{folder}")
        if both.vfs.xattr(f"/{folder}/{name}", "user.xnat.id").decode() == both.session[command]
    )
    files = [md5(read(both.vfs, path)) for path, _ in walk(both.vfs, f"/{folder}/{mine}")]
    theirs = both.theirs(f"{command} files {both.session[command]}")
    assert sorted([*files, *report]) == sorted(theirs.values()) and files


@pytest.mark.parametrize("line", [f"{command} {name}" for command, row in ROWS.items() for name in row.files])
def test_single_files_are_those_of_bx(both: BothSides, line: str) -> None:
    command, _, name = line.partition(" ")
    row = ROWS[command]
    ours: list[str] = []
    for pattern in row.files[name]:
        ours += both.ours(command, f"views/P/by-resource/{row.resource}/*/{pattern}")
    lines = [one for one in both.made if one.startswith(f"{line} ")]
    theirs = {digest for one in lines for digest in both.theirs(one).values()}
    assert theirs == set(ours) != set(), line
