"""The section `views/`: one sequence, or one resource, over a whole project (or a list of sessions).

    views/PROJECT/by-scan-type/<TYPE>/{usable,all}/<RESOURCE>/...          NIFTI: one flat folder; others: a
                                                                           folder a scan
                 /by-description/<SERIES DESCRIPTION>/{usable,all}/<RESOURCE>/...
                 /by-resource/<RESOURCE>/<SESSION>/...                     resources of sessions
                 /by-scan-resource/<RESOURCE>/<SESSION>/<SCAN>/...         of scans
                 /by-assessor-resource/<RESOURCE>/<SESSION>/<ASSESSOR>/... of assessors
                 /bids/...                                                 a BIDS dataset: bids_view.py
                 /nifti/<SUBJECT>/<SESSION>/<SCAN>/...                     made of DICOM: nifti_view.py

Used by `root` and `lists`. Every file is the node it is in `projects/`: one cache entry, one size, one date.
Threading: any thread; what is derived from listings is kept with them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.records import Owner, ProjectRecord, ResourceRecord, ScanRecord, natural
from xnatfs.tree.bids_view import bids_folder
from xnatfs.tree.flat import FlatFolder, FlatPart, flat_nodes
from xnatfs.tree.generated import rendered
from xnatfs.tree.names import distinct, scan_folder, spell_label
from xnatfs.tree.nifti_view import nifti_folder
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
_FLAT_TTL_S = 5.0  # until then the listings of a flat folder are not compared again
_TYPE_README = """\
Scans of {what} {name!r} of {title}: {all} in all, {usable} of quality "usable", {unrated} without a quality \
(those are in all/ only).

