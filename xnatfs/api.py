"""The library's functions: `connect` to an XNAT server without a mount, and a table in one call.

Public, by way of `xnatfs`: see docs/python.md. What `connect` returns is in `client`.
Threading: any thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xnatfs.auth.credentials import choose, find
from xnatfs.cache.shared_place import checked_place
from xnatfs.client import Client
from xnatfs.config import Limits, Privacy, Settings, cache_home, parse_size
from xnatfs.core import Core, compose
from xnatfs.extras import check

if TYPE_CHECKING:
    import dask.dataframe
    import distributed
    import pandas

    StrPath = str | os.PathLike[str]


def connect(
    server: str | None = None,
    *,
    user: str | None = None,
    projects: Sequence[str] = (),
    cache_dir: StrPath | None = None,
    offline: bool = False,
    allow_http: bool = False,
) -> Client:
    """Log in to an XNAT server and use it as a directory, without a mount.

    Parameters
    ----------
    server : str, optional
        URL of the server, or its name in config.toml, xnatctl's profiles or ~/.xnat_auth; needed only where
        several are known.
    user : str, optional
        User name; needed only where several are known. The password or token is found as for `xnatfs mount`
        (environment, `xnatfs login`, the files of other tools), never passed.
    projects : sequence of str, optional
        Ids of the only projects to show. By default all that the user may read.
    cache_dir : path, optional
        Where contents and listings are kept, by default where mounts of this server keep them. What is there
        and has not changed on the server is not fetched again.
    offline : bool, optional
        Ask the server nothing: serve what was listed and read before.
    allow_http : bool, optional
        Send the password over plain http:// to another machine.

    Of config.toml the library takes where the server is and how it is reached, whose login to use, the cache,
    and what is shown of people (`birth-dates`, `no-demographics`, `strip`); what else a mount shows and how
    a table is written is left to the caller.

    Returns
    -------
    Client
        A context manager; without `with`, call `close()`.

    Raises
    ------
    xnatfs.errors.UsageError
        No login fits, there is no such server, or config.toml is refused.
    xnatfs.errors.Failure
        An `OSError`: the server cannot be reached (EHOSTDOWN, ETIMEDOUT), is no XNAT (EPROTO) or refuses the
        login (EACCES), or the cache directory cannot be used (EIO).

    Examples
    --------
    >>> with xnatfs.connect() as xnat:
    ...     xnat.listdir("projects")
    """
    return Client(
        composed(
            server,
            user=user,
            projects=projects,
            cache_dir=cache_dir,
            offline=offline,
            allow_http=allow_http,
        )
    )


def composed(
    server: str | None,
    *,
    user: str | None,
    projects: Sequence[str],
    cache_dir: StrPath | None,
    offline: bool,
    allow_http: bool,
) -> Core:
    """What `connect` wraps; arguments and errors are its own."""
    chosen = choose(server, user)
    options = chosen.options
    login = find(chosen, user, expired=offline)
    folder = cache_dir or options.get("cache-dir") or cache_home()
    size = parse_size(options["cache-size"]) if "cache-size" in options else Limits.cache_size
    settings = Settings(
        server=login.server,
        cache_dir=Path(folder).expanduser().absolute(),
        projects=tuple(projects),
        verify=login.verify,
        proxy=login.proxy,
        offline=offline,
        allow_http=allow_http or options.get("allow-http", False),
        privacy=Privacy(
            not options.get("no-demographics", False), options.get("birth-dates", Privacy.birth_dates)
        ),
        strip=tuple(options.get("strip", ())),
        shared_cache=checked_place(os.environ.get("XNATFS_SHARED_CACHE") or options.get("shared-cache", "")),
        limits=Limits(
            cache_size=size,
            connections=options.get("connections", Limits.connections),
            requests_per_second=options.get("requests-per-second", Limits.requests_per_second),
        ),
    )
    return compose(settings, login, "")


def table(
    project: str,
    name: str,
    *,
    sessions: Sequence[str] = (),
    wide: bool = False,
    with_columns: Sequence[str] = (),
    client: distributed.Client | None = None,
    server: str | None = None,
    user: str | None = None,
    cache_dir: StrPath | None = None,
    offline: bool = False,
    allow_http: bool = False,
) -> pandas.DataFrame | dask.dataframe.DataFrame:
    """Read a measurement table: `Client.table` in a connection of its own.

    Parameters
    ----------
    project, name, sessions, wide, with_columns, client
        See `Client.table`.
    server, user, cache_dir, offline, allow_http
        See `connect`.

    Returns
    -------
    pandas.DataFrame or dask.dataframe.DataFrame
        See `Client.table`.

    Raises
    ------
    xnatfs.errors.UsageError
        No login fits, or there is no such table or session.
    xnatfs.errors.MissingExtra
        Also an `ImportError`: `pip install 'xnatfs[tables]'`.
    xnatfs.errors.Failure
        An `OSError`: the server cannot be used, or shows this user no such project (ENOENT).

    Examples
    --------
    >>> volumes = xnatfs.table("ALFA", "ashs/volumes", wide=True)
    """
    check("tables")
    with connect(server, user=user, cache_dir=cache_dir, offline=offline, allow_http=allow_http) as xnat:
        return xnat.table(
            project, name, sessions=sessions, wide=wide, with_columns=with_columns, client=client
        )


def subjects(
    project: str,
    *,
    server: str | None = None,
    user: str | None = None,
    cache_dir: StrPath | None = None,
    offline: bool = False,
    allow_http: bool = False,
) -> pandas.DataFrame:
    """Read who is in a study: `Client.subjects` in a connection of its own.

    Parameters
    ----------
    project : str
        Id of the project.
    server, user, cache_dir, offline, allow_http
        See `connect`.

    Returns
    -------
    pandas.DataFrame
        See `Client.subjects`.

    Raises
    ------
    xnatfs.errors.UsageError
        No login fits.
    xnatfs.errors.MissingExtra
        Also an `ImportError`: `pip install 'xnatfs[tables]'`.
    xnatfs.errors.Failure
        An `OSError`: the server cannot be used, or shows this user no such project (ENOENT).

    Examples
    --------
    >>> pandas.merge(xnatfs.subjects("ALFA"), xnatfs.table("ALFA", "freesurfer7/aseg", wide=True))
    """
    check("tables")
    with connect(server, user=user, cache_dir=cache_dir, offline=offline, allow_http=allow_http) as client:
        return client.subjects(project)


def sessions(
    project: str,
    *,
    server: str | None = None,
    user: str | None = None,
    cache_dir: StrPath | None = None,
    offline: bool = False,
    allow_http: bool = False,
) -> pandas.DataFrame:
    """Read which sessions a study has: `Client.sessions` in a connection of its own.

    Parameters
    ----------
    project : str
        Id of the project.
    server, user, cache_dir, offline, allow_http
        See `connect`.

    Returns
    -------
    pandas.DataFrame
        See `Client.sessions`.

    Raises
    ------
    xnatfs.errors.UsageError
        No login fits.
    xnatfs.errors.MissingExtra
        Also an `ImportError`: `pip install 'xnatfs[tables]'`.
    xnatfs.errors.Failure
        An `OSError`: the server cannot be used, or shows this user no such project (ENOENT).
    """
    check("tables")
    with connect(server, user=user, cache_dir=cache_dir, offline=offline, allow_http=allow_http) as client:
        return client.sessions(project)
