"""What the kernel keeps of names and listings with libfuse's low-level interface: that it asks no more, and
shows every change all the same (docs/internals/kernel.md 6).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import Mount, clear_away, mount, until, xnatfs
from xnatfs.config import LOW_LEVEL
from xnatfs.daemon.control import ask
from xnatfs.demo.data import build
from xnatfs.demo.model import Archive, BytesContent, ComputedContent, Content, Experiment, Resource
from xnatfs.demo.server import DemoServer
from xnatfs.fuse import session

MISSING = session.missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"high-level interface: {MISSING}")

SESSIONS, SCANS, FILES = 6, 2, 20
MANY = 4000  # files of one folder, which the kernel asks for in several parts
FOLDERS = 3 + SESSIONS * (
    3 + 2 * SCANS
)  # SCALE, subjects, then subject, session and SCANS, scan and resource


class Place:
    """A server and a mount of it that is asked what the kernel asked it."""

    def __init__(self, archive: Archive, server: DemoServer, mounted: Mount) -> None:
        self.archive, self.server, self.mounted = archive, server, mounted
        self.project = mounted.point / "projects/SCALE"
        state = Path(mounted.env["XNATFS_STATE_DIR"])
        (registration,) = (state / "mounts").glob("*.json")
        self._socket = json.loads(registration.read_text())["socket"]

    def asked(self, work: Callable[[], object]) -> dict[str, int]:
        """How often the kernel asked for what, while this was done."""
        before: dict[str, int] = ask(self._socket, "status")["kernel"]
        work()
        after: dict[str, int] = ask(self._socket, "status")["kernel"]
        return {kind: after[kind] - before[kind] for kind in after}

    def find(self) -> list[str]:
        """All files of the project, with a look at each one's size."""
        command = ["find", str(self.project), "-type", "f", "-size", "+0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return sorted(done.stdout.splitlines())

    def refresh(self) -> None:
        xnatfs("refresh", str(self.mounted.point), env=self.mounted.env, check=True)

    def session_of(self, number: int) -> Experiment:
        return self.archive.experiments[f"DEMO_E{number:05d}"]

    def resource(self, number: int) -> Resource:
        return self.session_of(number).scans[0].resources[0]

    def folder(self, number: int) -> Path:
        """Where that resource is shown."""
        name = f"sub{number:05d}"
        return self.project / f"subjects/{name}/{name}_MR1/SCANS/1-TYPE1/DICOM"

    def change(self, number: int, work: Callable[[Resource], object]) -> None:
        """Something in a session on the server, which moves its stamp."""

        def changed() -> None:
            work(self.resource(number))
            self.archive.touch(self.session_of(number))

        self.server.call(changed)

    def remove(self, number: int, place: int) -> str:
        """A file less; its name."""
        name = sorted(os.listdir(self.folder(number)))[place]
        self.change(number, lambda resource: drop(resource, name))
        return name


def drop(resource: Resource, name: str) -> None:
    resource.entries[:] = [entry for entry in resource.entries if entry.path != name]


@contextmanager
def placed(folder: Path, files: int = FILES, sessions: int = SESSIONS) -> Iterator[Place]:
    archive = build("scale", sessions=sessions, scans=SCANS, files=files, file_size=100)
    with DemoServer(archive) as server, mount(server.url, folder, "--fuse", LOW_LEVEL) as mounted:
        yield Place(archive, server, mounted)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("kept")) as made:
        yield made


@contextmanager
def short_times(folder: Path, ttl: float, kernel_ttl: float, *kernel: str) -> Iterator[Place]:
    """The same with times of seconds."""
    archive = build("scale", sessions=SESSIONS, scans=SCANS, files=FILES, file_size=100)
    point, state = folder / "mnt", folder / "state"
    point.mkdir()
    env = {"XNATFS_CACHE_DIR": str(folder / "cache"), "XNATFS_STATE_DIR": str(state)}
    with DemoServer(archive) as server, ExitStack() as stack:
        words = [server.url, str(point), str(ttl), str(kernel_ttl), *kernel]
        program = [sys.executable, "-m", "tests.mount.short_times", *words]
        running = subprocess.Popen(program, env=os.environ | env)
        stack.callback(clear_away, point, state)
        stack.callback(running.wait, 60)
        stack.callback(running.terminate)
        until(lambda: (point / "README.txt").exists() and any((state / "mounts").glob("*.json")), 60)
        yield Place(archive, server, Mount(point, server.url, env))


