"""Synthetic DICOM series, and how each has to end when it is converted: right, or refused with a reason.

Used by project RAW and by tests. A series is 8 slices of 12 x 10; what dcm2niix alone makes of it (with exit
code 0, where nothing else is said) is in the comments.
"""

from __future__ import annotations

import copy
import gzip
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from xnatfs.demo.data.dicom import Series, slices, uid
from xnatfs.demo.data.images import Volume, affine_of, head, nibabel_file, pydicom_file

SHAPE = (12, 10, 8)
SPACING = (2.0, 2.5, 3.0)
AFFINE = affine_of(SHAPE, SPACING)
SHUFFLED = [17 * place % 41 for place in range(1, 41)]
Files = dict[str, bytes]
Dataset = Any

_CT, _CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"


@dataclass
class Case:
    """A folder of files, and what has to come of it.

    Attributes:
        right: label -> the voxels in NIfTI's order, or None where another test compares them.
        refused: (label, part of the reason).
        listed: what the server counts.
    """

    name: str
    files: Files
    right: dict[str, Any] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    listed: int | None = None


def volume(key: str = "one") -> Volume:
    return head(key, SHAPE)


def datasets(voxels: Volume, number: int = 3, tilted: bool = False) -> list[Dataset]:
    """The slices of a volume, from the lowest."""
    series = Series("P", "S1", "S1_MR", number, "t1", date="20250102", time="101112")
    return [
        pydicom.dcmread(io.BytesIO(data)) for data in slices(series, voxels, SPACING, tilted=tilted).values()
    ]


def stored(many: Iterable[Dataset]) -> Files:
    files = {}
    for number, dataset in enumerate(many):
        stream = io.BytesIO()
        dataset.save_as(stream)
        files[f"{number:04d}.dcm"] = stream.getvalue()
    return files


def edited(many: Iterable[Dataset], change: Callable[[Dataset, int], None]) -> list[Dataset]:
    found = []
    for number, dataset in enumerate(many):
        change(dataset, number)
        found.append(dataset)
    return found


def another(many: Iterable[Dataset], key: str, **values: Any) -> list[Dataset]:
    """The same slices as other pictures of the series: with UIDs of their own."""

    def change(dataset: Dataset, number: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(f"{key}/{number}")
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edited(many, change)


def numbered(many: Iterable[Dataset]) -> list[Dataset]:
    return edited(many, lambda dataset, number: setattr(dataset, "InstanceNumber", number + 1))


def in_time(count: int) -> list[Dataset]:
    """`count` volumes, which nothing but the instance numbers puts in order."""
    return numbered(
        one for time in range(count) for one in another(datasets(volume(f"time {time}")), f"time {time}")
    )


def stack(count: int) -> Any:
    return np.stack([volume(f"time {time}") for time in range(count)], axis=-1)


def three_echoes() -> list[Dataset]:
    return numbered(
        shot
        for number in (1, 2, 3)
        for shot in another(
            datasets(volume(f"echo {number}")), f"echo {number}", EchoNumbers=number, EchoTime=3.5 * number
        )
    )


def of_type(many: Iterable[Dataset], *image_type: str) -> list[Dataset]:
    return edited(many, lambda dataset, _: setattr(dataset, "ImageType", list(image_type)))


def set_all(many: Iterable[Dataset], **values: Any) -> list[Dataset]:
    def change(dataset: Dataset, _: int) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edited(many, change)


def of_class(many: Iterable[Dataset], kind: str) -> list[Dataset]:
    def change(dataset: Dataset, _: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind

    return edited(many, change)


def rle(dataset: Dataset) -> Dataset:
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def big_endian(many: list[Dataset]) -> Files:
    files = {}
    for name, dataset in zip((f"{number}.dcm" for number in range(len(many))), many, strict=True):
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, dataset, little_endian=False, implicit_vr=False, overwrite=True)
        files[name] = stream.getvalue()
    return files


def with_overlay(dataset: Dataset) -> Dataset:
    dataset.add_new(0x60000010, "US", 10)
    dataset.add_new(0x60000011, "US", 12)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60003000, "OW", b"\xaa" * 16)
    return dataset


