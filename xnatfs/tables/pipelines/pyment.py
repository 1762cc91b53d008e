"""Pyment: the age of a brain as predicted from its T1.

Used by `tables.registry`. Plain functions and values, any thread.

Predictions lean to the mean age. The table corrects for that as bx does: with a linear regression of
prediction on age over all sessions of the table; what is left of a prediction then is the brain age gap
(`bag`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import BinaryIO

from xnatfs.tables.parse.helpers import checked_csv, value_of, without
from xnatfs.tables.spec import Column, Input, Inputs, Parsed, Row, SessionInfo, Table

_PREDICTED, _AGE = "prediction", "chronological_age"
_CORRECTED, _GAP = "prediction_corrected", "bag"


def prediction(stream: BinaryIO, _: str) -> Parsed:
    """The CSV file without its `id`, and the raw gap: prediction - age."""
    parsed = without(checked_csv(stream, (_PREDICTED, _AGE), (_PREDICTED, _AGE)), ("id",))
    predicted, age = parsed.columns.index(_PREDICTED), parsed.columns.index(_AGE)

    def gap(row: Row) -> str:
        a, b = value_of(row[predicted]), value_of(row[age])
        return "" if a is None or b is None else repr(a - b)

    return Parsed((*parsed.columns, "bag_raw"), [(*row, gap(row)) for row in parsed.rows], parsed.notes)


def with_room(visit: SessionInfo, inputs: Inputs) -> Parsed:
    """The rows with the subject, and empty cells for what `corrected` computes."""
    ((_path, parsed),) = inputs["prediction"]
    plain = without(parsed, ("subject", _CORRECTED, _GAP))
    return Parsed(
        (*plain.columns, "subject", _CORRECTED, _GAP),
        [(*row, visit.subject, "", "") for row in plain.rows],
        parsed.notes,
    )


def corrected(columns: Sequence[str], rows: list[Row]) -> tuple[tuple[str, ...], list[Row]]:
    """All rows with the residual of the regression over them; empty for a single session, whose residual
    would be 0 by construction.
    """
    names = tuple(columns)
    if not {_PREDICTED, _AGE, _CORRECTED, _GAP} <= set(names):
        return names, rows
    predicted, age = names.index(_PREDICTED), names.index(_AGE)
    usable = [(float(row[age]), float(row[predicted])) for row in rows if row[age] and row[predicted]]
    if len(usable) < 2:
        return names, rows
    mean_age = math.fsum(x for x, _ in usable) / len(usable)
    mean_predicted = math.fsum(y for _, y in usable) / len(usable)
    spread = math.fsum((x - mean_age) ** 2 for x, _ in usable)
    slope = math.fsum((x - mean_age) * (y - mean_predicted) for x, y in usable) / spread if spread else 0.0
    done: list[Row] = []
    for row in rows:
        cells = list(row)
        if row[age] and row[predicted]:
            gap = float(row[predicted]) - (mean_predicted + slope * (float(row[age]) - mean_age))
            cells[names.index(_GAP)] = repr(gap)
            cells[names.index(_CORRECTED)] = repr(float(row[age]) + gap)
        done.append(tuple(cells))
    return names, done


TABLES: tuple[Table, ...] = (
    Table(
        "pyment",
        "predictions",
        ("PYMENT",),
        (Input("prediction", "{id}_prediction.csv", prediction),),
        (
            Column(_PREDICTED, "years", "the column of the CSV file"),
            Column(_AGE, "years", "the column of the CSV file"),
            Column("bag_raw", "years", "prediction - chronological_age"),
            Column("subject", source="XNAT's label of the subject", text=True),
            Column(_CORRECTED, "years", "chronological_age + bag"),
            Column(
                _GAP,
                "years",
                "what the regression of prediction on age over all rows leaves of the prediction",
            ),
        ),
        with_room,
        trail=(),
        finish=corrected,
        doc="Predicted age of the brain, and its difference to the age, corrected over all sessions of "
        "the table.",
    ),
)
