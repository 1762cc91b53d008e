"""What can be listed by columns: experiments, subjects, scans; their aliases, joins and xpaths (fact sheet 2.2, 2.9).

Used by `listings` and `search`. Reads the archive on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .access import label_in
from .columns import Join, Root, Value
from .kinds import is_a, is_base
from .model import Archive, Experiment, Reconstruction, Resource, Scan, Subject
from .tables import stamp


@dataclass(frozen=True)
class ListedExperiment:
    """An experiment in a list; `project` is the project listed (its labels apply), "" for lists of the whole server."""

    archive: Archive
    experiment: Experiment
    project: str = ""

    @property
    def subject(self) -> Subject | None:
        session = self.session
        return self.archive.subjects.get(self.experiment.subject_id or (session.subject_id if session is not None else ""))

    @property
    def session(self) -> Experiment | None:
        return self.archive.experiments.get(self.experiment.session_id)

    @property
    def subject_label(self) -> str:
        return label_in(self.subject, self.project) if self.subject is not None else ""


@dataclass(frozen=True)
class ListedSubject:
    """A subject in a list; `project` as for experiments."""

    subject: Subject
    project: str = ""


@dataclass(frozen=True)
class ListedScan:
    """A scan in its session."""

    session: Experiment
    scan: Scan


_EXPERIMENT_ALIASES: dict[str, tuple[str, Value]] = {
    "ID": ("xnat:experimentData/ID", lambda row: row.experiment.id),
    "label": ("xnat:experimentData/label", lambda row: label_in(row.experiment, row.project)),
    "project": ("xnat:experimentData/project", lambda row: row.project or row.experiment.project),
    "date": ("xnat:experimentData/date", lambda row: row.experiment.date),
    "time": ("xnat:experimentData/time", lambda row: row.experiment.time),
    "note": ("xnat:experimentData/note", lambda row: row.experiment.note),
    "xsiType": ("xnat:experimentData/extension_item/element_name", lambda row: row.experiment.xsi_type),
    "subject_ID": ("xnat:subjectAssessorData/subject_ID", lambda row: row.subject.id if row.subject else ""),
    "subject_label": ("xnat:subjectData/label", lambda row: row.subject_label),
    "subject_project": ("xnat:subjectData/project", lambda row: row.subject.project if row.subject else ""),
    "session_ID": ("xnat:imageAssessorData/imageSession_ID", lambda row: row.experiment.session_id),
    "session_label": ("xnat:imageSessionData/label", lambda row: label_in(row.session, row.project) if row.session else ""),
    "session_project": ("xnat:imageSessionData/project", lambda row: row.session.project if row.session else ""),
    "insert_date": ("xnat:experimentData/meta/insert_date", lambda row: stamp(row.experiment.insert_date)),
    "insert_user": ("xnat:experimentData/meta/insert_user/login", lambda row: row.experiment.insert_user),
    "last_modified": ("xnat:experimentData/meta/last_modified", lambda row: stamp(row.experiment.last_modified)),
    "modality": ("xnat:imageSessionData/modality", lambda row: _field(row.experiment, "modality")),
    "UID": ("xnat:imageSessionData/UID", lambda row: _field(row.experiment, "uid")),
    "scanner": ("xnat:imageSessionData/scanner", lambda row: _field(row.experiment, "scanner")),
}
_SUBJECT_ALIASES: dict[str, tuple[str, Value]] = {
    "ID": ("xnat:subjectData/ID", lambda row: row.subject.id),
    # Shared subjects: the label is replaced, the project is not (fact sheet 2.8).
    "project": ("xnat:subjectData/project", lambda row: row.subject.project),
    "label": ("xnat:subjectData/label", lambda row: label_in(row.subject, row.project)),
    "group": ("xnat:subjectData/group", lambda row: row.subject.group),
    "src": ("xnat:subjectData/src", lambda row: ""),
    "gender": ("xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/gender", lambda row: row.subject.gender),
    "yob": ("xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/yob", lambda row: row.subject.yob),
    "dob": ("xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/dob", lambda row: ""),
    "age": ("xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/age", lambda row: ""),
    "handedness": ("xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/handedness", lambda row: ""),
    "insert_date": ("xnat:subjectData/meta/insert_date", lambda row: stamp(row.subject.insert_date)),
    "insert_user": ("xnat:subjectData/meta/insert_user/login", lambda row: row.subject.insert_user),
    "last_modified": ("xnat:subjectData/meta/last_modified", lambda row: stamp(row.subject.last_modified)),
}
_SCAN_ALIASES: dict[str, tuple[str, Value]] = {
    "xnat_imagescandata_id": ("xnat:imageScanData/xnat_imagescandata_id", lambda row: str(row.scan.number)),
    "ID": ("xnat:imageScanData/ID", lambda row: row.scan.id),
    "type": ("xnat:imageScanData/type", lambda row: row.scan.type),
    "quality": ("xnat:imageScanData/quality", lambda row: row.scan.quality),
    "xsiType": ("xnat:imageScanData/extension_item/element_name", lambda row: row.scan.xsi_type),
    "note": ("xnat:imageScanData/note", lambda row: row.scan.note),
    "series_description": ("xnat:imageScanData/series_description", lambda row: row.scan.series_description),
    "UID": ("xnat:imageScanData/UID", lambda row: row.scan.uid),
    "frames": ("xnat:imageScanData/frames", lambda row: row.scan.frames),
    "modality": ("xnat:imageScanData/modality", lambda row: row.scan.xsi_type[5:7].upper()),
    "scanTime": ("xnat:imageScanData/startTime", lambda row: row.scan.start_time),
    "insert_date": ("xnat:imageScanData/meta/insert_date", lambda row: stamp(row.session.insert_date)),
    "last_modified": ("xnat:imageScanData/meta/last_modified", lambda row: stamp(row.scan.last_modified)),
}
# Fields of a scan under its own element; the partner of the joins is a pair (scan, resource or None).
_SCAN_FIELDS: dict[str, Value] = {
    path.partition("/")[2].lower(): value for path, value in _SCAN_ALIASES.values() if "extension_item" not in path and "/meta/" not in path
}
_RESOURCE_FIELDS: dict[str, Value] = {
    "label": lambda resource: resource.label,
    "file_count": lambda resource: resource.file_count,
    "file_size": lambda resource: resource.file_size,
    "xnat_abstractresource_id": lambda resource: str(resource.id),
    "format": lambda resource: resource.format,
    "content": lambda resource: resource.content,
    "meta/last_modified": lambda resource: stamp(resource.last_modified),
}
_RECONSTRUCTION_FIELDS: dict[str, Value] = {
    "id": lambda recon: recon.id,
    "type": lambda recon: recon.type,
    "basescantype": lambda recon: recon.base_scan_type,
    "xnat_reconstructedimagedata_id": lambda recon: str(recon.number),
}


def _field(experiment: Experiment, name: str) -> str:
    """A further field of the item, found without regard to case."""
    return next((value for path, value in experiment.fields.items() if path.lower() == name), "")


def _scans_with_files(row: ListedExperiment) -> Iterable[tuple[ListedScan, Resource | None]]:
    for scan in row.experiment.scans:
        listed = ListedScan(row.experiment, scan)
        if scan.resources:
            for resource in scan.resources:
                yield listed, resource
        else:
            yield listed, None


def _reconstructions(row: ListedExperiment) -> Iterable[tuple[Reconstruction, Resource | None, Resource | None]]:
    """Every combination of a reconstruction's out and in resources: two LEFT JOINs."""
    for reconstruction in row.experiment.reconstructions:
        nothing: list[Resource | None] = [None]
        for outcome in [*reconstruction.out_resources] or nothing:
            for source in [*reconstruction.in_resources] or nothing:
                yield reconstruction, outcome, source


