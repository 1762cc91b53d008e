"""What there is to copy: the files below some paths of the tree, and the folders of their copies.

Used by `copying.copier`.
Threading: one thread.
"""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xnatfs.copying.local_file import PREFIX, LocalProblem, Source
from xnatfs.errors import Failure, UsageError
from xnatfs.vfs import Vfs

_ALONE_BYTES = (
    8 * 2**20
)  # larger files are fetched by ranges, and never in a zip: each may have its own thread


@dataclass(frozen=True)
class Root:
    """A file or folder to copy, and the path of its copy. `twin`: see `Source`."""

    path: str
    target: Path
    twin: bool = False


def roots(paths: Iterable[str], folder: Path, *, parents: bool) -> list[Root]:
    """Where the copies go: into the folder, under their own names, or with `parents` under their whole paths.

    Raises:
        UsageError: two would have the same name.
    """
    chosen: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        name = path.strip("/") if parents else posixpath.basename(path)
        target = folder / name if name else folder
        before = chosen.setdefault(target, path)
        if before != path:
            raise UsageError(
                f"{before[1:]} and {path[1:]} would both become {target}; --parents keeps their folders apart"
            )
    return [Root(path, target) for target, path in chosen.items()]


class Lister:
    """Lists what is below the roots.

    Args:
        failed: called with a path that cannot be listed, or has no folder here, and the reason.
        dry: make no folders, and convert no scans.
    """

    def __init__(
        self, vfs: Vfs, wanted: list[Root], failed: Callable[[str, str], None], *, dry: bool
    ) -> None:
        self._vfs = vfs
        self._wanted = wanted
        self._failed = failed
        self._dry = dry
        self.left: list[Path] = []  # temporary files of copies that were interrupted

    def sources(self) -> Iterator[list[Source]]:
        """The files, together what one thread should copy: the small ones of a folder, or a large one. The
        folder of their copies is there.
        """
        todo = list(reversed(self._wanted))
        while todo:
            root = todo.pop()
            try:
                attributes = self._vfs.attributes(root.path)
                if not stat.S_ISDIR(attributes.mode):
                    self._make(root.target.parent)
                    yield [Source(root.path, root.target, attributes)]
                    continue
                # In the order of the catalog, in which a zip has them.
                listed = self._vfs.entries(root.path, walking=self._dry)
                entries = sorted(listed, key=lambda entry: entry[1].inode)
                self._make(root.target, root.twin)
            except Failure as failure:
                self._failed(root.path, failure.cause.sentence)
                continue
            except LocalProblem as problem:
                self._failed(root.path, str(problem))
                continue
            files: list[Source] = []
            folders: list[Root] = []
            alike = Counter(_alike(name) for name, _ in entries)
            for name, attributes in entries:
                path, target = f"{root.path.rstrip('/')}/{name}", root.target / name
                twin = alike[_alike(name)] > 1
                if stat.S_ISDIR(attributes.mode):
                    folders.append(Root(path, target, twin))
                elif (source := Source(path, target, attributes, twin)).size > _ALONE_BYTES:
                    yield [source]
                else:
                    files.append(source)
            if files:
                yield files
            todo += reversed(folders)

    def _make(self, folder: Path, twin: bool = False) -> None:
        if self._dry:
            return
        try:
            if folder.is_dir():
                if twin and folder.name not in os.listdir(folder.parent):
                    raise LocalProblem(
                        "the disk cannot hold it beside a folder whose name differs only in case"
                    )
                with os.scandir(folder) as found:
                    self.left += [Path(entry.path) for entry in found if entry.name.startswith(PREFIX)]
                return
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise LocalProblem(f"{folder} is a file, and a folder is needed there") from None
        except OSError as error:
            raise LocalProblem(f"{folder} cannot be made: {error.strerror}") from None


def _alike(name: str) -> str:
    """The same for names that some disks take for one."""
    return unicodedata.normalize("NFC", name).casefold()
