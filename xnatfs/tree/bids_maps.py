"""The maps of the BIDS view: a user's own, the project's `bids.toml`, what the lab has written for another
program, the usual rules; each over the next.

Used by `bids_view`. A `bids.toml` that is wrong shows no dataset. Everything else is optional: what cannot be
had, or read, is a line in `oddities.txt` and in the dataset's README, and the next source is used.
Threading: any thread; values derived from listings are kept with them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from xnatfs.bids import map_file
from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.lab_maps import BIDS_MAP, BIDSKIT, DCM2BIDS, ORDER, REPROIN, LabFile, LabMap, lab_map
from xnatfs.bids.mapping import BidsMap, MapSource
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.listing.configurations import SITE
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.server.configuration_requests import PATHS
from xnatfs.server.records import ScanRecord
from xnatfs.text import printable
from xnatfs.tree.bids_scans import files_of, read_start
from xnatfs.tree.names import spell, spell_label
from xnatfs.tree.node import File
from xnatfs.tree.resource import ResourcePlace, Sources
from xnatfs.tree.scope import Snapshot

_NOTHING = BidsMap()
# Resources of a project, and files in them, where mapping files are by custom.
_LAB_RESOURCES = frozenset({"xnatfs", "bids_bidsmap", "config", "bids", "dcm2bids", "bidskit"})
_LAB_FILE = re.compile(
    r"bidsmap\.json|.*dcm2bids.*\.json|bidsconfig\.json|Protocol_Translator\.json", re.IGNORECASE
)


class Maps(NamedTuple):
    """The maps of a scope's projects, and what is not used of them; or why there are none."""

    maps: dict[str, BidsMap]
    problem: str = ""
    unused: tuple[str, ...] = ()

    @property
    def prints(self) -> tuple[str, ...]:
        """Change when other names would be made, or for another reason."""
        return (self.problem, *self.unused, *(bids_map.fingerprint for bids_map in self.maps.values()))

    def texts(self) -> dict[str, bytes]:
        """The files of `code/`, by name."""
        files: dict[str, bytes] = {}
        for project, bids_map in self.maps.items():
            tables = [source for source in bids_map.sources if source.file == map_file.NAME]
            text = "\n".join(f"# --- {printable(source.where)}\n{source.text.strip()}\n" for source in tables)
            files[self._name(project, map_file.NAME)] = text.encode("utf-8", "replace")
            for source in bids_map.sources:
                if source.file and source not in tables:
                    name = self._name(project, source.file, free_of=files)
                    files[name] = source.text.encode("utf-8", "replace")
        return files

    def described(self) -> list[str]:
        """For people: what the names follow from, in order, and what they do not."""
        lines: list[str] = []
        for project, bids_map in self.maps.items():
            lines += [f"Project {project}:"] if len(self.maps) > 1 else []
            for number, source in enumerate(bids_map.sources, 1):
                digest = f" (SHA-256 {source.digest})" if source.file and source.text else ""
                lines.append(f"  {number}. {printable(source.where)}{digest}")
        return [*lines, *(f"  not: {printable(sentence)}" for sentence in self.unused)]

    def _name(self, project: str, file: str, free_of: Mapping[str, bytes] | None = None) -> str:
        if len(self.maps) > 1:
            whose = spell_label(project)
            file = f"{whose}.toml" if file == map_file.NAME else f"{whose}-{file}"
        name, number = file, 1
        while name in (free_of or {}):
            number += 1
            name = f"{number}-{file}"
        return name


