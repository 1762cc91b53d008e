"""Each synthetic series ends as it has to: right to the voxel, or refused with the reason."""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
import zlib
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from xnatfs.convert import pack
from xnatfs.convert.conversion import conversion_key, convert
from xnatfs.convert.converter import find_converter
from xnatfs.demo.data import raw
from xnatfs.demo.data.dicom_cases import AFFINE, Case, Files, cases, datasets, stored, three_echoes, volume
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive

NAMES = [name for name in raw.SIZES if not name.startswith("study ")]


@functools.cache
def by_name() -> dict[str, Case]:
    """The cases: made when a test wants them, not wherever tests are only collected."""
    return {case.name: case for case in cases()}


def written(files: Files, folder: Path) -> list[Path]:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(folder.iterdir())


def test_the_sample_project_has_every_series() -> None:
    """Catches: a series that was changed or added, and a listing of project RAW that counts other files."""
    archive = Archive(site="T")
    raw.add(Maker(archive, datetime(2024, 1, 8)))
    study, hard = archive.experiments.values()
    shown = {scan.series_description: scan.resources[0] for scan in hard.scans}
    assert {name: [entry.path for entry in resource.entries] for name, resource in shown.items()} == {
        case.name: list(case.files) for case in by_name().values()
    }
    assert {name: int(resource.file_count) for name, resource in shown.items()} == {
        case.name: case.listed or len(case.files) for case in by_name().values()
    }
    for scan in (*study.scans, *hard.scans):
        resource = scan.resources[0]
        made = sum(entry.listed_size for entry in resource.entries)
        assert resource.file_size == str(made), scan.series_description


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_a_series_is_right_or_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    case = by_name()[name]
    work = tmp_path / "work"
    work.mkdir()
    paths = written(case.files, work / "in")
    target = work / "out"
    done = convert(paths, target, "S1_MR_3", find_converter(), listed=case.listed)
    assert sorted(done.images) == sorted(f"S1_MR_3{label}" for label in case.right), done.refused
    assert [label for label, _ in done.refused] == sorted(label for label, _ in case.refused), done.refused
    for (_, reason), (_, expected) in zip(done.refused, sorted(case.refused), strict=True):
        assert re.search(expected, reason)
        assert str(tmp_path) not in reason, "a reason names no place of this machine"
    assert {path.name for path in work.iterdir()} == {"in", *(["out"] if case.right else [])}
    for label, voxels in case.right.items():
        image = nib.as_closest_canonical(nib.load(target / f"S1_MR_3{label}.nii.gz"))
        sidecar = json.loads((target / f"S1_MR_3{label}.json").read_text())
        assert [one["Name"] for one in sidecar["GeneratedBy"]] == ["xnatfs", "dcm2niix"]
        if voxels is not None:
            np.testing.assert_allclose(np.asanyarray(image.dataobj), voxels, rtol=1e-6)
            lowest = AFFINE.copy()
            lowest[2, 3] += 3.0 * (8 - voxels.shape[2])  # where the lowest slice is not there
            np.testing.assert_allclose(image.affine, lowest, atol=1e-3)


def test_a_mosaic_has_its_b_values(tmp_path: Path) -> None:
    case = by_name()["Siemens mosaics, b=0 and b=1000"]
    convert(written(case.files, tmp_path / "in"), tmp_path / "out", "dwi", find_converter())
    assert (tmp_path / "out/dwi.bval").read_text().split() == ["0", "1000"]
    vectors = np.loadtxt(tmp_path / "out/dwi.bvec")
    assert vectors.shape == (3, 2) and np.linalg.norm(vectors[:, 1]) == pytest.approx(1, abs=1e-3)
    assert nib.load(tmp_path / "out/dwi.nii.gz").shape == (128, 128, 48, 2)


