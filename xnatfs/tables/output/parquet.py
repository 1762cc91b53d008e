"""A finished table as a `.parquet`: verbatim columns, for pandas, polars, duckdb, R and MATLAB.

Used by `tables.output.write`. Any thread; one writer a path. Texts are strings, numbers are 64-bit integers
where all of a column are (in their plain spelling), else doubles, an empty cell is null. Dates stay the
strings they are: a column is not one type in one project and another in the next because of a single odd
cell. A column's unit and source are in its field's metadata, the table's name in the schema's.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet

from xnatfs.tables.output.types import CellKind, ColumnScan, encodable, header, pieces
from xnatfs.tables.spec import Frame

_GROUP_CELLS = 500_000  # in a row group: some 5 MB; a few are in memory at once
_TYPES = {
    CellKind.TEXT: pyarrow.string(),
    CellKind.INTEGER: pyarrow.int64(),
    CellKind.NUMBER: pyarrow.float64(),
}


def write(frame: Frame, scanned: ColumnScan, path: Path, title: str) -> None:
    """Write the table; see `formats.write`."""
    kinds = [facts.stored_kind for facts in scanned.facts]
    fields = []
    for name, column, kind in zip(header(frame), frame.columns, kinds, strict=True):
        about = {
            key: encodable(text) for key, text in (("unit", column.unit), ("source", column.source)) if text
        }
        fields.append(pyarrow.field(encodable(name), _TYPES[kind], metadata=about or None))
    schema = pyarrow.schema(fields, metadata={"title": encodable(title)} if title else None)
    # snappy, since every reader has it.
    with pyarrow.parquet.ParquetWriter(
        path, schema, compression="snappy", version="2.6", data_page_version="1.0"
    ) as writer:
        batches: list[pyarrow.RecordBatch] = []
        rows = 0
        for piece in pieces(frame):
            arrays = [
                pyarrow.array(_values(kind, cells), type=field.type)
                for kind, cells, field in zip(kinds, zip(*piece, strict=True), schema, strict=True)
            ]
            batches.append(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))
            rows += len(piece)
            if rows * len(fields) >= _GROUP_CELLS:
                _flush(writer, batches, rows)
                batches, rows = [], 0
        if rows:
            _flush(writer, batches, rows)


def _flush(writer: pyarrow.parquet.ParquetWriter, batches: list[pyarrow.RecordBatch], rows: int) -> None:
    """Write the batches as one row group."""
    writer.write_table(pyarrow.Table.from_batches(batches), row_group_size=rows)


def _values(
    kind: CellKind, cells: tuple[str, ...]
) -> list[str | None] | list[int | None] | list[float | None]:
    if kind is CellKind.INTEGER:
        return [int(cell) if cell else None for cell in cells]
    if kind is CellKind.NUMBER:
        return [float(cell) if cell else None for cell in cells]
    return [encodable(cell) if cell else None for cell in cells]
