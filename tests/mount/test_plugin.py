"""The package that docs/writing-a-table.md shows, installed as it stands there, seen in a mount; and packages
that are broken.
"""

from __future__ import annotations

import os
import re
import sys
import venv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import Mount, mount, run, xnatfs
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOC = Path(__file__).parents[2] / "docs" / "writing-a-table.md"
ROWS = b"""\
ID,region,count,volume,subject,label,date
T_E00001,frontal,12,1523.40,s1,s1_MR1,2024-01-08
T_E00001,parietal,3,87.05,s1,s1_MR1,2024-01-08
T_E00002,frontal,1,10.0,s2,s2_MR1,2024-01-09
"""
BREAKS = """\
from xnatfs.plugin import Column, Input, Parsed, Table


def clumsy(stream, path):
    return Parsed(("number",), [(str(float(stream.read().split()[8])),)])


TABLE = Table("lesions", "clumsy", ("LESIONS",), (Input("file", "*.txt", clumsy),), (Column("number"),))
TAKEN = Table("freesurfer6", "aseg", ("LESIONS",), (Input("file", "*.txt", clumsy),))
"""


def block(kind: str) -> str:
    """The one code block of a language in the document."""
    (found,) = re.findall(
        rf"^```{kind}\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return str(found)


def install(folder: Path, project: str, **modules: str) -> None:
    """What pip makes of a package: its modules, and beside them its name, version and entry points."""
    said = tomllib.loads(project)["project"]
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    about = folder / f"{said['name'].replace('-', '_')}-{said['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {said['name']}\nVersion: {said['version']}\n"
    )
    groups = said["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    """A project with two sessions that have the example's files, and one whose file is cut short."""
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    project = make.project("STUDY", "Study", members=["demo"])
    texts = (
        b"# region   count   volume_mm3\nfrontal    12      1523.40\nparietal   3       87.05\n",
        b"# region   count   volume_mm3\r\nfrontal 1 10.0\r\n",
        b"# region   count   volume_mm3\nfrontal    12\n",
    )
    for number, text in enumerate(texts, 1):
        session = make.experiment(
            make.subject(project, f"s{number}"), f"s{number}_MR1", date=f"2024-01-{7 + number:02d}"
        )
        make.resource(
            session, "LESIONS", {f"results/{session.label}_lesions.txt": text, "log.txt": b"done\n"}
        )
    with DemoServer(archive) as server:
        yield server


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the document's package is installed, beside broken ones."""
    site = tmp_path_factory.mktemp("site")
    assert len(block("python").splitlines()) < 40
    install(site, block("toml"), lesions=block("python"))
    points = {"one": "breaks:TABLE", "taken": "breaks:TAKEN", "gone": "breaks:GONE", "dead": "dead:TABLE"}
    project = '[project]\nname = "breaks"\nversion = "1.0"\n[project.entry-points."xnatfs.tables"]\n'
    project += "".join(f'{name} = "{value}"\n' for name, value in points.items())
    install(site, project, breaks=BREAKS, dead="raise RuntimeError('no licence')\n")
    path = [str(site), *filter(None, [os.environ.get("PYTHONPATH"), str(DOC.parents[1])])]
    return {"PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture(scope="module")
def mounted(
    server: DemoServer, installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mount]:
    with mount(server.url, tmp_path_factory.mktemp("mount"), env=installed, interpreter=True) as made:
        yield made


def read(path: Path) -> bytes:
    done = run("cat", path, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.encode()


def test_the_documents_table_is_in_the_mount(mounted: Mount) -> None:
    folder = mounted.point / "tables/STUDY/lesions"
    listed = {
        f"{name}.{kind}"
        for name in ("scandates", "scans", "sessions", "subjects")
        for kind in ("csv", "parquet", "xlsx")
    }
    folders = {"README.txt", "assessors", "lesions", "sessions"}
    assert set(run("ls", folder.parent).stdout.split()) == folders | listed
    assert read(folder / "volumes.csv") == ROWS
    wide = read(folder / "volumes_wide.csv").decode().splitlines()
    assert wide[0] == "ID,frontal_count,frontal_volume,parietal_count,parietal_volume,subject,label,date"
    assert wide[1:] == [
        "T_E00001,12,1523.40,3,87.05,s1,s1_MR1,2024-01-08",
        "T_E00002,1,10.0,,,s2,s2_MR1,2024-01-09",
    ]
    (problem,) = read(folder / "volumes.problems.csv").decode().splitlines()[1:]
    assert (
        problem.startswith("T_E00003,s3,s3_MR1,")
        and "line 2 is not a region, a count and a volume" in problem
    )


def test_the_command_knows_it(server: DemoServer, installed: dict[str, str], tmp_path: Path) -> None:
    login = {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
    env = {
        **installed,
        **login,
        "XNATFS_CACHE_DIR": str(tmp_path / "cache"),
        "XNATFS_STATE_DIR": str(tmp_path / "state"),
    }
    made = xnatfs("table", "STUDY", "lesions/volumes", env=env)
    assert made.returncode == 3 and made.stdout.encode() == ROWS, "with its remarks"
    listed = xnatfs("table", "--list", env=env, check=True).stdout
    assert "lesions/volumes\n    reads LESIONS. White matter lesions by region." in listed
    assert "The plug-in dead (dead:TABLE) cannot be loaded: no licence" in listed


def test_broken_ones_are_named_and_cost_nothing_else(mounted: Mount) -> None:
    oddities = read(mounted.point / ".xnatfs/oddities.txt").decode()
    assert "The plug-in dead (dead:TABLE) cannot be loaded: no licence" in oddities
    assert "The plug-in gone (breaks:GONE) cannot be loaded" in oddities
    assert "The plug-in taken (breaks:TAKEN): there is already a table freesurfer6/aseg" in oddities
    assert "lesions:VOLUMES" not in oddities


def test_a_mistake_in_a_parser_costs_the_session(mounted: Mount) -> None:
    folder = mounted.point / "tables/STUDY/lesions"
    assert [line.split(",")[:2] for line in read(folder / "clumsy.csv").decode().splitlines()[1:]] == [
        ["T_E00001", "3.0"]
    ]
    problems = read(folder / "clumsy.problems.csv").decode()
    assert "T_E00002" in problems and "T_E00003" in problems and "IndexError" in problems
    assert read(folder / "volumes.csv") == ROWS


def test_it_passes_strict_type_checking_from_outside(tmp_path: Path) -> None:
    # As pip leaves them: both in one environment, found as installed packages, whose types count only where
    # they have a py.typed.
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    (site / "xnatfs").symlink_to(DOC.parents[1] / "xnatfs")
    install(site, block("toml"), lesions=block("python"))
    (tmp_path / "lesions.py").write_text(block("python"))
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", tmp_path / "venv/bin/python")
    options = ("--config-file=", f"--cache-dir={tmp_path / 'cache'}")
    env = {"PYTHONPATH": "", "MYPYPATH": ""}
    done = run(*mypy, *options, "lesions.py", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout
    wrong = (
        block("python")
        .replace('resources=("LESIONS",)', "resources=7")
        .replace("import Column", "import Columns")
    )
    (tmp_path / "lesions.py").write_text(wrong)
    done = run(*mypy, *options, "lesions.py", cwd=tmp_path, env=env)
    assert 'has no attribute "Columns"' in done.stdout and '"resources" to "Table"' in done.stdout
