"""Making, editing, sharing and deleting projects, subjects, experiments, scans and assessors by PUT and
DELETE (xnat-rest.md 4, 13, 14 [X]).

Which stamps a change moves is `changes`' and the archive's business. Used by `routes`. Changes the archive on
the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

from . import changes
from .access import View
from .addresses import Address, decoded, parse, plain, resolve
from .call import Call
from .fields import DEMOGRAPHICS
from .model import Archive, Experiment, Project, Scan, Subject
from .pages import item_page
from .reply import HttpError, Reply, html_text, nothing, text
from .roots import SCAN_ALIASES, SUBJECT_ALIASES
from .sessions import ALIASES

_CUSTOM = re.compile(r"fields/field\[name=([^]]*)\]/field", re.IGNORECASE)
_STATES = {"quarantine": "quarantine", "activate": "active", "lock": "locked", "unlock": "active"}


def handle(call: Call) -> Reply:
    """One write to an object itself."""
    parts = [part for part in call.path.split("/") if part]
    if len(parts) == 4 and parts[0] == "projects" and parts[2] == "accessibility" and call.method == "PUT":
        return _set_access(call, parts[1], parts[3])
    if len(parts) > 3 and parts[-2] == "projects" and call.method in ("PUT", "DELETE"):
        return _share(call, "/".join(parts[:-2]), parts[-1])
    address = parse(call.path)
    if address.tail or call.method not in ("PUT", "DELETE"):
        raise HttpError(405)
    handlers: dict[str, Callable[[Call, Address], Reply]] = {
        "projects": _project,
        "subjects": _subject,
        "experiments": _experiment,
        "scans": _scan,
        "assessors": _assessor,
    }
    if address.last not in handlers:
        raise HttpError(405)
    return handlers[address.last](call, address)


def _needed(view: View, project: Project | None, delete: bool = False) -> None:
    if not (view.may_delete(project) if delete else view.may_edit(project)):
        raise HttpError(403)


def _paths(call: Call, aliases: dict[str, str]) -> dict[str, str]:
    """The fields a query sets: path below the type -> value. What is no field is left out; texts are stored
    with entities.
    """
    values = {}
    for name, value in call.query.items():
        path = name if "/" in name else aliases.get(name, "")
        if path:
            values[path.partition("/")[2]] = escape(value, quote=True)
    return values


def _set_custom(variables: dict[str, str], paths: dict[str, str]) -> bool:
    """Custom variables among the fields; whether one of them changed."""
    changed = False
    for path, value in paths.items():
        named = _CUSTOM.fullmatch(path)
        if named is not None and variables.get(named[1]) != value:
            variables[named[1]] = value
            changed = True
    return changed


def _set_access(call: Call, name: str, access: str) -> Reply:
    project = call.view.project(plain(name))
    if project is None:
        raise HttpError(404)
    _needed(call.view, project, delete=True)
    if access not in ("public", "protected", "private"):
        raise HttpError(400)
    project.access = access
    return text(access)


def _project(call: Call, address: Address) -> Reply:
    project = call.view.project(plain(address.names["projects"]))
    if project is None or call.method == "DELETE":
        raise HttpError(405)  # neither made nor deleted here
    _needed(call.view, project, delete=True)
    before = (project.name, project.description)
    project.name = escape(call.query.get("name", project.name), quote=True)
    project.description = escape(call.query.get("description", project.description), quote=True)
    if (project.name, project.description) != before:
        call.archive.edit(project=project)
    return nothing()


def _subject(call: Call, address: Address) -> Reply:
    if "projects" not in address.names:
        raise HttpError(405)
    project = resolve(Address({"projects": address.names["projects"]}, last="projects"), call.view).project
    if project is None:
        raise HttpError(404)
    subject = call.view.find_subject(plain(address.names["subjects"]), project.id)
    if call.method == "DELETE":
        if subject is None:
            raise HttpError(404)
        return _delete_subject(call, subject, project)
    _needed(call.view, project)
    is_new = subject is None
    if subject is None:
        subject = Subject(
            call.archive.new_id("S"),
            plain(address.names["subjects"]),
            project.id,
            call.archive.tick(),
            call.archive.clock,
        )
        call.archive.subjects[subject.id] = subject
    changed = _edit_subject(call, subject)
    if changed and not is_new:
        call.archive.edit(subject=subject)
    return text(subject.id, 201 if is_new else 200)


def _edit_subject(call: Call, subject: Subject) -> bool:
    before = (
        subject.label,
        subject.gender,
        subject.yob,
        subject.group,
        dict(subject.fields),
        dict(subject.custom),
    )
    paths = _paths(call, dict(SUBJECT_ALIASES))
    _set_custom(subject.custom, paths)
    for path, value in paths.items():
        name = path.rpartition("/")[2]
        if _CUSTOM.fullmatch(path):
            continue
        if name in ("gender", "yob", "group", "label"):
            setattr(subject, name, value)
        elif name in DEMOGRAPHICS or name == "src":
            subject.fields[name] = value
    return before != (
        subject.label,
        subject.gender,
        subject.yob,
        subject.group,
        subject.fields,
        subject.custom,
    )


def _delete_subject(call: Call, subject: Subject, project: Project) -> Reply:
    """Of a project it is shared into: the share ends, and those of its experiments with it."""
    archive = call.archive
    _needed(call.view, project, delete=True)
    experiments = [
        item
        for item in archive.experiments.values()
        if item.subject_id == subject.id and not item.is_assessor
    ]
    if subject.project != project.id:
        del subject.shares[project.id]
        for experiment in experiments:
            if project.id in experiment.shares:
                _end_share(archive, experiment, project.id)
        return nothing()
    for experiment in experiments:
        changes.delete_experiment(archive, experiment)
    del archive.subjects[subject.id]
    return nothing()


def _experiment(call: Call, address: Address) -> Reply:
    names, view = address.names, call.view
    project = view.project(plain(names["projects"])) if "projects" in names else None
    if "projects" in names and project is None:
        raise HttpError(404)
    experiment = view.find_experiment(plain(names["experiments"]), project.id if project is not None else "")
    if call.method == "DELETE":
        return _delete_experiment(call, experiment, project)
    if experiment is not None:
        _needed(view, call.archive.projects.get(experiment.project))
        _edit_experiment(call, experiment)
        return text(experiment.id)
    if project is None or "subjects" not in names or "xsiType" not in call.query:
        raise HttpError(417 if "xsiType" not in call.query else 404)
    _needed(view, project)
    subject = view.find_subject(plain(names["subjects"]), project.id)
    if subject is None:
        raise HttpError(404)
    label, kind, archive = plain(names["experiments"]), call.query["xsiType"], call.archive
    experiment = Experiment(archive.new_id("E"), label, project.id, subject.id, kind, archive.tick())
    _set_fields(experiment, _paths(call, dict(ALIASES)))
    changes.add_experiment(archive, experiment)
    return text(experiment.id, 201)


def _edit_experiment(call: Call, experiment: Experiment) -> None:
    """Own fields move the own stamp; custom variables, quarantine and activation the others; locking none;
    nothing changed none.
    """
    archive = call.archive
    paths = _paths(call, dict(ALIASES))
    custom = _set_custom(experiment.custom, paths)
    for name, status in _STATES.items():
        if call.flag(name):
            experiment.status = status
            if name in ("quarantine", "activate"):
                archive.touch(experiment)
    if _set_fields(experiment, paths):
        archive.edit(experiment)
    elif custom:
        archive.touch(experiment)


def _set_fields(experiment: Experiment, paths: dict[str, str]) -> bool:
    before = (experiment.label, experiment.date, experiment.time, experiment.note, dict(experiment.fields))
    for path, value in paths.items():
        if path in ("label", "date", "time", "note"):
            setattr(experiment, path, value)
        elif not _CUSTOM.fullmatch(path) and path not in ("ID", "project", "extension_item/element_name"):
            experiment.fields[path] = value
    return before != (experiment.label, experiment.date, experiment.time, experiment.note, experiment.fields)


def _delete_experiment(call: Call, experiment: Experiment | None, project: Project | None) -> Reply:
    archive = call.archive
    if experiment is None:
        raise HttpError(404)
    _needed(call.view, project or archive.projects.get(experiment.project), delete=True)
    if project is not None and experiment.project != project.id:
        _end_share(archive, experiment, project.id)
    else:
        changes.delete_experiment(archive, experiment)
    return nothing()


def _end_share(archive: Archive, experiment: Experiment, project: str) -> None:
    del experiment.shares[project]
    archive.shared(experiment)


def _scan(call: Call, address: Address) -> Reply:
    session = resolve(_above(address, "scans"), call.view).experiment
    project = call.archive.projects.get(session.project)
    _needed(call.view, project, delete=call.method == "DELETE")
    name = decoded(address.names["scans"])
    scan = next((item for item in session.scans if item.id == name), None)
    if call.method == "DELETE":
        if scan is None:
            raise HttpError(404)
        changes.delete_scan(call.archive, session, scan)
        return nothing()
    new = scan is None
    if scan is None:
        if "xsiType" not in call.query:
            raise HttpError(417)
        scan = Scan(name, "", call.archive.next_number(), xsi_type=call.query["xsiType"], quality="")
    before = (scan.type, scan.quality, scan.series_description, scan.note, scan.frames)
    for path, value in _paths(call, dict(SCAN_ALIASES)).items():
        if path in ("type", "quality", "series_description", "note", "frames"):
            setattr(scan, path, value)
    if new:
        changes.add_scan(call.archive, session, scan)
    elif before != (scan.type, scan.quality, scan.series_description, scan.note, scan.frames):
        call.archive.edit(session, scan=scan)
    return nothing()


def _assessor(call: Call, address: Address) -> Reply:
    target = resolve(_above(address, "assessors"), call.view)
    session, archive, name = target.experiment, call.archive, plain(address.names["assessors"])
    project = archive.projects.get(session.project)
    _needed(call.view, project, delete=call.method == "DELETE")
    assessor = next((item for item in call.view.assessors(session) if name in (item.id, item.label)), None)
    if call.method == "DELETE":
        if assessor is None:
            raise HttpError(404)
        changes.delete_experiment(archive, assessor)
        return nothing()
    if assessor is not None:
        _edit_experiment(call, assessor)
        return text(assessor.id)
    if "xsiType" not in call.query:
        raise HttpError(417)
    assessor = Experiment(
        archive.new_id("E"),
        name,
        session.project,
        session.subject_id,
        call.query["xsiType"],
        archive.tick(),
        session_id=session.id,
    )
    _set_fields(assessor, _paths(call, dict(ALIASES)))
    changes.add_experiment(archive, assessor)
    return text(assessor.id, 201)


def _above(address: Address, word: str) -> Address:
    """The address of the session that something is in."""
    return Address({key: value for key, value in address.names.items() if key != word}, last="experiments")


def _share(call: Call, path: str, into: str) -> Reply:
    """`.../projects/P2` after a subject or experiment: share it into P2; DELETE ends the share."""
    address = parse(path)
    if address.last not in ("subjects", "experiments"):
        raise HttpError(405)
    target = resolve(address, call.view)
    project = call.view.project(plain(into))
    item: Subject | Experiment | None = target.experiment if target.experiments else target.subject
    if project is None or item is None:
        raise HttpError(404)
    _needed(call.view, project)
    if call.method == "DELETE":
        if project.id not in item.shares:
            raise HttpError(404)
        if isinstance(item, Experiment):
            _end_share(call.archive, item, project.id)
        else:
            del item.shares[project.id]
        return nothing()
    if project.id in item.shares or item.project == project.id:
        raise HttpError(409)
    item.shares[project.id] = call.query.get("label")
    if isinstance(item, Experiment):
        call.archive.shared(item)
        return text(item.id)
    return html_text(item_page(item.id))
