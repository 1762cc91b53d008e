"""Works on one large file: read through, its header, random reads, and again from the disk cache."""

from __future__ import annotations

import hashlib
import itertools
import os
import shlex
from pathlib import Path

from benchmark.harness import LOGIN, RCLONE_STREAMS, Harness, Mount
from benchmark.host import FailedError
from benchmark.readers import MOST, places
from benchmark.results import Outcome, Sample, Target, chain
from benchmark.workload import COLD, Contestant, Workload, mib

SESSION = "DEMO_E00001"
URL = f"/data/experiments/{SESSION}/scans/1/resources/NIFTI/files/one.nii"
OURS = "projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI/one.nii"
THEIRS = "BIG/big_MR1/1/NIFTI/one.nii"


class LargeFile(Workload):
    """What these workloads share: the file, with its digest in the catalog."""

    def data(self) -> list[str]:
        return ["--sessions", "0", "--big", f"one.nii={self.sizes.large}", "--digests"]

    def describe(self) -> str:
        return f"one NIfTI of {mib(self.sizes.large)}, with its MD5 in the catalog"


def cat(harness: Harness, path: Path) -> float:
    """`cat` to nowhere, timed."""
    return harness.host.run("cat", path, quiet=True).seconds


def md5(harness: Harness, path: Path) -> str:
    """`md5sum` of a file, in a process of its own."""
    return harness.host.run("md5sum", path).output.split()[0].lstrip("\\")


