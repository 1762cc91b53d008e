"""Reads logins from the files where other tools keep them: netrc, pyxnat and bx, xnatctl, yaxil.

Used by `credentials`, which decides their order and what fits. A file in its usual place that cannot be
understood is a warning, and one that was asked for an error; neither repeats what is in it.
Threading: any thread; no state.
"""

from __future__ import annotations

import functools
import json
import netrc
import re
import stat
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from xnatfs.auth.token_store import StoredToken
from xnatfs.config import normal_url
from xnatfs.errors import UsageError
from xnatfs.text import printable

XNATCTL, XNAT_AUTH = "~/.config/xnatctl/config.yaml", "~/.xnat_auth"
_XNATCTL_SERVICE = "xnatctl"  # its name in the keyring


@dataclass(frozen=True)
class LoginEntry:
    """The entry of one place; `server` may be missing (a netrc entry has only the host), and so may user and
    password.

    Attributes:
        host: host[:port] for matching.
        session: the id of a session that somebody else logged in for, in place of a password.
        keyring: service and name of the password in the system's keyring.
        name: by which the user knows it there.
        spare: it says nothing of which server is meant: another one in its file is the default.
    """

    source: str
    host: str
    server: str | None
    user: str | None
    password: str | None = field(repr=False)
    verify: bool | str | None = None
    proxy: str | None = field(default=None, repr=False)  # it may carry a password of its own
    token: StoredToken | None = None
    session: str = field(default="", repr=False)
    keyring: tuple[str, str] | None = None
    name: str = ""
    spare: bool = False


class Profiles(NamedTuple):
    """xnatctl's profiles, and which it uses if none is named."""

    entries: list[LoginEntry]
    default: LoginEntry | None


def netrc_entries(path: Path, source: str, *, required: bool) -> Iterator[LoginEntry]:
    """The machines of a netrc file, `default` not among them.

    Raises:
        UsageError: it is missing; or, if it is required, cannot be read.
    """
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
            yield LoginEntry(source, host, None, login, password)


def pyxnat_config(path: Path, source: str, *, required: bool) -> Iterator[LoginEntry]:
    """JSON {"server", "user", "password"[, "verify", "proxy"]}: pyxnat's `Interface.save_config`, bx's
    `--config`.

    Raises:
        UsageError: it is missing; or, if it is required, is something else.
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
            _ignored(f"{path} is not a configuration as pyxnat writes it")
            return
        raise UsageError(
            f"{path} is not a configuration as pyxnat writes it (JSON with server, user and password)"
        ) from None
    yield LoginEntry(
        source,
        urlsplit(server).netloc,
        server,
        data.get("user"),
        data.get("password"),
        data.get("verify"),
        data.get("proxy"),
    )


def xnat_pass(path: Path) -> Iterator[LoginEntry]:
    """Lines `[+]user@host=password`; `+` marks the one to use by default (pyxnat `core/xpass.py`)."""
    _warn_if_readable(path)
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    for line in sorted(lines, key=lambda text: not text.startswith("+")):
        if match := re.fullmatch(r"\+?([^@\s]+)@(.+?)=(.*)", line):
            server = normal_url(match[2])
            yield LoginEntry("~/.xnatPass", urlsplit(server).netloc, server, match[1], match[3])


# --- xnatctl ------------------------------------------------------------------------------------------------


def xnatctl_profiles(*, required: bool = False) -> Profiles:
    """`default_profile`, and `profiles` by name with url, username, password or `password_source: keyring`,
    verify_ssl, ca_bundle (xnatctl 0.6 `core/config.py`); the default one first.

    Raises:
        UsageError: it is required, and missing or something else.
    """
    path = Path.home() / ".config" / "xnatctl" / "config.yaml"
    try:
        data = _yaml(path)
        profiles = data.get("profiles") or {}
        if not isinstance(profiles, dict):
            raise UsageError(f"{path} has no profiles as xnatctl writes them")
    except FileNotFoundError:
        if required:
            raise UsageError(f"there is no file {path}") from None
        return Profiles([], None)
    except UsageError as problem:
        if required:
            raise
        _ignored(str(problem))
        return Profiles([], None)
    chosen = str(data.get("default_profile", "default"))
    known = {str(name): value for name, value in profiles.items()}
    entries = []
    for name, value in known.items():
        try:
            entries.append(_profile(name, value, spare=chosen in known and name != chosen))
        except UsageError as problem:
            _ignored(f"{path}: profile {name}: {problem}")
    if any(entry.password for entry in entries):
        _warn_if_readable(path)
    entries.sort(key=lambda entry: entry.name != chosen)
    return Profiles(entries, next((entry for entry in entries if entry.name == chosen), None))


def _yaml(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"{path} cannot be read: {reason}") from None
    import yaml  # here: most users have no such file

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        # Not the parser's own message: it quotes the offending line.
        mark = getattr(error, "problem_mark", None)
        reason = f"look at line {mark.line + 1}" if mark is not None else "it is no YAML"
        raise UsageError(f"{path} cannot be read: {reason}") from None
    if not isinstance(data, dict | None):
        raise UsageError(f"{path} is not a configuration as xnatctl writes it")
    return data or {}


def _profile(name: str, value: object, *, spare: bool) -> LoginEntry:
    if not isinstance(value, dict):
        raise UsageError("it is no section")
    texts = {key: value.get(key) for key in ("url", "username", "password", "ca_bundle")}
    for key, text in texts.items():
        if not isinstance(text, str | None):
            raise UsageError(f"{key} is no text; put it in quotes")
    if not texts["url"]:
        raise UsageError("it has no url")
    if not isinstance(value.get("verify_ssl", True), bool):
        raise UsageError("verify_ssl must be true or false")
    server = normal_url(texts["url"])
    in_keyring = value.get("password_source") == "keyring"
    return LoginEntry(
        XNATCTL,
        urlsplit(server).netloc,
        server,
        texts["username"],
        None if in_keyring else texts["password"],
        texts["ca_bundle"] or None if value.get("verify_ssl", True) else False,
        keyring=(_XNATCTL_SERVICE, f"{name}@{texts['url']}") if in_keyring else None,
        name=name,
        spare=spare,
    )


# --- yaxil --------------------------------------------------------------------------------------------------


def xnat_auth() -> Iterator[LoginEntry]:
    """`~/.xnat_auth` of yaxil and ArcGet: XML, an element with url, username and password for each alias."""
    path = Path.home() / ".xnat_auth"
    try:
        data = path.read_bytes()
    except OSError:
        return
    _warn_if_readable(path)
    try:
        if b"<!DOCTYPE" in data:  # no entity is expanded
            raise ElementTree.ParseError
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError) as error:
        line = getattr(error, "position", (0, 0))[0]
        _ignored(f"{path} cannot be read as XML" + (f": look at line {line}" if line else ""))
        return
    for alias in root:
        url, user, password = (alias.findtext(tag) for tag in ("url", "username", "password"))
        try:
            server = normal_url(url or "")
        except UsageError as problem:
            _ignored(f"{path}: {alias.tag}: {problem}")
            continue
        user = user.strip() if user else None
        yield LoginEntry(XNAT_AUTH, urlsplit(server).netloc, server, user, password or None, name=alias.tag)


def _ignored(problem: str) -> None:
    warn(f"{problem}; ignoring it")


@functools.cache
def warn(problem: str) -> None:
    """Say it on standard error, once: the same files are looked into several times."""
    print(f"xnatfs: warning: {printable(problem)}", file=sys.stderr)


def _warn_if_readable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"{path} contains a password and others can read it; run `chmod 600` on it")
