"""Finds server, user and password in the places where XNAT users already keep them.

Order (design.md 6): an explicit `--config` or `--netrc`, the environment (`XNAT_HOST/XNAT_USER/XNAT_PASS`,
then `XNATPY_*`; `XNAT_PROFILE` and `XNAT_URL` of xnatctl for a missing `XNAT_HOST`), the files that
`config.toml` names for the server, the token stored by `xnatfs login`, the files of other tools
(`login_files`), a session that somebody else logged in for (`XNAT_TOKEN`), a prompt on a terminal. Never an
argument: those show in `ps`. Settings of this call or shell come first, then the last `xnatfs login`, then
the files of other tools; a session comes last, since it ends.

Used by the commands at their start, and by a mount that reloads its login. Reads files, the environment and
the keyring; no network.
Threading: any thread.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from xnatfs import servers
from xnatfs.auth import login_files, token_store
from xnatfs.auth.login_files import LoginEntry, netrc_entries, pyxnat_config, xnat_pass
from xnatfs.config import normal_url
from xnatfs.errors import UsageError
from xnatfs.servers import NamedServer, ServerConfig
from xnatfs.text import did_you_mean

STORED = "`xnatfs login`"
ENVIRONMENT, TERMINAL = "environment", "the terminal"
_PREFIXES = (
    "XNAT_",
    "XNATPY_",
)  # what the Container Service and JupyterHub set (an alias token there); xnatpy's own
_SESSIONS = ("XNAT_TOKEN", "XNAT_JSESSION")  # of xnatctl, of yaxil: the id of a session
_GIVEN = ("--config", "--netrc", ENVIRONMENT)  # how the sources begin that the user gave for this call


@dataclass(frozen=True)
class Credentials:
    """A login for one server. `source` names where it was found, for display; the password is not in `repr`.

    For an alias token `user` and `password` are its alias and secret, and `owner` is its user, if known.
    For a `session`, which somebody else logged in for, there is no password, and `user` is "" unless the
    caller named one.
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
    session: str = field(default="", repr=False)
    again: Callable[[], Credentials] | None = field(default=None, repr=False, compare=False)


class _Files(NamedTuple):
    """The files that the user names for this call."""

    config: Path | None
    netrc: Path | None


# --- which server -------------------------------------------------------------------------------------------


def choose(
    server: str | None = None,
    user: str | None = None,
    *,
    config: Path | None = None,
    netrc_file: Path | None = None,
) -> NamedServer:
    """The server that is meant by a name or URL, or by none of them.

    A name is one of `config.toml`, a profile of xnatctl or an alias of yaxil. A word without a dot, colon or
    slash is a name where there are any.

    Raises:
        UsageError: there is no such name; none is known, or several; or `config.toml` is refused.
    """
    listed = servers.load()
    if server:
        return _meant(server, user, listed)
    if config is None and netrc_file is None:
        named = [one for one in map(_named_in_environment, _PREFIXES) if one is not None]
        if len({urlsplit(one.url).netloc for one in named}) == 1:
            return named[0]
    entries = list(_entries(_Files(config, netrc_file), None))
    return _only_server([one for one in entries if not one.session and not one.spare], listed)


def names() -> list[str]:
    """All names of servers.

    Raises:
        UsageError: `config.toml` is refused.
    """
    return list(dict.fromkeys([*servers.load().servers, *(one.name for one in _named_elsewhere())]))


def _named_elsewhere() -> list[LoginEntry]:
    return [*login_files.xnatctl_profiles().entries, *login_files.xnat_auth()]


def _meant(text: str, user: str | None, listed: ServerConfig) -> NamedServer:
    text = text.strip()
    if text in listed.servers:
        return listed.servers[text]
    if not re.fullmatch(r"[\w-]+", text) or text.lower() == "localhost":
        return listed.at(normal_url(text), user)
    elsewhere = _named_elsewhere()
    for entry in elsewhere:
        if entry.name == text and entry.server:
            return _as_server(entry, user, listed)
    known = [*listed.servers, *(entry.name for entry in elsewhere)]
    if not known:
        return NamedServer("", normal_url(text))
    raise UsageError(
        f"there is no server named {text!r} (a host of that name is written https://{text})"
        f"{did_you_mean(text, known)}"
    )


