"""`xnatfs selftest`: it says the truth about a server, and names nobody."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.server.selftests import MOST, below, by_form, facts, printed, selftested
from tests.support import xnatfs
from xnatfs.cli import selftest
from xnatfs.demo.data import build
from xnatfs.demo.model import Archive, Resource
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import observed, self_test
from xnatfs.server.form_findings import BAD, FORMS, NONE, NOTE, OK
from xnatfs.server.http_transport import HttpTransport
from xnatfs.server.observed import ObservedConnection
from xnatfs.server.proxy_signs import ProxySigns


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "_PAUSE_S", 0.0)


# --- right answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [None, "ALFA", "MESSY", "PIPES"])
@pytest.mark.parametrize("profile", ["full", "1.8.8"])
def test_a_server_that_grants_all(server: DemoServer, profile: str, project: str | None) -> None:
    server.switches.profile = profile
    report = selftested(server.url, project)
    assert report.good and report.version == "1.8.10"
    assert below(report, BAD) == set() == below(report, NOTE)
    assert {level for level, _ in facts(report).values()} <= {OK, NOTE}
    assert facts(report)["time zone"] == (OK, "UTC; stamps tell none")
    assert facts(report)["Range"][0] == facts(report)["If-Unmodified-Since"][0] == OK
    assert len(server.requests("GET /data/JSESSION")) == len(server.requests("DELETE /data/JSESSION")) == 1
    assert report.requests + 1 == len(server.requests()) <= MOST
    assert {record.method for record in server.requests()} == {"GET", "DELETE"}
    found = by_form(report)
    if project in (None, "ALFA", "MESSY"):
        assert not below(report, NONE)
        assert found["scans of a project"].compared > 2 and found["files of one resource"].compared
    assert all(one.ms is not None for one in report.forms if one.requests)


def test_a_server_that_grants_only_what_is_proven(server: DemoServer) -> None:
    server.switches.profile = "proven"
    report = selftested(server.url)
    assert report.good
    assert below(report, NOTE) == {
        "projects with columns",
        "experiments with stamps",
        "subjects with resources",
        "resources of experiments",
        "scans of a project",
        "assessors of a project",
        "reconstructions of a project",
        "files of several sessions",
    }
    found = by_form(report)
    assert "one request more for each subject" in found["subjects with resources"].instead
    assert "for each session that is shared in" in found["scans of a project"].instead
    assert facts(report)["digests"] == (NOTE, "listed for 0 of 58 files; nothing proves their bytes")
    assert len(server.requests()) <= MOST


def test_a_server_with_nothing_on_it() -> None:
    with DemoServer(build("empty")) as server:
        report = selftested(server.url)
        assert report.good and not below(report, BAD)
        assert by_form(report)["scans of a project"].finding == "nothing here to try it with"


def test_a_project_that_cannot_be_read(server: DemoServer) -> None:
    with pytest.raises(UsageError, match="NOWHERE"):
        selftested(server.url, "NOWHERE")
    assert len(server.requests("DELETE /data/JSESSION")) == 1


# --- what lies between --------------------------------------------------------------------------------------


def test_signs_of_a_proxy_name_no_host() -> None:
    signs = ProxySigns()
    headers = {
        "Via": "1.1 secret.host (squid)",
        "Server": "SecretServer/1",
        "X-Secret-Host": "node7",
        "X-Cache": "MISS from secret.host",
        "Date": "Wed, 01 Jan 2020 00:00:00 GMT",
    }
    signs.note(headers, ["JSESSIONID", "SECRETPOOL"], new=False)
    signs.note({"Server": "nginx/1.18.0 (secret)", "Date": "yesterday"}, [], new=True)
    assert signs.headers == {"via", "x-cache"} and len(signs.other_headers) == 1
    assert dict(signs.servers) == {"another": 1, "nginx/1.18.0": 1}
    assert (len(signs.cookies), signs.new_sessions) == (1, 1)
    assert signs.clock_offset is not None and signs.clock_offset < -1e8


def test_what_files_grant(server: DemoServer) -> None:
    server.switches.no_range = True
    server.switches.wrong_digest = "."
    report = selftested(server.url, "ALFA")
    assert facts(report)["Range"] == (NOTE, "ignored: files are fetched whole")
    assert facts(report)["digest"][0] == BAD and not report.good
    server.switches.wrong_digest, server.switches.stale_size = "", "."
    assert facts(selftested(server.url, "ALFA"))["size"][0] == NOTE


def test_the_clock(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProxySigns, "clock_offset", 90.0)
    assert facts(selftested(server.url, "ALFA"))["clock"] == (NOTE, "90 s ahead of this machine's")
    monkeypatch.setattr(ProxySigns, "clock_offset", None)
    assert facts(selftested(server.url, "ALFA"))["clock"] == (OK, "the server does not report its own")


def test_a_connection_that_was_closed_meanwhile_is_no_trouble(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = HttpTransport.send, [1]

    def send(self: HttpTransport, method: str, url: str, **options: Any) -> Any:
        if url.endswith("/scans") and left and left.pop():
            raise Failure(Cause.CUT_SHORT, url)
        return before(self, method, url, **options)

    monkeypatch.setattr(HttpTransport, "send", send)
    found = by_form(selftested(server.url, "ALFA"))["scans of a session"]
    assert not left and (found.level, found.finding) == (OK, "holds")


def test_a_server_that_has_moved(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObservedConnection, "server", server.url + "/")
    level, words = facts(selftested(server.url, "ALFA"))["redirect"]
    assert level == NOTE and server.url not in words


# --- bounds -------------------------------------------------------------------------------------------------


def test_no_more_requests_than_it_may_send(server: DemoServer) -> None:
    for most in (6, 15, 25):
        server.clear_log()
        report = selftested(server.url, most=most)
        assert len(server.requests()) <= most + 1
        assert any(one.finding.startswith("not asked") for one in report.forms)
        assert len(server.requests("DELETE /data/JSESSION")) == 1


def test_no_longer_than_it_may_take(server: DemoServer) -> None:
    report = selftested(server.url, seconds=0.0)
    assert below(report, BAD) == set() and below(report, NONE) == set(FORMS)


def test_a_server_that_goes_away(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = self_test.SessionChecks.run

    def and_away(*arguments: Any) -> None:
        server.switches.refuse_connections = True
        before(*arguments)

    monkeypatch.setattr(self_test.SessionChecks, "run", and_away)
    report = selftested(server.url, seconds=20.0)
    assert not report.good


def test_a_large_project_is_not_listed_twice(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xnatfs.server.project_checks.HUGE", 3)
    report = selftested(server.url, "ALFA")
    assert (
        report.good and by_form(report)["labels of experiments"].finding == "left out: the project is large"
    )


# --- the command --------------------------------------------------------------------------------------------


def said(server: DemoServer, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    for name, value in (("HOST", server.url), ("USER", "demo"), ("PASS", "demo")):
        monkeypatch.setenv(f"XNAT_{name}", value)
    return CliRunner().invoke(selftest.command, list(arguments), standalone_mode=False)


def test_what_a_person_reads(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    done = said(server, monkeypatch)
    lines = done.output.splitlines()
    assert done.return_value == 0
    assert lines[-1] == "verdict: everything that was tried can be shown right"
    assert {line[:6].strip() for line in lines if line and not line.startswith(("xnatfs", "verdict"))} <= {
        *("ok", "note", "--", ""),
        *(line[:6].strip() for line in lines if re.match(r"\d+ requests in ", line)),
    }
    for form in FORMS:
        assert any(line[6:].startswith(form) for line in lines)


def test_what_a_program_reads(server: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    done = said(server, monkeypatch, "--json", "--project", "ALFA")
    told = json.loads(done.output)
    assert told["good"] is True and told["xnat"] == "1.8.10" and done.return_value == 0
    assert [one["form"] for one in told["forms"]] == list(FORMS)
    assert {"level", "what", "finding"} == set(told["server"][0])


def test_the_exit_code_tells_what_cannot_be_shown(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.switches.wrong_digest = "."
    done = said(server, monkeypatch)
    assert done.return_value == 1
    assert done.output.splitlines()[-1] == "verdict: not everything can be shown right: digest"


def test_as_a_program(server: DemoServer) -> None:
    env = {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
    done = xnatfs("selftest", "--project", "MESSY", env=env)
    assert done.returncode == 0 and done.stderr == "" and "verdict: everything" in done.stdout
    done = xnatfs("selftest", env={**env, "XNAT_PASS": "wrong"})
    assert done.returncode == 77 and done.stdout == "" and "refused" in done.stderr


# --- no name ------------------------------------------------------------------------------------------------

# Words of the report's own that are names in the lab, too.
WORDS = {"files", "experiments", "scans", "Range", "digest", "size", "stats", "demo", "out", "UTC"}


def names_of(archive: Archive) -> set[str]:
    """Whatever in an archive is a name: of three characters at least."""
    found: set[str] = {archive.site}

    def resources(owned: list[Resource]) -> None:
        for one in owned:
            found.update((one.label, str(one.id)))
            for entry in one.entries:
                found.update((entry.path, entry.path.rpartition("/")[2], entry.digest or ""))

    for project in archive.projects.values():
        found.update((project.id, project.name, project.description, project.secondary_id))
        resources(project.resources)
    for subject in archive.subjects.values():
        found.update((subject.id, subject.label, *(label or "" for label in subject.shares.values())))
        resources(subject.resources)
    for one in archive.experiments.values():
        found.update((one.id, one.label, one.xsi_type, *(label or "" for label in one.shares.values())))
        for owned in (one.resources, one.in_resources, one.out_resources):
            resources(owned)
        for scan in one.scans:
            found.update((scan.id, scan.type, scan.series_description))
            resources(scan.resources)
        for made in one.reconstructions:
            found.update((made.id, made.type))
            resources([*made.in_resources, *made.out_resources])
    return {name for name in found if len(name) > 2 and name.strip()} - WORDS


def told_names(text: str, names: set[str]) -> set[str]:
    return {name for name in names if name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)}


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("project", ["MESSY", "ALFA", "PIPES", "BROKEN"])
def test_the_report_names_nobody(server: DemoServer, profile: str, project: str) -> None:
    server.switches.profile = profile
    text = printed(selftested(server.url, project))
    names = names_of(server.archive) | {"127.0.0.1", "localhost", server.url.rpartition(":")[2]}
    assert told_names(text, names) == set()
    assert not re.search(r"\bdemo\b|/data/|http", text.replace("HTTP ", ""))


@pytest.mark.parametrize("switch", ["fail", "html", "garble", "database", "empty"])
def test_nor_does_it_in_trouble(server: DemoServer, switch: str) -> None:
    login = "JSESSION|/data/auth|buildInfo"
    server.switches.match = f"^(?!.*({login}))"
    values: dict[str, Any] = {
        "fail": {"fail_next": -1, "fail_status": 500},
        "html": {"html_instead": -1},
        "garble": {"garble_listings": "utf8"},
        "database": {"failing_table": "xnat_imagescandata"},
        "empty": {"failing_query": "files"},
    }[switch]
    server.switches.update(values)
    report = selftested(server.url, "MESSY")
    text = printed(report)
    assert told_names(text, names_of(server.archive) | {"127.0.0.1"}) == set()
    assert "demo" not in text and "/data/" not in text
    assert report.good == (switch == "empty")


def test_a_version_may_have_a_name_in_it() -> None:
    assert self_test._VERSION.fullmatch("1.8.10.1-SNAPSHOT") and self_test._VERSION.fullmatch("1.9.0")
    assert not self_test._VERSION.fullmatch("1.8.10-of-our-institute")
