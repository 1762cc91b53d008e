"""Servers by name: `config.toml` in the user's configuration.

    default = "lab"                     # for commands that name no server

    [servers.lab]
    url = "https://xnat.example.org"
    user = "jane"                       # where several logins are known; verify, proxy: as for `requests`
    cache-size = "200G"                 # an option of `mount` or `table` by its long name
    project = ["ALFA", "NORD"]

    [servers.lab.projects.ALFA]         # what differs for one project
    wide = true

Used by `auth.credentials`, which decides which server is meant and whose login is sent there; by the
commands, whose options have their defaults here; and by the library. It holds no secrets, and is refused with
one in it.
Threading: immutable values; no I/O but `load`.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xnatfs.config import (
    BIRTH_DATES,
    HIGH_LEVEL,
    LOW_LEVEL,
    PREFERRED,
    config_home,
    normal_url,
    parse_size,
)
from xnatfs.errors import UsageError
from xnatfs.text import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "config.toml"
_SERVER_NAME = re.compile(r"\w[\w.-]*")
_SECRET = re.compile(r"pass|secret|token|jsession", re.IGNORECASE)


@dataclass(frozen=True)
class NamedServer:
    """A server and what is known of it before anything is sent.

    Attributes:
        name: "" for one that is known by its URL only.
        user: whose login to use where nobody says.
        options: by the long name of an option, as it is typed; lists for those that may be repeated.
        projects: the same for single projects, by their ids.
    """

    name: str
    url: str
    user: str | None = None
    verify: bool | str | None = None
    proxy: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    projects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerConfig:
    """A `config.toml`."""

    default: str = ""
    servers: Mapping[str, NamedServer] = field(default_factory=dict)

    @property
    def preferred(self) -> NamedServer | None:
        """The server of commands that name none: the default, or the only one."""
        if self.default:
            return self.servers[self.default]
        return next(iter(self.servers.values())) if len(self.servers) == 1 else None

    def at(self, url: str, user: str | None = None) -> NamedServer:
        """The first listed with this URL, of this user if one has it; else one without a name."""
        here = [one for one in self.servers.values() if one.url == url]
        theirs = [one for one in here if user is not None and one.user == user]
        return next(iter([*theirs, *here]), NamedServer("", url))


def config_file() -> Path:
    """Where the user's own `config.toml` lies."""
    return config_home() / NAME


def load() -> ServerConfig:
    """The user's `config.toml`; nothing if there is none.

    Raises:
        UsageError: it cannot be read or understood, has a secret in it, or belongs to others.
    """
    path = config_file()
    try:
        with path.open(encoding="utf-8-sig") as stream:
            status = os.fstat(stream.fileno())
            text = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return ServerConfig()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"{path} can be changed by other users, who could direct your login elsewhere; make it your own "
            f"file and run `chmod o-w` on it"
        )
    return parse(text, str(path), path.parent)


