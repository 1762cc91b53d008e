"""A cohort of any size with measurements: for benchmarks and scale tests of tables.

Used by `scale.py`. A session has FREESURFER6 (true numbers in aseg, aparc and the hippocampal subfields, and
fifty other files), ASHS, and, if asked for, SPM12's maps in their real size. Nothing is held: catalogs and
contents are made again whenever they are looked at. The numbers are those of `measurements.py` by accession
id; the maps' volumes are `tissue_volume`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np

from xnatfs.demo.data import freesurfer, pipelines
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.images import Nifti1Header
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import BytesContent, CatalogEntry, ComputedContent, Content, LazyEntries, Project

OTHERS = tuple(
    f"{folder}/{name}" for folder in ("label", "mri", "surf", "touch", "trash") for name in "abcdefghij"
)
OTHER_SIZE = 2_000
STATS_SIZE = 10_000  # of aseg.stats and of each aparc.stats, filled up in a line that nobody reads
FREESURFER_SIZE = 150_000  # of the whole resource: its log fills it up
ASHS_SIZE = 20_000
SHAPE = (176, 240, 256)  # of SPM12's maps: 1 mm
BAND = {
    "c1": 1_240_000,
    "c2": 1_000_000,
    "c3": 700_000,
}  # how many voxels in the middle of a map are not zero


@dataclass(frozen=True, slots=True)
class MadeContent:
    """Bytes that are made when they are read; a few that were read last are kept."""

    make: Callable[[str], bytes]
    key: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        return self.make(self.key)[offset : offset + length]


def _filled(text: bytes) -> bytes:
    """A stats file of exactly `STATS_SIZE` bytes."""
    return text.replace(b"# user     xnat", b"# user     xnat" + b" " * (STATS_SIZE - len(text)), 1)


@lru_cache(maxsize=64)
def _aseg(session: str) -> bytes:
    return _filled(freesurfer.aseg_stats(session, "6", session))


@lru_cache(maxsize=64)
def _left(session: str) -> bytes:
    return _filled(freesurfer.aparc_stats(session, "6", "lh", session))


@lru_cache(maxsize=64)
def _right(session: str) -> bytes:
    return _filled(freesurfer.aparc_stats(session, "6", "rh", session))


@lru_cache(
    maxsize=640
)  # 670 MB: making one takes twice as long as sending it at 1 Gbit/s, which is not what benchmarks are about
def _map(key: str) -> bytes:
    """A map of SPM12: a band of noise among zeros, as gzip."""
    header = Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(SHAPE)
    header.set_slope_inter(1 / 255, 0.0)
    header["vox_offset"], header["magic"], header["sform_code"] = 352, b"n+1", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, -88), (0, 1, 0, -120), (0, 0, 1, -128)
    count = int(np.prod(SHAPE))
    band = _band(key)
    before = (count - len(band)) // 2
    after = count - len(band) - before
    parts = [
        *_stored(header.binaryblock + b"\0\0\0\0"),
        _zeros(before),
        *_stored(band),
        _zeros(after),
        b"\x01\x00\x00\xff\xff",
    ]
    plain = header.binaryblock + bytes(4 + before) + band + bytes(after)
    return (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
        + b"".join(parts)
        + struct.pack("<II", zlib.crc32(plain), len(plain))
    )


def _band(key: str) -> bytes:
    size = BAND[key.rpartition("/")[2]]
    return ComputedContent(key, size).read(0, size)


def _stored(data: bytes) -> list[bytes]:
    """Stored blocks of deflate, of whole bytes."""
    blocks = []
    for start in range(0, len(data), 65535):
        piece = data[start : start + 65535]
        blocks += [struct.pack("<BHH", 0, len(piece), 0xFFFF ^ len(piece)), piece]
    return blocks


@lru_cache(maxsize=8)
def _zeros(count: int) -> bytes:
    """A block of so many zeros in deflate's fixed codes, and an empty stored block that ends at a whole
    byte.
    """
    literal, repeat = "00110000", "1100010100000"  # a zero; the byte before 258 times again
    repeats, rest = divmod(count - 1, 258)
    bits = "010" + literal + repeat * repeats + literal * rest + "0000000" + "000"
    packed = np.packbits(np.frombuffer(bits.encode(), dtype=np.uint8) - ord("0"), bitorder="little").tobytes()
    return packed + b"\x00\x00\xff\xff"


@lru_cache(maxsize=3)
def _map_size(name: str) -> int:
    return len(_map(f"size/{name}"))


def tissue_volume(session: str, name: str) -> float:
    """The volume in mm3 that SPM12's map `name` (c1, c2, c3) of a session says."""
    values = np.frombuffer(_band(f"{session}/{name}"), dtype=np.uint8)
    return float(values.sum(dtype=np.int64)) * float(np.float32(1 / 255))


