"""Whether this server answers every listing form that xnatfs relies on, and rightly; if not, what xnatfs does
instead and what that costs.

Used by the command `selftest`. Reads only. The forms and their substitutes are in `form_findings`, how they
are compared is the business of `project_checks` and `session_checks`. The report holds no name of the site.
Threading: one thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from xnatfs.errors import Failure, UsageError
from xnatfs.server.form_checks import BulkView
from xnatfs.server.form_findings import BAD, NONE, NOTE, OK, FormFinding, FormLog
from xnatfs.server.items import SubjectItem, read_subject
from xnatfs.server.json_stream import whole
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.observed import ObservedConnection, OutOfRequestsError
from xnatfs.server.probes import condition_works, range_works, whole_file
from xnatfs.server.project_checks import ProjectChecks
from xnatfs.server.records import ExperimentRecord, FileRecord, ProjectRecord, parse_stamp
from xnatfs.server.session_checks import SessionChecks
from xnatfs.server.urls import segment

MOST_REQUESTS = 59  # and one that ends the session
LONGEST_S = 110.0
_SMALL = 1_000_000  # bytes of a file that is fetched
_VERSION = re.compile(r"\d+(\.\d+){0,4}([-.]?(SNAPSHOT|RC\d*|M\d+|BETA\d*))?", re.IGNORECASE | re.ASCII)
_STARTED = re.compile(
    rb'"start_date"\s*:\s*"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ [\d:]{8} ([A-Z]{1,5}|GMT[+-]\d\d:\d\d) \d{4}"'
)


class Fact(NamedTuple):
    """A line of the report about the server as a whole; `level` as in `FormFinding`."""

    level: str
    what: str
    finding: str


@dataclass(frozen=True)
class SelfTestReport:
    """What came out; `version` is "" if the server does not tell it."""

    version: str
    facts: list[Fact]
    forms: list[FormFinding]
    requests: int
    seconds: float
    reached_the_end: bool = True

    @property
    def count(self) -> dict[str, int]:
        """How many forms came out how."""
        return {level: sum(one.level == level for one in self.forms) for level in (OK, NOTE, BAD, NONE)}

    @property
    def good(self) -> bool:
        """Whether everything can be shown right."""
        levels = {fact.level for fact in self.facts} | {form.level for form in self.forms}
        return self.reached_the_end and BAD not in levels


@dataclass
class _Seen:
    """What is gathered on the way, for the facts."""

    zone: str = ""
    view: BulkView | None = None
    projects: int = 0
    about_files: list[Fact] = field(default_factory=list)


def run(connection: ObservedConnection, project: str | None = None) -> SelfTestReport:
    """Ask everything; the connection is logged in, and ends its session afterwards.

    Args:
        project: its id; None: of the first few that can be read the one with the most sessions.

    Raises:
        UsageError: there is no such project.
    """
    began = time.monotonic()
    listings = ListingRequests(connection)
    log = FormLog(connection, lambda form: not listings.capabilities.may(form))
    seen, whole_way = _Seen(), True
    try:
        _ask(connection, listings, log, seen, project)
    except Failure as failure:
        if not failure.away:
            raise
        whole_way = False
    forms = log.findings()
    facts = list(_facts(connection, seen))
    if not whole_way:
        facts.append(Fact(BAD, "server", "stopped answering; what follows was not asked"))
    version = connection.version if _VERSION.fullmatch(connection.version) else ""
    return SelfTestReport(
        version, facts, forms, connection.requests, round(time.monotonic() - began, 1), whole_way
    )


def _ask(
    connection: ObservedConnection, listings: ListingRequests, log: FormLog, seen: _Seen, project: str | None
) -> None:
    checks = ProjectChecks(listings, log)
    projects = checks.projects()
    seen.projects = len(projects)
    if project is not None:
        wanted = [one for one in projects if one.id == project]
        if not wanted and projects:
            raise UsageError(f"no project {project} can be read")
        # Where the list of projects is refused, its own listings may be answered all the same.
        projects = wanted or [ProjectRecord(project)]
    seen.view = view = checks.look_at(projects)
    if view is None:
        return
    checks.bulk(view)
    singles = SessionChecks(listings, log, view)
    sessions = singles.sample()
    singles.run(sessions)
    checks.own_resources(view, next((one for one in projects if one.id == view.id), None))
    # What a mount stands or falls with is asked by now. Whatever comes too late here is left out.
    seen.about_files = list(_about_files(connection, singles.files))
    checks.subjects(view)
    checks.witnesses(view)
    if sessions:
        _ask_item(connection, singles, sessions[0], seen)
        singles.by_name(sessions[0])


def _ask_item(
    connection: ObservedConnection, singles: SessionChecks, session: ExperimentRecord, seen: _Seen
) -> None:
    """The item tells the server's time zone, too: nothing else does."""

    def ask(subject: str) -> SubjectItem:
        def parse(response: object) -> SubjectItem:
            body = whole(response)  # type: ignore[arg-type]
            if match := _STARTED.search(body):
                seen.zone = match[1].decode()
            return read_subject(body, subject)

        return connection.listing(f"/data/subjects/{segment(subject)}", {"format": "json"}, parse)

    singles.item(session, ask)


# --- the server as a whole ----------------------------------------------------------------------------------


