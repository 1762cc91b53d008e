"""`xnatfs.connect`: names, files and tables without a mount; and docs/python.md, whose examples are run."""

from __future__ import annotations

import doctest
import errno
import gc
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import xnatfs
from xnatfs.demo.server import DemoServer

DOCUMENT = Path(__file__).parents[2] / "docs/python.md"
IMAGE = "projects/ALFA/subjects/007/007_MR1/SCANS/2-T1_ALFA1/NIFTI/007_MR1_T1_ALFA1.nii.gz"


@pytest.fixture
def login(lab: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoServer:
    """The lab, and the user `demo` in the environment; a cache of the test's own."""
    for name, value in {"HOST": lab.url, "USER": "demo", "PASS": "demo"}.items():
        monkeypatch.setenv(f"XNAT_{name}", value)
    for name in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XNATFS_{name}_DIR", str(tmp_path / name.lower()))
    return lab


@pytest.fixture
def xnat(login: DemoServer) -> Iterator[xnatfs.Client]:
    with xnatfs.connect() as client:
        yield client


def test_the_documents_examples_are_true(login: DemoServer) -> None:
    done = doctest.testfile(str(DOCUMENT), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted > 25
    assert done.failed == 0


def test_paths_are_those_of_a_mount(xnat: xnatfs.Client) -> None:
    assert xnat.listdir("/") == xnat.listdir("") == xnat.listdir(".")
    assert "007" in xnat.listdir("/projects/ALFA/subjects/") == xnat.listdir(Path("projects/ALFA/subjects"))
    with pytest.raises(xnatfs.errors.Failure) as failed:
        xnat.listdir(IMAGE)
    assert failed.value.errno == errno.ENOTDIR


def test_stat_is_that_of_a_mount(xnat: xnatfs.Client) -> None:
    file, folder = xnat.stat(IMAGE), xnat.stat("projects/ALFA")
    assert stat.S_ISREG(file.st_mode) and stat.S_ISDIR(folder.st_mode)
    assert file.st_mode & 0o777 == 0o644 and folder.st_mode & 0o777 == 0o755
    assert file.st_size == 1003970 and file.st_blocks == 1961
    assert file.st_mtime == file.st_mtime_ns / 10**9 > 10**9
    assert file.st_uid == os.getuid()


def test_a_file_is_a_file(xnat: xnatfs.Client) -> None:
    with xnat.open(IMAGE) as file:
        assert isinstance(file, io.BufferedReader) and isinstance(file.raw, io.RawIOBase)
        assert file.readable() and file.seekable() and not file.writable()
        assert file.name == f"/{IMAGE}"
        whole = file.read()
        assert len(whole) == 1003970 and file.tell() == len(whole) and file.read(1) == b""
        assert file.seek(-10, os.SEEK_END) == len(whole) - 10 and file.read(100) == whole[-10:]
        assert file.seek(500_000) == 500_000 and file.read(300_000) == whole[500_000:800_000]
        assert file.seek(len(whole) + 5) and file.read(1) == b""
        with pytest.raises(ValueError):
            file.raw.seek(-1)
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
    with pytest.raises(ValueError):
        file.read(1)
    with xnat.open("README.txt") as file, io.TextIOWrapper(file, encoding="utf-8") as text:
        assert text.readline().startswith("This folder shows the XNAT server")


def test_a_file_that_is_let_go_is_closed(xnat: xnatfs.Client) -> None:
    file = xnat.open(IMAGE)
    assert xnat._core.vfs.open_files == 1
    del file
    gc.collect()
    assert xnat._core.vfs.open_files == 0


def test_a_closed_client_does_nothing(login: DemoServer) -> None:
    client = xnatfs.connect()
    file = client.open(IMAGE)
    client.close()
    client.close()
    with pytest.raises(ValueError):
        file.read(1)
    for act in (client.listdir, client.tables, lambda: client.open(IMAGE), lambda: client.pyxnat):
        with pytest.raises(ValueError, match="closed"):
            act()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("projects/ALFA/subjects/00?", ["007"]),
        ("projects/ALFA/subjects/0[!1]7", ["007"]),
        ("projects/ALFA/subjects/**/007_MR1/**/*T1*.json", ["007_MR1_T1_ALFA1.json"]),
        ("projects/*/subjects/007/*_MR1/SCANS/2-*/*/*.json", ["007_MR1_T1_ALFA1.json"]),
        ("projects/ALFA/subjects/007/**/*.json", None),
        ("projects/ALFA/subjects/nobody/*", []),
        ("projects/ALFA/subjects/007/*/nothing", []),
        ("README.txt/*", []),
        ("*.TXT", []),
        (".xnatfs/status.json", ["status.json"]),
        ("", []),
    ],
)
def test_glob(xnat: xnatfs.Client, pattern: str, found: list[str] | None) -> None:
    paths = list(xnat.glob(pattern))
    assert len(set(paths)) == len(paths)
    assert list(xnat.glob("/" + pattern)) == ["/" + path for path in paths]
    for path in paths:
        assert not path.startswith("/")
        xnat.stat(path)
    if found is None:
        assert len(paths) > 1 and all(path.endswith(".json") for path in paths)
        assert sorted(xnat.glob(pattern.replace("**", "**/**/**"))) == sorted(paths)
    else:
        assert [path.rpartition("/")[2] for path in paths] == found


def test_a_server_that_fails_is_no_empty_answer(login: DemoServer, xnat: xnatfs.Client) -> None:
    login.switches.update({"fail_rate": 1.0})
    with pytest.raises(xnatfs.errors.Failure):
        list(xnat.glob("projects/ALFA/subjects/*/*/SCANS/*"))


def test_only_these_projects(login: DemoServer) -> None:
    with xnatfs.connect(projects=["DWI"]) as client:
        assert client.listdir("projects") == ["DWI"]


def test_a_server_by_its_name(login: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XNAT_HOST")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.toml").write_text(
        f"""[servers.lab]\nurl = "{login.url}"\ncache-dir = "there"\ncache-size = "1G"\nproject = "DWI"
        [servers.other]\nurl = "https://other.example.org"\n"""
    )
    with xnatfs.connect("lab") as client:
        assert client.server == login.url
        assert "ALFA" in client.listdir("projects"), "what a mount shows is no business of a program"
        assert client._core.cache.directory.is_relative_to(tmp_path / "config/there")
        assert client._core.settings.limits.cache_size == 10**9
    with pytest.raises(xnatfs.errors.UsageError, match=r"did you mean other\?"):
        xnatfs.connect("othr")


def test_offline_serves_what_was_read(login: DemoServer, xnat: xnatfs.Client) -> None:
    with xnat.open(IMAGE) as file:
        whole = file.read()
    xnat.close()
    login.clear_log()
    with xnatfs.connect(offline=True) as client, client.open(IMAGE) as file:
        assert file.read() == whole
        with pytest.raises(xnatfs.errors.Failure) as failed:
            client.pyxnat  # noqa: B018  # that is what is tested
        assert failed.value.cause is xnatfs.errors.Cause.OFFLINE
    assert list(login.log) == []


def test_pyxnat_goes_on_with_our_session(login: DemoServer, xnat: xnatfs.Client) -> None:
    login.clear_log()
    assert "ALFA" in xnat.pyxnat.select.projects().get()
    assert xnat.pyxnat is xnat.pyxnat
    asked = [(one.method, one.path) for one in login.log]
    assert asked and not any("JSESSION" in path for _, path in asked)  # no login of its own
