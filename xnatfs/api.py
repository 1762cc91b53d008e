"""Tables without a mount: what `xnatfs.table` and the command `table` are made of.

Threading: one thread; the building itself runs in pools.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xnatfs.auth.credentials import Credentials, find
from xnatfs.config import Limits, Settings, cache_home
from xnatfs.core import Core, compose
from xnatfs.errors import UsageError
from xnatfs.tables.engine.build import PROBLEM_COLUMNS, Progress
from xnatfs.tables.engine.from_listings import LISTED
from xnatfs.tables.output.widen import widen
from xnatfs.tables.output.write import problems, write
from xnatfs.tables.spec import Frame, Rows

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Made:
    """A table: its rows, what is not in it and why, and where it comes from."""

    key: str
    frame: Frame
    problems: Rows
    about: dict[str, str]

    def write(self, path: Path, kind: str) -> None:
        """Write it as csv, xlsx or parquet; a file that is there is replaced only by a whole one."""
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft = Path(folder) / path.name
            write(self.frame, kind, draft, title=self.key)
            draft.replace(path)


@contextmanager
def opened(settings: Settings, login: Credentials) -> Iterator[Core]:
    """The layers of a mount, without one."""
    mounted = compose(settings, login, "")
    try:
        yield mounted
    finally:
        mounted.close()


def make(
    mounted: Core,
    project: str,
    name: str,
    sessions: Sequence[str] = (),
    *,
    wide: bool = False,
    progress: Progress | None = None,
) -> Made:
    """Build a table.

    Raises:
        UsageError: there is no such table or session, or it has no wide form.
        Failure: the server or the cache cannot be used; NO_ENTRY if the user cannot see the project.
    """
    builder = mounted.builder
    if name in LISTED:
        if wide:
            raise UsageError(f"the table {name} has no wide form")
        frame = LISTED[name].build(builder, project, sessions)
        return Made(name, frame, Rows(PROBLEM_COLUMNS), {"rows": str(len(frame.held))})
    built = builder.build(project, name, sessions, progress)
    if wide and built.table.wide is None:
        raise UsageError(f"the table {name} has no wide form")
    frame_out: Frame = widen(built, built.table) if wide else built
    about = {key: str(value) for key, value in built.counts().items()}
    return Made(name, frame_out, built.problems(problems(built)), about)


def table(
    project: str,
    name: str,
    *,
    sessions: Sequence[str] = (),
    wide: bool = False,
    server: str | None = None,
    user: str | None = None,
    cache_dir: Path | str | None = None,
    offline: bool = False,
    allow_http: bool = False,
) -> pandas.DataFrame:
    """A measurement table as a pandas DataFrame.

    Args: project: the project's id. name: `freesurfer7/aseg`, `ashs/volumes`, `scandates`, ...; `xnatfs table
        --list` shows them. sessions: labels or accession ids; none means all of the project. wide: one row a
        session in place of one a measurement. server, user: needed only where several are known; the login is
        found as for `xnatfs mount`. cache_dir: where parsed measurements are kept; what has not changed on
        the server is not fetched again. offline: ask the server nothing. allow_http: send the password over
        plain http:// to another machine.

    Returns: Numbers as numbers, ids and labels as text. `.attrs["problems"]` is a DataFrame of the sessions
        that are not, or not wholly, in it, with the reasons; `.attrs` also counts the sessions used, without
        the resource (`missing`) and failed.

    Raises:
        UsageError: no login fits, or there is no such table or session.
        Failure: the server cannot be used, or shows this user no such project.
    """
    login = find(server, user)
    settings = Settings(
        server=login.server,
        cache_dir=Path(cache_dir).expanduser().absolute() if cache_dir is not None else cache_home(),
        verify=login.verify,
        proxy=login.proxy,
        offline=offline,
        allow_http=allow_http,
        limits=Limits(),
    )
    with opened(settings, login) as mounted:
        made = make(mounted, project, name, sessions, wide=wide)
        found = data_frame(made.frame)
        found.attrs |= {name: int(value) for name, value in made.about.items()}
        found.attrs["problems"] = data_frame(made.problems)
    return found


def data_frame(frame: Frame) -> pandas.DataFrame:
    """A table as pandas has it, by way of its Parquet form: one place decides what is a number."""
    import pandas

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write(frame, "parquet", path)
        return pandas.read_parquet(path)
