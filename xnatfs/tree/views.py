"""The room `views/`: one sequence, or one resource, over a whole project (or a list of sessions).

    views/PROJECT/by-scan-type/<TYPE>/{usable,all}/<RESOURCE>/...          NIFTI: one flat folder; others: a
    folder a scan
                 /by-description/<SERIES DESCRIPTION>/{usable,all}/<RESOURCE>/...
                 /by-resource/<RESOURCE>/<SESSION>/...                     resources of sessions
                 /by-scan-resource/<RESOURCE>/<SESSION>/<SCAN>/...         of scans
                 /by-assessor-resource/<RESOURCE>/<SESSION>/<ASSESSOR>/... of assessors
                 /bids/...                                              a BIDS dataset: bids.py

Used by `root` and `lists`. Every file is the node it is in `projects/`: one cache entry, one size, one date.
Threading: any thread; what is derived from listings is kept with them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.records import Owner, ProjectRecord, ResourceRecord, ScanRecord, natural
from xnatfs.tree.bids_view import bids_folder
from xnatfs.tree.flat import FlatFolder, FlatPart, flat_nodes
from xnatfs.tree.generated import rendered
from xnatfs.tree.names import distinct, scan_folder, spell_label
from xnatfs.tree.node import Branch, Node, inode_of
from xnatfs.tree.resource import ResourcePlace, Sources, resource_folder
from xnatfs.tree.scope import (
    Member,
    SessionScope,
    Snapshot,
    project_scope,
    scan_records,
    scan_resources,
    scans_of,
)
from xnatfs.tree.session_folders import assessor_place, experiment_place, scan_place

_FLAT = re.compile(r"nifti.*|nii", re.IGNORECASE)
_NO_TYPE = "(none)"
_UNLABELLED = "unlabelled"
_SAME_FOR = 5.0  # seconds for which the listings of a flat folder are not looked through again
_TYPE_README = """\
Scans of {what} {name!r} of {title}: {all} in all, {usable} of quality "usable", {unrated} without a quality
(those are in all/ only).

