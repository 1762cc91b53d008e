"""What the tests of the self-test share.

Used by `test_selftest` and `test_selftest_dialects`, which cannot be one module: the second one answers all
requests of its process itself.
"""

from __future__ import annotations

import json

from xnatfs.auth.credentials import Credentials
from xnatfs.cli import selftest
from xnatfs.config import Settings
from xnatfs.server import self_test
from xnatfs.server.form_findings import FormFinding
from xnatfs.server.observed import ObservedConnection
from xnatfs.server.self_test import MOST_REQUESTS, SelfTestReport

MOST = 60  # requests


def selftested(
    url: str, project: str | None = None, most: int = MOST_REQUESTS, seconds: float = 100.0
) -> SelfTestReport:
    """The report about a server."""
    login = Credentials(url, "demo", "demo", "the test")
    connection = ObservedConnection(Settings(server=url), login, most, seconds)
    try:
        connection.login()
        return self_test.run(connection, project)
    finally:
        connection.close()


def by_form(report: SelfTestReport) -> dict[str, FormFinding]:
    return {one.form: one for one in report.forms}


def facts(report: SelfTestReport) -> dict[str, tuple[str, str]]:
    return {one.what: (one.level, one.finding) for one in report.facts}


def below(report: SelfTestReport, level: str) -> set[str]:
    return {one.form for one in report.forms if one.level == level}


def printed(report: SelfTestReport) -> str:
    return "\n".join(selftest._lines(report)) + json.dumps(selftest._as_json(report))
