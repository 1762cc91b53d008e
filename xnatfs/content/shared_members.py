"""The files of a resource that is fetched as a zip, as the shared tier sees them: what it has is taken first,
what the zip brings is given to it.

Used by `content.zip_batch`, one a zip, and by its worker alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

from xnatfs.cache.shared_tier import StoredObject
from xnatfs.cache.writers import BatchWriter
from xnatfs.content.access_pattern import ResourceAccess
from xnatfs.content.context import TransferContext
from xnatfs.content.shared_content import SharedContent
from xnatfs.content.shared_leases import Lease
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for the rest of a resource, file by file


class SharedMembers:
    """The members of one zip."""

    def __init__(self, context: TransferContext, series: ResourceAccess) -> None:
        self._context = context
        self._series = series
        self._kept: list[FileRecord] = []  # not given yet
        self._lease: Lease | None = None

    def take(
        self,
        pile: BatchWriter,
        missing: Sequence[FileRecord],
        is_cached: Callable[[FileRecord], bool],
        came: Callable[[str], None],
    ) -> bool:
        """Take what is there. Whether that was all, or what is left is better had otherwise: singly, since a
        zip has everything again, or from another machine that is fetching it.

        Args:
            came: called with the path of each that was had.

        Raises:
            Failure: of the cache; INTERRUPTED.
        """
        shared, zips = self._context.shared, self._series.zips
        if shared is None or not missing:
            return False
        found = self._take_all(pile, missing, came, shared)
        left = [one for one in missing if not is_cached(one)]
        if not left:
            return True
        if found and self._singly(left):
            zips.was_without(one.path for one in left)
            return True
        self._lease = shared.claim_zip(left[0])
        if self._lease is None:
            zips.is_elsewhere()
            return True
        # Whoever had it before may have given the files since they were looked for.
        self._take_all(pile, left, came, shared)
        return all(is_cached(one) for one in left)

    def _singly(self, left: Sequence[FileRecord]) -> bool:
        """Whether the rest of what a machine that died had begun can be had without a zip: it takes longer,
        but nothing leaves the server twice.
        """
        line, entries = self._context.link, self._series.entries
        seconds = line.singly(len(left), sum(one.size for one in left), entries)
        return seconds < max(_PATIENCE_S, 2 * line.at_once(self._series.total, entries))

    def _take_all(
        self,
        pile: BatchWriter,
        missing: Sequence[FileRecord],
        came: Callable[[str], None],
        shared: SharedContent,
    ) -> int:
        found = 0
        for record, stored in shared.many(missing):
            found += self._keep(pile, record, stored, shared)
            came(record.path)
            self._context.progress += 1
            if self._context.workers.closed:
                raise Failure(Cause.INTERRUPTED, detail="the mount is ending")
        pile.flush()
        return found

    def moved(self) -> None:
        """Something of the zip came."""
        if self._lease is not None:
            self._lease.moved()

    def kept(self, record: FileRecord) -> None:
        """A member is whole and checked."""
        self._kept.append(record)

    def give(self) -> None:
        """What was kept is in the cache's index."""
        kept, self._kept = self._kept, []
        if self._context.shared is not None:
            for record in kept:
                self._context.shared.publish(record, self._lease)

    def close(self) -> None:
        """Nothing more comes."""
        if self._lease is not None:
            self._lease.close()

    def _keep(
        self, pile: BatchWriter, record: FileRecord, stored: StoredObject, shared: SharedContent
    ) -> bool:
        """Keep an object; whether it was what its name says."""
        digest = hashlib.md5(usedforsecurity=False)
        pile.begin(record.size)
        try:
            for piece in stored.pieces:
                digest.update(piece)
                if pile.written + len(piece) > record.size:
                    break
                pile.write(piece)
        except Failure:
            raise  # of the cache
        except Exception as error:  # of the tier's store
            log.info("%s could not be had from the shared cache: %s", record.uri, error)
            pile.drop()
            return False
        if pile.written != record.size or digest.hexdigest() != record.digest:
            pile.drop()
            shared.tampered(record)
            return False
        shared.came(record.size)
        pile.keep(self._context.digests.key(record), "md5")
        return True
