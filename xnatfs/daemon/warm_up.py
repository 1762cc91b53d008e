"""Fetches every file below some paths of a mount into its cache.

Used by the command `warm`. It reads through the mount as any tool would, folder by folder in the order of
the inode numbers, which triggers readahead; so it costs as much as `cp -r`, without the writing.
Cached files are skipped: an interrupted run continues where it stopped.
Threading: one thread lists, a few read; each takes a whole folder, since the files of a folder often come in
one zip.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from xnatfs.text import did_you_mean
from xnatfs.vfs import XATTR_PREFIX

_READERS = 4
_PIECE = 2**20


@dataclass
class WarmPlan:
    """The files to read: folders, each with its files as (path, size in bytes)."""

    folders: list[list[tuple[str, int]]] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, files: list[tuple[str, int]]) -> None:
        """One folder's files."""
        if files:
            self.folders.append(files)
            self.files += len(files)
            self.bytes += sum(size for _, size in files)


def survey(paths: Iterable[str], seen: Callable[[WarmPlan], None]) -> WarmPlan:
    """List everything below the paths; `seen` is called with the growing plan. A folder that cannot be listed
    is recorded as a problem.
    """
    plan = WarmPlan()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            plan.problems.append(f"{path}: {error.strerror}{_meant(path, error)}")
            continue
        if stat.S_ISREG(status.st_mode):
            plan.add([(path, _bytes_of(status))])
        else:
            _survey(path, plan, seen)
    return plan


def _meant(path: str, error: OSError) -> str:
    """Names like the first that is missing in a path: a project, a session, a type of scan."""
    if error.errno != errno.ENOENT:
        return ""
    folder, name = os.path.split(path.rstrip("/"))
    while folder and not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    with contextlib.suppress(OSError):
        return did_you_mean(name, os.listdir(folder or "."))
    return ""


def _survey(top: str, plan: WarmPlan, seen: Callable[[WarmPlan], None]) -> None:
    todo = [top]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.inode())
        except OSError as error:
            plan.problems.append(f"{folder}: {error.strerror}")
            continue
        plan.add(
            [
                (entry.path, _bytes_of(entry.stat()))
                for entry in entries
                if entry.is_file(follow_symlinks=False)
            ]
        )
        todo += reversed([entry.path for entry in entries if entry.is_dir(follow_symlinks=False)])
        seen(plan)


def _bytes_of(status: os.stat_result) -> int:
    """The size of a file; 0 for one that is made when it is opened, which shows more than any has."""
    return status.st_size if status.st_blocks else 0


class Warming:
    """Reads a plan. `bytes` and `files` count what is done (including skipped files), `problems` lists the
    files that could not be read.
    """

    def __init__(self, plan: WarmPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._folders: queue.SimpleQueue[list[tuple[str, int]]] = queue.SimpleQueue()
        self._ending = False
        self._running = 0
        self.files = 0
        self.bytes = 0
        self.total_files = plan.files
        self.total_bytes = plan.bytes
        self.problems = list(plan.problems)

    def start(self) -> None:
        """Begin."""
        for folder in self._plan.folders:
            self._folders.put(folder)
        for number in range(min(_READERS, len(self._plan.folders))):
            self._running += 1
            threading.Thread(target=self._read_folders, name=f"warm-{number}", daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether anything is still to be read."""
        return self._running > 0

    def stop(self) -> None:
        """Start no further file."""
        self._ending = True

    def _read_folders(self) -> None:
        try:
            while not self._ending:
                try:
                    folder = self._folders.get_nowait()
                except queue.Empty:
                    return
                for path, size in folder:
                    if self._ending:
                        return
                    self._read(path, size)
        finally:
            with self._lock:
                self._running -= 1

    def _read(self, path: str, size: int) -> None:
        done = 0
        skipped = False
        try:
            with contextlib.suppress(OSError):
                skipped = os.getxattr(path, f"{XATTR_PREFIX}cached") == b"yes"
            if not skipped:
                with open(path, "rb", buffering=0) as stream:
                    while piece := stream.read(_PIECE):
                        done += len(piece)
                        with self._lock:
                            self.bytes += len(piece)
                        if self._ending:
                            return
        except OSError as error:
            with self._lock:
                self.problems.append(f"{path}: {error.strerror}")
        with self._lock:
            self.files += 1
            self.bytes += max(0, size - done)  # so that the progress bar reaches its end
