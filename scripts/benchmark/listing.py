"""`find` over a whole project, the second time too, and the memory it takes."""

from __future__ import annotations

from contextlib import ExitStack

from benchmark.harness import Harness, Mount
from benchmark.host import FailedError, memory_of
from benchmark.results import Outcome, Sample, Target
from benchmark.workload import Contestant, Workload

FIRST = "xnatfs: find, first time"
SECOND = "xnatfs: find, second time"
DISK = "this machine's disk: find in such a tree, second time"
_FILE_SIZE = 1000  # contents are not read; their digests are computed by the stand-in once


class Find(Workload):
    """`find -size +0` over all files of a project."""

    name = "find"
    title = "find -type f -size +0 over a project"
    networks = ("20ms", "100ms", "loopback")
    reference = "curl: one file listing a session, 8 at a time"

    def data(self) -> list[str]:
        sizes = self.sizes
        counts = [
            "--sessions",
            str(sizes.sessions),
            "--scans",
            str(sizes.session_scans),
            "--files",
            str(sizes.session_files),
        ]
        return [*counts, "--file-size", str(_FILE_SIZE)]

    def describe(self) -> str:
        sizes = self.sizes
        total = sizes.sessions * sizes.session_scans * sizes.session_files
        return (
            f"{sizes.sessions:,} sessions x {sizes.session_scans} scans x {sizes.session_files} files, "
            f"{total:,} files in all"
        )

    def contestants(self, harness: Harness) -> list[Contestant]:
        sizes = self.sizes
        a_session = sizes.session_scans * sizes.session_files
        listings = [
            f"/data/experiments/DEMO_E{number:05d}/files?all=true&format=json"
            for number in range(1, sizes.sessions + 1)
        ]
        harness.curls([(path, "", "/dev/null") for path in listings], 8)  # digests and catalogs, once
        held: dict[str, tuple[ExitStack, Mount]] = {}

        def find(folders: list[str], expected: int) -> float:
            done = harness.host.run("sh", "-c", 'find "$@" -type f -size +0 | wc -l', "find", *folders)
            if int(done.output) != expected:
                raise FailedError(f"find shows {int(done.output):,} files of {expected:,}")
            return done.seconds

        def first() -> Sample:
            with ExitStack() as stack:
                mount = stack.enter_context(harness.xnatfs())
                sample = harness.sample(
                    lambda: find([str(mount.point / "projects/SCALE")], sizes.sessions * a_session)
                )
                held["xnatfs"] = stack.pop_all(), mount
                harness.stack.push(held["xnatfs"][0].__exit__)
            return Sample(
                sample.seconds,
                sample.requests,
                sample.sent,
                {"resident MB after": memory_of(mount.pid) / 1e6},
            )

        def second() -> Sample:
            if "xnatfs" not in held:
                raise FailedError("there was no first time")
            stack, mount = held.pop("xnatfs")
            with stack:
                sample = harness.sample(
                    lambda: find([str(mount.point / "projects/SCALE")], sizes.sessions * a_session)
                )
                return Sample(
                    sample.seconds,
                    sample.requests,
                    sample.sent,
                    {"resident MB after": memory_of(mount.pid) / 1e6},
                )

        def disk() -> Sample:
            with harness.folder("tree") as folder:
                for session in range(sizes.sessions):
                    for scan in range(sizes.session_scans):
                        below = folder / f"subjects/{session}/{session}_MR1/SCANS/{scan}/DICOM"
                        below.mkdir(parents=True)
                        for number in range(sizes.session_files):
                            (below / f"{number:04}.dcm").write_bytes(b"1")
                find([str(folder)], sizes.sessions * a_session)
                return harness.sample(lambda: find([str(folder)], sizes.sessions * a_session))

        def curl() -> Sample:
            return harness.sample(
                lambda: harness.curls([(path, "", "/dev/null") for path in listings], 8).seconds
            )

        part = min(sizes.rclone_sessions, sizes.sessions)

        def rclone() -> Sample:
            with harness.rclone() as mount:
                folders = [str(mount.point / f"SCALE/sub{number:05d}_MR1") for number in range(1, part + 1)]
                sample = harness.sample(lambda: find(folders, part * a_session))
                return Sample(
                    sample.seconds,
                    sample.requests,
                    sample.sent,
                    {"resident MB after": memory_of(mount.pid) / 1e6},
                )

        said = (
            ""
            if part == sizes.sessions
            else f"done on {part} of {sizes.sessions:,} sessions; the time is scaled up, requests and "
            f"bytes are not"
        )
        return [
            Contestant(FIRST, "xnatfs", first),
            Contestant(SECOND, "xnatfs", second, note="in the same mount, at once"),
            Contestant(DISK, "xnatfs", disk),
            Contestant(self.reference, "curl", curl),
            Contestant(
                "rclone mount: find, first time", "rclone", rclone, share=part / sizes.sessions, note=said
            ),
        ]

    def targets(self, outcome: Outcome) -> list[Target]:
        if outcome.network.name != "20ms":
            return []
        memory = outcome.entry(SECOND).extra("resident MB after") or outcome.entry(FIRST).extra(
            "resident MB after"
        )
        return [
            Target(
                "first time, x the same listings 8 at a time",
                outcome.ratio(FIRST, self.reference),
                2,
                unit="x",
            ),
            Target("second time, seconds", outcome.entry(SECOND).seconds, 3, unit="s"),
            Target("resident memory of the daemon after it, MB", memory, 400, unit="MB"),
        ]