def add(make: Maker, sessions: int, images: bool, digest: str | None) -> Project:
    """Add project COHORT with this many sessions, each of a subject of its own."""
    project = make.project(
        "COHORT", "Cohort", members=["demo"], description=f"{sessions} sessions with measurements"
    )
    for number in range(1, sessions + 1):
        subject = make.subject(
            project, f"c{number:05d}", gender="female" if number % 2 else "male", yob=str(1940 + number % 40)
        )
        session = make.experiment(
            subject,
            f"c{number:05d}_MR1",
            date=f"20{10 + number % 14}-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
        )
        stamp = make.archive.clock
        make.resource(
            session,
            "FREESURFER6",
            _entries(_freesurfer, session.id, subject.label, FREESURFER_SIZE, 57, stamp, digest),
        )
        make.resource(
            session, "ASHS", _entries(_ashs, session.id, subject.label, ASHS_SIZE, 8, stamp, digest)
        )
        if images:
            # Without digests: for them the maps would have to be made at every listing.
            size = sum(_map_size(name) for name in BAND)
            make.resource(
                session, "SPM12_SEGMENT", _entries(_spm, session.id, subject.label, size, 3, stamp, "")
            )
    return project


_Contents = dict[str, Content]


def _entries(
    of: Callable[[str, str], _Contents],
    session: str,
    subject: str,
    size: int,
    count: int,
    stamp: datetime,
    digest: str | None,
) -> LazyEntries:
    def make() -> list[CatalogEntry]:
        return [
            CatalogEntry(path, content, stamp, digest=digest)
            for path, content in of(session, subject).items()
        ]

    return LazyEntries(make, count, size, keep=False)


def _freesurfer(session: str, subject: str) -> _Contents:
    files: _Contents = {name: ComputedContent(f"{session}/{name}", OTHER_SIZE) for name in OTHERS}
    files["stats/aseg.stats"] = MadeContent(_aseg, session, STATS_SIZE)
    files["stats/lh.aparc.stats"] = MadeContent(_left, session, STATS_SIZE)
    files["stats/rh.aparc.stats"] = MadeContent(_right, session, STATS_SIZE)
    for side in ("lh", "rh"):
        files[f"mri/{side}.hippoSfVolumes-T1.v10.txt"] = BytesContent(
            freesurfer.volumes_text(m.hippocampus(session, "v10", side))
        )
    files["scripts/recon-all.done"] = BytesContent(b"")
    rest = FREESURFER_SIZE - sum(content.size for content in files.values())
    files["scripts/recon-all.log"] = ComputedContent(f"{session}/log", rest)
    return {f"{subject}/{path}": files[path] for path in sorted(files)}


def _ashs(session: str, subject: str) -> _Contents:
    files: _Contents = {
        path: BytesContent(data) for path, data in pipelines.ashs_files(session, subject).items()
    }
    files[f"final/{subject}_log.txt"] = ComputedContent(
        f"{session}/ashs", ASHS_SIZE - sum(content.size for content in files.values())
    )
    return files


def _spm(session: str, subject: str) -> _Contents:
    return {
        f"{name}{subject}_T1.nii.gz": MadeContent(_map, f"{session}/{name}", _map_size(name)) for name in BAND
    }
