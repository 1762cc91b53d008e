"""Which fields the data types have, and how they are read off the objects (schemas of 2016, as far as anybody
asks for them).

A field that a standard type has not makes a query fail; of other types (FreeSurfer's, say) every field is
taken to exist. Used by `roots` and `items`. Pure, any thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .kinds import ancestors, standard
from .model import Archive, Experiment, Project, Resource, Scan, Subject
from .tables import stamp


def json_column(fields: Mapping[str, Any]) -> str:
    """1.8's custom fields where they are listed: a column of JSON in the schemas since 1.8.6 [I]."""
    return json.dumps(fields, ensure_ascii=False) if fields else ""


_EXPERIMENT: dict[str, str] = {
    "xnat:experimentdata": "id project label date time duration note delay version original visit "
    "visit_id protocol acquisition_site "
    "investigator/firstname investigator/lastname validation/status validation/date validation/method "
    "validation/notes",
    "xnat:subjectassessordata": "subject_id age",
    "xnat:imagesessiondata": "session_type modality uid scanner scanner/manufacturer scanner/model "
    "operator dcmaccessionnumber "
    "dcmpatientid dcmpatientname dcmpatientbirthdate dcmpatientweight prearchivepath study_id",
    "xnat:imageassessordata": "imagesession_id",
    "xnat:mrsessiondata": "coil fieldstrength marker stabilization",
    "xnat:petsessiondata": "patientid patientname studytype stabilization start_time_scan "
    "start_time_injection tracer/name "
    "tracer/starttime tracer/dose tracer/specificactivity tracer/totalmass tracer/intermediate "
    "tracer/isotope/half-life "
    "tracer/transmissions tracer/transmissions_starttime",
    "xnat:qcmanualassessordata": "rater pass payable rescan stereotacticmarker incidentalfindings comments",
}
_BY_TYPE = {element: frozenset(names.split()) for element, names in _EXPERIMENT.items()}
_FLOATS = frozenset({"height", "weight", "birth_weight", "gestational_age", "post_menstrual_age"})

_OF_EXPERIMENT: dict[str, Callable[[Experiment], str]] = {
    "id": lambda item: item.id,
    "label": lambda item: item.label,
    "project": lambda item: item.project,
    "date": lambda item: item.date,
    "time": lambda item: f"{item.time}.000" if item.time and "." not in item.time else item.time,
    "note": lambda item: item.note,
    "subject_id": lambda item: item.subject_id,
    "imagesession_id": lambda item: item.session_id,
    "extension_item/element_name": lambda item: item.xsi_type,
    "meta/insert_date": lambda item: stamp(item.insert_date),
    "meta/insert_user/login": lambda item: item.insert_user,
    "meta/status": lambda item: item.status,
    "custom_fields": lambda item: json_column(item.custom_fields),
}
OF_SCAN: dict[str, Callable[[Scan], str]] = {
    "xnat_imagescandata_id": lambda scan: str(scan.number),
    "id": lambda scan: scan.id,
    "type": lambda scan: scan.type,
    "quality": lambda scan: scan.quality,
    "note": lambda scan: scan.note,
    "series_description": lambda scan: scan.series_description,
    "uid": lambda scan: scan.uid,
    "frames": lambda scan: scan.frames,
    "modality": lambda scan: scan.xsi_type[5:7].upper(),
    "starttime": lambda scan: scan.start_time,
    "extension_item/element_name": lambda scan: scan.xsi_type,
}
# Those of xnat:abstractResource: format and content belong to derived types and make a query fail.
OF_RESOURCE: dict[str, Callable[[Resource], str]] = {
    "label": lambda resource: resource.label,
    "file_count": lambda resource: resource.file_count,
    "file_size": lambda resource: resource.file_size,
    "xnat_abstractresource_id": lambda resource: str(resource.id),
    "note": lambda _: "",
    "extension_item/element_name": lambda _: "xnat:resourceCatalog",
    "meta/last_modified": lambda resource: stamp(resource.last_modified),
}
OF_SUBJECT: dict[str, Callable[[Subject], str]] = {
    "id": lambda subject: subject.id,
    "label": lambda subject: subject.label,
    "project": lambda subject: subject.project,
    "group": lambda subject: subject.group,
    "src": lambda subject: subject.fields.get("src", ""),
    "meta/insert_date": lambda subject: stamp(subject.insert_date),
    "meta/insert_user/login": lambda subject: subject.insert_user,
    "meta/last_modified": lambda subject: stamp(subject.last_modified),
    "meta/status": lambda _: "active",
    "custom_fields": lambda subject: json_column(subject.custom_fields),
}
DEMOGRAPHICS = (
    *(
        "gender",
        "yob",
        "dob",
        "age",
        "handedness",
        "ses",
        "education",
        "educationDesc",
        "race",
        "ethnicity",
        "weight",
        "height",
    ),
    *("gestational_age", "post_menstrual_age", "birth_weight"),
)
OF_PROJECT: dict[str, Callable[[Project], str]] = {
    "id": lambda project: project.id,
    "secondary_id": lambda project: project.secondary_id,
    "name": lambda project: project.name,
    "description": lambda project: project.description,
    "pi/firstname": lambda project: project.pi_firstname,
    "pi/lastname": lambda project: project.pi_lastname,
    "keywords": lambda _: "",
    "aliases/alias/alias": lambda _: "",
    "meta/last_modified": lambda project: stamp(project.last_modified),
    "meta/insert_date": lambda project: stamp(project.insert_date),
    "meta/status": lambda _: "active",
}


def number(name: str, value: str, floats: Collection[str] = _FLOATS) -> str:
    """A value as the database writes it: `40` of a floating-point field is `40.0`."""
    if name in floats and value.replace(".", "", 1).isdigit():
        return str(float(value))
    return value


def demographic(subject: Subject, name: str) -> str:
    """A demographic field by its name in lower case."""
    if name == "gender":
        return subject.gender
    if name == "yob":
        return subject.yob
    return number(name, next((value for key, value in subject.fields.items() if key.lower() == name), ""))


def further(experiment: Experiment, name: str) -> str:
    """A further field of an experiment, found without regard to case."""
    # The age of a session is a floating-point number, that of a subject is not.
    return number(
        name, next((value for path, value in experiment.fields.items() if path.lower() == name), ""), ("age",)
    )


def of_experiment(archive: Archive, element: str, name: str) -> Callable[[Experiment], str] | None:
    """How a field of an experiment type is read (both in lower case); None if the type has no such field."""
    if name in _OF_EXPERIMENT:
        return _OF_EXPERIMENT[name]
    family = ancestors(element)
    known = any(name in _BY_TYPE.get(xsi_type, ()) for xsi_type in family)
    if (
        known
        or not standard(element)
        or any(name == path.lower() for item in archive.experiments.values() for path in item.fields)
    ):
        return lambda item: further(item, name)
    return None
