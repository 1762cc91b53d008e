"""`pip install xnatfs` without an extra: a mount and the tables made of text files work, and all else says
what to install.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, lab_archive, mount, run, xnatfs
from xnatfs.demo.server import DemoServer
from xnatfs.extras import EXTRAS

ROOT = Path(__file__).parents[2]
PACKAGES = sorted({package for _, packages in EXTRAS.values() for package in packages} | {"lxml", "zlib_ng"})
ADDS = "`pip install 'xnatfs[{}]'` adds it"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an interpreter that has none of the extras' packages."""
    site = tmp_path_factory.mktemp("site")
    hidden = "".join(f"sys.modules[{package!r}] = None\n" for package in PACKAGES)
    (site / "sitecustomize.py").write_text(f"import sys\n{hidden}")
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture(scope="module")
def mounted(
    server: DemoServer, core: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mount]:
    with mount(server.url, tmp_path_factory.mktemp("mount"), env=core, interpreter=True) as made:
        yield made


def python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", code, env=env, timeout=60)


def test_files_views_and_tables_of_texts_are_there(mounted: Mount) -> None:
    (image,) = mounted.point.glob("projects/ALFA/subjects/007/007_MR1/SCANS/*T1*/NIFTI/*.nii.gz")
    assert run("cmp", image, image).returncode == 0
    assert "bids" in os.listdir(mounted.point / "views/ALFA")
    read = run("head", "-1", mounted.point / "tables/ALFA/ashs/volumes.csv")
    assert read.stdout.startswith("ID,"), read.stderr


@pytest.mark.parametrize(
    "name", ["ALFA/ashs/volumes.xlsx", "ALFA/ashs/volumes.parquet", "PIPES/spm12/volumes.csv"]
)
def test_what_needs_an_extra_is_an_error_that_status_explains(mounted: Mount, name: str) -> None:
    with pytest.raises(OSError) as caught:
        (mounted.point / "tables" / name).read_bytes()
    assert caught.value.errno == errno.ENOTSUP
    assert ADDS.format("tables") in mounted.status()["last_error"]["text"]


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("demo", "--once"), "demo"),
        (("serve-demo", "--port", "0"), "demo"),
        (("table", "ALFA", "ashs/volumes", "-o", "volumes.xlsx"), "tables"),
        (("table", "ALFA", "ashs/volumes", "-o", "volumes.parquet"), "tables"),
        (("table", "PIPES", "spm12/volumes"), "tables"),
    ],
)
def test_commands_say_which(mounted: Mount, arguments: tuple[str, ...], extra: str) -> None:
    done = xnatfs(*arguments, env=mounted.env)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence == f"xnatfs: support for {EXTRAS[extra][0]} is not installed; {ADDS.format(extra)}"


def test_commands_that_need_none_do_without(mounted: Mount) -> None:
    assert "serve-demo" in xnatfs("--help", env=mounted.env, check=True).stdout
    made = xnatfs("table", "ALFA", "ashs/volumes", env=mounted.env)
    assert made.returncode == 3 and made.stdout.startswith("ID,"), "with its remarks"


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("xnatfs.table('ALFA', 'ashs/volumes')", "tables"),
        ("xnatfs.connect().table('ALFA', 'ashs/volumes')", "tables"),
        ("xnatfs.connect().pyxnat", "pyxnat"),
    ],
)
def test_the_library_raises_an_import_error(mounted: Mount, code: str, extra: str) -> None:
    done = python(
        f"import xnatfs\ntry:\n    {code}\nexcept ImportError as error:\n    print(error)", mounted.env
    )
    assert ADDS.format(extra) in done.stdout, done.stderr


def test_the_library_lists_and_reads_without(mounted: Mount) -> None:
    code = (
        "import xnatfs.plugin\nwith xnatfs.connect() as xnat:\n    print(xnat.listdir(), xnat.tables('ALFA'))"
    )
    done = python(code, mounted.env)
    assert "projects" in done.stdout and "ashs/volumes" in done.stdout, done.stderr
