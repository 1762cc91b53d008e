"""Outcomes as text, JSON, markdown and a picture."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmark.harness import RCLONE_FLAGS
from benchmark.host import REPOSITORY, Host
from benchmark.results import Entry, Outcome, Target

_HEADS = ("program", "time", "from - to", "runs", "requests", "on the wire", "x reference")


def environment(host: Host, backend: str, bx: str | None) -> dict[str, str]:
    """Where and with what this was measured."""

    def version(*command: str) -> str:
        program = host.find(command[0])
        if program is None:
            return "not installed"
        try:
            result = subprocess.run(
                [program, *command[1:]], capture_output=True, text=True, timeout=20, check=False, cwd="/"
            )
        except (subprocess.SubprocessError, OSError):
            return "?"
        lines = (result.stdout or result.stderr).strip().splitlines()
        return lines[0] if lines else "?"

    def package(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    load = os.getloadavg()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{os.cpu_count()} processors, Linux {platform.release().partition('-')[0]}, load "
        f"{load[0]:.1f} at the start",
        "disk": f"{_file_system(host.folder)}, {_free(host.folder) / 1e9:.0f} GB free",
        "python": platform.python_version(),
        "xnatfs": f"{package('xnatfs')} ({commit.stdout.strip() or 'no git'})",
        "curl": version("curl", "--version").partition(" (")[0],
        "rclone": f"{version('rclone', 'version')}; backend {backend}; flags: "
        f"{' '.join(flag or repr(flag) for flag in RCLONE_FLAGS)}",
        "pyxnat": package("pyxnat"),
        "xnatpy": package("xnat"),
        "dcm2niix": version("dcm2niix", "--version"),
        "bx": _bx_version(bx) if bx else "none named",
    }


def _bx_version(program: str) -> str:
    versions = sorted(
        Path(program).resolve().parent.parent.glob("lib/python*/site-packages/bbrc_bx-*.dist-info")
    )
    return versions[-1].name.split("-")[1].removesuffix(".dist") if versions else "?"


def _free(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def _file_system(folder: Path) -> str:
    best = ("", "?")
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        point, kind = line.split()[1:3]
        if str(folder).startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def seconds(value: float | None) -> str:
    """A time, with as many digits as mean something."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _size(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"


def _row(outcome: Outcome, entry: Entry) -> tuple[str, ...]:
    if entry.problem or not entry.samples:
        return (entry.name, "failed" if entry.problem else "not measured", "", "", "", "", "")
    ratio = outcome.ratio(entry.name, outcome.reference)
    low, high = entry.spread
    scaled = " (scaled)" if entry.share < 1 else ""
    return (
        entry.name,
        seconds(entry.seconds) + scaled,
        f"{seconds(low)} - {seconds(high)}",
        str(len(entry.samples)),
        f"{entry.requests:,.0f}",
        _size(entry.sent),
        "-" if ratio is None else f"{ratio:.2f}",
    )


def _remarks(outcome: Outcome) -> list[str]:
    lines = [f"{entry.name}: {entry.note}" for entry in outcome.entries if entry.note]
    lines += [f"{entry.name}: failed: {entry.problem}" for entry in outcome.entries if entry.problem]
    for entry in outcome.entries:
        lines += [f"{entry.name}: {name} {value:.3g}" for name, value in entry.extras().items()]
    return lines + outcome.notes


def _target(target: Target) -> tuple[str, str, str, str]:
    unit = f" {target.unit}" if target.unit and target.unit != "x" else target.unit
    value = (
        "-"
        if target.value is None
        else f"{target.value:.2f}{unit}"
        if isinstance(target.value, float)
        else f"{target.value}{unit}"
    )
    bound = f"{'at least' if target.least else 'at most'} {target.bound:g}{unit}"
    return target.text, value, bound, {True: "met", False: "MISSED", None: "not known"}[target.met]


