"""Runs commands for `xnatfs demo` as a user would type them, and shows them with what they print, cut to
size.

Used by `demo` and `demo_tour`. Ctrl-C only sets an event (`demo.command`): each wait here looks at it, and
ends with `Ended`, so that what was started is always ended, too.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

import click
from rich.console import Console

from xnatfs.errors import UsageError
from xnatfs.text import printable_lines

_LONGEST_S = 120.0  # for a command
_LOOK_S = 0.1  # at whether the user has ended it
_MOST_LINES = 8
_MOST_WRAPPED = 2  # lines of the terminal that one line may take


class Ended(Exception):
    """The user has ended the demo."""


class Command(NamedTuple):
    """A line of shell.

    `lines`: how many lines of its output are shown. `refused`: it is to fail, which is what it shows.
    """

    text: str
    lines: int = _MOST_LINES
    refused: bool = False


def program(name: str = "xnatfs") -> str:
    """What to type for a program that is installed with xnatfs: its name where the shell finds it, else its
    path; for xnatfs itself, if it is not installed as a program, Python with the module.
    """
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found is not None and (not beside.exists() or os.path.samefile(found, beside)):
        return name
    if beside.exists():
        return shlex.quote(str(beside))
    return f"{shlex.quote(sys.executable)} -m {name}"


class Terminal:
    """Where the demo shows itself.

    Args:
        folder: where commands are run.
        ended: set once the user wants to end it.
    """

    def __init__(self, folder: str, ended: threading.Event) -> None:
        self._folder = folder
        self._ended = ended
        self.console = Console(highlight=False, soft_wrap=False)

    def check(self) -> None:
        """Return unless the user has ended the demo.

        Raises:
            Ended: they have.
        """
        if self._ended.is_set():
            raise Ended

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line, or several, as they are."""
        self.console.print(printable_lines(text), style=style or None, markup=False, soft_wrap=True)

    def run(self, command: Command) -> None:
        """Show a command, run it, show what it prints.

        Raises:
            Ended: the user has ended the demo meanwhile.
            UsageError: it failed (or, if it was to be refused, it did not).
        """
        self.check()
        self.say(f"$ {command.text}", "bold")
        code, output = self._result(command.text)
        lines = output.rstrip().splitlines()
        for line in lines[: command.lines]:
            self.say(self._cut(line.expandtabs()))
        if len(lines) > command.lines:
            self.say(f"... {len(lines) - command.lines} more lines")
        if (code != 0) != command.refused:
            raise UsageError(f"a command of the demo failed on the mount ({code}): {command.text}")

    def _result(self, text: str) -> tuple[int, str]:
        process = subprocess.Popen(
            ["sh", "-c", text],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which ends all of it
            text=True,
            errors="replace",
        )
        deadline = time.monotonic() + _LONGEST_S
        while True:
            try:
                output, _ = process.communicate(timeout=_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if self._ended.is_set() or time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                    self.check()
                    raise UsageError(f"a command of the demo took too long: {text}") from None
        self.check()
        return process.returncode, output

    def _cut(self, line: str) -> str:
        width = _MOST_WRAPPED * self.console.width
        return line if len(line) <= width else f"{line[: width - 3]}..."

    def pause(self, prompt: str, source: IO[str] | None = None) -> bool:
        """Wait for Enter, if a person is there. Whether to go on: not after `q`, nor at the end of the input.

        Raises:
            Ended: the user has ended the demo meanwhile.
        """
        stream = sys.stdin if source is None else source
        if source is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
            return True
        click.echo(prompt, nl=False)
        # Not `input()`: a signal does not end that unless its handler raises, and then anywhere.
        while not select.select([stream], [], [], _LOOK_S)[0]:
            self.check()
        line = stream.readline()
        return bool(line) and not line.strip().lower().startswith("q")
