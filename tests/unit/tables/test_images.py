"""Sums over images against nibabel and numpy."""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys
import tracemalloc
import zlib
from fractions import Fraction
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tables.support import session, value
from xnatfs.tables.parse import nifti
from xnatfs.tables.pipelines.fsl import STRUCTURES
from xnatfs.tables.spec import ParseError

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def image(
    data: Any,
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0),
    slope: float = 1.0,
    inter: float = 0.0,
    qfac: int = 1,
    **more: Any,
) -> bytes:
    """A NIfTI file of stored numbers; `data * slope + inter` are its values."""
    kind = nib.Nifti2Image if more.get("two") else nib.Nifti1Image
    made = kind(data, np.diag([*voxel, 1.0]), dtype=data.dtype)
    made.header.set_data_dtype(data.dtype)
    header = made.header.as_byteswapped(">") if more.get("big") else made.header.copy()
    header["pixdim"][:4] = (qfac, *voxel)
    header["scl_slope"], header["scl_inter"] = slope, inter
    header["vox_offset"] = more.get("offset", 544 if more.get("two") else 352)
    header["magic"] = b"n+2" if more.get("two") else b"n+1"
    start = header.binaryblock
    start += b"\0" * (int(header["vox_offset"]) - len(start))
    stored = data.astype(data.dtype.newbyteorder(">" if more.get("big") else "<"))
    plain = bytes(start + stored.tobytes(order="F"))
    return gzip.compress(plain, 1, mtime=0) if more.get("packed") else plain


def truth(content: bytes) -> tuple[Any, float]:
    """The values and the voxel volume, read by nibabel."""
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    kind = nib.Nifti2Image if content[4:7] == b"n+2" else nib.Nifti1Image
    held = kind.from_bytes(content)
    return np.asarray(held.dataobj), float(np.prod(np.abs(held.header["pixdim"][1:4].astype(np.float64))))


@settings(max_examples=80)
@given(
    st.sampled_from(TYPES),
    st.sampled_from([(1.0, 0.0), (0.0, 0.0), (2.5, -3.0), (1 / 255, 0.0), (float("nan"), 0.0)]),
    st.sampled_from([1, -1]),
    st.sampled_from([(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (0.7, 0.8, 3.1)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "two", "offset"]),
    st.integers(0, 2**32 - 1),
)
def test_the_volume_is_that_of_numpy(
    kind: str, scaling: Any, qfac: int, voxel: Any, packed: bool, big: bool, form: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 9, 3))
    if kind.startswith("float"):
        data = random.normal(0, 100, shape).astype(kind)
    else:
        limits = np.iinfo(kind)
        data = random.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    more = {"offset": {"offset": 1024}, "two": {"two": True}}.get(form, {})
    content = image(data, voxel, *scaling, qfac=qfac, packed=packed, big=big, **more)
    values, size = truth(content)
    found = nifti.volume(io.BytesIO(content))
    scale = max(float(np.abs(values.astype(np.float64)).sum()) * size, 1e-300)
    assert abs(found - float(values.astype(np.float64).sum()) * size) <= 1e-13 * scale
    unscaled = scaling[0] != scaling[0] or scaling[0] == 0 or scaling == (1.0, 0.0)
    if unscaled and not kind.startswith("float"):  # the sum of integers is exact
        exact = sum(int(number) for number in data.ravel())
        edges = np.array(voxel, np.float32 if form != "two" else np.float64).tolist()
        assert found == float(exact * Fraction(edges[0]) * Fraction(edges[1]) * Fraction(edges[2]))


def test_a_threshold_counts_scaled_values() -> None:
    data = np.array([[[0, 127, 128, 255]]], np.uint8)
    content = image(data, (2.0, 2.0, 2.0), 1 / 255)
    values, size = truth(content)
    assert nifti.volume(io.BytesIO(content), 0.5) == pytest.approx(
        values[values >= 0.5].sum() * size, rel=1e-12
    )


def test_labels_are_counted_by_their_scaled_value() -> None:
    data = np.array([[[0, 10, 10, 11, 58]]], np.int16)
    for content in (
        image(data),
        image(data.astype(np.float32)),
        image((data // 1 + 5).astype(np.uint8), inter=-5.0),
    ):
        assert nifti.label_counts(io.BytesIO(content))[1] == {0.0: 1, 10.0: 2, 11.0: 1, 58.0: 1}


GOOD = image(np.ones((4, 5, 6), np.int16))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "shorter than the header"),
        (b"<html>" + b" " * 400, "not a NIfTI image"),
        (GOOD[:340], "shorter than the header"),
        (GOOD[:350], "no voxels"),
        (GOOD[:-1], "1 of its 120 voxels are missing"),
        (GOOD[:360], "116 of its 120 voxels are missing"),
        (gzip.compress(GOOD, mtime=0)[:-20], "damaged or cut short"),
        (gzip.compress(GOOD, mtime=0)[:-6] + b"\0\0\0\0\0\0", "damaged or cut short"),
        (b"\x1f\x8b" + b"\0" * 400, "damaged or cut short"),
        (GOOD[:344] + b"ni1\0" + GOOD[348:], "in another file"),
        (GOOD[:344] + b"\0\0\0\0" + GOOD[348:], "not a NIfTI image"),
        (GOOD[:40] + b"\0\0" + GOOD[42:], "no shape"),
        (GOOD[:70] + b"\x80\0" + GOOD[72:], "type 128"),
        (GOOD[:80] + b"\0\0\x80\x7f" + GOOD[84:], "no voxel size"),
        (image(np.full((2, 2, 2), np.nan, np.float32)), "not numbers"),
        (image(np.full((2, 2, 2), np.inf, np.float64)), "not numbers"),
    ],
)
def test_what_is_no_whole_image_is_refused(content: bytes, sentence: str) -> None:
    for least in (None, 0.5):
        with pytest.raises(ParseError, match=sentence):
            nifti.volume(io.BytesIO(content), least)