usable/RESOURCE/   scans whose quality is "usable"
all/RESOURCE/      every scan
NIfTI files lie side by side as SUBJECT_SESSION_SCAN_SESSIONID.EXT; further files with the same extension
have their own name before it.
"""


@dataclass
class _Kind:
    """The scans of one type or description."""

    name: str
    scans: list[tuple[Member, ScanRecord]] = field(default_factory=list)


def views_room(sources: Sources) -> Branch:
    """`views/`."""

    known: dict[ProjectRecord, Branch] = {}

    def folder(project: ProjectRecord) -> Branch:
        if project not in known:
            nodes = scope_views(sources, project_scope(sources, project.id))
            known[project] = Branch(
                inode_of("views", project.id),
                lambda: _visible(sources, project.id, nodes),
                mtime=project.inserted,
            )
        return known[project]

    def entries() -> Mapping[str, Node]:
        return {spell_label(one.id): folder(one) for one in sources.listing_service.projects.all().values()}

    return Branch(inode_of("views"), entries)


def _visible(sources: Sources, project: str, nodes: Mapping[str, Node]) -> Mapping[str, Node]:
    sources.listing_service.projects.get(project)  # a project that is not this user's any more has no views
    return nodes


def scope_views(sources: Sources, scope: SessionScope) -> dict[str, Node]:
    """The views of a scope."""
    return {
        "by-scan-type": _by_kind(sources, scope, "type", lambda scan: scan.type),
        "by-description": _by_kind(sources, scope, "description", lambda scan: scan.series_description),
        "by-resource": _by_resource(sources, scope, "by-resource", partial(_own, sources)),
        "by-scan-resource": _by_resource(sources, scope, "by-scan-resource", partial(_of_scans, sources)),
        "by-assessor-resource": _by_resource(
            sources, scope, "by-assessor-resource", partial(_of_assessors, sources)
        ),
        "bids": bids_folder(sources, scope, sources.bids_map),
    }


# --- by type, by description --------------------------------------------------------------------------------


def _by_kind(
    sources: Sources, scope: SessionScope, what: str, kind_of: Callable[[ScanRecord], str]
) -> Branch:
    where = ("views", *scope.identity, what)

    def build(snapshot: Snapshot) -> Mapping[str, Node]:
        kinds: dict[str, _Kind] = {}
        with sources.working(" / ".join(where[1:]), len(snapshot.members)) as progress:
            for number, member in enumerate(snapshot.members):
                progress(number, len(snapshot.members))
                for scan in scan_records(sources, snapshot, member):
                    kinds.setdefault(kind_of(scan), _Kind(kind_of(scan))).scans.append((member, scan))
        named = distinct(
            sorted(kinds.values(), key=lambda one: one.name),
            lambda one: one.name or _NO_TYPE,
            lambda one: "type",
        )
        return {
            name: _kind_folder(sources, scope, snapshot, what, where, kind) for name, kind in named.items()
        }

    return Branch(inode_of(*where), lambda: scope.kept(what, build))


def _kind_folder(
    sources: Sources, scope: SessionScope, snapshot: Snapshot, what: str, where: tuple[str, ...], kind: _Kind
) -> Branch:
    here = (*where, kind.name)

    def text() -> bytes:
        usable = sum(1 for _, scan in kind.scans if scan.quality == "usable")
        unrated = sum(1 for _, scan in kind.scans if not scan.quality)
        return _TYPE_README.format(
            what=what, name=kind.name, title=scope.title, all=len(kind.scans), usable=usable, unrated=unrated
        ).encode("utf-8", "backslashreplace")

    usable = _Kind(kind.name, [one for one in kind.scans if one[1].quality == "usable"])
    nodes: dict[str, Node] = {
        "README.txt": rendered("/".join((*here, "README.txt")), text),
        "usable": _quality_folder(sources, snapshot, (*here, "usable"), usable),
        "all": _quality_folder(sources, snapshot, (*here, "all"), kind),
    }
    return Branch(inode_of(*here), lambda: nodes)


def _quality_folder(sources: Sources, snapshot: Snapshot, where: tuple[str, ...], kind: _Kind) -> Branch:
    def build() -> Mapping[str, Node]:
        parts: dict[str, list[FlatPart]] = {}
        with sources.working(" / ".join(where[1:]), len(kind.scans)) as progress:
            for number, (member, scan) in enumerate(kind.scans):
                progress(number, len(kind.scans))
                place: ResourcePlace | None = None
                for resource in scan_resources(sources, snapshot, member, scan):
                    place = place or scan_place(member.project, member.experiment, scan)
                    parts.setdefault(resource.label, []).append(
                        FlatPart(member.experiment, scan, resource, place)
                    )
        named = distinct(sorted(parts), lambda label: label, lambda _: _UNLABELLED)
        return {
            name: (_flat_folder if _FLAT.fullmatch(label) else _scan_folders)(
                sources, (*where, label), parts[label]
            )
            for name, label in named.items()
        }

    return Branch(inode_of(*where), lambda: snapshot.memo.get(("quality", where), build))


def _flat_folder(sources: Sources, where: tuple[str, ...], parts: list[FlatPart]) -> Branch:
    held: list[tuple[float, list[FileIndex], Mapping[str, Node]]] = []  # one, replaced as a whole

    def entries() -> Mapping[str, Node]:
        # Every look-up of a file comes here, and 20,000 listings are not gone through for each. (Another
        # listing of the project, as after a refresh, makes another folder.)
        if held and time.monotonic() < held[0][0]:
            return held[0][2]
        with sources.working(" / ".join(where[1:]), len(parts)) as progress:
            listings = sources.listing_service.files.indexes_of(
                [(one.resource, one.experiment.changed) for one in parts], progress
            )
        same = bool(held) and all(old is new for old, new in zip(held[0][1], listings, strict=True))
        nodes = held[0][2] if same else flat_nodes(sources, parts, listings)
        held[:] = [(time.monotonic() + min(_SAME_FOR, sources.settings.limits.ttl), listings, nodes)]
        return nodes

    return FlatFolder(inode_of(*where), entries)


def _scan_folders(sources: Sources, where: tuple[str, ...], parts: list[FlatPart]) -> Branch:
    def label(part: FlatPart) -> str:
        return f"{part.experiment.subject_label}_{part.experiment.label}_{scan_folder(part.scan)}_{part.experiment.id}"

    kept: dict[str, Mapping[str, Node]] = {}

    def entries() -> Mapping[str, Node]:
        if "nodes" not in kept:
            named = distinct(
                parts, label, lambda part: part.resource.id if part.resource.id is not None else part.scan.id
            )
            kept["nodes"] = {
                name: resource_folder(sources, part.place, part.resource, *where, name)
                for name, part in named.items()
            }
        return kept["nodes"]

    return Branch(inode_of(*where), entries)


# --- by resource --------------------------------------------------------------------------------------------

_Found = list[
    tuple[Member, str, ResourceRecord, Callable[..., Node]]
]  # session, folder below it ("" for none), the resource, what makes it


def _by_resource(
    sources: Sources, scope: SessionScope, what: str, find: Callable[[Snapshot], _Found]
) -> Branch:
    where = ("views", *scope.identity, what)

    def build(snapshot: Snapshot) -> Mapping[str, Node]:
        labels: dict[str, _Found] = {}
        for one in find(snapshot):
            labels.setdefault(one[2].label, []).append(one)
        named = distinct(sorted(labels), lambda label: label, lambda _: _UNLABELLED)
        return {
            name: Branch(inode_of(*where, label), _constant(_sessions((*where, label), labels[label])))
            for name, label in named.items()
        }

    return Branch(inode_of(*where), lambda: scope.kept(what, build))


def _sessions(where: tuple[str, ...], found: _Found) -> Mapping[str, Node]:
    sessions: dict[Member, _Found] = {}
    for one in found:
        sessions.setdefault(one[0], []).append(one)
    named = distinct(sessions, lambda member: member.experiment.label, lambda member: member.experiment.id)
    nodes: dict[str, Node] = {}
    for name, member in named.items():
        theirs = sessions[member]
        here = (*where, member.experiment.id)
        if theirs[0][1] == "" and len(theirs) == 1:
            nodes[name] = theirs[0][3](*here)
            continue
        below = distinct(
            theirs,
            lambda one: one[1] or str(one[2].id),
            lambda one: one[2].id or one[2].owner.direction or "other",
        )
        inner = {inner: one[3](*here, inner) for inner, one in below.items()}
        nodes[name] = Branch(inode_of(*here), _constant(inner), mtime=member.experiment.inserted)
    return nodes


def _own(sources: Sources, snapshot: Snapshot) -> _Found:
    found: _Found = []
    for project, project_snapshots in snapshot.project_snapshots.items():
        theirs = [member for member in snapshot.members if member.project == project]
        unknown = [
            member.experiment.id
            for member in theirs
            if member.experiment.id not in project_snapshots.complete
        ]
        summary = None
        if unknown:
            summary = sources.summaries.get(project)
            unknown = [one for one in unknown if one in summary.experiments]
            with sources.working(f"resources of the sessions of {project}", len(unknown)):
                sources.summaries.look_into(summary, unknown)
        for member in theirs:
            identity = member.experiment.id
            if identity in project_snapshots.complete:
                own = project_snapshots.resources.get(Owner("experiment", identity), [])
            else:
                own = (summary.session_resources(identity) if summary is not None else None) or []
            place = experiment_place(project, member.experiment)
            found += [
                (member, "", resource, partial(resource_folder, sources, place, resource)) for resource in own
            ]
    return found


def _of_scans(sources: Sources, snapshot: Snapshot) -> _Found:
    found: _Found = []
    for member in snapshot.members:
        for scan, resources in sorted(
            scans_of(sources, snapshot, member), key=lambda one: natural(one[0].id)
        ):
            place = scan_place(member.project, member.experiment, scan)
            for resource in resources:
                found.append(
                    (member, scan_folder(scan), resource, partial(resource_folder, sources, place, resource))
                )
    return found


def _of_assessors(sources: Sources, snapshot: Snapshot) -> _Found:
    found: _Found = []
    for member in snapshot.members:
        project_snapshots, identity = snapshot.project_snapshots[member.project], member.experiment.id
        if identity in project_snapshots.complete and identity not in project_snapshots.assessors:
            continue
        session = sources.listing_service.sessions.get(member.project, identity)
        for assessor in sorted(session.assessors, key=lambda one: (one.label, one.id)):
            place = assessor_place(member.project, member.experiment, assessor)
            for resource in session.of("assessor", assessor.id):
                found.append(
                    (member, assessor.label, resource, partial(resource_folder, sources, place, resource))
                )
    return found


def _constant(nodes: Mapping[str, Node]) -> Callable[[], Mapping[str, Node]]:
    return lambda: nodes
