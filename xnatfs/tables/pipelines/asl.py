"""Arterial spin labelling: BASIL, TE-ASL and 3D ASL.

Used by `tables.registry`. Plain functions and values, any thread.

oxford_asl (https://oxford-asl.readthedocs.io) leaves one number a file in `native_space/*.txt`, and regional
tables in `region_analysis*.csv`. The 3D ASL pipeline has one CSV file with all atlases.
"""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.helpers import checked_csv, number, where
from xnatfs.tables.spec import Column, Input, Parsed, ParseError, Table, Wide, text_lines

# oxford_asl repeats a word in these names.
_TWICE = {
    "arrival_wm_wm_mean": "arrival_wm_mean",
    "perfusion_wm_wm_mean": "perfusion_wm_mean",
    "perfusion_wm_calib_wm_mean": "perfusion_calib_wm_mean",
}
NUMBERS = ("Nvoxels", "Mean", "Std", "Median", "IQR", "Precision-weighted mean", "I2")


def mean_file(stream: BinaryIO, path: str) -> Parsed:
    """A file of one number, named after what it is."""
    fields = " ".join(text_lines(stream)).split()
    if len(fields) != 1:
        raise ParseError(f"it has {len(fields)} fields, not one number")
    stem = path.rpartition("/")[2].split(".txt")[0]
    corrected = "true" if "pvcorr" in path else "false"
    return Parsed(
        ("measurement", "pvcorr", "value", "filepath"),
        [(_TWICE.get(stem, stem), corrected, number(fields[0], "its content"), path)],
    )


def regions(stream: BinaryIO, _: str, analysis: str) -> Parsed:
    """A region_analysis CSV file, with what was analysed in front."""
    parsed = checked_csv(stream, NUMBERS, ("name", *NUMBERS))
    return Parsed(
        ("region_analysis", *parsed.columns), [(analysis, *row) for row in parsed.rows], parsed.notes
    )


def atlas_rows(stream: BinaryIO, _: str, atlas: str) -> Parsed:
    """The rows of one atlas of quantification_results.csv: atlas, region, mean and further statistics."""
    parsed = where(checked_csv(stream, (), ("atlas", "region", "mean")), lambda row: row["atlas"] == atlas)
    if not parsed.rows:
        raise ParseError(f"it has no rows of the atlas {atlas}")
    for row in parsed.rows:
        for name, cell in zip(parsed.columns, row, strict=True):
            if name not in ("atlas", "region"):
                number(cell, f"the {name} of {row[parsed.columns.index('region')][:60]}")
    return parsed


def _not_corrected(path: str) -> bool:
    """Of two regional files the one without partial volume correction is read."""
    return "pvcorr" not in path


_PERFUSION = (
    Column("measurement", source="the file's name without .txt", text=True),
    Column("pvcorr", source="true if the path says pvcorr: corrected for partial volumes", text=True),
    Column(
        "value", "perfusion: ml/100 g/min if calibrated, else arbitrary; arrival: s", "the file's content"
    ),
    Column("filepath", source="path inside the resource", text=True),
)
_REGIONS = (
    Column("region_analysis", source="what was analysed, from the file's name", text=True),
    Column("name", source="the region (Harvard-Oxford atlases)", text=True),
    *(Column(name, source="the column of the CSV file") for name in NUMBERS),
)


def _perfusion(pipeline: str, resource: str) -> Table:
    return Table(
        pipeline,
        "perfusion",
        (resource,),
        (Input("means", "native_space/*.txt", mean_file, several=True),),
        _PERFUSION,
        wide=Wide(("measurement", "pvcorr"), ("value",)),
        doc="Mean perfusion and arrival times: of the whole brain, gray and white matter.",
    )


def _stats(pipeline: str, resource: str, files: dict[str, str]) -> Table:
    return Table(
        pipeline,
        "stats",
        (resource,),
        tuple(
            Input(name, f"*{file}", partial(regions, analysis=name), prefer=_not_corrected)
            for name, file in files.items()
        ),
        _REGIONS,
        wide=Wide(("region_analysis", "name"), NUMBERS),
        doc="Perfusion in the regions of the Harvard-Oxford atlases, over all tissue, gray matter and "
        "white matter.",
    )


def _asl3d(name: str, atlas: str, doc: str) -> Table:
    return Table(
        "asl3d",
        name,
        ("3DASL_QUANTIFICATION",),
        (Input("results", "quantification_results.csv", partial(atlas_rows, atlas=atlas)),),
        (
            Column("atlas", source="the column of the CSV file", text=True),
            Column("region", source="the column of the CSV file", text=True),
            Column("mean", "ml/100 g/min", "the column of the CSV file"),
        ),
        wide=Wide(("region",), ("mean",)),
        doc=doc,
    )


_BRAIN, _GM, _WM = "region_analysis.csv", "region_analysis_gm.csv", "region_analysis_wm.csv"

TABLES: tuple[Table, ...] = (
    _perfusion("basil", "BASIL"),
    _stats("basil", "BASIL", {"whole_brain": _BRAIN, "GM": _GM, "WM": _WM}),
    _perfusion("teasl", "TE_ASL"),
    _stats(
        "teasl",
        "TE_ASL",
        {
            **{"whole_brain_perfusion": _BRAIN, "GM_perfusion": _GM, "WM_perfusion": _WM},
            **{
                "whole_brain_arrival": "region_analysis_arrival.csv",
                "GM_arrival": "region_analysis_arrival_gm.csv",
            },
            **{"WM_arrival": "region_analysis_arrival_wm.csv"},
        },
    ),
    _asl3d("perfusion", "global", "Mean perfusion of the whole brain, gray and white matter."),
    _asl3d("aal", "aal2", "Perfusion in the regions of the AAL2 atlas."),
)
