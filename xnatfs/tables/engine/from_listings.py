"""Tables made from listings alone: sessions, their dates, their scans.

Used by `finished_table` and the command `table`. bx calls the first two `id` and `scandates`
(bx.md 1.3 and 1.5).
Threading: any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from xnatfs.errors import Cause, Failure
from xnatfs.extras import load
from xnatfs.listing.snapshot import SessionSnapshot
from xnatfs.server.records import ExperimentRecord, FileRecord, ScanRecord, natural
from xnatfs.tables.engine.build import Builder, chosen_sessions
from xnatfs.tables.engine.built_table import table_order
from xnatfs.tables.engine.refusals import of_this_file, removed
from xnatfs.tables.spec import Column, Row, Rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A table from listings: how it is built, what it is."""

    build: Callable[[Builder, str, Sequence[str]], Rows]
    doc: str
    columns: tuple[Column, ...]


def _sessions(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    rows: list[Row] = [
        (
            experiment.id,
            experiment.label,
            experiment.subject_label,
            project,
            experiment.xsi_type,
            experiment.date,
        )
        for experiment in _ordered(builder, project, sessions)
    ]
    return Rows(LISTED["sessions"].columns, rows)


def _scandates(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    rows: list[Row] = []
    for experiment in _ordered(builder, project, sessions):
        date = experiment.date or _date_of_images(builder, project, experiment)
        rows.append((experiment.id, experiment.label, experiment.subject_label, date, experiment.time))
    return Rows(LISTED["scandates"].columns, rows)


def _scans(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    rows: list[Row] = []
    for experiment in _ordered(builder, project, sessions):
        session = _session(builder, project, experiment)
        scans = session.scans if session is not None else []
        rows += [
            (
                experiment.id,
                experiment.label,
                experiment.subject_label,
                scan.id,
                scan.type,
                scan.series_description,
                scan.quality,
                scan.frames,
                experiment.date,
            )
            for scan in sorted(scans, key=lambda scan: natural(scan.id))
        ]
    return Rows(LISTED["scans"].columns, rows)


_ID = Column("ID", source="accession id of the session", text=True)
_LABEL = Column("label", source="label of the session", text=True)
_SUBJECT = Column("subject_label", source="label of the subject", text=True)
LISTED: dict[str, Listed] = {
    "sessions": Listed(
        _sessions,
        "Every experiment of the project with its ids (bx id).",
        (
            _ID,
            _LABEL,
            _SUBJECT,
            Column("project", text=True),
            Column("xsiType", text=True),
            Column("date", text=True),
        ),
    ),
    "scandates": Listed(
        _scandates,
        "When each session was acquired; where the server has no date, the one in a scan's DICOM files.",
        (_ID, _LABEL, _SUBJECT, Column("scandate", text=True), Column("scantime", text=True)),
    ),
    "scans": Listed(
        _scans,
        "Every scan of every session.",
        (
            *(_ID, _LABEL, _SUBJECT),
            Column("scan", source="id of the scan", text=True),
            Column("type", text=True),
            Column("series_description", text=True),
            Column("quality", text=True),
            Column("frames"),
            Column("date", text=True),
        ),
    ),
}


def _ordered(builder: Builder, project: str, sessions: Sequence[str]) -> list[ExperimentRecord]:
    return sorted(chosen_sessions(builder.summaries.get(project), sessions), key=table_order)


def _session(builder: Builder, project: str, experiment: ExperimentRecord) -> SessionSnapshot | None:
    """A session down to its resources; None if it was removed just now."""
    try:
        return builder.services.listing_service.sessions.get(project, experiment.id)
    except Failure as failure:
        if not removed(failure, experiment):
            raise
        return None


def _date_of_images(builder: Builder, project: str, experiment: ExperimentRecord) -> str:
    """The acquisition date in a DICOM file of a session, "" if there is none: of the first scan that has
    DICOM files.
    """
    if not experiment.may_have_scans:
        return ""
    session = _session(builder, project, experiment)
    if session is None:
        return ""
    scans: list[ScanRecord] = sorted(
        session.scans, key=lambda scan: (scan.id.startswith(("OT-", "O-", "0-")), natural(scan.id))
    )
    for scan in scans:
        for resource in session.of("scan", scan.id):
            if resource.label != "DICOM" and resource.format != "DICOM":
                continue
            files = builder.services.listing_service.files.of_resource(resource, experiment.changed)
            if files and (date := _date_of_file(builder, project, files[0])):
                return date
    return ""


def _date_of_file(builder: Builder, project: str, file: FileRecord) -> str:
    pydicom = load("pydicom", "tables")
    try:
        with _content(builder, project, file) as stream:
            header = pydicom.dcmread(
                stream,
                stop_before_pixels=True,
                specific_tags=["AcquisitionDate", "AcquisitionDateTime", "StudyDate"],
            )
        # Values are decoded when they are asked for.
        date = str(
            header.get("AcquisitionDate")
            or str(header.get("AcquisitionDateTime") or "")[:8]
            or header.get("StudyDate")
            or ""
        )
    except Exception as error:
        # pydicom raises a dozen kinds for a damaged file; it costs the date and not the table
        if (
            isinstance(error, Failure)
            and error.cause not in (Cause.GONE, Cause.BAD_DIGEST)
            and not of_this_file(error)
        ):
            raise  # the server is away or busy: that says nothing of the file
        log.info("no date from %s: %s", file.uri, error)
        return ""
    dated = len(date) == 8 and date.isascii() and date.isdecimal()
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}" if dated else ""


def _content(builder: Builder, project: str, file: FileRecord) -> BinaryIO:
    """A file; one that the server does not give is asked for again once the server is known to answer
    otherwise.
    """
    try:
        return builder.files.open(file)
    except Failure as failure:
        if failure.cause is not Cause.GONE and not of_this_file(failure):
            raise
        builder.services.listing_service.projects.proof.check(project)
        return builder.files.open(file)
