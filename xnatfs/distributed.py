"""Tables collected on a Dask cluster: its workers fetch and parse, each a part of the sessions.

Used by `api` and `cli.table` with a `distributed.Client`. The scheduler is Dask's; what a worker runs is
`_collect`, with a connection of its own: it finds the login as a mount on its machine would (no password
passes through the scheduler), keeps a cache in its own local directory, and logs out at the end. The process
that asked takes the parsed rows into its store, and builds the table from there as ever.
Threading: `collect` by any thread; a worker's threads share its connection.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xnatfs._version import __version__
from xnatfs.auth.credentials import choose, find
from xnatfs.config import Settings
from xnatfs.core import Core, compose
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.extras import check
from xnatfs.made_table import make
from xnatfs.process_cores import ProcessCores
from xnatfs.tables.engine.build import Progress
from xnatfs.tables.engine.from_listings import listed_table
from xnatfs.tables.engine.overrides import Site
from xnatfs.tables.engine.session_results import SessionResult
from xnatfs.tables.engine.session_transfer import CollectedSession, collect, missing_sessions, take
from xnatfs.tables.output.write import write

if TYPE_CHECKING:
    import dask.dataframe
    import distributed

log = logging.getLogger(__name__)

# Of sessions that a worker collects in one go. Each go costs a listing to find where their files lie (see
# scheduling), and what it returns is in memory once.
_MOST_AT_ONCE = 200
_ROUNDS = 4  # that each worker gets at least, so that all end at about the same time
_FEWEST_CONNECTIONS = 2


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of a worker, and where it finds the login. Hashable and picklable.

    Attributes:
        settings: those of the process that asks; a worker has its own folders.
        user: the user's name on the server.
        config, netrc: files with the login that were named, on the worker's machine too.
        version: of xnatfs.
        work: names what is asked for together. When that has ended, a worker connects for none of it any
            more: some of it may still wait there.
    """

    settings: Settings
    user: str
    config: Path | None = None
    netrc: Path | None = None
    version: str = __version__
    work: str = ""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[distributed.Client]:
    """A Dask cluster, by the address of its scheduler (`tcp://HOST:8786`) or its scheduler file.

    Raises:
        UsageError: nothing answers there.
        MissingExtra: Dask is not installed.
    """
    check("dask")
    import distributed

    is_file = Path(address).is_file()
    try:
        client = distributed.Client(scheduler_file=address) if is_file else distributed.Client(address)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield client


