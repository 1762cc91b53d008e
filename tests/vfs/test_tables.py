"""Measurement tables in the tree, without a mount: their cost, how they follow the server, what a user sees
where something is wrong.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support import lab_archive, read, until
from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.data import broken, build, freesurfer, nord
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.lab import by_label
from xnatfs.demo.model import Archive, BytesContent, CatalogEntry, Experiment, LazyEntries
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure, UsageError
from xnatfs.tables.engine import materialize
from xnatfs.tables.engine.from_listings import LISTED
from xnatfs.tree.node import LARGER_THAN_ANY_TABLE

SESSIONS = 40
ASEG = "/tables/COHORT/freesurfer6/aseg.csv"
NOW = dataclasses.replace(LIMITS, ttl=0.0)
Rows = list[dict[str, str]]


@pytest.fixture
def cohort() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=0, cohort=SESSIONS)) as server:
        yield server


@pytest.fixture
def nothing_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every opening compares with the server."""
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.0)


def age(mounted: Core) -> None:
    """Let all that is known be as old as it may become: the next look asks the server."""
    long = LIMITS.ttl + 100.0
    mounted.listing_service.clock.advance(long)
    for key in (*mounted.builder.tables, *LISTED):
        if (manifest := mounted.outputs.manifest("COHORT", key)) is not None:
            manifest.checked -= long


def parsed(data: bytes) -> Rows:
    return list(csv.DictReader(io.StringIO(data.decode())))


def rows(mounted: Core, path: str) -> Rows:
    return parsed(read(mounted.vfs, path))


def count(server: DemoServer) -> int:
    """The requests so far, once all is quiet."""
    seen = -1

    def quiet() -> bool:
        nonlocal seen
        before, seen = seen, len(server.requests())
        time.sleep(0.15)
        return before == seen

    until(quiet)
    return seen


def together(server: DemoServer, pattern: str) -> int:
    """How many of these requests were under way at the same time, at most."""
    spans = [(one.time, one.time + one.duration) for one in server.requests(pattern)]
    return max(sum(1 for start, end in spans if start <= moment < end) for moment, _ in spans)


def true_aseg(session: str, version: str) -> dict[tuple[str, str], str]:
    """(measurement, region) -> the text in the file."""
    found: dict[tuple[str, str], str] = {}
    for name, (value, unit) in m.aseg_header(session, version).items():
        if name != "CortexVol":  # bx has it of aparc
            found["Volume_mm3" if unit == "mm^3" else unit, name] = str(value)
    return found | {
        (column, region): str(value)
        for region, row in m.aseg(session, version).items()
        for column, value in row.items()
    }


def cells(found: Rows, *keys: str) -> dict[str, dict[tuple[str, ...], str]]:
    """Session's label -> the keys' cells -> value."""
    sessions: dict[str, dict[tuple[str, ...], str]] = {}
    for row in found:
        sessions.setdefault(row["label"], {})[tuple(row[key] for key in keys)] = row["value"]
    assert sum(map(len, sessions.values())) == len(found), "a row stands twice"
    return sessions


def experiments(archive: Archive, project: str) -> list[Experiment]:
    return [one for one in archive.experiments.values() if one.project == project and not one.is_assessor]


def replace(
    server: DemoServer, session: Experiment, label: str, end: str, data: bytes | None, *, touch: bool = True
) -> None:
    """Another content for a file of a session, as an upload over it."""

    def change() -> None:
        (resource,) = (one for one in session.resources if one.label == label)
        at = next(number for number, entry in enumerate(resource.entries) if entry.path.endswith(end))
        stamp = server.archive.tick()
        content = None if data is None else BytesContent(data)
        resource.entries[at] = CatalogEntry(resource.entries[at].path, content, stamp)
        if touch:
            server.archive.touch(session)

    server.call(change)


# --- what it costs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "each"), [("full", 1), ("proven", 3)])
def test_a_table_costs_a_request_a_session(
    cohort: DemoServer, compose: Compose, profile: str, each: int
) -> None:
    """From the mount to the last byte. One more where the server does not list the resources of all sessions
    at once, and one where it does not count their files: then only a listing tells which of two is the first.
    """
    cohort.switches.profile = profile
    mounted = compose(cohort)
    cohort.clear_log()
    found = cells(rows(mounted, ASEG), "measurement", "region")
    requests = count(cohort)
    print(f"\n{profile}: {requests} requests for {SESSIONS} sessions")
    assert requests <= each * SESSIONS + 10
    assert found == {one.label: true_aseg(one.id, "6") for one in experiments(cohort.archive, "COHORT")}


