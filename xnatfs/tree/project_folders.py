"""The sections `projects/` (for people) and `archive/` (for programs): the server's files, under labels.

`projects/P/subjects/S/E/...` has every file of the server exactly once. A project with no file that the user
can read has a README.txt instead, which says why (`project_readme`).
`archive/projects/P/{experiments/E,subjects/S,resources}/...` has the same nodes in the layout of XNAT's own
JupyterHub mounts, which xnatpy reads with `XNAT_DATA=<mount>/archive` (xnatpy 0.8.1, `mixin.py`:
`expected_data_dir`).
Threading: any thread; nodes are built from snapshots and kept with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.server.records import ProjectRecord, SubjectRecord
from xnatfs.tree.generated import GeneratedFile
from xnatfs.tree.names import distinct, spell_label
from xnatfs.tree.node import EPOCH, Branch, Folder, Node, inode_in_order, inode_of
from xnatfs.tree.people_xattrs import PersonFolder, of_subject
from xnatfs.tree.project_readme import has_nothing, why_empty
from xnatfs.tree.resource import ResourcePlace, Sources
from xnatfs.tree.session_folders import ARCHIVE, PROJECTS, resources_folder, session_folder

_Parts = Callable[[ProjectRecord], Mapping[str, Node]]
# Says why there is nothing: of the snapshot, or of None where the server refuses to list the project.
_Readme = Callable[[ProjectRecord, ProjectSnapshot | None], Node]
_FromSnapshot = Callable[[ProjectSnapshot], Mapping[str, Node]]
_SUBJECT_RESERVED = frozenset({"RESOURCES"})


def projects_folder(sources: Sources, user: str) -> Branch:
    """`projects/`."""

    def readme(project: ProjectRecord, snapshot: ProjectSnapshot | None) -> Node:
        def text() -> bytes:
            access = sources.listing_service.access.of(project.id)
            return why_empty(sources.settings, user, project, access, snapshot)

        inode = inode_of("rendered", f"projects/{project.id}/README.txt")
        return GeneratedFile(text, text, lambda: project.inserted or EPOCH, inode)

    return _listing(sources, "projects", lambda project: {"subjects": _subjects(sources, project)}, readme)


def archive_folder(sources: Sources) -> Branch:
    """`archive/`, with its one folder `projects/`."""
    projects = _listing(
        sources,
        "archive",
        lambda project: {
            "experiments": _archive_experiments(sources, project),
            "subjects": _archive_subjects(sources, project),
        },
    )
    return Branch(inode_of("archive"), lambda: {"projects": projects})


def session_part(folder: str) -> tuple[str, str]:
    """The project's folder, and the project, of a path in which only sessions are and what is in them: with
    whatever changes there a stamp of its session moves. ("", "") for any other path: nothing moves with a
    file of a subject or a project itself.
    """
    section, *parts = folder.lstrip("/").split("/")
    above = f"/{section}"
    if section == "archive" and parts[:1] == ["projects"]:
        above += f"/{parts.pop(0)}"
        if parts[1:2] not in ([], ["experiments"]):
            return "", ""
    elif section != "projects" or parts[1:2] not in ([], ["subjects"]) or parts[3:4] == ["RESOURCES"]:
        return "", ""
    return (f"{above}/{parts[0]}", parts[0]) if parts and parts[0] else ("", "")


def _listing(sources: Sources, section: str, parts: _Parts, readme: _Readme | None = None) -> Branch:
    known: dict[ProjectRecord, Branch] = {}

    def folder(project: ProjectRecord) -> Branch:
        if project not in known:
            known[project] = _project(sources, section, project, parts, readme)
        return known[project]

    def entries() -> Mapping[str, Node]:
        projects = sources.listing_service.projects.all()
        return {spell_label(identity): folder(project) for identity, project in projects.items()}

    return Branch(inode_of(section, "projects"), entries)


def _project(
    sources: Sources, section: str, project: ProjectRecord, parts: _Parts, readme: _Readme | None
) -> Branch:
    fixed: Mapping[str, Node] = parts(project)

    def entries() -> Mapping[str, Node]:
        try:
            snapshot = sources.listing_service.projects.get(project.id)
        except Failure as failure:
            if failure.cause is not Cause.NOT_ALLOWED or readme is None:
                raise
            # What is refused is an error where it would be: no copy succeeds without it, and none that there
            # is of it is emptied (`rsync --delete`).
            return {"README.txt": readme(project, None), **fixed, "resources": refused}
        return snapshot.memo.get((section, "project"), lambda: build(snapshot))

    def build(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        nodes = dict(fixed)
        if readme is not None and has_nothing(snapshot):
            nodes = {"README.txt": readme(project, snapshot), **nodes}
        if snapshot.own_resources:
            place = ResourcePlace(project.id, _project_date(snapshot), _xattrs(project))
            nodes["resources"] = resources_folder(
                sources,
                place,
                snapshot.own_resources,
                section,
                project.id,
                "resources",
                dicom_alias=section == "archive",
            )
        return nodes

    def refused_resources() -> Mapping[str, Node]:
        resources = build(sources.listing_service.projects.get(project.id)).get("resources")
        return resources.entries() if isinstance(resources, Folder) else {}

    refused = Branch(inode_of(section, project.id, "resources"), refused_resources, mtime=project.inserted)
    return Branch(inode_of(section, project.id), entries, mtime=project.inserted, xattrs=_xattrs(project))


def _project_date(snapshot: ProjectSnapshot) -> float | None:
    """The project's own date; where the server does not give it, the earliest of its contents."""
    if snapshot.project.inserted is not None:
        return snapshot.project.inserted
    dates = [subject.inserted for subject in snapshot.subjects.values()] + [
        experiment.inserted for experiment in snapshot.experiments.values()
    ]
    return min((date for date in dates if date is not None), default=None)


