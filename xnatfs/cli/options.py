"""Options that several commands share: which server, whose login, which cache.

An option that is neither typed nor in the environment has the value that `config.toml` gives it for the
server, or for the project that the command is about.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from xnatfs.auth import credentials as logins
from xnatfs.auth.credentials import Credentials
from xnatfs.cache.shared_place import checked_place
from xnatfs.cli import completing
from xnatfs.cli.node_cache import node_cache
from xnatfs.config import BIRTH_DATES, PREFERRED, Limits, Privacy, Settings, cache_home, parse_size
from xnatfs.errors import UsageError
from xnatfs.servers import NamedServer

_SMALLEST_CACHE = 1_000_000  # bytes: a number without a unit is more often a slip than wanted

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Where:
    """The values of the options added by `where`."""

    server: str | None
    user: str | None
    config: Path | None
    netrc: Path | None
    cache_dir: Path | None
    cache_size: str
    offline: bool
    allow_http: bool
    shared_cache: str
    connections: int
    requests_per_second: float
    chosen: NamedServer | None = None

    def of_projects(self, option: str) -> dict[str, Any]:
        """What `config.toml` gives an option for single projects, unless it was given for all of them."""
        if self.chosen is None or click.get_current_context().get_parameter_source(
            option.replace("-", "_")
        ) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            return {}
        return {
            project: values[option] for project, values in self.chosen.projects.items() if option in values
        }

    def settings(self, **more: Any) -> tuple[Settings, Credentials]:
        """The settings and the login that these options select.

        Raises:
            UsageError: no login matches, or a value is invalid.
        """
        size = parse_size(self.cache_size)
        if size < _SMALLEST_CACHE:
            number = self.cache_size.strip()
            hint = f"; did you mean {number}G?" if number.isdecimal() and size else ""
            raise UsageError(f"--cache-size {number} is {size} bytes, too small for any image{hint}")
        login = logins.find(
            self.chosen or self.server,
            self.user,
            config=self.config,
            netrc_file=self.netrc,
            expired=self.offline,
        )
        settings = Settings(
            server=login.server,
            cache_dir=self._cache_dir().expanduser().absolute(),
            verify=login.verify,
            proxy=login.proxy,
            offline=self.offline,
            allow_http=self.allow_http,
            shared_cache=checked_place(self.shared_cache),
            limits=Limits(
                cache_size=size,
                connections=self.connections,
                requests_per_second=self.requests_per_second,
            ),
            **more,
        )
        return settings, login

    def _cache_dir(self) -> Path:
        if self.cache_dir is None and self.shared_cache and not os.environ.get("XNATFS_CACHE_DIR"):
            return node_cache(cache_home())
        return self.cache_dir or cache_home()


def server_option(text: str) -> Callable[[F], F]:
    """`--server`, with what it is for."""
    return click.option("--server", metavar="URL", help=text, shell_complete=completing.servers)


_LOGIN = (
    server_option("The XNAT server; needed only if several are known."),
    click.option("--user", metavar="NAME", help="The user name; needed only if several are known."),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read the login from a pyxnat/bx configuration file.",
    ),
    click.option(
        "--netrc",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read the login from this netrc file.",
    ),
    click.option(
        "--allow-http",
        is_flag=True,
        help="Send the password over plain http:// (anyone on the network can read it).",
    ),
)
_CACHE = (
    click.option("--cache-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where to cache files."),
    click.option(
        "--cache-size", default="20G", show_default=True, metavar="SIZE", help="Cache at most this much."
    ),
    click.option(
        "--shared-cache",
        default="",
        metavar="DIR|URL",
        envvar="XNATFS_SHARED_CACHE",
        help="Look here first, and put here what was fetched: for many machines that read the same "
        "(docs/clusters.md).",
    ),
    click.option(
        "--connections",
        type=click.IntRange(2, Limits.connections),
        default=Limits.connections,
        show_default=True,
        metavar="N",
        help="Use at most N connections to the server at once.",
    ),
    click.option(
        "--requests-per-second",
        type=click.FloatRange(0.1, 1000),
        default=Limits.requests_per_second,
        show_default=True,
        metavar="N",
        help="Send the server at most N requests a second, over a few seconds.",
    ),
    click.option(
        "--offline",
        is_flag=True,
        help="Send the server nothing: show what was listed before, serve what is in the cache.",
    ),
)


_PRIVACY = (
    click.option(
        "--birth-dates",
        type=click.Choice(BIRTH_DATES),
        default=Privacy.birth_dates,
        show_default=True,
        help="What is shown and kept of dates of birth.",
    ),
    click.option(
        "--no-demographics",
        is_flag=True,
        help="Show and keep nothing about subjects: no sex, age, group, custom variables.",
    ),
)


_TREE = (
    click.option(
        "--list",
        "lists",
        type=click.Path(path_type=Path),
        metavar="FILE",
        multiple=True,
        help="A list of sessions, one id or label per line: lists/NAME/ shows only those (may be repeated).",
    ),
    click.option(
        "--bids-map",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Rules for views/PROJECT/bids/: which scans become which BIDS files; a bids.toml, or "
        "another program's mapping as .json (docs/bids.md).",
    ),
    click.option(
        "--prefer",
        type=click.Choice(PREFERRED),
        default=PREFERRED[0],
        show_default=True,
        help="Of scans with both, in nifti/ and bids/: NIfTI as the server has it, or made of DICOM.",
    ),
    click.option(
        "--strip",
        metavar="KEY",
        multiple=True,
        help="Leave this key, too, out of sidecars made of DICOM (may be repeated; none: only those named).",
    ),
)


def tree_options(command: F) -> F:
    """Give a command, below `where`, the options that say what is in the tree beside the server's files, as
    one argument `shown`, for `Where.settings`.
    """

    @functools.wraps(command)
    def call(
        *arguments: Any,
        where: Where,
        lists: tuple[Path, ...],
        bids_map: Path | None,
        prefer: str,
        strip: tuple[str, ...],
        **more: Any,
    ) -> Any:
        from xnatfs.bids.map_file import user_map
        from xnatfs.tree.lists import read_list

        for one in lists:
            read_list(one)
        maps = [(project, Path(path)) for project, path in where.of_projects("bids-map").items()]
        for path in (bids_map, *(path for _, path in maps)):
            user_map(path)
        shown = {
            "lists": tuple(one.absolute() for one in lists),
            "bids_map": None if bids_map is None else bids_map.absolute(),
            "project_bids_maps": tuple(maps),
            "prefer": prefer,
            "project_prefer": tuple(where.of_projects("prefer").items()),
            "strip": strip,
        }
        return command(*arguments, where=where, shown=shown, **more)

    return with_options(cast(F, call), *_TREE)


def privacy(command: F) -> F:
    """Give a command the options that say what is shown of people, as one argument `privacy`."""

    @functools.wraps(command)
    def call(*arguments: Any, birth_dates: str, no_demographics: bool, **more: Any) -> Any:
        return command(*arguments, privacy=Privacy(not no_demographics, birth_dates), **more)

    return with_options(cast(F, call), *_PRIVACY)


def where(command: F) -> F:
    """Give a command these options, as one argument `where`."""

    @functools.wraps(command)
    def call(
        *arguments: Any,
        server: str | None,
        user: str | None,
        config: Path | None,
        netrc: Path | None,
        **more: Any,
    ) -> Any:
        chosen = _chosen(server, user, config, netrc)
        values = more if chosen is None else more | _defaults(chosen, more.get("project"))
        names = (
            *("cache_dir", "cache_size", "offline", "allow_http"),
            *("shared_cache", "connections", "requests_per_second"),
        )
        shared = {name: values.pop(name) for name in names}
        return command(
            *arguments,
            where=Where(server, user, config, netrc, **shared, chosen=chosen),
            **values,
        )

    return with_options(cast(F, call), *_LOGIN, *_CACHE)


def login_options(command: F) -> F:
    """Give a command the options that say which server and whose login, each as an argument of its own."""

    @functools.wraps(command)
    def call(
        *, server: str | None, user: str | None, config: Path | None, netrc: Path | None, **more: Any
    ) -> Any:
        chosen = _chosen(server, user, config, netrc)
        defaults = {} if chosen is None else _defaults(chosen, None)
        if "allow_http" in defaults:
            more["allow_http"] = defaults["allow_http"]
        return command(server=server, user=user, config=config, netrc=netrc, **more)

    return with_options(cast(F, call), *_LOGIN)


def _chosen(
    server: str | None, user: str | None, config: Path | None, netrc: Path | None
) -> NamedServer | None:
    # What is wrong is said by whoever needs the server: `xnatfs table --list` does not.
    with contextlib.suppress(UsageError):
        return logins.choose(server, user, config=config, netrc_file=netrc)
    return None


def _defaults(chosen: NamedServer, project: str | None) -> dict[str, Any]:
    """The arguments of the command that is running whose values are in `config.toml`."""
    context = click.get_current_context()
    given = {**chosen.options, **chosen.projects.get(project or "", {})}
    found = {}
    for option in context.command.params:
        key = next((name[2:] for name in option.opts if name[2:] in given), None)
        # Which server it is, and whose login, is decided by then.
        if key is None or key in ("config", "netrc") or option.name is None:
            continue
        # `list` is a list of files for `mount`, and a flag of `table`.
        if isinstance(given[key], bool) != getattr(option, "is_flag", False):
            continue
        if context.get_parameter_source(option.name) is ParameterSource.DEFAULT:
            found[option.name] = option.type_cast_value(context, given[key])
    return found


def with_options(command: F, *options: Callable[[F], F]) -> F:
    """Give a command several options; the first one is shown first."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)
