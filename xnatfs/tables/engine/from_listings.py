"""Tables made from listings alone: subjects, sessions, their dates, their scans.

Used by `finished_table` and the command `table`. bx calls the first two `id` and `scandates`
(bx.md 1.3 and 1.5).
Threading: any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import BinaryIO

from xnatfs.errors import Cause, Failure
from xnatfs.extras import load
from xnatfs.server.records import ExperimentRecord, FileRecord, ScanRecord, natural
from xnatfs.tables.engine import assessor_tables, people_tables
from xnatfs.tables.engine.build import Builder
from xnatfs.tables.engine.listed_table import ID, LABEL, SUBJECT, Listed, ordered, session_of
from xnatfs.tables.engine.refusals import of_this_file
from xnatfs.tables.spec import Column, Row, Rows

log = logging.getLogger(__name__)


def _scandates(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    rows: list[Row] = []
    for experiment in ordered(builder, project, sessions):
        date = experiment.date or _date_of_images(builder, project, experiment)
        rows.append((experiment.id, experiment.label, experiment.subject_label, date, experiment.time))
    return Rows(LISTED["scandates"].columns, rows)


def _scans(builder: Builder, project: str, sessions: Sequence[str]) -> Rows:
    rows: list[Row] = []
    for experiment in ordered(builder, project, sessions):
        session = session_of(builder, project, experiment)
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


LISTED: dict[str, Listed] = {
    **people_tables.LISTED,
    "scandates": Listed(
        _scandates,
        "When each session was acquired; where the server has no date, the one in a scan's DICOM files.",
        (ID, LABEL, SUBJECT, Column("scandate", text=True), Column("scantime", text=True)),
    ),
    "scans": Listed(
        _scans,
        "Every scan of every session.",
        (
            *(ID, LABEL, SUBJECT),
            Column("scan", source="id of the scan", text=True),
            Column("type", text=True),
            Column("series_description", text=True),
            Column("quality", text=True),
            Column("frames"),
            Column("date", text=True),
        ),
    ),
}


def listed_table(key: str) -> Listed | None:
    """A table made from listings; None if it is none of these."""
    return assessor_tables.listed(key) if assessor_tables.is_one(key) else LISTED.get(key)


def listed_keys(builder: Builder, project: str) -> list[str]:
    """The tables from listings that a project has.

    Raises:
        Failure: what keeps the server from answering.
    """
    return [*LISTED, *assessor_tables.keys(builder.services.listing_service.projects.get(project))]


def _date_of_images(builder: Builder, project: str, experiment: ExperimentRecord) -> str:
    """The acquisition date in a DICOM file of a session, "" if there is none: of the first scan that has
    DICOM files.
    """
    if not experiment.may_have_scans:
        return ""
    session = session_of(builder, project, experiment)
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
