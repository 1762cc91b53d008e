"""What a project contains, in a handful of requests (fact sheet 2.9): subjects, experiments, scans, assessors, reconstructions.

Used by `fetch.catalogs`. Resources and files are in `resources.py`. Forms that are inferred only ([I] in the fact sheet) are tried
once a server and remembered; each has a fallback, and every method says in its result what it could not learn in bulk.
Threading: any thread; `Capabilities` is a set of flags that only ever turn off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from xnatfs.errors import Cause, Failure
from xnatfs.server.breaker import Breaker
from xnatfs.server.items import SubjectItem, subject_item
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    Owner,
    ProjectRecord,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
    SubjectRecord,
    parse_stamp,
)
from xnatfs.server.session import Connection
from xnatfs.server.tables import Row, has_column, number, pick, rows_of
from xnatfs.server.urls import segment

log = logging.getLogger(__name__)

_SCAN = "xnat:imageScanData"
_SCAN_COLUMNS = (
    *("ID", "label", "subject_label", "project", "xsiType"),
    *(f"{_SCAN}/{name}" for name in ("ID", "type", "series_description", "quality", "frames", "file/label")),
)
# Plausible, unproven (fact sheet 2.9 point 3): with the numeric id two resources of one label, or of none, are told apart.
_SCAN_EXTRAS = (f"{_SCAN}/file/xnat_abstractresource_id", f"{_SCAN}/file/file_count", f"{_SCAN}/file/file_size")


_NAMES_AT_ONCE = 100


class Capabilities:
    """Which inferred forms this server has refused; asked once, never again."""

    def __init__(self) -> None:
        self._refused: set[str] = set()

    def may(self, form: str) -> bool:
        """Whether the form is worth trying."""
        return form not in self._refused

    def refuse(self, form: str) -> None:
        """Remember that the server does not take this form."""
        if form not in self._refused:
            log.info("this server does not take the form %r", form)
            self._refused.add(form)

    @property
    def refused(self) -> list[str]:
        """For `status`."""
        return sorted(self._refused)


@dataclass
class BulkResources:
    """Resources as a bulk listing tells them: `known` holds the objects whose resources are told completely.

    `blank` names the columns (directions for assessors and reconstructions) that came back but were blank throughout. There may be
    nothing to tell, or the server does not know the path: one object has to be asked singly before it is believed.
    """

    resources: list[ResourceRecord] = field(default_factory=list)
    known: set[str] = field(default_factory=set)  # accession ids of subjects, experiments or assessors
    blank: set[str] = field(default_factory=set)


@dataclass
class ScanListing:
    """Scans of a project; `resources.known` holds the sessions whose *scan* resources are complete."""

    scans: list[ScanRecord] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)  # sessions the listing speaks for
    resources: BulkResources = field(default_factory=BulkResources)


@dataclass
class AssessorListing:
    """Image assessors of a project; `resources.known` holds those whose resources (in, out and plain) are complete."""

    assessors: list[AssessorRecord] = field(default_factory=list)
    resources: BulkResources = field(default_factory=BulkResources)


@dataclass
class ReconstructionListing:
    """Reconstructions of a project; `resources.known` holds the sessions whose reconstructions' resources are complete."""

    reconstructions: list[ReconstructionRecord] = field(default_factory=list)
    resources: BulkResources = field(default_factory=BulkResources)