@pytest.mark.parametrize("hidden", [False, True])
def test_without_zlib_ng_zlib_unpacks_the_same(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    there = not hidden and importlib.util.find_spec("zlib_ng") is not None  # not every machine has a wheel
    if hidden:
        monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    monkeypatch.setattr(nifti, "_zlib", nifti._inflating())
    assert (nifti._zlib is not zlib) == there
    data = np.random.default_rng(5).integers(0, 255, (101, 90, 80), np.uint8)
    plain = image(data)
    halves = gzip.compress(plain[:1000], mtime=0) + gzip.compress(plain[1000:], mtime=0) + b"\0" * 600
    for content in (plain, gzip.compress(plain, mtime=0), halves):
        assert nifti.volume(io.BytesIO(content)) == int(data.sum(dtype=np.int64))
    packed = bytearray(gzip.compress(plain, mtime=0))
    packed[len(packed) // 2] ^= 1
    for damaged in (bytes(packed), halves[:-700], gzip.compress(plain, mtime=0)[:-1]):
        with pytest.raises(ParseError, match="damaged or cut short"):
            nifti.volume(io.BytesIO(damaged))


def test_the_largest_and_least_bytes_are_summed_exactly() -> None:
    # Three full blocks and a rest, of the values that are first to overflow.
    for kind, number in ((np.uint8, 255), (np.int8, -128)):
        assert nifti.volume(io.BytesIO(image(np.full((128, 96, 65), number, kind)))) == number * 128 * 96 * 65


def test_a_map_is_no_image_of_labels() -> None:
    content = image(np.arange(150_000, dtype=np.int32).reshape(50, 50, 60))
    with pytest.raises(ParseError, match="too many different values"):
        nifti.label_counts(io.BytesIO(content))


def packed_file(path: Any, kind: str, edge: int) -> Any:
    start = image(np.zeros((1, 1, 1), kind))[:352]
    header = nib.Nifti1Header(start[:348])
    header["dim"][:4] = (3, edge, edge, edge)
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(header.binaryblock + b"\0" * 4)
        plane = np.ones((edge, edge), kind).tobytes()
        for _ in range(edge):
            out.write(plane)
    return path


@pytest.mark.parametrize("kind", ["int16", "float64"])
def test_a_large_image_is_never_in_memory(tmp_path: Any, kind: str) -> None:
    edge = 470 if kind == "int16" else 300  # 208 and 216 MB unpacked
    path = packed_file(tmp_path / "large.nii.gz", kind, edge)
    tracemalloc.start()
    try:
        with open(path, "rb") as stream:
            assert nifti.volume(stream, 0.5) == edge**3
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


# --- the tables ---------------------------------------------------------------------------------------------


def probability(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    return image(random.integers(0, 256, (5, 6, 7), np.uint8), (1.5, 1.5, 1.5), 1 / 255, qfac=-1, packed=True)


@pytest.mark.parametrize(
    ("key", "names", "paths"),
    [
        ("spm12/volumes", ("c1", "c2", "c3"), ("c1T1.nii.gz", "c2T1.nii.gz", "c3T1.nii.gz")),
        ("spm12/volumes", ("c1", "c2", "c3"), ("c1T1.nii", "c2T1.nii", "c3T1.nii")),
        (
            "cat12/volumes",
            ("mri/p1", "mri/p2", "mri/p3"),
            ("mri/p1T1.nii.gz", "mri/p2T1.nii.gz", "mri/p3T1.nii.gz"),
        ),
        (
            "fslanat/volumes",
            ("T1_fast_pve_0", "T1_fast_pve_1", "T1_fast_pve_2"),
            (
                "fsl.anat/T1_fast_pve_0.nii.gz",
                "fsl.anat/T1_fast_pve_1.nii.gz",
                "fsl.anat/T1_fast_pve_2.nii.gz",
            ),
        ),
    ],
)
def test_tissue_volumes(key: str, names: tuple[str, ...], paths: tuple[str, ...]) -> None:
    contents = [probability(seed) for seed in range(3)]
    files = dict(zip(paths, contents, strict=True))
    found = session(key, {"c1.json": b"{}", "rc1T1.nii.gz": b"", "mri/mwp1T1.nii.gz": b"", **files})
    assert found.columns == names
    (row,) = found.rows
    for cell, content in zip(row, contents, strict=True):
        values, size = truth(content)
        assert float(cell) == pytest.approx(values.astype(np.float64).sum() * size, rel=1e-12)


def test_subcortical_volumes() -> None:
    random = np.random.default_rng(7)
    data = random.choice([0, 9, *STRUCTURES.values()], (20, 20, 20)).astype(np.int16)
    found = session(
        "fslanat/subcortical", {"fsl.anat/T1_subcort_seg.nii.gz": image(data, (1.0, 1.0, 1.25), packed=True)}
    )
    assert [row[0] for row in found.rows] == list(STRUCTURES)
    for name, label in STRUCTURES.items():
        assert float(value(found, "volume", region=name)) == (data == label).sum() * 1.25
