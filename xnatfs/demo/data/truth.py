"""What a project really holds: the ground truth that tests compare a client's, or the mount's, view with.

Used by tests only. Worked out from the archive's objects alone, by the rules below, without any HTTP or
client code.

A login may read a project if it is an administrator or a member, or if the project is public; anonymous
(`""`) reads public projects. A project holds its own subjects and experiments and those shared into it, under
the labels they have there. Of a session that is shared into it, it holds everything but the assessors that
are not shared into it themselves: XNAT's project listings have only those. A session shared without its
subject stands under that subject's own label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from xnatfs.demo.model import Archive, CatalogEntry, Experiment, Project, Resource, Subject


@dataclass(frozen=True)
class TrueFile:
    """One file of a project. `kind` is project, subject, session, scan, assessor or reconstruction."""

    project: str
    subject: str | None
    session: str | None
    kind: str
    scan: str | None
    scan_type: str | None
    assessor: str | None  # the assessor's label, or the reconstruction's id
    direction: str  # "in" or "out" for resources of assessors and reconstructions, else ""
    resource_id: int
    resource: str
    path: str
    subject_id: str
    session_id: str  # accession id of the session or non-imaging experiment
    assessor_id: str  # accession id of the assessor
    entry: CatalogEntry = field(compare=False, repr=False)

    @property
    def size(self) -> int:
        """Length of the real bytes; 0 where they are gone."""
        return self.entry.content.size if self.entry.content else 0

    @property
    def digest(self) -> str:
        """MD5 of the real bytes; "" where they are gone."""
        return self.entry.true_digest

    @property
    def gone(self) -> bool:
        """Listed, but no longer there."""
        return self.entry.content is None

    @property
    def hostile(self) -> bool:
        """The path must not be followed."""
        return hostile(self.path)

    @property
    def listed_size(self) -> int:
        """What the catalog says."""
        return self.entry.listed_size

    @property
    def listed_digest(self) -> str:
        """What the catalog says; "" for none."""
        return self.entry.listed_digest

    @property
    def uri(self) -> str:
        """Where the file can be had: by accession id and resource number, percent-encoded."""
        session = f"/data/experiments/{self.session_id}"
        base = {
            "project": f"/data/projects/{self.project}",
            "subject": f"/data/subjects/{self.subject_id}",
            "scan": f"{session}/scans/{_quoted(self.scan or '')}",
            "assessor": f"{session}/assessors/{self.assessor_id}",
            "reconstruction": f"{session}/reconstructions/{_quoted(self.assessor or '')}",
        }.get(self.kind, session)
        direction = f"/{self.direction}" if self.direction else ""
        return f"{base}{direction}/resources/{self.resource_id}/files/{quote(self.path, safe='/')}"

    def read(self) -> bytes:
        """The real bytes."""
        return self.entry.content.read(0, self.size) if self.entry.content else b""


def _quoted(id: str) -> str:
    """A scan's or reconstruction's id in an address: a slash and a comma need XNAT's own escapes."""
    return quote(id.replace("/", "[SLASH]").replace(",", "[COMMA]"), safe="")


def hostile(path: str) -> bool:
    """Whether a path would leave its resource, or is not in its simplest form: never to be followed."""
    return any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path


def readable(archive: Archive, project: Project, login: str) -> bool:
    """Whether `login` ("" for anonymous) may read the project's data."""
    user = archive.users.get(login)
    return project.access == "public" or (user is not None and (user.admin or login in project.members))


def files(archive: Archive, project_id: str, login: str) -> list[TrueFile]:
    """Every file of a project, each path of a resource once, in the archive's order; nothing for a login that
    may not read it.
    """
    project = archive.projects[project_id]
    return list(_files(archive, project)) if readable(archive, project, login) else []


def label_in(thing: Subject | Experiment, project_id: str) -> str | None:
    """The label a subject or experiment has in a project; None where it is not in it."""
    if thing.project == project_id:
        return thing.label
    return (thing.shares[project_id] or thing.label) if project_id in thing.shares else None


@dataclass(frozen=True)
class _Place:
    """Where in a project a resource lies: the first fields of a TrueFile."""

    project: str
    subject: Subject | None = None
    subject_label: str | None = None
    session: str | None = None
    session_id: str = ""
    kind: str = "project"
    scan: str | None = None
    scan_type: str | None = None
    assessor: str | None = None
    assessor_id: str = ""


def _files(archive: Archive, project: Project) -> Iterator[TrueFile]:
    yield from _of(_Place(project.id), "", project.resources)
    for subject in archive.subjects.values():
        label = label_in(subject, project.id)
        if label is not None:
            yield from _of(_Place(project.id, subject, label, kind="subject"), "", subject.resources)
    for experiment in archive.experiments.values():
        label = label_in(experiment, project.id)
        if label is None:
            continue
        subject = archive.subjects[experiment.subject_id]
        subject_label = label_in(subject, project.id) or subject.label
        if experiment.is_assessor:
            # Its primary label: no list of assessors has another one (xnat-rest.md 12 [X]).
            yield from _assessor(archive, project, experiment, experiment.label, subject, subject_label)
        else:
            yield from _session(project, experiment, label, subject, subject_label)


def _session(
    project: Project, session: Experiment, label: str, subject: Subject, subject_label: str
) -> Iterator[TrueFile]:
    yield from _of(
        _Place(project.id, subject, subject_label, label, session.id, "session"), "", session.resources
    )
    for scan in session.scans:
        yield from _of(
            _Place(project.id, subject, subject_label, label, session.id, "scan", scan.id, scan.type),
            "",
            scan.resources,
        )
    for image in session.reconstructions:
        place = _Place(
            project.id, subject, subject_label, label, session.id, "reconstruction", assessor=image.id
        )
        yield from _of(place, "in", image.in_resources)
        yield from _of(place, "out", image.out_resources)


def _assessor(
    archive: Archive, project: Project, assessor: Experiment, label: str, subject: Subject, subject_label: str
) -> Iterator[TrueFile]:
    session = archive.experiments[assessor.session_id]
    session_label = label_in(session, project.id)
    if session_label is None:
        return
    place = _Place(
        project.id,
        subject,
        subject_label,
        session_label,
        session.id,
        "assessor",
        assessor=label,
        assessor_id=assessor.id,
    )
    yield from _of(place, "", assessor.resources)
    yield from _of(place, "in", assessor.in_resources)
    yield from _of(place, "out", assessor.out_resources)


def _of(place: _Place, direction: str, resources: list[Resource]) -> Iterator[TrueFile]:
    for resource in resources:
        seen = set()
        for entry in resource.entries:
            if entry.path in seen:
                continue
            seen.add(entry.path)
            yield TrueFile(
                project=place.project,
                subject=place.subject_label,
                session=place.session,
                kind=place.kind,
                scan=place.scan,
                scan_type=place.scan_type,
                assessor=place.assessor,
                direction=direction,
                resource_id=resource.id,
                resource=resource.label,
                path=entry.path,
                subject_id=place.subject.id if place.subject else "",
                session_id=place.session_id,
                assessor_id=place.assessor_id,
                entry=entry,
            )
