"""The ratios of every run, in one JSON file, and what got worse from run to run.

Used by the command. A run is one line of the file, so that two branches' runs merge. Only ratios and bounds
are kept, no times: these depend on the machine and on what else it does, and ratios of one run much less.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmark.host import REPOSITORY, FailedError
from benchmark.results import Outcome

FILE = REPOSITORY / "docs" / "benchmarks.json"
_WORSE = 0.05  # of a figure, from which on it is shown
_EARLIER = 5  # runs before the last one that it is compared with


def figures(outcomes: list[Outcome]) -> dict[str, dict[str, Any]]:
    """By name: how many times as long as the reference each way through xnatfs took, and the figures to
    reach; `least` where more is better.
    """
    found: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        where = f"{outcome.work}, {outcome.network.name}"
        for entry in outcome.entries:
            ratio = outcome.ratio(entry.name, outcome.reference)
            if entry.name.startswith("xnatfs") and ratio is not None:
                found[f"{where}: {entry.name}, time x {outcome.reference}"] = {"value": round(ratio, 3)}
        for target in outcome.targets:
            if target.value is not None:
                value: dict[str, Any] = {"value": round(target.value, 3), "bound": target.bound}
                found[f"{where}: {target.text}"] = value | ({"least": True} if target.least else {})
    return found


def append(path: Path, run: dict[str, Any]) -> None:
    """Add one run to the file, which is made if it is missing."""
    runs = [*load(path), run]
    lines = ",\n".join(json.dumps(one, sort_keys=True) for one in runs)
    path.write_text(f"[\n{lines}\n]\n")


def load(path: Path) -> list[dict[str, Any]]:
    """The runs so far, oldest first; FailedError if the file is none of ours."""
    if not path.exists():
        return []
    try:
        runs = json.loads(path.read_text())
        if not isinstance(runs, list) or not all("figures" in run for run in runs):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise FailedError(f"{path} is no file of runs") from error
    return runs


def compare(runs: list[dict[str, Any]]) -> list[str]:
    """The last run beside the median of the ones before it that had the same sizes: lines for a terminal,
    what got worse first.
    """
    if not runs:
        return ["no run is recorded yet"]
    last = runs[-1]
    earlier = [run for run in runs[:-1] if run["sizes"] == last["sizes"]]
    lines = [f"{last['date']}, {last['xnatfs']}: {len(last['figures'])} figures"]
    worse, steady, new = [], 0, 0
    for name, figure in last["figures"].items():
        before = [run["figures"][name]["value"] for run in earlier if name in run["figures"]][-_EARLIER:]
        if not before:
            new += 1
            continue
        usual, value = statistics.median(before), figure["value"]
        change = (value - usual) / usual if usual else 0.0
        if (-change if figure.get("least") else change) > _WORSE:
            worse.append((abs(change), f"worse: {name}: {value:g}, before {usual:g} ({change:+.0%})"))
        else:
            steady += 1
    lines += [line for _, line in sorted(worse, reverse=True)]
    lines.append(f"{steady} not worse, {new} without an earlier run of these sizes")
    return lines