usable/RESOURCE/   scans whose quality is "usable"
all/RESOURCE/      every scan
NIfTI files lie side by side as SUBJECT_SESSION_SCAN_SESSIONID.EXT; a second file of one kind has its own \
name before the extension.
"""


@dataclass
class _Kind:
    """The scans of one type or description."""

    name: str
    scans: list[tuple[Member, ScanRecord]] = field(default_factory=list)


def views_folder(sources: Sources) -> Branch:
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
        return {
            spell_label(project.id): folder(project)
            for project in sources.listing_service.projects.all().values()
        }

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
        "nifti": nifti_folder(sources, scope),
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
            sorted(kinds.values(), key=lambda kind: kind.name),
            lambda kind: kind.name or _NO_TYPE,
            lambda _: "type",
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

    usable = _Kind(kind.name, [entry for entry in kind.scans if entry[1].quality == "usable"])
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
    cached: list[tuple[float, list[FileIndex], Mapping[str, Node]]] = []  # one, replaced as a whole

    def entries() -> Mapping[str, Node]:
        # Every look-up of a file comes here, and 20,000 listings are not gone through for each. (Another
        # listing of the project, as after a refresh, makes another folder.)
        if cached and time.monotonic() < cached[0][0]:
            return cached[0][2]
        with sources.working(" / ".join(where[1:]), len(parts)) as progress:
            listings = sources.listing_service.files.indexes_of(
                [(part.resource, part.experiment.changed) for part in parts], progress
            )
        same = bool(cached) and all(old is new for old, new in zip(cached[0][1], listings, strict=True))
        nodes = cached[0][2] if same else flat_nodes(sources, parts, listings)
        cached[:] = [(time.monotonic() + min(_FLAT_TTL_S, sources.settings.limits.ttl), listings, nodes)]
        return nodes

    return FlatFolder(inode_of(*where), entries)


def _scan_folders(sources: Sources, where: tuple[str, ...], parts: list[FlatPart]) -> Branch:
    def label(part: FlatPart) -> str:
        session = part.experiment
        return f"{session.subject_label}_{session.label}_{scan_folder(part.scan)}_{session.id}"

    cache: dict[str, Mapping[str, Node]] = {}

    def entries() -> Mapping[str, Node]:
        if "nodes" not in cache:
            named = distinct(
                parts, label, lambda part: part.resource.id if part.resource.id is not None else part.scan.id
            )
            cache["nodes"] = {
                name: resource_folder(sources, part.place, part.resource, *where, name)
                for name, part in named.items()
            }
        return cache["nodes"]

    return Branch(inode_of(*where), entries)


# --- by resource --------------------------------------------------------------------------------------------


class _Placement(NamedTuple):
    """A resource in a view: its session, the folder below it ("" for none), and what makes its node."""

    member: Member
    folder: str
    resource: ResourceRecord
    make: Callable[..., Node]


_Placements = list[_Placement]


def _by_resource(
    sources: Sources, scope: SessionScope, what: str, find: Callable[[Snapshot], _Placements]
) -> Branch:
    where = ("views", *scope.identity, what)

    def build(snapshot: Snapshot) -> Mapping[str, Node]:
        labels: dict[str, _Placements] = {}
        for placed in find(snapshot):
            labels.setdefault(placed.resource.label, []).append(placed)
        named = distinct(sorted(labels), lambda label: label, lambda _: _UNLABELLED)
        return {
            name: Branch(inode_of(*where, label), _constant(_sessions((*where, label), labels[label])))
            for name, label in named.items()
        }

    return Branch(inode_of(*where), lambda: scope.kept(what, build))


def _sessions(where: tuple[str, ...], placements: _Placements) -> Mapping[str, Node]:
    sessions: dict[Member, _Placements] = {}
    for placed in placements:
        sessions.setdefault(placed.member, []).append(placed)
    named = distinct(sessions, lambda member: member.experiment.label, lambda member: member.experiment.id)
    nodes: dict[str, Node] = {}
    for name, member in named.items():
        in_session = sessions[member]
        here = (*where, member.experiment.id)
        if in_session[0].folder == "" and len(in_session) == 1:
            nodes[name] = in_session[0].make(*here)
            continue
        below = distinct(
            in_session,
            lambda placed: placed.folder or str(placed.resource.id),
            lambda placed: placed.resource.id or placed.resource.owner.direction or "other",
        )
        inner = {folder: placed.make(*here, folder) for folder, placed in below.items()}
        nodes[name] = Branch(inode_of(*here), _constant(inner), mtime=member.experiment.inserted)
    return nodes


def _own(sources: Sources, snapshot: Snapshot) -> _Placements:
    placed: _Placements = []
    for project, project_snapshot in snapshot.project_snapshots.items():
        members = [member for member in snapshot.members if member.project == project]
        unknown = [
            member.experiment.id
            for member in members
            if member.experiment.id not in project_snapshot.complete
        ]
        summary = None
        if unknown:
            summary = sources.summaries.get(project)
            unknown = [identity for identity in unknown if identity in summary.experiments]
            with sources.working(f"resources of the sessions of {project}", len(unknown)):
                sources.summaries.look_into(summary, unknown)
        for member in members:
            identity = member.experiment.id
            if identity in project_snapshot.complete:
                resources = project_snapshot.resources.get(Owner("experiment", identity), [])
            else:
                resources = (summary.session_resources(identity) if summary is not None else None) or []
            place = experiment_place(project, member.experiment)
            placed += [
                _Placement(member, "", resource, partial(resource_folder, sources, place, resource))
                for resource in resources
            ]
    return placed


def _of_scans(sources: Sources, snapshot: Snapshot) -> _Placements:
    placed: _Placements = []
    for member in snapshot.members:
        for scan, resources in sorted(
            scans_of(sources, snapshot, member), key=lambda entry: natural(entry[0].id)
        ):
            place = scan_place(member.project, member.experiment, scan)
            for resource in resources:
                placed.append(
                    _Placement(
                        member,
                        scan_folder(scan),
                        resource,
                        partial(resource_folder, sources, place, resource),
                    )
                )
    return placed


def _of_assessors(sources: Sources, snapshot: Snapshot) -> _Placements:
    placed: _Placements = []
    for member in snapshot.members:
        project_snapshot, identity = snapshot.project_snapshots[member.project], member.experiment.id
        if identity in project_snapshot.complete and identity not in project_snapshot.assessors:
            continue
        session = sources.listing_service.sessions.get(member.project, identity)
        for assessor in sorted(session.assessors, key=lambda assessor: (assessor.label, assessor.id)):
            place = assessor_place(member.project, member.experiment, assessor)
            for resource in session.of("assessor", assessor.id):
                placed.append(
                    _Placement(
                        member, assessor.label, resource, partial(resource_folder, sources, place, resource)
                    )
                )
    return placed


def _constant(nodes: Mapping[str, Node]) -> Callable[[], Mapping[str, Node]]:
    return lambda: nodes
