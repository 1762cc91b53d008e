"""XNAT without its database, or with one failing query, answers 404 and empty lists for what exists
(xnat-rest.md 13).

Nothing disappears, no table loses a row, and all is right again by itself. The switches answer as XNAT's own
code was recorded to."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator

import pytest

from tests.support import as_new, composed, lab_archive, read, walk
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from tests.vfs.test_tables import ASEG, NOW, age, rows
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.tables.engine import materialize

DEAD: list[dict[str, object]] = [{"database_down": True}, {"pool_exhausted": True, "pool_wait_s": 0.1}]
FAILING = [
    {"failing_query": "."},
    {"failing_query": "/files"},
    {"failing_query": "/resources"},
    {"failing_query": "/experiments"},
    {"failing_query": "/subjects"},
    {"failing_table": "img_assessor_out_resource"},
    {"failing_table": "xnat_imagescandata"},
    {"failing_table": "xnat_subjectdata_resource"},
    {"failing_table": "xnat_projectdata_meta_data"},
]
TOPS = ("/projects/ALFA", "/archive/projects/ALFA", "/views/ALFA/by-scan-type")
HEALED: dict[str, object] = {
    "database_down": False,
    "pool_exhausted": False,
    "failing_query": "",
    "failing_table": "",
}


# Less to walk and to read four times a test: visits that have nothing of a kind that another has not, and all
# but a few files of each resource outside of one session, which has enough of them for a zip.
ALIKE = ("sub001_MR2", "sub003_MR1", "007_MR2")
WHOLE = "sub001_MR1"
FEW = 3


@pytest.fixture(scope="module")
def _own() -> Iterator[DemoServer]:
    archive = lab_archive()
    gone = {one.id for one in archive.experiments.values() if one.project == "ALFA" and one.label in ALIKE}
    for one in list(archive.experiments.values()):
        if one.id in gone or one.session_id in gone:
            del archive.experiments[one.id]
    for session in archive.experiments.values():
        if session.label != WHOLE:
            of_scans = [resource for scan in session.scans for resource in scan.resources]
            for resource in (*session.resources, *of_scans):
                del resource.entries[FEW:]
    with DemoServer(archive) as server:
        yield server


@pytest.fixture
def own(_own: DemoServer) -> DemoServer:
    """A part of the lab, its switches, sessions and log as new. Nothing here changes its data."""
    as_new(_own)
    return _own


@pytest.fixture(scope="module")
def truth(_own: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int | str]:
    """What a mount shows of a server that is well."""
    with composed(_own.url, tmp_path_factory.mktemp("truth"), limits=LIMITS) as mounted:
        return everything(mounted)


def everything(mounted: Core) -> dict[str, int | str]:
    """Every file with a hash of what it holds, or why it cannot be read."""
    found: dict[str, int | str] = {}
    for top in TOPS:
        for path, _ in walk(mounted.vfs, top):
            try:
                found[path] = hash(read(mounted.vfs, path))
            except OSError as error:
                found[path] = errno.errorcode[error.errno or 0]
    return found


def age_all(mounted: Core) -> None:
    """Let everything that is known be days old: the next look asks the server."""
    mounted.listing_service.clock.advance(300_000.0)


def refuses_logins(switches: dict[str, object]) -> bool:
    """Whether nobody can log in meanwhile: the session's end is asked of the database, too."""
    return switches in DEAD or switches == {"failing_query": "."}


def name(switches: dict[str, object]) -> str:
    return "-".join(f"{key}={value}" for key, value in switches.items())


@pytest.mark.parametrize("which", [0, 3])
def test_no_subject_loses_its_resources_to_an_item_without_them(
    shelf: Shelf, compose: Compose, which: int
) -> None:
    """XNAT's subject form fails, items come without the subject's resources, and so many sessions as subjects
    leave nothing to compare with.
    """

    def prepare() -> None:
        for number in range(5):
            subject = shelf.make.subject(shelf.project, f"s{number}")
            session = shelf.make.experiment(subject, f"e{number}", date="2024-01-08")
            shelf.make.resource(shelf.make.scan(session, "1", "T1"), "NIFTI", {"t1.nii": b"image"})
            if number == which:
                shelf.make.resource(subject, "consent", {"form.pdf": b"pdf"})

    shelf.server.call(prepare)
    shelf.switches.failing_table = "xnat_subjectdata_resource"
    core = compose(shelf.server, limits=NOW)
    with pytest.raises(OSError):
        core.vfs.entries(f"/projects/P/subjects/s{which}")
    assert core.vfs.entries(f"/archive/projects/P/experiments/e{which}")
    shelf.switches.failing_table = ""
    age_all(core)
    names = [name for name, _ in core.vfs.entries(f"/projects/P/subjects/s{which}")]
    assert names == [f"e{which}", "RESOURCES"]


