"""Tables as files on this machine: built when first opened, and rebuilt from what changed when opened later.

Used by the tree's section `tables/`. One folder a table below the cache directory, with the files of the
newest build (named after its fingerprint) and `manifest.json`, which says what they are. Files are written
under another name and renamed; an open file keeps its bytes. A new build is put in place only while nobody
has the old one open: the kernel keeps one set of pages a path. Opening a table that was not compared with the
server lately waits for that up to `_STALE_AFTER_S`; if it takes longer, the table is served as it was and
renewed in the background.
Threading: any thread. One build of a table at a time, shared by all callers; no lock is held over it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xnatfs._version import __version__
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.config import Limits, private_folder
from xnatfs.disk import disk_failure, write_private_json
from xnatfs.errors import UNANSWERED, Cause, Failure, MissingExtra, UsageError
from xnatfs.tables.engine.build import Builder, BuiltTable
from xnatfs.tables.engine.from_listings import LISTED
from xnatfs.tables.output.types import ColumnScan, scan
from xnatfs.tables.output.widen import widen
from xnatfs.tables.output.write import FORMATS, check_format, write
from xnatfs.tables.spec import Frame, Rows, Table

log = logging.getLogger(__name__)

PROBLEMS = "problems.csv"
_MANIFEST = "manifest.json"
_ABANDONED_AFTER_S = 86400.0  # after which a build that never ended is removed
_CACHE_FRACTION = 4  # all tables together may take one part in this many of the cache's size, beside it
_UNUSED_AFTER_S = 90 * 86400.0  # after which a table nobody opened is removed
_FRESH_FOR_S = 5.0  # opening the .csv and then the .xlsx gives the same table
_STALE_AFTER_S = 1.0  # how long an opener waits for a newer build before it gets the table as it was


@dataclass(frozen=True)
class Variant:
    """One file of a table: long or wide, and its format; `problems.csv` is one of its own."""

    format: str
    wide: bool = False
    problems: bool = False

    @property
    def suffix(self) -> str:
        """What follows the table's name."""
        return f".{PROBLEMS}" if self.problems else f"{'_wide' if self.wide else ''}.{self.format}"


def variants(table: Table | None) -> list[Variant]:
    """The files a table has. None: one made from listings."""
    files = [Variant(kind) for kind in FORMATS]
    if table is not None and table.wide is not None:
        files += [Variant(kind, wide=True) for kind in FORMATS]
    return files if table is None else [*files, Variant("csv", problems=True)]


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


