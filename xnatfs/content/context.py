"""What all ways of fetching share: where bytes come from and where they go, and what was found out about the
server and the line to it.

Made by `content.manager`; handed to `content.transfer`, `content.ranged`, `content.zip_batch` and all
that these are made of.
Threading: any thread. The flags and `progress` are set without a lock: a flag that is late costs a request,
and of `progress` it only matters that it rises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from xnatfs.cache.contents import ContentCache
from xnatfs.concurrency.single_flight import WorkerPool
from xnatfs.config import Limits
from xnatfs.content.cost_model import LinkModel
from xnatfs.content.revalidation import Revalidation
from xnatfs.content.shared_content import SharedContent
from xnatfs.content.stream_tuner import StreamMeter, StreamTuner
from xnatfs.content.verification import DigestPolicy, SizeCorrections
from xnatfs.server.downloads import Downloads
from xnatfs.server.records import FileRecord

_FROM_A_TIER = 4


@dataclass
class TransferContext:
    """The surroundings of every transfer from one server into one cache."""

    contents: Downloads
    cache: ContentCache
    limits: Limits
    workers: WorkerPool
    sizes: SizeCorrections
    digests: DigestPolicy
    revalidation: Revalidation
    link: LinkModel
    shared: SharedContent | None = None  # what other machines have fetched
    range_refused: bool = False  # this server (or its proxy) sends whole files only
    length_refused: bool = False  # ... without saying how long they are
    refuses_names: bool = False  # this server refuses files by themselves that its zips have
    # Pieces that arrived, of anything: while it rises, waiting in the queue is no time-out.
    progress: int = 0

    @property
    def tuner(self) -> StreamTuner:
        """How many streams the line rewards."""
        return self.link.streams

    @property
    def resources_at_once(self) -> int:
        """How many resources are worth fetching side by side in a walk: as many as the line rewards streams,
        or as a shared tier that has them, where each costs the time of its checksums.
        """
        share = self.tuner.share
        return share if self.shared is None or not self.shared.is_warm else max(share, _FROM_A_TIER)

    def missing(self, records: Sequence[FileRecord]) -> list[FileRecord]:
        """Those of these files that are not in the cache."""
        keys = [self.digests.key(record) for record in records]
        present = self.cache.present(keys)
        return [record for record, key in zip(records, keys, strict=True) if key not in present]

    @contextmanager
    def stream(self) -> Iterator[StreamMeter]:
        """A body is being received."""
        with self.link.stream(), self.tuner.stream() as meter:
            yield meter

    def received(self, size: int, meter: StreamMeter) -> None:
        """A piece of a body arrived."""
        self.progress += 1
        self.link.received(size)
        meter.received(size)
