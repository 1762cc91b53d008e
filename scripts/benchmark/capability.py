"""What the stand-in itself can do, so that a reader sees that it is not the bottleneck."""

from __future__ import annotations

from contextlib import ExitStack

from benchmark.harness import Harness, Server
from benchmark.host import Host
from benchmark.results import NETWORKS, Network
from benchmark.workload import Sizes, mib

_SESSION = "DEMO_E00001"
_LISTED = 100  # sessions whose files are listed


def measure(host: Host, networks: list[Network], sizes: Sizes, runs: int) -> list[dict[str, float | str]]:
    """One row a network: the stand-in alone, asked by curl writing to /dev/null."""
    count, rows_listed = sizes.scans * sizes.files, sizes.session_scans * sizes.session_files
    options = [
        "--sessions",
        "1",
        "--scans",
        str(sizes.scans),
        "--files",
        str(sizes.files),
        "--file-size",
        str(sizes.file_size),
    ]
    rows: list[dict[str, float | str]] = []
    with ExitStack() as stack:
        server = Server(host, "--data", "scale", *options, "--big", f"one.nii={sizes.large}")
        stack.callback(server.close)
        counts = [
            "--sessions",
            str(_LISTED),
            "--scans",
            str(sizes.session_scans),
            "--files",
            str(sizes.session_files),
            "--file-size",
            "1000",
        ]
        many = Server(host, "--data", "scale", *counts)
        stack.callback(many.close)
        zipped = f"/data/experiments/{_SESSION}/scans/ALL/files?format=zip"
        names = [(scan, number) for scan in range(1, sizes.scans + 1) for number in range(1, sizes.files + 1)]
        files = [
            (
                f"/data/experiments/{_SESSION}/scans/{scan}/resources/DICOM/files/{number:04d}.dcm",
                "",
                "/dev/null",
            )
            for scan, number in names
        ]
        harness = Harness(host, server, NETWORKS["loopback"])
        listings = [
            (f"/data/experiments/DEMO_E{number:05d}/files?all=true&format=json", "", "/dev/null")
            for number in range(1, _LISTED + 1)
        ]
        listing = Harness(host, many, NETWORKS["loopback"])
        listing.curls(listings, 8)
        server.digests(f"/data/experiments/{_SESSION}/scans/ALL/files")
        harness.curl(zipped, "/dev/null")
        for network in networks:
            server.set(network)
            many.set(network)
            slow = bool(network.latency_ms)
            one_by_one = files[: 50 if slow else 500]
            large = "/data/experiments/DEMO_E00002/scans/1/resources/NIFTI/files/one.nii"
            if network.bandwidth and network.bandwidth < 50e6:
                large, size = zipped, count * sizes.file_size
            else:
                size = sizes.large
            stream = min(harness.curl(large, "/dev/null").seconds for _ in range(runs))
            bulk = min(harness.curl(zipped, "/dev/null").seconds for _ in range(runs))
            rows.append(
                {
                    "network": network.name,
                    "title": network.title,
                    "one stream, MB/s": size / stream / 1e6,
                    "zip of the session, MB/s": count * sizes.file_size / bulk / 1e6,
                    f"GETs of {mib(sizes.file_size)} a second, one connection": len(one_by_one)
                    / harness.curls(one_by_one, 1).seconds,
                    f"GETs of {mib(sizes.file_size)} a second, 8 connections": len(files[:1000])
                    / harness.curls(files[:1000], 8).seconds,
                    f"file listings of {rows_listed} rows a second, 8 connections": _LISTED
                    / listing.curls(listings, 8).seconds,
                }
            )
    return rows
