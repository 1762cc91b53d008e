"""Files that help where one stands: which tables are built, why a project is empty, what is under way."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator

import pytest

from tests.support import read, until, walk
from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.cli import status
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.collect import Collector
from xnatfs.tables.engine.session_results import SessionResult
from xnatfs.vfs import Vfs

SESSIONS = 6
TABLES = "/tables/COHORT/README.txt"
ASEG = "/tables/COHORT/freesurfer6/aseg.csv"


def text(vfs: Vfs, path: str) -> str:
    """A text, whose size `stat` tells beforehand."""
    size = vfs.attributes(path).size
    data = read(vfs, path)
    assert len(data) == size
    return data.decode()


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


# --- tables/PROJECT/README.txt ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _cohort() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=0, cohort=SESSIONS)) as server:
        yield server


@pytest.fixture
def cohort(_cohort: DemoServer) -> DemoServer:
    _cohort.clear_log()
    return _cohort


def line_of(vfs: Vfs, key: str) -> str:
    (line,) = (one for one in text(vfs, TABLES).splitlines() if one.startswith(f"{key} "))
    return line


def test_the_tables_of_a_project_and_their_state(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    vfs = mounted.vfs
    listed = names(vfs, "/tables/COHORT")
    cohort.clear_log()
    before = text(vfs, TABLES)
    assert cohort.requests() == []  # it builds nothing, and asks for nothing that `ls` does not ask for
    pipelines = {line.partition("/")[0] for line in before.splitlines() if line.endswith("not yet")}
    assert {"freesurfer6", "ashs"} <= pipelines & set(listed)
    assert line_of(vfs, "freesurfer6/aseg").split() == ["freesurfer6/aseg", "not", "yet"]

    read(vfs, ASEG)
    cohort.clear_log()
    _, day, clock, *counts = line_of(vfs, "freesurfer6/aseg").split()
    assert counts == [str(SESSIONS), "0", "0", "0", str(426 * SESSIONS)]
    about = {
        name: vfs.xattr(ASEG, f"user.xnat.{name}").decode() for name in ("built_at", "sessions", "problems")
    }
    assert (about["sessions"], about["problems"]) == (str(SESSIONS), "0")
    assert len(day) == 10 and len(clock) == 5 and about["built_at"][:4] == day[:4]
    assert line_of(vfs, "ashs/volumes").endswith("not yet")
    assert cohort.requests() == []


def test_the_state_of_a_table_outlives_the_mount(cohort: DemoServer, compose: Compose) -> None:
    read(compose(cohort).vfs, ASEG)
    again = compose(cohort).vfs
    names(again, "/tables/COHORT")
    cohort.clear_log()
    assert line_of(again, "freesurfer6/aseg").split()[3] == str(SESSIONS)
    assert cohort.requests() == []


def test_the_date_of_the_text_is_that_of_the_newest_table(cohort: DemoServer, compose: Compose) -> None:
    vfs = compose(cohort).vfs
    before = vfs.attributes(TABLES)
    assert vfs.attributes(TABLES) == before  # a second `rsync` copies nothing
    read(vfs, ASEG)
    assert vfs.attributes(TABLES).mtime > before.mtime


def test_a_table_that_has_changed_since_says_so(compose: Compose) -> None:
    with DemoServer(build("scale", sessions=0, cohort=2)) as server:
        mounted = compose(server)
        read(mounted.vfs, ASEG)
        manifest = mounted.outputs.manifest("COHORT", "freesurfer6/aseg")
        assert manifest is not None
        manifest.checked -= 2 * LIMITS.ttl
        assert not line_of(mounted.vfs, "freesurfer6/aseg").endswith("when it is opened")
        session = next(one for one in server.archive.experiments.values() if one.project == "COHORT")
        server.call(lambda: server.archive.touch(session))
        mounted.listing_service.clock.advance(LIMITS.ttl + 1)
        until(lambda: line_of(mounted.vfs, "freesurfer6/aseg").endswith("renewed when it is opened"))


# --- .xnatfs/progress.txt -----------------------------------------------------------------------------------


class Gate:
    """Lets two sessions of a table through, and the others once it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self._passed = threading.Semaphore(2)
        collect = Collector.collect

        def held(collector: Collector, experiment: ExperimentRecord) -> SessionResult:
            if not self._passed.acquire(blocking=False):
                assert self.opened.wait(60)
            return collect(collector, experiment)

        monkeypatch.setattr(Collector, "collect", held)