class Listings:
    """The listing requests of one server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.capabilities = Capabilities()

    @property
    def breaker(self) -> Breaker:
        """Whether the server is there."""
        return self._connection.breaker

    def table(self, path: str, **params: str) -> list[Row]:
        """GET a listing as rows."""
        return self._connection.listing(path, {"format": "json", **params}, rows_of)

    # --- projects and subjects -----------------------------------------------------------------------------------

    def projects(self) -> list[ProjectRecord]:
        """The projects this user can read, in the server's order. Two requests: the plain list has no dates (fact sheet 2.3)."""
        dates: dict[str, float | None] = {}
        if self.capabilities.may("projects?accessible"):
            try:
                for row in self.table("/data/projects", accessible="true"):
                    dates[pick(row, "id")] = parse_stamp(pick(row, "insert_date", "/insert_date"))
            except Failure as failure:
                if failure.cause not in (Cause.NO_ENTRY, Cause.SERVER_ERROR, Cause.BAD_LISTING, Cause.NOT_ALLOWED):
                    raise
                self.capabilities.refuse("projects?accessible")
        return [
            ProjectRecord(pick(row, "id"), pick(row, "name"), pick(row, "description"), dates.get(pick(row, "id")))
            for row in self.table("/data/projects")
            if pick(row, "id")
        ]

    def subjects(self, project: str) -> tuple[list[SubjectRecord], BulkResources]:
        """The subjects of a project, shared ones included, with their resources where the server tells them."""
        path = f"/data/projects/{segment(project)}/subjects"
        columns = ("ID", "label", "project", "insert_date", "last_modified")
        rows, granted = self._with_extras("subject resource labels", path, columns, _label_tiers("xnat:subjectData/resources/resource"))
        subjects = {
            pick(row, "id"): SubjectRecord(
                pick(row, "id"), pick(row, "label"), parse_stamp(pick(row, "insert_date")), pick(row, "last_modified")
            )
            for row in rows
            if pick(row, "id")
        }
        bulk = BulkResources()
        if granted:
            _collect(bulk, rows, "/resources/resource", lambda row: Owner("subject", pick(row, "id")), blank_is_none=True)
        return list(subjects.values()), bulk

    # --- experiments ---------------------------------------------------------------------------------------------

    def experiments(self, project: str) -> list[ExperimentRecord]:
        """Every experiment of a project that is no image assessor, shared ones included."""
        rows = self.table(
            f"/data/projects/{segment(project)}/experiments",
            columns="ID,label,project,subject_ID,subject_label,date,time,xsiType,insert_date,last_modified",
        )
        found: dict[str, ExperimentRecord] = {}
        for row in rows:
            one = ExperimentRecord(
                id=pick(row, "id"),
                label=pick(row, "label"),
                subject_id=pick(row, "subject_id", "/subject_id"),
                subject_label=pick(row, "subject_label", "/subjectdata/label"),
                xsi_type=pick(row, "xsitype"),
                date=pick(row, "date"),
                inserted=parse_stamp(pick(row, "insert_date")),
                changed=pick(row, "last_modified"),
                time=pick(row, "time"),
            )
            if one.id:
                found[one.id] = one
        return list(found.values())

    def find_experiments(self, names: Sequence[str]) -> list[tuple[str, str, str]]:
        """(accession id, label, primary project) of the experiments with these accession ids or labels, in any project: two requests for
        each hundred names (a comma is "or" in a filter, fact sheet 2.2). A name with a character that means something there is not found.

        By primary labels, and neither surely readable nor surely all that can be read (fact sheet 12): see `fetch.names`.
        """
        asked = frozenset(names)
        plain = [name for name in names if not set(name) & set(",*%")]
        found: dict[str, tuple[str, str, str]] = {}
        for start in range(0, len(plain), _NAMES_AT_ONCE):
            some = ",".join(plain[start : start + _NAMES_AT_ONCE])
            for column in ("ID", "label"):
                for row in self.table("/data/experiments", columns="ID,label,project", **{column: some}):
                    one = pick(row, "id"), pick(row, "label"), pick(row, "project")
                    if one[0] and asked.intersection(one[:2]):  # a server may not know the filter, and send everything
                        found[one[0]] = one
        return list(found.values())

    def experiment_resources(self, project: str) -> BulkResources:
        """The resource labels of all experiments in one request; nothing known where the server does not take the form."""
        bulk = BulkResources()
        path = f"/data/projects/{segment(project)}/experiments"
        form = "experiment resource labels"
        if self.capabilities.may(form):
            rows, granted = self._with_extras(form, path, ("ID",), _label_tiers("xnat:experimentData/resources/resource"), plain=False)
            if granted:
                _collect(bulk, rows, "/resources/resource", lambda row: Owner("experiment", pick(row, "id")), blank_is_none=True)
        return bulk

    # --- what sessions contain -----------------------------------------------------------------------------------

    def scans(self, project: str) -> ScanListing:
        """Every scan of a project with its resource labels: one row per scan x resource.

        The form below the project [I] also has shared sessions; the proven one (`/data/experiments?project=`) has only those whose
        primary project this is, so `sessions` says whom the answer speaks for.
        """
        rows: list[Row] = []
        whole_project = False
        if self.capabilities.may("scans of a project"):
            rows, whole_project = self._with_extras(
                "scans of a project",
                f"/data/projects/{segment(project)}/experiments",
                _SCAN_COLUMNS,
                (_SCAN_EXTRAS, ()),
                need=("/imagescandata/id",),
                plain=False,
                xsiType="xnat:imageSessionData",
            )
        if not whole_project:
            rows, granted = self._with_extras(
                "scans of experiments",
                "/data/experiments",
                _SCAN_COLUMNS,
                (_SCAN_EXTRAS, ()),
                need=("/imagescandata/id",),
                plain=False,
                xsiType="xnat:imageSessionData",
                project=project,
            )
            if not granted:
                return ScanListing()
            rows = _of_project(rows, project)
        return _scan_listing(rows)

    def scans_of_session(self, session: str) -> list[ScanRecord]:
        """The scans of one session; none for an experiment that has no scans."""
        try:
            rows = self.table(f"/data/experiments/{segment(session)}/scans", columns="ID,type,series_description,quality,frames")
        except Failure as failure:
            if failure.cause is Cause.NO_ENTRY:
                return []
            raise
        return [
            ScanRecord(
                session,
                pick(row, "id"),
                pick(row, "type"),
                pick(row, "series_description"),
                pick(row, "quality"),
                pick(row, "frames"),
            )
            for row in rows
            if pick(row, "id")
        ]

    def assessors(self, project: str) -> AssessorListing:
        """The image assessors of a project."""
        columns = ("ID", "label", "project", "xsiType", "session_ID", "session_label", "insert_date", "last_modified")
        head = "xnat:imageAssessorData"
        branches = {"out": f"{head}/out/file", "in": f"{head}/in/file", "": f"{head}/resources/resource"}
        tiers = (*_label_tiers(*branches.values()), (f"{head}/out/file/label",))
        path = f"/data/projects/{segment(project)}/experiments"
        try:
            rows, _ = self._with_extras("assessor resource labels", path, columns, tiers, xsiType=head)
        except Failure as failure:
            if not _is_refusal(failure):
                raise
            # The documented way out (fact sheet 2.9 point 4); it lists only what has its primary project here, none of the shared ones.
            self.capabilities.refuse("assessors of a project")
            rows, _ = self._with_extras("assessor resource labels", "/data/experiments", columns, tiers, xsiType=head, project=project)
            rows = _of_project(rows, project)
        found = _assessors(rows)
        bulk = BulkResources()
        parts: list[BulkResources] = []
        for direction, branch in branches.items():
            tail = "/" + branch.split("/", 1)[1]
            if not rows or not has_column(rows, f"{tail}/label"):
                break
            parts.append(BulkResources())
            _collect(parts[-1], rows, tail, partial(_assessor_owner, direction))
        if len(parts) == len(branches):
            bulk.resources = [resource for part in parts for resource in part.resources]
            bulk.known = set.intersection(*(part.known for part in parts))
            bulk.blank = {direction for direction, part in zip(branches, parts, strict=True) if part.blank}
        return AssessorListing(found, bulk)

    def assessors_of_session(self, session: str, project: str) -> list[AssessorRecord]:
        """The image assessors of one session whose primary project is `project`."""
        rows = self.table(f"/data/experiments/{segment(session)}/assessors")
        return _assessors((row for row in rows if pick(row, "project") in ("", project)), session)

    def subject_item(self, subject: str) -> SubjectItem:
        """A subject and all below it in one request."""
        return subject_item(self._connection, subject)

    def reconstructions(self, project: str) -> ReconstructionListing | None:
        """The reconstructions of a project with their resources; None where only one request a session can tell [I]."""
        form = "reconstructions of a project"
        if not self.capabilities.may(form):
            return None
        head = "xnat:reconstructedImageData"
        branches = {"out": f"{head}/out/file", "in": f"{head}/in/file"}
        columns = ("ID", f"{head}/ID", f"{head}/type")
        rows, granted = self._with_extras(
            form,
            f"/data/projects/{segment(project)}/experiments",
            columns,
            _label_tiers(*branches.values()),
            need=("/reconstructedimagedata/id", "/reconstructedimagedata/out/file/label", "/reconstructedimagedata/in/file/label"),
            plain=False,
            xsiType="xnat:imageSessionData",
        )
        if not granted:
            return None
        found: dict[tuple[str, str], ReconstructionRecord] = {}
        bulk = BulkResources()
        for row in rows:
            session, identity = pick(row, "id"), pick(row, "/reconstructedimagedata/id")
            if session and identity:
                found[session, identity] = ReconstructionRecord(session, identity, pick(row, "/reconstructedimagedata/type"))
        theirs = [row for row in rows if pick(row, "/reconstructedimagedata/id")]
        complete = {pick(row, "id") for row in rows}
        for direction, branch in branches.items():
            part = BulkResources()
            tail = "/" + branch.split(":", 1)[1].lower()
            _collect(part, theirs, tail, partial(_reconstruction_owner, direction))
            bulk.resources += part.resources
            bulk.blank |= {direction} if part.blank else set()
            complete -= {pick(row, "id") for row in theirs} - part.known
        bulk.known = complete
        return ReconstructionListing(list(found.values()), bulk)

    # --- helpers -------------------------------------------------------------------------------------------------

    def _with_extras(
        self,
        form: str,
        path: str,
        columns: Sequence[str],
        tiers: Sequence[Sequence[str]],
        *,
        need: Sequence[str] = (),
        plain: bool = True,
        **params: str,
    ) -> tuple[list[Row], bool]:
        """Ask with each tier of extra columns until one is taken; (rows, whether the needed columns came back).

        `need` are the columns without which the answer is worthless; by default the last tier's. A request that is refused with every
        tier is asked without them if `plain`, else answered with no rows and False. What is refused is remembered as `form`.
        """
        need = need or tuple("/" + column.split("/", 1)[1] for column in tiers[-1])
        if self.capabilities.may(form):
            for tier in tiers:
                try:
                    rows = self.table(path, columns=",".join((*columns, *tier)), **params)
                except Failure as failure:
                    if not _is_refusal(failure):
                        raise
                    if failure.status == 404:
                        break  # it is the form that is refused, not a column
                    continue
                granted = all(has_column(rows, column) for column in need)
                if not granted:
                    self.capabilities.refuse(form)
                return rows, granted
        rows = self.table(path, columns=",".join(columns), **params) if plain else []
        self.capabilities.refuse(form)  # only now: a project that is gone refuses the plain form too
        return rows, False


