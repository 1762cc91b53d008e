"""The resources an address holds, and what listings, zips and catalogs say of each (xnat-rest.md 2.4, 2.5, 7,
13).

Used by `routes`, `resources`, `files`, `bulk` and the writes. Reads the archive on the event loop.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .access import View
from .addresses import Address, Target, plain
from .changes import Owner, find
from .model import Experiment, Project, Reconstruction, Resource, Scan, Subject
from .reply import HttpError

# The singular display names of types, which resource lists of an assessor have as its description.
_DISPLAY_NAMES = {"xnat:qcManualAssessorData": "Manual QC"}


@dataclass(frozen=True)
class PlacedResource:
    """A resource where it hangs.

    `path` is its `resource_path` without `/resources/ID`; `folder` the same in a zip, by labels, without the
    type that `suffix` adds; `archive_dir` the directory on XNAT's own disk, `catalog` the name of the catalog
    in it.
    """

    resource: Resource
    category: str
    category_id: str
    description: str
    path: str
    folder: str
    archive_dir: str
    owner: Owner
    suffix: str = ""
    catalog: str = ""

    @property
    def catalog_path(self) -> str:
        """Where the catalog lies on XNAT's disk."""
        name = self.catalog or self.resource.folder or self.resource.label
        return f"{self.archive_dir}/{name}_catalog.xml"


def placed(target: Target, view: View, everything: bool = False) -> list[PlacedResource]:
    """The resources of the addressed objects. `everything` is `all=true`: a session with its scans,
    reconstructions, assessors.
    """
    if target.scans is not None:
        return [item for session, scan in target.scans for item in of_scan(session, scan)]
    if target.reconstructions is not None:
        return [
            item
            for session, recon in target.reconstructions
            for item in of_reconstruction(session, recon, target.direction or "out")
        ]
    if target.assessors is not None:
        return [
            item for assessor in target.assessors for item in of_assessor(assessor, view, target.direction)
        ]
    if target.experiments:
        several = len(target.experiments) > 1
        return [
            item
            for experiment in target.experiments
            for item in of_experiment(experiment, view, everything, several)
        ]
    if target.subject is not None:
        return list(of_subject(target.subject))
    if target.project is not None:
        return list(of_project(target.project))
    raise HttpError(404)


def _directory(root: str, resource: Resource) -> str:
    return "/".join(filter(None, (root, resource.folder or resource.label)))


def of_project(project: Project) -> Iterator[PlacedResource]:
    for item in project.resources:
        directory = _directory(f"{project.id}/resources", item)
        owner = Owner(project.resources, project=project)
        yield PlacedResource(
            item, "resources", "", " ", f"/projects/{project.id}", project.id, directory, owner
        )


def of_subject(subject: Subject) -> Iterator[PlacedResource]:
    """Their addresses go through the primary project, whichever was asked for (xnat-rest.md 13 [X])."""
    path = f"/projects/{subject.project}/subjects/{subject.id}"
    for item in subject.resources:
        directory = _directory(f"{subject.project}/subjects/{subject.label}", item)
        yield PlacedResource(
            item,
            "resources",
            "",
            " ",
            path,
            subject.label,
            directory,
            Owner(subject.resources, subject=subject),
        )


def of_experiment(
    experiment: Experiment, view: View, everything: bool, several: bool = False
) -> Iterator[PlacedResource]:
    """A session's own resources, with `everything` those below it too. An assessor's are its outcome, among
    `several` only its own.
    """
    if experiment.is_assessor and not several:
        yield from of_assessor(experiment, view, "")
        return
    root = f"{experiment.project}/arc001/{experiment.label}"
    description = ("", "") if everything else (experiment.id, " ")
    for item in experiment.resources:
        directory = _directory(f"{root}/RESOURCES", item)
        owner = Owner(experiment.resources, experiment)
        yield PlacedResource(
            item,
            "resources",
            *description,
            f"/experiments/{experiment.id}",
            experiment.label,
            directory,
            owner,
        )
    if not everything or experiment.is_assessor:
        return
    for scan in experiment.scans:
        yield from of_scan(experiment, scan)
    for reconstruction in experiment.reconstructions:
        yield from of_reconstruction(experiment, reconstruction, "out")
    for assessor in view.assessors(experiment):
        yield from of_assessor(assessor, view, "", within=True)


def of_scan(session: Experiment, scan: Scan) -> Iterator[PlacedResource]:
    path = f"/experiments/{session.id}/scans/{scan.id}"
    folder = f"{session.label}/scans/{scan.id}"
    root = f"{session.project}/arc001/{session.label}/SCANS/{scan.id}"
    for item in scan.resources:
        owner = Owner(scan.resources, session, scan)
        directory = _directory(root, item)
        yield PlacedResource(
            item,
            "scans",
            scan.id,
            scan.type,
            path,
            folder,
            directory,
            owner,
            suffix=scan.type,
            catalog=scan.id,
        )


def of_reconstruction(
    session: Experiment, reconstruction: Reconstruction, direction: str
) -> Iterator[PlacedResource]:
    path = f"/experiments/{session.id}/reconstructions/{reconstruction.id}/{direction}"
    folder = f"{session.label}/reconstructions/{reconstruction.id}/{direction}"
    root = f"{session.project}/arc001/{session.label}/ASSESSORS/PROCESSED/{reconstruction.id}"
    group = reconstruction.in_resources if direction == "in" else reconstruction.out_resources
    kind = reconstruction.type
    for item in group:
        owner = Owner(group, session)
        directory = _directory(root, item)
        yield PlacedResource(
            item,
            "reconstructions",
            reconstruction.id,
            kind,
            path,
            folder,
            directory,
            owner,
            suffix=kind,
            catalog=reconstruction.id,
        )


