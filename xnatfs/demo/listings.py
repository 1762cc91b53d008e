"""The tables of projects, subjects, experiments, scans, assessors and reconstructions (xnat-rest.md 2.1 to
2.9, 12 to 14).

Used by `routes`. Reads the archive on the event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime

from . import roots
from .addresses import Address, Target
from .call import Call
from .columns import Column, QueryFailed, Root, matcher, rows_of, united
from .kinds import depth, is_a, known
from .model import Experiment, Project, Scan
from .reply import HttpError, Reply
from .roots import ListedScan, ListedSubject
from .sessions import EXPERIMENT, IMAGE_ASSESSOR, SUBJECT_ASSESSOR, ListedExperiment, narrowed
from .sessions import experiments as experiment_root
from .tables import Row, Table, page_of, render, sort, stamp, wanted_format

_PROJECT_DEFAULTS = ("ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname")
_PROJECT_SWITCHES = (
    "accessible",
    "owner",
    "member",
    "collaborator",
    "activeSince",
    "recent",
    "favorite",
    "prearc_code",
    "dataAccess",
)
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
    "quarantine_status",
)
_SUBJECT_DEFAULTS = ("ID", "project", "label", "insert_date", "insert_user")
_EXPERIMENT_DEFAULTS = ("ID", "project", "date", "xsiType", "label", "insert_date")
_SCAN_DEFAULTS = ("xnat_imagescandata_id", "ID", "type", "quality", "xsiType", "note", "series_description")
_RECONSTRUCTION_KEYS = ("xnat_reconstructedimagedata_id", "ID", "type", "baseScanType")
_ASSESSOR_DEFAULTS = (
    "session_ID",
    "session_label",
    "ID",
    "project",
    "label",
    "date",
    "xsiType",
    "insert_date",
)
_NOT_FILTERS = frozenset(
    {"columns", "format", "xsitype", "limit", "offset", "sortby", "sortorder", "fields", "xnat_csrf"}
)


def finish(call: Call, table: Table) -> Reply:
    """Sort, write in the wanted format."""
    sort(table, call.query)
    return render(table, wanted_format(call.query, call.accept))


def projects(call: Call) -> Reply:
    """`/projects`; with `accessible=true` and its like a different table (xnat-rest.md 2.3, 2.7). Filters and
    limit are ignored.
    """
    root = roots.projects(call.archive)
    if "fields" in call.query:
        return finish(call, _alias_table(root))
    view = call.view
    shown = [project for project in call.archive.projects.values() if view.listed(project)]
    if "activeSince" in call.query:
        since = _moment(call.query["activeSince"])
        shown = [
            project
            for project in shown
            if project.last_modified is not None and project.last_modified > since
        ]
    if any(name in call.query for name in _PROJECT_SWITCHES):
        return finish(call, _accessible(call, shown))
    names = [*_names(call), "ID"] if call.first("columns") else _PROJECT_DEFAULTS
    columns = root.select(names, call.switches.proven_only)
    rows = united(rows_of(root, shown, columns, []))
    _uri_rows(rows, "/data/projects")
    return finish(call, Table([*(column.key for column in columns), "URI"], rows))


def _moment(value: str) -> datetime:
    """A date, with or without a time; a bad one is a 422 (xnat-rest.md 2.7)."""
    for form in ("%Y-%m-%d", "%m/%d/%Y", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"):
        with contextlib.suppress(ValueError):
            return datetime.strptime(value, form)
    raise HttpError(422)


def _accessible(call: Call, shown: list[Project]) -> Table:
    """The table of display ids, lower case."""
    number = str(call.archive.user_number(call.user))
    role, accessed = f"user_role_{number}", f"last_accessed_{number}"
    if "accessible" not in call.query and not call.user.admin:
        shown = [project for project in shown if call.view.role(project)]
    rows: list[Row] = [
        {
            "id": project.id,
            "name": project.name,
            "description": project.description,
            "secondary_id": project.secondary_id,
            "pi": ", ".join(filter(None, (project.pi_lastname, project.pi_firstname))),
            "project_invs": "",
            "project_access": project.access,
            "project_access_img": f"/@WEBAPPimages/{'globe' if project.access == 'public' else 'key'}.gif",
            "insert_date": stamp(project.insert_date),
            "insert_user": "admin",
            "quarantine_status": "active",
            role: call.view.role(project),
            accessed: "",
        }
        for project in shown
    ]
    return Table([*_ACCESSIBLE_KEYS, role, accessed], rows, title="Projects", meta={"xdat_user_id": number})


def _alias_table(root: Root) -> Table:
    """`fields=x`: which aliases there are (xnat-rest.md 2.1)."""
    rows = [
        {"key": key, "xpath": path if "/meta/" in path or "element_name" in path else path.lower()}
        for key, path in root.aliases.items()
    ]
    return Table(["key", "xpath"], rows, with_total=False)


def _filters(call: Call, root: Root, skip: Iterable[str] = ()) -> list[tuple[Column, Callable[[str], bool]]]:
    """Every query parameter that is an alias or a path restricts the rows, by primary labels; given twice,
    the first counts.
    """
    tests: dict[str, tuple[Column, Callable[[str], bool]]] = {}
    for name, value in call.query.multi_items():
        if name.lower() in _NOT_FILTERS or name in skip or name in tests:
            continue
        with contextlib.suppress(QueryFailed):
            column = root.column(name)
            if column is not None and value:
                tests[name] = (column, matcher(column.key, value))
    if "date" in tests:
        raise QueryFailed("date")  # as executed: the comparison fails in the database
    return list(tests.values())


def _names(call: Call) -> list[str]:
    """The asked-for columns; `columns=DEFAULT` (xnatpy) is no alias and so asks for nothing special."""
    wanted = [name for name in call.first("columns").split(",") if name and name not in ("DEFAULT", "URI")]
    return [name for name in wanted if "/" not in name or known(call.archive, name.partition("/")[0])]


def _uri_rows(rows: list[Row], base: str) -> None:
    for row in rows:
        row["URI"] = f"{base}/{row['ID']}"


def failed() -> Reply:
    """What a project's list of experiments answers when its query fails: 200, and nothing in it (xnat-rest.md
    12 [X]).
    """
    return Reply(200, b"", [("Content-Type", "application/json;charset=ISO-8859-1")], "listing", 0)


def subjects(call: Call, target: Target) -> Reply:
    """Subjects of a project (shared ones too) or of the server. A query that fails is a 500."""
    if "fields" in call.query:
        return finish(call, _alias_table(roots.subjects(call.archive)))
    view = call.view
    if target.project is not None:
        if not view.readable(target.project):
            raise HttpError(403)
        readable = view.subjects(target.project.id)
    else:
        if not any(view.readable(project) for project in call.archive.projects.values()):
            raise HttpError(500, "No readable projects.")  # xnat-rest.md 8
        readable = [subject for subject in call.archive.subjects.values() if view.subject_readable(subject)]
    names = _names(call) or list(_SUBJECT_DEFAULTS)
    root = roots.subjects(call.archive)
    try:
        # The key comes back under its alias: without asking for it, ID is added (xnat-rest.md 2.2).
        columns = root.select([*names, "ID"], call.switches.proven_only)
        primary = [ListedSubject(subject) for subject in readable]
        listed = [
            ListedSubject(item.subject, target.project_id) for item in primary if _passes(item, root, call)
        ]
        rows = rows_of(root, listed, columns, _joined_filters(call, root))
    except QueryFailed:
        raise HttpError(500) from None
    rows = rows if call.switches.old else united(rows)
    _uri_rows(rows, "/data/subjects")
    table = Table([*(column.key for column in columns), "URI"], rows)
    page_of(table, call.query)
    return finish(call, table)


def _passes(item: object, root: Root, call: Call) -> bool:
    """Whether an object itself passes the filters: they know primary labels and projects only (xnat-rest.md
    12 [X]).
    """
    return all(test(column.value(item)) for column, test in _filters(call, root) if not column.join)


def _joined_filters(call: Call, root: Root) -> list[tuple[Column, Callable[[str], bool]]]:
    return [(column, test) for column, test in _filters(call, root) if column.join]


def experiments(call: Call, target: Target) -> Reply:
    """Experiments of a subject or project (no image assessors unless asked for) or of the server
    (xnat-rest.md 2.3, 12).
    """
    view = call.view
    scoped = target.project is not None or target.subject is not None
    if target.project is not None:
        if not view.readable(target.project):
            raise HttpError(403)
        matching = view.experiments(target.project_id)
    else:
        matching = _of_the_server(call)
    if target.subject is not None:
        matching = [experiment for experiment in matching if experiment.subject_id == target.subject.id]
    root = _root(call, SUBJECT_ASSESSOR if scoped else EXPERIMENT)
    if "fields" in call.query:
        return finish(call, _alias_table(experiment_root(call.archive, root)))
    try:
        table = _experiments(call, target, root, matching, scoped)
    except (QueryFailed, ValueError):
        if scoped:
            return failed()
        raise HttpError(500) from None
    return finish(call, table)


def _of_the_server(call: Call) -> list[Experiment]:
    """What the user may read. Up to 1.8.8 the first one of each type and project decided for all of them
    (xnat-rest.md 12 [X]).
    """
    decided: dict[tuple[str, str], bool] = {}
    experiments = []
    for experiment in call.archive.experiments.values():
        readable = call.view.experiment_readable(experiment)
        if call.switches.old:
            readable = decided.setdefault((experiment.xsi_type, experiment.project), readable)
        if readable:
            experiments.append(experiment)
    return experiments


def _experiments(call: Call, target: Target, root: str, candidates: list[Experiment], scoped: bool) -> Table:
    if not known(call.archive, root):
        raise QueryFailed(root)
    defaults = list(_EXPERIMENT_DEFAULTS)
    if not scoped and depth(root) >= 1:
        defaults += (
            ["session_ID", "session_label"]
            if _is_assessor_root(call, root)
            else ["subject_ID", "subject_label"]
        )
    names = _names(call) or defaults
    # Labels and projects of the sharing project only in this form, and only if the label is asked for
    # (xnat-rest.md 12 [X]).
    project_id = target.project_id if root == SUBJECT_ASSESSOR and "label" in names else ""
    if scoped and call.switches.proven_only and _asks_for_scans(call):
        raise HttpError(404)  # xnat-rest.md 2.9: the project-scoped form of the scan listing is [I]
    table = _experiment_table(
        call,
        root,
        [item for item in candidates if is_a(item, root)],
        project_id,
        names,
        not call.switches.old or not scoped,
    )
    if not scoped:
        table.title = "Matching experiments"
    table.raw_names = True
    page_of(table, call.query)
    return table


def _asks_for_scans(call: Call) -> bool:
    return any("scandata/" in name.lower() or "/scans/scan/" in name.lower() for name in _names(call))


def _is_assessor_root(call: Call, root: str) -> bool:
    if root in (IMAGE_ASSESSOR, "xnat:deriveddata"):
        return True
    return any(
        item.is_assessor and item.xsi_type.lower() == root for item in call.archive.experiments.values()
    )


def _root(call: Call, root: str) -> str:
    """The root element, in lower case: `xsiType=` (a comma list filters nothing), else narrowed by the
    columns (xnat-rest.md 2.2, 12).
    """
    wanted = call.first("xsiType")
    if wanted:
        return root if "," in wanted else wanted.lower()
    return narrowed(call.archive, _names(call), root)


def _experiment_table(
    call: Call,
    root: str,
    experiments: list[Experiment],
    project_id: str,
    names: list[str],
    filtered: bool = True,
    always: bool = True,
) -> Table:
    """One row an experiment and joined partners. `filtered` is false where ID and label filters are ignored
    (up to 1.8.8).
    """
    kinds = experiment_root(call.archive, root)
    # Of an abstract root XNAT always selects the concrete type and the project, to drop what the user may not
    # read (`if(!ElementSecurity.IsSecureElement(root)) qo.addField(...)` in its experiment lists); pyxnat's
    # repr() relies on it.
    added = ("xsiType", "project") if always and 0 <= depth(root) < 3 else ()
    columns = kinds.select([f"{root}/ID", *names, *added], call.switches.proven_only)
    identity = kinds.select(["ID"], False)[0]
    skip = () if filtered else ("ID", "label")
    tests = _filters(call, kinds, skip)
    listed = [
        ListedExperiment(call.archive, item, project_id)
        for item in experiments
        if all(
            test(column.value(ListedExperiment(call.archive, item)))
            for column, test in tests
            if not column.join
        )
    ]
    has_id = any(column.key == "ID" for column in columns)
    rows = rows_of(
        kinds,
        listed,
        columns if has_id else [*columns, identity],
        [(column, test) for column, test in tests if column.join],
    )
    rows = rows if call.switches.old else united(rows)
    _uri_rows(rows, "/data/experiments")
    if not has_id:
        for row in rows:
            del row["ID"]
    return Table([*(column.key for column in columns), "URI"], rows)


def scans(call: Call, target: Target) -> Reply:
    """Scans of a session; filters and limit are ignored (xnat-rest.md 2.3). What cannot be listed at all is a
    500 (xnat-rest.md 13 [X]).
    """
    root = roots.scans(call.archive)
    if "fields" in call.query:
        return finish(call, _alias_table(root))
    if not is_a(target.experiment, "xnat:imageSessionData"):
        raise HttpError(500)
    try:
        columns = root.select(
            ["xnat_imagescandata_id", *(_names(call) or _SCAN_DEFAULTS)], call.switches.proven_only
        )
    except QueryFailed:
        raise HttpError(500) from None
    rows: list[Row] = []
    for session in target.experiments:
        for scan in session.scans:
            rows += _scan_rows(root, columns, session, scan)
    return finish(call, Table([*(column.key for column in columns), "URI"], rows))


def _scan_rows(root: Root, columns: list[Column], session: Experiment, scan: Scan) -> list[Row]:
    rows = rows_of(root, [ListedScan(session, scan)], columns, [])
    for row in rows:
        row["URI"] = f"/data/experiments/{session.id}/scans/{scan.id}"
    return rows


def assessors(call: Call, target: Target) -> Reply:
    """Image assessors of a session, those of projects the user may not read too (xnat-rest.md 12 [X])."""
    root = _root(call, IMAGE_ASSESSOR)
    if "fields" in call.query:
        return finish(call, _alias_table(experiment_root(call.archive, root)))
    sessions = {session.id for session in target.experiments}
    matching = [
        item for item in call.archive.experiments.values() if item.session_id in sessions and is_a(item, root)
    ]
    try:
        return finish(
            call,
            _experiment_table(
                call, root, matching, "", _names(call) or list(_ASSESSOR_DEFAULTS), always=False
            ),
        )
    except QueryFailed:
        raise HttpError(500) from None


def reconstructions(call: Call, target: Target) -> Reply:
    """Reconstructions of a session."""
    wanted = [name for name in _names(call) if name in _RECONSTRUCTION_KEYS] or list(_RECONSTRUCTION_KEYS)
    keys = list(dict.fromkeys(["xnat_reconstructedimagedata_id", *wanted, "URI"]))
    rows = []
    for session in target.experiments:
        for item in session.reconstructions:
            row = {
                "xnat_reconstructedimagedata_id": str(item.number),
                "ID": item.id,
                "type": item.type,
                "baseScanType": item.base_scan_type,
                "URI": f"/data/experiments/{session.id}/reconstructions/{item.id}",
            }
            rows.append({key: row[key] for key in keys})
    return finish(call, Table(keys, rows))


def scan_types(call: Call, project: Project) -> Reply:
    """`/projects/P/scan_types`: the types of its own sessions' MR scans, with all descriptions one after the
    other.
    """
    by_type: dict[str, str] = {}
    for session in call.view.experiments(project.id):
        if session.project == project.id:
            for scan in (scan for scan in session.scans if scan.xsi_type == "xnat:mrScanData"):
                by_type[scan.type] = by_type.get(scan.type, "") + (
                    f"{scan.series_description}," if scan.series_description else ""
                )
    rows = [
        {"type": kind, "series_descriptions": descriptions} for kind, descriptions in sorted(by_type.items())
    ]
    return finish(call, Table(["type", "series_descriptions"], rows, title="Scan Types"))


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
