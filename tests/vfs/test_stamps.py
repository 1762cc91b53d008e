"""What changes below a session whose own `last_modified` never moves is seen: in the tree, in its table, in a
later mount and after days.

XNAT's own code was executed (xnat-rest.md 13): an experiment's stamp stays whatever happens below it, and is
blank until the experiment itself was edited. Both states are tried, and a session seen from the project it is
shared into."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import sqlite3
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import md5, read, until, walk
from tests.vfs.conftest import LIMITS, Compose
from xnatfs.core import Core
from xnatfs.demo.control import Changes, Op
from xnatfs.demo.data import build, freesurfer
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer
from xnatfs.tables.engine import materialize

NOW = dataclasses.replace(LIMITS, ttl=0.0)
DAYS = 3 * 86400.0
STATES = ("blank", "set", "shared")


class Study:
    """A session S with a scan, FreeSurfer's result and an assessor; its project P is one user's, OTHER, which
    shares it, another's.
    """

    def __init__(self, state: str) -> None:
        self.archive = Archive(site="T")
        self.make = Maker(self.archive, datetime(2024, 1, 8, 9, 15))
        self.make.user("owner")
        self.make.user("other")
        project = self.make.project("P", "P", members=["owner"])
        self.make.project("OTHER", "OTHER", members=["other"])
        self.subject = self.make.subject(project, "s")
        self.session = self.make.experiment(self.subject, "S", date="2024-01-08")
        self.subject.shares["OTHER"] = self.session.shares["OTHER"] = None
        self.scan = self.make.scan(self.session, "1", "T1")
        self.dicom = self.make.resource(
            self.scan, "DICOM", [self.make.entry("1.dcm", b"one"), self.make.entry("2.dcm", b"two")]
        )
        stats = freesurfer.aseg_stats(self.session.id, "6", "s")
        self.results = self.make.resource(
            self.session, "FREESURFER6", [self.make.entry("stats/aseg.stats", stats)]
        )
        self.changes = Changes(self.archive)
        if state == "set":
            self.archive.edit(self.session)
        self.user, self.project = ("other", "OTHER") if state == "shared" else ("owner", "P")
        self.server = DemoServer(self.archive)

    def change(self, what: str) -> None:
        """One of CHANGES."""
        other = freesurfer.aseg_stats("another", "6", "s") + b"# again\n"
        session = self.session.id
        operations: dict[str, Op] = {
            "result replaced": {
                "op": "put_file",
                "resource": self.results.id,
                "path": "stats/aseg.stats",
                "base64": base64.b64encode(other).decode(),
            },
            "scan": {"op": "add_scan", "session": session, "scan": "2", "type": "T2"},
            "scan removed": {"op": "delete_scan", "session": session, "scan": "1"},
            "scan's type": {"op": "set_type", "session": session, "scan": "1", "type": "FLAIR"},
            "file": {"op": "put_file", "resource": self.dicom.id, "path": "3.dcm", "text": "three"},
            "file removed": {"op": "delete_file", "resource": self.dicom.id, "path": "1.dcm"},
            "resource": {"op": "add_resource", "session": session, "label": "NEW"},
            "resource removed": {"op": "delete_resource", "resource": self.dicom.id},
            "assessor": {
                "op": "add_session",
                "project": "P",
                "label": "A",
                "session_id": session,
                "xsi_type": "xnat:qcManualAssessorData",
            },
        }
        self.changes.apply(operations[what])
        if what == "assessor":
            (assessor,) = (one for one in self.archive.experiments.values() if one.label == "A")
            assessor.shares["OTHER"] = None


CHANGES = (
    *(
        "result replaced",
        "scan",
        "scan removed",
        "scan's type",
        "file",
        "file removed",
        "resource",
        "resource removed",
        "assessor",
    ),
)


@pytest.fixture(params=STATES)
def study(request: pytest.FixtureRequest) -> Iterator[Study]:
    made = Study(request.param)
    with made.server:
        yield made


def seen(mounted: Core, project: str) -> dict[str, str]:
    """Every folder, and every file with its MD5."""
    found: dict[str, str] = {}
    folders = [f"/projects/{project}"]
    while folders:
        folder = folders.pop()
        found[folder] = ""
        for name, attributes in mounted.vfs.entries(folder):
            path = f"{folder}/{name}"
            if stat.S_ISDIR(attributes.mode):
                folders.append(path)
            else:
                found[path] = md5(read(mounted.vfs, path))
    return found


def volumes(mounted: Core, project: str) -> list[dict[str, str]]:
    """The rows of the session's table."""
    text = read(mounted.vfs, f"/tables/{project}/freesurfer6/aseg.csv").decode()
    return list(csv.DictReader(io.StringIO(text)))


