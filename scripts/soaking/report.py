"""The result of a run: judged, and as text, JSON and a section of a markdown file."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.host import REPOSITORY

from soaking.findings import Findings
from soaking.watch import MIB, Blocked, Growth, Look, as_dicts
from xnatfs.config import parse_size

_BEGIN, _END = "<!-- soak: begin -->", "<!-- soak: end -->"
# descriptors more than right after mounting that the daemon may keep when nobody reads: its pool of
# connections, its databases
_IDLE = 40


@dataclass
class Result:
    """Everything about one run."""

    command: str
    seed: int
    minutes: float
    settled: float
    deadline: float
    cap: str
    findings: Findings
    looks: list[Look]
    growths: list[Growth]
    blocked: Blocked
    faults: Counter[str]
    status: dict[str, Any]
    log: Counter[str]
    interrupted: bool

    @property
    def problems(self) -> list[str]:
        """What did not hold; none if all is well."""
        found = [f"wrong: {one}" for one in self.findings.wrong] + [
            f"stuck: {one}" for one in self.findings.stuck
        ]
        found += [f"slow: {one}" for one in self.findings.slow]
        found += [f"the soak itself: {one}" for one in self.findings.broken]
        if self.blocked.worst > self.deadline:
            found.append(
                f"{self.blocked.who} was in state D for {self.blocked.worst:.0f} s without being woken"
            )
        found += [
            f"{one.name} grew from {one.first:.0f} to {one.last:.0f} {one.unit}"
            for one in self.growths
            if not one.flat
        ]
        if len(self.looks) > 2 and self.looks[-1].descriptors > self.looks[0].descriptors + _IDLE:
            found.append(
                f"{self.looks[-1].descriptors} descriptors are open when nobody reads, "
                f"{self.looks[0].descriptors} at the start"
            )
        cap = parse_size(self.cap)
        over = max((one.cached for one in self.looks), default=0)
        if over > 1.02 * cap + MIB:
            found.append(f"the cache took {over / 1e6:.0f} MB, its cap is {cap / 1e6:.0f} MB")
        found += [f"{count} x {name} reached a program" for name, count in self.findings.errors.items()]
        return found


def line(one: Look, findings: Findings) -> str:
    """One look, while it runs."""
    errors = ", ".join(f"{count} {name}" for name, count in findings.errors.items()) or "none"
    return (
        f"{one.minute:6.1f} min: {one.jobs:,} jobs, {one.compared / 1e9:.2f} GB compared, "
        f"{len(findings.wrong)} wrong, errors: {errors}; "
        f"{one.requests:,} requests; daemon {one.resident / MIB:.0f} MiB, {one.descriptors} descriptors, "
        f"{one.threads} threads; "
        f"cache {one.cached / 1e6:.0f} MB; stand-in {one.server / MIB:.0f} MiB"
    )


def _rows(result: Result) -> Iterable[tuple[str, ...]]:
    yield "what", "done", "MB compared", "errors", "median s", "99 % within s", "worst s"
    for name, kind in sorted(
        result.findings.kinds.items(), key=lambda item: (item[0].startswith("("), item[0])
    ):
        errors = ", ".join(f"{count} {error}" for error, count in kind.errors.items()) or "0"
        shown = (
            "" if name.startswith("(") else f"{kind.compared / 1e6:,.0f}",
            "" if name.startswith("(") else errors,
        )
        yield (
            name,
            f"{kind.done:,}",
            *shown,
            f"{kind.share(0.5):.3f}",
            f"{kind.share(0.99):.2f}",
            f"{kind.worst:.2f}",
        )


def _moments(result: Result) -> Iterable[tuple[str, ...]]:
    yield "when", "minute", "memory MiB", "descriptors", "threads", "cache MB", "requests", "jobs"
    looks = result.looks
    if not looks:
        return
    settled = next((one for one in looks if one.minute >= result.settled), looks[-1])
    named = [("mounted, nobody reads", looks[0]), ("settled", settled)]
    if len(looks) > 2:
        named += [
            ("at the end, all at work", looks[-3] if len(looks) > 3 else looks[-2]),
            ("afterwards, nobody reads", looks[-1]),
        ]
    for name, one in named:
        yield (
            name,
            f"{one.minute:.1f}",
            f"{one.resident / MIB:.0f}",
            str(one.descriptors),
            str(one.threads),
            f"{one.cached / 1e6:.0f}",
            f"{one.requests:,}",
            f"{one.jobs:,}",
        )


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def _summary(result: Result) -> list[str]:
    findings = result.findings
    faults = sum(result.faults.values())
    requests = result.looks[-1].requests if result.looks else 0
    lines = [
        f"{result.minutes:.1f} minutes, {findings.jobs:,} jobs, {findings.compared / 1e9:.2f} GB "
        f"compared, {len(findings.wrong)} wrong",
        f"{requests:,} requests, {faults:,} of them with a fault: "
        + ", ".join(f"{count:,} x {name}" for name, count in sorted(result.faults.items())),
        "errors that reached a program: "
        + (", ".join(f"{count} x {name}" for name, count in sorted(findings.errors.items())) or "none")
        + " (each of these faults is one that asking again cures, so none is expected)",
        f"longest in state D without being woken: {result.blocked.worst:.1f} s {result.blocked.who} (may "
        f"be {result.deadline:.0f} s)",
    ]
    lines += [
        (
            f"{one.name} after {result.settled:.1f} minutes: {one.first:.0f}, in the last third: "
            f"{one.last:.0f} {one.unit}"
        ).rstrip()
        + f" (may grow by {one.margin:.0f})"
        for one in result.growths
    ]
    if result.looks:
        lines.append(
            f"most in the cache: {max(one.cached for one in result.looks) / 1e6:.0f} MB of {result.cap}"
        )
    if result.status:
        told = ", ".join(f"{count} x {name}" for name, count in result.status["errors"].items()) or "none"
        lines.append(f"what the daemon itself counts as errors, most of them cured: {told}")
    return lines


def text(result: Result) -> str:
    """For a terminal."""
    lines = ["", *_summary(result), "", *_aligned(_rows(result)), "", *_aligned(_moments(result)), ""]
    lines += (
        ["the daemon's warnings:"] + [f"  {count:6,} x {name}" for name, count in result.log.most_common(20)]
        if result.log
        else []
    )
    lines += [f"error: {one}" for one in result.findings.examples]
    lines += [f"PROBLEM: {one}" for one in result.problems] or ["everything held"]
    return "\n".join(lines)


def as_json(path: Path, result: Result) -> None:
    """All of it for programs."""
    document = {
        "command": result.command,
        "seed": result.seed,
        "minutes": result.minutes,
        "problems": result.problems,
        "kinds": {
            name: {
                "done": kind.done,
                "compared": kind.compared,
                "errors": dict(kind.errors),
                "median": kind.share(0.5),
                "p99": kind.share(0.99),
                "worst": kind.worst,
            }
            for name, kind in result.findings.kinds.items()
        },
        "errors": dict(result.findings.errors),
        "examples": result.findings.examples,
        "wrong": result.findings.wrong,
        "stuck": result.findings.stuck,
        "slow": result.findings.slow,
        "broken": result.findings.broken,
        "faults": dict(result.faults),
        "blocked": {"worst": result.blocked.worst, "who": result.blocked.who, "seen": result.blocked.seen},
        "growths": [asdict(one) | {"flat": one.flat} for one in result.growths],
        "looks": as_dicts(result.looks),
        "log": dict(result.log),
        "daemon": result.status,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def lacks(path: Path) -> str:
    """Why a section cannot be put into a file, in one sentence; "" if it can."""
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return "" if _BEGIN in before and _END in before else f"{path} has no lines {_BEGIN} and {_END}"


def into(path: Path, result: Result) -> None:
    """Put the result between the two marks in a markdown file."""
    section = [f"Made by `{result.command}` on {time.strftime('%Y-%m-%d %H:%M')} (seed {result.seed}).", ""]
    section += [
        f"- machine: {os.cpu_count()} processors, Linux {platform.release()}, Python "
        f"{platform.python_version()}, xnatfs {_commit()}"
    ]
    section += [f"- {one}" for one in _summary(result)]
    section += [
        "",
        f"**{'Everything held.' if not result.problems else f'{len(result.problems)} problems.'}**",
        "",
    ]
    section += [f"- {one}" for one in result.problems]
    for rows in (_rows(result), _moments(result)):
        head, *rest = rows
        section += ["", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        section += [f"| {' | '.join(row)} |" for row in rest]
    if result.log:
        section += ["", "The daemon's warnings, most of them of troubles that were cured:", ""]
        section += [f"- {count:,} x `{name}`" for name, count in result.log.most_common(15)]
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    whole = "\n".join([_BEGIN, *section, _END])
    path.write_text(pattern.sub(lambda _: whole, before), encoding="utf-8")


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "(no commit)"