def _as_server(entry: LoginEntry, user: str | None, listed: ServerConfig) -> NamedServer:
    """The server of an entry that the user named, with what `config.toml` says of it."""
    assert entry.server is not None
    found = listed.at(entry.server, user or entry.user)
    return replace(
        found,
        name=found.name or entry.name,
        user=entry.user or found.user,
        verify=entry.verify if found.verify is None else found.verify,
    )


# --- whose login --------------------------------------------------------------------------------------------


def find(
    server: str | NamedServer | None = None,
    user: str | None = None,
    *,
    config: Path | None = None,
    netrc_file: Path | None = None,
    prompt: bool = True,
    stored: bool = True,
    expired: bool = False,
) -> Credentials:
    """The login to use for `server` (a URL, a name, or what `choose` found) and `user`, either of which may
    be open.

    Args:
        prompt: ask on a terminal if nothing is found.
        stored: include tokens stored by `xnatfs login` ...
        expired: ... also expired ones: they still tell which user's cache to use.

    Raises:
        UsageError: nothing matches, or several servers are known and none was named; the text names them and
            says what to do.
    """
    chosen = server
    if not isinstance(chosen, NamedServer):
        chosen = choose(chosen, user, config=config, netrc_file=netrc_file)
    # A mount in the background searches again, from another folder.
    files = _Files(config and config.absolute(), netrc_file and netrc_file.absolute())
    return _search(chosen, user, files, prompt, stored, expired)


def _search(
    chosen: NamedServer, user: str | None, files: _Files, prompt: bool, stored: bool, expired: bool
) -> Credentials:
    wanted, host = chosen.url, urlsplit(chosen.url).netloc
    again = partial(_search, chosen, user, files, False, stored, False)
    over, session = "", None
    for entry in _entries(files, chosen):
        # Whoever gives a login for this call means it, whatever `config.toml` says of the user.
        asked = user if entry.source.startswith(_GIVEN) else user or chosen.user
        if not _same_host(entry.host, host) or (asked is not None and entry.user not in (None, asked)):
            continue
        if entry.session:
            session = session or entry
        elif entry.token is not None:
            if not stored:
                continue
            if entry.token.expired and not expired:
                over = f"the login of {STORED} as {entry.token.user} at {wanted} has expired; run it again"
                continue
            try:
                login = of(entry.token, again)
            except UsageError as problem:
                over = str(problem)
                continue
            return replace(login, **_way(entry, chosen))
        elif name := user or entry.user or chosen.user:
            password = entry.password
            if password is None and entry.keyring is not None:
                try:
                    password = token_store.password_of(*entry.keyring)
                except UsageError as problem:
                    over = f"xnatctl's profile {entry.name} has its password in the keyring, but {problem}"
                    continue
            if password is not None:
                return Credentials(wanted, name, password, entry.source, again=again, **_way(entry, chosen))
    if session is not None:
        way = _way(session, chosen)
        return Credentials(
            wanted, user or "", "", session.source, session=session.session, again=again, **way
        )
    if prompt and sys.stdin.isatty():
        return ask(chosen, user)
    user = user or chosen.user
    whom = f" for the user {user}" if user else ""
    raise UsageError(
        over
        or f"no password{whom} for {wanted} was found; run `xnatfs login --server {wanted}` on a terminal, "
        "set XNAT_HOST, XNAT_USER and XNAT_PASS, or put the server into ~/.netrc or ~/.xnat.cfg"
    )


def _way(entry: LoginEntry, chosen: NamedServer) -> dict[str, Any]:
    """How the server is reached: as `config.toml` says, unless the user gives a file for this call."""
    ways = [(entry.verify, entry.proxy), (chosen.verify, chosen.proxy)]
    (verify, proxy), (other_verify, other_proxy) = ways if entry.source.startswith("--config") else ways[::-1]
    return {"verify": other_verify if verify is None else verify, "proxy": proxy or other_proxy}


