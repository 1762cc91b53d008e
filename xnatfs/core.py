"""A mount put together from its layers, without FUSE: connection, catalogs, transfers, tree, file system.

Used by `run` and by tests. `Core.close` ends what was started, in the reverse order.
Threading: made and closed by one thread; everything in it may be used by any.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from xnatfs._version import __version__
from xnatfs.auth.credentials import Credentials
from xnatfs.bids.map_file import user_map
from xnatfs.bids.mapping import BidsMap
from xnatfs.cache.contents import ContentCache
from xnatfs.cache.corrections import Corrections
from xnatfs.cache.listing_store import ListingStore
from xnatfs.cache.measurement_store import MeasurementStore
from xnatfs.cache.shared_place import open_listings, open_tier
from xnatfs.config import Settings
from xnatfs.content.manager import ContentManager
from xnatfs.content.series_fetch import SeriesFetcher
from xnatfs.content.temporary import TemporaryDownloads
from xnatfs.content.user_share import UserShare
from xnatfs.convert.converted_scans import IMAGE_SUFFIX, ConvertedScans
from xnatfs.diagnostics import Diagnostics
from xnatfs.disk import disk_failure
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.fuse.overlay_lower import Lower
from xnatfs.listing.codec import StoredListings
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.service import ListingService
from xnatfs.listing.summaries import ProjectSummaries
from xnatfs.server import identity
from xnatfs.server.connection import Connection
from xnatfs.server.downloads import Downloads
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.token_renewal import TokenRenewal
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.engine.discover import TableDiscovery
from xnatfs.tables.engine.materialize import TableFiles
from xnatfs.tables.engine.overrides import user_site
from xnatfs.tables.engine.services import TableServices
from xnatfs.tables.registry import with_plugins
from xnatfs.text import did_you_mean, printable
from xnatfs.tree.converted_files import problem_lines
from xnatfs.tree.nifti_view import PROBLEMS
from xnatfs.tree.project_folders import session_part
from xnatfs.tree.resource import Sources
from xnatfs.tree.root import root_folder
from xnatfs.tree.table_files import Tables
from xnatfs.vfs import XATTR_PREFIX, Vfs

log = logging.getLogger(__name__)

_FEWEST_CONNECTIONS = 2  # one for contents, one for listings


@dataclass
class Core:
    """The layers of one mount."""

    settings: Settings
    mountpoint: str
    connection: Connection
    listing_service: ListingService
    content_manager: ContentManager
    diagnostics: Diagnostics
    cache: ContentCache
    learnt: Corrections
    builder: Builder
    share: UserShare | None = None
    bids_map: BidsMap | None = None
    project_maps: Mapping[str, BidsMap] = field(default_factory=dict)
    vfs: Vfs = field(init=False)
    outputs: TableFiles = field(init=False)
    finder: TableDiscovery = field(init=False)
    sources: Sources = field(init=False)
    conversions: ConvertedScans = field(init=False)
    token_renewal: TokenRenewal = field(init=False)
    started: float = field(default_factory=time.time)
    kernel: dict[str, int] = field(default_factory=dict)  # the adapter's counts
    indexers: Callable[[], list[dict[str, Any]]] = list  # programs that read through the mount by themselves
    on_refresh: Callable[[], None] = lambda: None  # what the kernel keeps of listings is no longer good
    allow_other: bool = False  # every user of this machine reads with this one's rights
    overlay: dict[str, str] | None = None  # its folder and how it is mounted

    def __post_init__(self) -> None:
        self.token_renewal = TokenRenewal(self.connection, self.settings, self.refresh)
        limits = self.settings.limits
        context, folder = self.content_manager.context, self.cache.directory
        fetcher = SeriesFetcher(context, TemporaryDownloads(context, folder / "drafts"))
        self.conversions = ConvertedScans(
            fetcher, folder / "converted", limits, self.diagnostics, self.settings.strip
        )
        self.sources = sources = Sources(
            self.settings,
            self.listing_service,
            self.content_manager,
            self.diagnostics,
            self.builder.summaries,
            self.bids_map,
            self.project_maps,
            self.conversions,
        )
        # What one mount shows of people another need not.
        made = folder / f"tables{self.settings.privacy.suffix}"
        self.outputs = TableFiles(self.builder, made, limits)
        self.finder = TableDiscovery(self.builder)
        tables = Tables(self.outputs, self.finder, self.builder.tables, self.builder)
        root = root_folder(sources, tables, self.connection.user, self.mountpoint, self.report)
        self.vfs = (Lower if self.settings.lower else Vfs)(
            root,
            self.diagnostics,
            min(0.5, limits.ttl),
            lambda: self.listing_service.changed_within(limits.kernel_ttl + 1),
            self.cache.room,
            self.listing_service.clock.now,
        )

    def report(self) -> dict[str, Any]:
        """What the mount is doing. No secrets: it is shown by `status` and in `.xnatfs/status.json`."""
        recent = self.diagnostics.recent()
        away = self.connection.breaker.away()
        failing = self.listing_service.failing()
        return {
            "version": __version__,
            "mountpoint": self.mountpoint,
            "server": self.connection.server,
            "server_version": self.connection.version,
            "offline": self.settings.offline,
            "server_answers": away is None,
            "server_silent_for": round(self.connection.breaker.silence(), 1),  # seconds, while somebody waits
            "away": None if away is None else away._asdict() | {"cause": away.cause.name},
            "shared_cache": self._shared(),
            "overlay": self.overlay,
            "allow_other": self.allow_other,
            "user": self.connection.user,
            "login": self.token_renewal.report(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started)),
            "requests": self.connection.requests,
            "requests_under_way": self.connection.slots.in_use,
            "refused_forms": self.listing_service.refused_forms,
            "listings": self.listing_service.counts(),
            "contents": self.content_manager.counts()
            | {"cap": self.settings.limits.cache_size, "open files": self.vfs.open_files},
            "kernel": dict(self.kernel),
            "indexers": self.indexers(),
            "listing": [vars(one) for one in list(self.sources.work)],
            "tables": [vars(one) for one in list(self.builder.running.values())],
            "downloads": [one._asdict() for one in self.content_manager.downloads()],
            "errors": self.diagnostics.counts(),
            "last_error": {"when": recent[-1].when, "text": recent[-1].text} if recent else None,
            "doubtful": {
                "listings": len(failing),
                "last": str(failing[-1]) if failing else None,
                "every_answer_is_a_new_session": self.connection.logins.session.is_restless,
            },
            "oddities": len(self.diagnostics.oddities()),
        }

    def _shared(self) -> dict[str, int | str] | None:
        shared = self.content_manager.context.shared
        return (
            None if shared is None or self.share is None else {**shared.report(), "mounts": self.share.mounts}
        )

    def learnt_count(self) -> int:
        """A number that changes whenever attributes change of files whose listing does not."""
        return self.content_manager.context.sizes.changes + self.listing_service.history.changes

    def version(self) -> int:
        """A number that changes with whatever is known of the server."""
        return self.listing_service.version + self.content_manager.context.sizes.changes

    def watchable(self, folder: str) -> str:
        """The folder to look at to notice any change below another one; "" where that is not enough."""
        top, project = session_part(folder)
        return top if top and self.listing_service.steady(project) else ""

    def refresh(self, path: str = "") -> None:
        """Look at the server again at the next look into `path` (below the mountpoint); everything if it
        names no project.
        """
        parts = [part for part in path.split("/") if part]
        if parts[:1] == ["archive"]:
            parts = parts[1:]
        self.vfs.forget()
        self.builder.summaries.refresh()
        self.builder.check_again()
        self.conversions.refresh()
        self.finder.forget()
        self.connection.breaker.wake()
        self.listing_service.refresh(
            parts[1] if len(parts) > 1 and parts[0] in ("projects", "tables") else None
        )
        self.on_refresh()

    def convert(self, below: str) -> dict[str, Any]:
        """Convert a scan, asked for by the command and not by a walk.

        Args:
            below: below the mountpoint: the folder of the scan in a `nifti/`, or one of its images in a
                `bids/`.

        Returns:
            how many images there are, and `problems`: what was refused, and why.

        Raises:
            OSError: there is no such scan, or it cannot be converted now.
        """
        with self.conversions.asked_for():
            if below.split("/")[2:3] == ["bids"]:
                return self._convert_image(below)
            entries = dict(self.vfs.entries(below))
            images = [name for name in entries if name.endswith(IMAGE_SUFFIX)]
            for name in images:  # one may have been removed for room
                self.vfs.release(self.vfs.open(f"{below}/{name}").handle)
        problems: list[str] = []
        if PROBLEMS in entries:
            opened = self.vfs.open(f"{below}/{PROBLEMS}")
            try:
                text = self.vfs.read(opened.handle, 0, opened.size).decode("utf-8", "replace")
            finally:
                self.vfs.release(opened.handle)
            problems = [line.replace("\t", ": ") for line in text.splitlines()[1:]]
        return {"images": len(images), "problems": problems}

    def _convert_image(self, below: str) -> dict[str, Any]:
        key = self.vfs.xattr(below, f"{XATTR_PREFIX}key").decode()
        try:
            self.vfs.release(self.vfs.open(below).handle)
        except Failure as failure:
            if failure.cause not in (Cause.REFUSED, Cause.OTHER_IMAGES):
                raise
        made = self.conversions.known(key)
        refused = () if made is None else made.refused
        problems = [f"{part}: {printable(reason)}" for part, reason in problem_lines(refused)]
        sizes = {} if made is None else made.sizes
        return {"images": sum(name.endswith(IMAGE_SUFFIX) for name in sizes), "problems": problems}

    def unknown_project(self, asked: str) -> UsageError:
        """The error to raise for a project that this user cannot read, with those of a similar name."""
        service = self.listing_service
        with contextlib.suppress(Failure):
            service.projects.all()
        service.environment.stored.flush()
        everything = service.environment.stored.projects()
        like = did_you_mean(asked, everything.value if everything is not None else ())
        return UsageError(f"no project {asked!r} that {self.connection.user} can read{like}")

    def close(self) -> None:
        """End everything."""
        if self.share is not None:
            self.share.close()
        self.token_renewal.close()
        self.finder.close()
        self.outputs.close()
        self.conversions.close()
        self.builder.close()
        self.content_manager.close()
        self.listing_service.close()
        self.connection.close()
        self.cache.close()
        self.learnt.close()


def compose(settings: Settings, credentials: Credentials, mountpoint: str) -> Core:
    """Log in and put the layers together.

    Raises:
        UsageError: the user's own tables.toml or map cannot be read or understood.
        Failure: the login failed, or the cache directory cannot be used.
    """
    for path in (settings.bids_map, *(path for _, path in settings.project_bids_maps)):
        user_map(path)  # what cannot be understood is an error before anything is sent
    with contextlib.ExitStack() as made:  # all that is open is closed again if the rest cannot be had
        connection = Connection(settings, credentials)
        made.callback(connection.close)
        scope = settings.scope(_log_in(connection, settings, credentials))
        try:
            mounted = _put_together(settings, mountpoint, connection, scope, made)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, Failure):
                raise
            raise disk_failure(error, str(settings.cache_dir)) from error
        _check_projects(mounted)
        made.pop_all()
    return mounted


def _check_projects(mounted: Core) -> None:
    """Return if each project that was asked for is there, or the server does not say.

    Raises:
        UsageError: one is not; the mount would be empty without a word.
    """
    wanted, service = mounted.settings.projects, mounted.listing_service
    if not wanted or mounted.settings.offline:
        return
    try:
        shown = service.projects.all()
    except Failure as failure:
        log.warning("cannot check the projects: %s", failure)
        return
    for one in wanted:
        if one not in shown:
            unknown = mounted.unknown_project(one)
            mounted.close()
            raise unknown


def _put_together(
    settings: Settings,
    mountpoint: str,
    connection: Connection,
    scope: str,
    made: contextlib.ExitStack,
) -> Core:
    diagnostics = Diagnostics()
    cache = ContentCache(settings.cache_dir / scope, settings.limits.cache_size, settings.limits.min_free)
    made.callback(cache.close)
    learnt = Corrections(settings.state_dir / "servers" / scope / "learnt.sqlite")
    made.callback(learnt.close)
    listings = ListingRequests(connection)
    listings.ages = settings.privacy.demographics
    # Else a mount that shows no ages would keep those that another one of the user has listed.
    shown = scope if settings.privacy.demographics else f"{scope} without demographics"
    shared_listings = None if settings.offline else open_listings(settings.shared_cache, shown)
    listing_store = ListingStore(settings.cache_dir / scope / "listings.sqlite", shared_listings)
    stored = StoredListings(listing_store, ages=settings.privacy.demographics)
    made.callback(stored.close)
    _tell_renewed(diagnostics, cache.index.renewed, learnt.renewed, listing_store.renewed)
    history = MtimeHistory(learnt)
    listing_service = ListingService(
        listings, settings.limits, diagnostics, stored, history, settings.projects, settings.privacy
    )
    tier = open_tier(settings.shared_cache) if settings.shared_cache and not settings.offline else None
    content_manager = ContentManager(
        Downloads(connection),
        cache,
        learnt,
        settings.limits,
        diagnostics,
        history,
        serve_bad_digests=settings.serve_bad_digests,
        tier=tier,
    )
    builder = _builder(settings, listing_service, content_manager, diagnostics)
    share = (
        None if tier is None else UserShare(tier, scope, partial(_take_share, connection, content_manager))
    )
    if share is not None:
        made.callback(share.close)
    return Core(
        settings,
        mountpoint,
        connection,
        listing_service,
        content_manager,
        diagnostics,
        cache,
        learnt,
        builder,
        share,
        user_map(settings.bids_map),
        {project: found for project, path in settings.project_bids_maps if (found := user_map(path))},
    )


def _take_share(connection: Connection, content_manager: ContentManager, mounts: int) -> None:
    """Use this mount's part of what the mounts that share a tier may use of the server together."""
    limits = connection.settings.limits
    connections = max(_FEWEST_CONNECTIONS, min(limits.connections, limits.user_connections // mounts))
    connection.limit(connections, limits.requests_per_second / mounts)
    content_manager.limit(connections - 1)  # one is for listings


def _builder(
    settings: Settings,
    listing_service: ListingService,
    content_manager: ContentManager,
    diagnostics: Diagnostics,
) -> Builder:
    tables, complaints = with_plugins()
    for complaint in complaints:
        diagnostics.odd(complaint)
    folder = content_manager.context.cache.directory
    measurements = MeasurementStore(folder / "measurements.sqlite")
    _tell_renewed(diagnostics, measurements.renewed)
    services = TableServices(
        ProjectSummaries(listing_service),
        listing_service,
        TemporaryDownloads(content_manager.context, folder / "drafts"),
        measurements,
        settings.limits,
    )
    return Builder(services, tables, user_site(tables))


def _tell_renewed(diagnostics: Diagnostics, *sentences: str) -> None:
    """What of an earlier version was not read: its listings and numbers are asked for again."""
    for sentence in filter(None, sentences):
        diagnostics.odd(sentence)


def _log_in(connection: Connection, settings: Settings, credentials: Credentials) -> str:
    before = identity.recall(settings, credentials.owner or credentials.user)
    try:
        user = connection.login(before)
    except Failure as failure:
        if before is not None and failure.cause in (Cause.UNREACHABLE, Cause.UNKNOWN_HOST, Cause.TIMED_OUT):
            hint = "`--offline` shows and serves cached data"
            raise Failure(
                failure.cause, failure.subject, f"{failure.detail}; {hint}" if failure.detail else hint
            ) from failure
        raise
    if not settings.offline:
        identity.remember(settings, credentials.owner or credentials.user, connection.known)
    return user
