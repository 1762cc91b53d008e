"""What dcm2niix takes scans for that have no place in a BIDS dataset: a column of `unmapped.tsv`, and
`code/bids.toml.suggested`.

Used by `bids_view`. The column is for sidecars that are here already, in the cache or made of DICOM files;
opening the suggestion reads one of the server's for each kind of series.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from xnatfs.bids.dataset import Unmapped
from xnatfs.bids.guesses import Series, read_guess, suggested
from xnatfs.bids.metadata_files import VisitRow
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import ScanRecord
from xnatfs.tree.bids_maps import Maps
from xnatfs.tree.bids_scans import read_start, sidecars_of
from xnatfs.tree.node import File
from xnatfs.tree.resource import ResourceFile, Sources
from xnatfs.tree.scope import Member, Snapshot, scans_of
from xnatfs.tree.session_folders import scan_place

SUGGESTED = "bids.toml.suggested"
_MAX_SIDECAR_BYTES = 2**20
_TRIES = 3  # sidecars of one kind of series


@dataclass(frozen=True)
class BidsGuesses:
    """The guesses about the scans of a scope."""

    sources: Sources
    snapshot: Snapshot
    maps: Maps

    def at_hand(self, visit: VisitRow, scan: ScanRecord) -> str:
        """The guess about a scan, if a sidecar of it is here; "" otherwise."""
        if self.sources.listing_service.files.held(visit.experiment.id) is None:
            return ""
        nodes = (
            node for node in self._sidecars(visit, scan) if not isinstance(node, ResourceFile) or node.kept
        )
        return next(filter(None, map(_read, nodes)), "")

    def suggestion(self, rows: Iterable[tuple[VisitRow, Unmapped]]) -> bytes:
        """A map of the guesses about scans that have no place."""
        guesses: dict[Series, str] = {}
        tries: Counter[Series] = Counter()
        for visit, row in rows:
            series = Series(row.scan.type, row.scan.series_description)
            if series in guesses or tries[series] >= _TRIES:
                continue
            for node in self._sidecars(visit, row.scan):
                tries[series] += 1
                if guess := _read(node):
                    guesses[series] = guess
                    break
        return suggested(guesses).encode("utf-8", "replace")

    def _sidecars(self, visit: VisitRow, scan: ScanRecord) -> list[File]:
        """The sidecars of a scan, the server's or those that were made, as far as its files can be listed."""
        member = Member(visit.project, visit.experiment)
        all_scans = scans_of(self.sources, self.snapshot, member)
        resources = next((theirs for one, theirs in all_scans if one.id == scan.id), [])
        place = scan_place(visit.project, visit.experiment, scan)
        try:
            return sidecars_of(self.sources, self.maps.maps[visit.project], place, resources)
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED:
                raise
            return []  # why is in unmapped.tsv


def _read(node: File) -> str:
    try:
        return read_guess(read_start(node)) if node.size <= _MAX_SIDECAR_BYTES else ""
    except Failure as failure:
        if failure.cause is Cause.INTERRUPTED:
            raise
        return ""  # a suggestion less
