"""QSMxT: magnetic susceptibility of the structures of FreeSurfer's aseg.

Used by `tables.registry`. Plain functions and values, any thread. https://github.com/QSMxT/QSMxT writes one
CSV file a session into `region_analysis/`, whose `subject` is `sub-<X>_ses-<Y>`.
"""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.tables.parse.helpers import checked_csv
from xnatfs.tables.spec import Column, Input, Inputs, Parsed, SessionInfo, Table, Wide

_NUMBERS = ("num_voxels", "min", "max", "median", "mean", "std")


def regions(stream: BinaryIO, _: str) -> Parsed:
    """The CSV file with the two parts of its subject in front."""
    parsed = checked_csv(stream, _NUMBERS, ("subject", "roi", *_NUMBERS))
    at = parsed.columns.index("subject")

    def parts(subject: str) -> tuple[str, str]:
        first, _, rest = subject.partition("_")
        return first.removeprefix("sub-"), rest.partition("_")[0].removeprefix("ses-")

    return Parsed(
        ("subject_id", "session_id", *parsed.columns),
        [(*parts(row[at]), *row) for row in parsed.rows],
        parsed.notes,
    )


def with_subject(visit: SessionInfo, inputs: Inputs) -> Parsed:
    """XNAT's subject instead of the file's, where the file has one."""
    ((_path, parsed),) = inputs["stats"]
    at = parsed.columns.index("subject")
    return parsed._replace(rows=[(*row[:at], visit.subject, *row[at + 1 :]) for row in parsed.rows])


_UNITS = {"num_voxels": "", **dict.fromkeys(_NUMBERS[1:], "ppm")}

TABLES: tuple[Table, ...] = (
    Table(
        "qsmxt",
        "stats",
        ("QSMXT",),
        (Input("stats", ("region_analysis/*.csv", "*/region_analysis/*.csv"), regions),),
        (
            Column("subject_id", source="X of the file's subject sub-X_ses-Y", text=True),
            Column("session_id", source="Y of it", text=True),
            Column("subject", source="XNAT's label of the subject", text=True),
            Column("roi", source="the column of the CSV file", text=True),
            *(Column(name, unit, "the column of the CSV file") for name, unit in _UNITS.items()),
        ),
        with_subject,
        trail=(),
        wide=Wide(("roi",), _NUMBERS),
        doc="Magnetic susceptibility by structure of FreeSurfer's aseg.",
    ),
)
