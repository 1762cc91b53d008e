"""The section `lists/`: views over the sessions of a list of the user's, across projects.

    lists/NAME/by-scan-type/... by-description/... by-resource/... README.txt

A list is a text file with an accession id or a label a line, in the configuration
(`~/.config/xnatfs/lists/NAME.txt`) or named with `mount --list FILE`. Lines that begin with `#` are remarks;
CRLF makes no difference. The section is there only if there is a list. Used by `root`.
Threading: any thread; a list is read again when its file changes, and resolved again after a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xnatfs.config import config_home
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.listing.session_names import NameSearch
from xnatfs.listing.snapshot import Derived, ProjectSnapshot
from xnatfs.text import printable
from xnatfs.tree.generated import rendered
from xnatfs.tree.names import spell_label
from xnatfs.tree.node import Branch, Node, inode_of
from xnatfs.tree.resource import Sources
from xnatfs.tree.scope import Member, SessionScope, Snapshot

log = logging.getLogger(__name__)

_LOOKUP_TTL_S = 600.0  # after this the names of a list are looked up again ...
_DOUBTFUL_TTL_S = 60.0  # ... and after this where the answer is doubtful
_RECENT_NS = 2 * 10**9  # a folder changed this recently may change again with the same date
_MAX_LIST_BYTES = 16 * 2**20

Contents = Callable[[SessionScope], Mapping[str, Node]]  # what is in the folder of a list


@dataclass
class _Resolved:
    """The names of a list and what they are."""

    stamp: tuple[float, int]  # mtime and size of the file
    names: tuple[str, ...]
    search: NameSearch
    asked: float


def read_list(path: Path) -> tuple[str, ...]:
    """The names in a list, each once.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise UsageError(f"{path} is too large for a list of sessions")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the list {path} is not a text file") from None
    lines = (line.strip() for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def list_files(named: tuple[Path, ...]) -> dict[str, Path]:
    """The lists there are, by name; those named at mount time win."""
    return {**_configured(config_home() / "lists"), **{path.stem: path for path in named}}


# By folder, with the folder's mtime: every path is walked from the root.
_seen: dict[Path, tuple[int, dict[str, Path]]] = {}


def _configured(folder: Path) -> dict[str, Path]:
    try:
        stamp = folder.stat().st_mtime_ns
    except OSError:
        return {}
    cached = _seen.get(folder)
    if cached is None or cached[0] != stamp or time.time_ns() - stamp < _RECENT_NS:
        cached = _seen[folder] = (
            stamp,
            {
                path.stem: path
                for path in sorted(folder.glob("*.txt"))
                if not path.name.startswith(".") and path.is_file()
            },
        )
    return cached[1]


def lists_folder(sources: Sources, contents: Contents) -> Branch:
    """`lists/`; `contents` makes what is in a scope's folder."""
    folders: dict[str, Branch] = {}

    def folder(name: str) -> Branch:
        if name not in folders:
            folders[name] = _List(sources, name).folder(contents)
        return folders[name]

    def entries() -> Mapping[str, Node]:
        return {spell_label(name): folder(name) for name in list_files(sources.settings.lists)}

    return Branch(inode_of("lists"), entries)


class _List:
    """One list."""

    def __init__(self, sources: Sources, name: str) -> None:
        self._sources = sources
        self._name = name
        self._lock = threading.Lock()
        self._resolved: _Resolved | None = None
        self._snapshot: Snapshot | None = None

    def folder(self, contents: Contents) -> Branch:
        scope = SessionScope(("list", self._name), f"the list {self._name}", self._members)
        readme = rendered(f"lists/{self._name}/README.txt", self._readme, 2.0)
        nodes = {"README.txt": readme, **contents(scope)}
        return Branch(inode_of("lists", self._name), lambda: nodes)

    def _members(self) -> Snapshot:
        resolved = self._look_up()
        project_snapshots: dict[str, ProjectSnapshot] = {}
        for project in dict.fromkeys(session.project for session in resolved.search.found):
            try:
                project_snapshots[project] = self._sources.listing_service.projects.get(project)
            except Failure as failure:
                if failure.cause not in (Cause.NO_ENTRY, Cause.NOT_ALLOWED):
                    raise
        with self._lock:
            last = self._snapshot
            if (
                last is not None
                and last.project_snapshots == project_snapshots
                and all(
                    last.project_snapshots[project] is project_snapshots[project]
                    for project in project_snapshots
                )
            ):
                return last
            members = [
                Member(session.project, project_snapshots[session.project].experiments[session.id])
                for session in resolved.search.found
                if session.project in project_snapshots
                and session.id in project_snapshots[session.project].experiments
            ]
            members.sort(
                key=lambda member: (
                    member.experiment.subject_label,
                    member.experiment.label,
                    member.experiment.id,
                )
            )
            self._snapshot = Snapshot(members, project_snapshots, Derived())
            return self._snapshot

    def _look_up(self) -> _Resolved:
        path = list_files(self._sources.settings.lists).get(self._name)
        if path is None:
            raise Failure(Cause.NO_ENTRY, self._name)
        try:
            status = path.stat()
            stamp = status.st_mtime, status.st_size
            previous = self._resolved
            if (
                previous is not None
                and previous.stamp == stamp
                and time.monotonic() - previous.asked < _LOOKUP_TTL_S
            ):
                return previous
            names = read_list(path)
        except (OSError, UsageError) as error:
            raise Failure(Cause.BAD_LIST, str(path), str(error)) from error
        try:
            listing_service = self._sources.listing_service
            search = listing_service.names.find(names, listing_service.projects.all() if names else ())
        except Failure:
            if previous is None or previous.names != names:
                raise
            search = previous.search  # the server is away: as it was
        asked = time.monotonic()
        if search.doubtful:
            asked -= _LOOKUP_TTL_S - _DOUBTFUL_TTL_S
            if previous is not None and previous.names == names:
                search = previous.search  # nothing disappears because of what is no proof
        with self._lock:
            self._resolved = _Resolved(stamp, names, search, asked)
            self._snapshot = None
            return self._resolved

    def _readme(self) -> bytes:
        try:
            resolved, members = self._look_up(), self._members().members
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED:
                raise
            text = (
                f"The sessions of the list {self._name} cannot be looked up now: {printable(str(failure))}.\n"
            )
            return text.encode("utf-8", "backslashreplace")
        shown = {member.experiment.id for member in members}
        counts: Counter[str] = Counter()
        for session in resolved.search.found:
            counts.update(session.names if session.id in shown else ())
        missing = [name for name in resolved.names if name not in counts]
        several = [name for name in resolved.names if counts[name] > 1]
        lines = [
            f"Views over the {len(shown)} sessions of the list {self._name} ({len(resolved.names)} names)."
        ]
        if missing:
            lines += ["", f"{len(missing)} names match no session you can read:", *missing]
        if missing and resolved.search.skipped:
            many = (
                f"You see {resolved.search.skipped} projects: too many to search for labels that "
                f"sessions have only where they are shared."
            )
            lines += ["", many]
        if missing and resolved.search.closed:
            lines += [
                "",
                "These projects could not be searched:",
                *(f"{project}: {why}" for project, why in resolved.search.closed.items()),
            ]
        if several:
            lines += ["", "These labels belong to several sessions, all of which are shown:", *several]
        return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