def _of_project(rows: Iterable[Row], project: str) -> list[Row]:
    """Of rows that were asked for with a filter, those it should have left: there are servers that do not know one (fact sheet 12)."""
    return [row for row in rows if pick(row, "project") in ("", project)]


def _is_refusal(failure: Failure) -> bool:
    """Whether the server will not take this form: a passing trouble (429, 502, 503, 504, no answer) must not be remembered as one."""
    return failure.status in (400, 403, 404, 405, 406, 417, 422, 500, 501) or failure.cause is Cause.BAD_LISTING


def _label_tiers(*branches: str) -> tuple[tuple[str, ...], ...]:
    """Resource columns of some branches: label and numeric id (unproven), then the labels alone."""
    labels = tuple(f"{branch}/label" for branch in branches)
    return labels + tuple(f"{branch}/xnat_abstractresource_id" for branch in branches), labels


def _assessors(rows: Iterable[Row], session: str = "") -> list[AssessorRecord]:
    found: dict[str, AssessorRecord] = {}
    for row in rows:
        identity, parent = pick(row, "id"), pick(row, "session_id", "/imagesession_id") or session
        if identity and parent:
            found[identity] = AssessorRecord(
                identity, pick(row, "label"), parent, pick(row, "xsitype"), parse_stamp(pick(row, "insert_date"))
            )
    return list(found.values())


