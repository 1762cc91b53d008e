"""The report has a line for every fault and a cell for every operation, and is what `report` makes of its own
cells.
"""

from __future__ import annotations

from tests.faults import report


def test_the_document_is_what_the_run_made() -> None:
    """Each cell's own test compares that cell; this one all the rest: the words, the rows, the columns."""
    text = report.DOCUMENT.read_text(encoding="utf-8")
    cells = report.parse(text)
    assert list(cells) == report.keys() or set(cells) == set(report.keys())
    assert report.render(cells) == text