_EXPERIMENT_JOINS = {
    "scan": Join("scan", lambda row: [(ListedScan(row.experiment, scan), None) for scan in row.experiment.scans], "scan file"),
    "scan file": Join("scan file", _scans_with_files),
    "out": Join("out", lambda row: row.experiment.out_resources),
    "in": Join("in", lambda row: row.experiment.in_resources),
    "resource": Join("resource", lambda row: row.experiment.resources),
    "reconstruction": Join("reconstruction", _reconstructions),
}


def _joined(join: str, fields: dict[str, Value], name: str, proven: bool) -> tuple[str, Value, bool]:
    value = fields.get(name, lambda _: "")
    return join, value, proven


def _scan_column(element: str, rest: str) -> tuple[str, Value, bool]:
    """`xnat:imageScanData/...`; a concrete type such as xnat:mrScanData joins only its own scans."""
    concrete = "" if element == "xnat:imagescandata" else element

    def of_type(scan: ListedScan) -> bool:
        return not concrete or scan.scan.xsi_type.lower() == concrete

    if rest.startswith("file/"):
        field = rest[5:]
        read = _RESOURCE_FIELDS.get(field, lambda _: "")

        def file_value(pair: tuple[ListedScan, Resource | None]) -> str:
            return read(pair[1]) if pair[1] is not None and of_type(pair[0]) else ""

        return "scan file", file_value, field == "label"
    if rest == "meta/last_modified":
        # The stamp of the base type's row, or of the concrete type's: two rows, two stamps (fact sheet 13 [X]).
        def scan_stamp(pair: tuple[ListedScan, Resource | None]) -> str:
            scan = pair[0].scan
            return stamp(scan.type_modified if concrete else scan.last_modified) if of_type(pair[0]) else ""

        return "scan", scan_stamp, False
    field_value = _SCAN_FIELDS.get(rest, lambda _: "")

    def value(pair: tuple[ListedScan, Resource | None]) -> str:
        return field_value(pair[0]) if of_type(pair[0]) else ""

    return "scan", value, True


