"""The check of a large file once all of it has come, after which it is an object of the cache.

Used by `content.ranged`, whose readers wait for it before the last page, and by `content.stream_scheduler`.
Threading: any worker; the state is guarded by the condition of the `PartialContent`, which is not held while
bytes are summed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto

from xnatfs.cache.partial import Partial
from xnatfs.content.context import TransferContext
from xnatfs.content.partial_content import NO_CACHE, PartialContent
from xnatfs.content.running_digest import RunningDigest
from xnatfs.errors import Cause, Failure

log = logging.getLogger(__name__)


class _State(Enum):
    PENDING = auto()
    RUNNING = auto()
    PASSED = auto()


class DigestCheck:
    """Whether one file is what the catalog says.

    Args:
        kept: called once it is checked, and an object of the cache.
    """

    def __init__(
        self, context: TransferContext, content: PartialContent, kept: Callable[[], None] = lambda: None
    ) -> None:
        self._kept = kept
        self._context = context
        self._content = content
        self._digest = RunningDigest()
        self._state = _State.PENDING

    @property
    def running(self) -> bool:
        """Whether the file is being checked."""
        return self._state is _State.RUNNING

    @property
    def passed(self) -> bool:
        """Whether the file was checked and is kept."""
        return self._state is _State.PASSED

    def pass_by(self, position: int, piece: bytes) -> None:
        """These bytes were received."""
        self._digest.pass_by(position, piece)

    def catch_up(self) -> None:
        """Sum what came out of order, as far as all before it is here."""
        if self._content.record.digest and (partial := self._content.partial) is not None:
            self._digest.catch_up(partial)

    @property
    def summed(self) -> int:
        """Bytes from the start that the check needs no more."""
        return self._digest.length

    def run(self) -> None:
        """If all of it is here: check it and make it an object of the cache.

        Raises:
            Failure: BAD_DIGEST; CACHE_BROKEN.
        """
        content, partial = self._content, self._content.partial
        with content.condition:
            # A file larger than the cache is never whole here, but may have been hashed as it went by.
            whole = partial is not None and (partial.complete or self._digest.length == content.size)
            if partial is None or not whole or self._state is not _State.PENDING or content.uncached:
                return
            self._state = _State.RUNNING
        outcome = _State.PENDING
        try:
            self._check_and_keep(partial)
            outcome = _State.PASSED
        except Failure:
            partial.forget()
            raise
        finally:
            with content.condition:
                self._state = outcome
                if outcome is _State.PASSED:
                    content.condition.notify_all()

    def _check_and_keep(self, partial: Partial) -> None:
        record, digests = self._content.record, self._context.digests
        verified = digests.check_served(record, self._content.size, self._md5(partial))
        if not partial.complete:  # it may be dropped meanwhile: `commit` looks again
            return
        try:
            # If the digest is wrong, the file is stored under a key that leaves the digest out.
            partial.commit(digests.key(record), verified)
            if verified == "md5":
                self._kept()
        except Failure as failure:
            if failure.cause not in NO_CACHE:
                raise
            log.info("%s is not cached: %s", record.uri, failure)  # its readers have it all the same

    def _md5(self, partial: Partial) -> str:
        if not self._content.record.digest:
            return ""
        try:
            return self._digest.complete(partial.fd, self._content.size)
        except EOFError:
            short = "the cache file is shorter than what was written to it"
            raise Failure(Cause.CACHE_BROKEN, self._content.record.uri, short) from None
