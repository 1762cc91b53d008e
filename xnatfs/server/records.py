"""The rows of XNAT's listings as typed records, under XNAT's own names.

Made by `listing_requests` and `resources`, used by everything above. Immutable: safe in any thread. Stamps
are seconds since the epoch: XNAT's stamps carry no time zone (server local time, xnat-rest.md 2.1) and are
read as UTC, so that they at least never change.
"""

from __future__ import annotations

import calendar
import re
import time
from dataclasses import dataclass, field
from typing import NamedTuple

_NUMBERS = re.compile(r"(\d+)")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})?")


def parse_stamp(text: str | None) -> float | None:
    """`2026-02-02 14:54:42.62` as seconds since the epoch, read as UTC; None for an empty or other text."""
    match = _STAMP.match(text or "")
    if not match:
        return None
    try:
        whole = calendar.timegm(time.strptime(f"{match[1]} {match[2]}", "%Y-%m-%d %H:%M:%S"))
    except ValueError:
        return None
    return whole + float(match[3] or 0)


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts `2` before `10` and `2-MR1` after `2`."""
    # Python refuses to read numbers of thousands of digits.
    return tuple(
        (0, int(part), "") if part.isdecimal() and len(part) < 1000 else (1, 0, part)
        for part in _NUMBERS.split(text)
        if part
    )


class Owner(NamedTuple):
    """What a resource belongs to.

    `level` is one of project, subject, experiment, scan, assessor, reconstruction; `id` the accession id of
    the project, subject or experiment (for scans and reconstructions: of their session; for assessors: of the
    assessor itself); `part` the scan or reconstruction id, or for an assessor the id of its session;
    `direction` is `in` or `out` for assessors and reconstructions.
    """

    level: str
    id: str
    part: str = ""
    direction: str = ""

    @property
    def uri(self) -> str:
        """Its address on the server, by ids only, not percent-encoded. Never through a project: who sees it
        in one need not see another.
        """
        way = f"/{self.direction}" if self.direction else ""
        if self.level == "scan":
            return f"/data/experiments/{self.id}/scans/{self.part}"
        if self.level == "reconstruction":
            return f"/data/experiments/{self.id}/reconstructions/{self.part}{way}"
        if self.level == "assessor" and self.part:
            return f"/data/experiments/{self.part}/assessors/{self.id}{way}"
        return (
            f"/data/{self.level + 's' if self.level in ('project', 'subject') else 'experiments'}/{self.id}"
        )


@dataclass(frozen=True)
class ProjectRecord:
    """A project the user may read.

    `resources` are those of the project itself as the list of projects tells them (number, label, count of
    files), which bears witness for the listing of its resources; None where the server does not tell.
    """

    id: str
    name: str = ""
    description: str = ""
    inserted: float | None = None
    resources: tuple[tuple[int, str, int | None], ...] | None = None


@dataclass(frozen=True)
class SubjectRecord:
    """A subject as one project shows it (a shared subject has that project's label).

    `changed` is the text of its `last_modified`, which moves with everything below it; `never` where that is
    blank, "" where the server does not tell it.
    """

    id: str
    label: str
    inserted: float | None
    changed: str


@dataclass(frozen=True)
class ExperimentRecord:
    """An experiment that is no image assessor, as one project shows it.

    `changed` is the text of a stamp that moves with everything below it (`listing.stamps`), "" where the
    server tells none. It is not the experiment's own `last_modified`, which moves with the experiment's own
    fields only (xnat-rest.md 13). `age` is the session's own, as the server has it; None where the listing
    does not tell. `shared_assessors` differs whenever other assessors of a session that is shared into the
    project are shared, too (`listing.shared_sessions`); None of one that is at home here.
    """

    id: str
    label: str
    subject_id: str
    subject_label: str
    xsi_type: str
    date: str
    inserted: float | None
    changed: str
    time: str = ""
    age: str | None = field(default=None, compare=False)  # an edit of it moves the stamp
    shared_assessors: str | None = None

    @property
    def version(self) -> str:
        """What moves with everything that the project shows below it; "" where the server tells no stamp."""
        return f"{self.changed} {self.shared_assessors or ''}".rstrip() if self.changed else ""

    def of_one_moment(self, other: ExperimentRecord) -> bool:
        """Whether two listings of an experiment show no change between them, as far as both tell."""
        told = self.shared_assessors, other.shared_assessors
        return self.changed == other.changed and (None in told or told[0] == told[1])

    @property
    def may_have_scans(self) -> bool:
        """False for what cannot be an image session. XNAT names those types `xnat:mrSessionData`,
        `xnat:petSessionData`, ...
        """
        return self.xsi_type.endswith("SessionData")


@dataclass(frozen=True)
class ScanRecord:
    """A scan of an image session. `start_time` is when it began, as the server has it; "" if it does not
    tell.
    """

    session_id: str
    id: str
    type: str
    series_description: str = ""
    quality: str = ""
    frames: str = ""
    start_time: str = field(default="", compare=False)  # not every form tells it


@dataclass(frozen=True)
class AssessorRecord:
    """An image assessor."""

    id: str
    label: str
    session_id: str
    xsi_type: str
    inserted: float | None


@dataclass(frozen=True)
class ReconstructionRecord:
    """A reconstruction of an image session."""

    session_id: str
    id: str
    type: str = ""


@dataclass(frozen=True)
class ResourceRecord:
    """A resource. `id` is None while only its label is known (the bulk listings); `file_count` None while not
    computed.
    """

    owner: Owner
    label: str
    id: int | None = None
    format: str = ""
    file_count: int | None = None
    file_size: int | None = None


class FileRecord(NamedTuple):
    """A file of a resource's catalog.

    `path` is relative to the resource, as the catalog has it; `size` in bytes, as the catalog has it;
    `digest` MD5 hex or "". `resource_id` is 0 for a guess in a resource of which only the label is known.
    """

    owner: Owner
    resource_id: int
    resource_label: str
    path: str
    size: int
    digest: str

    @property
    def base(self) -> str:
        """The address of the resource's `/files`, not percent-encoded: from what was asked, never the URI of
        a listing, which may lead through a project that this user cannot read (xnat-rest.md 13).
        """
        return f"{self.owner.uri}/resources/{self.resource_id or self.resource_label}/files"

    @property
    def uri(self) -> str:
        """The file's address on the server, not percent-encoded."""
        return f"{self.base}/{self.path}"
