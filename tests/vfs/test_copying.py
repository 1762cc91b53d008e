"""`xnatfs get`: whole and true copies without a mount, continued after an interruption."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import composed, md5, read, until, walk
from tests.vfs.conftest import FOLDER, LIMITS, Command, Compose, Shelf
from xnatfs.copying import local_file
from xnatfs.copying.copier import Copier
from xnatfs.copying.lister import Root
from xnatfs.copying.local_file import PREFIX, State
from xnatfs.demo.server import DemoServer

SUBJECT = "projects/ALFA/subjects/007"
NIFTI = f"{SUBJECT}/007_MR1/SCANS/2-T1_ALFA1/NIFTI"
INSIDE = FOLDER.removeprefix("/")  # of a shelf
MIB = 2**20
ROOT = Path(__file__).parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- get ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_get_copies_what_a_mount_shows(
    lab: DemoServer, command: Command, compose: Compose, tmp_path: Path, profile: str
) -> None:
    lab.switches.profile = profile
    wanted = [SUBJECT, "tables/ALFA/ashs/volumes.csv", "views/ALFA/by-scan-type/T1_ALFA1/usable/NIFTI"]
    done = command(lab, "get", *wanted, "out")
    assert (done.code, done.err) == (0, "")
    vfs = compose(lab).vfs
    copies = files(tmp_path / "out")
    expected = {"volumes.csv": read(vfs, "/tables/ALFA/ashs/volumes.csv")}
    for path, name in ((f"/{SUBJECT}", "007"), ("/" + wanted[2], "NIFTI")):
        expected |= {name + one.removeprefix(path): read(vfs, one) for one, _ in walk(vfs, path)}
    assert copies == expected and len(copies) > 50
    for path, attributes in walk(vfs, f"/{NIFTI}"):
        copy = tmp_path / "out/007" / path.removeprefix(f"/{SUBJECT}/")
        assert abs(copy.stat().st_mtime - attributes.mtime) < 0.001
    assert f"{len(copies)} files fetched" in done.out


def test_get_takes_a_zip_for_small_files(shelf: Shelf, command: Command, tmp_path: Path) -> None:
    """As `cp -r` of a mount does: a request a file would take minutes for a session of DICOM."""
    for number in range(300):
        shelf.put(shelf.make.entry(f"{number:04d}.dcm", b"%d" % number * 50))
    assert command(shelf.server, "get", INSIDE, "out").code == 0
    assert {path.read_bytes() for path in (tmp_path / "out/R").iterdir()} == {
        b"%d" % number * 50 for number in range(300)
    }
    assert shelf.downloads() < 30


def test_get_asks_for_no_more_than_a_walk_does(shelf: Shelf, compose: Compose, tmp_path: Path) -> None:
    """`cp -r` opens a file by itself before a zip is worth it; `get` knows beforehand what it will copy. Each
    of its threads finds its own folder, and none a file a request.
    """
    for number in range(1, 5):
        scan = shelf.make.scan(shelf.session, str(number), "T1")
        resource = shelf.make.resource(scan, "DICOM")
        for file in range(60):
            data = b"%d %d" % (number, file) * 100
            entry = shelf.make.entry(f"{file:03d}.dcm", data, digest=md5(data))
            shelf.server.call(lambda at=resource, entry=entry: at.entries.append(entry))  # type: ignore[misc]
    scans = f"{FOLDER.partition('/RESOURCES')[0]}/SCANS"
    walked = compose(shelf.server, "walk").vfs
    expected = {path.removeprefix(f"{scans}/"): read(walked, path) for path, _ in walk(walked, scans)}
    by_walk = len(shelf.server.requests())
    shelf.server.clear_log()

    def get(folder: str) -> None:
        copier = Copier(
            compose(shelf.server, folder).vfs, [Root(scans, tmp_path / "out")], lambda _: None, jobs=4
        )
        copier.start()
        copier.join(30)
        assert not copier.running and copier.tally.states[State.FAILED] == 0

    get("get")
    assert files(tmp_path / "out") == expected
    assert shelf.downloads() == 4 and len(shelf.server.requests()) <= by_walk
    # What is here is not announced: no zip is fetched for one file of sixty.
    (tmp_path / "out" / next(iter(expected))).unlink()
    shelf.server.clear_log()
    get("another")
    assert files(tmp_path / "out") == expected
    assert [one.path.rpartition("/")[2] for one in shelf.server.requests(r"/resources/\d+/files")] == [
        "000.dcm"
    ]


def test_a_second_get_fetches_what_is_new(shelf: Shelf, command: Command, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        data = name.encode() * 100
        shelf.put(shelf.make.entry(name, data, digest=md5(data)))
    out = tmp_path / "out/R"
    assert "3 files fetched" in command(shelf.server, "get", INSIDE, "out").out
    assert command(shelf.server, "get", INSIDE, "out").out == "out: 0 files fetched (0 B), 3 already there\n"
    os.utime(out / "a", (1, 1))  # another date: its digest tells
    (out / "b").write_bytes(b"x" * 100)
    os.utime(out / "b", (1, 1))
    (out / "c").unlink()
    done = command(shelf.server, "get", INSIDE, "out")
    assert done.code == 3
    assert done.err == "xnatfs: out/R/b is another file, and was left alone (--overwrite replaces it)\n"
    assert done.out == "out: 1 file fetched (100 B), 1 already there, 1 left alone\n"
    assert (out / "b").read_bytes() == b"x" * 100
    dated = (out / "a").stat().st_mtime
    os.utime(out / "b", (dated, dated))  # size and date agree by now: only --checksum sees it
    assert command(shelf.server, "get", INSIDE, "out").code == 0
    assert command(shelf.server, "get", "--checksum", INSIDE, "out").code == 3
    assert command(shelf.server, "get", "--checksum", "--overwrite", INSIDE, "out").code == 0
    assert files(out) == {name: name.encode() * 100 for name in ("a", "b", "c")}


def test_a_dry_run_fetches_nothing(shelf: Shelf, command: Command, tmp_path: Path) -> None:
    shelf.put(shelf.make.entry("a", b"a" * 10))
    shelf.put(shelf.make.entry("sub/b", b"b"))
    done = command(shelf.server, "get", "-n", INSIDE, "out")
    assert sorted(done.out.splitlines()) == [f"{INSIDE}/a", f"{INSIDE}/sub/b"]
    assert done.err == "out: 2 files would be fetched (11 B)\n"
    assert shelf.downloads() == 0 and not (tmp_path / "out").exists()
    *lines, last = map(json.loads, command(shelf.server, "get", "--json", INSIDE, "out").out.splitlines())
    assert {(one["path"], one["state"], one["size"], one["to"]) for one in lines} == {
        (f"{INSIDE}/a", "fetched", 10, "out/R/a"),
        (f"{INSIDE}/sub/b", "fetched", 1, "out/R/sub/b"),
    }
    assert last == {"files": 2, "bytes": 11, "fetched": 2}


def test_parents_keep_folders_apart(lab: DemoServer, command: Command, tmp_path: Path) -> None:
    done = command(lab, "get", "--parents", f"{SUBJECT}/*/SCANS/2-T1_ALFA1/NIFTI/*.json", "out")
    assert done.code == 0
    assert {name.split("/")[4] for name in files(tmp_path / "out")} == {"007_MR1", "007_MR2"}
    assert all(name.startswith(f"{SUBJECT}/") for name in files(tmp_path / "out"))


def test_a_damaged_file_is_none(shelf: Shelf, command: Command, tmp_path: Path) -> None:
    """Neither under its name nor under another; the others are there."""
    shelf.put(shelf.make.entry("bad", b"bad" * 1000, digest=md5(b"other")))
    shelf.put(shelf.make.entry("good", b"good", digest=md5(b"good")))
    done = command(shelf.server, "get", INSIDE, "out")
    assert done.code == 3
    assert done.err.splitlines()[-1].startswith(f"xnatfs: {INSIDE}/bad: the file differs from the digest")
    assert files(tmp_path / "out") == {"R/good": b"good"}


def test_by_name_with_lists_and_offline(lab: DemoServer, command: Command, tmp_path: Path) -> None:
    """What holds for a mount holds here: names of servers, lists of sessions, what the cache has offline."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.toml").write_text(f'[servers.lab]\nurl = "{lab.url}"\n')
    (tmp_path / "some.txt").write_text("007_MR1\n")
    view = "by-scan-type/T1_ALFA1/usable/NIFTI"
    listed = command(lab, "ls", "--server", "lab", "--list", "some.txt", f"lists/some/{view}")
    assert len(listed.out.splitlines()) == 2, listed
    assert command(lab, "get", "--server", "lab", f"views/ALFA/{view}", "one").code == 0
    lab.clear_log()
    assert command(lab, "get", "--offline", "--server", "lab", f"views/ALFA/{view}", "two").code == 0
    assert lab.requests() == [] and files(tmp_path / "one") == files(tmp_path / "two") != {}
    unknown = command(lab, "ls", "--offline", "projects/NORD/subjects")
    assert unknown.code == 1 and "offline" in unknown.err


