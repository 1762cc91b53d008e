"""The check on its own: a right image is accepted, and each way of being wrong is found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from xnatfs.convert.check import check, read_sidecar
from xnatfs.convert.converter import find_converter
from xnatfs.convert.refusal import Refusal
from xnatfs.convert.split import Part, split
from xnatfs.demo.data.dicom_cases import in_time, stored
from xnatfs.demo.data.images import nibabel_file

_VOXELS = 352  # where they begin


class Made(NamedTuple):
    """A part, and what dcm2niix made of it."""

    part: Part
    folder: Path


def made(files: dict[str, bytes], folder: Path) -> Made:
    (folder / "files").mkdir()
    for name, data in files.items():
        (folder / "files" / name).write_bytes(data)
    (part,) = split((folder / "files").iterdir()).parts
    (folder / "work").mkdir()
    written = find_converter().run([file.path for file in part.files], folder / "work", part.data_bytes)
    return Made(part, written[0].parent)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(stored(in_time(3)), tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Made:
    files = {
        f"{b}.dcm": gzip.decompress(nibabel_file(f"nicom/tests/data/siemens_dwi_{b}.dcm.gz"))
        for b in (0, 1000)
    }
    return made(files, tmp_path_factory.mktemp("diffusion"))


def spoilt(one: Made, tmp_path: Path, change: Callable[[bytearray], None], suffix: str = ".nii") -> Path:
    """A copy of what was made, with a change in one of its files."""
    for path in one.folder.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == suffix:
            change(data)
        (tmp_path / path.name).write_bytes(data)
    return tmp_path / "img.nii"


def put(offset: int, dtype: str, *values: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[offset : offset + np.dtype(dtype).itemsize * len(values)] = np.array(values, dtype).tobytes()

    return change


def voxels(edit: Callable[[Any], None]) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        edit(np.frombuffer(data, "<i2", offset=_VOXELS).reshape((12, 10, 8, 3), order="F"))

    return change


def swap(axis: int, one: int, other: int) -> Callable[[Any], None]:
    def edit(array: Any) -> None:
        view = np.moveaxis(array, axis, 0)
        view[[one, other]] = view[[other, one]]

    return edit


def wander(array: Any) -> None:
    """Each volume begins a slice later than it should."""
    flat = array.reshape((12, 10, 24), order="F")
    flat[:] = np.roll(flat, 1, axis=2)


def one_voxel(array: Any) -> None:
    array[3, 4, 5, 1] += 1


def nothing(_: Any) -> None:
    pass


def test_what_dcm2niix_makes_of_a_good_series_is_right(volumes: Made, diffusion: Made) -> None:
    for one in (volumes, diffusion):
        sidecar = read_sidecar(one.folder / "img.json")
        assert check(one.part, one.folder / "img.nii", sidecar) == sidecar


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (voxels(swap(2, 3, 4)), "each picture at the place"),
        (voxels(swap(3, 0, 2)), "each picture at the place"),
        (voxels(swap(0, 3, 4)), "each picture at the place"),
        (voxels(wander), "each picture at the place"),
        (voxels(one_voxel), "each picture at the place"),
        (put(112, "<f4", 2.0), "each picture at the place"),  # the slope
        (put(42, "<i2", 10, 12, 8), "other directions or sizes|each picture at the place"),
        (put(42, "<i2", 12, 10, 6, 4), "has .* voxels"),
        (put(40, "<i2", 7), "7 dimensions"),
        (put(70, "<i2", 1234), "unknown type"),
        (put(254, "<i2", 0), "no place in space"),
        (put(312, "<f4", 0, 0, 0), "no place in space"),  # NORM and plain slices in turn
        (put(312, "<f4", 0, 0, -3), "each picture at the place"),
        (put(280, "<f4", 2.1), "other directions or sizes"),
        (put(292, "<f4", 10.3), "voxels beside"),
        (put(320, "<f4", 3.3), "voxels beside|place"),  # half a gap
        (put(292, "<f4", float("nan")), "no place in space"),
        (put(92, "<f4", 5.0), "repetition time of 5 s, its sidecar one of 2.3 s"),
    ],
)
def test_an_image_that_is_wrong_is_found(
    volumes: Made, tmp_path: Path, change: Callable[[bytearray], None], reason: str
) -> None:
    image = spoilt(volumes, tmp_path, change)
    with pytest.raises(Refusal, match=reason):
        check(volumes.part, image, read_sidecar(image.with_suffix(".json")))


@pytest.mark.parametrize(
    ("suffix", "text", "reason"),
    [
        (".bval", "0 0", "b=0 where the files have b=1000"),
        (".bval", "1000 0", "b=1000 where the files have b=0|b=0 where"),
        (".bval", "0 700", "b=700"),
        (".bval", "0", "more or fewer"),
        (".bvec", "0 0\n0 0\n0 0", "lost a diffusion direction"),
        (".bvec", "0 1\n0 0", "more or fewer"),
    ],
)
def test_b_values_that_are_wrong_are_found(
    diffusion: Made, tmp_path: Path, suffix: str, text: str, reason: str
) -> None:
    def change(data: bytearray) -> None:
        data[:] = text.encode()

    image = spoilt(diffusion, tmp_path, change, suffix)
    with pytest.raises(Refusal, match=reason):
        check(diffusion.part, image, {})


def test_b_values_that_are_lost_are_missed(diffusion: Made, tmp_path: Path) -> None:
    image = spoilt(diffusion, tmp_path, nothing)
    image.with_suffix(".bval").unlink()
    with pytest.raises(Refusal, match="lost its b-values"):
        check(diffusion.part, image, {})


@pytest.mark.parametrize("timing", [[0.0] * 7, [0.0] * 7 + [2.4], [-0.1] * 8])
def test_slice_times_that_cannot_be_are_left_out(volumes: Made, timing: list[float]) -> None:
    sidecar = {"RepetitionTime": 2.3, "SliceTiming": timing, "EchoTime": 0.003}
    checked = check(volumes.part, volumes.folder / "img.nii", sidecar)
    assert checked == {"RepetitionTime": 2.3, "EchoTime": 0.003}
    possible = {"RepetitionTime": 2.3, "SliceTiming": [0.2 * place for place in range(8)]}
    assert check(volumes.part, volumes.folder / "img.nii", possible) == possible
