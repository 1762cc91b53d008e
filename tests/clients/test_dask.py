"""Tables collected by the workers of a Dask cluster: two processes here. What comes out is what one process
makes, byte for byte, and the server is not asked more than by one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
import pytest
from pandas.testing import assert_frame_equal

import xnatfs
from tests.support import composed, lab_archive
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.distributed import cluster as by_address
from xnatfs.distributed import collected
from xnatfs.made_table import make
from xnatfs.tables.engine import session_transfer
from xnatfs.tables.output.write import FORMATS

if TYPE_CHECKING:  # 3 s of CPU that each process of the run would spend, for the tests of one of them
    import distributed

SESSIONS = 60
FULL = "COHORT"


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=0, cohort=SESSIONS)) as server:
        yield server


@pytest.fixture(scope="module")
def lab() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[distributed.LocalCluster]:
    import distributed

    folder = tmp_path_factory.mktemp("workers")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        dashboard_address=None,
        local_directory=str(folder),
        env={"HOME": str(folder), "XNAT_USER": "demo", "XNAT_PASS": "demo"},
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: distributed.LocalCluster) -> Iterator[distributed.Client]:
    import distributed

    with distributed.Client(cluster) as client:
        yield client


def logged_in(monkeypatch: pytest.MonkeyPatch, server: DemoServer) -> None:
    """This process; the workers have the password in their environment."""
    for name, value in {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}.items():
        monkeypatch.setenv(name, value)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xnatfs", "table", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_the_files_are_those_of_one_process_and_the_problems_too(
    client: distributed.Client, lab: DemoServer, tmp_path: Path, profile: str
) -> None:
    """A lab's tables, with sessions that have no, damaged or several such files."""
    lab.switches.profile = profile
    problems = 0
    with composed(lab.url, tmp_path / "one") as one, composed(lab.url, tmp_path / "two") as two:
        for key in ("freesurfer6/aparc", "ashs/volumes"):
            given = collected(two, client, "ALFA", key)
            assert len(given) > 3
            made, expected = make(two, "ALFA", key, given=given), make(one, "ALFA", key)
            assert made.problems == expected.problems
            problems += len(made.problems.held)
            for kind in FORMATS:
                paths = [tmp_path / f"{name}.{kind}" for name in ("made", "expected")]
                made.write(paths[0], kind)
                expected.write(paths[1], kind)
                assert paths[0].read_bytes() == paths[1].read_bytes()
    assert problems > 2


