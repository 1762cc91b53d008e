"""An experiment as a folder: SCANS, ASSESSORS, RECONSTRUCTIONS and RESOURCES, for both sections that show
sessions.

Used by `projects` and `archive`, which differ only in how they name a scan and where they put the resources
of a non-imaging experiment.
Threading: any thread; nodes are built from snapshots and kept with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from xnatfs.listing.snapshot import SessionSnapshot
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
    natural,
)
from xnatfs.tree.names import distinct, scan_folder
from xnatfs.tree.node import Branch, Node, in_order, inode_in_order, inode_of
from xnatfs.tree.people_xattrs import PersonFolder, of_session
from xnatfs.tree.resource import ResourcePlace, Sources, resource_folder


@dataclass(frozen=True)
class Style:
    """How a section shows sessions: its name, what it calls a scan, and whether a non-imaging experiment's
    resources lie at its top.
    """

    section: str
    scan_name: Callable[[ScanRecord], str]
    flat_when_not_imaging: bool = False
    dicom_alias: bool = False  # xnatpy asks for the folder `DICOM` wherever the resource's *format* is DICOM


PROJECTS = Style("projects", scan_folder)
ARCHIVE = Style("archive", lambda scan: scan.id, flat_when_not_imaging=True, dicom_alias=True)


def session_folder(
    sources: Sources, style: Style, project: str, experiment: ExperimentRecord, base: Mapping[str, str]
) -> Branch:
    """The folder of an experiment; `base` are attributes of its project and subject."""
    view = _SessionFolder(sources, style, project, experiment, _experiment_xattrs(experiment, base))
    return PersonFolder(
        inode_in_order(experiment.id, style.section, project, "experiments"),
        view.top,
        partial(of_session, sources, project, experiment),
        mtime=experiment.inserted,
        xattrs=view.xattrs,
    )


def experiment_place(project: str, experiment: ExperimentRecord) -> ResourcePlace:
    """Where the resources of an experiment hang, for sections that show no sessions."""
    base = {"project": project, "subject": experiment.subject_label, "subject_id": experiment.subject_id}
    return ResourcePlace(project, experiment.inserted, _experiment_xattrs(experiment, base))


def scan_place(project: str, experiment: ExperimentRecord, scan: ScanRecord) -> ResourcePlace:
    """Where the resources of a scan hang."""
    place = experiment_place(project, experiment)
    return ResourcePlace(project, place.mtime, _scan_xattrs(place.xattrs, experiment, scan))


def assessor_place(project: str, experiment: ExperimentRecord, assessor: AssessorRecord) -> ResourcePlace:
    """Where the resources of an assessor hang."""
    place = experiment_place(project, experiment)
    mtime = assessor.inserted if assessor.inserted is not None else experiment.inserted
    return ResourcePlace(project, mtime, _assessor_xattrs(place.xattrs, experiment, assessor))


def _experiment_xattrs(experiment: ExperimentRecord, base: Mapping[str, str]) -> dict[str, str]:
    xattrs = {
        **base,
        "id": experiment.id,
        "label": experiment.label,
        "xsiType": experiment.xsi_type,
        "date": experiment.date,
        "uri": f"/data/experiments/{experiment.id}",
    }
    return {name: value for name, value in xattrs.items() if value}


def _scan_xattrs(base: Mapping[str, str], experiment: ExperimentRecord, scan: ScanRecord) -> dict[str, str]:
    xattrs = {
        "scan": scan.id,
        "scan_type": scan.type,
        "series_description": scan.series_description,
        "quality": scan.quality,
    }
    return _with(base, xattrs, experiment, f"scans/{scan.id}")


def _assessor_xattrs(
    base: Mapping[str, str], experiment: ExperimentRecord, assessor: AssessorRecord
) -> dict[str, str]:
    xattrs = {
        "assessor": assessor.id,
        "assessor_label": assessor.label,
        "assessor_xsiType": assessor.xsi_type,
    }
    return _with(base, xattrs, experiment, f"assessors/{assessor.id}")


def _with(
    base: Mapping[str, str], xattrs: Mapping[str, str], experiment: ExperimentRecord, below: str
) -> dict[str, str]:
    merged = {**base, **xattrs, "uri": f"/data/experiments/{experiment.id}/{below}"}
    return {name: value for name, value in merged.items() if value}


class _SessionFolder:
    """One experiment in one section."""

    def __init__(
        self,
        sources: Sources,
        style: Style,
        project: str,
        experiment: ExperimentRecord,
        xattrs: Mapping[str, str],
    ) -> None:
        self._sources = sources
        self._style = style
        self._project = project
        self._experiment = experiment
        self.xattrs = xattrs

    def top(self) -> Mapping[str, Node]:
        session = self._sources.listing_service.sessions.get(self._project, self._experiment.id)
        return session.memo.get((self._style.section, self._project), lambda: self._build(session))

    def _build(self, session: SessionSnapshot) -> Mapping[str, Node]:
        nodes: dict[str, Node] = {}
        own_resources = session.of("experiment")
        if self._style.flat_when_not_imaging and not session.scans and not self._experiment.may_have_scans:
            return self._resources(own_resources, self.xattrs, "").entries()
        if session.scans:
            scans = sorted(session.scans, key=lambda scan: natural(scan.id))
            by_id = {scan.id: scan for scan in scans}
            named = distinct(scans, self._style.scan_name, lambda scan: scan.id)
            folders = {name: self._scan(session, scan) for name, scan in named.items()}
            of_id = {scan.id: folders[name] for name, scan in named.items()}
            nodes["SCANS"] = self._branch(
                "SCANS", folders, lambda name: of_id[name] if name in by_id else None, self._scans_listed
            )
        if session.assessors:
            named_assessors = distinct(
                sorted(session.assessors, key=lambda assessor: (assessor.label, assessor.id)),
                lambda assessor: assessor.label,
                lambda assessor: assessor.id,
            )
            assessors = {
                name: self._assessor(session, assessor) for name, assessor in named_assessors.items()
            }
            assessors_by_id = {assessor.id: assessors[name] for name, assessor in named_assessors.items()}
            nodes["ASSESSORS"] = self._branch("ASSESSORS", assessors, assessors_by_id.get)
        if session.reconstructions:
            named_recons = distinct(
                sorted(session.reconstructions, key=lambda reconstruction: natural(reconstruction.id)),
                lambda reconstruction: reconstruction.id,
                lambda reconstruction: reconstruction.id,
            )
            nodes["RECONSTRUCTIONS"] = self._branch(
                "RECONSTRUCTIONS",
                {
                    name: self._reconstruction(session, reconstruction)
                    for name, reconstruction in named_recons.items()
                },
            )
        if own_resources:
            nodes["RESOURCES"] = self._resources(own_resources, self.xattrs, "RESOURCES")
        return nodes

    def _scans_listed(self) -> None:
        self._sources.content_manager.scans_listed(self._experiment.id)

    def _scan(self, session: SessionSnapshot, scan: ScanRecord) -> Branch:
        xattrs = _scan_xattrs(self.xattrs, self._experiment, scan)
        return self._resources(session.of("scan", scan.id), xattrs, f"SCANS/{scan.id}")

    def _assessor(self, session: SessionSnapshot, assessor: AssessorRecord) -> Branch:
        mtime = assessor.inserted if assessor.inserted is not None else self._experiment.inserted
        resources = session.of("assessor", assessor.id)
        xattrs = _assessor_xattrs(self.xattrs, self._experiment, assessor)
        return self._resources(resources, xattrs, f"ASSESSORS/{assessor.id}", mtime)

    def _reconstruction(self, session: SessionSnapshot, reconstruction: ReconstructionRecord) -> Branch:
        xattrs = {"reconstruction": reconstruction.id, "reconstruction_type": reconstruction.type}
        resources = session.of("reconstruction", reconstruction.id)
        named = _with(self.xattrs, xattrs, self._experiment, f"reconstructions/{reconstruction.id}")
        return self._resources(resources, named, f"RECONSTRUCTIONS/{reconstruction.id}")

    def _resources(
        self,
        resources: list[ResourceRecord],
        xattrs: Mapping[str, str],
        where: str,
        mtime: float | None = None,
    ) -> Branch:
        stamp = self._experiment.inserted if mtime is None else mtime
        identity = (self._style.section, self._project, self._experiment.id, where)
        return resources_folder(
            self._sources,
            ResourcePlace(self._project, stamp, xattrs),
            resources,
            *identity,
            dicom_alias=self._style.dicom_alias,
        )

    def _branch(
        self,
        name: str,
        nodes: Mapping[str, Branch],
        alias: Callable[[str], Node | None] | None = None,
        listed: Callable[[], None] | None = None,
    ) -> Branch:
        inode = inode_of(self._style.section, self._project, self._experiment.id, name)
        in_order(inode, nodes)
        return Branch(
            inode,
            lambda: nodes,
            mtime=self._experiment.inserted,
            alias=alias,
            xattrs=self.xattrs,
            listed=listed,
        )


def resources_folder(
    sources: Sources,
    place: ResourcePlace,
    resources: list[ResourceRecord],
    *where: str,
    dicom_alias: bool = False,
) -> Branch:
    """A folder of resources by label; the numeric id is an alias."""
    ordered = sorted(
        resources, key=lambda resource: (resource.label, resource.id or 0, resource.owner.direction)
    )
    named = distinct(
        ordered,
        lambda resource: resource.label,
        lambda resource: resource.id if resource.id is not None else resource.owner.direction or "unlabelled",
    )
    folders: dict[str, Branch] = {
        name: resource_folder(sources, place, resource, *where, name) for name, resource in named.items()
    }
    in_order(inode_of(*where), folders)
    aliases = {str(resource.id): folders[name] for name, resource in named.items() if resource.id is not None}

    def alias(name: str) -> Node | None:
        if name == "DICOM" and dicom_alias and name not in aliases:
            # xnatpy asks for this name wherever the *format* is DICOM; bulk listings have no formats.
            detailed = list(resources)
            if not any(resource.format for resource in detailed):
                detailed = [
                    resource
                    for owner in {resource.owner for resource in resources}
                    for resource in sources.listing_service.sessions.resources_of(owner)
                ]
            dicom = {
                key
                for resource in detailed
                if resource.format.upper() == "DICOM"
                for key in (resource.id, resource.label)
            }
            matches = (
                folders[name]
                for name, resource in named.items()
                if (resource.label if resource.id is None else resource.id) in dicom
            )
            return next(matches, None)
        return aliases.get(name)

    return Branch(inode_of(*where), lambda: folders, mtime=place.mtime, alias=alias, xattrs=place.xattrs)
