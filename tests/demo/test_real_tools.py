"""The sample images in the hands of real programs: dcm2niix, MRtrix3, dcmtk and SimpleITK (GDCM). Each test
needs its program installed.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.support import lab_archive
from xnatfs.demo.data.truth import TrueFile, files


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scans of one ALFA session as plain folders, `<scan>/<resource>/`, and the mosaics of the DWI
    project.
    """
    root = tmp_path_factory.mktemp("exported")
    archive = lab_archive()

    def export(file: TrueFile) -> None:
        path = root / str(file.scan) / file.resource / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())

    for file in files(archive, "ALFA", "demo"):
        if file.session == "sub001_MR1" and file.kind == "scan":
            export(file)
    for file in files(archive, "DWI", "demo"):
        if file.session == "phantom_DTI1" and file.scan == "12":
            export(file)
    return root


def run(*command: str | Path) -> str:
    program = str(command[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def beside(exported: Path) -> nib.Nifti1Image:
    (path,) = (exported / "2" / "NIFTI").glob("*.nii.gz")
    return nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))


def test_dcm2niix_makes_the_nifti_beside_it(exported: Path, tmp_path: Path) -> None:
    run("dcm2niix", "-z", "n", "-f", "out", "-o", tmp_path, exported / "2" / "DICOM")
    assert [p.name for p in sorted(tmp_path.glob("out*"))] == ["out.json", "out.nii"]
    made, expected = nib.Nifti1Image.from_bytes((tmp_path / "out.nii").read_bytes()), beside(exported)
    assert np.array_equal(made.dataobj, expected.dataobj) and np.allclose(made.affine, expected.affine)


def test_dcm2niix_reads_the_mosaics(exported: Path, tmp_path: Path) -> None:
    run("dcm2niix", "-z", "n", "-f", "out", "-o", tmp_path, exported / "12" / "DICOM")
    assert nib.Nifti1Image.from_bytes((tmp_path / "out.nii").read_bytes()).shape == (36, 36, 48, 2)


def test_dcm2niix_reads_the_localizer(exported: Path, tmp_path: Path) -> None:
    run("dcm2niix", "-z", "n", "-f", "out", "-o", tmp_path, exported / "1" / "DICOM")
    assert len(list(tmp_path.glob("*.nii"))) == 3  # three planes


def test_mrtrix_converts_the_series(exported: Path, tmp_path: Path) -> None:
    run("mrconvert", "-quiet", exported / "2" / "DICOM", tmp_path / "out.nii")
    canonical: Any = nib.as_closest_canonical  # nibabel carries no annotations for it
    made = canonical(nib.Nifti1Image.from_bytes((tmp_path / "out.nii").read_bytes()))
    assert np.array_equal(made.dataobj, beside(exported).dataobj)


def test_mrtrix_fits_the_tensor(exported: Path, tmp_path: Path) -> None:
    scan = exported / "4" / "NIFTI"
    (image,), (bvec,), (bval,) = scan.glob("*.nii.gz"), scan.glob("*.bvec"), scan.glob("*.bval")
    run("dwi2tensor", "-quiet", "-fslgrad", bvec, bval, image, tmp_path / "dt.nii")
    assert nib.Nifti1Image.from_bytes((tmp_path / "dt.nii").read_bytes()).shape == (32, 32, 12, 6)


def test_dcmtk_reads_every_slice(exported: Path) -> None:
    slices = sorted((exported / "2" / "DICOM").iterdir())
    told = run("dcmdump", "+P", "SeriesInstanceUID", "+P", "PatientID", *slices)
    assert told.count("[sub001_MR1]") == len(slices) == 40
    assert "W:" not in told and "E:" not in told


def test_simpleitk_reads_one_series(exported: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    folder = str(exported / "2" / "DICOM")
    (series,) = reader.GetGDCMSeriesIDs(folder)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, series))
    image = reader.Execute()
    assert image.GetSize() == (112, 112, 40) and image.GetSpacing() == (2.0, 2.0, 4.0)
    volume = sitk.GetArrayFromImage(image).transpose(2, 1, 0)[::-1, ::-1]
    assert np.array_equal(volume, beside(exported).dataobj)
