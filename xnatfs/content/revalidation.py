"""Whether what is in the cache is still the server's file: `If-Modified-Since`, a 304 costs no body.

Used by `content.manager` for whole files and, through `TransferContext`, by `content.partial_content`
for parts of them.
Threading: any thread. Requests are sent by two workers of their own, apart from the streams, all of which may
be stuck: what is here is not to wait for them. Threads that ask for the same file share one request.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from xnatfs.cache.contents import ContentCache, Entry
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.config import Limits
from xnatfs.content.verification import identity
from xnatfs.disk import md5_of
from xnatfs.errors import Cause, Failure
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.wait_policy import WaitPolicy
from xnatfs.server.downloads import Downloads
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0  # for the server to confirm that a cached file is still its file


class Revalidation:
    """Asks the server about files that are in the cache."""

    def __init__(
        self, contents: Downloads, cache: ContentCache, history: MtimeHistory, limits: Limits
    ) -> None:
        self._contents = contents
        self._cache = cache
        self._history = history
        self._limits = limits
        self._workers = WorkerPool("check", 2)
        self._requests = SingleFlight(self._workers)
        self._wait_policy = WaitPolicy(contents.breaker)

    def unchanged(self, record: FileRecord, last_modified: str) -> bool:
        """Whether the server still has the file with this Last-Modified; waits a few seconds for the answer.

        Raises:
            Failure: see `Downloads.unchanged`; TIMED_OUT.
        """
        timeout = min(_TIMEOUT_S, self._limits.progress_deadline)
        work = partial(self._contents.unchanged, record, last_modified)
        return self._requests.get(
            (identity(record), last_modified), work, timeout, self._wait_policy(held=True)
        )

    def still_good(self, record: FileRecord, entry: Entry) -> bool:
        """Whether a whole file of the cache may be served; if not, it is closed and forgotten. Contents
        without a digest are asked for again after some hours.

        After an unclean boot nothing is believed that was not read again (`verified` is "" then).

        Raises:
            Failure: the server has the file no more, or not for this user; INTERRUPTED. The entry is closed.
        """
        if record.digest and entry.verified == "":
            if md5_of(entry.fd) != record.digest:
                entry.close()
                self._cache.forget(entry.key)
                return False
            self._cache.confirm(entry.key, "md5")
            return True
        if (
            record.digest and entry.verified == "md5"
        ) or time.time() - entry.checked < self._limits.revalidate_after:
            return True
        try:
            unchanged = bool(entry.last_modified) and self.unchanged(record, entry.last_modified)
        except Failure as failure:
            if failure.cause in (
                Cause.GONE,
                Cause.NO_ENTRY,
                Cause.NOT_ALLOWED,
                Cause.LOGIN_REFUSED,
                Cause.INTERRUPTED,
            ):
                entry.close()
                raise
            log.info("%s is served from the cache without revalidation: %s", record.path, failure)
            return True
        if unchanged:
            self._cache.confirm(entry.key)
            return True
        if entry.last_modified:
            self._history.overwritten(record)
        entry.close()
        self._cache.forget(entry.key)
        return False

    def close(self) -> None:
        """Ask nothing more."""
        self._workers.close()
