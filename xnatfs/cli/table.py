"""`xnatfs table`: a measurement table without a mount."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xnatfs.cli import completing
from xnatfs.cli.format import say
from xnatfs.cli.options import Where, privacy, where
from xnatfs.config import Privacy
from xnatfs.core import Core
from xnatfs.distributed import WorkerSettings, cluster, collected
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.extras import check
from xnatfs.made_table import Made, make, opened
from xnatfs.tables.engine.explain import explain
from xnatfs.tables.engine.from_listings import LISTED, listed_keys
from xnatfs.tables.engine.session_results import SessionResult
from xnatfs.tables.output.write import FORMATS, check_format, write
from xnatfs.tables.registry import LEFT_OUT, with_plugins

_INCOMPLETE = 3  # the exit code where the table was written, but sessions are missing or incomplete in it


@click.command("table")
@click.argument("project", required=False, shell_complete=completing.projects)
@click.argument("name", required=False, shell_complete=completing.tables)
@where
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Write to this file: .csv, .xlsx or .parquet; with / at its end, to a folder of .parquet files.",
)
@click.option(
    "--session",
    "sessions",
    metavar="E",
    multiple=True,
    help="Only this session, by label or accession id (may be repeated).",
)
@click.option(
    "--with",
    "added",
    metavar="COLUMNS",
    default="",
    help="Add columns of the tables subjects and sessions, as in age,sex.",
)
@privacy
@click.option("--wide", is_flag=True, help="One row per session instead of one per measurement.")
@click.option(
    "--dask",
    "scheduler",
    metavar="ADDRESS",
    help="Let the workers of this Dask cluster fetch and parse: tcp://HOST:8786, or its scheduler file.",
)
@click.option(
    "--problems",
    is_flag=True,
    help="The sessions missing or incomplete in the table, and why, instead of the table.",
)
@click.option(
    "--explain",
    "explaining",
    is_flag=True,
    help="Which resources the project has, which tables read each, and which nothing reads.",
)
@click.option("--list", "listing", is_flag=True, help="List all tables.")
@click.option("--json", "as_json", is_flag=True, help="With --list, for programs: one object per table.")
def command(
    project: str | None,
    name: str | None,
    where: Where,
    output: str | None,
    sessions: tuple[str, ...],
    added: str,
    privacy: Privacy,
    wide: bool,
    scheduler: str | None,
    problems: bool,
    explaining: bool,
    listing: bool,
    as_json: bool,
) -> int:
    """Write the measurement table NAME of PROJECT, such as freesurfer7/aseg or ashs/volumes, to FILE, or to
    standard output as CSV.

    Without NAME: list the tables of the project. Fetched results are cached: the next run asks only for what
    changed. With --dask the workers of a cluster do the work; the table is the same. If resources have other
    labels or folders than usual, describe them in tables.toml (see docs/measurements.md). Exit code 3 if the
    table was written, but sessions are missing or incomplete in it.
    """
    if as_json and not listing:
        raise UsageError("--json is for --list; a table itself is written as .csv, .xlsx or .parquet")
    if listing:
        say(_all() if not as_json else _all_as_json())
        return 0
    if project is None:
        raise UsageError("which project? `xnatfs table PROJECT NAME`; `xnatfs table --list` shows all tables")
    target = _target(output, problems) if output is not None else None
    if scheduler is not None:
        check("dask")
    settings, login = where.settings(privacy=privacy)
    columns = tuple(filter(None, (one.strip() for one in added.split(","))))
    with opened(settings, login) as mounted, _project_known(mounted, project):
        if explaining:
            say(explain(mounted.builder, mounted.finder, project))
            return 0
        if name is None:
            present = mounted.finder.present(project)
            say("\n".join([*listed_keys(mounted.builder, project), *present.keys]))
            return 0
        wide = wide and (_is_asked_for("wide") or _can_be_wide(mounted, name))
        if name == "subjects" and not _is_asked_for("added"):
            columns = ()
        made = _make(mounted, project, name, sessions, wide, columns, scheduler, where)
        try:
            _write(made, target, problems)
        except ValueError as error:  # more columns than a spreadsheet allows
            raise UsageError(str(error)) from None
    if target is not None:
        say(f"{output} is written", err=True)
    count = len(made.problems.held)
    if count and not problems:
        say(
            f"{count} {'remark' if count == 1 else 'remarks'} on sessions that are missing or incomplete; "
            f"--problems lists them",
            err=True,
        )
        return _INCOMPLETE
    return 0


@dataclass(frozen=True)
class _Target:
    """Where the table is written, and in which format; `parts`: the path is a folder of files."""

    path: Path
    kind: str
    parts: bool = False


def _target(output: str, problems: bool) -> _Target:
    path = Path(output).absolute()
    if output.endswith("/") or path.is_dir():
        if problems:
            raise UsageError(f"{output} is a folder: the problems are written to one file")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{output} is there, and is not an empty folder")
        target = _Target(path, "parquet", parts=True)
    else:
        target = _Target(path, path.suffix[1:].lower())
    if target.kind not in FORMATS:
        raise UsageError(f"{output}: a table is written as .csv, .xlsx or .parquet")
    check_format(target.kind)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder")
    return target


@contextlib.contextmanager
def _project_known(mounted: Core, project: str) -> Iterator[None]:
    """Say which projects there are where the server has none of this name."""
    try:
        yield
    except Failure as failure:
        if failure.cause is not Cause.NO_ENTRY:
            raise
        raise mounted.unknown_project(project) from failure


def _is_asked_for(option: str) -> bool:
    """Not only the default of `config.toml`, which holds for tables of every kind."""
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _can_be_wide(mounted: Core, name: str) -> bool:
    table = mounted.builder.tables.get(name)
    return table is not None and table.wide is not None


def _make(
    mounted: Core,
    project: str,
    name: str,
    sessions: tuple[str, ...],
    wide: bool,
    added: tuple[str, ...],
    scheduler: str | None,
    where: Where,
) -> Made:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sessions"),
        TimeRemainingColumn(),
    )
    from rich.console import Console

    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task(name, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        given: dict[str, SessionResult] = {}
        if scheduler is not None:
            config, netrc = (path and path.absolute() for path in (where.config, where.netrc))
            place = WorkerSettings(mounted.settings, mounted.connection.user, config, netrc)
            with cluster(scheduler) as client:
                given = collected(mounted, client, project, name, sessions, place=place, progress=progress)
        return make(mounted, project, name, sessions, wide=wide, added=added, progress=progress, given=given)


def _write(made: Made, target: _Target | None, problems: bool) -> None:
    if problems:
        made = Made(f"{made.key} problems", made.problems, made.problems, made.about)
    if target is not None:
        try:
            if target.parts:
                made.write_parts(target.path)
            else:
                made.write(target.path, target.kind)
        except Failure:
            raise
        except OSError as error:
            raise UsageError(f"{target.path} cannot be written: {error.strerror}") from None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write(made.frame, "csv", path)
        if sys.stdout.isatty():  # a file or a program gets the bytes unchanged
            with path.open(encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    say(line.rstrip("\n"))
            return
        with path.open("rb") as stream:
            while piece := stream.read(2**20):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _all_as_json() -> str:
    tables, complaints = with_plugins()
    found = [{"name": key, "reads": [], "description": one.doc} for key, one in LISTED.items()]
    found += [
        {"name": key, "reads": list(one.resources), "description": one.doc} for key, one in tables.items()
    ]
    left_out = [{"name": key, "reason": reason} for key, reason in LEFT_OUT.items()]
    return json.dumps({"tables": found, "not available": left_out, "problems": complaints}, indent=2)


def _all() -> str:
    tables, complaints = with_plugins()
    lines = [f"{key}\n    {one.doc}" for key, one in LISTED.items()]
    for key, table in tables.items():
        lines.append(f"{key}\n    reads {' or '.join(table.resources)}. {table.doc}")
    lines += [f"{key}: not available; it {reason}" for key, reason in LEFT_OUT.items()]
    return "\n".join([*lines, *complaints])
