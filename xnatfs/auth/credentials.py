"""Finds server, user and password in the places where XNAT users already keep them.

Order (design.md 6): an explicit `--config` or `--netrc`, the environment (`XNAT_HOST/XNAT_USER/XNAT_PASS`,
then `XNATPY_*`), the token stored by `xnatfs login`, `~/.netrc`, `~/.xnat.cfg` (pyxnat and bx), `~/.xnatPass`
(pyxnat), a prompt on a terminal. Never an argument: those show in `ps`. Settings of this call or shell come
first, then the last `xnatfs login`, then the files of other tools. Used by the commands at their start, and
by a mount that reloads its login. Reads files, the environment and the keyring; no network.
Threading: any thread.
"""

from __future__ import annotations

import getpass
import json
import netrc
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from xnatfs.auth import token_store
from xnatfs.config import normal_url
from xnatfs.errors import UsageError

STORED = "`xnatfs login`"
ENVIRONMENT, TERMINAL = "environment", "the terminal"
_PREFIXES = (
    "XNAT_",
    "XNATPY_",
)  # what the Container Service and JupyterHub set (an alias token there); xnatpy's own


@dataclass(frozen=True)
class Credentials:
    """A login for one server. `source` names where it was found, for display; the password is not in `repr`.

    For an alias token `user` and `password` are its alias and secret, and `owner` is its user, if known.
    `issued` and `expires` are in seconds since 1970 by this machine's clock; None if unknown.
    `again` searches the same places once more; it raises UsageError as `find` does.
    """

    server: str
    user: str
    password: str = field(repr=False)
    source: str
    verify: bool | str | None = None
    proxy: str | None = field(default=None, repr=False)  # it may carry a password of its own
    owner: str = ""
    issued: float | None = None
    expires: float | None = None
    again: Callable[[], Credentials] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class _Entry:
    """The entry of one place; `server` may be missing (a netrc entry has only the host), and so may user and
    password.
    """

    source: str
    host: str  # host[:port] for matching
    server: str | None
    user: str | None
    password: str | None = field(repr=False)
    verify: bool | str | None = None
    proxy: str | None = field(default=None, repr=False)  # it may carry a password of its own
    token: token_store.StoredToken | None = None


def find(
    server: str | None = None,
    user: str | None = None,
    *,
    config: Path | None = None,
    netrc_file: Path | None = None,
    prompt: bool = True,
    stored: bool = True,
    expired: bool = False,
) -> Credentials:
    """The login to use for `server` and `user`, either of which may be open.

    Args:
        prompt: ask on a terminal if nothing is found.
        stored: include tokens stored by `xnatfs login` ...
        expired: ... also expired ones: they still tell which user's cache to use.

    Raises:
        UsageError: nothing matches, or several servers are known and none was named; the text names them and
            says what to do.
    """
    config = config and config.absolute()  # a mount in the background searches again, from another folder
    netrc_file = netrc_file and netrc_file.absolute()
    wanted = normal_url(server) if server else None
    entries = [one for one in _entries(config, netrc_file, wanted) if stored or one.token is None]
    if wanted is None:
        wanted = _only_server(entries)
    again = partial(find, wanted, user, config=config, netrc_file=netrc_file, prompt=False, stored=stored)
    host = urlsplit(wanted).netloc
    over = ""
    for entry in entries:
        if not _same_host(entry.host, host) or (user is not None and entry.user not in (None, user)):
            continue
        if entry.token is not None:
            if entry.token.expired and not expired:
                over = f"the login of {STORED} as {entry.token.user} at {wanted} has expired; run it again"
                continue
            try:
                return of(entry.token, again)
            except UsageError as problem:
                over = str(problem)
                continue
        name = user or entry.user
        if name and entry.password is not None:
            return Credentials(
                wanted, name, entry.password, entry.source, entry.verify, entry.proxy, again=again
            )
    if prompt and sys.stdin.isatty():
        return ask(wanted, user)
    whom = f" for the user {user}" if user else ""
    raise UsageError(
        over
        or f"no password{whom} for {wanted} was found; run `xnatfs login`, set XNAT_HOST, XNAT_USER and "
        f"XNAT_PASS, "
        "or put the server into ~/.netrc or ~/.xnat.cfg"
    )


def ask(server: str, user: str | None = None) -> Credentials:
    """A login from the terminal."""
    name = user or input(f"User name for {server}: ").strip()
    return Credentials(server, name, getpass.getpass(f"Password for {name} at {server}: "), TERMINAL)


def of(token: token_store.StoredToken, again: Callable[[], Credentials] | None = None) -> Credentials:
    """The login with a stored token.

    Raises:
        UsageError: the keyring does not return it.
    """
    kept = token_store.whole(token)
    return Credentials(
        token.server,
        kept.alias,
        kept.secret,
        STORED,
        token.verify,
        token.proxy,
        owner=token.user,
        issued=token.issued,
        expires=token.expires,
        again=again,
    )


def places(config: Path | None = None, netrc_file: Path | None = None) -> list[tuple[str, str, str]]:
    """(place, server, user) of every login that can be found, best first: for `xnatfs doctor`. No
    passwords.
    """
    return [
        (
            entry.source + (" (expired)" if entry.token and entry.token.expired else ""),
            entry.server or entry.host,
            entry.user or "-",
        )
        for entry in _entries(config, netrc_file, None)
    ]


