"""All files of a resource at once, into a folder: those that are in the cache from there, the others as
XNAT's zip, and what the zip does not bring one by one.

Used by `convert.converted_scans`. What is converted is kept, and its DICOM files are not needed again: they
do not go into the content cache, where they would push out what somebody wants to read again.
Threading: any thread; called in workers.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from xnatfs import retry
from xnatfs.content.context import TransferContext
from xnatfs.content.stream_tuner import StreamMeter
from xnatfs.content.temporary import TemporaryDownloads
from xnatfs.disk import disk_failure
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_SLACK = 64 * 2**20  # bytes that may come besides twice what is listed: sizes in catalogs can be wrong


def _nothing(_: Path) -> None:
    """Nothing is to be done with a file."""


class SeriesFetcher:
    """Fetches resources.

    Args:
        context: where they come from, and what is in the content cache.
        singly: fetches a file by itself.
    """

    def __init__(self, context: TransferContext, singly: TemporaryDownloads) -> None:
        self._context = context
        self._singly = singly

    def fetch(
        self, records: Sequence[FileRecord], folder: Path, arrived: Callable[[Path], object] = _nothing
    ) -> list[Path]:
        """Put the files of a resource into `folder`, each checked against its digest; returns where they are.

        Args:
            arrived: called with each as soon as it is there, while the server sends the next ones.

        Raises:
            Failure: one of them cannot be had, or the disk has no room for them.
        """
        if shutil.disk_usage(folder).free < sum(record.size for record in records):
            raise Failure(Cause.NO_SPACE, str(folder))
        places = {record.path: folder / f"{number:06d}" for number, record in enumerate(records)}
        try:
            missing: list[FileRecord] = []
            for record in records:
                if self._from_cache(record, places[record.path]):
                    arrived(places[record.path])
                else:
                    missing.append(record)
            if len(missing) > 1:
                self._from_zip(missing, places, arrived)
            for record in records:
                if not places[record.path].exists():
                    self._alone(record, places[record.path])
                    arrived(places[record.path])
        except OSError as error:
            raise error if isinstance(error, Failure) else disk_failure(error, str(folder)) from error
        return list(places.values())

    def _from_cache(self, record: FileRecord, place: Path) -> bool:
        entry = self._context.cache.open(self._context.digests.key(record))
        if entry is None:
            return False
        try:
            if not record.digest or entry.verified != "md5":
                return False
            with open(entry.fd, "rb", closefd=False) as source, place.open("xb") as target:
                source.seek(0)
                shutil.copyfileobj(source, target)
            return True
        finally:
            entry.close()

    def _from_zip(
        self, records: Sequence[FileRecord], places: dict[str, Path], arrived: Callable[[Path], object]
    ) -> None:
        try:
            with retry.Attempts(retry.ZIP) as attempts:
                while True:
                    try:
                        return self._receive(records, places, arrived)
                    except Failure as failure:
                        if not attempts.again(failure):
                            raise
        except Failure as failure:
            if failure.cause in (Cause.INTERRUPTED, Cause.NO_SPACE, Cause.TOO_LARGE):
                raise
            log.info("the zip of %s ended: %s", records[0].base, failure)  # what is missing comes singly

    def _receive(
        self, records: Sequence[FileRecord], places: dict[str, Path], arrived: Callable[[Path], object]
    ) -> None:
        wanted = {record.path: record for record in records}
        left = 2 * sum(record.size for record in records) + _SLACK
        asked = time.monotonic()
        with self._context.contents.zip(records[0]) as members:
            self._context.link.answered(time.monotonic() - asked, len(records))
            with self._context.stream() as meter:
                for path, _, pieces in members:
                    record = wanted.get(path)
                    place = places.get(path)
                    if record is None or place is None or place.exists():
                        for piece in pieces:  # the stream has to be read past it
                            left = self._counted(piece, left, meter)
                        continue
                    draft = place.with_suffix(".part")
                    digest = hashlib.md5(usedforsecurity=False)
                    size = 0
                    with draft.open("wb") as target:
                        for piece in pieces:
                            left = self._counted(piece, left, meter)
                            target.write(piece)
                            digest.update(piece)
                            size += len(piece)
                    if size == record.size and record.digest in ("", digest.hexdigest()):
                        draft.rename(place)
                        arrived(place)
                    else:
                        draft.unlink()  # by itself it gets the benefit of a second look

    def _counted(self, piece: bytes, left: int, meter: StreamMeter) -> int:
        self._context.received(len(piece), meter)
        if len(piece) > left:  # a bomb is not read to its end
            raise Failure(Cause.TOO_LARGE, detail="the zip has far more bytes than are listed")
        if self._context.workers.closed:
            raise Failure(Cause.INTERRUPTED, detail="the mount is ending")
        return left - len(piece)

    def _alone(self, record: FileRecord, place: Path) -> None:
        found = self._singly.fetch(record, listed=True)
        with found.stream as source, place.open("xb") as target:
            shutil.copyfileobj(source, target)
