"""Tables as files on this machine: built when first opened, and rebuilt from what changed when opened later.

Used by the tree's section `tables/`. Opening a table that was not compared with the server lately waits for
that, and for a build if something changed: up to `_STALE_AFTER_S` if it was compared a moment ago, else up to
`_OVERDUE_WAIT_S`. If it takes longer, the table is served as it was and renewed in the background.

A table is no value of a `concurrency.refreshable.Refreshable`, though that too lets one call serve all who
wait and falls back on what was there; docs/internals/table.md 6 has the reasons. What both share is
`SingleFlight`, and `UNANSWERED`: which failures leave the old one standing.
Threading: any thread. One build of a table at a time, shared by all callers; no lock is held over it. A
lock around the states that sizes are shown by, and what was waited for.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cachetools import TTLCache

from xnatfs.concurrency.single_flight import SharedCall, SingleFlight, WorkerPool
from xnatfs.config import Limits
from xnatfs.disk import OpenedFile
from xnatfs.errors import UNANSWERED, Cause, Failure, MissingExtra, UsageError
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.engine.file_store import Manifest, TableFileStore
from xnatfs.tables.engine.finished_table import (
    FinishedTable,
    Variant,
    as_iso,
    finish,
    finish_listed,
    variants,
)
from xnatfs.tables.engine.from_listings import listed_table
from xnatfs.tables.engine.joined_columns import joined_columns
from xnatfs.tables.output.write import check_format

__all__ = ["TableFiles", "Variant", "variants"]

log = logging.getLogger(__name__)

_CACHE_FRACTION = 4  # all tables together may take one part in this many of the cache's size, beside it
_FRESH_FOR_S = 5.0  # opening the .csv and then the .xlsx gives the same table
_LOOK_AGAIN_S = 1.0  # at the stamps of a project, for sizes
_STALE_AFTER_S = 1.0  # how long an opener waits for a newer build before it gets the table as it was
# A table that nobody compared for so long is not served without trying in earnest: whoever opens it once a
# day would always get yesterday's. With what the listings may lag behind, a change shows within 120 s.
_OVERDUE_AFTER_S = 60.0
_OVERDUE_WAIT_S = 60.0


class _Request(NamedTuple):
    """A table that is asked for: over a project (or list), or some of its sessions."""

    project: str
    key: str
    sessions: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        identity = "\0".join([self.project, self.key, *sorted(self.sessions)])
        return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class TableFiles:
    """The files of all tables of one server and user, below `folder`."""

    def __init__(self, builder: Builder, folder: Path, limits: Limits) -> None:
        self._builder = builder
        self._limits = limits
        self._store = TableFileStore(folder, limits.cache_size // _CACHE_FRACTION)
        self._workers = WorkerPool("tables", 4)
        self._renewals = SingleFlight(self._workers)
        self._builders = WorkerPool("table files", 4)  # renewals wait for these
        self._builds = SingleFlight(self._builders)
        # States of tables that were looked at: a folder shows a dozen files of each.
        self._states_lock = threading.Lock()
        self._states: TTLCache[tuple[str, str], str] = TTLCache(1024, ttl=_LOOK_AGAIN_S)
        self._waited_for: TTLCache[str, bool] = TTLCache(1024, ttl=_OVERDUE_AFTER_S)

    def manifest(self, project: str, key: str, sessions: Sequence[str] = ()) -> Manifest | None:
        """What is built; None if nothing is. No request, and the disk is looked at once."""
        return self._store.manifest(_Request(project, key, tuple(sessions)).name)

    def size(self, project: str, key: str, variant: Variant, sessions: Sequence[str] = ()) -> int | None:
        """The size of a file in bytes; None if it is not built, or if it was and the server's stamps have
        moved since: opening it gives another one. No request but for the project's summary.
        """
        manifest = self.manifest(project, key, sessions)
        size = None if manifest is None else manifest.sizes.get(variant.suffix)
        return None if size is None or self.is_outdated(project, key, sessions) else size

    def is_outdated(self, project: str, key: str, sessions: Sequence[str] = ()) -> bool:
        """Whether a table was built and the server's stamps have moved since: opening it gives another one.
        No request but for the project's summary.
        """
        request = _Request(project, key, tuple(sessions))
        manifest = self._store.manifest(request.name)
        if manifest is None or not self._due(manifest) or self._store.in_use(request.name):
            return False
        return self._outdated(request, manifest)

    def open(self, project: str, key: str, variant: Variant, sessions: Sequence[str] = ()) -> OpenedFile:
        """A file of a table, built now unless it is there.

        Raises:
            Failure: the server or the cache cannot be used; NO_ENTRY if the project is not the user's.
        """
        self._builder.parts(project)  # what the user may not see any more is not served
        request = _Request(project, key, tuple(sessions))
        name = request.name
        manifest = self._store.manifest(name)
        if manifest is not None and variant.suffix in manifest.sizes:
            if self._due(manifest):
                self._try_to_renew(request, variant, self._patience(name, manifest))
                manifest = self._store.manifest(name) or manifest
            opened = self._store.open(name, manifest, variant)
            if opened is not None:
                return opened
        for _ in range(2):  # twice: another build may replace it in this very moment
            self._renewal(request, variant).wait(self._limits.table_deadline)
            manifest = self._store.manifest(name)
            opened = self._store.open(name, manifest, variant) if manifest is not None else None
            if opened is None:
                # Somebody has another file of the old build open; this one was not in it, so nobody can mix
                # the two.
                opened = self._store.open_pending(name, variant)
            if opened is not None:
                return opened
        raise Failure(Cause.CACHE_BROKEN, str(self._store.path(name)))

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()
        self._builders.close()

    # --- when a table is renewed ----------------------------------------------------------------------------

    def _due(self, manifest: Manifest) -> bool:
        return (
            time.time() - manifest.checked > max(self._limits.ttl, _FRESH_FOR_S)
            or manifest.checked <= self._builder.rechecks.requested
        )

    def _outdated(self, request: _Request, manifest: Manifest) -> bool:
        """Whether a table that is there is known not to be the newest. One that has no state may be."""
        if not manifest.state:
            return False
        project, key, sessions = request
        looked_at = request.name, manifest.state  # a newer build needs a newer look
        with self._states_lock:
            state = self._states.get(looked_at)
        if state is None:
            try:
                state = self._builder.state(project, key, sessions, recheck=False)
            except (Failure, UsageError):
                return False  # it is served as it is
            with self._states_lock:
                self._states[looked_at] = state
        return state not in ("", manifest.state)

    def _patience(self, name: str, manifest: Manifest) -> float:
        """For how many seconds an opener waits for a newer build: long for a table that is overdue, but not
        again at once for one that did not come.
        """
        if 0 <= time.time() - manifest.checked < _OVERDUE_AFTER_S:
            return _STALE_AFTER_S
        with self._states_lock:
            if name in self._waited_for:
                return _STALE_AFTER_S
            self._waited_for[name] = True
        return _OVERDUE_WAIT_S

    def _try_to_renew(self, request: _Request, variant: Variant, patience: float) -> None:
        """Compare a table that is there with the server. If that takes more than `patience` seconds or the
        server is away, it stays as it is.
        """
        try:
            self._renewal(request, variant).wait(patience)
        except Failure as failure:
            if failure.cause not in UNANSWERED and failure.cause is not Cause.GONE:
                raise
            log.info(
                "the table %s of %s could not be renewed; serving the stored one: %s",
                request.key,
                request.project,
                failure,
            )

    def _renewal(self, request: _Request, variant: Variant) -> SharedCall[None]:
        return self._renewals.start((request.name, variant), lambda: self._renew(request, variant))

    # --- building -------------------------------------------------------------------------------------------

    def _renew(self, request: _Request, variant: Variant) -> None:
        project, key, sessions = request
        now = time.time()
        try:
            check_format(variant.format)
            state = self._builder.state(project, key, sessions)
            manifest = self._store.manifest(request.name)
            if (
                manifest is not None
                and self._unchanged(manifest, state, now)
                and variant.suffix in manifest.sizes
            ):
                manifest.checked = now
                manifest.about |= {"as_of": as_iso(now)}
                return
            build = self._builds.start(request.name, lambda: self._build(request))
            finished = build.wait(self._limits.table_deadline)
            # Not with the state from above: the build may have been under way, and know less.
            self._put_in_place(request, finished, variant)
        except MissingExtra as error:
            raise Failure(Cause.NOT_INSTALLED, key, str(error)) from error
        except UsageError as error:
            raise Failure(Cause.BAD_LISTING, key, str(error)) from error
        except Failure as failure:
            if failure.cause is not Cause.CACHE_BROKEN:
                raise
            # the cache was cleared meanwhile
            log.info("building the table %s of %s again: %s", key, project, failure)
            self._put_in_place(request, self._build(request), variant)

    def _unchanged(self, manifest: Manifest, state: str, now: float) -> bool:
        """Whether a build would give the same table, as far as stamps tell and for some hours."""
        young = 0 <= now - manifest.compared < self._limits.relist_after
        return young and manifest.state == state != ""

    def _build(self, request: _Request) -> FinishedTable:
        if listed_table(request.key) is not None:
            return finish_listed(self._builder, *request)
        project, key, sessions = request
        names = self._builder.added_columns(project, key)
        parts = self._builder.parts(project, sessions)
        joined = joined_columns(self._builder, parts, names) if names else None
        return finish(self._builder.build(*request), joined)

    def _put_in_place(self, request: _Request, finished: FinishedTable, variant: Variant) -> None:
        before = self._store.manifest(request.name)
        if before is not None and before.fingerprint == finished.fingerprint:
            before.checked = before.compared = finished.as_of
            before.state = finished.state
            before.about |= finished.about
            if variant.suffix not in before.sizes:
                self._store.write(request.name, finished, [variant], before)
            return
        existing = before.sizes if before is not None else {}
        again = [other for other in finished.variants if other.suffix in existing and other != variant]
        as_of = finished.as_of
        manifest = Manifest(finished.fingerprint, finished.about, {}, as_of, finished.state, as_of)
        self._store.write(request.name, finished, [variant, *again], manifest)
