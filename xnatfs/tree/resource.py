"""A resource as a folder: its files, in the folders their catalog paths say, each a node with a content.

Used by every section: a file is the same node of truth, the same cache entry, whatever path led to it.
Threading: any thread; what is built from a listing lives and dies with that listing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from xnatfs.bids.mapping import BidsMap
from xnatfs.config import Settings
from xnatfs.content.access_pattern import ResourceAccess, access_of
from xnatfs.content.manager import ContentManager, ContentReader
from xnatfs.convert.converted_scans import ConvertedScans
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.service import ListingService
from xnatfs.listing.snapshot import Derived, FileIndex
from xnatfs.listing.summaries import ProjectSummaries
from xnatfs.server.downloads import out_of_reach
from xnatfs.server.records import FileRecord, ResourceRecord
from xnatfs.tree.names import spell
from xnatfs.tree.node import File, FileBranch, Node, OpenContent, inode_of

_DOUBTS = frozenset({Cause.GONE, Cause.BAD_DIGEST, Cause.CHANGED})  # the listing may be of an older file


@dataclass(eq=False)
class Progress:
    """Progress of a long-running listing."""

    what: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.time)

    def update(self, done: int, total: int) -> None:
        """Record how many are done, of how many."""
        self.done, self.total = done, total


@dataclass(frozen=True)
class Sources:
    """What the sections are made from."""

    settings: Settings
    listing_service: ListingService
    content_manager: ContentManager
    diagnostics: Diagnostics
    summaries: ProjectSummaries
    bids_map: BidsMap | None = None  # the user's
    project_maps: Mapping[str, BidsMap] = field(default_factory=dict)  # in its place, by project
    conversions: ConvertedScans | None = None
    kept: Derived = field(default_factory=Derived, compare=False)  # what sections keep as long as the mount
    work: list[Progress] = field(default_factory=list)  # long listings under way, for `status` and `.xnatfs/`

    @contextmanager
    def working(self, what: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show a long listing in `status` during the block; yields the function that updates its progress."""
        progress = Progress(what, total)
        self.work.append(progress)
        try:
            yield progress.update
        finally:
            self.work.remove(progress)


class ResourcePlace(NamedTuple):
    """Where a resource hangs: the project to list it through, the date of what it belongs to, and that one's
    attributes.
    """

    project: str
    mtime: float | None
    xattrs: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class ResourceFile(File):
    """One file of a resource. 160,000 of them must fit in memory, so each holds only references."""

    __slots__ = ("number", "owner", "record")

    settled = True

    owner: _Opener
    record: FileRecord
    number: int  # its place in the catalog

    @property
    def inode(self) -> int:
        return self.owner.inode + 1 + self.number

    @property
    def mtime(self) -> float:
        seen = self.owner.history.of(self.record.resource_id).get(self.record.path)
        return seen if seen is not None else self.owner.place.mtime or 0.0

    @property
    def size(self) -> int:
        return self.owner.content_manager.size(self.record)

    @property
    def listed_size(self) -> int:
        return self.record.size

    @property
    def version(self) -> str:
        return self.owner.content_manager.key(self.record)

    @property
    def digest(self) -> str:
        return self.record.digest

    def announced(self) -> None:
        self.owner.access.announced(self.record.path)

    def open(self) -> OpenContent:
        return self.owner.content_manager.open(self.record, self.owner.access)

    def outdated(self, failure: Failure) -> bool:
        if failure.cause not in _DOUBTS or out_of_reach(self.record.path):
            return False
        try:
            return self.owner.outdated(self.record)
        except Failure as problem:
            if problem.cause is Cause.INTERRUPTED:
                raise
            return False

    def open_unwatched(self) -> ContentReader:
        """Open the content for readahead: no reader is behind this who goes on to the next file."""
        return self.owner.content_manager.open(
            self.record, ResourceAccess([self.record], self.owner.access.entries)
        )

    @property
    def kept(self) -> bool:
        """Whether the content is whole in the cache."""
        return self.owner.content_manager.cached(self.record) is not None

    def xattrs(self) -> dict[str, str]:
        verified = self.owner.content_manager.cached(self.record)
        xattrs = {
            **self.owner.place.xattrs,
            "resource": self.record.resource_label,
            "resource_id": str(self.record.resource_id),
        }
        xattrs |= {
            "name": self.record.path.rsplit("/", 1)[-1],
            "uri": self.record.uri,
            "digest": self.record.digest,
        }
        xattrs |= {"cached": "no" if verified is None else "yes", "verified": verified or "no"}
        return {name: value for name, value in xattrs.items() if value}


