"""What the daemon takes, minute by minute, and processes that nothing can end.

Used by the command, in its one thread. Nothing here touches the mount; the daemon is held still while its
cache is looked at."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Look:
    """The daemon at one moment."""

    minute: float
    resident: int  # bytes
    descriptors: int
    threads: int
    cached: int  # bytes on the disk, of whole files and parts of files
    requests: int  # to the server so far
    jobs: int  # done so far
    compared: int  # bytes so far
    server: int  # resident bytes of the stand-in


def look(pid: int, cache: Path, **rest: Any) -> Look:
    """Look at a daemon; zeros where it is gone."""
    status = _status(pid)
    descriptors = 0
    with contextlib.suppress(OSError):
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Look(
        resident=int(status.get("VmRSS", "0").split()[0]) * 1024,
        threads=int(status.get("Threads", "0")),
        descriptors=descriptors,
        cached=_taken(pid, cache),
        **rest,
    )


def _taken(pid: int, cache: Path) -> int:
    """Bytes that the contents in its cache have on the disk (parts of files are sparse); without the
    databases.

    The daemon is stopped meanwhile: a file that is moved or replaced between two folders is counted twice
    otherwise (up to 316 MB of a cap of 256 in 7 looks of 679, when at most 259 were there)."""
    with _still(pid):
        return _size(os.fspath(cache))


def _size(folder: str) -> int:
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += _size(entry.path)
            elif ".sqlite" not in entry.name:
                status = entry.stat(follow_symlinks=False)
                total += min(status.st_size, status.st_blocks * 512) if stat.S_ISREG(status.st_mode) else 0
    return total


@contextlib.contextmanager
def _still(pid: int) -> Iterator[None]:
    """Nothing happens in a process, if there is one."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _status(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


@dataclass
class Blocked:
    """Processes in state D. One that is woken (its count of context switches rises) only waits its turn; the
    others are stuck.
    """

    since: dict[tuple[int, str], tuple[float, str]] = field(
        default_factory=dict
    )  # process and switches -> when first seen, its name
    worst: float = 0.0
    who: str = ""
    seen: int = 0  # looks at a process in state D

    def look(self, sessions: set[int]) -> None:
        """Look at all processes of these sessions."""
        now = time.monotonic()
        found: dict[tuple[int, str], tuple[float, str]] = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "D" or int(fields[3]) not in sessions:
                    continue
                status = _status(int(entry))
                key = (
                    int(entry),
                    f"{status.get('voluntary_ctxt_switches')}/{status.get('nonvoluntary_ctxt_switches')}",
                )
                found[key] = self.since.get(key, (now, status.get("Name", "")))
        self.since = found
        self.seen += len(found)
        for (pid, _), (begin, name) in found.items():
            if now - begin > self.worst:
                self.worst, self.who = now - begin, f"{name} ({pid})"


@dataclass
class Growth:
    """How a figure grew after the daemon had settled: the median of the first third of the later looks, and
    of the last third.
    """

    name: str
    first: float
    last: float
    margin: float
    unit: str

    @property
    def flat(self) -> bool:
        """Whether it stayed within the margin."""
        return self.last - self.first <= self.margin


_LEAST = 1.5  # minutes, of a run of nine: before that listings and threads still fill up


def growths(looks: list[Look], settled: float) -> list[Growth]:
    """Memory and descriptors after `settled` minutes; nothing where there are too few looks, or where nothing
    can have settled: in a run of seconds libfuse starts a thread for each request there ever was at the same
    time."""
    later = [one for one in looks if one.minute >= settled]
    third = len(later) // 3
    if third < 1 or settled < _LEAST:
        return []

    def grown(name: str, values: list[float], margin: float, unit: str) -> Growth:
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        return Growth(name, first, last, margin if margin >= 1 else margin * first, unit)

    resident = [one.resident / MIB for one in later]
    return [
        grown("resident memory", resident, max(32.0, 0.15 * resident[0]), "MiB"),
        grown("open descriptors", [float(one.descriptors) for one in later], 32.0, ""),
        grown("threads", [float(one.threads) for one in later], 32.0, ""),
    ]


_SPECIFIC = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S+|\b[0-9a-f]{8,}\b|\b[A-Z]+_[ES]\d+\b|\d+(?:\.\d+)?")
_LINE = re.compile(r"^\S+ \S+ (?P<level>INFO|WARNING|ERROR|CRITICAL) (?P<text>.*)$")


def log_classes(log: Path) -> Counter[str]:
    """The daemon's log lines from WARNING up by what they say without names and numbers; lines that are no
    log lines too (a traceback).
    """
    found: Counter[str] = Counter()
    if not log.exists():
        return found
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        level, text = (match["level"], match["text"]) if match else ("no log line", line.strip())
        if level != "INFO" and text:
            found[f"{level}: {_SPECIFIC.sub('...', text)[:160]}"] += 1
    return found


def as_dicts(looks: list[Look]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(one) for one in looks]
