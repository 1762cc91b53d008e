"""Works on the views: `cp -r` of one sequence over a whole project, beside `bx nifti`; listing the types of a
large project.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from benchmark.harness import LOGIN, Harness, Mount, check_files
from benchmark.host import FailedError
from benchmark.results import Outcome, Sample, Target
from benchmark.workload import Contestant, Workload, mib

VIEW = "views/NIFTI/by-scan-type/T1/usable/NIFTI"
OURS = "xnatfs: cp -r"
FILES = "curl: the files alone, 8 at a time"
BX = "bx nifti usable"
_PROJECT_LISTINGS = 16  # requests for a project and the login, at most


class CopyView(Workload):
    """`cp -r` of a flat folder of NIfTI files."""

    name = "view-copy"
    title = "cp -r of one sequence of all sessions"
    networks: ClassVar[tuple[str, ...]] = ("20ms", "100ms")
    reference = "curl: the same listings and files, 8 at a time"

    @property
    def size(self) -> int:
        """Bytes of a file."""
        return self.sizes.image_size

    def data(self) -> list[str]:
        return ["--sessions", "0", "--nifti", str(self.sizes.images), "--nifti-size", str(self.size)]

    def describe(self) -> str:
        return (
            f"{self.sizes.images} sessions with one file of {mib(self.size)}, "
            f"{mib(self.sizes.images * self.size)} in all"
        )

    def contestants(self, harness: Harness) -> list[Contestant]:
        count = self.sizes.images
        bases = [
            f"/data/experiments/DEMO_E{number:05d}/scans/1/resources/NIFTI/files"
            for number in range(1, count + 1)
        ]
        harness.curls(
            [(f"{base}?format=json", "", "/dev/null") for base in bases], 8
        )  # digests and catalogs, once
        digests = sorted(digest for base in bases for digest in harness.server.digests(base))
        checked: set[str] = set()

        def check(who: str, folder: Path) -> None:
            if who not in checked:
                check_files(folder, digests)
                checked.add(who)

        def ours() -> Sample:
            with harness.folder("copy") as target, harness.xnatfs() as mount:
                sample = harness.sample(
                    lambda: harness.host.run("cp", "-r", mount.point / VIEW, target / "copy").seconds
                )
                asked = [f"{one['method']} {one['path']}?{one['query']}" for one in harness.server.records()]
                files = sum("/files/" in one for one in asked)
                parts = sum("/files?" in one and "/scans/" in one for one in asked)
                at_most = count if self.size <= 8 << 20 else 20 * count  # larger ones come in parts
                if (
                    parts != count
                    or not count <= files <= at_most
                    or len(asked) - files - parts > _PROJECT_LISTINGS
                ):
                    raise FailedError(
                        f"{files} requests for files, {parts} for listings, {len(asked)} in all"
                    )
                listings[:] = [
                    path for path in (one.partition(" ")[2] for one in asked) if "/files/" not in path
                ]
                check("xnatfs", target)
                return sample

        listings: list[str] = []  # that the mount asked for
        ours()

        def curl(with_listings: bool) -> Sample:
            with harness.folder("curl") as folder:
                wanted: list[tuple[str, str, Path | str]] = (
                    [(path, "", "/dev/null") for path in listings] if with_listings else []
                )
                wanted += [
                    (f"{base}/image1.nii.gz", "", folder / f"{number}") for number, base in enumerate(bases)
                ]
                sample = harness.sample(lambda: harness.curls(wanted, 8).seconds)
                check("curl", folder)
                return sample

        def bx() -> Sample:
            program = find_bx()
            with harness.folder("bx") as folder, harness.folder("bx-home") as home:
                user, _, password = LOGIN.partition(":")
                config = home / "xnat.cfg"
                config.write_text(
                    json.dumps(
                        {"server": harness.server.url, "user": user, "password": password, "verify": True}
                    )
                )
                environment = {"BX_DUMP": "1", "HOME": str(home)}
                script = 'echo T1 | "$1" nifti usable NIFTI --config "$2" --dest "$3"'

                def fetch() -> float:
                    return harness.host.run(
                        "sh", "-c", script, "sh", program, config, folder, env=environment, quiet=True
                    ).seconds

                sample = harness.sample(fetch)
                check("bx", folder)
                return sample

        return [
            Contestant(OURS, "xnatfs", ours),
            Contestant(
                self.reference,
                "curl",
                lambda: curl(True),
                note="what asks nothing else and waits for nothing between two files",
            ),
            Contestant(FILES, "curl", lambda: curl(False)),
            Contestant(BX, "bx", bx, note="with its start, about two seconds"),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        if outcome.network.name != "20ms":
            return []
        return [
            Target("time, x the same GETs 8 at a time", outcome.ratio(OURS, self.reference), 1.3, unit="x"),
            Target("times as fast as bx nifti", outcome.ratio(BX, OURS), 20, least=True, unit="x"),
        ]


class CopyLargeView(CopyView):
    """The same with files of a usual size."""

    name = "view-copy-large"
    title = "cp -r of one sequence of all sessions, large files"
    networks = ("20ms",)

    @property
    def size(self) -> int:
        return self.sizes.large_image_size

    def targets(self, outcome: Outcome) -> list[Target]:
        return [one for one in super().targets(outcome) if not one.least]


class ListTypes(Workload):
    """`ls` of the types of a large project."""

    name = "view-list"
    title = "ls of the scan types of a project"
    networks = ("20ms",)
    reference = "curl: the list of the scans"

    def data(self) -> list[str]:
        sizes = self.sizes
        counts = [
            "--sessions",
            str(sizes.listed_sessions),
            "--scans",
            "4",
            "--files",
            "1",
            "--types",
            str(sizes.listed_types),
        ]
        return [*counts, "--no-digests"]

    def describe(self) -> str:
        return f"{self.sizes.listed_types:,} types, {self.sizes.listed_sessions:,} sessions with 4 scans"

    def contestants(self, harness: Harness) -> list[Contestant]:
        held: dict[str, tuple[ExitStack, Mount]] = {}

        def ls(point: Path, path: str, expected: int) -> float:
            done = harness.host.run("sh", "-c", 'ls -U "$1" | wc -l', "ls", point / path)
            if int(done.output) != expected:
                raise FailedError(f"ls shows {int(done.output):,} of {expected:,}")
            return done.seconds

        def subjects() -> Sample:
            with ExitStack() as stack:
                mount = stack.enter_context(harness.xnatfs())
                sample = harness.sample(
                    lambda: ls(mount.point, "projects/SCALE/subjects", self.sizes.listed_sessions)
                )
                held["xnatfs"] = stack.pop_all(), mount
                harness.stack.push(held["xnatfs"][0].__exit__)
                return sample

        def types() -> Sample:
            if "xnatfs" not in held:
                raise FailedError("the project was not listed")
            point = held["xnatfs"][1].point
            return harness.sample(lambda: ls(point, "views/SCALE/by-scan-type", self.sizes.listed_types))

        def again() -> Sample:
            stack, mount = held.pop("xnatfs")
            with stack:
                path = "views/SCALE/by-scan-type/TYPE1/usable/DICOM"
                each = 4 * self.sizes.listed_sessions // self.sizes.listed_types
                return harness.sample(lambda: ls(mount.point, path, each))

        def curl() -> Sample:
            columns = "ID,xnat:imagescandata/id,xnat:imagescandata/type"
            path = f"/data/experiments?project=SCALE&xsiType=xnat:imageSessionData&columns={columns}"
            return harness.sample(lambda: harness.curl(f"{path}&format=json", "/dev/null").seconds)

        return [
            Contestant("xnatfs: ls projects/SCALE/subjects, cold", "xnatfs", subjects),
            Contestant(LISTED, "xnatfs", types, note="in the same mount, the project listed"),
            Contestant("xnatfs: ls of the scans of one type", "xnatfs", again, note="in the same mount"),
            Contestant(self.reference, "curl", curl),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        return [Target("types, the project listed, seconds", outcome.entry(LISTED).seconds, 2, unit="s")]


LISTED = "xnatfs: ls views/SCALE/by-scan-type"


def find_bx() -> Path:
    """The bx that the tests installed: it needs an environment of its own, because bbrc-pyxnat replaces
    pyxnat.
    """
    named = os.environ.get("XNATFS_TEST_BX")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = [Path(named)] if named else sorted((cache / "xnatfs-tests").glob("bx-*/venv/bin/bx"))
    if not found:
        raise FailedError("bx is not installed (tests/clients installs it; or XNATFS_TEST_BX names it)")
    return found[-1]
