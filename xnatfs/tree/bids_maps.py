"""The maps of the BIDS view: a user's own over the project's `bids.toml` over the usual rules.

Used by `bids_view`. A `bids.toml` that is wrong shows no dataset.
Threading: any thread; values derived from listings are kept with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from xnatfs.bids import map_file
from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.mapping import BidsMap
from xnatfs.errors import UsageError
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.tree.bids_scans import files_of
from xnatfs.tree.names import spell_label
from xnatfs.tree.node import File
from xnatfs.tree.resource import ResourcePlace, Sources
from xnatfs.tree.scope import Snapshot

_MAX_TEXT_BYTES = 16 * 2**20  # of a sidecar, or a map


class Maps(NamedTuple):
    """The maps of a scope's projects; or why there are none."""

    maps: dict[str, BidsMap]
    problem: str = ""

    @property
    def prints(self) -> tuple[str, ...]:
        """Change when other names would be made."""
        return (self.problem, *(bids_map.fingerprint for bids_map in self.maps.values()))

    def texts(self) -> dict[str, bytes]:
        """The files of `code/`, by name."""
        files: dict[str, bytes] = {}
        for project, bids_map in self.maps.items():
            name = map_file.NAME if len(self.maps) == 1 else f"{spell_label(project)}.toml"
            text = "\n".join(f"# --- {source.where}\n{source.text.strip()}\n" for source in bids_map.sources)
            files[name] = text.encode("utf-8", "replace")
        return files


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
        for project, project_snapshot in snapshot.project_snapshots.items():
            try:
                project_map = self._project_map(project, project_snapshot)
            except UsageError as error:
                self.sources.diagnostics.odd(str(error))
                return Maps({}, str(error))
            user = self._user_map(project)
            key = (
                "bids whole map",
                project_map.fingerprint if project_map is not None else "",
                user.fingerprint if user is not None else "",
            )
            maps[project] = project_snapshot.memo.get(key, partial(_whole, project_map, user))
        return Maps(maps)

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


def _whole(project_map: BidsMap | None, user: BidsMap | None) -> BidsMap:
    below = usual_map() if project_map is None else project_map.over(usual_map())
    return below if user is None else user.over(below)


def read_start(node: File, length: int = _MAX_TEXT_BYTES) -> bytes:
    """The first bytes of a file of the server."""
    content = node.open()
    try:
        data = b""
        while len(data) < min(length, content.size):
            piece = content.read(len(data), min(length, content.size) - len(data))
            if not piece:
                break
            data += piece
        return data
    finally:
        content.close()