def test_the_same_bytes_whatever_the_names_the_order_and_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a converter that reads the user's settings or PATH, a suffix given by the order of a folder, a
    time zone or a path in what is made."""
    files = stored(three_echoes())
    names = sorted(files)
    first = convert(written(files, tmp_path / "in"), tmp_path / "out", "x", find_converter())
    expected = everything(tmp_path / "out")
    assert len(first.images) == 3 and len(expected) == 6
    home, tools = tmp_path / "hostile home", tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    (home / ".dcm2nii.ini").write_text("isGZ=1\nfilename=%p_%s_%t\nisMaximize16BitRange=1\n")
    (tools / "pigz").write_text('#!/bin/sh\nexec /bin/gzip -9 "$@"\n')
    (tools / "pigz").chmod(0o755)
    for number in range(4):
        order = np.random.default_rng(number).permutation(len(names))
        renamed = {
            (f"{place:03d}.dcm" if number % 2 else f"IMA é {len(names) - place}.{number}"): files[
                names[which]
            ]
            for place, which in enumerate(order)
        }
        monkeypatch.setenv("TZ", ("Asia/Tokyo", "America/Lima")[number % 2])
        monkeypatch.setenv("LC_ALL", ("de_DE.UTF-8", "C")[number % 2])
        if number > 1:
            monkeypatch.setenv("HOME", str(home))
            monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        again = convert(
            written(renamed, tmp_path / f"in {number}"), tmp_path / f"out {number}", "x", find_converter()
        )
        assert again == first
        assert everything(tmp_path / f"out {number}") == expected


def test_what_is_packed_is_one_member_whatever_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: pieces that depend on how many are packed at once, or that a reader of one member misses."""
    image = np.random.default_rng(1).integers(0, 500, 2_500_000, dtype="<i2").tobytes()
    source = tmp_path / "x.nii"
    source.write_bytes(image)
    packed = []
    for number in (1, 3):
        monkeypatch.setattr(pack, "_AT_ONCE", number)
        pack.pack_image(source, tmp_path / f"{number}.gz")
        packed.append((tmp_path / f"{number}.gz").read_bytes())
    assert packed[0] == packed[1] and len(image) > 2 * pack._PIECE_BYTES
    unpacker = zlib.decompressobj(31)
    assert unpacker.decompress(packed[0]) == image[:228] + bytes(24) + image[252:]
    assert unpacker.eof and unpacker.unused_data == b""
    assert packed[0][4:8] == bytes(4), "no date"
    tiny = tmp_path / "tiny.nii"
    tiny.write_bytes(image[:352])
    pack.pack_image(tiny, tmp_path / "tiny.gz")
    assert len(gzip.decompress((tmp_path / "tiny.gz").read_bytes())) == 352


def test_names_of_places_and_people_are_left_out(tmp_path: Path) -> None:
    """Catches: a key that dcm2niix keeps although it is asked for none of a person, and the comment that it
    writes into the image itself."""
    secrets = {
        "InstitutionName": "Hospital-Q",
        "InstitutionAddress": "Street-Q",
        "InstitutionalDepartmentName": "Ward-Q",
        "DeviceSerialNumber": "Serial-Q",
        "StationName": "Station-Q",
        "ImageComments": "Comment-Q",
        "PatientComments": "Remark-Q",
        "PatientName": "Doe-Q",
        "PatientID": "Id-Q",
        "PatientBirthDate": "19700203",
        "OperatorsName": "Operator-Q",
        "ReferringPhysicianName": "Physician-Q",
    }
    many = datasets(volume())
    for dataset in many:
        for keyword, value in secrets.items():
            setattr(dataset, keyword, value)
    convert(written(stored(many), tmp_path / "in"), tmp_path / "out", "x", find_converter())
    sidecar = (tmp_path / "out/x.json").read_text()
    packed = nib.load(tmp_path / "out/x.nii.gz")
    text = sidecar + repr(packed.header.binaryblock)
    assert [value for value in secrets.values() if value in text] == []
    assert json.loads(sidecar)["SeriesDescription"] == "t1"  # what is needed to name it stays
    # More can be asked for.
    convert(
        list((tmp_path / "in").iterdir()), tmp_path / "more", "x", find_converter(), stripped=["EchoTime"]
    )
    more = json.loads((tmp_path / "more/x.json").read_text())
    assert "EchoTime" not in more and more["StationName"] == "Station-Q"


def test_the_key_names_all_that_decides_what_is_made() -> None:
    converter = find_converter()
    key = conversion_key(["a", "b"], converter)
    assert key == conversion_key(["b", "a"], converter)
    others = [
        conversion_key(["a", "c"], converter),
        conversion_key(["a"], converter),
        conversion_key(["a", "b"], type(converter)(converter.program, "2", converter.digest)),
        conversion_key(["a", "b"], type(converter)(converter.program, converter.version, "2")),
        conversion_key(["a", "b"], converter, stripped=["EchoTime"]),
    ]
    assert len({key, *others}) == 6
    moved = type(converter)(Path("/elsewhere"), converter.version, converter.digest, limit_s=1.0)
    assert conversion_key(["a", "b"], moved) == key