def test_files_are_fetched_at_the_same_time(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    cohort.switches.latency_ms = 60.0
    read(mounted.vfs, ASEG)
    assert len(cohort.requests(r"aseg\.stats")) == SESSIONS
    assert together(cohort, r"aseg\.stats") >= 5


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_after_a_remount_it_costs_at_most_four_requests(
    cohort: DemoServer, compose: Compose, profile: str
) -> None:
    cohort.switches.profile = profile
    first = compose(cohort)
    data = read(first.vfs, ASEG)
    first.close()
    cohort.clear_log()
    second = compose(cohort)
    age(second)
    assert second.vfs.attributes(ASEG).size == len(data)
    assert read(second.vfs, ASEG) == data
    requests = count(cohort)
    print(f"\n{profile}: {[one.target for one in cohort.requests()]}")
    assert requests <= 4
    assert not cohort.requests(r"/files")


@pytest.mark.parametrize("remounted", [False, True])
@pytest.mark.parametrize(("profile", "most"), [("full", 6), ("proven", 7)])
def test_after_one_session_changed_it_costs_a_few(
    cohort: DemoServer, compose: Compose, profile: str, most: int, remounted: bool
) -> None:
    """A listing more where the server does not count the files of resources."""
    cohort.switches.profile = profile
    mounted = compose(cohort)
    before = parsed(read(mounted.vfs, ASEG))
    (session,) = (one for one in experiments(cohort.archive, "COHORT") if one.label == "c00017_MR1")
    replace(
        cohort, session, "FREESURFER6", "aseg.stats", freesurfer.aseg_stats("another", "6", session.label)
    )
    if remounted:
        mounted.close()
    if remounted:
        cohort.clear_log()
        mounted = compose(cohort)
    age(mounted)
    if not remounted:
        mounted.listing_service.projects.all()  # has aged, too, and is not what is counted here
        cohort.clear_log()
    after = rows(mounted, ASEG)
    requests = count(cohort)
    print(f"\n{profile}: {[one.target for one in cohort.requests()]}")
    assert requests <= most
    assert cells(after, "measurement", "region")[session.label] == true_aseg("another", "6")
    assert [row for row in after if row["ID"] != session.id] == [
        row for row in before if row["ID"] != session.id
    ]


def test_another_format_costs_nothing_more(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    read(mounted.vfs, ASEG)
    cohort.clear_log()
    assert read(mounted.vfs, ASEG.replace(".csv", ".parquet")).startswith(b"PAR1")
    assert read(mounted.vfs, ASEG.replace(".csv", "_wide.csv")).count(b"\n") == SESSIONS + 1
    assert read(mounted.vfs, ASEG.replace(".csv", ".problems.csv")).count(b"\n") == 1
    assert not cohort.requests("/files/")


def test_where_paths_cannot_be_guessed_a_session_costs_two_requests_not_more(compose: Compose) -> None:
    """FreeSurfer ran under a code that is nowhere in XNAT, and left as many files in each."""
    archive = build("scale", sessions=0, cohort=SESSIONS)
    for number, one in enumerate(experiments(archive, "COHORT")):
        (resource,) = (made for made in one.resources if made.label == "FREESURFER6")
        path = f"code{number * 7919 % 1000:03d}/stats/aseg.stats"
        data = freesurfer.aseg_stats(one.id, "6", "code")
        rest = [f"code/mri/{name:03}.mgz" for name in range(50)]
        resource.entries = [CatalogEntry(name, BytesContent(b""), archive.clock) for name in rest] + [
            CatalogEntry(path, BytesContent(data), archive.clock)
        ]
    with DemoServer(archive) as server:
        mounted = compose(server)
        server.clear_log()
        found = cells(rows(mounted, ASEG), "measurement", "region")
        requests = count(server)
        assert found == {one.label: true_aseg(one.id, "6") for one in experiments(archive, "COHORT")}
        assert (
            requests <= 2 * SESSIONS + 60
        )  # each of the sixteen that gather at once may guess in vain a few times


def test_a_file_that_no_session_has_does_not_make_them_be_asked_one_after_the_other(
    cohort: DemoServer, compose: Compose
) -> None:
    cohort.switches.latency_ms = 30.0
    mounted = compose(cohort)
    cohort.clear_log()
    assert rows(mounted, "/tables/COHORT/freesurfer6/aparc_DKT.csv") == []
    problems = rows(mounted, "/tables/COHORT/freesurfer6/aparc_DKT.problems.csv")
    assert len(problems) == SESSIONS and all("has none of the files" in row["problem"] for row in problems)
    assert count(cohort) <= SESSIONS + 10
    assert together(cohort, r"/files\?") >= 5


# --- files --------------------------------------------------------------------------------------------------


def test_sizes_are_a_placeholder_until_it_is_open_and_then_true(cohort: DemoServer, compose: Compose) -> None:
    vfs = compose(cohort).vfs
    folder, name = ASEG.rsplit("/", 1)
    before = dict(vfs.entries(folder))
    assert set(before) >= {name, "aseg.xlsx", "aseg.parquet", "aseg_wide.csv", "aseg.problems.csv"}
    assert all(one.size > 0 for one in before.values())
    opened = vfs.open(ASEG)
    size = vfs.size_of(opened.handle)
    assert opened.size_changed and size != before[name].size
    assert len(vfs.read(opened.handle, 0, size + 1)) == size
    assert vfs.attributes(ASEG).size == dict(vfs.entries(folder))[name].size == size
    vfs.release(opened.handle)
    assert vfs.attributes(ASEG).size == size


@pytest.mark.parametrize("path", [ASEG, "/tables/COHORT/sessions.csv"])
def test_a_table_that_changed_on_the_server_tells_no_old_size(
    cohort: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It is longer by now: what copies as many bytes as it was told would cut it."""
    monkeypatch.setattr(materialize, "_STALE_AFTER_S", 30.0)  # however busy this machine is
    mounted = compose(cohort)
    vfs = mounted.vfs
    old = read(vfs, path)
    age(mounted)
    assert vfs.attributes(path).size == len(old)
    opened = vfs.open(path)
    session = experiments(cohort.archive, "COHORT")[3]

    def rename() -> None:
        session.label = "a_label_that_is_longer_than_it_was"
        cohort.archive.touch(session)

    cohort.call(rename)
    time.sleep(materialize._LOOK_AGAIN_S)
    age(mounted)
    assert vfs.attributes(path).size == len(old)  # as whoever opens it now gets it
    vfs.release(opened.handle)
    assert (vfs.attributes(path).size, vfs.attributes(path).blocks) == (1 << 44, 0)
    new = read(vfs, path)
    assert len(new) > len(old) and vfs.attributes(path).size == len(new)


def test_no_program_gets_room_on_ext4_for_a_table_that_was_not_built() -> None:
    """`fallocate` of 1 TiB took all that was left of a disk before it failed; what is larger than any file of
    ext4 (2^32 - 1 blocks of 4 KiB) is refused at once.
    """
    assert LARGER_THAN_ANY_TABLE > (2**32 - 1) * 4096


def test_after_a_refresh_a_table_that_did_not_change_keeps_its_size(
    cohort: DemoServer, compose: Compose
) -> None:
    mounted = compose(cohort)
    old = read(mounted.vfs, ASEG)
    mounted.refresh()
    assert mounted.vfs.attributes(ASEG).size == len(old)
    cohort.stop()
    age(mounted)
    assert mounted.vfs.attributes(ASEG).size == len(old)


def test_openers_at_the_same_time_share_one_build(cohort: DemoServer, compose: Compose) -> None:
    cohort.switches.latency_ms = 20.0
    mounted = compose(cohort)
    mounted.vfs.attributes(ASEG)
    cohort.clear_log()
    found: dict[int, bytes] = {}
    paths = [ASEG, ASEG, ASEG, ASEG.replace(".csv", ".parquet"), ASEG.replace(".csv", "_wide.csv")]

    def one(number: int) -> None:
        found[number] = read(mounted.vfs, paths[number])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found[0] == found[1] == found[2] and found[3].startswith(b"PAR1") and len(found) == 5
    assert len(cohort.requests(r"aseg\.stats")) == SESSIONS
    assert [mounted.vfs.attributes(path).size for path in paths] == [
        len(found[number]) for number in range(5)
    ]
    cohort.clear_log()
    assert [read(mounted.vfs, path) for path in paths] == [found[number] for number in range(5)]
    assert not cohort.requests("/files/")


@pytest.mark.usefixtures("nothing_is_fresh")
def test_an_open_table_keeps_its_bytes_and_the_next_one_has_the_new_ones(
    cohort: DemoServer, compose: Compose
) -> None:
    vfs = compose(cohort, limits=NOW).vfs
    old = read(vfs, ASEG)
    opened = vfs.open(ASEG)
    session = experiments(cohort.archive, "COHORT")[3]
    replace(
        cohort, session, "FREESURFER6", "aseg.stats", freesurfer.aseg_stats("another", "6", session.label)
    )
    beside = vfs.open(
        ASEG
    )  # while it is open it stays as it is for everybody: the kernel keeps one set of pages a path
    for handle in (opened.handle, beside.handle):
        assert vfs.size_of(handle) == len(old) and vfs.read(handle, 0, len(old) + 1) == old
    vfs.release(opened.handle)
    assert vfs.read(beside.handle, 0, len(old) + 1) == old
    vfs.release(beside.handle)
    new = read(vfs, ASEG)
    assert new != old
    assert cells(parsed(new), "measurement", "region")[session.label] == true_aseg("another", "6")
    assert vfs.attributes(ASEG).size == len(new)


@pytest.mark.usefixtures("nothing_is_fresh")
def test_while_one_format_is_open_another_that_was_not_built_has_the_new_rows(
    cohort: DemoServer, compose: Compose
) -> None:
    vfs = compose(cohort, limits=NOW).vfs
    old = read(vfs, ASEG)
    opened = vfs.open(ASEG)
    session = experiments(cohort.archive, "COHORT")[3]
    replace(
        cohort, session, "FREESURFER6", "aseg.stats", freesurfer.aseg_stats("another", "6", session.label)
    )
    wide = ASEG.replace(".csv", "_wide.csv")
    for _ in range(2):
        (row,) = (row for row in parsed(read(vfs, wide)) if row["ID"] == session.id)
        assert row["Left-Caudate_Volume_mm3"] == true_aseg("another", "6")["Volume_mm3", "Left-Caudate"]
    assert vfs.read(opened.handle, 0, len(old) + 1) == old
    vfs.release(opened.handle)
    assert cells(parsed(read(vfs, ASEG)), "measurement", "region")[session.label] == true_aseg("another", "6")


def test_a_file_that_somebody_removed_is_made_again(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    data = read(mounted.vfs, ASEG)
    for path in (mounted.cache.directory / "tables").rglob("*.csv"):
        path.unlink()
    assert read(mounted.vfs, ASEG) == data


def test_attributes_tell_where_it_comes_from(cohort: DemoServer, compose: Compose) -> None:
    vfs = compose(cohort).vfs
    assert {name: vfs.xattr(ASEG, name) for name in vfs.xattrs(ASEG)} == {
        "user.xnat.table": b"freesurfer6/aseg",
        "user.xnat.project": b"COHORT",
    }
    session = experiments(cohort.archive, "COHORT")[0]
    replace(cohort, session, "FREESURFER6", "aseg.stats", b"<html></html>")
    read(vfs, ASEG)
    told = {name.removeprefix("user.xnat."): vfs.xattr(ASEG, name).decode() for name in vfs.xattrs(ASEG)}
    assert (told["sessions"], told["missing"], told["failed"]) == (str(SESSIONS - 1), "0", "1")
    assert told["rows"] == str(426 * (SESSIONS - 1))
    for name in ("as_of", "built_at"):
        assert (
            abs(time.mktime(time.strptime(told[name], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone - time.time())
            < 60
        )
    assert vfs.attributes(ASEG).mtime == pytest.approx(vfs.attributes(ASEG.replace(".csv", ".xlsx")).mtime)


def test_tables_of_one_session(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    one = experiments(cohort.archive, "COHORT")[5]
    for name in (one.label, one.id):
        found = cells(
            rows(mounted, f"/tables/COHORT/sessions/{name}/freesurfer6/aseg.csv"), "measurement", "region"
        )
        assert found == {one.label: true_aseg(one.id, "6")}
    assert len(cohort.requests(r"aseg\.stats")) == 1


# --- who has what -------------------------------------------------------------------------------------------


def test_a_project_without_the_resource_shows_no_such_table(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    names = dict(vfs.entries("/tables/PIPES"))
    assert "freesurfer7" in names and "ashs" not in names and "freesurfer6" not in names
    with pytest.raises(OSError) as caught:
        read(vfs, "/tables/PIPES/ashs/volumes.csv")
    assert caught.value.errno == errno.ENOENT
    assert not {"fdg", "ftm", "tau", "centaur"} & set(
        dict(vfs.entries("/tables/DWI"))
    )  # it has reports of validators, and no PET


def test_a_project_without_sessions_has_its_listings_only(shelf: Shelf, compose: Compose) -> None:
    shelf.make.project("EMPTY", "EMPTY", members=["demo"])
    mounted = compose(shelf.server)
    names = [name for name, _ in mounted.vfs.entries("/tables/EMPTY")]
    assert sorted(names) == sorted(
        [
            "README.txt",
            "assessors",
            "sessions",
            *(f"{a}.{b}" for a in LISTED for b in ("csv", "xlsx", "parquet")),
        ]
    )
    for name in LISTED:
        data = read(mounted.vfs, f"/tables/EMPTY/{name}.csv")
        first = b"subject,subject_ID," if name == "subjects" else b"ID,label,"
        assert data.startswith(first) and data.count(b"\n") == 1
        assert read(mounted.vfs, f"/tables/EMPTY/{name}.parquet").startswith(b"PAR1")
    assert mounted.vfs.entries("/tables/EMPTY/sessions") == []


def test_a_pipeline_that_ran_in_one_session_only(shelf: Shelf, compose: Compose) -> None:
    for number in range(5):
        shelf.make.experiment(shelf.subject, f"S{number}", date=f"2024-02-0{number + 1}")
    files = freesurfer.subject_directory("E", "6", "who")
    shelf.make.resource(shelf.session, "FREESURFER6", {"who/stats/aseg.stats": files["who/stats/aseg.stats"]})
    mounted = compose(shelf.server)
    found = cells(rows(mounted, "/tables/P/freesurfer6/aseg.csv"), "measurement", "region")
    assert found == {"S": true_aseg("E", "6")}
    problems = rows(mounted, "/tables/P/freesurfer6/aseg.problems.csv")
    assert {row["label"]: row["problem"] for row in problems} == {
        f"S{n}": "has no resource FREESURFER6" for n in range(5)
    }


def test_shared_sessions_are_there_under_the_names_of_the_project(lab: DemoServer, compose: Compose) -> None:
    mounted = compose(lab)
    found = rows(mounted, "/tables/DWI/freesurfer6/aseg.csv")
    session = by_label(lab.archive, "ALFA", "sub002_MR1")
    assert {(row["ID"], row["label"], row["subject"]) for row in found} == {
        (session.id, "dwi02_scan", "dwi02")
    }
    assert cells(found, "measurement", "region")["dwi02_scan"] == true_aseg(session.id, "6")
    assert (session.id, "dwi02_scan") in {
        (row["ID"], row["label"]) for row in rows(mounted, "/tables/DWI/sessions.csv")
    }


def test_a_project_that_is_not_the_users_is_not_there(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    assert "SECRET" not in dict(vfs.entries("/tables"))
    for path in ("/tables/SECRET", "/tables/SECRET/freesurfer6/aseg.csv", "/tables/SECRET/sessions.csv"):
        with pytest.raises(OSError) as caught:
            vfs.attributes(path)
        assert caught.value.errno == errno.ENOENT


def test_a_table_of_a_project_that_was_closed_is_not_served_from_the_disk(
    cohort: DemoServer, compose: Compose
) -> None:
    first = compose(cohort)
    read(first.vfs, ASEG)
    first.close()
    cohort.call(cohort.archive.projects["COHORT"].members.clear)
    second = compose(cohort)
    with pytest.raises(OSError) as caught:
        read(second.vfs, ASEG)
    assert caught.value.errno in (errno.ENOENT, errno.EACCES)


# --- away ---------------------------------------------------------------------------------------------------


def test_offline_serves_what_was_built(cohort: DemoServer, compose: Compose) -> None:
    first = compose(cohort)
    data = read(first.vfs, ASEG)
    first.close()
    cohort.stop()
    second = compose(cohort, offline=True, limits=NOW)
    assert read(second.vfs, ASEG) == data
    assert read(second.vfs, ASEG.replace(".csv", ".parquet")).startswith(b"PAR1")  # from the kept rows
    with pytest.raises(OSError) as caught:
        read(second.vfs, "/tables/COHORT/ashs/volumes.csv")
    assert caught.value.errno == errno.EHOSTDOWN


@pytest.mark.usefixtures("nothing_is_fresh")
def test_while_the_server_is_away_a_table_stays_as_it_was(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort, limits=NOW)
    data = read(mounted.vfs, ASEG)
    cohort.stop()
    assert read(mounted.vfs, ASEG) == data
    cohort.start()
    session = experiments(cohort.archive, "COHORT")[3]
    replace(
        cohort, session, "FREESURFER6", "aseg.stats", freesurfer.aseg_stats("another", "6", session.label)
    )
    assert cells(rows(mounted, ASEG), "measurement", "region")[session.label] == true_aseg("another", "6")


def test_a_build_that_fails_gives_an_error_and_no_part(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort)
    mounted.vfs.attributes(ASEG)
    cohort.switches.match = r"c0003.*aseg\.stats"
    cohort.switches.fail_next = -1
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            read(mounted.vfs, ASEG)
        assert caught.value.errno == errno.EIO
    assert mounted.report()["errors"] and not mounted.report()["tables"]
    assert mounted.vfs.xattrs(ASEG) == ["user.xnat.table", "user.xnat.project"]
    cohort.switches.fail_next = 0
    cohort.clear_log()
    found = cells(rows(mounted, ASEG), "measurement", "region")
    assert found == {one.label: true_aseg(one.id, "6") for one in experiments(cohort.archive, "COHORT")}
    assert len(cohort.requests(r"aseg\.stats")) < SESSIONS, (
        "what was fetched before the failure was fetched again"
    )


def test_the_server_goes_away_during_a_build(cohort: DemoServer, compose: Compose) -> None:
    cohort.switches.latency_ms = 50.0
    mounted = compose(cohort)
    mounted.vfs.attributes(ASEG)
    caught: list[OSError] = []

    def one() -> None:
        try:
            read(mounted.vfs, ASEG)
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=one)
    thread.start()
    until(lambda: len(cohort.requests(r"aseg\.stats")) >= 8)
    cohort.stop()
    thread.join(100)
    assert not thread.is_alive() and caught[0].errno == errno.EHOSTDOWN
    cohort.start()
    cohort.switches.latency_ms = 0.0
    assert len(cells(rows(mounted, ASEG), "measurement", "region")) == SESSIONS


# --- changes ------------------------------------------------------------------------------------------------


def test_a_refresh_finds_a_file_that_was_overwritten_with_one_of_the_same_size(
    cohort: DemoServer, compose: Compose
) -> None:
    """An upload over a file need not move the session's stamp."""
    mounted = compose(cohort)
    old = read(mounted.vfs, ASEG)
    one = read(mounted.vfs, "/tables/COHORT/sessions/c00008_MR1/freesurfer6/aseg.csv")
    (session,) = (one for one in experiments(cohort.archive, "COHORT") if one.label == "c00008_MR1")
    name = str(true_aseg(session.id, "6")["Volume_mm3", "Left-Caudate"])
    other = str(Decimal(name) + Decimal("0.1"))
    text = freesurfer.aseg_stats(session.id, "6", session.label)
    assert text.count(f" {name} ".encode()) == 1 and len(name) == len(other)
    replace(
        cohort,
        session,
        "FREESURFER6",
        "aseg.stats",
        text.replace(f" {name} ".encode(), f" {other} ".encode()),
        touch=False,
    )
    assert read(mounted.vfs, ASEG) == old
    mounted.refresh()
    assert read(mounted.vfs, "/tables/COHORT/sessions/c00008_MR1/freesurfer6/aseg.csv") != one
    found = cells(rows(mounted, ASEG), "measurement", "region")[session.label]
    assert found["Volume_mm3", "Left-Caudate"] == other
    cohort.clear_log()
    assert read(mounted.vfs, ASEG) != old
    assert not cohort.requests("/files/"), "the refresh goes on asking"


@pytest.mark.usefixtures("nothing_is_fresh")
def test_sessions_come_and_go_and_are_renamed(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(cohort, limits=NOW)
    assert len(cells(rows(mounted, ASEG), "measurement", "region")) == SESSIONS
    first, second, third, *_ = experiments(cohort.archive, "COHORT")

    def change() -> None:
        del cohort.archive.experiments[first.id]
        second.label = "renamed"
        cohort.archive.touch(second)
        third.resources = [one for one in third.resources if one.label != "FREESURFER6"]
        cohort.archive.touch(third)

    cohort.call(change)
    found = cells(rows(mounted, ASEG), "measurement", "region")
    assert len(found) == SESSIONS - 2
    assert found["renamed"] == true_aseg(second.id, "6")
    problems = rows(mounted, ASEG.replace(".csv", ".problems.csv"))
    assert [(row["ID"], row["problem"]) for row in problems] == [(third.id, "has no resource FREESURFER6")]


# --- broken -------------------------------------------------------------------------------------------------

SENTENCES = {  # table -> session -> a part of its sentence
    "freesurfer6/aseg": {
        "b_truncated": "line 97 has 6 fields where the table has 10 columns",
        "b_html": "it is a web page, not a measurement file",
        "b_empty": "it is empty",
        "b_nrows": "its header says 45 rows and it has 40",
        "b_nan": "2 of its values are not numbers (nan or inf) and left empty",
        "b_gone": "the server lists this file but does not have it",
        "b_version": "its header has no BrainSegVolNotVentSurf, SupraTentorialVolNotVentVox",
        "b_binary": "it is not a text file",
        "b_twice": "2 files match; b_twice/stats/aseg.stats was read, another/stats/aseg.stats not",
    },
    "freesurfer6/aparc": {
        "b_truncated": "line 77 has 4 fields where the table has 10 columns",
        "b_empty": "it is empty",
        "b_hemisphere": "the right file is missing or cannot be read: only the left side is given",
    },
    "freesurfer6/hippoSfVolumes": {
        "b_truncated": "line 10 has 1 fields, not a name and a volume",
        "b_empty": "it is empty",
        "b_hemisphere": "the right file is missing or cannot be read: only the left side is given",
        "b_nan": "1 of its values is not a number (nan or inf) and left empty",
    },
    "ashs/volumes": {
        "b_truncated": "the left file is cut short: it lacks BA36 and the end of its last line",
        "b_html": "it is a web page, not a measurement file",
        "b_empty": "it is empty",
        "b_hemisphere": "ASHS has no file *_right_corr_nogray_volumes.txt",
    },
}


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("key", SENTENCES)
def test_broken_results_are_named_and_spoil_no_other(
    lab: DemoServer, compose: Compose, key: str, profile: str
) -> None:
    lab.switches.profile = profile
    mounted = compose(lab)
    problems = rows(mounted, f"/tables/BROKEN/{key}.problems.csv")
    told: dict[str, str] = {}
    for row in problems:
        told[row["label"]] = f"{told.get(row['label'], '')} {row['problem']}".strip()
    formula = told.pop("", "")
    assert ("'=1+1' could be taken for a formula" in formula) == (key == "freesurfer6/aseg")
    assert set(told) == set(SENTENCES[key])
    assert {label: part for label, part in SENTENCES[key].items() if part not in told[label]} == {}, told
    assert all(row["ID"] and row["subject"] and row["date"] for row in problems if row["label"])


def test_of_broken_results_every_other_number_is_true(lab: DemoServer, compose: Compose) -> None:
    mounted = compose(lab)
    ids = {label: by_label(lab.archive, "BROKEN", label).id for label in broken.CASES}
    found = cells(rows(mounted, "/tables/BROKEN/freesurfer6/aseg.csv"), "measurement", "region")
    lost = {"b_truncated", "b_html", "b_empty", "b_nrows", "b_gone", "b_binary"}
    assert set(found) == set(broken.CASES) - lost
    for label, values in found.items():
        truth = true_aseg(ids[label], "7" if label == "b_version" else "6")
        if label == "b_formula":
            truth = {
                (name, "'=1+1" if region == "Left-Caudate" else region): value
                for (name, region), value in truth.items()
            }
        if (
            label == "b_nan"
        ):  # the first number of these lines: Index SegId NVoxels Volume_mm3 come before the name
            empty = {place for place, value in values.items() if value == ""}
            assert len(empty) == 2 and {region for _, region in empty} == {"Left-Putamen", "Right-Putamen"}
            truth |= dict.fromkeys(empty, "")
        assert values == truth, label
    found = cells(rows(mounted, "/tables/BROKEN/freesurfer6/hippoSfVolumes.csv"), "side", "region")
    for label, session in ids.items():
        sides = {"left": "lh", "right": "rh"}
        if label in ("b_truncated", "b_empty"):
            del sides["left"]
        if label == "b_hemisphere":
            del sides["right"]
        version = "v21" if label == "b_version" else "v10"
        truth = {
            (side, name): str(v)
            for side, h in sides.items()
            for name, v in m.hippocampus(session, version, h).items()
        }
        if label == "b_nan":
            truth["left", "fimbria"] = ""
        assert found[label] == truth, label
    volumes = rows(mounted, "/tables/BROKEN/ashs/volumes.csv")
    assert {row["label"] for row in volumes} == set(broken.CASES) - {
        "b_truncated",
        "b_html",
        "b_empty",
        "b_hemisphere",
    }
    for row in volumes:
        if row["region"] != "tiv":
            slices, volume = m.ashs(row["ID"], row["side"])[row["region"]]
            assert (row["n_slices"], row["volume"]) == (str(slices), str(volume))
        else:
            assert row["volume"] == m.ashs_icv(row["ID"])


def test_a_second_file_that_would_do_is_noted(lab: DemoServer, compose: Compose) -> None:
    problems = rows(compose(lab), "/tables/BROKEN/sessions/b_twice/freesurfer6/aseg.problems.csv")
    assert [row["problem"] for row in problems] == [
        "2 files match; b_twice/stats/aseg.stats was read, another/stats/aseg.stats not"
    ]


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize("alone_first", [False, True])
def test_of_two_files_of_one_name_the_first_is_read_whatever_was_built_before(
    shelf: Shelf, compose: Compose, alone_first: bool, size: int, profile: str
) -> None:
    """Of a second run in the resource: also where other sessions show the path of the second, and on a
    machine that built the session by itself before.
    """
    shelf.switches.profile = profile
    rest = {f"run/mri/{number:03}.mgz": b"" for number in range(size - 1)}

    def stats(identity: str) -> bytes:
        return freesurfer.subject_directory(identity, "6", "r")["r/stats/aseg.stats"]

    for number in range(3):
        session = shelf.make.experiment(shelf.subject, f"A{number}", date=f"2023-02-0{number + 1}")
        shelf.make.resource(session, "FREESURFER6", {"run/stats/aseg.stats": stats("one"), **rest})
    both = {"old/stats/aseg.stats": stats("two"), "run/stats/aseg.stats": stats("three"), **rest}
    shelf.make.resource(shelf.session, "FREESURFER6", both)
    mounted = compose(shelf.server)
    if alone_first:
        read(mounted.vfs, "/tables/P/sessions/S/freesurfer6/aseg.csv")
    found = cells(rows(mounted, "/tables/P/freesurfer6/aseg.csv"), "measurement", "region")
    assert found["S"] == true_aseg("two", "6")
    assert all(found[f"A{number}"] == true_aseg("one", "6") for number in range(3))
    problems = rows(mounted, "/tables/P/freesurfer6/aseg.problems.csv")
    assert {row["label"]: row["problem"] for row in problems} == {
        "S": "2 files match; old/stats/aseg.stats was read, run/stats/aseg.stats not"
    }


# --- another laboratory -------------------------------------------------------------------------------------

TOML = """
[labels]
FREESURFER6 = ["fs:fsData/DATA"]
FREESURFER7 = ["recon-all"]
ASHS = ["ashs_out"]
SPM12_SEGMENT = ["SEG"]

[tables.spm12]
files.c1 = "*/c1*.nii.gz"
files.c2 = "*/c2*.nii.gz"
files.c3 = "*/c3*.nii.gz"
"""


def nord_is_right(mounted: Core, archive: Archive) -> None:
    """The tables of NORD are the truth."""
    ids = {label: by_label(archive, "NORD", label).id for label in nord.SESSIONS}
    shown = dict(mounted.vfs.entries("/tables/NORD"))
    assert {"freesurfer6", "freesurfer7", "ashs", "spm12"} <= set(shown)
    found = cells(rows(mounted, "/tables/NORD/freesurfer6/aseg.csv"), "measurement", "region")
    assert set(found) == {nord.FIRST, nord.SECOND, nord.FOURTH}
    for label in (nord.FIRST, nord.FOURTH):
        assert found[label] == true_aseg(ids[label], "6")
    old = found[nord.SECOND]
    assert old["Volume_mm3", "eTIV"] == str(m.etiv(ids[nord.SECOND]))
    assert old["Volume_mm3", "CerebralWhiteMatterVol"] == str(
        nord.aseg5_header(ids[nord.SECOND])["CorticalWhiteMatterVol"][0]
    )
    table = {
        (column, region): str(value)
        for region, row in nord.aseg5(ids[nord.SECOND]).items()
        for column, value in row.items()
    }
    assert {place: old[place] for place in table} == table
    problems = {
        row["label"]: row["problem"] for row in rows(mounted, "/tables/NORD/freesurfer6/aseg.problems.csv")
    }
    assert problems[nord.THIRD] == "has no resource fs:fsData/DATA"
    found = cells(rows(mounted, "/tables/NORD/freesurfer7/aseg.csv"), "measurement", "region")
    assert found == {label: true_aseg(ids[label], "7") for label in (nord.FIRST, nord.THIRD)}
    found = cells(rows(mounted, "/tables/NORD/freesurfer7/hippoSfVolumes.csv"), "side", "region")
    assert found == {
        label: {
            (side, name): str(value)
            for side, hemi in (("left", "lh"), ("right", "rh"))
            for name, value in m.hippocampus(ids[label], "v21", hemi).items()
        }
        for label in (nord.FIRST, nord.THIRD)
    }
    volumes = rows(mounted, "/tables/NORD/ashs/volumes.csv")
    assert {row["label"] for row in volumes} == {nord.FIRST, nord.THIRD, nord.FOURTH}
    for row in volumes:
        if row["region"] != "tiv":
            assert (row["n_slices"], row["volume"]) == tuple(
                map(str, m.ashs(row["ID"], row["side"])[row["region"]])
            )
    maps = {
        row["label"]: {name: float(row[name]) for name in ("c1", "c2", "c3")}
        for row in rows(mounted, "/tables/NORD/spm12/volumes.csv")
    }
    assert maps == {label: pytest.approx(m.tissue_volumes(ids[label])) for label in (nord.FIRST, nord.SECOND)}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's tables.toml lies."""
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(folder))
    return folder / "tables.toml"


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_another_laboratory_by_the_users_file_alone(
    lab: DemoServer, compose: Compose, config: Path, profile: str
) -> None:
    lab.switches.profile = profile
    assert not {"freesurfer6", "freesurfer7", "ashs", "spm12"} & set(
        dict(compose(lab, "plain").vfs.entries("/tables/NORD"))
    )
    config.write_text(TOML)
    nord_is_right(compose(lab), lab.archive)


def test_another_laboratory_by_a_file_in_the_project(compose: Compose, config: Path) -> None:
    archive = lab_archive()
    project = archive.projects["NORD"]
    with DemoServer(archive) as server:
        mounted = compose(server, limits=NOW)
        maker = Shelf().make
        maker.archive = archive
        server.call(lambda: maker.resource(project, "XNATFS", {"tables.toml": TOML.encode()}))
        mounted.refresh()
        nord_is_right(mounted, archive)
        # The user's own file wins.
        config.write_text('[labels]\nASHS = ["nothing"]\n')
        assert "ashs" not in dict(compose(server, "other").vfs.entries("/tables/NORD"))


def test_a_misspelt_file_of_the_user_is_one_sentence(lab: DemoServer, compose: Compose, config: Path) -> None:
    config.write_text('[labels]\nFREESURFER9 = ["FS9"]\n')
    with pytest.raises(UsageError) as caught:
        compose(lab)
    assert (
        str(caught.value)
        == f"{config}: no table reads a resource 'FREESURFER9'; `xnatfs table --list` shows what is read"
    )


def test_a_misspelt_file_of_the_project_is_told_and_spoils_nothing_else(compose: Compose) -> None:
    archive = lab_archive()
    maker = Shelf().make
    maker.archive = archive
    maker.resource(archive.projects["ALFA"], "XNATFS", {"tables.toml": b"[sheets]\n"})
    with DemoServer(archive) as server:
        mounted = compose(server)
        with pytest.raises(OSError) as caught:
            mounted.vfs.entries("/tables/ALFA")
        assert caught.value.errno == errno.EIO
        assert "'sheets' is not a section of tables.toml" in mounted.report()["last_error"]["text"]
        with pytest.raises((Failure, UsageError), match=r"'sheets' is not a section of tables\.toml"):
            mounted.builder.build("ALFA", "freesurfer6/aseg")
        assert mounted.vfs.entries("/projects/ALFA/subjects")
        assert rows(mounted, "/tables/BROKEN/sessions.csv")


def test_lazy_catalogs_are_what_the_cohort_is_made_of(cohort: DemoServer) -> None:
    """Else `replace` would change nothing."""
    assert isinstance(experiments(cohort.archive, "COHORT")[0].resources[0].entries, LazyEntries)
    assert isinstance(LIMITS, Limits)
