"""A server as a directory of names and files, for Python: what `connect` returns.

Public, by way of `xnatfs`: see docs/python.md. Made by `api` over a `Core`.
Threading: a `Client` and what it opens may be used by any thread; one file object by one at a time.
"""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from xnatfs.core import Core
from xnatfs.distributed import table_on
from xnatfs.extras import check
from xnatfs.made_table import data_frame, make
from xnatfs.tables.engine.from_listings import LISTED, listed_keys
from xnatfs.vfs import Vfs
from xnatfs.vfs_io import BUFFER, RawFile, absolute, glob, stat_result

if TYPE_CHECKING:
    import dask.dataframe
    import distributed
    import pandas

    StrPath = str | os.PathLike[str]


class Client:
    """A server as a directory of names and files, as `connect` gives it.

    Paths are those of a mount, from its top: `projects/ALFA/subjects/007/...`, `tables/ALFA/...`,
    `views/ALFA/...` (README.txt at the top describes them); a leading `/` makes no difference. All methods
    may be called from any thread, and raise `ValueError` once the client is closed. Do not use it in a
    process forked from the one that made it.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._files: weakref.WeakSet[RawFile] = weakref.WeakSet()
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        connection = self._core.connection
        return f"<xnatfs.Client of {connection.server} as {connection.user}>"

    def close(self) -> None:
        """Log out and end everything; files that are still open are closed. May be called again."""
        if self._closed:
            return
        self._closed = True
        for file in list(self._files):
            file.close()
        self._core.close()

    @property
    def server(self) -> str:
        """The server's URL, after redirects."""
        return self._core.connection.server

    @property
    def user(self) -> str:
        """The user's name on the server."""
        return self._core.connection.user

    # --- tables -------------------------------------------------------------------------------------------

    def tables(self, project: str | None = None) -> list[str]:
        """Names of measurement tables.

        Parameters
        ----------
        project : str, optional
            Id of a project: only the tables that its sessions have files for. By default all that xnatfs
            knows, those of plug-ins among them.

        Returns
        -------
        list of str
            As `table` takes them: `scandates`, `freesurfer7/aseg`, ...

        Raises
        ------
        xnatfs.errors.UsageError
            The project's tables.toml cannot be understood.
        xnatfs.errors.Failure
            ENOENT if this user sees no such project, or what keeps the server from answering.
        """
        core = self._opened()
        if project is None:
            return [*LISTED, *core.builder.tables]
        present = core.finder.present(project).keys
        return [*listed_keys(core.builder, project), *present]

    def table(
        self,
        project: str,
        name: str,
        *,
        sessions: Sequence[str] = (),
        wide: bool = False,
        with_columns: Sequence[str] = (),
        client: distributed.Client | None = None,
    ) -> pandas.DataFrame | dask.dataframe.DataFrame:
        """Read a measurement table.

        Parameters
        ----------
        project : str
            Id of the project.
        name : str
            `freesurfer7/aseg`, `ashs/volumes`, `scandates`, ...; see `tables`.
        sessions : sequence of str, optional
            Labels or accession ids; by default all sessions of the project.
        wide : bool, optional
            One row per session instead of one per measurement.
        with_columns : sequence of str, optional
            Columns of `subjects` and `sessions` to add: `age` (in years, at the session), `sex`, a custom
            variable. By default those that `with` in tables.toml names.
        client : distributed.Client, optional
            A Dask cluster whose workers fetch and parse what is not in the cache. They find the login as this
            process would: it is not passed to them.

        Returns
        -------
        pandas.DataFrame, shape (rows, columns); with `client` a dask.dataframe.DataFrame of the same rows
            Numbers as int64 or float64 (in the units that docs/tables.md gives; an empty cell is NaN), ids,
            labels and dates as text. `.attrs["problems"]` is a DataFrame of the sessions that are not, or not
            wholly, in it, with the reasons; `.attrs` also counts the sessions used, without the resource
            (`missing`) and failed. The same data on the server give the same frame. A Dask frame has no
            `.attrs`: if there are problems, a warning says so.

        Raises
        ------
        xnatfs.errors.UsageError
            There is no such table, session or column, or the table has no wide form.
        xnatfs.errors.MissingExtra
            Also an `ImportError`: `pip install 'xnatfs[tables]'`.
        xnatfs.errors.Failure
            ENOENT if this user sees no such project, or what keeps the server or the cache from being used.
        """
        core = self._opened()
        check("tables")
        if client is not None:
            return table_on(client, core, project, name, sessions, wide=wide, added=with_columns)
        made = make(core, project, name, sessions, wide=wide, added=with_columns)
        frame = data_frame(made.frame)
        frame.attrs |= {key: int(value) for key, value in made.about.items()}
        frame.attrs["problems"] = data_frame(made.problems)
        return frame

    def subjects(self, project: str) -> pandas.DataFrame:
        """Read who is in a study: the table `subjects`.

        Parameters
        ----------
        project : str
            Id of the project.

        Returns
        -------
        pandas.DataFrame, shape (subjects, columns)
            A row for each subject, `subject` its label in the project: sex, year of birth, ages (in years) at
            its sessions, handedness, group and what else the server knows, custom variables under their own
            names. `pandas.merge` joins it with any measurement table as it is. docs/tables.md has the
            columns.

        Raises
        ------
        xnatfs.errors.MissingExtra
            Also an `ImportError`: `pip install 'xnatfs[tables]'`.
        xnatfs.errors.Failure
            ENOENT if this user sees no such project, or what keeps the server or the cache from being used.
        """
        return self.table(project, "subjects")

    def sessions(self, project: str) -> pandas.DataFrame:
        """Read which sessions a study has: the table `sessions`.

        Parameters
        ----------
        project : str
            Id of the project.

        Returns
        -------
        pandas.DataFrame, shape (experiments, columns)
            A row for each session and non-imaging experiment, `ID` its accession id: subject, type, date, age
            in years, scanner, scans by usability, resources, custom variables.

        Raises
        ------
        xnatfs.errors.MissingExtra
            Also an `ImportError`: `pip install 'xnatfs[tables]'`.
        xnatfs.errors.Failure
            ENOENT if this user sees no such project, or what keeps the server or the cache from being used.
        """
        return self.table(project, "sessions")

    # --- names and files ----------------------------------------------------------------------------------

    def listdir(self, path: StrPath = "") -> list[str]:
        """Names in a directory, in the order in which a mount lists them.

        Parameters
        ----------
        path : str or path, optional
            By default the top.

        Returns
        -------
        list of str

        Raises
        ------
        xnatfs.errors.Failure
            ENOENT, ENOTDIR, or what keeps the server from answering.
        """
        return [name for name, _ in self._vfs.entries(absolute(path))]

    def stat(self, path: StrPath) -> os.stat_result:
        """Attributes of a file or directory, as `os.stat` gives them in a mount.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        os.stat_result
            `st_size` in bytes (of a directory 4096), `st_mtime` in seconds since the epoch, `st_mode`
            read-only, `st_ino` the same at each connection.

        Raises
        ------
        xnatfs.errors.Failure
            ENOENT, ENOTDIR, or what keeps the server from answering.
        """
        return stat_result(self._vfs.attributes(absolute(path)))

    def open(self, path: StrPath) -> io.BufferedReader:
        """Open a file for reading bytes.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        io.BufferedReader
            Readable and seekable, for whatever takes a binary file; `io.TextIOWrapper` makes it one of text.
            A large file is fetched only as far as it is read, and no byte is returned that differs from the
            server's digest where it has one.

        Raises
        ------
        xnatfs.errors.Failure
            ENOENT, EISDIR, ENOTSUP for a table whose format needs `xnatfs[tables]`, or what keeps the
            server from answering. Reading raises it too: ESTALE if the file changed on the server.
        """
        raw = RawFile(self._vfs, absolute(path))
        self._files.add(raw)
        return io.BufferedReader(raw, BUFFER)

    def glob(self, pattern: str) -> Iterator[str]:
        """Paths that match a shell pattern.

        Parameters
        ----------
        pattern : str
            `*`, `?` and `[...]` as in a shell, within one name and not at a leading dot; `**` stands for any
            number of directories. Case matters.

        Yields
        ------
        str
            A path, with a leading `/` if the pattern has one. Each once, in the order in which directories
            list them.

        Raises
        ------
        xnatfs.errors.Failure
            What keeps the server from answering. What is not there is no error.

        Examples
        --------
        >>> list(xnat.glob("projects/ALFA/subjects/*/*/SCANS/*T1*/NIFTI/*.nii.gz"))
        """
        return glob(self._vfs, pattern)

    @property
    def pyxnat(self) -> Any:
        """pyxnat's `Interface`, logged in on this client's session.

        Its requests count neither among the client's own nor towards their limit. It ends with the client.

        Raises
        ------
        xnatfs.errors.MissingExtra
            Also an `ImportError`: `pip install 'xnatfs[pyxnat]'`.
        xnatfs.errors.Failure
            EHOSTDOWN for an offline client.
        """
        return self._opened().connection.pyxnat

    # --- helpers ------------------------------------------------------------------------------------------

    def _opened(self) -> Core:
        if self._closed:
            raise ValueError("this client is closed")
        return self._core

    @property
    def _vfs(self) -> Vfs:
        return self._opened().vfs
