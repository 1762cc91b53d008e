"""What can be listed by columns: projects, subjects, scans, and (through `sessions`) experiments: aliases,
joins, paths.

Which aliases there are and what they stand for is XNAT's table (xnat-rest.md 2.2), how paths are joined is as
executed (12, 14 [X]). Used by `listings` and `search`. Reads the archive on the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import fields
from .access import label_in
from .columns import Join, QueryFailed, Resolved, Root, Value
from .kinds import is_a, is_scan, known
from .model import Archive, Experiment, Resource, Scan, Subject
from .tables import stamp


@dataclass(frozen=True)
class ListedSubject:
    """A subject in a list; `project` is the project listed (its labels apply), "" for lists of the whole
    server.
    """

    subject: Subject
    project: str = ""


@dataclass(frozen=True)
class ListedScan:
    """A scan in its session."""

    session: Experiment
    scan: Scan


SUBJECT_ALIASES: Mapping[str, str] = {
    **{name: f"xnat:subjectData/{name}" for name in ("ID", "label", "project", "group", "src")},
    **{
        name: f"xnat:subjectData/demographics[@xsi:type=xnat:demographicData]/{name}"
        for name in fields.DEMOGRAPHICS
    },
    "pi_firstname": "xnat:subjectData/investigator/firstname",
    "pi_lastname": "xnat:subjectData/investigator/lastname",
    "insert_date": "xnat:subjectData/meta/insert_date",
    "insert_user": "xnat:subjectData/meta/insert_user/login",
    "last_modified": "xnat:subjectData/meta/last_modified",
}
SCAN_ALIASES: Mapping[str, str] = {
    **{
        name: f"xnat:imageScanData/{name}"
        for name in ("xnat_imagescandata_id", "ID", "type", "quality", "note", "series_description")
    },
    **{name: f"xnat:imageScanData/{name}" for name in ("UID", "frames", "modality")},
    "xsiType": "xnat:imageScanData/extension_item/element_name",
    "scanTime": "xnat:imageScanData/startTime",
    "insert_date": "xnat:imageScanData/meta/insert_date",
    "last_modified": "xnat:imageScanData/meta/last_modified",
}
_PROJECT_ALIASES: Mapping[str, str] = {
    **{
        name: f"xnat:projectData/{name}" for name in ("ID", "secondary_ID", "name", "description", "keywords")
    },
    "alias": "xnat:projectData/aliases/alias/alias",
    "pi_firstname": "xnat:projectData/PI/firstname",
    "pi_lastname": "xnat:projectData/PI/lastname",
}
_DEMOGRAPHIC_PATH = re.compile(r"demographics\[@xsi:type=xnat:demographicdata\]/(\w+)")
_CUSTOM_PATH = re.compile(r"fields/field(?:\[[^]]*\])?/(name|field)")


def resource_value(name: str) -> Value:
    """A field of a joined resource; the partner may be None."""
    read = fields.OF_RESOURCE.get(name)
    if read is None:
        raise QueryFailed(name)
    return lambda resource: read(resource) if resource is not None else ""


def custom_column(name: str) -> Value | None:
    """A custom variable: the name in the brackets is not looked at, every variable makes a row (xnat-rest.md
    14 [X]).
    """
    match = _CUSTOM_PATH.fullmatch(name)
    if match is None:
        return None
    place = 0 if match[1] == "name" else 1
    return lambda pair: pair[place]


def share_value(name: str) -> Value:
    """`sharing/share/project` or `.../label`; the partner is a pair of both."""
    if name not in ("project", "label"):
        raise QueryFailed(name)
    place = ("project", "label").index(name)
    return lambda pair: pair[place] or ""


def subject_column(name: str, of: Callable[[Any], Subject | None]) -> Value:
    """A field of a subject that a row is or belongs to; QueryFailed for one it has not."""
    read: Callable[[Subject], str] | None = fields.OF_SUBJECT.get(name)
    match = _DEMOGRAPHIC_PATH.fullmatch(name)
    if match is not None and match[1] in {field.lower() for field in fields.DEMOGRAPHICS}:
        field = match[1]
        # mypy could not tell two defs apart
        read = lambda subject: fields.demographic(subject, field)  # noqa: E731
    elif name.startswith("investigator/"):
        read = lambda _: ""  # noqa: E731
    if read is None:
        raise QueryFailed(name)
    chosen = read

    def value(row: Any) -> str:
        subject = of(row)
        return chosen(subject) if subject is not None else ""

    return value


def subjects(archive: Archive) -> Root:
    """Subjects; experiments can be joined to them."""

    def resolve(path: str) -> Resolved | None:
        element, _, name = path.partition("/")
        if not known(archive, element):
            return None
        if element == "xnat:subjectdata":
            return _subject_path(name)
        if element == "xnat:demographicdata" and name in {field.lower() for field in fields.DEMOGRAPHICS}:
            return "", lambda row: fields.demographic(row.subject, name), False
        read = None if is_scan(element) else fields.of_experiment(archive, element, name)
        if read is None or element in (
            "xnat:projectdata",
            "xnat:reconstructedimagedata",
            "xnat:demographicdata",
        ):
            raise QueryFailed(path)
        return "experiment", lambda item: read(item) if is_a(item, element) else "", False

    def experiments(row: ListedSubject) -> Iterable[Experiment]:
        return [
            item
            for item in archive.experiments.values()
            if item.subject_id == row.subject.id and not item.is_assessor
        ]

    joins = {
        "resource": Join("resource", lambda row: row.subject.resources),
        "custom": Join("custom", lambda row: row.subject.custom.items()),
        "share": Join("share", lambda row: row.subject.shares.items()),
        "experiment": Join("experiment", experiments),
    }
    return Root(SUBJECT_ALIASES, joins, resolve)


def _subject_path(name: str) -> Resolved:
    if name == "label":
        # In a project's list the label is the one it has there, the project its primary one (xnat-rest.md
        # 2.8, 12).
        return "", lambda row: label_in(row.subject, row.project), True
    if name.startswith("resources/resource/"):
        return "resource", resource_value(name[len("resources/resource/") :]), False
    custom = custom_column(name)
    if custom is not None:
        return "custom", custom, False
    if name.startswith("sharing/share/"):
        return "share", share_value(name[len("sharing/share/") :]), False
    return "", subject_column(name, lambda row: row.subject), name != "custom_fields"


def scan_column(element: str, name: str) -> Resolved:
    """`xnat:imageScanData/...`; a concrete type such as xnat:mrScanData joins only its own scans. The partner
    is (scan, resource).
    """
    concrete = "" if element == "xnat:imagescandata" else element

    def of_type(scan: ListedScan) -> bool:
        return not concrete or scan.scan.xsi_type.lower() == concrete

    if name.startswith("file/"):
        read = resource_value(name[5:])

        def file_value(pair: tuple[ListedScan, Resource | None]) -> str:
            return read(pair[1]) if of_type(pair[0]) else ""

        return "scan file", file_value, name == "file/label"
    if name.startswith("meta/"):
        return "scan", _scan_meta(name, concrete, of_type), False
    field = fields.OF_SCAN.get(name)
    if field is None and not concrete:
        raise QueryFailed(name)

    def value(pair: tuple[ListedScan, Resource | None]) -> str:
        return field(pair[0].scan) if field is not None and of_type(pair[0]) else ""

    return "scan", value, True


def _scan_meta(name: str, concrete: str, of_type: Callable[[ListedScan], bool]) -> Value:
    """Two rows, two stamps: the base type's moves with own fields, the concrete type's with resources too
    (xnat-rest.md 13 [X]).
    """
    if name not in ("meta/last_modified", "meta/insert_date"):
        raise QueryFailed(name)

    def value(pair: tuple[ListedScan, Resource | None]) -> str:
        scan = pair[0].scan
        if not of_type(pair[0]):
            return ""
        if name == "meta/insert_date":
            return stamp(pair[0].session.insert_date)
        return stamp(scan.type_modified if concrete else scan.last_modified)

    return value


def scans(archive: Archive) -> Root:
    """The scans of a session."""

    def resolve(path: str) -> Resolved | None:
        element, _, name = path.partition("/")
        if not known(archive, element):
            return None
        if not is_scan(element):
            raise QueryFailed(path)
        join, value, proven = scan_column(element, name)
        if join == "scan file":
            return "file", lambda pair: value(pair), proven
        return (
            "",
            lambda row: value((row, None)),
            proven or name in ("meta/last_modified", "meta/insert_date"),
        )

    def files(row: ListedScan) -> Iterable[tuple[ListedScan, Resource]]:
        return [(row, resource) for resource in row.scan.resources]

    return Root(SCAN_ALIASES, {"file": Join("file", files)}, resolve)


def projects(archive: Archive) -> Root:
    """Projects with their resources."""

    def resolve(path: str) -> Resolved | None:
        element, _, name = path.partition("/")
        if not known(archive, element):
            return None
        if element == "xnat:projectdata" and name.startswith("resources/resource/"):
            return "resource", resource_value(name[len("resources/resource/") :]), False
        if element != "xnat:projectdata" or name not in fields.OF_PROJECT:
            raise QueryFailed(path)
        return "", fields.OF_PROJECT[name], not name.startswith("meta/")

    return Root(_PROJECT_ALIASES, {"resource": Join("resource", lambda project: project.resources)}, resolve)
