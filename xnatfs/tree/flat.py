"""A flat folder: the files of many small resources side by side, named as bx names them.

    <subject>_<session>_<scan>_<session id>.<ext>         (bx.md 1.4)

Used by the views by scan type. Where a scan has several files of one extension (echoes, magnitude and phase),
each gets `_` and its own stem before the extension, so that nothing is left out; so does a file in a folder
of its resource. What still has one name (two resources of one label) gets the number of its resource besides.
The files are the nodes of their resources; `FolderReadahead` is notified when one is opened, and fetches the
next ones.
Threading: any thread; a folder is built once from listings and kept with them.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from xnatfs.content.readahead import FolderReadahead
from xnatfs.errors import Failure
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.records import ExperimentRecord, ResourceRecord, ScanRecord
from xnatfs.tree.names import MAX_NAME_BYTES, PROBED, spell, spell_label
from xnatfs.tree.node import File, FileBranch, Node, OpenContent
from xnatfs.tree.resource import ResourceFile, ResourcePlace, Sources, file_nodes

_MAX_EXTENSION_CHARS = 16
_DOUBLE = (".nii.gz", ".tar.gz", ".mgh.gz")


class FlatPart(NamedTuple):
    """A resource that gives its files to a flat folder."""

    experiment: ExperimentRecord
    scan: ScanRecord
    resource: ResourceRecord
    place: ResourcePlace


class FlatFile(File):
    """A file of a resource under another name, with readahead of its neighbours."""

    __slots__ = ("_file", "_number", "_readahead")

    settled = True

    def __init__(self, file: ResourceFile, readahead: _LazyReadahead, number: int) -> None:
        self._file = file
        self._readahead = readahead
        self._number = number

    @property
    def inode(self) -> int:
        return self._file.inode

    @property
    def mtime(self) -> float:
        return self._file.mtime

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def listed_size(self) -> int:
        return self._file.listed_size

    @property
    def version(self) -> str:
        return self._file.version

    @property
    def digest(self) -> str:
        return self._file.digest

    def announced(self) -> None:
        self._file.announced()

    def xattrs(self) -> dict[str, str]:
        return self._file.xattrs()

    def outdated(self, failure: Failure) -> bool:
        return self._file.outdated(failure)

    def open(self) -> OpenContent:
        readahead = self._readahead.get()
        readahead.opened(self._number)
        return _Watched(self._file.open(), readahead, self._number)


class FlatFolder(FileBranch):
    """A folder of such files. What desktops and shells probe for is answered without listing 20,000 resources
    for it.
    """

    __slots__ = ()

    def lookup(self, name: str) -> Node | None:
        return None if PROBED.fullmatch(name) else super().lookup(name)


class _Watched:
    """An open content that reports when it was read to its end."""

    def __init__(self, content: OpenContent, readahead: FolderReadahead, number: int) -> None:
        self._content = content
        self._readahead = readahead
        self._number = number
        self._furthest = 0
        self.size = content.size
        self.stamp = content.stamp
        if not self.size:
            readahead.read_whole(number)

    def read(self, offset: int, length: int) -> bytes:
        data = self._content.read(offset, length)
        end = offset + len(data)
        if end >= self.size > self._furthest:
            self._readahead.read_whole(self._number)
        self._furthest = max(self._furthest, end)
        return data

    def close(self) -> None:
        self._content.close()
        if 0 < self._furthest < self.size:  # nothing read at all: the kernel had it
            self._readahead.read_in_part(self._number)


class _LazyReadahead:
    """The readahead of one folder, made when the first file is opened: `ls` needs none."""

    def __init__(self, sources: Sources, files: Sequence[ResourceFile]) -> None:
        self._sources = sources
        self._files = files
        self._lock = threading.Lock()
        self._readahead: FolderReadahead | None = None

    def get(self) -> FolderReadahead:
        with self._lock:
            if self._readahead is None:
                limits = self._sources.settings.limits
                widest = 2 * max(
                    1, limits.connections - 1
                )  # one under way and one in waiting for each connection but the reader's
                most = min(limits.ahead, limits.cache_size // 4)
                self._readahead = FolderReadahead(
                    self._sources.content_manager.ahead_workers, widest, self._files, most
                )
            return self._readahead


def flat_names(part: FlatPart, paths: Sequence[str]) -> dict[str, str]:
    """The names bx gives the files of a scan's resource, by path; several of one extension are kept apart."""
    base = f"{part.experiment.subject_label}_{part.experiment.label}_{part.scan.id}_{part.experiment.id}"
    tops = Counter(_extension(path) for path in paths if "/" not in path)
    names: dict[str, str] = {}
    for path in paths:
        extension = _extension(path)
        if "/" not in path and tops[extension] == 1:
            names[path] = base + extension
        else:
            names[path] = f"{base}_{path[: len(path) - len(extension)].replace('/', '_')}{extension}"
    return names


def flat_nodes(
    sources: Sources, parts: Sequence[FlatPart], listings: Sequence[FileIndex]
) -> Mapping[str, Node]:
    """The folder of these resources' files."""
    named_files: list[tuple[str, ResourceFile]] = []
    for part, snapshot in zip(parts, listings, strict=True):
        nodes = file_nodes(sources, part.place, snapshot, part.resource)
        names = flat_names(part, list(nodes))
        named_files += [(names[path], node) for path, node in nodes.items()]
    named_files.sort(
        key=lambda named_file: (named_file[0], named_file[1].record.resource_id, named_file[1].number)
    )
    named = {_short(name): node for name, node in _kept_apart(named_files)}
    lazy = _LazyReadahead(sources, list(named.values()))
    return {name: FlatFile(node, lazy, number) for number, (name, node) in enumerate(named.items())}


def _kept_apart(named_files: Sequence[tuple[str, ResourceFile]]) -> Iterator[tuple[str, ResourceFile]]:
    """Names that are there once; the first file (of the oldest resource) keeps the name."""
    taken = {name for name, _ in named_files}
    seen: set[str] = set()
    for name, node in named_files:
        if name in seen:
            extension = _extension(name)
            base = f"{name[: len(name) - len(extension)]}_{node.record.resource_id}"
            numbers = itertools.count(2)
            name = f"{base}{extension}"
            while name in taken:
                name = f"{base}_{next(numbers)}{extension}"
            taken.add(name)
        seen.add(name)
        yield name, node


def _short(name: str) -> str:
    """The file name of a name; one that is cut keeps its extension, which programs go by."""
    spelt = spell_label(name)
    extension = _extension(name)
    if spelt.endswith(extension) or len(extension) > _MAX_EXTENSION_CHARS:
        return spelt
    left = MAX_NAME_BYTES - len(spell(extension).encode()) - 14
    tail = spelt[-14:]  # `%~` and twelve digits, which tell names with one beginning apart
    head = spelt[:-14].encode()[:left].decode("utf-8", "ignore")
    return re.sub(r"%[0-9A-Fa-f]?$", "", head) + tail + spell(extension)


def _extension(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    for double in _DOUBLE:
        if name.lower().endswith(double):
            return name[-len(double) :]
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""
