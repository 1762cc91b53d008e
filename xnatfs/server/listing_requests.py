"""What a project contains, in a handful of requests (xnat-rest.md 2.9): subjects, experiments, scans,
assessors, reconstructions.

Used by `listing.service`. Resources and files are in `resources.py`. Forms that an old server, a fork or a
proxy may refuse are tried and the refusal is remembered for a while (`capabilities.py`); each has a fallback,
and every method says in its result what it could not learn in bulk.
Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xnatfs.errors import Failure
from xnatfs.server import claims
from xnatfs.server.bulk_rows import (
    AGE,
    AssessorListing,
    BulkResources,
    ReconstructionListing,
    ScanListing,
    assessor_listing,
    assessors_of,
    collect,
    experiment_of,
    projects_of,
    reconstruction_listing,
    scans_of,
    subjects_of,
)
from xnatfs.server.form_requests import FormRequests, is_refusal
from xnatfs.server.items import SubjectItem, subject_item
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    Owner,
    ProjectRecord,
    ScanRecord,
    SubjectRecord,
    parse_stamp,
)
from xnatfs.server.resultset import Row, has_column, pick
from xnatfs.server.urls import segment

_SCAN = "xnat:imageScanData"
_SCAN_COLUMNS = (
    *("ID", "label", "subject_label", "project", "xsiType"),
    *(f"{_SCAN}/{name}" for name in ("ID", "type", "series_description", "quality", "frames", "file/label")),
)
# With the numeric id (xnat-rest.md 12) two resources of one label, or of none, are told apart.
_SCAN_EXTRAS = (
    f"{_SCAN}/file/xnat_abstractresource_id",
    f"{_SCAN}/file/file_count",
    f"{_SCAN}/file/file_size",
)


_SCAN_TIME = f"{_SCAN}/startTime"

STAMPS = "stamps of experiments"  # the form of `stamped_experiments`
_AGES = "ages beside the stamps"
_TIMES = "times of scans"
# The forms that tell resources in bulk, by the level of what has them.
FORMS_OF_RESOURCES = {
    "subject": ("subject resource labels",),
    "experiment": ("experiment resource labels",),
    "scan": ("scans of a project", "scans of experiments"),
    "assessor": ("assessor resource labels",),
    "reconstruction": ("reconstructions of a project",),
}
_PROJECT = "xnat:projectData"
_PROJECT_RESOURCE = f"{_PROJECT}/resources/resource"
_SUBJECT_COLUMNS = ("ID", "label", "insert_date", "last_modified")
_EXPERIMENT_COLUMNS = ("ID", "label", "subject_ID", "subject_label", "date", "time", "xsiType", "insert_date")
_SUBJECT_STAMP = "xnat:subjectData/meta/last_modified"

_NAMES_AT_ONCE = 100


class ListingRequests(FormRequests):
    """The listing requests of one server.

    Attributes:
        ages: whether the sessions' own ages are asked for.
    """

    ages = True

    # --- projects and subjects ------------------------------------------------------------------------------

    def projects(self) -> list[ProjectRecord]:
        """The projects this user can read, in the server's order, each with the resources of its own: one
        request.

        Where the server does not tell these columns (xnat-rest.md 14), two: the plain list has no dates
        (xnat-rest.md 2.3).
        """
        columns = ("ID", "name", "description", f"{_PROJECT}/meta/insert_date")
        rows, granted = self.with_extras(
            "columns of projects",
            "/data/projects",
            columns,
            (
                tuple(
                    f"{_PROJECT_RESOURCE}/{name}"
                    for name in ("label", "xnat_abstractresource_id", "file_count")
                ),
            ),
            need=(
                "/meta/insert_date",
                "/resources/resource/label",
                "/resources/resource/xnat_abstractresource_id",
            ),
            plain=False,
            claim=claims.PROJECTS,
        )
        if granted:
            return projects_of(rows)
        dates: dict[str, float | None] = {}
        refused = False
        if self.capabilities.may("projects?accessible"):
            try:
                for row in self.table("/data/projects", claims.PROJECTS, accessible="true"):
                    dates[pick(row, "id")] = parse_stamp(pick(row, "insert_date", "/insert_date"))
            except Failure as failure:
                if failure.away:
                    raise
                refused = True  # it tells dates, no more
        rows = self.table("/data/projects", claims.PROJECTS)
        if refused:
            self.capabilities.refuse("projects?accessible")
        return [
            ProjectRecord(
                pick(row, "id"), pick(row, "name"), pick(row, "description"), dates.get(pick(row, "id"))
            )
            for row in rows
            if pick(row, "id")
        ]

    def subjects(self, project: str) -> tuple[list[SubjectRecord], BulkResources]:
        """The subjects of a project, shared ones included, with their resources where the server tells
        them.
        """
        path = f"/data/projects/{segment(project)}/subjects"
        rows, granted = self.with_extras(
            "subject resource labels",
            path,
            _SUBJECT_COLUMNS,
            _label_tiers("xnat:subjectData/resources/resource"),
            claim=claims.SUBJECTS,
        )
        bulk = BulkResources()
        if granted:
            collect(
                bulk,
                rows,
                "/resources/resource",
                lambda row: Owner("subject", pick(row, "id")),
                blank_is_none=True,
            )
        return subjects_of(rows), bulk

    def people(self, project: str) -> list[SubjectRecord]:
        """The subjects of a project without their resources: half the bytes, for a look whether anything
        changed.
        """
        return subjects_of(
            self.table(
                f"/data/projects/{segment(project)}/subjects",
                claims.SUBJECTS,
                columns=",".join(_SUBJECT_COLUMNS),
            )
        )

    # --- experiments ----------------------------------------------------------------------------------------

    def experiments(self, project: str) -> list[ExperimentRecord]:
        """Every experiment of a project that is no image assessor, shared ones included; `changed` is "" of
        all of them.
        """
        rows = self.table(
            f"/data/projects/{segment(project)}/experiments",
            claims.EXPERIMENTS,
            columns=",".join(_EXPERIMENT_COLUMNS),
        )
        return [
            experiment_of(row) for row in {pick(row, "id"): row for row in rows if pick(row, "id")}.values()
        ]

    def stamped_experiments(
        self, project: str, types: Sequence[str]
    ) -> list[tuple[ExperimentRecord, str | None, str | None]] | None:
        """The same experiments, each with the stamps that move with what is below it: its own type's and its
        subject's; None where the server does not tell them.

        `types` are the concrete types to ask for; an experiment of another has None for the stamp, and so has
        one of a type that the server does not know. "" is a stamp, too: nothing below was changed since it
        was made (xnat-rest.md 13).

        One request (xnat-rest.md 14): without `xsiType` the first such column would narrow the rows to its
        type.
        """
        columns = [f"{one}/meta/last_modified" for one in types]
        tiers = ((*columns, _SUBJECT_STAMP), columns) if columns else ((_SUBJECT_STAMP,),)
        if self.ages and self.capabilities.may(_AGES):
            tiers = ((*tiers[0], AGE), *tiers)
        rows, granted = self.with_extras(
            STAMPS,
            f"/data/projects/{segment(project)}/experiments",
            _EXPERIMENT_COLUMNS,
            tiers,
            need=(),
            plain=False,
            claim=claims.EXPERIMENTS,
            xsiType="xnat:subjectAssessorData",
        )
        if not granted or not rows:
            return None
        if not has_column(rows[:1], AGE):
            self.capabilities.refuse(_AGES)
        found = {}
        for row in rows:
            one = experiment_of(row)
            if one.id:
                stamp = row.get(f"{one.xsi_type.lower()}/meta/last_modified")
                found[one.id] = one, stamp, row.get(_SUBJECT_STAMP.lower())
        return list(found.values())

    def find_experiments(self, names: Sequence[str]) -> list[tuple[str, str, str]]:
        """(accession id, label, primary project) of the experiments with these accession ids or labels, in
        any project: two requests for each hundred names (a comma is "or" in a filter, xnat-rest.md 2.2). A
        name with a character that means something there is not found.

        By primary labels, and neither surely readable nor surely all that can be read (xnat-rest.md 12): see
        `listing.session_names`.
        """
        asked = frozenset(names)
        plain = [name for name in names if not set(name) & set(",*%")]
        found: dict[str, tuple[str, str, str]] = {}
        for start in range(0, len(plain), _NAMES_AT_ONCE):
            some = ",".join(plain[start : start + _NAMES_AT_ONCE])
            for column in ("ID", "label"):
                for row in self.table("/data/experiments", columns="ID,label,project", **{column: some}):
                    one = pick(row, "id"), pick(row, "label"), pick(row, "project")
                    if one[0] and asked.intersection(
                        one[:2]
                    ):  # a server may not know the filter, and send everything
                        found[one[0]] = one
        return list(found.values())

    def experiment_resources(self, project: str, *, counts: bool = False) -> BulkResources:
        """The resource labels of all experiments in one request; nothing known where the server does not take
        the form.

        Args:
            counts: ask for the numbers of their files as well.
        """
        bulk = BulkResources()
        path = f"/data/projects/{segment(project)}/experiments"
        form, branch = "experiment resource labels", "xnat:experimentData/resources/resource"
        tiers = _label_tiers(branch)
        if self.capabilities.may(form):
            rows, granted = self.with_extras(
                form,
                path,
                ("ID",),
                (*((tiers[0] + (f"{branch}/file_count",),) if counts else ()), *tiers),
                plain=False,
                claim=claims.EXPERIMENT_RESOURCES,
            )
            if granted:
                collect(
                    bulk,
                    rows,
                    "/resources/resource",
                    lambda row: Owner("experiment", pick(row, "id")),
                    blank_is_none=True,
                )
        return bulk

    # --- what sessions contain ------------------------------------------------------------------------------

    def scans(self, project: str) -> ScanListing:
        """Every scan of a project with its resource labels: one row per scan x resource.

        The form below the project [I] also has shared sessions; the proven one (`/data/experiments?project=`)
        has only those whose primary project this is, so `sessions` says whom the answer speaks for.
        """
        rows: list[Row] = []
        whole_project = False
        tiers: tuple[tuple[str, ...], ...] = (_SCAN_EXTRAS, ())
        if self.capabilities.may(_TIMES):
            tiers = ((*_SCAN_EXTRAS, _SCAN_TIME), *tiers)
        if self.capabilities.may("scans of a project"):
            rows, whole_project = self.with_extras(
                "scans of a project",
                f"/data/projects/{segment(project)}/experiments",
                _SCAN_COLUMNS,
                tiers,
                need=("/imagescandata/id",),
                plain=False,
                claim=claims.SCANS,
                xsiType="xnat:imageSessionData",
            )
        if not whole_project:
            rows, granted = self.with_extras(
                "scans of experiments",
                "/data/experiments",
                _SCAN_COLUMNS,
                tiers,
                need=("/imagescandata/id",),
                plain=False,
                claim=claims.SCANS,
                xsiType="xnat:imageSessionData",
                project=project,
            )
            if not granted:
                return ScanListing()
            rows = _of_project(rows, project)
        if rows and not has_column(rows[:1], "/imagescandata/starttime"):
            self.capabilities.refuse(_TIMES)
        return scans_of(rows)

    def scans_of_session(self, session: str) -> list[ScanRecord]:
        """The scans of one session."""
        rows, _ = self.with_extras(
            _TIMES,
            f"/data/experiments/{segment(session)}/scans",
            ("ID", "type", "series_description", "quality", "frames"),
            ((_SCAN_TIME,),),
            need=(),
            claim=claims.SCANS_OF_SESSION,
        )
        found = {
            pick(row, "id"): ScanRecord(
                session,
                pick(row, "id"),
                pick(row, "type"),
                pick(row, "series_description"),
                pick(row, "quality"),
                pick(row, "frames"),
                pick(row, "/imagescandata/starttime", "scantime"),
            )
            for row in rows
        }
        return list(found.values())

    def assessors(self, project: str) -> AssessorListing:
        """The image assessors of a project."""
        columns = (
            "ID",
            "label",
            "project",
            "xsiType",
            "session_ID",
            "session_label",
            "insert_date",
            "last_modified",
        )
        head = "xnat:imageAssessorData"
        branches = {"out": f"{head}/out/file", "in": f"{head}/in/file", "": f"{head}/resources/resource"}
        tiers = (*_label_tiers(*branches.values()), (f"{head}/out/file/label",))
        path = f"/data/projects/{segment(project)}/experiments"
        try:
            rows, _ = self.with_extras(
                "assessor resource labels", path, columns, tiers, claim=claims.ASSESSORS, xsiType=head
            )
        except Failure as failure:
            if not is_refusal(failure):
                raise
            # The documented way out (xnat-rest.md 2.9 point 4); it lists only what has its primary project
            # here, none of the shared ones.
            rows, _ = self.with_extras(
                "assessor resource labels",
                "/data/experiments",
                columns,
                tiers,
                claim=claims.ASSESSORS,
                xsiType=head,
                project=project,
            )
            self.capabilities.refuse("assessors of a project")
            rows = _of_project(rows, project)
        return assessor_listing(rows, branches)

    def assessors_of_session(self, session: str, project: str) -> list[AssessorRecord]:
        """The image assessors of one session whose primary project is `project`."""
        rows = self.table(f"/data/experiments/{segment(session)}/assessors", claims.ASSESSORS_OF_SESSION)
        return assessors_of((row for row in rows if pick(row, "project") in ("", project)), session)

    def subject_item(self, subject: str) -> SubjectItem:
        """A subject and all below it in one request."""
        return subject_item(self._connection, subject)

    def reconstructions(self, project: str) -> ReconstructionListing | None:
        """The reconstructions of a project with their resources; None where only one request a session can
        tell [I].
        """
        form = "reconstructions of a project"
        if not self.capabilities.may(form):
            return None
        head = "xnat:reconstructedImageData"
        branches = {"out": f"{head}/out/file", "in": f"{head}/in/file"}
        columns = ("ID", f"{head}/ID", f"{head}/type")
        rows, granted = self.with_extras(
            form,
            f"/data/projects/{segment(project)}/experiments",
            columns,
            _label_tiers(*branches.values()),
            need=(
                "/reconstructedimagedata/id",
                "/reconstructedimagedata/out/file/label",
                "/reconstructedimagedata/in/file/label",
            ),
            plain=False,
            claim=claims.RECONSTRUCTIONS,
            xsiType="xnat:imageSessionData",
        )
        if not granted:
            return None
        return reconstruction_listing(rows, branches)


def _of_project(rows: Iterable[Row], project: str) -> list[Row]:
    """Of rows that were asked for with a filter, those it should have left: there are servers that do not
    know one (xnat-rest.md 12).
    """
    return [row for row in rows if pick(row, "project") in ("", project)]


def _label_tiers(*branches: str) -> tuple[tuple[str, ...], ...]:
    """Resource columns of some branches: label and numeric id (unproven), then the labels alone."""
    labels = tuple(f"{branch}/label" for branch in branches)
    return labels + tuple(f"{branch}/xnat_abstractresource_id" for branch in branches), labels
