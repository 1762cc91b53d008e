"""What the ways of fetching (`whole`, `content.ranged`, `content.zip_batch`, `content.uncached`) need of
`ContentManager`, which owns it all.

An interface, so that they do not import what imports them.
"""

from __future__ import annotations

from typing import Protocol

from xnatfs.cache.contents import ContentCache
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.config import Limits
from xnatfs.content.cost_model import LinkModel
from xnatfs.server.downloads import Downloads
from xnatfs.server.records import FileRecord


class TransferContext(Protocol):
    """`ContentManager`, seen from below."""

    contents: Downloads
    cache: ContentCache
    limits: Limits
    line: LinkModel
    workers: WorkerPool
    range_refused: bool  # this server (or its proxy) sends whole files only
    length_refused: bool  # this server (or its proxy) sends files without a Content-Length
    refuses_names: bool  # this server refuses files by themselves that its zips have
    progress: int  # rises with every piece that arrives, of anything

    def key(self, record: FileRecord) -> str:
        """The key of a file in the cache."""
        ...

    def unchanged(self, record: FileRecord, last_modified: str) -> bool:
        """Whether the server still has this file; raises what keeps it from answering within a few
        seconds.
        """
        ...

    def coming(self, record: FileRecord, size: int) -> None:
        """An answer told this size; a whole, checked file has yet to prove it."""
        ...

    def learn_size(self, record: FileRecord, size: int) -> None:
        """A whole, checked file has this size."""
        ...

    def bad_digest(self, record: FileRecord, md5: str) -> str:
        """The bytes differ from the catalog's digest, twice alike: how to keep them; raises BAD_DIGEST if
        they must not be served.
        """
        ...

    def checked(self, record: FileRecord, size: int, md5: str) -> str:
        """How a large file with this size and MD5 is to be kept; raises BAD_DIGEST if it must not be
        served.
        """
        ...
