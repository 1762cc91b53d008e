"""Which server the address `HOST/PATH` of an `xnat://` URL means, and where in its tree.

Used by `shared_cores`. Reads files and the environment; no network.
Threading: any thread; no state.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from xnatfs import servers
from xnatfs.auth.credentials import places
from xnatfs.errors import UsageError

# What the top of a tree may list, and `.xnatfs`: where the path of a server ends whose URL has one.
_TOP = frozenset({"README.txt", "projects", "archive", "tables", "views", "lists", ".xnatfs"})


class Address(NamedTuple):
    """A place in the tree of a server: the server's URL or name, None for the one that is meant where nobody
    names one; the user, if named; the path from the top of the tree, with a leading `/`.
    """

    server: str | None
    user: str | None
    path: str


class KnownServers(NamedTuple):
    """The servers that this machine knows of: names in `config.toml`, and the URLs of all."""

    names: frozenset[str]
    urls: list[str]


def known_servers() -> KnownServers:
    """What `config.toml` and the places of logins say now.

    Raises:
        UsageError: `config.toml` is refused.
    """
    listed = servers.load().servers
    found = [server for _, server, _ in places() if "://" in server]
    urls = dict.fromkeys([*(one.url for one in listed.values()), *found])
    return KnownServers(frozenset(listed), list(urls))


def address(text: str, known: KnownServers) -> Address:
    """What `[USER@]HOST[:PORT]/PATH` means: HOST is a name of config.toml, the host of a server that is
    known, or that of one at https://HOST. Without HOST it is the server that commands take by themselves.

    Raises:
        UsageError: there is a password in it, or the host is missing.
    """
    host, _, path = text.partition("/")
    user, at, host = host.rpartition("@")
    if ":" in user or (not at and "@" in path.partition("/")[0] and ":" in host):
        raise UsageError(
            "a password does not belong in a URL: run `xnatfs login`, or set XNAT_USER and XNAT_PASS"
        )
    path = f"/{path}".rstrip("/") or "/"
    if not host:
        return Address(None, user or None, path)
    if host in _TOP:
        raise UsageError(
            f"xnat://{host}/... names no server; write xnat://HOST/{host}/..., or xnat:///{host}/..."
        )
    if host in known.names:
        return Address(host, user or None, path)
    here = [url for url in known.urls if _netloc(url) == host.lower()]
    within = [url for url in here if f"{path}/".startswith(f"{urlsplit(url).path}/")]
    if within:
        url = max(within, key=len)
        return Address(url, user or None, path[len(urlsplit(url).path) :] or "/")
    if here:
        return Address(here[0], user or None, path)
    parts = path.split("/")[1:]
    begin = next((number for number, part in enumerate(parts) if part in _TOP), 0)
    server = "/".join([host, *parts[:begin]])
    return Address(server, user or None, "/" + "/".join(parts[begin:]))


def _netloc(url: str) -> str:
    return urlsplit(url).netloc.lower()
