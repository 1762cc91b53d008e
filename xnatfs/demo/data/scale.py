"""Archives of any size, with nothing on disk and little in memory: for benchmarks and scale tests.

Used by `build("scale", ...)`. Contents are computed from their paths; catalogs are made when they are first
looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from xnatfs.demo.data import cohort as measured
from xnatfs.demo.data.dicom import Series, slices
from xnatfs.demo.data.images import Nifti1Header, head
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, CatalogEntry, ComputedContent, LazyEntries

_HEADER_BYTES = 352


@dataclass(frozen=True, slots=True)
class NiftiContent:
    """A NIfTI file of any size: a true header, and computed voxels."""

    head: bytes
    voxels: ComputedContent

    @property
    def size(self) -> int:
        return len(self.head) + self.voxels.size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        head = self.head[offset : offset + length]
        return head + self.voxels.read(max(0, offset - len(self.head)), length - len(head))


def large_nifti(key: str, size: int) -> NiftiContent:
    """A `.nii` of exactly `size` bytes: slices of 1024 x 1024 unsigned bytes, or one row where it is smaller
    than that.

    What is left over after the last whole slice lies behind the last voxel, which NIfTI allows.
    """
    count = size - _HEADER_BYTES
    shape = (1024, 1024, count >> 20) if count >> 20 else (min(count, 32767), 1, 1)
    header = Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["vox_offset"] = _HEADER_BYTES
    header["magic"] = b"n+1"
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    return NiftiContent(header.binaryblock + b"\0\0\0\0", ComputedContent(key, count))


def _catalog(
    prefix: str, names: Callable[[int], str], count: int, size: int, stamp: datetime, digest: str | None
) -> LazyEntries:
    def make() -> list[CatalogEntry]:
        return [
            CatalogEntry(names(n), ComputedContent(f"{prefix}/{names(n)}", size), stamp, digest=digest)
            for n in range(1, count + 1)
        ]

    return LazyEntries(make, count, count * size)


def build(
    sessions: int = 1000,
    scans: int = 8,
    files: int = 20,
    file_size: int = 150_000,
    sessions_per_subject: int = 1,
    resource: str = "DICOM",
    digests: bool = True,
    big_files: Mapping[str, int] | None = None,
    big_digests: bool = False,
    flat: int = 0,
    flat_size: int = 4096,
    dicom: int = 0,
    dicom_pixels: int = 272,
    dicom_sessions: int = 1,
    cohort: int = 0,
    cohort_images: bool = False,
    types: int = 0,
    nifti: int = 0,
    nifti_size: int = 200_000,
) -> Archive:
    """Project SCALE: `sessions` x `scans` x `files` files of `file_size` bytes in resources called
    `resource`.

    `digests=False`: the catalogs have none. With digests, a file's MD5 is computed when its catalog is first
    listed. `big_files` (file name -> bytes, such as `{"one.nii": 1 << 30}`) makes a project BIG, one session
    and one resource NIFTI for each; their digests are left out unless `big_digests`, because hashing 1 GiB
    takes seconds. A name ending `.nii` is an image that opens.

    Counts that make a further project: `flat`, a project FLAT: one session with one resource FLAT of that
    many files of `flat_size` bytes. `dicom`, a project DCM: `dicom_sessions` sessions with one scan of that
    many true DICOM slices of `dicom_pixels` squared (272: 150 kB each), which are kept in memory, once: of
    each session one slice is another.
    `cohort`, a project COHORT: that many sessions with the results of FreeSurfer 6 and ASHS (see
    `cohort.py`); with `cohort_images` also SPM12's tissue maps in their real size.
    `nifti`, a project NIFTI: that many sessions with one scan T1, whose resource NIFTI is one file of
    `nifti_size` bytes.
    `types`: how many types the scans of SCALE have in all, in turn (0: one for each scan of a session).
    """
    archive = Archive(site="DEMO")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15, 0, 123000))
    make.user("admin", admin=True)
    make.user("demo")
    make.user("outsider")
    digest = None if digests else ""
    suffix = ".dcm" if resource == "DICOM" else ".bin"
    if sessions:
        project = make.project(
            "SCALE",
            "Scale",
            members=["demo"],
            description=f"{sessions} sessions, {scans} scans, {files} files",
        )
        for number in range(1, sessions + 1):
            if (number - 1) % sessions_per_subject == 0:
                subject = make.subject(project, f"sub{(number - 1) // sessions_per_subject + 1:05d}")
            session = make.experiment(
                subject, f"{subject.label}_MR{(number - 1) % sessions_per_subject + 1}", date="2024-01-08"
            )
            for scan_number in range(1, scans + 1):
                kind = ((number - 1) * scans + scan_number - 1) % types + 1 if types else scan_number
                scan = make.scan(session, str(scan_number), f"TYPE{kind}", frames=str(files))
                catalog = _catalog(
                    f"{session.id}/{scan_number}",
                    lambda n: f"{n:04d}{suffix}",
                    files,
                    file_size,
                    archive.clock,
                    digest,
                )
                make.resource(scan, resource, catalog, format=resource, content="RAW")
    if big_files:
        project = make.project("BIG", "Single large files", members=["demo"])
        subject = make.subject(project, "big")
        for number, (name, size) in enumerate(big_files.items(), 1):
            session = make.experiment(subject, f"big_MR{number}", date="2024-01-08")
            content = (
                large_nifti(f"big/{name}", size)
                if name.endswith(".nii")
                else ComputedContent(f"big/{name}", size)
            )
            entry = make.entry(name, content, digest=None if big_digests else "")
            make.resource(make.scan(session, "1", "T1"), "NIFTI", [entry], format="NIFTI")
    if flat:
        project = make.project("FLAT", "One resource with very many files", members=["demo"])
        session = make.experiment(make.subject(project, "flat"), "flat_MR1", date="2024-01-08")
        make.resource(
            session,
            "FLAT",
            _catalog("flat", lambda n: f"{n:06d}.bin", flat, flat_size, archive.clock, digest),
        )
    if dicom:
        project = make.project("DCM", "One scan of true DICOM files", members=["demo"])
        subject = make.subject(project, "dcm", "female")
        series = Series("DCM", "dcm", "dcm_MR1", 1, "T1", "20240108", "091500", "F")
        volume = head("DCM/T1", (dicom_pixels, dicom_pixels, dicom))
        files_made = slices(series, volume, (1.0, 1.0, 1.0))
        first, *_ = files_made
        for number in range(1, dicom_sessions + 1):
            session = make.experiment(subject, f"dcm_MR{number}", date="2024-01-08")
            own = files_made[first] if number == 1 else files_made[first][:-2] + struct.pack("<H", number)
            added = make.resource(
                make.scan(session, "1", "T1", frames=str(dicom)),
                "DICOM",
                {**files_made, first: own},
                format="DICOM",
                content="RAW",
            )
            if not digests:
                for entry in added.entries:
                    entry.digest = ""
    if nifti:
        project = make.project(
            "NIFTI", "One image a session", members=["demo"], description=f"{nifti} sessions"
        )
        for number in range(1, nifti + 1):
            session = make.experiment(
                make.subject(project, f"n{number:05d}"), f"n{number:05d}_MR1", date="2024-01-08"
            )
            added = make.resource(make.scan(session, "1", "T1"), "NIFTI", format="NIFTI")
            added.entries = _catalog(
                session.id, lambda n: f"image{n}.nii.gz", 1, nifti_size, archive.clock, digest
            )
    if cohort:
        measured.add(make, cohort, cohort_images, digest)
    return archive
