"""What a URL below /data names: projects, subjects, experiments, scans, ..., and the resources they hold (fact sheet 2.5, 7, 8).

`parse` only cuts the path up; `resolve` finds the objects one user may see; `held` gives their resources with what the
listings, zips and catalogs say of each. Used by `listings`, `resources`, `items`. Reads the archive on the event loop.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from urllib.parse import unquote_plus

from .access import View, label_in
from .kinds import is_a
from .model import Experiment, Project, Reconstruction, Resource, Scan, Subject
from .reply import HttpError

_COLLECTIONS = frozenset({"projects", "subjects", "experiments", "scans", "assessors", "reconstructions", "resources"})


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
    """Most names are compared as they stand in the URL, not decoded but XML-escaped (fact sheet 7 [X])."""
    return escape(raw)


def decoded(raw: str) -> str:
    """Scan and reconstruction ids alone are URL-decoded first (fact sheet 7)."""
    return escape(unquote_plus(raw))


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


def resolve(address: Address, view: View, proven_only: bool = False) -> Target:
    """Find everything an address names; what is not there or not readable is a 404 (fact sheet 8)."""
    target = Target(direction=address.direction)
    names = address.names
    if "projects" in names:
        target.project = view.project(plain(names["projects"]))
        if target.project is None:
            raise HttpError(404, f"Unable to identify project {names['projects']}")
    if "subjects" in names:
        target.subject = view.find_subject(plain(names["subjects"]), target.project_id)
        if target.subject is None:
            raise HttpError(404, f"Unable to identify subject {names['subjects']}")
    if "experiments" in names:
        target.experiments = _experiments(names["experiments"], target, view)
        if proven_only and len(names["experiments"].split(",")) > 1:
            raise HttpError(404, "Unable to identify experiment.")
    if "scans" in names:
        target.scans = [(session, scan) for session in target.experiments for scan in _scans(names["scans"], session)]
        if not target.scans:
            raise HttpError(404, f"Unable to identify scan {names['scans']}")
    if "assessors" in names:
        target.assessors = [item for session in target.experiments for item in _assessors(names["assessors"], session, target, view)]
        if not target.assessors:
            raise HttpError(404, f"Unable to identify assessor {names['assessors']}")
    if "reconstructions" in names:
        target.reconstructions = [
            (session, item) for session in target.experiments for item in _reconstructions(names["reconstructions"], session)
        ]
        if not target.reconstructions:
            raise HttpError(404, f"Unable to identify reconstruction {names['reconstructions']}")
    return target


def _experiments(raw: str, target: Target, view: View) -> list[Experiment]:
    found = []
    for name in raw.split(","):
        experiment = view.find_experiment(plain(name), target.project_id)
        if experiment is None or (target.subject is not None and experiment.subject_id != target.subject.id):
            raise HttpError(404, f"Unable to identify experiment {name}")
        found.append(experiment)
    return found


def _scans(raw: str, session: Experiment) -> list[Scan]:
    """Comma lists, ALL, ids and types, NULL for no type, [SLASH] and [COMMA] (fact sheet 2.5)."""
    if unquote_plus(raw) in ("ALL", "*"):
        return session.scans
    wanted = set()
    for name in decoded(raw).split(","):
        wanted.add("" if name == "NULL" else name.replace("[SLASH]", "/").replace("[COMMA]", ","))
    return [scan for scan in session.scans if scan.id in wanted or scan.type in wanted]


def _assessors(raw: str, session: Experiment, target: Target, view: View) -> list[Experiment]:
    mine = view.assessors(session)
    if unquote_plus(raw) in ("ALL", "*"):
        return mine
    wanted = set(plain(raw).split(","))
    return [
        item
        for item in mine
        if item.id in wanted or label_in(item, target.project_id) in wanted or any(":" in name and is_a(item, name) for name in wanted)
    ]


def _reconstructions(raw: str, session: Experiment) -> list[Reconstruction]:
    if unquote_plus(raw) in ("ALL", "*"):
        return session.reconstructions
    wanted = {name.replace("[SLASH]", "/").replace("[COMMA]", ",") for name in decoded(raw).split(",")}
    return [item for item in session.reconstructions if item.id in wanted or item.type in wanted]


@dataclass(frozen=True)
class Held:
    """A resource where it hangs.

    `path` is its `resource_path` without `/resources/ID`; `folder` the same in a zip, by labels, without the scan type; `scan`
    the scan it belongs to, if any; `archive_dir` the directory on XNAT's own disk.
    """

    resource: Resource
    category: str
    category_id: str
    description: str
    path: str
    folder: str
    archive_dir: str
    scan: Scan | None = None


def held(target: Target, view: View, everything: bool = False) -> list[Held]:
    """The resources of the addressed objects. `everything` is `all=true`: a session with its scans, reconstructions, assessors."""
    if target.scans is not None:
        return [item for session, scan in target.scans for item in _of_scan(session, scan)]
    if target.reconstructions is not None:
        return [item for session, recon in target.reconstructions for item in _of_reconstruction(session, recon, target.direction or "out")]
    if target.assessors is not None:
        return [item for assessor in target.assessors for item in _of_assessor(assessor, view, target.direction)]
    if target.experiments:
        return [item for experiment in target.experiments for item in _of_experiment(experiment, view, everything)]
    if target.subject is not None:
        subject = target.subject
        return [
            Held(
                item,
                "resources",
                "",
                " ",
                f"/subjects/{subject.id}",
                subject.label,
                f"{subject.project}/subjects/{subject.label}/{item.label or item.id}",
            )
            for item in subject.resources
        ]
    if target.project is not None:
        project = target.project
        return [
            Held(item, "resources", "", " ", f"/projects/{project.id}", project.id, f"{project.id}/resources/{item.label or item.id}")
            for item in project.resources
        ]
    raise HttpError(404)


def _of_experiment(experiment: Experiment, view: View, everything: bool) -> Iterator[Held]:
    if experiment.is_assessor:
        # An assessor is an experiment too: the same out-resources (fact sheet 10).
        yield from _of_assessor(experiment, view, "", as_experiment=True)
        return
    root = f"{experiment.project}/arc001/{experiment.label}"
    for item in experiment.resources:
        directory = f"{root}/RESOURCES/{item.label or item.id}"
        yield Held(item, "resources", experiment.id, " ", f"/experiments/{experiment.id}", experiment.label, directory)
    if not everything:
        return
    for scan in experiment.scans:
        yield from _of_scan(experiment, scan)
    for reconstruction in experiment.reconstructions:
        yield from _of_reconstruction(experiment, reconstruction, "out")
    for assessor in view.assessors(experiment):
        yield from _of_assessor(assessor, view, "")


def _of_scan(session: Experiment, scan: Scan) -> Iterator[Held]:
    path = f"/experiments/{session.id}/scans/{scan.id}"
    root = f"{session.project}/arc001/{session.label}/SCANS/{scan.id}"
    for item in scan.resources:
        yield Held(item, "scans", scan.id, scan.type, path, f"{session.label}/scans/{scan.id}", f"{root}/{item.label or item.id}", scan)


def _of_reconstruction(session: Experiment, reconstruction: Reconstruction, direction: str) -> Iterator[Held]:
    path = f"/experiments/{session.id}/reconstructions/{reconstruction.id}/{direction}"
    folder = f"{session.label}/reconstructions/{reconstruction.id}/{direction}"
    root = f"{session.project}/arc001/{session.label}/PROCESSED/{reconstruction.id}"
    for item in reconstruction.in_resources if direction == "in" else reconstruction.out_resources:
        yield Held(item, "reconstructions", reconstruction.id, reconstruction.type, path, folder, f"{root}/{item.label or item.id}")


def _of_assessor(assessor: Experiment, view: View, direction: str, as_experiment: bool = False) -> Iterator[Held]:
    """Without a direction: the out-resources, then those it has as an experiment (the latter [I])."""
    session = view.archive.experiments.get(assessor.session_id)
    label = session.label if session is not None else assessor.label
    base = f"/experiments/{assessor.session_id}/assessors/{assessor.id}"
    folder = assessor.label if as_experiment else f"{label}/assessors/{assessor.label}"
    root = f"{assessor.project}/arc001/{label}/ASSESSORS/{assessor.label}"
    lists = {"in": assessor.in_resources, "out": assessor.out_resources}
    for way in [direction] if direction else ["out"]:
        for item in lists[way]:
            directory = f"{root}/{item.label or item.id}"
            yield Held(item, "assessors", assessor.id, assessor.xsi_type, f"{base}/{way}", f"{folder}/{way}", directory)
    if not direction:
        for item in assessor.resources:
            directory = f"{root}/{item.label or item.id}"
            yield Held(item, "assessors", assessor.id, assessor.xsi_type, f"/experiments/{assessor.id}", folder, directory)


def chosen(address: Address, target: Target, view: View, everything: bool) -> list[Held]:
    """The resources a `resources/R` part picks: labels (all that match), numbers, NULL, comma lists (fact sheet 7)."""
    here = held(target, view, everything)
    raw = address.names.get("resources")
    if raw is None:
        return here
    if "'" in raw:
        raise HttpError(400, "Invalid resource identifier.")
    picked: list[Held] = []
    for name in plain(raw).split(","):
        if re.fullmatch(r"[0-9]+", name):
            # Digits are a number, even where a label looks the same; no such number is Restlet's 404 (fact sheet 7 [X]).
            number = int(name)
            found = next((item for item in itertools.chain(here, _anywhere(target, view)) if item.resource.id == number), None)
            if found is None:
                raise HttpError(404)
            picked.append(found)
        elif name == "NULL":
            picked += [item for item in here if not item.resource.label]
        else:
            picked += [item for item in here if item.resource.label == name]
    return picked


def _anywhere(target: Target, view: View) -> Iterator[Held]:
    """Every resource at or below the addressed objects, in and out: a numeric id always works (fact sheet 7)."""
    yield from held(target, view, everything=True)
    for assessor in target.assessors or [item for item in target.experiments if item.is_assessor]:
        yield from _of_assessor(assessor, view, "out")
        yield from _of_assessor(assessor, view, "in")
        yield from _of_assessor(assessor, view, "")
    for session, reconstruction in target.reconstructions or []:
        yield from _of_reconstruction(session, reconstruction, "in")
        yield from _of_reconstruction(session, reconstruction, "out")


def addressed_base(target: Target) -> str:
    """The beginning of file URIs when one resource was addressed: through the project if it was, always by ids (fact sheet 2.4 [R])."""
    base = "/data"
    if target.project is not None:
        base += f"/projects/{target.project.id}"
    if target.subject is not None:
        base += f"/subjects/{target.subject.id}"
    if target.experiments:
        base += f"/experiments/{target.experiment.id}"
    if target.scans is not None:
        base += f"/scans/{target.scans[0][1].id}"
    elif target.assessors is not None:
        base += f"/assessors/{target.assessors[0].id}/{target.direction or 'out'}"
    elif target.reconstructions is not None:
        base += f"/reconstructions/{target.reconstructions[0][1].id}/{target.direction or 'out'}"
    return base