def test_a_disk_that_is_full_ends_it(
    shelf: Shelf, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, not one a file; and no part of a file."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in range(30):
        shelf.put(shelf.make.entry(f"{number}", b"x" * 100))
    for name in ("write_all", "copy_part"):  # what is in the cache is copied by the kernel
        monkeypatch.setattr(local_file, name, full)
    done = command(shelf.server, "get", INSIDE, "out")
    assert (done.code, done.err) == (1, "xnatfs: out/R: No space left on device\n")
    assert files(tmp_path / "out") == {}


def test_a_name_that_the_disk_cannot_hold(
    shelf: Shelf, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(self: Path, target: Path) -> None:
        if target.name == "a:b":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        os.replace(self, target)

    shelf.put(shelf.make.entry("a:b", b"x"))
    shelf.put(shelf.make.entry("c", b"x"))
    monkeypatch.setattr(Path, "replace", replace)
    done = command(shelf.server, "get", INSIDE, "out")
    said = f"{INSIDE}/a:b: the disk cannot hold a file of this name (Invalid argument)"
    assert (done.code, done.err) == (3, f"xnatfs: {said}\n")
    assert files(tmp_path / "out") == {"R/c": b"x"}


def test_names_that_a_disk_takes_for_one(
    shelf: Shelf, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of Windows and macOS do: the second must not pass for the first, with its size and date."""
    for name in ("a.dcm", "A.dcm", "b.dcm", "sub/x", "SUB/y"):
        shelf.put(shelf.make.entry(name, name[:1].encode(), digest=""))
    assert command(shelf.server, "get", INSIDE, "out").code == 0
    monkeypatch.setattr(os, "listdir", lambda _: ["a.dcm", "b.dcm", "sub"])
    done = command(shelf.server, "get", INSIDE, "out")
    assert done.code == 3
    assert sorted(done.err.splitlines()) == [
        f"xnatfs: {INSIDE}/A.dcm: the disk cannot hold it beside a file whose name differs only in case",
        f"xnatfs: {INSIDE}/SUB: the disk cannot hold it beside a folder whose name differs only in case",
    ]


def test_what_is_in_the_way(shelf: Shelf, command: Command, tmp_path: Path) -> None:
    for name in ("a", "b/c", "d"):
        shelf.put(shelf.make.entry(name, b"x"))
    (tmp_path / "out/R/a").mkdir(parents=True)
    (tmp_path / "out/R/b").write_text("mine")
    (tmp_path / "out/R/d").symlink_to("nowhere")
    done = command(shelf.server, "get", "--overwrite", INSIDE, "out")
    assert done.code == 1
    assert sorted(line.partition(f"{INSIDE}/")[2] for line in done.err.splitlines()) == [
        "a: a folder of this name is in the way",
        "b: out/R/b is a file, and a folder is needed there",
        "d: a link that leads nowhere is in the way",
    ]
    assert (tmp_path / "out/R/b").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("get projects/ALFB out", 1, "there is no file or folder 'ALFB' in projects; did you mean ALFA?"),
        ("get README.txt nothing out", 3, "there is no file or folder 'nothing' at the top"),
        ("get README.txt", 2, "PATH is what to copy, and DEST the folder that it is copied into"),
        ("get README.txt file", 1, "file is a file; DEST is the folder that the copies go into"),
        ("get README.txt file/below", 1, "file/below cannot be made: Not a directory"),
        ("get README.txt link", 1, "link is a link that leads nowhere"),
        (
            f"get {SUBJECT}/*/SCANS out",
            1,
            f"{SUBJECT}/007_MR1/SCANS and {SUBJECT}/007_MR2/SCANS would both become out/SCANS; --parents ",
        ),
    ],
)
def test_mistakes(
    lab: DemoServer, command: Command, tmp_path: Path, words: str, code: int, said: str
) -> None:
    """One sentence, and nothing of what cannot be had."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    done = command(lab, *words.split())
    assert done.code == code
    line = done.err.splitlines()[-1]
    assert line.removeprefix("xnatfs: ").removeprefix("Error: ").startswith(said)
    assert (tmp_path / "out").exists() == ("out" in words and code == 3)


# --- interrupted --------------------------------------------------------------------------------------------


def sent(server: DemoServer) -> int:
    return sum(one.sent for one in server.requests(r"/resources/\d+/files/"))


@pytest.mark.parametrize(("with_digest", "damaged"), [(True, False), (True, True), (False, False)])
def test_an_interrupted_copy_is_continued(
    shelf: Shelf, tmp_path: Path, with_digest: bool, damaged: bool
) -> None:
    """Not fetched whole again: of a large file what the cache has, or what lies beside its final name, if
    that is still right.
    """
    data = os.urandom(MIB) * 24
    shelf.put(shelf.make.entry("large", data, digest=md5(data) if with_digest else ""))
    shelf.switches.bandwidth = 15e6  # time enough to stop it on a busy machine
    target = tmp_path / "out"

    results: list[object] = []
    with composed(shelf.server.url, tmp_path / "first", limits=LIMITS) as core:
        first = Copier(core.vfs, [Root(FOLDER, target)], results.append, jobs=2)
        first.start()
        until(lambda: first.tally.bytes > 8 * MIB)
        first.stop()
        first.join(10)
    assert not first.running and results == []
    assert not (target / "large").exists()
    if with_digest:
        (left,) = target.iterdir()
        assert left.name.startswith(PREFIX) and left.stat().st_size >= 8 * MIB
        if damaged:
            with left.open("r+b") as file:
                file.write(b"damaged")
    else:
        assert list(target.iterdir()) == []
    shelf.switches.bandwidth = 0
    # With a digest even where the cache is lost: what is continued is the file.
    with composed(shelf.server.url, tmp_path / ("other" if with_digest else "first"), limits=LIMITS) as core:
        second = Copier(core.vfs, [Root(FOLDER, target)], results.append, jobs=2)
        second.start()
        second.join(30)
    assert second.tally.states == {State.FETCHED: 1}
    assert files(target) == {"large": data}
    if not damaged:
        assert sent(shelf.server) < len(data) * 1.4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_get_that_is_killed_leaves_no_half_file(
    shelf: Shelf, command: Command, tmp_path: Path, number: signal.Signals
) -> None:
    data = os.urandom(MIB) * 12
    for name in ("one", "two"):
        shelf.put(shelf.make.entry(name, data, digest=md5(data)))
    shelf.switches.bandwidth = 10e6
    environment = os.environ | {"XNAT_HOST": shelf.server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
    words = [sys.executable, "-m", "xnatfs", "get", INSIDE, str(tmp_path / "out")]
    process = subprocess.Popen(words, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    out = tmp_path / "out/R"
    until(lambda: out.is_dir() and sum(one.stat().st_size for one in out.iterdir()) > 4 * MIB, 30)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    if number is signal.SIGINT:
        assert (process.returncode, said) == (130, "interrupted; run the same command to continue\n")
    assert all(path.name.startswith(PREFIX) for path in out.iterdir())
    (out / f"{PREFIX}of-another-version").write_text("x")
    shelf.switches.bandwidth = 0
    done = command(shelf.server, "get", INSIDE, "out")
    assert (done.code, done.out) == (0, "out: 2 files fetched (25.2 MB)\n")
    assert files(out) == {"one": data, "two": data}
    assert sent(shelf.server) < 2 * len(data) * 1.4


def test_the_lister_does_not_run_ahead(shelf: Shelf, compose: Compose, tmp_path: Path) -> None:
    """What waits to be copied is bounded, however much there is."""
    for number in range(200):
        shelf.put(shelf.make.entry(f"{number}/f", b"x"))
    vfs = compose(shelf.server).vfs
    vfs.entries(FOLDER)
    copier = Copier(vfs, [Root(FOLDER, tmp_path / "out")], lambda _: None, jobs=0)
    copier.start()
    until(lambda: copier.tally.total_files >= 64)
    time.sleep(0.1)
    assert copier.tally.total_files <= 65
    copier.stop()
    copier.join(5)
    assert not copier.running
