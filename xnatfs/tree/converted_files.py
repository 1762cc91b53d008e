"""Files that are made of a scan's DICOM files: what they are made from, and their nodes.

Used by `nifti_view`, which converts a scan when its folder is looked into, and by `bids_view`, which names
images before they are converted.
Threading: any thread; immutable values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from xnatfs.convert.converted_scans import (
    IMAGE_SUFFIX,
    ConvertedScans,
    DicomFiles,
    not_made,
)
from xnatfs.convert.converted_store import ConvertedScan
from xnatfs.server.records import ResourceRecord
from xnatfs.tree.node import LARGER_THAN_ANY_TABLE, File, OpenContent, UnknownSize, inode_of
from xnatfs.tree.resource import ResourcePlace, Sources, file_nodes

_DICOM = ("DICOM", "secondary")  # labels, the better one first
_IMAGES = re.compile(r"nifti.*|nii", re.IGNORECASE)
# Of a sidecar, and of b-values: larger than any. The BIDS validator reserves as much memory.
_UNKNOWN_TEXT = UnknownSize(2**20)


def dicom_source(resources: Sequence[ResourceRecord], prefer_dicom: bool = False) -> ResourceRecord | None:
    """What a scan is converted from; None if it need not be, or cannot.

    Args:
        resources: of the scan.
        prefer_dicom: even if the server has NIfTI of it.
    """
    if not prefer_dicom and any(
        _IMAGES.fullmatch(one.label) or one.format.upper() == "NIFTI" for one in resources
    ):
        return None
    dicom = [one for label in _DICOM for one in resources if one.label == label]
    dicom += [one for one in resources if one.format.upper() == "DICOM"]
    return next(iter(dicom), None)


@dataclass(frozen=True)
class DicomScan:
    """A scan that is converted, or may be.

    Attributes:
        key: names what comes of it.
        place: what it belongs to.
    """

    conversions: ConvertedScans
    key: str
    files: DicomFiles
    place: ResourcePlace

    @property
    def known(self) -> ConvertedScan | None:
        """What came of it, if that is known already."""
        return self.conversions.known(self.key)

    def converted(self) -> ConvertedScan:
        """What came of it, converted now unless it was.

        Raises:
            Failure: as `ConvertedScans.get`.
        """
        return self.conversions.get(self.key, self.files)

    def xattrs(self) -> dict[str, str]:
        """The attributes of a file of it."""
        made = {"made-by": "xnatfs, dcm2niix", "source": self.files.records[0].base, "key": self.key}
        return {**self.place.xattrs, **made}


def dicom_scan(
    sources: Sources, conversions: ConvertedScans, place: ResourcePlace, resource: ResourceRecord
) -> DicomScan | None:
    """A scan with the files of its resource, listed now unless they were; None if there are none.

    Raises:
        Failure: they cannot be listed, or NOT_INSTALLED.
    """
    listing = sources.listing_service.files.of(place.project, resource)
    nodes = file_nodes(sources, place, listing, resource)
    if not nodes:
        return None

    def made() -> DicomScan:
        records = [node.record for node in nodes.values()]
        counted = resource.file_count if resource.file_count != len(records) else None
        files = DicomFiles(records, sorted(node.version for node in nodes.values()), counted)
        return DicomScan(conversions, conversions.key(files), files, place)

    return listing.memo.get(("dicom scan", place.project, resource, place.mtime), made)


@dataclass(frozen=True)
class ConvertedFile(File):
    """A file of a converted scan.

    Attributes:
        stored: its name in `ConvertedScan.sizes`.
    """

    scan: DicomScan
    stored: str

    @property
    def inode(self) -> int:
        return inode_of("converted", self.scan.key, self.stored)

    @property
    def mtime(self) -> float:
        return self.scan.place.mtime or 0.0

    @property
    def size(self) -> int:
        made = self.scan.known
        size = None if made is None else made.sizes.get(self.stored)
        return _unknown(self.stored) if size is None else size

    @property
    def listed_size(self) -> int:
        # A program may have looked at it, here or under another path, while nobody knew its size.
        return _unknown(self.stored) if self.scan.conversions.just_learnt(self.scan.key) else self.size

    @property
    def version(self) -> str:
        return f"{self.scan.key} {self.stored}"

    def xattrs(self) -> dict[str, str]:
        return self.scan.xattrs()

    def open(self) -> OpenContent:
        return self.scan.conversions.open(self.scan.key, self.scan.files, self.stored)


@dataclass(frozen=True)
class AssumedFile(File):
    """A file that is there if scans turn out to be the images they are listed as.

    Attributes:
        listed_as: what it is if they do.
        scans: those of which that is not known yet; of the first it is a part.
        now: what has this name now; None if nothing has. Called once all is known of the scans.
    """

    listed_as: File
    scans: tuple[DicomScan, ...]
    now: Callable[[], File | None]

    def _now(self) -> File | None:
        return self.now() if all(scan.known is not None for scan in self.scans) else None

    @property
    def inode(self) -> int:
        return self.listed_as.inode

    @property
    def mtime(self) -> float:
        return self.listed_as.mtime

    @property
    def size(self) -> int:
        return (self._now() or self.listed_as).size

    @property
    def listed_size(self) -> int:
        return (self._now() or self.listed_as).listed_size

    @property
    def version(self) -> str:
        return (self._now() or self.listed_as).version

    def xattrs(self) -> dict[str, str]:
        return self.listed_as.xattrs()

    def open(self) -> OpenContent:
        made = [scan.converted() for scan in self.scans]
        found = self.now()
        if found is None:
            raise not_made(made[0], self.scans[0].files.records[0].base)
        return found.open()


def _unknown(stored: str) -> UnknownSize:
    return LARGER_THAN_ANY_TABLE if stored.endswith(IMAGE_SUFFIX) else _UNKNOWN_TEXT


def problem_lines(refused: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What was refused, as part and reason."""
    return [(label.lstrip("_") or "all", reason) for label, reason in refused]
