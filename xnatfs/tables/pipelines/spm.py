"""SPM12 and CAT12: the volumes of gray matter, white matter and CSF, summed over the probability maps.

Used by `tables.registry`. Plain functions and values, any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.helpers import one_row
from xnatfs.tables.parse.nifti import volume
from xnatfs.tables.spec import Column, Input, Parsed, Table


def map_volume(stream: BinaryIO, _: str, column: str) -> Parsed:
    """The volume of one tissue: the sum of its probabilities x the voxel volume, under the map's name."""
    return Parsed((column,), [(repr(volume(stream)),)])


def map_inputs(names: Sequence[str], before: str = "") -> tuple[Input, ...]:
    """One image for each name its path begins with (after `before`)."""
    return tuple(
        Input(name, (f"{before}{name}*.nii.gz", f"{before}{name}*.nii"), partial(map_volume, column=name))
        for name in names
    )


def map_columns(names: Sequence[str], tissues: Sequence[str]) -> tuple[Column, ...]:
    """Their columns."""
    return tuple(
        Column(name, "mm3", f"{tissue}: sum over {name}*")
        for name, tissue in zip(names, tissues, strict=True)
    )


_TISSUES = ("gray matter", "white matter", "cerebrospinal fluid")
_SPM = ("c1", "c2", "c3")
_CAT = ("mri/p1", "mri/p2", "mri/p3")
_DOC = "Volumes of gray matter, white matter and cerebrospinal fluid."

TABLES: tuple[Table, ...] = (
    Table(
        "spm12",
        "volumes",
        ("SPM12_SEGMENT", "SPM12_SEGMENT_T1T2"),
        map_inputs(_SPM),
        map_columns(_SPM, _TISSUES),
        one_row,
        doc=_DOC,
    ),
    Table(
        "cat12",
        "volumes",
        ("CAT12_SEGMENT",),
        map_inputs(_CAT),
        map_columns(_CAT, _TISSUES),
        one_row,
        doc=_DOC,
    ),
)
