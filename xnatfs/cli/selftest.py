"""`xnatfs selftest`: does this server answer as xnatfs needs it to, and what does it cost if not?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from xnatfs._version import __version__
from xnatfs.auth import credentials as logins
from xnatfs.cli.format import counted
from xnatfs.cli.options import login_options
from xnatfs.config import Settings
from xnatfs.server import self_test
from xnatfs.server.form_findings import BAD, FORMS, NONE, NOTE, OK, FormFinding
from xnatfs.server.observed import ObservedConnection
from xnatfs.server.self_test import LONGEST_S, MOST_REQUESTS, SelfTestReport

_MARKS = {
    OK: click.style("ok  ", fg="green"),
    NOTE: click.style("note", fg="yellow"),
    BAD: click.style("BAD ", fg="red"),
    NONE: "--  ",
}
_WIDTH = max(map(len, FORMS))


@click.command("selftest")
@login_options
@click.option(
    "--project",
    metavar="ID",
    help="Look into this project. Without it: of the first few that can be read, the one with most sessions.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: the same as one object.")
def command(
    server: str | None,
    user: str | None,
    config: Path | None,
    netrc: Path | None,
    allow_http: bool,
    project: str | None,
    as_json: bool,
) -> int:
    """Ask a server every listing that xnatfs relies on, compare the answers with each other, and say which
    are worked around and what that costs.

    Reads only: at most about 60 requests and two minutes. The report has no name of the server, its users or
    its data in it, and can be sent to others. Exit code 0 if everything can be shown right, 1 if something
    cannot.
    """
    login = logins.find(server, user, config=config, netrc_file=netrc)
    settings = Settings(server=login.server, verify=login.verify, proxy=login.proxy, allow_http=allow_http)
    connection = ObservedConnection(settings, login, MOST_REQUESTS, LONGEST_S)
    try:
        connection.login()
        report = self_test.run(connection, project)
    finally:
        connection.close()
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2))
    else:
        for line in _lines(report):
            click.echo(line)
    return 0 if report.good else 1


def _as_json(report: SelfTestReport) -> dict[str, Any]:
    return {
        "xnatfs": __version__,
        "xnat": report.version,
        "good": report.good,
        "verdict": _verdict(report),
        "requests": report.requests,
        "seconds": report.seconds,
        "server": [one._asdict() for one in report.facts],
        "forms": [asdict(one) for one in report.forms],
    }


def _lines(report: SelfTestReport) -> Iterator[str]:
    yield f"xnatfs {__version__}, XNAT {report.version or '(version unknown)'}"
    for level, what, finding in report.facts:
        yield f"{_MARKS[level]}  {what:<{_WIDTH}}  {finding}"
    yield ""
    for one in report.forms:
        yield f"{_MARKS[one.level]}  {one.form:<{_WIDTH}}  {_found(one)}"
        if one.instead:
            yield f"      {'':<{_WIDTH}}  instead: {one.instead}"
    yield ""
    yield f"{counted(report.requests, 'request')} in {report.seconds:.1f} s"
    yield f"verdict: {_verdict(report)}"


def _found(one: FormFinding) -> str:
    more = [counted(one.compared, "thing") + " compared"] * bool(one.compared)
    more += [f"{one.ms:.0f} ms"] if one.ms is not None else []
    more += [f"{one.ms_per_1000_rows:.0f} ms for 1000 rows"] if one.ms_per_1000_rows is not None else []
    return one.finding + (f" ({', '.join(more)})" if more else "")


def _verdict(report: SelfTestReport) -> str:
    wrong = [one.form for one in report.forms if one.level == BAD]
    wrong += [one.what for one in report.facts if one.level == BAD]
    if wrong:
        return f"not everything can be shown right: {', '.join(wrong)}"
    found = report.count
    words = "everything that was tried can be shown right" if found[OK] else "nothing could be tried"
    if found[NOTE]:
        words += f"; {counted(found[NOTE], 'form')} of {len(report.forms) - found[NONE]} worked around"
    return words
