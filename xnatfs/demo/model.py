"""The data of the stand-in: projects, subjects, experiments, scans, resources, catalog entries.

Used by the data sets (which build it) and by the HTTP application (which serves it). Names are XNAT's own.
Plain objects with no HTTP and no I/O of their own; file contents are `Content` objects, so that a 1 GiB file
costs no memory.

Threading: built by one thread, then read by the server's event loop; mutations (tests change data on a
running server) happen on that loop only, through the control routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, overload

from .content import BytesContent, ComputedContent, Content, PathContent, crc_of, md5_of, pieces

__all__ = [
    "Archive",
    "BytesContent",
    "CatalogEntry",
    "ComputedContent",
    "Configuration",
    "Content",
    "Experiment",
    "LazyEntries",
    "PathContent",
    "Project",
    "Reconstruction",
    "Resource",
    "Scan",
    "Subject",
    "User",
    "crc_of",
    "md5_of",
    "pieces",
]

IMAGE_SESSION_TYPES = frozenset({"xnat:mrSessionData", "xnat:petSessionData", "xnat:ctSessionData"})


@dataclass(slots=True)
class CatalogEntry:
    """One file in a resource's catalog.

    `path` is relative to the resource, `/`-separated, exactly as the catalog has it (it may be hostile).
    `digest` is what the *catalog* says: MD5 hex, "" for none, None for "the true one, computed when first
    asked for". `catalog_size` is what the catalog says when that is wrong; None means the true size.
    `content` None means: listed, but the file is gone from the disk (404).
    """

    path: str
    content: Content | None
    modified: datetime
    digest: str | None = None
    catalog_size: int | None = None
    tags: str = ""
    format: str = ""
    content_code: str = ""  # what the catalog says of its content: RAW, ...

    # What was computed, and of which content: replacing `content` makes both stale.
    _digest_of: tuple[Content, str] | None = field(default=None, repr=False, compare=False)
    _crc_of: tuple[Content, int] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def listed_size(self) -> int:
        if self.catalog_size is not None:
            return self.catalog_size
        return self.content.size if self.content is not None else 0

    @property
    def true_digest(self) -> str:
        """MD5 of the real bytes; "" where there are none."""
        if self.content is None:
            return ""
        if self._digest_of is None or self._digest_of[0] is not self.content:
            self._digest_of = (self.content, md5_of(self.content))
        return self._digest_of[1]

    @property
    def true_crc(self) -> int:
        """CRC-32 of the real bytes, as a zip has it; 0 where there are none."""
        if self.content is None:
            return 0
        if self._crc_of is None or self._crc_of[0] is not self.content:
            self._crc_of = (self.content, crc_of(self.content))
        return self._crc_of[1]

    @property
    def digest_ready(self) -> bool:
        """True when `true_digest` needs no bytes to be read any more."""
        return self.content is None or (self._digest_of is not None and self._digest_of[0] is self.content)

    @property
    def listed_digest(self) -> str:
        return self.true_digest if self.digest is None else self.digest


class LazyEntries(MutableSequence[CatalogEntry]):
    """A catalog that is made when it is first looked at: with it an archive of a million files is built in
    seconds.

    Its length and total size are known beforehand, so that resource listings need not make it. With
    `keep=False` it is made again at every look, so that thousands of them cost no memory; it is kept from the
    first change on.
    """

    __slots__ = ("_count", "_keep", "_made", "_make", "_size")

    def __init__(
        self, make: Callable[[], list[CatalogEntry]], count: int, size: int, keep: bool = True
    ) -> None:
        self._make = make
        self._count = count
        self._size = size
        self._keep = keep
        self._made: list[CatalogEntry] | None = None

    @property
    def listed_size(self) -> int:
        """Sum of the listed sizes."""
        return self._size if self._made is None else sum(entry.listed_size for entry in self._made)

    def _all(self, change: bool = False) -> list[CatalogEntry]:
        if self._made is not None:
            return self._made
        entries = self._make()
        if self._keep or change:
            self._made = entries
        return entries

    def __len__(self) -> int:
        return self._count if self._made is None else len(self._made)

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> CatalogEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[CatalogEntry]: ...
    def __getitem__(self, index: int | slice) -> CatalogEntry | list[CatalogEntry]:
        return self._all()[index]

    @overload
    def __setitem__(self, index: int, value: CatalogEntry) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[CatalogEntry]) -> None: ...
    def __setitem__(self, index: int | slice, value: CatalogEntry | Iterable[CatalogEntry]) -> None:
        # a slice with a list, or a number with one entry
        self._all(change=True)[index] = value  # type: ignore[index, assignment]

    def __delitem__(self, index: int | slice) -> None:
        del self._all(change=True)[index]

    def insert(self, index: int, value: CatalogEntry) -> None:
        self._all(change=True).insert(index, value)


@dataclass
class Resource:
    """A resource (xnat:resourceCatalog): a label, a numeric id unique on the server, and its catalog."""

    id: int
    label: str
    entries: MutableSequence[CatalogEntry] = field(default_factory=list)
    format: str = ""
    content: str = ""
    tags: str = ""
    stats_known: bool = True  # False: file_count and file_size are "" (never computed)
    last_modified: datetime | None = None  # None: made and never written to since
    counted: tuple[int, int] | None = (
        None  # what the database says where that is not what the catalog has (after a refresh)
    )
    broken: bool = False  # its catalog cannot be read
    loose: dict[str, Content] = field(
        default_factory=dict
    )  # files in its directory that no catalog entry names
    folder: str = ""  # its directory on the server's disk, where that is not the label

    @property
    def stats(self) -> tuple[int, int]:
        """Number and total size of what the catalog has."""
        entries = self.entries
        size = (
            entries.listed_size
            if isinstance(entries, LazyEntries)
            else sum(entry.listed_size for entry in entries)
        )
        return len(entries), size

    @property
    def file_count(self) -> str:
        if not self.stats_known:
            return ""
        return str(len(self.entries) if self.counted is None else self.counted[0])

    @property
    def file_size(self) -> str:
        if not self.stats_known:
            return ""
        return str(self.stats[1] if self.counted is None else self.counted[1])


@dataclass
class Scan:
    """An xnat:imageScanData: `id` is free text, unique in its session; `number` is the server-wide integer.

    `last_modified` is the stamp of its own row (None until type, quality or the like is edited),
    `type_modified` that of its concrete type's (xnat:mrScanData), which moves with its resources too.
    """

    id: str
    type: str
    number: int
    xsi_type: str = "xnat:mrScanData"
    quality: str = "usable"
    series_description: str = ""
    note: str = ""
    frames: str = ""
    uid: str = ""
    start_time: str = ""
    resources: list[Resource] = field(default_factory=list)
    last_modified: datetime | None = None
    type_modified: datetime | None = None


@dataclass
class Reconstruction:
    """An xnat:reconstructedImageData with `in` and `out` resources."""

    id: str
    type: str
    number: int
    base_scan_type: str = ""
    in_resources: list[Resource] = field(default_factory=list)
    out_resources: list[Resource] = field(default_factory=list)


@dataclass
class Experiment:
    """Any experiment with an accession id: image sessions, non-imaging experiments and (with `session_id`)
    image assessors.

    `shares` maps the id of a project it is shared into to its label there (None: the own label).
    `last_modified` is the stamp of its own row: None until a field of it is edited, and blind to all that is
    below it. `type_modified` is the stamp of its most derived type (`xnat:mrSessionData/meta/last_modified`),
    there from the beginning, which moves with all (xnat-rest.md 13 [X]).
    """

    id: str
    label: str
    project: str
    subject_id: str
    xsi_type: str
    insert_date: datetime
    last_modified: datetime | None = None
    date: str = ""
    time: str = ""
    note: str = ""
    insert_user: str = "admin"
    session_id: str = ""  # image assessors only
    shares: dict[str, str | None] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)
    in_resources: list[Resource] = field(default_factory=list)  # image assessors
    out_resources: list[Resource] = field(default_factory=list)  # image assessors
    scans: list[Scan] = field(default_factory=list)
    reconstructions: list[Reconstruction] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)  # further xpaths of the item, e.g. "scanner/model"
    type_modified: datetime | None = None
    custom: dict[str, str] = field(default_factory=dict)  # custom variables
    custom_fields: dict[str, Any] = field(default_factory=dict)  # those of 1.8's forms, as JSON has them
    status: str = "active"  # or quarantine, locked, obsolete

    def __post_init__(self) -> None:
        if self.type_modified is None:
            self.type_modified = self.last_modified or self.insert_date

    @property
    def is_assessor(self) -> bool:
        return bool(self.session_id)

    @property
    def is_image_session(self) -> bool:
        return self.xsi_type in IMAGE_SESSION_TYPES


@dataclass
class Subject:
    """A subject; `shares` as for experiments."""

    id: str
    label: str
    project: str
    insert_date: datetime
    last_modified: datetime | None
    group: str = ""
    gender: str = ""
    yob: str = ""
    insert_user: str = "admin"
    shares: dict[str, str | None] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)
    fields: dict[str, str] = field(
        default_factory=dict
    )  # further demographics, by alias: dob, age, handedness, src, ...
    custom: dict[str, str] = field(default_factory=dict)  # custom variables
    custom_fields: dict[str, Any] = field(default_factory=dict)  # those of 1.8's forms, as JSON has them


@dataclass
class Configuration:
    """A text of the configuration service; `status` is enabled or disabled."""

    tool: str
    path: str
    contents: str
    created: datetime = datetime(2024, 1, 8, 9, 15)
    status: str = "enabled"


@dataclass
class Project:
    """A project. `access` is private, protected or public.

    Of those that may read it (beside admins) `members` may edit and activate, `owners` delete too,
    `collaborators` only read.
    """

    id: str
    name: str
    insert_date: datetime
    last_modified: datetime | None
    secondary_id: str = ""
    description: str = ""
    pi_firstname: str = ""
    pi_lastname: str = ""
    access: str = "private"
    members: set[str] = field(default_factory=set)
    resources: list[Resource] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)
    collaborators: set[str] = field(default_factory=set)
    configurations: list[Configuration] = field(default_factory=list)


@dataclass
class User:
    """A login. Passwords of the stand-in are not secrets."""

    login: str
    password: str
    admin: bool = False
    number: int = 0  # its id on the server; 0: by the order in the archive


@dataclass
class Archive:
    """Everything one stand-in serves."""

    site: str = "DEMO"
    users: dict[str, User] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)
    experiments: dict[str, Experiment] = field(default_factory=dict)  # assessors too
    configurations: list[Configuration] = field(
        default_factory=lambda: [Configuration("scan-quality", "labels", "usable\nquestionable\nunusable\n")]
    )  # the site's
    clock: datetime = datetime(
        2024, 3, 5, 6, 7, 8, 123000
    )  # the server's local time, kept naive as XNAT's stamps are

    _next_number: int = 1000
    _last_ids: dict[str, int] = field(default_factory=dict)

    def next_number(self) -> int:
        """A fresh number for a resource, scan or reconstruction."""
        self._next_number += 1
        return self._next_number

    def start_numbers(self, resources: int, others: int) -> None:
        """Where a data set with numbers of its own ends: what is made later counts on from there."""
        self._next_number = max(resources, others) - 1

    def new_id(self, kind: str) -> str:
        """The next id of an experiment (`E`) or subject (`S`); one that was given is never given again."""
        begin = f"{self.site}_{kind}"
        given = [
            int(name[len(begin) :])
            for name in (*self.experiments, *self.subjects)
            if name.startswith(begin) and name[len(begin) :].isdigit()
        ]
        self._last_ids[kind] = max([self._last_ids.get(kind, 0), *given]) + 1
        return f"{begin}{self._last_ids[kind]:05d}"

    def user_number(self, user: User) -> int:
        """The id of a user: administrator 1, guest 2, then in the order they were made."""
        if user.number:
            return user.number
        order = [login for login in self.users if login != "admin"]
        return 1 if user.login == "admin" else order.index(user.login) + 3 if user.login in order else 2

    def tick(self) -> datetime:
        """A fresh stamp, later than every earlier one (stands for SQL NOW())."""
        self.clock += timedelta(seconds=1, microseconds=137)
        return self.clock

    def touch(self, experiment: Experiment | None = None, subject: Subject | None = None) -> None:
        """Something below these changed: the stamp of the experiment's concrete type (an assessor's session's
        too) and the subject's move.

        Not the experiment's own stamp and not the project's (xnat-rest.md 13 [X]).
        """
        stamp = self.tick()
        if experiment is not None:
            experiment.type_modified = stamp
            session = self.experiments.get(experiment.session_id)
            if session is not None:
                session.type_modified = stamp
            subject = subject or self.subjects.get(
                experiment.subject_id or (session.subject_id if session is not None else "")
            )
        if subject is not None:
            subject.last_modified = stamp

    def edit(
        self,
        experiment: Experiment | None = None,
        subject: Subject | None = None,
        project: Project | None = None,
        scan: Scan | None = None,
    ) -> None:
        """An own field of one of these was edited: an experiment's own stamp moves with the others. `scan`
        goes with its experiment.
        """
        self.touch(experiment, subject)
        if scan is not None:
            scan.last_modified = scan.type_modified = self.clock
        elif experiment is not None:
            experiment.last_modified = self.clock
        if project is not None:
            project.last_modified = self.clock

    def edit_all(self) -> None:
        """Every experiment was edited once: the state in which no own stamp is blank."""
        for experiment in self.experiments.values():
            self.edit(experiment)

    def shared(self, experiment: Experiment) -> None:
        """It was shared, or a share of it ended: only the concrete type's stamp moves."""
        experiment.type_modified = self.tick()