@dataclass(frozen=True)
class _Opener:
    """Shared by the files of one resource."""

    place: ResourcePlace
    content_manager: ContentManager
    history: MtimeHistory
    outdated: Callable[[FileRecord], bool]
    access: ResourceAccess
    inode: int


@dataclass
class _Level:
    """A folder while the catalog is sorted into folders."""

    files: list[tuple[str, int, FileRecord]] = field(default_factory=list)
    folders: dict[str, _Level] = field(default_factory=dict)


def resource_folder(
    sources: Sources, place: ResourcePlace, resource: ResourceRecord, *where: str
) -> FileBranch:
    """The folder of one resource; `where` names its place in the tree, for its inode."""

    def entries() -> Mapping[str, Node]:
        snapshot = sources.listing_service.files.of(place.project, resource)
        files = snapshot.of_resource(resource)
        if not files:
            return {}
        opener = _opener(sources, place, snapshot, files)
        return snapshot.memo.get((where, resource), lambda: _arrange(files, opener, sources.diagnostics))

    xattrs = {**place.xattrs, "resource": resource.label, "format": resource.format}
    if resource.id is not None:
        xattrs["resource_id"] = str(resource.id)
    return FileBranch(
        inode_of(*where),
        entries,
        mtime=place.mtime,
        xattrs={name: value for name, value in xattrs.items() if value},
    )


def file_nodes(
    sources: Sources, place: ResourcePlace, snapshot: FileIndex, resource: ResourceRecord
) -> Mapping[str, ResourceFile]:
    """The files of a resource by their path on the server: the same nodes, under the same inode numbers, as
    in its folder.
    """
    files = snapshot.of_resource(resource)
    if not files:
        return {}
    opener = _opener(sources, place, snapshot, files)

    def make() -> dict[str, ResourceFile]:
        return {
            record.path: ResourceFile(opener, record, number)
            for number, record in _numbered(files, sources.diagnostics)
        }

    return snapshot.memo.get(("nodes", place.project, files[0].resource_id, files[0].owner), make)


def _opener(sources: Sources, place: ResourcePlace, snapshot: FileIndex, files: list[FileRecord]) -> _Opener:
    access, inode = access_of(snapshot, files), inode_of("resource", str(files[0].resource_id))
    return _Opener(
        place,
        sources.content_manager,
        sources.listing_service.history,
        sources.listing_service.files.outdated,
        access,
        inode,
    )


def _numbered(files: Iterable[FileRecord], diagnostics: Diagnostics) -> Iterator[tuple[int, FileRecord]]:
    """Files with their numbers in the catalog; one that is listed twice, once."""
    seen: set[str] = set()
    for record in files:
        if record.path in seen:  # one file on the server
            diagnostics.odd(f"{record.uri!r}: listed twice")
            continue
        yield len(seen), record
        seen.add(record.path)


def _arrange(files: Iterable[FileRecord], opener: _Opener, diagnostics: Diagnostics) -> Mapping[str, Node]:
    """Files sorted into the folders of their paths, in catalog order."""
    top = _Level()
    for number, record in _numbered(files, diagnostics):
        *folders, name = record.path.split("/")
        level = top
        for folder in folders:
            level = level.folders.setdefault(folder, _Level())
        level.files.append((name, number, record))
    return _nodes(top, opener, "")


def _nodes(level: _Level, opener: _Opener, path: str) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for name, number, record in level.files:
        spelt = spell(name)
        if name in level.folders:  # a file and a folder of one name: the folder keeps it, for the paths below
            spelt = f"{spelt}%~file"
        nodes[spelt] = ResourceFile(opener, record, number)
    for name, below in level.folders.items():
        here = f"{path}/{name}"
        entries = _nodes(below, opener, here)
        resource = _any_file(below).resource_id
        nodes[spell(name)] = FileBranch(
            inode_of("folder", str(resource), here), partial(_same, entries), mtime=opener.place.mtime
        )
    return nodes


def _same(entries: Mapping[str, Node]) -> Mapping[str, Node]:
    return entries


def _any_file(level: _Level) -> FileRecord:
    while not level.files:
        level = next(iter(level.folders.values()))
    return level.files[0][2]
