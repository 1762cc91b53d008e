"""A table made at once, without files in a mount: for the library and the command `table`.

Used by `api` and `cli.table`.
Threading: any thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.core import Core, compose
from xnatfs.errors import UsageError
from xnatfs.extras import check, load
from xnatfs.tables.engine.build import PROBLEM_COLUMNS, Progress
from xnatfs.tables.engine.finished_table import wide_with
from xnatfs.tables.engine.from_listings import listed_table
from xnatfs.tables.engine.joined_columns import joined_columns
from xnatfs.tables.engine.session_results import SessionResult
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

    def write_parts(self, folder: Path) -> int:
        """Write it as a folder of Parquet files, `part-00000.parquet` and on, with the same columns and
        types; the folder appears when it is whole.

        Returns:
            the number of files.

        Raises:
            OSError: it cannot be written; ENOTEMPTY where there is one that is not empty.
            MissingExtra: pyarrow is not installed.
        """
        parquet = load("pyarrow.parquet", "tables")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            whole, parts = Path(work) / "table.parquet", Path(work) / "parts"
            write(self.frame, "parquet", whole, title=self.key)
            file = parquet.ParquetFile(whole)
            parts.mkdir()
            groups = range(file.metadata.num_row_groups)
            for group in groups:
                parquet.write_table(file.read_row_group(group), parts / f"part-{group:05d}.parquet")
            if not groups:  # the columns at least
                whole.rename(parts / "part-00000.parquet")
            parts.rename(folder)  # over an empty one
        return max(1, len(groups))


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
    added: Sequence[str] = (),
    progress: Progress | None = None,
    given: Mapping[str, SessionResult] = MappingProxyType({}),
) -> Made:
    """Build a table.

    Args:
        added: columns of the tables `subjects` and `sessions` to add; by default what tables.toml names.
        given: see `Builder.build`.

    Raises:
        UsageError: there is no such table, session or column, or it has no wide form.
        Failure: the server or the cache cannot be used; NO_ENTRY if the user cannot see the project.
    """
    builder = mounted.builder
    listed = listed_table(name)
    if listed is not None:
        if wide:
            raise UsageError(f"the table {name} has no wide form")
        frame = listed.build(builder, project, sessions)
        if added and "ID" not in (column.name for column in frame.columns):
            raise UsageError(f"the table {name} has no sessions, which columns are added by")
        shown = joined_columns(builder, [(project, sessions)], added).beside(frame) if added else frame
        return Made(name, shown, Rows(PROBLEM_COLUMNS), {"rows": str(len(frame.held))})
    built = builder.build(project, name, sessions, progress, given=given)
    if wide and built.table.wide is None:
        raise UsageError(f"the table {name} has no wide form")
    names = added or builder.added_columns(project, name)
    joined = joined_columns(builder, [(project, sessions)], names) if names else None
    frame_out: Frame = wide_with(built, joined) if wide else built if joined is None else joined.beside(built)
    about = {key: str(value) for key, value in built.counts().items()}
    return Made(name, frame_out, built.problems(problems(built)), about)


def data_frame(frame: Frame) -> pandas.DataFrame:
    """A table as pandas has it, by way of its Parquet form: one place decides what is a number.

    Raises:
        MissingExtra: pandas or pyarrow is not installed.
    """
    check("tables")
    import pandas

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write(frame, "parquet", path)
        return pandas.read_parquet(path)
