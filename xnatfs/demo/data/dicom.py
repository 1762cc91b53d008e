"""Coherent DICOM series, made from pydicom's `MR_small.dcm` by setting what differs from slice to slice.

Used by the sample data. dcm2niix, MRtrix and GDCM (SimpleITK) read such a folder as one volume.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import pydicom
from pydicom.uid import UID

from xnatfs.demo.data.images import Volume, affine_of, pydicom_file


@dataclass(frozen=True)
class Series:
    """What a scanner writes into every slice of a series."""

    project: str
    subject: str
    session: str
    number: int
    description: str
    date: str = ""  # YYYYMMDD
    time: str = ""  # HHMMSS
    sex: str = ""
    echo_time: float = 3.0
    repetition_time: float = 2300.0


def uid(key: str) -> str:
    """A UID of the UUID kind (2.25.), always the same for a key."""
    return f"2.25.{int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), 'big')}"


def slices(
    series: Series, volume: Volume, spacing: tuple[float, float, float], tilted: bool = False
) -> dict[str, bytes]:
    """One DICOM file per slice: name -> bytes.

    `volume` is in NIfTI order (x to the right, y to the front, z up) as dcm2niix writes it, so that a
    conversion gives it back. `tilted`: each slice in a plane of its own, as a localizer has them.
    """
    key = f"{series.project}/{series.session}/{series.number}"
    dataset = pydicom.dcmread(io.BytesIO(pydicom_file("MR_small.dcm")))
    for keyword in (
        "DataSetTrailingPadding",
        "TimezoneOffsetFromUTC",
        "ImageComments",
        "InstanceCreationDate",
        "InstanceCreationTime",
    ):
        delattr(dataset, keyword)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = series.subject, series.session, series.sex
    dataset.StudyDescription, dataset.SeriesDescription, dataset.ProtocolName = (
        series.project,
        series.description,
        series.description,
    )
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = series.date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = series.time
    dataset.StudyID, dataset.AccessionNumber = series.session[:16], ""
    dataset.StudyInstanceUID = uid(f"{series.project}/{series.session}")
    dataset.SeriesInstanceUID = uid(key)
    dataset.FrameOfReferenceUID = uid(f"{series.project}/{series.session}/frame")
    dataset.SeriesNumber, dataset.AcquisitionNumber = series.number, 1
    dataset.EchoTime, dataset.RepetitionTime = series.echo_time, series.repetition_time
    columns, rows, count = volume.shape
    dataset.Columns, dataset.Rows = columns, rows
    dataset.PixelSpacing = [f"{spacing[1]:.4f}", f"{spacing[0]:.4f}"]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = f"{spacing[2]:.4f}"
    dataset.MagneticFieldStrength = "3"
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(volume.min()), int(volume.max())
    corner = affine_of(volume.shape, spacing)[:3, 3]
    planes = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])
    files = {}
    for index in range(count):
        instance = UID(uid(f"{key}/{index}"))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
        dataset.InstanceNumber = index + 1
        # DICOM's x and y run against NIfTI's: the last row and column of the picture are the first of the
        # volume.
        z = corner[2] + index * spacing[2]
        dataset.ImageOrientationPatient = planes[index % 3 if tilted else 0]
        dataset.ImagePositionPatient = [f"{corner[0]:.4f}", f"{corner[1]:.4f}", f"{0.0 if tilted else z:.4f}"]
        dataset.SliceLocation = f"{z:.4f}"
        dataset.PixelData = volume[::-1, ::-1, index].T.astype("<i2").tobytes()
        stream = io.BytesIO()
        dataset.save_as(stream)
        files[
            f"{series.session}.MR.{series.description}.{series.number}.{index + 1:04d}.{instance[-8:]}.dcm"
        ] = stream.getvalue()
    return files
