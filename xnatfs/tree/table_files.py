"""The section `tables/`: measurement tables of a project, and of single sessions, as files.

    tables/PROJECT/<pipeline>/<table>{,_wide}.{csv,xlsx,parquet}, <table>.problems.csv
                  /{subjects,sessions,scandates,scans}.{csv,xlsx,parquet}
                  /assessors/<type>.{csv,xlsx,parquet}   the own fields of each type's assessors
                  /sessions/SESSION/<pipeline>/...       the same for one session
                  /README.txt                            what there is, and what is built (table_readme.py)

Used by `root`. A table is built when it is opened; until then its size is larger than any table's, and `open`
tells the true one before it returns.
Threading: any thread; nodes hold no state of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server.records import ProjectRecord
from xnatfs.tables.engine import assessor_tables
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.engine.discover import PresentTables, TableDiscovery
from xnatfs.tables.engine.from_listings import LISTED
from xnatfs.tables.engine.materialize import TableFiles, Variant, variants
from xnatfs.tables.spec import Table
from xnatfs.tree.names import distinct, spell_label
from xnatfs.tree.node import LARGER_THAN_ANY_TABLE, Branch, File, Node, OpenContent, inode_of
from xnatfs.tree.resource import Sources
from xnatfs.tree.table_readme import TableReadme


@dataclass(frozen=True)
class Tables:
    """What the section is made from."""

    outputs: TableFiles
    finder: TableDiscovery
    tables: Mapping[str, Table]
    builder: Builder


class TableFile(File):
    """One file of a table."""

    __slots__ = ("_inode", "_key", "_mtime", "_project", "_sessions", "_tables", "_variant")

    def __init__(
        self,
        tables: Tables,
        project: str,
        key: str,
        variant: Variant,
        sessions: tuple[str, ...],
        mtime: float | None,
    ) -> None:
        self._tables = tables
        self._project = project
        self._key = key
        self._variant = variant
        self._sessions = sessions
        self._mtime = mtime
        self._inode = inode_of("table", project, key, variant.suffix, *sessions)

    @property
    def inode(self) -> int:
        return self._inode

    @property
    def size(self) -> int:
        size = self._tables.outputs.size(self._project, self._key, self._variant, self._sessions)
        return LARGER_THAN_ANY_TABLE if size is None else size

    @property
    def mtime(self) -> float:
        return self._tables.finder.newest(self._project, self._sessions) or self._mtime or 0.0

    def open(self) -> OpenContent:
        return self._tables.outputs.open(self._project, self._key, self._variant, self._sessions)

    def xattrs(self) -> dict[str, str]:
        manifest = self._tables.outputs.manifest(self._project, self._key, self._sessions)
        about = {"table": self._key, "project": self._project}
        return about if manifest is None else about | manifest.about


class _Asked(Branch):
    """A folder that costs the server less to be asked for one name than to be listed."""

    __slots__ = ("_known",)

    def __init__(
        self,
        inode: int,
        entries: Callable[[], Mapping[str, Node]],
        known: Callable[[str], Node | None],
        *,
        mtime: float | None,
        xattrs: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(inode, entries, mtime=mtime, xattrs=xattrs)
        self._known = known

    def lookup(self, name: str) -> Node | None:
        return self._known(name) or super().lookup(name)


def tables_folder(sources: Sources, tables: Tables) -> Branch:
    """`tables/`."""

    def entries() -> Mapping[str, Node]:
        return {
            spell_label(project.id): _project(sources, tables, project)
            for project in sources.listing_service.projects.all().values()
        }

    return Branch(inode_of("tables"), entries)


def _project(sources: Sources, tables: Tables, project: ProjectRecord) -> Branch:
    def fixed() -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key in LISTED:
            nodes |= _files(tables, project, key, None, ())
        folders = {
            "sessions": _sessions(sources, tables, project),
            assessor_tables.FOLDER: _assessors(sources, tables, project),
        }
        return nodes | folders

    def entries() -> Mapping[str, Node]:
        present = _present(tables, project)
        readme = TableReadme(tables.outputs, tables.builder.running, project, present)
        return {"README.txt": readme.file(), **fixed(), **_pipelines(tables, project, present.keys, ())}

    def known(name: str) -> Node | None:
        return fixed().get(name) or _known_pipelines(tables, project, ()).get(name)

    return _Asked(
        inode_of("tables", project.id), entries, known, mtime=project.inserted, xattrs={"project": project.id}
    )


def _assessors(sources: Sources, tables: Tables, project: ProjectRecord) -> Branch:
    def entries() -> Mapping[str, Node]:
        nodes: dict[str, Node] = {}
        for key in assessor_tables.keys(sources.listing_service.projects.get(project.id)):
            nodes |= _files(tables, project, key, None, ())
        return nodes

    return Branch(inode_of("tables", project.id, assessor_tables.FOLDER), entries, mtime=project.inserted)


def list_tables(
    tables: Tables, name: str, members: Callable[[], Sequence[tuple[str, Sequence[str]]]]
) -> Branch:
    """The tables over the sessions of a list: `members` gives its projects and the sessions of each."""
    group = ProjectRecord(f"list:{name}")  # no project's id has a colon
    tables.builder.groups[group.id] = members

    def fixed() -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key in LISTED:
            nodes |= _files(tables, group, key, None, ())
        return nodes

    def entries() -> Mapping[str, Node]:
        return {**fixed(), **_pipelines(tables, group, _present(tables, group).keys, ())}

    def known(name: str) -> Node | None:
        return fixed().get(name) or _known_pipelines(tables, group, ()).get(name)

    return _Asked(inode_of("tables", group.id), entries, known, mtime=None)


def _sessions(sources: Sources, tables: Tables, project: ProjectRecord) -> Branch:
    def folder(identity: str, label: str) -> Branch:
        return _Asked(
            inode_of("tables", project.id, "sessions", identity),
            lambda: _pipelines(tables, project, _present(tables, project).keys, (identity,)),
            lambda name: _known_pipelines(tables, project, (identity,)).get(name),
            mtime=project.inserted,
            xattrs={"project": project.id, "id": identity, "label": label},
        )

    def entries() -> Mapping[str, Node]:
        snapshot = sources.listing_service.projects.get(project.id)
        named = distinct(
            sorted(snapshot.experiments.values(), key=lambda experiment: (experiment.label, experiment.id)),
            lambda experiment: experiment.label,
            lambda experiment: experiment.id,
        )
        return {name: folder(experiment.id, experiment.label) for name, experiment in named.items()}

    def alias(name: str) -> Node | None:
        experiment = sources.listing_service.projects.get(project.id).experiments.get(name)
        return None if experiment is None else folder(experiment.id, experiment.label)

    return Branch(inode_of("tables", project.id, "sessions"), entries, mtime=project.inserted, alias=alias)


def _present(tables: Tables, project: ProjectRecord) -> PresentTables:
    try:
        return tables.finder.present(project.id)
    except UsageError as error:  # its tables.toml
        raise Failure(Cause.BAD_LISTING, f"tables of {project.id}", str(error)) from error


def _at_once(tables: Tables, project: ProjectRecord) -> list[str]:
    try:
        return tables.finder.at_once(project.id)
    except UsageError as error:
        raise Failure(Cause.BAD_LISTING, f"tables of {project.id}", str(error)) from error


def _known_pipelines(tables: Tables, project: ProjectRecord, sessions: tuple[str, ...]) -> dict[str, Node]:
    return _pipelines(tables, project, _at_once(tables, project), sessions)


def _pipelines(
    tables: Tables, project: ProjectRecord, keys: list[str], sessions: tuple[str, ...]
) -> dict[str, Node]:
    return {
        name: _pipeline(tables, project, name, sessions)
        for name in dict.fromkeys(key.partition("/")[0] for key in keys)
    }


def _pipeline(tables: Tables, project: ProjectRecord, pipeline: str, sessions: tuple[str, ...]) -> Branch:
    def files(keys: list[str]) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key in keys:
            if key.partition("/")[0] == pipeline:
                nodes |= _files(tables, project, key, tables.tables[key], sessions)
        return nodes

    return _Asked(
        inode_of("tables", project.id, pipeline, *sessions),
        lambda: files(_present(tables, project).keys),
        lambda name: files(_at_once(tables, project)).get(name),
        mtime=project.inserted,
    )


def _files(
    tables: Tables, project: ProjectRecord, key: str, table: Table | None, sessions: tuple[str, ...]
) -> dict[str, Node]:
    name = key.rpartition("/")[2]
    return {
        f"{name}{variant.suffix}": TableFile(tables, project.id, key, variant, sessions, project.inserted)
        for variant in variants(table)
    }
