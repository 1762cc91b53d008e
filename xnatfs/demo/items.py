"""One object in full: item JSON and XML (xnat-rest.md 2.6, xnat-rest.md 15.4 and 15.12).

An item is a tree of type, data fields and children; both formats are written from it.
Used by `routes`. Reads the archive on the event loop.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any

from .access import View
from .addresses import Address, Target
from .call import Call
from .fields import DEMOGRAPHICS
from .model import Archive, Experiment, Project, Reconstruction, Scan, Subject
from .placed_resources import (
    PlacedResource,
    of_assessor,
    of_experiment,
    of_project,
    of_reconstruction,
    of_scan,
    of_subject,
)
from .reply import HttpError, Reply, page
from .tables import wanted_format

Value = str | int | float

_ROOTS = {
    "xnat:projectData": "xnat:Project",
    "xnat:subjectData": "xnat:Subject",
    "xnat:mrSessionData": "xnat:MRSession",
    "xnat:petSessionData": "xnat:PETSession",
    "xnat:ctSessionData": "xnat:CTSession",
    "xnat:mrScanData": "xnat:MRScan",
    "xnat:petScanData": "xnat:PETScan",
    "xnat:ctScanData": "xnat:CTScan",
}
# Fields that are attributes in XNAT's schema; the rest are elements.
_ATTRIBUTES = frozenset(
    [
        "ID",
        "label",
        "project",
        "type",
        "UID",
        "URI",
        "format",
        "content",
        "secondary_ID",
        "file_count",
        "file_size",
        "group",
        "visit_id",
    ]
)
_HIDDEN = re.compile(r"id|xnat_\w+_id")


@dataclass
class Item:
    """A node: its xsi type, its fields by path, and its children by the path they hang at."""

    xsi_type: str
    fields: dict[str, Value]
    started: datetime | None = None
    children: list[tuple[str, list[Item]]] = field(default_factory=list)
    event: int = 0

    def with_children(self, name: str, items: Iterable[Item]) -> None:
        """Hang children in; XNAT names no empty branch."""
        children = list(items)
        if children:
            self.children.append((name, children))


def item(call: Call, address: Address, target: Target) -> Reply:
    """The item an address ends with; HTML unless a format is asked for."""
    kind = wanted_format(call.query, call.accept, ("html", "xml", "json"))
    built = _build(address, target, call.view)
    _prune(built, call.lacks)
    if kind == "json":
        body = json.dumps({"items": [as_json(built)]}, ensure_ascii=False, separators=(",", ":"))
        return Reply(200, body.encode(), [("Content-Type", "application/json")], "listing")
    if kind == "xml":
        return Reply(200, as_xml(built).encode(), [("Content-Type", "text/xml")], "listing")
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in built.fields.items()
    )
    return page(
        f"<!DOCTYPE "
        f"html>\n<html><head><title>{escape(built.xsi_type)}</title></head><body><table>{rows}</table></body></html>"
    )


def _build(address: Address, target: Target, view: View) -> Item:
    if address.last == "scans" and target.scans:
        return _scan(*target.scans[0], view.archive)
    if address.last == "assessors" and target.assessors:
        return _experiment(target.assessors[0], view)
    if address.last == "reconstructions" and target.reconstructions:
        return _reconstruction(*target.reconstructions[0])
    if address.last == "experiments" and target.experiments:
        return _experiment(target.experiment, view)
    if address.last == "subjects" and target.subject is not None:
        return _subject(target.subject, view)
    if address.last == "projects" and target.project is not None:
        return _project(target.project)
    raise HttpError(404)


def _prune(built: Item, lacks: str) -> None:
    """Leave out the children that come from a table which cannot be read; the rest is answered as if nothing
    were missing.
    """
    if not lacks:
        return
    if lacks == "*":
        built.children = []
    elif lacks == "assessors":
        built.children = [child for child in built.children if child[0] != "assessors/assessor"]
    elif lacks == "xnat_imagescandata":
        built.children = [child for child in built.children if child[0] != "scans/scan"]
    elif lacks == "img_assessor_out_resource" and built.xsi_type != "xnat:reconstructedImageData":
        built.children = [child for child in built.children if child[0] != "out/file"]
    elif lacks == "xnat_subjectdata_resource" and built.xsi_type == "xnat:subjectData":
        built.children = [child for child in built.children if child[0] != "resources/resource"]
    for _, items in built.children:
        for child in items:
            _prune(child, lacks)


def _filled(fields: dict[str, Value]) -> dict[str, Value]:
    """XNAT leaves empty fields out."""
    return {name: value for name, value in fields.items() if value != ""}


def _resource(placed: PlacedResource, started: datetime | None) -> Item:
    resource = placed.resource
    fields: dict[str, Value] = {
        "label": resource.label,
        "xnat_abstractresource_id": resource.id,
        "xnat_abstractResource_id": resource.id,
        "URI": f"/data/xnat/archive/{placed.catalog_path}",
        "format": resource.format,
        "content": resource.content,
    }
    if resource.stats_known:
        fields |= {"file_count": int(resource.file_count), "file_size": int(resource.file_size)}
    return Item("xnat:resourceCatalog", _filled(fields), started)


def _scan(session: Experiment, scan: Scan, archive: Archive) -> Item:
    fields: dict[str, Value] = {
        "ID": scan.id,
        "UID": scan.uid,
        "type": scan.type,
        "quality": scan.quality,
        "series_description": scan.series_description,
        "note": scan.note,
        "frames": _number(scan.frames),
        "startTime": scan.start_time,
        "image_session_ID": session.id,
        "xnat_imagescandata_id": scan.number,
        "xnat_imageScanData_id": scan.number,
        "project": session.project,
    }
    started = scan.last_modified or session.insert_date
    built = Item(scan.xsi_type, _filled(fields), started)
    built.with_children("file", (_resource(placed, started) for placed in of_scan(session, scan)))
    shares = [
        Item("xnat:imageScanData_share", {"project": project, "label": scan.id}) for project in session.shares
    ]
    for share in shares:
        share.fields["xnat_imageScanData_share_id"] = _place(
            archive, session, lambda item: [*item.shares, *item.scans][: len(item.shares)]
        )
    built.with_children("sharing/share", shares)
    return built


def _reconstruction(session: Experiment, recon: Reconstruction) -> Item:
    fields: dict[str, Value] = {
        "ID": recon.id,
        "type": recon.type,
        "baseScanType": recon.base_scan_type,
        "image_session_ID": session.id,
        "xnat_reconstructedImageData_id": recon.number,
    }
    built = Item("xnat:reconstructedImageData", _filled(fields), session.insert_date)
    built.with_children(
        "in/file",
        (_resource(placed, session.insert_date) for placed in of_reconstruction(session, recon, "in")),
    )
    built.with_children(
        "out/file",
        (_resource(placed, session.insert_date) for placed in of_reconstruction(session, recon, "out")),
    )
    return built


def _place(archive: Archive, wanted: Experiment, parts: Callable[[Experiment], Sequence[object]]) -> int:
    """The number a row of this experiment has in a table of its own: rows are counted in the order of the
    experiments.
    """
    before = itertools.takewhile(lambda item: item is not wanted, archive.experiments.values())
    return 1 + sum(len(parts(item)) for item in before)


def _number(value: str) -> Value:
    return int(value) if value.isdigit() else value


def _experiment(experiment: Experiment, view: View) -> Item:
    """A session with everything below it, under its primary label."""
    fields: dict[str, Value] = {
        "ID": experiment.id,
        "id": experiment.id,
        "label": experiment.label,
        "project": experiment.project,
        "date": experiment.date,
        "time": experiment.time,
        "note": experiment.note,
        **experiment.fields,
    }
    if "age" in fields:
        fields["age"] = _number(str(fields["age"]))
    fields["imageSession_ID" if experiment.is_assessor else "subject_ID"] = (
        experiment.session_id or experiment.subject_id
    )
    stamp = experiment.insert_date
    built = Item(experiment.xsi_type, _filled(fields), stamp)
    archive = view.archive
    first = _place(archive, experiment, lambda item: list(item.shares))
    shares = [
        Item(
            "xnat:experimentData_share",
            _filled(
                {"project": project, "label": label or "", "xnat_experimentData_share_id": first + number}
            ),
        )
        for number, (project, label) in enumerate(experiment.shares.items())
    ]
    built.with_children("sharing/share", shares)
    first = _place(archive, experiment, lambda item: list(item.custom))
    built.with_children("fields/field", _custom("experimentData", experiment.custom, first))
    built.with_children("scans/scan", (_scan(experiment, scan, archive) for scan in experiment.scans))
    built.with_children(
        "reconstructions/reconstructedImage",
        (_reconstruction(experiment, recon) for recon in experiment.reconstructions),
    )
    built.with_children(
        "assessors/assessor", (_experiment(assessor, view) for assessor in view.assessors(experiment))
    )
    if experiment.is_assessor:
        built.with_children(
            "in/file", (_resource(placed, stamp) for placed in of_assessor(experiment, view, "in"))
        )
        built.with_children(
            "out/file", (_resource(placed, stamp) for placed in of_assessor(experiment, view, "out"))
        )
    resources = (placed for placed in of_experiment(experiment, view, False, several=True))
    built.with_children("resources/resource", (_resource(placed, stamp) for placed in resources))
    return built


def _custom(kind: str, variables: dict[str, str], first: int) -> list[Item]:
    """Custom variables as children; `first` is the number of the first one."""
    return [
        Item(f"xnat:{kind}_field", {"name": name, "field": value, f"xnat_{kind}_field_id": first + number})
        for number, (name, value) in enumerate(variables.items())
    ]


def _subject(subject: Subject, view: View) -> Item:
    """A subject, its experiments nested in full."""
    fields: dict[str, Value] = {
        "ID": subject.id,
        "label": subject.label,
        "project": subject.project,
        "group": subject.group,
        "src": subject.fields.get("src", ""),
    }
    built = Item("xnat:subjectData", _filled(fields), subject.insert_date)
    before = list(itertools.takewhile(lambda item: item is not subject, view.archive.subjects.values()))
    demographics = _demographics(subject)
    if demographics:
        number = 1 + sum(bool(_demographics(item)) for item in before)
        demographics |= {"xnat_abstractDemographicData_id": number, "xnat_abstractdemographicdata_id": number}
        built.with_children("demographics", [Item("xnat:demographicData", demographics, subject.insert_date)])
    first = 1 + sum(len(item.shares) for item in before)
    shares = [
        Item(
            "xnat:projectParticipant",
            _filled(
                {
                    "project": project,
                    "label": label or "",
                    "subject_ID": subject.id,
                    "xnat_projectParticipant_id": first + number,
                }
            ),
        )
        for number, (project, label) in enumerate(subject.shares.items())
    ]
    built.with_children("sharing/share", shares)
    built.with_children(
        "fields/field", _custom("subjectData", subject.custom, 1 + sum(len(item.custom) for item in before))
    )
    built.with_children(
        "resources/resource", (_resource(placed, subject.insert_date) for placed in of_subject(subject))
    )
    experiments = [
        experiment
        for experiment in view.archive.experiments.values()
        if experiment.subject_id == subject.id
        and not experiment.is_assessor
        and view.experiment_readable(experiment)
    ]
    built.with_children(
        "experiments/experiment", (_experiment(experiment, view) for experiment in experiments)
    )
    return built


def _demographics(subject: Subject) -> dict[str, Value]:
    given = {"gender": subject.gender, "yob": subject.yob} | {
        name: value for name, value in subject.fields.items() if name in DEMOGRAPHICS
    }
    return _filled({name: _number(value) for name, value in given.items()})


def _project(project: Project) -> Item:
    fields: dict[str, Value] = {
        "ID": project.id,
        "secondary_ID": project.secondary_id,
        "name": project.name,
        "description": project.description,
    }
    built = Item("xnat:projectData", _filled(fields), project.insert_date)
    leader = _filled({"firstname": project.pi_firstname, "lastname": project.pi_lastname})
    if leader:
        built.with_children("PI", [Item("xnat:investigatorData", leader, project.insert_date)])
    built.with_children(
        "resources/resource", (_resource(placed, project.insert_date) for placed in of_project(project))
    )
    return built


def as_json(built: Item) -> dict[str, Any]:
    """The JSON form: numbers stay numbers."""
    started = built.started.strftime("%a %b %d %H:%M:%S UTC %Y") if built.started is not None else ""
    return {
        "children": [
            {"field": name, "items": [as_json(child) for child in items]} for name, items in built.children
        ],
        "meta": {
            "create_event_id": built.event,
            "xsi:type": built.xsi_type,
            "isHistory": False,
            "start_date": started,
        },
        "data_fields": built.fields,
    }


def as_xml(built: Item) -> str:
    """The XML form, with XNAT's element for the type at the root."""
    name = _ROOTS.get(built.xsi_type, built.xsi_type)
    prefix = name.partition(":")[0]
    spaces = {"xnat": "http://nrg.wustl.edu/xnat", "xsi": "http://www.w3.org/2001/XMLSchema-instance"}
    spaces.setdefault(prefix, f"http://nrg.wustl.edu/{prefix}")
    declared = "".join(f' xmlns:{key}="{value}"' for key, value in spaces.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_element(name, built, declared)}\n'


