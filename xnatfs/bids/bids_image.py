"""An image of a scan on its way to a BIDS name, with the files that belong to it.

Used by `dataset`, `run_numbers` and `field_maps`.
Threading: immutable values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from xnatfs.bids.image_files import Picture
from xnatfs.bids.mapping import Fields, Rule
from xnatfs.bids.schema import KINDS, SuffixKind
from xnatfs.server.records import FileRecord, ScanRecord


class KnownImage(NamedTuple):
    """What is known of an image that was made: how many volumes it has, and the keys of its sidecar."""

    volumes: int
    fields: Sequence[str]


class ScanFiles(NamedTuple):
    """A scan with the files of its image resource and of its sidecar resource; `problem` says what is wrong
    with all of it.

    Of a scan that has DICOM files alone, `files` are those that are made of these: while nobody knows them,
    those of one image. `assumed` is that image. Once they are known, `images` has what is known of each, by
    path, and `refused` why others were not made.

    `fields` are those of sidecars, by path; of a scan whose place they decide.
    """

    scan: ScanRecord
    resource: str = ""
    files: Sequence[FileRecord] = ()
    sidecars: Sequence[FileRecord] = ()
    problem: str = ""
    assumed: FileRecord | None = None
    images: Mapping[str, KnownImage] = MappingProxyType({})
    refused: Sequence[str] = ()
    fields: Mapping[str, Fields] = MappingProxyType({})


@dataclass(frozen=True)
class BidsImage:
    """An image on its way to a name."""

    given: ScanFiles
    picture: Picture
    datatype: str
    suffix: str
    entities: Mapping[str, str]
    rule: Rule
    alone: bool  # the only image of its scan
    moment: float = 0.0  # when its scan began, in seconds, or in what order; compares within a session

    @property
    def kind(self) -> SuffixKind:
        return KINDS[self.datatype][self.suffix]

    @property
    def known(self) -> KnownImage | None:
        """What is known of it, if it was made here."""
        return self.given.images.get(self.picture.record.path)

    def companion(self, *endings: str) -> FileRecord | None:
        """See `companion`."""
        return companion(self.given, self.picture, self.alone, *endings)


def companion(given: ScanFiles, image: Picture, alone: bool, *endings: str) -> FileRecord | None:
    """The file of the same name with another ending, beside the image or in the sidecar resource."""
    for files in (given.files, given.sidecars):
        by_path = {record.path.lower(): record for record in files}
        for ending in endings:
            wanted = f"{image.stem}{ending}".lower()
            file_name = wanted.rsplit("/", 1)[-1]
            companion = by_path.get(wanted)
            if companion is None and files is given.sidecars:
                companion = next(
                    (record for path, record in by_path.items() if path.rsplit("/", 1)[-1] == file_name),
                    None,
                )
            if companion is not None:
                return companion
    if alone:
        for files in (given.files, given.sidecars):
            for ending in endings:
                bare = ending.lstrip("._")
                some = [
                    record
                    for record in files
                    if re.search(rf"(\A|[/._-]){re.escape(bare)}\Z", record.path, re.IGNORECASE)
                ]
                if len(some) == 1:
                    return some[0]
    return None
