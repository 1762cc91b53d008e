"""Experiments as they are listed by columns: what their paths mean depends on the root element (xnat-rest.md
12, 14 [X]).

A type that is neither above nor below the root is joined where the schemas relate them (scans, assessors,
subjects), else the query fails. Used by `listings` and `search`. Reads the archive on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import fields
from .access import label_in
from .columns import Join, QueryFailed, Resolved, Root, Value
from .kinds import depth, family, is_a, is_base, is_scan, known
from .model import Archive, Experiment, Reconstruction, Resource, Subject
from .roots import ListedScan, custom_column, resource_value, scan_column, share_value, subject_column
from .tables import stamp

EXPERIMENT, SUBJECT_ASSESSOR = "xnat:experimentdata", "xnat:subjectassessordata"
IMAGE_SESSION, IMAGE_ASSESSOR = "xnat:imagesessiondata", "xnat:imageassessordata"

_OWN = ("ID", "label", "project", "date", "time", "note", "visit", "visit_id", "protocol")
_SESSION = (
    "scanner",
    "operator",
    "modality",
    "UID",
    "session_type",
    "dcmAccessionNumber",
    "dcmPatientId",
    "dcmPatientName",
)
ALIASES: Mapping[str, str] = {
    **{name: f"xnat:experimentData/{name}" for name in _OWN},
    "xsiType": "xnat:experimentData/extension_item/element_name",
    "insert_date": "xnat:experimentData/meta/insert_date",
    "insert_user": "xnat:experimentData/meta/insert_user/login",
    "last_modified": "xnat:experimentData/meta/last_modified",
    "pi_firstname": "xnat:experimentData/investigator/firstname",
    "pi_lastname": "xnat:experimentData/investigator/lastname",
    **{
        f"validation_{name}": f"xnat:experimentData/validation/{name}"
        for name in ("date", "method", "notes", "status")
    },
    "subject_ID": "xnat:subjectAssessorData/subject_ID",
    "subject_label": "xnat:subjectData/label",
    "subject_project": "xnat:subjectData/project",
    "session_ID": "xnat:imageSessionData/ID",
    "session_label": "xnat:imageSessionData/label",
    "session_project": "xnat:imageSessionData/project",
    **{name: f"xnat:imageSessionData/{name}" for name in _SESSION},
    "studyInstanceUID": "xnat:imageSessionData/UID",
    **{name: f"xnat:mrSessionData/{name}" for name in ("coil", "fieldStrength", "marker")},
    **{
        name: f"xnat:petSessionData/{name}"
        for name in ("patientID", "patientName", "studyType", "stabilization")
    },
    "scan_start_time": "xnat:petSessionData/start_time_scan",
    "injection_start_time": "xnat:petSessionData/start_time_injection",
    **{
        f"tracer_{name}": f"xnat:petSessionData/tracer/{name}"
        for name in ("dose", "intermediate", "name", "startTime", "totalmass")
    },
    "tracer_isotope": "xnat:petSessionData/tracer/isotope/half-life",
    "tracer_sa": "xnat:petSessionData/tracer/specificActivity",
    "tracer_transmissions": "xnat:petSessionData/tracer/transmissions",
    "tracer_transmissions_start": "xnat:petSessionData/tracer/transmissions_starttime",
}


@dataclass(frozen=True)
class ListedExperiment:
    """An experiment in a list; `project` is the project whose labels apply, "" for the primary ones."""

    archive: Archive
    experiment: Experiment
    project: str = ""

    @property
    def subject(self) -> Subject | None:
        session = self.session
        return self.archive.subjects.get(
            self.experiment.subject_id or (session.subject_id if session is not None else "")
        )

    @property
    def session(self) -> Experiment | None:
        return self.archive.experiments.get(self.experiment.session_id)


def narrowed(archive: Archive, names: Iterable[str], root: str) -> str:
    """The root after the columns: one of a type below it narrows the rows to that type (xnat-rest.md 2.2)."""
    root = root.lower()
    for name in names:
        path = name if "/" in name else ALIASES.get(name, "")
        element = path.partition("/")[0].lower()
        if depth(element) > depth(root) and known(archive, element) and root in family(archive, element):
            root = element
    return root


def _scans_with_files(row: ListedExperiment) -> Iterable[tuple[ListedScan, Resource | None]]:
    for scan in row.experiment.scans:
        listed = ListedScan(row.experiment, scan)
        if scan.resources:
            for resource in scan.resources:
                yield listed, resource
        else:
            yield listed, None


def _reconstructions(
    row: ListedExperiment,
) -> Iterable[tuple[Reconstruction, Resource | None, Resource | None]]:
    """Every combination of a reconstruction's out and in resources: two LEFT JOINs."""
    for reconstruction in row.experiment.reconstructions:
        nothing: list[Resource | None] = [None]
        for outcome in [*reconstruction.out_resources] or nothing:
            for source in [*reconstruction.in_resources] or nothing:
                yield reconstruction, outcome, source


def _joins(archive: Archive) -> dict[str, Join]:
    def assessors(row: ListedExperiment) -> Iterable[tuple[Experiment, Resource | None]]:
        return [(item, None) for item in archive.experiments.values() if item.session_id == row.experiment.id]

    def assessor_files(row: ListedExperiment) -> Iterable[tuple[Experiment, Resource | None]]:
        for item, _ in assessors(row):
            nothing: list[Resource | None] = [None]
            for resource in [*item.out_resources] or nothing:
                yield item, resource

    joins = [
        Join(
            "scan",
            lambda row: [(ListedScan(row.experiment, scan), None) for scan in row.experiment.scans],
            "scan file",
        ),
        Join("scan file", _scans_with_files),
        Join("out", lambda row: row.experiment.out_resources),
        Join("in", lambda row: row.experiment.in_resources),
        Join("resource", lambda row: row.experiment.resources),
        Join("reconstruction", _reconstructions),
        Join("assessor", assessors, "assessor file"),
        Join("assessor file", assessor_files),
        Join("custom", lambda row: row.experiment.custom.items()),
        Join("share", lambda row: row.experiment.shares.items()),
    ]
    return {join.name: join for join in joins}


