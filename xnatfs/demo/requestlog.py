"""The record of every request, for tests and benchmarks.

Written by `app`, read by `control` and by tests through `DemoServer.log`.
Appended on the event loop; a deque may be copied from any thread.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

_MAX_ENTRIES = 200_000


@dataclass
class Record:
    """One request, noted when it arrives and filled in as it is answered; `status` is 0 until then."""

    time: float
    method: str
    path: str  # raw
    query: str
    user: str
    range: str
    user_agent: str
    connection: int  # the client's port
    status: int = 0
    sent: int = 0  # body bytes handed to the connection
    duration: float = 0.0
    login: str = ""  # the user name of its Basic credentials, right or wrong
    fault: str = ""  # what was injected: a status, "reset", "cut", "stall", "expired", "html"

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class RequestLog(deque[Record]):
    """The newest 200,000 records."""

    def __init__(self) -> None:
        super().__init__(maxlen=_MAX_ENTRIES)

    def matching(self, pattern: str | None = None) -> list[Record]:
        """The records whose "METHOD target" the pattern is found in; control requests are not recorded."""
        records = list(self)
        if pattern is None:
            return records
        wanted = re.compile(pattern)
        return [record for record in records if wanted.search(f"{record.method} {record.target}")]
