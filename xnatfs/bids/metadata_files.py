"""The texts of a BIDS dataset: description, participants, sessions, scans, what is unmapped. Tables are TSV
with `n/a` for nothing.

Pure functions; the same input gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xnatfs.bids.dataset import Row, Unmapped
from xnatfs.bids.participants import ParticipantTable
from xnatfs.bids.schema import VERSION
from xnatfs.server.records import ExperimentRecord

UNMAPPED = "unmapped.tsv"
IGNORED = f"{UNMAPPED}\n".encode()

_README = """\
{title}

This is a view of an XNAT server as a BIDS dataset, made by xnatfs {version} as the folder is looked at. \
Nothing is copied: an image here is
the server's file under another name, fetched when it is read.

Which scan became which file follows from the first of these that says something of it; copies are in code/:

{maps}

A lab's own rules come from `xnatfs mount --bids-map FILE`, from the user's
bids.toml, or from the file bids.toml in the project's resource XNATFS. Below them
stands the mapping that the lab has on the server for dcm2bids, XNAT's own
converters or bidskit, or ReproIn's names. docs/bids.md of xnatfs describes all of
it, and how to switch it off.

{made}\
participants.tsv and sub-*/sub-*_sessions.tsv     what is known of subjects and sessions, their original \
labels and accession ids
sub-*/ses-*/sub-*_ses-*_scans.tsv                 the scan and the original file of each image
unmapped.tsv                                      images that are not in the dataset, and why
"""


_MADE_OF_DICOM = """\
Images of scans that have only DICOM files are made of these, by dcm2niix {version}, when they or their \
sidecars are opened, and
checked. A scan is listed as one image until then. What turns out otherwise is an error when it is opened, \
and then listed as what
it is, or in unmapped.tsv with the reason. `xnatfs convert` on this folder converts everything beforehand: \
do that before programs
that read all of it.

"""


class Person(NamedTuple):
    """A subject of the dataset."""

    label: str
    original: str
    accession: str
    project: str


class VisitRow(NamedTuple):
    """A session of a subject."""

    label: str
    project: str
    experiment: ExperimentRecord


PARTICIPANTS = {
    "original_label": "The subject's label on the XNAT server",
    "accession_id": "The subject's accession id on the XNAT server",
    "project": "The XNAT project",
}
SESSIONS = {
    "original_label": "The session's label on the XNAT server",
    "accession_id": "The session's accession id on the XNAT server",
    "project": "The XNAT project",
}
SCANS = {
    "scan_id": "The scan's id on the XNAT server",
    "scan_type": "The scan's type on the XNAT server",
    "series_description": "The scan's series description",
    "quality": "The scan's quality on the XNAT server",
    "resource": "The resource of the scan that has the image",
    "original_file": "The path of the image in that resource",
}


def document(value: Mapping[str, Any]) -> bytes:
    """A JSON file."""
    return (json.dumps(value, indent="\t", ensure_ascii=False) + "\n").encode()


def described(columns: Mapping[str, str], more: Mapping[str, Mapping[str, Any]] | None = None) -> bytes:
    """The JSON beside a table; `more` columns stand first."""
    return document({**(more or {}), **{name: {"Description": text} for name, text in columns.items()}})


def description(
    title: str, sources: Iterable[str], version: str, converters: Sequence[Mapping[str, str]] = ()
) -> bytes:
    """dataset_description.json.

    Args:
        title: of the dataset.
        sources: the addresses of the projects it shows.
        version: of xnatfs.
        converters: what made images, as in `GeneratedBy`.
    """
    return document(
        {
            "Name": title,
            "BIDSVersion": VERSION,
            "DatasetType": "raw",
            "License": "n/a",
            "GeneratedBy": [
                {"Name": "xnatfs", "Version": version, "CodeURL": "https://pypi.org/project/xnatfs"},
                *converters,
            ],
            "SourceDatasets": [{"URL": source} for source in sources],
        }
    )


def readme(title: str, version: str, maps: Iterable[str], converter: str = "") -> bytes:
    """README: what the dataset is, what its names follow from, and where its tables are.

    Args:
        title: of the dataset.
        version: of xnatfs.
        maps: what the names follow from, in lines.
        converter: the version of what made images; "" if none were made.
    """
    made = _MADE_OF_DICOM.format(version=converter) if converter else ""
    text = _README.format(title=title, version=version, maps="\n".join(maps), made=made)
    return text.encode("utf-8", "replace")


def participants(people: Iterable[Person], known: ParticipantTable) -> bytes:
    """participants.tsv, with what is known of each."""
    return table(
        ["participant_id", *known.columns, *PARTICIPANTS],
        ([f"sub-{person.label}", *known.cells(person.accession), *person[1:]] for person in people),
    )


def sessions(visits: Iterable[VisitRow], ages: Mapping[str, str]) -> bytes:
    """sub-*_sessions.tsv; the ages by accession id, if any is known."""
    rows = (
        [
            f"ses-{visit.label}",
            acquired(visit.experiment),
            *([ages.get(visit.experiment.id, "")] if ages else []),
            visit.experiment.label,
            visit.experiment.id,
            visit.project,
        ]
        for visit in visits
    )
    return table(["session_id", "acq_time", *(["age"] if ages else []), *SESSIONS], rows)


def scans(rows: Iterable[Row], experiment: ExperimentRecord) -> bytes:
    """sub-*_ses-*_scans.tsv."""
    when = acquired(experiment)

    def line(row: Row) -> list[str]:
        scan = row.scan
        return [
            row.filename,
            when,
            scan.id,
            scan.type,
            scan.series_description,
            scan.quality,
            row.resource,
            row.source,
        ]

    return table(["filename", "acq_time", *SCANS], map(line, rows))


def unmapped(rows: Iterable[tuple[VisitRow, str, Unmapped, str]]) -> bytes:
    """unmapped.tsv; the texts are the subject's original label, and what dcm2niix takes the scan for."""
    scan_columns = ["scan_id", "scan_type", "series_description", "quality", "frames"]

    def line(visit: VisitRow, subject: str, row: Unmapped, guess: str) -> list[str]:
        scan = row.scan
        about = [scan.id, scan.type, scan.series_description, scan.quality, scan.frames]
        why = [row.resource, row.source, row.reason, guess]
        return [visit.project, subject, visit.experiment.label, *about, *why]

    return table(
        ["project", "subject", "session", *scan_columns, "resource", "file", "reason", "bids_guess"],
        (line(*row) for row in rows),
    )


def acquired(experiment: ExperimentRecord) -> str:
    """When a session was; midnight where only the day is known, "" where not even that."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", experiment.date):
        return ""
    time = re.match(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d", experiment.time)
    return f"{experiment.date}T{time[0] if time else '00:00:00'}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A TSV. A tab or a line break in a cell becomes a blank."""
    lines = ["\t".join(header)]
    lines += ["\t".join(re.sub(r"[\t\r\n\x00]", " ", cell).strip() or "n/a" for cell in row) for row in rows]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")
