"""FreeSurfer's tables: aseg, aparc, hippocampal subfields, amygdalar nuclei, and the extra segmentations of
FreeSurfer 7.

Used by `tables.registry`; the aparc and aseg parsers also by `braak` and `signature`. Plain functions and
values, any thread.

Formats: `stats` (aseg, aparc); lines `name value` in mm3 (the subregion tools' `*.v<n>.txt`); one header and
one value line (`hypothalamic_subunits_volumes.v1.csv`). Rows and their order are those of bx 0.9.2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.freesurfer_stats import (
    APARC_COLUMNS,
    ASEG_COLUMNS,
    Stats,
    chosen,
    melted,
    read_stats,
)
from xnatfs.tables.parse.helpers import (
    UNFINISHED,
    anywhere,
    both_sides,
    checked_csv,
    emptied,
    named_values,
    number,
    unfinished,
    version_in,
    without,
)
from xnatfs.tables.spec import Column, Input, Parsed, ParseError, Parser, Row, Table, Wide

ASEG_VOLUMES = (
    *(
        "BrainSegVol",
        "BrainSegVolNotVent",
        "BrainSegVolNotVentSurf",
        "VentricleChoroidVol",
        "lhCortexVol",
        "rhCortexVol",
    ),
    *(
        "lhCerebralWhiteMatterVol",
        "rhCerebralWhiteMatterVol",
        "CerebralWhiteMatterVol",
        "SubCortGrayVol",
        "TotalGrayVol",
    ),
    *("SupraTentorialVol", "SupraTentorialVolNotVent", "SupraTentorialVolNotVentVox", "MaskVol", "eTIV"),
)
ASEG_UNITLESS = ("BrainSegVol-to-eTIV", "MaskVol-to-eTIV", "lhSurfaceHoles", "rhSurfaceHoles", "SurfaceHoles")
APARC_VOLUMES = (  # of both hemispheres: the two files repeat them
    *("BrainSegVol", "BrainSegVolNotVent", "BrainSegVolNotVentSurf", "CortexVol", "SupraTentorialVol"),
    *("SupraTentorialVolNotVent", "eTIV"),
)
APARC_OF_SIDE = (
    ("Thickness_mm", "MeanThickness"),
    ("SurfArea_mm2", "WhiteSurfArea"),
    ("unitless", "NumVert"),
)

# FreeSurfer 7 no longer writes these into aseg.stats; bx never reads them from a resource FREESURFER7.
NOT_IN_7 = frozenset(("BrainSegVolNotVentSurf", "SupraTentorialVolNotVentVox"))
# `recon-all -hires` of FreeSurfer 6 wrote these in voxels instead of mm3:
# https://surfer.nmr.mgh.harvard.edu/fswiki/BrainVolStatsFixed
WRONG_IN_HIRES = frozenset(
    (
        *(
            "BrainSegVol",
            "BrainSegVolNotVent",
            "SupraTentorialVol",
            "SupraTentorialVolNotVent",
            "SubCortGrayVol",
            "TotalGrayVol",
        ),
        *(
            "lhCerebralWhiteMatterVol",
            "rhCerebralWhiteMatterVol",
            "CerebralWhiteMatterVol",
            "lhCortexVol",
            "rhCortexVol",
            "CortexVol",
        ),
        *("MaskVol", "MaskVol-to-eTIV", "BrainSegVol-to-eTIV"),
    )
)

_REGIONS = {
    "aparc": 34,
    "aparc.a2009s": 74,
    "aparc.DKTatlas": 31,
}  # of a hemisphere: Desikan 2006, Destrieux 2010, Klein 2012


def aseg(stream: BinaryIO, _: str, ignored: Collection[str] = (), dropped: Collection[str] = ()) -> Parsed:
    """aseg.stats: header measures, then the table column by column.

    Args:
        ignored: header measures that are not looked for.
        dropped: regions that are not given although they are there.
    """
    stats = read_stats(stream, ASEG_COLUMNS)
    rows: list[Row] = []
    notes = list(stats.notes)
    missing: list[str] = []
    for measurement, wanted in (("Volume_mm3", ASEG_VOLUMES), ("unitless", ASEG_UNITLESS)):
        measures, absent, former = chosen(
            stats, [name for name in wanted if name not in ignored and name not in dropped]
        )
        rows += [(measurement, name, cell) for name, cell in measures]
        missing += absent
        notes += _former_note(former)
    rows += [(name, region, cell) for name, region, cell in melted(stats) if region not in dropped]
    notes += _missing_note(missing)
    return Parsed(("measurement", "region", "value"), rows, tuple(notes))


def aparc(stream: BinaryIO, _: str, side: str, atlas: str = "aparc", dropped: Collection[str] = ()) -> Parsed:
    """?h.aparc.stats: header measures, then the table column by column. Those of the whole brain are taken
    from the left file only.
    """
    stats = read_stats(stream, APARC_COLUMNS)
    rows: list[Row] = []
    missing: list[str] = []
    former: list[str] = []
    if side == "left":
        measures, missing, former = chosen(stats, [name for name in APARC_VOLUMES if name not in dropped])
        rows += [("", "Volume_mm3", name, cell) for name, cell in measures]
    for measurement, name in APARC_OF_SIDE:
        measures, absent, _former = chosen(stats, [name])
        rows += [(side, measurement, name, cell) for name, cell in measures]
        missing += absent
    rows += [(side, name, region, cell) for name, region, cell in melted(stats)]
    notes = [*stats.notes, *_former_note(former), *_missing_note(missing), *_few_note(stats, side, atlas)]
    return Parsed(("side", "measurement", "region", "value"), rows, tuple(notes))


def _missing_note(names: Collection[str]) -> list[str]:
    return [f"its header has no {', '.join(names)}"] if names else []


def _former_note(names: Collection[str]) -> list[str]:
    return [f"{', '.join(names)}: under the former name in its header"] if names else []


def _few_note(stats: Stats, side: str, atlas: str) -> list[str]:
    # The file does not say how many rows it has, so a table cut short at a line's end shows only here.
    if len(stats.rows) >= _REGIONS[atlas]:
        return []
    few = f"{len(stats.rows)} regions where the atlas has {_REGIONS[atlas]}"
    if UNFINISHED in stats.notes:
        raise ParseError(f"it is cut short: it has {few}, and no end of its last line")
    return [f"the {side} file has {few}"]


def subfields(stream: BinaryIO, _: str, side: str, whole: str) -> Parsed:
    """[lr]h.hippoSfVolumes-T1.v<n>.txt, [lr]h.amygNucVolumes-T1.v<n>.txt."""
    volumes = named_values(stream, (whole,), "volume")
    return Parsed(("side", "region", "value"), [(side, *pair) for pair in volumes], _remarks(stream, volumes))


def brainstem(stream: BinaryIO, _: str) -> Parsed:
    """brainstemSsVolumes.v<n>.txt."""
    volumes = named_values(stream, ("Whole_brainstem",), "volume")
    return Parsed(("region", "value"), list(volumes), _remarks(stream, volumes))


def thalamus(stream: BinaryIO, _: str) -> Parsed:
    """ThalamicNuclei.v<n>.T1.volumes.txt: `Left-AV 130.5`. Nuclei keep their own hyphens and brackets:
    `L-Sg`, `MV(Re)`.
    """
    rows: list[Row] = []
    volumes = named_values(stream, ("Left-Whole_thalamus", "Right-Whole_thalamus"), "volume")
    for name, cell in volumes:
        side, hyphen, region = name.partition("-")
        if side not in ("Left", "Right") or not hyphen:
            raise ParseError(f"{name[:60]} does not begin with Left- or Right-")
        rows.append((side.lower(), region, cell))
    return Parsed(("side", "region", "value"), rows, _remarks(stream, volumes))


def hypothalamus(stream: BinaryIO, _: str) -> Parsed:
    """hypothalamic_subunits_volumes.v<n>.csv: `subject,left anterior-inferior,...,whole left,whole right` and
    one line of values.
    """
    parsed = without(checked_csv(stream), ("subject",))
    if len(parsed.rows) != 1:
        raise ParseError(f"it has {len(parsed.rows)} rows of values, not one")
    rows: list[Row] = []
    for name, cell in zip(parsed.columns, parsed.rows[0], strict=True):
        side, _blank, region = name.partition(" ")
        if side == "whole":
            side, region = region, side
        if side not in ("left", "right") or not region:
            raise ParseError(f"its column {name[:60]!r} names no side")
        rows.append((side, region, number(cell, f"the volume of {name[:60]}")))
    return Parsed(("side", "region", "value"), rows, (*parsed.notes, *emptied(row[-1] for row in rows)))


def _remarks(stream: BinaryIO, volumes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return (*unfinished(stream), *emptied(cell for _, cell in volumes))


# --- the tables ---------------------------------------------------------------------------------------------

_LONG = (
    Column(
        "measurement",
        source="the column of the table, or Volume_mm3 / unitless for a measure of the header",
        text=True,
    ),
    Column("region", source="StructName, or the name of the measure", text=True),
    Column("value", "by measurement", "the number as written"),
)
_SIDE = Column(
    "side", source="left or right, from the file's name; empty for measures of the whole brain", text=True
)
_MM3 = (
    Column("region", source="the name before the number", text=True),
    Column("value", "mm3", "the number as written"),
)


def aparc_inputs(
    atlas: str = "aparc", dropped: Collection[str] = (), required: bool = False
) -> tuple[Input, Input]:
    """The two files of a surface atlas. Unless both are `required` each may be missing: the other's rows are
    still given.
    """
    # FreeSurfer 5.3 wrote aparc.DKTatlas40.stats.
    names = (f"{atlas}.stats", f"{atlas}40.stats") if atlas.endswith("DKTatlas") else (f"{atlas}.stats",)
    left, right = (
        Input(
            side,
            tuple(pattern for name in names for pattern in anywhere(f"{side[0]}h.{name}")),
            partial(aparc, side=side, atlas=atlas, dropped=dropped),
            required=required,
        )
        for side in ("left", "right")
    )
    return left, right


def aseg_input(ignored: Collection[str] = (), dropped: Collection[str] = ()) -> Input:
    """The file of the volume segmentation."""
    return Input("aseg", anywhere("aseg.stats"), partial(aseg, ignored=ignored, dropped=dropped))


def _subfield_inputs(name: str, whole: str) -> tuple[Input, Input]:
    left, right = (
        Input(
            side,
            f"*{side[0]}h.{name}-T1.v*.txt",
            partial(subfields, side=side, whole=whole),
            required=False,
            prefer=version_in,
        )
        for side in ("left", "right")
    )
    return left, right


def _aparc(
    pipeline: str, resource: str, name: str, atlas: str, doc: str, dropped: Collection[str] = ()
) -> Table:
    return Table(
        pipeline,
        name,
        (resource,),
        aparc_inputs(atlas, dropped),
        (_SIDE, *_LONG),
        both_sides,
        wide=Wide(("side", "region", "measurement"), ("value",)),
        doc=doc,
    )


def _subfields(pipeline: str, resource: str, name: str, whole: str, doc: str) -> Table:
    wide = Wide(("side", "region"), ("value",))
    return Table(
        pipeline,
        name,
        (resource,),
        _subfield_inputs(name, whole),
        (_SIDE, *_MM3),
        both_sides,
        wide=wide,
        doc=doc,
    )


def _pipeline(
    pipeline: str, resource: str, ignored: Collection[str] = (), dropped: Collection[str] = ()
) -> list[Table]:
    """The tables that all versions have."""
    without = " Without the measures that -hires wrote in voxels." if dropped else ""
    cortex = (
        "Cortical regions: number of vertices, area (mm2), gray matter volume (mm3), thickness (mm), "
        "curvature; whole-brain measures." + without
    )
    return [
        Table(
            pipeline,
            "aseg",
            (resource,),
            (aseg_input(ignored, dropped),),
            _LONG,
            wide=Wide(("region", "measurement"), ("value",)),
            doc="Subcortical structures: volume (mm3), voxels, intensity of the normalised image; "
            "whole-brain measures." + without,
        ),
        _aparc(pipeline, resource, "aparc", "aparc", f"Desikan-Killiany atlas. {cortex}", dropped),
        _aparc(pipeline, resource, "aparc_a2009s", "aparc.a2009s", f"Destrieux atlas. {cortex}", dropped),
        _aparc(
            pipeline,
            resource,
            "aparc_DKT",
            "aparc.DKTatlas",
            f"Desikan-Killiany-Tourville atlas. {cortex}",
            dropped,
        ),
        _subfields(
            pipeline,
            resource,
            "hippoSfVolumes",
            "Whole_hippocampus",
            "Volumes of the hippocampal subfields, from the T1.",
        ),
    ]


def _extra(name: str, pattern: str, parse: Parser, columns: tuple[Column, ...], doc: str) -> Table:
    keys = tuple(column.name for column in columns if column.name != "value")
    input = Input("volumes", pattern, parse, prefer=version_in)
    return Table(
        "freesurfer7", name, ("FREESURFER7_EXTRAS",), (input,), columns, wide=Wide(keys, ("value",)), doc=doc
    )


TABLES: tuple[Table, ...] = (
    *_pipeline("freesurfer6", "FREESURFER6"),
    *_pipeline("freesurfer6hires", "FREESURFER6_HIRES", dropped=WRONG_IN_HIRES),
    *_pipeline("freesurfer7", "FREESURFER7", ignored=NOT_IN_7),
    _subfields(
        "freesurfer7",
        "FREESURFER7",
        "amygNucVolumes",
        "Whole_amygdala",
        "Volumes of the nuclei of the amygdala, from the T1.",
    ),
    _extra(
        "brainstem",
        "*brainstemSsVolumes.v*.txt",
        brainstem,
        _MM3,
        "Volumes of the substructures of the brainstem.",
    ),
    _extra(
        "thalamus",
        "*ThalamicNuclei.v*.T1.volumes.txt",
        thalamus,
        (_SIDE, *_MM3),
        "Volumes of the thalamic nuclei.",
    ),
    _extra(
        "hypothalamus",
        "*hypothalamic_subunits_volumes.v*.csv",
        hypothalamus,
        (_SIDE, *_MM3),
        "Volumes of the hypothalamic subunits.",
    ),
)