def shifted(many: list[Dataset], move: Callable[[int], tuple[float, float, float]]) -> list[Dataset]:
    def change(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [
            f"{value + by:.4f}" for value, by in zip(dataset.ImagePositionPatient, move(number), strict=True)
        ]

    return edited(many, change)


def scaled(many: list[Dataset]) -> list[Dataset]:
    def change(dataset: Dataset, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + number / 4, 0

    return edited(many, change)


def three_planes(distance: float) -> list[Dataset]:
    """A localizer: pictures of three planes in turn, those of one plane `distance` mm from each other."""
    many = datasets(head("planes", (12, 12, 6)), tilted=True)
    for number, dataset in enumerate(many):
        normal = np.cross(dataset.ImageOrientationPatient[:3], dataset.ImageOrientationPatient[3:])
        away = distance * (number // 3) * normal
        dataset.ImagePositionPatient = [
            f"{value + by:.4f}" for value, by in zip(dataset.ImagePositionPatient, away, strict=True)
        ]
        dataset.PixelSpacing = ["2", "2"]
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    return many


def cases() -> list[Case]:
    """Every case, made fresh."""
    one = volume()
    good = stored(datasets(one))
    names = sorted(good)
    middle, last = names[4], names[-1]
    right = {"": one}
    four = in_time(5)
    norm = another(datasets(volume("norm")), "norm")
    echoes = three_echoes()
    phases = of_type(another(datasets(volume("phase")), "phase"), "ORIGINAL", "PRIMARY", "P", "ND")
    twice = datasets(one)[4]
    twice.InstanceCreationTime = "101113"
    other_pixels = copy.deepcopy(twice)
    other_pixels.PixelData = bytes(len(other_pixels.PixelData))
    real = {
        name: nibabel_file(f"nicom/tests/data/{name}.dcm.gz")
        for name in ("siemens_dwi_0", "siemens_dwi_1000", "philips_mprage")
    }
    dwi0, dwi1000, philips = (gzip.decompress(data) for data in real.values())
    return [
        Case("good", good, right),
        Case("the same file twice", good | {"copy.dcm": good[middle]}, right),
        Case(
            "the same picture twice, exported at another time",
            good | {"b": stored([twice])["0000.dcm"]},
            right,
        ),
        Case("an empty file beside", good | {"empty.dcm": b""}, right),
        Case("a text beside", good | {"README": b"not an image"}, right),
        # 39 slices in place of 40, half of them at another place, and a second, resampled image
        Case("a middle slice missing", without(good, middle), refused=[("", "instance numbers")]),
        Case(
            "a middle slice missing, renumbered",
            stored(numbered(shot for place, shot in enumerate(datasets(one)) if place != 4)),
            refused=[("", "not evenly spaced")],
        ),
        Case(
            "one file cut off in its header",
            good | {middle: good[middle][:700]},
            refused=[("", "cut off|damaged")],
        ),
        Case(
            "one file cut off in its pixels",
            good | {middle: good[middle][:-50]},
            refused=[("", "cut off within its pixels")],
        ),
        # a shorter volume, and no warning
        Case(
            "the end missing, and the server counts",
            without(good, last),
            refused=[("", "server counts 8")],
            listed=8,
        ),
        Case("five volumes", stored(four), {"": stack(5)}),
        # a volume of 7 slices whose slices have wandered from volume to volume
        Case(
            "five volumes, the last of them 3 slices",
            stored(four[:35]),
            refused=[("", "volume is incomplete")],
        ),
        Case(
            "five volumes, one file missing",
            stored(four[:12] + four[13:]),
            refused=[("", "instance numbers")],
        ),
        Case(
            "five volumes, numbered at random",
            stored(edited(in_time(5), lambda shot, place: setattr(shot, "InstanceNumber", SHUFFLED[place]))),
            refused=[("", "order of its volumes")],
        ),
        # slices of the two in turn, and no place in space
        Case(
            "NORM and plain ones, with the same instance numbers",
            stored(datasets(one) + of_type(norm, "ORIGINAL", "PRIMARY", "M", "NORM")),
            {"_rec-nd": one, "_rec-norm": volume("norm")},
        ),
        Case(
            "two sets that nothing tells apart",
            stored(datasets(one) + another(datasets(volume("norm")), "norm")),
            refused=[("", "same instance number")],
        ),
        Case("three echoes", stored(echoes), {f"_echo-{n}": volume(f"echo {n}") for n in (1, 2, 3)}),
        Case(
            "three echoes, one of them incomplete",
            stored(numbered(echoes[:-8] + echoes[-7:])),
            {f"_echo-{n}": volume(f"echo {n}") for n in (1, 2)} | {"_echo-3": volume("echo 3")[:, :, 1:]},
        ),
        Case(
            "magnitude and phase",
            stored(datasets(one) + phases),
            {"_part-mag": one, "_part-phase": volume("phase")},
        ),
        # one image of 3 "volumes", which are three planes
        Case(
            "a localizer of three planes",
            stored(three_planes(4.0)),
            {f"_plane-{plane}": None for plane in ("axial", "coronal", "sagittal")},
        ),
        Case(
            "a localizer, all at one place",
            stored(three_planes(0.0)),
            refused=[(f"_plane-{plane}", "lie at one place") for plane in ("axial", "coronal", "sagittal")],
        ),
        # a second, resampled image
        Case(
            "CT, unevenly spaced",
            stored(of_class(shifted(datasets(one), lambda n: (0, 0, 1.5 * (n > 3))), _CT)),
            refused=[("", "not evenly spaced")],
        ),
        Case(
            "CT, tilted gantry",
            stored(of_class(shifted(datasets(one), lambda n: (0, 0.8 * n, 0)), _CT)),
            refused=[("", "tilted gantry")],
        ),
        Case("an overlay", stored([with_overlay(shot) for shot in datasets(one)]), right),
        Case(
            "a slope of its own for each slice",
            stored(scaled(datasets(one))),
            {"": one * (1 + np.arange(8) / 4)},
        ),
        Case(
            "a secondary capture",
            stored(of_class(datasets(one), _CAPTURE)),
            refused=[("", "Secondary Capture")],
        ),
        *(
            Case(
                f"of {kind}",
                stored(of_class(datasets(one), f"1.2.840.10008.5.1.4.1.1.{number}")),
                refused=[("", "is not an MR, CT or PET image")],
            )
            for kind, number in (
                ("SR", "88.11"),
                ("RT structures", "481.3"),
                ("RT plan", "481.5"),
                ("RT dose", "481.2"),
                ("ECG", "9.1.1"),
                ("nuclear medicine", "20"),
            )
        ),
        Case("a text alone", {"a.txt": b"hello"}, refused=[("", "no DICOM files")]),
        Case("nothing", {}, refused=[("", "no DICOM files")]),
        Case("colour", stored(set_all(datasets(one), SamplesPerPixel=3)), refused=[("", "in colour")]),
        Case("32 bit", stored(set_all(datasets(one), BitsAllocated=32)), refused=[("", "32 bits")]),
        Case(
            "two series in one folder",
            stored(datasets(one) + datasets(volume("two"), number=4)),
            {"_series-3": one, "_series-4": volume("two")},
        ),
        # one slice, and exit code 8
        Case(
            "a series UID for every file",
            stored(edited(datasets(one), lambda shot, n: setattr(shot, "SeriesInstanceUID", uid(f"s{n}")))),
            refused=[("", "8 series UIDs")],
        ),
        # names that clash, and which one has which depends on the order of the folder
        Case(
            "a time of the study for every file",
            stored(edited(datasets(one), lambda shot, n: setattr(shot, "StudyTime", f"1011{n:02d}"))),
            refused=[("", "times of one study")],
        ),
        Case(
            "two pictures of one UID",
            good | {"b": stored([other_pixels])["0000.dcm"]},
            refused=[("", "same SOP instance UID")],
        ),
        Case("a picture without a position", stored(no_position(datasets(one))), refused=[("", "position")]),
        Case("RLE", stored(rle(shot) for shot in datasets(one)), right),
        Case("big endian", big_endian(datasets(one)), right),
        *(
            Case(f"pydicom's {name}", {"a.dcm": pydicom_file(f"{name}.dcm")}, refused=[("", why)])
            for name, why in (
                *(("image_dfl", "Secondary Capture"), ("JPGExtended", "Secondary Capture")),
                *(("rtdose", "RT Dose"), ("rtplan", "RT Plan"), ("rtstruct", "no DICOM files")),
                *(("waveform_ecg", "ECG"), ("reportsi", "is not an MR"), ("MR_truncated", "cut off")),
                ("SC_rgb_rle_32bit", "Secondary Capture"),
            )
        ),
        *(
            Case(f"pydicom's {name}", {"a.dcm": pydicom_file(f"{name}.dcm")}, {"": None})
            for name in (
                *(
                    "examples_overlay",
                    "CT_small",
                    "MR_small",
                    "MR_small_RLE",
                    "MR_small_bigendian",
                    "MR_small_implicit",
                ),
                *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"),
            )
        ),
        Case("a Siemens mosaic, b=0", {"a.dcm": dwi0}, {"": None}),
        # b=0
        Case(
            "a Siemens mosaic, b=1000 alone",
            {"a.dcm": dwi1000},
            refused=[("", "has b=0 where the files have b=1000")],
        ),
        Case("Siemens mosaics, b=0 and b=1000", {"a.dcm": dwi1000, "b.dcm": dwi0}, {"": None}),
        Case("an enhanced file of Philips", {"a.dcm": philips}, {"": None}),
    ]


def without(files: Files, name: str) -> Files:
    return {one: data for one, data in files.items() if one != name}


def no_position(many: list[Dataset]) -> list[Dataset]:
    for dataset in many:
        del dataset.ImagePositionPatient
    return many