def _element(name: str, built: Item, extra: str) -> str:
    prefix = name.partition(":")[0]
    fields = {key: value for key, value in built.fields.items() if not _HIDDEN.fullmatch(key)}
    if built.xsi_type.endswith("_field"):
        return f'<{name} name="{escape(str(fields["name"]))}">{escape(str(fields["field"]))}</{name}>'
    attributes = "".join(
        f' {key}="{escape(str(value))}"' for key, value in fields.items() if key in _ATTRIBUTES
    )
    elements = {
        key: value
        for key, value in fields.items()
        if key not in _ATTRIBUTES and key.replace("/", "").replace("_", "").isalnum()
    }
    parts = _nested(prefix, {key: escape(str(value)) for key, value in elements.items()})
    for path, items in built.children:
        wrapper, _, leaf = path.rpartition("/")
        inner = "".join(
            _element(f"{prefix}:{leaf}", child, f' xsi:type="{child.xsi_type}"') for child in items
        )
        parts.append(f"<{prefix}:{wrapper}>{inner}</{prefix}:{wrapper}>" if wrapper else inner)
    return f"<{name}{extra}{attributes}>{''.join(parts)}</{name}>"


def _nested(prefix: str, values: dict[str, str]) -> list[str]:
    """Elements by path; those that begin alike share an element (`scanner` has a text, and a model as an
    attribute).
    """
    parts: dict[str, tuple[str, str]] = {}
    for path, value in values.items():
        name, _, rest = path.partition("/")
        text, inner = parts.get(name, ("", ""))
        if not rest:
            text = value
        elif "/" in rest:
            inner += f">{''.join(_nested(prefix, {rest: value}))}"
        else:
            inner = f' {rest}="{value}"' + inner
        parts[name] = text, inner
    written = []
    for name, (text, inner) in parts.items():
        attributes, mark, below = inner.partition(">")
        written.append(f"<{prefix}:{name}{attributes}>{below if mark else ''}{text}</{prefix}:{name}>")
    return written
