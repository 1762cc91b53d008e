"""Many readers of many large files at once, and how long an `ls` waits beside them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmark.harness import LOGIN, Harness
from benchmark.host import FailedError
from benchmark.results import Outcome, Sample, Target
from benchmark.workload import Contestant, Workload, mib

_SESSIONS = 60  # of another project, which nobody reads
_SPARE = range(
    1, _SESSIONS, 11
)  # those that are listed meanwhile: not neighbours, which a mount may list ahead
_EVERY = 0.1  # seconds between two looks
UNLISTED = "ls, not yet listed: longest, s"
LISTED = "ls, listed: longest, s"


class Crowd(Workload):
    """One `cat` a file, all at once."""

    name = "readers"
    title = "many readers of different files"
    networks = ("20ms", "100ms", "loopback")
    reference = "as many curls at once"

    def data(self) -> list[str]:
        sizes = self.sizes
        files = [f"f{number}.bin={sizes.reader_size}" for number in range(1, sizes.readers + 1)]
        spare = ["--sessions", str(_SESSIONS), "--scans", "1", "--files", "20", "--file-size", "1000"]
        return [*spare, "--digests", *(part for name in files for part in ("--big", name))]

    def describe(self) -> str:
        return (
            f"{self.sizes.readers} files of {mib(self.sizes.reader_size)}, each in a session of its "
            f"own, with MD5s in the catalogs"
        )

    def contestants(self, harness: Harness) -> list[Contestant]:
        count = self.sizes.readers
        sessions = [f"DEMO_E{_SESSIONS + number:05d}" for number in range(1, count + 1)]
        digests = [
            harness.server.digests(f"/data/experiments/{session}/scans/ALL/files")[0] for session in sessions
        ]
        checked: set[str] = set()

        def together(start: Callable[[int], subprocess.Popen[str]]) -> float:
            begin = time.perf_counter()
            processes = [start(number) for number in range(1, count + 1)]
            problems: list[str] = []
            for process in processes:
                try:
                    harness.host.finish(process)
                except FailedError as error:
                    problems.append(str(error))
            if problems:
                raise FailedError(f"{len(problems)} of {count}: {problems[0]}")
            return time.perf_counter() - begin

        def right(path: Callable[[int], Path], who: str) -> None:
            if who in checked:
                return
            for number in range(1, count + 1):
                if harness.host.run("md5sum", path(number)).output.split()[0] != digests[number - 1]:
                    raise FailedError("the bytes are wrong")
            checked.add(who)

        def ours() -> Sample:
            with harness.xnatfs() as mount:
                root = mount.point / "projects/BIG/subjects/big"
                other = mount.point / "projects/SCALE/subjects"

                def path(number: int) -> Path:
                    return root / f"big_MR{number}/SCANS/1-T1/NIFTI/f{number}.bin"

                watch = _Watch(
                    harness,
                    [other / f"sub{number:05d}/sub{number:05d}_MR1/SCANS/1-TYPE1/DICOM" for number in _SPARE],
                )
                sample = harness.sample(
                    lambda: watch.beside(
                        lambda: together(lambda n: harness.host.start("cat", path(n), quiet=True))
                    )
                )
                right(path, "xnatfs")
                return Sample(sample.seconds, sample.requests, sample.sent, watch.longest())

        def curls() -> Sample:
            with harness.folder("curl") as folder:

                def url(number: int) -> str:
                    session = f"{harness.server.url}/data/experiments/{sessions[number - 1]}"
                    return f"{session}/scans/1/resources/NIFTI/files/f{number}.bin"

                def start(number: int) -> subprocess.Popen[str]:
                    return harness.host.start(
                        "curl", "-sS", "--fail", "-u", LOGIN, "-o", folder / f"{number}", url(number)
                    )

                sample = harness.sample(lambda: together(start))
                right(lambda number: folder / f"{number}", "curl")
                return sample

        def rclone() -> Sample:
            with harness.rclone() as mount:

                def start(number: int) -> subprocess.Popen[str]:
                    return harness.host.start(
                        "cat", mount.point / f"BIG/big_MR{number}/1/NIFTI/f{number}.bin", quiet=True
                    )

                return harness.sample(lambda: together(start))

        return [
            Contestant(
                "xnatfs: as many cats at once",
                "xnatfs",
                ours,
                note="with an ls every 100 ms beside it, of folders in another project",
            ),
            Contestant(self.reference, "curl", curls),
            Contestant("rclone mount: as many cats at once", "rclone", rclone),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        if outcome.network.name != "20ms":
            return []
        ours = outcome.entry("xnatfs: as many cats at once")
        return [
            Target(
                "speed, x as many curls", outcome.ratio(self.reference, ours.name), 0.9, least=True, unit="x"
            ),
            Target("ls of a folder not yet listed meanwhile, s", ours.extra(UNLISTED), 1, unit="s"),
            Target("ls of a listed folder meanwhile, s", ours.extra(LISTED), 0.1, unit="s"),
        ]


class _Watch:
    """Lists folders while something else goes on: each once when it was never looked at, then again."""

    def __init__(self, harness: Harness, folders: list[Path]) -> None:
        self._harness = harness
        self._folders = folders
        self._new: list[float] = []
        self._known: list[float] = []
        self._problem = ""
        self._over = threading.Event()

    def beside(self, action: Callable[[], float]) -> float:
        """Do something while a thread lists."""
        thread = threading.Thread(target=self._list)
        thread.start()
        try:
            return action()
        finally:
            self._over.set()
            thread.join()

    def _list(self) -> None:
        waiting, listed = list(self._folders), list[Path]()
        turn = 0
        # The first look waits until the readers have begun.
        while not self._over.wait(_EVERY):
            turn += 1
            new = bool(waiting) and (turn % 2 == 1 or not listed)
            if not new and not listed:
                continue
            folder = waiting.pop(0) if new else listed[turn % len(listed)]
            try:
                seconds = self._harness.host.run("ls", folder, limit=60).seconds
            except FailedError as error:
                self._problem = str(error)
                return
            (self._new if new else self._known).append(seconds)
            if new:
                listed.append(folder)

    def longest(self) -> dict[str, float]:
        """What was seen; FailedError if an `ls` failed."""
        if self._problem:
            raise FailedError(f"ls meanwhile: {self._problem}")
        found = {UNLISTED: self._new, LISTED: self._known}
        return {name: max(times) for name, times in found.items() if times}
