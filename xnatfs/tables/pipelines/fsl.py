"""fsl_anat: tissue volumes and the volumes of the subcortical structures.

Used by `tables.registry`. Plain functions and values, any thread.
"""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.tables.parse.helpers import one_row
from xnatfs.tables.parse.nifti import label_counts
from xnatfs.tables.pipelines.spm import map_columns, map_inputs
from xnatfs.tables.spec import Column, Input, Parsed, Table, Wide

# FIRST's labels, which are those of FreeSurfer: https://fsl.fmrib.ox.ac.uk/fsl/docs/#/structural/first. Names
# and order as bx gives them.
STRUCTURES = {
    **{
        "L_Thal": 10,
        "L_Caud": 11,
        "L_Puta": 12,
        "L_Pall": 13,
        "BrStem": 16,
        "L_Hipp": 17,
        "L_Amyg": 18,
        "L_Accu": 26,
    },
    **{"R_Thal": 49, "R_Caud": 50, "R_Puta": 51, "R_Pall": 52, "R_Hipp": 53, "R_Amyg": 54, "R_Accu": 58},
}


def subcortical(stream: BinaryIO, _: str) -> Parsed:
    """T1_subcort_seg: voxels of each label x voxel volume."""
    header, counts = label_counts(stream)
    return Parsed(
        ("region", "volume"),
        [
            (name, repr(float(counts.get(float(label), 0) * header.exact_voxel)))
            for name, label in STRUCTURES.items()
        ],
    )


_MAPS = ("T1_fast_pve_0", "T1_fast_pve_1", "T1_fast_pve_2")

TABLES: tuple[Table, ...] = (
    Table(
        "fslanat",
        "volumes",
        ("FSL_ANAT",),
        map_inputs(_MAPS, "*"),
        map_columns(_MAPS, ("cerebrospinal fluid", "gray matter", "white matter")),
        one_row,
        doc="Volumes of cerebrospinal fluid, gray matter and white matter, from FAST's partial volume maps.",
    ),
    Table(
        "fslanat",
        "subcortical",
        ("FSL_ANAT",),
        (Input("labels", ("*T1_subcort_seg.nii.gz", "*T1_subcort_seg.nii"), subcortical),),
        (
            Column("region", source="FIRST's label", text=True),
            Column("volume", "mm3", "voxels of the label x voxel volume"),
        ),
        wide=Wide(("region",), ("volume",)),
        doc="Volumes of FIRST's subcortical structures.",
    ),
)
