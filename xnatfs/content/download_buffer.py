"""Where the bytes of a file go that is fetched whole: into the cache, or into memory where the cache has no
room.

Used by `content.whole_file`, whose readers read from it, and by `content.transfer`, which fills it.
Threading: one worker writes; readers may `os.pread` from `fd` meanwhile. Closed by the last of them, under
the condition of the `WholeFile`.
"""

from __future__ import annotations

import logging
import os

from xnatfs.cache.contents import Entry
from xnatfs.cache.writers import CacheWriter
from xnatfs.content.context import TransferContext
from xnatfs.disk import write_all
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_MEMORY = 4  # times the size of a small file: what is held at most of one that turns out to be larger
_NO_CACHE = (Cause.NO_SPACE, Cause.CACHE_BROKEN)


class Memory:
    """A file in memory: for what the cache has no room for. Ends with its transfer; never more than the files
    open at the time.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("xnatfs")
        self.written = 0

    def write(self, piece: bytes | memoryview) -> None:
        """Append."""
        self.written = write_all(self.fd, piece, self.written)

    def rewind(self) -> None:
        """Write from the start again."""
        self.written = 0

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class DownloadBuffer:
    """The bytes of one file, as far as they have come."""

    def __init__(self, context: TransferContext, record: FileRecord) -> None:
        self._context = context
        self._record = record
        self._draft: CacheWriter | Memory | None = None
        self._entry: Entry | None = None

    @property
    def fd(self) -> int:
        """What its bytes are read from."""
        source = self._entry or self._draft
        assert source is not None
        return source.fd

    @property
    def written(self) -> int:
        """Bytes written since the last `begin`."""
        return 0 if self._draft is None else self._draft.written

    def begin(self, size: int | None, expected: int) -> None:
        """Write from the start, over what is there.

        Args:
            size: as the answer says.
            expected: what it is taken for where the answer does not say.

        Raises:
            Failure: the cache has no room, and the file is too large for memory.
        """
        if self._draft is None:
            try:
                self._draft = self._context.cache.draft(size)
            except Failure as failure:
                self._draft = self._without_cache(failure, expected if size is None else size)
        self._draft.rewind()

    def write(self, piece: bytes, size: int) -> None:
        """Append, for a file that has `size` bytes as far as is known.

        Raises:
            Failure: NO_SPACE, CACHE_BROKEN.
        """
        draft = self._draft
        assert draft is not None
        if isinstance(draft, Memory) and draft.written > _MEMORY * self._context.limits.whole_file_check:
            raise Failure(
                Cause.NO_SPACE,
                self._record.uri,
                "it is larger than the catalog says, and the server does not say how large",
            )
        try:
            draft.write(piece)
            return
        except Failure as failure:
            memory = self._without_cache(failure, size)
        memory.write(os.pread(draft.fd, draft.written, 0))
        memory.write(piece)
        self._draft = memory
        draft.close()  # nobody reads from it: only large files are read while they come

    def commit(self, last_modified: str, verified: str, *, reopen: bool) -> None:
        """Make the whole, checked file an object of the cache, if it is written there; with `reopen`, it is
        read from that object from here on.
        """
        if not isinstance(self._draft, CacheWriter):
            return
        key = self._context.digests.key(self._record)
        try:
            self._draft.commit(key, last_modified=last_modified, verified=verified)
            if reopen:
                self._entry = self._context.cache.open(key)
        except Failure as failure:
            if failure.cause not in _NO_CACHE:
                raise
            log.info("%s is not cached: %s", self._record.uri, failure)  # its readers have it all the same

    def close(self) -> None:
        """Close what is read from and written to."""
        if self._entry is not None:
            self._entry.close()
            self._entry = None
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    def _without_cache(self, failure: Failure, size: int) -> Memory:
        if failure.cause not in _NO_CACHE or size > self._context.limits.whole_file_check:
            raise failure
        log.info("%s is served without the cache: %s", self._record.uri, failure)
        return Memory()