# --- fewer questions ----------------------------------------------------------------------------------------


def test_a_second_find_asks_for_no_name_and_no_listing(place: Place) -> None:
    first = place.find()
    assert len(first) == SESSIONS * SCANS * FILES
    seen: list[list[str]] = []
    asked = place.asked(lambda: seen.append(place.find()))
    assert seen == [first]
    assert FOLDERS <= asked["opendir"] <= FOLDERS + 10  # one a folder: there freshness is looked at
    assert asked["lookup"] + asked["getattr"] + asked["readdirplus"] <= 6  # above the project


@pytest.mark.parametrize("kernel", [(), ("old",)], ids=["now", "before 6.16"])
def test_no_name_is_looked_up_singly_once_names_are_old(tmp_path: Path, kernel: tuple[str, ...]) -> None:
    """Measured with folders that are kept longer than their names: 44,647 look-ups after one `find`."""
    with short_times(tmp_path, 1.0, 2.0, *kernel) as short:
        found = short.find()
        for pause in (0.5, 1.7, 2.5):
            time.sleep(pause)
            seen: list[list[str]] = []
            asked = short.asked(lambda seen=seen: seen.append(short.find()))
            assert seen == [found]
            assert asked["lookup"] + asked["getattr"] < FOLDERS, asked


def test_names_that_the_kernel_forgets_are_forgotten_and_shown_again(place: Place) -> None:
    found = place.find()
    if os.geteuid() == 0:  # else the kernel forgets when it pleases
        asked = place.asked(lambda: Path("/proc/sys/vm/drop_caches").write_text("2"))
        assert asked["forget"] > len(found) / 2
    seen: list[list[str]] = []
    asked = place.asked(lambda: seen.append(place.find()))
    assert seen == [found] and asked["lookup"] < FOLDERS


# --- every change is seen -----------------------------------------------------------------------------------


def test_a_refresh_reaches_what_the_kernel_keeps(place: Place) -> None:
    """Also for a program that only looks at one name, which asks nobody else."""
    before = place.find()
    gone = place.folder(1) / place.remove(1, 3)
    place.change(2, lambda resource: resource.entries.append(replace(resource.entries[0], path="new.dcm")))
    place.refresh()
    assert place.find() == sorted({*before, str(place.folder(2) / "new.dcm")} - {str(gone)})
    until(lambda: not gone.exists())
    assert place.find() == place.find()


@pytest.mark.parametrize("kernel", [(), ("old",)], ids=["now", "before 6.16"])
def test_a_change_shows_by_itself_to_who_only_looks_at_names(tmp_path: Path, kernel: tuple[str, ...]) -> None:
    with short_times(tmp_path, 1.0, 2.0, *kernel) as short:
        short.find()
        gone = short.folder(1) / short.remove(1, 3)
        until(lambda: not gone.exists(), 30)
        name = short.remove(3, 4)
        until(lambda: name not in os.listdir(short.folder(3)), 30)
        grown = short.folder(2) / short.resource(2).entries[0].path
        larger = b"x" * (grown.stat().st_size + 7)

        def grow(resource: Resource) -> None:
            resource.entries[0] = replace(resource.entries[0], content=BytesContent(larger))

        short.change(2, grow)
        until(lambda: grown.stat().st_size == len(larger), 30)
        assert grown.read_bytes() == larger


def test_what_may_not_be_read_any_more_goes_also_from_what_the_kernel_keeps(tmp_path: Path) -> None:
    with short_times(tmp_path, 1.0, 2.0) as short:
        found = short.find()
        project = short.archive.projects["SCALE"]
        short.server.call(lambda: project.members.clear())
        until(lambda: not Path(found[0]).exists(), 30)
        until(lambda: not short.project.exists(), 30)


# --- open folders -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("large"), MANY, 1) as made:
        yield made


