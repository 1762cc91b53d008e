"""What a row of docs/tools.md is, and what the check of one has at hand.

Used by the catalogue and the command. One thread; only programs of their own touch the mount, apart from
checks that compare attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.host import Host

MOUNT, COPY = "~/xnat", "~/copy"
SERVER = "https://xnat.example.org"  # in a command: the stand-in


class WrongError(Exception):
    """A program did not find on the mount what is true; the text says what."""


@dataclass
class Attempt:
    """One program, run."""

    host: Host
    home: Path  # with the mount in `xnat`, the true files in `copy`
    work: Path  # where the program ran
    environment: dict[str, str]
    output: str = ""  # what it printed, or its last screen

    @property
    def mount(self) -> Path:
        """The mountpoint."""
        return self.home / "xnat"

    @property
    def copy(self) -> Path:
        """The true files, in the same folders as on the mount."""
        return self.home / "copy"

    def run(self, command: str, limit: float | None = None, within: tuple[str, ...] = ()) -> str:
        """What a command prints, as this user's shell runs it; FailedError if it fails or takes too long.

        Args: within: what starts the shell.
        """
        done = self.host.run(
            *(
                *within,
                "bash",
                "-o",
                "pipefail",
                "-c",
                command.replace(SERVER, self.environment["XNAT_HOST"]),
            ),
            env=self.environment,
            cwd=self.work,
            limit=limit,
        )
        # the same words, whichever of the two folders it was about
        return re.sub(rf"{re.escape(str(self.home))}/(xnat|copy)\b", MOUNT, done.output)

    def on_copy(self, command: str) -> Attempt:
        """The same command on the true files, in a folder of its own."""
        other = Attempt(self.host, self.home, self.host.fresh("on-copy"), self.environment)
        other.output = other.run(command.replace(MOUNT, COPY))
        return other


@dataclass(frozen=True)
class Program:
    """A row."""

    tool: str
    version: str  # a command that prints it somewhere
    command: str  # as a user types it, with the mount at ~/xnat
    check: Callable[[Program, Attempt], str]  # says what was found true; WrongError
    remark: str = ""
    keys: tuple[tuple[str, str], ...] = field(default=())  # in a terminal: once this text shows, this key
    fails: str = ""  # the reason it is known to fail for, as an expression
    root: bool = False  # only root can run it: with mounts of its own, and `mount.fuse.xnatfs` in /sbin
    limit: float = 120.0  # seconds

    @property
    def names(self) -> set[str]:
        """What it can be asked for by: "mc, a folder" by `mc`, too."""
        return {self.tool, self.tool.partition(",")[0]}

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.tool, self.command


def package(name: str) -> str:
    """The command that prints the version of a Python package."""
    return f"python3 -c 'import importlib.metadata as m; print(m.version(\"{name}\"))'"


def python(*statements: str, on: str = "", options: str = "") -> str:
    """A command that runs a few statements; their double quotes are the shell's business."""
    assert not any("'" in one for one in statements), statements
    return " ".join(filter(None, ["python3", options, f"-c '{'; '.join(statements)}'", on]))


def debian(name: str) -> str:
    """The command that prints the version of a Debian package, for programs that do not say it."""
    return f"dpkg-query -W -f='${{Version}}' {name}"