def _facts(connection: ObservedConnection, seen: _Seen) -> Iterator[Fact]:
    view = seen.view
    yield (
        Fact(
            OK,
            "projects",
            f"{seen.projects} can be read; the one looked at has {len(view.experiments)} experiments",
        )
        if view is not None and view.experiments
        else Fact(
            NOTE, "projects", f"{seen.projects} can be read, none with an experiment: most was not tried"
        )
    )
    if view is not None and view.experiments:
        dated = sum(one.inserted is not None for one in view.experiments.values())
        moving = sum(parse_stamp(one) is not None for one in view.stamps)
        right = dated == len(view.experiments) and moving == len(view.stamps)
        yield Fact(
            OK if right else NOTE,
            "stamps",
            f"{dated} of {len(view.experiments)} days of entry and {moving} of {len(view.stamps)} times of "
            f"change are dates" + ("" if right else "; what has none is listed again after a while"),
        )
    yield _totals(connection)
    yield from seen.about_files
    yield from _between(connection)
    zone = f"{seen.zone}; stamps tell none" if seen.zone else "not told"
    yield Fact(OK if seen.zone else NONE, "time zone", zone)


def _totals(connection: ObservedConnection) -> Fact:
    good = [one for answers in connection.answers.values() for one in answers if not one.trouble]
    stated = sum(one.told_total for one in good)
    if not stated:
        return Fact(NOTE, "totalRecords", "none; a listing that lacks its last rows is not noticed by it")
    return Fact(OK, "totalRecords", f"in {stated} of {len(good)} good answers, and right there")


def _between(connection: ObservedConnection) -> Iterator[Fact]:
    signs = connection.signs
    servers = ", ".join(sorted(signs.servers)) or "none named"
    words = f"Server: {servers}"
    if signs.headers or signs.other_headers:
        others = [f"{len(signs.other_headers)} other X- headers"] * bool(signs.other_headers)
        words += f"; headers of a proxy: {', '.join([*sorted(signs.headers), *others])}"
    if signs.cookies:
        words += f"; {len(signs.cookies)} cookies that are not XNAT's"
    yield Fact(OK, "way", words)
    if connection.server != connection.settings.server:
        yield Fact(NOTE, "redirect", "the server has moved to another address than the one given")
    if signs.encoded:
        yield Fact(
            NOTE,
            "encoding",
            f"{signs.encoded} of {signs.answers} answers were compressed although none was asked for so",
        )
    if signs.new_sessions > 1:
        yield Fact(
            NOTE,
            "session",
            f"{signs.new_sessions} of {signs.answers} answers began a new session: the cookie gets lost on "
            f"the way, the password goes with each request, and XNAT ends the sessions only after a while",
        )
    else:
        yield Fact(OK, "session", "one for all requests")
    offset = signs.clock_offset
    if offset is None:
        yield Fact(OK, "clock", "the server does not report its own")
    else:
        ahead = f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
        yield Fact(
            *((OK, "clock", "agrees with this machine's") if abs(offset) < 5 else (NOTE, "clock", ahead))
        )


def _about_files(connection: ObservedConnection, files: list[FileRecord]) -> Iterator[Fact]:
    digested = sum(bool(one.digest) for one in files)
    if not files:
        yield Fact(NONE, "digests", "no file was listed")
        return
    yield Fact(
        OK if digested == len(files) else NOTE,
        "digests",
        f"listed for {digested} of {len(files)} files" + ("" if digested else "; nothing proves their bytes"),
    )
    small = [one for one in files if 0 < one.size <= _SMALL]
    file = min(small, key=lambda one: (not one.digest, one.size), default=None)
    if file is None:
        yield Fact(NONE, "files", "none is small enough to be fetched")
        return
    try:
        yield from _one_file(connection, file)
    except OutOfRequestsError:
        yield Fact(NONE, "files", "not all was tried: enough was asked already")
    except (HTTPError, RequestException):
        yield Fact(BAD, "files", "a small file broke off")
    except Failure as failure:
        if failure.away:
            raise
        yield Fact(
            BAD,
            "files",
            f"a small file that is listed could not be fetched (HTTP {failure.status or 'none'})",
        )


def _one_file(connection: ObservedConnection, file: FileRecord) -> Iterator[Fact]:
    size, digest, last_modified = whole_file(connection, file)
    if size != file.size:
        yield Fact(
            NOTE,
            "size",
            "a small file has another size than is listed; its true size is shown once it is open",
        )
    if file.digest:
        right = digest == file.digest
        words = (
            "that of a small file is right" if right else "that of a small file is not that of its bytes: EIO"
        )
        yield Fact(OK if right else BAD, "digest", words)
    if range_works(connection, file):
        yield Fact(OK, "Range", "parts of files can be fetched")
    else:
        yield Fact(NOTE, "Range", "ignored: files are fetched whole")
    if not last_modified:
        yield Fact(NOTE, "If-Unmodified-Since", "files have no Last-Modified: a broken download begins anew")
    elif condition_works(connection, file, last_modified):
        yield Fact(OK, "If-Unmodified-Since", "a file that changes on the way is noticed")
    else:
        yield Fact(
            NOTE, "If-Unmodified-Since", "ignored: a file that changes on the way is noticed by its digest"
        )
