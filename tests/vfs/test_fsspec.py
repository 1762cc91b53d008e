"""`xnat://` URLs: fsspec's own tests of a file system, and the libraries that read through it, against both
profiles of the stand-in. jupyter-fs, which brings a whole Jupyter, is read through by `scripts/tools`.
"""

from __future__ import annotations

import doctest
import errno
import gzip
import io
import multiprocessing
import pickle
import threading
import zipfile
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pytest
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from tests.support import lab_archive
from tests.vfs.conftest import FOLDER, Shelf
from xnatfs import shared_cores
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure, UsageError
from xnatfs.filesystem import XnatFileSystem

IMAGE = "projects/ALFA/subjects/007/007_MR1/SCANS/2-T1_ALFA1/NIFTI/007_MR1_T1_ALFA1.nii.gz"
ASEG = "tables/ALFA/freesurfer6/aseg"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """As the entry point does it where this version is installed."""
    fsspec.register_implementation("xnat", XnatFileSystem, clobber=True)
    yield
    shared_cores.CORES.close()


def log_in(server: DemoServer, folder: Path, patched: pytest.MonkeyPatch) -> str:
    """The user `demo` and a cache in the environment of a test; the server as URLs begin with it."""
    for name, value in {"HOST": server.url, "USER": "demo", "PASS": "demo"}.items():
        patched.setenv(f"XNAT_{name}", value)
    for name in ("CACHE", "STATE", "CONFIG"):
        patched.setenv(f"XNATFS_{name}_DIR", str(folder / name.lower()))
    shared_cores.CORES._known = None  # of another test's environment
    return f"xnat://{urlsplit(server.url).netloc}"


