"""A table for each type of assessor that a project has, and of each type of experiment that is no image
session: one row each, with its own fields.

Used by `from_listings`. The fields come from each one's item, in one request, asked for again only once the
stamp of its session has moved. `ID` and `label` are the session's, so that the table joins with others.
Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from xnatfs.errors import UsageError
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.server.records import AssessorRecord, ExperimentRecord
from xnatfs.tables.engine.build import Builder, chosen_sessions
from xnatfs.tables.engine.listed_table import ID, LABEL, SUBJECT, Listed
from xnatfs.tables.spec import Column, Row, Rows
from xnatfs.text import did_you_mean

FOLDER = "assessors"
_ABOUT = (ID, LABEL, SUBJECT, Column("project", text=True), Column("date", text=True))
_ASSESSOR = (
    Column("assessor_ID", source="accession id of the assessor", text=True),
    Column("assessor_label", text=True),
    Column("xsiType", text=True),
)
# Said by the columns before them.
_SAID = frozenset({"id", "label", "project", "subject_id", "imagesession_id"})


def keys(snapshot: ProjectSnapshot) -> list[str]:
    """The tables that a project has: `assessors/xnat_qcManualAssessorData`."""
    return [f"{FOLDER}/{_file(xsi_type)}" for xsi_type in sorted(_types(snapshot))]


def is_one(key: str) -> bool:
    """Whether a table is one of these."""
    return key.startswith(f"{FOLDER}/")


def listed(key: str) -> Listed:
    """The table of this name, of whatever project."""
    wanted = key.partition("/")[2]
    return Listed(
        partial(_build, wanted),
        f"The assessors, or non-imaging experiments, of type {wanted} with their own fields.",
        (*_ABOUT, *_ASSESSOR),
        ("subject_label", "label", "ID", "assessor_ID"),
    )


def _types(snapshot: ProjectSnapshot) -> set[str]:
    found = {one.xsi_type for group in snapshot.assessors.values() for one in group}
    return (found | {one.xsi_type for one in snapshot.experiments.values() if not one.may_have_scans}) - {""}


def _file(xsi_type: str) -> str:
    return xsi_type.replace(":", "_").replace("/", "_")


def _build(wanted: str, builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    service = builder.services.listing_service
    snapshot = service.projects.get(project)
    types = {one for one in _types(snapshot) if wanted in (one, _file(one))}
    if not types:
        like = did_you_mean(wanted, map(_file, _types(snapshot)))
        raise UsageError(f"project {project} has no assessor of type {wanted!r}{like}")
    chosen = chosen_sessions(builder.summaries.get(project), sessions) if sessions else None
    experiments = (
        [snapshot.experiments[one.id] for one in chosen if one.id in snapshot.experiments]
        if (chosen is not None)
        else list(snapshot.experiments.values())
    )
    pairs: list[tuple[ExperimentRecord, AssessorRecord | None]] = []
    for experiment in experiments:
        if experiment.xsi_type in types and not experiment.may_have_scans:
            pairs.append((experiment, None))
        pairs += [
            (experiment, one) for one in snapshot.assessors.get(experiment.id, []) if one.xsi_type in types
        ]
    stamps = {
        (experiment.id if assessor is None else assessor.id): experiment.changed
        for experiment, assessor in pairs
    }
    fields = service.details.own_fields(sorted(types)[0], project, stamps)
    names = _names(fields.values())
    rows: list[Row] = [
        (
            experiment.id,
            experiment.label,
            experiment.subject_label,
            project,
            experiment.date,
            assessor.id if assessor is not None else "",
            assessor.label if assessor is not None else "",
            assessor.xsi_type if assessor is not None else experiment.xsi_type,
            *(
                fields.get(assessor.id if assessor is not None else experiment.id, {}).get(name, "")
                for name in names
            ),
        )
        for experiment, assessor in pairs
    ]
    rows.sort(key=lambda row: (row[2], row[1], row[0], row[5]))
    taken = {column.name for column in (*_ABOUT, *_ASSESSOR)}
    own = (Column(f"assessor_{name}" if name in taken else name) for name in names)
    return Rows((*_ABOUT, *_ASSESSOR, *own), rows)


def _names(every: Iterable[dict[str, str]]) -> list[str]:
    """The fields that any has, in the order of first appearance."""
    names = dict.fromkeys(name for own in every for name, value in own.items() if value)
    return [name for name in names if name.lower() not in _SAID]
