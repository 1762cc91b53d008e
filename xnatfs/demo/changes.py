"""What writing does to an archive: files, resources, scans, sessions, and the stamps each write moves
(xnat-rest.md 13 [X]).

The one place that knows which stamps move. Used by `control` (changes by name) and by the REST writes. Runs
on the event loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from .model import Archive, CatalogEntry, Content, Experiment, Project, Resource, Scan, Subject


@dataclass(frozen=True)
class Owner:
    """What a resource belongs to, and the list it is in there."""

    group: list[Resource]
    experiment: Experiment | None = None
    scan: Scan | None = None
    subject: Subject | None = None
    project: Project | None = None


def owners_in(experiment: Experiment) -> Iterator[Owner]:
    """Everything of an experiment that may have resources, itself included."""
    for group in (experiment.resources, experiment.in_resources, experiment.out_resources):
        yield Owner(group, experiment)
    for scan in experiment.scans:
        yield Owner(scan.resources, experiment, scan)
    for reconstruction in experiment.reconstructions:
        yield Owner(reconstruction.in_resources, experiment)
        yield Owner(reconstruction.out_resources, experiment)


def owners(archive: Archive) -> Iterator[Owner]:
    """Everything that may have resources."""
    for experiment in archive.experiments.values():
        yield from owners_in(experiment)
    for subject in archive.subjects.values():
        yield Owner(subject.resources, subject=subject)
    for project in archive.projects.values():
        yield Owner(project.resources, project=project)


def find(archive: Archive, number: int, near: Iterable[Experiment] = ()) -> tuple[Resource, Owner]:
    """A resource by its number, wherever it hangs (`near`: where to look first); KeyError if there is
    none.
    """
    first = (owner for experiment in near for owner in owners_in(experiment))
    for owner in itertools.chain(first, owners(archive)):
        for resource in owner.group:
            if resource.id == number:
                return resource, owner
    raise KeyError(f"no resource {number}")


def touched(archive: Archive, owner: Owner) -> None:
    """Something in an owner's resources changed: its own stamp and those above it move."""
    if owner.experiment is not None or owner.subject is not None:
        archive.touch(owner.experiment, owner.subject)
    else:
        archive.tick()
    if owner.scan is not None:
        owner.scan.type_modified = archive.clock
    if owner.project is not None:
        owner.project.last_modified = archive.clock


def written(archive: Archive, resource: Resource, owner: Owner, before: tuple[str, str]) -> None:
    """After files of a resource changed: stamps move only if its count or its size did."""
    if (resource.file_count, resource.file_size) != before:
        touched(archive, owner)
        resource.last_modified = archive.clock


def stats(resource: Resource) -> tuple[str, str]:
    """The count and size that `written` compares with."""
    return resource.file_count, resource.file_size


def put_on_disk(resource: Resource, path: str, content: Content, modified: datetime) -> None:
    """A file laid into a resource's directory behind XNAT's back: the catalog goes on saying what it said."""
    entry = next((item for item in resource.entries if item.path == path), None)
    if entry is None:
        resource.loose[path] = content
    else:
        entry.catalog_size, entry.digest = entry.listed_size, entry.listed_digest
        entry.content, entry.modified = content, modified


def refresh(archive: Archive, resource: Resource, owner: Owner, options: set[str]) -> None:
    """A catalog refresh: append, delete, checksum, populateStats. Stamps move only if the counts in the
    database do (xnat-rest.md 13 [X]).
    """
    before = stats(resource)
    if resource.stats_known and resource.counted is None:
        resource.counted = resource.stats
    if "append" in options:
        for path, content in resource.loose.items():
            resource.entries.append(CatalogEntry(path, content, archive.clock, digest=""))
        resource.loose.clear()
    if "delete" in options:
        for entry in [item for item in resource.entries if item.content is None]:
            resource.entries.remove(entry)
    for entry in resource.entries:
        if entry.content is not None and options & {"checksum", "populateStats"}:
            entry.catalog_size = None
            entry.digest = None if "checksum" in options else entry.digest
    if "populateStats" in options:
        resource.counted, resource.stats_known = None, True
    elif resource.counted == resource.stats:
        resource.counted = None
    written(archive, resource, owner, before)


def put(resource: Resource, path: str, content: Content, modified: datetime) -> CatalogEntry:
    """A new file, or other bytes for one that is there; the catalog gets their true size and digest. Moves no
    stamp by itself.
    """
    entry = next((item for item in resource.entries if item.path == path), None)
    if entry is None:
        entry = CatalogEntry(path, content, modified)
        resource.entries.append(entry)
    else:
        entry.content, entry.modified, entry.digest, entry.catalog_size = content, modified, None, None
    resource.counted, resource.stats_known = None, True
    return entry


def add_resource(archive: Archive, owner: Owner, resource: Resource) -> None:
    """A resource made: its own stamp stays blank until it is written to again."""
    owner.group.append(resource)
    touched(archive, owner)


def delete_resource(archive: Archive, owner: Owner, resource: Resource) -> None:
    owner.group.remove(resource)
    touched(archive, owner)


def add_experiment(archive: Archive, experiment: Experiment) -> None:
    """A session moves its subject's stamp, an assessor its session's and its subject's; its own is blank."""
    archive.experiments[experiment.id] = experiment
    archive.touch(experiment)


def delete_experiment(archive: Archive, experiment: Experiment) -> None:
    """With its assessors."""
    del archive.experiments[experiment.id]
    for name, item in list(archive.experiments.items()):
        if item.session_id == experiment.id:
            del archive.experiments[name]
    session = archive.experiments.get(experiment.session_id)
    archive.touch(session, archive.subjects.get(experiment.subject_id))


def add_scan(archive: Archive, session: Experiment, scan: Scan) -> None:
    """A scan's own row has no stamp yet, its concrete type's has."""
    session.scans.append(scan)
    archive.touch(session)
    scan.type_modified = archive.clock


def delete_scan(archive: Archive, session: Experiment, scan: Scan) -> None:
    session.scans = [item for item in session.scans if item is not scan]
    archive.touch(session)
