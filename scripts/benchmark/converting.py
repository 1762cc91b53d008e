"""Works on scans that have DICOM alone: one in `nifti/`, to its first byte, and all of a project."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmark.copying import SESSION
from benchmark.harness import Harness, Mount
from benchmark.host import FailedError, memory_of
from benchmark.results import Outcome, Sample, Target
from benchmark.workload import Contestant, Workload

_NIFTI = "views/DCM/nifti/dcm"
_PIXELS = 272
_MEMORY = 100e6  # bytes, beside three series
_VOXELS = 352  # where they begin in an image
# What stands on PATH is another version in most distributions: both sides use the package's.
_BY_HAND = """\
set -e
folder=$(mktemp -d -p "$FOLDER")
zip="$URL/data/experiments/$1/scans/1/resources/DICOM/files?format=zip"
curl -sS --fail -b "$COOKIE" -o "$folder/scan.zip" "$zip"
unzip -q "$folder/scan.zip" -d "$folder/files"
set -- "$CONVERTER" -d 9 -b y -ba y -z "$COMPRESSION" -f "$1" -o "$FOLDER" "$folder/files"
"$@" > "$folder/said"
rm -r "$folder"
"""


def _converter() -> Path:
    try:
        import dcm2niix
    except ImportError as error:
        raise FailedError("the package dcm2niix is not installed") from error
    return Path(dcm2niix.bin)


class _Converting(Workload):
    networks = ("20ms",)

    @property
    def sessions(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def data(self) -> list[str]:
        return [
            *("--sessions", "0", "--dicom", str(self.sizes.slices)),
            *("--dicom-sessions", str(self.sessions)),
        ]

    @property
    def series(self) -> int:
        """Bytes of pixels of one scan."""
        return self.sizes.slices * _PIXELS**2 * 2

    def prepare(self, harness: Harness) -> None:
        """Have the stand-in make what it makes once: files, and the checksums of a STORED zip.

        Raises:
            FailedError: there is no converter.
        """
        _converter()
        for one in _sessions(self.sessions):
            path = f"/data/experiments/{one}/scans/1/resources/DICOM/files"
            harness.server.digests(path)
            harness.curl(f"{path}?format=zip", "/dev/null")

    def by_hand(
        self, harness: Harness, images: _Images, compression: str, sessions: int, jobs: int
    ) -> Sample:
        """curl, unzip and dcm2niix of the first sessions by `xargs`."""
        with harness.folder("hand") as folder:
            environment = {
                **{"FOLDER": str(folder), "COMPRESSION": compression, "CONVERTER": str(_converter())},
                **{"URL": harness.server.url, "COOKIE": harness.server.login()},
            }
            script, names = folder / "one.sh", folder / "sessions"
            script.write_text(_BY_HAND)
            names.write_text("".join(f"{one}\n" for one in _sessions(sessions)))

            def act() -> float:
                command = ("xargs", "-a", names, "-P", str(jobs), "-n", "1", "sh", script)
                return harness.host.run(*command, env=environment).seconds

            sample = harness.sample(act)
            for number, session in enumerate(_sessions(sessions), 1):
                images.check(number, folder / f"{session}.nii{'' if compression == 'n' else '.gz'}")
            return sample


def _sessions(count: int) -> list[str]:
    return [f"{SESSION[:-5]}{number:05d}" for number in range(1, count + 1)]


class _Images:
    """That each program makes the same voxels of a scan."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def check(self, number: int, path: Path) -> None:
        data = path.read_bytes()
        whole = gzip.decompress(data) if path.suffix == ".gz" else data
        digest = hashlib.md5(whole[_VOXELS:], usedforsecurity=False).hexdigest()
        if self._known.setdefault(number, digest) != digest:
            raise FailedError(f"the image of session {number} differs from the one made before")


