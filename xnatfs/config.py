"""Paths on this machine, and the settings and limits of one mount.

Used by the commands, which fill it, and by `core`, which reads it. Immutable values; no I/O except
environment look-ups and making private folders.
"""

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

LOW_LEVEL, HIGH_LEVEL = "low-level", "high-level"  # libfuse's interfaces

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
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if not match or match[2] not in _UNITS:
        raise UsageError(f"{text!r} is not a size; write it like 500M, 20G or 1.5T")
    return int(float(match[1]) * _UNITS[match[2]])


def normal_url(text: str) -> str:
    """A server URL in one spelling: scheme added (https), no trailing slash, no user, query or fragment. Of a
    page's address, as a browser shows it, what comes before the parts that are XNAT's own.

    Raises:
        UsageError: the text is not an http(s) URL, or it contains a password.
    """
    url = text.strip()
    if "://" not in url:
        url = "https://" + url
    if (
        "@" in url
    ):  # checked first, and anywhere (a password may contain a slash): the other messages repeat the text
        raise UsageError(
            "a user name or password does not belong in the server URL; see `xnatfs mount --help` for "
            "where it is read from"
        )
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise UsageError(f"{text!r} is not a server URL; write it like https://xnat.example.org") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        raise UsageError(f"{text!r} is not a server URL; write it like https://xnat.example.org")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{_PAGE.split(parts.path, maxsplit=1)[0].rstrip('/')}"


# XNAT's own paths (web.xml; xnat-rest.md 1): pages, both spellings of its interface, the newer one.
_PAGE = re.compile(r"/(?:app|data|REST|xapi|index\.jsp|setup)(?=[/;]|$)|;jsessionid=")


class Origin(NamedTuple):
    """The origin that a URL leads to."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin | None:
    """Scheme, host and port of an http(s) URL; None for any other text."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def shown_url(url: str) -> str:
    """A URL from elsewhere without its secrets: user and password, query, session id (`;jsessionid=`). At
    most 2000 characters.

    Raises:
        ValueError: it is not an http(s) URL.
    """
    there = origin(url)
    if there is None:
        raise ValueError("no http(s) URL")
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.partition(';')[0]}"[:2000]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that requests cross no network."""
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
    """The directory for data that outlives the cache: corrected sizes, the log, running mounts
    (`XNATFS_STATE_DIR`, else the platform's).
    """
    return Path(os.environ.get("XNATFS_STATE_DIR") or platformdirs.user_state_dir("xnatfs"))


def config_home() -> Path:
    """The directory of the user's config.toml, tables.toml, bids.toml and session lists (`XNATFS_CONFIG_DIR`,
    else the platform's).
    """
    return Path(os.environ.get("XNATFS_CONFIG_DIR") or platformdirs.user_config_dir("xnatfs"))


def make_folder(path: Path) -> None:
    """Make a folder, and any missing parents, that only this user can enter. An existing folder stays as it
    is.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        # Another process may be faster, or a link may be broken.
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode=0o700)


def private_folder(path: Path) -> Path:
    """Make a folder, and any missing parents, that only this user can enter, for data about patients.

    An existing folder of this user is closed to others if it was open; one of another user, or a link made by
    another user, is refused.

    Raises:
        UsageError: it belongs to another user, or is not a folder.
        OSError: it cannot be created.
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
    connections: int = 9  # to the server in all: eight for contents and one reserved for listings
    requests_per_second: float = 500.0  # over a few seconds; a listing or a download each
    # Of all mounts of a user that share a tier, which have the requests above together, too: half of the
    # threads that a Tomcat has for everybody.
    user_connections: int = 100
    ttl: float = 20.0  # the daemon checks a project for changes at most this often ...
    kernel_ttl: float = (
        40.0  # ... and the kernel asks the daemon again after this long: together 60 s (docs/semantics)
    )
    progress_deadline: float = 30.0  # without any progress
    listing_deadline: float = 120.0
    table_deadline: float = 900.0  # for building a table
    connect_timeout: float = 10.0
    relist_after: float = (
        4 * 3600.0
    )  # listings are requested again even if no stamp moved: some changes move none (xnat-rest.md 13)
    file_records: int = 2_000_000  # file listings kept in memory
    revalidate_after: float = 4 * 3600.0  # contents without a digest in the catalog
    whole_file_check: int = 8 * 2**20  # files up to this size are verified before their first byte is served
    ahead: int = 2 * 10**9  # the next resource of a walk is prefetched up to this size
    min_free: int = 500 * 10**6  # left free on the cache's disk


@dataclass(frozen=True)
class Privacy:
    """What is shown of people, beyond the labels of subjects and sessions; nothing else of it is kept either.

    Attributes:
        demographics: sex, age, handedness and all else that the server knows of a subject.
        birth_dates: one of `BIRTH_DATES`: as the server has them, the year, or nothing.
    """

    demographics: bool = True
    birth_dates: str = "year"

    @property
    def suffix(self) -> str:
        """For the names of folders; "" for the default."""
        if not self.demographics:
            return "-nobody"
        return "" if self.birth_dates == "year" else f"-{self.birth_dates}"


BIRTH_DATES = ("year", "full", "none")
PREFERRED = ("server", "dicom")  # NIfTI as the server has it; made of DICOM


@dataclass(frozen=True)
class Settings:
    """Everything one mount needs, apart from the credentials."""

    server: str
    cache_dir: Path = field(default_factory=cache_home)
    state_dir: Path = field(default_factory=state_home)
    projects: tuple[str, ...] = ()  # show only these; () shows all the user may read
    serve_bad_digests: bool = False
    verify: bool | str | None = None  # TLS: None leaves it to requests and its environment variables
    proxy: str | None = None
    lists: tuple[
        Path, ...
    ] = ()  # session lists named at mount time, in addition to those in the configuration
    bids_map: Path | None = None  # rules for the BIDS views, over the user's and the projects' own
    project_bids_maps: tuple[tuple[str, Path], ...] = ()  # the same for single projects, in its place
    prefer: str = "server"  # one of `PREFERRED`, for scans that have both
    project_prefer: tuple[tuple[str, str], ...] = ()  # the same for single projects, in its place
    strip: tuple[str, ...] = ()  # keys left out of converted sidecars, see `convert.pack.stripped`
    allow_http: bool = False  # the password may cross a network in clear text
    offline: bool = False  # send no request: show and serve cached data only
    shared_cache: str = ""  # a folder or URL that other machines use as well: what one has fetched, all have
    inode32: bool = False  # fold inode numbers into 32 bits, for programs that know no others
    lower: bool = False  # the mount is the lower layer of an overlay
    fuse: str = HIGH_LEVEL  # libfuse's interface
    shown_as: str = ""  # the source in the kernel's list of mounts, in place of xnat:HOST
    privacy: Privacy = Privacy()
    limits: Limits = Limits()

    @property
    def host(self) -> str:
        """The host name, with the port if it is not the scheme's: for messages and file names."""
        return urlsplit(self.server).netloc

    @property
    def source(self) -> str:
        """The source of the mount in the kernel's list."""
        return self.shown_as or f"xnat:{self.host}"

    def prefers_dicom(self, project: str) -> bool:
        """Whether images are made of a scan's DICOM files although the server has NIfTI of it."""
        return dict(self.project_prefer).get(project, self.prefer) == "dicom"

    def scope(self, user: str) -> str:
        """A directory name for the data of one server and one user."""
        digest = hashlib.sha256(f"{self.server}\n{user}".encode()).hexdigest()[:16]
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', self.host)}-{digest}"
