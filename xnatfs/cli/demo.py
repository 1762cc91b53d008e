"""`xnatfs demo`: mount the embedded XNAT and show it; nothing else is needed to try xnatfs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from xnatfs import extras
from xnatfs.auth.credentials import Credentials
from xnatfs.cli import unmount
from xnatfs.cli.mount import check_fuse, check_mountpoint, made_mountpoint
from xnatfs.config import Limits, Settings
from xnatfs.daemon import mount_registry
from xnatfs.daemon.run import background
from xnatfs.errors import UsageError

_LONGEST_START = 60.0
_SHOWN = 12


@click.command("demo")
@click.argument("mountpoint", required=False, type=click.Path(path_type=str))
@click.option(
    "--once", is_flag=True, help="Show, clean up and exit, instead of keeping the mount until Ctrl-C."
)
def command(mountpoint: str | None, once: bool) -> None:
    """Start an embedded XNAT with sample data, mount it, copy an image from it and read its header.

    The mount stays until Ctrl-C: explore it in another terminal or a file manager.
    """
    extras.check("demo")
    ended = threading.Event()
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # before anything is started, since it has to be stopped again
        signal.signal(number, lambda *_: ended.set())
    check_fuse()
    place = mount_registry.absolute(mountpoint) if mountpoint else tempfile.mkdtemp(prefix="xnatfs-demo-")
    check_mountpoint(place)
    scratch = Path(tempfile.mkdtemp(prefix="xnatfs-demo-work-"))
    # A separate process: mounting forks, which a process with a server's threads should not do.
    server = subprocess.Popen(
        [sys.executable, "-m", "xnatfs", "serve-demo", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        url = _url(server)
        click.echo(f"An embedded XNAT serves {url}.")
        settings = Settings(
            server=url,
            cache_dir=scratch / "cache",
            state_dir=scratch / "state",
            limits=Limits(cache_size=2 * 10**9),
        )
        with made_mountpoint(place) as made:
            background(settings, Credentials(url, "demo", "demo", "the demo"), place, made=made)
        try:
            click.echo(f"It is mounted at {place}.\n")
            _show(place, scratch)
            if not once:
                click.echo(f"\nThe mount stays at {place} until Ctrl-C.")
                while not ended.wait(0.5):
                    pass
        finally:
            unmount.end(place)
            click.echo("Unmounted.")
    finally:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()
        shutil.rmtree(scratch, ignore_errors=True)
        if mountpoint is None:
            os.rmdir(place)


def _url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    timer = threading.Timer(_LONGEST_START, server.kill)
    timer.start()
    try:
        line = server.stdout.readline()
    finally:
        timer.cancel()
    words = [word for word in line.split() if word.startswith("http://")]
    if not words:
        raise UsageError("the embedded XNAT did not start; run `xnatfs serve-demo` to see why")
    return words[0]


def _show(place: str, scratch: Path) -> None:
    """Show the mount with common tools."""
    _run(["ls", place], place)
    _run(["ls", os.path.join(place, "projects")], place)
    subject = os.path.join(place, "projects", "ALFA", "subjects", "007")
    _run(["find", subject, "-maxdepth", "4", "-type", "d"], place, at_most=_SHOWN)
    source = next(Path(subject).glob("*/SCANS/*T1*/NIFTI/*.nii.gz"))
    copy = scratch / "T1.nii.gz"
    _run(["ls", "-l", str(source)], place)
    _run(["cp", str(source), str(copy)], place)
    import nibabel

    image: Any = nibabel.load(copy)
    shape, zooms = (
        " x ".join(f"{float(value):g}" for value in values)
        for values in (image.shape, image.header.get_zooms())
    )
    click.echo(f"nibabel reads the copy: {shape} voxels of {zooms} mm, {image.get_data_dtype()}")


def _run(arguments: list[str], place: str, at_most: int | None = None) -> None:
    click.echo("$ " + " ".join(arguments))
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise UsageError(f"{arguments[0]} failed on the mount: {result.stderr.strip()}")
    lines = result.stdout.splitlines()
    for line in lines[:at_most]:
        click.echo(line)
    if at_most is not None and len(lines) > at_most:
        click.echo(f"... and {len(lines) - at_most} more")
