"""What was measured: samples, medians, targets. Values only.

Used by the workloads, which make them, and by `report`, which shows them.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Network:
    """What lies between the client and the server: a wait before every request, and bytes a second over all
    connections and on each one (0: no limit).
    """

    name: str
    latency_ms: float
    bandwidth: float
    title: str
    connection_bandwidth: float = 0


NETWORKS = {
    one.name: one
    for one in (
        Network("loopback", 0, 0, "bare loopback"),
        Network("20ms", 20, 125e6, "20 ms a request, 1 Gbit/s in total"),
        Network("100ms", 100, 125e6, "100 ms a request, 1 Gbit/s in total"),
        Network("wan", 30, 125e6, "30 ms a request, 20 MB/s a connection, 1 Gbit/s in total", 20e6),
        Network("20mbit", 20, 2.5e6, "20 ms a request, 20 Mbit/s in total"),
    )
}


@dataclass(frozen=True)
class Sample:
    """One run of one program: the time, and what the server was asked and sent (body bytes) meanwhile."""

    seconds: float
    requests: int
    sent: int
    extra: dict[str, float] = field(default_factory=dict)


@dataclass
class Entry:
    """The samples of one program. `share` < 1: only this part of it was run, and times are scaled up."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    problem: str = ""
    share: float = 1.0
    note: str = ""

    @property
    def good(self) -> list[Sample]:
        """The samples that count: none where any run failed."""
        return [] if self.problem else self.samples

    @property
    def seconds(self) -> float | None:
        """The median time of the whole workload."""
        return statistics.median(sample.seconds for sample in self.good) / self.share if self.good else None

    @property
    def spread(self) -> tuple[float, float]:
        """The shortest and the longest time."""
        times = [sample.seconds / self.share for sample in self.good]
        return min(times), max(times)

    @property
    def requests(self) -> float | None:
        """The median number of requests of what was really done."""
        return statistics.median(sample.requests for sample in self.good) if self.good else None

    @property
    def sent(self) -> float | None:
        """The median of the bytes on the wire of what was really done."""
        return statistics.median(sample.sent for sample in self.good) if self.good else None

    def extra(self, name: str) -> float | None:
        """The median of a further figure."""
        values = [sample.extra[name] for sample in self.good if name in sample.extra]
        return statistics.median(values) if values else None

    def extras(self) -> dict[str, float]:
        """All further figures, medians."""
        names = dict.fromkeys(name for sample in self.good for name in sample.extra)
        return {
            name: statistics.median([sample.extra[name] for sample in self.good if name in sample.extra])
            for name in names
        }


@dataclass(frozen=True)
class Target:
    """A figure to reach: `value` at most (or with `least`: at least) `bound`; no value where something failed
    or is not there.
    """

    text: str
    value: float | None
    bound: float
    least: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None: not known."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.least else self.value <= self.bound


@dataclass
class Outcome:
    """One workload on one network."""

    work: str
    title: str
    network: Network
    files: str
    cold: str
    reference: str
    entries: list[Entry] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""

    def entry(self, name: str) -> Entry:
        """The entry called so; an empty one if it did not run."""
        return next((entry for entry in self.entries if entry.name == name), Entry(name))

    def ratio(self, above: str, below: str) -> float | None:
        """How many times as long one took as another."""
        first, second = self.entry(above).seconds, self.entry(below).seconds
        return first / second if first is not None and second else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "work": self.work,
            "title": self.title,
            "network": self.network.name,
            "files": self.files,
            "cold": self.cold,
            "reference": self.reference,
            "problem": self.problem,
            "notes": self.notes,
            "entries": [
                {
                    "name": entry.name,
                    "problem": entry.problem,
                    "share": entry.share,
                    "note": entry.note,
                    "seconds": entry.seconds,
                    "requests": entry.requests,
                    "sent": entry.sent,
                    "ratio": self.ratio(entry.name, self.reference),
                    "extra": entry.extras(),
                    "samples": [vars(sample) for sample in entry.samples],
                }
                for entry in self.entries
            ],
            "targets": [
                {
                    "text": target.text,
                    "value": target.value,
                    "bound": target.bound,
                    "at_least": target.least,
                    "unit": target.unit,
                    "met": target.met,
                }
                for target in self.targets
            ],
        }


def chain(records: list[dict[str, Any]], until: float | None = None) -> int:
    """Round trips: the most requests of these that came one after the other, each begun when the one before
    it had been answered.

    `until`: only those begun before this moment count. A request not yet answered counts, and nothing can
    follow it."""
    spans = [
        (record["time"] + record["duration"] if record["duration"] else float("inf"), record["time"])
        for record in records
        if until is None or record["time"] < until
    ]
    count, free = 0, 0.0
    for end, begin in sorted(spans):
        if begin >= free - 0.0005:
            count += 1
            free = end
    return count
