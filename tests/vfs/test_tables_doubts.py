"""Tables where the server, the cache or another process behaves badly: what abuse found, and must not come
back.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support import read, until
from tests.vfs.conftest import LIMITS, Compose, Shelf
from tests.vfs.test_tables import ASEG, NOW, cells, cohort, experiments, nothing_is_fresh, rows, true_aseg
from xnatfs.cli import main
from xnatfs.config import Limits
from xnatfs.demo.data import freesurfer
from xnatfs.demo.data.images import pydicom_file
from xnatfs.demo.model import BytesContent, CatalogEntry
from xnatfs.demo.server import DemoServer
from xnatfs.tables.engine import finished_table
from xnatfs.tree.lists import list_files

__all__ = ["cohort", "nothing_is_fresh"]  # fixtures

TABLE = "/tables/P/freesurfer6/aseg.csv"


def with_aseg(shelf: Shelf, *labels: str) -> None:
    """Sessions with an aseg.stats below a folder of their own name."""
    for label in labels:
        session = shelf.make.experiment(shelf.subject, label, date="2024-01-08")
        shelf.make.resource(
            session, "FREESURFER6", {f"{label}/stats/aseg.stats": freesurfer.aseg_stats(session.id, "6", "x")}
        )


@pytest.mark.parametrize("days", [0, -1])
@pytest.mark.usefixtures("nothing_is_fresh")
def test_a_file_replaced_by_one_of_an_older_date_is_read(
    cohort: DemoServer, compose: Compose, days: int
) -> None:
    """As `rsync -a` or a restored backup leaves it: `If-Modified-Since` would never show it."""
    mounted = compose(cohort, limits=NOW)
    rows(mounted, ASEG)
    session = experiments(cohort.archive, "COHORT")[3]

    def change() -> None:
        (resource,) = (one for one in session.resources if one.label == "FREESURFER6")
        at = next(
            number for number, entry in enumerate(resource.entries) if entry.path.endswith("aseg.stats")
        )
        old = resource.entries[at]
        data = freesurfer.aseg_stats("another", "6", session.label)
        resource.entries[at] = CatalogEntry(old.path, BytesContent(data), old.modified + timedelta(days=days))
        cohort.archive.touch(session)

    cohort.call(change)
    assert cells(rows(mounted, ASEG), "measurement", "region")[session.label] == true_aseg("another", "6")


@pytest.mark.parametrize("odd", ["a;b", "50%"])
def test_a_name_the_server_refuses_in_a_url_is_read_from_the_zip(
    shelf: Shelf, compose: Compose, odd: str
) -> None:
    with_aseg(shelf, "one", "two", "three", odd)
    assert set(cells(rows(compose(shelf.server), TABLE), "measurement", "region")) == {
        "one",
        "two",
        "three",
        odd,
    }


@pytest.mark.parametrize("status", [403, 500])
def test_one_refused_file_costs_its_session_and_not_the_table(
    shelf: Shelf, compose: Compose, status: int
) -> None:
    with_aseg(shelf, "one", "two", "three")
    mounted = compose(shelf.server, limits=NOW)
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "two/stats", status, -1
    assert set(cells(rows(mounted, TABLE), "measurement", "region")) == {"one", "three"}
    told = [
        row["problem"]
        for row in rows(mounted, TABLE.replace(".csv", ".problems.csv"))
        if row["label"] == "two"
    ]
    assert len(told) == 1 and told[0].startswith("two/stats/aseg.stats: ")
    shelf.switches.fail_next = 0
    mounted.refresh()
    assert set(cells(rows(mounted, TABLE), "measurement", "region")) == {"one", "two", "three"}


def test_one_broken_catalogue_costs_its_session_and_not_the_table(shelf: Shelf, compose: Compose) -> None:
    """Its files and their listing are 404 (xnat-rest.md 13), for as long as nobody mends it."""
    with_aseg(shelf, "one", "two", "three")
    two = next(one for one in shelf.archive.experiments.values() if one.label == "two")
    shelf.server.call(lambda: setattr(two.resources[0], "broken", True))
    mounted = compose(shelf.server, limits=NOW)
    assert set(cells(rows(mounted, TABLE), "measurement", "region")) == {"one", "three"}
    told = [
        row["problem"]
        for row in rows(mounted, TABLE.replace(".csv", ".problems.csv"))
        if row["label"] == "two"
    ]
    assert len(told) == 1 and told[0].startswith("FREESURFER6 cannot be listed: ")


@pytest.mark.usefixtures("nothing_is_fresh")
@pytest.mark.parametrize("fault", ["a catalogue", "files"])
def test_a_session_refused_after_a_change_keeps_its_rows(shelf: Shelf, compose: Compose, fault: str) -> None:
    with_aseg(shelf, "one", "two", "three")
    mounted = compose(shelf.server, limits=NOW)
    before = cells(rows(mounted, TABLE), "measurement", "region")
    assert set(before) == {"one", "two", "three"}
    two = next(one for one in shelf.archive.experiments.values() if one.label == "two")

    def change() -> None:
        data = freesurfer.aseg_stats("another", "6", "two")
        two.resources[0].entries[0] = CatalogEntry(
            two.resources[0].entries[0].path, BytesContent(data), shelf.archive.tick()
        )
        two.resources[0].broken = fault == "a catalogue"
        shelf.archive.touch(two)

    shelf.server.call(change)
    if fault == "files":
        shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "two/stats", 500, -1
    assert cells(rows(mounted, TABLE), "measurement", "region") == before
    told = [
        row["problem"]
        for row in rows(mounted, TABLE.replace(".csv", ".problems.csv"))
        if row["label"] == "two"
    ]
    sentence = "read as it was listed last" if fault == "a catalogue" else "its previous rows are used"
    assert sentence in " ".join(told)


@pytest.mark.usefixtures("nothing_is_fresh")
def test_what_could_not_be_listed_is_not_kept_under_the_new_stamp(shelf: Shelf, compose: Compose) -> None:
    """A result replaced while its listing fails for a moment: its digest, as it was listed last, proves
    nothing.
    """
    with_aseg(shelf, "one", "two")
    mounted = compose(shelf.server, limits=NOW)
    rows(mounted, TABLE)
    first = next(
        one for one in shelf.archive.experiments.values() if one.label == "one"
    )  # its listing told where files lie

    def change() -> None:
        data = freesurfer.aseg_stats("another", "6", "one")
        first.resources[0].entries[0] = CatalogEntry(
            first.resources[0].entries[0].path, BytesContent(data), shelf.archive.tick()
        )
        shelf.archive.touch(first)

    shelf.server.call(change)
    # Neither the file nor its listing is given ...
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = (
        f"{first.resources[0].id}/files|all=true",
        500,
        -1,
    )
    read(mounted.vfs, TABLE)
    # ... and then both are.
    shelf.switches.fail_next = 0
    mounted.listing_service.clock.advance(60.0)
    assert cells(rows(mounted, TABLE), "measurement", "region")["one"] == true_aseg("another", "6")


@pytest.mark.usefixtures("nothing_is_fresh")
def test_a_resource_made_while_its_session_could_not_be_listed_is_found(
    shelf: Shelf, compose: Compose
) -> None:
    """What a session was known to have is not what it has as of its new stamp."""
    with_aseg(shelf, "one")
    scan = shelf.server.call(lambda: shelf.make.scan(shelf.session, "1", "T1"))
    mounted = compose(shelf.server, limits=NOW)
    assert set(cells(rows(mounted, TABLE), "measurement", "region")) == {"one"}

    def change() -> None:
        data = freesurfer.aseg_stats("S", "6", "S")
        shelf.make.resource(scan, "FREESURFER6", {"stats/aseg.stats": data})
        shelf.archive.touch(shelf.session)

    shelf.server.call(change)
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = (
        f"{shelf.session.id}/resources",
        500,
        -1,
    )
    read(mounted.vfs, TABLE)
    shelf.switches.fail_next = 0
    assert set(cells(rows(mounted, TABLE), "measurement", "region")) == {"one", "S"}


def test_where_every_file_is_refused_there_is_no_table(shelf: Shelf, compose: Compose) -> None:
    with_aseg(shelf, "one", "two")
    mounted = compose(shelf.server)
    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = "/stats/", 403, -1
    with pytest.raises(OSError) as caught:
        read(mounted.vfs, TABLE)
    assert caught.value.errno == errno.EACCES


@pytest.mark.usefixtures("nothing_is_fresh")
def test_what_changed_while_a_table_was_built_shows_at_the_next_opening(
    cohort: DemoServer, compose: Compose
) -> None:
    cohort.switches.latency_ms = 60.0
    mounted = compose(cohort, limits=NOW)
    first = threading.Thread(target=lambda: rows(mounted, ASEG))
    first.start()
    session = experiments(cohort.archive, "COHORT")[0]  # the first one asked for
    until(lambda: len(cohort.requests(r"aseg\.stats")) > 12)

    def change() -> None:
        (resource,) = (one for one in session.resources if one.label == "FREESURFER6")
        at = next(
            number for number, entry in enumerate(resource.entries) if entry.path.endswith("aseg.stats")
        )
        data = freesurfer.aseg_stats("another", "6", session.label)
        resource.entries[at] = CatalogEntry(
            resource.entries[at].path, BytesContent(data), cohort.archive.tick()
        )
        cohort.archive.touch(session)

    cohort.call(change)
    read(mounted.vfs, ASEG.replace(".csv", ".xlsx"))  # joins the build that is under way
    first.join()
    cohort.switches.latency_ms = 0.0
    assert cells(rows(mounted, ASEG), "measurement", "region")[session.label] == true_aseg("another", "6")


def test_another_process_does_not_clear_a_first_build_away(
    cohort: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = compose(cohort)
    write = finished_table.write

    def slowly(*arguments: object, **more: object) -> None:
        compose(cohort)  # a second mount on the same cache, while this one writes
        write(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(finished_table, "write", slowly)
    assert len(read(mounted.vfs, ASEG.replace(".csv", ".xlsx"))) > 1000


def test_a_cache_cleared_in_the_middle_costs_a_second_build_and_no_error(
    cohort: DemoServer, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = compose(cohort)
    write, cleared = finished_table.write, []

    def clear_first(*arguments: object, **more: object) -> None:
        if not cleared:
            cleared.append(True)
            with sqlite3.connect(mounted.cache.directory / "measurements.sqlite") as database:
                database.execute("DELETE FROM parsed")
        write(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(finished_table, "write", clear_first)
    assert len(cells(rows(mounted, ASEG), "measurement", "region")) == len(
        experiments(cohort.archive, "COHORT")
    )
    assert cleared


def test_tables_take_a_quarter_of_the_caches_size_at_most(cohort: DemoServer, compose: Compose) -> None:
    mounted = compose(
        cohort, limits=Limits(cache_size=4_000_000, ttl=3600.0, progress_deadline=20.0, listing_deadline=30.0)
    )
    folder = mounted.cache.directory / "tables"
    for name in ("aseg.csv", "aparc.csv", "hippoSfVolumes.csv", "aseg.xlsx", "aseg.csv"):
        assert len(read(mounted.vfs, f"/tables/COHORT/freesurfer6/{name}")) > 1000
        sizes = sorted(sum(file.stat().st_size for file in one.iterdir()) for one in folder.iterdir())
        assert sum(sizes[:-1]) <= 1_000_000  # the newest stays whatever its size


def test_offline_the_folders_of_tables_can_be_listed(cohort: DemoServer, compose: Compose) -> None:
    first = compose(cohort)
    data = read(first.vfs, ASEG)
    first.close()
    cohort.stop()
    mounted = compose(cohort, limits=LIMITS, offline=True)
    assert "freesurfer6" in [name for name, _ in mounted.vfs.entries("/tables/COHORT")]
    assert "aseg.csv" in [name for name, _ in mounted.vfs.entries("/tables/COHORT/freesurfer6")]
    assert read(mounted.vfs, ASEG) == data


def test_a_session_that_is_only_shared_is_found_by_a_list(
    shelf: Shelf, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = shelf.make.project("OWNER", "OWNER", members=[])
    subject = shelf.make.subject(owner, "o")
    foreign = shelf.make.experiment(subject, "E1", date="2024-01-08")
    subject.shares["P"], foreign.shares["P"] = None, "E1shared"
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path / "config"))
    folder = tmp_path / "config/lists"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text(f"{foreign.id}\nS\nnope\n")
    mounted = compose(shelf.server)
    text = read(mounted.vfs, "/lists/mine/README.txt").decode()
    assert "over the 2 sessions" in text and text.splitlines()[-1] == "nope"
    scans = rows(mounted, "/lists/mine/tables/sessions.csv")
    assert {row["label"] for row in scans} == {"E1shared", "S"}


def test_what_an_editor_leaves_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path))
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "mine.txt").write_text("S\n")
    os.symlink("nobody@nowhere:1", folder / ".#mine.txt")
    (folder / "folder.txt").mkdir()
    time.sleep(0.01)
    assert list(list_files(())) == ["mine"]
    shutil.rmtree(folder)
    assert list_files(()) == {}


def test_errors_are_printed_without_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["warm", "/nowhere/\x1b[31mred"])
    said = capsys.readouterr().err
    assert "\x1b" not in said and "is not in an xnatfs mount" in said


@pytest.mark.parametrize("status", [404, 503])
def test_a_date_is_missing_only_where_the_file_is(shelf: Shelf, compose: Compose, status: int) -> None:
    """A server that is busy says nothing of a session's date: the table fails, and is whole the next time."""
    session = shelf.make.experiment(shelf.subject, "undated", date="")
    scan = shelf.make.scan(session, "1", "T1")
    shelf.make.resource(scan, "DICOM", {"1.dcm": pydicom_file("MR_small.dcm")}, format="DICOM")
    mounted = compose(shelf.server, limits=NOW)

    def dates() -> dict[str, str]:
        return {row["label"]: row["scandate"] for row in rows(mounted, "/tables/P/scandates.csv")}

    shelf.switches.match, shelf.switches.fail_status, shelf.switches.fail_next = r"files/1\.dcm", status, -1
    if status == 404:
        assert dates() == {"S": "2024-01-08", "undated": ""}
        return
    with pytest.raises(OSError) as caught:
        dates()
    assert caught.value.errno == errno.EIO
    shelf.switches.fail_next = 0
    assert dates() == {"S": "2024-01-08", "undated": "2004-08-26"}  # of pydicom's MR_small.dcm