def _reconstruction_column(rest: str) -> tuple[str, Value, bool]:
    if rest.startswith(("out/file/", "in/file/")):
        read = _RESOURCE_FIELDS.get(rest.rpartition("/")[2], lambda _: "")
        place = 1 if rest.startswith("out/") else 2
        return "reconstruction", lambda joined: read(joined[place]) if joined[place] is not None else "", False
    own = _RECONSTRUCTION_FIELDS.get(rest, lambda _: "")
    return "reconstruction", lambda joined: own(joined[0]), False


def _experiment_xpath(path: str) -> tuple[str, Value, bool] | None:
    element, _, rest = path.partition("/")
    if element.endswith("scandata"):
        return _scan_column(element, rest)
    if element == "xnat:reconstructedimagedata":
        return _reconstruction_column(rest)
    if element == "xnat:subjectdata":
        return _subject_of_experiment(rest)
    if rest == "meta/last_modified":
        return "", _experiment_stamp(element), False
    if rest.startswith("scans/scan/"):
        return _scan_column("xnat:imagescandata", rest[len("scans/scan/") :])
    if rest.startswith("reconstructions/reconstructedimage/"):
        return _reconstruction_column(rest[len("reconstructions/reconstructedimage/") :])
    for prefix, join, proven in (("out/file/", "out", True), ("in/file/", "in", False), ("resources/resource/", "resource", False)):
        if rest.startswith(prefix):
            field = rest[len(prefix) :]
            return _joined(join, _RESOURCE_FIELDS, field, proven and field == "label")
    for registered, value in _EXPERIMENT_ALIASES.values():
        own_element, _, own_rest = registered.lower().partition("/")
        # Not session_label & co: they are fields of another object.
        if own_rest == rest and own_element in ("xnat:experimentdata", "xnat:subjectassessordata", "xnat:imageassessordata"):
            return "", value, True
    return "", lambda row: _field(row.experiment, rest), True


def _experiment_stamp(element: str) -> Value:
    """`<type>/meta/last_modified`: a base type's row moves with own fields only, the concrete type's with everything (fact sheet 13)."""
    if is_base(element):
        return lambda row: stamp(row.experiment.last_modified) if is_a(row.experiment, element) else ""
    return lambda row: stamp(row.experiment.type_modified) if row.experiment.xsi_type.lower() == element else ""


def _subject_of_experiment(rest: str) -> tuple[str, Value, bool] | None:
    for registered, value in _SUBJECT_ALIASES.values():
        if registered.lower() == f"xnat:subjectdata/{rest}":
            return "", _through_subject(value), not rest.startswith("meta/")
    return None


def _through_subject(value: Value) -> Value:
    return lambda row: value(ListedSubject(row.subject, row.project)) if row.subject is not None else ""


def _subject_xpath(path: str) -> tuple[str, Value, bool] | None:
    element, _, rest = path.partition("/")
    if element != "xnat:subjectdata":
        return None
    if rest.startswith("resources/resource/"):
        return _joined("resource", _RESOURCE_FIELDS, rest[len("resources/resource/") :], False)
    if rest.startswith("demographics/"):
        alias = rest.partition("/")[2]
        found = _SUBJECT_ALIASES.get(alias)
        return ("", found[1], True) if found is not None else None
    return None


def _scan_xpath(path: str) -> tuple[str, Value, bool] | None:
    element, _, rest = path.partition("/")
    found = _SCAN_FIELDS.get(rest)
    return ("", found, True) if element.endswith("scandata") and found is not None else None


_PROJECT_ALIASES: dict[str, tuple[str, Value]] = {
    "ID": ("xnat:projectData/ID", lambda project: project.id),
    "secondary_ID": ("xnat:projectData/secondary_ID", lambda project: project.secondary_id),
    "name": ("xnat:projectData/name", lambda project: project.name),
    "description": ("xnat:projectData/description", lambda project: project.description),
    "pi_firstname": ("xnat:projectData/PI/firstname", lambda project: project.pi_firstname),
    "pi_lastname": ("xnat:projectData/PI/lastname", lambda project: project.pi_lastname),
    "keywords": ("xnat:projectData/keywords", lambda project: ""),
    "alias": ("xnat:projectData/aliases/alias/alias", lambda project: ""),
}


def _project_xpath(path: str) -> tuple[str, Value, bool] | None:
    element, _, rest = path.partition("/")
    if element != "xnat:projectdata":
        return None
    if rest.startswith("resources/resource/"):
        return _joined("resource", _RESOURCE_FIELDS, rest[len("resources/resource/") :], False)
    if rest == "meta/last_modified":
        return "", lambda project: stamp(project.last_modified), False
    if rest == "meta/insert_date":
        return "", lambda project: stamp(project.insert_date), False
    return None


PROJECTS = Root(_PROJECT_ALIASES, {"resource": Join("resource", lambda project: project.resources)}, _project_xpath)
EXPERIMENTS = Root(_EXPERIMENT_ALIASES, _EXPERIMENT_JOINS, _experiment_xpath)
SUBJECTS = Root(_SUBJECT_ALIASES, {"resource": Join("resource", lambda row: row.subject.resources)}, _subject_xpath)
SCANS = Root(_SCAN_ALIASES, {}, _scan_xpath)
