"""`xnatfs demo`: mount the embedded XNAT and show it; nothing else is needed to try xnatfs."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from xnatfs import extras
from xnatfs.auth.credentials import Credentials
from xnatfs.cli import unmount
from xnatfs.cli.demo_picture import beside_the_tree
from xnatfs.cli.demo_terminal import Command, Ended, Terminal, program
from xnatfs.cli.demo_tour import IMAGE, SESSION, T1S, TABLE, steps_of, tour
from xnatfs.cli.mount import check_fuse, check_mountpoint, made_mountpoint
from xnatfs.config import Limits, Settings
from xnatfs.daemon import mount_registry, mount_table
from xnatfs.daemon.run import background
from xnatfs.errors import UsageError

_LONGEST_START = 60.0
_ROWS = 3
_COLUMNS = {  # of the table shown, and what is written over them: the whole names are too long for a terminal
    "label": "label",
    "Left-Hippocampus_Volume_mm3": "Left-Hippocampus",
    "Right-Hippocampus_Volume_mm3": "Right-Hippocampus",
    "BrainSegVol_Volume_mm3": "BrainSegVol",
}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command("demo")
@click.argument("mountpoint", required=False, type=click.Path(path_type=str))
@click.option(
    "--once", is_flag=True, help="Show, clean up and exit, instead of keeping the mount until Ctrl-C."
)
@click.option(
    "--tour",
    "touring",
    is_flag=True,
    help="Ten steps in five minutes, each explained, run and shown; Enter goes on, q ends it.",
)
def command(mountpoint: str | None, once: bool, touring: bool) -> None:
    """Start an embedded XNAT with sample data, mount it, and show folders, an image, a view, a BIDS dataset
    and a table.

    The mount stays until Ctrl-C: explore it in another terminal or a file manager. With --tour it ends with
    the tour.
    """
    extras.check("demo")
    ended = threading.Event()
    for number in _SIGNALS:  # before anything is started, since it has to be stopped again
        signal.signal(number, lambda *_: ended.set())
    check_fuse()
    place = mount_registry.absolute(mountpoint) if mountpoint else tempfile.mkdtemp(prefix="xnatfs-demo-")
    with ExitStack() as stack:
        if mountpoint is None:
            stack.callback(_remove_folder, place)
        check_mountpoint(place)
        scratch = Path(tempfile.mkdtemp(prefix="xnatfs-demo-work-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        terminal = Terminal(place, ended)
        with contextlib.suppress(Ended):
            url, stop_server = stack.enter_context(_server())
            terminal.check()
            terminal.say(f"An embedded XNAT serves {url} (user demo, password demo).")
            stack.enter_context(_mounted(url, place, scratch))
            terminal.check()
            terminal.say(f"It is mounted at {place}.")
            if touring:
                copies = scratch / "copies"
                copies.mkdir()
                steps = steps_of(place, url, str(copies), stop_server)
                tour(terminal, steps, lambda: _picture(terminal, place))
            else:
                _show(terminal, place)
                _stay(terminal, place, once, ended)
    with contextlib.suppress(OSError):  # the terminal may be gone
        terminal.say("Unmounted.")


@contextmanager
def _server() -> Iterator[tuple[str, Callable[[], None]]]:
    """The embedded XNAT, in a process of its own: mounting forks, which a process with a server's threads
    should not do. Gives its address, and what stops it.
    """

    def stop() -> None:
        server.terminate()
        server.wait(10)

    server = subprocess.Popen(
        [sys.executable, "-m", "xnatfs", "serve-demo", "--port", "0", "--data", "tour"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield _url(server), stop
    finally:
        stop()
        assert server.stdout is not None
        server.stdout.close()


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


@contextmanager
def _mounted(url: str, place: str, scratch: Path) -> Iterator[None]:
    settings = Settings(
        server=url,
        cache_dir=scratch / "cache",
        state_dir=scratch / "state",
        limits=Limits(cache_size=2 * 10**9),
    )
    with made_mountpoint(place) as made:
        background(settings, Credentials(url, "demo", "demo", "the demo"), place, made=made)
    try:
        yield
    finally:
        if mount_table.at(place) is not None:  # the tour may have ended it
            unmount.end(place)


def _remove_folder(place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(place)


def _picture(terminal: Terminal, place: str) -> None:
    grid, sentence = beside_the_tree(Path(place), f"{SESSION}/", Path(place, IMAGE))
    terminal.say()
    terminal.console.print(grid)
    terminal.say(sentence)


def _show(terminal: Terminal, place: str) -> None:
    """The product on one screen or two: folders with an image, a view, BIDS, a table."""
    terminal.say()
    terminal.run(Command(f"cd {shlex.quote(place)}"))
    terminal.run(Command("ls"))
    _picture(terminal, place)
    for title, line in (
        ("One sequence of the whole study:", Command(f"ls {T1S}", lines=3)),
        ("The project as a BIDS dataset:", Command("find views/ALFA/bids/sub-007 -name '*_T1w.*'", lines=4)),
    ):
        terminal.say()
        terminal.say(title, "bold")
        terminal.run(line)
    terminal.say()
    terminal.say("FreeSurfer's volumes of every session, as .csv, .xlsx and .parquet:", "bold")
    terminal.run(Command(f"ls {TABLE}_wide.csv"))
    terminal.check()
    terminal.console.print(_head_of(Path(place, f"{TABLE}_wide.csv")))


def _head_of(path: Path) -> Table:
    """A few rows and columns of a wide table."""
    shown = Table(box=SIMPLE, pad_edge=False)
    with path.open(encoding="utf-8", newline="") as stream:
        lines = csv.DictReader(stream)
        for column, heading in _COLUMNS.items():
            shown.add_column(heading, justify="left" if column == "label" else "right")
        for row in itertools.islice(lines, _ROWS):
            shown.add_row(*(escape(row[column]) for column in _COLUMNS))
        left = sum(1 for _ in lines)
    shown.caption = f"... {left} more sessions, and more columns"
    return shown


def _stay(terminal: Terminal, place: str, once: bool, ended: threading.Event) -> None:
    if once:
        return
    terminal.say("\nTry in a second terminal:", "bold")
    for line in in_a_second_terminal(place):
        terminal.say(f"  {line}")
    terminal.say(f"\n`{program()} demo --tour` shows more. The mount stays at {place} until Ctrl-C.")
    ended.wait()


def in_a_second_terminal(place: str) -> list[str]:
    """Commands that work as they are typed, wherever that is, while the mount is there."""

    def path(below: str) -> str:
        return shlex.quote(os.path.join(place, below))

    return [
        f"ls {path(SESSION)}/SCANS",
        f"cp -r {path(T1S)} t1s",
        f"head -3 {path(f'{TABLE}.csv')}",
        f"cat {path('tables/ALFA/README.txt')}",
        f"{program()} status {shlex.quote(place)}",
    ]
