"""A converter that crashes, hangs, lies or is missing, and a full disk: an error with the reason, no half
image, and nothing left behind."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from xnatfs import extras
from xnatfs.convert.conversion import Conversion, convert
from xnatfs.convert.converter import Converter, find_converter
from xnatfs.convert.headers import scanned
from xnatfs.convert.refusal import Refusal
from xnatfs.demo.data.dicom_cases import datasets, rle, stored, volume
from xnatfs.demo.data.images import nibabel_file
from xnatfs.errors import Cause, Failure, MissingExtra


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("series")
    for name, data in stored(datasets(volume())).items():
        (folder / name).write_bytes(data)
    return list(folder.iterdir())


def lying(tmp_path: Path, then: str, limit_s: float = 60.0) -> Converter:
    """The converter, with commands of a shell after it; $out is the folder it writes to."""
    script = tmp_path / "dcm2niix"
    real = find_converter()
    words = 'for word in "$@"; do [ "$last" = -o ] && out=$word; last=$word; done'
    script.write_text(f'#!/bin/sh\n{words}\n{real.program} "$@" || exit\n{then}\n')
    script.chmod(0o755)
    return Converter(script, real.version, "0", limit_s)


def converted(series: list[Path], tmp_path: Path, converter: Converter) -> Conversion:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    try:
        return convert(series, work / "out", "x", converter)
    finally:
        assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("kill -SEGV $$", "ended with SIGSEGV"),
        ("kill -KILL $$", "ended with SIGKILL"),
        ("exit 1", "refused the files"),
        ("echo 'Error: no such luck'; exit 3", "no such luck"),
        ("/bin/rm $out/*", "made 0 images"),
        ("/bin/cp $out/img.nii $out/imga.nii", "made 2 images of it"),
        ("/bin/rm $out/img.json", "some are missing"),
        ("echo > $out/img.json", "cannot be read"),
        ("echo [] > $out/img.json", "cannot be read"),
        ("echo > $out/img.nrrd", "img.nrrd"),
        ("echo 0 > $out/img.bval", "some are missing"),
        ("/usr/bin/truncate -s 1000 $out/img.nii", "not as long as its header says"),
        ("/usr/bin/truncate -s 100 $out/img.nii", "no header"),
        ("/usr/bin/truncate -s +2 $out/img.nii", "not as long as its header says"),
    ],
)
def test_what_goes_wrong_with_the_converter_is_a_refusal(
    series: list[Path], tmp_path: Path, then: str, reason: str
) -> None:
    done = converted(series, tmp_path, lying(tmp_path, then))
    assert done.images == ()
    assert reason in done.refused[0].reason
    assert str(tmp_path) not in done.refused[0].reason


def test_one_that_hangs_is_ended_and_what_it_started_too(series: list[Path], tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hanging = lying(tmp_path, f"/bin/sleep 1000 & echo $$ $! > {pids}; wait", limit_s=3.0)
    done = converted(series, tmp_path, hanging)
    assert "was not done after 3 s, and was stopped" in done.refused[0].reason
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


def gone(pid: int) -> bool:
    """Whether a process ended; one that lost its parent waits a moment for whoever collects it."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_one_that_is_missing_or_no_program_says_so(series: list[Path], tmp_path: Path) -> None:
    for program in (tmp_path / "nothing", series[0]):
        with pytest.raises(Failure) as raised:
            converted(series, tmp_path, Converter(program, "1", "0"))
        assert raised.value.cause is Cause.NOT_INSTALLED
        assert "cannot be started" in str(raised.value)


def test_an_enhanced_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Catches: an error of pydicom's within a sequence that passes for one of the disk."""
    whole = gzip.decompress(nibabel_file("nicom/tests/data/philips_mprage.dcm.gz"))
    for length in (3_000, 70_000, 200_000):
        path = tmp_path / f"{length}.dcm"
        path.write_bytes(whole[:length])
        found = scanned(path)
        assert isinstance(found, Refusal) and ("damaged" in str(found) or "cut off" in str(found))


def test_packed_pixels_that_are_damaged_are_refused(tmp_path: Path) -> None:
    """Catches: a decoder's own error, which is none that a reader is to see."""
    files = stored(rle(one) for one in datasets(volume()))
    pixels = files["0003.dcm"].index(b"\xe0\x7f\x10\x00")
    reasons = set()
    for place in (100, 130, 160):
        folder = tmp_path / str(place)
        folder.mkdir()
        for name, data in files.items():
            spoilt = data[: pixels + place] + b"\x7f\x81" + data[pixels + place + 2 :]
            (folder / name).write_bytes(spoilt if name == "0003.dcm" else data)
        done = convert(folder.iterdir(), tmp_path / f"out {place}", "x", find_converter())
        reasons |= {reason for _, reason in done.refused}
    assert "the pixels of a DICOM file cannot be unpacked" in reasons


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'xnatfs\[convert\]'"):
        find_converter()


def test_a_disk_with_too_little_room_is_no_fault_of_the_files(
    series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(Failure) as raised:
        converted(series, tmp_path, find_converter())
    assert raised.value.cause is Cause.NO_SPACE


def test_a_disk_that_is_full_midway_is_no_fault_of_the_files(
    series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(Failure) as raised:
        converted(series, tmp_path, find_converter())
    assert raised.value.cause is Cause.NO_SPACE


def test_files_of_another_disk_are_copied(
    series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", elsewhere)
    assert convert(series, tmp_path / "out", "x", find_converter()).images == ("x",)