def _assessor_owner(direction: str, row: Row) -> Owner:
    return Owner("assessor", pick(row, "id"), pick(row, "session_id", "/imagesession_id"), direction)


def _reconstruction_owner(direction: str, row: Row) -> Owner:
    return Owner("reconstruction", pick(row, "id"), pick(row, "/reconstructedimagedata/id"), direction)


def _scan_listing(rows: Iterable[Row]) -> ScanListing:
    listing = ScanListing()
    scans: dict[tuple[str, str], ScanRecord] = {}
    with_scan: list[Row] = []
    for row in rows:
        session, scan = pick(row, "id"), pick(row, "/imagescandata/id")
        listing.sessions.add(session)
        if scan:  # a session without scans is one row of blanks
            with_scan.append(row)
            scans[session, scan] = ScanRecord(
                session,
                scan,
                pick(row, "/imagescandata/type"),
                pick(row, "/imagescandata/series_description"),
                pick(row, "/imagescandata/quality"),
                pick(row, "/imagescandata/frames"),
            )
    listing.scans = list(scans.values())
    _collect(
        listing.resources, with_scan, "/imagescandata/file", lambda row: Owner("scan", pick(row, "id"), pick(row, "/imagescandata/id"))
    )
    listing.resources.known |= listing.sessions - {pick(row, "id") for row in with_scan}
    return listing