class ConvertT1(_Converting):
    """One scan by opening its folder, to the first byte of the image."""

    name = "convert-t1"
    title = "a T1 in nifti/, to the first byte of its image"
    first, second = "xnatfs: first scan of a mount", "xnatfs: second scan of a mount"
    again = "xnatfs: the same again"
    reference = "curl zip, unzip, dcm2niix -z y (pigz)"
    internal, plain = "curl zip, unzip, dcm2niix -z i", "curl zip, unzip, dcm2niix -z n"
    sessions = 2

    def describe(self) -> str:
        return f"{self.sizes.slices} true DICOM slices of {_PIXELS} x {_PIXELS}, about 150 kB each"

    def contestants(self, harness: Harness) -> list[Contestant]:
        self.prepare(harness)
        images = _Images()

        def first_byte(mount: Mount, number: int) -> float:
            folder = mount.point / _NIFTI / f"dcm_MR{number}" / "1-T1"
            begin = time.perf_counter()
            names = os.listdir(folder)
            image = next(name for name in names if name.endswith(".nii.gz"))
            with (folder / image).open("rb", buffering=0) as stream:
                stream.read(1)
            return time.perf_counter() - begin

        def mounted(*before: int, number: int) -> Sample:
            with harness.xnatfs() as mount:
                for one in before:
                    first_byte(mount, one)
                sample = harness.sample(lambda: first_byte(mount, number))
                (image,) = (mount.point / _NIFTI / f"dcm_MR{number}" / "1-T1").glob("*.nii.gz")
                images.check(number, image)
                return sample

        def hand(compression: str) -> Callable[[], Sample]:
            return lambda: self.by_hand(harness, images, compression, 1, 1)

        return [
            Contestant(self.first, "xnatfs", lambda: mounted(number=1)),
            Contestant(self.second, "xnatfs", lambda: mounted(1, number=2)),
            Contestant(self.again, "xnatfs", lambda: mounted(1, number=1)),
            Contestant(self.reference, "curl", hand("y")),
            Contestant(self.internal, "curl", hand("i")),
            Contestant(self.plain, "curl", hand("n")),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        again = outcome.entry(self.again)
        return [
            Target(f"{who}, x by hand with {how}", outcome.ratio(ours, theirs), 1.3, unit="x")
            for who, ours in (("first of a mount", self.first), ("second", self.second))
            for how, theirs in (("-z y", self.reference), ("-z i", self.internal), ("-z n", self.plain))
        ] + [
            Target("again, ms", None if again.seconds is None else again.seconds * 1000, 5, unit=" ms"),
            Target("again, requests", again.requests, 0),
        ]


class ConvertAll(_Converting):
    """`xnatfs convert` of a project."""

    name = "convert-all"
    title = "xnatfs convert of a project"
    ours, reference = "xnatfs convert", "xargs -P: curl, unzip, dcm2niix -z y (pigz)"
    internal = "xargs -P: curl, unzip, dcm2niix -z i"
    plain = "xargs -P: curl, unzip, dcm2niix -z n"

    @property
    def sessions(self) -> int:
        """How many there are."""
        return self.sizes.converted

    def describe(self) -> str:
        return f"{self.sessions} sessions with a T1 of {self.sizes.slices} slices of {_PIXELS} x {_PIXELS}"

    def contestants(self, harness: Harness) -> list[Contestant]:
        self.prepare(harness)
        images = _Images()
        jobs = os.cpu_count() or 1

        def ours() -> Sample:
            with harness.folder("xnatfs") as folder, harness.xnatfs(folder) as mount:
                command = (sys.executable, "-m", "xnatfs", "convert", mount.point / "views/DCM/nifti")
                extra: dict[str, float] = {}

                def act() -> float:
                    seconds = harness.host.run(*command, env=harness.environment(folder)).seconds
                    extra["memory"] = memory_of(mount.pid, peak=True)
                    return seconds

                sample = harness.sample(act)
                for number in range(1, self.sessions + 1):
                    (image,) = (mount.point / _NIFTI / f"dcm_MR{number}" / "1-T1").glob("*.nii.gz")
                    images.check(number, image)
                return Sample(sample.seconds, sample.requests, sample.sent, extra)

        def hand(compression: str) -> Callable[[], Sample]:
            return lambda: self.by_hand(harness, images, compression, self.sessions, jobs)

        return [
            Contestant(self.ours, "xnatfs", ours),
            Contestant(self.reference, "curl", hand("y")),
            Contestant(self.internal, "curl", hand("i")),
            Contestant(self.plain, "curl", hand("n")),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        memory = outcome.entry(self.ours).extra("memory")
        most = (3 * self.series + _MEMORY) / 1e6
        return [
            Target(
                f"rate, x xargs -P with {how}", outcome.ratio(theirs, self.ours), 0.9, least=True, unit="x"
            )
            for how, theirs in (("-z y", self.reference), ("-z i", self.internal), ("-z n", self.plain))
        ] + [Target("memory of the mount at most, MB", memory and memory / 1e6, most, unit=" MB")]
