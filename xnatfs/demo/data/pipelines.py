"""The output of ASHS, SPM12 and the BBRC validators, from the numbers of `measurements.py`.

Used by the `lab` data set for the resources ASHS, SPM12_SEGMENT and BBRC_VALIDATOR.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
from numpy.typing import NDArray

from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.draw import noise
from xnatfs.demo.data.images import nifti

_SPM_SHAPE = (40, 46, 40)


def ashs_files(session: str, subject: str) -> dict[str, bytes]:
    """ASHS's `final` folder: path -> bytes. `subject` is the name ASHS ran under."""
    files = {f"final/{subject}_icv.txt": f"{subject} {m.ashs_icv(session)}\n".encode()}
    for side in ("left", "right"):
        for mode in m.ASHS_MODES:
            lines = [
                f"{subject} {side} {region} {slices} {volume}\n"
                for region, (slices, volume) in m.ashs(session, side, mode).items()
            ]
            files[f"final/{subject}_{side}_{mode}_volumes.txt"] = "".join(lines).encode()
    return {path: files[path] for path in sorted(files)}


@cache
def _from_the_middle() -> NDArray[np.int64]:
    """The voxels of a tissue map, from the middle outwards."""
    distance = sum(
        (2 * axis - (size - 1)) ** 2 for axis, size in zip(np.indices(_SPM_SHAPE), _SPM_SHAPE, strict=True)
    ).ravel()
    return np.argsort(distance, kind="stable")


def tissues(session: str) -> dict[str, NDArray[np.uint8]]:
    """Grey matter (c1), white matter (c2), fluid (c3): nested shells of 0, 1 and 2 half probabilities, as
    many as `m.tissue_voxels`.
    """
    order = _from_the_middle()
    maps: dict[str, NDArray[np.uint8]] = {}
    start = 0
    voxels = m.tissue_voxels(session)
    for name in ("c2", "c1", "c3"):  # white matter innermost, fluid outside
        full, half = voxels[name]
        flat = np.zeros(len(order), dtype=np.uint8)
        flat[order[start : start + full]] = 2
        flat[order[start + full : start + full + half]] = 1
        start += full + half
        maps[name] = flat.reshape(_SPM_SHAPE)
    return maps


def tissue_affine() -> NDArray[np.float64]:
    """The affine of the tissue maps: 4 mm cubes."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-2.0 * (size - 1) for size in _SPM_SHAPE]
    return affine


def spm_files(session: str, stem: str) -> dict[str, bytes]:
    """SPM12's tissue maps c1, c2, c3 (and rc1, rc2) of the image `stem`."""
    files: dict[str, bytes] = {}
    for name, voxels in tissues(session).items():
        # Stored as 0, 1, 2 with a slope of 1/2: probabilities 0, 0.5 and 1.
        files[f"{name}{stem}.nii.gz"] = nifti(voxels, tissue_affine(), f"{session} {name}", slope=0.5)
        if name != "c3":  # what DARTEL imports
            files[f"r{name}{stem}.nii.gz"] = nifti(voxels, tissue_affine(), f"{session} r{name}", slope=0.5)
    files[f"{stem}_seg8.txt"] = b"SPM12 (7487) segmentation finished\n"
    return {path: files[path] for path in sorted(files)}


def pdf(text: str, key: str) -> bytes:
    """A valid one-page PDF with a line of text and one small grey picture."""
    picture = noise(key, 32 * 32)
    drawing = f"q 200 0 0 200 72 400 cm /Im0 Do Q BT /F0 14 Tf 72 720 Td ({text}) Tj ET".encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F0 5 0 R >> /XObject << /Im0 6 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /XObject /Subtype /Image /Width 32 /Height 32 /ColorSpace /DeviceGray /BitsPerComponent 8"
        b" /Length %d >>\nstream\n%s\nendstream" % (len(picture), picture),
    ]
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def validator_files(session: str, names: list[str]) -> dict[str, bytes]:
    """BBRC_VALIDATOR: a JSON report and a PDF for each validator: path -> bytes."""
    files = {}
    for name in names:
        report: dict[str, object] = {
            "version": "a1b2c3d4",
            "generated": "2024-02-03, 10:20",
            "experiment_id": session,
        }
        report |= {
            test: {"has_passed": passed, "data": []} for test, passed in m.validator(session, name).items()
        }
        files[f"{name}_{session}.json"] = json.dumps(report, indent=1).encode()
        files[f"{name}_{session}.pdf"] = pdf(f"{name} {session}", f"{session}/{name}")
    return files
