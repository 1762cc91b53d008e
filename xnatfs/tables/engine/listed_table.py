"""What a table made from listings is.

Used by the modules that make one (`people_tables`, `assessor_tables`) and by `from_listings`, which has them
all. Values only; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xnatfs.errors import Failure
from xnatfs.listing.snapshot import SessionSnapshot
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.build import Builder, chosen_sessions
from xnatfs.tables.engine.built_table import table_order
from xnatfs.tables.engine.refusals import removed
from xnatfs.tables.spec import Column, Rows

ID = Column("ID", source="accession id of the session", text=True)
LABEL = Column("label", source="label of the session", text=True)
SUBJECT = Column("subject_label", source="label of the subject", text=True)


@dataclass(frozen=True)
class Listed:
    """A table from listings: how it is built, what it is.

    Attributes:
        build: from a project and some of its sessions (none: all); its columns may be more than `columns`.
        columns: those it always has.
        order: the names of the columns that its rows are sorted by.
    """

    build: Callable[[Builder, str, Sequence[str]], Rows]
    doc: str
    columns: tuple[Column, ...]
    order: tuple[str, ...] = ("subject_label", "label", "ID")


def ordered(builder: Builder, project: str, sessions: Sequence[str]) -> list[ExperimentRecord]:
    """The experiments a table is about, in its order."""
    return sorted(chosen_sessions(builder.summaries.get(project), sessions), key=table_order)


def session_of(builder: Builder, project: str, experiment: ExperimentRecord) -> SessionSnapshot | None:
    """A session down to its resources; None if it was removed just now."""
    try:
        return builder.services.listing_service.sessions.get(project, experiment.id)
    except Failure as failure:
        if not removed(failure, experiment):
            raise
        return None
