"""What is here of a large file, and of which version of it.

Used by `content.ranged` for its readers, by `content.stream_scheduler`, which adds to it, and by
`content.digest_check`. All bytes are of one version: an answer with another size or date is ESTALE, and parts
from an earlier time are used only if they are of the server's file.
Threading: any thread; its condition guards the whole of a ranged file, and is notified when anything changes.
It is not held while bytes move.
"""

from __future__ import annotations

import logging
import threading
from enum import Enum, auto

from xnatfs.cache.partial import Partial
from xnatfs.content.context import TransferContext
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import RangePart
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

NO_CACHE = (Cause.NO_SPACE, Cause.CACHE_BROKEN)
_LASTING = (Cause.CHANGED, Cause.BAD_DIGEST, Cause.GONE)


def is_lasting(failure: Failure) -> bool:
    """Whether no retry cures it: it is not the server's file any more."""
    return failure.cause in _LASTING


class _Version(Enum):
    """What is known of the version whose bytes these are."""

    UNKNOWN = auto()  # nothing is here, and the server has not been asked
    STORED = auto()  # from an earlier time: perhaps not the server's file any more
    CURRENT = auto()  # the server has said that it is its file


class PartialContent:
    """The bytes of one file that are here.

    Args:
        key: its key in the cache.
        size: as the catalog (or what was learnt) says; the first answer corrects it.
    """

    def __init__(self, context: TransferContext, record: FileRecord, key: str, size: int) -> None:
        self._context = context
        self.record = record
        self.key = key
        self.size = size
        self.last_modified = ""
        self.condition = threading.Condition()
        self.partial: Partial | None = None
        self.failure: Failure | None = None
        self.uncached = False  # the cache has no room: blocks come straight from the server
        self._version = _Version.UNKNOWN

    @property
    def known(self) -> bool:
        """Whether size and date are those of a version, not only the catalog's."""
        return self._version is not _Version.UNKNOWN

    @property
    def told(self) -> bool:
        """Whether the server has told of the file, or failed to."""
        return self.known or self.failure is not None

    @property
    def received(self) -> int:
        """Bytes that are here."""
        partial = self.partial
        return 0 if partial is None else min(partial.present, self.size)

    @property
    def failed_for_good(self) -> bool:
        """Whether it failed in a way that no retry cures: it is not the server's file any more."""
        return self.failure is not None and is_lasting(self.failure)

    def missing(self, start: int, end: int) -> tuple[int, int] | None:
        """The first bytes of these that are not here, from and to; None if all are. Called with the condition
        held.
        """
        return self.partial.missing(start, end) if self.partial is not None else (start, end)

    def resume(self) -> None:
        """Use what is in the cache from an earlier time."""
        with self.condition:
            if self.known or self.partial is not None:
                return
            row = self._context.cache.partial_row(self.key)
            if row is None or not row.pages.count(1):
                return
            try:
                self.partial = self._context.cache.partial(self.key, row.size, row.last_modified)
            except Failure as failure:
                log.info("the cached part of %s cannot be used: %s", self.record.uri, failure)
                return
            self.size, self.last_modified = row.size, row.last_modified
            self._version = _Version.STORED

    def revalidate(self) -> None:
        """Parts from an earlier time, of a file without a digest, are used only if the server still has that
        file.

        Raises:
            Failure: the server has the file no more, or not for this user; INTERRUPTED.
        """
        if self.record.digest or self._version is not _Version.STORED:
            return
        try:
            unchanged = self._context.revalidation.unchanged(self.record, self.last_modified)
        except Failure as failure:
            if failure.cause in (Cause.GONE, Cause.NOT_ALLOWED, Cause.LOGIN_REFUSED, Cause.INTERRUPTED):
                raise
            unchanged = True  # the server is away: what is here is better than nothing
        with self.condition:
            if self._version is not _Version.STORED:
                return  # another thread was told meanwhile
            if unchanged:
                self._version = _Version.CURRENT
                return
            if self.partial is not None:
                self.partial.forget()
                self.partial.close()
            self.partial, self.last_modified = None, ""
            self._version = _Version.UNKNOWN

    def note(self, part: RangePart) -> None:
        """What an answer says of the file: its true size, and whether it is still the same file.

        Raises:
            Failure: CHANGED; NOT_DATA without a length; NO_SPACE, CACHE_BROKEN.
        """
        with self.condition:
            # A proxy that stops telling lengths half-way: the date says whether it still is the same file.
            if self.known and (
                part.size not in (None, self.size) or part.last_modified != self.last_modified
            ):
                raise Failure(Cause.CHANGED, self.record.uri)
            new = not self.known
            if new:
                if part.size is None:
                    self._context.length_refused = True  # `transfer` fetches it
                    raise Failure(Cause.NOT_DATA, self.record.uri, "an answer without a length")
                self.size, self.last_modified = part.size, part.last_modified
                self._version = _Version.CURRENT
                self._context.sizes.announce(self.record, part.size)
            if self.partial is None and not self.uncached:
                self.partial = self._context.cache.partial(self.key, self.size, self.last_modified)
            if new:
                self.condition.notify_all()

    def fail(self, problem: Failure) -> None:
        """Fetching failed. Called with the condition held."""
        if problem.cause in NO_CACHE and self.known:
            log.info("%s is served without the cache: %s", self.record.uri, problem)
            self.uncached = True
            return
        self.failure = problem
        # A 404 proves nothing (xnat-rest.md 13): what is here of the file stays.
        if self.failed_for_good and problem.cause is not Cause.GONE and self.partial is not None:
            # who has it open gets the failure; who opens it next gets the new file
            self.partial.forget()

    def close(self) -> None:
        """What is here stays in the cache. Called with the condition held, when nobody reads and nothing is
        fetched.
        """
        if self.partial is not None:
            self.partial.close()
            self.partial = None
