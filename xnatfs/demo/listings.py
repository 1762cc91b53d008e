"""The tables of projects, subjects, experiments, scans, assessors and reconstructions (fact sheet 2.1 to 2.9).

Used by `routes`. Reads the archive on the event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime

from .addresses import Address, Target
from .call import Call
from .columns import Column, Root, matcher, rows_of
from .kinds import depth, is_a, known
from .model import Experiment, Project
from .reply import HttpError, Reply
from .roots import EXPERIMENTS, PROJECTS, SCANS, SUBJECTS, ListedExperiment, ListedScan, ListedSubject
from .tables import Row, Table, page_of, render, sort, stamp, wanted_format

_PROJECT_DEFAULTS = ("ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname")
_PROJECT_SWITCHES = ("accessible", "owner", "member", "collaborator", "activeSince", "recent", "favorite", "prearc_code", "dataAccess")
_ACCESSIBLE_KEYS = (
    "id",
    "name",
    "description",
    "secondary_id",
    "pi",
    "project_invs",
    "project_access",
    "project_access_img",
    "insert_date",
    "insert_user",
)
_SUBJECT_DEFAULTS = ("ID", "project", "label", "insert_date", "insert_user")
_EXPERIMENT_DEFAULTS = ("ID", "project", "date", "xsiType", "label", "insert_date")
_SCAN_DEFAULTS = ("xnat_imagescandata_id", "ID", "type", "quality", "xsiType", "note", "series_description")
_ASSESSOR_DEFAULTS = ("ID", "project", "label", "date", "xsiType", "insert_date", "session_ID", "session_label")
_NOT_FILTERS = frozenset({"columns", "format", "xsitype", "limit", "offset", "sortby", "sortorder", "fields", "xnat_csrf"})


def finish(call: Call, table: Table) -> Reply:
    """Sort, write in the wanted format."""
    sort(table, call.query)
    return render(table, wanted_format(call.query, call.accept))


def projects(call: Call) -> Reply:
    """`/projects`; with `accessible=true` and its like a different table (fact sheet 2.3, 2.7)."""
    if "fields" in call.query:
        return finish(call, _aliases_of(PROJECTS))
    view = call.view
    shown = [project for project in call.archive.projects.values() if view.listed(project)]
    if "activeSince" in call.query:
        since = _moment(call.query["activeSince"])
        shown = [project for project in shown if project.last_modified is not None and project.last_modified > since]
    if any(name in call.query for name in _PROJECT_SWITCHES):
        return finish(call, _accessible(call, shown))
    names = [*_names(call), "ID"] if call.query.get("columns") else _PROJECT_DEFAULTS
    columns = PROJECTS.select(names, call.switches.proven_only)
    rows = rows_of(PROJECTS, shown, columns, [])
    _uri_rows(rows, "/data/projects")
    return finish(call, Table([*(column.key for column in columns), "URI"], rows))


def _moment(value: str) -> datetime:
    """A date, with or without a time; a bad one is a 422 (fact sheet 2.7)."""
    for form in ("%Y-%m-%d", "%m/%d/%Y", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"):
        with contextlib.suppress(ValueError):
            return datetime.strptime(value, form)
    raise HttpError(422)


def _accessible(call: Call, shown: list[Project]) -> Table:
    """The table of display ids, lower case [I]."""
    number = str(list(call.archive.users).index(call.user.login) + 1) if call.user.login in call.archive.users else "0"
    role, accessed = f"user_role_{number}", f"last_accessed_{number}"
    rows: list[Row] = []
    for project in shown:
        member = "Owners" if call.user.admin else "Collaborators" if call.user.login in project.members else ""
        rows.append(
            {
                "id": project.id,
                "name": project.name,
                "description": project.description,
                "secondary_id": project.secondary_id,
                "pi": ", ".join(filter(None, (project.pi_lastname, project.pi_firstname))),
                "project_invs": "",
                "project_access": project.access,
                "project_access_img": f"/@WEBAPP/images/{project.access}.gif",
                "insert_date": stamp(project.insert_date),
                "insert_user": "admin",
                role: member,
                accessed: "",
            }
        )
    return Table([*_ACCESSIBLE_KEYS, role, accessed], rows, title="Projects", meta={"xdat_user_id": number})


def _alias_table(aliases: dict[str, str]) -> Table:
    """`fields=x`: which aliases there are (fact sheet 2.1)."""
    return Table(["key", "xpath"], [{"key": key, "xpath": path} for key, path in aliases.items()])


def _aliases_of(root: Root) -> Table:
    return _alias_table({key: path for key, (path, _) in root.aliases.items()})


def _filters(call: Call, root: Root, skip: Iterable[str] = ()) -> list[tuple[Column, Callable[[str], bool]]]:
    """Every query parameter that is an alias or an xpath restricts the rows (fact sheet 2.2)."""
    tests = []
    for name, value in call.query.multi_items():
        if name.lower() in _NOT_FILTERS or name in skip:
            continue
        column = root.column(name)
        if column is not None and value:
            tests.append((column, matcher(column.key, value)))
    return tests


def _names(call: Call) -> list[str]:
    """The asked-for columns; `columns=DEFAULT` (xnatpy) is no alias and so asks for nothing special."""
    wanted = [name for name in call.query.get("columns", "").split(",") if name and name not in ("DEFAULT", "URI")]
    return [name for name in wanted if "/" not in name or known(call.archive, name.partition("/")[0])]


def _uri_rows(rows: list[Row], base: str) -> None:
    for row in rows:
        row["URI"] = f"{base}/{row['ID']}"


def subjects(call: Call, target: Target) -> Reply:
    """Subjects of a project (shared ones too) or of the server."""
    if "fields" in call.query:
        return finish(call, _aliases_of(SUBJECTS))
    view = call.view
    if target.project is not None:
        if not view.readable(target.project):
            raise HttpError(403)
        found = view.subjects(target.project.id)
    else:
        if not any(view.readable(project) for project in call.archive.projects.values()):
            raise HttpError(500, "No readable projects.")  # fact sheet 8
        found = [subject for subject in call.archive.subjects.values() if view.subject_readable(subject)]
    names = _names(call) or list(_SUBJECT_DEFAULTS)
    # The key comes back under its alias: without asking for it, ID is added (fact sheet 2.2).
    columns = SUBJECTS.select([*names, "ID"], call.switches.proven_only)
    listed = [ListedSubject(subject, target.project_id) for subject in found]
    rows = rows_of(SUBJECTS, listed, columns, _filters(call, SUBJECTS))
    _uri_rows(rows, "/data/subjects")
    table = Table([*(column.key for column in columns), "URI"], rows)
    page_of(table, call.query)
    return finish(call, table)


def experiments(call: Call, target: Target) -> Reply:
    """Experiments of a subject or project (no image assessors unless asked for) or of the server (fact sheet 2.3)."""
    if "fields" in call.query:
        return finish(call, _aliases_of(EXPERIMENTS))
    view = call.view
    project_id = target.project_id
    if target.project is not None:
        if not view.readable(target.project):
            raise HttpError(403)
        found = view.experiments(project_id)
    else:
        found = [experiment for experiment in call.archive.experiments.values() if view.experiment_readable(experiment)]
    if target.subject is not None:
        found = [experiment for experiment in found if experiment.subject_id == target.subject.id]
    scoped = target.project is not None or target.subject is not None
    root = _narrowed(call, "xnat:subjectAssessorData" if scoped else "xnat:experimentData")
    defaults = list(_EXPERIMENT_DEFAULTS)
    if not scoped and depth(root) >= 1:
        defaults += ["session_ID", "session_label"] if _is_assessor_root(call, root) else ["subject_ID", "subject_label"]
    # Without a project in the path, `project=` is the primary project, under its own labels (fact sheet 2.3, 2.8).
    table = _experiment_table(call, root, [item for item in found if is_a(item, root)], project_id, defaults)
    if scoped and call.switches.proven_only and _asks_for_scans(call):
        raise HttpError(404)  # fact sheet 2.9: the project-scoped form of the scan listing is [I]
    if not scoped:
        table.title = "Matching experiments"
    table.raw_names = True
    page_of(table, call.query)
    return finish(call, table)


def _asks_for_scans(call: Call) -> bool:
    return any("scandata/" in name.lower() or "/scans/scan/" in name.lower() for name in _names(call))


def _is_assessor_root(call: Call, root: str) -> bool:
    if root.lower() in ("xnat:imageassessordata", "xnat:deriveddata"):
        return True
    return any(item.is_assessor and item.xsi_type.lower() == root.lower() for item in call.archive.experiments.values())


def _narrowed(call: Call, root: str) -> str:
    """The root element: `xsiType=` (a comma list is ignored), narrowed by columns of subtypes (fact sheet 2.2)."""
    wanted = call.query.get("xsiType", "")
    if wanted:
        return root if "," in wanted else wanted
    for name in _names(call):
        element = name.partition("/")[0]
        registered = EXPERIMENTS.aliases.get(name)
        if "/" in name and registered is None and depth(element) > depth(root):
            root = element
    return root


def _experiment_table(call: Call, root: str, found: list[Experiment], project_id: str, defaults: list[str]) -> Table:
    names = _names(call) or defaults
    key_path = f"{root}/ID"
    # Of an abstract root XNAT always selects the concrete type and the project, to drop what the user may not read
    # (`if(!ElementSecurity.IsSecureElement(root)) qo.addField(...)` in its experiment lists); pyxnat's repr() relies on it.
    always = ("xsiType", "project") if 0 <= depth(root) < 3 else ()
    columns = EXPERIMENTS.select([*names, key_path, *always], call.switches.proven_only)
    identity = EXPERIMENTS.select(["ID"], False)[0]
    listed = [ListedExperiment(call.archive, item, project_id) for item in found]
    has_id = identity in columns
    rows = rows_of(EXPERIMENTS, listed, columns if has_id else [*columns, identity], _filters(call, EXPERIMENTS))
    _uri_rows(rows, "/data/experiments")
    if not has_id:
        for row in rows:
            del row["ID"]
    return Table([*(column.key for column in columns), "URI"], rows)


def scans(call: Call, target: Target) -> Reply:
    """Scans of a session; filters and limit are ignored (fact sheet 2.3)."""
    if "fields" in call.query:
        return finish(call, _aliases_of(SCANS))
    columns = SCANS.select(["xnat_imagescandata_id", *(_names(call) or _SCAN_DEFAULTS)], call.switches.proven_only)
    rows = []
    for session in target.experiments:
        for scan in session.scans:
            listed = ListedScan(session, scan)
            row = {column.key: column.value(listed) for column in columns}
            row["URI"] = f"/data/experiments/{session.id}/scans/{scan.id}"
            rows.append(row)
    return finish(call, Table([*(column.key for column in columns), "URI"], rows))


def assessors(call: Call, target: Target) -> Reply:
    """Image assessors of a session."""
    if "fields" in call.query:
        return finish(call, _aliases_of(EXPERIMENTS))
    root = _narrowed(call, "xnat:imageAssessorData")
    found = [item for session in target.experiments for item in call.view.assessors(session) if is_a(item, root)]
    return finish(call, _experiment_table(call, root, found, target.project_id, list(_ASSESSOR_DEFAULTS)))


def reconstructions(call: Call, target: Target) -> Reply:
    """Reconstructions of a session."""
    rows = [
        {
            "xnat_reconstructedimagedata_id": str(item.number),
            "ID": item.id,
            "type": item.type,
            "baseScanType": item.base_scan_type,
            "URI": f"/data/experiments/{session.id}/reconstructions/{item.id}",
        }
        for session in target.experiments
        for item in session.reconstructions
    ]
    return finish(call, Table(["xnat_reconstructedimagedata_id", "ID", "type", "baseScanType", "URI"], rows))


COLLECTIONS: dict[str, Callable[[Call, Target], Reply]] = {
    "projects": lambda call, _: projects(call),
    "subjects": subjects,
    "experiments": experiments,
    "scans": scans,
    "assessors": assessors,
    "reconstructions": reconstructions,
}


def listing(call: Call, address: Address, target: Target) -> Reply:
    """The table an address that ends with a collection asks for."""
    needs_session = address.tail in ("scans", "assessors", "reconstructions")
    if needs_session and not target.experiments:
        raise HttpError(404)
    return COLLECTIONS[address.tail](call, target)