@dataclass(frozen=True)
class _Paths:
    """How paths are understood under one root element."""

    archive: Archive
    root: str

    def resolve(self, path: str) -> Resolved | None:
        element, _, name = path.partition("/")
        if not known(self.archive, element):
            return None
        bases = family(self.archive, self.root)
        if is_scan(element) or element == "xnat:reconstructedimagedata":
            if IMAGE_SESSION not in bases:
                raise QueryFailed(path)
            return scan_column(element, name) if is_scan(element) else _reconstruction_column(name)
        if element == "xnat:subjectdata":
            if SUBJECT_ASSESSOR not in bases:
                raise QueryFailed(path)
            return self._subject(name)
        if depth(element) < 0:
            raise QueryFailed(path)
        ancestors = family(self.archive, element)
        if IMAGE_SESSION in bases and IMAGE_ASSESSOR in ancestors:
            return self._assessor(element, name)
        if IMAGE_ASSESSOR in bases and IMAGE_SESSION in ancestors:
            read = fields.of_experiment(self.archive, element, name)
            if read is None:
                raise QueryFailed(path)
            return "", lambda row: read(row.session) if row.session is not None else "", True
        return self._own(element, name, ancestors)

    def _subject(self, name: str) -> Resolved:
        if name == "label":
            return "", lambda row: label_in(row.subject, row.project) if row.subject is not None else "", True
        return "", subject_column(name, lambda row: row.subject), not name.startswith("meta/")

    def _assessor(self, element: str, name: str) -> Resolved:
        """An assessor's field beside its session."""
        if name.startswith("out/file/"):
            read = resource_value(name[len("out/file/") :])
            return "assessor file", lambda pair: read(pair[1]), False
        field = fields.of_experiment(self.archive, element, name)
        if field is None:
            raise QueryFailed(name)
        return "assessor", lambda pair: field(pair[0]) if is_a(pair[0], element) else "", False

    def _own(self, element: str, name: str, ancestors: tuple[str, ...]) -> Resolved:
        """A field of the listed experiment; blank where it is not of the type."""
        if name == "meta/last_modified":
            return "", experiment_stamp(element), element == EXPERIMENT
        if name == "label" and element == EXPERIMENT:
            return "", lambda row: label_in(row.experiment, row.project), True
        if name == "project" and element == EXPERIMENT:
            return "", lambda row: row.project or row.experiment.project, True
        below = self._below(element, name, ancestors)
        if below is not None:
            return below
        read = fields.of_experiment(self.archive, element, name)
        if read is None:
            raise QueryFailed(name)
        proven = name != "custom_fields"
        return "", lambda row: read(row.experiment) if is_a(row.experiment, element) else "", proven

    def _below(self, element: str, name: str, ancestors: tuple[str, ...]) -> Resolved | None:
        """What hangs at an experiment: resources, custom variables, shares, scans."""
        if name.startswith("resources/resource/"):
            return "resource", resource_value(name[len("resources/resource/") :]), False
        custom = custom_column(name)
        if custom is not None:
            return "custom", custom, False
        if name.startswith("sharing/share/"):
            return "share", share_value(name[len("sharing/share/") :]), False
        if name.startswith(("out/file/", "in/file/")):
            if IMAGE_ASSESSOR not in ancestors:
                raise QueryFailed(name)
            way, _, field = name.replace("/file/", " ", 1).partition(" ")
            return way, resource_value(field), name == "out/file/label"
        if IMAGE_SESSION in ancestors and name.startswith("scans/scan/"):
            return scan_column("xnat:imagescandata", name[len("scans/scan/") :])
        if IMAGE_SESSION in ancestors and name.startswith("reconstructions/reconstructedimage/"):
            return _reconstruction_column(name[len("reconstructions/reconstructedimage/") :])
        if IMAGE_SESSION in ancestors and name.startswith("assessors/assessor/"):
            return self._assessor(IMAGE_ASSESSOR, name[len("assessors/assessor/") :])
        return None


def experiment_stamp(element: str) -> Value:
    """`<type>/meta/last_modified`: a base type's row moves with own fields only, the concrete type's with
    everything (xnat-rest.md 13).
    """
    if is_base(element):
        return lambda row: stamp(row.experiment.last_modified) if is_a(row.experiment, element) else ""
    return lambda row: (
        stamp(row.experiment.type_modified) if row.experiment.xsi_type.lower() == element else ""
    )


_OF_RECONSTRUCTION: dict[str, Value] = {
    "id": lambda recon: recon.id,
    "type": lambda recon: recon.type,
    "basescantype": lambda recon: recon.base_scan_type,
    "xnat_reconstructedimagedata_id": lambda recon: str(recon.number),
}


def _reconstruction_column(name: str) -> Resolved:
    if name.startswith(("out/file/", "in/file/")):
        read = resource_value(name.partition("/file/")[2])
        place = 1 if name.startswith("out/") else 2
        return "reconstruction", lambda joined: read(joined[place]), False
    value_of = _OF_RECONSTRUCTION.get(name)
    if value_of is None:
        raise QueryFailed(name)
    return "reconstruction", lambda joined: value_of(joined[0]), False


def experiments(archive: Archive, root: str) -> Root:
    """The experiments of a root element."""
    return Root(ALIASES, _joins(archive), _Paths(archive, root.lower()).resolve)
