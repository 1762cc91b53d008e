"""Images: NIfTI files with made-up but anatomically shaped content, and the few real ones that nibabel and
pydicom carry.

Used by the sample data. Integer arithmetic only, so that every machine makes the same bytes.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from xnatfs.demo.data.draw import gzip_stored, noise

# nibabel's classes carry no annotations.
Nifti1Image: Any = nib.Nifti1Image
Nifti1Header: Any = nib.Nifti1Header
MGHImage: Any = nib.MGHImage

Volume = NDArray[np.int16]

# Two shells would do; six directions and one b=0 image is the least a tensor fit takes.
BVALS = (0, 1000, 1000, 1000, 1000, 1000, 1000)
BVECS = (
    ("0", "0.70711", "-0.70711", "0", "0", "0.70711", "0.70711"),
    ("0", "0", "0", "0.70711", "0.70711", "0.70711", "-0.70711"),
    ("0", "0.70711", "0.70711", "0.70711", "-0.70711", "0", "0"),
)


@cache
def _shells(shape: tuple[int, int, int]) -> Volume:
    """A head of nested ellipsoids: air 0, scalp 700, skull 120, fluid 300, grey 620, white 900, ventricles
    250.
    """
    radius = np.zeros(shape, dtype=np.int32)  # 1000 times the squared distance, 1000 at the faces of the box
    for axis, size in enumerate(shape):
        steps = (2 * np.arange(size, dtype=np.int32) - (size - 1)) ** 2 * 1000 // (size * size)
        radius += steps.reshape([-1 if index == axis else 1 for index in range(3)])
    values = np.zeros(shape, dtype=np.int16)
    for limit, value in ((800, 700), (700, 120), (620, 300), (560, 620), (380, 900), (40, 250)):
        values[radius < limit] = value
    return values


def head(key: str, shape: tuple[int, int, int], contrast: int = 100) -> Volume:
    """A head with noise from `key`; `contrast` in percent."""
    grain = np.frombuffer(noise(key, shape[0] * shape[1] * shape[2]), dtype=np.uint8).reshape(shape)
    volume: Volume = (_shells(shape).astype(np.int32) * contrast // 100 + grain // 8).astype(np.int16)
    return volume


def series(key: str, shape: tuple[int, int, int], count: int, step: int = -4) -> Volume:
    """`count` heads along a fourth axis, each `step` percent stronger than the one before."""
    return np.stack([head(f"{key}/{number}", shape, 100 + step * number) for number in range(count)], axis=-1)


def nifti(
    data: NDArray[Any],
    affine: NDArray[Any],
    description: str = "",
    slope: float = 1.0,
    tr: float = 0.0,
    gz: bool = True,
) -> bytes:
    """A NIfTI-1 single file, `.nii.gz` or `.nii`."""
    header = Nifti1Image(data, affine).header
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = description.encode()
    if tr:
        header["pixdim"][4] = tr
    if slope != 1.0:
        header.set_slope_inter(slope, 0.0)
    plain: bytes = header.binaryblock + b"\0\0\0\0" + data.tobytes(order="F")
    # 352 is where the voxels begin; nibabel leaves the field at 0 until it saves by itself.
    plain = plain[:108] + np.array(352, dtype="<f4").tobytes() + plain[112:]
    return gzip_stored(plain) if gz else plain


def affine_of(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """The affine of axial slices, x to the right, with the centre of the box at the origin."""
    affine = np.diag([spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [-affine[axis, axis] * (shape[axis] - 1) / 2 for axis in range(3)]
    return affine


def sidecar(**values: Any) -> bytes:
    """A JSON sidecar in dcm2niix's style."""
    return (json.dumps({"Modality": "MR", "MagneticFieldStrength": 3, **values}, indent="\t") + "\n").encode()


def bval() -> bytes:
    return (" ".join(map(str, BVALS)) + "\n").encode()


def bvec() -> bytes:
    return "".join(" ".join(row) + "\n" for row in BVECS).encode()


def nibabel_file(path: str) -> bytes:
    """A real image from nibabel's own test data (MIT)."""
    return resources.files("nibabel").joinpath(path).read_bytes()


def pydicom_file(name: str) -> bytes:
    """A real DICOM file from pydicom's own test data (MIT)."""
    return resources.files("pydicom").joinpath("data/test_files").joinpath(name).read_bytes()
