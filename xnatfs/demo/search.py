"""The search engine, as far as pyxnat needs it (xnat-rest.md 10, bx.md 6.1).

Display fields are taken to be lower- or upper-cased aliases; enough for `interface.select(type,
columns).where(...)`. Used by `routes`. Reads the archive on the event loop.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import Any

from .call import Call
from .columns import Column, QueryFailed, Root, rows_of
from .kinds import is_a
from .listings import finish
from .reply import HttpError, Reply
from .roots import SUBJECT_ALIASES, ListedSubject, subjects
from .sessions import ListedExperiment, experiments
from .tables import Row, Table, stamp

_XDAT = "{http://nrg.wustl.edu/security}"
_FIELD_KEYS = ("FIELD_ID", "HEADER", "SUMMARY", "TYPE", "REQUIRES_VALUE", "DESC", "ELEMENT_NAME", "SRC")
# Display field ids that are not simply an alias.
_DISPLAY = {
    "session_id": "ID",
    "expt_id": "ID",
    "xnat_subject_id": "ID",
    "subjectid": "subject_ID",
    "subject_id": "subject_ID",
    "subject_label": "subject_label",
    "session_label": "label",
    "projects": "project",
    "gender_text": "gender",
    "handedness_text": "handedness",
}
_OF_SUBJECTS = {"subject_id": "ID", "subject_label": "label"}

_PROJECT_FIELDS = (
    "id",
    "name",
    "description",
    "secondary_id",
    "pi",
    "project_access",
    "project_owners",
    "insert_date",
    "insert_user",
    "proj_mr_count",
    "proj_ct_count",
    "proj_pet_count",
    "proj_ut_count",
)


def handle(call: Call, parts: list[str]) -> Reply:
    """`/data/search`, `/data/search/elements[/TYPE]`, `/data/search/saved`."""
    if parts[:1] == ["elements"]:
        if call.method not in ("GET", "HEAD"):
            raise HttpError(405)
        return finish(call, _fields(call, parts[1]) if len(parts) > 1 else _elements(call))
    if parts == ["saved"]:
        return finish(call, Table(["id", "brief_description", "root_element_name"], []))
    if parts:
        raise HttpError(404)
    if call.method != "POST":
        raise HttpError(405)
    return _search(call)


def _types(call: Call) -> list[str]:
    present = {
        experiment.xsi_type
        for experiment in call.archive.experiments.values()
        if call.view.experiment_readable(experiment)
    }
    return ["xnat:projectData", "xnat:subjectData", *sorted(present)]


def _elements(call: Call) -> Table:
    rows: list[Row] = []
    for name in _types(call):
        singular = name.partition(":")[2].removesuffix("Data")
        rows.append(
            {
                "ELEMENT_NAME": name,
                "SINGULAR": singular,
                "PLURAL": f"{singular}s",
                "SECURED": "true",
                "COUNT": "",
            }
        )
    return Table(["ELEMENT_NAME", "SINGULAR", "PLURAL", "SECURED", "COUNT"], rows)


def _fields(call: Call, element: str) -> Table:
    if element == "xnat:projectData":
        shown = [
            (name.upper(), name, f"{element}.{name.upper()}", "string", "false", "", element, "0")
            for name in _PROJECT_FIELDS
        ]
        return Table(list(_FIELD_KEYS), [dict(zip(_FIELD_KEYS, values, strict=True)) for values in shown])
    root = subjects(call.archive) if element == "xnat:subjectData" else experiments(call.archive, element)
    rows: list[Row] = []
    for alias in root.aliases:
        name = alias.upper()
        values = (name, alias, f"{element}.{name}", "string", "false", "", element, "0")
        rows.append(dict(zip(_FIELD_KEYS, values, strict=True)))
    return Table(list(_FIELD_KEYS), rows)


def _search(call: Call) -> Reply:
    """Run a search document; what cannot be understood is a 422."""
    try:
        document = ElementTree.fromstring(call.body)
    except ElementTree.ParseError:
        raise HttpError(422) from None
    element = document.findtext(f"{_XDAT}root_element_name", "")
    if not element:
        raise HttpError(422)
    if element.lower() == "xnat:projectdata":
        return finish(call, _projects(call, element))
    if element.lower() == "xnat:subjectdata":
        root = subjects(call.archive)
        objects: Sequence[Any] = [
            ListedSubject(item) for item in call.archive.subjects.values() if call.view.subject_readable(item)
        ]
        identity = "subject_id"
    else:
        root = experiments(call.archive, element)
        objects = [
            ListedExperiment(call.archive, item)
            for item in call.archive.experiments.values()
            if is_a(item, element) and call.view.experiment_readable(item)
        ]
        identity = "session_id"
    columns: dict[str, Column] = {}
    for field in document.iter(f"{_XDAT}search_field"):
        owner, name = field.findtext(f"{_XDAT}element_name", ""), field.findtext(f"{_XDAT}field_ID", "")
        column = _column(root, owner, name)
        if column is not None:
            # Fields of another element carry its name (as XNAT's own result tables do).
            key = (
                name.lower()
                if owner == element
                else f"{re.sub(r'[^a-z]', '_', owner.lower())}_{name.lower()}"
            )
            columns.setdefault(key, Column(key, "", column.value))
    for key, alias in (
        (identity, "ID"),
        ("project", "project"),
        ("label", "label"),
        ("insert_date", "insert_date"),
        ("subject_id", "subject_ID"),
    ):
        column = _column(root, element, alias)
        if column is not None:
            columns.setdefault(key, Column(key, "", column.value))
    where = document.find(f"{_XDAT}search_where")
    passes = _criteria(root, where) if where is not None else lambda _: True
    chosen = list(columns.values())
    rows = rows_of(root, [item for item in objects if passes(item)], chosen, [])
    table = Table([column.key for column in chosen], rows, meta={"rootElementName": element})
    return finish(call, table)


def _projects(call: Call, element: str) -> Table:
    """The listed projects with their display fields; criteria are ignored (pyxnat's `repr(project)` asks for
    all of them).
    """
    rows = []
    for project in call.archive.projects.values():
        if not call.view.listed(project):
            continue
        values = dict.fromkeys(_PROJECT_FIELDS, "") | {
            "id": project.id,
            "name": project.name,
            "description": project.description,
            "secondary_id": project.secondary_id,
            "pi": ", ".join(filter(None, (project.pi_lastname, project.pi_firstname))),
            "project_access": project.access,
            "project_owners": "admin",
            "insert_date": stamp(project.insert_date),
            "insert_user": "admin",
        }
        for kind in ("mr", "ct", "pet"):
            count = sum(e.xsi_type == f"xnat:{kind}SessionData" for e in call.view.experiments(project.id))
            values[f"proj_{kind}_count"] = str(count or "")
        rows.append(values)
    return Table(list(_PROJECT_FIELDS), rows, meta={"rootElementName": element})


def _column(root: Root, element: str, name: str) -> Column | None:
    """A column for a display field or schema field; only those of the listed object itself."""
    display = _DISPLAY | _OF_SUBJECTS if root.aliases is SUBJECT_ALIASES else _DISPLAY
    alias = display.get(name.lower(), name)
    alias = next((known for known in root.aliases if known.lower() == alias.lower()), alias)
    for wanted in (f"{element}/{name}", alias):
        column = _found(root, wanted)
        if column is not None and ("/" not in wanted or column.key != wanted.lower()):
            return column
    return _found(root, f"{element}/{name}")


def _found(root: Root, wanted: str) -> Column | None:
    try:
        column = root.column(wanted)
    except QueryFailed:
        return None
    return column if column is not None and not column.join else None


def _criteria(root: Root, node: ElementTree.Element) -> Callable[[Any], bool]:
    tests = [_criterion(root, child) for child in node if child.tag == f"{_XDAT}criteria"]
    tests += [_criteria(root, child) for child in node if child.tag == f"{_XDAT}child_set"]
    combine = any if node.get("method", "AND").upper() == "OR" else all
    return lambda item: not tests or combine(test(item) for test in tests)


def _criterion(root: Root, node: ElementTree.Element) -> Callable[[Any], bool]:
    path = node.findtext(f"{_XDAT}schema_field", "")
    comparison = node.findtext(f"{_XDAT}comparison_type", "=").strip().upper()
    wanted = node.findtext(f"{_XDAT}value", "")
    column = _column(root, *path.partition("/")[::2])
    if column is None:
        raise HttpError(422)
    value = column.value
    if comparison == "LIKE":
        pattern = re.compile(".*".join(map(re.escape, re.split(r"[%*]", wanted))), re.IGNORECASE)
        return lambda item: pattern.fullmatch(value(item)) is not None
    tests: dict[str, Callable[[str], bool]] = {
        "=": lambda value: value == wanted,
        "!=": lambda value: value != wanted,
        ">": lambda value: value > wanted,
        ">=": lambda value: value >= wanted,
        "<": lambda value: value < wanted,
        "<=": lambda value: value <= wanted,
    }
    test = tests.get(comparison)
    if test is None:
        raise HttpError(422)
    return lambda item: test(value(item))