# --- projects/P/subjects ------------------------------------------------------------------------------------


def _subjects(sources: Sources, project: ProjectRecord) -> Branch:
    def named(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        subjects = distinct(
            snapshot.subjects.values(), lambda subject: subject.label, lambda subject: subject.id
        )
        return {name: _subject(sources, project, subject) for name, subject in subjects.items()}

    return _snapshot_folder(
        sources,
        project,
        "projects",
        "subjects",
        named,
        lambda snapshot: _by_subject_id(sources, project, snapshot),
    )


def _by_subject_id(sources: Sources, project: ProjectRecord, snapshot: ProjectSnapshot) -> Mapping[str, Node]:
    return {subject.id: _subject(sources, project, subject) for subject in snapshot.subjects.values()}


def _subject(sources: Sources, project: ProjectRecord, subject: SubjectRecord) -> Branch:
    xattrs = _subject_xattrs(project, subject)

    def entries() -> Mapping[str, Node]:
        snapshot = sources.listing_service.projects.get(project.id)
        sessions = snapshot.memo.get(("sessions", subject.id), lambda: build(snapshot))
        resources = sources.listing_service.sessions.of_subject(project.id, subject.id)
        if not resources:
            return sessions
        folder = snapshot.memo.get(
            ("subject resources", subject.id),
            lambda: resources_folder(
                sources,
                ResourcePlace(project.id, subject.inserted, xattrs),
                resources,
                "projects",
                project.id,
                subject.id,
                "RESOURCES",
            ),
        )
        return {**sessions, "RESOURCES": folder}

    def build(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        named = distinct(
            snapshot.of_subject.get(subject.id, ()),
            lambda experiment: experiment.label,
            lambda experiment: experiment.id,
            _SUBJECT_RESERVED,
        )
        return {
            name: session_folder(sources, PROJECTS, project.id, experiment, xattrs)
            for name, experiment in named.items()
        }

    def alias(name: str) -> Node | None:
        snapshot = sources.listing_service.projects.get(project.id)
        experiment = next(
            (candidate for candidate in snapshot.of_subject.get(subject.id, ()) if candidate.id == name), None
        )
        return session_folder(sources, PROJECTS, project.id, experiment, xattrs) if experiment else None

    return PersonFolder(
        inode_in_order(subject.id, "projects", project.id, "subjects"),
        entries,
        partial(of_subject, sources, project.id, subject.id),
        mtime=subject.inserted,
        alias=alias,
        xattrs=xattrs,
    )


# --- archive/projects/P/{experiments,subjects} --------------------------------------------------------------


def _archive_experiments(sources: Sources, project: ProjectRecord) -> Branch:
    def named(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        experiments = distinct(
            snapshot.experiments.values(),
            lambda experiment: experiment.label,
            lambda experiment: experiment.id,
        )
        return {
            name: session_folder(sources, ARCHIVE, project.id, experiment, _xattrs(project))
            for name, experiment in experiments.items()
        }

    def by_id(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        return {
            experiment.id: session_folder(sources, ARCHIVE, project.id, experiment, _xattrs(project))
            for experiment in snapshot.experiments.values()
        }

    return _snapshot_folder(sources, project, "archive", "experiments", named, by_id)


def _archive_subjects(sources: Sources, project: ProjectRecord) -> Branch:
    def folder(subject: SubjectRecord) -> Branch:
        xattrs = _subject_xattrs(project, subject)
        where = ("archive", project.id, "subject", subject.id)

        def inner() -> Branch:
            resources = sources.listing_service.sessions.of_subject(project.id, subject.id)
            return resources_folder(
                sources,
                ResourcePlace(project.id, subject.inserted, xattrs),
                resources,
                *where,
                dicom_alias=True,
            )

        return Branch(
            inode_of(*where),
            lambda: inner().entries(),
            mtime=subject.inserted,
            alias=lambda name: inner().alias(name),
            xattrs=xattrs,
        )

    def named(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        subjects = distinct(
            snapshot.subjects.values(), lambda subject: subject.label, lambda subject: subject.id
        )
        return {name: folder(subject) for name, subject in subjects.items()}

    return _snapshot_folder(
        sources,
        project,
        "archive",
        "subjects",
        named,
        lambda snapshot: {subject.id: folder(subject) for subject in snapshot.subjects.values()},
    )


# --- helpers ------------------------------------------------------------------------------------------------


def _snapshot_folder(
    sources: Sources,
    project: ProjectRecord,
    section: str,
    what: str,
    named: _FromSnapshot,
    aliases: _FromSnapshot,
) -> Branch:
    """A folder derived from a project's snapshot and kept with them."""

    def entries() -> Mapping[str, Node]:
        snapshot = sources.listing_service.projects.get(project.id)
        return snapshot.memo.get((section, what), lambda: named(snapshot))

    def alias(name: str) -> Node | None:
        snapshot = sources.listing_service.projects.get(project.id)
        return snapshot.memo.get((section, what, "aliases"), lambda: aliases(snapshot)).get(name)

    return Branch(
        inode_of(section, project.id, what),
        entries,
        mtime=project.inserted,
        alias=alias,
        xattrs=_xattrs(project),
    )


def _xattrs(project: ProjectRecord) -> dict[str, str]:
    return {"project": project.id, "uri": f"/data/projects/{project.id}"}


def _subject_xattrs(project: ProjectRecord, subject: SubjectRecord) -> dict[str, str]:
    return {
        "project": project.id,
        "subject": subject.label,
        "subject_id": subject.id,
        "uri": f"/data/subjects/{subject.id}",
    }
