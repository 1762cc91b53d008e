"""The rooms `projects/` (for people) and `archive/` (for programs): the server's files, under labels.

`projects/P/subjects/S/E/...` has every file of the server exactly once.
`archive/projects/P/{experiments/E,subjects/S,resources}/...` has the same nodes in the layout of XNAT's own
JupyterHub mounts, which xnatpy reads with `XNAT_DATA=<mount>/archive` (xnatpy 0.8.1, `mixin.py`:
`expected_data_dir`).
Threading: any thread; nodes are built from holdings and kept with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.server.records import ProjectRecord, SubjectRecord
from xnatfs.tree.names import distinct, spell_label
from xnatfs.tree.node import Branch, Node, inode_in_order, inode_of
from xnatfs.tree.resource import ResourcePlace, Sources
from xnatfs.tree.session_folders import ARCHIVE, PROJECTS, resources_folder, session_folder

_Parts = Callable[[ProjectRecord], Mapping[str, Node]]
_FromHoldings = Callable[[ProjectSnapshot], Mapping[str, Node]]
_SUBJECT_RESERVED = frozenset({"RESOURCES"})


def projects_room(sources: Sources) -> Branch:
    """`projects/`."""
    return _listing(sources, "projects", lambda project: {"subjects": _subjects(sources, project)})


def archive_room(sources: Sources) -> Branch:
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


def _listing(sources: Sources, room: str, parts: _Parts) -> Branch:
    known: dict[ProjectRecord, Branch] = {}

    def folder(project: ProjectRecord) -> Branch:
        if project not in known:
            known[project] = _project(sources, room, project, parts)
        return known[project]

    def entries() -> Mapping[str, Node]:
        projects = sources.listing_service.projects.all()
        return {spell_label(identity): folder(project) for identity, project in projects.items()}

    return Branch(inode_of(room, "projects"), entries)


def _project(sources: Sources, room: str, project: ProjectRecord, parts: _Parts) -> Branch:
    fixed: Mapping[str, Node] = parts(project)

    def entries() -> Mapping[str, Node]:
        snapshot = sources.listing_service.projects.get(project.id)
        return snapshot.memo.get((room, "project"), lambda: build(snapshot))

    def build(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        nodes = dict(fixed)
        if snapshot.own_resources:
            place = ResourcePlace(project.id, _project_date(snapshot), _xattrs(project))
            nodes["resources"] = resources_folder(
                sources,
                place,
                snapshot.own_resources,
                room,
                project.id,
                "resources",
                dicom_alias=room == "archive",
            )
        return nodes

    return Branch(inode_of(room, project.id), entries, mtime=project.inserted, xattrs=_xattrs(project))


def _project_date(snapshot: ProjectSnapshot) -> float | None:
    """The project's own date; where the server does not tell it, the earliest of what it holds."""
    if snapshot.project.inserted is not None:
        return snapshot.project.inserted
    dates = [one.inserted for one in snapshot.subjects.values()] + [
        one.inserted for one in snapshot.experiments.values()
    ]
    return min((date for date in dates if date is not None), default=None)


# --- projects/P/subjects ------------------------------------------------------------------------------------


def _subjects(sources: Sources, project: ProjectRecord) -> Branch:
    def named(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        subjects = distinct(snapshot.subjects.values(), lambda one: one.label, lambda one: one.id)
        return {name: _subject(sources, project, one) for name, one in subjects.items()}

    return _held(
        sources,
        project,
        "projects",
        "subjects",
        named,
        lambda snapshot: _by_subject_id(sources, project, snapshot),
    )


def _by_subject_id(sources: Sources, project: ProjectRecord, snapshot: ProjectSnapshot) -> Mapping[str, Node]:
    return {one.id: _subject(sources, project, one) for one in snapshot.subjects.values()}


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
            lambda one: one.label,
            lambda one: one.id,
            _SUBJECT_RESERVED,
        )
        return {
            name: session_folder(sources, PROJECTS, project.id, one, xattrs) for name, one in named.items()
        }

    def alias(name: str) -> Node | None:
        snapshot = sources.listing_service.projects.get(project.id)
        found = next((one for one in snapshot.of_subject.get(subject.id, ()) if one.id == name), None)
        return session_folder(sources, PROJECTS, project.id, found, xattrs) if found else None

    return Branch(
        inode_in_order(subject.id, "projects", project.id, "subjects"),
        entries,
        mtime=subject.inserted,
        alias=alias,
        xattrs=xattrs,
    )


# --- archive/projects/P/{experiments,subjects} --------------------------------------------------------------


def _archive_experiments(sources: Sources, project: ProjectRecord) -> Branch:
    def named(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        found = distinct(snapshot.experiments.values(), lambda one: one.label, lambda one: one.id)
        return {
            name: session_folder(sources, ARCHIVE, project.id, one, _xattrs(project))
            for name, one in found.items()
        }

    def by_id(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        return {
            one.id: session_folder(sources, ARCHIVE, project.id, one, _xattrs(project))
            for one in snapshot.experiments.values()
        }

    return _held(sources, project, "archive", "experiments", named, by_id)


def _archive_subjects(sources: Sources, project: ProjectRecord) -> Branch:
    def folder(subject: SubjectRecord) -> Branch:
        xattrs = _subject_xattrs(project, subject)
        where = ("archive", project.id, "subject", subject.id)

        def inner() -> Branch:
            found = sources.listing_service.sessions.of_subject(project.id, subject.id)
            return resources_folder(
                sources, ResourcePlace(project.id, subject.inserted, xattrs), found, *where, dicom_alias=True
            )

        return Branch(
            inode_of(*where),
            lambda: inner().entries(),
            mtime=subject.inserted,
            alias=lambda name: inner().alias(name),
            xattrs=xattrs,
        )

    def named(snapshot: ProjectSnapshot) -> Mapping[str, Node]:
        found = distinct(snapshot.subjects.values(), lambda one: one.label, lambda one: one.id)
        return {name: folder(one) for name, one in found.items()}

    return _held(
        sources,
        project,
        "archive",
        "subjects",
        named,
        lambda snapshot: {one.id: folder(one) for one in snapshot.subjects.values()},
    )


# --- helpers ------------------------------------------------------------------------------------------------


def _held(
    sources: Sources,
    project: ProjectRecord,
    room: str,
    what: str,
    named: _FromHoldings,
    aliases: _FromHoldings,
) -> Branch:
    """A folder derived from a project's holdings and kept with them."""

    def entries() -> Mapping[str, Node]:
        snapshot = sources.listing_service.projects.get(project.id)
        return snapshot.memo.get((room, what), lambda: named(snapshot))

    def alias(name: str) -> Node | None:
        snapshot = sources.listing_service.projects.get(project.id)
        return snapshot.memo.get((room, what, "aliases"), lambda: aliases(snapshot)).get(name)

    return Branch(
        inode_of(room, project.id, what),
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
