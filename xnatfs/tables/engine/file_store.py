"""The files of built tables on the disk, their manifests, and who has them open.

Used by `materialize`, which knows when a table is due. One folder a table, with the files of the newest build
(named after its fingerprint) and `manifest.json`, which says what they are. Files are written under another
name and renamed; an open file keeps its bytes. A new build is put in place only while nobody has the old one
open: the kernel keeps one set of pages a path. All tables together may take a part of the cache's size.
Threading: any thread; one lock around what is in place and who has it open, never held while files are
written or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xnatfs.config import private_folder
from xnatfs.disk import OpenedFile, disk_failure, write_private_json
from xnatfs.errors import Cause, Failure
from xnatfs.tables.engine.finished_table import FinishedTable, Variant

_MANIFEST = "manifest.json"
_ABANDONED_AFTER_S = 86400.0  # after which a build that never ended is removed
_UNUSED_AFTER_S = 90 * 86400.0  # after which a table nobody opened is removed
_LEFT_BEHIND_AFTER_S = 3600.0  # after which a file that was never renamed is removed


@dataclass
class Manifest:
    """What a folder of files is: provenance as texts, and the size of each file in bytes."""

    fingerprint: str
    about: dict[str, str]
    sizes: dict[str, int]
    checked: float  # epoch seconds of the last agreement with the server
    state: str = ""  # of the project when it was built, see `Builder.state`
    # epoch seconds of the last build: some changes move no stamp, so it is built again after some hours
    compared: float = 0.0


class TableFileStore:
    """The files of all tables below `folder`, by the name of the table's own folder in it.

    Args:
        folder: created if it is not there.
        max_bytes: all tables together may take.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = private_folder(folder)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._handles: Counter[str] = Counter()
        self._pending: dict[str, Manifest] = {}  # new builds, which wait until the last handle is closed
        self._manifests: dict[str, Manifest | None] = {}
        self._remove_leftovers()

    def path(self, name: str) -> Path:
        """The folder of a table."""
        return self._folder / name

    def manifest(self, name: str) -> Manifest | None:
        """What is in place; None if nothing is. The disk is looked at once."""
        if name not in self._manifests:
            self._manifests[name] = self._read_manifest(name)
        return self._manifests[name]

    def in_use(self, name: str) -> bool:
        """Whether a file of a table is open: then every opener gets the build it is of."""
        return self._handles.get(name, 0) > 0

    def open(self, name: str, manifest: Manifest, variant: Variant) -> OpenedFile | None:
        """A file of a build; None if it is not there."""
        path = self.path(name) / f"{manifest.fingerprint}{variant.suffix}"
        with self._lock:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if variant.suffix in manifest.sizes:  # it was removed by hand
                    self._manifests.pop(name, None)
                return None
            self._handles[name] += 1
        status = os.fstat(fd)
        stamp = f"{status.st_ino} {status.st_mtime_ns}"  # every build is a new file
        return OpenedFile(fd, stamp, lambda: self._closed(name))

    def open_pending(self, name: str, variant: Variant) -> OpenedFile | None:
        """A file of the build that waits until the old one is closed; None if there is none."""
        pending = self._pending.get(name)
        return None if pending is None else self.open(name, pending, variant)

    def write(
        self, name: str, finished: FinishedTable, wanted: Sequence[Variant], manifest: Manifest
    ) -> None:
        """Write files of a build and put it in place: now, or once nobody has another one open.

        Args:
            manifest: of the build; its files that are there already are kept.

        Raises:
            Failure: the files cannot be written, or the table does not fit into their format.
        """
        folder = self.path(name)
        sizes = dict(manifest.sizes)
        try:
            private_folder(folder)
            for variant in wanted:
                draft = folder / f".{threading.get_ident()}{variant.suffix}"
                finished.write(variant, draft)
                draft.chmod(0o600)
                sizes[variant.suffix] = draft.stat().st_size
                draft.rename(folder / f"{finished.fingerprint}{variant.suffix}")
        except ValueError as error:  # more columns than a spreadsheet has
            raise Failure(Cause.BAD_LISTING, finished.key, str(error)) from error
        except OSError as error:
            raise disk_failure(error, str(folder)) from error
        new = replace(manifest, sizes=sizes)
        with self._lock:
            current = self._manifests.get(name)
            if self._handles[name] and current is not None and current.fingerprint != new.fingerprint:
                pending = self._pending.get(name)
                if pending is not None and pending.fingerprint == new.fingerprint:
                    new.sizes = pending.sizes | new.sizes
                self._pending[name] = new
                return
        self._publish(name, new)

    def _publish(self, name: str, new: Manifest) -> None:
        with self._lock:
            current = self._manifests.get(name)
            # Another format of the same build may have been written meanwhile.
            if current is not None and current.fingerprint == new.fingerprint:
                new.sizes = current.sizes | new.sizes
            self._manifests[name] = new
        with contextlib.suppress(OSError):
            write_private_json(self.path(name) / _MANIFEST, vars(new))
        for file in self.path(name).iterdir():
            if not file.name.startswith((new.fingerprint, ".", _MANIFEST)):
                file.unlink(missing_ok=True)
        self._make_room(name)

    def _closed(self, name: str) -> None:
        pending = None
        with self._lock:
            self._handles[name] -= 1
            if self._handles[name] <= 0:
                del self._handles[name]
                pending = self._pending.pop(name, None)
        if pending is not None:
            self._publish(name, pending)

    def _make_room(self, newest: str) -> None:
        """Remove the tables that were opened longest ago until all take no more than they may; never the
        newest or an open one.
        """
        folders: list[tuple[float, int, Path]] = []
        for folder in self._folder.iterdir():
            with contextlib.suppress(OSError):
                size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
                folders.append(((folder / _MANIFEST).stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in folders)
        for _, size, folder in sorted(folders):
            if total <= self._max_bytes:
                return
            with self._lock:
                if folder.name == newest or self._handles[folder.name]:
                    continue
                self._manifests.pop(folder.name, None)
            shutil.rmtree(folder, ignore_errors=True)
            total -= size

    def _read_manifest(self, name: str) -> Manifest | None:
        path = self.path(name) / _MANIFEST
        try:
            manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
            os.utime(path)  # used just now
        except (OSError, ValueError, TypeError):
            return None
        manifest.sizes = {
            suffix: size
            for suffix, size in manifest.sizes.items()
            if _size(path.parent / f"{manifest.fingerprint}{suffix}") == size
        }
        return manifest if manifest.sizes else None

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left, and tables nobody opened for long."""
        for folder in self._folder.iterdir():
            manifest = folder / _MANIFEST
            with contextlib.suppress(OSError):
                # Without a manifest it is a first build: of another process, perhaps, that is still at it.
                limit = _UNUSED_AFTER_S if manifest.exists() else _ABANDONED_AFTER_S
                if time.time() - (manifest if manifest.exists() else folder).stat().st_mtime > limit:
                    shutil.rmtree(folder)
                    continue
                for path in folder.glob(".*"):
                    if time.time() - path.stat().st_mtime > _LEFT_BEHIND_AFTER_S:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