def ask(chosen: NamedServer, user: str | None = None) -> Credentials:
    """A login from the terminal."""
    server = chosen.url
    name = user or chosen.user or input(f"User name for {server}: ").strip()
    password = getpass.getpass(f"Password for {name} at {server}: ")
    return Credentials(server, name, password, TERMINAL, chosen.verify, chosen.proxy)


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
            _shown(entry),
            entry.server or entry.host,
            entry.user or "-",
        )
        for entry in _entries(_Files(config, netrc_file), None)
    ]


def _shown(entry: LoginEntry) -> str:
    if entry.session:
        return f"{entry.source} (a session: it ends)"
    if entry.token is not None and entry.token.expired:
        return f"{entry.source} (expired)"
    return f"{entry.source} ({entry.name})" if entry.name else entry.source


def _only_server(entries: list[LoginEntry], listed: ServerConfig) -> NamedServer:
    # An explicit file, the environment, `config.toml` or `xnatfs login` names *the* server; only entries of
    # equal rank can conflict.
    given = next((one for one in _GIVEN if any(each.source.startswith(one) for each in entries)), "")
    if not given and listed.preferred is not None:
        return listed.preferred
    rank = given or STORED
    entries = [one for one in entries if one.source.startswith(rank)] or entries
    known = {entry.server or f"https://{entry.host}": None for entry in entries}
    hosts: dict[str, str] = {}
    for url in known:
        hosts.setdefault(urlsplit(url).netloc, url)
    # An http:// server known in full under the same host wins over the https:// guessed from a netrc entry.
    for entry in entries:
        if entry.server:
            hosts[entry.host] = entry.server
    if not hosts and not listed.servers:
        raise UsageError(
            "which server? Name it with --server URL or XNAT_HOST (no login was found from `xnatfs login`, "
            "in ~/.netrc, ~/.xnat.cfg, ~/.xnatPass, xnatctl's profiles or ~/.xnat_auth)"
        )
    if not hosts or (len(hosts) > 1 and listed.servers):
        raise UsageError(
            f"which server? Name one with --server ({', '.join(listed.servers)}), or as `default` in "
            f"{servers.config_file()}"
        )
    if len(hosts) > 1:
        shown = ", ".join(sorted(hosts.values()))
        raise UsageError(f"several servers are known ({shown}); name one with --server URL or XNAT_HOST")
    return listed.at(next(iter(hosts.values())))


def _same_host(left: str, right: str) -> bool:
    # A netrc entry has no port; it is valid for every port of its host, as in curl and requests.
    return left.lower() == right.lower() or left.lower() == right.lower().rsplit(":", 1)[0]


def _entries(files: _Files, chosen: NamedServer | None) -> Iterator[LoginEntry]:
    """What is found, best first; for a chosen server also what is good for it alone."""
    config, netrc_file = files
    if config is not None:
        yield from pyxnat_config(config, f"--config {config}", required=True)
    if netrc_file is not None:
        yield from netrc_entries(netrc_file, f"--netrc {netrc_file}", required=True)
    yield from _environment(chosen)
    if chosen is not None:
        yield from _of_server(chosen)
    yield from _kept()
    home = Path.home()
    default = Path(os.environ["NETRC"]) if os.environ.get("NETRC") else home / ".netrc"
    if netrc_file is None and default.is_file():
        yield from netrc_entries(default, str(default), required=bool(os.environ.get("NETRC")))
    if config is None and (home / ".xnat.cfg").is_file():
        yield from pyxnat_config(home / ".xnat.cfg", "~/.xnat.cfg", required=False)
    if (home / ".xnatPass").is_file():
        yield from xnat_pass(home / ".xnatPass")
    yield from login_files.xnatctl_profiles().entries
    yield from login_files.xnat_auth()
    yield from _sessions(chosen)


def _of_server(chosen: NamedServer) -> Iterator[LoginEntry]:
    """The files that `config.toml` names for a server."""
    for key, read in (("config", pyxnat_config), ("netrc", netrc_entries)):
        if key in chosen.options:
            path = Path(chosen.options[key])
            yield from read(path, f"{path}", required=True)


