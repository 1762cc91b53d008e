"""Works on measurement tables: beside bx, beside the same files by curl, and of large projects.

A table's cells are compared with those of bx's workbook, as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from benchmark.harness import Harness, Mount
from benchmark.host import FailedError, memory_of
from benchmark.results import Outcome, Sample, Target
from benchmark.workload import Contestant, Workload

NEW = "xnatfs: cp of the .csv"
AGAIN = "xnatfs: the same again"
REMOUNTED = "xnatfs: the same, new mount"
CURL = "curl: the same files, 8 at a time"
BUILD = "xnatfs: open and read all, built now"
FIRST = "xnatfs: open and first block"
WHOLE = "xnatfs: open and read all"
COUNT = "count the rows"
_RESIDENT = "most resident MB of the daemon"


def _session(number: int) -> str:
    return f"DEMO_E{number:05d}"


def _against_bx(outcome: Outcome, reference: str, least: float) -> list[Target]:
    """How many times as fast as this command of bx a table is: the first time, and once it was built."""
    return [
        Target(f"times as fast as {reference}", outcome.ratio(reference, NEW), least, least=True, unit="x"),
        Target(
            "built before, times as fast as bx", outcome.ratio(reference, AGAIN), 200, least=True, unit="x"
        ),
    ]


class _Table(Workload):
    """One table of project COHORT."""

    networks = ("20ms", "100ms")
    key: ClassVar[str]
    compared: ClassVar[tuple[str, ...]]  # columns

    @property
    def count(self) -> int:
        """Sessions."""
        return self.sizes.cohort

    def data(self) -> list[str]:
        return ["--sessions", "0", "--cohort", str(self.count)]

    def paths(self, number: int) -> list[str]:
        """The files of a session that the table reads."""
        raise NotImplementedError

    def describe(self) -> str:
        return f"{self.count:,} sessions, of each {len(self.paths(1))} of its files"

    def contestants(self, harness: Harness) -> list[Contestant]:
        held: dict[str, Any] = {}
        found: dict[str, dict[str, Any]] = {}  # who -> what its table holds

        def check(who: str, told: dict[str, Any]) -> None:
            if told["sessions"] != self.count or not told["even"]:
                raise FailedError(
                    f"the table has {told['sessions']} sessions of {self.count}, or not all of their rows"
                )
            found[who] = told
            if len({one["digest"] for one in found.values()}) > 1:
                raise FailedError(f"the tables of {' and '.join(found)} differ")

        def copied(mount: Mount) -> Sample:
            with harness.folder("table") as folder:
                target = folder / "table.csv"
                sample = harness.sample(
                    lambda: harness.host.run("cp", _file(mount, self.key, "csv"), target).seconds
                )
                check("xnatfs", harness.read("table", target, *self.compared))
                return sample

        def new() -> Sample:
            with ExitStack() as stack:
                folder = stack.enter_context(harness.folder("tables"))
                mounted = stack.enter_context(ExitStack())
                mount = mounted.enter_context(harness.xnatfs(folder))
                sample = copied(mount)
                held.update(stack=stack.pop_all(), mounted=mounted, mount=mount, folder=folder)
                harness.stack.push(held["stack"].__exit__)
            return _with(sample, mount)

        def again() -> Sample:
            if not held:
                raise FailedError("there was no first time")
            return copied(held["mount"])

        def remounted() -> Sample:
            if not held:
                raise FailedError("there was no first time")
            with held.pop("stack"):
                held.pop("mounted").close()
                with harness.xnatfs(held.pop("folder")) as mount:
                    held.clear()
                    return copied(mount)

        def curl() -> Sample:
            wanted = [
                (path, "", "/dev/null") for number in range(1, self.count + 1) for path in self.paths(number)
            ]
            return harness.sample(lambda: harness.curls(wanted, 8).seconds)

        def bx() -> Sample:
            with harness.folder("bx") as folder:
                sample = harness.sample(lambda: _run_bx(harness, self.key, folder))
                (book,) = folder.glob("*.xlsx")
                check("bx", _read_bx(harness, book, self.compared))
                return sample

        return [
            Contestant(NEW, "xnatfs", new),
            Contestant(AGAIN, "xnatfs", again, note="in the same mount, at once"),
            Contestant(
                REMOUNTED, "xnatfs", remounted, note="built before, with the same cache, and mounted anew"
            ),
            Contestant(CURL, "curl", curl),
            *([Contestant(self.bx, "bx", bx, once=True)] if self.against_bx else []),
        ]

    against_bx: ClassVar[bool] = True

    @property
    def bx(self) -> str:
        """How bx makes it."""
        return f"bx {self.key.replace('/', ' ')}"


def _file(mount: Mount, key: str, kind: str) -> Path:
    return mount.point / "tables/COHORT" / f"{key}.{kind}"


def _with(sample: Sample, mount: Mount) -> Sample:
    return Sample(
        sample.seconds,
        sample.requests,
        sample.sent,
        {**sample.extra, _RESIDENT: memory_of(mount.pid, peak=True) / 1e6},
    )


def _run_bx(harness: Harness, key: str, folder: Path) -> float:
    if harness.bx is None:
        raise FailedError("no bx: name its program with --bx")
    config = folder / "xnat.cfg"
    config.write_text(
        json.dumps({"server": harness.server.url, "user": "demo", "password": "demo", "verify": True})
    )
    arguments = (*key.split("/"), "COHORT", "--config", config, "--dest", folder)
    return harness.host.run(
        harness.bx, *arguments, env={"BX_DUMP": "1", "HOME": str(folder), "PYTHONPATH": ""}
    ).seconds


def _read_bx(harness: Harness, book: Path, columns: tuple[str, ...]) -> dict[str, Any]:
    # Its own Python has what reads its workbooks.
    python = Path(harness.bx or "").parent / "python"
    done = harness.host.run(
        python, Path(__file__).with_name("readers.py"), "table", book, *columns, env={"PYTHONPATH": ""}
    )
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return found


class ASEG(_Table):
    """FreeSurfer's subcortical structures: one file a session."""

    name = "tables-aseg"
    title = "freesurfer6 aseg of a cohort"
    reference = "bx freesurfer6 aseg"
    key = "freesurfer6/aseg"
    compared = ("ID", "measurement", "region", "value", "subject")

    def paths(self, number: int) -> list[str]:
        return [
            f"/data/experiments/{_session(number)}/resources/FREESURFER6/files/c{number:05d}/stats/aseg.stats"
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        return _against_bx(outcome, self.reference, 15)


class ASHS(_Table):
    """ASHS: three files a session."""

    name = "tables-ashs"
    title = "ashs volumes of a cohort"
    reference = "bx ashs volumes"
    key = "ashs/volumes"
    compared = ("ID", "side", "region", "n_slices", "volume", "subject")

    def paths(self, number: int) -> list[str]:
        subject = f"c{number:05d}"
        names = (
            f"{subject}_left_corr_nogray_volumes.txt",
            f"{subject}_right_corr_nogray_volumes.txt",
            f"{subject}_icv.txt",
        )
        return [f"/data/experiments/{_session(number)}/resources/ASHS/files/final/{name}" for name in names]

    def targets(self, outcome: Outcome) -> list[Target]:
        return _against_bx(outcome, self.reference, 10)


class Maps(_Table):
    """Tissue volumes: three images a session are fetched, unpacked and summed."""

    name = "tables-spm12"
    title = "spm12 volumes of a cohort"
    reference = CURL
    key = "spm12/volumes"
    compared = ("ID", "c1", "c2", "c3", "subject")
    against_bx = False  # it keeps every image in memory, and asks which resource

    @property
    def count(self) -> int:
        return self.sizes.cohort_maps

    def data(self) -> list[str]:
        return [*super().data(), "--cohort-images"]

    def contestants(self, harness: Harness) -> list[Contestant]:
        # The stand-in keeps the maps it has made once: else it would be that what is measured.
        harness.curls(
            [(path, "", "/dev/null") for number in range(1, self.count + 1) for path in self.paths(number)], 8
        )
        return super().contestants(harness)

    def paths(self, number: int) -> list[str]:
        return [
            f"/data/experiments/{_session(number)}/resources/SPM12_SEGMENT/files/c{one}c{number:05d}_T1.nii.gz"
            for one in (1, 2, 3)
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        return [Target("time, x the same GETs 8 at a time", outcome.ratio(NEW, CURL), 1.3, unit="x")]


class _Large(Workload):
    """A table of a large project: a build, a first block, a whole reading; each in turn, on the same
    mount.
    """

    networks = ("loopback",)
    key: ClassVar[str]
    kind: ClassVar[str]
    reference = BUILD

    @property
    def count(self) -> int:
        """Sessions."""
        raise NotImplementedError

    def data(self) -> list[str]:
        return ["--sessions", "0", "--cohort", str(self.count)]

    def describe(self) -> str:
        return f"{self.count:,} sessions; {self.key} as .{self.kind}"

    def contestants(self, harness: Harness) -> list[Contestant]:
        held: list[Mount] = []

        # Several seconds of the stand-in's own time, which computes the files when they are asked for, are in
        # the first figure.
        def measured(figure: str) -> Callable[[], Sample]:
            def measure() -> Sample:
                if not held:
                    held.append(harness.stack.enter_context(harness.xnatfs()))
                found: dict[str, Any] = {}

                def read() -> float:
                    found.update(harness.read("whole", _file(held[0], self.key, self.kind)))
                    return float(found[figure])

                return _with(harness.sample(read), held[0])

            return measure

        def complete() -> Sample:
            if not held:
                raise FailedError("the table could not be built")
            with harness.folder("table") as folder:
                target = folder / f"table.{self.kind}"
                harness.host.run("cp", _file(held[0], self.key, self.kind), target)
                told: dict[str, Any] = {}

                def read() -> float:
                    told.update(harness.read("table", target, "ID"))
                    return float(told["seconds"])

                sample = harness.sample(read)
                if told["sessions"] != self.count or not told["even"]:
                    raise FailedError(
                        f"the table has {told['sessions']} sessions of {self.count}, or not all of their rows"
                    )
                return Sample(
                    sample.seconds,
                    0,
                    0,
                    {"rows": told["rows"], "sheets": told["sheets"], "MB": target.stat().st_size / 1e6},
                )

        return [
            Contestant(BUILD, "xnatfs", measured("seconds"), once=True),
            Contestant(FIRST, "xnatfs", measured("first")),
            Contestant(WHOLE, "xnatfs", measured("seconds")),
            Contestant(
                COUNT,
                "xnatfs",
                complete,
                once=True,
                note="of a copy; every session has to have as many as the others",
            ),
        ]


class LargeCsv(_Large):
    """A .csv of 5,000 sessions."""

    name = "tables-large-csv"
    title = "freesurfer6 aseg of a large project"
    key = "freesurfer6/aseg"
    kind = "csv"

    @property
    def count(self) -> int:
        return self.sizes.cohort_large

    def targets(self, outcome: Outcome) -> list[Target]:
        return [
            Target("open and first block once built, seconds", outcome.entry(FIRST).seconds, 1, unit="s"),
            Target("open and read all once built, seconds", outcome.entry(WHOLE).seconds, 1, unit="s"),
            Target(
                "most resident memory of the daemon, MB",
                outcome.entry(BUILD).extra(_RESIDENT),
                400,
                unit="MB",
            ),
        ]


class LargeXlsx(_Large):
    """An .xlsx of more rows than a sheet has."""

    name = "tables-large-xlsx"
    title = "freesurfer6 aparc of a large project"
    key = "freesurfer6/aparc"
    kind = "xlsx"

    @property
    def count(self) -> int:
        return self.sizes.cohort_xlsx

    def targets(self, outcome: Outcome) -> list[Target]:
        return [
            Target(
                "rows found in all sheets", outcome.entry(COUNT).extra("rows"), 625 * self.count, least=True
            ),
            Target(
                "most resident memory of the daemon, MB",
                outcome.entry(BUILD).extra(_RESIDENT),
                400,
                unit="MB",
            ),
        ]
