"""Programs that read through whole folders by themselves: desktop search, `updatedb`, virus scanners,
backups, editors. What they open below a mount is fetched from the server, and nobody asked for it.

Some stay out because of an empty file in the root (`tree.root`). For the others there is none that would keep
only them away: an `.ignore` hides files from `rg` and `fd` when somebody means them, too. So they are served
like everybody, and noticed: one line in the log, and one in `status`, with what keeps them out.

Used by `fuse.adapter`, which reports folders and files as they are opened, and by `core`, for `status`.
Threading: any thread; one lock, held for moments. Who asks is looked up in `/proc` once a minute for each
process, so most calls cost a few microseconds.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from cachetools import TTLCache

from xnatfs.fuse.caller import Program, program_of

log = logging.getLogger(__name__)

NOTICED = 50  # folders and files opened after which it is no chance visit
_REMEMBERED_S = 60.0  # a process number may be another program's later
_PROCESSES = 2000


class Indexer(NamedTuple):
    """A program: its name for people, how its processes are called (the kernel keeps 15 letters), what keeps
    it out of `{mountpoint}`, and what its path contains if the name alone says too little.
    """

    title: str
    names: tuple[str, ...]
    advice: str
    path: tuple[str, ...] = ()

    def is_called(self, program: Program) -> bool:
        """Whether this is it."""
        return program.name in self.names and (
            not self.path or any(part in program.path for part in self.path)
        )


_EDITOR = (
    'in its settings, "files.watcherExclude": {{"**/{name}/**": true}} '
    'and "search.exclude": {{"**/{name}": true}}'
)
_GNOME = "take the folder above {mountpoint} out of the search locations, in GNOME's settings under Search"
INDEXERS = (
    Indexer("GNOME's desktop search (tracker)", ("tracker-miner-f", "tracker-extract"), _GNOME),
    Indexer("GNOME's desktop search (localsearch)", ("localsearch-3", "localsearch-ext"), _GNOME),
    Indexer(
        "KDE's desktop search (baloo)",
        ("baloo_file", "baloo_file_extr"),
        "balooctl config add excludeFolders {mountpoint}",
    ),
    Indexer(
        "updatedb (of locate)",
        ("updatedb", "updatedb.plocat", "updatedb.mlocat"),
        "add fuse.xnatfs to PRUNEFS in /etc/updatedb.conf",
    ),
    Indexer("recoll", ("recollindex",), "add skippedPaths = {mountpoint} to ~/.recoll/recoll.conf"),
    Indexer("ClamAV", ("clamscan",), "clamscan --exclude-dir=^{mountpoint}"),
    Indexer("ClamAV", ("clamd", "clamonacc"), "add ExcludePath ^{mountpoint}/ to clamd.conf"),
    Indexer("restic", ("restic",), "restic backup --exclude {mountpoint}, or --one-file-system"),
    Indexer("Borg", ("borg",), "borg create --exclude {mountpoint}, or --one-file-system"),
    Indexer("VS Code", ("code", "code-insiders", "codium", "cursor"), _EDITOR),
    Indexer("VS Code", ("rg", "node"), _EDITOR, path=("vscode", "/code/", "codium", "cursor")),
)
_NOBODY = Indexer("", (), "")  # any other program


@dataclass
class _Reader:
    """What one of them has opened so far."""

    indexer: Indexer
    folders: int = 0
    files: int = 0
    since: float = 0.0  # epoch seconds


class IndexerWatch:
    """Which indexers read a mount.

    Args:
        mountpoint: named in the advice.
        proc: where processes are shown.
    """

    def __init__(self, mountpoint: str, proc: str = "/proc") -> None:
        self._mountpoint = mountpoint
        self._proc = proc
        self._lock = threading.Lock()
        self._known: TTLCache[int, tuple[Indexer, float]] = TTLCache(_PROCESSES, _REMEMBERED_S)
        # The task that opened something last, what it is, and until when that holds: `cp -r` opens thousands
        # of files one after the other, and a look into a TTLCache is a seventh of what Python does for each.
        self._last: tuple[int, Indexer, float] = (0, _NOBODY, 0.0)
        self._readers: dict[Indexer, _Reader] = {}

    def opened(self, task: int, *, folder: bool) -> bool:
        """A task (the kernel's word for a thread) opens a folder or a file; whether it is one of them."""
        last, known, until = self._last
        if last != task or time.monotonic() >= until:
            known = self._looked_up(task)
        if known is not _NOBODY:
            self._count(known, folder=folder)
        return known is not _NOBODY

    def _looked_up(self, task: int) -> Indexer:
        with self._lock:
            found = self._known.get(task)
        if found is None:
            found = self._look(task), time.monotonic() + _REMEMBERED_S
            with self._lock:
                self._known[task] = found
        self._last = (task, *found)
        return found[0]

    def report(self) -> list[dict[str, Any]]:
        """Those that were noticed: program, folders and files opened, since when, and what keeps it out."""
        with self._lock:
            noticed = [one for one in self._readers.values() if one.folders + one.files >= NOTICED]
        return [
            {
                "program": one.indexer.title,
                "folders": one.folders,
                "files": one.files,
                "since": one.since,
                "advice": self._advice(one.indexer),
            }
            for one in noticed
        ]

    def _look(self, task: int) -> Indexer:
        program = program_of(task, self._proc)
        return next((one for one in INDEXERS if program is not None and one.is_called(program)), _NOBODY)

    def _count(self, indexer: Indexer, *, folder: bool) -> None:
        with self._lock:
            reader = self._readers.setdefault(indexer, _Reader(indexer, since=time.time()))
            reader.folders += folder
            reader.files += not folder
            noticed = reader.folders + reader.files == NOTICED
        if noticed:
            advice = self._advice(indexer)
            log.warning("%s is reading through this mount; what keeps it out: %s", indexer.title, advice)

    def _advice(self, indexer: Indexer) -> str:
        name = self._mountpoint.rpartition("/")[2]
        return indexer.advice.format(mountpoint=self._mountpoint, name=name)