def without_passwords() -> None:
    """Remove the passwords and sessions from the environment that child processes inherit; this process can
    still find them.
    """
    for name in (*(f"{prefix}PASS" for prefix in _PREFIXES), *_SESSIONS):
        os.unsetenv(name)


def _environment(chosen: NamedServer | None) -> Iterator[LoginEntry]:
    for prefix in _PREFIXES:
        try:
            named = _named_in_environment(prefix)
        except UsageError:
            if chosen is None:
                raise
            continue  # its password is not for the server that is chosen here
        user, password = os.environ.get(prefix + "USER"), os.environ.get(prefix + "PASS")
        server = named or chosen
        if server is not None and (named or (user and password)):
            yield LoginEntry(
                f"{ENVIRONMENT} {prefix}*",
                urlsplit(server.url).netloc,
                named.url if named else None,
                user,
                password,
            )


def _named_in_environment(prefix: str) -> NamedServer | None:
    """The server that *_HOST names; where it is missing, xnatctl's variables.

    Raises:
        UsageError: there is no such server.
    """
    variable, host = f"{prefix}HOST", os.environ.get(prefix + "HOST")
    profile, url = os.environ.get("XNAT_PROFILE"), os.environ.get("XNAT_URL")
    verify = None
    if prefix == "XNAT_" and not host:
        if profile and not (profile == "default" and url):  # xnatctl replaces that one by the URL
            return _of_profile(profile)
        variable, host, verify = "XNAT_URL", url, _verify_in_environment()
    if not host:
        return None
    try:
        found = _meant(host, None, servers.load())
    except UsageError as problem:
        raise UsageError(f"{variable}: {problem}") from None
    return replace(found, verify=verify) if verify is not None and found.verify is None else found


def _of_profile(name: str) -> NamedServer:
    try:
        profiles = login_files.xnatctl_profiles(required=True).entries
    except UsageError as problem:
        raise UsageError(f"XNAT_PROFILE is set, and {problem}") from None
    for entry in profiles:
        if entry.name == name:
            return _as_server(entry, None, servers.load())
    like = did_you_mean(name, [entry.name for entry in profiles])
    raise UsageError(f"XNAT_PROFILE: xnatctl has no profile {name!r}{like}")


def _verify_in_environment() -> bool | None:
    # As strict as xnatctl: a slip must not turn the check off, nor silently leave it on.
    text = os.environ.get("XNAT_VERIFY_SSL", "true").strip().lower()
    if text not in ("true", "1", "yes", "false", "0", "no"):
        raise UsageError("XNAT_VERIFY_SSL must be true or false")
    return None if text in ("true", "1", "yes") else False


def _sessions(chosen: NamedServer | None) -> Iterator[LoginEntry]:
    """The sessions in the environment. They belong to the server that is named there, else to the one that
    xnatctl talks to by default; only where there is neither, to the one that is chosen here.
    """
    given = [name for name in _SESSIONS if os.environ.get(name)]
    if not given:
        return
    default = login_files.xnatctl_profiles().default
    try:
        theirs = _named_in_environment("XNAT_")
    except UsageError:
        return
    url = theirs.url if theirs else default.server if default else chosen.url if chosen else None
    for name in given if url else []:
        assert url is not None
        if not re.fullmatch(r"[\w.!~-]+", os.environ[name].strip(), re.ASCII):
            login_files.warn(f"{name} is not the id of a session (JSESSIONID); ignoring it")
            continue
        yield LoginEntry(
            f"{ENVIRONMENT} {name}", urlsplit(url).netloc, url, None, None, session=os.environ[name].strip()
        )


def _kept() -> Iterator[LoginEntry]:
    try:
        found = token_store.kept()
    except UsageError as problem:
        login_files.warn(str(problem))
        return
    for one in found:
        host = urlsplit(one.server).netloc
        yield LoginEntry(STORED, host, one.server, one.user, None, one.verify, one.proxy, token=one)