@dataclass(frozen=True)
class ScopeMaps:
    """The maps of a scope.

    Args:
        sources: what sections are made from.
        user_map: the user's map (`map_file.user_map`), over the projects' own.
    """

    sources: Sources
    user_map: BidsMap | None

    def of(self, snapshot: Snapshot) -> Maps:
        """Every project's map."""
        maps: dict[str, BidsMap] = {}
        unused: list[str] = []
        for project, project_snapshot in snapshot.project_snapshots.items():
            try:
                own = self._own(project, project_snapshot)
            except UsageError as error:
                self.sources.diagnostics.odd(str(error))
                return Maps({}, str(error))
            lab, problems = self._lab(project, project_snapshot, own)
            unused += problems
            key = ("bids whole map", *(one.fingerprint for one in (own, lab) if one is not None))
            maps[project] = project_snapshot.memo.get(key, partial(_whole, own, lab))
        for problem in unused:
            self.sources.diagnostics.odd(problem)
        return Maps(maps, "", tuple(dict.fromkeys(unused)))

    def _own(self, project: str, project_snapshot: ProjectSnapshot) -> BidsMap:
        """The user's map over the project's `bids.toml`.

        Raises:
            UsageError: the latter is wrong.
        """
        user, own = self._user_map(project), self._project_map(project, project_snapshot)
        if user is None or own is None:
            return user or own or _NOTHING
        key = ("bids own map", user.fingerprint, own.fingerprint)
        return project_snapshot.memo.get(key, partial(user.over, own))

    # --- what the lab has for other programs ----------------------------------------------------------------

    def _lab(self, project: str, project_snapshot: ProjectSnapshot, own: BidsMap) -> LabMap:
        wanted = ORDER if own.mappings is None else own.mappings
        if own.only or not (wanted or own.reproin):
            return LabMap(None, [])
        files, problems = self._lab_files(project, project_snapshot, wanted)
        wanted = (*wanted, REPROIN) if own.reproin else wanted
        key = ("bids lab map", tuple(file.source for file in files), wanted, own.reproin)
        # Whether all scans have ReproIn's names is a matter of this listing.
        found = project_snapshot.memo.get(
            key, lambda: lab_map(files, _scans(project_snapshot), wanted, own.reproin)
        )
        return LabMap(found.map, [*problems, *found.problems])

    def _lab_files(
        self, project: str, project_snapshot: ProjectSnapshot, wanted: Collection[str]
    ) -> tuple[list[LabFile], list[str]]:
        """The mapping files of the lab, the project's own first, and what could not be had."""
        files: list[LabFile] = []
        problems: list[str] = []
        in_service = DCM2BIDS in wanted or BIDS_MAP in wanted
        if in_service:
            files += self._configured(project, f"the configuration of project {project}", problems)
        if in_service or BIDSKIT in wanted:
            files += self._in_resources(project, project_snapshot, problems)
        if in_service:
            site = self._configured(SITE, "the configuration of the site", problems)
            files += [file._replace(site=True) for file in site]
        return files, problems

    def _configured(self, project: str, whose: str, problems: list[str]) -> list[LabFile]:
        try:
            found = self.sources.listing_service.configurations.of(project)
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED:
                raise
            problems.append(f"{whose} could not be asked for mapping files: {failure}")
            return []
        return [
            LabFile(MapSource(f"{tool}/{PATHS[tool]} in {whose}", text, f"{tool}-{PATHS[tool]}.json"))
            for tool, text in found.items()
            if tool in PATHS
        ]

    def _in_resources(
        self, project: str, project_snapshot: ProjectSnapshot, problems: list[str]
    ) -> list[LabFile]:
        place = ResourcePlace(project, project_snapshot.project.inserted, {})
        files: list[LabFile] = []
        for resource in project_snapshot.own_resources:
            if resource.label.lower() not in _LAB_RESOURCES:
                continue
            whose = f"in the resource {resource.label} of project {project}"
            try:
                for path, node in files_of(self.sources, place, resource).items():
                    name = path.rsplit("/", 1)[-1]
                    if _LAB_FILE.fullmatch(name):
                        text = project_snapshot.memo.get(
                            ("bids lab file", node.version), partial(_text_of, node)
                        )
                        files.append(LabFile(MapSource(f"{path} {whose}", text, spell(name))))
            except Failure as failure:
                if failure.cause is Cause.INTERRUPTED:
                    raise
                problems.append(f"mapping files {whose} could not be had: {failure}")
        return files

    # --- a bids.toml ----------------------------------------------------------------------------------------

    def _user_map(self, project: str) -> BidsMap | None:
        return self.sources.project_maps.get(project, self.user_map)

    def _project_map(self, project: str, project_snapshot: ProjectSnapshot) -> BidsMap | None:
        user = self._user_map(project)
        if user is not None and user.only:
            return None
        place = ResourcePlace(project, project_snapshot.project.inserted, {})
        resources = [
            resource for resource in project_snapshot.own_resources if resource.label == map_file.RESOURCE
        ]
        nodes = [item for resource in resources for item in files_of(self.sources, place, resource).items()]
        node = next((node for path, node in nodes if path.rsplit("/", 1)[-1] == map_file.NAME), None)
        if node is None:
            return None
        where = f"the {map_file.NAME} in the resource {map_file.RESOURCE} of project {project}"

        def parse() -> BidsMap | UsageError:
            try:
                return map_file.parse(read_start(node).decode("utf-8-sig"), where)
            except UnicodeDecodeError:
                return UsageError(f"{where} is not UTF-8")
            except UsageError as error:
                return error

        parsed = project_snapshot.memo.get(("bids map", node.version), parse)
        if isinstance(parsed, UsageError):
            raise parsed
        return parsed


def _whole(own: BidsMap, lab: BidsMap | None) -> BidsMap:
    return own.over(usual_map() if lab is None else lab.over(usual_map()))


def _scans(project_snapshot: ProjectSnapshot) -> list[ScanRecord] | None:
    """All scans of a project, if they are known without asking."""
    sessions = {one.id for one in project_snapshot.experiments.values() if one.may_have_scans}
    if sessions - project_snapshot.speaks_for:
        return None
    return [scan for session in sessions for scan in project_snapshot.scans.get(session, [])]


def _text_of(node: File) -> str:
    data = read_start(node)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
