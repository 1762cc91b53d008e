"""File listings by key: held, kept on disk, compared with the ones before.

Used by `listing.files` and `listing.session_batches`. A listing holds while the stamp it came with stays
(`stamps`); one from an earlier mount is shown at once and asked for again a moment later if it is old. What
it lacks of the one before has to be proven gone (`proof`).
Threading: any thread; no lock over I/O.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial

from cachetools import TTLCache

from xnatfs.concurrency.refreshable import Refreshable
from xnatfs.errors import UNANSWERED, Failure
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.proof import Absences, Counts
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.records import FileRecord
from xnatfs.server.resources import FileListing

log = logging.getLogger(__name__)

_JUST_NOW_S = 10.0  # a listing is not doubted for so long because a file is not what it says
_AGAIN_S = 5.0  # what could not be listed again, and is shown as it was, is not asked for again before
_DISTRUSTED_S = 600.0  # a listing that lacked something is thrown away at most so often

Load = Callable[[], FileListing]


@dataclass(frozen=True)
class FileRequest:
    """One listing of files: its key, the stamp of what it lists, how it is asked for, and how to ask for the
    number of files each of the resources counts.
    """

    key: Hashable
    stamp: str
    load: Load
    counts: Counts


class FileIndexes:
    """The file listings of one server, for one user.

    Attributes:
        values: what is held.
        rows: files of a listing, on average; 0 before the first.
    """

    def __init__(self, environment: ListingEnvironment) -> None:
        self.rows = 0.0
        self._environment = environment
        self.values: Refreshable[Hashable, FileIndex] = environment.refreshable(
            "files",
            environment.stored.files,
            again_after=_AGAIN_S,
            as_stale=lambda index: replace(index, stale=True),
            capacity=environment.limits.file_records,
            sizeof=lambda index: index.count,
        )
        self._absences = Absences(environment.diagnostics)
        self._distrusted: TTLCache[Hashable, bool] = TTLCache(
            4096, ttl=_DISTRUSTED_S, timer=environment.clock.now
        )

    def get(self, request: FileRequest, oldest: float | None = None) -> FileIndex:
        """The files of a request, asked for unless they are held.

        Args:
            oldest: the age in seconds from which a listing is asked for again, instead of
                `Limits.relist_after`.

        Raises:
            Failure: what keeps the server from answering, if nothing was ever listed.
        """
        ready = self.ready(request, oldest)
        if ready is not None:
            return ready
        shown = self.values.shown(request.key)
        if shown is not None:
            return shown.value
        older = self.values.latest(request.key) is not None
        return self.values.get(
            request.key, partial(self.load, request, oldest), stamp=request.stamp, older=older
        )

    def begin(self, request: FileRequest, oldest: float | None = None) -> None:
        """Begin to list what will be asked for with `get` soon."""
        if self.ready(request, oldest) is None:
            self.values.begin(request.key, partial(self.load, request, oldest), stamp=request.stamp)

    def held(self, key: Hashable, stamp: str | None = None) -> FileIndex | None:
        """What is in memory, however old; with a stamp, only what came with that."""
        held = self.values.held(key)
        if held is None or (stamp is not None and not stamp == held.stamp != ""):
            return None
        return held.value

    def distrust(self, key: Hashable) -> None:
        """The listing was found to lack what it should have: it is asked for again at the next look, but not
        at every one.
        """
        if key not in self._distrusted:
            self._distrusted[key] = True
            self.values.drop(key)
            self._environment.stored.drop("files", key)

    def outdated(self, request: FileRequest, record: FileRecord) -> bool:
        """Whether the server lists a file otherwise by now than in `record`, or no more. Asked at once,
        whatever the listing's stamp says: a file may be overwritten without one (xnat-rest.md 13); but not of
        a listing that was made just now. False where the server does not say.

        Raises:
            Failure: NOT_ALLOWED, INTERRUPTED and the like.
        """
        held = self.values.held(request.key)
        if held is None:
            return False
        environment, index = self._environment, held.value
        if held.at is None or environment.clock.now() - held.at > _JUST_NOW_S:
            epoch = self.values.epoch
            work = partial(self.hold, replace(request, stamp=held.stamp), epoch)
            try:
                index = environment.calls.get(
                    (epoch, "files again", request.key), work, environment.limits.listing_deadline
                )
            except Failure as failure:
                if failure.cause not in UNANSWERED:
                    raise
                return False
        return all((one.size, one.digest) != (record.size, record.digest) for one in index.named(record))

    # --- loading and holding --------------------------------------------------------------------------------

    def ready(self, request: FileRequest, oldest: float | None = None) -> FileIndex | None:
        """What needs no request."""
        key, stamp, environment = request.key, request.stamp, self._environment
        longest = environment.lasts(stamp) if oldest is None or not stamp else oldest
        if self.values.held(key) is not None:
            return self.values.fresh(key, longest, stamp)
        kept = self.values.recall(key, stamp)
        if kept is None:
            return None
        old = kept.age >= longest
        if old and (oldest is not None or not (isinstance(key, tuple) and key[0] == "session")):
            return None
        self.values.put(key, kept.value, stamp=stamp, age=0.0 if old else kept.age)
        self._note_rows(kept.value.count)
        if old:
            environment.later.add(key, partial(self._renew, request))
        return kept.value

    def load(self, request: FileRequest, oldest: float | None = None) -> FileIndex:
        """Ask for a listing, unless it came between the look for it and this (in a worker)."""
        ready = self.ready(request, oldest)
        return self.hold(request, self.values.epoch) if ready is None else ready

    def hold(self, request: FileRequest, epoch: int) -> FileIndex:
        """Ask for a listing and hold it, unless there was a refresh since `epoch` (in a worker).

        Raises:
            Failure: UNPROVEN if it lacks what another form still counts; what keeps the server from
                answering.
        """
        key, stamp, environment = request.key, request.stamp, self._environment

        def listed() -> FileIndex:
            listing = request.load()
            return FileIndex.of(listing.files, listing.odd)

        index = listed()
        for odd in index.odd:
            environment.diagnostics.odd(odd)
        before = self.values.latest(key)
        if before is not None:
            self._absences.prove(
                key, before.value, index, moved=before.stamp != stamp, counts=request.counts, again=listed
            )
        self._note_rows(index.count)
        if before is not None and before.value.by_resource == index.by_resource:
            if epoch == self.values.epoch:
                index = before.value  # with what the tree derived from it
        elif before is not None:
            self.values.note_change()
            count = environment.history.compare(before.value, index, before.stamp, stamp)
            if count:
                log.info("%d files of %s changed on the server", count, key)
        now = self.values.held(key)
        if now is not None and epoch == self.values.epoch and now.value.by_resource == index.by_resource:
            index = now.value  # two requests brought the same
        self.values.put(key, index, epoch=epoch, stamp=stamp)
        environment.stored.put_files(key, stamp, index)
        return index

    def _renew(self, request: FileRequest) -> None:
        self.values.begin(request.key, partial(self.hold, request, self.values.epoch), stamp=request.stamp)

    def _note_rows(self, count: int) -> None:
        self.rows = count if not self.rows else 0.8 * self.rows + 0.2 * count