def parse(text: str, where: str, folder: Path) -> ServerConfig:
    """A `config.toml`.

    Args:
        text: its content.
        where: its path, for messages.
        folder: what relative paths in it start from.

    Raises:
        UsageError: it is no TOML, or says something nobody understands; the text names the line or the key.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError; so is a number of 5,000 digits
        raise UsageError(f"{where}: {str(error)[:300]}") from None
    _known(tables, ("default", "servers"), where, f"a {NAME}")
    servers = {
        name: _server(name, value, f"{where}: servers.{name}", folder)
        for name, value in _section(tables.get("servers", {}), f"{where}: servers").items()
    }
    default = tables.get("default", "")
    if not isinstance(default, str):
        raise UsageError(f"{where}: default must be the name of a server in quotes")
    if default and default not in servers:
        raise UsageError(
            f"{where}: default: there is no [servers.{default}] in it{did_you_mean(default, servers)}"
        )
    return ServerConfig(default, servers)


def _server(name: str, value: object, where: str, folder: Path) -> NamedServer:
    table = _section(value, where)
    if not _SERVER_NAME.fullmatch(name):
        raise UsageError(f"{where}: the name of a server has letters, digits, `.`, `_` and `-` only")
    _known(table, (*_OWN, "projects", *OPTIONS), where, "a server", login=f" --server {name}")
    own = {key: _OWN[key](table[key], f"{where}.{key}", folder) for key in _OWN if key in table}
    if "url" not in own:
        raise UsageError(f'{where}: url is missing; write url = "https://xnat.example.org"')
    projects = _section(table.get("projects", {}), f"{where}.projects")
    return NamedServer(
        name,
        options=_options(table, OPTIONS, where, folder),
        projects={
            project: _project(section, f"{where}.projects.{project}", folder)
            for project, section in projects.items()
        },
        **own,
    )


def _project(value: object, where: str, folder: Path) -> Mapping[str, Any]:
    table = _section(value, where)
    for key in table:
        if key in OPTIONS and key not in PROJECT_OPTIONS:
            raise UsageError(f"{where}.{key} holds for a server as a whole; write it into its section")
    _known(table, PROJECT_OPTIONS, where, "a project")
    return _options(table, PROJECT_OPTIONS, where, folder)


def _options(
    table: Mapping[str, Any], kinds: Mapping[str, _Kind], where: str, folder: Path
) -> Mapping[str, Any]:
    return {key: kinds[key](table[key], f"{where}.{key}", folder) for key in table if key in kinds}


def _section(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a section, [servers.NAME]")
    return value


def _known(table: Iterable[str], names: Iterable[str], where: str, what: str, login: str = "") -> None:
    names = tuple(names)
    for key in table:
        if key in names:
            continue
        if _SECRET.search(key):
            raise UsageError(
                f"{where}.{key}: no password or token belongs in this file; remove it, and run `xnatfs "
                f"login{login}`, which stores a login that expires"
            )
        raise UsageError(f"{where}: {key!r} is not a setting of {what}{did_you_mean(key, names)}")


# --- values -------------------------------------------------------------------------------------------------

_Kind = Callable[[object, str, Path], Any]  # a value, its key for messages, the folder of relative paths


def _text(value: object, where: str, _: Path) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} must be a text in quotes")
    return value


def _texts(value: object, where: str, folder: Path) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in values):
        raise UsageError(f"{where} must be a text in quotes, or several in brackets")
    return [str(one) for one in values]


def _flag(value: object, where: str, _: Path) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} must be true or false")
    return value


def _path(value: object, where: str, folder: Path) -> str:
    return str(folder / Path(_text(value, where, folder)).expanduser())


def _place(value: object, where: str, folder: Path) -> str:
    return text if "://" in (text := _text(value, where, folder)) else _path(text, where, folder)


def _paths(value: object, where: str, folder: Path) -> list[str]:
    return [_path(one, where, folder) for one in _texts(value, where, folder)]


def _size(value: object, where: str, folder: Path) -> str:
    try:
        parse_size(text := _text(value, where, folder))
    except UsageError:
        raise UsageError(f'{where} must be a size in quotes, like "500M", "20G" or "1.5T"') from None
    return text


def _number(value: object, where: str, _: Path) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise UsageError(f"{where} must be a number above 0, without quotes")
    return value


def _digest(value: object, where: str, _: Path) -> str:
    if value not in ("refuse", "serve"):
        raise UsageError(f'{where} must be "refuse" or "serve"')
    return str(value)


def _interface(value: object, where: str, _: Path) -> str:
    if value not in (LOW_LEVEL, HIGH_LEVEL):
        raise UsageError(f'{where} must be "{LOW_LEVEL}" or "{HIGH_LEVEL}"')
    return str(value)


def _birth_dates(value: object, where: str, _: Path) -> str:
    if value not in BIRTH_DATES:
        raise UsageError(f"{where} must be {', '.join(map(repr, BIRTH_DATES))}".replace("'", '"'))
    return str(value)


def _prefer(value: object, where: str, _: Path) -> str:
    if value not in PREFERRED:
        raise UsageError(f'{where} must be "server" or "dicom"')
    return str(value)


def _columns(value: object, where: str, folder: Path) -> str:
    return ",".join(_texts(value, where, folder))


def _url(value: object, where: str, folder: Path) -> str:
    try:
        return normal_url(_text(value, where, folder))
    except UsageError as problem:
        raise UsageError(f"{where}: {problem}" if where not in str(problem) else str(problem)) from None


def _verify(value: object, where: str, folder: Path) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} must be true, false, or the path of a file with certificates in quotes")
    return _path(value, where, folder)


def _proxy(value: object, where: str, folder: Path) -> str:
    text = _text(value, where, folder)
    if "@" in text:
        raise UsageError(
            f"{where}: no password belongs in this file; set https_proxy in the environment instead"
        )
    return text


_OWN: Mapping[str, _Kind] = {"url": _url, "user": _text, "verify": _verify, "proxy": _proxy}
# Options of `mount` and `table` by their long names. Not those that ask for something else, as --output.
OPTIONS: Mapping[str, _Kind] = {
    "config": _path,
    "netrc": _path,
    "allow-http": _flag,
    "cache-dir": _path,
    "cache-size": _size,
    "shared-cache": _place,
    "connections": _number,
    "requests-per-second": _number,
    "offline": _flag,
    "project": _texts,
    "list": _paths,
    "bids-map": _path,
    "prefer": _prefer,
    "strip": _texts,
    "bad-digest": _digest,
    "allow-other": _flag,
    "overlay": _path,
    "inode32": _flag,
    "fuse": _interface,
    "foreground": _flag,
    "wide": _flag,
    "with": _columns,
    "birth-dates": _birth_dates,
    "no-demographics": _flag,
}
PROJECT_OPTIONS: Mapping[str, _Kind] = {
    "wide": _flag,
    "with": _columns,
    "bids-map": _path,
    "prefer": _prefer,
}
