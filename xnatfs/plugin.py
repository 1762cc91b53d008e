"""Everything a table of your own needs: the one module of xnatfs that a table plug-in imports.

What a table is (`Table`, `Input`, `Column`, `Wide`), what a parser gives back (`Parsed`) or raises
(`ParseError`), how the rows of a session's files come together (`stacked`, `one_row`, `both_sides`), and the
readers that the built-in tables use: text lines, CSV, FreeSurfer's stats files, `.xlsx` sheets, NIfTI images.

Names in `__all__` stay as they are within a major version; all other modules of xnatfs but `xnatfs` itself
and `xnatfs.errors` are private. docs/writing-a-table.md has an example. Plain values and functions: any
thread.
"""

from __future__ import annotations

from xnatfs.tables.parse.freesurfer_stats import Stats, read_stats
from xnatfs.tables.parse.helpers import (
    anywhere,
    blank,
    both_sides,
    checked_csv,
    named_values,
    number,
    one_row,
    only,
    passed_csv,
    unfinished,
    value_of,
    version_in,
    where,
    without,
)
from xnatfs.tables.parse.nifti import label_counts, volume
from xnatfs.tables.parse.workbook import first_sheet
from xnatfs.tables.spec import (
    Column,
    Combine,
    Input,
    Inputs,
    Parsed,
    ParseError,
    Parser,
    Row,
    SessionInfo,
    Table,
    Wide,
    csv_table,
    is_number,
    stack,
    stacked,
    text_lines,
)

__all__ = [
    "Column",
    "Combine",
    "Input",
    "Inputs",
    "ParseError",
    "Parsed",
    "Parser",
    "Row",
    "SessionInfo",
    "Stats",
    "Table",
    "Wide",
    "anywhere",
    "blank",
    "both_sides",
    "checked_csv",
    "csv_table",
    "first_sheet",
    "is_number",
    "label_counts",
    "named_values",
    "number",
    "one_row",
    "only",
    "passed_csv",
    "read_stats",
    "stack",
    "stacked",
    "text_lines",
    "unfinished",
    "value_of",
    "version_in",
    "volume",
    "where",
    "without",
]
