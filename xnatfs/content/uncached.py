"""Reading a large file that the cache has no room for: blocks straight from the server, a few kept in memory.

Used by `content.ranged` when the cap is reached or the disk is full: a full cache makes reading slower, not
impossible.
Threading: any thread; one lock for the blocks, held for moments.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from xnatfs import retry
from xnatfs.content.context import TransferContext
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

_BLOCK = 2**20
_BLOCKS = 8


class Uncached:
    """Blocks of one file in memory, least recently used goes first."""

    def __init__(self, context: TransferContext, record: FileRecord) -> None:
        self._context = context
        self._record = record
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, offset: int, end: int, size: int, last_modified: str) -> bytes:
        """The bytes from `offset` to `end` of the file that has `size` bytes and this Last-Modified.

        Raises:
            Failure: CHANGED if it is another file by now; what keeps the server from answering.
        """
        pieces = []
        for number in range(offset // _BLOCK, -(-end // _BLOCK)):
            start = number * _BLOCK
            data = self._block(number, size, last_modified)
            pieces.append(data[max(0, offset - start) : end - start])
        return b"".join(pieces)

    def _block(self, number: int, size: int, last_modified: str) -> bytes:
        with self._lock:
            data = self._blocks.get(number)
            if data is not None:
                self._blocks.move_to_end(number)
                return data
        data = self._context.workers.do(
            lambda: self._fetch(number * _BLOCK, size, last_modified), self._context.limits.progress_deadline
        )
        with self._lock:
            self._blocks[number] = data
            while len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return data

    def _fetch(self, start: int, size: int, last_modified: str) -> bytes:
        with retry.Attempts(retry.CONTENTS) as attempts:
            while True:
                try:
                    return self._receive(start, size, last_modified)
                except Failure as failure:
                    if not attempts.again(failure):
                        raise

    def _receive(self, start: int, size: int, last_modified: str) -> bytes:
        end = min(size, start + _BLOCK)
        with self._context.contents.part(self._record, start, end, last_modified) as part:
            if part.size not in (None, size) or part.last_modified != last_modified:
                raise Failure(Cause.CHANGED, self._record.uri)
            data = b""
            skip = start - part.start  # without Range the answer begins at the start of the file
            for piece in part.pieces:
                data += piece[skip:]
                skip = max(0, skip - len(piece))
                self._context.progress += 1
                if len(data) >= end - start:
                    return data[: end - start]
        raise Failure(Cause.CUT_SHORT, self._record.uri)