def fresh(compose: Compose, study: Study) -> dict[str, str]:
    """What a mount that has never seen the server shows."""
    mounted = compose(study.server, "fresh", user=study.user)
    found = seen(mounted, study.project)
    mounted.close()
    return found


def age(folder: Path, seconds: float) -> None:
    """Make what is kept on the disk so much older."""
    columns = {"listings": "made", "choices": "used", "parsed": "used"}
    for path in folder.rglob("*.sqlite"):
        with sqlite3.connect(path) as database:
            for (table,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall():
                if table in columns:
                    database.execute(
                        f"UPDATE {table} SET {columns[table]} = {columns[table]} - ?", (seconds,)
                    )
        database.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_below_a_session_shows_in_the_tree(study: Study, compose: Compose, change: str) -> None:
    mounted = compose(study.server, user=study.user)
    before = seen(mounted, study.project)
    study.server.call(lambda: study.change(change))
    age_project(mounted)
    after = seen(mounted, study.project)
    assert after != before
    assert after == fresh(compose, study)


@pytest.mark.parametrize("change", ["file removed"])
def test_a_change_shows_though_every_look_asks_again(study: Study, compose: Compose, change: str) -> None:
    """Not only where what is known was asked for once since."""
    mounted = compose(study.server, user=study.user, limits=NOW)
    before = seen(mounted, study.project)
    study.server.call(lambda: study.change(change))
    after = seen(mounted, study.project)
    assert after != before
    assert after == fresh(compose, study)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("days", [False, True])
def test_a_change_shows_in_a_later_mount(
    study: Study, compose: Compose, tmp_path: Path, change: str, days: bool
) -> None:
    first = compose(study.server, user=study.user)
    before = seen(first, study.project)
    first.close()
    study.server.call(lambda: study.change(change))
    if days:
        age(tmp_path, DAYS)
    second = compose(study.server, user=study.user)
    after = seen(second, study.project)
    assert after != before
    assert after == fresh(compose, study)


@pytest.mark.parametrize("study", ["shared"], indirect=True)
def test_sharing_an_assessor_moves_only_its_own_stamp_and_shows(
    study: Study, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made before, shared afterwards; and gone, in a later mount, once the share ends: it is not this user's
    then. Its table has its rows meanwhile.
    """
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)
    other = study.make.experiment(study.subject, "B", date="2024-01-09")
    assessor = study.make.assessor(other, "A", "xnat:qcManualAssessorData")
    stats = freesurfer.aseg_stats(assessor.id, "6", "s")
    study.make.resource(assessor.out_resources, "FREESURFER6", {"stats/aseg.stats": stats})
    share = {"op": "share", "experiment": assessor.id, "project": "OTHER"}
    mounted = compose(study.server, user=study.user, limits=NOW)
    alone = seen(mounted, study.project)
    study.server.call(lambda: study.changes.apply({**share, "experiment": other.id}))
    tree, table = seen(mounted, study.project), volumes(mounted, study.project)
    study.server.call(lambda: study.changes.apply(share))
    assert seen(mounted, study.project).keys() > tree.keys() > alone.keys()
    assert len(volumes(mounted, study.project)) == 2 * len(table)
    mounted.close()
    study.server.call(lambda: study.changes.apply({**share, "end": True}))
    mounted = compose(study.server, user=study.user, limits=NOW)
    until(lambda: seen(mounted, study.project) == tree)
    assert volumes(mounted, study.project) == table


@pytest.mark.parametrize("study", ["shared"], indirect=True)
def test_looking_again_at_shared_sessions_costs_five_requests(study: Study, compose: Compose) -> None:
    mounted = compose(study.server, user=study.user)
    seen(mounted, study.project)
    study.server.clear_log()
    age_project(mounted)
    mounted.vfs.entries("/projects/OTHER/subjects/s/S/SCANS")
    assert quiet(study.server) <= 5, [one.target for one in study.server.requests()]


@pytest.mark.parametrize("later", ["at once", "in a later mount", "after days"])
def test_a_replaced_result_shows_in_its_table(
    study: Study, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)
    mounted = compose(study.server, user=study.user, limits=NOW)
    before = volumes(mounted, study.project)
    assert len(before) > 40
    study.server.call(lambda: study.change("result replaced"))
    if later != "at once":
        mounted.close()
        if later == "after days":
            age(tmp_path, DAYS)
        mounted = compose(study.server, user=study.user, limits=NOW)
    after = volumes(mounted, study.project)
    assert after != before
    assert after == volumes(compose(study.server, "fresh", user=study.user), study.project)


@pytest.mark.parametrize("study", ["set"], indirect=True)
@pytest.mark.parametrize("overdue", [True, False])
def test_who_opens_a_table_once_a_day_gets_todays(
    study: Study, compose: Compose, monkeypatch: pytest.MonkeyPatch, overdue: bool
) -> None:
    """However long its build takes; who opened it a moment ago gets what is there at once."""
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 0.0)
    monkeypatch.setattr(materialize, "_OVERDUE_AFTER_S", 0.0 if overdue else 3600.0)
    mounted = compose(study.server, user=study.user, limits=NOW)
    before = volumes(mounted, study.project)
    study.server.call(lambda: study.change("result replaced"))
    study.server.switches.listing_delay_ms = 100
    assert (volumes(mounted, study.project) != before) is overdue


def test_a_removed_result_leaves_its_table(
    study: Study, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)
    mounted = compose(study.server, user=study.user, limits=NOW)
    assert volumes(mounted, study.project)
    remove = {"op": "delete_file", "resource": study.results.id, "path": "stats/aseg.stats"}
    study.server.call(lambda: study.changes.apply(remove))
    assert volumes(mounted, study.project) == []
    assert b"aseg.stats" in read(mounted.vfs, f"/tables/{study.project}/freesurfer6/aseg.problems.csv")


# --- what moves no stamp ------------------------------------------------------------------------------------


def overwrite(study: Study) -> bytes:
    """Other bytes of equal size: no stamp moves, the digest of the listing does."""
    entry = study.results.entries[0]
    assert entry.content is not None
    old = entry.content.read(0, entry.content.size)
    rows = [line for line in old.splitlines(keepends=True) if b"Left-Hippocampus" in line]
    new = old.replace(rows[0], rows[0].replace(b"1", b"2").replace(b"3", b"4"))
    assert new != old and len(new) == len(old)
    put = {
        "op": "put_file",
        "resource": study.results.id,
        "path": "stats/aseg.stats",
        "base64": base64.b64encode(new).decode(),
    }
    stamps = study.session.type_modified, study.subject.last_modified, study.session.last_modified
    study.server.call(lambda: study.changes.apply(put))
    assert stamps == (study.session.type_modified, study.subject.last_modified, study.session.last_modified)
    return new


def test_an_overwrite_of_equal_size_shows_after_some_hours(
    study: Study, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)
    path = f"/projects/{study.project}/subjects/s/S/RESOURCES/FREESURFER6/stats/aseg.stats"
    hours = dataclasses.replace(NOW, relist_after=0.0)
    mounted = compose(study.server, user=study.user, limits=NOW)
    read(mounted.vfs, path)
    before = volumes(mounted, study.project)
    new = overwrite(study)
    assert volumes(mounted, study.project) == before
    mounted.close()
    mounted = compose(study.server, user=study.user, limits=hours)
    until(
        lambda: read(mounted.vfs, path) == new
    )  # what an earlier mount listed is shown, and asked for again behind
    assert (
        volumes(mounted, study.project)
        == volumes(compose(study.server, "fresh", user=study.user), study.project)
        != before
    )


def test_an_overwrite_of_equal_size_shows_at_once_after_a_refresh(
    study: Study, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)
    path = f"/projects/{study.project}/subjects/s/S/RESOURCES/FREESURFER6/stats/aseg.stats"
    mounted = compose(study.server, user=study.user)
    read(mounted.vfs, path)
    before = volumes(mounted, study.project)
    new = overwrite(study)
    mounted.refresh()
    assert read(mounted.vfs, path) == new
    assert volumes(mounted, study.project) != before


# --- what it costs ------------------------------------------------------------------------------------------


def quiet(server: DemoServer) -> int:
    """The requests so far, once all is quiet."""
    count = -1

    def same() -> bool:
        nonlocal count
        before, count = count, len(server.requests())
        time.sleep(0.15)
        return before == count

    until(same)
    return count


@pytest.fixture(scope="module")
def thousand() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=1000, scans=4, files=1, file_size=100)) as server:
        yield server


def look(mounted: Core) -> None:
    """What `ls -R` of a project asks for down to the resource folders."""
    for subject, _ in mounted.vfs.entries("/projects/SCALE/subjects"):
        for session, _ in mounted.vfs.entries(f"/projects/SCALE/subjects/{subject}"):
            for scan, _ in mounted.vfs.entries(f"/projects/SCALE/subjects/{subject}/{session}/SCANS"):
                mounted.vfs.entries(f"/projects/SCALE/subjects/{subject}/{session}/SCANS/{scan}")


@pytest.mark.parametrize("state", ["blank", "set"])
def test_looking_again_at_a_thousand_sessions_costs_five_requests(
    thousand: DemoServer, compose: Compose, state: str
) -> None:
    if state == "set":
        thousand.call(lambda: Changes(thousand.archive).apply({"op": "edit"}))
    mounted = compose(thousand)
    thousand.clear_log()
    look(mounted)
    assert quiet(thousand) <= 10
    for _ in range(2):
        thousand.clear_log()
        age_project(mounted)
        look(mounted)
        assert quiet(thousand) <= 5, [one.target for one in thousand.requests()]
        assert sum(one.sent for one in thousand.requests()) <= 700_000
    mounted.close()


def test_one_changed_session_costs_its_own_requests(thousand: DemoServer, compose: Compose) -> None:
    mounted = compose(thousand)
    look(mounted)
    (session,) = (one for one in thousand.archive.experiments.values() if one.label == "sub00500_MR1")
    thousand.call(
        lambda: Changes(thousand.archive).apply(
            {"op": "add_scan", "session": session.id, "scan": "9", "type": "NEW"}
        )
    )
    thousand.clear_log()
    age_project(mounted)
    look(mounted)
    assert "9-NEW" in [
        name for name, _ in mounted.vfs.entries("/projects/SCALE/subjects/sub00500/sub00500_MR1/SCANS")
    ]
    assert quiet(thousand) <= 5 + 4, [one.target for one in thousand.requests()]
    mounted.close()


def age_project(mounted: Core) -> None:
    """Let the project be old enough to be looked at again."""
    mounted.listing_service.clock.advance(LIMITS.ttl + 100.0)


def test_every_file_of_a_walk_is_still_there(thousand: DemoServer, compose: Compose) -> None:
    mounted = compose(thousand)
    assert len(list(walk(mounted.vfs, "/projects/SCALE/subjects/sub00001"))) == 4
