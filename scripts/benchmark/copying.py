"""Works on whole sessions and scans: `cp -r` of a session, dcm2niix of a scan."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from benchmark.harness import Harness, check_files
from benchmark.host import FailedError
from benchmark.results import Outcome, Sample, Target
from benchmark.workload import Contestant, Workload, mib

SESSION = "DEMO_E00001"
FOLDER = "projects/SCALE/subjects/sub00001/sub00001_MR1"
GET = "xnatfs get"


class CopySession(Workload):
    """`cp -r` of a session of small files."""

    name = "copy"
    title = "cp -r of a session"
    networks = ("20ms", "100ms", "wan", "loopback")
    reference = "curl -o session.zip"
    scans = "curl: a zip of each scan, 8 at once"

    def data(self) -> list[str]:
        sizes = self.sizes
        return [
            "--sessions",
            "1",
            "--scans",
            str(sizes.scans),
            "--files",
            str(sizes.files),
            "--file-size",
            str(sizes.file_size),
        ]

    def describe(self) -> str:
        sizes = self.sizes
        total = sizes.scans * sizes.files * sizes.file_size
        return f"{sizes.scans} scans x {sizes.files} files of {mib(sizes.file_size)}, {mib(total)} in all"

    def contestants(self, harness: Harness) -> list[Contestant]:
        digests = harness.server.digests(f"/data/experiments/{SESSION}/scans/ALL/files")
        zipped = f"/data/experiments/{SESSION}/scans/ALL/files?format=zip"
        harness.curl(zipped, "/dev/null")  # the checksums of a STORED zip, once
        checked: set[str] = set()

        def check(who: str, folder: Path) -> None:
            if who not in checked:
                check_files(folder, digests)
                checked.add(who)

        def copied(mounted: str) -> Sample:
            context, source = {
                "xnatfs": (harness.xnatfs, FOLDER),
                "rclone": (harness.rclone, "SCALE/sub00001_MR1"),
            }[mounted]
            with harness.folder("copy") as target, context() as mount:
                sample = harness.sample(
                    lambda: harness.host.run("cp", "-r", mount.point / source, target / "session").seconds
                )
                check(mounted, target)
                return sample

        def got() -> Sample:
            command = (sys.executable, "-m", "xnatfs")
            with harness.folder("home") as home:
                start = harness.host.run(*command, "ls", env=harness.environment(home)).seconds
            with harness.folder("get") as target, harness.folder("home") as home:
                environment = harness.environment(home)
                sample = harness.sample(
                    lambda: (
                        harness.host.run(*command, "get", FOLDER, target, env=environment).seconds - start
                    ),
                    **{"start and login, s": start},
                )
                check("get", target)
                return sample

        def curl(unzip: bool) -> Sample:
            with harness.folder("curl") as folder:
                packed = folder / "session.zip"

                def fetch() -> float:
                    seconds = harness.curl(zipped, packed).seconds
                    return seconds + (
                        harness.host.run("unzip", "-q", packed, "-d", folder / "files").seconds
                        if unzip
                        else 0
                    )

                sample = harness.sample(fetch)
                if unzip:
                    check("unzip", folder / "files")
                else:
                    with zipfile.ZipFile(packed) as archive:
                        if "curl" not in checked and _sums(archive) != digests:
                            raise FailedError("the zip is wrong")
                    checked.add("curl")
                return sample

        def each_scan() -> Sample:
            with harness.folder("curl") as folder:
                wanted = [
                    (f"/data/experiments/{SESSION}/scans/{scan}/files?format=zip", "", folder / f"{scan}.zip")
                    for scan in range(1, self.sizes.scans + 1)
                ]
                sample = harness.sample(lambda: harness.curls(wanted, 8).seconds)
                if "scans" not in checked:
                    found: list[str] = []
                    for _, _, packed in wanted:
                        with zipfile.ZipFile(packed) as archive:
                            found += _sums(archive)
                    if sorted(found) != digests:
                        raise FailedError("the zips are wrong")
                checked.add("scans")
                return sample

        def client(job: str) -> Sample:
            with harness.folder(job) as folder, harness.folder(f"{job}-home") as home:
                target = folder / "session"
                target.mkdir()

                def fetch() -> float:
                    found = harness.read(
                        job, harness.server.url, "SCALE", SESSION, target, env={"HOME": str(home)}
                    )
                    return float(found["seconds"])

                sample = harness.sample(fetch)
                check(job, target)
                return sample

        return [
            Contestant("xnatfs: cp -r", "xnatfs", lambda: copied("xnatfs")),
            Contestant(
                GET,
                "xnatfs",
                got,
                note="start and login, which `xnatfs ls` takes as well, are not counted, as mounting is not",
            ),
            Contestant("curl -o session.zip", "curl", lambda: curl(False)),
            Contestant("curl -o session.zip; unzip -q", "curl", lambda: curl(True)),
            Contestant(self.scans, "curl", each_scan),
            Contestant("rclone mount: cp -r", "rclone", lambda: copied("rclone")),
            Contestant(
                "pyxnat: file by file",
                "pyxnat",
                lambda: client("pyxnat"),
                note="File.get of each file of each resource; it asks more than once a file",
            ),
            Contestant("xnatpy: download_dir", "xnatpy", lambda: client("xnatpy")),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        ours = "xnatfs: cp -r"
        if outcome.network.name == "loopback":
            return [
                Target(
                    "time, x (curl -o and unzip -q)",
                    outcome.ratio(ours, "curl -o session.zip; unzip -q"),
                    1.5,
                    unit="x",
                )
            ]
        if outcome.network.name == "wan":
            return [
                Target(
                    "time, x 8 zips of a scan by curl at once", outcome.ratio(ours, self.scans), 1.3, unit="x"
                )
            ]
        if outcome.network.name != "20ms":
            return []
        return [
            Target("time, x curl -o of the zip", outcome.ratio(ours, "curl -o session.zip"), 1.15, unit="x"),
            Target(
                "times as fast as rclone mount",
                outcome.ratio("rclone mount: cp -r", ours),
                10,
                least=True,
                unit="x",
            ),
            Target(
                "times as fast as pyxnat file by file",
                outcome.ratio("pyxnat: file by file", ours),
                5,
                least=True,
                unit="x",
            ),
            Target("xnatfs get: time, x cp -r", outcome.ratio(GET, ours), 1.05, unit="x"),
        ]


def _sums(archive: zipfile.ZipFile) -> list[str]:
    return sorted(
        hashlib.md5(archive.read(name), usedforsecurity=False).hexdigest() for name in archive.namelist()
    )


class ConvertScan(Workload):
    """dcm2niix on one scan in the mount."""

    name = "dcm2niix"
    title = "dcm2niix -o on one scan"
    networks = ("20ms", "100ms", "loopback")
    reference = "curl zip, unzip, dcm2niix"

    def data(self) -> list[str]:
        return ["--sessions", "0", "--dicom", str(self.sizes.files)]

    def describe(self) -> str:
        return f"{self.sizes.files} true DICOM slices of 272 x 272, about 150 kB each"

    def contestants(self, harness: Harness) -> list[Contestant]:
        if harness.host.find("dcm2niix") is None:
            raise FailedError("dcm2niix is not installed")
        zipped = f"/data/experiments/{SESSION}/scans/1/resources/DICOM/files?format=zip"
        harness.server.digests(f"/data/experiments/{SESSION}/scans/ALL/files")
        harness.curl(zipped, "/dev/null")
        images: set[str] = set()

        def convert(source: Path, target: Path) -> float:
            return harness.host.run("dcm2niix", "-o", target, "-f", "image", source).seconds

        def done(target: Path, sample: Sample) -> Sample:
            image = target / "image.nii"
            if not image.is_file() or image.stat().st_size < self.sizes.files * 272 * 272 * 2:
                raise FailedError("dcm2niix made no whole image")
            images.add(hashlib.md5(image.read_bytes(), usedforsecurity=False).hexdigest())
            if len(images) > 1:
                raise FailedError("the image differs from the one made before")
            return sample

        def mounted(name: str) -> Sample:
            context, source = {
                "xnatfs": (harness.xnatfs, "projects/DCM/subjects/dcm/dcm_MR1/SCANS/1-T1/DICOM"),
                "rclone": (harness.rclone, "DCM/dcm_MR1/1/DICOM"),
            }[name]
            with harness.folder("nifti") as target, context() as mount:
                return done(target, harness.sample(lambda: convert(mount.point / source, target)))

        def curl() -> Sample:
            with harness.folder("curl") as folder, harness.folder("nifti") as target:

                def fetch() -> float:
                    seconds = harness.curl(zipped, folder / "scan.zip").seconds
                    seconds += harness.host.run(
                        "unzip", "-q", folder / "scan.zip", "-d", folder / "files"
                    ).seconds
                    inside = next(
                        (folder / "files").rglob("*.dcm")
                    ).parent  # dcm2niix looks five folders deep
                    return seconds + convert(inside, target)

                return done(target, harness.sample(fetch))

        workloads: list[tuple[str, str, Callable[[], Sample]]] = [
            ("xnatfs: dcm2niix", "xnatfs", lambda: mounted("xnatfs")),
            ("curl zip, unzip, dcm2niix", "curl", curl),
            ("rclone mount: dcm2niix", "rclone", lambda: mounted("rclone")),
        ]
        return [Contestant(*one) for one in workloads]

    def targets(self, outcome: Outcome) -> list[Target]:
        if outcome.network.name != "20ms":
            return []
        return [
            Target(
                "time, x (curl zip, unzip, dcm2niix)",
                outcome.ratio("xnatfs: dcm2niix", self.reference),
                1.5,
                unit="x",
            )
        ]
