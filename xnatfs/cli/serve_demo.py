"""`xnatfs serve-demo`: the embedded XNAT stand-in, for trials and tests."""

from __future__ import annotations

from typing import Any

import click

from xnatfs import extras
from xnatfs.config import parse_size
from xnatfs.demo.faults import PROFILES, Switches
from xnatfs.errors import UsageError


@click.command("serve-demo")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="TCP port on 127.0.0.1; 0 picks a free one.",
)
@click.option(
    "--data",
    "name",
    type=click.Choice(["lab", "scale", "empty", "tour"]),
    default="lab",
    show_default=True,
    help="Which sample data.",
)
@click.option("--sessions", type=click.IntRange(0), help="--data scale: number of sessions.")
@click.option("--scans", type=click.IntRange(0), help="--data scale: scans per session.")
@click.option("--files", type=click.IntRange(0), help="--data scale: files per scan.")
@click.option("--file-size", type=click.IntRange(0), help="--data scale: bytes per file.")
@click.option(
    "--big",
    metavar="NAME=SIZE",
    multiple=True,
    help="--data scale: a large file in project BIG, such as one.nii=1GiB.",
)
@click.option(
    "--flat", type=click.IntRange(0), help="--data scale: files in the single resource of project FLAT."
)
@click.option("--flat-size", type=click.IntRange(0), help="--data scale: bytes of each such file.")
@click.option(
    "--dicom", type=click.IntRange(0), help="--data scale: real DICOM slices in the one scan of project DCM."
)
@click.option("--dicom-sessions", type=click.IntRange(1), help="--data scale: sessions in project DCM.")
@click.option(
    "--cohort", type=click.IntRange(0), help="--data scale: sessions with measurements in project COHORT."
)
@click.option(
    "--cohort-images",
    is_flag=True,
    default=None,
    help="--data scale: COHORT has SPM12's maps too, in their real size.",
)
@click.option(
    "--types",
    type=click.IntRange(0),
    help="--data scale: scan types in all (one for each scan of a session).",
)
@click.option(
    "--nifti", type=click.IntRange(0), help="--data scale: sessions with one image in project NIFTI."
)
@click.option("--nifti-size", type=click.IntRange(0), help="--data scale: bytes of such an image.")
@click.option(
    "--digests/--no-digests",
    default=None,
    help="--data scale: whether the catalogs have MD5 sums (by default, not for large files).",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="full",
    show_default=True,
    help="Which server to imitate: the listing forms it accepts and ignores.",
)
@click.option("--latency-ms", type=float, default=0, show_default=True, help="Delay of every request.")
@click.option(
    "--bandwidth",
    type=float,
    default=0,
    show_default=True,
    help="Bytes per second over all connections; 0: no limit.",
)
@click.option(
    "--connection-bandwidth",
    type=float,
    default=0,
    show_default=True,
    help="Bytes per second on each connection; 0: no limit. With --bandwidth both hold.",
)
@click.option(
    "--set",
    "switches",
    metavar="NAME=VALUE",
    multiple=True,
    help="Any other switch, e.g. no_range=true, fail_rate=0.05 (see GET /demo/switches).",
)
def command(
    port: int,
    name: str,
    sessions: int | None,
    scans: int | None,
    files: int | None,
    file_size: int | None,
    big: tuple[str, ...],
    flat: int | None,
    flat_size: int | None,
    dicom: int | None,
    dicom_sessions: int | None,
    cohort: int | None,
    cohort_images: bool | None,
    types: int | None,
    nifti: int | None,
    nifti_size: int | None,
    digests: bool | None,
    profile: str,
    latency_ms: float,
    bandwidth: float,
    connection_bandwidth: float,
    switches: tuple[str, ...],
) -> None:
    """Serve an XNAT stand-in on this machine until Ctrl-C.

    Log in as admin/admin or demo/demo. Switches can be changed while it runs: POST JSON to /demo/switches;
    GET /demo/log shows the requests it got.
    """
    extras.check("demo")
    from xnatfs.demo.data import build
    from xnatfs.demo.server import serve

    options: dict[str, Any] = {"sessions": sessions, "scans": scans, "files": files, "file_size": file_size}
    options |= {
        "big_files": _sizes(big),
        "flat": flat,
        "flat_size": flat_size,
        "dicom": dicom,
        "dicom_sessions": dicom_sessions,
        "digests": digests,
        "big_digests": digests,
    }
    options |= {"cohort": cohort, "cohort_images": cohort_images}
    options |= {"types": types, "nifti": nifti, "nifti_size": nifti_size}
    given = {option: value for option, value in options.items() if value is not None}
    if given and name != "scale":
        option = (
            next(iter(given)).replace("big_files", "big").replace("big_digests", "digests").replace("_", "-")
        )
        raise UsageError(f"--{option} needs --data scale")
    settings = Switches(
        profile=profile,
        latency_ms=latency_ms,
        bandwidth=bandwidth,
        connection_bandwidth=connection_bandwidth,
    )
    try:
        settings.update(dict(_switch(text, settings) for text in switches))
        archive = build(name, **given)
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        serve(
            archive,
            settings,
            port=port,
            started=lambda url: click.echo(
                f"an XNAT stand-in serves {url} (admin/admin, demo/demo); Ctrl-C ends it"
            ),
        )
    except OSError as error:
        raise UsageError(f"port {port} cannot be used: {error.strerror}") from None


def _sizes(big: tuple[str, ...]) -> dict[str, int] | None:
    """Names and sizes of large files."""
    pairs = [text.rpartition("=") for text in big]
    if not all(found and file for file, found, _ in pairs):
        raise UsageError("--big: write it as NAME=SIZE, such as one.nii=1GiB")
    return {file: parse_size(size) for file, _, size in pairs} or None


def _switch(text: str, settings: Switches) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found:
        raise UsageError(f"--set {text}: write it as NAME=VALUE")
    name = name.replace("-", "_")
    current = getattr(settings, name, "")
    try:
        if isinstance(current, bool):
            return name, {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        if isinstance(current, (int, float)):
            return name, type(current)(value)
        return name, value.split(",") if isinstance(current, list) else value
    except (ValueError, KeyError):
        raise UsageError(f"--set {text}: {name} takes a {type(current).__name__}") from None