def collected(
    core: Core,
    client: distributed.Client,
    project: str,
    key: str,
    sessions: Sequence[str] = (),
    *,
    place: WorkerSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, SessionResult]:
    """Have the sessions that are not stored collected by the workers of a cluster.

    Args:
        core: where their rows are stored.
        project, key, sessions: see `Builder.build`; the project may be a list of sessions.
        place: where the workers find the login, if not as by default.
        progress: called as sessions are done.

    Returns:
        what they gave, for `Builder.build`, by accession id; nothing for a table made from listings. What a
        worker could not have is left out: the build asks for it, and says what is wrong with it.

    Raises:
        UsageError: there is no such table or session, the cluster has no worker, or a worker has another
            xnatfs or none, or no login.
        Failure: the server or the store cannot be used.
    """
    if listed_table(key) is not None or core.settings.offline:
        return {}  # made from listings, without a file; or only of what is stored
    place = place or WorkerSettings(core.settings, core.connection.user)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise UsageError("the Dask cluster has no workers")
    limits = core.settings.limits
    share = max(_FEWEST_CONNECTIONS, limits.connections // len(workers))
    # Where they share a tier they count each other (`content.user_share`).
    parts = 1 if place.settings.shared_cache else len(workers)
    pace = max(1.0, limits.requests_per_second / parts)
    place = replace(
        place,
        settings=replace(place.settings, limits=replace(limits, connections=share, requests_per_second=pace)),
        work=uuid.uuid4().hex,
    )
    found: dict[str, SessionResult] = {}
    try:
        for part, members in core.builder.parts(project, sessions):
            summary = core.builder.summaries.get(part)
            missing = [one.id for one in missing_sessions(core.builder, summary, key, members)]
            size = max(1, min(_MOST_AT_ONCE, len(missing) // (_ROUNDS * len(workers)) + 1))
            chunks = [missing[at : at + size] for at in range(0, len(missing), size)]
            done = 0
            for chunk, results in _results(core, client, place, part, key, chunks):
                found |= take(core.builder, summary, results)
                done += len(chunk)
                if progress is not None:
                    progress(done, len(missing))
    finally:
        client.run(_close, place, on_error="ignore")
    return found


def _results(
    core: Core,
    client: distributed.Client,
    place: WorkerSettings,
    project: str,
    key: str,
    chunks: list[list[str]],
) -> Iterator[tuple[list[str], list[CollectedSession]]]:
    """What the workers collected, as it comes; nothing for what failed."""
    import distributed

    task = (place, core.builder.overrides.user_site, project, key)
    futures = {client.submit(_collect, *task, chunk, pure=False): chunk for chunk in chunks}
    try:
        for future in distributed.as_completed(list(futures)):
            chunk = futures.pop(future)
            try:
                yield chunk, future.result()
            except (UsageError, OSError, distributed.KilledWorker) as error:
                if isinstance(error, UsageError):
                    raise
                log.warning("%d sessions were not collected by a worker: %s", len(chunk), error)
                yield chunk, []
            except ModuleNotFoundError as error:
                raise UsageError(
                    f"the workers of the cluster lack xnatfs ({error}): install xnatfs[all,dask] for them"
                ) from None
    finally:
        client.cancel(list(futures))


# --- in a worker ------------------------------------------------------------------------------------------

# Not tried again with the next sessions: a server locks an account after a few wrong passwords.
_REFUSALS = (Cause.LOGIN_REFUSED, Cause.LOGIN_BLOCKED, Cause.TOO_MANY_SESSIONS)
_cores: ProcessCores[WorkerSettings] = ProcessCores(*_REFUSALS)
atexit.register(_cores.close)


def _collect(
    place: WorkerSettings, site: Site, project: str, key: str, sessions: Sequence[str]
) -> list[CollectedSession]:
    return collect(_core(place, site).builder, project, key, sessions)


def _core(place: WorkerSettings, site: Site) -> Core:
    """This process's connection."""
    import distributed

    if place.version != __version__:
        raise UsageError(
            f"a worker of the Dask cluster has xnatfs {__version__}, and the table is made by {place.version}"
        )
    worker = distributed.get_worker()

    def connect() -> Core:
        home = Path(worker.local_directory) / "xnatfs"
        settings = replace(place.settings, cache_dir=home / "cache", state_dir=home / "state")
        try:
            chosen = choose(place.settings.server, place.user, config=place.config, netrc_file=place.netrc)
            login = find(chosen, place.user, config=place.config, netrc_file=place.netrc)
        except UsageError as error:
            raise UsageError(f"the Dask worker at {worker.address} finds no login: {error}") from None
        core = compose(settings, login, "")
        core.builder.overrides.user_site = site
        return core

    try:
        return _cores.get(place, connect)
    except Failure as failure:
        if failure.cause not in _REFUSALS:
            raise
        raise UsageError(f"the Dask worker at {worker.address} cannot log in: {failure}") from None


def _close(place: WorkerSettings) -> None:
    _cores.end(place)


# --- the table as a Dask data frame -----------------------------------------------------------------------


def table_on(
    client: distributed.Client,
    core: Core,
    project: str,
    name: str,
    sessions: Sequence[str] = (),
    *,
    wide: bool = False,
    added: Sequence[str] = (),
) -> dask.dataframe.DataFrame:
    """A table that the workers of a cluster collect, in their memory. See `made_table.make`.

    Raises:
        UsageError, Failure: see `collected` and `made_table.make`.
        MissingExtra: Dask, pandas or pyarrow is not installed.
    """
    check("dask")
    given = collected(core, client, project, name, sessions)
    made = make(core, project, name, sessions, wide=wide, added=added, given=given)
    if count := len(made.problems.held):
        warnings.warn(
            f"{count} remarks on sessions that are missing or incomplete in {name}; `xnatfs table {project} "
            f"{name} --problems` lists them",
            stacklevel=3,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write(made.frame, "parquet", path)
        return _in_workers(path, client)


def _in_workers(path: Path, client: distributed.Client) -> dask.dataframe.DataFrame:
    """The row groups of a Parquet file, each in the memory of a worker."""
    import dask.dataframe
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    empty = file.schema_arrow.empty_table().to_pandas()
    groups = range(file.metadata.num_row_groups)
    # pandas has no integer for a missing one: a column is float where it lacks one anywhere.
    for at, name in enumerate(empty.columns):
        counts = [file.metadata.row_group(group).column(at).statistics for group in groups]
        if empty[name].dtype.kind == "i" and any(count is None or count.null_count for count in counts):
            empty[name] = empty[name].astype("float64")
    types = empty.dtypes.to_dict()
    parts = [client.scatter(file.read_row_group(group).to_pandas().astype(types)) for group in groups]
    return dask.dataframe.from_delayed(parts or [client.scatter(empty)], meta=empty, verify_meta=False)