class Sequential(LargeFile):
    """One reader from the first byte to the last."""

    name = "sequential"
    title = "sequential read"
    networks = ("20ms", "100ms", "wan", "loopback")
    reference = "curl -o"
    ranged = "curl: 8 ranges at once"
    checking = "curl | tee FILE | md5sum"
    streams = "rclone mount, 8 streams: cat > /dev/null"

    def contestants(self, harness: Harness) -> list[Contestant]:
        (digest,) = harness.server.digests(f"/data/experiments/{SESSION}/scans/ALL/files")
        checked: set[str] = set()

        def right(who: str, path: Path) -> None:
            if who not in checked and md5(harness, path) != digest:
                raise FailedError("the bytes are wrong")
            checked.add(who)

        def read(to_disk: bool) -> Sample:
            with harness.xnatfs() as mount, harness.folder("copy") as folder:
                source, target = mount.point / OURS, folder / "one.nii"
                if not to_disk:
                    sample = harness.sample(lambda: cat(harness, source))
                    right("cat", source)
                    return sample
                sample = harness.sample(lambda: harness.host.run("cp", source, target).seconds)
                right("cp", target)
                return sample

        def curl(to_disk: bool) -> Sample:
            with harness.folder("curl") as folder:
                target = folder / "one.nii"
                sample = harness.sample(lambda: harness.curl(URL, target if to_disk else "/dev/null").seconds)
                if to_disk:
                    right("curl", target)
                return sample

        def ranges(count: int = 8) -> Sample:
            size = self.sizes.large
            edges = [size * number // count for number in range(count + 1)]
            with harness.folder("parts") as folder:
                wanted = [
                    (URL, f"{start}-{end - 1}", folder / str(number))
                    for number, (start, end) in enumerate(itertools.pairwise(edges))
                ]
                sample = harness.sample(lambda: harness.curls(wanted, count).seconds)
                if sum((folder / str(number)).stat().st_size for number in range(count)) != size:
                    raise FailedError("the ranges are not the file")
                return sample

        def checked_by_curl() -> Sample:
            with harness.folder("curl") as folder:
                target = folder / "one.nii"
                command = f"curl -sS --fail -u {LOGIN} {shlex.quote(harness.server.url + URL)}"
                found: list[str] = []

                def fetch() -> float:
                    done = harness.host.run(
                        "sh", "-c", f"{command} | tee {shlex.quote(str(target))} | md5sum"
                    )
                    found[:] = done.output.split()[:1]
                    return done.seconds

                sample = harness.sample(fetch)
                if found != [digest]:
                    raise FailedError("the bytes are wrong")
                return sample

        def rclone(*flags: str) -> Sample:
            with harness.rclone(*flags) as mount:
                return harness.sample(lambda: cat(harness, mount.point / THEIRS))

        def first(listed: bool) -> Sample:
            with harness.xnatfs() as mount:
                path = mount.point / OURS
                if listed:
                    harness.host.run("ls", "-l", path)
                    harness.server.settled()
                found: dict[str, float] = {}

                def once() -> float:
                    found.update(harness.read("first", path))
                    found["round_trips"] = chain(harness.server.records(), until=found["moment"])
                    return found["seconds"]

                sample = harness.sample(once)
                return Sample(
                    sample.seconds,
                    sample.requests,
                    sample.sent,
                    {"round trips to the first byte": found["round_trips"]},
                )

        return [
            Contestant(
                "xnatfs: cat > /dev/null",
                "xnatfs",
                lambda: read(False),
                note="also writes the cache, on the same disk",
            ),
            Contestant("curl -o", "curl", lambda: curl(True)),
            Contestant(self.ranged, "curl", ranges, note="each to a file of its own, in one process"),
            Contestant(self.checking, "curl", checked_by_curl),
            Contestant(
                "xnatfs: cp to the same disk",
                "xnatfs",
                lambda: read(True),
                note="writes the cache and the copy",
            ),
            Contestant("curl -o /dev/null", "curl", lambda: curl(False)),
            Contestant(
                "rclone mount: cat > /dev/null",
                "rclone",
                rclone,
                note="also writes its cache, on the same disk",
            ),
            Contestant(
                self.streams,
                "rclone",
                lambda: rclone(*RCLONE_STREAMS),
                note=" ".join(RCLONE_STREAMS),
            ),
            Contestant(
                "xnatfs: first byte, listed",
                "xnatfs",
                lambda: first(True),
                note="after ls -l of the file; in a new mount",
            ),
            Contestant("xnatfs: first byte, nothing listed", "xnatfs", lambda: first(False)),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        ours = "xnatfs: cat > /dev/null"
        speed = outcome.ratio("curl -o", ours)
        if outcome.network.name == "loopback":
            checked = outcome.ratio(self.checking, ours)
            return [Target("speed, x curl | tee FILE | md5sum", checked, 0.8, least=True, unit="x")]
        if outcome.network.name == "wan":
            return [
                Target(
                    "speed, x 8 ranged curls", outcome.ratio(self.ranged, ours), 0.85, least=True, unit="x"
                ),
                Target(
                    "speed, x rclone mount with 8 streams",
                    outcome.ratio(self.streams, ours),
                    1,
                    least=True,
                    unit="x",
                ),
            ]
        if outcome.network.name != "20ms":
            return []
        trips = outcome.entry("xnatfs: first byte, listed").extra("round trips to the first byte")
        return [
            Target("speed, x curl -o on the same disk", speed, 0.95, least=True, unit="x"),
            Target("first byte of a listed file, round trips", trips, 3),
        ]


class Header(LargeFile):
    """nibabel's look at the header."""

    name = "header"
    title = "nibabel header"
    networks = ("20ms", "100ms")
    reference = "curl -r 0-65535"

    def contestants(self, harness: Harness) -> list[Contestant]:
        harness.server.digests(f"/data/experiments/{SESSION}/scans/ALL/files")

        def ours() -> Sample:
            with harness.xnatfs() as mount:
                trips: list[int] = []

                def look() -> float:
                    found = harness.read("header", mount.point / OURS)
                    harness.server.settled()
                    trips.append(chain(harness.server.records()))
                    return float(found["seconds"])

                sample = harness.sample(look)
                return Sample(sample.seconds, sample.requests, sample.sent, {"round trips": trips[0]})

        def rclone() -> Sample:
            with harness.rclone() as mount:
                return harness.sample(lambda: float(harness.read("header", mount.point / THEIRS)["seconds"]))

        def curl() -> Sample:
            with harness.folder("curl") as folder:
                return harness.sample(
                    lambda: harness.curl(URL, folder / "head", "-r", f"0-{MOST - 1}").seconds
                )

        return [
            Contestant("xnatfs: nibabel header", "xnatfs", ours),
            Contestant("curl -r 0-65535", "curl", curl, note="with the start of curl"),
            Contestant("rclone mount: nibabel header", "rclone", rclone),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        if outcome.network.name != "20ms":
            return []
        ours = outcome.entry("xnatfs: nibabel header")
        sent = ours.sent
        return [
            Target("round trips (under 10)", ours.extra("round trips"), 9),
            Target("over the wire, MiB", None if sent is None else sent / (1 << 20), 4, unit="MiB"),
        ]


class Scattered(LargeFile):
    """Random reads by several threads."""

    name = "random"
    title = "random 64 KiB reads by 8 threads"
    networks = ("20ms", "100ms", "loopback")
    reference = "curl: the same ranged GETs, 8 at a time"
    threads = 8
    seed = 20240305

    def describe(self) -> str:
        return (
            f"{self.sizes.reads} reads of 64 KiB at random places (the same for all) of {super().describe()}"
        )

    def contestants(self, harness: Harness) -> list[Contestant]:
        harness.server.digests(f"/data/experiments/{SESSION}/scans/ALL/files")
        starts = places(self.seed, self.sizes.reads, self.sizes.large)
        expected: list[str] = []

        def curl() -> Sample:
            with harness.folder("parts") as folder:
                wanted = [
                    (URL, f"{start}-{start + MOST - 1}", folder / str(index))
                    for index, start in enumerate(starts)
                ]
                sample = harness.sample(lambda: harness.curls(wanted, self.threads).seconds)
                whole = b"".join((folder / str(index)).read_bytes() for index in range(len(starts)))
                expected[:] = [hashlib.md5(whole, usedforsecurity=False).hexdigest()]
                return sample

        curl()

        def mounted(name: str) -> Sample:
            context, source = {"xnatfs": (harness.xnatfs, OURS), "rclone": (harness.rclone, THEIRS)}[name]
            with context() as mount:

                def read() -> float:
                    path = mount.point / source
                    found = harness.read(
                        "scattered", path, str(self.seed), str(self.sizes.reads), str(self.threads)
                    )
                    if found["md5"] != expected[0]:
                        raise FailedError("the bytes are wrong")
                    return float(found["seconds"])

                return harness.sample(read)

        return [
            Contestant("xnatfs: pread by 8 threads", "xnatfs", lambda: mounted("xnatfs")),
            Contestant(self.reference, "curl", curl),
            Contestant("rclone mount: pread by 8 threads", "rclone", lambda: mounted("rclone")),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        if outcome.network.name != "20ms":
            return []
        ours, reference = outcome.entry("xnatfs: pread by 8 threads").sent, outcome.entry(self.reference).sent
        return [
            Target(
                "time, x the same ranged GETs",
                outcome.ratio("xnatfs: pread by 8 threads", self.reference),
                1.3,
                unit="x",
            ),
            Target(
                "bytes, x the same ranged GETs",
                ours / reference if ours is not None and reference else None,
                3,
                unit="x",
            ),
        ]


class SecondRead(LargeFile):
    """Again, from the disk cache."""

    name = "second"
    title = "second read, from the disk cache with the page cache dropped"
    networks = ("loopback",)
    reference = "dd of the cached file"
    cold = f"{COLD.partition(':')[0]} means here: read once, then the page cache dropped"

    def contestants(self, harness: Harness) -> list[Contestant]:
        harness.server.digests(f"/data/experiments/{SESSION}/scans/ALL/files")
        kept: dict[str, Mount] = {}
        note = (
            ""
            if harness.host.drop_page_cache()
            else "page cache not dropped (needs root): cached files are only advised away"
        )

        def mount(name: str) -> Mount:
            if name not in kept:
                kept[name] = harness.stack.enter_context(
                    {"xnatfs": harness.xnatfs, "rclone": harness.rclone}[name]()
                )
                cat(harness, kept[name].point / {"xnatfs": OURS, "rclone": THEIRS}[name])
            return kept[name]

        def again(name: str) -> Sample:
            one = mount(name)
            _forget(harness, one)
            return harness.sample(lambda: cat(harness, one.point / {"xnatfs": OURS, "rclone": THEIRS}[name]))

        def dd() -> Sample:
            one = mount("xnatfs")
            cached = _largest(one.cache)
            if cached.stat().st_size < self.sizes.large:
                raise FailedError("the cache does not hold the whole file")
            _forget(harness, one)
            return harness.sample(
                lambda: harness.host.run("dd", f"if={cached}", "of=/dev/null", "bs=1M", "status=none").seconds
            )

        return [
            Contestant("xnatfs: cat > /dev/null", "xnatfs", lambda: again("xnatfs"), note=note),
            Contestant("dd of the cached file", "xnatfs", dd, note=note),
            Contestant("rclone mount: cat > /dev/null", "rclone", lambda: again("rclone"), note=note),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        ours = "xnatfs: cat > /dev/null"
        return [
            Target(
                "speed, x dd of the cached file",
                outcome.ratio("dd of the cached file", ours),
                0.5,
                least=True,
                unit="x",
            ),
            Target(
                "speed, x rclone mount",
                outcome.ratio("rclone mount: cat > /dev/null", ours),
                1.5,
                least=True,
                unit="x",
            ),
        ]


def _largest(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not files:
        raise FailedError("the cache is empty")
    return max(files, key=lambda path: path.stat().st_blocks)


def _forget(harness: Harness, mount: Mount) -> None:
    """Drop the page cache, or what of it may be dropped without root."""
    if harness.host.drop_page_cache():
        return
    cached = _largest(mount.cache)
    descriptor = os.open(cached, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
