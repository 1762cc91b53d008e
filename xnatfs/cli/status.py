"""`xnatfs status`: what the mounts of this user are doing."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import click

from xnatfs.activity import activity, clock_time
from xnatfs.cli import completing
from xnatfs.cli.format import counted, say, size
from xnatfs.daemon import control, dead_mounts, mount_registry, overlay, upper_layer
from xnatfs.errors import UsageError
from xnatfs.text import printable

_SILENT = 2.0  # seconds
_MOST_UNDER_WAY = 5  # lines of what is under way
_ANSWER_TIMEOUT_S = 5.0  # seconds for a mount to answer
_BY = {overlay.KERNEL: "the kernel's overlay", overlay.PROGRAM: "fuse-overlayfs"}


@click.command("status")
@click.argument(
    "mountpoint", required=False, shell_complete=completing.mounts
)  # no click.Path: it accesses the path, which may hang
@click.option("--json", "as_json", is_flag=True, help="For programs: a list with one object per mount.")
def command(mountpoint: str | None, as_json: bool) -> int:
    """Show what is mounted, what it is doing, and what went wrong.

    Exit code 0 if every mount asked about answers, else 1.
    """
    found, dead = mount_registry.running(), dead_mounts.dead()
    if mountpoint is not None:
        one = mount_registry.containing(mountpoint)
        place = os.path.abspath(mountpoint)
        dead = [each for each in dead if one is None and f"{place}/".startswith(f"{each.mountpoint}/")]
        if one is None and not dead:
            raise UsageError(f"no xnatfs mount at {mountpoint}")
        found = [] if one is None else [one]
    reports: list[dict[str, Any]] = [
        {"mountpoint": one.mountpoint, "server": one.source, "problem": one.problem} for one in dead
    ]
    for one in found:
        try:
            if dead_mounts.stopped(one):
                raise UsageError("it is stopped")
            report: dict[str, Any] = control.ask(one.socket, "status", timeout=_ANSWER_TIMEOUT_S)
        except UsageError:
            report = {"mountpoint": one.mountpoint, "server": one.server, "user": one.user, "pid": one.pid}
            report["problem"] = dead_mounts.problem_of(one)
        if one.overlay:
            report["overlay"] = {**(report.get("overlay") or {}), **upper_layer.contents(one.overlay)}
        reports.append(report)
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    elif not reports:
        say("nothing is mounted")
    for report in [] if as_json else reports:
        say(_text(report))
    return 1 if any("problem" in report for report in reports) else 0


def _server(report: dict[str, Any]) -> str:
    away = report["away"]
    if away is None:
        silent = report["server_silent_for"]
        return (
            "answers" if silent < _SILENT else f"has not answered for {silent:.0f} s; it may be slow, or away"
        )
    since = clock_time(away["since"])
    again = "on demand" if away["next_try"] is None else f"in {away['next_try']:.0f} s"
    return (
        f"has not answered since {since} ({away['words']}); next try {again}; listed and "
        f"cached data is served"
    )


def _received(contents: dict[str, int]) -> str:
    """Of a mount that another version of xnatfs runs, it may not be known."""
    count = contents.get("bytes received")
    return "" if count is None else f", {size(count)} of files received"


def _under_way(report: dict[str, Any]) -> list[str]:
    lines = activity(report)
    more = len(lines) - _MOST_UNDER_WAY
    if more <= 0:
        return lines
    return [*lines[:_MOST_UNDER_WAY], f"and {more} more in {report['mountpoint']}/.xnatfs/progress.txt"]


def _shared(report: dict[str, Any]) -> str:
    line = (
        f"  shared cache {printable(report['place'])}: {counted(report['files taken'], 'file')} "
        f"({size(report['bytes taken'])}) taken from it, {counted(report['files given'], 'file')} "
        f"({size(report['bytes given'])}) given to it"
    )
    if report.get("mounts", 1) > 1:  # not of a mount that an older version made
        line += f", {report['mounts']} mounts of yours share the server"
    for name, words in (("without digest", "without a digest, fetched here"), ("damaged", "damaged")):
        line += f", {report[name]} {words}" if report[name] else ""
    return line + (f"; it failed: {printable(report['problem'])}" if report["problem"] else "")


def _text(report: dict[str, Any]) -> str:
    head = f"{report['mountpoint']}  {report['server']}"
    if "pid" in report:
        head += f" as {printable(report['user'])} (pid {report['pid']})"
    if "problem" in report:
        return f"{head}\n  {report['problem']}"
    contents = report["contents"]
    if report.get("offline"):
        head += "  OFFLINE: only cached data"
    lines = [
        head,
        f"  since {report['started']}, {report['requests']} requests to XNAT "
        f"{printable(report['server_version']) or '(version unknown)'}{_received(contents)}",
        f"  cache: {contents['cached files']} files, {size(contents['cached bytes'])} of "
        f"{size(contents['cap'])}; "
        f"{contents['transfers']} downloads in progress, {contents['open files']} open",
    ]
    if shared := report.get("shared_cache"):
        lines.append(_shared(shared))
    lines += [f"  {line}" for line in _under_way(report)]
    if "away" in report and not report["offline"]:
        lines.insert(2, f"  server: {_server(report)}")
    if report.get("allow_other"):
        lines.insert(
            1, f"  OPEN to every user of this machine, with the rights of {printable(report['user'])}"
        )
    if login := report.get("login", {}).get("text"):
        lines.append(f"  login: {login}")
    if upper := report.get("overlay"):
        lines.append(
            f"  overlay: {upper['directory']} holds {counted(upper['files'], 'file')} "
            f"({size(upper['bytes'])}) "
            f"and {counted(upper['deleted'], 'deletion')}; by {_BY[upper['kind']]}"
        )
    if report["errors"]:
        lines.append(
            "  errors: "
            + ", ".join(
                f"{count} x {name.lower().replace('_', ' ')}" for name, count in report["errors"].items()
            )
        )
        last = report["last_error"]
        lines.append(
            f"  last, {time.strftime('%H:%M:%S', time.localtime(last['when']))}: {printable(last['text'])}"
        )
    doubtful = report.get("doubtful", {})
    if doubtful.get("listings"):
        lines.append(
            f"  doubtful: {counted(doubtful['listings'], 'listing')} cannot be had or proven now; the last: "
            f"{printable(doubtful['last'])}"
        )
    if doubtful.get("every_answer_is_a_new_session"):
        lines.append(
            "  the server, or a gateway before it, drops the session's cookie: each request is a login, and "
            "XNAT allows a user 1000 sessions"
        )
    if report.get("refused_forms"):
        lines.append(
            f"  listings that this server does not give, or not right: {', '.join(report['refused_forms'])}"
        )
    lines += [
        f"  {one['program']} reads through this mount ({counted(one['folders'], 'folder')}, "
        f"{counted(one['files'], 'file')}); what keeps it out: {one['advice']}"
        for one in report.get("indexers", [])
    ]
    if report["oddities"]:
        lines.append(
            f"  {report['oddities']} oddities on the server, left out or doubtful; see "
            f"{report['mountpoint']}/.xnatfs/oddities.txt"
        )
    return "\n".join(lines)
