"""Listed files, fetched whole for a caller that may be interrupted.

Used by `project_overrides` (a project's `tables.toml`) and `from_listings` (the headers of DICOM files).
Threading: any thread; files are fetched in a pool, and callers wait for it.
"""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.server.records import FileRecord
from xnatfs.tables.engine.services import TableServices


class ListedFiles:
    """Fetches listed files one by one."""

    def __init__(self, services: TableServices) -> None:
        self._downloads = services.downloads
        self._timeout_s = services.limits.listing_deadline
        self._workers = WorkerPool("site", 2)

    def open(self, file: FileRecord) -> BinaryIO:
        """A listed file, fetched whole.

        Raises:
            Failure: it is not available.
        """
        # Not in the caller's thread, which may serve an operation: a socket is deaf to Ctrl-C.
        return self._workers.do(lambda: self._downloads.fetch(file, listed=True).stream, self._timeout_s)

    def close(self) -> None:
        """Start nothing more."""
        self._workers.close()