def _collect(
    bulk: BulkResources, rows: Iterable[Row], branch: str, owner_of: Callable[[Row], Owner], *, blank_is_none: bool = False
) -> None:
    """Resources from the columns `branch/label` (and `branch/xnat_abstractresource_id`, ...) into `bulk`.

    With the numeric id every resource is certain. With labels alone a blank may be "no resource" or "a resource without a label", and
    a label that comes twice for one owner hides a second resource: such objects are left out of `known` and asked singly.
    `blank_is_none` takes a blank for "no resource" all the same, where most objects have none and asking each would cost a request.
    """
    seen: dict[tuple[Owner, int | str], ResourceRecord] = {}
    uncertain: set[str] = set()
    everyone: set[str] = set()
    id_column = f"{branch}/xnat_abstractresource_id"
    for row in rows:
        one = pick(row, "id")
        everyone.add(one)
        label, identity = pick(row, f"{branch}/label"), number(pick(row, id_column))
        if identity is None and not label:
            if not blank_is_none and not has_column([row], id_column):
                uncertain.add(one)
            continue
        owner = owner_of(row)
        if identity is None and ((owner, label) in seen or has_column([row], id_column)):
            uncertain.add(one)  # a column of ids that is there but blank is no better than none, and may hide equal labels
        seen[owner, label if identity is None else identity] = ResourceRecord(
            owner, label, identity, "", number(pick(row, f"{branch}/file_count")), number(pick(row, f"{branch}/file_size"))
        )
    bulk.resources += seen.values()
    bulk.known |= everyone - uncertain
    if not seen and everyone:
        bulk.blank.add(branch)