def test_a_build_shows_how_far_it_is(
    cohort: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    mounted = compose(cohort)
    vfs = mounted.vfs
    assert read(vfs, "/.xnatfs/progress.txt") == b"nothing is in progress\n"
    builder = threading.Thread(target=read, args=(vfs, ASEG))
    builder.start()
    try:
        said = f"building the table COHORT/freesurfer6/aseg: 2 of {SESSIONS} sessions, since "
        until(lambda: text(vfs, "/.xnatfs/progress.txt").startswith(said))
        assert f"being built: 2 of {SESSIONS} sessions, since " in line_of(vfs, "freesurfer6/aseg")
        report = mounted.report()
        (one,) = report["tables"]
        assert (one["project"], one["table"], one["done"], one["total"]) == (
            *("COHORT", "freesurfer6/aseg", 2, SESSIONS),
        )
        assert f"\n  {said}" in status._text(json.loads(json.dumps(report)))
    finally:
        gate.opened.set()
        builder.join(60)
    assert mounted.report()["tables"] == [] and said not in status._text(mounted.report())
    until(lambda: text(vfs, "/.xnatfs/progress.txt") == "nothing is in progress\n")


def test_a_download_shows_how_far_it_is(compose: Compose) -> None:
    size = 40 << 20
    with DemoServer(build("scale", sessions=0, big_files={"one.bin": size})) as server:
        mounted = compose(server)
        opened = mounted.vfs.open("/projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI/one.bin")
        try:
            assert len(mounted.vfs.read(opened.handle, 0, 1000)) == 1000
            ((file, received, whole),) = mounted.content_manager.downloads()
            assert file.endswith("/one.bin") and 1000 <= received < whole == size
            said = read(mounted.vfs, "/.xnatfs/progress.txt").decode()
            assert said.startswith(f"downloading {file}: ") and said.endswith(" of 41.9 MB\n")
            assert mounted.report()["contents"]["bytes received"] >= received
        finally:
            mounted.vfs.release(opened.handle)
        until(lambda: mounted.content_manager.downloads() == [])  # once what was on its way has come


def test_status_shows_only_a_few_lines_of_what_is_under_way() -> None:
    running = [{"project": "P", "table": str(one), "done": 0, "total": 9, "started": 0.0} for one in range(8)]
    lines = status._under_way({"mountpoint": "/mnt/xnat", "tables": running})
    assert len(lines) == 6 and lines[-1] == "and 3 more in /mnt/xnat/.xnatfs/progress.txt"


# --- projects/PROJECT/README.txt ----------------------------------------------------------------------------


def test_a_project_that_is_refused_says_why(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab, user="outsider").vfs
    assert names(vfs, "/projects/MESSY") == ["README.txt", "subjects", "resources"]
    said = " ".join(text(vfs, "/projects/MESSY/README.txt").split())
    assert "You can see that the project MESSY exists, but not what is in it" in said
    assert (
        "You are logged in as outsider, who is in no group of this project. The project is protected." in said
    )
    assert f"Its page, {lab.url}/data/projects/MESSY," in said
    rooms = ("/archive/projects/MESSY", "/views/MESSY", "/tables/MESSY")
    for path in ("/projects/MESSY/subjects", "/projects/MESSY/resources", *rooms):
        with pytest.raises(OSError) as caught:
            vfs.entries(path)
        assert caught.value.errno == errno.EACCES  # no copy of it succeeds
    assert len(lab.requests(r"accessible=true")) == 1
    assert "README.txt" not in names(vfs, "/projects/DWI")  # which is public


def test_an_empty_project_says_so(shelf: Shelf, compose: Compose) -> None:
    for name in ("EMPTY", "VOID"):
        shelf.make.project(name, name, members=["demo"], pi=("Ada", "Sample"))
    shelf.make.subject(shelf.archive.projects["VOID"], "alone")
    mounted = compose(shelf.server)
    vfs = mounted.vfs
    assert [names(vfs, f"/projects/{one}") for one in ("EMPTY", "VOID", "P")] == [
        *(["README.txt", "subjects"], ["README.txt", "subjects"], ["subjects"]),
    ]
    said = " ".join(text(vfs, "/projects/EMPTY/README.txt").split())
    assert "lists nothing to read in the project EMPTY: no subjects, no sessions, no files." in said
    assert "demo, who is in the group Members of this project. The project is private." in said
    assert "Its principal investigator is Sample, Ada." in said
    assert "VOID: 1 subject, no sessions" in text(vfs, "/projects/VOID/README.txt")
    assert len(shelf.server.requests(r"accessible=true")) == 1  # for all of them
    assert [path for path, _ in walk(vfs, "/projects/VOID")] == ["/projects/VOID/README.txt"]
    for room in ("/archive/projects/VOID", "/views/VOID"):  # a BIDS dataset has its own files, and no other
        assert "README.txt" not in {path.rpartition("/")[2] for path, _ in walk(vfs, room)}


def test_it_is_gone_once_there_is_something(shelf: Shelf, compose: Compose) -> None:
    project = shelf.make.project("EMPTY", "EMPTY", members=["demo"])
    mounted = compose(shelf.server)
    assert "README.txt" in names(mounted.vfs, "/projects/EMPTY")

    def upload() -> None:
        shelf.make.experiment(shelf.make.subject(project, "s"), "S", date="2024-01-08")

    shelf.server.call(upload)
    mounted.refresh()
    assert names(mounted.vfs, "/projects/EMPTY") == ["subjects"]
    with pytest.raises(OSError) as caught:
        mounted.vfs.attributes("/projects/EMPTY/README.txt")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    "switches", [{"match": "accessible", "fail_next": -1}, {"match": "accessible", "silent_next": 1}]
)
def test_a_server_that_does_not_say_who_one_is_holds_nothing_up(
    shelf: Shelf, compose: Compose, switches: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xnatfs.listing import project_access

    monkeypatch.setattr(project_access, "_LONGEST_WAIT_S", 0.2)
    shelf.make.project("EMPTY", "EMPTY", members=["demo"])
    mounted = compose(shelf.server)
    names(mounted.vfs, "/projects")
    shelf.server.switches.update(switches)
    said = text(mounted.vfs, "/projects/EMPTY/README.txt")
    assert "no subjects, no sessions, no files" in said and "logged in" not in said
    asked = len(shelf.server.requests(r"accessible=true"))
    assert text(mounted.vfs, "/projects/EMPTY/README.txt") == said
    assert len(shelf.server.requests(r"accessible=true")) == asked  # not again at every look
    assert mounted.report()["errors"] == {}


def test_a_project_whose_listings_fail_is_an_error_and_not_empty(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    names(vfs, "/projects")
    lab.switches.database_down = True
    with pytest.raises(OSError) as caught:
        vfs.entries("/projects/ALFA")
    assert caught.value.errno == errno.EIO
