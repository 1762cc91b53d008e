"""Options that several commands share: which server, whose login, which cache."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from xnatfs.auth import credentials as logins
from xnatfs.auth.credentials import Credentials
from xnatfs.config import Limits, Settings, cache_home, parse_size
from xnatfs.errors import UsageError

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
            self.server, self.user, config=self.config, netrc_file=self.netrc, expired=self.offline
        )
        settings = Settings(
            server=login.server,
            cache_dir=(self.cache_dir or cache_home()).expanduser().absolute(),
            verify=login.verify,
            proxy=login.proxy,
            offline=self.offline,
            allow_http=self.allow_http,
            limits=Limits(cache_size=size),
            **more,
        )
        return settings, login


_LOGIN = (
    click.option("--server", metavar="URL", help="The XNAT server; needed only if several are known."),
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
        "--offline",
        is_flag=True,
        help="Send the server nothing: show what was listed before, serve what is in the cache.",
    ),
)


def where(command: F) -> F:
    """Give a command these options, as one argument `where`."""

    @functools.wraps(command)
    def call(
        *arguments: Any,
        server: str | None,
        user: str | None,
        config: Path | None,
        netrc: Path | None,
        cache_dir: Path | None,
        cache_size: str,
        offline: bool,
        allow_http: bool,
        **more: Any,
    ) -> Any:
        return command(
            *arguments,
            where=Where(server, user, config, netrc, cache_dir, cache_size, offline, allow_http),
            **more,
        )

    return _with(cast(F, call), *_LOGIN, *_CACHE)


def login_options(command: F) -> F:
    """Give a command the options that say which server and whose login, each as an argument of its own."""
    return _with(command, *_LOGIN)


def _with(command: F, *options: Callable[[F], F]) -> F:
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)