def test_the_workers_do_the_work_once_and_log_out(
    client: distributed.Client,
    server: DemoServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each file is asked for once, by a worker."""
    import dask.dataframe

    logged_in(monkeypatch, server)
    server.clear_log()
    with xnatfs.connect(cache_dir=tmp_path / "two") as xnat:
        found = xnat.table(FULL, "freesurfer6/aseg", client=client)
        assert isinstance(found, dask.dataframe.DataFrame)
        frame = found.compute().reset_index(drop=True)
        asked = server.requests(r"^GET .*/files/.*aseg\.stats")
        assert len(asked) == SESSIONS
        begun, ended = (server.requests(f"^{verb} /data/JSESSION") for verb in ("(GET|POST|PUT)", "DELETE"))
        assert (len(begun), len(ended)) == (3, 2), "one login a process; the workers' have ended"
        server.clear_log()
        again = xnat.table(FULL, "freesurfer6/aseg", client=client).compute().reset_index(drop=True)
        assert not server.requests("/files")  # what is stored is not collected again
    with xnatfs.connect(cache_dir=tmp_path / "one") as xnat:
        expected = xnat.table(FULL, "freesurfer6/aseg")
    assert_frame_equal(frame, expected, check_dtype=False)
    assert_frame_equal(again, expected, check_dtype=False)
    assert list(frame.dtypes.map(str).eq("float64")) == list(expected.dtypes.map(str).eq("float64"))


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas 3.1 of what dask does
def test_parts_have_the_rows_of_the_whole(
    cluster: distributed.LocalCluster, server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask.dataframe

    logged_in(monkeypatch, server)
    cache = ("--cache-dir", str(tmp_path / "cache"))
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts"
    assert run(FULL, "freesurfer6/aseg", "-o", str(whole), *cache).returncode == 0
    done = run(FULL, "freesurfer6/aseg", "-o", f"{parts}/", "--dask", cluster.scheduler_address, *cache)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    read = dask.dataframe.read_parquet(parts).compute().reset_index(drop=True)
    assert_frame_equal(read, pandas.read_parquet(whole), check_dtype=False)
    refused = run(FULL, "freesurfer6/aseg", "-o", f"{parts}/", *cache)
    assert refused.returncode == 1 and "is not an empty folder" in refused.stderr


def test_what_a_worker_cannot_have_is_asked_for_here(
    client: distributed.Client,
    server: DemoServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing comes of the workers, whose disks are full, and the table is whole."""
    logged_in(monkeypatch, server)
    client.run(_refuse)
    try:
        with xnatfs.connect(cache_dir=tmp_path / "two") as xnat:
            found = xnat.table(FULL, "freesurfer6/aseg", client=client)
            assert len(found) == SESSIONS * 426
    finally:
        client.run(_refuse, False)


def _refuse(refusing: bool = True) -> None:
    """In a worker: the disk of its cache is full."""
    from xnatfs import distributed as workers
    from xnatfs.errors import Cause, Failure

    def full(*_: object) -> None:
        raise Failure(Cause.NO_SPACE, "the cache of a worker")

    workers.__dict__["collect"] = full if refusing else session_transfer.collect


def test_no_scheduler_is_one_sentence() -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(xnatfs.errors.UsageError, match="no Dask scheduler answers at tcp://127"),
        by_address("tcp://127.0.0.1:9"),
    ):
        pass
    with (
        pytest.raises(xnatfs.errors.UsageError, match="no Dask scheduler answers at nowhere"),
        by_address("nowhere"),
    ):
        pass


def test_a_worker_without_a_login_says_so(
    client: distributed.Client,
    server: DemoServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged_in(monkeypatch, server)
    client.run(_password, None)
    try:
        with (
            xnatfs.connect(cache_dir=tmp_path / "two") as xnat,
            pytest.raises(xnatfs.errors.UsageError, match=r"worker at tcp:.* finds no login"),
        ):
            xnat.table(FULL, "freesurfer6/aseg", client=client)
    finally:
        client.run(_password, "demo")


def test_a_wrong_password_is_sent_once_a_worker(
    client: distributed.Client, server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with every chunk of sessions: the account would be locked."""
    logged_in(monkeypatch, server)
    client.run(_password, "wrong")
    try:
        with xnatfs.connect(cache_dir=tmp_path / "two") as xnat:
            server.clear_log()
            with pytest.raises(xnatfs.errors.UsageError, match=r"worker at tcp:.* cannot log in"):
                xnat.table(FULL, "freesurfer6/aseg", client=client)
        assert (
            1 <= sum(record.status == 401 and record.login == "demo" for record in server.requests("")) <= 2
        )
    finally:
        client.run(_password, "demo")


def _password(value: str | None) -> None:
    """In a worker: the password it finds."""
    os.environ.pop("XNAT_PASS", None)
    if value is not None:
        os.environ["XNAT_PASS"] = value


def test_a_session_as_it_travels_is_what_the_store_keeps(lab: DemoServer, tmp_path: Path) -> None:
    """Without the remarks that come up when the files are put together: they would be there twice."""
    with composed(lab.url, tmp_path) as core:
        for key in ("freesurfer6/aparc", "ashs/volumes"):
            travelled = session_transfer.collect(core.builder, "ALFA", key, ())
            summary = core.builder.summaries.get("ALFA")
            given = session_transfer.take(core.builder, summary, travelled)
            expected = make(core, "ALFA", key)
            assert len(given) > 3
            assert json.dumps(make(core, "ALFA", key, given=given).problems.held) == json.dumps(
                expected.problems.held
            )
