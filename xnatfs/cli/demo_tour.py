"""The ten steps of `xnatfs demo --tour`: each with two lines of why, commands as one types them, and what
they print.

Used by `demo`. The paths are those of the sample data "tour"; commands run in the mountpoint.
"""

from __future__ import annotations

import base64
import contextlib
import shlex
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from xnatfs import extras
from xnatfs.cli.demo_terminal import Command, Terminal, program
from xnatfs.errors import MissingExtra

SESSION = "projects/ALFA/subjects/007/007_MR1"
IMAGE = f"{SESSION}/SCANS/2-T1_ALFA1/NIFTI/007_MR1_T1_ALFA1.nii.gz"
LARGE = "projects/BIG/subjects/big/big_MR1/SCANS/1-T1/NIFTI/big_MR1_T1.nii"
T1S = "views/ALFA/by-scan-type/T1_ALFA1/usable/NIFTI"
TABLE = "tables/ALFA/freesurfer7/aseg"
_NOTE = "visit.txt"


@dataclass(frozen=True)
class Step:
    """A step of the tour.

    Attributes:
        why: two lines.
        before: what the tour does to the server first.
    """

    title: str
    why: tuple[str, str]
    commands: tuple[Command, ...]
    before: Callable[[], None] = lambda: None


def tour(terminal: Terminal, steps: list[Step], picture: Callable[[], None]) -> None:
    """Show the steps, one by one; `picture` comes at the end of the first.

    Raises:
        Ended, UsageError: see `Terminal.run`.
    """
    for number, step in enumerate(steps, 1):
        terminal.check()
        terminal.say()
        terminal.say(f"{number}/{len(steps)}  {step.title}", "bold underline")
        for line in step.why:
            terminal.say(line)
        step.before()
        for command in step.commands:
            terminal.run(command)
        if number == 1:
            picture()
        if number < len(steps) and not terminal.pause("-- Enter: next, q: end -- "):
            return


def steps_of(place: str, server: str, scratch: str, stop_server: Callable[[], None]) -> list[Step]:
    """The steps, for a mount at `place` of the embedded XNAT at `server`; `scratch` takes what is copied."""
    xnatfs, point = program(), shlex.quote(place)
    status = f"{xnatfs} status {point}"
    checksum = f"md5sum {IMAGE}"
    workbook: tuple[Command, ...] = ()
    with contextlib.suppress(MissingExtra):
        extras.check("tables")
        workbook = (Command(f"cp {TABLE}_wide.xlsx {shlex.quote(scratch)}"),)
    return [
        Step(
            "The tree",
            (
                "Projects, subjects, sessions, scans: every file of the server, once, by its label.",
                "README.txt explains the other folders. Any program can read the files in place.",
            ),
            (Command(f"cd {point}"), Command("ls"), Command("ls projects/ALFA/subjects")),
        ),
        Step(
            "The header of a large image",
            (
                "This image has 1 GiB, and a program wants its header only. Just the first piece",
                "of the file crosses the network: `xnatfs status` counts requests and bytes.",
            ),
            (
                Command(f"{status} | grep requests"),
                Command(f"ls -lh {LARGE}"),
                Command(f"{program('nib-ls')} {LARGE}", lines=1),
                Command(f"{status} | grep requests"),
            ),
        ),
        Step(
            "One sequence of the whole study",
            (
                "views/ has the same files by sequence: here the T1 images of all sessions.",
                "`cp -r` copies them all; usable/ is without the scans that were rated as bad.",
            ),
            (Command("ls views/ALFA/by-scan-type"), Command(f"ls {T1S}")),
        ),
        Step(
            "The project as a BIDS dataset",
            (
                "The same images again, named as BIDS wants them, with their sidecars.",
                "bids/unmapped.tsv says what is not in it, and why; a lab can bring its own map.",
            ),
            (
                Command("head -4 views/ALFA/bids/participants.tsv"),
                Command("find views/ALFA/bids/sub-007 -name '*.nii.gz'", lines=5),
            ),
        ),
        Step(
            "Measurements as tables",
            (
                "FreeSurfer's volumes of every session in one file: a row for each, or for each",
                "session; .csv, .xlsx or .parquet. A table is built when it is first opened.",
            ),
            (
                Command(f"head -3 {TABLE}.csv"),
                Command(f"cut -d, -f1-4 {TABLE}_wide.csv | head -4"),
                *workbook,
            ),
        ),
        Step(
            "What is missing, and why",
            (
                "No session is left out in silence: a line says why it is not in the table.",
                "README.txt beside the tables says what is built, and from how many sessions.",
            ),
            (
                Command(f"cat {TABLE}.problems.csv"),
                Command("grep -e built -e freesurfer7/aseg tables/ALFA/README.txt"),
            ),
        ),
        Step(
            "Read twice, fetched once",
            (
                "What was read is in a cache on this machine, as large as you want it to be.",
                "Reading it again asks the server for nothing: the number of requests stays.",
            ),
            (
                Command(checksum),
                Command(f"{status} | grep requests"),
                Command(checksum),
                Command(f"{status} | grep requests"),
            ),
        ),
        Step(
            "New data",
            (
                "Somebody has just uploaded a note to session 007_MR1 (the tour did). It would show",
                "within a minute by itself; `xnatfs refresh` makes the mount look now.",
            ),
            (
                Command(f"{xnatfs} refresh {point}"),
                Command(f"cat {SESSION}/RESOURCES/NOTES/{_NOTE}"),
            ),
            before=lambda: _upload(server),
        ),
        Step(
            "Without the server",
            (
                "The tour has just stopped the server. What was listed and read is still there; the",
                "rest fails at once. `xnatfs mount --offline` is the same, and does not even try.",
            ),
            (
                Command(checksum),
                Command(f"head -c 1000 {SESSION}/SCANS/3-T2_ALFA1/NIFTI/*.nii.gz", lines=2, refused=True),
                Command(f"{status} | grep last"),
            ),
            before=stop_server,
        ),
        Step(
            "Nothing you do here changes the server",
            (
                "Whatever tries to write is refused; with `xnatfs mount --overlay DIR`, what tools",
                "write is kept in DIR. That was all: unmount, and nothing is left.",
            ),
            (
                Command("rm projects/ALFA/resources/protocol/README.txt", refused=True),
                Command(f"cd / && {xnatfs} unmount {point}"),
            ),
        ),
    ]


def _upload(server: str) -> None:
    """A colleague's note: a file in a new resource of the session."""
    address = f"{server}/data/projects/ALFA/subjects/007/experiments/007_MR1/resources/NOTES/files/{_NOTE}"
    login = base64.b64encode(b"demo:demo").decode()
    request = urllib.request.Request(
        f"{address}?inbody=true",
        b"Arrived by bicycle, on time.\n",
        {"Authorization": f"Basic {login}", "Content-Type": "text/plain"},
        method="PUT",
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    with opener.open(request, timeout=20):
        pass
