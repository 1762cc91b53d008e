"""Where things are on this machine, and the limits of one mount.

Used by the commands, which fill it, and by the composition of a mount, which reads it. Immutable; no I/O but
environment look-ups."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import platformdirs

from xnatfs.errors import UsageError

_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


def parse_size(text: str) -> int:
    """Bytes from a text such as `20G`, `500M`, `1.5T`, `4GiB` (decimal units unless written with an `i`).

    Raises:
        UsageError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if not match or match[2] not in _UNITS:
        raise UsageError(f"{text!r} is not a size; write it like 500M, 20G or 1.5T")
    return int(float(match[1]) * _UNITS[match[2]])


def normal_url(text: str) -> str:
    """A server URL in one spelling: scheme added (https), no trailing slash, no user, query or fragment.

    Raises:
        UsageError: the text is no http(s) URL, or it carries a password.
    """
    url = text.strip()
    if "://" not in url:
        url = "https://" + url
    if (
        "@" in url
    ):  # looked for first, and anywhere (a password may hold a slash): the other messages repeat the text
        raise UsageError(
            "a user name or password does not belong in the server URL; see `xnatfs mount --help` for "
            "where it is read from"
        )
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise UsageError(f"{text!r} is not a server URL; write it like https://xnat.example.org") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{text!r} is not a server URL; write it like https://xnat.example.org")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


class Origin(NamedTuple):
    """Whom a URL leads to."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin | None:
    """Scheme, host and port of an http(s) URL; None if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def shown_url(url: str) -> str:
    """A URL from elsewhere without what must not be shown or sent on: user and password, query, a session's
    id (`;jsessionid=`).

    Raises:
        ValueError: it is no http(s) URL.
    """
    there = origin(url)
    if there is None:
        raise ValueError("no http(s) URL")
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.partition(';')[0]}"[:2000]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that nothing crosses a network."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cache_home() -> Path:
    """The default cache directory (`XNATFS_CACHE_DIR`, else the platform's)."""
    return Path(os.environ.get("XNATFS_CACHE_DIR") or platformdirs.user_cache_dir("xnatfs"))


def state_home() -> Path:
    """What has to outlive the cache: learnt sizes, the log, running mounts (`XNATFS_STATE_DIR`, else the
    platform's).
    """
    return Path(os.environ.get("XNATFS_STATE_DIR") or platformdirs.user_state_dir("xnatfs"))


def config_home() -> Path:
    """Where a user's own tables.toml, bids.toml and session lists lie (`XNATFS_CONFIG_DIR`, else the
    platform's).
    """
    return Path(os.environ.get("XNATFS_CONFIG_DIR") or platformdirs.user_config_dir("xnatfs"))


def make_folder(path: Path) -> None:
    """Make a folder, with any missing above it, that only this user can enter. One that is there stays as it
    is.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        # Another process may be first, or a link lead nowhere.
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode=0o700)


def private_folder(path: Path) -> Path:
    """Make a folder, with any missing above it, that only this user can enter: what is in it speaks of
    patients.

    One that is there and this user's is closed to others if it was open; one that is not, or a link somebody
    else laid, is refused.

    Raises:
        UsageError: it is somebody else's, or no folder.
        OSError: it cannot be made.
    """
    make_folder(path)
    try:
        named, status = path.lstat(), path.stat()
    except FileNotFoundError:
        raise UsageError(f"{path} is a broken symbolic link; remove it") from None
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path} is not a folder")
    if status.st_uid != os.geteuid() or named.st_uid not in (0, os.geteuid()):
        raise UsageError(
            f"{path} belongs to another user, who could read what is stored there; remove it, or name a "
            f"folder of your own"
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


@dataclass(frozen=True)
class Limits:
    """The numbers of one mount. Times in seconds, sizes in bytes."""

    cache_size: int = 20 * 10**9
    connections: int = 9  # to the server in all: eight for contents and one kept for listings
    ttl: float = 20.0  # the daemon looks for changes of a project at most this often ...
    kernel_ttl: float = (
        40.0  # ... and the kernel asks the daemon again after this long: together 60 s (docs/semantics)
    )
    negative_ttl: float = 5.0
    progress_deadline: float = 30.0  # without any progress
    listing_deadline: float = 120.0
    table_deadline: float = 900.0  # for building a table
    connect_timeout: float = 10.0
    relist_after: float = (
        4 * 3600.0
    )  # listings are asked for again although no stamp moved: some changes move none (xnat-rest.md 13)
    file_records: int = 2_000_000  # file listings held in memory
    revalidate_after: float = 4 * 3600.0  # contents the catalog has no digest of
    whole_file_check: int = 8 * 2**20  # files up to this size are checked before their first byte is served
    ahead: int = 2 * 10**9  # the next resource of a walk is fetched ahead up to this size
    min_free: int = 500 * 10**6  # of the cache's disk are left free


@dataclass(frozen=True)
class Settings:
    """Everything one mount needs to know, apart from the secret."""

    server: str
    cache_dir: Path = field(default_factory=cache_home)
    state_dir: Path = field(default_factory=state_home)
    projects: tuple[str, ...] = ()  # show only these; () shows all the user may read
    serve_bad_digests: bool = False
    verify: bool | str | None = None  # TLS: None leaves it to requests and its environment variables
    proxy: str | None = None
    lists: tuple[Path, ...] = ()  # session lists named at mount time, beside those in the configuration
    bids_map: Path | None = None  # rules for the BIDS views, over the user's and the projects' own
    allow_http: bool = False  # the password may cross a network readable
    offline: bool = False  # ask the server nothing: show and serve what is kept on this machine
    lower: bool = False  # an overlay will lie upon the mount
    limits: Limits = Limits()

    @property
    def host(self) -> str:
        """The host name, with the port if it is not the scheme's: for `fsname` and messages."""
        return urlsplit(self.server).netloc

    def scope(self, user: str) -> str:
        """A directory name for what belongs to one server and one user."""
        digest = hashlib.sha256(f"{self.server}\n{user}".encode()).hexdigest()[:16]
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', self.host)}-{digest}"