class OpenFile:
    """An open file of a table; a `tree.node.OpenContent`."""

    def __init__(self, fd: int, size: int, closed: Callable[[], None]) -> None:
        self._fd = fd
        self._closed = closed
        self.size = size
        status = os.fstat(fd)
        self.stamp = f"{status.st_ino} {status.st_mtime_ns}"  # every build is a new file

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """No more reads."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._closed()


class TableFiles:
    """The files of all tables of one server and user, below `folder`."""

    def __init__(self, builder: Builder, folder: Path, limits: Limits) -> None:
        self._builder = builder
        self._folder = private_folder(folder)
        self._limits = limits
        self._workers = WorkerPool("tables", 4)
        self._single_flight = SingleFlight(self._workers)
        self._building = WorkerPool("table files", 4)  # the others wait for these
        self._builds = SingleFlight(self._building)
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()  # handles by table
        self._waiting: dict[
            str, tuple[Manifest, Callable[[], None]]
        ] = {}  # new builds that wait for the last handle
        self._manifests: dict[str, Manifest | None] = {}
        self._clear_away()

    def manifest(self, project: str, key: str, sessions: Sequence[str] = ()) -> Manifest | None:
        """What is built; None if nothing is. No request, and the disk is looked at once."""
        name = _name(project, key, sessions)
        if name not in self._manifests:
            self._manifests[name] = self._read_manifest(name)
        return self._manifests[name]

    def open(self, project: str, key: str, variant: Variant, sessions: Sequence[str] = ()) -> OpenFile:
        """A file of a table, built now unless it is there.

        Raises:
            Failure: the server or the cache cannot be used; NO_ENTRY if the project is not the user's.
        """
        self._builder.parts(project)  # what the user may not see any more is not served
        name = _name(project, key, sessions)
        manifest = self.manifest(project, key, sessions)
        if manifest is not None and variant.suffix in manifest.sizes:
            if (
                time.time() - manifest.checked > max(self._limits.ttl, _FRESH_FOR_S)
                or manifest.checked <= self._builder.rechecks.requested
            ):
                self._news(project, key, sessions, variant)
                manifest = self.manifest(project, key, sessions) or manifest
            opened = self._opened(name, manifest, variant)
            if opened is not None:
                return opened
        for _ in range(2):  # twice: another build may replace it in this very moment
            self._start(project, key, sessions, (variant,)).wait(self._limits.table_deadline)
            manifest = self.manifest(project, key, sessions)
            opened = self._opened(name, manifest, variant) if manifest is not None else None
            if opened is None and (waiting := self._waiting.get(name)) is not None:
                # Somebody has another file of the old build open; this one was not in it, so nobody can mix
                # the two.
                opened = self._opened(name, waiting[0], variant)
            if opened is not None:
                return opened
        raise Failure(Cause.CACHE_BROKEN, str(self._folder / name))

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()
        self._building.close()

    # --- building -------------------------------------------------------------------------------------------

    def _news(self, project: str, key: str, sessions: Sequence[str], variant: Variant) -> None:
        """Compare a table that is there with the server. If that takes long or the server is away, it stays
        as it is.
        """
        try:
            self._start(project, key, sessions, (variant,)).wait(_STALE_AFTER_S)
        except Failure as failure:
            if failure.cause not in UNANSWERED and failure.cause is not Cause.GONE:
                raise
            log.info(
                "the table %s of %s could not be renewed; serving the stored one: %s", key, project, failure
            )

    def _start(self, project: str, key: str, sessions: Sequence[str], wanted: Sequence[Variant]) -> Any:
        name = _name(project, key, sessions)
        return self._single_flight.start(
            (name, tuple(wanted)), lambda: self._renew(project, key, sessions, wanted)
        )

    def _renew(self, project: str, key: str, sessions: Sequence[str], wanted: Sequence[Variant]) -> None:
        name = _name(project, key, sessions)
        now = time.time()
        try:
            for variant in wanted:
                check_format(variant.format)
            state = self._builder.state(project, key, sessions)
            before = self.manifest(project, key, sessions)
            young = before is not None and 0 <= now - before.compared < self._limits.relist_after
            if (
                before is not None
                and young
                and before.state == state != ""
                and all(variant.suffix in before.sizes for variant in wanted)
            ):
                before.checked = now
                before.about |= {"as_of": _iso(now)}
                return
            build = self._builds.start(name, lambda: self._build(project, key, sessions))
            built = build.wait(self._limits.table_deadline)
            # Not the state of above: the build may have been under way, and know less.
            self._renew_from(name, self.manifest(project, key, sessions), built, wanted)
        except MissingExtra as error:
            raise Failure(Cause.NOT_INSTALLED, key, str(error)) from error
        except UsageError as error:
            raise Failure(Cause.BAD_LISTING, key, str(error)) from error
        except Failure as failure:
            if failure.cause is not Cause.CACHE_BROKEN:
                raise
            log.info(
                "building the table %s of %s again: %s", key, project, failure
            )  # the cache was cleared meanwhile
            self._renew_from(
                name, self.manifest(project, key, sessions), self._build(project, key, sessions), wanted
            )

    def _renew_from(
        self, name: str, before: Manifest | None, built: _Finished, wanted: Sequence[Variant]
    ) -> None:
        if before is not None and before.fingerprint == built.fingerprint:
            before.checked, before.state, before.compared = built.as_of, built.state, built.as_of
            before.about |= built.about
            missing = [variant for variant in wanted if variant.suffix not in before.sizes]
            if missing:
                self._write(name, built, missing, before)
            return
        again = [
            variant for variant in built.variants if before is not None and variant.suffix in before.sizes
        ]
        manifest = Manifest(built.fingerprint, built.about, {}, built.as_of, built.state, built.as_of)
        self._write(name, built, list(dict.fromkeys([*wanted, *again])), manifest)

    def _build(self, project: str, key: str, sessions: Sequence[str]) -> _Finished:
        if key in LISTED:
            return _finished_listing(self._builder, project, key, sessions)
        return _finished(self._builder.build(project, key, sessions))

    def _write(self, name: str, built: _Finished, wanted: Sequence[Variant], manifest: Manifest) -> None:
        folder = self._folder / name
        sizes = dict(manifest.sizes)
        try:
            private_folder(folder)
            for variant in wanted:
                path = folder / f"{built.fingerprint}{variant.suffix}"
                draft = folder / f".{threading.get_ident()}{variant.suffix}"
                built.write(variant, draft)
                draft.chmod(0o600)
                sizes[variant.suffix] = draft.stat().st_size
                draft.rename(path)
        except ValueError as error:  # more columns than a spreadsheet has
            raise Failure(Cause.BAD_LISTING, built.key, str(error)) from error
        except OSError as error:
            raise disk_failure(error, str(folder)) from error
        new = replace(manifest, sizes=sizes)

        def publish() -> None:
            with self._lock:
                there = self._manifests.get(name)
                if (
                    there is not None and there.fingerprint == new.fingerprint
                ):  # another format of it was written meanwhile
                    new.sizes = there.sizes | new.sizes
                self._manifests[name] = new
            self._write_manifest(name, new)
            for old in folder.iterdir():
                if not old.name.startswith((new.fingerprint, ".", _MANIFEST)):
                    old.unlink(missing_ok=True)
            self._make_room(name)

        with self._lock:
            current = self._manifests.get(name)
            if self._open[name] and current is not None and current.fingerprint != new.fingerprint:
                before = self._waiting.get(name)
                if before is not None and before[0].fingerprint == new.fingerprint:
                    new.sizes = before[0].sizes | new.sizes
                self._waiting[name] = new, publish
                return
        publish()

    # --- handles --------------------------------------------------------------------------------------------

    def _opened(self, name: str, manifest: Manifest, variant: Variant) -> OpenFile | None:
        path = self._folder / name / f"{manifest.fingerprint}{variant.suffix}"
        with self._lock:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if variant.suffix in manifest.sizes:  # somebody removed it
                    self._manifests.pop(name, None)
                return None
            self._open[name] += 1
        return OpenFile(fd, os.fstat(fd).st_size, lambda: self._closed(name))

    def _closed(self, name: str) -> None:
        with self._lock:
            self._open[name] -= 1
            waiting = None
            if self._open[name] <= 0:
                del self._open[name]
                waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting[1]()

    def _make_room(self, newest: str) -> None:
        """Remove the tables that were opened longest ago until all take a quarter of the cache's size; never
        the newest or an open one.
        """
        folders: list[tuple[float, int, Path]] = []
        for folder in self._folder.iterdir():
            with contextlib.suppress(OSError):
                size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
                folders.append(((folder / _MANIFEST).stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in folders)
        for _, size, folder in sorted(folders):
            if total <= self._limits.cache_size // _CACHE_FRACTION:
                return
            with self._lock:
                if folder.name == newest or self._open[folder.name]:
                    continue
                self._manifests.pop(folder.name, None)
            shutil.rmtree(folder, ignore_errors=True)
            total -= size

    # --- manifests ------------------------------------------------------------------------------------------

    def _read_manifest(self, name: str) -> Manifest | None:
        path = self._folder / name / _MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            manifest = Manifest(**found)
            os.utime(path)  # used just now
        except (OSError, ValueError, TypeError):
            return None
        there = {
            suffix: size
            for suffix, size in manifest.sizes.items()
            if _size(path.parent / f"{manifest.fingerprint}{suffix}") == size
        }
        manifest.sizes = there
        return manifest if there else None

    def _write_manifest(self, name: str, manifest: Manifest) -> None:
        with contextlib.suppress(OSError):
            write_private_json(self._folder / name / _MANIFEST, vars(manifest))

    def _clear_away(self) -> None:
        """Remove what a killed process left, and tables nobody opened for long."""
        for folder in self._folder.iterdir():
            manifest = folder / _MANIFEST
            with contextlib.suppress(OSError):
                # Without a manifest it is a first build: of another process, perhaps, that is still at it.
                limit = _UNUSED_AFTER_S if manifest.exists() else _ABANDONED_AFTER_S
                if time.time() - (manifest if manifest.exists() else folder).stat().st_mtime > limit:
                    shutil.rmtree(folder)
                    continue
                for left in folder.glob(".*"):
                    if time.time() - left.stat().st_mtime > 3600:
                        shutil.rmtree(left) if left.is_dir() else left.unlink()


@dataclass
class _Finished:
    """A table ready to be written in any of its variants."""

    key: str
    fingerprint: str
    as_of: float
    about: dict[str, str]
    variants: list[Variant]
    frame: Frame
    table: Table | None = None
    built: BuiltTable | None = None
    state: str = ""
    _scan: ColumnScan | None = None

    def write(self, variant: Variant, path: Path) -> None:
        title = self.key
        if variant.problems and self.built is not None:
            write(self.built.problems(self._scanned().notes), "csv", path, title=f"{title} problems")
        elif variant.wide and self.table is not None:
            write(widen(self.frame, self.table), variant.format, path, title=f"{title}_wide")
        else:
            write(
                self.frame,
                variant.format,
                path,
                title=title,
                scanned=self._scanned() if variant.format != "csv" else None,
            )

    def _scanned(self) -> ColumnScan:
        if self._scan is None:
            self._scan = scan(self.frame)
        return self._scan


def _finished(built: BuiltTable) -> _Finished:
    about = {name: str(value) for name, value in built.counts().items()} | _times(built.as_of)
    fingerprint = hashlib.sha256(f"{built.fingerprint} {__version__}".encode()).hexdigest()[:20]
    return _Finished(
        built.table.key,
        fingerprint,
        built.as_of,
        about,
        variants(built.table),
        built,
        built.table,
        built,
        built.state,
    )


def _finished_listing(builder: Builder, project: str, key: str, sessions: Sequence[str]) -> _Finished:
    as_of = time.time()
    frames = [LISTED[key].build(builder, part, members) for part, members in builder.parts(project, sessions)]
    # All of them begin with ID, label and subject.
    rows = sorted((row for frame in frames for row in frame.rows()), key=lambda row: (row[2], row[1], row[0]))
    frame = Rows(LISTED[key].columns, rows)
    digest = hashlib.sha256(__version__.encode())
    for row in frame.rows():
        digest.update(repr(row).encode("utf-8", "backslashreplace"))
    about = {"rows": str(len(frame.held))} | _times(as_of)
    return _Finished(key, digest.hexdigest()[:20], as_of, about, variants(None), frame)


def _times(as_of: float) -> dict[str, str]:
    return {"as_of": _iso(as_of), "built_at": _iso(time.time()), "xnatfs_version": __version__}


def _iso(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _name(project: str, key: str, sessions: Sequence[str]) -> str:
    return hashlib.sha256(
        "\0".join([project, key, *sorted(sessions)]).encode("utf-8", "surrogatepass")
    ).hexdigest()[:24]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
