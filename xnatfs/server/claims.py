"""What each listing form claims of its rows, checked before any of them is believed.

Used by `listing_requests`, `witness_requests` and `resources`. A server, a fork or a proxy may answer a form
with a column left out, blank or filled with something else. A row that lacks what makes it a row (an
accession id is a primary key of XNAT's database) proves that the answer is not the listing that was asked
for: it is asked again, and then answered by another form or not at all. Nothing is dropped on the way.
Threading: pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from xnatfs.server.resultset import Row, number, pick

Column = tuple[str, ...]  # the names it may come under, as `resultset.pick` takes them
_TYPE = re.compile(r"[\w.-]+:[\w.-]+")


class Claim(NamedTuple):
    """What holds for the rows of a form.

    Attributes:
        filled: columns that no row may leave blank.
        numbers: columns that no row may have without a number in them.
        types: columns that have the name of an XNAT type in every row.
        partly: columns that may be blank in a row, but not in all of them.
        children: columns with the id of something below what `ID` names, which is never the same.
        whole: an id, and columns about the thing it is of: not all rows that have any of these lack the id.
    """

    filled: tuple[Column, ...] = ()
    numbers: tuple[Column, ...] = ()
    types: tuple[Column, ...] = ()
    partly: tuple[Column, ...] = ()
    children: tuple[Column, ...] = ()
    whole: tuple[tuple[Column, tuple[Column, ...]], ...] = ()

    def check(self, rows: Sequence[Row]) -> None:
        """Return if the rows may be what they should be.

        Raises:
            ValueError: they are not; in words.
        """
        for column in self.filled:
            _every(rows, column, lambda value: value != "", "blank")
        for column in self.numbers:
            _every(rows, column, lambda value: number(value) is not None, "no number")
        for column in self.types:
            _every(rows, column, lambda value: _TYPE.fullmatch(value) is not None, "no type")
        for column in self.partly:
            if rows and not any(pick(row, *column) for row in rows):
                raise ValueError(f"{column[0]} is blank in all {len(rows)} rows")
        for column in self.children:
            wrong = sum(pick(row, *column) == pick(row, "id") != "" for row in rows)
            if wrong:
                raise ValueError(f"{column[0]} is the id of what it is below in {wrong} of {len(rows)} rows")
        for column, others in self.whole:
            about = [row for row in rows if any(pick(row, *other) for other in others)]
            if about and not any(pick(row, *column) for row in about):
                raise ValueError(f"{column[0]} is blank in all {len(about)} rows that should have it")


def _every(rows: Sequence[Row], column: Column, good: Callable[[str], bool], word: str) -> None:
    bad = sum(not good(pick(row, *column)) for row in rows)
    if bad:
        raise ValueError(f"{column[0]} is {word} in {bad} of {len(rows)} rows")


NONE = Claim()
_ID: Column = ("id",)
ONLY_IDS = Claim(filled=(_ID,))
PROJECTS = Claim(filled=(_ID,))
SUBJECTS = Claim(filled=(_ID,), partly=(("label",),))
EXPERIMENTS = Claim(
    filled=(_ID,),
    types=(("xsitype",),),
    partly=(("label",), ("subject_id", "/subject_id"), ("subject_label", "/subjectdata/label")),
    children=(("subject_id",), ("subject_label",)),
)
EXPERIMENT_RESOURCES = Claim(filled=(_ID,))
_SCAN: Column = ("/imagescandata/id",)
ABOUT_SCANS: tuple[Column, ...] = (
    ("/imagescandata/type",),
    ("/imagescandata/series_description",),
    ("/imagescandata/file/label",),
    ("/imagescandata/file/xnat_abstractresource_id",),
)
SCANS = Claim(filled=(_ID,), children=(_SCAN,), whole=((_SCAN, ABOUT_SCANS),))
ASSESSORS = Claim(
    filled=(_ID,),
    types=(("xsitype",),),
    partly=(("label",), ("session_id", "/imagesession_id")),
    children=(("session_id",), ("/imagesession_id",)),
)
_RECONSTRUCTION: Column = ("/reconstructedimagedata/id",)
ABOUT_RECONSTRUCTIONS: tuple[Column, ...] = (
    ("/reconstructedimagedata/type",),
    ("/reconstructedimagedata/out/file/label",),
    ("/reconstructedimagedata/in/file/label",),
)
RECONSTRUCTIONS = Claim(
    filled=(_ID,), children=(_RECONSTRUCTION,), whole=((_RECONSTRUCTION, ABOUT_RECONSTRUCTIONS),)
)
SCANS_OF_SESSION = Claim(filled=(_ID,))
ASSESSORS_OF_SESSION = Claim(filled=(_ID,))
_NUMBER: Column = ("xnat_abstractresource_id",)
RESOURCES = Claim(numbers=(_NUMBER,))
RESOURCES_OF_SESSION = Claim(numbers=(_NUMBER,), filled=(("category",),))
INPUTS = Claim(numbers=(_NUMBER,), filled=(("cat_id",),))