def _only_server(entries: list[_Entry]) -> str:
    # An explicit file, the environment or `xnatfs login` names *the* server; only entries of equal rank can
    # conflict.
    for explicit in ("--config", "--netrc", ENVIRONMENT, STORED):
        named = [entry for entry in entries if entry.source.startswith(explicit)]
        if named:
            entries = named
            break
    servers = {entry.server or f"https://{entry.host}": None for entry in entries}
    hosts: dict[str, str] = {}
    for url in servers:
        hosts.setdefault(urlsplit(url).netloc, url)
    # An http:// server known in full under the same host wins over the https:// guessed from a netrc entry.
    for entry in entries:
        if entry.server:
            hosts[entry.host] = entry.server
    if not hosts:
        raise UsageError(
            "which server? Name it with --server URL or XNAT_HOST "
            "(no login was found from `xnatfs login`, in ~/.netrc, ~/.xnat.cfg or ~/.xnatPass)"
        )
    if len(hosts) > 1:
        known = ", ".join(sorted(hosts.values()))
        raise UsageError(f"several servers are known ({known}); name one with --server URL or XNAT_HOST")
    return next(iter(hosts.values()))


def _same_host(left: str, right: str) -> bool:
    # A netrc entry has no port; it is valid for every port of its host, as in curl and requests.
    return left.lower() == right.lower() or left.lower() == right.lower().rsplit(":", 1)[0]


def _entries(config: Path | None, netrc_file: Path | None, wanted: str | None) -> Iterator[_Entry]:
    if config is not None:
        yield from _pyxnat_config(config, f"--config {config}", required=True)
    if netrc_file is not None:
        yield from _netrc(netrc_file, f"--netrc {netrc_file}", required=True)
    yield from _environment(wanted)
    yield from _kept()
    home = Path.home()
    default = Path(os.environ["NETRC"]) if os.environ.get("NETRC") else home / ".netrc"
    if netrc_file is None and default.is_file():
        yield from _netrc(default, str(default), required=bool(os.environ.get("NETRC")))
    if config is None and (home / ".xnat.cfg").is_file():
        yield from _pyxnat_config(home / ".xnat.cfg", "~/.xnat.cfg", required=False)
    if (home / ".xnatPass").is_file():
        yield from _xnat_pass(home / ".xnatPass")


def without_passwords() -> None:
    """Remove the passwords from the environment that child processes inherit; this process can still find
    them.
    """
    for prefix in _PREFIXES:
        os.unsetenv(prefix + "PASS")


def _environment(wanted: str | None) -> Iterator[_Entry]:
    for prefix in _PREFIXES:
        host = os.environ.get(prefix + "HOST")
        user, password = os.environ.get(prefix + "USER"), os.environ.get(prefix + "PASS")
        server = normal_url(host) if host else wanted
        if server and (host or (user and password)):
            yield _Entry(
                f"{ENVIRONMENT} {prefix}*", urlsplit(server).netloc, server if host else None, user, password
            )


def _kept() -> Iterator[_Entry]:
    try:
        found = token_store.kept()
    except UsageError as problem:
        print(f"xnatfs: warning: {problem}", file=sys.stderr)
        return
    for one in found:
        yield _Entry(STORED, urlsplit(one.server).netloc, one.server, one.user, None, token=one)


def _netrc(path: Path, source: str, *, required: bool) -> Iterator[_Entry]:
    _warn_if_readable(path)
    try:
        hosts = netrc.netrc(str(path)).hosts
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        if required:
            # Not the parser's own message: it quotes the offending text, which may be part of a password.
            reason = (
                f"look at line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else str(error)
            )
            raise UsageError(f"{path} cannot be read as a netrc file: {reason}") from None
        return
    for host, (login, _, password) in hosts.items():
        if host != "default":
            yield _Entry(source, host, None, login, password)


def _pyxnat_config(path: Path, source: str, *, required: bool) -> Iterator[_Entry]:
    """JSON {"server", "user", "password"[, "verify", "proxy"]}: pyxnat's `Interface.save_config`, bx's
    `--config`.
    """
    _warn_if_readable(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        server = normal_url(data["server"])
        if not all(isinstance(data.get(name), (str, type(None))) for name in ("user", "password", "proxy")):
            raise TypeError
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
        if not required:
            print(
                f"xnatfs: warning: {path} is not a configuration as pyxnat writes it; ignoring it",
                file=sys.stderr,
            )
            return
        raise UsageError(
            f"{path} is not a configuration as pyxnat writes it (JSON with server, user and password)"
        ) from None
    yield _Entry(
        source,
        urlsplit(server).netloc,
        server,
        data.get("user"),
        data.get("password"),
        data.get("verify"),
        data.get("proxy"),
    )


def _xnat_pass(path: Path) -> Iterator[_Entry]:
    """Lines `[+]user@host=password`; `+` marks the one to use by default (pyxnat `core/xpass.py`)."""
    _warn_if_readable(path)
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    for line in sorted(lines, key=lambda text: not text.startswith("+")):
        if match := re.fullmatch(r"\+?([^@\s]+)@(.+?)=(.*)", line):
            server = normal_url(match[2])
            yield _Entry("~/.xnatPass", urlsplit(server).netloc, server, match[1], match[3])


def _warn_if_readable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(
            f"xnatfs: warning: {path} contains a password and others can read it; run `chmod 600` on it",
            file=sys.stderr,
        )
