"""The scans of a server as NIfTI: fetched as one zip, converted once, kept.

Used by the tree's `views/PROJECT/nifti/` and `bids/`. Of several who look into one scan, one conversion
serves all. What the files are to blame for is kept as refused, until `refresh`; what the server or this
machine is to blame for is tried again at the next look.
Threading: any thread; conversions run in a pool of their own, one less than there are processors, and
downloads in another.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from xnatfs import extras
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.config import Limits
from xnatfs.content.series_fetch import SeriesFetcher
from xnatfs.convert.conversion import Conversion, conversion_key, convert
from xnatfs.convert.converted_store import ConvertedScan, ConvertedStore
from xnatfs.convert.converter import Converter, find_converter
from xnatfs.convert.headers import ImageFile, prepare, scanned
from xnatfs.convert.pack import converted_by, stripped
from xnatfs.convert.refusal import Refusal
from xnatfs.convert.walk_guard import WalkGuard
from xnatfs.diagnostics import Diagnostics
from xnatfs.disk import OpenedFile
from xnatfs.errors import Cause, Failure, MissingExtra
from xnatfs.server.records import FileRecord

_CACHE_FRACTION = 4  # all converted scans may take one part in this many of the cache's size, beside it
MAIN_IMAGE = "image"  # the only image of a scan in the store; the names of several begin with it
IMAGE_SUFFIX = ".nii.gz"


class DicomFiles(NamedTuple):
    """The files of a scan's DICOM resource.

    Attributes:
        versions: names the content of each, as in the content cache.
        counted: how many the server counts, where these are others than it lists.
    """

    records: Sequence[FileRecord]
    versions: Sequence[str]
    counted: int | None = None


class ConvertedScans:
    """The converted scans of one server and user.

    Args:
        folder: where they are kept.
        strip: keys that are left out of sidecars, see `pack.stripped`.
    """

    def __init__(
        self,
        fetcher: SeriesFetcher,
        folder: Path,
        limits: Limits,
        diagnostics: Diagnostics,
        strip: Sequence[str] = (),
    ) -> None:
        self._stripped = stripped(strip)
        self._fetcher = fetcher
        self._limits = limits
        self._store = ConvertedStore(folder, limits.cache_size // _CACHE_FRACTION)
        self._guard = WalkGuard(diagnostics, time.monotonic)
        # One is fetched while another is converted.
        processors = os.cpu_count() or 1
        self._fetching = WorkerPool("fetch series", processors + 1)
        self._converting = WorkerPool("convert", max(1, processors - 1))
        self._flights = SingleFlight(self._fetching)
        self._installed = False
        self._prepared = False
        self._asked = threading.local()
        self._guarded = True

    @property
    def missing(self) -> str:
        """How to install what conversion needs; "" if it is there."""
        if not self._installed:
            try:
                extras.check("convert")
            except MissingExtra as error:
                return str(error)
            self._installed = True
        return ""

    def prepare(self) -> None:
        """Somebody is on the way to scans: load meanwhile, once, what reads them, which takes as long as the
        listings on the way.
        """
        if not self._prepared:
            self._prepared = True
            self._converting.submit(prepare)

    def made_by(self) -> dict[str, str]:
        """What converts, as in BIDS' `GeneratedBy`.

        Raises:
            Failure: NOT_INSTALLED.
        """
        return converted_by(_converter())

    def key(self, scan: DicomFiles) -> str:
        """Names what comes of a scan.

        Raises:
            Failure: NOT_INSTALLED.
        """
        return conversion_key(scan.versions, _converter(), self._stripped, scan.counted)

    def known(self, key: str) -> ConvertedScan | None:
        """What came of a scan, if that is known already; nothing is converted."""
        return self._store.get(key)

    def just_learnt(self, key: str) -> bool:
        """Whether it became known so recently that the kernel may still have sizes from before."""
        return time.monotonic() - self._store.learnt(key) < self._limits.kernel_ttl + 1

    def get(self, key: str, scan: DicomFiles) -> ConvertedScan:
        """What came of a scan, converted now unless it was.

        Raises:
            Failure: it cannot be fetched, TOO_MANY_CONVERSIONS, TIMED_OUT, INTERRUPTED.
        """
        return self._store.get(key) or self._convert(key, scan)

    def _convert(self, key: str, scan: DicomFiles) -> ConvertedScan:
        if self._guarded and not getattr(self._asked, "for_it", False):
            self._guard.begin(key, scan.records[0].base)
        return self._flights.get(key, lambda: self._make(key, scan), self._limits.table_deadline)

    def open(self, key: str, scan: DicomFiles, suffix: str) -> OpenedFile:
        """A file of a converted scan.

        Args:
            suffix: its name in `ConvertedScan.sizes`.

        Raises:
            Failure: as `get`; REFUSED or OTHER_IMAGES if no such file came of it; CACHE_BROKEN if it is not
                there.
        """
        made = self.get(key, scan)
        if suffix not in made.sizes:
            raise not_made(made, scan.records[0].base)
        for _ in range(2):
            opened = self._store.open(key, suffix)
            if opened is not None:
                self._guard.read(key)
                return opened
            self._convert(key, scan)  # it was removed for room
        raise Failure(Cause.CACHE_BROKEN, scan.records[0].base)

    @contextmanager
    def asked_for(self) -> Iterator[None]:
        """Within this block, this thread converts because somebody said so: no walk to be stopped."""
        self._asked.for_it = True
        try:
            yield
        finally:
            self._asked.for_it = False

    def ask_for_all(self) -> None:
        """From now on all that is looked into was named by somebody: `xnatfs get`."""
        self._guarded = False

    def refresh(self) -> None:
        """What was refused is tried again at the next look."""
        self._store.forget_refused()

    def close(self) -> None:
        """Start nothing more."""
        self._fetching.close()
        self._converting.close()

    def _make(self, key: str, scan: DicomFiles) -> ConvertedScan:
        made = self._store.get(key)
        if made is not None and self._store.whole(made):  # by the flight before
            return made
        converter = find_converter()
        self.prepare()  # while the server answers
        with self._store.workplace() as place:
            source = place / "source"
            source.mkdir()
            known: dict[Path, ImageFile | Refusal | None] = {}

            def read_header(path: Path) -> None:
                with suppress(OSError):  # it is read once more, and says so then
                    known[path] = scanned(path)

            def arrived(path: Path) -> None:  # beside the next ones, which arrive meanwhile
                self._converting.submit(lambda: read_header(path))

            paths = self._fetcher.fetch(scan.records, source, arrived)

            def make(target: Path) -> Conversion:
                return convert(
                    paths,
                    target,
                    MAIN_IMAGE,
                    converter,
                    listed=scan.counted,
                    stripped=self._stripped,
                    known=known,
                )

            return self._converting.do(lambda: self._store.put(key, place, make), math.inf)


def _converter() -> Converter:
    try:
        return find_converter()
    except MissingExtra as error:
        raise Failure(Cause.NOT_INSTALLED, detail=str(error)) from error


def not_made(made: ConvertedScan, subject: str) -> Failure:
    """The error to raise for an image that did not come of a scan."""
    reasons = "; ".join(dict.fromkeys(one.reason for one in made.refused))
    if not made.sizes:
        return Failure(Cause.REFUSED, subject, reasons)
    names = ", ".join(label_of(name) for name in made.sizes if name.endswith(IMAGE_SUFFIX))
    return Failure(Cause.OTHER_IMAGES, subject, f"{names}{reasons and f'; {reasons}'}")


def label_of(stored: str) -> str:
    """What tells an image from the others of its scan, as "_echo-2"; "" for the only one.

    Args:
        stored: the name of a file of it in the store.
    """
    return stored.removeprefix(MAIN_IMAGE).partition(".")[0]


def shown_name(base: str, stored: str) -> str:
    """The name a file of the store is shown by."""
    return base + stored.removeprefix(MAIN_IMAGE)