@pytest.fixture(scope="module", params=["full", "proven"])
def server(request: pytest.FixtureRequest) -> Iterator[DemoServer]:
    with DemoServer(lab_archive(), Switches(profile=request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what is kept of the servers that all tests share."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def at(server: DemoServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the lab, in each profile; logged in once for all that read it."""
    return log_in(server, folder, monkeypatch)


@pytest.fixture
def fs() -> XnatFileSystem:
    return XnatFileSystem()


# --- fsspec's own tests -------------------------------------------------------------------------------------


class TestGet(AbstractFixtures, AbstractGetTests):  # type: ignore[misc]  # untyped
    """Of the abstract suite what a read-only file system can do: `get`. Its tests of `copy`, `put`, `pipe`
    and `open` begin by writing; that this is refused, `test_it_is_read_only` shows.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def shelf(cls) -> Iterator[Shelf]:
        shelf = Shelf()
        nested = ("subfile1", "subfile2", "nesteddir/nestedfile")
        files = {
            "bulk": ["file1", "file2", *(f"subdir/{one}" for one in nested)],
            "edges": ["file1", "file2", *(f"subdir{number}/{one}" for number in (0, 1) for one in nested)],
            "prefix": ["subdir.txt", "subdir/subfile.txt"],
        }
        for name, paths in files.items():
            resource = shelf.make.resource(shelf.session, name)
            resource.entries += [shelf.make.entry(f"source/{path}", b"x") for path in paths]
        ten = shelf.make.resource(shelf.session, "ten")
        ten.entries += [
            shelf.make.entry(f"source/{md5(str(one).encode()).hexdigest()}.txt", str(one).encode())
            for one in range(10)
        ]
        shelf.make.resource(shelf.session, "src").entries.append(shelf.make.entry("file", b"x"))
        with shelf.server:
            yield shelf
            shared_cores.CORES.close()

    @pytest.fixture
    def fs_path(self, shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        return log_in(shelf.server, folder, monkeypatch) + FOLDER.rpartition("/")[0]

    @pytest.fixture
    def fs(self) -> XnatFileSystem:
        class Prepared(XnatFileSystem):
            """What the tests would make first is on the server already."""

            def mkdir(self, path: str, *_: Any) -> None:
                assert self.isdir(path)

            def touch(self, path: str, *_: Any) -> None:
                assert self.isfile(path)

        return Prepared()

    @pytest.fixture
    def fs_join(self) -> Any:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs_path: str) -> str:
        return f"{fs_path}/bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs_path: str) -> str:
        return f"{fs_path}/edges/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs_path: str) -> str:
        return f"{fs_path}/prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs_path: str) -> str:
        return f"{fs_path}/ten/source"


def test_it_is_read_only(at: str, fs: XnatFileSystem, tmp_path: Path) -> None:
    local, there = tmp_path / "local", f"{at}/projects/ALFA/new"
    local.write_text("x")
    for act in (
        lambda: fs.open(there, "wb"),
        lambda: fs.open(f"{at}/{IMAGE}", "ab"),
        lambda: fs.open(there, "xb"),
        lambda: fs.mkdir(there),
        lambda: fs.makedirs(there, exist_ok=True),
        lambda: fs.touch(there),
        lambda: fs.pipe(there, b"x"),
        lambda: fs.put(str(local), there),
        lambda: fs.put_file(str(local), there),
        lambda: fs.cp_file(f"{at}/{IMAGE}", there),
        lambda: fs.copy(f"{at}/{IMAGE}", there),
        lambda: fs.mv(f"{at}/{IMAGE}", there),
        lambda: fs.rm(f"{at}/{IMAGE}"),
        lambda: fs.rm(f"{at}/projects", recursive=True),
        lambda: fs.rmdir(f"{at}/projects"),
        lambda: fs.write_text(there, "x"),
    ):
        with pytest.raises(OSError) as refused:
            act()
        assert refused.value.errno == errno.EROFS


# --- who reads through it -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Dask's own, of the pandas to come
def test_the_documents_examples_are_true(at: str) -> None:
    from upath import registry

    registry.register_implementation("xnat", "xnatfs.universal_path.XnatPath", clobber=True)
    done = doctest.testfile(str(ROOT / "docs/fsspec.md"), module_relative=False)
    assert done.attempted > 20
    assert done.failed == 0


def test_pandas(at: str) -> None:
    import pandas

    frame = pandas.read_csv(f"{at}/{ASEG}.csv")
    assert len(frame) > 2900 and {"ID", "region", "Volume_mm3"} & set(frame.columns)
    assert len(pandas.read_parquet(f"{at}/{ASEG}.parquet")) == len(frame)
    assert len(pandas.read_excel(f"{at}/tables/ALFA/scandates.xlsx")) > 1


def test_polars(at: str) -> None:
    """It takes no URL of a scheme it does not know; an open file it does."""
    import polars

    with fsspec.open(f"{at}/{ASEG}.parquet") as file:
        assert len(polars.read_parquet(file)) > 2900
    with fsspec.open(f"{at}/{ASEG}.csv") as file:
        assert len(polars.read_csv(file, infer_schema_length=None)) > 2900


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Dask's own, of the pandas to come
def test_dask(at: str) -> None:
    from dask import dataframe

    frame = dataframe.read_parquet(f"{at}/{ASEG}.parquet")
    assert len(pickle.loads(pickle.dumps(frame)).compute(scheduler="threads")) > 2900
    blocks = dataframe.read_csv(f"{at}/{ASEG}.csv", dtype={"subject": str}, blocksize=100_000)
    assert blocks.npartitions > 1
    assert len(blocks.compute(scheduler="threads")) > 2900


def test_duckdb(at: str, fs: XnatFileSystem) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.register_filesystem(fs)
        for table in (f"{ASEG}.csv", f"{ASEG}.parquet", "tables/ALFA/freesurfer6/as*g.parquet"):
            counted = connection.execute(f"SELECT count(*) FROM '{at}/{table}'").fetchone()
            assert counted is not None and counted[0] > 2900


def test_pyarrow(at: str, fs: XnatFileSystem) -> None:
    from pyarrow import dataset, parquet

    path = f"{at}/{ASEG}.parquet"
    assert parquet.read_table(path.removeprefix("xnat://"), filesystem=fs).num_rows > 2900
    found = dataset.dataset(path.removeprefix("xnat://"), filesystem=fs)
    assert found.count_rows() == found.to_table(columns=["ID"]).num_rows > 2900


def test_nibabel(at: str) -> None:
    import nibabel

    with fsspec.open(f"{at}/{IMAGE}", compression="gzip") as file:
        assert nibabel.Nifti1Image.from_stream(file).shape == (112, 112, 40)


def test_upath(at: str) -> None:
    from upath import UPath, registry

    registry.register_implementation("xnat", "xnatfs.universal_path.XnatPath", clobber=True)
    folder = UPath(at) / "projects" / "ALFA" / "subjects" / "007"
    assert [path.name for path in folder.iterdir()] == ["007_MR1", "007_MR2"]
    image = next(folder.glob("007_MR1/SCANS/*T1*/NIFTI/*.nii.gz"))
    assert str(image) == f"{at}/{IMAGE}" and image.stat().st_size == 1003970
    with image.open("rb") as file, gzip.open(file) as unpacked:
        assert len(unpacked.read(348)) == 348
    assert image.parent.parent.name == "2-T1_ALFA1" and not (folder / "nobody").exists()
    with pytest.raises(OSError, match="read-only"):
        (folder / "new").write_text("x")


def test_chained_urls(at: str, tmp_path: Path) -> None:
    kept = {"cache_storage": str(tmp_path)}
    with fsspec.open(f"filecache::{at}/README.txt", filecache=kept) as file:
        text = file.read()
    assert text.startswith(b"This folder shows")
    assert text in [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    with fsspec.open(f"simplecache::{at}/{IMAGE}", simplecache=kept) as file:
        assert len(file.read()) == 1003970


def test_archives_and_zarr(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy
    import zarr

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner/a.txt", "inside")
    shelf.put(shelf.make.entry("packed.zip", packed.getvalue()))
    numbers = numpy.arange(1000).reshape(10, 100)
    made = zarr.create_array(str(tmp_path / "made.zarr"), shape=(10, 100), chunks=(5, 50), dtype="int64")
    made[:] = numbers
    for path in (tmp_path / "made.zarr").rglob("*"):
        if path.is_file():
            shelf.put(shelf.make.entry(str(path.relative_to(tmp_path)), path.read_bytes()))
    top = log_in(shelf.server, tmp_path, monkeypatch) + FOLDER
    with fsspec.open(f"zip://inner/a.txt::{top}/packed.zip") as file:
        assert file.read() == b"inside"
    opened = zarr.open_array(f"{top}/made.zarr", mode="r")
    assert (opened[3:7, 40:60] == numbers[3:7, 40:60]).all()
    shared_cores.CORES.close()


# --- what it says -------------------------------------------------------------------------------------------


def test_a_table_that_is_not_built_has_no_size_until_somebody_asks(at: str, fs: XnatFileSystem) -> None:
    folder, name = "tables/ALFA/ashs", "volumes_heur.csv"
    listed = {entry["name"].rpartition("/")[2]: entry["size"] for entry in fs.ls(f"{at}/{folder}")}
    assert listed[name] is None
    size = fs.info(f"{at}/{folder}/{name}")["size"]
    assert size == len(fs.cat_file(f"{at}/{folder}/{name}")) == fs.size(f"{at}/{folder}/{name}") > 100
    assert fs.du(f"{at}/{folder}/{name}") == size


def test_what_a_file_is(server: DemoServer, at: str, fs: XnatFileSystem) -> None:
    info = fs.info(f"{at}/{IMAGE}")
    content = fs.cat_file(f"{at}/{IMAGE}")
    assert (info["type"], info["size"]) == ("file", len(content))
    proven = server.switches.profile == "proven"  # such a server has no digests
    assert info.get("digest") == (None if proven else md5(content).hexdigest())
    assert info["name"] == f"{at}/{IMAGE}".removeprefix("xnat://")
    assert fs.cat_file(f"{at}/{IMAGE}", 100, 200) == content[100:200]
    assert fs.cat_file(f"{at}/{IMAGE}", -10) == content[-10:]
    assert fs.modified(f"{at}/{IMAGE}").timestamp() == info["mtime"] > 10**9
    assert fs.ls(f"{at}/{IMAGE}", detail=False) == [info["name"]]
    assert fs.unstrip_protocol(info["name"]) == f"{at}/{IMAGE}"
    assert fs.ukey(f"{at}/{IMAGE}") == fs.ukey(info["name"])
    with fs.open(f"{at}/{IMAGE}") as file:
        assert file.size == len(content) and file.info() == info
        assert fs.open(f"{at}/README.txt", "rt").readline().startswith("This folder shows")


def test_what_is_not_there(at: str, fs: XnatFileSystem) -> None:
    assert not fs.exists(f"{at}/projects/NOBODY") and not fs.isdir(f"{at}/{IMAGE}/x")
    assert fs.glob(f"{at}/projects/NOBODY/*") == fs.find(f"{at}/projects/NOBODY") == []
    for act in (fs.ls, fs.info, fs.open):
        with pytest.raises(FileNotFoundError, match="no such file"):
            act(f"{at}/projects/NOBODY")
    with pytest.raises(IsADirectoryError):
        fs.open(f"{at}/projects/ALFA")
    with pytest.raises(NotADirectoryError):
        fs.ls(f"{at}/{IMAGE}/x")


def test_only_what_may_match_is_listed(server: DemoServer, at: str, fs: XnatFileSystem) -> None:
    """fsspec's own `glob` lists everything that is as deep: the files of every session."""
    fs.ls(f"{at}/projects/NORD/subjects")
    server.clear_log()
    pattern = f"{at}/projects/NORD/subjects/*/NORD_0[1]*/SCANS/*T1*/NIFTI/*.nii.gz"
    with_details = fs.glob(pattern, detail=True)
    assert list(with_details) == fs.glob(pattern)
    assert all(entry["type"] == "file" and entry["size"] > 0 for entry in with_details.values())
    assert fs.glob(f"{at}/projects/ALFA/subjects/0*/", detail=False)
    assert len(server.requests()) < 10


def test_a_server_that_does_not_answer_is_no_empty_answer(
    lab: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fs: XnatFileSystem
) -> None:
    """Half a study must not pass for a whole: fsspec's own `walk` leaves out what fails, and its `exists`
    says no."""
    at = log_in(lab, tmp_path, monkeypatch)
    assert fs.isdir(f"{at}/projects")
    lab.switches.update({"fail_rate": 1.0})
    for act in (
        lambda: fs.exists(f"{at}/projects/ALFA/subjects/007"),
        lambda: fs.find(f"{at}/projects/ALFA"),
        lambda: fs.glob(f"{at}/projects/ALFA/**/*.json"),
        lambda: fs.glob(f"{at}/projects/ALFA/subjects/*/*"),
    ):
        with pytest.raises(OSError) as failed:
            act()
        assert not isinstance(failed.value, FileNotFoundError)
    seen: list[OSError] = []
    assert list(fs.walk(f"{at}/projects/ALFA", on_error=seen.append)) == [] and len(seen) == 1


# --- logins, processes, threads -----------------------------------------------------------------------------


def test_no_password_in_a_url(fs: XnatFileSystem) -> None:
    for url in ("xnat://jane:s3cret@host/projects", "xnat://jane:s3/cret@host/projects"):
        with pytest.raises(UsageError, match="does not belong in a URL") as refused:
            fs.ls(url)
        assert "s3" not in str(refused.value)
    with pytest.raises(UsageError, match="write xnat://HOST/projects/"):
        fs.ls("xnat://projects/ALFA")


def test_which_server(
    lab: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fs: XnatFileSystem
) -> None:
    log_in(lab, tmp_path, monkeypatch)
    host = urlsplit(lab.url).netloc
    assert "/projects/ALFA" in fs.ls("xnat:///projects", detail=False)
    assert f"demo@{host}/projects/ALFA" in fs.ls(f"xnat://demo@{host}/projects", detail=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.toml").write_text(f'[servers.lab]\nurl = "{lab.url}"\nproject = "DWI"\n')
    assert fs.ls("xnat://lab/projects/ALFA", detail=False)[0].startswith("lab/projects/ALFA/")
    only = XnatFileSystem(projects=["DWI"])
    assert only.ls(f"xnat://{host}/projects", detail=False) == [f"{host}/projects/DWI"]
    shared_cores.CORES.close()


def test_a_refused_login_is_tried_once(
    lab: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fs: XnatFileSystem
) -> None:
    """A thousand files that a program opens must not lock the account; another password is another try."""
    at = log_in(lab, tmp_path, monkeypatch)
    monkeypatch.setenv("XNAT_PASS", "wrong")
    for _ in range(5):
        with pytest.raises(PermissionError, match="refused"):
            fs.ls(f"{at}/projects")
    assert len([one for one in lab.requests() if one.login == "demo"]) == 1
    monkeypatch.setenv("XNAT_PASS", "demo")
    assert fs.ls(f"{at}/projects")


def _count_in_child(pipe: Any, fs: XnatFileSystem, url: str, file: Any) -> None:
    try:
        file.seek(900_000)
    except ValueError as error:
        pipe.send(str(error))
    pipe.send(len(fs.cat_file(url)))


def test_forks_threads_and_pickles(
    lab: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fs: XnatFileSystem
) -> None:
    """A process logs in once, whatever its threads and objects; a forked one again."""
    at = log_in(lab, tmp_path, monkeypatch)
    url = f"{at}/{IMAGE}"

    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(fsspec.filesystem("xnat").size(url))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1003970] * 8
    assert len(lab.requests("^GET /data/JSESSION")) == 1
    assert pickle.loads(pickle.dumps(fs)) == fs
    with fs.open(url) as file:
        start = file.read(10)
        copy = pickle.loads(pickle.dumps(file))
        assert copy.tell() == 10 and copy.read(5) == file.read(5) and len(start) == 10
        copy.close()
        ours, theirs = multiprocessing.Pipe()
        forks = multiprocessing.get_context("fork")
        child = forks.Process(target=_count_in_child, args=(theirs, fs, url, file))
        child.start()
        said = [ours.recv() for _ in range(2) if ours.poll(30)]
        child.join(30)
        assert said == ["the file was opened in another process; open it in this one", 1003970]
        assert child.exitcode == 0
        assert file.read(5)  # this process's goes on
    assert len(lab.requests("^GET /data/JSESSION")) == 2
    shared_cores.CORES.close()


def test_the_entry_points_are_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points."fsspec.specs"]\nxnat = "xnatfs.filesystem.XnatFileSystem"' in declared
    assert '"universal_pathlib.implementations"]\nxnat = "xnatfs.universal_path:XnatPath"' in declared
    assert issubclass(Failure, OSError)
