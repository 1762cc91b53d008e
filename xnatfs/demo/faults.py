"""Everything that can be made to go wrong or slow, as switches; and the pacing of a shared line.

Used by `app` (which applies them), `control` (which sets them over HTTP) and tests (which set them on the
object).
Threading: plain attributes; a test thread may set one at any time, the event loop reads them. The line
belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PROFILES = ("full", "1.8.8", "proven")
# What `failing_table` may name: the tables that were broken one by one while replies were recorded.
TABLES = (
    "",
    "img_assessor_out_resource",
    "xnat_imagescandata",
    "xnat_subjectdata_resource",
    "xnat_projectdata_meta_data",
)


@dataclass
class Switches:
    """The behaviour of one stand-in. Failures apply to /data, /REST and /xapi paths, and only where `match`
    finds the request target.

    `fired` counts by name how often each failure really struck (GET /demo/fired): so one that was met can be
    told from one that was not.
    """

    # What server this is.
    # "1.8.8": as servers up to that one; "proven": refuses every form that no real server is known to take
    profile: str = "full"
    require_login: bool = True
    firewall: bool = True  # Spring's StrictHttpFirewall
    max_failed_logins: int = 20
    lockout_s: float = 3600.0
    max_sessions: int = 1000
    session_timeout_s: float = 900.0
    token_lifetime_s: float = 172_800.0
    idle_seconds: float = 20.0  # Tomcat's idle close
    hang_seconds: float = 20.0  # how long a connection stays open that owes bytes
    requests_per_connection: int = 100
    chunked_files: bool = False  # files without Content-Length
    no_range: bool = False

    # Slow.
    latency_ms: float = 0.0
    listing_delay_ms: float = 0.0
    bandwidth: float = 0.0  # bytes per second in total; 0: unlimited
    connection_bandwidth: float = 0.0  # ... on each connection; both may be set
    catalog_entry_cost_us: float = 0.0  # per entry of the catalog, on each single-file GET

    # Failing. `*_next` counts down per matching request; -1 means always.
    match: str = ""
    fail_rate: float = 0.0
    fail_next: int = 0
    fail_status: int = 503
    retry_after: str = ""  # value of Retry-After on injected failures
    fail_kinds: list[str] = field(
        default_factory=list
    )  # what `fail_rate` injects, one of these: a status, "reset"; none: fail_status
    cut_rate: float = 0.0  # of files and bulk downloads: the connection is reset at a random byte
    stall_rate: float = 0.0  # ... silence from a random byte on
    expire_rate: float = 0.0  # of requests: the session they come in has just ended
    html_instead: int = 0
    redirect_next: int = 0  # 302 to the login page, as for an expired password (xnat-rest.md 1)
    silent_next: int = 0  # accepted, and never answered
    # answered as if nobody were logged in and no credentials had come: a gateway lost the session and strips
    # Basic
    guest_next: int = 0
    refuse_connections: bool = False  # every matching request: the connection is reset without an answer
    expire_after_requests: int = 0
    cut_after_bytes: int = -1  # reset the connection after this many bytes of the body ...
    cut_next: int = -1  # ... of this many of the next file replies
    truncate_after_bytes: int = -1  # end the body early, cleanly where chunked
    truncate_next: int = -1
    stall_after_bytes: int = -1  # then silence
    stall_next: int = -1
    surplus_bytes: int = 0  # this many bytes follow the body ...
    surplus_next: int = -1
    length_error: int = (
        0  # added to the Content-Length; the body stays what it is (listings get a length for it) ...
    )
    length_error_next: int = -1
    damage_next: int = 0  # file and bulk replies in which one byte is changed on the way
    garble_listings: str = ""  # "json": listings that do not parse; "utf8": with a byte that is no UTF-8 ...
    garble_next: int = -1
    zip_omit: list[str] = field(
        default_factory=list
    )  # shell patterns of paths in a resource that bulk downloads skip
    zip_stop_after: int = -1  # entries; the archive then ends early but validly (xnat-rest.md 9 [X])
    stale_size: str = (
        ""  # regular expression on the path: these rows carry a size that is too small by up to 1000 bytes
    )
    wrong_digest: str = ""  # regular expression on the path: these rows carry the digest of something else
    empty_file_lists: bool = False  # xnat-rest.md 15.25: empty listings although resources report counts

    # The database fails, in the ways recorded on XNAT's own code (xnat-rest.md 13 [X]; module `database`).
    database_down: bool = False  # PostgreSQL is stopped: 404 and 500, while /data/auth answers 200
    pool_exhausted: bool = False  # the same pattern, after a wait ...
    pool_wait_s: float = 1.0  # ... for a connection (30 s on a stock server)
    failing_table: str = ""  # one table cannot be read: its name, one of database.TABLES
    failing_query: str = ""  # regular expression on "METHOD target": one query of these requests fails inside

    def __post_init__(self) -> None:
        self.fired: Counter[str] = Counter()

    def update(self, values: dict[str, Any]) -> None:
        """Set several; an unknown name or a value of the wrong type is a ValueError and changes nothing."""
        known = {item.name for item in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"no switch named {name!r}")
            current = getattr(self, name)
            numeric = isinstance(current, (int, float)) and not isinstance(current, bool)
            right = (
                isinstance(value, (int, float)) and not isinstance(value, bool)
                if numeric
                else isinstance(value, type(current))
            )
            if not right:
                raise ValueError(f"{name} takes a {type(current).__name__}")
            if name == "profile" and value not in PROFILES:
                raise ValueError(f"profile is one of {', '.join(PROFILES)}")
            if name == "garble_listings" and value not in ("", "json", "utf8"):
                raise ValueError("garble_listings is json or utf8")
            if name == "failing_table" and value not in TABLES:
                raise ValueError(f"failing_table is one of {', '.join(filter(None, TABLES))}")
        for name, value in values.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """All of them, for JSON."""
        return asdict(self)

    @property
    def proven_only(self) -> bool:
        return self.profile == "proven"

    @property
    def old(self) -> bool:
        """A server up to 1.8.8: lists of a project ignore ID= and label=, equal rows do not collapse
        (xnat-rest.md 12 [X]).
        """
        return self.profile == "1.8.8"

    def matches(self, target: str) -> bool:
        """Whether failures apply to this request target."""
        return not self.match or re.search(self.match, target) is not None

    def take(self, name: str) -> bool:
        """Use up one of a countdown; False when it is spent."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left != 0

    def fails_now(self) -> str:
        """What a matching request gets instead of its answer: a status, "reset", or "" for the answer."""
        if self.fail_next and self.take("fail_next"):
            self.fired["fail"] += 1
            return str(self.fail_status)
        if not happens(self.fail_rate):
            return ""
        self.fired["fail"] += 1
        return random.choice(self.fail_kinds) if self.fail_kinds else str(self.fail_status)

    def breaks_at(self, length: int) -> tuple[int, str]:
        """At which byte of a file or bulk download of about `length` bytes which random fault strikes; -1 for
        none.
        """
        fault = "cut" if happens(self.cut_rate) else "stall" if happens(self.stall_rate) else ""
        return (random.randrange(max(1, length)), fault) if fault else (-1, "")

    def strikes(self, name: str) -> bool:
        """Whether a failure with the countdown `<name>_next` strikes now; if so it is used up by one and
        counted.
        """
        if not getattr(self, f"{name}_next") or not self.take(f"{name}_next"):
            return False
        self.fired[name] += 1
        return True


def happens(rate: float) -> bool:
    """A throw of the dice."""
    return rate > 0 and random.random() < rate


class Line:
    """A line of limited rate: who sends n bytes books the next n/rate seconds of it. One is shared by all
    connections, and each connection has its own.
    """

    _BURST_S = 0.01
    PIECE = 32768

    def __init__(self) -> None:
        self._free_at = 0.0

    def book(self, count: int, rate: float, now: float) -> float:
        """When `count` bytes will have passed at `rate` bytes per second (time.monotonic()); a rate of 0
        holds nothing up.
        """
        if rate <= 0:
            return now
        self._free_at = max(now - self._BURST_S, self._free_at) + count / rate
        return self._free_at


async def pass_lines(count: int, *lines: tuple[Line, float]) -> None:
    """Wait until `count` bytes have passed all these lines, each at its rate in bytes per second."""
    now = time.monotonic()
    wait = max(line.book(count, rate, now) for line, rate in lines) - now
    if wait > 0.0005:
        await asyncio.sleep(wait)
