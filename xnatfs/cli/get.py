"""`xnatfs get`: files and folders of the server, copied to this machine without a mount."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from xnatfs.cli import completing
from xnatfs.cli.convert import ScanPath, convert_all
from xnatfs.cli.following import follow
from xnatfs.cli.format import counted, say, size
from xnatfs.cli.options import Where, privacy, tree_options, where
from xnatfs.cli.trees import Problems, tree
from xnatfs.config import Privacy
from xnatfs.copying.copier import Copier, Result, Tally
from xnatfs.copying.lister import roots
from xnatfs.copying.local_file import State
from xnatfs.copying.scans_below import TreeScans, folders_with_scans, scans_below
from xnatfs.core import Core
from xnatfs.errors import Failure, UsageError
from xnatfs.text import printable

_SHOWN = 20  # problems; the rest is counted
_PATIENCE_S = 10.0  # for what is under way after Ctrl-C


@click.command("get")
@click.argument("words", nargs=-1, metavar="PATH... DEST", shell_complete=completing.paths_and_folder)
@where
@tree_options
@privacy
@click.option("--parents", is_flag=True, help="Copy PATH to DEST/PATH, with all its folders.")
@click.option("--overwrite", is_flag=True, help="Replace files that are in DEST and differ.")
@click.option(
    "--checksum",
    is_flag=True,
    help="Compare files that are in DEST by the server's digest, not by size and date.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 16),
    default=4,
    show_default=True,
    help="So many folders, or large files, at once.",
)
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Fetch nothing; list what would be fetched.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file and line, and a last one.")
def command(
    words: tuple[str, ...],
    where: Where,
    shown: dict[str, Any],
    privacy: Privacy,
    parents: bool,
    overwrite: bool,
    checksum: bool,
    jobs: int,
    dry: bool,
    as_json: bool,
) -> int:
    """Copy files and folders PATH... of the server into the folder DEST, which is made if there is none.

    Paths are those of a mount, and may be patterns in quotes: projects/ALFA/subjects/007,
    'views/ALFA/by-scan-type/T1*/usable/NIFTI', tables/ALFA/ashs/volumes.csv. A file has its name in DEST only
    once it is whole and agrees with the server's digest. What is in DEST by size and date is not fetched
    again, so after an interruption the same command continues; what differs is left alone, without
    --overwrite. Exit code 3 if anything is missing or was left alone.
    """
    if len(words) < 2:
        raise click.UsageError("PATH is what to copy, and DEST the folder that it is copied into")
    *paths, last = words
    folder = Path(last)
    _check(folder, dry)
    problems = Problems()
    with tree(where, shown, privacy) as core:
        wanted = roots(problems.matched(core, paths), folder, parents=parents)
        if not wanted:
            return problems.exit_code
        if not dry:
            _make(folder)
            core.conversions.ask_for_all()
            try:
                for problem in _converted(core, [root.path for root in wanted], jobs):
                    problems.say(problem)
            except KeyboardInterrupt:
                return _interrupted()
        reporter = _Reporter(problems, dry, as_json)
        copier = Copier(
            core.vfs,
            wanted,
            reporter.result,
            jobs=jobs,
            overwrite=overwrite,
            by_digest=checksum,
            dry=dry,
        )
        try:
            copier.start()
            follow(copier.tally, lambda: copier.running, quiet=dry or as_json)
        except KeyboardInterrupt:
            copier.stop()
            copier.join(_PATIENCE_S)
            return _interrupted()
        copier.close()
        reporter.end(copier.tally, folder)
    return problems.exit_code


def _interrupted() -> int:
    say("interrupted; run the same command to continue", err=True)
    return 130


def _converted(core: Core, paths: list[str], jobs: int) -> list[str]:
    """Convert the scans below some paths, before it is listed what they are; what was refused, and why."""
    folders = [folder for path in paths for folder in folders_with_scans(path)]
    scans = [ScanPath("", scan) for folder in folders for scan in scans_below(TreeScans(core), folder, [])]

    def convert(scan: ScanPath) -> dict[str, Any]:
        try:
            return core.convert(scan.below)
        except Failure as failure:
            return {"images": 0, "problems": [failure.cause.sentence]}

    return sorted(convert_all(scans, convert, jobs).problems)


class _Reporter:
    """Says what became of each file, and of all."""

    def __init__(self, problems: Problems, dry: bool, as_json: bool) -> None:
        self._problems, self._dry, self._as_json = problems, dry, as_json
        self._bytes = 0

    def result(self, result: Result) -> None:
        """Of one; called by one thread at a time."""
        source = result.source
        if result.state in (State.FETCHED, State.WANTED) and source is not None:
            self._bytes += source.size
        if result.state in (State.FAILED, State.DIFFERS):
            self._problem(result)
        else:
            self._problems.done += 1
        if self._as_json:
            line: dict[str, Any] = {"path": result.path[1:], "state": result.state.value}
            if source is not None:
                line |= {"to": str(source.target), "size": source.size}
            if result.reason:
                line["reason"] = result.reason
            click.echo(json.dumps(line))
        elif result.state is State.WANTED:
            say(result.path[1:])

    def _problem(self, result: Result) -> None:
        if result.state is State.DIFFERS:
            assert result.source is not None
            text = f"{result.source.target} is another file, and was left alone (--overwrite replaces it)"
        else:
            text = f"{result.path[1:]}: {result.reason}"
        if self._problems.count < _SHOWN:
            self._problems.say(text)
        else:
            self._problems.count += 1

    def end(self, tally: Tally, folder: Path) -> None:
        """The last line."""
        if self._problems.count > _SHOWN:
            say(f"xnatfs: ... and {self._problems.count - _SHOWN} more", err=True)
        counts = {state.value: tally.states[state] for state in State if tally.states[state]}
        if self._as_json:
            click.echo(json.dumps({"files": tally.files, "bytes": self._bytes, **counts}))
            return
        verb = "would be fetched" if self._dry else "fetched"
        count = tally.states[State.WANTED if self._dry else State.FETCHED]
        parts = [f"{counted(count, 'file')} {verb} ({size(self._bytes)})"]
        if tally.states[State.SAME]:
            parts.append(f"{tally.states[State.SAME]} already there")
        if tally.states[State.DIFFERS]:
            parts.append(f"{tally.states[State.DIFFERS]} left alone")
        if tally.states[State.FAILED]:
            parts.append(f"{tally.states[State.FAILED]} failed")
        say(f"{printable(str(folder))}: {', '.join(parts)}", err=self._dry)


def _check(folder: Path, dry: bool) -> None:
    """Find out before anything is asked of a server that this cannot be copied into."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; DEST is the folder that the copies go into")
    if not dry and not folder.exists() and folder.is_symlink():
        raise UsageError(f"{folder} is a link that leads nowhere")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from None
