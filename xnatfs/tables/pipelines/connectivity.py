"""Connectivity matrices and time series by region: MRtrix3 and XCP-D.

Used by `tables.registry`. Plain functions and values, any thread. bx saves one workbook a session; here the
sessions are stacked, so a matrix is a row for each node with a column for each node.
"""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.tables.parse.helpers import checked_csv, number, unfinished
from xnatfs.tables.spec import Column, Input, Parsed, ParseError, Row, Table, text_lines

_NODE = "Node"


def connectome(stream: BinaryIO, _: str) -> Parsed:
    """connectome.csv: a square of numbers without names. Nodes are numbered from 1, as in the image of nodes
    it was made with.
    """
    rows: list[Row] = []
    for count, line in enumerate(text_lines(stream), 1):
        if line.strip() and not line.startswith("#"):
            fields = line.replace(",", " ").split()
            rows.append(
                (str(len(rows) + 1), *(number(cell, f"line {count}: a connection") for cell in fields))
            )
    if any(len(row) != len(rows) + 1 for row in rows):
        raise ParseError(f"it has {len(rows)} rows and not in all of them as many numbers")
    return Parsed((_NODE, *(row[0] for row in rows)), rows, unfinished(stream))


def _all_numbers(stream: BinaryIO) -> Parsed:
    """A table of tab-separated numbers, but for its column Node."""
    parsed = checked_csv(stream, (), (), "\t")
    rows = [
        tuple(
            cell if name == _NODE else number(cell, f"row {count}: {name[:60]}")
            for name, cell in zip(parsed.columns, row, strict=True)
        )
        for count, row in enumerate(parsed.rows, 2)
    ]
    return Parsed(parsed.columns, rows, parsed.notes)


def conmat(stream: BinaryIO, _: str) -> Parsed:
    """*_conmat.tsv: a column Node, and a column for each node in the same order."""
    parsed = _all_numbers(stream)
    if parsed.columns[0] != _NODE or tuple(row[0] for row in parsed.rows) != parsed.columns[1:]:
        raise ParseError("its rows and columns are not the same nodes: it is not a complete matrix")
    return parsed


def timeseries(stream: BinaryIO, _: str) -> Parsed:
    """*_timeseries.tsv: a row for each volume, a column for each region."""
    return _all_numbers(stream)


TABLES: tuple[Table, ...] = (
    Table(
        "mrtrix3",
        "connectome",
        ("MRTRIX3",),
        (Input("matrix", ("connectome.csv", "*/connectome.csv"), connectome),),
        (Column(_NODE, source="the row's number"),),
        doc="Structural connectivity: a row and a column for each node of the Desikan-Killiany atlas, "
        "numbered as in MRtrix3's "
        "labelconvert/fs_default.txt.",
    ),
    Table(
        "xcpd",
        "conmat",
        ("XCP_D",),
        (Input("matrix", "*_atlas-DK_measure-pearsoncorrelation_conmat.tsv", conmat),),
        (Column(_NODE, source="the column Node", text=True),),
        doc="Functional connectivity (Pearson's correlation): a row and a column for each region of the "
        "Desikan-Killiany atlas.",
    ),
    Table(
        "xcpd",
        "timeseries",
        ("XCP_D",),
        (Input("series", "*_atlas-DK_timeseries.tsv", timeseries),),
        doc="Mean BOLD signal: a row for each volume, a column for each region of the "
        "Desikan-Killiany atlas.",
    ),
)
