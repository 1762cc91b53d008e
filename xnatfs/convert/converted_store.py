"""Converted scans on the disk, and what was refused: each under the key of all that it was made from.

Used by `converted_scans`. A folder a scan, which is put in place whole; `made.json` in it says which files
there are, how large, and what was refused. All together may take a part of the cache's size: of the scan
opened longest ago the images go first, and `made.json` stays, so that names do not change for want of room.
Threading: any thread, several processes; no lock but that which says that a folder is still being filled. An
open file keeps its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from xnatfs.config import private_folder
from xnatfs.convert.conversion import Conversion, ImageFacts
from xnatfs.convert.split import RefusedPart
from xnatfs.disk import OpenedFile, disk_failure

_MADE = "made.json"
_LEFT_BEHIND_AFTER_S = 10.0  # after which a folder that no process has locked was left by a killed one
_FORGOTTEN_AFTER_S = 180 * 86400.0  # after which no names are kept of a scan whose images went
_TOUCH_AFTER_S = 60.0


class ConvertedScan(NamedTuple):
    """What came of a scan: the size of each file in bytes, by name; what was refused; facts by name of image.
    The files themselves may have gone for want of room: made again, they are the same.
    """

    key: str
    sizes: dict[str, int]
    refused: tuple[RefusedPart, ...]
    facts: dict[str, ImageFacts]


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock of a folder as long as it is open.

    Raises:
        OSError: another process holds it, or the disk has no locks.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


class ConvertedStore:
    """The converted scans below `folder`.

    Args:
        folder: made if it is not there.
        most_bytes: all scans together may take.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = private_folder(folder)
        self._most_bytes = most_bytes
        self._known: dict[str, ConvertedScan] = {}
        self._learnt: dict[str, float] = {}  # when, by the monotonic clock
        for path in self._folder.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND_AFTER_S:
                    os.close(_locked(path))
                    shutil.rmtree(path, ignore_errors=True)

    def get(self, key: str) -> ConvertedScan | None:
        """What is there under a key; None if nothing is. The disk is read once."""
        made = self._known.get(key)
        if made is None:
            made = self._read(key)
            if made is not None:
                self._learn(made)
        return made

    def _learn(self, made: ConvertedScan) -> None:
        self._learnt.setdefault(made.key, time.monotonic())
        self._known[made.key] = made

    def learnt(self, key: str) -> float:
        """When it became known here what is under a key, by the monotonic clock; infinity while it is not."""
        return self._learnt.get(key, math.inf)

    def _read(self, key: str) -> ConvertedScan | None:
        try:
            made = json.loads((self._folder / key / _MADE).read_text(encoding="utf-8"))
            return ConvertedScan(
                key,
                {str(name): int(size) for name, size in made["files"].items()},
                tuple(RefusedPart(str(label), str(why)) for label, why in made["refused"]),
                {str(name): ImageFacts(int(one[0]), tuple(one[1])) for name, one in made["images"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def whole(self, made: ConvertedScan) -> bool:
        """Whether the files of a scan are there."""
        folder = self._folder / made.key
        try:
            return all((folder / name).stat().st_size == size for name, size in made.sizes.items())
        except OSError:
            return False

    def open(self, key: str, name: str) -> OpenedFile | None:
        """A file of a scan; None if it is not there (any more), or a power cut left part of it."""
        folder, made = self._folder / key, self.get(key)
        try:
            fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not (folder / _MADE).exists():  # somebody emptied the cache
                self._forget(key)
            return None
        if made is not None and os.fstat(fd).st_size != made.sizes.get(name):
            os.close(fd)
            return None
        with contextlib.suppress(OSError):
            if time.time() - (folder / _MADE).stat().st_mtime > _TOUCH_AFTER_S:
                os.utime(folder / _MADE)  # used just now
        return OpenedFile(fd, f"{key} {name}")

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder on the same disk for the block.

        Raises:
            Failure: there is no room for it.
        """
        try:
            place = tempfile.TemporaryDirectory(prefix=".work-", dir=self._folder)
        except OSError as error:
            raise disk_failure(error, str(self._folder)) from error
        with place as folder:
            held = -1
            with contextlib.suppress(OSError):  # a disk without locks
                held = _locked(Path(folder))
            try:
                yield Path(folder)
            finally:
                if held >= 0:
                    os.close(held)

    def put(self, key: str, workplace: Path, make: Callable[[Path], Conversion]) -> ConvertedScan:
        """Put in place what `make` puts into the folder it is called with; it makes that folder if there is
        something to put into it.

        Raises:
            Failure: as `make`; the disk is full.
        """
        draft = workplace / "converted"
        done = make(draft)
        try:
            draft.mkdir(mode=0o700, exist_ok=True)
            sizes = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
            made = ConvertedScan(key, sizes, done.refused, dict(done.facts))
            about: dict[str, Any] = {"files": sizes, "refused": done.refused, "images": made.facts}
            (draft / _MADE).write_text(json.dumps(about), encoding="utf-8")
            try:
                draft.rename(self._folder / key)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # Its images had gone for want of room, or another mount was faster: the same bytes.
                for path in draft.iterdir():
                    path.rename(self._folder / key / path.name)
        except OSError as error:
            raise disk_failure(error, str(self._folder)) from error
        self._learn(made)
        self._make_room(key)
        return made

    def forget_refused(self) -> None:
        """Remove what was refused, in part too: it is tried again at the next look."""
        for path in self._folder.glob("[!.]*"):
            made = self._read(path.name)
            if made is not None and made.refused:
                self._remove(path)

    def _forget(self, key: str) -> None:
        self._known.pop(key, None)
        self._learnt.pop(key, None)

    def _remove(self, folder: Path) -> None:
        self._forget(folder.name)
        shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self, newest: str) -> None:
        scans: list[tuple[float, int, list[Path], Path]] = []
        for folder in self._folder.glob("[!.]*"):
            with contextlib.suppress(OSError):
                images = [path for path in folder.iterdir() if path.name != _MADE]
                size = sum(path.stat().st_size for path in images)
                scans.append(((folder / _MADE).stat().st_mtime, size, images, folder))
        total = sum(size for _, size, _, _ in scans)
        for used, size, images, folder in sorted(scans):
            if not images and time.time() - used > _FORGOTTEN_AFTER_S:
                self._remove(folder)
            if total > self._most_bytes and folder.name != newest:
                for path in images:
                    path.unlink(missing_ok=True)
                total -= size
