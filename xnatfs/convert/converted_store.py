"""Converted scans on the disk, and what was refused: each under the key of all that it was made from.

Used by `converted_scans`. A folder a scan, which is put in place whole; `made.json` in it says what was
refused. All together may take a part of the cache's size: the scan opened longest ago goes first.
Threading: any thread, several processes; no lock. An open file keeps its bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from xnatfs.config import private_folder
from xnatfs.convert.conversion import Conversion
from xnatfs.convert.split import RefusedPart
from xnatfs.disk import disk_failure, write_private_json

_MADE = "made.json"
_LEFT_BEHIND_AFTER_S = 6 * 3600.0  # after which what a killed process left is removed
_TOUCH_AFTER_S = 60.0


class ConvertedScan(NamedTuple):
    """What is there of a scan: the size of each file in bytes, by name, and what was refused."""

    key: str
    sizes: dict[str, int]
    refused: tuple[RefusedPart, ...]


class OpenConverted:
    """An open file of a converted scan; a `tree.node.OpenContent`."""

    def __init__(self, fd: int, stamp: str) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self.stamp = stamp

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, shorter only at the end."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """No more reads."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


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
        for path in self._folder.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND_AFTER_S:
                    shutil.rmtree(path, ignore_errors=True)

    def get(self, key: str) -> ConvertedScan | None:
        """What is there under a key; None if nothing is. The disk is read once."""
        made = self._known.get(key)
        if made is None:
            made = self._read(key)
            if made is not None:
                self._known[key] = made
        return made

    def _read(self, key: str) -> ConvertedScan | None:
        folder = self._folder / key
        try:
            refused = json.loads((folder / _MADE).read_text(encoding="utf-8"))["refused"]
            sizes = {
                path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != _MADE
            }
            return ConvertedScan(key, sizes, tuple(RefusedPart(str(one), str(why)) for one, why in refused))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def open(self, key: str, name: str) -> OpenConverted | None:
        """A file of a scan; None if it is not there (any more)."""
        folder = self._folder / key
        try:
            fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._known.pop(key, None)
            return None
        with contextlib.suppress(OSError):
            if time.time() - (folder / _MADE).stat().st_mtime > _TOUCH_AFTER_S:
                os.utime(folder / _MADE)  # used just now
        return OpenConverted(fd, f"{key} {name}")

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
            yield Path(folder)

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
            write_private_json(draft / _MADE, {"refused": [list(one) for one in done.refused]})
            try:
                draft.rename(self._folder / key)
            except OSError as error:
                # Another mount was faster; what it made is the same.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        except OSError as error:
            raise disk_failure(error, str(self._folder)) from error
        self._make_room(key)
        made = self._known[key] = self._read(key) or ConvertedScan(key, {}, done.refused)
        return made

    def forget_refused(self) -> None:
        """Remove what was refused, in part too: it is tried again at the next look."""
        for path in self._folder.glob("[!.]*"):
            made = self._read(path.name)
            if made is not None and made.refused:
                self._remove(path)

    def _remove(self, folder: Path) -> None:
        self._known.pop(folder.name, None)
        shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self, newest: str) -> None:
        scans: list[tuple[float, int, Path]] = []
        for folder in self._folder.glob("[!.]*"):
            with contextlib.suppress(OSError):
                size = sum(path.stat().st_size for path in folder.iterdir())
                scans.append(((folder / _MADE).stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in scans)
        for _, size, folder in sorted(scans):
            if total <= self._most_bytes:
                return
            if folder.name != newest:
                self._remove(folder)
                total -= size