def of_assessor(
    assessor: Experiment, view: View, direction: str, within: bool = False
) -> Iterator[PlacedResource]:
    """Without a direction: the out-resources, then those it has as an experiment. `within` a session: named
    by id, not described.
    """
    session = view.archive.experiments.get(assessor.session_id)
    label = session.label if session is not None else assessor.label
    base = f"/experiments/{assessor.session_id}/assessors/{assessor.id}"
    folder = f"{label}/assessors/{assessor.id}" if within else assessor.label
    root = f"{assessor.project}/arc001/{label}/ASSESSORS/{assessor.label}"
    kind = "" if within else _DISPLAY_NAMES.get(assessor.xsi_type, assessor.xsi_type)
    lists = {"in": assessor.in_resources, "out": assessor.out_resources}
    way = direction or "out"
    for item in lists[way]:
        owner = Owner(lists[way], assessor)
        yield PlacedResource(
            item,
            "assessors",
            assessor.id,
            kind,
            f"{base}/{way}",
            f"{folder}/{way}",
            _directory(root, item),
            owner,
        )
    if not direction:
        for item in assessor.resources:
            owner = Owner(assessor.resources, assessor)
            path = f"/experiments/{assessor.id}"
            yield PlacedResource(
                item, "assessors", assessor.id, kind, path, folder, _directory(root, item), owner
            )


def chosen(address: Address, target: Target, view: View, everything: bool) -> list[PlacedResource]:
    """The resources a `resources/R` part picks: labels (all that match), numbers, NULL, comma lists
    (xnat-rest.md 7).
    """
    here = placed(target, view, everything)
    raw = address.names.get("resources")
    if raw is None:
        return here
    if "'" in raw:
        raise HttpError(400, "Invalid resource identifier.")
    picked: list[PlacedResource] = []
    for name in plain(raw).split(","):
        if re.fullmatch(r"[0-9]+", name):
            # Digits are a number, even where a label looks the same; no such number is Restlet's 404
            # (xnat-rest.md 7 [X]).
            number = int(name)
            match = next((item for item in here if item.resource.id == number), None) or anywhere(
                number, view, target.experiments
            )
            if match is None:
                raise HttpError(404)
            picked.append(match)
        elif name == "NULL":
            picked += [item for item in here if not item.resource.label]
        else:
            picked += [item for item in here if item.resource.label == name]
    return picked


def anywhere(number: int, view: View, near: list[Experiment]) -> PlacedResource | None:
    """A numeric id is answered under any owner, if its own owner may be read; that it is put away does not
    count (xnat-rest.md 13 [X]).
    """
    try:
        resource, owner = find(view.archive, number, near)
    except KeyError:
        return None
    experiment, subject, project = owner.experiment, owner.subject, owner.project
    groups: Iterator[PlacedResource]
    if experiment is not None and view.experiment_readable(experiment):
        if owner.scan is not None:
            groups = of_scan(experiment, owner.scan)
        elif experiment.is_assessor:
            groups = itertools.chain(of_assessor(experiment, view, ""), of_assessor(experiment, view, "in"))
        else:
            reconstructions = [
                of_reconstruction(experiment, recon, way)
                for recon in experiment.reconstructions
                for way in ("out", "in")
            ]
            groups = itertools.chain(of_experiment(experiment, view, False), *reconstructions)
    elif subject is not None and view.subject_readable(subject):
        groups = of_subject(subject)
    elif project is not None and view.listed(project):
        groups = of_project(project)
    else:
        return None
    return next((item for item in groups if item.resource is resource), None)


def addressed_through(target: Target) -> str:
    """What stands before an experiment in the URI of a single resource: the project and subject it was
    addressed through.
    """
    base = "/data"
    if target.experiments and target.project is not None:
        base += f"/projects/{target.project.id}" + (
            f"/subjects/{target.subject.id}" if target.subject is not None else ""
        )
    return base


def addressed_base(target: Target) -> str:
    """The beginning of file URIs when one number was addressed: through the project if it was, always by ids
    (xnat-rest.md 2.4 [R]).

    Two scans that one name picked are both named. A subject is always named below its primary project, an
    assessor below its session.
    """
    base = "/data"
    if target.subject is not None and not target.experiments:
        return f"/data/projects/{target.subject.project}/subjects/{target.subject.id}"
    if target.project is not None:
        base += f"/projects/{target.project.id}"
    if target.subject is not None:
        base += f"/subjects/{target.subject.id}"
    if target.experiments:
        assessor = target.experiment
        base += (
            f"/experiments/{assessor.session_id}/assessors/{assessor.id}/out"
            if assessor.is_assessor
            else f"/experiments/{assessor.id}"
        )
    if target.scans is not None:
        base += f"/scans/{','.join(scan.id for _, scan in target.scans)}"
    elif target.assessors is not None:
        base += f"/assessors/{target.assessors[0].id}/{target.direction or 'out'}"
    elif target.reconstructions is not None:
        base += f"/reconstructions/{target.reconstructions[0][1].id}/{target.direction or 'out'}"
    return base
