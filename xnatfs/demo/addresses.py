"""What a URL below /data names: projects, subjects, experiments, scans, ... (xnat-rest.md 2.5, 7, 8).

`parse` only cuts the path up; `resolve` finds the objects one user may see (their resources:
`placed_resources`).
Used by `listings`, `resources`, `items`. Reads the archive on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from urllib.parse import unquote_plus

from .access import View, label_in
from .kinds import is_a
from .model import Experiment, Project, Reconstruction, Scan, Subject
from .reply import HttpError

_COLLECTIONS = frozenset(
    {"projects", "subjects", "experiments", "scans", "assessors", "reconstructions", "resources"}
)


@dataclass
class Address:
    """A path cut up: the raw (still encoded) name under each keyword, and what is asked for at the end."""

    names: dict[str, str] = field(default_factory=dict)
    direction: str = ""  # in, out
    tail: str = ""  # the keyword the path ends with: a collection
    file_path: str | None = None  # what follows `/files/`, raw
    last: str = ""  # the keyword of the last name


def parse(path: str) -> Address:
    """Cut a path up; HttpError 404 for one that is no address."""
    address = Address()
    parts = path.split("/")
    index = 0
    while index < len(parts):
        word = parts[index]
        if word == "files":
            address.tail = "files"
            address.file_path = "/".join(parts[index + 1 :])
            return address
        if word in ("in", "out") and address.last in ("assessors", "reconstructions"):
            address.direction = word
            index += 1
            continue
        if word == "" and index == len(parts) - 1:
            break
        if word not in _COLLECTIONS or address.tail or word in address.names:
            raise HttpError(404)
        name = parts[index + 1] if index + 1 < len(parts) else ""
        if name:
            address.names[word] = name
            address.last = word
        else:
            address.tail = word
        index += 2
    return address


def plain(raw: str) -> str:
    """Most names are compared as they stand in the URL, not decoded but XML-escaped (xnat-rest.md 7 [X])."""
    return escape(raw)


def decoded(raw: str) -> str:
    """Scan and reconstruction ids alone are URL-decoded first (xnat-rest.md 7)."""
    return escape(unquote_plus(raw))


class NotIdentified(HttpError):
    """What an address names is not there for this user: a 404, and of the files in it a 500 (xnat-rest.md 13
    [X]).
    """

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(404, f"Unable to identify {kind} {name}")
        self.kind = kind


@dataclass
class Target:
    """The objects an address names."""

    project: Project | None = None
    subject: Subject | None = None
    experiments: list[Experiment] = field(default_factory=list)
    scans: list[tuple[Experiment, Scan]] | None = None
    assessors: list[Experiment] | None = None
    reconstructions: list[tuple[Experiment, Reconstruction]] | None = None
    direction: str = ""

    @property
    def project_id(self) -> str:
        return self.project.id if self.project is not None else ""

    @property
    def experiment(self) -> Experiment:
        """The first (usually only) experiment."""
        return self.experiments[0]


def resolve(address: Address, view: View, proven_only: bool = False, item: bool = False) -> Target:
    """Find everything an address names; what is not there or not readable is a 404 (xnat-rest.md 8).

    For files and resources a session that is not there falls through to what stands before it in the address.
    An `item` of an experiment is found by its id below any project, one of an assessor by its id alone.
    """
    target = Target(direction=address.direction)
    names = address.names
    if "projects" in names:
        target.project = view.project(plain(names["projects"]))
        by_id = (
            item
            and address.last == "experiments"
            and view.find_experiment(plain(names["experiments"])) is not None
        )
        if target.project is None and not by_id:
            raise NotIdentified("project", names["projects"])
    if "subjects" in names:
        target.subject = view.find_subject(plain(names["subjects"]), target.project_id)
        if target.subject is None:
            raise NotIdentified("subject", names["subjects"])
    if "experiments" in names:
        target.experiments = _experiments(address, target, view)
        if proven_only and len(names["experiments"].split(",")) > 1:
            raise HttpError(404, "Unable to identify experiment.")
    if "scans" in names:
        target.scans = [
            (session, scan) for session in target.experiments for scan in _scans(names["scans"], session)
        ]
        if not target.scans:
            raise NotIdentified("scan", names["scans"])
    if "assessors" in names:
        by_label = not item or target.project is not None
        target.assessors = [
            assessor
            for session in target.experiments
            for assessor in _assessors(names["assessors"], session, target, view, by_label)
        ]
        if not target.assessors:
            raise NotIdentified("assessor", names["assessors"])
    if "reconstructions" in names:
        target.reconstructions = [
            (session, recon)
            for session in target.experiments
            for recon in _reconstructions(names["reconstructions"], session)
        ]
        if not target.reconstructions:
            raise NotIdentified("reconstruction", names["reconstructions"])
    return target


def _experiments(address: Address, target: Target, view: View) -> list[Experiment]:
    """Each named one once; of several names those that are not there are left out silently (xnat-rest.md 13
    [X]).
    """
    raw = address.names["experiments"]
    experiments: dict[str, Experiment] = {}
    for name in raw.split(","):
        experiment = view.find_experiment(plain(name), target.project_id)
        if experiment is not None and (target.subject is None or experiment.subject_id == target.subject.id):
            experiments[experiment.id] = experiment
    owner = target.project is not None or target.subject is not None
    falls_through = (
        owner and address.last in ("experiments", "resources") and address.tail in ("files", "resources")
    )
    if not experiments and not (
        falls_through and len(address.names.keys() & {"scans", "assessors", "reconstructions"}) == 0
    ):
        raise NotIdentified("experiment", raw)
    return list(experiments.values())


def _scans(raw: str, session: Experiment) -> list[Scan]:
    """Comma lists, ALL, ids and types, NULL for no type, [SLASH] and [COMMA] (xnat-rest.md 2.5)."""
    if unquote_plus(raw) in ("ALL", "*"):
        return session.scans
    wanted = set()
    for name in decoded(raw).split(","):
        wanted.add("" if name == "NULL" else name.replace("[SLASH]", "/").replace("[COMMA]", ","))
    return [scan for scan in session.scans if scan.id in wanted or scan.type in wanted]


def _assessors(raw: str, session: Experiment, target: Target, view: View, by_label: bool) -> list[Experiment]:
    mine = view.assessors(session)
    if unquote_plus(raw) in ("ALL", "*"):
        return mine
    wanted = set(plain(raw).split(","))
    return [
        item
        for item in mine
        if item.id in wanted
        or (by_label and label_in(item, target.project_id) in wanted)
        or any(":" in name and is_a(item, name) for name in wanted)
    ]


def _reconstructions(raw: str, session: Experiment) -> list[Reconstruction]:
    if unquote_plus(raw) in ("ALL", "*"):
        return session.reconstructions
    wanted = {name.replace("[SLASH]", "/").replace("[COMMA]", ",") for name in decoded(raw).split(",")}
    return [item for item in session.reconstructions if item.id in wanted or item.type in wanted]