def text(outcome: Outcome) -> str:
    """An outcome for a terminal."""
    lines = [
        "",
        f"== {outcome.work}: {outcome.title} | {outcome.network.title}",
        f"   files: {outcome.files}",
        f"   {outcome.cold}; reference: {outcome.reference}",
    ]
    if outcome.problem:
        return "\n".join([*lines, f"   failed: {outcome.problem}"])
    rows = [_HEADS, *(_row(outcome, entry) for entry in outcome.entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append(("   " + "  ".join(cells)).rstrip())
    lines += [f"   - {line}" for line in _remarks(outcome)]
    for target in outcome.targets:
        what, value, bound, verdict = _target(target)
        lines.append(f"   target: {what}: {value} ({bound}): {verdict}")
    return "\n".join(lines)


def capability_text(rows: list[dict[str, float | str]]) -> str:
    """What the stand-in can do, for a terminal."""
    lines = ["", "== the stand-in alone (curl to /dev/null, best of the runs)"]
    for row in rows:
        figures = ", ".join(
            f"{name} {value:,.0f}" for name, value in row.items() if isinstance(value, (int, float))
        )
        lines.append(f"   {row['title']}: {figures}")
    return "\n".join(lines)


def as_json(
    path: Path,
    command: str,
    surroundings: dict[str, str],
    alone: list[dict[str, float | str]],
    outcomes: list[Outcome],
) -> None:
    """Everything, every sample."""
    document: dict[str, Any] = {
        "command": command,
        "environment": surroundings,
        "stand_in_alone": alone,
        "outcomes": [outcome.as_dict() for outcome in outcomes],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _table(rows: Sequence[tuple[str, ...]], right_from: int = 1) -> list[str]:
    head, *body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    rule = "|".join("---" if column < right_from else "---:" for column in range(len(rows[0])))
    return [f"| {head} |", f"|{rule}|", *(f"| {row} |" for row in body), ""]


def as_markdown(
    path: Path,
    command: str,
    surroundings: dict[str, str],
    alone: list[dict[str, float | str]],
    outcomes: list[Outcome],
    quick: bool,
) -> None:
    """Tables for the documentation."""
    lines = [
        "# Benchmarks",
        "",
        f"Made by `{command}`. Medians; xnatfs and the others took turns in one run on one machine.",
    ]
    lines += ["Sizes were those of `--quick`: the targets are for the full ones."] if quick else []
    lines += ["", *(f"- {name}: {value}" for name, value in surroundings.items()), ""]
    targets = [(outcome, target) for outcome in outcomes for target in outcome.targets]
    if targets:
        rows = [("work", "network", "figure", "measured", "target", "")]
        rows += [(outcome.title, outcome.network.name, *_target(target)) for outcome, target in targets]
        lines += ["## Figures to reach", "", *_table(rows, 9)]
    if alone:
        names = [name for name in alone[0] if name not in ("network", "title")]
        body = [(str(row["title"]), *(f"{row[name]:,.0f}" for name in names)) for row in alone]
        lines += [
            "## The stand-in alone",
            "",
            "Asked by curl writing to /dev/null.",
            "",
            *_table([("network", *names), *body]),
        ]
    for outcome in outcomes:
        lines += [
            f"## {outcome.title}: {outcome.network.title}",
            "",
            f"Files: {outcome.files}.",
            f"{outcome.cold[:1].upper()}{outcome.cold[1:]}.",
            "",
        ]
        if outcome.problem:
            lines += [f"Failed: {outcome.problem}", ""]
            continue
        lines += _table([_HEADS, *(_row(outcome, entry) for entry in outcome.entries)])
        remarks = [f"- {line}" for line in _remarks(outcome)]
        lines += [*remarks, ""] if remarks else []
    path.write_text("\n".join(lines).rstrip() + "\n")


def as_plot(path: Path, outcomes: list[Outcome]) -> None:
    """The times, a panel for each outcome."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    shown = [outcome for outcome in outcomes if any(entry.good for entry in outcome.entries)]
    if not shown:
        print("nothing to plot", file=sys.stderr)
        return
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(8 * columns, 3.2 * rows), squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.axis("off")
    for panel, outcome in zip(panels.flat, shown, strict=False):
        entries = [entry for entry in outcome.entries if entry.good][::-1]
        for place, entry in enumerate(entries):
            time_taken = entry.seconds or 0.0
            colour = (
                "#d95f02"
                if entry.name.startswith("xnatfs")
                else "#7570b3"
                if entry.name == outcome.reference
                else "#777777"
            )
            reach = [[time_taken - entry.spread[0]], [entry.spread[1] - time_taken]]
            panel.errorbar(time_taken, place, xerr=reach, fmt="o", color=colour, capsize=3)
            panel.annotate(
                seconds(time_taken),
                (time_taken, place),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        panel.set_yticks(range(len(entries)), [entry.name for entry in entries], fontsize=8)
        panel.set_ylim(-0.6, len(entries) - 0.2)
        panel.set_xscale("log")
        # Points, and whole decades: bars on a logarithmic axis would begin somewhere and so say nothing.
        times = [entry.seconds or 1e-3 for entry in entries]
        panel.set_xlim(
            10 ** math.floor(math.log10(min(times) * 0.8)), 10 ** math.ceil(math.log10(max(times) * 1.2))
        )
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.grid(axis="x", which="both", alpha=0.3)
        panel.set_title(f"{outcome.title}\n{outcome.network.title}", fontsize=9)
        panel.set_xlabel("seconds (logarithmic)", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