def test_who_reads_a_folder_while_it_changes_sees_what_it_listed(large: Place) -> None:
    folder = large.folder(1)
    for again in range(3):
        before = os.listdir(folder)
        with os.scandir(folder) as reading, os.scandir(folder) as another:
            seen = [next(reading).name]
            large.change(1, lambda resource: resource.entries.pop(5))
            large.change(1, lambda resource: resource.entries.pop(MANY // 2))
            large.refresh()
            after = os.listdir(folder)
            assert len(after) == len(before) - 2
            seen += [entry.name for entry in reading]
            assert Counter(seen) == Counter(before), again
            # Nothing was read of this one, as far as anybody knows: one listing or the other.
            assert Counter(entry.name for entry in another) in (Counter(before), Counter(after)), again
        assert os.listdir(folder) == after


def test_who_rewinds_a_folder_sees_it_as_it_is_and_others_what_they_opened(large: Place) -> None:
    folder = large.folder(1)
    before = os.listdir(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with os.scandir(folder) as reading:
            seen = [next(reading).name]
            assert os.listdir(descriptor) == before
            large.change(1, lambda resource: resource.entries.pop(7))
            large.refresh()
            after = os.listdir(descriptor)
            assert len(after) == len(before) - 1
            assert Counter(seen + [entry.name for entry in reading]) == Counter(before)
            assert os.listdir(descriptor) == after == os.listdir(folder)
    finally:
        os.close(descriptor)


def test_a_program_stays_in_its_folder_when_names_are_dropped(place: Place) -> None:
    code = (
        "import os, subprocess, sys; os.chdir(sys.argv[1]); before = os.listdir('.'); "
        "subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL); os.stat(os.environ['THERE']); "
        "print(os.getcwd(), os.listdir('.') == before)"
    )
    folder = place.folder(4)
    words: list[Any] = [sys.executable, "-c", code, folder, sys.executable, "-m", "xnatfs", "refresh"]
    done = subprocess.run(
        [*words, place.mounted.point],
        env=os.environ | place.mounted.env | {"THERE": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [str(folder), "True"], done.stderr


# --- nobody waits for the kernel, and the kernel for nobody -------------------------------------------------


def test_a_read_that_is_stuck_keeps_nobody_from_what_the_kernel_is_told(large: Place) -> None:
    """The kernel holds the pages that are read until they have arrived, and whoever has it drop them waits:
    not the refresh, not another folder, not who opens the file under its new name, and Ctrl-C ends who opens
    the old one.
    """
    large.change(1, lambda resource: put(resource, "", "stuck", ComputedContent("stuck", 12 << 20)))
    large.refresh()
    folder, other = large.folder(1), large.folder(1) / sorted(os.listdir(large.folder(1)))[0]
    with ExitStack() as stack:
        large.server.switches.update({"match": "stuck", "stall_after_bytes": 1 << 20})
        stack.callback(large.server.switches.update, {"match": "", "stall_after_bytes": -1})
        reader = started(stack, "cat", folder / "stuck")
        until(lambda: large.server.switches.fired["stall"] > 0 and not _runs(reader))
        large.refresh()  # from here on an opened file's size is doubted: its pages are to be dropped
        second = started(stack, "head", "-c", "100", folder / "stuck")
        until(lambda: not _runs(second))
        assert "stuck" in os.listdir(folder) and other.read_bytes()
        second.send_signal(signal.SIGINT)
        assert second.wait(30) != 0

        large.server.switches.update({"match": "", "stall_after_bytes": -1})
        large.change(1, lambda resource: put(resource, "stuck", "moved", BytesContent(b"another")))
        large.refresh()
        assert not (folder / "stuck").exists()
        assert (folder / "moved").read_bytes() == b"another"
        reader.kill()
        reader.wait(60)
    large.change(1, lambda resource: drop(resource, "moved"))
    large.refresh()


def put(resource: Resource, before: str, after: str, content: Content) -> None:
    """Have a file under another name, with this content."""
    drop(resource, before)
    resource.entries.append(replace(resource.entries[0], path=after, content=content))


def started(stack: ExitStack, *words: str | Path) -> subprocess.Popen[bytes]:
    """A program that is ended in the end."""
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(running.wait, 60)
    stack.callback(running.kill)
    return running


def _runs(program: subprocess.Popen[bytes]) -> bool:
    """Whether a program runs and does not wait for a disk or its like."""
    state = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert program.poll() is None
    return state == "R"
