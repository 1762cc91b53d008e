"""A flat folder: the files of many small resources side by side, named as bx names them.

    <subject>_<session>_<scan>_<session id>.<ext>         (bx.md 1.4)

Used by the views by scan type. Where a scan has several files of one extension (echoes, magnitude and phase), each gets `_` and its own
stem before the extension, so that nothing is left out; so does a file in a folder of its resource. The files are the nodes of their
resources; only opening them is told to `Alongside`, which fetches the next ones.
Threading: any thread; a folder is built once from listings and kept with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xnatfs.fetch.alongside import Alongside
from xnatfs.fetch.holdings import FileHoldings
from xnatfs.server.records import ExperimentRecord, ResourceRecord, ScanRecord
from xnatfs.tree.names import distinct
from xnatfs.tree.node import Content, File, Node
from xnatfs.tree.resource import Place, ResourceFile, Sources, file_nodes

_DOUBLE = (".nii.gz", ".tar.gz", ".mgh.gz")


class Part(NamedTuple):
    """A resource that gives its files to a flat folder."""

    experiment: ExperimentRecord
    scan: ScanRecord
    resource: ResourceRecord
    place: Place


class FlatFile(File):
    """A file of a resource under another name, whose neighbours are fetched ahead."""

    __slots__ = ("_alongside", "_file", "_number")

    def __init__(self, file: ResourceFile, alongside: _Lazy, number: int) -> None:
        self._file = file
        self._alongside = alongside
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

    def xattrs(self) -> dict[str, str]:
        return self._file.xattrs()

    def open(self) -> Content:
        ahead = self._alongside.get()
        ahead.opened(self._number)
        return _Watched(self._file.open(), ahead, self._number)


class _Watched:
    """An open content that tells how far it was read."""

    def __init__(self, content: Content, ahead: Alongside, number: int) -> None:
        self._content = content
        self._ahead = ahead
        self._number = number
        self._furthest = 0
        self.size = content.size
        self.stamp = content.stamp

    def read(self, offset: int, length: int) -> bytes:
        data = self._content.read(offset, length)
        self._furthest = max(self._furthest, offset + len(data))
        return data

    def close(self) -> None:
        self._content.close()
        self._ahead.closed(self._number, self._furthest)


class _Lazy:
    """The look ahead of one folder, made when the first file is opened: `ls` needs none."""

    def __init__(self, sources: Sources, files: Sequence[ResourceFile]) -> None:
        self._sources = sources
        self._files = files
        self._made: Alongside | None = None

    def get(self) -> Alongside:
        if self._made is None:
            transfers = self._sources.transfers
            limits = self._sources.settings.limits
            self._made = Alongside(
                transfers.ahead_workers,
                max(1, limits.connections - 1),
                [file.open_unwatched for file in self._files],
                [file.inode for file in self._files],
                [file.size for file in self._files],
                min(limits.ahead, limits.cache_size // 4),
            )
        return self._made


def flat_names(part: Part, paths: Sequence[str]) -> dict[str, str]:
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


def flat_nodes(sources: Sources, parts: Sequence[Part], listings: Sequence[FileHoldings]) -> Mapping[str, Node]:
    """The folder of these resources' files."""
    found: list[tuple[str, ResourceFile]] = []
    for part, holdings in zip(parts, listings, strict=True):
        nodes = file_nodes(sources, part.place, holdings, part.resource)
        names = flat_names(part, list(nodes))
        found += [(names[path], node) for path, node in nodes.items()]
    found.sort(key=lambda one: one[0])
    named = distinct(found, lambda one: one[0], lambda one: f"{one[1].record.resource_id}-{one[1].number}")
    lazy = _Lazy(sources, [node for _, node in named.values()])
    return {name: FlatFile(node, lazy, number) for number, (name, (_, node)) in enumerate(named.items())}


def _extension(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    for double in _DOUBLE:
        if name.lower().endswith(double):
            return name[-len(double) :]
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""
