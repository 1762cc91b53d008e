"""The command: which workloads on which networks, and where the results go."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

from benchmark import capability, report, trend
from benchmark.host import FailedError, Host
from benchmark.results import NETWORKS, Outcome
from benchmark.workload import QUICK, Plan, Sizes, Workload, run
from benchmark.workloads import WORKLOADS

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SPACE = 10e9  # bytes of disk a full run may take


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="How fast xnatfs is beside curl, rclone, pyxnat, xnatpy and bx."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smaller sizes, one run, the first network of each workload: under two minutes",
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help=f"only this workload, or all that begin so (tables): {', '.join(WORKLOADS)}",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        action="append",
        choices=list(NETWORKS),
        help=f"only on this network: {', '.join(NETWORKS)}",
    )
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each (3; with --quick 1)")
    parser.add_argument(
        "--patience",
        type=float,
        default=60,
        metavar="SECONDS",
        help="what takes longer than this is run once (60)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=900,
        metavar="SECONDS",
        help="what takes longer than this has failed (900)",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=["xnatfs", "curl", "rclone", "pyxnat", "xnatpy", "bx"],
        help="leave this program out",
    )
    parser.add_argument(
        "--rclone-backend",
        choices=["http", "webdav"],
        default="http",
        help="how rclone sees the plain view (http)",
    )
    parser.add_argument(
        "--bx",
        metavar="PROGRAM",
        default=os.environ.get("XNATFS_TEST_BX"),
        help="the bx to compare tables with ($XNATFS_TEST_BX)",
    )
    parser.add_argument(
        "--skip-capability", action="store_true", help="do not measure the stand-in alone first"
    )
    fields = ", ".join(field.name for field in dataclasses.fields(Sizes))
    parser.add_argument(
        "--size", metavar="NAME=VALUE", action="append", default=[], help=f"another size: {fields}"
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where caches and copies go (the system's temporary folder)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="measure nothing: show what got worse in the last run recorded",
    )
    parser.add_argument(
        "--trend",
        type=Path,
        default=trend.FILE,
        metavar="FILE",
        help="where the ratios of every run are added (docs/benchmarks.json of this repository)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG")
    return parser.parse_args()


def _sizes(arguments: argparse.Namespace) -> Sizes:
    changes: dict[str, int] = {}
    known = {field.name for field in dataclasses.fields(Sizes)}
    for text in arguments.size:
        name, _, value = text.partition("=")
        match = re.fullmatch(r"(\d+)([KMG]?I?)B?", value.upper())
        if name not in known or match is None:
            raise SystemExit(f"--size {text}: write it as NAME=VALUE, such as large=64MiB")
        changes[name] = int(match[1]) * _UNITS[match[2]]
    return dataclasses.replace(QUICK if arguments.quick else Sizes(), **changes)


def _workloads(names: list[str] | None) -> list[type[Workload]]:
    found = [
        workload
        for name in names or [""]
        for key, workload in WORKLOADS.items()
        if name in ("", key) or key.startswith(f"{name}-")
    ]
    for name in names or []:
        if not any(name == key or key.startswith(f"{name}-") for key in WORKLOADS):
            raise SystemExit(f"--only {name}: there is no such workload, but {', '.join(WORKLOADS)}")
    return list(dict.fromkeys(found))


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run it all; 0 unless something of xnatfs itself could not be measured."""
    arguments = _arguments()
    if arguments.compare:
        return _compare(arguments.trend)
    sizes = _sizes(arguments)
    runs = arguments.runs or (1 if arguments.quick else 3)
    plan = Plan(
        runs, arguments.patience, frozenset(arguments.without), arguments.rclone_backend, arguments.bx, _say
    )
    command = shlex.join(
        ["scripts/bench", *(Path(part).name if part.startswith("/") else part for part in sys.argv[1:])]
    )
    chosen = [workload(sizes) for workload in _workloads(arguments.only)]
    todo = [
        (NETWORKS[network], workload)
        for workload in chosen
        for network in arguments.network or (workload.networks[:1] if arguments.quick else workload.networks)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    host = Host(arguments.scratch, arguments.limit)
    outcomes: list[Outcome] = []
    alone: list[dict[str, float | str]] = []
    began = time.monotonic()
    try:
        _check_space(host, arguments.quick)
        surroundings = report.environment(host, arguments.rclone_backend, arguments.bx)
        _say("\n".join(f"{name}: {value}" for name, value in surroundings.items()))
        if not arguments.skip_capability:
            networks = list(dict.fromkeys([NETWORKS["loopback"], *(network for network, _ in todo)]))
            alone = capability.measure(host, networks, sizes, runs)
            _say(report.capability_text(alone))
        for network, workload in todo:
            _say(f"\n.. {workload.name}, {network.title} ({time.monotonic() - began:.0f} s)")
            outcomes.append(run(workload, network, host, plan))
            _say(report.text(outcomes[-1]))
    except FailedError as error:
        _say(f"scripts/bench: {error}")
        return 1
    except KeyboardInterrupt:
        _say("\nscripts/bench: interrupted; unmounting")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        host.close()
        if outcomes:
            _write(arguments, command, surroundings, alone, outcomes)
            _record(arguments.trend, surroundings, sizes, runs, outcomes)
    _say(f"\n{time.monotonic() - began:.0f} s in all")
    broken = any(outcome.problem for outcome in outcomes) or any(
        entry.problem for outcome in outcomes for entry in outcome.entries if entry.name.startswith("xnatfs")
    )
    return 1 if broken else 0


def _compare(path: Path) -> int:
    try:
        lines = trend.compare(trend.load(path))
    except FailedError as error:
        _say(f"scripts/bench: {error}")
        return 1
    _say("\n".join(lines))
    return 0


def _record(
    path: Path, surroundings: dict[str, str], sizes: Sizes, runs: int, outcomes: list[Outcome]
) -> None:
    figures = trend.figures(outcomes)
    if not figures:
        return
    about = {name: surroundings[name] for name in ("date", "machine", "xnatfs")}
    run = {**about, "sizes": dataclasses.asdict(sizes), "runs": runs, "figures": figures}
    try:
        trend.append(path, run)
    except (OSError, FailedError) as error:
        _say(f"scripts/bench: the run is not recorded: {error}")


def _check_space(host: Host, quick: bool) -> None:
    state = os.statvfs(host.folder)
    needed = _SPACE / 5 if quick else _SPACE
    if state.f_bavail * state.f_frsize < needed:
        raise FailedError(
            f"less than {needed / 1e9:.0f} GB free in {host.folder.parent}; name another folder with "
            f"--scratch"
        )


def _write(
    arguments: argparse.Namespace,
    command: str,
    surroundings: dict[str, str],
    alone: list[dict[str, float | str]],
    outcomes: list[Outcome],
) -> None:
    if arguments.json:
        report.as_json(arguments.json, command, surroundings, alone, outcomes)
    if arguments.markdown:
        report.as_markdown(arguments.markdown, command, surroundings, alone, outcomes, arguments.quick)
    if arguments.plot:
        report.as_plot(arguments.plot, outcomes)


if __name__ == "__main__":
    sys.exit(main())