@pytest.mark.parametrize("switches", [*DEAD, *FAILING], ids=name)
def test_nothing_disappears_from_a_running_mount(
    own: DemoServer, compose: Compose, switches: dict[str, object]
) -> None:
    mounted = compose(own)
    before = everything(mounted)
    assert len(before) > 100
    own.switches.update(switches)
    age_all(mounted)
    during = everything(mounted)
    assert during.keys() == before.keys()
    assert {path: what for path, what in during.items() if what not in (before[path], "EIO")} == {}
    assert own.switches.fired["database"]
    own.switches.update(HEALED)
    age_all(mounted)
    assert everything(mounted) == before
    mounted.close()
    # And nothing wrong was kept.
    assert everything(compose(own)) == before


@pytest.mark.parametrize("switches", [*DEAD, *FAILING], ids=name)
def test_a_mount_made_in_the_middle_of_it_shows_what_was_or_an_error(
    own: DemoServer, compose: Compose, switches: dict[str, object]
) -> None:
    first = compose(own)
    before = everything(first)
    first.close()
    own.switches.update(switches)
    try:
        second = compose(own)
        during = everything(second)
    except OSError as error:
        assert error.errno == errno.EIO
    else:
        assert during.keys() == before.keys()
        assert {path: what for path, what in during.items() if what not in (before[path], "EIO")} == {}
    own.switches.update(HEALED)
    second = compose(own)
    assert everything(second) == before


@pytest.mark.parametrize("switches", [*DEAD, *FAILING], ids=name)
def test_a_mount_that_knows_nothing_shows_less_only_as_an_error(
    own: DemoServer, truth: dict[str, int | str], compose: Compose, switches: dict[str, object]
) -> None:
    if refuses_logins(switches):
        with pytest.raises(OSError) as caught:
            own.switches.update(switches)
            compose(own, "new")
        assert caught.value.errno == errno.EIO
        own.switches.update(HEALED)
    mounted = compose(own, "new")
    own.switches.update(switches)
    failed: list[str] = []

    def look(folder: str) -> Iterator[str]:
        try:
            entries = mounted.vfs.entries(folder)
        except OSError as error:
            assert error.errno == errno.EIO, folder
            failed.append(folder)
            return
        for entry, attributes in entries:
            path = f"{folder}/{entry}"
            if attributes.mode & 0o040000:
                yield from look(path)
            else:
                yield path

    found = {path for top in TOPS for path in look(top)}
    lacking = {path for path in truth.keys() - found if not any(path.startswith(folder) for folder in failed)}
    assert lacking == set()
    assert found <= truth.keys()
    own.switches.update(HEALED)
    age_all(mounted)
    assert everything(mounted) == truth


@pytest.fixture(scope="module")
def _cohort() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=0, cohort=12)) as server:
        yield server


@pytest.fixture
def cohort(_cohort: DemoServer) -> DemoServer:
    """Sessions with measurements, all of it as new."""
    as_new(_cohort)
    return _cohort


@pytest.mark.parametrize("switches", [*DEAD, *FAILING], ids=name)
@pytest.mark.parametrize("refreshed", [False, True])
def test_no_table_loses_a_row(
    cohort: DemoServer,
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    switches: dict[str, object],
    refreshed: bool,
) -> None:
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    mounted = compose(cohort)
    before = rows(mounted, ASEG)
    assert len(before) > 12
    cohort.switches.update(switches)
    for _ in range(2):
        age(mounted)
        age_all(mounted)
        if refreshed:
            mounted.refresh()
        try:
            assert rows(mounted, ASEG) == before
        except OSError as error:
            assert refreshed and error.errno == errno.EIO
    cohort.switches.update(HEALED)
    age(mounted)
    age_all(mounted)
    assert rows(mounted, ASEG) == before


def test_what_offline_needs_is_not_erased(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("f", b"content"))
    mounted = compose(shelf.server, limits=NOW)
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    shelf.switches.database_down = True
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content"
    assert [entry for entry, _ in mounted.vfs.entries(FOLDER)] == ["f"]
    mounted.close()
    offline = compose(shelf.server, offline=True)
    assert read(offline.vfs, f"{FOLDER}/f") == b"content"


def test_a_project_is_gone_when_the_list_of_projects_is_without_it(shelf: Shelf, compose: Compose) -> None:
    mounted = compose(shelf.server, limits=NOW)
    assert mounted.vfs.entries(FOLDER) == []
    shelf.server.call(lambda: shelf.project.members.clear())
    with pytest.raises(OSError) as caught:
        mounted.vfs.entries(FOLDER)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("shorter", [False, True])
def test_a_file_is_gone_when_the_counts_agree(shelf: Shelf, compose: Compose, shorter: bool) -> None:
    for entry in ("a", "b"):
        shelf.put(shelf.make.entry(entry, entry.encode()))
    mounted = compose(shelf.server, limits=dataclasses.replace(LIMITS, ttl=0.0))
    assert [entry for entry, _ in mounted.vfs.entries(FOLDER)] == ["a", "b"]

    def remove() -> None:
        del shelf.resource.entries[0]
        if not shorter:
            shelf.resource.entries.clear()
        shelf.archive.touch(shelf.session)

    shelf.server.call(remove)
    assert [entry for entry, _ in mounted.vfs.entries(FOLDER)] == (["b"] if shorter else [])
    assert mounted.report()["oddities"] == 0
