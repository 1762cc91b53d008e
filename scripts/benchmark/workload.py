"""What a workload is, how big the workloads are, and how one is run.

Used by the modules of workloads and by the command.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

from benchmark.harness import Harness, Server
from benchmark.host import FailedError, Host
from benchmark.results import NETWORKS, Entry, Network, Outcome, Sample, Target

COLD = (
    "cold: new cache and state directory, new mount, nothing listed; mounting and logging in are not counted"
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    scans: int = 8  # of the session that is copied
    files: int = 250  # a scan, also of the DICOM scan
    file_size: int = 150_000
    large: int = 1 << 30
    reads: int = 500
    sessions: int = 1000  # for find
    session_scans: int = 8
    session_files: int = 20
    rclone_sessions: int = 50  # of them for rclone's find
    readers: int = 16
    reader_size: int = 64 << 20
    cohort: int = 200  # sessions with measurements
    cohort_maps: int = 200  # the same with the maps of SPM12, 1 MB each: the stand-in holds all of them
    cohort_large: int = 5000
    cohort_xlsx: int = 2000  # 1.25 million rows of aparc
    images: int = 200  # sessions of a view
    image_size: int = 200_000
    large_image_size: int = 10_000_000
    listed_sessions: int = 20_000
    listed_types: int = 1000
    slices: int = 176  # of a T1 that is converted
    converted: int = 100  # sessions with such a T1


QUICK = Sizes(
    scans=2,
    files=60,
    large=96 << 20,
    reads=100,
    sessions=60,
    rclone_sessions=5,
    readers=4,
    reader_size=8 << 20,
    cohort=40,
    cohort_maps=40,
    cohort_large=300,
    cohort_xlsx=50,
    images=40,
    listed_sessions=1000,
    slices=40,
    converted=6,
)


@dataclass(frozen=True)
class Contestant:
    """A program that runs the workload. `tool` is what `--without` names. `share`: the part of it it runs.
    `once`: never repeated.
    """

    name: str
    tool: str
    measure: Callable[[], Sample]
    share: float = 1.0
    note: str = ""
    once: bool = False


@dataclass(frozen=True)
class Plan:
    """What the command line asks of every workload."""

    runs: int
    patience: float  # seconds: what takes longer is not repeated
    without: frozenset[str]
    rclone_backend: str
    bx: str | None  # its program
    say: Callable[[str], None]


class Workload(ABC):
    """One line of the table of figures to reach."""

    name: ClassVar[str]
    title: ClassVar[str]
    networks: ClassVar[tuple[str, ...]]
    reference: ClassVar[str]
    cold: ClassVar[str] = COLD

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    @abstractmethod
    def data(self) -> list[str]:
        """The stand-in's options."""

    @abstractmethod
    def describe(self) -> str:
        """The files, in words."""

    @abstractmethod
    def contestants(self, harness: Harness) -> list[Contestant]:
        """The programs that run the workload, in the order of each round. The stand-in is fast here, and what
        it computes once may be computed now.
        """

    def targets(self, outcome: Outcome) -> list[Target]:
        """The figures to reach on the outcome's network."""
        return []


def run(workload: Workload, network: Network, host: Host, plan: Plan) -> Outcome:
    """Run a workload on a network: the contestants take turns, so that what else the machine does hits all of
    them.
    """
    outcome = Outcome(
        workload.name, workload.title, network, workload.describe(), workload.cold, workload.reference
    )
    with ExitStack() as stack:
        try:
            server = Server(host, "--data", "scale", *workload.data())
            stack.callback(server.close)
            server.set(NETWORKS["loopback"])
            harness = Harness(host, server, network, plan.rclone_backend, plan.bx)
            stack.callback(harness.stack.close)
            taking_part = [
                contestant
                for contestant in workload.contestants(harness)
                if contestant.tool not in plan.without
            ]
            server.set(network)
        except Exception as error:
            outcome.problem = _plain(error, host)
            return outcome
        outcome.entries = [
            Entry(contestant.name, share=contestant.share, note=contestant.note) for contestant in taking_part
        ]
        for number in range(plan.runs):
            for contestant, entry in zip(taking_part, outcome.entries, strict=True):
                if entry.problem or (
                    number and (contestant.once or entry.samples[0].seconds > plan.patience)
                ):
                    continue
                _measure(contestant, entry, plan, host)
        outcome.targets = workload.targets(outcome)
    return outcome


def _measure(contestant: Contestant, entry: Entry, plan: Plan, host: Host) -> None:
    begin = time.monotonic()
    try:
        entry.samples.append(contestant.measure())
        plan.say(f"    {contestant.name}: {entry.samples[-1].seconds:.2f} s")
    except Exception as error:
        # Not shown as a median of the runs that went well: who fails once cannot be relied on.
        entry.problem = (
            f"{_plain(error, host)} (run {len(entry.samples) + 1}, after {time.monotonic() - begin:.0f} s)"
        )
        plan.say(f"    {contestant.name}: failed: {entry.problem}")


def _plain(error: Exception, host: Host) -> str:
    """What went wrong; what is no fault of the one measured is named by its type."""
    text = str(error) if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"
    return text.replace(str(host.folder), "SCRATCH")


def mib(count: float) -> str:
    """Bytes in words: powers of two where they are whole, else powers of ten."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step and count % step == 0:
            return f"{count / step:g} {unit}"
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} B"
