"""The overrides that apply to a project: its own `tables.toml`, and the user's over it.

Used by `build`, `discover` and `explain`. They are found and read here; `overrides` knows what they mean.
Threading: any thread. A project's file may be read by two threads at once, which get the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from xnatfs.errors import UsageError
from xnatfs.listing.service import ListingService
from xnatfs.listing.snapshot import ProjectSummary
from xnatfs.server.records import FileRecord
from xnatfs.tables.engine import overrides
from xnatfs.tables.engine.listed_files import ListedFiles
from xnatfs.tables.engine.overrides import Site
from xnatfs.tables.spec import ParseError, Table, text_lines


class ProjectOverrides:
    """The overrides of all projects.

    Args:
        listing_service: lists the projects' own files.
        files: fetches them.
        tables: all tables by key.
        user_site: the user's overrides.

    Attributes:
        user_site: the user's overrides.
    """

    def __init__(
        self,
        listing_service: ListingService,
        files: ListedFiles,
        tables: Mapping[str, Table],
        user_site: Site,
    ) -> None:
        self._listing_service = listing_service
        self._files = files
        self._tables = tables
        self.user_site = user_site
        # by project: its `tables.toml` as it was listed (None: it has none), and what that says
        self._parsed: dict[str, tuple[FileRecord | None, Site]] = {}

    def of(self, summary: ProjectSummary) -> Site:
        """The overrides that apply to a project.

        Raises:
            UsageError: the project's cannot be understood.
            Failure: what keeps the server from answering.
        """
        holder = next(
            (resource for resource in summary.resources if resource.label == overrides.RESOURCE), None
        )
        if holder is None:
            return self.user_site
        records = self._listing_service.files.of_resource(holder, "")
        file = next((record for record in records if record.path.rsplit("/", 1)[-1] == overrides.NAME), None)
        cached = self._parsed.get(summary.project)
        if cached is None or cached[0] != file:
            site = Site() if file is None else self._read(summary.project, file)
            cached = self._parsed[summary.project] = file, site
        return self.user_site.over(cached[1])

    def _read(self, project: str, file: FileRecord) -> Site:
        where = f"the {overrides.NAME} in the resource {overrides.RESOURCE} of project {project}"
        try:
            with self._files.open(file) as stream:
                text = "\n".join(text_lines(stream)) if stream.read(1) and stream.seek(0) == 0 else ""
        except ParseError as error:
            raise UsageError(f"{where}: {error}") from None
        return overrides.parse(text, where, self._tables)
